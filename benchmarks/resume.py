"""Runs killed by SIGKILL at a random step and resumed, against unbroken ones: are the weights bit-equal?

    python benchmarks/resume.py --tries 20

Half of the tries run on one CPU process, half on two. Prints one JSON line; exits with 1 if any try differs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
STEPS = 300
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}


def command(folder: Path, processes: int, *words: str) -> list[str]:
    """The command of a run."""
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    options = {
        "max_steps": STEPS,
        "save_every": 7,
        "eval_every": 50,
        "log_every": 5,
        "sample_every": 100,
        "batch_size": 64,
    }
    listed = [w for k, v in options.items() for w in (f"--{k}", str(v))]
    return [*start, "training.autoencoders.vae", "--output_dir", str(folder), *listed, *words]


def run(folder: Path, processes: int, *words: str) -> None:
    """Run to the end."""
    done = subprocess.run(command(folder, processes, *words), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


def last_step(folder: Path) -> int:
    """The step of the last checkpoint; 0 where there is none."""
    return max((int(p.name[5:]) for p in (folder / "checkpoints").glob("step-*")), default=0)


def run_until_killed(folder: Path, processes: int, at: int) -> bool:
    """Start a run and kill all of it once it has saved step `at`; False if it had ended by then."""
    with subprocess.Popen(
        command(folder, processes),
        cwd=ROOT,
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while last_step(folder) < at and process.poll() is None:
            time.sleep(0.002)
        time.sleep(random.random() * 0.05)  # somewhere between two checkpoints, or within one
        if process.poll() is not None:
            return False
        os.killpg(process.pid, signal.SIGKILL)
    return True


def same_weights(a: Path, b: Path) -> bool:
    """Whether two runs ended with the same bits."""
    left, right = (load_file(f / "vae" / "diffusion_pytorch_model.safetensors") for f in (a, b))
    return left.keys() == right.keys() and all(left[k].equal(right[k]) for k in left)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    result = {"tries": 0, "bit_equal": 0, "killed_at": []}
    with tempfile.TemporaryDirectory() as folder:
        whole = {n: Path(folder) / f"whole{n}" for n in (1, 2)}
        for processes, path in whole.items():
            run(path, processes)
        while result["tries"] < options.tries:
            processes = 1 + result["tries"] % 2
            broken = Path(folder) / f"broken{result['tries']}-{random.random()}"
            if not run_until_killed(broken, processes, random.randrange(0, STEPS - 30)):
                continue  # it was faster than the kill: not a try
            at = last_step(broken)
            # killed before run.json was written, there is nothing to resume: start again, as a user would
            run(broken, processes, *(("--resume", "true") if (broken / "run.json").exists() else ()))
            result["tries"] += 1
            result["bit_equal"] += same_weights(whole[processes], broken)
            result["killed_at"].append(at)
    print(json.dumps(result))
    sys.exit(result["bit_equal"] != result["tries"])


if __name__ == "__main__":
    main()
