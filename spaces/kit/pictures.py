"""Pictures: reading and laying them out, and two components of our own, a pad and a map."""

import base64
import binascii
import io
import math
from pathlib import Path

import gradio as gr
import pydantic
from gradio.data_classes import ImageData
from PIL import Image, ImageOps

from kit.bounds import bounded
from kit.errors import user_error

HERE = Path(__file__).parent
MAX_PIXELS = 25_000_000


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
