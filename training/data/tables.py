"""Tables of images as `datasets` reads them -> splits: in memory, decoded as they are needed, or streamed.

Every row of a set that is not streamed is looked at before anything is decoded: whether its image is gray or in colour, how
large it is, which class it has. What that took is kept, and so are the decoded images, by the content of the rows.
"""

import bisect
import itertools
import math
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from training.data.classes import Classes, counted
from training.data.pixels import Decoder, Stored, Unreadable
from training.data.report import Report, fingerprint
from training.data.splits import (
    TEST_SHARE,
    VALIDATION_SHARE,
    ArraySplit,
    Batch,
    LazySplit,
    StreamSplit,
    content_fraction,
    content_hash,
    split_masks,
)
from training.options import UsageError

DARK = 64  # of 255 levels: a set that has no brighter pixel was hardly meant so
CACHE = "genus_images_2"  # changed whenever a picture is decoded in another way


@dataclass
class Columns:
    """The columns that are read, and how messages name a row of them.

    Attributes:
        classes: None where there are none.
        places: of a split of local files, each file and its number of rows.
        folder: that holds them.
        of_images: whether the files are images, one a row.
    """

    image: str
    classes: Classes | None
    places: dict[str, list[tuple[Path, int]]]
    folder: str | None = None
    of_images: bool = False
    _ends: dict[str, list[int]] = field(default_factory=dict)

    def where(self, split: str, row: int | None) -> str:
        """A row's place: its number in the split, or in its file where that is known."""
        if row is None:
            return f"a row of {split}"
        files = self.places.get(split, [])
        if split not in self._ends:
            self._ends[split] = list(itertools.accumulate(rows for _, rows in files))
        ends = self._ends[split]
        which = bisect.bisect_right(ends, row)
        if which == len(files):
            return f"row {row} of {split}"
        file, rows = files[which]
        return str(file) if self.of_images else f"{file}, row {row - (ends[which] - rows)}"

    def class_labels(self, values: list, split: str, rows) -> np.ndarray:
        """Classes int64 (N,), -1 of rows that have none."""
        found = [self.classes.of(value, self.where(split, row)) for value, row in zip(values, rows, strict=True)]
        return np.array([-1 if number is None else number for number in found], np.int64)


def kept_file(name: str, make) -> dict[str, np.ndarray]:
    """Arrays that are kept in the cache of `datasets`, or made and put there."""
    import datasets

    folder = Path(datasets.config.HF_DATASETS_CACHE) / CACHE
    file, temporary = folder / f"{name}.npz", folder / f".{name}.{os.getpid()}.npz"
    try:
        with np.load(file) as kept:
            return dict(kept)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        pass  # not there, or cut short
    found = make()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(temporary, **found)
        os.replace(temporary, file)
    except OSError:
        temporary.unlink(missing_ok=True)  # no room for a cache is no reason to stop
    return found


@dataclass
class Look:
    """What a split holds, before its images are decoded.

    Attributes:
        table: its rows, images still as they were encoded.
        hashes: uint64 (N,), of each row's encoded image; 0 where there is none.
        kept: bool (N,), False where a row is left out.
        gray, sizes: bool (N,); int32 (N, 2), width and height.
        labels: int64 (N,), or None where there are no classes.
    """

    split: str
    table: object
    columns: Columns
    hashes: np.ndarray
    kept: np.ndarray
    gray: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray | None

    @property
    def content(self) -> str:
        """What names the cached files of these rows."""
        return f"{fingerprint([self.hashes.tobytes()])}-{self.columns.image[:40].replace('/', '_')}"

    def where(self, row: int) -> str:
        """A row's place, for a message."""
        return self.columns.where(self.split, int(row))


def encoded(table, column: str):
    """A table whose images stay as they are stored: they are decoded here, within bounds."""
    from datasets import Image

    return table.cast_column(column, Image(decode=False))


def look(table, split: str, columns: Columns, stored: Stored, report: Report) -> Look:
    """Look at every row of a table. Rows without an image, without a class or with an image that is none are left out.

    Raises:
        UsageError: an image is too large, or lies elsewhere; a label is none.
    """
    table = encoded(table, columns.image)
    hashes, empty = np.zeros(len(table), np.uint64), []

    def rows(what: str):
        return tqdm(enumerate(table[columns.image]), what, len(table), unit="row", delay=2, leave=False)

    for row, image in rows("reading"):
        if image is None or (image["bytes"] is None and image["path"] is None):
            empty.append(row)
        else:
            hashes[row] = content_hash(stored.read(image, columns.where(split, row)))

    def heads() -> dict[str, np.ndarray]:
        gray, sizes, why = np.zeros(len(table), bool), np.zeros((len(table), 2), np.int32), {}
        for row, image in rows("looking"):
            if row not in empties:
                try:
                    gray[row], sizes[row] = stored.head(image, columns.where(split, row))
                except Unreadable as error:
                    why[row] = str(error)
        return {"gray": gray, "sizes": sizes, "bad": np.array([*why], np.int64), "why": np.array([*why.values()], "U")}

    empties = set(empty)
    found = Look(split, table, columns, hashes, np.ones(len(table), bool), None, None, None)
    seen = kept_file(f"{found.content}-look", heads)
    found.gray, found.sizes = seen["gray"], seen["sizes"]
    leave_out(found, empty, "rows without an image", report)
    leave_out(found, seen["bad"], "images that cannot be read", report, seen["why"])
    if columns.classes is not None:
        found.labels = columns.class_labels(table[columns.classes.column][:], split, range(len(table)))
        unlabelled = np.flatnonzero(found.kept & (found.labels < 0))
        leave_out(found, unlabelled, f"rows whose {columns.classes.column} is empty", report)
    return found


