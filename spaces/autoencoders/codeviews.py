"""What the autoencoder Space shows: codes by class, cards to choose from, sums of parts, a table of ratings to edit."""

import html
import json
import math

import gradio as gr
import numpy as np
from kit.errors import user_error
from kit.pictures import data_url, upscale
from PIL import Image, ImageDraw, ImageFont

# of the classes: each has a contrast of at least 3 on the light and on the dark ground, and no two look alike
COLOURS = (
    "#dc2626", "#ea6a0a", "#a38000", "#3f9b0b", "#0d9488", "#1195d9", "#4f5ff0", "#a04be6", "#e0559f", "#7d8590",
)  # fmt: skip
ACCENT, RED, BLUE = (194, 65, 12), (239, 68, 68), (59, 130, 246)
MOST_STARS = 5.0  # of a rating
MOST_PEOPLE = MOST_DISHES = 20


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


def small(picture: Image.Image) -> Image.Image:
    """Few colours, for a picture that travels with each move of a marker."""
    return picture.quantize(96, method=Image.Quantize.FASTOCTREE)


def haze(share: np.ndarray, side: int) -> Image.Image:
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

    def preprocess(self, payload: dict | str | None) -> str | None:
        """The name, of a page's state or as a caller of the API gives it."""
        chosen = payload.get("chosen") if isinstance(payload, dict) else payload
        return chosen if isinstance(chosen, str) else None

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


# Ratings


RATINGS = """
const place = element.querySelector(".ratings");
let drawn = "";
function show() {
  const { people = [], dishes = [], ratings = [] } = props.value || {};
  const now = JSON.stringify(props.value);
  if (now === drawn) return;  // what was typed here: the reader's place stays
  drawn = now;
  const table = document.createElement("table"), head = table.createTHead().insertRow();
  for (const name of ["", ...dishes]) {
    const th = document.createElement("th");
    th.scope = "col";
    th.textContent = name;
    head.append(th);
  }
  const body = table.createTBody();
  people.forEach((person, i) => {
    const row = body.insertRow(), name = document.createElement("th");
    name.scope = "row";
    name.textContent = person;
    row.append(name);
    dishes.forEach((dish, j) => {
      const input = document.createElement("input");
      input.inputMode = "decimal";
      input.autocomplete = "off";
      input.setAttribute("aria-label", `${person}: ${dish}`);
      input.value = ratings[i][j] ?? "";
      input.addEventListener("focus", () => input.select());
      input.addEventListener("change", () => {
        const text = input.value.trim().replace(",", ".");
        const next = ratings.map((line) => [...line]);
        next[i][j] = text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
        ratings[i][j] = next[i][j];
        drawn = JSON.stringify({ ...props.value, ratings: next });
        props.value = { ...props.value, ratings: next };
        trigger("input");
      });
      row.insertCell().append(input);
    });
  });
  place.replaceChildren(table);
}
watch("value", show);
show();
"""
TABLE_CSS = """
.ratings { overflow-x: auto; border: 1px solid var(--border-color-primary); border-radius: 14px; padding: 6px;
  background: var(--block-background-fill); color: var(--body-text-color); }
.ratings table { border: 0 !important; border-collapse: separate; border-spacing: 3px;
  width: 100%; font-size: var(--text-sm); margin: 0; }
.ratings :is(th, td) { border: 0 !important; padding: 0; background: none; }
.ratings thead th { font-weight: 600; vertical-align: bottom; text-align: center; padding: 4px 2px; min-width: 58px;
  line-height: 1.2; }
.ratings tbody th { position: sticky; left: 0; font-weight: 600; text-align: left; padding: 0 10px 0 6px;
  white-space: nowrap; background: var(--block-background-fill); }
.ratings input { width: 100%; min-width: 52px; height: 34px; padding: 0; text-align: center; border-radius: 8px;
  border: 1px solid var(--border-color-primary); background: var(--background-fill-secondary);
  color: var(--body-text-color);
  font-variant-numeric: tabular-nums; }
.ratings input:placeholder-shown { border-style: dashed; }
.ratings input:focus { outline: 2px solid var(--color-accent); outline-offset: 0; }
.ratings.shown thead th { min-width: 44px; }
.ratings td.cell { height: 34px; text-align: center; border-radius: 8px; font-variant-numeric: tabular-nums; }
.ratings td.known { color: var(--body-text-color-subdued); }
.ratings td.filled { font-weight: 700; box-shadow: inset 0 0 0 2px #ea580c;
  background: color-mix(in srgb, #f97316 calc(var(--share) * 55%), transparent); }
.ratings td.liking { background: color-mix(in srgb, #f97316 calc(var(--share) * 65%), transparent); }
.ratings tr.chosen th { color: var(--color-accent); }
"""

