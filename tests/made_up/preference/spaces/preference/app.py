"""The Space of the made-up preferences: two texts, and which is better."""

import gradio as gr
import preference_compare
from kit.theme import launch, page
from preference_compare import MODELS

TITLE = "Made-up preferences"
SENTENCE = "Which of two texts is better?"
BRANCH = "ranking"

with page("Genus: made-up preferences") as demo:
    gr.Markdown(f"# {TITLE}\n{SENTENCE}", elem_classes="lead")
    model = MODELS.control()
    preference_compare.build(demo, model)

if __name__ == "__main__":
    launch(demo)
