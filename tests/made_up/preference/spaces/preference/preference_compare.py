"""The tab that compares two texts."""

import gradio as gr
from kit.jobs import buttons, job, one_job
from kit.models import Models

MODELS = Models(("preference-counts",), needs=(("reward",),), library="transformers")


@one_job
def preference_compare(model: str, first: str, second: str) -> str:
    """Say which of two texts has the higher reward.

    Args:
        model: one of the page's models.
        first, second: the texts.

    Returns:
        One sentence.
    """
    better, worse = MODELS[model].reward([first, second]).tolist()
    return f"The {'first' if better > worse else 'second'} is better."


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("Compare"):
        first, second = gr.Textbox("one two", label="First"), gr.Textbox("one", label="Second")
        go = buttons("Compare", "compare")
        answer = gr.Markdown()
    job(go, preference_compare, [model, first, second], [answer])