EXAMPLE = {  # made up: three like what is sweet, three what is hot, two the sea, and one both of the first
    "people": ["Mira", "Tobin", "Ilse", "Oskar", "Wen", "Farah", "Jonas", "Lupe", "Edda"],
    "dishes": [
        "Cloud cake", "Honey stones", "Snow pudding", "Fire noodles", "Ember curry", "Dragon toast", "Kelp rolls",
        "Moss soup", "Salt plums",
    ],
    "ratings": [
        [5, 4, None, 1, None, 1, 2, None, 1],
        [None, 5, 5, None, 1, 1, None, 2, 1],
        [4, None, 5, 2, 1, None, 1, 1, None],
        [1, None, 1, 5, 5, None, None, 1, 2],
        [None, 1, 2, 4, None, 5, 1, None, 1],
        [1, 1, None, None, 4, 5, 2, 1, None],
        [None, 1, 1, 2, None, 1, 5, 4, None],
        [2, None, 1, None, 1, 2, None, 5, 4],
        [5, 5, None, None, 4, 5, None, 1, 2],
    ],
}  # fmt: skip
Table = tuple[list[str], list[str], np.ndarray]  # people, dishes, ratings (N, D) with NaN where there is none


def rating(value, person: str, dish: str) -> float:
    """One cell: a number from 0 to 5, or NaN where it is empty."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_STARS:
        raise user_error(f"{person}'s rating of {dish} is {value!r}; it must be a number from 0 to 5, or empty")
    return float(value)


def names(kind: str, value, most: int) -> list[str]:
    if not isinstance(value, list) or not 2 <= len(value) <= most or not all(isinstance(v, str) for v in value):
        raise user_error(f"{kind} must be a list of 2 to {most} names")
    if any(len(v) > 40 for v in value) or len(set(value)) < len(value):
        raise user_error(f"{kind} must be different names of at most 40 letters")
    return value


class Ratings(gr.HTML):
    """A table of ratings to edit, empty cells where there are none; hands a `Table` to its handler."""

    def __init__(self, value: dict, label: str, **options):
        super().__init__(
            value,
            label=label,
            html_template=f'<div class="ratings" role="group" aria-label="{label}"></div>',
            css_template=TABLE_CSS,
            js_on_load=RATINGS,
            **options,
        )

    def preprocess(self, payload: dict | None) -> Table:
        table = payload if isinstance(payload, dict) else {}
        people, dishes = (
            names(kind, table.get(kind), most) for kind, most in (("people", MOST_PEOPLE), ("dishes", MOST_DISHES))
        )
        rows = table.get("ratings")
        if not isinstance(rows, list) or len(rows) != len(people):
            raise user_error(f"ratings must be a list with a row for each of {len(people)} people")
        for person, row in zip(people, rows, strict=True):
            if not isinstance(row, list) or len(row) != len(dishes):
                raise user_error(f"{person}'s row must hold {len(dishes)} ratings, null where there is none")
        return (
            people,
            dishes,
            np.array(
                [[rating(v, p, d) for v, d in zip(r, dishes, strict=True)] for r, p in zip(rows, people, strict=True)]
            ),
        )

    def postprocess(self, value: dict) -> dict:
        return value

    def api_info(self) -> dict:
        words = {"type": "array", "items": {"type": "string"}}
        cells = {
            "type": "array",
            "items": {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "null"}]}},
        }
        fields = {"people": words, "dishes": words, "ratings": cells}
        return {"type": "object", "properties": fields, "required": list(fields)}

    def example_payload(self):
        return json.loads(json.dumps(self.value))


def _table(columns: list[str], rows: list[tuple[str, str]], chosen: str | None = None) -> str:
    """Rows of (name, cells)."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ["", *columns])
    body = "".join(
        f'<tr{" class=chosen" if name == chosen else ""}><th scope="row">{html.escape(name)}</th>{cells}</tr>'
        for name, cells in rows
    )
    return f'<div class="ratings shown"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def completed_table(people: list[str], dishes: list[str], known: np.ndarray, filled: np.ndarray, chosen: str) -> str:
    """Known ratings as they are, the others as expected and marked."""
    rows = []
    for i, person in enumerate(people):
        cells = ""
        for value, expected in zip(known[i], filled[i], strict=True):
            if math.isnan(value):
                share = min(max(expected / MOST_STARS, 0), 1)
                cells += f'<td class="cell filled" style="--share:{share:.2f}">{expected:.1f}</td>'
            else:
                cells += f'<td class="cell known">{value:g}</td>'
        rows.append((person, cells))
    return _table(dishes, rows, chosen)


def liking_table(row_names: list[str], columns: list[str], values: np.ndarray) -> str:
    """Degrees of liking (N, D), darker for more."""
    most = max(values.max(), 1e-12)
    rows = [
        (name, "".join(f'<td class="cell liking" style="--share:{v / most:.2f}">{v:.1f}</td>' for v in row))
        for name, row in zip(row_names, values, strict=True)
    ]
    return _table(columns, rows)
