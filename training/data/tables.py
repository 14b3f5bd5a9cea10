"""Tables of images as `datasets` reads them -> splits: in memory, decoded as they are needed, or streamed."""

import bisect
import itertools
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from training.data.pixels import Decoder
from training.data.splits import (
    TEST_SHARE,
    VALIDATION_SHARE,
    Batch,
    LazySplit,
    StreamSplit,
    content_fraction,
    cut_arrays,
    split_masks,
)
from training.options import UsageError


@dataclass
class Columns:
    """The columns that are read, and how messages name a row of them.

    Attributes:
        label: None where there are no classes; `classes` names them.
        places: of a split of local parquet files, each file and its number of rows.
    """

    image: str
    label: str | None
    places: dict[str, list[tuple[Path, int]]]
    classes: list[str]

    def where(self, split: str, row: int | None) -> str:
        """A row's place: its number in the split, or in its file where that is known."""
        if row is None:
            return f"a row of {split}"
        files = self.places.get(split, [])
        ends = list(itertools.accumulate(rows for _, rows in files))
        which = bisect.bisect_right(ends, row)
        if which == len(files):
            return f"row {row} of {split}"
        return f"{files[which][0]}, row {row - (ends[which] - files[which][1])}"

    def class_labels(self, values: list, split: str, rows=None, most: int | None = None) -> np.ndarray:
        """Classes int64 (N,), checked.

        Raises:
            UsageError: one is no whole number below `most`, or below the number of classes.
        """
        most = len(self.classes) if most is None else most
        for i, value in enumerate(values):
            if type(value) is not int or not 0 <= value < most:
                where = self.where(split, i if rows is None else rows[i])
                raise UsageError(
                    f"--label_column {self.label}: {where} holds {value!r}; a class must be a whole number from 0 to "
                    f"{most - 1}"
                )
        return np.array(values, np.int64)


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
        if self.columns.label:
            labels = self.columns.class_labels(rows[self.columns.label], self.split, numbers)
            found["class_labels"] = torch.from_numpy(labels)
        return found

    def row(self, row: dict) -> Batch:
        """One row of a stream -> x uint8 (C, H, W), and class_labels () if any."""
        image = row[self.columns.image]
        found = {"x": torch.from_numpy(self.decode(image, self.columns.where(self.split, None)))}
        if self.columns.label:
            found["class_labels"] = torch.tensor(
                self.columns.class_labels([row[self.columns.label]], self.split, [None])[0]
            )
        return found


@dataclass
class _Cutter:
    """Cuts what `datasets` read into three splits of one sort."""

    max_memory_gb: float
    columns: Columns
    decode: Decoder
    shape: tuple[int, ...]

    def splits(self, tables: dict, first: str) -> list:
        """Training, validation and test splits of the tables of a set; `first` names the one to train on."""
        others = {name: table for name, table in tables.items() if name != first}
        validation = next((k for k in ("validation", "valid", "val") if k in others), None)
        test = "test" if "test" in others else None
        # a set that brings its own validation or test split keeps it; the others are cut from the training rows
        test_share = TEST_SHARE if test is None else 0.0
        validation_share = VALIDATION_SHARE if validation is None else 0.0
        parts = self.cut(tables[first], first, test_share, validation_share)
        for place, name in ((1, validation), (2, test)):
            if name is not None:
                parts[place] = self.cut(others[name], name, 0.0, 0.0)[0]
        return parts

    def encoded(self, table):
        """A table whose images stay as they are stored: they are decoded here, within bounds."""
        from datasets import Image

        return table.cast_column(self.columns.image, Image(decode=False))


class TableCutter(_Cutter):
    def cut(self, table, name: str, test: float, validation: float) -> list:
        table = self.encoded(table)
        images = table[self.columns.image]
        where = np.ones(len(table))
        if test + validation > 0:
            found = (self.decode.stored.read(image, self.columns.where(name, i)) for i, image in enumerate(images))
            where = np.array([content_fraction(content) for content in found])
        if len(table) * math.prod(self.shape) > self.max_memory_gb * 2**30:
            return self.cut_lazily(table, name, where, test, validation)
        labels = self.columns.class_labels(table[self.columns.label], name) if self.columns.label else None
        return cut_arrays({"x": self.decoded(table, name), "class_labels": labels}, where, test, validation)

    def decoded(self, table, name: str) -> np.ndarray:
        """uint8 (N, C, H, W); kept beside the Arrow files, so that the next run only reads it."""
        import datasets

        size = "own" if self.decode.resolution is None else self.decode.resolution
        folder = Path(datasets.config.HF_DATASETS_CACHE) / "genus_decoded"
        file = folder / f"{table._fingerprint}-{self.columns.image}-{self.decode.mode}-{size}.npy"
        try:
            x = np.load(file)
            if x.shape == (len(table), *self.shape) and x.dtype == np.uint8:
                return x
        except (OSError, ValueError, EOFError):
            pass  # not there, or cut short
        x = np.empty((len(table), *self.shape), np.uint8)
        for i, image in enumerate(table[self.columns.image]):
            x[i] = self.decode(image, self.columns.where(name, i))
        temporary = folder / f".{file.name}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as out:
                np.save(out, x)
            os.replace(temporary, file)
        except OSError:
            temporary.unlink(missing_ok=True)  # no room for a cache is no reason to stop
        return x

    def cut_lazily(self, table, name: str, where: np.ndarray, test: float, validation: float) -> list[LazySplit]:
        table = table.select_columns([c for c in (self.columns.image, self.columns.label) if c])
        numbers = [np.flatnonzero(mask) for mask in split_masks(where, test, validation)]
        return [LazySplit(table.select(n), _ToTensors(name, self.columns, self.decode, n).batch) for n in numbers]


class StreamCutter(_Cutter):
    def cut(self, table, name: str, test: float, validation: float) -> list[StreamSplit]:
        # kept encoded until a row is known to belong to the split
        rows, to_tensors = self.encoded(table), _ToTensors(name, self.columns, self.decode)
        limits = [(test + validation, 1.0), (test, test + validation), (0.0, test)]
        whole = test + validation == 0
        return [StreamSplit(rows, to_tensors.row, _Within(to_tensors, *limit, whole)) for limit in limits]


@dataclass
class _Within:
    """Whether a row's content falls into [low, high); asked of each streamed row."""

    rows: _ToTensors
    low: float
    high: float
    whole: bool

    def __call__(self, row) -> bool:
        if self.whole:
            return True
        columns = self.rows.columns
        content = self.rows.decode.stored.read(row[columns.image], columns.where(self.rows.split, None))
        return self.low <= content_fraction(content) < self.high
