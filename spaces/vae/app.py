"""The VAE Space: sample, reconstruct what you draw, walk through the latent space, and ask how likely a drawing is."""

from __future__ import annotations  # torch.Tensor is named before torch is there

from collections.abc import Iterator
from functools import lru_cache

import gradio as gr
import numpy as np
from kit.bounds import ANY, bounded, class_of, one_of, seed_of, whole
from kit.charts import histogram, signed
from kit.controls import class_control, count_control, offer_classes, result_image, seed_controls, temperature_control
from kit.digits import as_digit, chosen_example, example_digits, examples_gallery
from kit.errors import user_error
from kit.jobs import buttons, job, one_job, unhurried
from kit.lazy import LazyModule
from kit.models import Models
from kit.pictures import Explorer, Pad, grid, upscale
from kit.theme import MATH, explanation, launch, page
from PIL import Image

torch = LazyModule("torch")

TITLE = "Variational autoencoder"
SENTENCE = "A decoder turns random numbers into images, an encoder says which numbers made an image."
BRANCH = "autoencoders"  # where the family tree puts it
MODELS = Models(("cvae-mnist", "vae-mnist", "vae-2d-mnist", "vae-digits"))
MAX_COUNT, MAX_FRAMES, MAX_IMPORTANCE = 64, 48, 5000
FRAME_SECONDS = 0.12  # between two images of a walk: slow enough to follow
MAP_SIDE = 20

THEORY = r"""
Both nets are trained at once by raising a lower bound on the likelihood of the data, the **ELBO**:

$$\log p(x) \;\ge\; \underbrace{\mathbb{E}_{q(z|x)} \log p(x|z)}_{\text{reconstruction}}
\;-\; \underbrace{\mathrm{KL}(q(z|x)\,\|\,\mathcal N(0, I))}_{\text{cost of the code}}$$

The first term asks that $z$ keeps what is needed to redraw $x$; the second asks that codes look like the random
numbers we sample with. Likelihoods are in nats: a model that is better by 1 nat gives the image $e$ times the
probability. Lower **temperature** keeps $z$ near zero: cleaner samples, less variety.

Kingma and Welling, *Auto-Encoding Variational Bayes*, [arXiv 1312.6114](https://arxiv.org/abs/1312.6114). The estimate
of the last tab: Burda, Grosse and Salakhutdinov, [arXiv 1509.00519](https://arxiv.org/abs/1509.00519), equation 8.
"""


def classes_of(pipe) -> int:
    return pipe.data_spec["num_classes"] if pipe.vae.config.conditional else 0


def is_binary(pipe) -> bool:
    return pipe.data_spec["support"] == "binary"


def as_input(pipe, picture: Image.Image | None) -> torch.Tensor:
    """A drawing as the model takes it: (1, 1, H, W) on its support."""
    digit = as_digit(picture, pipe.data_spec["shape"][1])
    x = torch.from_numpy(np.asarray(digit, dtype=np.float32) / 255)[None, None]
    return (x > 0.5).float() if is_binary(pipe) else x


def likeliest_class(pipe, x: torch.Tensor) -> tuple[int, float]:
    """The class whose bound on log p(x|c) is highest, and its probability under the bounds."""
    generator = torch.Generator().manual_seed(0)
    bounds = torch.stack([pipe.elbo(x, 8, c, generator)[0] for c in range(classes_of(pipe))])
    best = int(bounds.argmax())
    return best, float(bounds.softmax(0)[best])


def labels_for(pipe, x: torch.Tensor, label: str) -> tuple[list[int] | None, str]:
    """The class to encode x with, the likeliest where none is chosen, and a sentence about it."""
    wanted = class_of(label, classes_of(pipe))
    if wanted is not None or not classes_of(pipe):
        return None if wanted is None else [wanted], ""
    best, probability = likeliest_class(pipe, x)
    sure = "more than 99%" if probability > 0.99 else f"{probability:.0%}"
    return [best], f"The model reads a **{best}** (probability {sure} under its bounds). "


