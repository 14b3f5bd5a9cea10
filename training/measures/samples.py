"""Samples against test images, in the features of a classifier of our own.

- `frechet_distance`, `precision`, `recall`, `density`, `coverage`: of images as the pipeline draws them by default,
  against as many test images, in the features of `extractor`; `floor` holds the same figures of training images.
- `memorised`: the share of samples that lie closer to their nearest training image than 99 % of test images do to
  theirs, in the same features: about 0.01 for a model that copies nothing.
- `class_accuracy`: the share of conditional samples that the extractor assigns to the class asked for; where the extractor
  was trained on the same data set, for another one's classes are not those of the samples.
- `sweeps`: the distances again at other values of an argument of the pipeline, as `--sweep` names them, with fewer
  samples: compare them with each other only.

Beside it lies `nearest.png`, samples each with its nearest training image.
"""

import argparse
import hashlib
import inspect
from pathlib import Path

import torch
from torch import Tensor, nn

from training.data.batches import batches_in_order
from training.figures import Figure, Table
from training.options import UsageError
from training.pictures import image_grid
from training.publishing.loading import load, record_of

ROOT = Path(__file__).resolve().parents[2]

NEIGHBOURS = 5
BATCH = 100  # images at once: of a diffusion model on a CPU, 500 at once take twice as long for each

DISTANCE = Figure(
    "frechet_distance",
    "Fréchet distance (floor)",
    "Fréchet distance in the features of {extractor}",
    metric_type="frechet_distance",
    order=20,
    show=lambda found: f"{found['frechet_distance']:.2f} ({found['floor']['frechet_distance']:.2f})",
)
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
TABLES = (
    Table("Samples", (DISTANCE, SPREAD, DENSITY), lambda found: "frechet_distance" in found, 20),
    Table("Samples of a class", (CLASS,), lambda found: "class_accuracy" in found, 21),
)
PICTURES = {"nearest.png": "Samples, each with its nearest training image on its right"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num_samples", type=int, default=10_000, help="number of samples drawn for the distances")
    parser.add_argument(
        "--extractor",
        help="classifier in whose features samples are compared with test images: a run, a checkpoint or a Hub id",
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


def extractor_for(source, options: argparse.Namespace) -> str | None:
    """The folder or Hub id of the classifier that judges these images: --extractor, or what the data set names."""
    name = options.extractor or source.extractor
    place = ROOT / "checkpoints" / str(name)
    return str(place) if name and place.is_dir() else name


def measure(pipe, source, options: argparse.Namespace) -> tuple[dict, dict[str, bytes]]:
    for name in ("num_samples", "sweep_samples"):
        if getattr(options, name) < NEIGHBOURS + 2:
            raise UsageError(f"--{name} is {getattr(options, name)}; it must be at least {NEIGHBOURS + 2}")
    extractor, least = extractor_for(source, options), NEIGHBOURS + 2
    if options.extractor and len(source.test) < least:
        raise UsageError(
            f"--extractor: the test split holds {len(source.test)} images; distances need {least} at least"
        )
    if extractor is None or len(source.test) < least:
        return {}, {}
    return compare_samples(pipe, source, extractor, options)


# Figures of sets of features


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)): Fréchet distance of two Gaussians fitted to (N, F), (M, F).

    Heusel et al., arXiv 1706.08500, equation 6, by torchmetrics.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    identity = nn.Identity()
    identity.num_features = a.shape[1]  # the features are computed already
    metric = FrechetInceptionDistance(feature=identity)
    metric.update(a, real=True)
    metric.update(b, real=False)
    return metric.compute().item()


def nearest_distances(a: Tensor, b: Tensor, k: int = 1, skip_self: bool = False) -> Tensor:
    """Distance from each of (N, F) to its k-th nearest of (M, F): (N,). `skip_self` where a and b are one set."""
    k += skip_self
    return torch.cat([torch.cdist(part, b).topk(k, 1, largest=False).values[:, -1] for part in a.split(1_000)])


