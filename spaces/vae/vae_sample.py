"""The tab that draws samples."""

from collections.abc import Iterator

import gradio as gr
from kit.bounds import bounded, class_of, one_of, seed_of, whole
from kit.controls import class_control, count_control, result_image, seed_controls, temperature_control
from kit.jobs import buttons, job, one_job
from kit.lazy import LazyModule
from kit.models import num_classes
from kit.pictures import grid
from PIL import Image
from vae_common import MODELS, QUIET, offer_classes_of

torch = LazyModule("torch")
MAX_COUNT = 64


@one_job
def vae_sample(
    model: str, label: str, count: int, temperature: float, output: str, seed: int, new_seed: bool
) -> Iterator[tuple[Image.Image, int]]:
    """Draw images from a variational autoencoder.

    Args:
        model: one of the page's models.
        label: "any", or the class of all images ("0" to "9") for a conditional model.
        count: how many, 1 to 64.
        temperature: the standard deviation of z, 0 to 2.
        output: "mean" shows the expected image, "sample" draws each pixel.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        The images in one grid, and the seed that made them.
    """
    pipe = MODELS[model]
    count = whole("count", count, 1, MAX_COUNT)
    temperature = bounded("temperature", temperature, 0, 2)
    seed = seed_of(seed, new_seed)
    steps = pipe.stream(
        batch_size=count,
        class_labels=class_of(label, num_classes(pipe)),
        temperature=float(temperature),
        decoder_output=one_of("output", output, ("mean", "sample")),
        generator=torch.Generator().manual_seed(seed),
    )
    for step in steps:
        yield grid(step.images), seed


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("Sample"), gr.Row():
        with gr.Column(scale=2, min_width=300):
            label = class_control("class")
            count, temperature = count_control(MAX_COUNT), temperature_control()
            output = gr.Radio(
                ["mean", "sample"], value="mean", label="Decoder output", info="mean: gray; sample: each pixel drawn"
            )
            seed, new_seed = seed_controls()
            draw = buttons("Draw samples", "draw", stop=True)
        with gr.Column(scale=3, min_width=300):
            samples = result_image("Samples", "samples")
    drawn = job(draw, vae_sample, [model, label, count, temperature, output, seed, new_seed], [samples, seed])
    model.change(offer_classes_of, model, label, **QUIET).success(vae_sample, *drawn, **QUIET)
    if MODELS.first:  # the page is not empty before the first click
        demo.load(offer_classes_of, model, label, **QUIET).success(vae_sample, *drawn, **QUIET)
