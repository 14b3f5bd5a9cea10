"""The adversarial Space: sample, ten digits in one style, walk between codes, ask the discriminator, find a code, and the
laboratory that shows why such training fails."""

from __future__ import annotations  # torch.Tensor is named before torch is there

from collections.abc import Iterator

import experiments
import gradio as gr
import numpy as np
from kit.bounds import MAX_SEED, bounded, class_of, seed_of, whole
from kit.charts import histogram, signed
from kit.controls import class_control, count_control, offer_classes, result_image, seed_controls, temperature_control
from kit.digits import as_digit, chosen_example, example_digits, examples_gallery
from kit.errors import user_error
from kit.jobs import buttons, job, one_job, unhurried
from kit.lazy import LazyModule
from kit.models import Models
from kit.pictures import Pad, grid, upscale
from kit.theme import MATH, explanation, launch, page
from PIL import Image

torch = LazyModule("torch")

TITLE = "Adversarial networks"
SENTENCE = "A generator invents images, a discriminator tells them from real ones, and each learns from the other."
BRANCH = "adversarial"  # where the family tree puts it
MODELS = Models(("cgan-mnist", "wgan-gp-mnist", "gan-mnist", "gan-digits"))
MAX_COUNT, MAX_STYLES, MAX_FRAMES = 64, 12, 48
FRAME_SECONDS = 0.12  # between two images of a walk: slow enough to follow
JUDGED = 300  # samples that a judgement is compared with

THEORY = r"""
Two networks play against each other. The **generator** $G$ turns random numbers $z$ into an image, the **discriminator**
$D$ says how probable it is that an image is real:

$$\min_G \max_D \; \mathbb{E}_{x} \log D(x) + \mathbb{E}_{z} \log(1 - D(G(z)))$$

In practice the generator raises $\log D(G(z))$ instead, which moves it when $D$ is sure (*non-saturating*). A
**Wasserstein** GAN has a **critic**, whose values have no bounds: what they differ by on data and on samples estimates how
far apart the two are, as long as it is nowhere steeper than 1. A penalty that pulls its slope to 1 sees to that:

$$\max_C \; \mathbb{E}_{x}\, C(x) - \mathbb{E}_{z}\, C(G(z)) - \lambda\, \mathbb{E}_{\hat x} (\|\nabla C(\hat x)\| - 1)^2$$

A **conditional** GAN gives the class to both. None of them can say how probable an image is: what $G$ draws lies on a
surface of at most as many dimensions as $z$ has, and on all other images there is nothing to compute.

Goodfellow et al., *Generative Adversarial Networks*, [arXiv 1406.2661](https://arxiv.org/abs/1406.2661); the penalty:
Gulrajani et al., [arXiv 1704.00028](https://arxiv.org/abs/1704.00028); classes: Mirza and Osindero,
[arXiv 1411.1784](https://arxiv.org/abs/1411.1784).
"""


def pipe_of(model: str):
    """The pipeline of a GAN of images."""
    pipe = MODELS[model]
    if pipe.likelihood != "implicit" or not hasattr(pipe, "discriminate"):
        raise user_error(f"{model} is no generative adversarial network.")
    if pipe.data_spec["kind"] != "image":
        raise user_error(f"{model} draws points and no images, which this page cannot show.")
    return pipe


def classes_of(pipe) -> int:
    return pipe.data_spec["num_classes"] if pipe.generator.config.conditional else 0


def is_critic(pipe) -> bool:
    return pipe.discriminator.config.output == "critic"


def as_input(pipe, picture: Image.Image | None) -> torch.Tensor:
    """A drawing as the model takes it: (1, 1, H, W) in [0, 1]."""
    channels, height, width = pipe.data_spec["shape"]
    if channels != 1 or height != width:
        raise user_error(
            f"This model's images are {width} x {height} in {channels} colours; it takes no drawing in one."
        )
    digit = as_digit(picture, pipe.data_spec["shape"][1])
    return torch.from_numpy(np.asarray(digit, dtype=np.float32) / 255)[None, None]


def judged(pipe, x: torch.Tensor, labels: torch.Tensor | list | None) -> torch.Tensor:
    """What the discriminator says, (B,): a probability in per cent, or a critic's value."""
    value = pipe.discriminate(x, labels)
    return value if is_critic(pipe) else 100 * value


def one_code(pipe, seed: int) -> torch.Tensor:
    return torch.randn(1, pipe.latent_dim, generator=torch.Generator().manual_seed(seed))


