"""The gallery: the family tree of generative models, what is in the box, and a page for each Space.

The build step puts the other Spaces beside this file, `spaces/vae/app.py` as `vae.py`, lists them in `pages.json`, and
copies each checkpoint's record and pictures to `records/`.
"""

import html
import importlib
import json
from pathlib import Path

import gradio as gr
from kit import theme
from kit.models import Models
from kit.pictures import data_url
from kit.theme import launch

HERE = Path(__file__).parent
Models.records = HERE / "records"  # before the pages are imported: each takes the models that answer it
PAGES = {name: importlib.import_module(name) for name in json.loads((HERE / "pages.json").read_text())}

# The first question to ask of a generative model: what it can say about the probability of an image.
TREE = {
    "exact": (
        "Exact likelihood",
        "They compute log p(x) itself.",
        ("flows", "autoregressive", "language", "classical"),
    ),
    "bound": ("A bound on it", "They compute a number that log p(x) cannot be below.", ("autoencoders", "diffusion")),
    "implicit": ("No likelihood", "They only draw; a second network judges.", ("adversarial",)),
}
BRANCHES = {
    "classical": "Kernel density, mixtures, PCA, clustering",
    "autoencoders": "Autoencoders and variational autoencoders",
    "adversarial": "Generative adversarial networks",
    "flows": "Normalising flows",
    "diffusion": "Diffusion models",
    "autoregressive": "Autoregressive images",
    "language": "Language models",
}
WELCOME = """
# Genus
**Every family of generative model behind one interface.** Draw from each, look inside it, and take it home: every
model here loads with one line of `from_pretrained`.
"""


def is_language(folder: Path) -> bool:
    """Whether a record is that of a language model: it has a vocabulary."""
    return bool(json.loads((folder / "run.json").read_text())["model"].get("vocab_size"))


def picture(name: str) -> str:
    """Real samples of a model, as an <img>; nothing where there are none."""
    file = HERE / "records" / name / "samples.png"
    if not file.is_file():
        return ""
    from PIL import Image

    with Image.open(file) as samples:
        samples = samples.convert("RGB")
        # the upper left square, of a text less of it: the picture of a card is small
        side = min(samples.size) // (3 if is_language(HERE / "records" / name) else 1)
        samples = samples.crop((0, 0, side, side))
        samples.thumbnail((320, 320), Image.Resampling.LANCZOS)
        return f'<img src="{data_url(samples)}" alt="samples of {html.escape(name)}">'


def card(branch: str) -> str:
    """The Spaces of a branch, or a line that says that they are to come."""
    here = [(name, page) for name, page in PAGES.items() if branch == page.BRANCH]
    if not here:
        return f'<div class="card coming"><b>{BRANCHES[branch]}</b><p>To come.</p></div>'
    cards = ""
    for name, page in here:
        shown = next((m for m in page.MODELS.preferred if (HERE / "records" / m / "samples.png").is_file()), "")
        cards += (
            f'<a class="card" href="{name}">{picture(shown)}<div><b>{html.escape(page.TITLE)}</b>'
            f"<p>{html.escape(page.SENTENCE)}</p></div></a>"
        )
    return cards


def tree() -> str:
    """Three limbs by likelihood, a card for each branch."""
    limbs = ""
    for title, sentence, branches in TREE.values():
        # what can be tried comes before what is to come
        order = sorted(branches, key=lambda b: not any(b == page.BRANCH for page in PAGES.values()))
        limbs += f'<section class="limb"><h3>{title}</h3><p>{sentence}</p>{"".join(map(card, order))}</section>'
    return (
        '<div class="tree"><div class="root">Can it say how probable something is?</div>'
        f'<div class="limbs">{limbs}</div></div>'
    )


COLUMNS = (
    "model",
    "data",
    "parameters",
    "training",
    "nats",
    "bits/dim",
    "Fréchet distance",
    "class accuracy",
    "squared error",
)
LANGUAGE_COLUMNS = ("language model", "data", "parameters", "training", "nats a token", "perplexity", "bits/byte")


def cells(folder: Path, run: dict, results: dict) -> list[str]:
    """A row of the table of a model: what it is and what was measured of it."""
    first = [folder.name, run["dataset"]["id"], f"{run['parameters'] / 1e6:.2f} M", f"{run['seconds'] / 60:.1f} min"]

    def figure(key: str) -> str:
        return f"{results[key]:.2f}" if key in results else "–"

    if is_language(folder):
        return first + [figure(key) for key in ("nats_per_token", "perplexity", "bits_per_byte")]
    bound = "≤ " if results.get("likelihood") == "bound" else ""
    accuracy = results.get("accuracy", results.get("class_accuracy"))
    return [
        *first,
        f"{bound}{results['nats']:.2f}" if "nats" in results else "–",
        *(figure(key) for key in ("bits_per_dim", "frechet_distance")),
        "–" if accuracy is None else f"{accuracy:.1%}",
        f"{results['reconstruction_error']:.4f}" if "reconstruction_error" in results else "–",
    ]


def box() -> str:
    """A table with a row for each checkpoint, and one for the language models."""
    tables: dict[tuple, str] = {COLUMNS: "", LANGUAGE_COLUMNS: ""}
    for folder in sorted((HERE / "records").iterdir()):
        run = json.loads((folder / "run.json").read_text())
        file = folder / "results.json"
        row = cells(folder, run, json.loads(file.read_text()) if file.is_file() else {})
        columns = LANGUAGE_COLUMNS if is_language(folder) else COLUMNS
        tables[columns] += "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
    made = ""
    for columns, rows in tables.items():
        head = "".join(f"<th>{name}</th>" for name in columns)
        made += f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
    return f'<div class="table">{made}</div>'


with theme.page("Genus") as demo:
    gr.Markdown(WELCOME, elem_classes="lead")
    gr.HTML(tree(), elem_id="tree")
    gr.Markdown(
        "## In the box\nTrained weights that come with the project; likelihoods per image or token, of test data."
    )
    gr.HTML(box(), elem_id="box")

for name, page in PAGES.items():
    with demo.route(page.TITLE, f"/{name}"):
        page.demo.render()

if __name__ == "__main__":
    launch(demo)
