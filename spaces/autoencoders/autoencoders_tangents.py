"""Tangents: the directions in which a digit can change and its code notices, and walks along them."""

import math
from collections.abc import Iterator

import autoencoders_views as views
import gradio as gr
from autoencoders_models import (
    OBJECTIVES,
    autoencoder,
    autoencoders,
    code_size,
    model_choice,
    objective_of,
    of_objective,
    of_shape,
    say_missing,
)
from kit.bounds import bounded, one_of, whole
from kit.charts import curves
from kit.controls import result_image
from kit.digits import chosen_example, digit_tensor, example_digits, examples_gallery
from kit.jobs import buttons, job, one_job, opening, unhurried
from kit.pictures import Pad, grid, upscale
from PIL import Image

ORDER = ("contractive", "plain", "denoising", "supervised", "sliced_wasserstein")  # a contractive one shows it best
OFFERED = sorted(autoencoders("walk"), key=lambda name: (code_size(name) == 2, ORDER.index(objective_of(name))))
MAX_FRAMES, MAX_TANGENTS = 48, 8
FRAME_SECONDS = 0.12  # between two images of a walk: slow enough to follow


@one_job
def autoencoder_tangents(model: str, picture: Image.Image | None) -> tuple[dict, str, str]:
    """The directions in which a digit can change and its code notices most.

    Args:
        model: one of the page's autoencoders.
        picture: an image file with one digit.

    Returns:
        A card for each tangent, red where ink comes and blue where it goes; a figure (SVG) of all singular values; and
        what they say.
    """
    pipe = autoencoder(model)
    x, dim = digit_tensor(pipe, picture), code_size(model)
    found = pipe.tangents(x, min(MAX_TANGENTS, dim))
    values = found.singular_values[0]
    cards = [
        views.card(str(i + 1), f"Tangent {i + 1}", f"σ = {v:.3g}", views.red_and_blue(t[0].numpy()))
        for i, (t, v) in enumerate(zip(found.tangents[0], values, strict=False))
    ]
    spectra = {OBJECTIVES[objective_of(model)].title: values}
    larger = [name for name in of_shape(OFFERED, pipe.data_spec["shape"]) if code_size(name) > 2]
    for other in of_objective(larger, "contractive") + of_objective(larger, "plain"):  # one to compare it with
        title = OBJECTIVES[objective_of(other)].title
        if title not in spectra and len(spectra) < 2 and dim > 2:
            spectra[title] = autoencoder(other).tangents(x, 1).singular_values[0]
    lines = {t: [(i + 1, float(v / s[0])) for i, v in enumerate(s)] for t, s in spectra.items()}
    figure = curves(lines, "singular values, the largest first", "share of the largest")
    half = int((values.square().cumsum(0) < 0.5 * values.square().sum()).sum()) + 1
    ways = "direction has" if half == 1 else "directions have"
    text = (
        f"The code has {dim} numbers; **{half}** {ways} half of all its squared motion (σ is the singular value). "
        f"**Red** is ink that comes, **blue** ink that goes, or the other way round. Choose one to walk along it."
    )
    return {"cards": cards, "chosen": "1"}, figure, text


@one_job(cost="heavy")
@unhurried(FRAME_SECONDS)
def autoencoder_walk(
    model: str, picture: Image.Image | None, tangent: str, length: float, frames: int
) -> Iterator[tuple[Image.Image, Image.Image]]:
    """Walk from a digit along a tangent, to both sides.

    Args:
        model: one of the page's autoencoders.
        picture: an image file with one digit.
        tangent: which, by its number: "1" is the leading one.
        length: how far to each side, 0.5 to 8, in units of x (a digit's own norm is about 9).
        frames: how many images, 3 to 48.

    Returns:
        The image where the walk is, and all images so far; again for each.
    """
    pipe = autoencoder(model)
    length, frames = float(bounded("length", length, 0.5, 8)), whole("frames", frames, 3, MAX_FRAMES)
    most = min(MAX_TANGENTS, code_size(model))
    number = int(one_of("tangent", tangent or "1", [str(i + 1) for i in range(most)]))
    x = digit_tensor(pipe, picture)
    way = pipe.tangents(x, number).tangents[0, number - 1]
    images = pipe.walk(x, way, frames, length).images
    blank = Image.new("L", images[0].size, 40)
    for i, image in enumerate(images):
        done = [*images[: i + 1], *[blank] * (frames - i - 1)]
        yield upscale(image, 252), grid(done, columns=math.ceil(math.sqrt(frames)), width=420)


def build(demo: gr.Blocks) -> None:
    """The tab, on the page `demo`."""
    with gr.Tab("Tangents") as tab:
        gr.Markdown(
            "**In which directions can this digit change, and stay a digit?** Those in which its code moves most: the "
            "tangents of the surface that the model has found. Most other changes of pixels a contractive code does "
            "not even notice."
        )
        say_missing(OFFERED, ("contractive",))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                pad = Pad(example_digits()[2], label="Draw a digit", elem_id="pad-tangents")
                model = model_choice("tangent-model", OFFERED)
                find = buttons("Find its tangents", "find")
                examples = examples_gallery("examples-tangents")
            with gr.Column(scale=3, min_width=300):
                tangents = views.Cards("Tangents", width=118, pixels=True, elem_id="tangents", min_height=120)
                about_tangents = gr.Markdown(elem_id="about-tangents")
                spectrum = gr.HTML(elem_id="spectrum", min_height=240)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                length = gr.Slider(0.5, 8, 4, step=0.5, label="Length to each side")
                frames = gr.Slider(3, MAX_FRAMES, 16, step=1, label="Number of images")
                go = buttons("Walk along it", "walk", stop=True)
            with gr.Column(scale=3, min_width=300), gr.Row():
                frame = result_image("On the way", "frame", min_width=160, scale=2)
                strip = result_image("From one side to the other", "strip", min_width=200, scale=3)

    quiet = {"api_visibility": "private"}  # the API names each handler once
    found = job(find, autoencoder_tangents, [model, pad], [tangents, spectrum, about_tangents])
    walked = job(go, autoencoder_walk, [model, pad, tangents, length, frames], [frame, strip])
    pad.input(autoencoder_tangents, *found, trigger_mode="always_last", show_progress="hidden", **quiet)
    model.change(autoencoder_tangents, *found, **quiet).success(autoencoder_walk, *walked, **quiet)
    tangents.input(autoencoder_walk, *walked, **quiet)
    examples.select(chosen_example, None, pad, **quiet).success(autoencoder_tangents, *found, **quiet).success(
        autoencoder_walk, *walked, **quiet
    )
    if OFFERED:
        opening(tab).success(autoencoder_tangents, *found, **quiet).success(autoencoder_walk, *walked, **quiet)
