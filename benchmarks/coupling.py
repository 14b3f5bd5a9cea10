"""A coupling flow against zuko's neural spline flow, in the same seconds of processor time.

    python benchmarks/coupling.py [--seconds 22] [--seeds 0 1 2] [--sets moons spiral checkerboard]

Both see the same 20 000 training points, standardised, with AdamW and a cosine schedule over the time that they have, on one
thread: ours as the recipe has it, zuko's in batches of 256 at learning rates of 1e-3, 5e-3 and 1e-2, of which the best counts.
The figure is the mean of -log p over the 10 000 test points, nats; the truth has 1.3967, 1.3950 and 2.0794 there. zuko's flow is its default, three autoregressive transforms of eight bins with two hidden layers of 64; it must be installed
(tests/requirements.txt). Prints one JSON line: for each set the figures of each seed, and the integral of our density over
a square around the data.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipelines.flows.modeling_coupling import CouplingFlowModel  # noqa: E402
from training.data.toys import TOYS, toy  # noqa: E402
from training.flows.coupling import CouplingOptions, build_model  # noqa: E402

RATES, BATCH = (1e-3, 5e-3, 1e-2), 256  # of zuko's
SIDE = 1_500  # places of the integral


def fitted(parameters, nats, points: torch.Tensor, batch: int, seconds: float, rate: float) -> None:
    """Lower `nats(batch)` for so many seconds of processor time."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    begin = time.process_time()
    while (spent := time.process_time() - begin) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * spent / seconds))
        optimizer.zero_grad()
        nats(points[torch.randint(len(points), (batch,))]).backward()
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 10.0)
        optimizer.step()


def ours(source, seconds: float) -> CouplingFlowModel:
    options = CouplingOptions(dataset=source.name)
    flow = build_model(options, source)
    points = source.train.columns["x"]
    fitted(
        flow.parameters(),
        lambda x: -flow(x).log_prob.mean(),
        points,
        options.batch_size,
        seconds,
        options.learning_rate,
    )
    return flow


def theirs(source, seconds: float, rate: float) -> float:
    import zuko

    points, held_out = source.train.columns["x"], source.test.columns["x"]
    mean, std = points.mean(0), points.std(0)
    flow = zuko.flows.NSF(features=2, context=0)
    scale = std.log().sum()

    def nats(x: torch.Tensor) -> torch.Tensor:
        return -flow().log_prob((x - mean) / std).mean() + scale

    fitted(flow.parameters(), nats, points, BATCH, seconds, rate)
    with torch.no_grad():
        return nats(held_out).item()


@torch.no_grad()
def integral(flow: CouplingFlowModel) -> float:
    """Of the density over [-6, 6]^2, by the midpoints of a grid."""
    width = 12 / SIDE
    side = -6 + width * (torch.arange(SIDE) + 0.5)
    grid = torch.cartesian_prod(side, side)
    return sum(flow(part).log_prob.double().exp().sum().item() for part in grid.split(100_000)) * width**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=22.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", default=["moons", "spiral", "checkerboard"], choices=sorted(TOYS))
    parser.add_argument("--only_ours", action="store_true", help="leave zuko out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name in options.sets:
        source, rows = toy(name), {"ours": [], "zuko": [], "integral": []}
        for seed in options.seeds:
            torch.manual_seed(seed)
            flow = ours(source, options.seconds)
            with torch.no_grad():
                rows["ours"].append(round(-flow(source.test.columns["x"]).log_prob.mean().item(), 4))
            rows["integral"].append(round(integral(flow), 5))
            if not options.only_ours:
                found_by_rate = []
                for rate in RATES:
                    torch.manual_seed(seed)
                    found_by_rate.append(theirs(source, options.seconds, rate))
                rows["zuko"].append(round(min(found_by_rate), 4))
            print(name, seed, {k: v[-1] for k, v in rows.items() if v}, file=sys.stderr, flush=True)
        found[name] = rows
    print(json.dumps({"seconds": options.seconds, **found}))


if __name__ == "__main__":
    main()
