"""What runs on a GPU, against the same on the CPU: pipelines, and trainings that are stopped and resumed.

    python benchmarks/gpu.py                                     # a GPU, a few minutes
    python benchmarks/gpu.py --device cpu --recipes ddpm         # to try the script itself

1. Each tiny pipeline of the tests, moved to the GPU, gives the numbers that it gives on the CPU, and finite ones with its
   weights in float16 and bfloat16; the same numbers with `enable_model_cpu_offload` and `enable_sequential_cpu_offload`.
2. Each recipe's first run, cut to 60 steps, in float32, bfloat16 and float16 autocast: it ends, its loss is finite and
   falls (of two players none need fall), and stopped by SIGTERM at a checkpoint and resumed it gives the same weights.
3. The same on two processes that share the one GPU. NCCL refuses two processes on one card, so they talk by gloo.

Prints a line for each that differs, then one JSON line with counts; exits with 1 if anything failed.
"""

import argparse
import concurrent.futures
import contextlib
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
STEPS, STOP_AT = 60, 20
PRECISIONS = ("no", "bf16", "fp16")
OFFLOADS = ("enable_model_cpu_offload", "enable_sequential_cpu_offload")
# gloo begins before the recipe does, and accelerate takes the group that is there; LOCAL_RANK would name a second card
TWO = """
import os, runpy, sys, torch
torch.distributed.init_process_group("gloo")
os.environ["LOCAL_RANK"] = "0"
module = sys.argv.pop(1)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


# Pipelines


def pipelines(device: str) -> tuple[dict, list[str]]:
    """Counts, and a line for each pipeline that answers otherwise than on the CPU."""
    import torch

    from tests.contract import seeds
    from tests.test_contract import INSTANCES

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    compared, half, wrong = 0, 0, []
    for name, instance in INSTANCES.items():
        offloads = OFFLOADS if instance.is_diffusers and device != "cpu" else ()
        for dtype in (torch.float32, torch.float16, torch.bfloat16, *offloads):
            try:
                here = moved(instance, "cpu", torch.float32)
                there = offloaded(instance, dtype) if dtype in OFFLOADS else moved(instance, device, dtype)
                x = (
                    instance.x(here)
                    if instance.is_diffusers
                    else here.tokenizer.decode(range(10), skip_special_tokens=True)
                )
                labels, answers = instance.labels(3), {}
                for call in sorted({instance.judge, "log_prob", "elbo"} & here.calls):
                    answers[call] = [
                        instance.ask(p, call, x, class_labels=labels, generator=seeds(1, 2, 3)) for p in (here, there)
                    ]
                if "sample" in here.calls and instance.is_diffusers:
                    answers["sample"] = [draw(p, labels, seeds(1, 2, 3)) for p in (here, there)]
                for call, (a, b) in answers.items():
                    a, b = torch.as_tensor(a).float().cpu(), torch.as_tensor(b).float().cpu()
                    if dtype == torch.float32 or dtype in OFFLOADS:
                        compared += 1
                        torch.testing.assert_close(b, a, atol=2e-3, rtol=2e-3)
                    else:
                        half += 1
                        assert b.isfinite().all(), f"{call} is not finite"
            except Exception as error:
                wrong.append(f"{name}, {dtype}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return {"answers_compared": compared, "answers_in_half_precision": half, "pipelines_wrong": len(wrong)}, wrong


def draw(pipe, labels, generators):
    from tests.contract import result

    return result(pipe(class_labels=labels, generator=generators, output_type="pt"))


def offloaded(instance, how: str):
    """The instance's pipeline, its networks on the CPU until each is asked."""
    pipe = instance.make()
    pipe.set_progress_bar_config(disable=True)
    getattr(pipe, how)()
    return pipe


def moved(instance, device: str, dtype):
    """The instance's pipeline on a device, its networks in a dtype."""
    import torch

    pipe = instance.make()
    if instance.is_diffusers:
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(device, dtype)
    pipe.model.to(device, dtype)
    pipe.device = torch.device(device)
    return pipe


# Trainings


