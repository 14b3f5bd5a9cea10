"""The tables of all models in docs/measured.md, from the records in checkpoints/.

python -m training.leaderboard              # write them
python -m training.leaderboard --check      # only say whether they are up to date: exit code 1 where they are not
"""

from pathlib import Path

from training.figures import all_tables
from training.files import write_atomically
from training.options import LineParser, UsageError, command_line
from training.publishing.markdown import plain

ROOT = Path(__file__).resolve().parents[1]
PAGE = "docs/measured.md"
BEGIN, END = "<!-- leaderboard: python -m training.leaderboard -->", "<!-- end of the leaderboard -->"


def markdown(checkpoints: Path) -> str:
    """The tables of `all_tables`, each under its title, its notes below."""
    made = []
    for table in all_tables(checkpoints):
        rows = [[f"`{name}`", *map(plain, cells)] for name, *cells in table["rows"]]
        lines = [table["columns"], ["---"] * len(table["columns"]), *rows]
        text = f"### {table['title']}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)
        made.append("\n\n".join([text, *map(plain, table["notes"])]))
    return "\n\n".join(made)


def with_tables(text: str, content: str) -> str:
    """`text` with `content` between the marks.

    Raises:
        UsageError: a mark is missing.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UsageError(f"{PAGE}: needs the lines {BEGIN} and {END}, once each")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{rest.split(END)[1]}"


def main(argv: list[str] | None = None) -> None:
    parser = LineParser(prog="python -m training.leaderboard", description=__doc__)
    parser.add_argument(
        "--check",
        action="store_true",
        help="only say whether the tables are up to date: exit code 1 where they are not",
    )
    options = parser.parse_args(argv)
    file = ROOT / PAGE
    text = file.read_text(encoding="utf-8")
    new = with_tables(text, markdown(ROOT / "checkpoints"))
    if options.check:
        if new != text:
            print(f"{PAGE}: the tables are not those of checkpoints/; run python -m training.leaderboard")
            raise SystemExit(1)
        return
    write_atomically(file, new)


if __name__ == "__main__":
    command_line(main)
