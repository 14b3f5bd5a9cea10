"""What the adversarial family costs, covers and reaches.

    python benchmarks/adversarial.py --only ring                                  # modes covered, 5 seeds, 5 minutes
    python benchmarks/adversarial.py --only speed --data_dir DIR_OF_MNIST         # against a bare loop; 64 samples
    python benchmarks/adversarial.py --only seeds --data_dir DIR_OF_MNIST --keep DIR     # three runs of each recipe

Prints one JSON line:
    ring     modes of 8 that GAN and WGAN-GP cover after 1500 steps, the same but for the objective, for each seed
    speed    training images/s of the plain pair at batch 64 by the recipe's defaults (averaged weights, logging) and by a
             bare PyTorch loop over a tensor in memory, in turn, in fresh processes, pauses for checkpoints and pictures
             not counted; the ratio is the median of the ratios within a round. Milliseconds for 64 samples of checkpoints/gan-mnist.
    seeds    each published recipe from three seeds, measured by training.evaluate: Fréchet distance, coverage and class
             accuracy, mean and 95 % interval (Student's t) over seeds. Runs in --keep are used where they are finished.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RECIPES = ("gan-mnist", "wgan-gp-mnist", "cgan-mnist")
RING_STEPS, SPEED_STEPS = 1_500, 4_000
QUANTILE = 4.303  # of Student's t with two degrees of freedom, 97.5 %

BARE = """
import sys, time, torch, torch.nn as nn
x = torch.load(sys.argv[1])
G = nn.Sequential(nn.Linear(100, 128), nn.LeakyReLU(0.2), nn.Linear(128, 256), nn.LeakyReLU(0.2), nn.Linear(256, 784),
                  nn.Tanh())
D = nn.Sequential(nn.Linear(784, 256), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(256, 128), nn.LeakyReLU(0.2),
                  nn.Dropout(0.3), nn.Linear(128, 1))
