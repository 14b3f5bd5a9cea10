"""Glow on MNIST against two other flows, and how exactly it inverts.

    pip install --no-deps --target DIR 'normflows==1.7.*'
    python benchmarks/glow.py speed --data_dir DIR_OF_MNIST --normflows DIR                       # 2 minutes
    python benchmarks/glow.py quality --data_dir DIR_OF_MNIST --normflows DIR --minutes 30        # 5 trainings
    python benchmarks/glow.py samples --data_dir DIR_OF_MNIST [--checkpoint checkpoints/glow-mnist]   # 2 minutes

Prints one JSON line; all of it on one thread, in seconds of processor time.
    speed    images/s of our flow and of normflows' Glow of the same size: 2 levels of 8 steps, three convolutions in each
             coupling, uniform dequantisation, logit, no classes. A training step is loss, gradients, clipping and fused
             AdamW, the same of both; samples are drawn without gradients, ours decoded to levels. The two run in turn; the
             ratio is the median of the ratios within a round.
    quality  bits/dim of the first test images, one draw of the place within the levels each, after equal minutes:
                 ours       2 levels of 4 steps, gated networks, learned dequantisation, as the recipe trains it
                 normflows  the flow of `speed`
                 notebook   the multi-scale flow of tutorial 11 of the University of Amsterdam's deep learning course,
                            written anew: masked couplings on a checkerboard, then on channels, no 1x1 convolutions
             The other two train as their authors train them (Adamax; Adam that falls by 1 % an epoch), and once more as
             ours does (AdamW, warm-up, cosine over the minutes): the better counts.
    samples  how many draws at temperature 1 are not finite before any clamp, and the error of a round trip from codes z to
             h on the real line and back, and from h to z and back, in float32 and float64.
"""

import argparse
import copy
import itertools
import json
import math
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipelines.flows.gaussian import standard_normal  # noqa: E402
from pipelines.flows.modeling_glow import EDGE, GlowModel  # noqa: E402
from training.data.images import DataOptions, load_data  # noqa: E402
from training.data.source import DataSource, rows_to_show  # noqa: E402
from training.evaluate import machine  # noqa: E402
from training.flows.glow import ROWS_TO_BEGIN, GlowOptions, build_model  # noqa: E402
from training.loops.weights import make_optimizer  # noqa: E402
from training.options import UsageError, command_line  # noqa: E402
from training.publishing.loading import load  # noqa: E402

PIXELS = 784
BITS = 1 / (PIXELS * math.log(2))  # of a nat, for each pixel
BATCH, OF_NOTEBOOK = 64, 128
LEVELS, STEPS, WIDTHS = 2, 8, (64, 96)  # of the flows whose speed is compared
WARM_UP, EVERY = 200, 60  # steps; seconds between two lines of progress
NETS = ("ours", "normflows", "notebook")
MADE_BY = "pip install --no-deps --target DIR 'normflows==1.7.*'"


def images(rows: Tensor) -> Tensor:
    return rows.float() / 255


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# The flow of normflows


def normflows_at(folder: Path | None):
    """The package in a folder of its own."""
    if folder is None or not (folder / "normflows" / "__init__.py").is_file():
        raise UsageError(f"--normflows {folder}: must be a folder made by {MADE_BY}")
    sys.path.insert(0, str(folder.resolve()))
    import normflows

    return normflows


