"""The tab that encodes what is drawn and decodes it again."""

import gradio as gr
from kit.charts import signed
from kit.classes import labels_for
from kit.controls import class_control, result_image
from kit.digits import chosen_example, digit_tensor, examples_gallery
from kit.jobs import buttons, job, one_job
from kit.lazy import LazyModule
from kit.pictures import Pad, upscale
from PIL import Image
from vae_common import MODELS, QUIET, offer_classes_of

torch = LazyModule("torch")


@one_job
def vae_reconstruct(model: str, label: str, picture: Image.Image | None) -> tuple[Image.Image, Image.Image, str]:
    """Encode a picture of a digit and decode it again.

    Args:
        model: one of the page's models.
        label: the class given to a conditional model; "any" takes the likeliest.
        picture: an image file with one digit, dark on light or light on dark.

    Returns:
        What the model saw, its reconstruction, and the two terms of the bound in nats.
    """
    pipe = MODELS[model]
    x = digit_tensor(pipe, picture)
    labels, note = labels_for(pipe, x, label)
    terms = pipe.elbo_terms(x, 64, labels, torch.Generator().manual_seed(0))
    rec, kl = (float(term[0].sum()) for term in terms)  # of a hierarchy there is a KL for each level
    again = pipe.reconstruct(x, class_labels=labels).images[0]
    seen = pipe.image_processor.postprocess(x)[0]
    text = (
        f"### ELBO {signed(rec - kl)} nats\n{note}\n\n"
        "| reconstruction: how well z redraws it | − KL: what z costs |\n|---|---|\n"
        f"| {signed(rec)} | {signed(-kl)} |"
    )
    return upscale(seen, 336), upscale(again, 336), text


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("Reconstruct"), gr.Row():
        with gr.Column(scale=2, min_width=300):
            pad = Pad(label="Draw a digit", elem_id="pad")
            label = class_control()
            encode = buttons("Encode and decode", "encode")
            examples = examples_gallery("examples")
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                seen = result_image("Original", "seen", min_width=140)
                again = result_image("Reconstruction", "again", min_width=140)
            terms = gr.Markdown(elem_id="terms")
    encoded = job(encode, vae_reconstruct, [model, label, pad], [seen, again, terms])
    pad.input(vae_reconstruct, *encoded, trigger_mode="always_last", **QUIET)
    examples.select(chosen_example, None, pad, **QUIET).success(vae_reconstruct, *encoded, **QUIET)
    model.change(offer_classes_of, model, label, **QUIET)
    if MODELS.first:
        demo.load(offer_classes_of, model, label, **QUIET)
