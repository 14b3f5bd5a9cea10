"""The tab that asks how likely a drawing is."""

from collections.abc import Iterator
from functools import lru_cache

import gradio as gr
import numpy as np
from kit.bounds import ANY, whole
from kit.charts import histogram, signed
from kit.classes import labels_for
from kit.digits import chosen_example, digit_tensor, example_digits, examples_gallery
from kit.jobs import buttons, job, one_job
from kit.lazy import LazyModule
from kit.models import num_classes
from kit.pictures import Pad
from PIL import Image
from vae_common import MODELS, QUIET

torch = LazyModule("torch")
MAX_IMPORTANCE = 5000


@lru_cache(maxsize=8)
def own_bounds(model: str) -> np.ndarray:
    """ELBOs of 128 images that the model drew itself, for comparison: (128,), nats."""
    pipe = MODELS[model]
    generator = torch.Generator().manual_seed(0)
    labels = [i % num_classes(pipe) for i in range(128)] if num_classes(pipe) else None
    x = pipe(128, labels, decoder_output="sample", generator=generator, output_type="pt").images
    if pipe.data_spec["support"] != "binary":
        x = (x * 255).round() / 255
    return pipe.elbo(x, 4, labels, generator).numpy()


@one_job(cost="heavy")
def vae_how_likely(
    model: str,
    picture: Image.Image | None,
    num_samples: int,
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> Iterator[tuple[str, str]]:
    """How likely the model finds a picture: its bound, and an estimate of log p(x) that tightens with more samples.

    Args:
        model: one of the page's models.
        picture: an image file with one digit.
        num_samples: importance samples, 10 to 5000.

    Returns:
        A figure (SVG) of the picture's bound among those of the model's own samples, and the estimates in nats.
    """
    pipe = MODELS[model]
    num_samples = whole("num_samples", num_samples, 10, MAX_IMPORTANCE)
    x = digit_tensor(pipe, picture)
    labels, note = labels_for(pipe, x, ANY)
    own = own_bounds(model)
    generator = torch.Generator().manual_seed(0)
    bound = float(pipe.elbo(x, 64, labels, generator)[0])
    empty = float(pipe.elbo(torch.zeros_like(x), 16, labels, generator)[0])
    shuffled = x.flatten()[torch.randperm(x.numel(), generator=generator)].view(x.shape)
    worse = signed(float(pipe.elbo(shuffled, 16, labels, generator)[0]), 0)
    marks = [("yours", bound), ("an empty image", empty)]
    figure = histogram(own, marks, "ELBO in nats; bars: images the model drew itself")
    share = float((own < bound).mean())
    head = (
        f"### ELBO {signed(bound)} nats\n{note}{share:.0%} of the model's own samples are less likely than yours. "
        f"The same pixels in random order would get {worse} nats."
    )
    total, done = -np.inf, 0
    while done < num_samples:
        # each round doubles the samples, so that the estimates can be watched closing in
        more = min(max(10, done), num_samples - done)
        total = np.logaddexp(total, float(pipe.log_prob(x, more, labels, generator)[0]) + np.log(more))
        done += more
        progress((done, num_samples), unit="samples")
        given = "x|c" if labels else "x"
        yield (
            figure,
            f"{head}\n\nlog p({given}) is at least about **{signed(total - np.log(done))} nats** ({done:,} samples)",
        )


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("How likely"), gr.Row():
        with gr.Column(scale=2, min_width=300):
            pad = Pad(example_digits()[2], label="Draw a digit", elem_id="pad-likely")
            importance = gr.Slider(10, MAX_IMPORTANCE, 1000, step=10, label="Importance samples")
            ask = buttons("How likely is it?", "ask", stop=True)
            examples = examples_gallery("examples-likely")
        with gr.Column(scale=3, min_width=300):
            answer = gr.Markdown(elem_id="answer")
            figure = gr.HTML(elem_id="figure", min_height=240)
            gr.Markdown(
                "Why is an empty image so likely? A single simple picture can hold more probability than any one digit: "
                "there are many digits to share theirs."
            )
    job(ask, vae_how_likely, [model, pad, importance], [figure, answer])
    examples.select(chosen_example, None, pad, **QUIET)