def precision_recall_density_coverage(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> dict[str, float]:
    """How much of `fake` (M, F) lies where `real` (N, F) does, and the reverse.

    Precision and recall: Kynkäänniemi et al., arXiv 1904.06991, equation 1; density and coverage: Naeem et al., arXiv
    2002.09797, equations 2 and 3. Balls reach to the k-th nearest neighbour within a set, the image itself not counted.
    """
    real_radius, fake_radius = nearest_distances(real, real, k, True), nearest_distances(fake, fake, k, True)
    inside_real = torch.zeros(len(fake))  # for each fake: how many balls of real images hold it
    covered, recalled = torch.zeros(len(real), dtype=torch.bool), torch.zeros(len(real), dtype=torch.bool)
    for begin in range(0, len(real), 1_000):
        rows = slice(begin, begin + 1_000)
        distance = torch.cdist(real[rows], fake)
        inside = distance <= real_radius[rows, None]
        inside_real += inside.sum(0).cpu()
        covered[rows] = inside.any(1).cpu()
        recalled[rows] = (distance <= fake_radius[None]).any(1).cpu()
    return {
        "precision": (inside_real > 0).float().mean().item(),
        "recall": recalled.float().mean().item(),
        "density": inside_real.mean().item() / k,
        "coverage": covered.float().mean().item(),
    }


def nearest_pairs(images: Tensor, fake: Tensor, train: Tensor, source, count: int = 32) -> bytes:
    """The first samples, and on the right of each its nearest training image by the features: a PNG."""
    which = torch.cdist(fake[:count], train).argmin(1)
    found = source.as_input(source.train.__getitems__(which))
    pairs = torch.stack([images[:count], found], 1).flatten(0, 1)
    return image_grid(pairs.permute(0, 2, 3, 1).numpy(), 8)


def memorised_share(train: Tensor, test: Tensor, fake: Tensor) -> float:
    """The share of `fake` nearer to a training image than 99 % of `test` are."""
    near = nearest_distances(test, train).quantile(0.01)
    return (nearest_distances(fake, train) < near).float().mean().item()


def draw_samples(pipe, count: int, labels: Tensor | None, **arguments) -> Tensor:
    """Images as the pipeline draws them by default, or with other arguments: (count, C, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for begin in range(0, count, BATCH):
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


def compare_samples(pipe, source, extractor: str, options: argparse.Namespace) -> tuple[dict, dict[str, bytes]]:
    """Distances of samples from test images in the extractor's features, and a picture of nearest training images."""
    judge = load(extractor, str(pipe.device), options.trust)
    if "features" not in judge.calls:
        raise UsageError(f"--extractor {extractor}: is no classifier; it has no features to measure in")
    if tuple(judge.data_spec["shape"]) != tuple(source.shape):
        raise UsageError(
            f"--extractor {extractor}: takes images of shape {judge.data_spec['shape']}, the data has {list(source.shape)}"
        )
    count, classes = min(options.num_samples, len(source.test)), pipe.num_classes
    knows_classes = record_of(extractor).get("dataset", {}).get("id") == source.dataset_id
    sweeps = [parse_sweep(pipe, word) for word in options.sweep]

    def features_of(split, number: int) -> Tensor:
        rows = batches_in_order(split, 500, number)
        return torch.cat([judge.features(source.as_input(batch)).cpu() for batch in rows])[:number]

    def draw(number: int, **arguments) -> tuple[Tensor, Tensor, dict]:
        """Images, their features, and their distances from as many test images."""
        labels = torch.arange(number) % classes if classes else None
        images = draw_samples(pipe, number, labels, **arguments)
        fake = judge.features(images).cpu()
        figures = distances(real[:number], fake)
        if labels is not None and knows_classes:
            figures["class_accuracy"] = (judge.classify(images).argmax(1).cpu() == labels).float().mean().item()
        return images, fake, figures

    real, train = features_of(source.test, count), features_of(source.train, len(source.train))
    images, fake, figures = draw(count)
    # training images spread over the whole split, as many as there are samples
    floor = distances(real, train[torch.linspace(0, len(train) - 1, count).long()])
    figures["memorised"] = memorised_share(train, real, fake)
    found = {
        **rounded(figures),
        "floor": rounded(floor),
        "samples": count,
        "extractor": {"id": Path(extractor).name, "sha256": weights_hash(judge)},
    }
    number = min(count, options.sweep_samples)
    for name, values in sweeps:
        rows = [{"value": value, **rounded(draw(number, **{name: value})[2])} for value in values]
        found.setdefault("sweeps", {})[name] = {"samples": number, "rows": rows}
    return found, {"nearest.png": nearest_pairs(images, fake, train, source)}


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
