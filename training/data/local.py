"""Local files, which may come from anywhere: what of a folder is read, and bounds of a table before a library reads it.

The libraries that read tables take them as they are: a line of brackets ends Arrow's reader of JSON and the process with it,
a million columns keep pandas busy for minutes, a hundred bytes of parquet can claim any number of rows.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from training.data.report import Report
from training.files import MOST_DEPTH
from training.options import UsageError, one_line

MOST_LINE, MOST_COLUMNS, MOST_FOOTER = 2**24, 10_000, 2**26  # bytes, names, bytes
FEW_ROWS, FEW_BYTES, MOST_GROWTH = (
    10**6,
    2**30,
    100,
)  # of parquet: what any file may hold, and times that larger ones grow


def roots_of(folder: Path) -> list[str]:
    """The real folders in which what belongs to a folder may lie."""
    real = folder.resolve()
    # a snapshot in the cache of the Hub is a folder of links to the files beside it
    beside = [parent.parent / "blobs" for parent in (real, *real.parents) if parent.name == "snapshots"]
    return [str(root) for root in (real, *beside)]


def lies_in(path: str | Path, roots: list[str]) -> bool:
    """Whether a path, its links resolved, lies in one of these real folders."""
    try:
        real = os.path.realpath(path)
    except ValueError:  # a NUL in it
        return False
    return any(os.path.commonpath([real, root]) == root for root in roots)


def files_within(folder: Path, named: str, report: Report | None = None) -> list[Path]:
    """The regular files of a folder, sorted; hidden ones and folders that are links are left out.

    Args:
        named: the option that named the folder.
        report: takes note of what is left out.

    Raises:
        UsageError: it holds links that lead out of it, pipes or devices: no file is opened but those that were given.
    """
    roots, found, out, report = roots_of(folder), [], [], report or Report()
    for place, folders, files in os.walk(folder):
        hidden = [Path(place, name).relative_to(folder) for name in (*folders, *files) if name.startswith(".")]
        report.leave_out("hidden files and folders", sorted(hidden))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*folders, *(name for name in files if not name.startswith("."))):
            path = Path(place, name)
            if path.is_symlink() and not lies_in(path, roots):
                out.append(path)
            elif path.is_file():
                found.append(path)
            elif path.is_symlink():
                what = "links to folders" if path.is_dir() else "links to nothing"
                report.leave_out(what, [path.relative_to(folder)])
            elif path.exists() and not path.is_dir():
                kind = "a pipe" if stat.S_ISFIFO(path.stat().st_mode) else "no regular file"
                raise UsageError(f"{named} {folder}: {path.relative_to(folder)} is {kind}; take it out")
    if out:
        first = min(out).relative_to(folder)
        raise UsageError(
            f"{named} {folder}: {len(out)} links lead out of it, like {first}; put the files themselves there"
        )
    return sorted(found)


WORDS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
}  # fmt: skip


def split_folders(files: list[Path], folder: Path) -> dict[Path, tuple[str | None, tuple[str, ...]]]:
    """Of each file in a folder the split that a folder makes it part of, if one does, and the folders below that one.

    Folders make splits where all that lie beside each other are called by words of splits: `train/`, `test/`; among
    others, like `bus/`, `train/`, `tram/`, such a word is only a name.
    """
    inner = {file: file.relative_to(folder).parts[:-1] for file in files}
    beside: dict[tuple[str, ...], set[str]] = {}
    for parts in inner.values():
        for depth, name in enumerate(parts):
            beside.setdefault(parts[:depth], set()).add(name.lower())
    found = {}
    for file, parts in inner.items():
        depth = next((d for d in range(len(parts)) if beside[parts[:d]] <= WORDS.keys()), None)
        found[file] = (None, parts) if depth is None else (WORDS[parts[depth].lower()], parts[depth + 1 :])
    return found


def by_split(files: list[Path], folder: Path, by_name: bool = True) -> dict[str, list[Path]]:
    """Files of a folder by the split that they belong to: "train", "test" or "validation".

    Folders make splits, see `split_folders`; else, `by_name`, the files' own names do: `train.txt`,
    `test-00000-of-00001.parquet`. A name that goes on in words, like `test-drive.txt`, does so only where the name of
    every file begins with the word of a split.
    """
    word, placed = f"({'|'.join(WORDS)})", split_folders(files, folder)
    all_begin_so = all(re.match(word + r"([-_.]|$)", file.stem.lower()) for file in files)
    rest = r"([-_.].*)?" if all_begin_so else r"([-_.]?\d[\w.-]*)?"
    found: dict[str, list[Path]] = {}
    for file in files:
        named = re.fullmatch(word + rest, file.stem.lower()) if by_name else None
        found.setdefault(placed[file][0] or (WORDS[named[1]] if named else "train"), []).append(file)
    return found


def lines_of(file: Path) -> Iterator[bytes]:
    """The lines of a text file.

    Raises:
        UsageError: one is longer than any line of a table, or no text in UTF-8.
    """
    with open(file, "rb") as opened:
        number = 0
        while line := opened.readline(MOST_LINE + 1):
            number += 1
            if len(line) > MOST_LINE:
                raise UsageError(
                    f"{file}: line {number} is longer than {MOST_LINE >> 20} MB; a row takes a line of its own"
                )
            if b"\0" in line:
                raise UsageError(f"{file}: line {number} holds a NUL byte; it must be text")
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = f"0x{line[error.start]:02x}"
                raise UsageError(f"{file}: byte {byte} in line {number} is not UTF-8; save the file as UTF-8") from None
            yield line


DELIMITERS = (",", ";", "\t", "|")


def delimiter_of(file: Path) -> str:
    """What parts the cells of a table of text: that of `DELIMITERS` which parts its first line into most, a comma if none."""
    first = next((line for line in lines_of(file) if line.strip()), b"").decode("utf-8-sig")
    plain = re.sub(r'"[^"]*"', "", first)
    return max(DELIMITERS, key=plain.count)


def check_table(file: Path) -> int | None:
    """Look at a CSV, JSON or parquet file before a library reads it. Returns the rows of parquet.

    Raises:
        UsageError: it is damaged, or would take far more than its size to read; one line that names file and line.
    """
    if file.suffix.lower() == ".parquet":
        return _check_parquet(file)
    depth = 0
    for number, line in enumerate(lines_of(file), 1):
        if file.suffix.lower() == ".csv" and number <= 2:
            if line.count(b",") >= MOST_COLUMNS:
                _check_columns(file, 1 + re.sub(rb'"[^"]*"', b"", line).count(b","), number)
        elif file.suffix.lower() != ".csv":
            marks = line.count(b"{") + line.count(b"[")
            if (
                depth
                or marks > MOST_DEPTH
                or line.count(b":") > MOST_COLUMNS
                or marks != line.count(b"}") + line.count(b"]")
            ):
                line = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", line)
                _check_columns(file, line.count(b":"), number)
                for mark in re.findall(rb"[\[\]{}]", line):
                    depth += 1 if mark in b"[{" else -1
                    if depth > MOST_DEPTH:
                        raise UsageError(f"{file}: line {number} nests deeper than {MOST_DEPTH} levels; a row is flat")
    return None


def _check_columns(file: Path, count: int, line: int | None = None) -> None:
    if count > MOST_COLUMNS:
        where = "" if line is None else f"line {line} has "
        raise UsageError(f"{file}: {where}{count} columns; it must have at most {MOST_COLUMNS}")


def _check_parquet(file: Path) -> int:
    import pyarrow.parquet as pq

    size = file.stat().st_size
    try:
        with open(file, "rb") as opened:
            opened.seek(-min(8, size), os.SEEK_END)
            tail = opened.read(8)
        if tail[4:] != b"PAR1":
            raise ValueError("it does not end like one; it may be cut short")
        if int.from_bytes(tail[:4], "little") > min(size, MOST_FOOTER):
            raise ValueError(f"its description takes {int.from_bytes(tail[:4], 'little')} bytes")
        about = pq.read_metadata(file)
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        raise UsageError(f"{file}: no parquet file that can be read ({one_line(error, 200)})") from None
    _check_columns(file, about.num_columns)
    grown = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    if about.num_rows > max(FEW_ROWS, size) or grown > max(FEW_BYTES, MOST_GROWTH * size):
        raise UsageError(
            f"{file}: claims {about.num_rows} rows and {grown} bytes of content in {size} bytes; it is no such set"
        )
    return about.num_rows
