"""Sampling: codes out of N(0, I) beside codes out of their own density."""

from collections.abc import Iterator

import autoencoders_views as views
import gradio as gr
from autoencoders_models import (
    FACTS,
    OBJECTIVES,
    autoencoder,
    autoencoders,
    code_size,
    first_of,
    model_choice,
    objective_of,
    prior_of,
    say_missing,
    titled,
)
from kit.bounds import class_of, seed_of, whole
from kit.charts import signed
from kit.controls import class_control, count_control, offer_classes, result_image, seed_controls
from kit.errors import user_error
from kit.jobs import buttons, job, one_job, opening
from kit.lazy import LazyModule
from kit.pictures import grid
from kit.theme import MATH
from kit.words import escaped
from PIL import Image

torch = LazyModule("torch")

# where nothing says how codes are distributed there is nothing to draw from
OFFERED = [n for n in autoencoders("sample") if prior_of(n) or FACTS[n].setting("code_prior")]
MAX_COUNT = 36


def own_density(name: str) -> str:
    """What a model draws its codes from, in words."""
    prior, code_prior = prior_of(name), FACTS[name].setting("code_prior")
    if prior:
        kind = "a kernel density" if "num_points" in prior else "a Gaussian mixture"
        return f"{kind} fitted to its codes" + (", one a class" if FACTS[name].num_classes else "")
    shapes = {"gaussian": "N(0, I)", "ring": "a ring", "ball": "a ball"}
    return f"{shapes.get(str(code_prior)) or escaped(str(code_prior))}, which its codes were drawn to"


def draw_both(name: str, count: int, label: int | None, seed: int) -> tuple:
    """Images from codes out of N(0, I), those codes, and images from codes of the model's own density."""
    pipe = autoencoder(name)
    z = torch.randn(count, code_size(name), generator=torch.Generator().manual_seed(seed))
    step = next(pipe.stream(batch_size=count, class_labels=label, generator=torch.Generator().manual_seed(seed)))
    return pipe.decode(z).images, z, step.images


@one_job
def autoencoder_sample(
    model: str, label: str, count: int, seed: int, new_seed: bool
) -> tuple[Image.Image, Image.Image, str, int]:
    """Draw codes from N(0, I) and from the density of an autoencoder's codes, and decode both.

    Args:
        model: one of the page's autoencoders.
        label: "any", or the class of all images ("0" to "9") where the density knows the classes.
        count: how many of each, 1 to 36.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        The images of the codes from N(0, I), those of the model's own codes, what differs, and the seed.
    """
    pipe = autoencoder(model)
    if pipe.likelihood == "none":
        raise user_error(f"{model} has no density of its codes: there is nothing to draw from but N(0, I).")
    count, wanted = whole("count", count, 1, MAX_COUNT), class_of(label, FACTS[model].num_classes)
    seed = seed_of(seed, new_seed)
    blind, z, own = draw_both(model, count, wanted, seed)
    text = (
        f"**{OBJECTIVES[objective_of(model)].title}**: codes of {z.shape[1]} numbers, drawn from {own_density(model)}."
    )
    if pipe.prior is not None:
        many = torch.randn(500, z.shape[1], generator=torch.Generator().manual_seed(0))
        made = next(pipe.stream(batch_size=500, generator=torch.Generator().manual_seed(0), output_type="pt")).latents
        far, near = (float(pipe.prior.log_prob(c, None).mean()) for c in (many, made))
        text += (
            f" It gives its own codes a log density of **{signed(near)}** nats on average, those from N(0, I) "
            f"**{signed(far)}**" + (": they lie where the decoder has never been." if far < near - 3 else ".")
        )
    elif FACTS[model].setting("code_prior") == "gaussian":
        text += " Both pictures are drawn from the same: the codes were trained to be N(0, I)."
    return grid(blind, width=420), grid(own, width=420), text, seed


@one_job
def autoencoder_compare(label: str, seed: int) -> Iterator[str]:
    """Samples of every autoencoder with one seed: codes from N(0, I) beside codes from the model's own density.

    Args:
        label: "any", or the class ("0" to "9") for those whose density knows the classes.
        seed: 0 to 2147483647.

    Returns:
        The samples (HTML), a card for each model; again for each.
    """
    seed, made = seed_of(seed, False), []
    first_of(OFFERED, "ae-mnist")
    names = [name for name in OFFERED if code_size(name) != 2] or OFFERED
    for name in names:
        blind, _, own = draw_both(name, 9, class_of(label, FACTS[name].num_classes), seed)
        left, right = (grid(images, width=200) for images in (blind, own))
        density = own_density(name)
        note = f"{density[0].upper()}{density[1:]}."
        made.append(views.pair(titled(names)[name], note, ("z from N(0, I)", left), ("z from its density", right)))
        yield views.pairs(made)


def update_class(model: str):
    return offer_classes(FACTS[model].num_classes if model else 0)


def build(demo: gr.Blocks) -> None:
    """The tab, on the page `demo`."""
    with gr.Tab("Sample") as tab:
        gr.Markdown(
            "**A decoder only knows the places where codes were.** Random numbers from $\\mathcal N(0, I)$ mostly "
            "fall beside them, unless the codes were trained to be there; numbers drawn from a density of the codes "
            "do not.",
            latex_delimiters=MATH,
        )
        say_missing(OFFERED, ("plain", "sliced_wasserstein", "supervised"))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                model = model_choice("model", OFFERED)
                label = class_control("class")
                count = count_control(MAX_COUNT)
                seed, new_seed = seed_controls()
                draw = buttons("Draw samples", "draw", stop=True)
                about = gr.Markdown(elem_id="about")
            with gr.Column(scale=3, min_width=300), gr.Row():
                blind = result_image("Codes from N(0, I)", "blind", min_width=200)
                own = result_image("Codes from their density", "own", min_width=200)
        gr.Markdown("### One seed, every model")
        compared = gr.HTML(elem_id="compared", css_template=views.STRIP_CSS, html_template="${value}")

    quiet = {"api_visibility": "private"}  # the API names each handler once
    sampled = job(draw, autoencoder_sample, [model, label, count, seed, new_seed], [blind, own, about, seed])
    matched = [label, seed], compared
    seed.change(autoencoder_compare, *matched, show_progress="minimal", api_name="autoencoder_compare")
    model.change(update_class, model, label, **quiet).success(autoencoder_sample, *sampled, **quiet)
    label.change(autoencoder_sample, *sampled, **quiet).success(autoencoder_compare, *matched, **quiet)
    if OFFERED:
        opening(tab).success(update_class, model, label, **quiet).success(autoencoder_sample, *sampled, **quiet)
