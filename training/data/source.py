"""A source: three splits, what they hold, and how a batch of them is brought to a network and to a pipeline.

Three ways lead from stored rows, and nothing else knows how they are stored:
    source.prepare(batch, spec, generator)   what a network is trained on
    source.as_input(batch, spec, generator)  what a pipeline's calls take as x
    source.describe()                        what run.json says of the data

A reader is a module of training/data/ that a source names by `reader`, so that training.evaluate finds its data again:
    held_out(dataset, data_dir, options, same_set)   what to measure on; `options` are those of the run
    kept_rows(dataset)                               (source, batch) of rows that are kept with the project, or None
"""

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from training.data.batches import batches_in_order
from training.data.report import Report
from training.data.splits import ArraySplit, Batch, StreamSplit
from training.options import UsageError


@dataclass
class Source:
    """What every source has, whatever its batches hold.

    Attributes:
        name: as --dataset names it.
        dataset_id: what the card names: the Hub id, or the name of an embedded set.
        licence: of the data, as the set's own page states it; None where it is not known.
        url: the page of the data, where it is no set of the Hub.
        language: of texts, as two letters (ISO 639-1).
        reader: the module of training/data/ that reads the set again, for evaluating.
        held_out: what figures are measured on, as a card says it.
        units_per_row: how many of the family's units (images, tokens) a row holds: what speed is counted in.
        rows_at_once: of a held-out split, that fit into memory with what a network makes of them.
        class_names: one name for each class; empty where there are no classes.
        kind: "image", "vector" or "text": what results.json calls the kind of the data.
        report: what was found and what was left out.
        fingerprint: tells data from other data; a run goes on with its own alone. None where they are not known whole.
    """

    name: str
    dataset_id: str
    train: Dataset
    validation: Dataset
    test: Dataset
    licence: str | None = None
    url: str | None = None
    language: str | None = None
    class_names: list[str] = ()
    reader: ClassVar[str] = "images"
    held_out: str = "test images"
    units_per_row: int = 1
    rows_at_once: int = 500
    kind: str = "text"
    report: Report = field(default_factory=Report)
    fingerprint: str | None = None

    @property
    def rows(self) -> dict[str, int | None]:
        """How many rows each split has; None of a stream."""
        splits = {name: getattr(self, name) for name in ("train", "validation", "test")}
        return {name: None if isinstance(split, StreamSplit) else len(split) for name, split in splits.items()}

    def prepare(self, batch: Batch, spec: dict, generator: torch.Generator | None = None) -> Batch:
        """A stored batch as the network of this data spec is trained on it: here the batch itself."""
        return batch

    def describe(self) -> dict:
        """As run.json keeps it."""
        return {
            "name": self.name,
            "id": self.dataset_id,
            "licence": self.licence,
            "url": self.url,
            "language": self.language,
            "reader": self.reader,
            "held_out": self.held_out,
            "rows": self.rows,
            "class_names": list(self.class_names),
            "fingerprint": self.fingerprint,
            **self.report.record(),
        }


@dataclass
class DataSource(Source):
    """Images or vectors, {"x", "class_labels"}: x uint8 (B, C, H, W) or float32 (B, D), class_labels int64 (B,) if any.

    Attributes:
        kind: "image" or "vector".
        shape: (C, H, W) of images, (D,) of vectors.
        item_names: of the entries of a vector, where they have names.
        extractors: checkpoints of this repository in whose features samples of such images are compared.
    """

    kind: str = "image"
    shape: tuple[int, ...] = ()
    item_names: list[str] | None = None
    extractors: tuple[str, ...] = ()

    def __post_init__(self):
        if self.kind == "vector":
            self.held_out = "test points"

    def spec(self, support: str, value_range=(0, 1), dequantization: str = "none", pad_to: int | None = None) -> dict:
        """The data spec that a model's config carries: what x is, and what its network sees.

        kind, shape, support ("binary", "8-bit", "real"), range [low, high] that the network sees (None for vectors),
        dequantization ("none", "uniform") and num_classes.
        """
        shape = list(self.shape)
        if self.kind == "vector":
            support, value_range, dequantization = "real", None, "none"
        elif pad_to is not None:
            shape = [shape[0], pad_to, pad_to]
        return {
            "kind": self.kind,
            "shape": shape,
            "support": support,
            "range": None if value_range is None else list(value_range),
            "dequantization": dequantization,
            "num_classes": len(self.class_names),
        }

    def prepare(self, batch: Batch, spec: dict, generator: torch.Generator | None = None) -> Batch:
        """x float32 (B, *shape) in the range of the data spec, see `to_network`; what else is in the batch as it is."""
        return {**batch, "x": to_network(batch["x"], spec, generator)}

    def as_input(self, batch: Batch, spec: dict | None = None, generator: torch.Generator | None = None) -> Tensor:
        """x as a pipeline's calls take it: levels in [0, 1], vectors as they are; for a binary data spec ones are drawn."""
        x = batch["x"]
        if self.kind == "vector":
            return x.float()
        if spec is not None and spec["support"] == "binary":
            return to_network(x, spec, generator)
        return x.float() / 255


