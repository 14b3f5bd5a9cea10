"""The front page: a tree of all families by what they can say of a likelihood, and tables of what was measured."""

import html
import json

import gradio as gr
from gallery_records import HERE, Record, branch_place, page_of
from kit.pictures import data_url, open_picture
from PIL import Image

# The first question to ask of a generative model: what it can say about the probability of x.
LIMBS = {
    "exact": ("Exact likelihood", "They compute log p(x) itself."),
    "bound": ("A bound on the likelihood", "They compute a lower bound on log p(x)."),
    "implicit": ("Samples without a likelihood", "They draw new data, but do not compute log p(x)."),
    "none": ("No distribution of x", "They encode, group or classify data, and do not draw any."),
    "": ("Not measured yet", "There are no results of them."),
}
MOST_NAMES = 4  # of models on a card


def picture(record: Record) -> str:
    """What a model draws, as an <img>; nothing where that is no picture."""
    try:
        samples = open_picture(record.samples.read_bytes(), record.samples.name)
    except gr.Error:
        return ""
    # the upper left square, of a text less of it: the picture of a card is small
    side = max(1, min(samples.size) // (3 if record.is_text else 1))
    samples = samples.crop((0, 0, side, side))
    samples.thumbnail((192, 192), Image.Resampling.LANCZOS)
    return f'<img src="{data_url(samples)}" alt="samples of {html.escape(record.name)}">'


def card(records: list[Record], pages: dict) -> str:
    """A family: its title, a picture, its models, and a link to the page that shows them, where one can."""
    links = {record.name: page_of(record, pages) for record in records}
    # what a page prefers comes first
    order = {name: place for page in pages.values() for place, name in enumerate(page.MODELS.preferred)}
    records = sorted(records, key=lambda r: (links[r.name] is None, order.get(r.name, len(order)), r.name))
    shown = next((record for record in records if record.samples), None)
    names = [record.name for record in records]
    listed = ", ".join(f"<span>{html.escape(name)}</span>" for name in names[:MOST_NAMES])
    listed += f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    inside = f"{picture(shown) if shown else ''}<div><b>{html.escape(records[0].title)}</b><p>{listed}</p></div>"
    link = links[names[0]]
    return f'<a class="card" href="{link}">{inside}</a>' if link else f'<div class="card">{inside}</div>'


def tree(records: list[Record], pages: dict) -> str:
    """A limb for each kind of likelihood, with a card for each family whose models have it."""
    limbs = ""
    for likelihood, (title, sentence) in LIMBS.items():
        families: dict[tuple, list[Record]] = {}
        for record in records:
            if record.likelihood == likelihood:
                families.setdefault((branch_place(record.branch), record.title), []).append(record)
        cards = "".join(card(families[key], pages) for key in sorted(families))
        if cards:
            limbs += (
                f'<section class="limb"><h3>{title}</h3><p>{sentence}</p><div class="cards">{cards}</div></section>'
            )
    return f'<div class="tree"><div class="root">Can it say how probable something is?</div>{limbs}</div>'


def tables() -> str:
    """The tables that the build wrote to tables.json, the first of them open."""
    drawn = ""
    for number, table in enumerate(json.loads((HERE / "tables.json").read_text())):
        head = "".join(f"<th>{html.escape(name)}</th>" for name in table["columns"])
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in table["rows"]
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in table["notes"])
        count = f"{len(table['rows'])} model{'s' if len(table['rows']) != 1 else ''}"
        drawn += (
            f"<details{'' if number else ' open'}><summary><b>{html.escape(table['title'])}</b> {count}</summary>"
            f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{notes}</details>'
        )
    return drawn