@one_job
def vae_sample(
    model: str, label: str, count: int, temperature: float, output: str, seed: int, new_seed: bool
) -> Iterator[tuple[Image.Image, int]]:
    """Draw images from a variational autoencoder.

    Args:
        model: one of the page's models.
        label: "any", or the class of all images ("0" to "9") for a conditional model.
        count: how many, 1 to 64.
        temperature: the standard deviation of z, 0 to 2.
        output: "mean" shows the expected image, "sample" draws each pixel.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        The images in one grid, and the seed that made them.
    """
    pipe = MODELS[model]
    count = whole("count", count, 1, MAX_COUNT)
    temperature = bounded("temperature", temperature, 0, 2)
    seed = seed_of(seed, new_seed)
    steps = pipe.stream(
        batch_size=count,
        class_labels=class_of(label, classes_of(pipe)),
        temperature=float(temperature),
        decoder_output=one_of("output", output, ("mean", "sample")),
        generator=torch.Generator().manual_seed(seed),
    )
    for step in steps:
        yield grid(step.images), seed


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
    x = as_input(pipe, picture)
    labels, note = labels_for(pipe, x, label)
    rec, kl = (float(t[0]) for t in pipe.elbo_terms(x, 64, labels, torch.Generator().manual_seed(0)))
    again = pipe.reconstruct(x, class_labels=labels).images[0]
    seen = pipe.image_processor.postprocess(x)[0]
    text = (
        f"### ELBO {signed(rec - kl)} nats\n{note}\n\n"
        "| reconstruction: how well z redraws it | − KL: what z costs |\n|---|---|\n"
        f"| {signed(rec)} | {signed(-kl)} |"
    )
    return upscale(seen, 336), upscale(again, 336), text


@one_job
@unhurried(FRAME_SECONDS)
def vae_walk(
    model: str, start: Image.Image | None, end: Image.Image | None, frames: int
) -> Iterator[tuple[Image.Image, Image.Image]]:
    """Walk in a straight line from the code of one digit to that of another, decoding on the way.

    Args:
        model: one of the page's models.
        start: an image file with the first digit.
        end: an image file with the last digit.
        frames: images on the way, both ends included, 2 to 48.

    Returns:
        The present image, and all so far as a strip.
    """
    pipe = MODELS[model]
    frames = whole("frames", frames, 2, MAX_FRAMES)
    ends = [as_input(pipe, picture) for picture in (start, end)]
    labels = [labels_for(pipe, x, ANY)[0] for x in ends]
    codes = [pipe.encode(x, c) for x, c in zip(ends, labels, strict=True)]
    done = []
    for i in range(frames):
        t = i / (frames - 1)
        # a class cannot be half one and half the other: it changes in the middle
        image = pipe.decode((1 - t) * codes[0] + t * codes[1], labels[0] if t < 0.5 else labels[1]).images[0]
        done.append(image)
        yield upscale(image, 336), grid(done, columns=min(frames, 8))


@lru_cache(maxsize=32)
def map_units(model: str, label: int | None) -> tuple[int, int]:
    """The latent units of the map: of more than two, those that change the picture most, each from -1 to 1, others 0."""
    pipe = MODELS[model]
    dim = pipe.vae.config.latent_dim
    if dim == 2:
        return 0, 1
    z = torch.cat([torch.eye(dim), -torch.eye(dim)])
    high, low = pipe.decode(z, None if label is None else [label] * len(z), output_type="pt").images.chunk(2)
    order = (high - low).square().flatten(1).sum(1).argsort(descending=True)
    return int(order[0]), int(order[min(1, dim - 1)])


