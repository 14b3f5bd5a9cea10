"""The tab that walks from one code to another."""

from __future__ import annotations  # torch.Tensor is named before torch is there

from collections.abc import Iterator

import gradio as gr
from adversarial_common import MODELS, QUIET, offer_classes_of
from kit.bounds import MAX_SEED, class_of, whole
from kit.controls import class_control, result_image, seed_number
from kit.errors import user_error
from kit.jobs import buttons, job, one_job, opening, unhurried
from kit.lazy import LazyModule
from kit.models import code_length, num_classes
from kit.pictures import grid, upscale
from kit.theme import MATH
from PIL import Image

torch = LazyModule("torch")
MAX_FRAMES = 48
FRAME_SECONDS = 0.12  # between two images: slow enough to follow


def one_code(pipe, seed: int) -> torch.Tensor:
    return torch.randn(1, code_length(pipe), generator=torch.Generator().manual_seed(seed))


@one_job(cost="heavy")
@unhurried(FRAME_SECONDS)
def gan_interpolate(
    model: str, label: str, start: int, end: int, frames: int
) -> Iterator[tuple[Image.Image, Image.Image]]:
    """Walk from one code to another on the sphere where codes lie.

    Args:
        model: one of the page's models.
        label: the class on the way ("0" to "9"); "any" takes the 3 of a conditional model.
        start: the seed of the first code, 0 to 2147483647.
        end: the seed of the last.
        frames: how many images, 2 to 48.

    Returns:
        The image where the walk is, and all images so far; again for each.
    """
    pipe = MODELS[model]
    frames = whole("frames", frames, 2, MAX_FRAMES)
    start, end = whole("start", start, 0, MAX_SEED), whole("end", end, 0, MAX_SEED)
    if start == end:
        raise user_error(f"start and end are both {start}: there is no way between them. Choose two seeds.")
    wanted = class_of(label, num_classes(pipe))
    if wanted is None and num_classes(pipe):
        wanted = min(3, num_classes(pipe) - 1)
    images = pipe.interpolate(one_code(pipe, start), one_code(pipe, end), frames, wanted).images
    blank = Image.new("L", images[0].size, 40)
    for number, image in enumerate(images):
        done = [*images[: number + 1], *[blank] * (frames - number - 1)]
        yield upscale(image, 280), grid(done, columns=min(frames, 12))


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("Walk") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            label = class_control("class-walk")
            with gr.Row():
                start = seed_number(1, "From seed", min_width=120)
                end = seed_number(2, "To seed", min_width=120)
            frames = gr.Slider(2, MAX_FRAMES, 24, step=1, label="Number of images")
            go = buttons("Walk", "walk", stop=True)
            gr.Markdown(
                "The way is on the sphere: in so many dimensions nearly all $z$ have the same length, and on a straight line "
                "between two of them the generator would be asked for what it has never seen.",
                latex_delimiters=MATH,
            )
        with gr.Column(scale=3, min_width=300):
            frame = result_image("On the way", "frame")
            strip = result_image("All of it", "strip")
    walked = job(go, gan_interpolate, [model, label, start, end, frames], [frame, strip])
    model.change(offer_classes_of, model, label, **QUIET)
    if MODELS.first:
        demo.load(offer_classes_of, model, label, **QUIET)
        opening(tab).success(gan_interpolate, *walked, **QUIET)  # not empty when it is opened
