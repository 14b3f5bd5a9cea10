"""Glow on MNIST against two other flows, and how exactly it inverts.

    pip install --no-deps --target DIR 'normflows==1.7.*'
    python benchmarks/glow.py speed --data_dir DIR_OF_MNIST --normflows DIR                  # 3 minutes
    python benchmarks/glow.py quality --data_dir DIR_OF_MNIST --normflows DIR --minutes 30   # five trainings
    python benchmarks/glow.py samples --data_dir DIR_OF_MNIST [--checkpoint checkpoints/glow-mnist]

Prints one JSON line. All of it is on one thread, in seconds of processor time:
    speed    images/s of our flow and of normflows' Glow of as many parameters: 2 levels of 8 steps, three convolutions in
             each coupling, uniform dequantisation, logit, no classes. normflows' networks are as wide at both levels; ours
             once are too, and once have half of that where images are large, and more where they are small. A training
             step is loss, gradients, clipping and fused AdamW, the same of both; samples are drawn without gradients, ours
             decoded to levels. All run in turn; a ratio is the median of the ratios within a round.
    quality  bits/dim of the first test images after equal minutes, at one draw of the place within the levels:
                 ours       2 levels of 4 steps, gated networks, learned dequantisation
                 normflows  the wider flow of `speed`
                 notebook   the multi-scale flow of tutorial 11 of the University of Amsterdam's deep learning course,
                            written anew: masked couplings on checkerboards, then on channels, learned dequantisation
             The other two train as their authors train them (Adamax; Adam that falls by 1 % an epoch), and once more as
             ours does (AdamW, warm-up, cosine over the minutes): the better counts.
    samples  how many draws at temperature 1 are not finite before any clamp; and the largest errors of round trips, from
             codes z to h on the real line and back, and from h to z and back, in float32 and in float64.
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
NETS = ("ours", "normflows", "notebook")
MADE_BY = "pip install --no-deps --target DIR 'normflows==1.7.*'"
LEVELS, STEPS = 2, 8  # of the flows whose speed is compared
WIDTHS = {64: ((64, 64), (32, 83)), 96: ((96, 96), (48, 125))}  # of normflows', and of ours at both levels
BATCH, EPOCH = 64, 453  # the notebook takes batches of 128: 453 of them are an epoch
OF_ROUND_TRIP = 500  # draws, and as many test images


def images(rows: Tensor) -> Tensor:
    return rows.float() / 255


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# The other flows: each gives -log p(x), nats, of images in [0, 1]


def normflows_at(folder: Path | None):
    """The package in a folder of its own."""
    if folder is None or not (folder / "normflows" / "__init__.py").is_file():
        raise UsageError(f"--normflows {folder}: must be a folder made by {MADE_BY}")
    sys.path.insert(0, str(folder.resolve()))
    import normflows

    return normflows


class OfNormflows(nn.Module):
    """Its Glow, the coarsest level first, as it lists them."""

    def __init__(self, package, width: int):
        super().__init__()
        bases, flows = [], []
        for level in reversed(range(LEVELS)):
            channels, side = 2 ** (level + 2), 28 // 2 ** (level + 1)
            flows.append([*(package.flows.GlowBlock(channels, width) for _ in range(STEPS)), package.flows.Squeeze()])
            bases.append(package.distributions.DiagGaussian((channels // 2 if bases else channels, side, side)))
        merges = [package.flows.Merge() for _ in range(LEVELS - 1)]
        self.flow = package.MultiscaleFlow(bases, flows, merges, package.transforms.Logit(EDGE), class_cond=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.flow((255 * x + torch.rand_like(x)) / 256) + PIXELS * math.log(256)


class BothWays(nn.Module):
    """ELU of h and of -h, beside each other."""

    def forward(self, h: Tensor) -> Tensor:
        return F.elu(torch.cat([h, -h], 1))


class GatedBlock(nn.Module):
    """A gated residual block, then a layer norm over the channels of each pixel."""

    def __init__(self, width: int):
        super().__init__()
        inner, outer = nn.Conv2d(2 * width, width, 3, padding=1), nn.Conv2d(2 * width, 2 * width, 1)
        self.branch, self.norm = nn.Sequential(BothWays(), inner, BothWays(), outer), nn.LayerNorm(width)

    def forward(self, h: Tensor) -> Tensor:
        value, gate = self.branch(h).chunk(2, 1)
        return self.norm((h + value * torch.sigmoid(gate)).movedim(1, -1)).movedim(-1, 1)


class Masked(nn.Module):
    """An affine coupling: what the mask (C, H, W) keeps says how the rest is moved."""

    def __init__(self, mask: Tensor, width: int, seen: int = 0):
        super().__init__()
        first = nn.Conv2d(len(mask) + seen, width, 3, padding=1)
        last = nn.Conv2d(2 * width, 2 * len(mask), 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(first, *(GatedBlock(width) for _ in range(3)), BothWays(), last)
        self.log_most = nn.Parameter(torch.zeros(len(mask), 1, 1))
        self.register_buffer("mask", mask)

    def forward(self, z: Tensor, *seen: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.net(torch.cat([z * self.mask, *seen], 1)).chunk(2, 1)
        most, moves = self.log_most.exp(), 1 - self.mask
        log_scale = moves * (most * torch.tanh(raw / most))
        return (z + moves * shift) * log_scale.exp(), log_scale.flatten(1).sum(1)


def masked(number: int, mask: Tensor, width: int, seen: int = 0) -> nn.ModuleList:
    """Couplings whose masks are by turns this one and its opposite."""
    return nn.ModuleList(Masked((mask + i % 2) % 2, width, seen) for i in range(number))


class OfNotebook(nn.Module):
    def __init__(self):
        super().__init__()
        squares = (torch.arange(28)[:, None] + torch.arange(28)).remainder(2).float()[None]
        half = torch.tensor([1.0, 0.0])[:, None, None]
        self.dequantiser = masked(4, squares, 16, seen=1)
        finest, middle = masked(2, squares, 32), masked(2, half.repeat_interleave(2, 0), 48)
        self.levels = nn.ModuleList([finest, middle, masked(4, half.repeat_interleave(4, 0), 64)])

    def forward(self, x: Tensor) -> Tensor:
        h, found = logit(torch.rand_like(x))
        for coupling in self.dequantiser:
            h, log_det = coupling(h, 2 * x - 1)
            found = found + log_det
        found = found + (F.logsigmoid(h) + F.logsigmoid(-h)).flatten(1).sum(1) - PIXELS * math.log(1 - EDGE)
        place = (torch.sigmoid(h) - EDGE / 2) / (1 - EDGE)
        h, log_det = logit((255 * x + place) / 256)
        found = found + log_det - PIXELS * math.log(256)
        for number, level in enumerate(self.levels):
            if number == 2:
                h, gone = h.chunk(2, 1)
                found = found + standard_normal(gone)
            h = F.pixel_unshuffle(h, 2) if number else h
            for coupling in level:
                h, log_det = coupling(h)
                found = found + log_det
        return -found - standard_normal(h)


def logit(y: Tensor) -> tuple[Tensor, Tensor]:
    """Of y in [0, 1], drawn in from both ends by EDGE / 2; and log |det| (B,)."""
    p = EDGE / 2 + (1 - EDGE) * y
    log_p, log_rest = torch.log(p), torch.log1p(-p)
    return log_p - log_rest, PIXELS * math.log(1 - EDGE) - (log_p + log_rest).flatten(1).sum(1)


# Speed


def compare_speed(source: DataSource, package, rounds: int) -> dict:
    """Images/s of the flows in turn, at each width."""
    x, found = source.train.columns["x"], {}
    for width, ours in WIDTHS.items():
        torch.manual_seed(0)
        nets = {"normflows": OfNormflows(package, width)}
        with torch.no_grad():
            nets["normflows"](images(x[:ROWS_TO_BEGIN]))  # which sets its actnorms
        for low, high in ours:
            net = GlowModel(source.spec("8-bit", (0, 1)), LEVELS, STEPS, low, high)
            net.initialise(images(x[:ROWS_TO_BEGIN]))
            nets[f"ours_{low}_{high}"] = net
        calls = {}
        for name, net in nets.items():
            nats = net if name == "normflows" else lambda batch, net=net: -net(batch).log_prob
            calls["training", name] = step_of(net, nats, x)
            calls["sampling", name] = torch.no_grad()(
                (lambda net=net: net.flow.sample(BATCH))
                if name == "normflows"
                else lambda net=net: net.decode(torch.randn(BATCH, PIXELS))
            )
        speeds = {key: [] for key in calls}
        for _ in range(rounds):
            for key, call in calls.items():
                speeds[key].append(BATCH / seconds(call, 4 if key[0] == "training" else 8))
        found[f"width_{width}"] = {
            name: {
                "parameters": count(net),
                **{
                    what: {
                        "images_per_second": round(statistics.median(speeds[what, name])),
                        **ratio_of(speeds[what, name], speeds[what, "normflows"]),
                    }
                    for what in ("training", "sampling")
                },
            }
            for name, net in nets.items()
        }
        print(f"width {width}: {found[f'width_{width}']}", file=sys.stderr, flush=True)
    return {"batch": BATCH, "rounds": rounds, **found}


def ratio_of(speeds: list[float], others: list[float]) -> dict:
    """How many times as fast, by the median of the rounds, and from what to what."""
    ratios = [a / b for a, b in zip(speeds, others, strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 2),
        "ratios_from_to": [round(min(ratios), 2), round(max(ratios), 2)],
    }


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


def trained(name: str, recipe: str, source: DataSource, package, minutes: float, seed: int):
    """A flow, what gives its nats, and the steps it took in so many minutes of processor time."""
    torch.manual_seed(seed)
    options = GlowOptions(
        num_blocks=4, width=48, top_width=64, depth=2, dequantization="variational", lr_warmup_steps=200
    )
    if name == "ours":
        net = build_model(options, source)
    else:
        net = OfNormflows(package, max(WIDTHS)) if name == "normflows" else OfNotebook()
    nats = (lambda x: -net(x).log_prob) if name == "ours" else net
    optimizer = {
        "ours": lambda: make_optimizer(net, options, options.learning_rate),
        "normflows": lambda: torch.optim.Adamax(net.parameters(), lr=1e-3, weight_decay=1e-5),
        "notebook": lambda: torch.optim.Adam(net.parameters(), lr=1e-3, fused=True),
    }[recipe]()
    rate, x = optimizer.param_groups[0]["lr"], source.train.columns["x"]
    batch = 2 * BATCH if recipe == "notebook" else BATCH
    began, said, recent = time.process_time(), 1, []
    for step in itertools.count():
        spent = (time.process_time() - began) / 60
        if spent >= min(said, minutes):
            bits = statistics.mean(recent or [math.nan])
            print(f"{name}, trained as {recipe}: {spent:.2f} minutes, {step} steps, {bits:.4f} bits/dim lately",
                  file=sys.stderr, flush=True)  # fmt: skip
            said, recent = said + 1, []
        if spent >= minutes:
            return net, nats, step
        fall = 0.99 ** (step // EPOCH) if recipe == "notebook" else 1.0
        if recipe == "ours":
            fall = min(1, (step + 1) / options.lr_warmup_steps) * 0.5 * (1 + math.cos(math.pi * spent / minutes))
        optimizer.param_groups[0]["lr"] = rate * fall
        optimizer.zero_grad()
        loss = BITS * nats(images(x[torch.randint(len(x), (batch,))])).mean()
        recent.append(loss.item())
        if loss.isfinite():
            loss.backward()
            if recipe != "normflows":
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()


def compare_quality(source: DataSource, package, options: argparse.Namespace) -> dict:
    """Bits/dim of each flow, by each way to train it."""
    test, found = images(source.test.columns["x"][: options.num_images]), {}
    for name in [options.only] if options.only else NETS:
        rows = {}
        for recipe in dict.fromkeys((name, "ours")):
            net, nats, steps = trained(name, recipe, source, package, options.minutes, options.seed)
            torch.manual_seed(options.seed)
            with torch.no_grad():
                bits = BITS * torch.cat([nats(part) for part in test.split(200)]).double()
            error = bits.std().item() / len(bits) ** 0.5
            rows[recipe] = {
                "bits_per_dim": round(bits.mean().item(), 4),
                "standard_error": round(error, 4),
                "steps": steps,
            }
            print(f"{name}, trained as {recipe}: {rows[recipe]}", file=sys.stderr, flush=True)
        best = min(row["bits_per_dim"] for row in rows.values())
        found[name] = {"parameters": count(net), "bits_per_dim": best, "trained_as": rows}
    return {"minutes": options.minutes, "test_images": len(test), "seed": options.seed, **found}


# Samples


@torch.no_grad()
def measure_samples(source: DataSource, checkpoint: str, num_samples: int) -> dict:
    """Draws that are not finite, and the errors of round trips that begin at draws and at test images."""
    flow, generator, broken = load(checkpoint).flow, torch.Generator().manual_seed(0), []
    for labels in (torch.arange(num_samples) % len(source.class_names)).split(250):
        z = torch.randn(len(labels), PIXELS, generator=generator)
        h = flow.inverse(z, labels if flow.config.conditional else None)
        broken.append((~h.isfinite()).flatten(1).any(1))
    rows = rows_to_show(source, OF_ROUND_TRIP)
    x, labels = images(rows["x"]), rows["class_labels"] if flow.config.conditional else None
    z = torch.randn(len(x), PIXELS, generator=generator)
    noise = (torch.rand if flow.dequantizer is None else torch.randn)(x.shape, generator=generator)
    h, _ = flow.to_line(flow.place(x, flow.dequantise(x, noise)[0]))
    found = {"num_samples": num_samples, "not_finite": torch.cat(broken).sum().item()}
    for dtype in (torch.float32, torch.float64):
        net, errors = copy.deepcopy(flow).to(dtype), {}
        z, h = z.to(dtype), h.to(dtype)
        for name, code, line in (("draws", z, net.inverse(z, labels)), ("images", net.codes(h, labels)[0], h)):
            of_z = net.codes(net.inverse(code, labels), labels)[0] - code
            of_h = net.inverse(net.codes(line, labels)[0], labels) - line
            errors[name] = {"of_z": of_z, "of_h": of_h, "of_h_by_scale": of_h / line.abs().max(), "scale_of_h": line}
            errors[name] = {key: float(f"{value.abs().max():.3g}") for key, value in errors[name].items()}
        changed = (net.decode(net.codes(h, labels)[0], labels) - x).abs() > 1 / 510
        found[f"{dtype}".removeprefix("torch.")] = {"largest_error": errors, "pixels_changed": changed.sum().item()}
    return found


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
