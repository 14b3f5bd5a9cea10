"""Noising a digit, in one step and in small ones, and what the network sees in it."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import gradio as gr
from diffusion_models import as_input, image_model
from kit.bounds import seed_of, whole
from kit.controls import result_image, seed_number
from kit.digits import chosen_example, example_digits, examples_gallery
from kit.jobs import buttons, job, one_job, opening
from kit.lazy import LazyModule
from kit.pictures import Pad, upscale
from kit.theme import MATH
from PIL import Image

torch = LazyModule("torch")


@one_job
def diffusion_noise(
    model: str, picture: Image.Image | None, timestep: int, seed: int
) -> tuple[Image.Image, Image.Image, Image.Image, str]:
    """Noise a picture of a digit up to a timestep, in one step and in small ones.

    Args:
        model: one of the page's models.
        picture: an image file with one digit.
        timestep: 0 to 999.
        seed: of the noise, 0 to 2147483647.

    Returns:
        x_t by the closed form, x_t by small steps, what the network takes for x_0 in the first, and what x_t is.
    """
    pipe = image_model(model)
    timestep = whole("timestep", timestep, 0, pipe.num_timesteps - 1)
    seed = seed_of(seed, False)
    x = as_input(pipe, picture)
    at_once, bit_by_bit = (
        pipe.noise(x, timestep, torch.Generator().manual_seed(seed), step_by_step=small) for small in (False, True)
    )
    guess, _ = pipe.predict(at_once, timestep)
    low, high = pipe.data_spec["range"]

    def shown(x: torch.Tensor) -> Image.Image:
        picture = pipe.image_processor.postprocess(((x - low) / (high - low)).clamp(0, 1))[0]
        return upscale(picture, 280)

    abar = float(pipe.abar[timestep])
    text = (
        f"$x_t = {abar**0.5:.3f}\\,x_0 + {(1 - abar) ** 0.5:.3f}\\,\\epsilon$: for one part of noise there are "
        f"**{abar / max(1 - abar, 1e-12):.3g}** of signal (in variance)."
    )
    return shown(at_once), shown(bit_by_bit), shown(guess), text


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    """The tab, on the page `demo`, of the `model` that is chosen there."""
    with gr.Tab("Noise") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            pad = Pad(example_digits()[5], label="Draw a digit", elem_id="pad")
            timestep = gr.Slider(0, 999, 300, step=1, label="Timestep t", elem_id="timestep")
            seed = seed_number(0, "Seed of the noise")
            noise_it = buttons("Add noise", "noise")
            examples = examples_gallery("examples")
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                at_once = result_image("In one step", "at-once", min_width=140)
                bit_by_bit = result_image("In t + 1 small steps", "bit-by-bit", min_width=140)
                guess = result_image("The x₀ seen in it", "guess", min_width=140)
            about_noise = gr.Markdown(latex_delimiters=MATH, elem_id="about-noise")
            gr.Markdown(
                "The noise differs, its distribution does not. Late in the noising, all that the network can see is "
                "what digits have in common: it answers with their mean."
            )

    quiet = {"api_visibility": "private"}  # the API names each handler once
    live = {"trigger_mode": "always_last", "show_progress": "hidden", **quiet}
    noising = job(noise_it, diffusion_noise, [model, pad, timestep, seed], [at_once, bit_by_bit, guess, about_noise])
    timestep.input(diffusion_noise, *noising, **live)
    pad.input(diffusion_noise, *noising, **live)
    examples.select(chosen_example, None, pad, **quiet).success(diffusion_noise, *noising, **quiet)
    opening(tab).success(diffusion_noise, *noising, **quiet)
