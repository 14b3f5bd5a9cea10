"""What drawing costs: `seconds_per_image` at batch 1 and 64, the median of five; `peak_memory_mb` of a process that loads
the model and draws 64 samples, libraries included (of the GPU's memory, where there is one)."""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from training.figures import Figure, Table
from training.publishing.loading import model_folder

ROOT = Path(__file__).resolve().parents[2]
SECONDS = Figure(
    "seconds_per_image",
    "ms a sample (batch 1, 64)",
    show=lambda found: ", ".join(f"{1000 * found['seconds_per_image'][size]:.2f}" for size in ("1", "64")),
)
MEMORY = Figure("peak_memory_mb", "peak memory, MB", digits=0)
TABLES = (Table("Drawing", (SECONDS, MEMORY), lambda found: "seconds_per_image" in found, 30),)
PICTURES = {}

PEAK = """
import json, resource, sys, torch
from training.publishing.loading import load
device = sys.argv[2]
pipe = load(sys.argv[1], device, sys.argv[3] == "True")
pipe(batch_size=64, output_type="pt")
peak = torch.cuda.max_memory_allocated() if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps(peak / 1e6))
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    pass


def applies(pipe, source) -> bool:
    return "sample" in pipe.calls and source.kind in ("image", "vector")


def measure(pipe, source, options: argparse.Namespace) -> tuple[dict, dict[str, bytes]]:
    seconds = {}
    for batch in (1, 64):
        times = []
        for _ in range(6):
            began = time.perf_counter()
            pipe(batch_size=batch, output_type="pt", generator=torch.Generator().manual_seed(0))
            if options.device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        seconds[str(batch)] = float(f"{statistics.median(times[1:]) / batch:.3g}")
    place = model_folder(options.source, options.trust).resolve()  # the very files that were looked at
    words = [sys.executable, "-c", PEAK, str(place), options.device, str(options.trust)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return {"seconds_per_image": seconds, "peak_memory_mb": round(json.loads(done.stdout.splitlines()[-1]))}, {}