g, d = (torch.optim.Adam(net.parameters(), 1e-3, (0.5, 0.99)) for net in (G, D))
bce, one, zero = nn.BCEWithLogitsLoss(), torch.ones(64, 1), torch.zeros(64, 1)
steps, marks = int(sys.argv[2]), []
for step in range(steps):
    if step in (steps // 4, steps - 1): marks.append(time.perf_counter())
    real = x[torch.randint(len(x), (64,))]
    fake = G(torch.randn(64, 100))
    loss = bce(D(real), one) + bce(D(fake.detach()), zero)
    d.zero_grad(); loss.backward(); d.step()
    loss = bce(D(fake), one)
    g.zero_grad(); loss.backward(); g.step()
print((steps - 1 - steps // 4) * 64 / (marks[1] - marks[0]))
"""


def load_laboratory():
    """The module of the adversarial Space that trains on a ring of modes."""
    spec = importlib.util.spec_from_file_location(
        "adversarial_training", ROOT / "spaces" / "adversarial" / "adversarial_training.py"
    )
    module = sys.modules["adversarial_training"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def count_modes(num_seeds: int) -> dict:
    """Modes covered by each objective, for each seed."""
    lab, found = load_laboratory(), {}
    for objective in lab.OBJECTIVES:
        found[objective] = []
        for seed in range(num_seeds):
            *_, last = lab.train_on_modes(objective, "ring of 8", RING_STEPS, seed=seed, every=RING_STEPS)
            found[objective].append({"modes": last.modes, "samples_on_a_mode": round(last.good, 3)})
            print(f"{objective}, seed {seed}: {last.modes} modes", file=sys.stderr, flush=True)
    return {"steps": RING_STEPS, **found}


def recipe_speed(data_dir: str, place: Path) -> float:
    """Images/s of a run by the recipe's defaults, between a quarter of its steps and its end."""
    options = {"dataset": "mnist", "data_dir": data_dir, "max_steps": SPEED_STEPS, "output_dir": place}
    words = [str(w) for k, v in options.items() for w in (f"--{k}", v)]
    command = [sys.executable, "-m", "training.adversarial.gan", *words]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
    speeds = [
        line["images_per_second"] for line in lines if "images_per_second" in line and line["step"] > SPEED_STEPS // 4
    ]
    return len(speeds) / sum(1 / s for s in speeds)  # the mean over time


def compare_speed(data_dir: str, rounds: int) -> dict:
    """Images/s of the recipe and of a bare loop, in turn; milliseconds to draw 64 samples."""
    import torch

    from training.data.images import DataOptions, load_data
    from training.publishing.loading import load

    mine, bare = [], []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        train = load_data(DataOptions(dataset="mnist", data_dir=data_dir)).train
        torch.save(train.columns["x"].flatten(1).float() / 127.5 - 1, place / "mnist.pt")
        for number in range(rounds):
            mine.append(recipe_speed(data_dir, place / f"run{number}"))
            words = [sys.executable, "-c", BARE, str(place / "mnist.pt"), str(SPEED_STEPS)]
            bare.append(float(subprocess.run(words, capture_output=True, text=True, check=True).stdout))
    pipe = load(str(ROOT / "checkpoints" / "gan-mnist"), "cpu")
    times = []
    for _ in range(20):
        began = time.perf_counter()
        pipe(64)
        times.append(time.perf_counter() - began)
    return {
        "images_per_second": {"recipe": [round(v) for v in mine], "bare_loop": [round(v) for v in bare]},
        "ratio": round(statistics.median(a / b for a, b in zip(mine, bare, strict=True)), 3),
        "milliseconds_64_samples": round(1_000 * statistics.median(times[1:]), 2),
        "milliseconds_first_64_samples": round(1_000 * times[0], 2),
    }


def measure_seeds(data_dir: str, keep: Path, count: int, num_samples: int) -> dict:
    """Figures of each published recipe, mean and interval over seeds."""
    found = {}
    for name in RECIPES:
        rows = []
        for seed in range(count):
            run = keep / f"{name}-{seed}"
            if not (run / "model_index.json").is_file():
                words = ["--config", f"training/adversarial/{name}.yaml", "--data_dir", data_dir, "--seed", seed,
                         "--output_dir", run, "--resume", str((run / "checkpoints").is_dir()).lower()]  # fmt: skip
                command = [sys.executable, "-m", "training.adversarial.gan", *map(str, words)]
                subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            if not (run / "results.json").is_file():
                words = [str(run), "--data_dir", data_dir, "--num_samples", str(num_samples)]
                command = [sys.executable, "-m", "training.evaluate", *words]
                subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            rows.append(json.loads((run / "results.json").read_text()))
        found[name] = {"floor": rows[0]["floor"]["frechet_distance"]}
        for figure in ("frechet_distance", "coverage", "precision", "recall", "class_accuracy"):
            if figure not in rows[0]:
                continue
            values = [row[figure] for row in rows]
            half = QUANTILE * statistics.stdev(values) / len(values) ** 0.5 if len(values) == 3 else None
            found[name][figure] = {
                "mean": round(statistics.mean(values), 4),
                "plus_minus": half and round(half, 4),
                "seeds": [round(v, 4) for v in values],
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", help="a local copy of MNIST")
    parser.add_argument("--only", choices=("ring", "speed", "seeds"), required=True)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of --only speed, each with both loops")
    parser.add_argument(
        "--num_seeds", type=int, help="number of seeds; by default 3 for the recipes and 5 for the ring"
    )
    parser.add_argument("--num_samples", type=int, default=10_000, help="number of samples drawn for the distances")
    parser.add_argument("--keep", type=Path, help="folder that keeps the runs of --only seeds")
    options = parser.parse_args()
    if options.only != "ring" and not options.data_dir:
        parser.error("--data_dir: needed, a local copy of MNIST")
    data_dir = options.data_dir and os.path.abspath(options.data_dir)
    if options.only == "ring":
        found = count_modes(options.num_seeds or 5)
    elif options.only == "speed":
        found = compare_speed(data_dir, options.rounds)
    else:
        with tempfile.TemporaryDirectory() as folder:
            keep = (options.keep or Path(folder)).resolve()
            found = measure_seeds(data_dir, keep, options.num_seeds or 3, options.num_samples)
    from training.evaluate import machine

    print(json.dumps({options.only: found, "machine": machine("cpu")}))


if __name__ == "__main__":
    main()
