"""Seconds to publish vae-mnist to a Hub on loopback, and for a fresh process to load it from there and draw.

    python benchmarks/publish.py

Prints one JSON line: the whole commands, imports included, the median of three.
"""

import json
import os
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
from diffusers import DiffusionPipeline
DiffusionPipeline.from_pretrained("user/vae-mnist", trust_remote_code=True)(batch_size=16)
"""


def main() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    figures = {"publish_s": [], "publish_again_s": [], "load_and_draw_s": []}
    for _ in range(3):
        hub = subprocess.Popen([sys.executable, "-m", "tests.loopback_hub", str(port)], cwd=ROOT)
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/_/repos")
                    break
                except OSError:
                    time.sleep(0.1)
            with tempfile.TemporaryDirectory() as home:
                environment = {
                    **os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": home, "HF_TOKEN": "hf_write",
                    "HF_HUB_DISABLE_XET": "1",
                }  # fmt: skip
                publish = [
                    sys.executable,
                    "-m",
                    "training.publish",
                    "checkpoints/vae-mnist",
                    "--repo_id",
                    "user/vae-mnist",
                ]
                for name, command, cwd in (
                    ("publish_s", publish, ROOT),
                    ("publish_again_s", publish, ROOT),
                    ("load_and_draw_s", [sys.executable, "-c", LOAD], home),
                ):
                    began = time.monotonic()
                    subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True)
                    figures[name].append(time.monotonic() - began)
        finally:
            hub.terminate()
            hub.wait(10)
    print(json.dumps({name: round(statistics.median(values), 2) for name, values in figures.items()}))


if __name__ == "__main__":
    main()
