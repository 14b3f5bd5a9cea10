"""The tab that finds the code of a drawing."""

import gradio as gr
from adversarial_common import MODELS, QUIET, offer_classes_of
from kit.bounds import class_of, seed_of
from kit.controls import class_control, result_image, seed_number
from kit.digits import chosen_example, digit_tensor, example_digits, examples_gallery
from kit.jobs import buttons, job, one_job, opening
from kit.lazy import LazyModule
from kit.models import num_classes
from kit.pictures import Pad, upscale
from PIL import Image

torch = LazyModule("torch")


@one_job(cost="heavy")
def gan_find(model: str, label: str, picture: Image.Image | None, seed: int) -> tuple[Image.Image, Image.Image, str]:
    """Find the z whose image is nearest to a drawing: there is no encoder, so by optimisation.

    Args:
        model: one of the page's models.
        label: the class of the drawing ("0" to "9"); "any" tries all of a conditional model.
        picture: an image file with one digit.
        seed: of the eight places where the search starts, 0 to 2147483647.

    Returns:
        The drawing as the model takes it, the nearest image found, and how far off it stays.
    """
    pipe = MODELS[model]
    x, classes = digit_tensor(pipe, picture), num_classes(pipe)
    generator = torch.Generator().manual_seed(seed_of(seed, False))
    wanted = class_of(label, classes)
    labels = list(range(classes)) if classes and wanted is None else None if wanted is None else [wanted]
    found = pipe.encode(x.expand(len(labels or [0]), -1, -1, -1), labels, 100, generator)
    best = int(found.residual.argmin())
    image = pipe.decode(found.latents[best : best + 1], labels and [labels[best]]).images[0]
    residual, empty = found.residual[best].item(), x.square().mean().item()
    text = (
        f"Mean squared error **{residual:.4f}**; an empty image would have {empty:.4f}."
        + (f" Nearest as a **{labels[best]}**." if labels else "")
        + "\n\nWhat the generator cannot draw, it has never needed to: nobody asked it for all of the data."
    )
    return upscale(pipe.image_processor.postprocess(x)[0], 196), upscale(image, 196), text


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("Find z") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            pad = Pad(example_digits()[7], label="Draw a digit", elem_id="pad-find")
            label = class_control("class-find")
            seed = seed_number(0, "Seed")
            find = buttons("Find its z", "find")
            examples = examples_gallery("examples-find")
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                target = result_image("Your drawing", "target", min_width=140)
                nearest = result_image("The nearest that G draws", "nearest", min_width=140)
            residual = gr.Markdown(elem_id="residual")
    found = job(find, gan_find, [model, label, pad, seed], [target, nearest, residual])
    examples.select(chosen_example, None, pad, **QUIET)
    model.change(offer_classes_of, model, label, **QUIET)
    if MODELS.first:
        demo.load(offer_classes_of, model, label, **QUIET)
        opening(tab).success(gan_find, *found, **QUIET)  # not empty when it is opened
