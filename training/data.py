"""Data: named, Hub and local sets, decoded once, cut into splits that never leak, brought to a model's data spec.

A `DataSource` holds three splits. Each answers `len` and `__getitems__(indices) -> (x, class_labels)` with
x uint8 (B, C, H, W), or float32 (B, D) for vectors, and class_labels int64 (B,) or None:
- `ArraySplit`: everything decoded in one array, the normal case for small images;
- `LazySplit`: more than `--max_memory_gb`; the Arrow file stays memory-mapped, images are decoded on the way;
- `StreamSplit`: nothing stored; rows come from the Hub in order, each process its own share (`--streaming true`).

`prepare` is the one place where stored values become what a network sees.
"""

import copy
import hashlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from training.options import UsageError, option

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
SPLIT_SALT = b"genus split 1"  # changing it would move images between training and test
VALIDATION_SHARE, TEST_SHARE = 1 / 30, 1 / 10  # of the rows, where a set brings no such split of its own
PERMUTATION_SALT = 0x5EED


@dataclass(frozen=True)
class KnownSet:
    """A data set of the Hub with its column names."""

    hub_id: str
    image_column: str
    label_column: str = "label"


KNOWN = {
    "mnist": KnownSet("ylecun/mnist", "image"),
    "fashion_mnist": KnownSet("zalando-datasets/fashion_mnist", "image"),
    "cifar10": KnownSet("uoft-cs/cifar10", "img"),
}


@dataclass
class DataOptions:
    """What to train on."""

    dataset: str = option(
        "digits",
        "digits, mnist, fashion_mnist, cifar10, ring, grid, moons, spiral, checkerboard, a Hub id, or a local folder",
    )
    data_dir: str | None = option(
        None, "a local copy of the named set (parquet, or images by class)", may_change_on_resume=True
    )
    resolution: int | None = option(None, "crop to a square and scale images to this many pixels", least=4, most=1024)
    image_column: str | None = option(None, "the column that holds images, where it cannot be told by its type")
    label_column: str | None = option(None, "the column that holds classes")
    streaming: bool = option(False, "read rows from the Hub as they are needed instead of storing the set")
    max_memory_gb: float = option(
        4.0, "decode into memory up to this size, on the way above it", least=0.0, may_change_on_resume=True
    )


# Splits


class ArraySplit(Dataset):
    """x in memory: uint8 (N, C, H, W) or float32 (N, D); class_labels int64 (N,) or None."""

    def __init__(self, x: Tensor, class_labels: Tensor | None):
        self.x, self.class_labels = x, class_labels

    def __len__(self) -> int:
        return len(self.x)

    def __getitems__(self, indices) -> tuple[Tensor, Tensor | None]:
        indices = torch.as_tensor(indices)
        return self.x[indices], None if self.class_labels is None else self.class_labels[indices]


class LazySplit(Dataset):
    """A memory-mapped `datasets.Dataset`, decoded by the batch."""

    def __init__(self, table, image_column: str, label_column: str | None, decode):
        self.table, self.image_column, self.label_column, self.decode = table, image_column, label_column, decode

    def __len__(self) -> int:
        return len(self.table)

    def __getitems__(self, indices) -> tuple[Tensor, Tensor | None]:
        rows = self.table[[int(i) for i in indices]]
        x = torch.from_numpy(np.stack([self.decode(image) for image in rows[self.image_column]]))
        return x, torch.tensor(rows[self.label_column]) if self.label_column else None


class StreamSplit(IterableDataset):
    """Rows of a streamed set that `keep` accepts, in a shuffled window; `share` cuts it by process."""

    def __init__(self, rows, image_column: str, label_column: str | None, decode, keep):
        self.rows, self.image_column, self.label_column = rows, image_column, label_column
        self.decode, self.keep = decode, keep

    def share(self, rank: int, world: int) -> "StreamSplit":
        from datasets.distributed import split_dataset_by_node

        return self._of(split_dataset_by_node(self.rows, rank=rank, world_size=world))

    def shuffled(self, seed: int, epoch: int) -> "StreamSplit":
        rows = self.rows.shuffle(seed=seed, buffer_size=2_000)
        rows.set_epoch(epoch)
        return self._of(rows)

    def _of(self, rows) -> "StreamSplit":
        other = copy.copy(self)
        other.rows = rows
        return other

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for row in self.rows:
            if self.keep(row):
                label = torch.tensor(row[self.label_column]) if self.label_column else None
                yield torch.from_numpy(self.decode(row[self.image_column])), label


