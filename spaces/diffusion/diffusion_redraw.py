"""Redrawing: a drawing is noised part of the way, and the model brings it back."""

from collections.abc import Iterator

import gradio as gr
from diffusion_models import (
    FACTS,
    as_input,
    checked_guidance,
    guidance_control,
    image_model,
    progress_of,
    steps_control,
    update_class_and_guidance,
)
from kit.bounds import bounded, class_of, seed_of, whole
from kit.controls import class_control, result_image, seed_controls
from kit.digits import chosen_example, example_digits, examples_gallery
from kit.jobs import Pace, buttons, job, one_job, opening
from kit.lazy import LazyModule
from kit.pictures import Pad, grid
from PIL import Image

torch = LazyModule("torch")


@one_job(cost="heavy")
def diffusion_image_to_image(
    model: str,
    picture: Image.Image | None,
    strength: float,
    label: str,
    guidance_scale: float,
    num_inference_steps: int,
    count: int,
    seed: int,
    new_seed: bool,
) -> Iterator[tuple[Image.Image, Image.Image, str, int]]:
    """Noise a drawing part of the way and let the model bring it back.

    Args:
        model: one of the page's models.
        picture: an image file with one digit.
        strength: how far it is noised: 0.05 keeps nearly all of it, 1 nothing.
        label: "any" draws a class for each, or the class of what comes back ("0" to "9").
        guidance_scale: 0 to 10.
        num_inference_steps: for the whole way, 5 to 250.
        count: how many different ways, 1 to 16.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        x_t, the x_0 predicted from it, where the sampler is, and the seed; again for each step.
    """
    pipe = image_model(model)
    strength = float(bounded("strength", strength, 0.05, 1))
    steps, count = whole("num_inference_steps", num_inference_steps, 5, 250), whole("count", count, 1, 16)
    x, seed = as_input(pipe, picture), seed_of(seed, new_seed)
    wanted = class_of(label, FACTS[model].num_classes)
    stream = pipe.stream(
        batch_size=count,
        class_labels=wanted,
        num_inference_steps=steps,
        # without a class nothing says where to, so nothing is exaggerated: the unconditional model
        guidance_scale=checked_guidance(model, guidance_scale if wanted is not None else 0),
        image=x,
        strength=strength,
        generator=torch.Generator().manual_seed(seed),
    )
    pace = Pace(2)
    for step in stream:
        if pace.due(step):
            yield grid(step.images, width=420), grid(step.predicted_images, width=420), progress_of(step), seed


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    """The tab, on the page `demo`, of the `model` that is chosen there."""
    with gr.Tab("From a drawing") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            pad = Pad(example_digits()[4], label="Draw something", elem_id="pad-redraw")
            strength = gr.Slider(
                0.05, 1, 0.6, step=0.05, label="Strength", info="how much of the drawing is noised away"
            )
            label = class_control("class-redraw")
            guidance = guidance_control()
            steps = steps_control(40, 250, 5)
            ways = gr.Slider(1, 16, 9, step=1, label="Different ways")
            seed, new_seed = seed_controls("seed-redraw")
            redraw = buttons("Redraw", "redraw", stop=True)
            examples = examples_gallery("examples-redraw")
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                noised = result_image("x at this step", "noised", min_width=260)
                redrawn = result_image("the x₀ it sees in it", "redrawn", min_width=260)
            where = gr.Markdown()

    quiet = {"api_visibility": "private"}  # the API names each handler once
    redrawing = job(
        redraw,
        diffusion_image_to_image,
        [model, pad, strength, label, guidance, steps, ways, seed, new_seed],
        [noised, redrawn, where, seed],
    )
    examples.select(chosen_example, None, pad, **quiet)
    gr.on([model.change, demo.load], update_class_and_guidance, model, [label, guidance], **quiet)
    opening(tab).success(diffusion_image_to_image, *redrawing, **quiet)
