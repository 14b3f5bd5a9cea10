"""-log p(x), or its bound, over the test split.

- `nats`: the mean per sample; `convention` says how it was computed.
- `bits_per_dim` of 8-bit data: nats / (dimensions x ln 2).
- `importance_weighted_nats`: the tighter estimate, where a family has one.
"""

import argparse
import math

import torch

from training.averages import mean_and_error
from training.data.batches import batches_in_order
from training.figures import Figure, Table
from training.options import UsageError
from training.watching import watched

BINARISATIONS, IMPORTANCE_IMAGES = 3, 300
BATCH = 100  # rows at once: of a diffusion model on a CPU, 500 at once take twice as long for each


def _bounded(found: dict) -> str:
    return f"{'≤ ' if found['likelihood'] == 'bound' else ''}{found['nats']:.2f} ± {found['nats_standard_error']:.2f}"


def _without_bits(found: dict, kind: str) -> bool:
    return "nats" in found and "bits_per_dim" not in found and found.get("data_kind") == kind


NATS = Figure(
    "nats",
    "nats",
    "-log p(x), nats per {unit}",
    error="nats_standard_error",
    metric_type="nll",
    order=10,
    show=_bounded,
)
BITS = Figure(
    "bits_per_dim", "bits/dim", "-log p(x), bits per dimension", digits=3, metric_type="bits_per_dim", order=11
)
WEIGHTED = Figure(
    "importance_weighted_nats",
    "importance-weighted nats",
    "importance-weighted estimate of -log p(x), nats per {unit}",
    error="importance_weighted_nats_standard_error",
    metric_type="nll",
    order=12,
)
TABLES = (
    Table("Likelihood of 8-bit images", (BITS, NATS), lambda found: "bits_per_dim" in found, 10),
    Table("Likelihood of binary images", (NATS, WEIGHTED), lambda found: _without_bits(found, "image"), 11),
    Table("Likelihood of points", (NATS,), lambda found: _without_bits(found, "vector"), 12),
)
PICTURES = {}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--importance_samples",
        type=int,
        default=200,
        help="draws for each image of the importance-weighted likelihood; 0 leaves it out",
    )


def applies(pipe, source) -> bool:
    return bool({"log_prob", "elbo"} & pipe.calls)


def measure(pipe, source, options: argparse.Namespace) -> tuple[dict, dict[str, bytes]]:
    if options.importance_samples < 0:
        raise UsageError(f"--importance_samples is {options.importance_samples}; it must be at least 0")
    spec, given = pipe.data_spec, pipe.num_classes > 0
    generator = torch.Generator().manual_seed(0)
    binary = spec["support"] == "binary"

    def log_likelihood(batch: dict) -> torch.Tensor:
        x = source.as_input(batch, spec, generator)
        known = {"class_labels": batch["class_labels"]} if given else {}
        if pipe.likelihood == "exact":
            return pipe.log_prob(x, generator=generator, **known)
        # averaged over samples, few draws are plenty: the family's default
        return pipe.elbo(x, generator=generator, **known)

    rounds = BINARISATIONS if binary or spec["dequantization"] == "uniform" else 1
    total = math.ceil(len(source.test) / BATCH)
    draws = [
        [
            log_likelihood(batch).cpu()
            for batch in watched(batches_in_order(source.test, BATCH), f"likelihood, draw {number} of {rounds}", total)
        ]
        for number in range(1, rounds + 1)
    ]
    draws = [torch.cat(parts) if parts else torch.empty(0) for parts in draws]
    mean, error = mean_and_error(-torch.stack(draws).mean(0), "-log p(x)")
    found = {"nats": round(mean, 3), "nats_standard_error": round(error, 3), "test_images": len(draws[0])}
    said = ["exact" if pipe.likelihood == "exact" else "bound"]
    if binary:
        said.append(f"dynamic binarisation, {rounds} draws")
    elif spec["dequantization"] == "uniform":
        said.append(f"uniform dequantisation, {rounds} draws, density of pixels in [0, 256)")
    said += [words for words in [getattr(pipe, "convention", None)] if words]
    if spec["support"] == "8-bit":
        found["bits_per_dim"] = round(bits_per_dim(mean, spec["shape"]), 4)
    if given:
        said.append("given the class")
    if pipe.likelihood == "bound" and options.importance_samples:
        found |= importance_weighted(pipe, source, options.importance_samples, mean, error, generator)
    said.append(f"standard error over {'images' if spec['kind'] == 'image' else 'points'}")
    return {**found, "convention": "; ".join(said)}, {}


def bits_per_dim(nats: float, shape) -> float:
    """nats / (dimensions x ln 2)."""
    return nats / (math.prod(shape) * math.log(2))


def importance_weighted(pipe, source, importance_samples: int, mean: float, error: float, generator) -> dict:
    """The figure of the importance-weighted estimate; nothing where a family has none.

    It is the bound less the gap between the two on some samples: a part of the set by itself may be harder or easier.
    """
    if "log_prob" not in pipe.calls:
        return {}
    places = torch.linspace(0, len(source.test) - 1, min(IMPORTANCE_IMAGES, len(source.test))).long()
    batch = source.test.__getitems__(places)
    x = source.as_input(batch, pipe.data_spec, generator)
    known = {"class_labels": batch["class_labels"]} if pipe.num_classes else {}
    gap = pipe.log_prob(x, importance_samples, generator=generator, **known)
    gap = gap - pipe.elbo(x, 10, generator=generator, **known)
    tighter, gap_error = mean_and_error(gap, "the gap of the importance-weighted estimate")
    return {
        "importance_weighted_nats": round(mean - tighter, 3),
        "importance_weighted_nats_standard_error": round(math.hypot(error, gap_error), 3),
        "importance_samples": importance_samples,
        "importance_images": len(gap),
    }
