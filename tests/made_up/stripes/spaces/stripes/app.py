"""The Space of the made-up stripes: one tab that draws."""

import gradio as gr
import stripes_draw
from kit.theme import launch, page
from stripes_draw import MODELS

TITLE = "Made-up stripes"
SENTENCE = "One probability a column, and nothing else."
BRANCH = "guessing"

with page("Genus: made-up stripes") as demo:
    gr.Markdown(f"# {TITLE}\n{SENTENCE}", elem_classes="lead")
    model = MODELS.control()
    stripes_draw.build(demo, model)

if __name__ == "__main__":
    launch(demo)
