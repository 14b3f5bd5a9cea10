"""What a user waits for: the digits run, the first training step, loading a model and drawing from it.

    python benchmarks/start_up.py --data_dir DIR_OF_MNIST

Prints one JSON line, in seconds. Each figure is the median of `--runs` fresh processes; the caches are warm, since
each command runs once before it is timed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOAD = """
import sys, time, torch
from diffusers import DiffusionPipeline
start = time.perf_counter()
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
pipe(batch_size=16)
print(time.perf_counter() - start)
"""


def timed(words: list[str], until=None) -> float:
    """Seconds until the process ends, or until `until` is true; then it is killed."""
    start = time.perf_counter()
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if until is not None and until():
            seconds = time.perf_counter() - start
            process.kill()
            process.wait()
            return seconds
        time.sleep(0.01)
    if process.returncode:
        sys.exit(f"failed: {' '.join(words)}")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", help="a local copy of MNIST, for the first step on it")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    recipe = [sys.executable, "-m", "training.autoencoders.vae"]
    figures = {}
    with tempfile.TemporaryDirectory() as place:
        count = iter(range(1000))

        def digits() -> float:
            return timed([*recipe, "--output_dir", f"{place}/digits{next(count)}"])

        def first_step(*words: str) -> float:
            folder = Path(place) / f"first{next(count)}"
            logged = folder / "log.jsonl"
            command = [*recipe, *words, "--output_dir", str(folder), "--log_every", "1"]
            return timed(command, until=lambda: logged.exists() and logged.stat().st_size > 0)

        def load() -> float:
            done = subprocess.run([sys.executable, "-c", LOAD, f"{place}/portable"], capture_output=True, text=True)
            return float(done.stdout)

        checkpoint = "checkpoints/vae-mnist"
        subprocess.run(
            [sys.executable, "-m", "training.publish", checkpoint, "--to", f"{place}/portable"], cwd=ROOT, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        tasks = {"digits_run": digits, "digits_first_step": first_step, "load_and_16_samples": load}
        if options.data_dir:
            mnist = (
                "--config",
                "training/autoencoders/vae-mnist.yaml",
                "--data_dir",
                os.path.abspath(options.data_dir),
            )
            tasks["mnist_first_step"] = lambda: first_step(*mnist)
        for name, task in tasks.items():
            task()
            figures[f"{name}_seconds"] = round(statistics.median(task() for _ in range(options.runs)), 2)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