@dataclass
class DataSource:
    """Three splits and what they hold.

    Attributes:
        shape: (C, H, W) of images, (D,) of vectors.
        class_names: one name for each class; empty where there are no classes.
        dataset_id: what the card names: the Hub id, or the name of an embedded set.
    """

    name: str
    dataset_id: str
    kind: str
    shape: tuple[int, ...]
    class_names: list[str]
    train: Dataset
    validation: Dataset
    test: Dataset
    rows_at_once = 500  # of a held-out split
    unit = ("images", 1)  # what speed is counted in, and how many of them a row holds
    item_names = None  # of the entries of a vector, where they have names

    def spec(self, support: str, value_range=(0, 1), dequantization: str = "none", pad_to: int | None = None) -> dict:
        """The data spec that a model's config carries; README, "Add a family", says what it holds."""
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


# From stored values to what a network sees


def prepare(x: Tensor, spec: dict, generator: torch.Generator | None = None) -> Tensor:
    """A stored batch -> float32 (B, *shape) in the range of the data spec.

    - binary: each pixel is 1 with probability x / 255, to within 2^-16, drawn anew at each call (dynamic binarisation);
    - 8-bit, dequantization "none": levels k / 255 scaled to the range;
    - 8-bit, dequantization "uniform": (k + u) / 256, u ~ U[0, 1), scaled to the range;
    - images smaller than the spec's shape are padded evenly with zeros before any of these;
    - real vectors and tokens: as they are.
    """
    if spec["support"] == "tokens":
        return x
    if spec["support"] == "real":
        return x.float()
    height, width = spec["shape"][1:]
    if tuple(x.shape[2:]) != (height, width):
        x = _pad(x, height, width)
    if spec["support"] == "binary":
        return _drawn(x, generator)
    low, high = spec["range"]
    if spec["dequantization"] == "uniform":
        u = torch.rand(x.shape, generator=generator, device=x.device)
        return low + (high - low) * (x.float() + u) / 256
    return low + (high - low) * x.float() / 255


def _drawn(x: Tensor, generator: torch.Generator | None) -> Tensor:
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


# Batches


def check_batch_size(split, batch_size: int, world: int) -> None:
    """Raise a `UsageError` if one batch of all processes is larger than the split; a stream's length is not known."""
    if not isinstance(split, StreamSplit) and batch_size * world > len(split):
        raise UsageError(
            f"--batch_size is {batch_size}; it must be at most {len(split) // world} for this training set"
        )


def batches(split, batch_size: int, seed: int, first: int, rank: int, world: int, workers: int = 0) -> Iterator:
    """Training batches without end, from batch number `first` on: this process's share of each.

    The order of epoch e is a permutation that seed and e determine, so a resumed run continues where it was. Batches
    are whole: an epoch's remainder is left out of that epoch.

    Raises:
        UsageError: if one batch of all processes is larger than the split.
    """
    if isinstance(split, StreamSplit):
        yield from _streamed(split.share(rank, world), batch_size, seed)
    whole = batch_size * world
    if whole > len(split):
        raise UsageError(
            f"--batch_size is {batch_size}; it must be at most {len(split) // world} for this training set"
        )
    per_epoch = len(split) // whole

    class Order:
        def __iter__(self):
            number = first
            while True:
                epoch, start = divmod(number, per_epoch)
                if start == 0 or number == first:
                    mixed = torch.Generator().manual_seed(derive_seed(PERMUTATION_SALT, seed, epoch))
                    order = torch.randperm(len(split), generator=mixed)
                begin = start * whole + rank * batch_size
                yield order[begin : begin + batch_size]
                number += 1

    yield from DataLoader(
        split,
        batch_sampler=Order(),
        collate_fn=_as_is,
        num_workers=workers if isinstance(split, LazySplit) else 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own: a loader that starts would otherwise draw from the step's noise
    )


