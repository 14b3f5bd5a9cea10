"""Images of a flow, drawn at a temperature."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import gradio as gr
from flows_models import OF_IMAGES, QUIET, flow_of_images, image_model, offer_classes_of
from kit.bounds import bounded, class_of, seed_of, whole
from kit.controls import class_control, count_control, result_image, seed_controls, temperature_control
from kit.jobs import buttons, job, one_job, opening
from kit.lazy import LazyModule
from kit.models import num_classes
from kit.pictures import grid
from PIL import Image

torch = LazyModule("torch")
MAX_COUNT = 64


@one_job(cost="heavy")
def flow_sample(
    model: str, label: str, count: int, temperature: float, seed: int, new_seed: bool
) -> tuple[Image.Image, int]:
    """Draw images from a flow: codes from N(0, T^2 I), and back through all layers.

    Args:
        model: a flow on images.
        label: "any", or the class of all images for a conditional model.
        count: how many, 1 to 64.
        temperature: the standard deviation T of the codes, 0 to 2.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        The images in one grid, and the seed that made them.
    """
    pipe = flow_of_images(model)
    count, temperature = whole("count", count, 1, MAX_COUNT), float(bounded("temperature", temperature, 0, 2))
    seed = seed_of(seed, new_seed)
    drawn = pipe(
        batch_size=count,
        class_labels=class_of(label, num_classes(pipe)),
        temperature=temperature,
        generator=torch.Generator().manual_seed(seed),
    )
    return grid(drawn.images), seed


def build(demo: gr.Blocks) -> None:
    with gr.Tab("Sample") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            model = image_model("sample-model", OF_IMAGES)
            label = class_control("class")
            count, temperature = count_control(MAX_COUNT, 25), temperature_control()
            seed, new_seed = seed_controls()
            draw = buttons("Draw samples", "draw")
            gr.Markdown(
                "A flow is trained at temperature 1. Strokes get smoother below it: 0.7 is what is often shown. At 0 there is one "
                "image, that of the code in the middle; a class has its own."
            )
        with gr.Column(scale=3, min_width=300):
            samples = result_image("Samples", "samples")
    drawn = job(draw, flow_sample, [model, label, count, temperature, seed, new_seed], [samples, seed])
    model.change(offer_classes_of, model, label, **QUIET).success(flow_sample, *drawn, **QUIET)
    if OF_IMAGES:
        opening(tab).success(offer_classes_of, model, label, **QUIET).success(flow_sample, *drawn, **QUIET)
