"""Measure a model, print what was found and keep it as results.json.

    python -m training.evaluate checkpoints/vae-mnist --data_dir DIR        # a run, a checkpoint, a portable folder
    python -m training.evaluate user/vae-mnist                              # or a repository on the Hub

Beside it lie `nearest.png`, samples each with its nearest training image, or a classifier's `calibration.png`.

All figures are of test images. What each of them means:

- `nats`: mean of -log p(x), or of its bound, per image; `convention` says how it was computed. `bits_per_dim` for 8-bit
  data: nats / (dimensions x ln 2).
- `frechet_distance`, `precision`, `recall`, `density`, `coverage`: of images as the pipeline draws them by default,
  against as many test images, in the features of `extractor`; `floor` holds the same figures of training images.
- `memorised`: the share of samples that lie closer to their nearest training image than 99 % of test images do to
  theirs, in the same features: about 0.01 for a model that copies nothing.
- `class_accuracy`: the share of conditional samples that the extractor assigns to the class asked for.
- `reconstruction_error`: mean squared error of reconstructions per pixel, with pixels in [0, 1].
- `sweeps`: the distances again at other values of an argument of the pipeline, as `--sweep` names them, with fewer
  samples: compare them with each other only.
- `seconds_per_image` at batch 1 and 64, the median of five; `peak_memory_mb` of a process that loads the model and
  draws 64 images, libraries included (of the GPU's memory, where there is one).

Of a language model: `evaluate_text` says what.
"""

import argparse
import hashlib
import inspect
import json
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from training import evaluate_text
from training.data import DataOptions, DataSource, in_order, load_data, prepare
from training.options import LineParser, UsageError, command_line
from training.pictures import image_grid, reliability
from training.publish import is_language
from training.text import TextOptions

ROOT = Path(__file__).resolve().parents[1]
EXTRACTORS = {(1, 28, 28): "classifier-mnist"}  # by the shape of the images
NEIGHBOURS = 5
BINARISATIONS, IMPORTANCE_IMAGES = 3, 300
BATCH = 100  # images at once: of a diffusion model on a CPU, 500 at once take twice as long for each


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


def nearest(a: Tensor, b: Tensor, k: int = 1, skip_self: bool = False) -> Tensor:
    """Distance from each of (N, F) to its k-th nearest of (M, F): (N,). `skip_self` where a and b are one set."""
    k += skip_self
    return torch.cat([torch.cdist(part, b).topk(k, 1, largest=False).values[:, -1] for part in a.split(1_000)])


