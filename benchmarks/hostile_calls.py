"""Every argument of every endpoint of the gallery under values that it cannot take, and what is answered.

    python benchmarks/hostile_calls.py
    python benchmarks/hostile_calls.py --private true      # also what only the pages themselves call

Builds and starts the gallery with all committed models on loopback. Each argument is sent numbers for texts, texts for
numbers, true for 1, NaN, 10^400, lists nested 900 deep, texts of 10 MB, paths of other files, of pipes and devices, links
out of the folder of uploads, addresses to fetch, damaged and oversized pictures; too few and too many arguments; and
texts with markup, where it takes texts. Prints one JSON line:

    calls, refused: how many were made, and refused in one line that begins with the argument's name
    generic: refused in other words
    taken: answered as if nothing were
    tracebacks, timeouts, failures: in what a caller sees; no answer within `--seconds`; the page's own word for "I failed"
    markup: answers with tags of the caller in HTML or Markdown
    opened, fetched: files outside the folder of uploads that were opened (as inotify sees it), addresses that were asked
    pixels: memory of the server in MB, before and at its peak, with eight pictures of as many pixels as are taken at once,
        and with eight of far more
"""

import argparse
import base64
import ctypes
import http.server
import io
import json
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARKUP = '<img src="x" onerror="alert(1)">'
RAW = {"NaN": float("nan"), "Infinity": float("inf")}


