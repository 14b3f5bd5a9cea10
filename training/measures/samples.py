"""Samples against test images, in the features of classifiers of our own.

- `frechet_distance`, `precision`, `recall`, `density`, `coverage`: of images as the pipeline draws them by default,
  against as many test images, in the features of `extractor`; `frechet_distance_interval` is a 95 % bootstrap interval,
  and `floor` holds the same figures of training images.
- `second_frechet_distance` and the others with `second_`: the same in the features of another network, where the data
  set names two. Distances in two sets of features are no numbers of one scale; the order of two models is the same in
  both, or depends on the network that judges.
- `memorised`: the share of samples that lie closer to their nearest training image than 99 % of test images do to
  theirs, in the first features: about 0.01 for a model that copies nothing.
- `class_accuracy`: the share of conditional samples that the extractor assigns to the class asked for; where the extractor
  was trained on the same data set, for another one's classes are not those of the samples.
- `sweeps`: the distances again at other values of an argument of the pipeline, as `--sweep` names them, with fewer
  samples: compare them with each other only.

Beside it lies `nearest.png`, samples each with its nearest training image.
"""

import argparse
import dataclasses
import hashlib
import inspect
from pathlib import Path

import torch
from torch import Tensor, nn

from training.data.batches import batches_in_order
from training.distances import (
    NEIGHBOURS,
    frechet_distance,
    frechet_interval,
    memorised_share,
    precision_recall_density_coverage,
)
from training.figures import Figure, Table
from training.options import UsageError
from training.pictures import image_grid
from training.publishing.loading import load, record_of
from training.watching import watched

ROOT = Path(__file__).resolve().parents[2]

BATCH = 100  # images at once: of a diffusion model on a CPU, 500 at once take twice as long for each
PREFIXES = ("", "second_")  # of the figures of each extractor


def _distance(prefix: str, title: str, order: int) -> Figure:
    """The distance by one extractor, with its interval and its floor."""
    key, said = f"{prefix}frechet_distance", f"Fréchet distance in the features of {{{prefix}extractor}}"
    number = Figure(key, title, said, interval=f"{key}_interval", metric_type="frechet_distance", order=order)
    return dataclasses.replace(
        number, show=lambda found: f"{number.cell(found)} ({found[f'{prefix}floor']['frechet_distance']:.2f})"
    )


DISTANCE = _distance("", "Fréchet distance [95 %] (floor)", 20)
SECOND_DISTANCE = _distance("second_", "by the second classifier", 21)
SPREAD = Figure("precision", "precision, recall", show=lambda found: f"{found['precision']:.2f}, {found['recall']:.2f}")
DENSITY = Figure("density", "density, coverage", show=lambda found: f"{found['density']:.2f}, {found['coverage']:.2f}")
CLASS = Figure(
    "class_accuracy",
    "class accuracy",
    "class of conditional samples by {extractor}",
    metric_type="accuracy",
    order=30,
    show=lambda found: f"{found['class_accuracy']:.2%}",
)
SECOND_CLASS = Figure(
    "second_class_accuracy",
    "by the second classifier",
    "class of conditional samples by {second_extractor}",
    metric_type="accuracy",
    order=31,
    show=lambda found: f"{found['second_class_accuracy']:.2%}",
)


def in_dispute(a: dict, b: dict) -> bool:
    """Whether one extractor puts model a before b, the other b before a, both beyond the intervals of their distances."""

    def before(prefix: str, x: dict, y: dict) -> bool:
        return x[f"{prefix}frechet_distance_interval"][1] < y[f"{prefix}frechet_distance_interval"][0]

    needed = [f"{prefix}frechet_distance_interval" for prefix in PREFIXES]
    if a["dataset"] != b["dataset"] or not all(name in found for name in needed for found in (a, b)):
        return False
    return any(before("", x, y) and before("second_", y, x) for x, y in ((a, b), (b, a)))


