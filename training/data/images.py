"""Images and points: named, Hub and local sets, decoded once, cut into splits that never leak.

Small sets are decoded into one array; above --max_memory_gb the Arrow file stays memory-mapped and images are decoded on
the way; with --streaming true nothing is stored. A set may come from anywhere: `local` and `pixels` bound what is read of it.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from training.data.classes import Classes, classes_of, value_of
from training.data.known import KNOWN, KnownSet, extractors_of
from training.data.pixels import Decoder, Stored, Unreadable, pixels
from training.data.places import from_folder, from_hub
from training.data.report import Report, fingerprint
from training.data.source import DataSource, warn_of_empty_splits
from training.data.splits import ArraySplit, Batch, content_fraction, cut_arrays
from training.data.tables import Columns, StreamCutter, TableCutter, encoded, look, mode_and_size, parts_of, told
from training.data.toys import TOYS, toy
from training.options import UsageError, check, one_line, option

MNIST_DIGITS = Path(__file__).resolve().parents[2] / "spaces" / "kit" / "mnist-digits.png"
FIRST_ROWS = 100  # of a stream, that say whether its images are gray
KEPT_ROWS = 200  # of a test split, by which any machine can measure a checkpoint again


@dataclass
class DataOptions:
    """What to train on."""

    GROUP: ClassVar[str] = "data"

    dataset: str = option(
        "digits",
        "digits, mnist, fashion_mnist, cifar10, ring, grid, moons, spiral, checkerboard, a Hub id, or a local folder",
    )
    data_dir: str | None = option(
        None,
        "folder of a local copy of the named data set: parquet files, or images in one folder a class",
        may_change_on_resume=True,
    )
    resolution: int | None = option(
        None, "crop images to a square and scale them to this many pixels a side", least=4, most=1024
    )
    image_column: str | None = option(None, "column that holds the images, where column types do not tell")
    label_column: str | None = option(None, "column that holds the classes, where column types do not tell")
    streaming: bool = option(False, "read rows from the Hub as they are needed, and store nothing")
    max_memory_gb: float = option(
        4.0,
        "decode the data set into memory up to this size, in GiB; images of a larger one are decoded as they are needed",
        least=0.0,
        may_change_on_resume=True,
    )


# Loading


def load_data(options: DataOptions) -> DataSource:
    """The data set that the options name.

    Raises:
        UsageError: unknown name, no such folder, a folder without images, images of mixed sizes, a missing column.
    """
    name = options.dataset
    if name in ("digits", *TOYS):
        if options.data_dir or options.streaming:
            given = f"--data_dir {options.data_dir}" if options.data_dir else "--streaming true"
            raise UsageError(f"{given}: {name} is embedded, there is nothing to read")
        return _digits(options) if name == "digits" else toy(name)
    try:
        source = _through_datasets(options)
    except UsageError:
        raise
    except Exception as error:  # what a damaged file raises depends on the library that meets it first
        where = f"--data_dir {options.data_dir}" if options.data_dir else f"--dataset {name}"
        raise UsageError(f"{where}: cannot be read, {type(error).__name__}: {one_line(error, 200)}") from None
    warn_of_empty_splits(source)
    return source


def _digits(options: DataOptions) -> DataSource:
    """scikit-learn's 1 797 handwritten digits, 8x8, 17 levels: embedded in the package, no network."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = np.round(images.reshape(-1, 1, 8, 8) * 255 / 16).astype(np.uint8)
    where = np.array([content_fraction(row.tobytes()) for row in x])
    if options.resolution:
        from PIL import Image

        x = np.stack([pixels(Image.fromarray(i[0]), "L", options.resolution) for i in x])
    splits = cut_arrays({"x": x, "class_labels": labels.astype(np.int64)}, where, test=0.2, validation=0.1)
    return DataSource(
        "digits",
        "scikit-learn digits",
        *splits,
        licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
        url="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        class_names=[str(c) for c in range(10)],
        kind="image",
        shape=x.shape[1:],
        extractors=extractors_of(x.shape[1:]),
    )


def _through_datasets(options: DataOptions) -> DataSource:
    name, known, report = options.dataset, KNOWN.get(options.dataset), Report()
    local = options.data_dir or (name if Path(name).is_dir() else None)
    if local is not None and not Path(local).is_dir():
        raise UsageError(f"--data_dir {local}: there is no such folder")
    if local is None and known is None and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        names = ", ".join(["digits", *KNOWN, *TOYS])
        raise UsageError(
            f"--dataset {name}: not known; it must be one of {names}, a Hub id like user/name, or a folder"
        )
    if local is None:
        found = from_hub(known.hub_id if known else name, options.streaming)
    else:
        found = from_folder(local, "--data_dir" if options.data_dir else "--dataset", options.streaming, report)
    # a set without a training split trains on its first; it is not made anything else of
    first = "train" if "train" in found.tables else next(iter(found.tables))
    wanted = [first, *(split for split in parts_of(found.tables, first) if split)]
    tables = {split: found.tables[split] for split in wanted}
    report.leave_out("splits", [split for split in found.tables if split not in wanted])
    image_column, label_column = _columns(tables[first], options, known)
    columns = Columns(image_column, None, found.places, local, found.of_images)
    if label_column:
        columns.classes = _classes(tables, columns, label_column, first, options, report)
    make, mark, looks = TableCutter, None, tables
    if options.streaming:
        make = StreamCutter
        report.found.append("a stream: what it holds is not counted, and its first rows say whether it is gray")
        mode, size = _first_rows(tables[first], columns, first, found.stored, name)
    else:
        looks = {split: look(table, split, columns, found.stored, report) for split, table in tables.items()}
        mode, size = mode_and_size(list(looks.values()), name, options.resolution, report)
        labels = [rows.labels.tobytes() for rows in looks.values() if rows.labels is not None]
        called = ["\n".join(columns.classes.names).encode()] if labels else []
        mark = fingerprint([*(rows.hashes.tobytes() for rows in looks.values()), *labels, *called])
    decode = Decoder(found.stored, mode, options.resolution, size, name)
    shape = (1 if mode == "L" else 3, *((options.resolution,) * 2 if options.resolution else size[::-1]))
    splits = make(options.max_memory_gb, columns, decode, shape, report).splits(looks, first)
    names = columns.classes.names if columns.classes else []
    if not options.streaming:
        report.found += told(list(looks.values()), mode, names)
    dataset_id = known.hub_id if known else (Path(name).name if local else name)
    return DataSource(
        name, dataset_id, *splits, licence=known.licence if known else None, class_names=names, kind="image", shape=shape,
        extractors=extractors_of(shape), report=report, fingerprint=mark,
    )  # fmt: skip


