"""What all Spaces share: the theme, the controls, models loaded on first use, bounds, and two components of our own.

The build step copies this file and its neighbours beside the `app.py` of each Space, which imports it as `kit`.

MODEL_ID names the models, separated by commas: Hub ids (`user/vae-mnist@revision`) or local portable folders.
MODEL_MEMORY_MB bounds what stays loaded (2000); the model that was used longest ago is dropped first.
"""

import base64
import binascii
import functools
import importlib
import importlib.util
import inspect
import io
import json
import math
import os
import random
import threading
import time
import typing
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import gradio as gr
import numpy as np
import pydantic
from gradio.data_classes import ImageData
from PIL import Image, ImageOps

HERE = Path(__file__).parent
MAX_SEED = 2**31 - 1
MAX_PIXELS, MAX_UPLOAD = 25_000_000, "10mb"
WAIT_SECONDS = 10.0  # for a session's own earlier job
ANY = "any"
MATH = [{"left": "$$", "right": "$$", "display": True}, {"left": "$", "right": "$", "display": False}]


def user_error(text: str) -> gr.Error:
    """What a person did wrong, or what is missing: shown on the page and told to callers of the API."""
    return gr.Error(text, print_exception=False)


# The look


def theme() -> gr.themes.Base:
    """Dark orange on paper or slate; all text has a contrast of at least 4.5 in light and dark."""
    # by their names, so that nothing is fetched from elsewhere; gradio compares fonts, which plain words cannot be
    fonts = [gr.themes.Font(name) for name in ("ui-sans-serif", "system-ui", "sans-serif")]
    return gr.themes.Base(
        primary_hue="orange",
        neutral_hue="slate",
        radius_size="lg",
        font=fonts,
        font_mono=[gr.themes.Font(name) for name in ("ui-monospace", "Consolas", "monospace")],
    ).set(
        body_background_fill="#faf8f4",
        body_background_fill_dark="#10141c",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_background_fill="white",
        block_background_fill_dark="#1a202c",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_100",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        button_primary_background_fill="#c2410c",
        button_primary_background_fill_dark="#c2410c",
        button_primary_background_fill_hover="#9a3412",
        button_primary_background_fill_hover_dark="#9a3412",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_secondary_text_color="*neutral_800",
        button_secondary_text_color_dark="*neutral_100",
        color_accent="#c2410c",
        link_text_color="#9a3412",
        link_text_color_dark="#fdba74",
        link_text_color_hover="#7c2d12",
        link_text_color_hover_dark="#fed7aa",
        link_text_color_visited="#9a3412",
        link_text_color_visited_dark="#fdba74",
        error_text_color="#b91c1c",
        error_text_color_dark="#fca5a5",
    )


def launch(demo: gr.Blocks) -> None:
    """Serve a page: a queue of 64, uploads of at most 10 MB, an MCP server where gradio's `mcp` extra is installed."""
    demo.queue(max_size=64, default_concurrency_limit=4)
    demo.launch(
        theme=theme(),
        css=(HERE / "kit.css").read_text(),
        inbrowser=os.environ.get("OPEN_PAGE") == "1",
        max_file_size=MAX_UPLOAD,
        show_error=True,  # callers of the API get the message too
        mcp_server=importlib.util.find_spec("mcp") is not None,
        prevent_thread_lock=True,
    )
    soon = threading.Timer(2, Models.prepare)  # once the page is there, before its reader asks for more
    soon.daemon = True
    soon.start()
    demo.block_thread()


def page(title: str) -> gr.Blocks:
    """An empty page; files that it wrote are deleted after an hour."""
    return gr.Blocks(title=title, delete_cache=(600, 3600))


def explanation(text: str) -> None:
    """Folded below the result: what happens, the equation, the paper."""
    with gr.Accordion("How it works", open=False):
        gr.Markdown(text, latex_delimiters=MATH)


# Models