def mode_and_size(looks: list[Look], name: str, resolution: int | None, report: Report) -> tuple[str, tuple[int, int]]:
    """Gray ("L") or, where any image is in colour, "RGB"; and the size (W, H), of all rows.

    Raises:
        UsageError: there is no row; or they are of mixed sizes, and no resolution is given.
    """
    if not any(found.kept.any() for found in looks):
        why = "; ".join(f"{why}: {names[0]}" for why, names in report.left_out.items())
        raise UsageError(f"--dataset {name}: holds no row{f' that can be used ({why})' if why else ''}")
    gray, size = True, None
    for found in looks:
        rows = np.flatnonzero(found.kept)
        gray = gray and bool(found.gray[rows].all())
        if len(rows) and resolution is None:
            size = size or tuple(map(int, found.sizes[rows[0]]))
            odd = rows[(found.sizes[rows] != size).any(1)]
            if len(odd):
                width, height = found.sizes[odd[0]]
                raise UsageError(
                    f"--dataset {name}: images of mixed sizes, {size[0]}x{size[1]} and {width}x{height} "
                    f"({found.where(odd[0])}); give --resolution to crop and scale them"
                )
    return "L" if gray else "RGB", size or (resolution, resolution)


def told(looks: list[Look], mode: str, names: list[str]) -> list[str]:
    """What was found, as a person is told."""
    count = sum(int(found.kept.sum()) for found in looks)
    grays = sum(int((found.gray & found.kept).sum()) for found in looks)
    kind = "gray" if mode == "L" else "in colour" if not grays else f"in colour, {grays} of them gray"
    copies = count - len(np.unique(np.concatenate([found.hashes[found.kept] for found in looks])))
    lines = [f"{count} images, {kind}" + (f"; {copies} are copies of others" if copies else "")]
    if names:
        labels = np.concatenate([found.labels[found.kept] for found in looks])
        lines.append(counted(names, labels))
    return lines


def leave_out(found: Look, rows, why: str, report: Report, more=None) -> None:
    """Leave rows out, and name them in the report; `more` says more of each of them."""
    found.kept[np.asarray(rows, np.int64)] = False
    names = [found.where(row).removeprefix(f"{found.columns.folder}/") for row in rows]
    report.leave_out(why, names if more is None else [f"{n}: {text}" for n, text in zip(names, more, strict=True)])


@dataclass
class _ToTensors:
    """Stored rows -> tensors; by the batch of a memory-mapped table, or one by one of a stream, still encoded.

    Attributes:
        numbers: of a memory-mapped table's rows, in the split that it was cut from.
    """

    split: str
    columns: Columns
    decode: Decoder
    numbers: np.ndarray | None = None

    def batch(self, rows: dict, indices: list[int]) -> Batch:
        """Rows of a table, a dict of lists -> x uint8 (B, C, H, W), and class_labels int64 (B,) if any."""
        numbers = [int(self.numbers[i]) for i in indices]
        images = zip(rows[self.columns.image], numbers, strict=True)
        decoded = [self.decode(image, self.columns.where(self.split, number)) for image, number in images]
        found = {"x": torch.from_numpy(np.stack(decoded))}
        if self.columns.classes is not None:
            labels = self.columns.class_labels(rows[self.columns.classes.column], self.split, numbers)
            found["class_labels"] = torch.from_numpy(labels)
        return found

    def row(self, row: dict) -> Batch:
        """One row of a stream -> x uint8 (C, H, W), and class_labels () if any."""
        image = row[self.columns.image]
        found = {"x": torch.from_numpy(self.decode(image, self.columns.where(self.split, None)))}
        if self.columns.classes is not None:
            labels = self.columns.class_labels([row[self.columns.classes.column]], self.split, [None])
            found["class_labels"] = torch.tensor(labels[0])
        return found


