"""A walk between the codes of two digits."""

from collections.abc import Iterator

import gradio as gr
from flows_models import OF_DIGITS, QUIET, flow_of_images, image_model
from kit.bounds import ANY, whole
from kit.classes import labels_for
from kit.controls import result_image
from kit.digits import chosen_example, digit_tensor, example_digits, examples_gallery
from kit.jobs import buttons, job, one_job, opening, unhurried
from kit.pictures import Pad, grid, upscale
from PIL import Image

MAX_FRAMES = 48
FRAME_SECONDS = 0.12  # between two images: slow enough to follow


@one_job(cost="heavy")
@unhurried(FRAME_SECONDS)
def flow_walk(
    model: str, start: Image.Image | None, end: Image.Image | None, frames: int
) -> Iterator[tuple[Image.Image, Image.Image]]:
    """Walk from the code of one digit to that of another, decoding on the way.

    Both ends come back as they are: a flow loses nothing. The way is a great circle, since codes are all about as long as a
    draw of N(0, I). A conditional flow is told the class of the first digit all along.

    Args:
        model: a flow on images.
        start: an image file with the first digit.
        end: an image file with the last digit.
        frames: images on the way, both ends included, 2 to 48.

    Returns:
        The present image, and all so far as a strip.
    """
    pipe = flow_of_images(model)
    frames = whole("frames", frames, 2, MAX_FRAMES)
    ends = [digit_tensor(pipe, picture) for picture in (start, end)]
    labels, _ = labels_for(pipe, ends[0], ANY)
    images = pipe.interpolate(*ends, steps=frames, class_labels=None if labels is None else labels[0]).images
    for shown in range(1, frames + 1):
        yield upscale(images[shown - 1], 336), grid(images[:shown], columns=min(frames, 8))


def build(demo: gr.Blocks) -> None:
    with gr.Tab("Walk") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            model = image_model("walk-model", OF_DIGITS)
            with gr.Row():
                start = Pad(example_digits()[3], label="From", elem_id="start", min_width=130)
                end = Pad(example_digits()[8], label="To", elem_id="end", min_width=130)
            frames = gr.Slider(2, MAX_FRAMES, 24, step=1, label="Number of images")
            go = buttons("Walk", "walk", stop=True)
            examples = examples_gallery("examples-walk")
            gr.Markdown("An example becomes the end of the walk, and the end its start.")
        with gr.Column(scale=3, min_width=300):
            frame = result_image("On the way", "frame")
            strip = result_image("All of it", "strip")
    walked = job(go, flow_walk, [model, start, end, frames], [frame, strip])
    examples.select(lambda end: end, end, start, **QUIET).then(chosen_example, None, end, **QUIET)
    if OF_DIGITS:
        opening(tab).success(flow_walk, *walked, **QUIET)