class Models:
    """The models of a page, by name, each loaded when it is first used and then shared by all sessions.

    Args:
        preferred: names in the order in which the page shows them. In a gallery, where MODEL_ID names the models of
            all pages, only these are the page's; alone, a page shows whatever MODEL_ID names.
        library: whose pipelines they are, diffusers or transformers.
    """

    # of all pages together
    loaded: ClassVar[OrderedDict[str, object]] = OrderedDict()  # by address, the last used at the end
    locks: ClassVar[dict[str, threading.Lock]] = {}
    lock: ClassVar[threading.Lock] = threading.Lock()
    libraries: ClassVar[set[str]] = set()
    gallery: ClassVar[bool] = False

    def __init__(self, preferred: tuple[str, ...], library: str = "diffusers"):
        self.preferred, self.library = preferred, library
        self.libraries.add(library)
        given = [name.strip() for name in os.environ.get("MODEL_ID", "").split(",") if name.strip()]
        self.addresses = {name.rstrip("/").split("/")[-1].split("@")[0]: name for name in given}
        if self.gallery:
            self.addresses = {n: self.addresses[n] for n in preferred if n in self.addresses}
        else:
            order = {n: i for i, n in enumerate(preferred)}
            self.addresses = dict(sorted(self.addresses.items(), key=lambda item: order.get(item[0], len(order))))

    def __iter__(self) -> Iterator[str]:
        return iter(self.addresses)

    @property
    def first(self) -> str | None:
        return next(iter(self.addresses), None)

    def control(self) -> gr.Dropdown:
        """The choice of a model; without any, a line that says how to give one."""
        if not self.addresses:
            gr.Markdown(
                "**No model is set.** `MODEL_ID` names one or several, separated by commas: Hub ids like "
                "`user/vae-mnist`, or portable folders."
            )
        return gr.Dropdown(list(self), value=self.first, label="Model", elem_id="model")

    def __getitem__(self, name: str):
        """The pipeline.

        Raises:
            gr.Error: there is no such model, or it cannot be loaded.
        """
        if not self.addresses:
            raise user_error("No model: set MODEL_ID to a Hub id like user/vae-mnist, or to a portable folder.")
        if name not in self.addresses:
            raise user_error(f"model is {name!r}; it must be one of {', '.join(self)}")
        address = self.addresses[name]
        with self.lock:
            own = self.locks.setdefault(address, threading.Lock())
        with own:  # two sessions that ask for one model at once load it once
            with self.lock:
                if address in self.loaded:
                    self.loaded.move_to_end(address)
                    return self.loaded[address]
            pipe = self._load(address)
            with self.lock:
                self.loaded[address] = pipe
                bound = float(os.environ.get("MODEL_MEMORY_MB", "2000")) * 1e6
                while len(self.loaded) > 1 and sum(map(size_of, self.loaded.values())) > bound:
                    self.loaded.popitem(last=False)
        return pipe

    @classmethod
    def prepare(cls) -> None:
        """Import what will be needed; it takes seconds."""
        for library in cls.libraries:
            PIPELINES[library]()

    def _load(self, address: str):
        where, _, revision = address.partition("@")
        if not Path(where).is_dir() and ("/" not in where or where.startswith((".", "/"))):
            raise user_error(f"MODEL_ID names {where}, which is neither a folder nor a Hub id like user/vae-mnist.")
        try:
            return PIPELINES[self.library]()(where, revision or None)
        except Exception as error:  # whatever it is, it belongs on the page and not into a log that no one reads
            raise user_error(f"{where} cannot be loaded: {str(error).strip().splitlines()[0]}") from None

    def results(self, name: str) -> dict:
        """What was measured of a model: its results.json, or {} where it has none."""
        where, _, revision = self.addresses.get(name, "").partition("@")
        if not where:
            raise user_error(f"model is {name!r}; it must be one of {', '.join(self)}")
        file = Path(where) / "results.json"
        if not Path(where).is_dir():
            try:
                file = Path(
                    LazyModule("huggingface_hub").hf_hub_download(where, "results.json", revision=revision or None)
                )
            except Exception:  # not there, or no network: a page without figures is better than none
                return {}
        return json.loads(file.read_text()) if file.is_file() else {}