@one_job
def gan_sample(
    model: str, label: str, count: int, temperature: float, seed: int, new_seed: bool
) -> Iterator[tuple[Image.Image, str, int]]:
    """Draw images from a generative adversarial network.

    Args:
        model: one of the page's models.
        label: "any", or the class of all images ("0" to "9") for a conditional model.
        count: how many, 1 to 64.
        temperature: the standard deviation of z, 0 to 2.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        The images in one grid, what the discriminator says of them, and the seed that made them.
    """
    pipe = pipe_of(model)
    count = whole("count", count, 1, MAX_COUNT)
    temperature = float(bounded("temperature", temperature, 0, 2))
    seed = seed_of(seed, new_seed)
    steps = pipe.stream(
        batch_size=count,
        class_labels=class_of(label, classes_of(pipe)),
        temperature=temperature,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    )
    for step in steps:
        said = judged(pipe, step.images, step.class_labels)
        if is_critic(pipe):
            mean = signed(said.mean().item(), 2)
            text = f"Its critic gives these {mean} on average; only differences mean anything."
        else:
            text = (
                f"Its discriminator takes these for real with **{said.mean():.0f}%** on average; the most convincing "
                f"one with {said.max():.0f}%, the least with {said.min():.0f}%."
            )
        yield grid(pipe.image_processor.postprocess(step.images)), text, seed


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
    pipe = pipe_of(model)
    classes = classes_of(pipe)
    if not classes:
        raise user_error(f"{model} was trained without classes; choose a model that knows them.")
    styles = whole("styles", styles, 1, MAX_STYLES)
    temperature = float(bounded("temperature", temperature, 0, 2))
    seed = seed_of(seed, new_seed)
    z = temperature * torch.randn(styles, pipe.latent_dim, generator=torch.Generator().manual_seed(seed))
    labels = [c for c in range(classes) for _ in range(styles)]
    return grid(pipe(class_labels=labels, latents=z.repeat(classes, 1)).images, columns=styles), seed


@one_job
@unhurried(FRAME_SECONDS)
def gan_interpolate(
    model: str, label: str, start: int, end: int, frames: int
) -> Iterator[tuple[Image.Image, Image.Image]]:
    """Walk from one code to another on the sphere where codes lie.

    Args:
        model: one of the page's models.
        label: the class on the way ("0" to "9"); "any" takes the 3 of a conditional model.
        start: the seed of the first code, 0 to 2147483647.
        end: the seed of the last.
        frames: how many images, 2 to 48.

    Returns:
        The image where the walk is, and all images so far; again for each.
    """
    pipe = pipe_of(model)
    frames = whole("frames", frames, 2, MAX_FRAMES)
    start, end = whole("start", start, 0, MAX_SEED), whole("end", end, 0, MAX_SEED)
    if start == end:
        raise user_error(f"start and end are both {start}: there is no way between them. Choose two seeds.")
    wanted = class_of(label, classes_of(pipe))
    if wanted is None and classes_of(pipe):
        wanted = min(3, classes_of(pipe) - 1)
    images = pipe.interpolate(one_code(pipe, start), one_code(pipe, end), frames, wanted).images
    blank = Image.new("L", images[0].size, 40)
    for number, image in enumerate(images):
        done = [*images[: number + 1], *[blank] * (frames - number - 1)]
        yield upscale(image, 280), grid(done, columns=min(frames, 12))


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
    pipe = pipe_of(model)
    x, classes = as_input(pipe, picture), classes_of(pipe)
    wanted, reads = class_of(label, classes), ""
    if classes and wanted is None:
        each = judged(pipe, x.expand(classes, -1, -1, -1), list(range(classes)))
        wanted = int(each.argmax())
        reads = f"It looks most real as a **{wanted}**. "
    said = judged(pipe, x, None if wanted is None else [wanted])[0].item()
    generator = torch.Generator().manual_seed(0)
    drawn = next(pipe.stream(JUDGED, wanted, generator=generator, output_type="pt"))
    samples = judged(pipe, drawn.images, drawn.class_labels)
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


@one_job
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
    pipe = pipe_of(model)
    x, classes = as_input(pipe, picture), classes_of(pipe)
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


def update_classes(model: str):
    return [offer_classes(classes_of(pipe_of(model)) if model else 0)] * 4


