"""The tab that asks the discriminator about a drawing."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import gradio as gr
import numpy as np
from adversarial_common import MODELS, QUIET, is_critic, offer_classes_of, verdicts
from kit.bounds import class_of
from kit.charts import histogram, signed
from kit.controls import class_control, result_image
from kit.digits import chosen_example, digit_tensor, example_digits, examples_gallery, mnist_digits
from kit.jobs import buttons, job, one_job, opening
from kit.lazy import LazyModule
from kit.models import num_classes
from kit.pictures import Pad, upscale
from PIL import Image

torch = LazyModule("torch")
JUDGED = 300  # samples that a judgement is compared with


def real_digits(pipe) -> torch.Tensor | None:
    """20 real digits of each class, class by class, (C * 20, 1, 28, 28) in [0, 1]; None where the model is not of such."""
    digits = mnist_digits()
    if tuple(pipe.data_spec["shape"]) != (1, *digits.shape[2:]) or num_classes(pipe) != len(digits):
        return None
    return torch.from_numpy(digits.reshape(-1, 1, *digits.shape[2:]).astype(np.float32) / 255)


def nearest_class(x: torch.Tensor, real: torch.Tensor, classes: int) -> int:
    """The class of the real digit that is nearest to x (1, 1, H, W), pixel by pixel.

    The discriminator cannot be asked: it has seen digits under their own class only, and what it says of others means
    nothing. Of 100 real digits it takes two for most real as what they are.
    """
    return int((real - x).square().flatten(1).sum(1).argmin()) * classes // len(real)


@one_job
def gan_confidence(model: str, label: str, picture: Image.Image | None) -> tuple[str, str, Image.Image]:
    """Ask a discriminator how real a drawing looks, beside what its generator draws.

    Args:
        model: one of the page's models.
        label: the class of the drawing ("0" to "9"); "any" takes that of the nearest real digit.
        picture: an image file with one digit.

    Returns:
        A figure (SVG) of what it says of samples, with the drawing marked; the answer; what it saw.
    """
    pipe = MODELS[model]
    x, classes = digit_tensor(pipe, picture), num_classes(pipe)
    wanted, reads, real = class_of(label, classes), "", real_digits(pipe)
    if classes and wanted is None:
        wanted = 0 if real is None else nearest_class(x, real, classes)
        why = "for want of a choice" if real is None else f"which the nearest of {len(real)} real digits is"
        reads = f"Judged as a **{wanted}**, {why}: choose the class of yours. "
    said = verdicts(pipe, x, None if wanted is None else [wanted])[0].item()
    generator = torch.Generator().manual_seed(0)
    drawn = next(pipe.stream(JUDGED, wanted, generator=generator, output_type="pt"))
    samples = verdicts(pipe, drawn.images, drawn.class_labels)
    share = (samples < said).float().mean().item()
    mean, of_class = signed(samples.mean().item(), 2), "" if wanted is None else f" of a {wanted}"
    if is_critic(pipe):
        told, unit, axis, digits = (
            f"The critic gives your drawing **{signed(said, 2)}**",
            "",
            "the critic's value",
            1,
        )
    else:
        told, unit = f"The discriminator takes your drawing for real with **{said:.0f}%**", "%"
        axis, digits = "confidence in per cent", 0
    ranked = ""
    if real is not None:  # what it says of two classes has no scale in common; a rank among real digits of one has
        own = real.view(classes, -1, *real.shape[1:])[wanted]
        below = int((verdicts(pipe, own, [wanted] * len(own)) < said).sum())
        ranked = f" Of {len(own)} real digits{of_class} it takes {below} for less real than it."
    text = (
        f"{reads}{told}: more than it gives {share:.0%} of {JUDGED} samples of its own generator{of_class} (on average "
        f"{mean}{unit}).{ranked}\n\nIt has only ever learned to tell this one generator from data: it knows its habits, and is no "
        "judge of other pictures."
    )
    marks = [("your drawing", said)]
    figure = histogram(samples.tolist(), marks, f"{axis}; bars: {JUDGED} samples", digits=digits)
    return figure, text, upscale(pipe.image_processor.postprocess(x)[0], 196)


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("Ask the discriminator") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            pad = Pad(example_digits()[3], label="Draw a digit", elem_id="pad")
            label = class_control("class-ask")
            ask = buttons("Is it real?", "ask")
            examples = examples_gallery("examples")
        with gr.Column(scale=3, min_width=300):
            answer = gr.Markdown(elem_id="answer")
            figure = gr.HTML(elem_id="figure", min_height=240)
            seen = result_image("What it saw", "seen")
    asked = job(ask, gan_confidence, [model, label, pad], [figure, answer, seen])
    pad.input(gan_confidence, *asked, trigger_mode="always_last", show_progress="hidden", **QUIET)
    examples.select(chosen_example, None, pad, **QUIET).success(gan_confidence, *asked, **QUIET)
    model.change(offer_classes_of, model, label, **QUIET)
    if MODELS.first:
        demo.load(offer_classes_of, model, label, **QUIET)
        opening(tab).success(gan_confidence, *asked, **QUIET)  # not empty when it is opened
