"""Where images are read from: a set of the Hub, a folder of images, or one of parquet files."""

import glob
import os
from dataclasses import dataclass, field
from pathlib import Path

from training.data.classes import in_order
from training.data.local import WORDS, by_split, check_table, files_within, roots_of, split_folders
from training.data.pixels import Stored
from training.data.report import Report
from training.options import UsageError, one_line

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")


@dataclass
class Found:
    """The tables of a set by split, as `datasets` has them, and where their images and rows lie.

    Attributes:
        places: of a split of local files, each file and its number of rows.
        of_images: whether the files are images, one a row.
    """

    tables: dict
    stored: Stored
    places: dict[str, list[tuple[Path, int]]] = field(default_factory=dict)
    of_images: bool = False


def from_hub(hub_id: str, streaming: bool) -> Found:
    """A set of the Hub.

    Raises:
        UsageError: it cannot be read.
    """
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    datasets.disable_progress_bars()
    caches = [os.path.realpath(p) for p in (datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE)]
    try:
        tables = dict(datasets.load_dataset(hub_id, streaming=streaming))
    except Exception as error:  # the Hub client raises many kinds; each is the same to the user
        raise UsageError(
            f"--dataset {hub_id}: cannot be read from the Hub ({one_line(error, 200)}); --data_dir names a local copy"
        ) from None
    return Found(tables, Stored(caches, f"hf://datasets/{hub_id}@"))


def from_folder(local: str, named: str, streaming: bool, report: Report) -> Found:
    """The parquet files of a folder, or where it has none its images.

    Args:
        named: the option that named the folder.
        report: takes note of what is left out.

    Raises:
        UsageError: it holds neither, or something that is not opened.
    """
    import datasets

    datasets.disable_progress_bars()
    folder = Path(local)
    files, stored = files_within(folder, named, report), Stored(roots_of(folder))
    about = [p for p in files if p.stem == "metadata" and p.suffix.lower() in (".csv", ".jsonl", ".parquet")]
    parquet = [p for p in files if p.suffix.lower() == ".parquet" and p not in about]
    images = [p for p in files if p.suffix.lower() in IMAGE_ENDINGS]
    others = [p.relative_to(folder) for p in files if p not in {*about, *parquet, *images}]
    if parquet:
        report.leave_out(
            "files beside the parquet files", [*(p.relative_to(folder) for p in [*images, *about]), *others]
        )
        places = {
            split: [(path, check_table(path)) for path in found] for split, found in by_split(parquet, folder).items()
        }
        by_name = {split: [_escaped(path) for path, _ in found] for split, found in places.items()}
        return Found(dict(datasets.load_dataset("parquet", data_files=by_name, streaming=streaming)), stored, places)
    if not images:
        raise UsageError(
            f"{named} {local}: holds no images and no parquet files; it needs one folder of images a class"
        )
    archives = [path for path in others if path.suffix.lower() == ".zip"]
    if archives:  # it would be unpacked, whatever it grows to
        raise UsageError(f"{named} {local}: holds the archive {archives[0]}; unpack it, and take it out")
    report.leave_out("files that are no images", others)
    _check_folders(images, folder, named)
    splits = by_split(images, folder, by_name=False)
    if about:
        for path in about:
            check_table(path)
        by_name = {split: [_escaped(path) for path in [*found, *about]] for split, found in splits.items()}
        tables = dict(datasets.load_dataset("imagefolder", data_files=by_name, streaming=streaming))
        return Found(tables, stored)
    return Found(_of_images(splits, folder, streaming, report), stored, _one_a_row(splits), True)


def _escaped(path: Path) -> str:
    return glob.escape(str(path))  # `datasets` takes a name for a pattern


def _one_a_row(splits: dict[str, list[Path]]) -> dict[str, list[tuple[Path, int]]]:
    return {split: [(path, 1) for path in found] for split, found in splits.items()}


def _check_folders(images: list[Path], folder: Path, named: str) -> None:
    """Raise a `UsageError` where folders are called like splits and hold classes, and other folders lie beside them."""
    below: dict[str, set[int]] = {}
    for image in images:
        first, *rest = image.relative_to(folder).parts
        if rest:
            below.setdefault(first, set()).add(len(rest))
    like_splits = {name for name in below if name.lower() in WORDS}
    others = sorted(below.keys() - like_splits)
    nested = sorted(name for name in like_splits if min(below[name]) > 1)
    if others and nested:
        raise UsageError(
            f"{named} {folder}: {nested[0]}/ holds folders, like a split, and {others[0]}/ lies beside it; its folders "
            "must be splits (train, validation, test), or classes"
        )


def _of_images(splits: dict[str, list[Path]], folder: Path, streaming: bool, report: Report) -> dict:
    """Tables of images, and of their classes: the folders that they lie in, below what all have in common."""
    from datasets import ClassLabel, Dataset, Features, Image

    inner = {
        p: parts for p, (_, parts) in split_folders([p for found in splits.values() for p in found], folder).items()
    }
    common = 0
    while len({parts[: common + 1] for parts in inner.values()}) == 1 and min(map(len, inner.values())) > common:
        common += 1
    classes = {path: parts[common] if len(parts) > common else None for path, parts in inner.items()}
    names = in_order({name for name in classes.values() if name is not None})
    beside = [path.relative_to(folder) for path, name in classes.items() if name is None]
    if names and beside:
        report.warnings.append(
            f"{len(beside)} images lie beside the folders {', '.join(names[:5])}, like {beside[0]}: no classes are made"
        )
        names = []
    features, tables = {"image": Image(decode=False)}, {}
    if len(names) > 1:
        features["label"] = ClassLabel(names=names)
    for split, found in splits.items():
        columns = {"image": [{"bytes": None, "path": str(path)} for path in found]}
        if "label" in features:
            columns["label"] = [names.index(classes[path]) for path in found]
        table = Dataset.from_dict(columns, features=Features(features))
        tables[split] = table.to_iterable_dataset() if streaming else table
    return tables
