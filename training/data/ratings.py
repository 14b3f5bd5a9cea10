"""Tables of ratings: a row for each person and a column for each item, or one rating a line, as MovieLens has it.

In the second, `--user_column`, `--item_column` and `--rating_column` name the columns; what they are called tells them where
that is plain. Cells are parted by what parts the first line: a comma, a semicolon, a tab or a bar.
"""

import csv
import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from training.data.classes import in_order
from training.data.local import delimiter_of, lines_of
from training.data.report import Report, fingerprint
from training.data.source import DataSource
from training.data.splits import ArraySplit
from training.options import UsageError, option

MOST_ITEMS, MOST_RATINGS = 100_000, 50_000_000  # columns of a table, and its cells
ROLES = {  # what columns are called, in letters alone
    "user": ("user", "userid", "username", "customer", "customerid", "reviewer", "reviewerid", "person", "personid"),
    "item": ("item", "itemid", "movie", "movieid", "film", "filmid", "product", "productid", "book", "bookid", "isbn",
             "song", "songid", "track", "trackid", "artist", "artistid", "dish", "title"),
    "rating": ("rating", "ratings", "score", "stars"),
}  # fmt: skip


@dataclass
class RatingOptions:
    """Ratings in the place of --dataset."""

    GROUP: ClassVar[str] = "data"

    ratings: str | None = option(None, "CSV file of ratings, instead of --dataset")
    user_column: str | None = option(None, "column that says who rates, of a file with one rating a line")
    item_column: str | None = option(None, "column that says what is rated, of a file with one rating a line")
    rating_column: str | None = option(None, "column that holds the rating, of a file with one rating a line")

    def columns(self) -> dict[str, str | None]:
        """The columns that are named, by their role."""
        return {"user": self.user_column, "item": self.item_column, "rating": self.rating_column}


def load_ratings(options: RatingOptions) -> DataSource:
    """The table that --ratings names: x float32 (N, D), a person a row and an item a column, NaN where there is no rating.

    Raises:
        UsageError: no such file, too large a one, no such columns, rows of mixed lengths, or a cell that is no number.
    """
    file, report = options.ratings, Report()
    if not Path(file).is_file():
        there = Path(file).exists()
        raise UsageError(f"--ratings {file}: {'it is no regular file' if there else 'there is no such file'}")
    rows = _rows(file, report)
    _, header = next(rows, (0, []))
    if len(header) < 2:
        raise UsageError(
            f"--ratings {file}: its first line has {len(header)} cells; it must name columns, parted by , ; | or tabs"
        )
    if all(_is_number(name) for name in header):
        raise UsageError(f"--ratings {file}: its first line holds numbers alone; it must name the columns")
    places = _places(header, options)
    if places is None:
        names, x = _table(file, header, rows, report)
    else:
        names, x = _one_a_line(file, header, rows, places, report)
    name, nothing = Path(file).name, ArraySplit({"x": torch.empty(0, len(names))})
    return DataSource(
        name, name, ArraySplit({"x": x}), nothing, nothing, kind="vector", shape=(len(names),), item_names=names,
        report=report, fingerprint=fingerprint(["\n".join(names).encode(), x.numpy().tobytes()]),
    )  # fmt: skip


