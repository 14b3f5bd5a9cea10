"""Training images per second against pythae, with the same MLP: 784-512-16-512-784, batch 128, float32.

    python -m venv /somewhere && /somewhere/bin/pip install torch==2.13.0 pythae==0.1.2
    python benchmarks/throughput.py --data_dir DIR_OF_MNIST --pythae /somewhere/bin/python

Both train on the same 57 974 images (the training set less validation) with what their training
pipeline does by default: ours logs, averages weights and binarises anew at each step. The two run in turn, in fresh
processes; the ratio is the median over rounds of the ratio within a round. Without --pythae only ours is measured.
Prints one JSON line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PYTHAE = """
import sys, time, numpy as np
from pythae.models import VAE, VAEConfig
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback

class Clock(TrainingCallback):
    marks = []
    def on_epoch_begin(self, *a, **k): self.marks.append(time.perf_counter())
    def on_epoch_end(self, *a, **k): self.marks.append(time.perf_counter())

x = np.load(sys.argv[1]).astype(np.float32).reshape(-1, 784) / 255
config = BaseTrainerConfig(output_dir=sys.argv[2], learning_rate=1e-3, per_device_train_batch_size=128,
                           num_epochs=int(sys.argv[3]), steps_saving=None)
model = VAE(VAEConfig(input_dim=(784,), latent_dim=16, reconstruction_loss="bce"))
TrainingPipeline(training_config=config, model=model)(train_data=x, callbacks=[Clock()])
spans = [b - a for a, b in zip(Clock.marks[0::2], Clock.marks[1::2])]
print("SPEED", len(x) / sorted(spans)[len(spans) // 2])
"""


def our_speed(data_dir: str, place: Path, epochs: int) -> float:
    """The median of the run's own log, its first lines (start-up) and last left out."""
    steps = epochs * 57974 // 128
    options = {
        "dataset": "mnist", "data_dir": data_dir, "network": "mlp", "width": 512, "num_blocks": 0, "latent_dim": 16,
        "batch_size": 128, "max_steps": steps, "output_dir": str(place), "eval_every": steps, "save_every": steps,
        "sample_every": steps,
    }  # fmt: skip
    words = [w for k, v in options.items() for w in (f"--{k}", str(v))]
    command = [sys.executable, "-m", "training.autoencoders.vae", *words]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
    speeds = [line["images_per_second"] for line in lines if "images_per_second" in line]
    return len(speeds[2:-1]) / sum(1 / s for s in speeds[2:-1])  # the mean over time


def pythae_speed(python: str, array: Path, place: Path, epochs: int) -> float:
    """Images/s of pythae, in its own environment."""
    words = [python, "-c", PYTHAE, str(array), str(place), str(epochs)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"pythae failed: {done.stderr[-2000:]}")
    return float(next(line for line in done.stdout.splitlines() if line.startswith("SPEED")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--pythae", help="the python of an environment that has pythae 0.1.2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    data_dir = os.path.abspath(options.data_dir)

    import numpy as np

    sys.path.insert(0, str(ROOT))
    from training.data.images import DataOptions, load_data

    source = load_data(DataOptions(dataset="mnist", data_dir=data_dir))
    mine, other = [], []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        np.save(place / "mnist.npy", source.train.columns["x"].numpy())
        for number in range(options.rounds):
            mine.append(our_speed(data_dir, place / f"ours{number}", options.epochs))
            if options.pythae:
                other.append(
                    pythae_speed(options.pythae, place / "mnist.npy", place / f"theirs{number}", options.epochs)
                )
    figures = {"ours_images_per_second": [round(v) for v in mine]}
    if other:
        figures["pythae_images_per_second"] = [round(v) for v in other]
        figures["ratio"] = round(statistics.median(a / b for a, b in zip(mine, other, strict=True)), 3)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