TABLES = (
    Table(
        "Samples",
        (DISTANCE, SECOND_DISTANCE, SPREAD, DENSITY),
        lambda found: "frechet_distance" in found,
        20,
        in_dispute,
        "the two classifiers put these models in opposite orders, each beyond its intervals",
    ),
    Table("Samples of a class", (CLASS, SECOND_CLASS), lambda found: "class_accuracy" in found, 21),
)
PICTURES = {"nearest.png": "Samples, each with its nearest training image on its right"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num_samples", type=int, default=10_000, help="number of samples drawn for the distances")
    parser.add_argument(
        "--extractor",
        nargs="+",
        help="one or two classifiers in whose features samples are compared with test images: runs, checkpoints or Hub ids",
    )
    parser.add_argument(
        "--sweep",
        nargs="*",
        default=[],
        help="NAME=V1,V2,...: measure the distances again at these values of an argument of the pipeline",
    )
    parser.add_argument(
        "--sweep_samples", type=int, default=2_000, help="number of samples drawn for each value of --sweep"
    )


def applies(pipe, source) -> bool:
    return "sample" in pipe.calls and source.kind == "image"


def extractors_for(source, options: argparse.Namespace) -> list[str]:
    """The folders or Hub ids of the classifiers that judge these images: --extractor, or what the data set names.

    Raises:
        UsageError: --extractor names more than two, or one twice.
    """
    names = list(options.extractor or source.extractors)
    if len(names) > len(PREFIXES) or len(set(names)) < len(names):
        raise UsageError(f"--extractor is {' '.join(names)}; it must be one classifier, or two different ones")
    places = {name: ROOT / "checkpoints" / name for name in names}
    return [str(place) if place.is_dir() else name for name, place in places.items()]


def measure(pipe, source, options: argparse.Namespace) -> tuple[dict, dict[str, bytes]]:
    for name in ("num_samples", "sweep_samples"):
        if getattr(options, name) < NEIGHBOURS + 2:
            raise UsageError(f"--{name} is {getattr(options, name)}; it must be at least {NEIGHBOURS + 2}")
    extractors, least = extractors_for(source, options), NEIGHBOURS + 2
    if options.extractor and len(source.test) < least:
        raise UsageError(
            f"--extractor: the test split holds {len(source.test)} images; distances need {least} at least"
        )
    if not extractors or len(source.test) < least:
        return {}, {}
    judges = [Judge(name, prefix, pipe, source, options) for name, prefix in zip(extractors, PREFIXES, strict=False)]
    return compare_samples(pipe, source, judges, options)


# Pictures and draws


def nearest_pairs(images: Tensor, fake: Tensor, train: Tensor, source, count: int = 32) -> bytes:
    """The first samples, and on the right of each its nearest training image by the features: a PNG."""
    which = torch.cdist(fake[:count], train).argmin(1)
    found = source.as_input(source.train.__getitems__(which))
    pairs = torch.stack([images[:count], found], 1).flatten(0, 1)
    return image_grid(pairs.permute(0, 2, 3, 1).numpy(), 8)


def draw_samples(pipe, count: int, labels: Tensor | None, **arguments) -> Tensor:
    """Images as the pipeline draws them by default, or with other arguments: (count, C, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for begin in watched(range(0, count, BATCH), f"drawing {count} samples"):
        size = min(BATCH, count - begin)
        given = None if labels is None else labels[begin : begin + size].tolist()
        drawn = pipe(batch_size=size, class_labels=given, generator=generator, output_type="pt", **arguments)
        parts.append(drawn.images.cpu())
    return torch.cat(parts)


def parse_sweep(pipe, word: str) -> tuple[str, list[int | float]]:
    """`name=value,value,...` as an argument of the pipeline's call and its values.

    Raises:
        UsageError: there is no such argument, or a value is no number.
    """
    name, _, values = word.partition("=")
    if name not in inspect.signature(pipe.__call__).parameters:
        raise UsageError(f"--sweep {word}: {type(pipe).__name__} has no argument {name!r}")
    try:
        return name, [int(v) if v.isdecimal() else float(v) for v in values.split(",")]
    except ValueError:
        raise UsageError(f"--sweep {word}: must be an argument and numbers, like num_inference_steps=5,10,20") from None


class Judge:
    """A classifier in whose features samples are compared, with the features of the test and training images.

    Raises:
        UsageError: it is no classifier, or takes other images.
    """

    def __init__(self, extractor: str, prefix: str, pipe, source, options: argparse.Namespace):
        self.prefix, self.source = prefix, source
        self.pipe = load(extractor, str(pipe.device), options.trust)
        if "features" not in self.pipe.calls:
            raise UsageError(f"--extractor {extractor}: is no classifier; it has no features to measure in")
        shape = self.pipe.data_spec["shape"]
        if tuple(shape) != tuple(source.shape):
            raise UsageError(
                f"--extractor {extractor}: takes images of shape {shape}, the data has {list(source.shape)}"
            )
        self.knows_classes = record_of(extractor).get("dataset", {}).get("id") == source.dataset_id
        self.told = {"id": Path(extractor).name, "sha256": weights_hash(self.pipe)}
        self.real = self._features(source.test, min(options.num_samples, len(source.test)))
        self.train = self._features(source.train, len(source.train))

    def _features(self, split, number: int) -> Tensor:
        rows = watched(batches_in_order(split, 500, number), f"features of {number} images", -(-number // 500))
        return torch.cat([self.pipe.features(self.source.as_input(batch)).cpu() for batch in rows])[:number]

    def features(self, images: Tensor) -> Tensor:
        """Of images (N, C, H, W) in [0, 1]: (N, F)."""
        return self.pipe.features(images).cpu()

    def compare(self, images: Tensor, labels: Tensor | None, interval: bool) -> dict:
        """What this judge says of images, against as many test images; the names of figures with its prefix."""
        real, fake = self.real[: len(images)], self.features(images)
        figures = distances(real, fake)
        if labels is not None and self.knows_classes:
            found = self.pipe.classify(images).argmax(1).cpu()
            figures["class_accuracy"] = (found == labels).float().mean().item()
        found = rounded(figures)
        if interval:
            found["frechet_distance_interval"] = [round(value, 4) for value in frechet_interval(real, fake)]
        return {f"{self.prefix}{name}": value for name, value in found.items()}

    def floor(self, count: int) -> dict:
        """The same figures of training images, spread over the whole split, as many as there are samples."""
        return rounded(distances(self.real, self.train[torch.linspace(0, len(self.train) - 1, count).long()]))


def compare_samples(pipe, source, judges: list[Judge], options: argparse.Namespace) -> tuple[dict, dict[str, bytes]]:
    """Distances of samples from test images by each judge, and a picture of nearest training images."""
    first, classes = judges[0], pipe.num_classes
    sweeps = [parse_sweep(pipe, word) for word in options.sweep]

    def draw(number: int, interval: bool = False, **arguments) -> tuple[Tensor, dict]:
        labels = torch.arange(number) % classes if classes else None
        images = draw_samples(pipe, number, labels, **arguments)
        figures = {}
        for judge in judges:
            figures |= judge.compare(images, labels, interval)
        return images, figures

    count = len(first.real)
    images, found = draw(count, interval=True)
    for judge in judges:
        found |= {f"{judge.prefix}floor": judge.floor(count), f"{judge.prefix}extractor": judge.told}
    fake = first.features(images)
    found |= {"samples": count, "memorised": round(memorised_share(first.train, first.real, fake), 4)}
    number = min(count, options.sweep_samples)
    for name, values in sweeps:
        rows = [{"value": value, **draw(number, **{name: value})[1]} for value in values]
        found.setdefault("sweeps", {})[name] = {"samples": number, "rows": rows}
    return found, {"nearest.png": nearest_pairs(images, fake, first.train, source)}


def distances(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Fréchet distance, precision, recall, density and coverage of `fake` (M, F) against `real` (N, F)."""
    return {"frechet_distance": frechet_distance(real, fake), **precision_recall_density_coverage(real, fake)}


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Figures to four places."""
    return {name: round(value, 4) for name, value in figures.items()}


def weights_hash(pipe) -> str:
    """SHA-256 of a pipeline's weights, by name: what a figure in its features depends on."""
    digest = hashlib.sha256()
    for part in sorted(name for name, module in pipe.components.items() if isinstance(module, nn.Module)):
        for name, tensor in sorted(getattr(pipe, part).state_dict().items()):
            digest.update(f"{part}.{name}".encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