def recipes() -> dict[str, tuple[str, bool]]:
    """Family -> its module, and whether it trains by steps."""
    from training.loops.run_options import RunOptions

    found = {}
    for file in sorted((ROOT / "training").glob("*/*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if "DECLARATION = Declaration(" in file.read_text():
            loaded = importlib.import_module(module)
            options = [k for k in vars(loaded).values() if isinstance(k, type) and k.__module__ == module]
            by_steps = any(issubclass(kind, RunOptions) for kind in options)
            found[loaded.DECLARATION.family] = (module, by_steps)
    return found


def command(module: str, folder: Path, processes: int, words: list[str]) -> list[str]:
    words = ["--output_dir", str(folder), *words]
    if processes == 1:
        return [sys.executable, "-m", module, *words]
    script = folder.parent / "two.py"
    script.write_text(TWO)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [*start, str(script), module, *words]


def train(module: str, folder: Path, device: str, processes: int, words: list[str], stop: bool = False) -> None:
    """Run to the end; with `stop`, send SIGTERM once a checkpoint is there and resume."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": python_path()}
    if device == "cpu":
        environment["ACCELERATE_USE_CPU"] = "true"
    log = folder.with_suffix(".txt")
    with open(log, "w") as out:
        options = {"cwd": ROOT, "env": environment, "stdout": out, "stderr": out}
        if stop:
            with subprocess.Popen(
                command(module, folder, processes, words), start_new_session=True, **options
            ) as first:
                while first.poll() is None and not list((folder / "checkpoints").glob("step-*")):
                    time.sleep(0.005)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(first.pid, signal.SIGTERM)
            words = [*words, "--resume", "true"]
        done = subprocess.run(command(module, folder, processes, words), **options)
    if done.returncode:
        raise RuntimeError(last_words(log.read_text()))


def last_words(log: str) -> str:
    """The line of an error, or the last line; launchers of several processes add a frame of their own."""
    lines = [line for line in log.strip().splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line and "ChildFailedError" not in line] or lines[-1:]
    return " | ".join(errors[:2])


def python_path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def one_training(family: str, module: str, by_steps: bool, precision: str, processes: int, device: str) -> dict:
    """What came of one training: its losses, and how far the resumed weights are from the unbroken ones."""
    from safetensors.torch import load_file

    words = [] if not by_steps else [
        "--max_steps", str(STEPS), "--save_every", str(STOP_AT), "--eval_every", str(STEPS), "--log_every", "10",
        "--sample_every", str(STEPS), "--mixed_precision", precision,
    ]  # fmt: skip
    said = {"family": family, "precision": precision, "processes": processes}
    with tempfile.TemporaryDirectory() as place:
        whole, broken = Path(place) / "whole", Path(place) / "broken"
        try:
            train(module, whole, device, processes, words)
            if not by_steps:
                return said
            lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
            losses = [line["loss"] for line in lines if "loss" in line]
            said["losses"] = [losses[0], losses[-1]] if losses else None
            train(module, broken, device, processes, words, stop=True)
            files = sorted(f.relative_to(whole) for f in whole.rglob("*.safetensors") if "checkpoints" not in f.parts)
            pairs = [(load_file(whole / f), load_file(broken / f)) for f in files]
            said["largest_difference"] = max(
                (a[k].double() - b[k].double()).abs().max().item() for a, b in pairs for k in a
            )
        except Exception as error:
            said["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return said


def is_wrong(said: dict) -> bool:
    losses = said.get("losses") or [1.0, 0.0]
    falls = all(map(math.isfinite, losses)) and (losses[1] < losses[0] or said["family"] == "gan")
    return "error" in said or not falls or said.get("largest_difference", 0) > 1e-4


def trainings(device: str, only: list[str], at_once: int) -> tuple[dict, list[dict]]:
    """Counts, and what came of each training."""
    found = {family: what for family, what in recipes().items() if not only or family in only}
    jobs = [
        (family, module, by_steps, precision, processes, device)
        for family, (module, by_steps) in found.items()
        for processes in (1, 2)
        for precision in (PRECISIONS if by_steps and processes == 1 else ("bf16" if by_steps else "no",))
        if by_steps or processes == 1
    ]
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        said = list(pool.map(lambda job: one_training(*job), jobs))
    equal = sum(one.get("largest_difference") == 0 for one in said)
    resumed = sum("largest_difference" in one for one in said)
    wrong = sum(map(is_wrong, said))
    return {"trainings": len(said), "resumed": resumed, "bit_equal": equal, "trainings_wrong": wrong}, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--recipes", nargs="*", default=[], help="families; all by default")
    parser.add_argument("--at_once", type=int, default=8, help="trainings that run beside each other")
    parser.add_argument("--skip_pipelines", action="store_true")
    parser.add_argument("--skip_trainings", action="store_true")
    options = parser.parse_args()
    result, wrong = ({}, []) if options.skip_pipelines else pipelines(options.device)
    for line in wrong:
        print(line)
    counts, said = {"trainings_wrong": 0}, []
    if not options.skip_trainings:
        counts, said = trainings(options.device, options.recipes, options.at_once)
    for one in said:
        print("WRONG" if is_wrong(one) else "ok   ", json.dumps(one))
    import torch

    machine = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(json.dumps({**result, **counts, "machine": machine, "torch": torch.__version__}))
    sys.exit(bool(wrong) or counts["trainings_wrong"] > 0)


if __name__ == "__main__":
    main()