def precision_recall_density_coverage(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> dict[str, float]:
    """How much of `fake` (M, F) lies where `real` (N, F) does, and the reverse.

    Precision and recall: Kynkäänniemi et al., arXiv 1904.06991, equation 1; density and coverage: Naeem et al., arXiv
    2002.09797, equations 2 and 3. Balls reach to the k-th nearest neighbour within a set, the image itself not counted.
    """
    real_radius, fake_radius = nearest(real, real, k, True), nearest(fake, fake, k, True)
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


def nearest_pairs(images: Tensor, fake: Tensor, train: Tensor, split, count: int = 32) -> bytes:
    """The first samples, and on the right of each its nearest training image by the features: a PNG."""
    which = torch.cdist(fake[:count], train).argmin(1)
    found = split.__getitems__(which)[0].float() / 255
    pairs = torch.stack([images[:count], found], 1).flatten(0, 1)
    return image_grid(pairs.permute(0, 2, 3, 1).numpy(), 8)


def memorised(train: Tensor, test: Tensor, fake: Tensor) -> float:
    """The share of `fake` nearer to a training image than 99 % of `test` are."""
    near = nearest(test, train).quantile(0.01)
    return (nearest(fake, train) < near).float().mean().item()


def calibration(probabilities: Tensor, labels: Tensor, bins: int = 15) -> tuple[float, list[tuple[float, float, int]]]:
    """Expected calibration error, and (confidence, accuracy, count) of each bin that holds something.

    Guo et al., arXiv 1706.04599, equation 3: the mean over images of |accuracy - confidence| of their bin.
    """
    confidence, answer = probabilities.max(1)
    right = (answer == labels).float()
    which = (confidence * bins).ceil().long().clamp(1, bins)
    rows, error = [], 0.0
    for number in range(1, bins + 1):
        inside = which == number
        if inside.any():
            rows.append((confidence[inside].mean().item(), right[inside].mean().item(), int(inside.sum())))
            error += abs(rows[-1][0] - rows[-1][1]) * rows[-1][2] / len(labels)
    return error, rows


def bits_per_dim(nats: float, shape) -> float:
    """nats / (dimensions x ln 2)."""
    return nats / (math.prod(shape) * math.log(2))


def mean_and_error(values: Tensor, what: str) -> tuple[float, float]:
    """Mean and its standard error over images.

    Raises:
        UsageError: a value is not finite; a mean that hides it would be no figure.
    """
    values = values.double().cpu()
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        number = int(bad[0])
        raise UsageError(f"{what} of test image {number} is {values[number].item()}; {len(bad)} of {len(values)} so")
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


# A model


def load(source: str, device: str):
    """The pipeline and run.json of a run, a checkpoint, a portable folder or a repository; the code is the one it carries.

    Raises:
        UsageError: it is none of these.
    """
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    from training.publish import build

    logging.disable_progress_bar()  # of loading: an instant
    folder = Path(source)
    with tempfile.TemporaryDirectory() as temporary:
        if not folder.is_dir():
            folder = _download(source)
        elif isinstance(json.loads(_index(folder).read_text()).get("_class_name"), str):
            build(folder, Path(temporary) / folder.name)  # measured is what is published
            folder = Path(temporary) / folder.name
        pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
        record = folder / "run.json"
        run = json.loads(record.read_text()) if record.is_file() else {}
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device), run


def _index(folder: Path) -> Path:
    index = folder / "model_index.json"
    if not index.is_file():
        raise UsageError(f"{folder}: there is no model_index.json in it; give a finished run, a checkpoint or a Hub id")
    return index


def _download(source: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source))
    except Exception as error:  # the Hub client raises many kinds; each is the same to the user
        why = " ".join(str(error).split())[:200]
        raise UsageError(f"{source}: neither a folder nor a repository on the Hub ({why})") from None


def is_conditional(pipe) -> bool:
    configs = [getattr(part, "config", {}) for part in (pipe, *pipe.components.values())]
    return any(config.get("conditional", False) for config in configs if hasattr(config, "get"))


def likelihood(pipe, source: DataSource, importance_samples: int) -> dict:
    """-log p(x), or its bound, over the test split."""
    spec, given = pipe.data_spec, is_conditional(pipe)
    generator = torch.Generator().manual_seed(0)
    binary = spec["support"] == "binary"

    def stored(x: Tensor) -> Tensor:
        """As a pipeline takes x: binary draws, levels in [0, 1], or vectors as they are."""
        if binary:
            return prepare(x, spec, generator)
        return x.float() / 255 if spec["kind"] == "image" else x.float()

    def log_likelihood(x: Tensor, labels) -> Tensor:
        known = {"class_labels": labels} if given else {}
        if pipe.likelihood == "exact":
            return pipe.log_prob(stored(x), generator=generator, **known)
        # averaged over images, few draws are plenty: the family's default
        return pipe.elbo(stored(x), generator=generator, **known)

    rounds = BINARISATIONS if binary or spec["dequantization"] == "uniform" else 1
    draws = [torch.cat([log_likelihood(x, labels).cpu() for x, labels in in_order(source.test, BATCH)])
             for _ in range(rounds)]  # fmt: skip
    mean, error = mean_and_error(-torch.stack(draws).mean(0), "-log p(x)")
    figures = {"nats": round(mean, 3), "nats_standard_error": round(error, 3), "test_images": len(draws[0])}
    said = ["exact" if pipe.likelihood == "exact" else "bound"]
    if binary:
        said.append(f"dynamic binarisation, {rounds} draws")
    elif spec["dequantization"] == "uniform":
        said.append(f"uniform dequantisation, {rounds} draws, density of pixels in [0, 256)")
    if hasattr(pipe, "convention"):
        said.append(pipe.convention)
    if spec["support"] == "8-bit":
        figures["bits_per_dim"] = round(bits_per_dim(mean, spec["shape"]), 4)
    if given:
        said.append("given the class")
    if pipe.likelihood == "bound" and importance_samples:
        figures |= importance_weighted(pipe, source, stored, importance_samples, mean, error, generator)
    return {**figures, "convention": "; ".join(said) + "; standard error over images"}