# By one thread at a time: two that import parts of one package at once can meet it half made.
_importing = threading.RLock()


class LazyModule:
    """A module that is imported when it is first used: a page can be read before torch, which takes a second, is there.

    Args:
        name: of the module, as `import` takes it.
    """

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str):
        with _importing:
            return getattr(importlib.import_module(self._name), attribute)


def _of_diffusers() -> Callable:
    loaded = LazyModule("diffusers").DiffusionPipeline

    def load(where: str, revision: str | None):
        pipe = loaded.from_pretrained(where, trust_remote_code=True, revision=revision)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return load


def _of_transformers() -> Callable:
    made = LazyModule("transformers").pipeline
    LazyModule("transformers.utils.logging").disable_progress_bar()

    def load(where: str, revision: str | None):
        return made(model=where, trust_remote_code=True, revision=revision)

    return load


PIPELINES = {"diffusers": _of_diffusers, "transformers": _of_transformers}  # -> what loads (address, revision)


def size_of(pipe) -> int:
    """Bytes of a pipeline's weights."""
    parts = pipe.components.values() if hasattr(pipe, "components") else [pipe.model]
    modules = [m for m in parts if hasattr(m, "parameters")]
    return sum(p.numel() * p.element_size() for m in modules for p in [*m.parameters(), *m.buffers()])


# Controls: one name and one range for one thing, on every page


def count_control(most: int = 64, start: int = 16) -> gr.Slider:
    return gr.Slider(1, most, min(start, most), step=1, label="Number of images")


def temperature_control() -> gr.Slider:
    return gr.Slider(0, 2, 1, step=0.05, label="Temperature", info="the spread of z: 1 as trained, 0 always the same")


def class_control(elem_id: str | None = None) -> gr.Dropdown:
    choices = [ANY, *map(str, range(10))]  # a caller of the API may choose a model whose classes are not shown
    return gr.Dropdown(choices, value=ANY, label="Class", elem_id=elem_id, visible=False)


def offer_classes(count: int) -> gr.Dropdown:
    """The update of a class control to a model of `count` classes; out of sight where it has none."""
    return gr.Dropdown([ANY, *map(str, range(count))], value=ANY, visible=count > 0)


def seed_controls(elem_id: str = "seed") -> tuple[gr.Number, gr.Checkbox]:
    with gr.Row():  # no bounds of gradio's: its message would not say what the value is of
        seed = gr.Number(0, label="Seed", precision=0, elem_id=elem_id, min_width=120)
        new_seed = gr.Checkbox(True, label="New seed each time", min_width=120)
    return seed, new_seed


def result_image(label: str, elem_id: str, **options) -> gr.Image:
    """A picture to look at, enlarge and download."""
    return gr.Image(
        label=label,
        format="png",
        interactive=False,
        elem_id=elem_id,
        elem_classes="crisp",
        buttons=["download", "fullscreen"],
        **options,
    )


# Bounds: sliders check what a browser sends, these what anything else does


def bounded(name: str, value, low: float, high: float) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:
        raise user_error(f"{name} is {value!r}; it must lie between {low} and {high}")
    return value


def whole(name: str, value, low: int, high: int) -> int:
    if bounded(name, value, low, high) != int(value):
        raise user_error(f"{name} is {value}; it must be a whole number")
    return int(value)