def plane(pipe, model: str, label: int | None, across: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Codes at places (B,), (B,) in (0, 1) of the map: equal areas hold equal probability under the prior."""
    z = torch.zeros(len(across), pipe.vae.config.latent_dim)
    for unit, place in zip(map_units(model, label), (across, 1 - down), strict=True):
        z[:, unit] = torch.special.ndtri(place.clamp(0.002, 0.998))
    return z


def map_class(pipe, label: str) -> int | None:
    """A conditional map needs a class: 3, where none is chosen."""
    return class_of(3 if label == ANY else label, classes_of(pipe))


@one_job
def vae_map(model: str, label: str) -> tuple[Image.Image, str]:
    """A map of the latent space: what each place of it decodes to.

    Args:
        model: one of the page's models; of more than two latent units, the two that change the picture most are shown.
        label: the class shown, for a conditional model.

    Returns:
        The map, and what it shows.
    """
    pipe = MODELS[model]
    wanted = map_class(pipe, label)
    ticks = (torch.arange(MAP_SIDE) + 0.5) / MAP_SIDE
    down, across = torch.meshgrid(ticks, ticks, indexing="ij")
    z = plane(pipe, model, wanted, across.flatten(), down.flatten())
    images = pipe.decode(z, None if wanted is None else [wanted] * len(z), output_type="np").images
    side = images.shape[1]
    tiles = images.reshape(MAP_SIDE, MAP_SIDE, side, side).transpose(0, 2, 1, 3).reshape(MAP_SIDE * side, -1)
    dim = pipe.vae.config.latent_dim
    text = "This model has two latent units: the map shows all that it can draw."
    if dim > 2:
        units = map_units(model, wanted)
        text = (
            f"Of {dim} latent units, {units[0]} (across) and {units[1]} (up) change the picture most; the others are 0."
        )
    return Image.fromarray((tiles * 255).round().astype(np.uint8)), text


def vae_decode_at(model: str, label: str, place: tuple[float, float]) -> tuple[Image.Image, str]:
    """Decode one place of the map.

    Args:
        model: one of the page's models.
        label: the class shown, for a conditional model.
        place: {"x": 0 to 1, "y": 0 to 1}, from the upper left corner of the map.

    Returns:
        The image, and the code that made it.
    """
    pipe = MODELS[model]
    wanted = map_class(pipe, label)
    z = plane(pipe, model, wanted, torch.tensor([place[0]]), torch.tensor([place[1]]))
    image = pipe.decode(z, None if wanted is None else [wanted]).images[0]
    return upscale(image, 336), ", ".join(f"z[{u}] = {z[0, u]:+.2f}" for u in map_units(model, wanted))


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
    classes = classes_of(pipe)
    count, temperature = whole("count", count, 1, 8), bounded("temperature", temperature, 0, 2)
    seed = seed_of(seed, new_seed)
    if not classes:
        able = [name for name in MODELS if "cvae" in name]
        hint = f"; choose {able[0]} above" if able else ""
        raise user_error(f"{model} was trained without classes, so it cannot change them{hint}.")
    note = "Each row is one z: slant, width and weight stay, the class changes."
    if one_of("source", source, ("random", "picture")) == "picture":
        x = as_input(pipe, picture)
        labels, note = labels_for(pipe, x, ANY)
        z = pipe.encode(x, labels)
        note += "Its style is kept in all ten classes."
    else:
        shape = (count, pipe.vae.config.latent_dim)
        z = temperature * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    every = list(range(classes)) * len(z)
    images = pipe.decode(z.repeat_interleave(classes, 0), every).images
    return grid(images, columns=classes), seed, note


@lru_cache(maxsize=8)
def own_bounds(model: str) -> np.ndarray:
    """ELBOs of 128 images that the model drew itself, for comparison: (128,), nats."""
    pipe = MODELS[model]
    generator = torch.Generator().manual_seed(0)
    labels = [i % classes_of(pipe) for i in range(128)] if classes_of(pipe) else None
    x = pipe(128, labels, decoder_output="sample", generator=generator, output_type="pt").images
    return pipe.elbo(x if is_binary(pipe) else (x * 255).round() / 255, 4, labels, generator).numpy()


@one_job
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
    x = as_input(pipe, picture)
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


def update_classes(model: str):
    return [offer_classes(classes_of(MODELS[model]))] * 2


def update_map_class(model: str):
    return update_classes(model)[0]


with page("Genus: variational autoencoder") as demo:
    gr.Markdown(
        f"# {TITLE}\nA **decoder** turns 2 to 40 random numbers $z$ into an image; an **encoder** goes the other way "
        "and says which $z$ could have made it. Draw samples from the first, or watch the second read your handwriting.",
        latex_delimiters=MATH,
        elem_classes="lead",
    )
    model = MODELS.control()
    with gr.Tab("Sample"), gr.Row():
        with gr.Column(scale=2, min_width=300):
            label = class_control("class")
            count, temperature = count_control(MAX_COUNT), temperature_control()
            output = gr.Radio(
                ["mean", "sample"], value="mean", label="Decoder output", info="mean: gray; sample: each pixel drawn"
            )
            seed, new_seed = seed_controls()
            draw = buttons("Draw samples", "draw", stop=True)
        with gr.Column(scale=3, min_width=300):
            samples = result_image("Samples", "samples")
    with gr.Tab("Reconstruct"), gr.Row():
        with gr.Column(scale=2, min_width=300):
            pad = Pad(label="Draw a digit", elem_id="pad")
            label2 = class_control()
            encode = buttons("Encode and decode", "encode")
            examples = examples_gallery("examples")
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                seen = result_image("Original", "seen", min_width=140)
                again = result_image("Reconstruction", "again", min_width=140)
            terms = gr.Markdown(elem_id="terms")
    with gr.Tab("Walk") as walk_tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            with gr.Row():
                start = Pad(example_digits()[3], label="From", elem_id="start", min_width=130)
                end = Pad(example_digits()[8], label="To", elem_id="end", min_width=130)
            frames = gr.Slider(2, MAX_FRAMES, 24, step=1, label="Number of images")
            go = buttons("Walk", "walk", stop=True)
            examples2 = examples_gallery("examples-walk")
            gr.Markdown("An example becomes the end of the walk, and the end its start.")
        with gr.Column(scale=3, min_width=300):
            frame = result_image("On the way", "frame")
            strip = result_image("All of it", "strip")
    with gr.Tab("Map") as map_tab, gr.Row():
        with gr.Column(scale=3, min_width=300):
            explorer = Explorer("Map of the latent space", elem_id="map")
            about_map = gr.Markdown()
        with gr.Column(scale=2, min_width=300):
            gr.Markdown("**Click and drag** on the map, or focus it and use the arrow keys.")
            map_model = gr.Dropdown(
                list(MODELS),
                value=next((name for name in MODELS if "2d" in name), MODELS.first),
                label="Model of the map",
            )
            label3 = class_control()
            live = result_image("Decoded here", "live")
            code = gr.Textbox(label="Code", interactive=False, elem_id="code")
    with gr.Tab("Styles") as styles_tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            source = gr.Radio(["random", "picture"], value="random", label="Style from")
            pad2 = Pad(example_digits()[7], label="Draw a digit", elem_id="pad-style", visible=False)
            style_count = gr.Slider(1, 8, 5, step=1, label="Number of styles")
            temperature2 = temperature_control()
            seed2, new_seed2 = seed_controls("seed-style")
            restyle = buttons("Decode every class", "restyle")
        with gr.Column(scale=3, min_width=300):
            sheet = result_image("One z a row, one class a column", "sheet")
            about_styles = gr.Markdown()
    with gr.Tab("How likely") as likely_tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            pad3 = Pad(example_digits()[2], label="Draw a digit", elem_id="pad-likely")
            importance = gr.Slider(10, MAX_IMPORTANCE, 1000, step=10, label="Importance samples")
            ask = buttons("How likely is it?", "ask", stop=True)
            examples3 = examples_gallery("examples-likely")
        with gr.Column(scale=3, min_width=300):
            answer = gr.Markdown(elem_id="answer")
            figure = gr.HTML(elem_id="figure", min_height=240)
            gr.Markdown(
                "Why is an empty image so likely? A single simple picture can hold more probability than any one digit: "
                "there are many digits to share theirs."
            )
    explanation(THEORY)

    drawn = job(draw, vae_sample, [model, label, count, temperature, output, seed, new_seed], [samples, seed])
    encoded = job(encode, vae_reconstruct, [model, label2, pad], [seen, again, terms])
    job(go, vae_walk, [model, start, end, frames], [frame, strip])
    styled = job(
        restyle,
        vae_styles,
        [model, source, pad2, style_count, temperature2, seed2, new_seed2],
        [sheet, seed2, about_styles],
    )
    job(ask, vae_how_likely, [model, pad3, importance], [figure, answer])

    # what happens without a button; the handlers are the same, so the API names them once
    quiet = {"api_visibility": "private"}
    moved = [map_model, label3, explorer], [live, code]
    mapped = [map_model, label3], [explorer, about_map]
    pad.input(vae_reconstruct, *encoded, trigger_mode="always_last", **quiet)
    explorer.input(
        vae_decode_at, *moved, trigger_mode="always_last", show_progress="hidden", queue=False, api_name="vae_decode_at"
    )
    examples.select(chosen_example, None, pad, **quiet).success(vae_reconstruct, *encoded, **quiet)
    examples2.select(lambda end: end, end, start, **quiet).then(chosen_example, None, end, **quiet)
    examples3.select(chosen_example, None, pad3, **quiet)
    source.change(lambda s: gr.HTML(visible=s == "picture"), source, pad2, **quiet)
    label3.change(vae_map, *mapped, api_name="vae_map").success(vae_decode_at, *moved, **quiet)
    model.change(update_classes, model, [label, label2], **quiet).success(vae_sample, *drawn, **quiet)
    map_model.change(update_map_class, map_model, label3, **quiet).success(vae_map, *mapped, **quiet).success(
        vae_decode_at, *moved, **quiet
    )
    # no tab is empty when it is opened
    map_tab.select(vae_map, *mapped, **quiet).success(vae_decode_at, *moved, **quiet)
    styles_tab.select(vae_styles, *styled, **quiet)
    if MODELS.first:
        demo.load(update_classes, model, [label, label2], **quiet).success(vae_sample, *drawn, **quiet)

if __name__ == "__main__":
    launch(demo)
