"""What the autoencoder Space shows: codes by class, cards to choose from, pictures side by side, sums of parts."""

import html

import gradio as gr
import numpy as np
from kit.inputs import Refused
from kit.pictures import data_url, upscale
from PIL import Image, ImageDraw, ImageFont

# of the classes: each has a contrast of at least 3 on the light and on the dark ground, and no two look alike
COLOURS = (
    "#dc2626", "#ea6a0a", "#a38000", "#3f9b0b", "#0d9488", "#1195d9", "#4f5ff0", "#a04be6", "#e0559f", "#7d8590",
)  # fmt: skip
ACCENT, RED, BLUE = (194, 65, 12), (239, 68, 68), (59, 130, 246)


# Codes in the plane


def scatter(
    places: np.ndarray, classes: np.ndarray | None, side: int, radius: float = 2.2, badges: bool = True
) -> Image.Image:
    """Points (N, 2) in [0, 1], from the upper left, on a picture to see through; a badge where a class is thickest."""
    scale = 2  # of the dots before they are made smooth
    colours = [COLOURS[c % len(COLOURS)] for c in classes] if classes is not None else ["#c2410c"] * len(places)
    picture = Image.new("RGBA", (side * scale, side * scale))
    draw, r = ImageDraw.Draw(picture), radius * scale
    # in an order of chance, or the last class would cover the others
    for i in np.random.default_rng(0).permutation(len(places)):
        x, y = places[i] * side * scale
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colours[i] + "e6")
    picture = picture.resize((side, side), Image.Resampling.BOX)
    if classes is not None and badges:
        _badges(picture, places, classes)
    return picture


def _badges(picture: Image.Image, places: np.ndarray, classes: np.ndarray) -> None:
    side, draw = picture.width, ImageDraw.Draw(picture)
    r = max(9, side // 44)
    font = ImageFont.load_default(size=1.5 * r)
    for c in np.unique(classes):
        own = places[classes == c]
        near = np.exp(-np.square(own[:, None] - own[None]).sum(2) / (2 * 0.03**2)).sum(1)
        x, y = np.clip(own[near.argmax()] * side, r + 2, side - r - 2)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=COLOURS[c % len(COLOURS)], outline="white", width=2)
        draw.text((x, y), str(c), fill="white", font=font, anchor="mm", stroke_width=0.4)


def few_colours(picture: Image.Image) -> Image.Image:
    """Few colours, for a picture that travels with each move of a marker."""
    return picture.quantize(96, method=Image.Quantize.FASTOCTREE)


def density_overlay(share: np.ndarray, side: int) -> Image.Image:
    """(H, W) in [0, 1] as orange to see through."""
    picture = np.zeros((*share.shape, 4), dtype=np.uint8)
    picture[..., :3], picture[..., 3] = (234, 88, 12), 235 * share
    return Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)


def red_and_blue(values: np.ndarray, side: int = 168) -> Image.Image:
    """(H, W) of both signs: red where positive, blue where negative, nothing to see where 0."""
    share = values / max(np.abs(values).max(), 1e-12)
    picture = np.zeros((*values.shape, 4), dtype=np.uint8)
    picture[..., :3] = np.where(share[..., None] > 0, RED, BLUE)
    picture[..., 3] = 255 * np.abs(share) ** 0.8
    return upscale(Image.fromarray(picture), side)


def legend() -> str:
    """The colours of the ten digits."""
    chips = "".join(f'<span><i style="background:{colour}"></i>{c}</span>' for c, colour in enumerate(COLOURS))
    return f'<div class="legend"><b>Digit</b>{chips}</div>'


LEGEND_CSS = """
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: center; font-size: var(--text-sm);
  color: var(--body-text-color); padding: 2px; }
.legend span { display: inline-flex; align-items: center; gap: 5px; font-variant-numeric: tabular-nums; }
.legend i { width: 13px; height: 13px; border-radius: 50%; }
"""


# Cards


CARDS = """
const list = element.querySelector(".cards");
function mark() {
  for (const button of list.children) button.setAttribute("aria-pressed", button.dataset.name === props.value?.chosen);
}
function show() {
  const cards = props.value?.cards || [];
  const had = [...list.children].indexOf(document.activeElement);
  list.replaceChildren(...cards.map((card) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.name = card.name;
    const image = document.createElement("img");
    image.alt = "";
    image.src = card.url;
    const title = document.createElement("b"), note = document.createElement("span");
    title.textContent = card.title;
    note.textContent = card.note;
    button.append(image, title, note);
    button.addEventListener("click", () => {
      props.value = { ...props.value, chosen: card.name };
      mark();
      trigger("input");
    });
    return button;
  }));
  mark();
  if (had >= 0) list.children[had]?.focus();
}
watch("value", show);
show();
"""
CARDS_CSS = """
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(var(--card), 50% - 6px), 1fr));
  gap: 12px; }
.cards button { display: flex; flex-direction: column; gap: 2px; margin: 0; padding: 8px 10px 10px; text-align: left;
  border: 2px solid var(--border-color-primary); border-radius: 14px; background: var(--block-background-fill);
  color: var(--body-text-color); cursor: pointer; font-size: var(--text-sm); line-height: 1.35; }
.cards button:hover { border-color: var(--body-text-color-subdued); }
.cards button[aria-pressed="true"] { border-color: var(--color-accent); box-shadow: 0 0 0 1px var(--color-accent); }
.cards button:focus-visible { outline: 3px solid var(--color-accent); outline-offset: 2px; }
.cards img { width: 100%; aspect-ratio: 1; object-fit: contain; }
.cards b { font-size: var(--text-md); }
.cards span { color: var(--body-text-color-subdued); font-weight: 400; }
"""