def importance_weighted(pipe, source, stored, importance_samples: int, mean: float, error: float, generator) -> dict:
    """The figure of the importance-weighted estimate; nothing where a family has none.

    It is the bound less the gap between the two on some images: a part of the set by itself may be harder or easier.
    """
    places = torch.linspace(0, len(source.test) - 1, min(IMPORTANCE_IMAGES, len(source.test))).long()
    x, labels = source.test.__getitems__(places)
    x, known = stored(x), {"class_labels": labels} if is_conditional(pipe) else {}
    try:
        estimate = pipe.log_prob(x, importance_samples, generator=generator, **known)
    except NotImplementedError:
        return {}
    gap = estimate - pipe.elbo(x, 10, generator=generator, **known)
    tighter, gap_error = mean_and_error(gap, "the gap of the importance-weighted estimate")
    return {
        "importance_weighted_nats": round(mean - tighter, 3),
        "importance_weighted_nats_standard_error": round(math.hypot(error, gap_error), 3),
        "importance_samples": importance_samples,
        "importance_images": len(gap),
    }


def reconstruction(pipe, source: DataSource) -> dict:
    """Mean squared error of reconstructions over the test split, of pixels in [0, 1]; nothing without a code."""
    errors = []
    for x, _ in in_order(source.test, 500):
        try:
            errors.append(pipe.reconstruction_error(x.float() / 255 if source.kind == "image" else x.float()).cpu())
        except NotImplementedError:
            return {}
    if not errors:
        return {}
    mean, error = mean_and_error(torch.cat(errors), "the squared error")
    return {
        "reconstruction_error": float(f"{mean:.4g}"),
        "reconstruction_error_standard_error": float(f"{error:.2g}"),
        "test_images": sum(map(len, errors)),
    }


def samples(pipe, count: int, labels: Tensor | None, **arguments) -> Tensor:
    """Images as the pipeline draws them by default, or with other arguments: (count, C, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for begin in range(0, count, BATCH):
        size = min(BATCH, count - begin)
        given = None if labels is None else labels[begin : begin + size].tolist()
        drawn = pipe(batch_size=size, class_labels=given, generator=generator, output_type="pt", **arguments)
        parts.append(drawn.images.cpu())
    return torch.cat(parts)


def sweep_of(pipe, word: str) -> tuple[str, list[int | float]]:
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


def quality(pipe, source: DataSource, extractor: str, options: argparse.Namespace) -> tuple[dict, dict[str, bytes]]:
    """Distances of samples from test images in the extractor's features, and a picture of nearest training images."""
    judge, _ = load(extractor, str(pipe.device))
    if not hasattr(judge, "features"):
        raise UsageError(f"--extractor {extractor}: is no classifier; it has no features to measure in")
    if tuple(judge.data_spec["shape"]) != tuple(source.shape):
        raise UsageError(
            f"--extractor {extractor}: takes images of shape {judge.data_spec['shape']}, the data has {list(source.shape)}"
        )
    count, classes = min(options.num_samples, len(source.test)), pipe.data_spec["num_classes"]
    sweeps = [sweep_of(pipe, word) for word in options.sweep]

    def features_of(split, number: int) -> Tensor:
        return torch.cat([judge.features(x.float() / 255).cpu() for x, _ in in_order(split, 500, number)])[:number]

    def draw(number: int, **arguments) -> tuple[Tensor, Tensor, dict]:
        """Images, their features, and their distances from as many test images."""
        labels = torch.arange(number) % classes if is_conditional(pipe) else None
        images = samples(pipe, number, labels, **arguments)
        fake = judge.features(images).cpu()
        figures = distances(real[:number], fake)
        if labels is not None:
            figures["class_accuracy"] = (judge.classify(images).argmax(1).cpu() == labels).float().mean().item()
        return images, fake, figures

    real, train = features_of(source.test, count), features_of(source.train, len(source.train))
    images, fake, figures = draw(count)
    # training images spread over the whole split, as many as there are samples
    floor = distances(real, train[torch.linspace(0, len(train) - 1, count).long()])
    figures["memorised"] = memorised(train, real, fake)
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
    return found, {"nearest.png": nearest_pairs(images, fake, train, source.train)}


