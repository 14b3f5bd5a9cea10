"""The tab that draws stripes."""

import gradio as gr
from kit.controls import result_image
from kit.jobs import buttons, job, one_job
from kit.models import Models
from kit.pictures import grid
from PIL import Image

MODELS = Models(("stripes-digits",), needs=(("sample", "log_prob"),), kind="image")


@one_job
def stripes_draw(model: str) -> Image.Image:
    """Draw sixteen images.

    Args:
        model: one of the page's models.

    Returns:
        The images in one grid.
    """
    return grid(MODELS[model](batch_size=16).images)


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("Draw"):
        go = buttons("Draw stripes", "draw-stripes")
        picture = result_image("Stripes", "stripes")
    job(go, stripes_draw, [model], [picture])