with page("Genus: adversarial networks") as demo:
    gr.Markdown(
        f"# {TITLE}\nA **generator** turns random numbers $z$ into images; a **discriminator** tries to tell them from real "
        "ones. Neither has a loss that only falls. See what comes of it, and in the laboratory why it so often fails.",
        latex_delimiters=MATH,
        elem_classes="lead",
    )
    model = MODELS.control()
    knowing = [name for name in MODELS if name.startswith("cgan")]  # by its name: nothing is loaded yet
    with gr.Tab("Sample"), gr.Row():
        with gr.Column(scale=2, min_width=300):
            label = class_control("class")
            count, temperature = count_control(MAX_COUNT), temperature_control()
            seed, new_seed = seed_controls()
            draw = buttons("Draw samples", "draw")
            said = gr.Markdown(elem_id="said")
        with gr.Column(scale=3, min_width=300):
            samples = result_image("Samples", "samples")
    with gr.Tab("Ten digits") as digits_tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            digit_model = gr.Dropdown(
                list(MODELS), value=next(iter(knowing), MODELS.first), label="Model that knows classes"
            )
            styles = gr.Slider(1, MAX_STYLES, 8, step=1, label="Number of styles")
            temperature2 = temperature_control()
            seed2, new_seed2 = seed_controls("seed-digits")
            all_digits = buttons("Draw all digits", "digits")
            gr.Markdown("Each column is one $z$: the style stays, the digit changes.", latex_delimiters=MATH)
        with gr.Column(scale=3, min_width=300):
            sheet = result_image("One z a column, one class a row", "sheet")
    with gr.Tab("Walk") as walk_tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            label3 = class_control("class-walk")
            with gr.Row():
                start = gr.Number(1, label="From seed", precision=0, min_width=120)
                end = gr.Number(2, label="To seed", precision=0, min_width=120)
            frames = gr.Slider(2, MAX_FRAMES, 24, step=1, label="Number of images")
            go = buttons("Walk", "walk", stop=True)
            gr.Markdown(
                "The way is on the sphere: in so many dimensions nearly all $z$ have the same length, and on a straight line "
                "between two of them the generator would be asked for what it has never seen.",
                latex_delimiters=MATH,
            )
        with gr.Column(scale=3, min_width=300):
            frame = result_image("On the way", "frame")
            strip = result_image("All of it", "strip")
    with gr.Tab("Ask the discriminator") as ask_tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            pad = Pad(example_digits()[3], label="Draw a digit", elem_id="pad")
            label4 = class_control("class-ask")
            ask = buttons("Is it real?", "ask")
            examples = examples_gallery("examples")
        with gr.Column(scale=3, min_width=300):
            answer = gr.Markdown(elem_id="answer")
            figure = gr.HTML(elem_id="figure", min_height=240)
            seen = result_image("What it saw", "seen")
    with gr.Tab("Find z") as find_tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            pad2 = Pad(example_digits()[7], label="Draw a digit", elem_id="pad-find")
            label5 = class_control("class-find")
            seed5 = gr.Number(0, label="Seed", precision=0)
            find = buttons("Find its z", "find")
            examples2 = examples_gallery("examples-find")
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                target = result_image("Your drawing", "target", min_width=140)
                nearest = result_image("The nearest that G draws", "nearest", min_width=140)
            residual = gr.Markdown(elem_id="residual")
    with gr.Tab("Laboratory") as laboratory_tab:
        experiments.tabs(laboratory_tab)
    explanation(THEORY)

    drawn = job(draw, gan_sample, [model, label, count, temperature, seed, new_seed], [samples, said, seed])
    together = job(all_digits, gan_digits, [digit_model, styles, temperature2, seed2, new_seed2], [sheet, seed2])
    walked = job(go, gan_interpolate, [model, label3, start, end, frames], [frame, strip])
    asked = job(ask, gan_confidence, [model, label4, pad], [figure, answer, seen])
    found = job(find, gan_find, [model, label5, pad2, seed5], [target, nearest, residual])

    # what happens without a button; the handlers are the same, so the API names them once
    quiet = {"api_visibility": "private"}
    pad.input(gan_confidence, *asked, trigger_mode="always_last", show_progress="hidden", **quiet)
    examples.select(chosen_example, None, pad, **quiet).success(gan_confidence, *asked, **quiet)
    examples2.select(chosen_example, None, pad2, **quiet)
    changed = [label, label3, label4, label5]
    model.change(update_classes, model, changed, **quiet).success(gan_sample, *drawn, **quiet)
    if MODELS.first:
        # no tab is empty when it is opened
        walk_tab.select(gan_interpolate, *walked, **quiet)
        ask_tab.select(gan_confidence, *asked, **quiet)
        find_tab.select(gan_find, *found, **quiet)
        demo.load(update_classes, model, changed, **quiet).success(gan_sample, *drawn, **quiet)
    if knowing:
        digits_tab.select(gan_digits, *together, **quiet)

if __name__ == "__main__":
    launch(demo)
