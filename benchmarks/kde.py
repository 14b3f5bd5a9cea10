"""Exact log densities of a kernel density estimate against scikit-learn's KernelDensity at its defaults.

    python benchmarks/kde.py [--rounds 5]

10 000 queries against 10 000 points in two dimensions, the two in turn, at Scott's bandwidth. Prints one JSON line:
    speedup              the median over rounds of scikit-learn's seconds over ours, within a round
    seconds              medians of both, and of ours on one thread
    largest_difference   of the log densities, nats
    seconds_by_points    ours: [N, seconds] for 10 000 queries against N points; also drawn in benchmarks/kde.png
    memory_growth_mb     by how much 10 000 queries against 100 000 points raise the peak memory of a fresh process
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipelines.classical.modeling_kde import KDEModel  # noqa: E402
from training.pictures import ACCENT, INK, _figure, _figure_png  # noqa: E402

QUERIES, POINTS, SIZES = 10_000, 10_000, (1_000, 3_000, 10_000, 30_000, 100_000)


def moons(count: int, seed: int) -> torch.Tensor:
    """Two half circles with noise: (count, 2)."""
    g = torch.Generator().manual_seed(seed)
    angle = torch.pi * torch.rand(count, generator=g)
    side = torch.randint(2, (count,), generator=g)
    x = torch.stack([torch.cos(angle) + side - 0.5, (1 - 2 * side) * torch.sin(angle) + side * 0.5 - 0.25], 1)
    return x + 0.1 * torch.randn(count, 2, generator=g)


def seconds(call) -> tuple[float, torch.Tensor]:
    """Seconds that a call takes, and its result."""
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, torch.as_tensor(result)


def memory(name: str) -> float:
    """MiB that this process holds (VmRSS), or has held at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def memory_growth() -> float:
    """In a process that has computed before, so that libraries are loaded, but on nothing large.

    Not resource.getrusage: its ru_maxrss begins with what the parent process held, and imports raise it further.
    """
    model, x = KDEModel.fit(moons(100_000, 0)), moons(QUERIES, 1)
    model.log_prob(x[:10])
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held
    before = memory("VmRSS")
    model.log_prob(x)
    return memory("VmHWM") - before


def curve_picture(rows: list[tuple[int, float]]) -> bytes:
    """Seconds against the number of points: PNG bytes."""
    figure, axes = _figure(6, 4)
    axes.loglog(*zip(*rows, strict=True), color=ACCENT, marker="o", markersize=5)
    for count, value in rows:
        axes.annotate(
            f"{value:.3g}", (count, value), textcoords="offset points", xytext=(6, -10), fontsize=8, color=INK
        )
    axes.set(xlabel="points", ylabel="seconds", title=f"{QUERIES:,} exact log densities in two dimensions, CPU")
    return _figure_png(figure)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory_only", action="store_true", help="print the growth of memory and end")
    options = parser.parse_args()
    if options.memory_only:
        print(memory_growth())
        return

    from sklearn.neighbors import KernelDensity

    x = moons(QUERIES, 1)
    model = KDEModel.fit(moons(POINTS, 0))
    theirs = KernelDensity(bandwidth=model.bandwidth.item()).fit(model.points.double().numpy())
    array = x.double().numpy()
    model.log_prob(x)  # the first call starts threads
    rounds = []
    for _ in range(options.rounds):
        ours_seconds, ours = seconds(lambda: model.log_prob(x))
        theirs_seconds, reference = seconds(lambda: theirs.score_samples(array))
        rounds.append((ours_seconds, theirs_seconds))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    single = statistics.median(seconds(lambda: model.log_prob(x))[0] for _ in range(options.rounds))
    torch.set_num_threads(threads)

    by_points = []
    for count in SIZES:
        larger = KDEModel.fit(moons(count, 0))
        by_points.append((count, statistics.median(seconds(lambda m=larger: m.log_prob(x))[0] for _ in range(3))))
    (ROOT / "benchmarks" / "kde.png").write_bytes(curve_picture(by_points))

    # a fresh process: the peak of this one lies behind it
    command = [sys.executable, __file__, "--memory_only"]
    growth = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    mine, other = (statistics.median(values) for values in zip(*rounds, strict=True))
    figures = {
        "speedup": round(statistics.median(b / a for a, b in rounds), 2),
        "seconds": {"ours": round(mine, 4), "ours_one_thread": round(single, 4), "scikit_learn": round(other, 4)},
        "threads": threads,
        "largest_difference": (ours.double() - reference).abs().max().item(),
        "seconds_by_points": [[count, round(value, 4)] for count, value in by_points],
        "memory_growth_mb": round(growth, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
