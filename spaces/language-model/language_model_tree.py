"""The tab with the tree of continuations."""

import gradio as gr
import language_model_views
from kit.bounds import whole
from kit.errors import user_error
from kit.jobs import buttons, job, opening
from language_model_common import LATEST, MODELS, QUIET, openings_of, refusals_shown, text_of

MOST_LEAVES = 64


def lm_tree(model: str, prompt: str, depth: int, width: int) -> str:
    """The likeliest continuations as a tree, probabilities multiplied along its branches.

    Args:
        model: one of the page's models.
        prompt: a text to go on with.
        depth: tokens, 1 to 6.
        width: branches at each token, 1 to 6, so that there are at most 64 leaves.

    Returns:
        A figure (SVG).
    """
    pipe, depth, width = MODELS[model], whole("depth", depth, 1, 6), whole("width", width, 1, 6)
    if width**depth > MOST_LEAVES:
        raise user_error(
            f"{width} branches at each of {depth} tokens make {width**depth:,} leaves; at most {MOST_LEAVES} fit"
        )
    prompt = text_of("prompt", prompt)
    with refusals_shown():
        return language_model_views.tree(prompt, pipe.tree(prompt, depth, width))


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("Tree") as tab:
        with gr.Row():
            root = gr.Textbox(
                openings_of(MODELS.first)[-1], lines=2, label="Text", elem_id="root", scale=3, min_width=260
            )
            depth = gr.Slider(1, 6, 3, step=1, label="Tokens deep", min_width=130)
            width = gr.Slider(1, 6, 3, step=1, label="Branches at each", min_width=130)
        grow = buttons("Grow", "grow")
        branches = gr.HTML(elem_id="tree-of-tokens", min_height=300)
        gr.Markdown(
            "A line is as thick as its path is probable; at its end stands the product of the probabilities along it."
        )
    growing = job(grow, lm_tree, [model, root, depth, width], [branches])
    for control in (depth, width):
        control.input(lm_tree, *growing, **LATEST)
    model.change(lambda name: openings_of(name)[-1], model, root, **QUIET)
    opening(tab).success(lm_tree, *growing, **QUIET)  # not empty when it is opened
