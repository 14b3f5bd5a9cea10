"""What the codes of MNIST need: six ways to a generative model, three seeds each, and two levels against one.

    python benchmarks/autoencoders.py --data_dir DIR --keep DIR2                     # all of it, about two hours
    python benchmarks/autoencoders.py --data_dir DIR --keep DIR2 --only seeds        # or levels

Prints one JSON line. Runs are kept in --keep and found there again. MLPs of one size (0.45 to 0.5 M parameters), batch 256
for 8 000 steps; the size of the code (4, 8, 16) and one more number of each (components, weight, warm-up) were chosen by
the Fréchet distance of 4 000 samples from training images after 4 000 steps: EXPERIMENTS.md. `--only levels` compares
bounds: 36 000 steps of batch 128, as training/autoencoders/hierarchical-vae-mnist.yaml says.
"""

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SEEDS = (0, 1, 2)
STUDENT = 4.303  # 97.5 % point of t with two degrees of freedom

EQUAL = "--dataset mnist --width 224 --max_steps 8000 --batch_size 256 --learning_rate 2e-3 --mixed_precision bf16 "
EQUAL += "--log_every 100 --eval_every 2000 --save_every 2000 --sample_every 8000"
RUNS = {
    "PCA + mixture": "classical.density --config training/classical/gaussian-mixture-mnist.yaml",
    "AE + mixture": "autoencoders.autoencoder --config training/autoencoders/ae-mnist.yaml",
    "SWAE": "autoencoders.autoencoder --config training/autoencoders/swae-mnist.yaml",
    "VAE": f"autoencoders.vae {EQUAL} --latent_dim 4",
    "hierarchical VAE": f"autoencoders.hierarchical_vae {EQUAL} --latent_dims 8 8 --width 208 --kl_warmup_steps 2000",
}
LEVELS = {
    "two levels": "autoencoders.hierarchical_vae --config training/autoencoders/hierarchical-vae-mnist.yaml",
    "one level": "autoencoders.hierarchical_vae --config training/autoencoders/hierarchical-vae-mnist.yaml "
    "--latent_dims 40 --width 224 --kl_warmup_steps 500",
}
FIGURES = ("frechet_distance", "precision", "recall", "coverage", "nats", "bits_per_dim", "reconstruction_error")


def train(words: str, folder: Path, options: argparse.Namespace) -> None:
    """A run in `folder`, unless it stands there finished; one that was broken off goes on."""
    record = folder / "run.json"
    again = []
    if record.is_file():
        if json.loads(record.read_text())["status"] == "finished":
            return
        again = ["--resume", "true"]
    command = [sys.executable, "-m", *f"training.{words}".split(), "--output_dir", str(folder), *again]
    subprocess.run([*command, "--data_dir", options.data_dir], cwd=ROOT, check=True)


def without_a_fitted_prior(source: Path, folder: Path) -> None:
    """The same autoencoder, its codes drawn from N(0, I) instead."""
    if folder.exists():
        return
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("checkpoints", "prior", "results.json", "*.jsonl"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "prior": [None, None]}))
    file = folder / "autoencoder" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "code_prior": "gaussian"}))


def evaluate_run(folder: Path, options: argparse.Namespace) -> dict:
    """results.json of `training.evaluate`."""
    if not (folder / "results.json").is_file():
        words = ["-m", "training.evaluate", str(folder), "--data_dir", options.data_dir]
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return json.loads((folder / "results.json").read_text())


def interval(values: list[float]) -> dict:
    """Mean and half the width of its 95 % interval by Student's t."""
    half = STUDENT * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": float(f"{statistics.mean(values):.5g}"), "half_width": float(f"{half:.3g}"), "values": values}


def compare_families(options: argparse.Namespace) -> dict:
    """Figures of each way to a generative model, with intervals over seeds; the nearest to the data first."""
    found = {}
    for seed in SEEDS:
        for name, words in RUNS.items():
            folder = options.keep / f"{name.replace(' ', '-')}-{seed}"
            train(f"{words} --seed {seed}", folder, options)
            found.setdefault(name, []).append(folder)
            if name == "AE + mixture":
                other = options.keep / f"AE-N(0,I)-{seed}"
                without_a_fitted_prior(folder, other)
                found.setdefault("AE, codes from N(0, I)", []).append(other)
    rows = {}
    for name, folders in found.items():
        results = [evaluate_run(folder, options) for folder in folders]
        rows[name] = {key: interval([r[key] for r in results]) for key in FIGURES if key in results[0]}
        rows[name]["parameters"] = results[0]["parameters"]
    return dict(sorted(rows.items(), key=lambda item: item[1]["frechet_distance"]["mean"]))


def compare_levels(options: argparse.Namespace) -> dict:
    """Bounds of two levels and of one, of equal size."""
    found = {}
    for name, words in LEVELS.items():
        folder = options.keep / name.replace(" ", "-")
        train(words, folder, options)
        result = evaluate_run(folder, options)
        keys = ("nats", "nats_standard_error", "importance_weighted_nats", "parameters")
        last = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        kl = [line for line in last if "validation" in line][-1]
        found[name] = {**{k: result[k] for k in keys}, **{k: v for k, v in kl.items() if k.startswith("validation")}}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", required=True, help="MNIST as parquet")
    parser.add_argument("--keep", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--only", choices=("seeds", "levels"))
    options = parser.parse_args()
    options.keep, options.data_dir = options.keep.resolve(), str(Path(options.data_dir).resolve())
    parts = {"seeds": compare_families, "levels": compare_levels}
    print(json.dumps({name: part(options) for name, part in parts.items() if options.only in (None, name)}))


if __name__ == "__main__":
    main()