def _streamed(split: StreamSplit, batch_size: int, seed: int) -> Iterator:
    epoch = 0
    while True:
        found = False
        for batch in DataLoader(split.shuffled(seed, epoch), batch_size=batch_size, drop_last=True, collate_fn=_stack):
            found = True
            yield batch
        if not found:
            raise UsageError(f"--batch_size is {batch_size}, more than one process's share of the streamed set")
        epoch += 1


def _as_is(batch):
    return batch


def _stack(rows) -> tuple[Tensor, Tensor | None]:
    x, labels = zip(*rows, strict=True)
    return torch.stack(x), None if labels[0] is None else torch.stack(labels)


def materialise(split: StreamSplit, rows: int) -> ArraySplit:
    """The first rows of a stream, in memory: what is measured again and again is fetched once."""
    found = list(in_order(split, 500, rows))
    if not found:
        return ArraySplit(torch.empty(0), None)
    labels = None if found[0][1] is None else torch.cat([labels for _, labels in found])
    return ArraySplit(torch.cat([x for x, _ in found]), labels)


def in_order(split, batch_size: int, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """A split once, from its beginning, at most `limit` rows: for measuring."""
    if isinstance(split, StreamSplit):
        done = 0
        for batch in DataLoader(split, batch_size=batch_size, collate_fn=_stack):
            yield batch
            done += batch_size
            if limit is not None and done >= limit:
                return
        return
    total = len(split) if limit is None else min(limit, len(split))
    for start in range(0, total, batch_size):
        yield split.__getitems__(torch.arange(start, min(start + batch_size, total)))


def random_subset(x: Tensor, class_labels: Tensor | None, count: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """At most `count` of the rows, drawn at random: the first ones of own images are of the first class."""
    some = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:count]
    return x[some], None if class_labels is None else class_labels[some]


def by_class(source: DataSource, class_labels: Tensor, named: str) -> dict:
    """The classes of rows as a density is told them.

    Raises:
        UsageError: a class has no row; `named` is the option that asked for classes.
    """
    found, wanted = len(class_labels.unique()), len(source.class_names)
    if found < wanted:
        raise UsageError(f"{named} true: of {wanted} classes only {found} are among {len(class_labels)} rows")
    return {"class_labels": class_labels, "num_classes": wanted}


def held_out_rows(source: DataSource, count: int) -> Tensor:
    """The first rows of the test split to show, of the training split where that is empty: x as stored."""
    found = next(in_order(source.test, count), None) or next(in_order(source.train, count))
    return found[0][:count]


def derive_seed(*numbers: int) -> int:
    """A 63-bit seed from several integers, well mixed, the same everywhere."""
    digest = hashlib.blake2b(" ".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


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
        return _digits(options) if name == "digits" else _toy(name)
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
    splits = _cut(x, labels.astype(np.int64), where, test=0.2, validation=0.1)
    return DataSource("digits", "scikit-learn digits", "image", x.shape[1:], [str(c) for c in range(10)], *splits)


def content_fraction(content: bytes) -> float:
    """A number in [0, 1) that a stored image's bytes alone determine: what decides its split.

    Equal files land in the same split, adding images moves no other, and no seed, resolution or way of reading
    (memory, memory-mapped, streamed) changes it.
    """
    digest = hashlib.blake2b(SPLIT_SALT + content, digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def _parts(where: np.ndarray, test: float, validation: float) -> list[np.ndarray]:
    """Which rows are for training, validation and test; a share of 0 gives none."""
    return [where >= test + validation, (where >= test) & (where < test + validation), where < test]


def _cut(x, labels, where: np.ndarray, test: float, validation: float) -> list[ArraySplit]:
    """Training, validation and test splits of arrays."""
    parts = _parts(where, test, validation)
    return [ArraySplit(torch.from_numpy(x[p]), None if labels is None else torch.from_numpy(labels[p])) for p in parts]


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

    make = _StreamMaker if options.streaming else _TableMaker
    splits = make(options, image_column, label_column, decode, shape).splits(tables, train)
    dataset_id = known.hub_id if known else (Path(name).name if local else name)
    return DataSource(name, dataset_id, "image", tuple(shape), class_names, *splits)


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
class _Maker:
    """Cuts what `datasets` read into three splits of one sort."""

    options: DataOptions
    image_column: str
    label_column: str | None
    decode: _Decoder
    shape: tuple[int, ...]

    def splits(self, tables: dict, train) -> list:
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


class _TableMaker(_Maker):
    def cut(self, table, test: float, validation: float) -> list:
        from datasets import Image

        where = self.fractions(table) if test + validation > 0 else np.ones(len(table))
        table = table.cast_column(self.image_column, Image())
        if len(table) * math.prod(self.shape) > self.options.max_memory_gb * 2**30:
            return self.cut_lazily(table, where, test, validation)
        x = self.decoded(table)
        labels = None
        if self.label_column:
            labels = np.array([-1 if v is None else v for v in table[self.label_column]])
            if labels.dtype.kind not in "iu" or labels.min() < 0:
                raise UsageError(f"--label_column {self.label_column}: some rows have no class, or none from 0 on")
            labels = labels.astype(np.int64)
        return _cut(x, labels, where, test, validation)

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
        rows = [table.select_columns(columns).select(np.flatnonzero(p)) for p in _parts(where, test, validation)]
        return [LazySplit(r, self.image_column, self.label_column, self.decode) for r in rows]


class _StreamMaker(_Maker):
    def cut(self, table, test: float, validation: float) -> list[StreamSplit]:
        from datasets import Image

        # kept encoded until a row is known to belong to the split
        rows = table.cast_column(self.image_column, Image(decode=False))
        limits = [(test + validation, 1.0), (test, test + validation), (0.0, test)]
        whole = test + validation == 0
        return [
            StreamSplit(
                rows, self.image_column, self.label_column, self.decode_bytes, _Within(self.image_column, *limit, whole)
            )
            for limit in limits
        ]

    def decode_bytes(self, image: dict) -> np.ndarray:
        from datasets import Image

        return self.decode(Image().decode_example(image))


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


# Two-dimensional sets


def _ring(n: int, rng: np.random.Generator):
    """Eight Gaussians on a circle of radius 2."""
    label = rng.integers(0, 8, n)
    angle = label * (2 * np.pi / 8)
    return np.stack([2 * np.cos(angle), 2 * np.sin(angle)], 1) + 0.1 * rng.standard_normal((n, 2)), label


def _grid(n: int, rng: np.random.Generator):
    """Twenty-five Gaussians on a 5 x 5 grid."""
    label = rng.integers(0, 25, n)
    return np.stack([label % 5 - 2.0, label // 5 - 2.0], 1) + 0.1 * rng.standard_normal((n, 2)), label


def _moons(n: int, rng: np.random.Generator):
    """Two interleaved half circles."""
    label = rng.integers(0, 2, n)
    angle = np.pi * rng.random(n)
    upper = np.stack([np.cos(angle), np.sin(angle)], 1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], 1)
    points = np.where(label[:, None] == 0, upper, lower) - [0.5, 0.25]
    return 1.5 * points + 0.1 * rng.standard_normal((n, 2)), label


def _spiral(n: int, rng: np.random.Generator):
    """Two arms of an Archimedean spiral."""
    label = rng.integers(0, 2, n)
    angle = 3 * np.pi * np.sqrt(rng.random(n))
    radius = 2 * angle / (3 * np.pi)
    turned = angle + np.pi * label
    return radius[:, None] * np.stack([np.cos(turned), np.sin(turned)], 1) + 0.05 * rng.standard_normal((n, 2)), label


def _checkerboard(n: int, rng: np.random.Generator):
    """The black squares of a 4 x 4 board on [-2, 2]^2; no classes."""
    row = rng.integers(0, 4, n)
    column = 2 * rng.integers(0, 2, n) + row % 2
    return np.stack([column, row], 1) - 2.0 + rng.random((n, 2)), None


TOYS = {"ring": _ring, "grid": _grid, "moons": _moons, "spiral": _spiral, "checkerboard": _checkerboard}


def _toy(name: str) -> DataSource:
    splits = []
    for seed, count in ((0, 20_000), (1, 2_000), (2, 10_000)):
        x, label = TOYS[name](count, np.random.default_rng(seed))
        labels = None if label is None else torch.from_numpy(label.astype(np.int64))
        splits.append(ArraySplit(torch.from_numpy(x.astype(np.float32)), labels))
    classes = 0 if splits[0].class_labels is None else int(splits[0].class_labels.max()) + 1
    return DataSource(name, f"toy {name}", "vector", (2,), [str(c) for c in range(classes)], *splits)
