"""Images and points: named, Hub and local sets, decoded once, cut into splits that never leak.

Small sets are decoded into one array; above --max_memory_gb the Arrow file stays memory-mapped and images are decoded on
the way; with --streaming true nothing is stored. A set may come from anywhere: `local` and `pixels` bound what is read of it.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.data.known import KNOWN, KnownSet, extractor_of
from training.data.local import check_table, files_within, roots_of
from training.data.pixels import Decoder, Stored, pixels
from training.data.source import DataSource
from training.data.splits import ArraySplit, Batch, content_fraction, cut_arrays
from training.data.tables import Columns, StreamCutter, TableCutter
from training.data.toys import TOYS, toy
from training.options import UsageError, check, one_line, option

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
MNIST_DIGITS = Path(__file__).resolve().parents[2] / "spaces" / "kit" / "mnist-digits.png"
MOST_CLASSES = 100_000
KEPT_ROWS = 200  # of a test split, by which any machine can measure a checkpoint again


@dataclass
class DataOptions:
    """What to train on."""

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
        return _through_datasets(options)
    except UsageError:
        raise
    except Exception as error:  # what a damaged file raises depends on the library that meets it first
        where = f"--data_dir {options.data_dir}" if options.data_dir else f"--dataset {name}"
        raise UsageError(f"{where}: cannot be read, {type(error).__name__}: {one_line(error, 200)}") from None


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
        class_names=[str(c) for c in range(10)],
        kind="image",
        shape=x.shape[1:],
        extractor=extractor_of(x.shape[1:]),
    )


def _through_datasets(options: DataOptions) -> DataSource:
    name, known = options.dataset, KNOWN.get(options.dataset)
    local = options.data_dir or (name if Path(name).is_dir() else None)
    if local is not None and not Path(local).is_dir():
        raise UsageError(f"--data_dir {local}: there is no such folder")
    if local is None and known is None and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        names = ", ".join(["digits", *KNOWN, *TOYS])
        raise UsageError(
            f"--dataset {name}: not known; it must be one of {names}, a Hub id like user/name, or a folder"
        )
    tables, places, stored = _tables(
        local, known.hub_id if known else name, options.streaming, "--data_dir" if options.data_dir else "--dataset"
    )
    # a set without a training split trains on its first; it is not made anything else of
    first = "train" if "train" in tables else next(iter(tables))
    image_column, label_column = _columns(tables[first], options, known)
    columns = Columns(image_column, label_column, places, [])
    mode, size = _mode_and_size(tables[first], columns, first, stored, options, name)
    decode = Decoder(stored, mode, options.resolution, size, name)
    shape = (1 if mode == "L" else 3, *((options.resolution,) * 2 if options.resolution else size[::-1]))

    if label_column:
        columns.classes = list(getattr(tables[first].features[label_column], "names", []))
        if not columns.classes:
            columns.classes = [] if options.streaming else _classes_found(tables, columns)
            columns.label = label_column if columns.classes else None

    make = StreamCutter if options.streaming else TableCutter
    splits = make(options.max_memory_gb, columns, decode, shape).splits(tables, first)
    dataset_id = known.hub_id if known else (Path(name).name if local else name)
    licence = known.licence if known else None
    return DataSource(
        name, dataset_id, *splits, licence=licence, class_names=columns.classes, kind="image", shape=shape,
        extractor=extractor_of(shape),
    )  # fmt: skip


def _classes_found(tables: dict, columns: Columns) -> list[str]:
    """Classes of a column that does not name them, in any split."""
    found = [columns.class_labels(table[columns.label], split, most=MOST_CLASSES) for split, table in tables.items()]
    return [str(c) for c in range(1 + max(int(labels.max(initial=-1)) for labels in found))]


def _tables(local: str | None, hub_id: str, streaming: bool, option_name: str) -> tuple[dict, dict, Stored]:
    """The set as `datasets` reads it, by split: {"train": ..., "test": ...}; files and rows of parquet; where images lie."""
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    datasets.disable_progress_bars()
    if local is None:
        stored = Stored(
            [os.path.realpath(p) for p in (datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE)], f"hf://datasets/{hub_id}@"
        )
        try:
            return dict(datasets.load_dataset(hub_id, streaming=streaming)), {}, stored
        except Exception as error:  # the Hub client raises many kinds; each is the same to the user
            raise UsageError(
                f"--dataset {hub_id}: cannot be read from the Hub ({one_line(error, 200)}); --data_dir names a local copy"
            ) from None
    files, stored = files_within(Path(local), option_name), Stored(roots_of(Path(local)))
    parquet = [p for p in files if p.suffix == ".parquet"]
    if parquet:
        places: dict[str, list[tuple[Path, int]]] = {}
        for path in parquet:
            places.setdefault(split_of(path.relative_to(local)), []).append((path, check_table(path)))
        by_split = {split: [str(path) for path, _ in found] for split, found in places.items()}
        return dict(datasets.load_dataset("parquet", data_files=by_split, streaming=streaming)), places, stored
    if not any(p.suffix.lower() in IMAGE_ENDINGS for p in files):
        raise UsageError(
            f"{option_name} {local}: holds no images and no parquet files; it needs one folder of images a class"
        )
    for path in files:
        if path.suffix.lower() == ".zip":  # it would be unpacked, whatever it grows to
            raise UsageError(
                f"{option_name} {local}: holds the archive {path.relative_to(local)}; unpack it, and take it out"
            )
        if path.stem == "metadata" and path.suffix in (".csv", ".jsonl"):
            check_table(path)
    return dict(datasets.load_dataset("imagefolder", data_dir=local, streaming=streaming)), {}, stored


def split_of(path: Path) -> str:
    """Which split a file belongs to, by its name (train-00000.parquet) or its folder (train/0000.parquet)."""
    for part in reversed(path.parts):
        word = re.match(r"(train|test|validation|valid|val)(?![a-z])", part.lower())
        if word:
            return word[1]
    return "train"


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


def _mode_and_size(table, columns: Columns, split: str, stored: Stored, options: DataOptions, name: str) -> tuple:
    """Gray ("L") or colour ("RGB") and the size (W, H), of the first rows."""
    from datasets import Image

    table, modes, size = table.cast_column(columns.image, Image(decode=False)), set(), None
    for row, found in enumerate(table.take(100)):
        picture = stored.picture(found[columns.image], columns.where(split, row))
        modes.add(picture.mode)
        size = size or picture.size
        Decoder(stored, "L", options.resolution, size, name).check(picture)
    if size is None:
        raise UsageError(f"--dataset {name}: holds no row")
    return "L" if modes <= {"L", "1", "LA"} else "RGB", size


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
    options = DataOptions(dataset, data_dir, trained.get("resolution"))
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
