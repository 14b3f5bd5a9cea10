"""The command that started this process, as a person would type it, and the device that it runs on."""

import os
import shlex
import sys
from pathlib import Path

import torch


def command_line_of_this_run(precision: str = "") -> str:
    """The command that started this process, as a person would type it; with the precision, where a launcher chose it."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    start = f"python -m {spec.name}" if spec else f"python {Path(sys.argv[0]).name}"
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:  # as many processes again, or the weights would differ
        cpu = "" if torch.cuda.is_available() else "ACCELERATE_USE_CPU=true "
        start = start.replace("python", f"{cpu}torchrun --nproc_per_node {processes}", 1)
    words = [w for i, w in enumerate(sys.argv[1:], 1) if not _about_resuming(i)]
    if precision:
        words += ["--mixed_precision", precision]
    return " ".join([start, *map(shlex.quote, words)])


def _about_resuming(i: int) -> bool:
    """Whether word i of the command line belongs to --resume or --overwrite."""
    word, before = sys.argv[i], sys.argv[i - 1]
    flags = ("--resume", "--overwrite")
    return word.startswith(flags) or (before in flags and not word.startswith("--"))


def device_name(device: torch.device) -> str:
    """What a run was trained on, as run.json says it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