def one_of(name: str, value, allowed) -> str:
    if value not in allowed:
        raise user_error(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
    return value


def seed_of(seed, new_seed: bool) -> int:
    """The seed to use: a new one, or the one given."""
    return random.randint(0, MAX_SEED) if new_seed else whole("seed", seed, 0, MAX_SEED)


def class_of(label, count: int) -> int | None:
    """The class that a control holds; None for any, or where the model has no classes."""
    if str(label) == ANY or not count:
        return None
    if not str(label).isdecimal() or int(label) >= count:
        raise user_error(f"class is {label!r}; it must be {ANY} or 0 to {count - 1}")
    return int(label)


# Jobs


# one running job of a session; a session that runs none is forgotten
_slots: "weakref.WeakValueDictionary[str, threading.Semaphore]" = weakref.WeakValueDictionary()
_slots_lock = threading.Lock()
# Sessions that asked to stop. Gradio's own way, `cancels`, now and then shows "Error" on a page that only stopped: its
# word that the job is over can overtake the last of what the job said.
_stops: set[str] = set()
_now = threading.local()  # .session: whose job this thread is at


def session_of(request: gr.Request) -> str:
    return str(getattr(request, "session_hash", None) or getattr(request, "client", None))


def stop_job(request: gr.Request) -> None:
    """End the session's running job, if there is one, after its next yield."""
    with _slots_lock:
        if session_of(request) in _slots:
            _stops.add(session_of(request))


def one_job(handler: Callable) -> Callable:
    """A handler of which, and of all others so wrapped, a session runs one at a time.

    A second one waits ten seconds for the first and then gets a message. Generators hold their place until they end,
    are stopped by `stop_job`, or their page is closed.
    """

    def take(session: str) -> threading.Semaphore:
        with _slots_lock:
            slot = _slots.setdefault(session, threading.Semaphore())
        if not slot.acquire(timeout=WAIT_SECONDS):
            raise user_error("Your last request is still running: stop it, or wait for it to end.")
        return slot

    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def run(*values):
            session = session_of(values[0])
            slot = take(session)
            _stops.discard(session)  # whoever asked meant the job before
            steps = handler(*values[1:])
            try:
                while session not in _stops:
                    _now.session = session
                    try:
                        step = next(steps)
                    except StopIteration:
                        return
                    yield step
            finally:
                steps.close()
                _stops.discard(session)
                slot.release()
    else:

        @functools.wraps(handler)
        def run(*values):
            slot = take(session_of(values[0]))
            try:
                return handler(*values[1:])
            finally:
                slot.release()

    # gradio hands the request to the parameter of this type
    signature = inspect.signature(handler)
    request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)
    run.__signature__ = signature.replace(parameters=[request, *signature.parameters.values()])
    run.__annotations__ = {"request": gr.Request, **typing.get_type_hints(handler)}
    del run.__wrapped__
    return run


class Pace:
    """Which steps of a stream to show: the first, the last, each k-th that is not too soon after the one before, and
    any at which the session wants to stop.

    Faster than that a browser does not keep up: what it has not shown yet piles up, and Stop seems to do nothing.
    """

    def __init__(self, every: int = 1, seconds: float = 0.15):
        self.every, self.seconds, self.shown = every, seconds, -math.inf

    def due(self, step) -> bool:
        now, ends = time.monotonic(), step.step in (0, step.num_steps - 1)
        ends = ends or getattr(_now, "session", None) in _stops
        if not ends and ((step.step + 1) % self.every or now - self.shown < self.seconds):
            return False
        self.shown = now
        return True


def unhurried(seconds: float) -> Callable:
    """A generator of frames that can be followed: each stands for at least `seconds`."""

    def slowed(handler: Callable) -> Callable:
        @functools.wraps(handler)
        def run(*values):
            began = time.monotonic()
            for frame in handler(*values):
                yield frame
                time.sleep(max(0.0, seconds - (time.monotonic() - began)))
                began = time.monotonic()

        return run

    return slowed


def buttons(label: str, elem_id: str, stop: bool = False) -> list[gr.Button]:
    """The button that starts a job; beside it one that stops it, where the job is a generator that takes a while."""
    with gr.Row():
        start = gr.Button(label, variant="primary", elem_id=elem_id, scale=3, min_width=140)
        return [start, gr.Button("Stop", elem_id=f"{elem_id}-stop", scale=1, min_width=70)] if stop else [start]


def job(pressed: list[gr.Button], handler: Callable, inputs: list, outputs: list) -> tuple[list, list]:
    """A handler behind its `buttons`, and an endpoint of its name; returns what it takes and gives."""
    pressed[0].click(handler, inputs, outputs, api_name=handler.__name__)
    if len(pressed) > 1:
        pressed[1].click(stop_job, queue=False, show_progress="hidden", api_visibility="private")
    return inputs, outputs


