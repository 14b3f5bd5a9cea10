"""What a user waits for: the gallery's page, the digits run, the first training step, a model and 16 samples of it.

    python benchmarks/start_up.py --data_dir DIR_OF_MNIST
    python benchmarks/start_up.py --only demo demo_after_a_change

Prints one JSON line, in seconds. Each figure is the median of `--runs` fresh processes; the caches are warm, since
each command runs once before it is timed. `demo` is the time from `make demo`, on an installed environment where nothing
changed, until its page answers; `demo_after_a_change` the same after one pipeline file changed, in a copy of the tree.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
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


def timed(words: list[str], until=None, folder: Path = ROOT) -> float:
    """Seconds until the process ends, or until `until` is true; then it is killed, with all that it started."""
    start = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {**os.environ, "BROWSER": "true"}}
    process = subprocess.Popen(words, cwd=folder, start_new_session=True, **quiet)
    while process.poll() is None:
        if until is not None and until():
            seconds = time.perf_counter() - start
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return seconds
        time.sleep(0.01)
    if process.returncode:
        sys.exit(f"failed: {' '.join(words)}")
    return time.perf_counter() - start


def copy_of_the_tree(to: Path) -> Path:
    """What `make demo` needs, with this environment."""
    to.mkdir()
    for name in ("Makefile", "requirements.txt"):
        shutil.copy2(ROOT / name, to / name)
    for name in ("checkpoints", "pipelines", "spaces", "training"):
        shutil.copytree(ROOT / name, to / name)
    (to / ".venv").symlink_to((ROOT / ".venv").resolve())
    return to


def demo(tree: Path) -> float:
    """Seconds from `make demo` until its page answers."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=60) as page:
                return page.status == 200
        except OSError:
            return False

    return timed(["make", "demo", f"PORT={port}"], answers, tree)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", help="a local copy of MNIST, for the first step on it")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="these figures alone")
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

        tree = copy_of_the_tree(Path(place) / "tree")

        def demo_after_a_change() -> float:
            with open(tree / "pipelines" / "autoencoders" / "pipeline_vae.py", "a") as file:
                file.write(f"# change {next(count)}\n")
            return demo(tree)

        checkpoint = "checkpoints/vae-mnist"
        subprocess.run(
            [sys.executable, "-m", "training.publish", checkpoint, "--to", f"{place}/portable"], cwd=ROOT, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        tasks = {
            "demo": lambda: demo(tree), "demo_after_a_change": demo_after_a_change, "digits_run": digits,
            "digits_first_step": first_step, "load_and_16_samples": load,
        }  # fmt: skip
        if options.data_dir:
            mnist = (
                "--config",
                "training/autoencoders/vae-mnist.yaml",
                "--data_dir",
                os.path.abspath(options.data_dir),
            )
            tasks["mnist_first_step"] = lambda: first_step(*mnist)
        unknown = set(options.only or ()) - tasks.keys()
        if unknown:
            sys.exit(f"--only {' '.join(sorted(unknown))}: must be of {', '.join(tasks)}")
        for name, task in tasks.items():
            if options.only and name not in options.only:
                continue
            task()
            figures[f"{name}_seconds"] = round(statistics.median(task() for _ in range(options.runs)), 2)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
