"""The tab that draws samples, and says what the discriminator makes of them."""

from collections.abc import Iterator

import gradio as gr
from adversarial_common import MODELS, QUIET, is_critic, offer_classes_of, verdicts
from kit.bounds import bounded, class_of, seed_of, whole
from kit.charts import signed
from kit.controls import class_control, count_control, result_image, seed_controls, temperature_control
from kit.jobs import buttons, job, one_job
from kit.lazy import LazyModule
from kit.models import num_classes
from kit.pictures import grid
from PIL import Image

torch = LazyModule("torch")
MAX_COUNT = 64


@one_job
def gan_sample(
    model: str, label: str, count: int, temperature: float, seed: int, new_seed: bool
) -> Iterator[tuple[Image.Image, str, int]]:
    """Draw images from a generative adversarial network.

    Args:
        model: one of the page's models.
        label: "any", or the class of all images ("0" to "9") for a conditional model.
        count: how many, 1 to 64.
        temperature: the standard deviation of z, 0 to 2.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        The images in one grid, what the discriminator says of them, and the seed that made them.
    """
    pipe = MODELS[model]
    count = whole("count", count, 1, MAX_COUNT)
    temperature = float(bounded("temperature", temperature, 0, 2))
    seed = seed_of(seed, new_seed)
    steps = pipe.stream(
        batch_size=count,
        class_labels=class_of(label, num_classes(pipe)),
        temperature=temperature,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    )
    for step in steps:
        said = verdicts(pipe, step.images, step.class_labels)
        if is_critic(pipe):
            mean = signed(said.mean().item(), 2)
            text = f"Its critic gives these {mean} on average; only differences mean anything."
        else:
            text = (
                f"Its discriminator takes these for real with **{said.mean():.0f}%** on average; the most convincing "
                f"one with {said.max():.0f}%, the least with {said.min():.0f}%."
            )
        yield grid(pipe.image_processor.postprocess(step.images)), text, seed


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("Sample"), gr.Row():
        with gr.Column(scale=2, min_width=300):
            label = class_control("class")
            count, temperature = count_control(MAX_COUNT), temperature_control()
            seed, new_seed = seed_controls()
            draw = buttons("Draw samples", "draw")
            said = gr.Markdown(elem_id="said")
        with gr.Column(scale=3, min_width=300):
            samples = result_image("Samples", "samples")
    drawn = job(draw, gan_sample, [model, label, count, temperature, seed, new_seed], [samples, said, seed])
    model.change(offer_classes_of, model, label, **QUIET).success(gan_sample, *drawn, **QUIET)
    if MODELS.first:  # the page is not empty before the first click
        demo.load(offer_classes_of, model, label, **QUIET).success(gan_sample, *drawn, **QUIET)
