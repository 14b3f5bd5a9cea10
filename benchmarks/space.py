"""The VAE Space under a person's hand and under twenty: start, click, drag, and a minute of load.

    python benchmarks/space.py                 # needs Chromium

Starts `make demo` and opens the page in Chromium: seconds from the command to a page with its controls, and from a
click to the picture, with the model loaded. Then times moves on the latent map as a client sees
them. Then `--users` clients in a process of their own, each in a session of
its own, ask for samples, reconstructions and places on the map for `--seconds`, a second apart. Prints one JSON line.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


def memory_mb(pid: int) -> float:
    """Resident memory of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    own = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))  # kB
    return own / 1024 + sum(memory_mb(int(child)) for child in children)


def first_seconds(port: int, began: float) -> dict:
    """From the command to a usable page; from a click to another picture, the median of five."""
    from playwright.sync_api import sync_playwright

    url = f"http://127.0.0.1:{port}/vae"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 0.2):
                    break
            except OSError:
                time.sleep(0.05)
        page.goto(url)
        page.get_by_role("button", name="Draw samples").wait_for()
        usable = time.monotonic() - began
        page.locator("#samples img").wait_for()
        first = time.monotonic() - began
        clicks = []
        for _ in range(5):
            page.wait_for_timeout(500)
            old = page.locator("#samples img").get_attribute("src")
            clicked = time.monotonic()
            page.get_by_role("button", name="Draw samples").click()
            page.wait_for_function(
                "old => document.querySelector('#samples img').getAttribute('src') !== old "
                "&& document.querySelector('#samples img').complete",
                arg=old,
            )
            clicks.append(time.monotonic() - clicked)
        browser.close()
    return {
        "page_usable_s": round(usable, 2),
        "first_samples_without_a_click_s": round(first, 2),
        "click_to_picture_s": round(statistics.median(clicks), 3),
    }


def time_moves(port: int) -> dict:
    """A move on the map, as a client sees it: the handler, the picture's file and the connection."""
    from gradio_client import Client

    client = Client(f"http://127.0.0.1:{port}", verbose=False, download_files=False)
    client.predict("vae-2d-mnist", "any", {"x": 0.5, "y": 0.5}, api_name="/vae_decode_at")
    times = []
    for i in range(50):
        began = time.monotonic()
        client.predict("vae-2d-mnist", "any", {"x": i / 50, "y": 0.3}, api_name="/vae_decode_at")
        times.append(time.monotonic() - began)
    return {"map_move_ms": round(1000 * statistics.median(times)), "map_move_slowest_ms": round(1000 * max(times))}


def put_under_load(port: int, users: int, seconds: float) -> None:
    """Twenty people for a minute; prints what they saw as JSON."""
    from gradio_client import Client, handle_file
    from PIL import Image

    times, errors, lock = [], [], threading.Lock()
    with tempfile.TemporaryDirectory() as folder:
        digit = Image.new("L", (200, 200), 255)
        digit.paste(0, (90, 30, 110, 170))
        digit.save(f"{folder}/one.png")
        clients = [Client(f"http://127.0.0.1:{port}", verbose=False) for _ in range(users)]
        end = time.monotonic() + seconds

        def person(client: Client, number: int) -> None:
            rng = random.Random(number)
            while time.monotonic() < end:
                name, values = rng.choice([
                    ("/vae_sample", ("cvae-mnist", "any", rng.choice([16, 64]), 1.0, "mean", 0, True)),
                    ("/vae_reconstruct", ("vae-mnist", "any", handle_file(f"{folder}/one.png"))),
                    ("/vae_decode_at", ("vae-2d-mnist", "any", {"x": rng.random(), "y": rng.random()})),
                ])  # fmt: skip
                began = time.monotonic()
                try:
                    client.predict(*values, api_name=name)
                except Exception as error:
                    with lock:
                        errors.append(f"{type(error).__name__}: {error}"[:200])
                with lock:
                    times.append(time.monotonic() - began)
                time.sleep(1)

        threads = [threading.Thread(target=person, args=(c, i)) for i, c in enumerate(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    figures = {
        "users": users, "answers": len(times), "errors": len(errors), "median_s": round(statistics.median(times), 3),
        "slowest_s": round(max(times), 2), "first_errors": errors[:3],
    }  # fmt: skip
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        return put_under_load(options.load, options.users, options.seconds)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    # a browser of our own is opened instead of the user's
    environment = {**os.environ, "PORT": str(port), "BROWSER": "true"}
    subprocess.run(["make", ".venv/installed", "portable"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    began = time.monotonic()
    process = subprocess.Popen(
        ["make", "demo"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        figures = {**first_seconds(port, began), **time_moves(port)}
        figures["memory_mb_before"] = round(memory_mb(process.pid))
        words = [sys.executable, __file__, "--load", str(port), "--users", str(options.users)]
        done = subprocess.run(
            [*words, "--seconds", str(options.seconds)], check=True, capture_output=True, text=True
        ).stdout
        figures["load"] = json.loads(done.splitlines()[-1])
        figures["memory_mb_after"] = round(memory_mb(process.pid))
    finally:
        os.killpg(process.pid, signal.SIGTERM)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