@dataclass
class _Cutter:
    """Cuts what `datasets` read into three splits of one sort."""

    max_memory_gb: float
    columns: Columns
    decode: Decoder
    shape: tuple[int, ...]
    report: Report = field(default_factory=Report)

    def splits(self, tables: dict, first: str) -> list:
        """Training, validation and test splits of the tables, or the looks at them, of a set; see `parts_of`."""
        validation, test = parts_of(tables, first)
        # a set that brings its own validation or test split keeps it; the others are cut from the training rows
        test_share = TEST_SHARE if test is None else 0.0
        validation_share = VALIDATION_SHARE if validation is None else 0.0
        parts = self.cut(tables[first], first, test_share, validation_share)
        for place, name in ((1, validation), (2, test)):
            if name is not None:
                parts[place] = self.cut(tables[name], name, 0.0, 0.0)[0]
        return parts


def parts_of(tables: dict, first: str) -> tuple[str | None, str | None]:
    """What a set calls its validation and its test split, None where it has none; `first` names the one to train on."""
    others = [name for name in tables if name != first]
    return next((k for k in ("validation", "valid", "val") if k in others), None), "test" if "test" in others else None


class TableCutter(_Cutter):
    def cut(self, found: Look, name: str, test: float, validation: float) -> list:
        rows = np.flatnonzero(found.kept)
        if len(rows) * math.prod(self.shape) > self.max_memory_gb * 2**30:
            table = found.table
            if self.columns.classes is None:
                table = table.select_columns([self.columns.image])
            else:
                table = table.select_columns([self.columns.image, self.columns.classes.column])
            numbers = [rows[mask] for mask in split_masks(fractions(found.hashes[rows]), test, validation)]
            return [LazySplit(table.select(n), _ToTensors(name, self.columns, self.decode, n).batch) for n in numbers]
        x, kept = self.decoded(found, rows)
        rows = rows[kept]
        if kept.any() and 0 < (brightest := int(x.max())) < DARK:
            self.report.warnings.append(
                f"no pixel of {name} is brighter than level {brightest} of 255: 16-bit images are scaled from 0 to 65535, so "
                "scale darker ones up before"
            )
        columns = {"x": x[kept], "class_labels": None if found.labels is None else found.labels[rows]}
        present = {key: torch.from_numpy(column) for key, column in columns.items() if column is not None}
        masks = split_masks(fractions(found.hashes[rows]), test, validation)
        return [
            ArraySplit({key: column[mask] for key, column in present.items()}) for mask in map(torch.from_numpy, masks)
        ]

    def decoded(self, found: Look, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (n, C, H, W) of these rows, and which of them can be read; kept, so that the next run only reads it."""

        def decode() -> dict[str, np.ndarray]:
            x, why = np.zeros((len(rows), *self.shape), np.uint8), {}
            images = found.table.select(rows)[self.columns.image]
            for i, image in tqdm(enumerate(images), "decoding", len(rows), unit="image", delay=2, leave=False):
                try:
                    x[i] = self.decode.decoded(image, found.where(rows[i]))
                except Unreadable as error:
                    why[i] = str(error)
            return {"x": x, "bad": np.array([*why], np.int64), "why": np.array([*why.values()], "U")}

        size = "own" if self.decode.resolution is None else self.decode.resolution
        seen = kept_file(f"{found.content}-{self.decode.mode}-{size}-{fingerprint([rows.tobytes()])[:8]}", decode)
        kept = np.ones(len(rows), bool)
        kept[seen["bad"]] = False
        leave_out(found, rows[seen["bad"]], "images that cannot be read", self.report, seen["why"])
        return seen["x"], kept


def fractions(hashes: np.ndarray) -> np.ndarray:
    """Of each row the number in [0, 1) that decides its split, see `content_fraction`."""
    return hashes.astype(np.float64) / 2**64


class StreamCutter(_Cutter):
    def cut(self, table, name: str, test: float, validation: float) -> list[StreamSplit]:
        # kept encoded until a row is known to belong to the split
        rows, to_tensors = encoded(table, self.columns.image), _ToTensors(name, self.columns, self.decode)
        limits = [(test + validation, 1.0), (test, test + validation), (0.0, test)]
        whole = test + validation == 0
        return [StreamSplit(rows, to_tensors.row, _Within(to_tensors, *limit, whole)) for limit in limits]


@dataclass
class _Within:
    """Whether a row has a class where there are classes, and its content falls into [low, high); asked of each row."""

    rows: _ToTensors
    low: float
    high: float
    whole: bool

    def __call__(self, row) -> bool:
        columns, where = self.rows.columns, self.rows.columns.where(self.rows.split, None)
        if columns.classes is not None and columns.classes.of(row[columns.classes.column], where) is None:
            return False
        if self.whole:
            return True
        return self.low <= content_fraction(self.rows.decode.stored.read(row[columns.image], where)) < self.high
