"""The table of all models in the README, from the records in checkpoints/.

python -m training.leaderboard              # write it
python -m training.leaderboard --check      # only say whether it is up to date: exit code 1 where it is not
"""

import json
from pathlib import Path

from training.loops.common import write_atomically
from training.options import LineParser, UsageError, command_line

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- leaderboard: python -m training.leaderboard -->", "<!-- end of the leaderboard -->"
COLUMNS = (
    "model", "test data", "parameters", "minutes to train", "nats", "bits/dim", "Fréchet distance (floor)",
    "precision, recall", "class accuracy", "squared error", "ms an image (batch 64)",
)  # fmt: skip


LANGUAGE_COLUMNS = (
    "language model", "held-out text", "parameters", "minutes to train", "context, stride", "nats a token",
    "perplexity", "bits/byte", "tokens/s (batch 1, 16)",
)  # fmt: skip


def row(folder: Path) -> list[str]:
    """One model's cells; empty where a figure does not apply."""
    run, found = (json.loads((folder / name).read_text()) for name in ("run.json", "results.json"))

    def figure(key: str, digits: int) -> str:
        return f"{found[key]:.{digits}f}" if key in found else ""

    nats = figure("nats", 2) and f"{figure('nats', 2)} ± {found['nats_standard_error']:.2f}"
    if nats and found["likelihood"] == "bound":
        nats = f"≤ {nats}"
    distance = figure("frechet_distance", 2)
    if distance:
        distance += f" ({found['floor']['frechet_distance']:.2f})"
    spread = f"{figure('precision', 2)}, {figure('recall', 2)}" if "precision" in found else ""
    accuracy = found.get("accuracy", found.get("class_accuracy"))
    speed = f"{1000 * found['seconds_per_image']['64']:.2f}" if "seconds_per_image" in found else ""
    return [
        f"`{folder.name}`", found["dataset"], f"{found['parameters'] / 1e6:.2f} M", f"{run['seconds'] / 60:.1f}",
        nats, figure("bits_per_dim", 3), distance, spread, "" if accuracy is None else f"{accuracy:.2%}", figure("reconstruction_error", 4), speed,
    ]  # fmt: skip


def language_row(folder: Path) -> list[str]:
    run, found = (json.loads((folder / name).read_text()) for name in ("run.json", "results.json"))
    speed = found["tokens_per_second"]
    return [
        f"`{folder.name}`", found["dataset"], f"{found['parameters'] / 1e6:.2f} M", f"{run['seconds'] / 60:.1f}",
        f"{found['context_length']}, {found['stride']}",
        f"{found['nats_per_token']:.3f} ± {found['nats_per_token_standard_error']:.3f}",
        f"{found['perplexity']:.2f}", f"{found['bits_per_byte']:.3f}", f"{speed['1']:,}, {speed['16']:,}",
    ]  # fmt: skip


def table(checkpoints: Path) -> str:
    """Markdown, a row for each checkpoint that was evaluated, by name; language models in a table of their own."""
    folders = sorted(file.parent for file in checkpoints.glob("*/results.json"))
    language = [f for f in folders if "bits_per_byte" in json.loads((f / "results.json").read_text())]
    tables = [[COLUMNS, ["---"] * len(COLUMNS), *(row(f) for f in folders if f not in language)]]
    if language:
        tables.append([LANGUAGE_COLUMNS, ["---"] * len(LANGUAGE_COLUMNS), *map(language_row, language)])
    return "\n\n".join("\n".join("| " + " | ".join(cells) + " |" for cells in rows) for rows in tables)


def filled(text: str, content: str) -> str:
    """`text` with `content` between the marks.

    Raises:
        UsageError: a mark is missing.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UsageError(f"README.md: needs the lines {BEGIN} and {END}, once each")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{rest.split(END)[1]}"


def main(argv: list[str] | None = None) -> None:
    parser = LineParser(prog="python -m training.leaderboard", description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(argv)
    file = ROOT / "README.md"
    text = file.read_text(encoding="utf-8")
    new = filled(text, table(ROOT / "checkpoints"))
    if options.check:
        if new != text:
            print("README.md: the leaderboard is not that of checkpoints/; run python -m training.leaderboard")
            raise SystemExit(1)
        return
    write_atomically(file, new)


if __name__ == "__main__":
    command_line(main)