def distances(real: Tensor, fake: Tensor) -> dict[str, float]:
    return {"frechet_distance": frechet_distance(real, fake), **precision_recall_density_coverage(real, fake)}


def rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


def weights_hash(pipe) -> str:
    """SHA-256 of a pipeline's weights, by name: what a figure in its features depends on."""
    digest = hashlib.sha256()
    for part in sorted(name for name, module in pipe.components.items() if isinstance(module, nn.Module)):
        for name, tensor in sorted(getattr(pipe, part).state_dict().items()):
            digest.update(f"{part}.{name}".encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def classification(pipe, source: DataSource) -> dict:
    """Accuracy, -log p(y|x) and calibration over the test split."""
    given, labels = [], []
    for x, y in in_order(source.test, 500):
        given.append(pipe.classify(x.float() / 255).cpu())
        labels.append(y)
    given, labels = torch.cat(given), torch.cat(labels)
    mean, error = mean_and_error(-given.gather(1, labels[:, None]).log()[:, 0], "-log p(y|x)")
    wrong, rows = calibration(given, labels)
    return {
        "accuracy": round((given.argmax(1) == labels).float().mean().item(), 5),
        "class_nats": round(mean, 5),
        "class_nats_standard_error": round(error, 5),
        "calibration_error": round(wrong, 5),
        "calibration": [[round(c, 4), round(a, 4), n] for c, a, n in rows],
        "test_images": len(labels),
    }


PEAK = """
import json, resource, sys, torch
from training.evaluate import load
device = sys.argv[2]
pipe, _ = load(sys.argv[1], device)
pipe(batch_size=64, output_type="pt")
peak = torch.cuda.max_memory_allocated() if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps(peak / 1e6))
"""


def cost(pipe, source: str, device: str) -> dict:
    """Seconds per image, peak memory and parameters."""
    seconds = {}
    for batch in (1, 64):
        times = []
        for _ in range(6):
            began = time.perf_counter()
            pipe(batch_size=batch, output_type="pt", generator=torch.Generator().manual_seed(0))
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        seconds[str(batch)] = float(f"{statistics.median(times[1:]) / batch:.3g}")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, source, device], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {
        "seconds_per_image": seconds,
        "peak_memory_mb": round(json.loads(done.stdout.splitlines()[-1])),
    }


def parameters(pipe) -> int:
    modules = [m for m in pipe.components.values() if isinstance(m, nn.Module)]
    return sum(p.numel() for m in modules for p in m.parameters())


def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        cpu = next((line.split(":")[1].strip() for line in info.open() if line.startswith("model name")), cpu)
    return f"{cpu}, {torch.get_num_threads()} threads"


