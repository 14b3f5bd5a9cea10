"""The tab that walks from the code of one digit to that of another."""

from collections.abc import Iterator

import gradio as gr
from kit.bounds import ANY, whole
from kit.classes import labels_for
from kit.controls import result_image
from kit.digits import chosen_example, digit_tensor, example_digits, examples_gallery
from kit.jobs import buttons, job, one_job, unhurried
from kit.pictures import Pad, grid, upscale
from PIL import Image
from vae_common import MODELS, QUIET

MAX_FRAMES = 48
FRAME_SECONDS = 0.12  # between two images: slow enough to follow


@one_job(cost="heavy")
@unhurried(FRAME_SECONDS)
def vae_walk(
    model: str, start: Image.Image | None, end: Image.Image | None, frames: int
) -> Iterator[tuple[Image.Image, Image.Image]]:
    """Walk in a straight line from the code of one digit to that of another, decoding on the way.

    Args:
        model: one of the page's models.
        start: an image file with the first digit.
        end: an image file with the last digit.
        frames: images on the way, both ends included, 2 to 48.

    Returns:
        The present image, and all so far as a strip.
    """
    pipe = MODELS[model]
    frames = whole("frames", frames, 2, MAX_FRAMES)
    ends = [digit_tensor(pipe, picture) for picture in (start, end)]
    labels = [labels_for(pipe, x, ANY)[0] for x in ends]
    codes = [pipe.encode(x, c) for x, c in zip(ends, labels, strict=True)]
    done = []
    for i in range(frames):
        t = i / (frames - 1)
        # a class cannot be half one and half the other: it changes in the middle
        image = pipe.decode((1 - t) * codes[0] + t * codes[1], labels[0] if t < 0.5 else labels[1]).images[0]
        done.append(image)
        yield upscale(image, 336), grid(done, columns=min(frames, 8))


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("Walk"), gr.Row():
        with gr.Column(scale=2, min_width=300):
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
    job(go, vae_walk, [model, start, end, frames], [frame, strip])
    examples.select(lambda end: end, end, start, **QUIET).then(chosen_example, None, end, **QUIET)
