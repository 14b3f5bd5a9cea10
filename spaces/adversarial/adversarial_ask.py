"""The tab that asks the discriminator about a drawing."""

import gradio as gr
from adversarial_common import MODELS, QUIET, is_critic, offer_classes_of, verdicts
from kit.bounds import class_of
from kit.charts import histogram, signed
from kit.controls import class_control, result_image
from kit.digits import chosen_example, digit_tensor, example_digits, examples_gallery
from kit.jobs import buttons, job, one_job
from kit.lazy import LazyModule
from kit.models import num_classes
from kit.pictures import Pad, upscale
from PIL import Image

torch = LazyModule("torch")
JUDGED = 300  # samples that a judgement is compared with


@one_job
def gan_confidence(model: str, label: str, picture: Image.Image | None) -> tuple[str, str, Image.Image]:
    """Ask a discriminator how real a drawing looks, beside what its generator draws.

    Args:
        model: one of the page's models.
        label: the class of the drawing ("0" to "9"); "any" takes the one in which it looks most real.
        picture: an image file with one digit.

    Returns:
        A figure (SVG) of what it says of samples, with the drawing marked; the answer; what it saw.
    """
    pipe = MODELS[model]
    x, classes = digit_tensor(pipe, picture), num_classes(pipe)
    wanted, reads = class_of(label, classes), ""
    if classes and wanted is None:
        each = verdicts(pipe, x.expand(classes, -1, -1, -1), list(range(classes)))
        wanted = int(each.argmax())
        reads = f"It looks most real as a **{wanted}**. "
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
    text = (
        f"{reads}{told}: more than it gives {share:.0%} of {JUDGED} samples of its own generator{of_class} (on average "
        f"{mean}{unit}).\n\nIt has only ever learned to tell this one generator from data: it knows its habits, and is no "
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
        tab.select(gan_confidence, *asked, **QUIET)  # not empty when it is opened