class Cards(gr.HTML):
    """Pictures with titles, of which one is chosen; hands its name to its handler.

    Args:
        width: of a card, at least, in pixels; in a narrow window there are two beside each other.
        pixels: whether small pictures are shown by whole pixels.
    """

    def __init__(self, label: str, width: int = 150, pixels: bool = False, **options):
        style = f"--card: {width}px" + ("; image-rendering: pixelated" if pixels else "")
        super().__init__(
            {"cards": [], "chosen": None},
            label=label,
            html_template=f'<div class="cards" role="group" aria-label="{label}" style="{style}"></div>',
            css_template=CARDS_CSS,
            js_on_load=CARDS,
            **options,
        )

    def taken(self, value) -> str | None:
        """The name, of a page's state or as a caller of the API gives it."""
        if isinstance(value, dict) and "chosen" in value and value["chosen"] is None:  # a page without any cards
            return None
        chosen = value.get("chosen") if isinstance(value, dict) else value
        if not isinstance(chosen, str):
            raise Refused("a name")
        return chosen

    def postprocess(self, value: dict | None) -> dict:
        return value or {"cards": [], "chosen": None}

    def api_info(self) -> dict:
        return {"type": "string"}

    def example_payload(self):
        return ""


def card(name: str, title: str, note: str, picture: Image.Image) -> dict:
    return {"name": name, "title": title, "note": note, "url": data_url(picture)}


# Pictures in a row


STRIP_CSS = """
.pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); gap: 14px; }
.pair { display: flex; flex-direction: column; padding: 12px 14px 14px;
  border: 1px solid var(--border-color-primary); border-radius: 14px;
  background: var(--block-background-fill); color: var(--body-text-color); }
.pair p { margin: 0 0 8px; color: var(--body-text-color-subdued); font-size: var(--text-sm); }
.pair b { font-size: var(--text-md); }
.pair .two { margin-top: auto; display: grid; grid-template-columns: 1fr 1fr; gap: 10px; }
.pair figure { margin: 0; }
.pair figcaption { font-size: var(--text-sm); margin-bottom: 4px; }
.pair img { width: 100%; image-rendering: pixelated; border-radius: 6px; display: block; }
.sum { display: flex; flex-wrap: wrap; gap: 10px 8px; align-items: center; color: var(--body-text-color); }
.sum figure { margin: 0; text-align: center; width: 76px; }
.sum .total { width: 104px; }
.sum img { width: 100%; image-rendering: pixelated; border-radius: 8px; display: block; background: black; }
.sum figcaption { font-size: var(--text-sm); margin-top: 3px; font-variant-numeric: tabular-nums; }
.sum .term { display: flex; gap: 8px; align-items: center; }
.sum span { font-size: 1.3em; color: var(--body-text-color-subdued); }
"""


def picture_tag(picture: Image.Image, alt: str) -> str:
    return f'<img src="{data_url(picture)}" alt="{html.escape(alt)}">'


def pair(title: str, note: str, left: tuple[str, Image.Image], right: tuple[str, Image.Image]) -> str:
    """Two pictures of one model, side by side."""
    two = "".join(
        f"<figure><figcaption>{html.escape(name)}</figcaption>{picture_tag(picture, f'{title}: {name}')}</figure>"
        for name, picture in (left, right)
    )
    return f'<div class="pair"><b>{html.escape(title)}</b><p>{html.escape(note)}</p><div class="two">{two}</div></div>'


def pairs(made: list[str]) -> str:
    return f'<div class="pairs">{"".join(made)}</div>'


def weighted_sum(terms: list[tuple[float, Image.Image]], others: int, total: Image.Image) -> str:
    """w1 part1 + w2 part2 + ... = a picture."""
    drawn = ""
    for weight, picture in terms:
        plus = "<span>+</span>" if drawn else ""
        tag = picture_tag(picture, "a part")
        drawn += f'<div class="term">{plus}<figure>{tag}<figcaption>{weight:.2f} ×</figcaption></figure></div>'
    rest = f"<span>+ {others} smaller</span>" if others else ""
    tag = picture_tag(total, "their sum")
    return (
        f'<div class="sum">{drawn}{rest}<div class="term"><span>=</span>'
        f'<figure class="total">{tag}<figcaption>the sum</figcaption></figure></div></div>'
    )
