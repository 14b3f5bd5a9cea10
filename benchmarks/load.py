"""The gallery under load: 50 users on all its pages for three minutes.

    python -m training.publish --cache .cache       # what `make portable` does
    python benchmarks/load.py

Starts the gallery as `make demo` does, calls each endpoint once alone, and then lets `--users` users call endpoints in
random order through gradio's queue for `--seconds`, as a browser does: all of them in one thread of this process, so
that they leave the cores to the server. Arguments are those that stand on the pages, with three exceptions: the model
is any that the page offers, seeds are random (so that no two users ask the same), and a text is written on by 40
tokens. Between two calls a user thinks for `--think` seconds in the mean, exponentially distributed.

Prints a table of endpoints: seconds of a call alone and of the processor for it; under load calls, errors, seconds to
the first answer and to the end. Then one JSON line. What a call costs is what its handler declares.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
TOKENS = 40
COSTS = ("light", "heavy", "training")
# endpoints that stand on no page with arguments of their own: with the arguments of which other one, and which of them
BESIDE = {"lm_next": ("lm_write", [0, 1, 2, 3, 4, 5, 6], {2: 12})}


def declared_costs() -> dict[str, str]:
    """What the handlers of the Spaces say that they cost, where they are not light."""
    pattern = re.compile(r'^@one_job\(cost="(\w+)"\)\n(?:@.*\n)*def (\w+)', re.MULTILINE)
    files = (ROOT / "spaces").rglob("*.py")
    return {name: cost for file in files for cost, name in pattern.findall(file.read_text())}


def is_pad(part: dict) -> bool:
    return part["type"] == "html" and 'class="pad"' in str(part["props"].get("html_template"))


@dataclass
class Endpoint:
    """A named endpoint: its inputs as components of the page, and what was seen of it.

    Attributes:
        alone, processor: seconds of a call that nothing else disturbs, and the server's processor time for it.
        times, firsts: seconds to the end and to the first answer, of each call under load.
        errors: messages of calls that failed.
    """

    name: str
    cost: str
    index: int
    inputs: list[dict]
    alone: float = 0.0
    processor: float = 0.0
    times: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Load:
    """Users of a gallery at `url`; `models` are the names of all models."""

    def __init__(self, url: str, models: set[str]):
        self.url, self.models = f"{url}/gradio_api", models
        self.fixed: dict[str, dict[int, int]] = {}
        costs = declared_costs()
        config = httpx.get(f"{url}/config", timeout=60).json()
        parts = {part["id"]: part for part in config["components"]}
        self.endpoints = [
            Endpoint(
                found["api_name"],
                costs.get(found["api_name"], "light"),
                found["id"],
                [parts[i] for i in found["inputs"]],
            )
            for found in config["dependencies"]
            if found["api_name"] and found.get("api_visibility", "public") == "public" and found["backend_fn"]
        ]
        inputs = {endpoint.name: endpoint.inputs for endpoint in self.endpoints}
        for endpoint in self.endpoints:
            if endpoint.name in BESIDE:
                other, which, self.fixed[endpoint.name] = BESIDE[endpoint.name]
                endpoint.inputs = [inputs[other][i] for i in which]
        self.drawing = next(p["props"]["value"] for p in parts.values() if is_pad(p) and p["props"].get("value"))
        self.refused: set[tuple[str, str]] = set()  # (endpoint, model) that do not go together
        self.used: set[str] = set()
        self.jumps = 0  # how often a place in the queue got worse

    def offered(self, part: dict) -> set[str]:
        """The models of which a component is a choice; none where it is another control."""
        choices = {choice[1] for choice in part["props"].get("choices") or [] if isinstance(choice, list)}
        return choices if choices <= self.models else set()

    def arguments(self, endpoint: Endpoint, rng: random.Random, wanted: str | None) -> tuple[list, str | None]:
        """What a user gives, and the model among it: the one that is wanted, or any."""
        values, model = [], None
        for number, part in enumerate(endpoint.inputs):
            props, value = part["props"], part["props"].get("value")
            offered = self.offered(part)
            label = str(props.get("label", "")).lower()
            if offered:
                able = sorted(name for name in offered if (endpoint.name, name) not in self.refused)
                value = model = wanted or (rng.choice(able) if able else value)
            elif label == "seed":
                value = rng.randrange(2**31)
            elif label == "tokens to write":
                value = TOKENS
            elif is_pad(part) and not value:
                value = self.drawing
            elif isinstance(value, dict) and "value" in value and part["type"] == "state":
                value = None
            values.append(self.fixed.get(endpoint.name, {}).get(number, value))
        return values, model

    async def call(
        self, client: httpx.AsyncClient, session: str, endpoint: Endpoint, rng: random.Random, wanted: str | None = None
    ) -> dict:
        """One call, as a browser makes it: seconds to the first answer and to the end, and what went wrong."""
        data, model = self.arguments(endpoint, rng, wanted)
        body = {"data": data, "fn_index": endpoint.index, "session_hash": session, "trigger_id": None}
        began, first, place = time.monotonic(), None, None
        error = None
        try:
            joined = await client.post(f"{self.url}/queue/join", json=body)
            if joined.status_code != 200:
                return {"end": time.monotonic() - began, "error": f"{joined.status_code} {joined.text[:120]}"}
            async with client.stream("GET", f"{self.url}/queue/data", params={"session_hash": session}) as answer:
                async for line in answer.aiter_lines():
                    kind = re.search(r'"msg":\s*"(\w+)"', line)
                    if kind is None:
                        continue
                    if kind[1] == "estimation":
                        said = json.loads(line[5:])["rank"]
                        self.jumps += place is not None and said > place
                        place = said
                    if kind[1] == "process_generating" and first is None:
                        first = time.monotonic() - began
                    if kind[1] == "process_completed":
                        said = json.loads(line[5:])
                        if not said["success"]:
                            error = str(said["output"].get("error"))
                        break
        except httpx.HTTPError as failed:
            error = f"{type(failed).__name__}: {failed}"
        end = time.monotonic() - began
        if error is None and model is not None:
            self.used.add(model)
        elif model is not None and re.search(r" does not | has no | is of |draws no |choose ", error or ""):
            self.refused.add((endpoint.name, model))
            return {}  # the user chooses another model
        return {"end": end, "first": end if first is None else first, "error": error}

    async def alone(self, client: httpx.AsyncClient, rng: random.Random, pid: int) -> None:
        """Each endpoint by itself: with each model that nothing has used yet, until it answers, and then once more."""
        for endpoint in self.endpoints:
            untried = [m for part in endpoint.inputs for m in sorted(self.offered(part) - self.used)] or [None]
            for model in untried:
                while not await self.call(client, uuid.uuid4().hex, endpoint, rng, model):
                    model = None  # this one does not go with the endpoint
            before = processor_seconds(pid)
            found = await self.call(client, uuid.uuid4().hex, endpoint, rng)
            endpoint.alone, endpoint.processor = found.get("end", 0.0), processor_seconds(pid) - before

    async def user(self, client: httpx.AsyncClient, number: int, until: float, think: float) -> None:
        rng, session = random.Random(number), uuid.uuid4().hex
        await asyncio.sleep(rng.uniform(0, think))
        while time.monotonic() < until:
            endpoint = rng.choice(self.endpoints)
            found = await self.call(client, session, endpoint, rng)
            if found.get("error"):
                endpoint.errors.append(found["error"])
            elif found:
                endpoint.times.append(found["end"])
                endpoint.firsts.append(found["first"])
            await asyncio.sleep(rng.expovariate(1 / think))

    async def run(self, users: int, seconds: float, think: float, pid: int) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=600, limits=limits) as client:
            await self.alone(client, random.Random(0), pid)
            until = time.monotonic() + seconds
            await asyncio.gather(*(self.user(client, number, until, think) for number in range(users)))


@contextlib.contextmanager
def serving(gallery: Path, portable: Path) -> Iterator[tuple[str, int]]:
    """The gallery in a process of its own, as `make demo` starts it; its address and process."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    names = ",".join(str(folder) for folder in sorted(portable.iterdir()))
    environment = {
        **os.environ, "MODEL_ID": names, "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
    }  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, gallery / "app.py"], env=environment, **quiet)
    try:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"http://127.0.0.1:{port}/config", timeout=60)
                break
            assert process.poll() is None, "the gallery did not start"
            time.sleep(0.2)
        time.sleep(15)  # it imports torch and the rest once its page is there
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(60)


