"""The tab that draws every class in one style."""

import gradio as gr
from adversarial_common import MODELS, QUIET
from kit.bounds import bounded, seed_of, whole
from kit.controls import result_image, seed_controls, temperature_control
from kit.errors import user_error
from kit.jobs import buttons, job, one_job, opening
from kit.lazy import LazyModule
from kit.models import code_length, num_classes
from kit.pictures import grid
from kit.theme import MATH
from PIL import Image

torch = LazyModule("torch")
MAX_STYLES = 12


@one_job
def gan_digits(model: str, styles: int, temperature: float, seed: int, new_seed: bool) -> tuple[Image.Image, int]:
    """Draw every class in several styles: one z a column, one class a row.

    Args:
        model: a conditional model.
        styles: how many z, 1 to 12.
        temperature: the standard deviation of z, 0 to 2.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        The images in one grid, and the seed that made them.
    """
    pipe = MODELS[model]
    classes = num_classes(pipe)
    if not classes:
        raise user_error(f"{model} was trained without classes; choose a model that knows them.")
    styles = whole("styles", styles, 1, MAX_STYLES)
    temperature = float(bounded("temperature", temperature, 0, 2))
    seed = seed_of(seed, new_seed)
    z = temperature * torch.randn(styles, code_length(pipe), generator=torch.Generator().manual_seed(seed))
    labels = [c for c in range(classes) for _ in range(styles)]
    return grid(pipe(class_labels=labels, latents=z.repeat(classes, 1)).images, columns=styles), seed


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    may_know = MODELS.with_classes()
    with gr.Tab("Ten digits") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            digit_model = gr.Dropdown(
                list(MODELS), value=next(iter(may_know), MODELS.first), label="Model that knows classes"
            )
            styles = gr.Slider(1, MAX_STYLES, 8, step=1, label="Number of styles")
            temperature = temperature_control()
            seed, new_seed = seed_controls("seed-digits")
            all_digits = buttons("Draw all digits", "digits")
            gr.Markdown("Each column is one $z$: the style stays, the digit changes.", latex_delimiters=MATH)
        with gr.Column(scale=3, min_width=300):
            sheet = result_image("One z a column, one class a row", "sheet")
    together = job(all_digits, gan_digits, [digit_model, styles, temperature, seed, new_seed], [sheet, seed])
    if may_know:  # not empty when it is opened
        opening(tab).success(gan_digits, *together, **QUIET)
