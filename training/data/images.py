"""Images and points: named, Hub and local sets, decoded once, cut into splits that never leak.

Small sets are decoded into one array; above --max_memory_gb the Arrow file stays memory-mapped and images are decoded on
the way; with --streaming true nothing is stored.
"""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.data.known import KNOWN, KnownSet, extractor_of
from training.data.source import DataSource
from training.data.splits import (
    TEST_SHARE,
    VALIDATION_SHARE,
    ArraySplit,
    Batch,
    LazySplit,
    StreamSplit,
    content_fraction,
    cut_arrays,
    split_masks,
)
from training.data.toys import TOYS, toy
from training.options import UsageError, option

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
MNIST_DIGITS = Path(__file__).resolve().parents[2] / "spaces" / "kit" / "mnist-digits.png"
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
        why = " ".join(str(error).split())[:200]
        raise UsageError(f"{where}: cannot be read, {type(error).__name__}: {why}") from None


def _digits(options: DataOptions) -> DataSource:
    """scikit-learn's 1 797 handwritten digits, 8x8, 17 levels: embedded in the package, no network."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = np.round(images.reshape(-1, 1, 8, 8) * 255 / 16).astype(np.uint8)
    where = np.array([content_fraction(row.tobytes()) for row in x])
    if options.resolution:
        from PIL import Image

        x = np.stack([_decode(Image.fromarray(i[0]), "L", options.resolution) for i in x])
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
    tables = _tables(
        local, known.hub_id if known else name, options.streaming, "--data_dir" if options.data_dir else "--dataset"
    )
    # a set without a training split trains on its first; taken out, so that nothing else is made of it
    train = tables.pop("train" if "train" in tables else next(iter(tables)))
    image_column, label_column = _columns(train, options, known)
    sample = [row[image_column] for row in _head(train, image_column, 100)]
    mode = "L" if all(image.mode in ("L", "1", "LA") for image in sample) else "RGB"
    decode = _Decoder(mode, options.resolution, sample[0].size, name)
    for image in sample:
        decode(image)
    shape = decode(sample[0]).shape

    class_names = []
    if label_column:
        feature = train.features[label_column]
        class_names = list(getattr(feature, "names", []))
        if not class_names:
            class_names = _classes_found(train, label_column, options)
            label_column = label_column if class_names else None

    make = _StreamCutter if options.streaming else _TableCutter
    splits = make(options, image_column, label_column, decode, shape).splits(tables, train)
    dataset_id = known.hub_id if known else (Path(name).name if local else name)
    licence = known.licence if known else None
    return DataSource(
        name, dataset_id, *splits, licence=licence, class_names=class_names, kind="image", shape=tuple(shape),
        extractor=extractor_of(shape),
    )  # fmt: skip


def _classes_found(train, label_column: str, options: DataOptions) -> list[str]:
    """Classes of a column that does not name them; none of a stream, which cannot be looked through."""
    if options.streaming:
        return []
    found = train.unique(label_column)
    if not all(isinstance(v, int) and v >= 0 for v in found):
        odd = next(v for v in found if not (isinstance(v, int) and v >= 0))
        raise UsageError(f"--label_column {label_column}: holds {odd!r}; classes must be whole numbers from 0 on")
    return [str(c) for c in range(max(found) + 1)]


def _tables(local: str | None, hub_id: str, streaming: bool, option_name: str) -> dict:
    """The set as `datasets` reads it, by split: {"train": ..., "test": ...}."""
    import datasets

    datasets.disable_progress_bars()
    if local is None:
        try:
            return dict(datasets.load_dataset(hub_id, streaming=streaming))
        except Exception as error:  # the Hub client raises many kinds; each is the same to the user
            why = " ".join(str(error).split())[:200]
            raise UsageError(
                f"--dataset {hub_id}: cannot be read from the Hub ({why}); --data_dir names a local copy"
            ) from None
    files = [p for p in Path(local).rglob("*") if p.is_file() and not p.name.startswith(".")]
    parquet = sorted(str(p) for p in files if p.suffix == ".parquet")
    if parquet:
        by_split: dict[str, list[str]] = {}
        for path in parquet:
            by_split.setdefault(split_of(Path(path).relative_to(local)), []).append(path)
        return dict(datasets.load_dataset("parquet", data_files=by_split, streaming=streaming))
    if not any(p.suffix.lower() in IMAGE_ENDINGS for p in files):
        raise UsageError(
            f"{option_name} {local}: holds no images and no parquet files; it needs one folder of images a class"
        )
    return dict(datasets.load_dataset("imagefolder", data_dir=local, streaming=streaming))


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


def _head(table, image_column: str, count: int):
    """The first rows, decoded: they decide on gray or colour, and on the size."""
    from datasets import Image

    table = table.cast_column(image_column, Image())
    rows = table.take(count) if hasattr(table, "take") else table.select(range(min(count, len(table))))
    return list(rows)


class _Decoder:
    """A PIL image -> uint8 (C, H, W), cropped and scaled where a resolution is given."""

    def __init__(self, mode: str, resolution: int | None, size: tuple[int, int], name: str):
        self.mode, self.resolution, self.size, self.name = mode, resolution, size, name

    def __call__(self, image) -> np.ndarray:
        if self.resolution is None and image.size != self.size:
            raise UsageError(
                f"--dataset {self.name}: images of mixed sizes, {self.size[0]}x{self.size[1]} and "
                f"{image.size[0]}x{image.size[1]}; give --resolution to crop and scale them"
            )
        return _decode(image, self.mode, self.resolution)


def _decode(image, mode: str, resolution: int | None) -> np.ndarray:
    from PIL import Image, ImageOps

    image = image.convert(mode)
    if resolution is not None and image.size != (resolution, resolution):
        image = ImageOps.fit(image, (resolution, resolution), Image.Resampling.LANCZOS)
    x = np.array(image)  # a copy: torch wants it writable
    return x[None] if mode == "L" else x.transpose(2, 0, 1)


@dataclass
class _ToTensors:
    """Stored rows -> tensors; by the batch of a memory-mapped table, or one by one of a stream, still encoded."""

    image_column: str
    label_column: str | None
    decode: _Decoder

    def batch(self, rows: dict) -> Batch:
        """Rows of a table, a dict of lists -> x uint8 (B, C, H, W), and class_labels int64 (B,) if any."""
        found = {"x": torch.from_numpy(np.stack([self.decode(image) for image in rows[self.image_column]]))}
        if self.label_column:
            found["class_labels"] = torch.tensor(rows[self.label_column])
        return found

    def row(self, row: dict) -> Batch:
        """One row of a stream -> x uint8 (C, H, W), and class_labels () if any."""
        from datasets import Image

        found = {"x": torch.from_numpy(self.decode(Image().decode_example(row[self.image_column])))}
        if self.label_column:
            found["class_labels"] = torch.tensor(row[self.label_column])
        return found


@dataclass
class _Cutter:
    """Cuts what `datasets` read into three splits of one sort."""

    options: DataOptions
    image_column: str
    label_column: str | None
    decode: _Decoder
    shape: tuple[int, ...]

    def splits(self, tables: dict, train) -> list:
        """Training, validation and test splits of the tables of a set; `train` is the one to train on."""
        validation = next((tables[k] for k in ("validation", "valid", "val") if k in tables), None)
        test = tables.get("test")
        # a set that brings its own validation or test split keeps it; the others are cut from the training rows
        test_share = TEST_SHARE if test is None else 0.0
        validation_share = VALIDATION_SHARE if validation is None else 0.0
        parts = self.cut(train, test_share, validation_share)
        for place, table in ((1, validation), (2, test)):
            if table is not None:
                parts[place] = self.cut(table, 0.0, 0.0)[0]
        return parts

    @property
    def to_tensors(self) -> _ToTensors:
        return _ToTensors(self.image_column, self.label_column, self.decode)


class _TableCutter(_Cutter):
    def cut(self, table, test: float, validation: float) -> list:
        from datasets import Image

        where = self.fractions(table) if test + validation > 0 else np.ones(len(table))
        table = table.cast_column(self.image_column, Image())
        if len(table) * math.prod(self.shape) > self.options.max_memory_gb * 2**30:
            return self.cut_lazily(table, where, test, validation)
        x, labels = self.decoded(table), None
        if self.label_column:
            labels = np.array([-1 if v is None else v for v in table[self.label_column]])
            if labels.dtype.kind not in "iu" or labels.min() < 0:
                raise UsageError(f"--label_column {self.label_column}: some rows have no class, or none from 0 on")
            labels = labels.astype(np.int64)
        return cut_arrays({"x": x, "class_labels": labels}, where, test, validation)

    def decoded(self, table) -> np.ndarray:
        """uint8 (N, C, H, W); kept beside the Arrow files, so that the next run only reads it."""
        import datasets

        size = "own" if self.options.resolution is None else self.options.resolution
        folder = Path(datasets.config.HF_DATASETS_CACHE) / "genus_decoded"
        file = folder / f"{table._fingerprint}-{self.image_column}-{self.decode.mode}-{size}.npy"
        try:
            x = np.load(file)
            if x.shape == (len(table), *self.shape) and x.dtype == np.uint8:
                return x
        except (OSError, ValueError, EOFError):
            pass  # not there, or cut short
        x = np.empty((len(table), *self.shape), np.uint8)
        for i, image in enumerate(table[self.image_column]):
            x[i] = self.decode(image)
        temporary = folder / f".{file.name}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as out:
                np.save(out, x)
            os.replace(temporary, file)
        except OSError:
            temporary.unlink(missing_ok=True)  # no room for a cache is no reason to stop
        return x

    def fractions(self, table) -> np.ndarray:
        from datasets import Image

        encoded = table.cast_column(self.image_column, Image(decode=False))
        return np.array([content_fraction(_encoded(image)) for image in encoded[self.image_column]])

    def cut_lazily(self, table, where: np.ndarray, test: float, validation: float) -> list[LazySplit]:
        columns = [c for c in (self.image_column, self.label_column) if c]
        rows = [table.select_columns(columns).select(np.flatnonzero(p)) for p in split_masks(where, test, validation)]
        return [LazySplit(r, self.to_tensors.batch) for r in rows]


class _StreamCutter(_Cutter):
    def cut(self, table, test: float, validation: float) -> list[StreamSplit]:
        from datasets import Image

        # kept encoded until a row is known to belong to the split
        rows = table.cast_column(self.image_column, Image(decode=False))
        limits = [(test + validation, 1.0), (test, test + validation), (0.0, test)]
        whole = test + validation == 0
        return [StreamSplit(rows, self.to_tensors.row, _Within(self.image_column, *limit, whole)) for limit in limits]


@dataclass
class _Within:
    """Whether a row's content falls into [low, high); asked of each streamed row."""

    column: str
    low: float
    high: float
    whole: bool

    def __call__(self, row) -> bool:
        return self.whole or self.low <= content_fraction(_encoded(row[self.column])) < self.high


def _encoded(image: dict) -> bytes:
    if image["bytes"] is not None:
        return image["bytes"]
    from datasets.utils.file_utils import xopen  # a streamed folder's paths are addresses

    with xopen(image["path"], "rb") as file:
        return file.read()


# Measuring again


def held_out(dataset: str, data_dir: str | None, trained: dict, same_set: bool) -> DataSource:
    """The source to measure a model on.

    Args:
        dataset, data_dir: as --dataset and --data_dir name it.
        trained: the options of the run, from run.json.
        same_set: whether it is the set that the run was trained on.

    Raises:
        UsageError: as of `load_data`; or the test split is empty, as that of a handful of images can be.
    """
    source = load_data(DataOptions(dataset, data_dir, trained.get("resolution")))
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