class OfNormflows(nn.Module):
    """Its Glow without classes: the coarsest level first, as it lists them."""

    def __init__(self, package, width: int):
        super().__init__()
        bases, flows = [], []
        for level in reversed(range(LEVELS)):
            channels, side = 2 ** (level + 2), 28 // 2 ** (level + 1)
            blocks = [package.flows.GlowBlock(channels, width) for _ in range(STEPS)]
            flows.append([*blocks, package.flows.Squeeze()])
            bases.append(package.distributions.DiagGaussian((channels if not bases else channels // 2, side, side)))
        merges = [package.flows.Merge() for _ in range(LEVELS - 1)]
        self.flow = package.MultiscaleFlow(bases, flows, merges, package.transforms.Logit(EDGE), class_cond=False)

    def forward(self, x: Tensor) -> Tensor:
        """-log p(x) at a uniform place within the levels, nats."""
        return self.flow((255 * x + torch.rand_like(x)) / 256) + PIXELS * math.log(256)


# The flow of the notebook


class BothWays(nn.Module):
    """ELU of h and of -h, beside each other."""

    def forward(self, h: Tensor) -> Tensor:
        return F.elu(torch.cat([h, -h], 1))


class GatedBlock(nn.Module):
    """A gated residual block, then a layer norm over the channels of each pixel."""

    def __init__(self, width: int):
        super().__init__()
        inner, outer = nn.Conv2d(2 * width, width, 3, padding=1), nn.Conv2d(2 * width, 2 * width, 1)
        self.branch = nn.Sequential(BothWays(), inner, BothWays(), outer)
        self.norm = nn.LayerNorm(width)

    def forward(self, h: Tensor) -> Tensor:
        value, gate = self.branch(h).chunk(2, 1)
        return self.norm((h + value * torch.sigmoid(gate)).movedim(1, -1)).movedim(-1, 1)


class Masked(nn.Module):
    """An affine coupling: what the mask (C, H, W) keeps tells how the rest is moved."""

    def __init__(self, mask: Tensor, width: int, seen: int = 0):
        super().__init__()
        channels, last = len(mask), nn.Conv2d(2 * width, 2 * len(mask), 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        first = nn.Conv2d(channels + seen, width, 3, padding=1)
        self.net = nn.Sequential(first, *(GatedBlock(width) for _ in range(3)), BothWays(), last)
        self.log_most = nn.Parameter(torch.zeros(channels, 1, 1))
        self.register_buffer("mask", mask)

    def forward(self, z: Tensor, *seen: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.net(torch.cat([z * self.mask, *seen], 1)).chunk(2, 1)
        most, moves = self.log_most.exp(), 1 - self.mask
        log_scale = moves * (most * torch.tanh(raw / most))
        return (z + moves * shift) * log_scale.exp(), log_scale.flatten(1).sum(1)


class OfNotebook(nn.Module):
    def __init__(self):
        super().__init__()
        odd = (torch.arange(28)[:, None] + torch.arange(28)).remainder(2).float()[None]

        def on_squares(number: int, width: int, seen: int = 0) -> nn.ModuleList:
            return nn.ModuleList(Masked(odd if i % 2 == 0 else 1 - odd, width, seen) for i in range(number))

        def on_channels(number: int, channels: int, width: int) -> nn.ModuleList:
            first = (torch.arange(channels) < channels // 2).float()[:, None, None]
            return nn.ModuleList(Masked(first if i % 2 == 0 else 1 - first, width) for i in range(number))

        self.dequantiser = on_squares(4, 16, seen=1)
        self.levels = nn.ModuleList([on_squares(2, 32), on_channels(2, 4, 48), on_channels(4, 8, 64)])

    def forward(self, x: Tensor) -> Tensor:
        """-log p(x) at a learned place within the levels, nats."""
        h, found = self.logit(torch.rand_like(x))
        for coupling in self.dequantiser:
            h, log_det = coupling(h, 2 * x - 1)
            found = found + log_det
        found = found + (F.logsigmoid(h) + F.logsigmoid(-h)).flatten(1).sum(1) - PIXELS * math.log(1 - EDGE)
        place = (torch.sigmoid(h) - EDGE / 2) / (1 - EDGE)
        h, log_det = self.logit((255 * x + place) / 256)
        found = found + log_det - PIXELS * math.log(256)
        for number, level in enumerate(self.levels):
            if number == 2:
                h, gone = h.chunk(2, 1)
                found = found + standard_normal(gone)
            if number:
                h = F.pixel_unshuffle(h, 2)
            for coupling in level:
                h, log_det = coupling(h)
                found = found + log_det
        return -found - standard_normal(h)

    def logit(self, y: Tensor) -> tuple[Tensor, Tensor]:
        p = EDGE / 2 + (1 - EDGE) * y
        log_p, log_rest = torch.log(p), torch.log1p(-p)
        return log_p - log_rest, PIXELS * math.log(1 - EDGE) - (log_p + log_rest).flatten(1).sum(1)


# Speed


def compare_speed(source: DataSource, package, rounds: int) -> dict:
    """Images/s of both flows in turn, at each width."""
    x, found = source.train.columns["x"], {}
    for width in WIDTHS:
        torch.manual_seed(0)
        ours = GlowModel(source.spec("8-bit", (0, 1)), num_levels=LEVELS, num_blocks=STEPS, width=width)
        ours.initialise(source.as_input(rows_to_show(source, ROWS_TO_BEGIN, first="train")))
        theirs = OfNormflows(package, width)
        with torch.no_grad():
            theirs(images(x[:ROWS_TO_BEGIN]))
        calls = {
            "ours": (step_of(ours, lambda batch, net=ours: -net(batch).log_prob, x),
                     lambda net=ours: net.decode(torch.randn(BATCH, PIXELS))),
            "normflows": (step_of(theirs, theirs, x), lambda net=theirs.flow: net.sample(BATCH)),
        }  # fmt: skip
        rows = {f"{what} {name}": [] for what in ("training", "sampling") for name in calls}
        for _ in range(rounds):
            for name, (step, draw) in calls.items():
                rows[f"training {name}"].append(BATCH / seconds(step, 6))
                with torch.no_grad():
                    rows[f"sampling {name}"].append(BATCH / seconds(draw, 15))
        ratios = {what: [a / b for a, b in zip(rows[f"{what} ours"], rows[f"{what} normflows"], strict=True)]
                  for what in ("training", "sampling")}  # fmt: skip
        found[f"width {width}"] = {
            "parameters": {"ours": count(ours), "normflows": count(theirs)},
            "images_per_second": {name: round(statistics.median(values)) for name, values in rows.items()},
            "ratio": {what: round(statistics.median(values), 2) for what, values in ratios.items()},
            "lowest_and_highest_ratio": {what: [round(f(v), 2) for f in (min, max)] for what, v in ratios.items()},
        }
        print(f"width {width}", found[f"width {width}"], file=sys.stderr, flush=True)
    return found


def step_of(net: nn.Module, nats, x: Tensor):
    """A training step, the same of any flow."""
    optimizer = make_optimizer(net, GlowOptions(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        (BITS * nats(images(x[torch.randint(len(x), (BATCH,))])).mean()).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()

    return step


def seconds(call, times: int) -> float:
    """Of processor time, for each of some calls after a first."""
    call()
    began = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - began) / times


# Quality


def built(name: str, source: DataSource, package, seed: int):
    """A new flow, and what gives its nats of a batch."""
    torch.manual_seed(seed)
    if name == "ours":
        options = GlowOptions(num_blocks=4, width=48, top_width=64, depth=2, dequantization="variational")
        net = build_model(options, source)
        return net, lambda x: -net(x).log_prob
    net = OfNormflows(package, WIDTHS[-1]) if name == "normflows" else OfNotebook()
    return net, net


def train(name: str, recipe: str, net: nn.Module, nats, x: Tensor, minutes: float) -> int:
    """For so many minutes of processor time; the number of steps."""
    rate, batch, epoch = 1e-3, OF_NOTEBOOK if recipe == "notebook" else BATCH, len(x) // OF_NOTEBOOK
    if recipe == "normflows":
        optimizer = torch.optim.Adamax(net.parameters(), lr=rate, weight_decay=1e-5)
    elif recipe == "notebook":
        optimizer = torch.optim.Adam(net.parameters(), lr=rate, fused=True)
    else:
        rate = GlowOptions().learning_rate
        optimizer = make_optimizer(net, GlowOptions(), rate)
    began, said, recent = time.process_time(), 1, []
    for step in itertools.count():
        spent = (time.process_time() - began) / (60 * minutes)
        if spent * 60 * minutes >= said * EVERY or spent >= 1:
            so_far = f"{sum(recent) / max(len(recent), 1):.4f} bits/dim in training"
            print(f"{name}, trained as {recipe}: {spent * minutes:.1f} minutes, {step} steps, {so_far}",
                  file=sys.stderr, flush=True)  # fmt: skip
            said, recent = said + 1, []
        if spent >= 1:
            return step
        falls = {"ours": min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * spent)), "normflows": 1.0}
        for group in optimizer.param_groups:
            group["lr"] = rate * falls.get(recipe, 0.99 ** (step // epoch))
        optimizer.zero_grad()
        loss = BITS * nats(images(x[torch.randint(len(x), (batch,))])).mean()
        if loss.isfinite():
            loss.backward()
            if recipe != "normflows":
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            recent.append(loss.item())


def compare_quality(source: DataSource, package, options: argparse.Namespace) -> dict:
    """Bits/dim of each flow, by each way to train it."""
    test, found = images(source.test.columns["x"][: options.num_images]), {}
    for name in [options.only] if options.only else NETS:
        by_recipe = {}
        for recipe in dict.fromkeys((name, "ours")):
            net, nats = built(name, source, package, options.seed)
            steps = train(name, recipe, net, nats, source.train.columns["x"], options.minutes)
            torch.manual_seed(options.seed)
            with torch.no_grad():
                bits = BITS * torch.cat([nats(part) for part in test.split(200)]).double()
            by_recipe[f"trained as {recipe}"] = {
                "bits_per_dim": round(bits.mean().item(), 4),
                "standard_error": round(bits.std().item() / len(bits) ** 0.5, 4),
                "steps": steps,
            }
            print(name, by_recipe, file=sys.stderr, flush=True)
        best = min(row["bits_per_dim"] for row in by_recipe.values())
        found[name] = {"bits_per_dim": best, "parameters": count(net), **by_recipe}
    return {"minutes": options.minutes, "test_images": len(test), "seed": options.seed, **found}


# Samples


@torch.no_grad()
def measure_samples(source: DataSource, checkpoint: str, num_samples: int, rows: int = 500) -> dict:
    """Draws that are not finite, and round trips."""
    flow, bad, images_bad = load(checkpoint).flow, 0, 0
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(num_samples) % 10 if flow.config.conditional else None
    for begin in range(0, num_samples, 250):
        size = min(250, num_samples - begin)
        h = flow.inverse(torch.randn(size, PIXELS, generator=generator), labels and labels[begin : begin + size])
        broken = ~h.isfinite().flatten(1)
        bad, images_bad = bad + broken.sum().item(), images_bad + broken.any(1).sum().item()
    return {"num_samples": num_samples, "not_finite_values": bad, "not_finite_images": images_bad}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("speed", "quality", "samples"))
    parser.add_argument("--data_dir", required=True, help="a local copy of MNIST")
    parser.add_argument("--normflows", type=Path, help=f"folder made by {MADE_BY}")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of speed, each with both flows")
    parser.add_argument("--minutes", type=float, default=30.0, help="of processor time, for each training of quality")
    parser.add_argument("--only", choices=NETS, help="one of the flows of quality")
    parser.add_argument("--num_images", type=int, default=2_000, help="test images of quality")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints" / "glow-mnist"), help="model of samples")
    parser.add_argument("--num_samples", type=int, default=10_000, help="draws of samples")
    options = parser.parse_args()
    torch.set_num_threads(1)
    is_needed = options.part == "speed" or (options.part == "quality" and options.only in (None, "normflows"))
    package = normflows_at(options.normflows) if is_needed else None
    source = load_data(DataOptions(dataset="mnist", data_dir=options.data_dir))
    if options.part == "speed":
        found = compare_speed(source, package, options.rounds)
    elif options.part == "quality":
        found = compare_quality(source, package, options)
    else:
        found = measure_samples(source, options.checkpoint, options.num_samples)
    print(json.dumps({options.part: found, "machine": machine("cpu")}))


if __name__ == "__main__":
    command_line(main)