class Opened:
    """Counts how often files of a folder are opened, by inotify; only Linux has it."""

    IN_OPEN = 0x20

    def __init__(self, folder: Path):
        self.libc, self.count = ctypes.CDLL(None, use_errno=True), 0
        self.handle = self.libc.inotify_init1(os.O_NONBLOCK)
        if self.libc.inotify_add_watch(self.handle, os.fsencode(folder), self.IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify watches nothing here")

    def so_far(self) -> int:
        while select.select([self.handle], [], [], 0)[0]:
            events, place = os.read(self.handle, 65_536), 0
            while place < len(events):
                length = int.from_bytes(events[place + 12 : place + 16], sys.byteorder)
                self.count, place = self.count + 1, place + 16 + length
        return self.count


class Asked(http.server.BaseHTTPRequestHandler):
    """An address that no one should ask."""

    count = 0

    def do_GET(self):
        type(self).count += 1
        self.send_error(404)

    def log_message(self, *_):
        pass


def picture(side: int, kind: str = "PNG") -> bytes:
    from PIL import Image, ImageDraw

    made, buffer = Image.new("L", (side, side), 255), io.BytesIO()
    ImageDraw.Draw(made).line((side // 2, side // 5, side // 2, 4 * side // 5), fill=0, width=max(1, side // 12))
    made.save(buffer, kind)
    return buffer.getvalue()


def url_of(data: bytes) -> dict:
    return {"url": "data:image/png;base64," + base64.b64encode(data).decode()}


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def values_of_any_kind() -> list:
    return [
        None, True, False, 0, 1, -1, 2.5, 3, 1e308, 10**400, float("nan"), float("inf"), "", "3", "nan", "x", MARKUP,
        "x" * 10_000_000, [], [3], ["any"], {}, {"a": 1}, {"x": 0.5}, {"x": "0.5", "y": 0.5}, {"x": 2, "y": float("nan")},
        nested(900), {"chosen": [1]}, {"people": [1, 2], "dishes": [], "ratings": {}},
    ]  # fmt: skip


def files(outside: Path, uploads: Path, address: str) -> list:
    """Whatever names a file that was not uploaded, as a caller may send it."""
    (outside / "secret.png").write_bytes(picture(200))
    os.mkfifo(outside / "pipe.png")
    (outside / "folder").mkdir()
    for name, target in (
        ("link.png", outside / "secret.png"),
        ("pipe.png", outside / "pipe.png"),
        ("zero.png", "/dev/zero"),
    ):
        (uploads / name).symlink_to(target)
    paths = [outside / "secret.png", outside / "pipe.png", outside / "folder", *sorted(uploads.glob("*.png")),
             uploads / ".." / outside.name / "secret.png", "/dev/zero", "/etc/hostname", "/proc/self/environ", address]  # fmt: skip
    sent = []
    for path in map(str, paths):
        sent += [{"path": path}, {"path": path, "meta": {"_type": "gradio.FileData"}}, {"url": path},
                 {"path": path, "is_stream": True, "meta": {"_type": "gradio.FileData"}}]  # fmt: skip
    return [*sent, str(paths[0]), address]


def pictures() -> list:
    """Damaged ones, and those that unpack to more than is taken."""
    small = picture(60)
    return [
        url_of(data)
        for data in (b"", b"no picture", small[:50], picture(4999), picture(60, "TIFF"), picture(60, "PPM"))
    ]


def fits(value, schema: dict) -> bool | None:
    """Whether a value is of an argument's kind, by its schema; None where that does not say."""
    kind = schema.get("type")
    if kind in ("number", "integer"):
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
        inside = is_number and schema.get("minimum", -1e300) <= value <= schema.get("maximum", 1e300)
        return inside and (kind == "number" or value == int(value))
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "string":
        return isinstance(value, str) and ("enum" not in schema or value in schema["enum"])
    return None


class Page:
    """A page that is served, and what was answered.

    Args:
        url: where it is.
        seconds: after which a call counts as one without an answer.
    """

    def __init__(self, url: str, seconds: float):
        self.url, self.seconds, self.lock = url, seconds, threading.Lock()
        self.counts = dict.fromkeys(
            ("calls", "refused", "generic", "taken", "tracebacks", "timeouts", "failures", "markup"), 0
        )
        self.examples: dict[str, list[str]] = {}

    def ask(self, path: str, body=None) -> tuple[int, str]:
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=self.seconds) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def note(self, what: str, example: str = "") -> None:
        with self.lock:
            self.counts[what] += 1
            if example and len(self.examples.setdefault(what, [])) < 5:
                self.examples[what].append(example[:300])

    def call(self, event: dict, values: list, name: str, right: bool | None) -> None:
        """Send these values; `name` is the argument of which one is hostile, `right` whether it is one to take."""
        self.note("calls")
        where = (
            f"{event['name']}({name}={values[event['names'].index(name)] if name in event['names'] else len(values)!r})"
        )
        where = re.sub(r"(.{100}).*", r"\1…", where, flags=re.DOTALL)
        try:
            status, text = self.ask(f"/gradio_api/run/{event['name']}", {"data": values, "fn_index": event["id"]})
        except OSError as error:
            return self.note("timeouts", f"{where}: {error}")
        if "Traceback" in text or 'File \\"' in text:
            self.note("tracebacks", f"{where}: {text}")
        if status == 200:
            if not right:
                self.note("taken", where)
            shown = [
                v
                for v, kind in zip(json.loads(text)["data"], event["shown"], strict=False)
                if kind and MARKUP in str(v)
            ]
            return self.note("markup", f"{where}: {shown}") if shown else None
        said = json.loads(text).get("error") or text
        if "has failed" in said:
            self.note("failures", f"{where}: {said}")
        named = said.startswith((f"{name} ", f"{name}: ")) or (name == "count of values" and "values are given" in said)
        if right is None or right:  # of its kind, but not what a handler can do; whatever it says is on one line
            named = "\n" not in said
        self.note("refused" if named and "\n" not in said and len(said) < 1_000 else "generic", f"{where}: {said}")


def events_of(page: Page, private: bool) -> list[dict]:
    """What can be called: its number and name, the names, schemas and values of its arguments, which answers are markup."""
    config = json.loads(page.ask("/config")[1])
    info = json.loads(page.ask("/gradio_api/info")[1])["named_endpoints"]
    blocks = {block["id"]: block for block in config["components"]}
    digit, known, found = url_of(picture(200)), {}, []
    for event in config["dependencies"]:
        public = event["api_visibility"] == "public"
        if not event["backend_fn"] or not (public or private) or not event["inputs"]:
            continue
        given = [blocks[i] for i in event["inputs"]]
        told = info[f"/{event['api_name']}"]["parameters"] if public else []
        names = [p["parameter_name"] for p in told] or [str(block["props"].get("label")) for block in given]
        if len(names) != len(given):  # a state is not told
            names = [str(block["props"].get("label")) for block in given]
        schemas = [block["api_info_as_input"] for block in given]
        values = [block["props"].get("value") for block in given]
        values = [digit if "path" in s.get("properties", {}) else v for s, v in zip(schemas, values, strict=True)]
        known |= {n: v for n, v in zip(names, values, strict=True) if v is not None and n not in known}
        shown = [blocks[i]["type"] in ("html", "markdown") for i in event["outputs"]]
        found.append({"id": event["id"], "name": event["api_name"], "names": names, "schemas": schemas, "values": values,
                      "kinds": [block["type"] for block in given], "shown": shown})  # fmt: skip
    for event in found:  # what is called without controls has no values of its own
        event["values"] = [
            known.get(n) if v is None else v for n, v in zip(event["names"], event["values"], strict=True)
        ]
    return found


def calls_of(event: dict, files: list, pictures: list) -> list[tuple]:
    """(values, name of the argument, whether it is one to take) for each hostile value of each argument."""
    made = []
    for place, (name, schema, kind) in enumerate(zip(event["names"], event["schemas"], event["kinds"], strict=True)):
        if kind == "state":
            continue
        sent = [(value, fits(value, schema)) for value in values_of_any_kind()]
        if schema.get("type") == "string" and "enum" not in schema:
            sent = [(value, right) for value, right in sent if not right or value == MARKUP]
        elif schema.get("type"):
            sent = [(value, right) for value, right in sent if right is not True]
        if kind == "number":
            sent = [(value, right) for value, right in sent if value is not None]  # an empty field
        if "path" in schema.get("properties", {}):
            sent = [(value, False) for value, _ in sent if value is not None and value != ""]
            sent += [(value, False) for value in files + pictures]
        else:
            sent += [(value, False) for value in files[:4] if not isinstance(value, str)]
        made += [([*event["values"][:place], v, *event["values"][place + 1 :]], name, right) for v, right in sent]
    for values in ([], event["values"][:-1], [*event["values"], 1], [*event["values"], *[1] * 1000]):
        made.append((values, "count of values", False))
    return made


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def eight_at_once(page: Page, pid: int, event: dict, side: int) -> dict:
    """Memory of the server while eight callers send pictures of so many pixels a side."""
    values = [url_of(picture(side)) if "path" in s.get("properties", {}) else v
              for s, v in zip(event["schemas"], event["values"], strict=True)]  # fmt: skip
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # its peak is what it holds now
    before = peak_mb(pid)
    with ThreadPoolExecutor(8) as pool:
        asked = {"data": values, "fn_index": event["id"]}
        done = list(pool.map(lambda _: page.ask(f"/gradio_api/run/{event['name']}", asked)[0], range(8)))
    return {"side": side, "taken": done.count(200), "before_mb": round(before), "peak_mb": round(peak_mb(pid))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--private", default="false", choices=["true", "false"], help="call what only the pages call too"
    )
    parser.add_argument("--only", default="", help="name or beginning of the names of the endpoints that are called")
    parser.add_argument("--seconds", type=float, default=120, help="seconds after which a call counts as a timeout")
    options = parser.parse_args()
    subprocess.run(
        [sys.executable, "-m", "training.publish", "--cache", ".cache"], cwd=ROOT, check=True, stdout=sys.stderr
    )
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    fetched = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    threading.Thread(target=fetched.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        uploads, outside = Path(folder, "uploads"), Path(folder, "outside")
        uploads.mkdir()
        outside.mkdir()
        hostile = files(outside, uploads, f"http://127.0.0.1:{fetched.server_port}/x.png")
        models = ",".join(str(path) for path in sorted((ROOT / ".cache" / "portable").iterdir()))
        environment = {**os.environ, "MODEL_ID": models, "GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(uploads),
                       "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_ANALYTICS_ENABLED": "False"}  # fmt: skip
        with open(Path(folder, "log"), "w") as log:
            process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT / ".cache" / "gallery", env=environment,
                                       stdout=log, stderr=log)  # fmt: skip
        try:
            page = Page(f"http://127.0.0.1:{port}", options.seconds)
            while process.poll() is None:
                try:
                    page.ask("/config")
                    break
                except OSError:
                    time.sleep(0.2)
            opened = Opened(outside)
            events = [e for e in events_of(page, options.private == "true") if e["name"].startswith(options.only)]
            with ThreadPoolExecutor(4) as pool:
                for event in events:
                    list(pool.map(lambda call, e=event: page.call(e, *call), calls_of(event, hostile, pictures())))
                    print(event["name"], page.counts, file=sys.stderr)
            figures = {"endpoints": len(events), **page.counts, "opened": opened.so_far(), "fetched": Asked.count}
            drawn = [event for event in events if any("path" in s.get("properties", {}) for s in event["schemas"])]
            if drawn:
                figures["pixels"] = [eight_at_once(page, process.pid, drawn[-1], side) for side in (200, 1999, 4999)]
            figures["log_tracebacks"] = Path(folder, "log").read_text().count("Traceback (most recent call last)")
        finally:
            process.terminate()
            process.wait()
    for what, examples in page.examples.items():
        if what != "refused":
            print(what, *examples, sep="\n  ", file=sys.stderr)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
