"""The gallery: a tree of all families of generative models, what was measured of them, and a page for each Space.

The build step puts the other Spaces beside this file, `spaces/vae/app.py` as `vae.py`, lists them in `pages.json`,
copies each checkpoint's record and pictures to `records/`, and writes the tables of figures to `tables.json`.
"""

import importlib
import json

import gallery_front
import gallery_navigation
import gradio as gr
from gallery_records import HERE, RECORDS, read_records
from kit.models import Models
from kit.theme import launch, page

Models.records = RECORDS  # before the pages are imported: each takes the models that answer it
PAGES = {name: importlib.import_module(name) for name in json.loads((HERE / "pages.json").read_text())}

WELCOME = """
# Genus
**Every family of generative model behind one interface.** Draw from each, look inside it, and take it home: every
model here loads with one line of `from_pretrained`.
"""


def models() -> list[dict]:
    """All models of the gallery.

    Returns:
        Of each its name, its family's title and branch, and whether it has log p(x): "exact", "bound", "implicit" or "none".
    """
    names = ("name", "title", "branch", "likelihood")
    return [{name: getattr(record, name) for name in names} for record in read_records()]


with page("Genus") as demo:
    gr.api(models, api_name="models")
    gallery_navigation.put_bar(PAGES, None)
    gr.Markdown(WELCOME, elem_classes="lead")
    gr.HTML(gallery_front.tree(read_records(), PAGES), elem_id="tree")
    gr.Markdown(
        "## Models\nTrained weights that come with the project; likelihoods are per image or token, of test data."
    )
    gr.HTML(gallery_front.tables(), elem_id="tables")

for name in gallery_navigation.in_order(PAGES):
    with demo.route(PAGES[name].TITLE, f"/{name}", show_in_navbar=False):
        gallery_navigation.put_bar(PAGES, name)
        PAGES[name].demo.render()
        gallery_navigation.put_foot(PAGES, name)

if __name__ == "__main__":
    launch(demo)
