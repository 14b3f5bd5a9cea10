"""Levels: a hierarchical variational autoencoder draws from the top down, and below a top that is kept."""

from collections.abc import Iterator

import gradio as gr
from autoencoders_models import answering, first_of, loaded, say_missing
from kit.bounds import bounded, one_of, seed_of, whole
from kit.controls import count_control, result_image, seed_controls, temperature_control
from kit.digits import digit_tensor, example_digits
from kit.jobs import buttons, job, one_job, opening, unhurried
from kit.lazy import LazyModule
from kit.pictures import Pad, grid
from kit.theme import MATH
from PIL import Image

torch = LazyModule("torch")

OFFERED = answering("resample", "sample", "decode")
USUAL = "hierarchical-vae-mnist"  # what the project calls its own
SOURCES = ("new codes", "my drawing")
MAX_COUNT = 36


def hierarchy():
    return loaded(first_of(OFFERED, USUAL), "resample")


@one_job(cost="heavy")
@unhurried(0.7)
def autoencoder_levels(
    count: int, temperature: float, seed: int, new_seed: bool
) -> Iterator[tuple[Image.Image, Image.Image, str, int]]:
    """Draw from a hierarchical variational autoencoder, level by level from the top.

    Args:
        count: how many images, 1 to 36.
        temperature: what the standard deviation of each level is multiplied by, 0 to 2.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        The images so far, the levels below at their means; the first eight after each level; which level was drawn; and
        the seed. Again for each level.
    """
    pipe = hierarchy()
    count, temperature = whole("count", count, 1, MAX_COUNT), float(bounded("temperature", temperature, 0, 2))
    seed, rows = seed_of(seed, new_seed), []
    for step in pipe.stream(count, temperature=temperature, generator=torch.Generator().manual_seed(seed)):
        rows += [*step.images[:8]]
        left = step.level
        text = f"Level **{step.level + 1}** of {step.num_steps} drawn: {step.latents.shape[1]} numbers. "
        text += f"{left} below at {'its mean' if left == 1 else 'their means'}." if left else "All levels are drawn."
        yield grid(step.images), grid(rows, columns=min(count, 8)), text, seed


@one_job
def autoencoder_redraw(
    source: str, picture: Image.Image | None, rows: int, count: int, keep: int, seed: int, new_seed: bool
) -> tuple[Image.Image, str, int]:
    """Keep the code of the top level and draw what lies below anew.

    Args:
        source: "new codes" draws the top level, "my drawing" takes that of a digit.
        picture: an image file with one digit, for the source "my drawing".
        rows: how many codes of the top level, 1 to 8, for the source "new codes".
        count: how often the levels below are drawn, 1 to 11.
        keep: how many levels of a drawing stay, counted from the top, 1 to all but the last.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        A row for each code of the top: what it decodes to with the levels below at their means, or the drawing, and
        beside it the variations; what they show; and the seed.
    """
    pipe = hierarchy()
    one_of("source", source, SOURCES)
    rows, count = whole("rows", rows, 1, 8), whole("count", count, 1, 11)
    keep = whole("keep", keep, 1, max(1, pipe.num_levels - 1))
    generator = torch.Generator()
    if source == "my drawing":
        x = digit_tensor(pipe, picture)
        seed = seed_of(seed, new_seed)
        made = pipe.resample(x, keep=keep, num=2 * count + 1, generator=generator.manual_seed(seed)).images
        first, rows = pipe.image_processor.postprocess(x), 1
        text = "First the drawing as the model sees it, then what its top code may also mean."
    else:
        seed = seed_of(seed, new_seed)
        top = torch.randn(rows, pipe.latent_dims[-1], generator=generator.manual_seed(seed))
        first = pipe.decode(top, level=pipe.num_levels - 1).images
        made = pipe.resample(latents=top, num=count, generator=generator).images
        text = "Each row is one code of the top: first with the levels below at their means, then drawn anew each time."
    each = len(made) // rows
    images = [i for r in range(rows) for i in (first[r], *made[r * each : (r + 1) * each])]
    return grid(images, columns=count + 1), text, seed


def update_keep():
    levels = hierarchy().num_levels
    return gr.Slider(1, max(2, levels - 1), 1, step=1, visible=levels > 2)


def build(demo: gr.Blocks) -> None:
    """The tab, on the page `demo`."""
    with gr.Tab("Levels") as tab:
        gr.Markdown(
            "**A hierarchical variational autoencoder has codes above codes.** The top is drawn from $\\mathcal N(0, "
            "I)$ and says what it shall be; each level below is drawn given the one above, and says how.",
            latex_delimiters=MATH,
        )
        say_missing(OFFERED, names=(USUAL,))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                count, temperature = count_control(MAX_COUNT), temperature_control()
                seed, new_seed = seed_controls("seed-levels")
                descend = buttons("Draw level by level", "descend", stop=True)
                which_level = gr.Markdown(elem_id="which-level")
                by_level = result_image("After each level, one a row", "by-level")
            with gr.Column(scale=3, min_width=300):
                leveled = result_image("Samples", "leveled")
        gr.Markdown("### Redraw below\nKeep what the top says, and draw the rest again.")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                source = gr.Radio(list(SOURCES), value=SOURCES[0], label="Top level from")
                pad = Pad(example_digits()[4], label="Draw a digit", elem_id="pad-levels", visible=False)
                rows = gr.Slider(1, 8, 6, step=1, label="Codes of the top")
                variations = gr.Slider(1, 11, 7, step=1, label="Variations of each")
                keep = gr.Slider(1, 2, 1, step=1, label="Levels to keep", visible=False)
                seed_below, new_seed_below = seed_controls("seed-redraw")
                redraw = buttons("Redraw below", "redraw")
            with gr.Column(scale=3, min_width=300):
                redrawn = result_image("One code of the top a row", "redrawn")
                about_redrawn = gr.Markdown(elem_id="about-redrawn")

    quiet = {"api_visibility": "private"}  # the API names each handler once
    leveling = job(
        descend, autoencoder_levels, [count, temperature, seed, new_seed], [leveled, by_level, which_level, seed]
    )
    again = job(
        redraw,
        autoencoder_redraw,
        [source, pad, rows, variations, keep, seed_below, new_seed_below],
        [redrawn, about_redrawn, seed_below],
    )
    source.change(
        lambda s: (gr.HTML(visible=s == SOURCES[1]), gr.Slider(visible=s == SOURCES[0])), source, [pad, rows], **quiet
    ).success(autoencoder_redraw, *again, **quiet)
    pad.input(autoencoder_redraw, *again, trigger_mode="always_last", show_progress="hidden", **quiet)
    if OFFERED:
        opening(tab).success(update_keep, None, keep, **quiet).success(autoencoder_levels, *leveling, **quiet).success(
            autoencoder_redraw, *again, **quiet
        )
