"""A digit to its code and back, without loss; and the same digit with one resolution drawn anew."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import math

import gradio as gr
import numpy as np
from flows_models import OF_DIGITS, QUIET, flow_of_images, image_model
from kit.bounds import ANY, bounded, seed_of, whole
from kit.classes import labels_for
from kit.controls import result_image, seed_controls, temperature_control
from kit.digits import chosen_example, digit_tensor, example_digits, examples_gallery
from kit.jobs import buttons, job, one_job, opening
from kit.lazy import LazyModule
from kit.pictures import Pad, grid, upscale
from PIL import Image

torch = LazyModule("torch")
MOST_REDRAWN = 16


def picture_of(x: torch.Tensor) -> Image.Image:
    """(1, H, W) in [0, 1] -> a picture."""
    return Image.fromarray((255 * x[0].numpy()).round().astype(np.uint8))


def codes_pictures(pipe, z: torch.Tensor) -> list[Image.Image]:
    """The codes of each resolution, channel by channel: gray is 0, black and white are -3 and 3."""
    found = []
    shapes = pipe.flow.code_shapes
    for part, (channels, height, width) in zip(z[0].split([math.prod(s) for s in shapes]), shapes, strict=True):
        levels = (127.5 + 42.5 * part.view(channels, height, width)).clamp(0, 255).to(torch.uint8)
        found.append(grid([Image.fromarray(level.numpy()) for level in levels], columns=min(channels, 8), width=420))
    return found


def stacked(pictures: list[Image.Image], gap: int = 10) -> Image.Image:
    """Pictures above one another, on gray."""
    sheet = Image.new(
        "RGB", (max(p.width for p in pictures), sum(p.height + gap for p in pictures) - gap), (120, 128, 140)
    )
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height + gap
    return sheet


@one_job(cost="heavy")
def flow_code(model: str, picture: Image.Image | None) -> tuple[Image.Image, Image.Image, Image.Image, str]:
    """Take a digit to its code and back.

    Args:
        model: a flow on images.
        picture: an image file with one digit.

    Returns:
        The digit as the model sees it, its code, each resolution's channels, the digit decoded from it, and how far the
        two are from each other, with the lower bound on log p(x).
    """
    pipe = flow_of_images(model)
    x = digit_tensor(pipe, picture)
    labels, told = labels_for(pipe, x, ANY)
    z = pipe.encode(x, labels)
    back = torch.from_numpy(pipe.decode(z, labels, output_type="np").images).movedim(-1, 1)
    residual = (255 * (back - x)).abs().round()
    bound = pipe.elbo(x, 8, labels, torch.Generator().manual_seed(0)).item()
    bits = -bound / (math.log(2) * x.numel())
    wrong = int((residual > 0).sum())
    same = "every pixel comes back on its own level" if wrong == 0 else f"{wrong} pixels come back on another level"
    text = (
        f"{told}Of {x.numel()} pixels and 256 levels, **{same}**: the largest residual is "
        f"{int(residual.max())}.\n\nThe code has {z.shape[1]} numbers with mean {z.mean():.2f} and standard deviation "
        f"{z.std():.2f}; a draw of N(0, I) has 0 and 1. log p(x{'|c' if labels else ''}) ≥ **{bound:,.0f} nats**, "
        f"{bits:.2f} bits a pixel.".replace("-", "−")
    )
    return (
        upscale(picture_of(x[0]), 196),
        stacked(codes_pictures(pipe, z)),
        upscale(picture_of(back[0]), 196),
        text,
    )


@one_job(cost="heavy")
def flow_redraw(
    model: str, picture: Image.Image | None, count: int, temperature: float, seed: int, new_seed: bool
) -> tuple[Image.Image, str, int]:
    """Keep the code of a digit but for one resolution, which is drawn anew; a row for each resolution.

    Args:
        model: a flow on images.
        picture: an image file with one digit.
        count: draws of each resolution, 1 to 16.
        temperature: the standard deviation of what is drawn, 0 to 2.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        The images, the finest resolution first, what they show, and the seed.
    """
    pipe = flow_of_images(model)
    count, temperature = whole("count", count, 1, MOST_REDRAWN), float(bounded("temperature", temperature, 0, 2))
    seed = seed_of(seed, new_seed)
    x = digit_tensor(pipe, picture)
    labels, _ = labels_for(pipe, x, ANY)
    z = pipe.encode(x, labels)
    images = []
    for level in range(pipe.num_levels):
        generator = torch.Generator().manual_seed(seed)
        labels_of_all = None if labels is None else labels * count
        images += pipe.resample(z.expand(count, -1), level, labels_of_all, temperature, generator).images
    sizes = [math.prod(shape) for shape in pipe.flow.code_shapes]
    shares = ", ".join(f"row {i + 1} redraws {size} numbers" for i, size in enumerate(sizes))
    text = f"Of {sum(sizes)} numbers {shares}: the finest resolution holds noise and edges, the coarsest the shape."
    return grid(images, columns=count), text, seed


def build(demo: gr.Blocks) -> None:
    with gr.Tab("A digit and its code") as tab:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                model = image_model("code-model", OF_DIGITS)
                pad = Pad(example_digits()[5], label="Draw a digit", elem_id="pad")
                there = buttons("To its code and back", "code")
                examples = examples_gallery("examples")
            with gr.Column(scale=3, min_width=300):
                with gr.Row():
                    seen = result_image("x, as the flow sees it", "seen", min_width=130)
                    back = result_image("decoded from z", "back", min_width=130)
                code = result_image("z: black −3, gray 0, white 3", "z")
                about = gr.Markdown(elem_id="about-code")
        gr.Markdown("### One resolution drawn anew")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                count = gr.Slider(1, MOST_REDRAWN, 8, step=1, label="Draws of each")
                temperature = temperature_control()
                seed, new_seed = seed_controls("seed-redraw")
                redraw = buttons("Draw anew", "redraw")
            with gr.Column(scale=3, min_width=300):
                redrawn = result_image("Above the finest resolution, below the coarsest", "redrawn")
                told = gr.Markdown(elem_id="about-redrawn")
    coded = job(there, flow_code, [model, pad], [seen, code, back, about])
    again = job(redraw, flow_redraw, [model, pad, count, temperature, seed, new_seed], [redrawn, told, seed])
    examples.select(chosen_example, None, pad, **QUIET).success(flow_code, *coded, **QUIET).success(
        flow_redraw, *again, **QUIET
    )
    for event in (pad.input, model.change):
        event(flow_code, *coded, **QUIET).success(flow_redraw, *again, **QUIET)
    if OF_DIGITS:
        opening(tab).success(flow_code, *coded, **QUIET).success(flow_redraw, *again, **QUIET)