def _classes(
    tables: dict, columns: Columns, column: str, first: str, options: DataOptions, report: Report
) -> Classes | None:
    """The classes of a column, in any split; None where it holds none, or a stream does not say which it holds."""
    declared = list(getattr(tables[first].features[column], "names", []))
    if options.streaming:
        if not declared:
            report.warnings.append(f"{column} does not name its classes, and a stream is not read ahead: none are used")
            return None
        report.found.append(f"streamed rows whose {column} is empty are left out")
        return classes_of(column, set(range(len(declared))), declared, options.dataset)[0]
    values = set()
    for split, table in tables.items():
        for row, value in enumerate(table[column][:]):
            values.add(value_of(value, column, columns.where(split, row), bool(declared)))
    values.discard(None)
    if not values:
        report.warnings.append(f"--label_column {column}: every row of it is empty, so there are no classes")
        return None
    classes, empty = classes_of(column, values, declared, options.dataset)
    report.leave_out("classes without a row", empty)
    return classes


def _columns(table, options: DataOptions, known: KnownSet | None) -> tuple[str, str | None]:
    from datasets import ClassLabel, Image

    features = table.features or {}
    image = options.image_column or next((k for k, v in features.items() if isinstance(v, Image)), None)
    image = image or (known.image_column if known and known.image_column in features else None)
    label = options.label_column or next((k for k, v in features.items() if isinstance(v, ClassLabel)), None)
    label = label or next((k for k in ("label", "labels") if k in features), None)
    for option_name, column in (("--image_column", image), ("--label_column", label)):
        if column is not None and column not in features:
            raise UsageError(f"{option_name} {column}: the set has the columns {', '.join(features)}")
    if image is None:
        raise UsageError(
            f"--dataset {options.dataset}: no column of images among {', '.join(features)}; give --image_column"
        )
    return image, label


def _first_rows(table, columns: Columns, split: str, stored: Stored, name: str) -> tuple[str, tuple[int, int]]:
    """Gray ("L") or colour ("RGB") and the size (W, H), of the first rows of a stream."""
    gray, size = True, None
    for row, found in enumerate(encoded(table, columns.image).take(FIRST_ROWS)):
        where = columns.where(split, row)
        try:
            is_gray, size_of_row = stored.head(found[columns.image], where)
        except Unreadable as error:
            raise error.at(where) from None
        gray, size = gray and is_gray, size or size_of_row
    if size is None:
        raise UsageError(f"--dataset {name}: holds no row")
    return "L" if gray else "RGB", size


# Measuring again


def held_out(dataset: str, data_dir: str | None, trained: dict, same_set: bool) -> DataSource:
    """The source to measure a model on.

    Args:
        dataset, data_dir: as --dataset and --data_dir name it.
        trained: the options of the run, from run.json.
        same_set: whether it is the set that the run was trained on.

    Raises:
        UsageError: as of `load_data` and `check`; or the test split is empty, as that of a handful of images can be.
    """
    known = ("resolution", "image_column", "label_column") if same_set else ("resolution",)
    options = DataOptions(dataset, data_dir, **{name: trained[name] for name in known if name in trained})
    check(options)  # a run.json may hold anything
    source = load_data(options)
    if not len(source.test):
        raise UsageError(f"--dataset {dataset}: its test split is empty, so there is nothing to measure on")
    return source


def kept_rows(dataset: str) -> tuple[DataSource, Batch] | None:
    """A source and rows of its test split that are kept with the project; None where there are none.

    Of MNIST the 200 digits of `mnist-digits.png`, of an embedded set the first 200 rows.
    """
    if dataset in ("digits", *TOYS):
        source = load_data(DataOptions(dataset))
        return source, source.test.__getitems__(torch.arange(min(KEPT_ROWS, len(source.test))))
    if dataset != "mnist":
        return None
    rows = mnist_digits()
    split = ArraySplit(rows)
    names = [str(c) for c in range(10)]
    return DataSource(
        "mnist", KNOWN["mnist"].hub_id, split, split, split, licence=KNOWN["mnist"].licence, class_names=names,
        kind="image", shape=(1, 28, 28),
    ), rows  # fmt: skip


def mnist_digits() -> dict[str, Tensor]:
    """The kept digits, x uint8 (200, 1, 28, 28), and their classes: 20 of each class, a class a row of the sheet."""
    from PIL import Image

    sheet = torch.from_numpy(np.array(Image.open(MNIST_DIGITS)))
    digits = sheet.view(10, 28, 20, 28).transpose(1, 2).reshape(KEPT_ROWS, 1, 28, 28)
    return {"x": digits, "class_labels": torch.arange(10).repeat_interleave(20)}