def _rows(file: str, report: Report) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold anything, and the line that each begins in, as an editor counts."""
    begins, blank = 1, []
    rows = csv.reader(_lines(file), delimiter=delimiter_of(Path(file)))
    try:
        for row in rows:
            row = [cell.strip() for cell in row]
            if any(row):
                yield begins, row
            else:
                blank.append(f"line {begins}")
            begins = rows.line_num + 1
    except csv.Error as error:
        raise UsageError(f"--ratings {file}: line {begins} is no line of a table ({error})") from None
    report.leave_out("blank lines", blank)


def _lines(file: str) -> Iterator[str]:
    number = 0
    for raw in lines_of(Path(file)):
        text = raw.decode("utf-8-sig" if number == 0 else "utf-8")
        for line in re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text):
            number += 1
            if line.count(",") + line.count(";") >= MOST_ITEMS:
                raise UsageError(f"--ratings {file}: line {number} has more than {MOST_ITEMS} cells; a table has fewer")
            yield re.sub(r"[\r\n]+$", "\n", line)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _rating(cell: str, where: str) -> float:
    """A rating, NaN where there is none; a comma may part its decimals."""
    if not cell:
        return math.nan
    try:
        return float(cell.replace(",", ".") if re.fullmatch(r"-?\d+,\d+", cell) else cell)
    except ValueError:
        raise UsageError(f"{where}: {cell!r:.100} is no number; a cell holds one, or nothing") from None


def _places(header: list[str], options: RatingOptions) -> dict[str, int] | None:
    """Which columns hold user, item and rating; None where the file is a row for each person.

    Raises:
        UsageError: an option names no column, or a column can be told for some of them only.
    """
    given, found = options.columns(), {}
    for role, column in given.items():
        if column is not None and column not in header:
            raise UsageError(f"--{role}_column {column}: --ratings {options.ratings} has {', '.join(header)}")
        called = [re.sub("[^a-z]", "", name.lower()) for name in header]
        place = next((i for i, name in enumerate(called) if name in ROLES[role]), None)
        found[role] = place if column is None else header.index(column)
    lacking = [role for role, place in found.items() if place is None]
    if not lacking:
        return found
    if any(given.values()) or (found["rating"] is not None and len(lacking) == 1):
        raise UsageError(
            f"--{lacking[0]}_column is not given, and no column of {', '.join(header)} is plainly it; --ratings "
            f"{options.ratings} seems to hold one rating a line"
        )
    return None


def _table(file: str, header: list[str], rows: Iterator, report: Report) -> tuple[list[str], Tensor]:
    """A row for each person."""
    while not header[-1]:  # Excel pads with empty columns
        header = header[:-1]
    if "" in header[1:]:
        raise UsageError(f"--ratings {file}: column {header.index('', 1) + 1} of its first line has no name")
    table, unrated = [], []
    for line, row in rows:
        where = f"--ratings {file}: line {line}"
        while len(row) > len(header) and not row[-1]:
            row = row[:-1]
        if len(row) != len(header):
            raise UsageError(f"{where} has {len(row)} cells; it must have {len(header)}")
        cells = zip(row[1:], header[1:], strict=True)
        numbers = torch.tensor([_rating(cell, f"{where}, {name}") for cell, name in cells])
        if numbers.isnan().all():
            unrated.append(f"line {line}, {row[0]}")
            continue
        table.append(numbers)
        if len(table) * len(header) > MOST_RATINGS:
            raise UsageError(f"{where}: there are more than {MOST_RATINGS} cells by now; a table has fewer")
    if not table:
        raise UsageError(f"--ratings {file}: holds no ratings; it needs a line of names, and one for each person")
    report.leave_out("people who rate nothing", unrated)
    x = torch.stack(table)
    rated = ~x.isnan().all(0)
    report.leave_out("items that no one rates", [n for n, known in zip(header[1:], rated, strict=True) if not known])
    names = [name for name, known in zip(header[1:], rated, strict=True) if known]
    report.found.append(_counted(x, len(names), "a row for each person"))
    return names, x[:, rated]


def _one_a_line(
    file: str, header: list[str], rows: Iterator, places: dict[str, int], report: Report
) -> tuple[list[str], Tensor]:
    """One rating a line."""
    users, items, values = {}, {}, array("d")
    pairs, lines, empty = array("q"), array("q"), []
    for line, row in rows:
        where = f"--ratings {file}: line {line}"
        if len(row) < len(header) or any(row[len(header) :]):
            raise UsageError(f"{where} has {len(row)} cells; it must have {len(header)}")
        user, item, rating = (row[places[role]] for role in ROLES)
        if not (user and item and rating):
            empty.append(f"line {line}")
            continue
        values.append(_rating(rating, f"{where}, {header[places['rating']]}"))
        pairs.extend((users.setdefault(user, len(users)), items.setdefault(item, len(items))))
        lines.append(line)
    if not values:
        raise UsageError(f"--ratings {file}: holds no ratings; it needs a line of names, and one for each rating")
    if len(items) > MOST_ITEMS or len(users) * len(items) > MOST_RATINGS:
        raise UsageError(
            f"--ratings {file}: {len(users)} users and {len(items)} items make {len(users) * len(items)} cells; a table has "
            f"at most {MOST_RATINGS}, and {MOST_ITEMS} items"
        )
    names = in_order(items) if not all(map(_is_number, items)) else sorted(items, key=float)
    place = {name: i for i, name in enumerate(names)}
    column = np.array([place[name] for name in items])
    who, what = np.array(pairs).reshape(-1, 2).T
    cells = who * len(items) + column[what]
    x = np.full(len(users) * len(items), np.nan, np.float32)
    _, last = np.unique(cells[::-1], return_index=True)
    again = np.setdiff1d(np.arange(len(cells)), len(cells) - 1 - last)
    x[cells] = values  # of several for one cell the last one stays
    used = [header[places[role]] for role in ROLES]
    report.leave_out("columns that are not used", [name or "one without a name" for name in header if name not in used])
    report.leave_out("lines without a user, an item or a rating", empty)
    report.leave_out("ratings that a later line gives again", [f"line {lines[i]}" for i in again])
    found = torch.from_numpy(x.reshape(len(users), len(items)))
    report.found.append(_counted(found, len(names), f"one a line: {', '.join(used)}"))
    return names, found


def _counted(x: Tensor, items: int, layout: str) -> str:
    return f"{int((~x.isnan()).sum())} ratings of {items} items by {len(x)} people, {layout}"