def to_network(x: Tensor, spec: dict, generator: torch.Generator | None = None) -> Tensor:
    """Stored x -> float32 (B, *shape) in the range of the data spec.

    - binary: each pixel is 1 with probability x / 255, to within 2^-16, drawn anew at each call (dynamic binarisation);
    - 8-bit, dequantization "none": levels k / 255 scaled to the range;
    - 8-bit, dequantization "uniform": (k + u) / 256, u ~ U[0, 1), scaled to the range;
    - images smaller than the spec's shape are padded evenly with zeros before any of these;
    - real vectors: as they are.
    """
    if spec["support"] == "real":
        return x.float()
    height, width = spec["shape"][1:]
    if tuple(x.shape[2:]) != (height, width):
        x = _pad(x, height, width)
    if spec["support"] == "binary":
        return _binarise(x, generator)
    low, high = spec["range"]
    if spec["dequantization"] == "uniform":
        u = torch.rand(x.shape, generator=generator, device=x.device)
        return low + (high - low) * (x.float() + u) / 256
    return low + (high - low) * x.float() / 255


def _binarise(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Levels k as ones with probability k / 255 (exact at 0 and 255, to within 2^-16 between), zeros otherwise."""
    # one 64-bit draw serves four pixels: four times as fast as a draw for each
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
    u = words.random_(-(2**63), None, generator=generator).view(torch.int16)[: x.numel()].view(x.shape)
    # u + 2^15 is uniform on {0, ..., 65535} and 257 k / 65535 = k / 255; at the top, 65535 counts as 65534
    return (u.clamp_(max=2**15 - 2) < x.to(torch.int16).mul_(257).sub_(2**15)).float()


def _pad(x: Tensor, height: int, width: int) -> Tensor:
    missing = (height - x.shape[2], width - x.shape[3])
    if min(missing) < 0:
        raise ValueError(f"images of {tuple(x.shape[2:])} do not fit into the data spec's {(height, width)}")
    top, left = missing[0] // 2, missing[1] // 2
    return torch.nn.functional.pad(x, (left, missing[1] - left, top, missing[0] - top))


# What recipes ask of a source


def warn_of_empty_splits(source: Source) -> None:
    """Note in the report which splits hold nothing, as those of a handful of rows can.

    Raises:
        UsageError: there is nothing to train on.
    """
    rows = source.rows
    if rows["train"] == 0:
        raise UsageError(
            f"--dataset {source.name}: no row is left to train on: the content of a row decides its split, and equal rows share one; add others"
        )
    if isinstance(source.train, ArraySplit) and "class_labels" in source.train.columns:
        counts = torch.bincount(source.train.columns["class_labels"], minlength=len(source.class_names))
        lacking = [name for name, count in zip(source.class_names, counts, strict=True) if not count]
        if lacking:
            source.report.warnings.append(f"no row of the class {', '.join(lacking[:20])} is in the training split")
    if rows["validation"] == 0:
        source.report.warnings.append(
            "the validation split is empty: nothing tells the best weights from the last ones"
        )
    if rows["test"] == 0:
        source.report.warnings.append("the test split is empty: training.evaluate will have nothing to measure on")


def rows_to_show(source: Source, count: int, first: str = "test") -> Batch:
    """The first rows of a split, of the next of test, validation and training where it is empty.

    Raises:
        UsageError: there is no row anywhere.
    """
    for name in dict.fromkeys((first, "test", "validation", "train")):
        found = next(batches_in_order(getattr(source, name), count, count), None)
        if found is not None:
            return {name: value[:count] for name, value in found.items()}
    raise UsageError(f"--dataset {source.name}: holds no row")


def class_arguments(source: Source, class_labels: Tensor, named: str) -> dict:
    """The classes of rows as a density is told them.

    Raises:
        UsageError: a class has no row; `named` is the option that asked for classes.
    """
    found, wanted = len(class_labels.unique()), len(source.class_names)
    if found < wanted:
        raise UsageError(f"{named} true: of {wanted} classes only {found} are among {len(class_labels)} rows")
    return {"class_labels": class_labels, "num_classes": wanted}


READERS = sorted(file.stem for file in Path(__file__).parent.glob("*.py"))


def reader_named(name: str) -> ModuleType:
    """The module of training/data/ that a run.json names as the reader of its data.

    Raises:
        UsageError: there is none of this name, or it reads nothing again; a run.json may come from anywhere.
    """
    reader = importlib.import_module(f"training.data.{name}") if name in READERS else None
    if not hasattr(reader, "held_out"):
        raise UsageError(f"run.json names {name!r} as the reader of its data; no such module of training/data/ is one")
    return reader
