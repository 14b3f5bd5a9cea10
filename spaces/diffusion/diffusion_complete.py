"""Filling in: the part of a digit that is not known."""

from collections.abc import Iterator

import gradio as gr
import numpy as np
from diffusion_models import FACTS, as_input, image_model, progress_of, steps_control, update_class
from kit.bounds import MAX_SEED, class_of, one_of, seed_of, whole
from kit.controls import class_control, result_image, seed_controls
from kit.digits import chosen_example, example_digits, examples_gallery
from kit.errors import user_error
from kit.jobs import Pace, buttons, job, one_job, opening
from kit.lazy import LazyModule
from kit.pictures import Pad, grid, upscale
from PIL import Image

torch = LazyModule("torch")

KNOWN = ("upper half", "lower half", "left half", "right half", "all but what I paint over")


@one_job(cost="heavy")
def diffusion_complete(
    model: str,
    picture: Image.Image | None,
    known: str,
    painted: Image.Image | None,
    label: str,
    count: int,
    num_inference_steps: int,
    num_resamples: int,
    seed: int,
    new_seed: bool,
) -> Iterator[tuple[Image.Image, Image.Image, str, int]]:
    """Fill in the part of a digit that is not known.

    Args:
        model: one of the page's models.
        picture: an image file with one digit.
        known: "upper half", "lower half", "left half", "right half", or "all but what I paint over".
        painted: for the last of these, an image file with ink where the digit is to be filled in.
        label: "any" fits whichever class, or the class to fill in ("0" to "9").
        count: how many different ways, 1 to 9.
        num_inference_steps: 5 to 250.
        num_resamples: how often each step is repeated, 1 to 10.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        What is known, the filled-in digits, where the sampler is, and the seed; again as it goes.
    """
    pipe = image_model(model, "complete")
    count = whole("count", count, 1, 9)
    steps = whole("num_inference_steps", num_inference_steps, 5, 250)
    resamples = whole("num_resamples", num_resamples, 1, 10)
    x, side = as_input(pipe, picture), pipe.data_spec["shape"][1]
    one_of("known", known, KNOWN)
    mask = torch.zeros(side, side, dtype=torch.bool)
    half = side // 2
    if known == KNOWN[4]:
        if painted is None:
            raise user_error(
                "Nothing is painted over yet: paint on the second sheet where the digit is to be filled in."
            )
        gray = np.asarray(painted.convert("L").resize((side, side), Image.Resampling.BOX), dtype=np.float32)
        mask = torch.from_numpy(np.abs(gray - np.median(gray)) < 20)
    else:
        rows, columns = {
            "upper half": (slice(0, half), slice(None)),
            "lower half": (slice(half, None), slice(None)),
            "left half": (slice(None), slice(0, half)),
            "right half": (slice(None), slice(half, None)),
        }[known]
        mask[rows, columns] = True
    if mask.all() or not mask.any():
        raise user_error("Paint over a part of the sheet: some of the digit must stay, some must go.")
    seed = seed_of(seed, new_seed)
    paper = np.asarray(x.convert("RGB")).copy()
    paper[~mask.numpy()] = (194, 65, 12)  # what is not known, in the accent colour
    shown = upscale(Image.fromarray(paper), 280)
    wanted = class_of(label, FACTS[model].num_classes)
    stream = pipe.stream_complete(
        x,
        mask,
        class_labels=wanted,
        num_inference_steps=steps,
        num_resamples=resamples,
        generator=[torch.Generator().manual_seed((seed + i) % (MAX_SEED + 1)) for i in range(count)],
    )
    pace = Pace(4 * resamples)
    for step in stream:
        if pace.due(step):
            yield shown, grid(step.predicted_images, width=420), progress_of(step), seed


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    """The tab, on the page `demo`, of the `model` that is chosen there."""
    with gr.Tab("Fill in") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            pad = Pad(example_digits()[8], label="Draw a digit", elem_id="pad-fill")
            known = gr.Radio(list(KNOWN), value=KNOWN[0], label="What is known")
            cover = Pad(label="Paint where it is to be filled in", elem_id="pad-cover", visible=False)
            label = class_control("class-fill")
            ways = gr.Slider(1, 9, 4, step=1, label="Different ways")
            with gr.Row():
                steps = steps_control(40, 250, 5)
                resamples = gr.Slider(1, 10, 4, step=1, label="Repeats")
            seed, new_seed = seed_controls("seed-fill")
            fill = buttons("Fill in", "fill", stop=True)
            examples = examples_gallery("examples-fill")
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                left = result_image("What is known", "known", min_width=200)
                filled = result_image("Filled in", "filled", min_width=260)
            where = gr.Markdown()

    quiet = {"api_visibility": "private"}  # the API names each handler once
    filling = job(
        fill,
        diffusion_complete,
        [model, pad, known, cover, label, ways, steps, resamples, seed, new_seed],
        [left, filled, where, seed],
    )
    examples.select(chosen_example, None, pad, **quiet)
    known.change(lambda k: gr.HTML(visible=k == KNOWN[4]), known, cover, **quiet)
    gr.on([model.change, demo.load], update_class, model, label, **quiet)
    opening(tab).success(diffusion_complete, *filling, **quiet)