# Pictures


def open_picture(source: str | Path | bytes, name: str) -> Image.Image:
    """A picture file, first frame, upright, as RGB on white paper.

    Raises:
        gr.Error: it cannot be read, or has more than 25 megapixels.
    """
    try:
        picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        width, height = picture.size
        small = width * height <= MAX_PIXELS
        if small:  # only now is anything decoded
            picture = ImageOps.exif_transpose(picture).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise user_error(f"{name} is not a picture that can be read; a PNG, JPEG, WebP, GIF or BMP would be") from None
    if not small:
        raise user_error(f"{name} has {width * height / 1e6:.0f} megapixels; at most {MAX_PIXELS // 10**6} can be read")
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, picture).convert("RGB")


def data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


class Drawing(ImageData):
    """An image file, or nothing: a page sends "" for a pad that was cleared."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _nothing(cls, value):
        return {} if value == "" else value


class Pad(gr.HTML):
    """A square to draw on, or to put a picture on; hands a PIL image to its handler, or None while it is empty.

    To callers of the API it is an image file.
    """

    data_model = Drawing

    def __init__(self, value: Image.Image | None = None, *, label: str = "Draw here", **options):
        super().__init__(
            value,
            label=label,
            html_template=f"""
            <div class="pad"><canvas width="280" height="280" tabindex="0" role="img" aria-label="{label}"></canvas>
            <div class="pad-row"><button type="button" class="pad-undo">Undo</button>
            <button type="button" class="pad-clear">Clear</button>
            <button type="button" class="pad-open">Upload</button></div>
            <input type="file" accept="image/*" hidden><p class="pad-note" role="status"></p></div>""",
            js_on_load=(HERE / "pad.js").read_text(),
            **options,
        )

    def preprocess(self, payload: ImageData | None) -> Image.Image | None:
        if payload is None:
            return None
        if payload.url and payload.url.startswith("data:"):
            try:
                return open_picture(base64.b64decode(payload.url.partition(",")[2], validate=True), "The drawing")
            except binascii.Error:
                raise user_error("The drawing is not base64-encoded.") from None
        return open_picture(payload.path, payload.orig_name or "The file") if payload.path else None

    def postprocess(self, value: Image.Image | None) -> ImageData | None:
        return None if value is None else ImageData(url=data_url(value))

    def api_info(self) -> dict:
        return ImageData.model_json_schema()

    def example_payload(self):
        return None


class Explorer(gr.HTML):
    """A picture with a marker to drag: hands (x, y) in [0, 1], from the upper left, to its handler."""

    def __init__(self, label: str, **options):
        super().__init__(
            {"x": 0.5, "y": 0.5, "url": ""},
            label=label,
            html_template=f"""
            <div class="explorer" tabindex="0" role="application" aria-label="{label}; move by the arrow keys">
            <img alt="" draggable="false"><div class="explorer-marker"></div></div>""",
            js_on_load=(HERE / "explorer.js").read_text(),
            **options,
        )

    def preprocess(self, payload: dict | None) -> tuple[float, float]:
        place = payload if isinstance(payload, dict) else {}
        return tuple(float(bounded(axis, place.get(axis), 0, 1)) for axis in ("x", "y"))

    def postprocess(self, value: Image.Image | dict) -> dict:
        """A new picture; the marker goes back to the middle."""
        return value if isinstance(value, dict) else {"x": 0.5, "y": 0.5, "url": data_url(value)}

    def api_info(self) -> dict:
        number = {"type": "number", "minimum": 0, "maximum": 1}
        return {"type": "object", "properties": {"x": number, "y": number}, "required": ["x", "y"]}

    def example_payload(self):
        return {"x": 0.5, "y": 0.5}


def upscale(image: Image.Image, side: int) -> Image.Image:
    """Whole pixels, so that small images stay crisp."""
    factor = max(1, side // image.width)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def grid(images: list[Image.Image], columns: int | None = None, width: int = 640) -> Image.Image:
    """Images in rows, each enlarged by whole pixels, at most `width` pixels wide unless they are small already."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    tiles = [upscale(i.convert("RGB"), width // columns) for i in images]
    (w, h), gap = tiles[0].size, 4
    sheet = Image.new("RGB", (columns * (w + gap) + gap, rows * (h + gap) + gap), (120, 128, 140))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (gap + i % columns * (w + gap), gap + i // columns * (h + gap)))
    return sheet


def signed(value: float, digits: int = 1) -> str:
    """A number with a minus sign as long as a plus."""
    return f"{value:.{digits}f}".replace("-", "−")


def signed_short(value: float) -> str:
    """A number as an axis shows it: three digits, no exponent below a million, such a minus sign."""
    value = 0.0 if abs(value) < 1e-9 else value
    return (f"{value:,.0f}" if 1_000 <= abs(value) < 1e6 else f"{value:.3g}").replace("-", "−")


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from low to high."""
    if not high > low:
        return [low]
    power = 10 ** math.floor(math.log10((high - low) / count))
    step = next(s for s in (power, 2 * power, 5 * power, 10 * power) if (high - low) / s <= count)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten from low to high, both above 0; the powers alone where those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1,)):
        ticks = [d * 10.0**p for p in powers for d in digits]
        ticks = [t for t in ticks if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]
        if len(ticks) <= 9:
            break
    return ticks


def histogram(values, marks: list[tuple[str, float]], label: str, bins: int = 40, digits: int = 0) -> str:
    """An SVG: how often `values` fall where, and named places among them. It takes the colours of the page."""
    values = np.asarray(values, dtype=float)
    low = min(values.min(), *(v for _, v in marks))
    high = max(values.max(), *(v for _, v in marks))
    low, high = low - 0.04 * (high - low) - 1e-6, high + 0.04 * (high - low) + 1e-6
    counts, edges = np.histogram(values, bins, (low, high))
    left, right, top, floor = 16, 624, 20 + 20 * len(marks), 250

    def x(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    bars = "".join(
        f'<rect x="{x(a):.1f}" width="{max(1.0, x(b) - x(a) - 1):.1f}" '
        f'y="{floor - (floor - top) * n / counts.max():.1f}" height="{(floor - top) * n / counts.max():.1f}"/>'
        for n, a, b in zip(counts, edges, edges[1:], strict=False)
    )
    lines = ""
    for i, (name, value) in enumerate(marks):
        y, place = 16 + 20 * i, x(value)
        anchor, shift = ("end", -6) if place > (left + right) / 2 else ("start", 6)
        lines += (
            f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{y - 10}" y2="{floor}"/>'
            f'<text x="{place + shift:.1f}" y="{y}" text-anchor="{anchor}">{name} {signed(value, digits)}</text>'
        )
    ticks = "".join(
        f'<text x="{x(v):.1f}" y="{floor + 18}" text-anchor="middle">{signed(v, digits)}</text>'
        for v in np.linspace(low, high, 7)[1:-1]
    )
    return (
        f'<div class="figure"><svg viewBox="0 0 640 300" role="img" aria-label="{label}" font-size="14">'
        f'<g class="bars">{bars}</g><line class="axis" x1="{left}" x2="{right}" y1="{floor}" y2="{floor}"/>'
        f'{lines}{ticks}<text x="320" y="{floor + 42}" text-anchor="middle">{label}</text></svg></div>'
    )


def curves(
    series: dict[str, list[tuple[float, float]]],
    x_label: str,
    y_label: str,
    log_x: bool = False,
    marks: bool = False,
    least: float = 0.0,
    bars: list[tuple[float, float, float]] = (),
    here: tuple[str, float] | None = None,
) -> str:
    """An SVG of lines through (x, y), several of them named above; a line has a gap where y is not finite.

    `marks` puts a dot and its value at each point; the vertical axis reaches from `least`, or from the lowest point
    where that is lower, to the highest. Behind the lines stand `bars`, each (from, to, height); `here` is a named place
    on the horizontal axis.
    """
    points = [point for line in series.values() for point in line]
    xs, ys = [x for x, _ in points], [y for _, y in points if math.isfinite(y)] or [0.0]
    xs, ys = [*xs, *(edge for bar in bars for edge in bar[:2])], [*ys, *(bar[2] for bar in bars)]
    left, right, top, floor = 56, 600, 44 if marks else 34, 246  # a mark's value stands above it
    top += 18 if here else 0  # and the name of a place between it and the legend
    low_y, high_y = min(least, *ys), max(ys)
    low_x, high_x = (math.log(min(xs)), math.log(max(xs))) if log_x else (min(xs), max(xs))

    def at(x: float, y: float) -> tuple[float, float]:
        along = ((math.log(x) if log_x else x) - low_x) / (high_x - low_x or 1)
        return left + (right - left) * along, floor - (floor - top) * (y - low_y) / (high_y - low_y or 1)

    drawn = ""
    for start, end, height in bars:
        (x, y), (x_end, zero) = at(start, height), at(end, max(low_y, 0.0))
        drawn += f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(1.0, x_end - x - 1):.1f}" height="{zero - y:.1f}"/>'
    drawn = f'<g class="bars behind">{drawn}</g>' if bars else ""
    for number, line in enumerate(series.values()):
        places = [at(*point) if math.isfinite(point[1]) else None for point in line]
        path = ""
        for before, place in zip([None, *places], places, strict=False):
            if place is not None:
                path += f"{'M' if before is None else 'L'}{place[0]:.1f} {place[1]:.1f}"
        drawn += f'<path class="curve curve-{number}" d="{path}"/>'
        if marks:
            drawn += "".join(
                f'<circle class="dot" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="4"/>'
                f'<text x="{place[0]:.1f}" y="{place[1] - 9:.1f}" text-anchor="middle" font-size="12">{value:.3g}</text>'
                for place, (_, value) in zip(places, line, strict=True)
                if place is not None
            )
    # where all lines have their points, those are the ticks
    even = log_ticks if log_x else lambda low, high: round_ticks(low, high, 8)
    ticks = sorted(set(xs)) if len(set(xs)) <= 9 else even(min(xs), max(xs))
    if here is not None:
        place = at(here[1], low_y)[0]
        anchor, shift = ("end", -6) if place > (left + right) / 2 else ("start", 6)
        drawn += (
            f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{top - 10}" y2="{floor}"/>'
            f'<text x="{place + shift:.1f}" y="{top + 3}" text-anchor="{anchor}">{here[0]}</text>'
        )
    marked = "".join(
        f'<text x="{at(x, low_y)[0]:.1f}" y="{floor + 22}" text-anchor="middle">{signed_short(x)}</text>' for x in ticks
    )
    marked += "".join(
        f'<text x="{left - 8}" y="{at(xs[0], y)[1] + 5:.1f}" text-anchor="end">{signed_short(y)}</text>'
        for y in round_ticks(low_y, high_y)
    )
    legend, x = "", 640.0
    for number, name in reversed(list(enumerate(series))) if len(series) > 1 else ():
        x -= 11.5 * len(name) + 36  # wide enough for the larger letters of a narrow window
        legend += f'<path class="curve curve-{number}" d="M{x:.0f} 10h16"/><text x="{x + 21:.0f}" y="15">{name}</text>'
    named = next(iter(series)) if len(series) == 1 else y_label
    return (
        f'<div class="figure"><svg viewBox="-24 -8 664 308" role="img" aria-label="{named} against {x_label}" font-size="14">'
        f'<line class="axis" x1="{left}" x2="{right}" y1="{floor}" y2="{floor}"/>'
        f'<line class="axis" x1="{left}" x2="{left}" y1="{top}" y2="{floor}"/>{drawn}{marked}{legend}'
        f'<text x="4" y="15">{named}</text>'
        f'<text x="320" y="{floor + 46}" text-anchor="middle">{x_label}</text></svg></div>'
    )


PLANE = 600  # units a side


def on_plane(points, reach: float) -> list[list[float]]:
    """(N, 2), each from -reach to reach, upwards -> places on a `plane`, downwards."""
    scale = PLANE / 2 / reach
    return (np.asarray(points, dtype=float) * [scale, -scale] + PLANE / 2).tolist()


def dots(points, reach: float, kind: str = "", radius: float = 3) -> str:
    """Points (N, 2) that lie within reach, as a layer of a `plane`."""
    inside = [(x, y) for x, y in on_plane(points, reach) if 0 <= x <= PLANE and 0 <= y <= PLANE]
    circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>' for x, y in inside)
    return f'<g class="dots {kind}">{circles}</g>'


def plane(label: str, *layers: str, ground: Image.Image | None = None) -> str:
    """An SVG of a square: layers of SVG in the coordinates of `on_plane`, on a picture that fills it."""
    picture = ""
    if ground is not None:
        picture = f'<image href="{data_url(ground)}" width="{PLANE}" height="{PLANE}" preserveAspectRatio="none"/>'
    return (
        f'<div class="figure plane"><svg viewBox="0 0 {PLANE} {PLANE}" role="img" aria-label="{label}">'
        f'<rect class="frame" width="{PLANE}" height="{PLANE}" rx="10"/>{picture}{"".join(layers)}</svg></div>'
    )


# Digits


def as_digit(picture: Image.Image | None, size: int) -> Image.Image:
    """A drawing or a photograph as the data sets hold digits: white on black, centred, with a margin.

    Raises:
        gr.Error: there is nothing on it.
    """
    empty = user_error("There is nothing on the paper yet: draw a digit, upload one or click an example.")
    if picture is None:
        raise empty
    picture = picture.convert("L")
    picture.thumbnail((512, 512), Image.Resampling.LANCZOS)
    gray = np.asarray(picture, dtype=np.float32)
    ink = np.abs(gray - np.median(gray))  # dark on light or light on dark: most of a picture is its ground
    if ink.max() < 30:
        raise empty
    ink = Image.fromarray((ink * (255 / ink.max())).astype(np.uint8))
    ink = ink.crop(ink.point(lambda v: 255 if v > 60 else 0).getbbox())
    side = round(size * 20 / 28) if size > 10 else size  # MNIST's margin; the 8x8 digits have none
    scale = side / max(ink.size)
    ink = ink.resize([max(1, round(s * scale)) for s in ink.size], Image.Resampling.LANCZOS)
    weight = np.asarray(ink, dtype=np.float32)
    weight *= 255 / weight.max()  # a thin pen has become faint
    ink = Image.fromarray(weight.astype(np.uint8))
    # MNIST puts the centre of mass in the middle, as far as the margin allows
    place = []
    for axis, length in ((0, ink.width), (1, ink.height)):
        along = weight.sum(axis)
        centre = (along * (np.arange(length) + 0.5)).sum() / along.sum()
        place.append(round(min(max(size / 2 - centre, 0), size - length)))
    digit = Image.new("L", (size, size))
    digit.paste(ink, tuple(place))
    return digit


@functools.cache
def example_digits() -> list[Image.Image]:
    """Ten handwritten digits, one a class, as ink on paper: from scikit-learn's set, of the part kept for testing."""
    strip = Image.open(HERE / "digits.png")
    digits = []
    for c in range(10):
        large = strip.crop((8 * c, 0, 8 * c + 8, 8)).resize((192, 192), Image.Resampling.BICUBIC)
        inked = large.point(lambda v: min(255, max(0, 4 * v - 480)))  # sharp edges, as of a pen
        digits.append(ImageOps.invert(ImageOps.expand(inked, 44)))
    return digits


def examples_gallery(elem_id: str) -> gr.Gallery:
    """The ten example digits, to click."""
    return gr.Gallery(
        example_digits(),
        label="Examples: click one",
        columns=5,
        object_fit="contain",
        allow_preview=False,
        buttons=[],
        elem_id=elem_id,
        elem_classes="examples",
    )


def chosen_example(event: gr.SelectData) -> Image.Image:
    """The digit that was clicked in such a gallery."""
    return example_digits()[event.index]
