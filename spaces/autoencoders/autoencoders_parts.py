"""Parts: a digit as a sum of strokes, and what is hidden of it filled in from them."""

import autoencoders_views as views
import gradio as gr
import numpy as np
from autoencoders_models import answering, as_picture, factors_of, first_of, loaded, say_missing
from kit.bounds import one_of, whole
from kit.controls import result_image
from kit.digits import chosen_example, digit_tensor, example_digits, examples_gallery
from kit.errors import user_error
from kit.jobs import buttons, job, one_job, opening
from kit.lazy import LazyModule
from kit.pictures import Pad, grid, upscale
from PIL import Image

torch = LazyModule("torch")

OFFERED = answering("parts", "transform", "complete")
USUAL = "nmf-mnist"  # what the project calls its own
HALVES = ("upper half", "lower half", "left half", "right half")


def factorisation():
    return loaded(first_of(OFFERED, USUAL), "parts")


@one_job
def autoencoder_parts(picture: Image.Image | None, most: int) -> tuple[Image.Image, str, str]:
    """Write a digit as a sum of parts, none of them subtracted.

    Args:
        picture: an image file with one digit.
        most: how many of its largest parts are shown, 1 to 10.

    Returns:
        All parts; the sum (HTML); and how many parts it takes.
    """
    pipe, most = factorisation(), whole("most", most, 1, 10)
    x = digit_tensor(pipe, picture)
    weights, parts = pipe.transform(x)[0], pipe.parts()
    # a part is shown with its largest entry at 1: its weight is what that entry becomes
    scaled = weights * factors_of(pipe).parts.float().amax(1)
    order = scaled.argsort(descending=True)
    used = int((scaled > 0.01).sum())
    terms = [(float(scaled[k]), upscale(parts[int(k)], 112)) for k in order[: min(most, used)]]
    again = pipe.decode(weights[None]).images[0]
    error = float(pipe.reconstruction_error(x)[0])
    text = f"It takes **{used}** of {len(parts)} parts; the mean squared error of the sum is {error:.4f}."
    return grid(parts), views.weighted_sum(terms, max(0, used - most), upscale(again, 112)), text


@one_job
def autoencoder_complete(picture: Image.Image | None, known: str) -> tuple[Image.Image, Image.Image, Image.Image, str]:
    """Fill in half of a digit from the parts that the other half shows.

    Args:
        picture: an image file with one digit.
        known: "upper half", "lower half", "left half" or "right half".

    Returns:
        What is known, the completed digit, the original, and the error in what was hidden.
    """
    pipe = factorisation()
    x, half = digit_tensor(pipe, picture), pipe.data_spec["shape"][1] // 2
    one_of("known", known, HALVES)
    mask = torch.zeros(x.shape[1:], dtype=torch.bool)
    places = {"upper": (slice(half), slice(None)), "lower": (slice(half, None), slice(None))}
    places |= {"left": (slice(None), slice(half)), "right": (slice(None), slice(half, None))}
    mask[(slice(None), *places[known.split()[0]])] = True
    if not (x[0] * mask).any():
        raise user_error(f"There is nothing in the {known}: choose the other, or draw something there.")
    filled = pipe.complete(x, mask, output_type="pt").images
    paper = np.asarray(as_picture(pipe, x, x.shape[3]).convert("RGB")).copy()
    paper[~mask[0].numpy()] = views.ACCENT  # what is not known, in the accent colour
    hidden = ~mask.expand_as(x)
    error, nothing = (float((guess - x)[hidden].square().mean()) for guess in (filled, torch.zeros_like(x)))
    text = f"Mean squared error in the hidden half **{error:.4f}**; with nothing there it would be {nothing:.4f}."
    return upscale(Image.fromarray(paper), 252), as_picture(pipe, filled), as_picture(pipe, x), text


def build(demo: gr.Blocks) -> None:
    """The tab, on the page `demo`."""
    with gr.Tab("Parts") as tab:
        gr.Markdown(
            "**Nothing is ever subtracted**: non-negative matrix factorisation writes a digit as a sum of strokes. It "
            "has no network, and no layers; only a table of parts."
        )
        say_missing(OFFERED, names=(USUAL,))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                pad = Pad(example_digits()[3], label="Draw a digit", elem_id="pad-parts")
                most = gr.Slider(1, 10, 6, step=1, label="Largest parts to show")
                take_apart = buttons("Take it apart", "apart")
                examples = examples_gallery("examples-parts")
            with gr.Column(scale=3, min_width=300):
                parts_sum = gr.HTML(
                    elem_id="parts-sum", css_template=views.STRIP_CSS, html_template="${value}", min_height=150
                )
                about_parts = gr.Markdown(elem_id="about-parts")
                all_parts = result_image("All parts", "all-parts")
        gr.Markdown("### Fill in what is hidden\nThe parts that fit what is known say what the rest might be.")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                half_known = gr.Radio(list(HALVES), value=HALVES[0], label="What is known", elem_id="half")
                fill = buttons("Fill it in", "fill")
                about_filled = gr.Markdown(elem_id="about-filled")
            with gr.Column(scale=3, min_width=300), gr.Row():
                masked = result_image("Known", "masked", min_width=120)
                completed = result_image("Filled in", "completed", min_width=120)
                whole_digit = result_image("Original", "whole", min_width=120)

    quiet = {"api_visibility": "private"}  # the API names each handler once
    apart = job(take_apart, autoencoder_parts, [pad, most], [all_parts, parts_sum, about_parts])
    filling = job(fill, autoencoder_complete, [pad, half_known], [masked, completed, whole_digit, about_filled])
    pad.input(autoencoder_parts, *apart, trigger_mode="always_last", show_progress="hidden", **quiet)
    examples.select(chosen_example, None, pad, **quiet).success(autoencoder_parts, *apart, **quiet).success(
        autoencoder_complete, *filling, **quiet
    )
    half_known.change(autoencoder_complete, *filling, **quiet)
    if OFFERED:
        opening(tab).success(autoencoder_parts, *apart, **quiet).success(autoencoder_complete, *filling, **quiet)
