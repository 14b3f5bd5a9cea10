"""What a fast sampler of a diffusion model loses in quality against 1000 ancestral steps, and what it gains in time.

    python benchmarks/diffusion.py --data_dir DIR_OF_MNIST [--checkpoint checkpoints/ddpm-mnist] [--dtype bfloat16]

Prints one JSON line:
    frechet_distance      of `num_samples` images of each sampler, the same seeds and classes, against the test images,
                          in the features of checkpoints/classifier-mnist; with 95 % intervals, and one of their
                          difference, by a bootstrap over the samples (both samplers' images of a seed drawn together)
    class_accuracy        the share of images in the class that was asked for
    seconds_16_images     at the pipeline's defaults; of 1000 ancestral steps with the same network and guidance; and of
                          diffusers' `DDPMPipeline` with 1000 steps on an unconditional U-Net of 1.2 M parameters
    speedup               the second over the first

`--dtype` is that of the network while the images for the distances are drawn; times are in float32.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from training.data.batches import batches_in_order  # noqa: E402
from training.data.images import DataOptions, load_data  # noqa: E402
from training.evaluate import machine  # noqa: E402
from training.measures.samples import frechet_distance  # noqa: E402
from training.publishing.loading import load  # noqa: E402

BATCH, RESAMPLED = 50, 200  # larger batches are slower on a CPU


def draw(pipe, count: int, scheduler, steps: int, keep: Path | None) -> torch.Tensor:
    """Images of all classes in turn; image i from seed i, whatever the sampler."""
    default, parts = pipe.scheduler, []
    pipe.scheduler = scheduler
    for begin in range(0, count, BATCH):
        numbers = range(begin, min(begin + BATCH, count))
        seeds = [torch.Generator().manual_seed(i) for i in numbers]
        labels = [i % pipe.data_spec["num_classes"] for i in numbers]
        file = keep and keep / f"{type(scheduler).__name__}-{steps}-{begin}.pt"
        if file and file.is_file():
            parts.append(torch.load(file))
            continue
        parts.append(pipe(class_labels=labels, num_inference_steps=steps, generator=seeds, output_type="pt").images)
        if file:
            torch.save(parts[-1], file)
        print(f"{type(scheduler).__name__}: {begin + len(labels)} of {count}", file=sys.stderr, flush=True)
    pipe.scheduler = default
    return torch.cat(parts)


def compare_quality(pipe, judge, real: torch.Tensor, count: int, keep: Path | None) -> dict:
    """Distances and class accuracy of the fast and of the ancestral sampler, from the same seeds."""
    ancestral = DDPMScheduler.from_config(pipe.scheduler.config)
    samplers = {
        "default": (pipe.scheduler, pipe.config.num_inference_steps),
        "ancestral": (ancestral, pipe.num_timesteps),
    }
    labels = torch.arange(count) % pipe.data_spec["num_classes"]
    features, accuracy = {}, {}
    for name, (scheduler, steps) in samplers.items():
        images = draw(pipe, count, scheduler, steps, keep)
        features[name] = judge.features(images)
        accuracy[name] = (judge.classify(images).argmax(1) == labels).float().mean().item()
    distance = {name: frechet_distance(real, f) for name, f in features.items()}
    generator, rows = torch.Generator().manual_seed(0), []
    for _ in range(RESAMPLED):
        which = torch.randint(count, (count,), generator=generator)
        rows.append([frechet_distance(real, f[which]) for f in features.values()])
    spread = torch.tensor(rows, dtype=torch.float64)

    def interval(values: torch.Tensor) -> list[float]:
        return [round(v, 3) for v in values.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()]

    return {
        "frechet_distance": {name: round(value, 3) for name, value in distance.items()},
        "bootstrap_interval": {name: interval(spread[:, i]) for i, name in enumerate(features)},
        "difference": round(distance["default"] - distance["ancestral"], 3),
        "difference_interval": interval(spread[:, 0] - spread[:, 1]),
        "class_accuracy": {name: round(value, 4) for name, value in accuracy.items()},
        "num_samples": count,
    }


def seconds(call, runs: int) -> float:
    """The median of the seconds that `runs` calls take."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return round(statistics.median(times), 3)


def measure_cost(pipe) -> dict:
    """Seconds for 16 images of each sampler, and of diffusers' own pipeline."""
    labels = [i % 10 for i in range(16)]

    def fast():
        pipe(class_labels=labels, output_type="pt")

    fast()  # the first call of a process is slower
    default = pipe.scheduler
    times = {"default": seconds(fast, 5)}
    pipe.scheduler = DDPMScheduler.from_config(default.config)
    times["ancestral"] = seconds(
        lambda: pipe(class_labels=labels, num_inference_steps=pipe.num_timesteps, output_type="pt"), 1
    )
    pipe.scheduler = default
    unet = UNet2DModel(
        28, 1, 1, block_out_channels=(32, 64, 64), layers_per_block=1, norm_num_groups=8,
        down_block_types=["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    ).eval()  # fmt: skip
    reference = DDPMPipeline(unet, DDPMScheduler())
    reference.set_progress_bar_config(disable=True)
    times["DDPMPipeline"] = seconds(lambda: reference(16, num_inference_steps=1000, output_type="np"), 1)
    return {
        "seconds_16_images": times,
        "speedup": round(times["ancestral"] / times["default"], 1),
        "reference_parameters": sum(p.numel() for p in unet.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", help="a local copy of MNIST")
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints" / "ddpm-mnist"))
    parser.add_argument("--num_samples", type=int, default=1_000)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--keep", type=Path, help="a folder for images drawn so far: a stopped run goes on from there")
    parser.add_argument("--only", choices=("quality", "cost"), help="one of the two halves")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    pipe = load(options.checkpoint, options.device)
    found = {"default_steps": pipe.config.num_inference_steps, "guidance_scale": pipe.config.guidance_scale}
    if options.only != "quality":
        found |= measure_cost(pipe)
    if options.only != "cost":
        judge = load(str(ROOT / "checkpoints" / "classifier-mnist"), options.device)
        source = load_data(DataOptions(dataset="mnist", data_dir=options.data_dir))
        rows = batches_in_order(source.test, 500)
        real = torch.cat([judge.features(source.as_input(batch)) for batch in rows])
        found |= {
            **compare_quality(pipe.to(getattr(torch, options.dtype)), judge, real, options.num_samples, options.keep),
            "dtype": options.dtype,
        }
    print(json.dumps({**found, "machine": machine(options.device)}))


if __name__ == "__main__":
    main()
