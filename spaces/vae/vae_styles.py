"""The tab that keeps the style of a digit and changes its class."""

import gradio as gr
from kit.bounds import ANY, bounded, one_of, seed_of, whole
from kit.classes import labels_for
from kit.controls import result_image, seed_controls, temperature_control
from kit.digits import digit_tensor, example_digits
from kit.errors import user_error
from kit.jobs import buttons, job, one_job, opening
from kit.lazy import LazyModule
from kit.models import code_length, num_classes
from kit.pictures import Pad, grid
from PIL import Image
from vae_common import MODELS, QUIET

torch = LazyModule("torch")


@one_job
def vae_styles(
    model: str, source: str, picture: Image.Image | None, count: int, temperature: float, seed: int, new_seed: bool
) -> tuple[Image.Image, int, str]:
    """Keep the style, change the class: all classes decoded from one z, a row for each z.

    Args:
        model: one of the page's models that was trained with classes.
        source: "random" draws the styles; "picture" takes that of a digit.
        picture: an image file with one digit, for the source "picture".
        count: how many styles, 1 to 8, for the source "random".
        temperature: the standard deviation of z, 0 to 2.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        The images, one class a column, the seed, and what they show.
    """
    pipe = MODELS[model]
    classes = num_classes(pipe)
    count, temperature = whole("count", count, 1, 8), bounded("temperature", temperature, 0, 2)
    seed = seed_of(seed, new_seed)
    if not classes:
        able = MODELS.with_classes(surely=True)
        hint = f"; choose {able[0]} above" if able else ""
        raise user_error(f"{model} was trained without classes, so it cannot change them{hint}.")
    note = "Each row is one z: slant, width and weight stay, the class changes."
    if one_of("source", source, ("random", "picture")) == "picture":
        x = digit_tensor(pipe, picture)
        labels, note = labels_for(pipe, x, ANY)
        z = pipe.encode(x, labels)
        note += "Its style is kept in all ten classes."
    else:
        shape = (count, code_length(pipe))
        z = temperature * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    every = list(range(classes)) * len(z)
    images = pipe.decode(z.repeat_interleave(classes, 0), every).images
    return grid(images, columns=classes), seed, note


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("Styles") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            source = gr.Radio(["random", "picture"], value="random", label="Style from")
            pad = Pad(example_digits()[7], label="Draw a digit", elem_id="pad-style", visible=False)
            count = gr.Slider(1, 8, 5, step=1, label="Number of styles")
            temperature = temperature_control()
            seed, new_seed = seed_controls("seed-style")
            restyle = buttons("Decode every class", "restyle")
        with gr.Column(scale=3, min_width=300):
            sheet = result_image("One z a row, one class a column", "sheet")
            about = gr.Markdown()
    styled = job(restyle, vae_styles, [model, source, pad, count, temperature, seed, new_seed], [sheet, seed, about])
    source.change(lambda s: gr.HTML(visible=s == "picture"), source, pad, **QUIET)
    opening(tab).success(vae_styles, *styled, **QUIET)  # not empty when it is opened
