"""Pictures: reading and laying them out, and two components of our own, a pad and a map."""

import base64
import binascii
import io
import math
import threading
from pathlib import Path

import gradio as gr
from gradio.data_classes import ImageData
from PIL import Image, PngImagePlugin

from kit.bounds import is_number
from kit.decoding import as_levels
from kit.errors import user_error
from kit.inputs import Refused, check_fields, uploaded
from kit.words import short

HERE = Path(__file__).parent
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # that the page names; Pillow reads dozens, some by other programs
MAX_PIXELS = 4_000_000  # of what the API is sent: a browser sends photographs scaled down
MAX_BYTES = 10_000_000
MAX_URL = 4_000_000  # letters of a picture that is not a file
MAX_EXIF = 2**16  # bytes; what a camera writes, and each of whose tags may claim as much
MAX_SCANS = 100  # of a JPEG, each of which costs a look at all of the picture
EXIF = b"Exif\0\0"  # what it begins with in a JPEG
SIDE = 1024  # of what is kept; models take less

PngImagePlugin.MAX_TEXT_MEMORY = 2**20  # bytes of text in a PNG, unpacked
_decoding = threading.Lock()  # one at a time: what a decoder holds is large


def open_picture(data: bytes, name: str) -> Image.Image:
    """A picture file, first frame, upright, as RGB on white paper, at most 1024 pixels a side.

    Raises:
        gr.Error: it cannot be read, has more than 4 megapixels or 10 MB.
    """
    if len(data) > MAX_BYTES:
        raise user_error(f"{name} has more than {MAX_BYTES // 10**6} MB, the most that can be read")
    # Pillow joins all that is marked so in a JPEG, and reads it when it opens the file
    first, mark, rest = data.partition(EXIF)
    data = first + mark + rest.replace(EXIF, bytes(len(EXIF)))
    with _decoding:
        try:
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            if math.prod(picture.size) > MAX_PIXELS:
                raise Image.DecompressionBombError  # as Pillow does where there are far more
            return _decoded(picture, data)
        except Image.DecompressionBombError:
            said = f"has more than {MAX_PIXELS // 10**6} megapixels, the most that can be read"
        except Exception:  # decoders meet what is damaged with errors of every kind
            said = "is not a picture that can be read; a PNG, JPEG, WebP, GIF or BMP would be"
    raise user_error(f"{name} {said}")


def _decoded(picture: Image.Image, data: bytes) -> Image.Image:
    if picture.format == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:
        raise ValueError("more scans than any camera writes")
    picture.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded no larger than it has to be
    picture.load()
    if len(picture.info.get("exif", b"")) > MAX_EXIF:
        del picture.info["exif"]
    picture = as_levels(picture)
    picture.thumbnail((SIDE, SIDE))
    return picture.convert("RGB")


def data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


class Pad(gr.HTML):
    """A square to draw on, or to put a picture on; hands a PIL image to its handler, or None while it is empty.

    To callers of the API it is an image file.
    """

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

    def taken(self, value) -> dict | None:
        """Either a "path" in the folder of uploads or a data "url"; a page sends "" for a pad that was cleared."""
        if value is None or value == "":
            return None
        url, path = (value.get("url"), value.get("path")) if isinstance(value, dict) else (0, 0)
        if isinstance(url, str) and url.startswith("data:"):
            if len(url) > MAX_URL:
                raise Refused(f"a data URL of at most {MAX_URL:,} letters; a larger picture can be sent as a file")
            return {"url": url}
        if isinstance(path, str):  # whose url, if it has one, is not asked
            name = value.get("orig_name")
            return {"path": str(uploaded(path)), "orig_name": name if isinstance(name, str) else None}
        if path is url is None and {"path", "url"} & set(value):
            return None
        raise Refused("an image file that was uploaded to this page, a data URL of one, or null")

    def preprocess(self, payload: dict | None) -> Image.Image | None:
        sent = self.taken(payload)
        if sent is None:
            return None
        if "url" in sent:
            try:
                return open_picture(base64.b64decode(sent["url"].partition(",")[2], validate=True), "the drawing")
            except binascii.Error:
                raise user_error("the drawing is not base64-encoded") from None
        with open(sent["path"], "rb") as file:
            return open_picture(file.read(MAX_BYTES + 1), short(sent["orig_name"]) if sent["orig_name"] else "the file")

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

    def taken(self, value) -> dict:
        place = check_fields(value, {"x": "0 to 1", "y": "0 to 1"})
        for axis, along in place.items():
            if not is_number(along) or not 0 <= along <= 1:
                raise user_error(f"{axis} is {short(along)}; it must lie between 0 and 1")
        return place

    def preprocess(self, payload: dict) -> tuple[float, float]:
        return float(payload["x"]), float(payload["y"])

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
