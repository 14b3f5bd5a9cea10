"""Denoising: a corrupted digit through the codes of a denoising autoencoder and of another."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import gradio as gr
from autoencoders_models import (
    FACTS,
    OBJECTIVES,
    as_picture,
    autoencoder,
    autoencoders,
    first_of,
    objective_of,
    of_objective,
    of_shape,
    say_missing,
)
from kit.bounds import bounded, one_of, seed_of
from kit.charts import curves
from kit.controls import result_image, seed_number
from kit.digits import chosen_example, digit_tensor, example_digits, examples_gallery
from kit.jobs import buttons, job, one_job, opening
from kit.lazy import LazyModule
from kit.pictures import Pad
from PIL import Image

torch = LazyModule("torch")

OFFERED = autoencoders("denoise")
TRAINED_TO = next(iter(of_objective(OFFERED, "denoising")), None)  # the model on the left
SHAPE = FACTS[TRAINED_TO or OFFERED[0]].data_spec["shape"] if OFFERED else None  # of the images of both
OTHERS = [name for name in of_shape(OFFERED, SHAPE) if objective_of(name) != "denoising"]
OTHER = next(iter(of_objective(OTHERS, "plain") + OTHERS), None)  # on the right: plain, or whatever else there is
TITLES = ("Denoising", OBJECTIVES[objective_of(OTHER) if OTHER else "plain"].title)
CORRUPTIONS = {"Gaussian noise": 1.0, "pixels set to 0": 0.95}  # and the most of each
NOISE_DRAWS = 8  # of each level in the curve


def corrupt(x: torch.Tensor, kind: str, level: float, generator: torch.Generator) -> torch.Tensor:
    """x with noise of standard deviation `level`, which may leave [0, 1], or with that share of its pixels at 0."""
    if kind == "Gaussian noise":
        return x + level * torch.randn(x.shape, generator=generator)
    return x * (torch.rand(x.shape, generator=generator) >= level)


@one_job
def autoencoder_denoise(
    picture: Image.Image | None, corruption: str, level: float, seed: int
) -> tuple[Image.Image, Image.Image, Image.Image | None, Image.Image | None, str, str]:
    """Corrupt a digit, and send it through the codes of a denoising and of another autoencoder, a plain one if there is one.

    Args:
        picture: an image file with one digit.
        corruption: "Gaussian noise" or "pixels set to 0".
        level: the standard deviation of the noise, 0 to 1, or the share of pixels, 0 to 0.95.
        seed: of the noise, 0 to 2147483647.

    Returns:
        The original, the corrupted, what either model brings back (empty where it is missing), the errors, and a figure
        (SVG) of the errors at all levels.
    """
    one_of("corruption", corruption, CORRUPTIONS)
    most = CORRUPTIONS[corruption]
    level, seed = float(bounded("level", level, 0, most)), seed_of(seed, False)
    first_of(OFFERED, "dae-mnist")
    models = {OBJECTIVES[objective_of(name)].title: autoencoder(name) for name in (TRAINED_TO, OTHER) if name}
    x = digit_tensor(next(iter(models.values())), picture)
    noisy = corrupt(x, corruption, level, torch.Generator().manual_seed(seed))
    levels = [most * i / 10 for i in range(11)]
    generator = torch.Generator().manual_seed(0)
    many = torch.cat([corrupt(x.expand(NOISE_DRAWS, -1, -1, -1), corruption, v, generator) for v in levels])
    images, errors, lines = {}, {}, {}
    for title, pipe in models.items():
        images[title] = pipe.denoise(noisy, output_type="pt").images
        errors[title] = float((images[title] - x).square().mean())
        each = (
            (pipe.denoise(many, output_type="pt").images - x).square().flatten(1).mean(1).view(len(levels), -1).mean(1)
        )
        lines[title] = list(zip(levels, each.tolist(), strict=True))
    pipe = next(iter(models.values()))
    told = {"corrupted": float((noisy.clamp(0, 1) - x).square().mean()), **errors}
    head, values = " | ".join(told).lower(), " | ".join(f"**{v:.4f}**" for v in told.values())
    text = f"| mean squared error | {head} |\n|---|{'---|' * len(told)}\n| of this digit | {values} |"
    axis = "standard deviation of the noise" if corruption == "Gaussian noise" else "share of pixels set to 0"
    figure = curves(lines, axis, "error")
    brought = [as_picture(pipe, images[t]) if t in images else None for t in TITLES]
    return as_picture(pipe, x), as_picture(pipe, noisy), *brought, text, figure


def level_slider(corruption: str):
    most = CORRUPTIONS[one_of("corruption", corruption, CORRUPTIONS)]
    return gr.Slider(0, most, 0.5, step=0.05)


def build(demo: gr.Blocks) -> None:
    """The tab, on the page `demo`."""
    with gr.Tab("Denoise") as tab:
        gr.Markdown(
            "**A code of few numbers has no room for noise**, least of all where the encoder was trained on corrupted "
            "digits and had to bring back the clean ones. It knows best the noise that it was trained with: try the "
            "other kind, too."
        )
        say_missing(OFFERED, ("denoising", "plain"))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                pad = Pad(example_digits()[5], label="Draw a digit", elem_id="pad")
                corruption = gr.Radio(list(CORRUPTIONS), value="Gaussian noise", label="Corruption")
                level = gr.Slider(
                    0, 1, 0.5, step=0.05, label="Level", info="standard deviation, or share of the pixels"
                )
                seed = seed_number(0, "Seed")
                denoise = buttons("Corrupt and denoise", "denoise")
                examples = examples_gallery("examples")
            with gr.Column(scale=3, min_width=300):
                with gr.Row():
                    original = result_image("Original", "original", min_width=140)
                    noisy = result_image("Corrupted", "noisy", min_width=140)
                with gr.Row():
                    denoised = result_image(TITLES[0], "denoised", min_width=140)
                    plain = result_image(TITLES[1], "plain", min_width=140)
                errors = gr.Markdown(elem_id="errors")
                error_curve = gr.HTML(elem_id="error-curve", min_height=240)

    quiet = {"api_visibility": "private"}  # the API names each handler once
    live = {"trigger_mode": "always_last", "show_progress": "hidden", **quiet}
    cleaned = job(
        denoise,
        autoencoder_denoise,
        [pad, corruption, level, seed],
        [original, noisy, denoised, plain, errors, error_curve],
    )
    pad.input(autoencoder_denoise, *cleaned, **live)
    level.release(autoencoder_denoise, *cleaned, **live)
    corruption.change(level_slider, corruption, level, **quiet).success(autoencoder_denoise, *cleaned, **live)
    examples.select(chosen_example, None, pad, **quiet).success(autoencoder_denoise, *cleaned, **quiet)
    if OFFERED:
        opening(tab).success(autoencoder_denoise, *cleaned, **quiet)