def evaluate(source: str, data: DataOptions, options: argparse.Namespace) -> tuple[dict, dict[str, bytes]]:
    """All figures that the model owes, as results.json holds them, and pictures by file name."""
    pipe, _ = load(source, options.device)
    loaded = load_data(data)
    if list(loaded.shape) != list(pipe.data_spec["shape"]):
        raise UsageError(
            f"{source}: takes data of shape {pipe.data_spec['shape']}, {data.dataset} has {list(loaded.shape)}"
        )
    pictures: dict[str, bytes] = {}
    results = {"dataset": loaded.dataset_id, "likelihood": pipe.likelihood, "parameters": parameters(pipe)}
    draws = pipe.likelihood != "none"
    if not draws and hasattr(pipe, "classify") and getattr(pipe, "classifies", True):
        results |= classification(pipe, loaded)
        pictures = {"calibration.png": reliability(results["calibration"])}
    if pipe.likelihood in ("exact", "bound"):
        results |= likelihood(pipe, loaded, options.importance_samples)
    if hasattr(pipe, "reconstruction_error"):
        results |= reconstruction(pipe, loaded)
    if draws:
        extractor = options.extractor or EXTRACTORS.get(tuple(loaded.shape))
        if extractor and loaded.kind == "image":
            place = ROOT / "checkpoints" / extractor
            judge = str(place) if place.is_dir() else extractor
            found, pictures = quality(pipe, loaded, judge, options)
            results |= found
        results |= cost(pipe, str(Path(source).resolve()) if Path(source).is_dir() else source, options.device)
    return {**results, "machine": machine(options.device), "torch": torch.__version__}, pictures


def main(argv: list[str] | None = None) -> None:
    parser = LineParser(prog="python -m training.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("source", help="a finished run, a checkpoint, a portable folder or a Hub id")
    parser.add_argument("--dataset", help="measure on this set instead of the one it was trained on")
    parser.add_argument("--data_dir", help="a local copy of the named set")
    parser.add_argument("--num_samples", type=int, default=10_000, help="samples drawn for the distances")
    parser.add_argument("--importance_samples", type=int, default=200, help="for the importance-weighted estimate")
    parser.add_argument("--extractor", help="a classifier in whose features samples are measured")
    parser.add_argument("--sweep", nargs="*", default=[], help="NAME=V1,V2,...: distances at values of an argument")
    parser.add_argument("--sweep_samples", type=int, default=2_000, help="samples drawn for each value")
    parser.add_argument("--stride", type=int, help="of a language model: tokens between two windows; half the context")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--to", type=Path, help="write results.json into this folder; the source itself by default")
    options = parser.parse_args(argv)
    for name, least in (("num_samples", NEIGHBOURS + 2), ("importance_samples", 0), ("sweep_samples", NEIGHBOURS + 2)):
        if getattr(options, name) < least:
            raise UsageError(f"--{name} is {getattr(options, name)}; it must be at least {least}")
    folder = Path(options.source)
    where = folder if folder.is_dir() else _download(options.source)
    file = where / "run.json" if is_language(where) else _index(where).with_name("run.json")
    run = json.loads(file.read_text()) if file.is_file() else {"options": {}, "dataset": {"name": None}}
    dataset = options.dataset or run["dataset"]["name"]
    if dataset is None:
        raise UsageError(f"{options.source}: has no run.json that names its data; give --dataset")
    if is_language(where):
        # a set that was streamed is cut by its paragraphs: read otherwise, held-out text would be training text
        same = ("subset", "text_column", "streaming") if options.dataset is None else ("streaming",)
        data = TextOptions(dataset, options.data_dir, **{k: v for k, v in run["options"].items() if k in same})
        results, pictures = evaluate_text.evaluate(str(where), data, options.stride, options.device), {}
        results |= {"machine": machine(options.device), "torch": torch.__version__}
    else:
        data = DataOptions(dataset, options.data_dir, run["options"].get("resolution"))
        results, pictures = evaluate(options.source, data, options)
    place = options.to or (folder if folder.is_dir() else None)
    if place is not None:
        from training.loops.common import write_atomically

        place.mkdir(parents=True, exist_ok=True)
        for name, content in pictures.items():
            write_atomically(place / name, content)
        write_atomically(place / "results.json", json.dumps(results, indent=2, sort_keys=True) + "\n")
    print(json.dumps(results, sort_keys=True))


if __name__ == "__main__":
    command_line(main)