def memory_of(pid: int) -> dict[str, float]:
    """Memory of a process and its children, MB: resident, and with what is shared divided among those who share it."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {key: int(re.search(rf"^{key}:\s+(\d+)", text, re.MULTILINE)[1]) / 1024 for key in ("Rss", "Pss")}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        for key, value in memory_of(int(child)).items():
            found[key] += value
    return found


async def watch(pid: int, peak: dict[str, float]) -> None:
    while True:
        for key, value in memory_of(pid).items():
            peak[key] = max(peak.get(key, 0.0), value)
        await asyncio.sleep(1)


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def table(load: Load) -> str:
    rows = [
        f"{'endpoint':28}{'cost':9}{'alone':>7}{'cpu':>7}{'calls':>7}{'errors':>7}{'first':>8}{'median':>8}{'p95':>8}"
    ]
    for one in sorted(load.endpoints, key=lambda e: -(statistics.median(e.times) if e.times else e.processor)):
        first = statistics.median(one.firsts) if one.firsts else float("nan")
        middle = statistics.median(one.times) if one.times else float("nan")
        rows.append(
            f"{one.name:28}{one.cost:9}{one.alone:7.2f}{one.processor:7.2f}{len(one.times):7}{len(one.errors):7}{first:8.2f}{middle:8.2f}"
            f"{percentile(one.times, 0.95):8.2f}"
        )
    return "\n".join(rows)


async def measure(load: Load, pid: int, options: argparse.Namespace) -> dict:
    peak: dict[str, float] = {}
    watching = asyncio.create_task(watch(pid, peak))
    await load.run(options.users, options.seconds, options.think, pid)
    watching.cancel()
    by_cost = {cost: [t for e in load.endpoints if e.cost == cost for t in e.times] for cost in COSTS}
    every = [t for times in by_cost.values() for t in times]
    return {
        "users": options.users, "seconds": options.seconds, "think": options.think, "calls": len(every),
        "errors": sum(len(e.errors) for e in load.endpoints), "median_s": round(percentile(every, 0.5), 2),
        "p95_s": round(percentile(every, 0.95), 2),
        "median_p95_by_cost": {c: [round(percentile(t, q), 2) for q in (0.5, 0.95)] for c, t in by_cost.items()},
        "peak_mb": {key.lower(): round(value) for key, value in peak.items()},
        "end_mb": {key.lower(): round(value) for key, value in memory_of(pid).items()},
        "processor_s": round(processor_seconds(pid)), "models_used": len(load.used),
        "models_not_used": sorted(load.models - load.used), "places_that_got_worse": load.jumps,
        "first_errors": sorted({m[:160] for e in load.endpoints for m in e.errors})[:8],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--think", type=float, default=4.0, help="seconds between two calls of a user, in the mean")
    parser.add_argument("--gallery", type=Path, default=ROOT / ".cache" / "gallery")
    parser.add_argument("--portable", type=Path, default=ROOT / ".cache" / "portable")
    options = parser.parse_args()
    with serving(options.gallery, options.portable) as (url, pid):
        load = Load(url, {folder.name for folder in options.portable.iterdir()})
        figures = asyncio.run(measure(load, pid, options))
    print(table(load))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
