"""The autoencoder Space: planes of codes and their holes, sampling with a density and without, denoising, tangents, a
hierarchy of codes, and factorisation into parts and tastes."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import codeviews as views
import gradio as gr
import numpy as np
from kit.bounds import bounded, class_of, one_of, seed_of, whole
from kit.charts import curves, signed
from kit.controls import class_control, count_control, offer_classes, result_image, seed_controls, temperature_control
from kit.digits import as_digit, chosen_example, example_digits, examples_gallery
from kit.errors import user_error
from kit.jobs import buttons, job, one_job, unhurried
from kit.lazy import LazyModule
from kit.models import Models
from kit.pictures import Explorer, Pad, data_url, grid, upscale
from kit.theme import MATH, explanation, launch, page
from PIL import Image

torch = LazyModule("torch")

TITLE = "Autoencoders"
SENTENCE = "Codes of a few numbers: what they are good for, and what goes wrong where no one knows their density."
BRANCH = "autoencoders"  # where the family tree puts it
MODELS = Models(
    (
        "ae-mnist", "swae-mnist", "sae-mnist", "dae-mnist", "cae-mnist", "ae-2d-mnist", "sae-2d-mnist", "swae-2d-mnist",
        "dae-2d-mnist", "cae-2d-mnist", "hierarchical-vae-mnist", "nmf-mnist",
    )
)  # fmt: skip
OBJECTIVES = {  # by what a model's name begins with: its title, and what is asked of its codes
    "ae": ("Plain", "nothing but to bring the image back"),
    "sae": ("Supervised", "a linear classifier reads the digit from them"),
    "swae": ("Sliced Wasserstein", "they fill a shape that was chosen"),
    "dae": ("Denoising", "they forget noise that was added"),
    "cae": ("Contractive", "they move as little as they can"),
}
PLANES = ("ae-2d", "sae-2d", "swae-2d", "dae-2d", "cae-2d")
FLAT = ("ae", "swae", "sae", "dae", "cae")
SIDE, CARD_SIDE, MAP_SIDE = 640, 300, 20
VIEWS = ("codes", "decoded images", "density")
CORRUPTIONS = {"Gaussian noise": 1.0, "pixels set to 0": 0.95}  # and the most of each
HALVES = ("upper half", "lower half", "left half", "right half")
SOURCES = ("new codes", "my drawing")
MAX_COUNT, MAX_FRAMES, MAX_TANGENTS = 36, 48, 8
FRAME_SECONDS = 0.12  # between two images of a walk: slow enough to follow
NOISE_DRAWS = 8  # of each level in the curve

THEORY = r"""
An **autoencoder** is trained to bring an image back from a few numbers, its **code** $z = f(x)$:

$$\min_{f, g}\; \mathbb{E}_x \|x - g(f(x))\|^2$$

Nothing says where codes shall lie. $p(z)$ is whatever it has become, and between the codes the decoder $g$ was never
asked for anything. Three ways out: **fit a density** to the codes when training is done (here Gaussian kernels on
codes of the training set, or a Gaussian mixture; one for each class where the classes are known); **draw the codes to
a density** that was chosen, by their sliced Wasserstein distance from it, which along a random direction $\theta$ is
that of sorted numbers:

$$\lambda \; \mathbb{E}_\theta \sum_i \left(\theta^\top z_{(i)} -
\theta^\top \tilde z_{(i)}\right)^2,\qquad \tilde z \sim p(z)$$

or make **codes random** from the start, as a variational autoencoder does. What else codes can be asked for:

- **supervised**: $-\log p(y|z)$ of a linear classifier is added to the loss;
- **denoising**: the encoder sees a corrupted $\tilde x$ and must bring back $x$;
- **contractive**: $\lambda \|\partial f / \partial x\|_F^2$ is added: a code may change only where the data do. What
  is left of the Jacobian $J$ points along the data: its leading right singular vectors are **tangents** of their
  manifold.

A **hierarchical** variational autoencoder has codes above codes, $p(x|z_1)\, p(z_1|z_2) \cdots p(z_L)$: the top says
what it shall be, the levels below how. **Non-negative matrix factorisation** has no network at all:

$$X \approx W H,\qquad W \ge 0,\; H \ge 0$$

Each row of $X$ is a sum of the rows of $H$, and nothing is ever subtracted, so that they become parts. Entries that
are not known are left out of the error, and $W H$ then says what they might be: from images strokes, from ratings
tastes.

Hinton and Salakhutdinov, *Reducing the Dimensionality of Data with Neural Networks*,
[Science 313](https://doi.org/10.1126/science.1127647), 2006; sliced Wasserstein: Kolouri et al.,
[arXiv 1804.01947](https://arxiv.org/abs/1804.01947); denoising: Vincent et al.,
[ICML 2008](https://doi.org/10.1145/1390156.1390294); contractive: Rifai et al., ICML 2011, and its tangents, *The
Manifold Tangent Classifier*, NeurIPS 2011; codes above codes: Sønderby et al., [arXiv
1602.02282](https://arxiv.org/abs/1602.02282); parts: Lee and Seung, [Nature 401](https://doi.org/10.1038/44565), 1999;
missing entries: Koren, Bell and Volinsky, *Matrix Factorization Techniques for Recommender Systems*, IEEE Computer 42,
2009. """


# Models by the part they play


def role_of(name: str) -> str:
    """ae-2d-mnist -> ae-2d: by its name, since nothing is loaded yet."""
    return name.rsplit("-", 1)[0]


def of_roles(*roles: str) -> list[str]:
    """The page's models that play one of these parts, in their order."""
    return [name for role in roles for name in MODELS if role_of(name) == role]


def objective_of(name: str) -> tuple[str, str]:
    return OBJECTIVES.get(role_of(name).split("-")[0], (name, ""))


def with_missing(*roles: str) -> None:
    """A line on the page that says which of its models are not there."""
    missing = [f"`{role}-mnist`" for role in roles if not of_roles(role)]
    if missing:
        them = "it" if len(missing) == 1 else "them"
        gr.Markdown(f"Not here, since `MODEL_ID` does not name {them}: {', '.join(missing)}.")


def named(role: str) -> str:
    """The first model of a part.

    Raises:
        gr.Error: there is none.
    """
    found = of_roles(role)
    if not found:
        raise user_error(f"This needs a model like {role}-mnist: name one in MODEL_ID.")
    return found[0]


def autoencoder(name: str):
    """The pipeline of an autoencoder of square gray images."""
    pipe = MODELS[name]
    if not hasattr(pipe, "tangents"):
        raise user_error(f"{name} is no autoencoder.")
    channels, height, width = pipe.data_spec["shape"]
    if channels != 1 or height != width:
        raise user_error(f"{name} has images of {width} x {height} in {channels} colours, which this page cannot show.")
    return pipe


def hierarchy():
    return MODELS[named("hierarchical-vae")]


def factorisation():
    return MODELS[named("nmf")]


def as_input(pipe, picture: Image.Image | None) -> torch.Tensor:
    """A drawing as the model takes it: (1, 1, H, W) in [0, 1]."""
    digit = as_digit(picture, pipe.data_spec["shape"][1])
    return torch.from_numpy(np.asarray(digit, dtype=np.float32) / 255)[None, None]


def shown(pipe, x: torch.Tensor, side: int = 252) -> Image.Image:
    return upscale(pipe.image_processor.postprocess(x.clamp(0, 1))[0], side)


def classes_of(pipe) -> int:
    """How many classes the density of a model's codes knows; 0 for none."""
    return pipe.prior.config.num_classes if pipe.prior is not None and pipe.prior.config.conditional else 0


# Codes


@dataclass
class Plane:
    """Codes of a model in the plane, and a square around them.

    Attributes:
        codes: (N, 2) of images of the training set.
        classes: (N,), or None where the model does not say.
        centre: of the square; half: of its side.
        gaps: (N,), from each code to the one next to it, ascending.
        typical: the median density at the codes, as its log.
    """

    codes: torch.Tensor
    classes: np.ndarray | None
    centre: torch.Tensor
    half: float
    gaps: torch.Tensor
    typical: float

    def places(self) -> np.ndarray:
        """The codes in [0, 1], from the upper left; those outside are left out by who draws them."""
        return self.to_place(self.codes).numpy()

    def to_place(self, z: torch.Tensor) -> torch.Tensor:
        return (z - self.centre) / (2 * self.half) * torch.tensor([1.0, -1.0]) + 0.5

    def to_code(self, place: torch.Tensor) -> torch.Tensor:
        return (place - 0.5) * torch.tensor([1.0, -1.0]) * 2 * self.half + self.centre


@lru_cache(maxsize=16)
def plane_of(name: str) -> Plane:
    """The plane of a model; two sessions share it."""
    pipe = autoencoder(name)
    if pipe.autoencoder.config.latent_dim != 2 or not hasattr(pipe.prior, "points"):
        raise user_error(
            f"{name} has no plane of codes to show: it takes two dimensions, and a kernel density estimate."
        )
    codes = pipe.prior.points.detach().float()
    classes = getattr(pipe.prior, "point_classes", None)
    low, high = (torch.quantile(codes, q, dim=0) for q in (0.005, 0.995))
    distances = torch.cdist(codes.double(), codes.double()).float().fill_diagonal_(float("inf"))
    return Plane(
        codes,
        None if classes is None or not classes_of(pipe) else classes.detach().long().numpy(),
        (low + high) / 2,
        float((high - low).max()) * 0.56 + 1e-6,
        distances.min(1).values.sort().values,
        float(pipe.prior.log_prob(codes, None).median()),
    )


def inside(plane: Plane) -> tuple[np.ndarray, np.ndarray | None]:
    places = plane.places()
    kept = ((places > 0) & (places < 1)).all(1)
    return places[kept], None if plane.classes is None else plane.classes[kept]


@lru_cache(maxsize=16)
def plane_card(name: str) -> dict:
    title, asked = objective_of(name)
    picture = views.scatter(*inside(plane_of(name)), CARD_SIDE, radius=1.4, badges=False)
    return views.card(name, title, asked, views.small(picture))


@lru_cache(maxsize=48)
def ground(name: str, view: str) -> Image.Image:
    """The picture that one moves over."""
    pipe, plane = autoencoder(name), plane_of(name)
    if view == "codes":
        return views.small(views.scatter(*inside(plane), SIDE))
    side = MAP_SIDE if view == "decoded images" else 100
    ticks = (torch.arange(side) + 0.5) / side
    down, across = torch.meshgrid(ticks, ticks, indexing="ij")
    z = plane.to_code(torch.stack([across.flatten(), down.flatten()], 1))
    if view == "density":
        share = (pipe.prior.log_prob(z, None) - plane.typical).exp().clamp(max=2).div(2).sqrt()
        return views.small(views.haze(share.view(side, side).numpy(), SIDE))
    images = pipe.decode(z, output_type="np").images[..., 0]
    size = images.shape[1]
    tiles = images.reshape(side, side, size, size).transpose(0, 2, 1, 3).reshape(side * size, side * size)
    return Image.fromarray((tiles * 255).round().astype(np.uint8))


# no job of the session's: it runs while the page opens, and whoever goes to another tab meanwhile need not wait for it
def autoencoder_codes() -> Iterator[dict]:
    """Codes of training digits in the plane, for each model with codes of two numbers.

    Returns:
        A card for each model: its name, its objective, and a picture of its codes by class; again for each.
    """
    names = of_roles(*PLANES)
    if not names:
        named(PLANES[0])
    cards = []
    for name in names:
        cards.append(plane_card(name))
        yield {"cards": list(cards), "chosen": names[0]}


def autoencoder_plane(model: str, view: str, place: tuple[float, float]) -> dict:
    """The plane of codes of a model, as a picture to move over.

    Args:
        model: one with codes of two numbers.
        view: "codes" by class, "decoded images" of places all over it, or the "density" of the codes.
        place: {"x": 0 to 1, "y": 0 to 1}, where the marker stands.

    Returns:
        The picture and the marker.
    """
    picture = ground(chosen_plane(model), one_of("view", view, VIEWS))
    return {"x": place[0], "y": place[1], "url": data_url(picture)}


def chosen_plane(model: str | None) -> str:
    """A model of the plane, the first where none is chosen."""
    return one_of("model", model or named(PLANES[0]), of_roles(*PLANES) or [named(PLANES[0])])


def autoencoder_decode_at(model: str, place: tuple[float, float]) -> tuple[Image.Image, str]:
    """Decode one place of a plane of codes, and say how far it is from any code.

    Args:
        model: one with codes of two numbers.
        place: {"x": 0 to 1, "y": 0 to 1}, from the upper left corner.

    Returns:
        The decoded image; the code, the distance to the nearest code of a training digit, and the density there.
    """
    name = chosen_plane(model)
    pipe, plane = autoencoder(name), plane_of(name)
    z = plane.to_code(torch.tensor([place]))
    distance, nearest = torch.cdist(z, plane.codes)[0].min(0)
    usual = float(plane.gaps[len(plane.gaps) // 2])
    ratio = float((pipe.prior.log_prob(z, None)[0] - plane.typical).exp())
    if ratio >= 0.25:
        verdict = "Among the codes."
    else:
        verdict = "Codes are thin here." if ratio >= 0.03 else "A hole: hardly a code is near."
    of_a = "" if plane.classes is None else f", a **{plane.classes[int(nearest)]}**,"
    density = f"{ratio:.2g} times" if ratio >= 1e-6 else "less than a millionth of"
    text = (
        f"### {verdict}\nCode ({signed(float(z[0, 0]), 2)}, {signed(float(z[0, 1]), 2)}). The nearest code of a "
        f"training digit{of_a} is **{float(distance):.2g}** away; half of the codes have one within {usual:.2g}. The "
        f"density here is **{density}** that at a typical code."
    )
    if pipe.classifies:
        with torch.no_grad():
            share = pipe.autoencoder.classify(z).softmax(1)[0]
        text += f" The classifier reads a **{int(share.argmax())}** ({share.max():.0%})."
    return upscale(pipe.decode(z).images[0], 280), text


# Samples


def own_density(pipe) -> str:
    """What a model draws its codes from, in words."""
    if pipe.prior is not None:
        kind = "a kernel density" if hasattr(pipe.prior, "points") else "a Gaussian mixture"
        return f"{kind} fitted to its codes" + (", one a class" if classes_of(pipe) else "")
    shapes = {"gaussian": "N(0, I)", "ring": "a ring", "ball": "a ball"}
    return f"{shapes[pipe.autoencoder.config.code_prior]}, which its codes were drawn to"


def drawn(pipe, count: int, label: int | None, seed: int) -> tuple:
    """Images from codes out of N(0, I), those codes, and images from codes of the model's own density."""
    z = torch.randn(count, pipe.autoencoder.config.latent_dim, generator=torch.Generator().manual_seed(seed))
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
    count, wanted = whole("count", count, 1, MAX_COUNT), class_of(label, classes_of(pipe))
    seed = seed_of(seed, new_seed)
    blind, z, own = drawn(pipe, count, wanted, seed)
    text = f"**{objective_of(model)[0]}**: codes of {z.shape[1]} numbers, drawn from {own_density(pipe)}."
    if pipe.prior is not None:
        many = torch.randn(500, z.shape[1], generator=torch.Generator().manual_seed(0))
        made = next(pipe.stream(batch_size=500, generator=torch.Generator().manual_seed(0), output_type="pt")).latents
        far, near = (float(pipe.prior.log_prob(c, None).mean()) for c in (many, made))
        text += (
            f" It gives its own codes a log density of **{signed(near)}** nats on average, those from N(0, I) "
            f"**{signed(far)}**" + (": they lie where the decoder has never been." if far < near - 3 else ".")
        )
    elif pipe.autoencoder.config.code_prior == "gaussian":
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
    names = of_roles(*FLAT)
    if not names:
        named(FLAT[0])
    for name in names:
        pipe = autoencoder(name)
        if pipe.likelihood == "none":
            continue
        blind, _, own = drawn(pipe, 9, class_of(label, classes_of(pipe)), seed)
        left, right = (grid(images, width=200) for images in (blind, own))
        density = own_density(pipe)
        note = f"{density[0].upper()}{density[1:]}."
        made.append(views.pair(objective_of(name)[0], note, ("z from N(0, I)", left), ("z from its density", right)))
        yield views.pairs(made)


# Noise


def corrupted(x: torch.Tensor, kind: str, level: float, generator: torch.Generator) -> torch.Tensor:
    """x with noise of standard deviation `level`, which may leave [0, 1], or with that share of its pixels at 0."""
    if kind == "Gaussian noise":
        return x + level * torch.randn(x.shape, generator=generator)
    return x * (torch.rand(x.shape, generator=generator) >= level)


def through_code(pipe, x: torch.Tensor) -> torch.Tensor:
    """decode(encode(x)) of an x that may leave [0, 1], as noise does in training."""
    low, high = pipe.data_spec["range"]
    with torch.no_grad():
        codes = pipe.autoencoder.encode(low + (high - low) * x)
    return pipe.decode(codes, output_type="pt").images


@one_job
def autoencoder_denoise(
    picture: Image.Image | None, corruption: str, level: float, seed: int
) -> tuple[Image.Image, Image.Image, Image.Image | None, Image.Image | None, str, str]:
    """Corrupt a digit, and send it through the codes of a denoising and of a plain autoencoder.

    Args:
        picture: an image file with one digit.
        corruption: "Gaussian noise" or "pixels set to 0".
        level: the standard deviation of the noise, 0 to 1, or the share of pixels, 0 to 0.95.
        seed: of the noise, 0 to 2147483647.

    Returns:
        The original, the corrupted, what either model brings back (empty where it is missing), the errors, and a figure
        (SVG) of the errors at all levels.
    """
    one_of("corruption", corruption, CORRUPTIONS)
    most = CORRUPTIONS[corruption]
    level, seed = float(bounded("level", level, 0, most)), seed_of(seed, False)
    models = {objective_of(name)[0]: autoencoder(name) for name in of_roles("dae")[:1] + of_roles("ae")[:1]}
    if not models:
        named("dae")
    x = as_input(next(iter(models.values())), picture)
    noisy = corrupted(x, corruption, level, torch.Generator().manual_seed(seed))
    levels = [most * i / 10 for i in range(11)]
    generator = torch.Generator().manual_seed(0)
    many = torch.cat([corrupted(x.expand(NOISE_DRAWS, -1, -1, -1), corruption, v, generator) for v in levels])
    images, errors, lines = {}, {}, {}
    for title, pipe in models.items():
        images[title] = through_code(pipe, noisy)
        errors[title] = float((images[title] - x).square().mean())
        each = (through_code(pipe, many) - x).square().flatten(1).mean(1).view(len(levels), -1).mean(1)
        lines[title] = list(zip(levels, each.tolist(), strict=True))
    pipe = next(iter(models.values()))
    told = {"corrupted": float((noisy.clamp(0, 1) - x).square().mean()), **errors}
    head, values = " | ".join(told).lower(), " | ".join(f"**{v:.4f}**" for v in told.values())
    text = f"| mean squared error | {head} |\n|---|{'---|' * len(told)}\n| of this digit | {values} |"
    axis = "standard deviation of the noise" if corruption == "Gaussian noise" else "share of pixels set to 0"
    figure = curves(lines, axis, "error")
    brought = [shown(pipe, images[t]) if t in images else None for t in ("Denoising", "Plain")]
    return shown(pipe, x), shown(pipe, noisy), *brought, text, figure


# Tangents


@one_job
def autoencoder_tangents(model: str, picture: Image.Image | None) -> tuple[dict, str, str]:
    """The directions in which a digit can change and its code notices most.

    Args:
        model: one of the page's autoencoders.
        picture: an image file with one digit.

    Returns:
        A card for each tangent, red where ink comes and blue where it goes; a figure (SVG) of all singular values; and
        what they say.
    """
    pipe = autoencoder(model)
    x, dim = as_input(pipe, picture), pipe.autoencoder.config.latent_dim
    found = pipe.tangents(x, min(MAX_TANGENTS, dim))
    values = found.singular_values[0]
    cards = [
        views.card(str(i + 1), f"Tangent {i + 1}", f"σ = {v:.3g}", views.red_and_blue(t[0].numpy()))
        for i, (t, v) in enumerate(zip(found.tangents[0], values, strict=False))
    ]
    spectra = {objective_of(model)[0]: values}
    for other in of_roles("cae", "ae"):
        title, known = objective_of(other)[0], autoencoder(other)
        if title not in spectra and len(spectra) < 2 and dim > 2:
            spectra[title] = known.tangents(x, 1).singular_values[0]
    lines = {t: [(i + 1, float(v / s[0])) for i, v in enumerate(s)] for t, s in spectra.items()}
    figure = curves(lines, "singular values, the largest first", "share of the largest")
    half = int((values.square().cumsum(0) < 0.5 * values.square().sum()).sum()) + 1
    ways = "direction has" if half == 1 else "directions have"
    text = (
        f"The code has {dim} numbers; **{half}** {ways} half of all its squared motion (σ is the singular value). "
        f"**Red** is ink that comes, **blue** ink that goes, or the other way round. Choose one to walk along it."
    )
    return {"cards": cards, "chosen": "1"}, figure, text


@one_job
@unhurried(FRAME_SECONDS)
def autoencoder_walk(
    model: str, picture: Image.Image | None, tangent: str, length: float, frames: int
) -> Iterator[tuple[Image.Image, Image.Image]]:
    """Walk from a digit along a tangent, to both sides.

    Args:
        model: one of the page's autoencoders.
        picture: an image file with one digit.
        tangent: which, by its number: "1" is the leading one.
        length: how far to each side, 0.5 to 8, in units of x (a digit's own norm is about 9).
        frames: how many images, 3 to 48.

    Returns:
        The image where the walk is, and all images so far; again for each.
    """
    pipe = autoencoder(model)
    length, frames = float(bounded("length", length, 0.5, 8)), whole("frames", frames, 3, MAX_FRAMES)
    most = min(MAX_TANGENTS, pipe.autoencoder.config.latent_dim)
    number = int(one_of("tangent", tangent or "1", [str(i + 1) for i in range(most)]))
    x = as_input(pipe, picture)
    way = pipe.tangents(x, number).tangents[0, number - 1]
    images = pipe.walk(x, way, frames, length).images
    blank = Image.new("L", images[0].size, 40)
    for i, image in enumerate(images):
        done = [*images[: i + 1], *[blank] * (frames - i - 1)]
        yield upscale(image, 252), grid(done, columns=math.ceil(math.sqrt(frames)), width=420)


# Levels


@one_job
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
        x = as_input(pipe, picture)
        x = (x > 0.5).float() if pipe.data_spec["support"] == "binary" else x
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


# Parts


@one_job
def autoencoder_parts(picture: Image.Image | None, most: int) -> tuple[Image.Image, str, str]:
    """Write a digit as a sum of parts, none of them subtracted.

    Args:
        picture: an image file with one digit.
        most: how many of its largest parts are shown, 1 to 10.

    Returns:
        All parts; the sum (HTML); and how many parts it takes.
    """
    pipe, most = factorisation(), whole("most", most, 1, 10)
    x = as_input(pipe, picture)
    weights, parts = pipe.transform(x)[0], pipe.parts()
    # a part is shown with its largest entry at 1: its weight is what that entry becomes
    scaled = weights * pipe.nmf.parts.float().amax(1)
    order = scaled.argsort(descending=True)
    used = int((scaled > 0.01).sum())
    terms = [(float(scaled[k]), upscale(parts[int(k)], 112)) for k in order[: min(most, used)]]
    again = pipe.decode(weights[None]).images[0]
    error = float(pipe.reconstruction_error(x)[0])
    text = f"It takes **{used}** of {len(parts)} parts; the mean squared error of the sum is {error:.4f}."
    return grid(parts), views.weighted_sum(terms, max(0, used - most), upscale(again, 112)), text


@one_job
def autoencoder_complete(picture: Image.Image | None, known: str) -> tuple[Image.Image, Image.Image, Image.Image, str]:
    """Fill in half of a digit from the parts that the other half shows.

    Args:
        picture: an image file with one digit.
        known: "upper half", "lower half", "left half" or "right half".

    Returns:
        What is known, the completed digit, the original, and the error in what was hidden.
    """
    pipe = factorisation()
    x, half = as_input(pipe, picture), pipe.data_spec["shape"][1] // 2
    one_of("known", known, HALVES)
    mask = torch.zeros(x.shape[1:], dtype=torch.bool)
    places = {"upper": (slice(half), slice(None)), "lower": (slice(half, None), slice(None))}
    places |= {"left": (slice(None), slice(half)), "right": (slice(None), slice(half, None))}
    mask[(slice(None), *places[known.split()[0]])] = True
    if not (x[0] * mask).any():
        raise user_error(f"There is nothing in the {known}: choose the other, or draw something there.")
    filled = pipe.complete(x, mask, output_type="pt").images
    paper = np.asarray(shown(pipe, x, x.shape[3]).convert("RGB")).copy()
    paper[~mask[0].numpy()] = views.ACCENT  # what is not known, in the accent colour
    hidden = ~mask.expand_as(x)
    error, nothing = (float((guess - x)[hidden].square().mean()) for guess in (filled, torch.zeros_like(x)))
    text = f"Mean squared error in the hidden half **{error:.4f}**; with nothing there it would be {nothing:.4f}."
    return upscale(Image.fromarray(paper), 252), shown(pipe, filled), shown(pipe, x), text


# Tastes


@one_job
def autoencoder_tastes(
    ratings: views.Table, factors: int, penalty: float, person: str, seed: int
) -> tuple[str, str, str, str]:
    """Factorise a table of ratings, fill in what is missing, and recommend.

    Args:
        ratings: {"people": names, "dishes": names, "ratings": a row for each person, null where there is none}, 0 to 5.
        factors: how many tastes, 1 to 6.
        penalty: of large numbers, 0 to 5: with few ratings it keeps the table from being learned by heart.
        person: for whom to recommend.
        seed: of the numbers it starts from, 0 to 2147483647.

    Returns:
        The recommendations; the completed table, what was filled in marked; what each taste likes, and how much each
        person has of it (HTML).
    """
    people, dishes, known = ratings
    factors = whole("factors", factors, 1, min(6, *known.shape))
    penalty, seed = float(bounded("penalty", penalty, 0, 5)), seed_of(seed, False)
    one_of("person", person, people)
    rated = ~np.isnan(known)
    for name, has in zip(people, rated.any(1), strict=True):
        if not has:
            raise user_error(f"{name} has rated nothing yet: one rating is needed to guess the others from.")
    for name, has in zip(dishes, rated.any(0), strict=True):
        if not has:
            raise user_error(f"No one has rated {name} yet: one rating is needed to guess the others from.")
    if not known[rated].any():
        raise user_error("All ratings are 0: there is nothing that anyone likes.")
    pipe = factorisation()
    for step in type(pipe.nmf).fit_steps(torch.from_numpy(known), factors, penalty, max_iter=500, seed=seed):
        last = step
    weights, parts = last.weights.numpy(), last.parts.numpy()
    # what a taste gives the dish that it likes best is called 5; the rest is how much of it a person has
    best = np.maximum(parts.max(1), 1e-12) / views.MOST_STARS
    parts, weights = parts / best[:, None], weights * best
    filled, row = np.clip(weights @ parts, 0, views.MOST_STARS), people.index(person)
    missing = [j for j in np.argsort(-filled[row]) if not rated[row, j]][:3]
    if missing:
        listed = "\n".join(f"{n}. **{dishes[j]}**, expected {filled[row, j]:.1f}" for n, j in enumerate(missing, 1))
    else:
        listed = f"{person} has rated everything."
    text = (
        f"### For {person}\n{listed}\n\nOn the {int(rated.sum())} known ratings it is off by {last.error:.2f} (root "
        f"mean square) after {last.step + 1} rounds; {int((~rated).sum())} were filled in."
    )
    names = [f"Taste {k + 1}" for k in range(factors)]
    table = views.completed_table(people, dishes, known, filled, person)
    return text, table, views.liking_table(dishes, names, parts.T), views.liking_table(people, names, weights)


def update_class(model: str):
    return offer_classes(classes_of(autoencoder(model)) if model else 0)


def update_keep():
    levels = hierarchy().num_levels
    return gr.Slider(1, max(2, levels - 1), 1, step=1, visible=levels > 2)


def model_choice(elem_id: str, *roles: str, label: str = "Model") -> gr.Dropdown:
    choices = of_roles(*roles)
    return gr.Dropdown(choices, value=next(iter(choices), None), label=label, elem_id=elem_id)


def most_of(corruption: str):
    most = CORRUPTIONS[one_of("corruption", corruption, CORRUPTIONS)]
    return gr.Slider(0, most, 0.5, step=0.05)


with page("Genus: autoencoders") as demo:
    gr.Markdown(
        f"# {TITLE}\nAn **encoder** squeezes an image into a few numbers, its **code**; a **decoder** brings it back. "
        f"Codes sort, denoise and fill in. To draw new images from them one thing more is needed: to know where codes "
        f"lie.",
        latex_delimiters=MATH,
        elem_classes="lead",
    )
    if not MODELS.first:
        gr.Markdown(
            "**No model is set.** `MODEL_ID` names one or several, separated by commas: Hub ids like `user/ae-mnist`, "
            "or portable folders."
        )
    with gr.Tab("Codes"):
        gr.Markdown(
            "**Codes of two numbers can be looked at.** Each dot is the code of a training digit. All five have the "
            "same networks; what differs is what was asked of the codes. Choose one, and move over its plane below."
        )
        with_missing(*PLANES)
        cards = views.Cards("Planes of codes", width=176, elem_id="planes", min_height=120)
        gr.HTML(views.legend(), css_template=views.LEGEND_CSS)
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                view = gr.Radio(list(VIEWS), value=VIEWS[0], label="Show", elem_id="view")
                explorer = Explorer("Plane of codes", elem_id="plane", elem_classes="paper")
            with gr.Column(scale=2, min_width=300):
                gr.Markdown("**Click and drag** on the plane, or focus it and use the arrow keys. Look for **holes**.")
                live = result_image("Decoded here", "live")
                where = gr.Markdown(elem_id="where")
    with gr.Tab("Sample") as sample_tab:
        gr.Markdown(
            "**A decoder only knows the places where codes were.** Random numbers from $\\mathcal N(0, I)$ mostly "
            "fall beside them, unless the codes were trained to be there; numbers drawn from a density of the codes "
            "do not.",
            latex_delimiters=MATH,
        )
        with_missing(*FLAT)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                model = model_choice("model", *FLAT, *PLANES)
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
    with gr.Tab("Denoise") as denoise_tab:
        gr.Markdown(
            "**A code of few numbers has no room for noise**, least of all where the encoder was trained on corrupted "
            "digits and had to bring back the clean ones. It knows best the noise that it was trained with: try the "
            "other kind, too."
        )
        with_missing("dae", "ae")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                pad = Pad(example_digits()[5], label="Draw a digit", elem_id="pad")
                corruption = gr.Radio(list(CORRUPTIONS), value="Gaussian noise", label="Corruption")
                level = gr.Slider(
                    0, 1, 0.5, step=0.05, label="Level", info="standard deviation, or share of the pixels"
                )
                seed2 = gr.Number(0, label="Seed", precision=0)
                denoise = buttons("Corrupt and denoise", "denoise")
                examples = examples_gallery("examples")
            with gr.Column(scale=3, min_width=300):
                with gr.Row():
                    original = result_image("Original", "original", min_width=140)
                    noisy = result_image("Corrupted", "noisy", min_width=140)
                with gr.Row():
                    denoised = result_image("Denoising", "denoised", min_width=140)
                    plain = result_image("Plain", "plain", min_width=140)
                errors = gr.Markdown(elem_id="errors")
                error_curve = gr.HTML(elem_id="error-curve", min_height=240)
    with gr.Tab("Tangents") as tangents_tab:
        gr.Markdown(
            "**In which directions can this digit change, and stay a digit?** Those in which its code moves most: the "
            "tangents of the surface that the model has found. Most other changes of pixels a contractive code does "
            "not even notice."
        )
        with_missing("cae")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                pad2 = Pad(example_digits()[2], label="Draw a digit", elem_id="pad-tangents")
                tangent_model = model_choice("tangent-model", "cae", "ae", "dae", "sae", "swae")
                find = buttons("Find its tangents", "find")
                examples2 = examples_gallery("examples-tangents")
            with gr.Column(scale=3, min_width=300):
                tangents = views.Cards("Tangents", width=118, pixels=True, elem_id="tangents", min_height=120)
                about_tangents = gr.Markdown(elem_id="about-tangents")
                spectrum = gr.HTML(elem_id="spectrum", min_height=240)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                length = gr.Slider(0.5, 8, 4, step=0.5, label="Length to each side")
                frames = gr.Slider(3, MAX_FRAMES, 16, step=1, label="Number of images")
                go = buttons("Walk along it", "walk", stop=True)
            with gr.Column(scale=3, min_width=300), gr.Row():
                frame = result_image("On the way", "frame", min_width=160, scale=2)
                strip = result_image("From one side to the other", "strip", min_width=200, scale=3)
    with gr.Tab("Levels") as levels_tab:
        gr.Markdown(
            "**A hierarchical variational autoencoder has codes above codes.** The top is drawn from $\\mathcal N(0, "
            "I)$ and says what it shall be; each level below is drawn given the one above, and says how.",
            latex_delimiters=MATH,
        )
        with_missing("hierarchical-vae")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                count3, temperature = count_control(MAX_COUNT), temperature_control()
                seed3, new_seed3 = seed_controls("seed-levels")
                descend = buttons("Draw level by level", "descend", stop=True)
                which_level = gr.Markdown(elem_id="which-level")
                by_level = result_image("After each level, one a row", "by-level")
            with gr.Column(scale=3, min_width=300):
                leveled = result_image("Samples", "leveled")
        gr.Markdown("### Redraw below\nKeep what the top says, and draw the rest again.")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                source = gr.Radio(list(SOURCES), value=SOURCES[0], label="Top level from")
                pad3 = Pad(example_digits()[4], label="Draw a digit", elem_id="pad-levels", visible=False)
                rows = gr.Slider(1, 8, 6, step=1, label="Codes of the top")
                variations = gr.Slider(1, 11, 7, step=1, label="Variations of each")
                keep = gr.Slider(1, 2, 1, step=1, label="Levels to keep", visible=False)
                seed4, new_seed4 = seed_controls("seed-redraw")
                redraw = buttons("Redraw below", "redraw")
            with gr.Column(scale=3, min_width=300):
                redrawn = result_image("One code of the top a row", "redrawn")
                about_redrawn = gr.Markdown(elem_id="about-redrawn")
    with gr.Tab("Parts") as parts_tab:
        gr.Markdown(
            "**Nothing is ever subtracted**: non-negative matrix factorisation writes a digit as a sum of strokes. It "
            "has no network, and no layers; only a table of parts."
        )
        with_missing("nmf")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                pad4 = Pad(example_digits()[3], label="Draw a digit", elem_id="pad-parts")
                most = gr.Slider(1, 10, 6, step=1, label="Largest parts to show")
                take_apart = buttons("Take it apart", "apart")
                examples3 = examples_gallery("examples-parts")
            with gr.Column(scale=3, min_width=300):
                parts_sum = gr.HTML(
                    elem_id="parts-sum", css_template=views.STRIP_CSS, html_template="${value}", min_height=150
                )
                about_parts = gr.Markdown(elem_id="about-parts")
                all_parts = result_image("All parts", "all-parts")
        gr.Markdown("### Fill in what is hidden\nThe parts that fit what is known say what the rest might be.")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                half_known = gr.Radio(list(HALVES), value=HALVES[0], label="What is known", elem_id="half")
                fill = buttons("Fill it in", "fill")
                about_filled = gr.Markdown(elem_id="about-filled")
            with gr.Column(scale=3, min_width=300), gr.Row():
                masked = result_image("Known", "masked", min_width=120)
                completed = result_image("Filled in", "completed", min_width=120)
                whole_digit = result_image("Original", "whole", min_width=120)
    with gr.Tab("Tastes") as tastes_tab:
        gr.Markdown(
            "**The same sum explains ratings.** Each dish has a little of every taste, each person likes each taste "
            "more or less; from what is known follows what is not. Change a number, or empty a cell: 0 to 5."
        )
        with_missing("nmf")
        table = views.Ratings(views.EXAMPLE, "Ratings", elem_id="ratings")
        with gr.Row():
            factors = gr.Slider(1, 6, 3, step=1, label="Tastes", info="how many", min_width=160)
            penalty = gr.Slider(0, 5, 0.5, step=0.1, label="Penalty", info="of large numbers", min_width=160)
            person = gr.Dropdown(
                views.EXAMPLE["people"],
                value=views.EXAMPLE["people"][-1],
                label="Recommend to",
                allow_custom_value=True,
                elem_id="person",
                min_width=160,
            )
            seed5 = gr.Number(0, label="Seed", precision=0, min_width=120)
        with gr.Row():
            fit = buttons("Fill in and recommend", "fit")
            reset = gr.Button("Back to the example", elem_id="reset", min_width=140)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                advice = gr.Markdown(elem_id="advice")
            with gr.Column(scale=3, min_width=300):
                gr.Markdown("**The table as it is expected**: framed cells were filled in.")
                full_table = gr.HTML(elem_id="full-table", css_template=views.TABLE_CSS, html_template="${value}")
        with gr.Row():
            with gr.Column(min_width=280):
                gr.Markdown("**How much of each taste is in a dish**: 5 in the one that has most of it.")
                liked = gr.HTML(elem_id="liked", css_template=views.TABLE_CSS, html_template="${value}")
            with gr.Column(min_width=280):
                gr.Markdown("**How much each person likes it**: a rating is the sum of dish times person.")
                having = gr.HTML(elem_id="having", css_template=views.TABLE_CSS, html_template="${value}")
    explanation(THEORY)

    sampled = job(draw, autoencoder_sample, [model, label, count, seed, new_seed], [blind, own, about, seed])
    cleaned = job(
        denoise,
        autoencoder_denoise,
        [pad, corruption, level, seed2],
        [original, noisy, denoised, plain, errors, error_curve],
    )
    found = job(find, autoencoder_tangents, [tangent_model, pad2], [tangents, spectrum, about_tangents])
    walked = job(go, autoencoder_walk, [tangent_model, pad2, tangents, length, frames], [frame, strip])
    leveling = job(
        descend, autoencoder_levels, [count3, temperature, seed3, new_seed3], [leveled, by_level, which_level, seed3]
    )
    again = job(
        redraw,
        autoencoder_redraw,
        [source, pad3, rows, variations, keep, seed4, new_seed4],
        [redrawn, about_redrawn, seed4],
    )
    apart = job(take_apart, autoencoder_parts, [pad4, most], [all_parts, parts_sum, about_parts])
    filling = job(fill, autoencoder_complete, [pad4, half_known], [masked, completed, whole_digit, about_filled])
    tasted = job(fit, autoencoder_tastes, [table, factors, penalty, person, seed5], [advice, full_table, liked, having])

    # what happens without a button; the handlers are the same, so the API names them once
    quiet = {"api_visibility": "private"}
    live_quiet = {"trigger_mode": "always_last", "show_progress": "hidden", **quiet}
    planed = [cards, view, explorer], explorer
    moved = [cards, explorer], [live, where]
    matched = [label, seed], compared
    explorer.input(
        autoencoder_decode_at,
        *moved,
        trigger_mode="always_last",
        show_progress="hidden",
        queue=False,
        api_name="autoencoder_decode_at",
    )
    cards.input(autoencoder_plane, *planed, api_name="autoencoder_plane").success(
        autoencoder_decode_at, *moved, **quiet
    )
    view.change(autoencoder_plane, *planed, **quiet)
    seed.change(autoencoder_compare, *matched, show_progress="minimal", api_name="autoencoder_compare")
    model.change(update_class, model, label, **quiet).success(autoencoder_sample, *sampled, **quiet)
    label.change(autoencoder_sample, *sampled, **quiet).success(autoencoder_compare, *matched, **quiet)
    pad.input(autoencoder_denoise, *cleaned, **live_quiet)
    level.release(autoencoder_denoise, *cleaned, **live_quiet)
    corruption.change(most_of, corruption, level, **quiet).success(autoencoder_denoise, *cleaned, **live_quiet)
    examples.select(chosen_example, None, pad, **quiet).success(autoencoder_denoise, *cleaned, **quiet)
    pad2.input(autoencoder_tangents, *found, **live_quiet)
    tangent_model.change(autoencoder_tangents, *found, **quiet).success(autoencoder_walk, *walked, **quiet)
    tangents.input(autoencoder_walk, *walked, **quiet)
    examples2.select(chosen_example, None, pad2, **quiet).success(autoencoder_tangents, *found, **quiet).success(
        autoencoder_walk, *walked, **quiet
    )
    source.change(
        lambda s: (gr.HTML(visible=s == SOURCES[1]), gr.Slider(visible=s == SOURCES[0])), source, [pad3, rows], **quiet
    ).success(autoencoder_redraw, *again, **quiet)
    pad3.input(autoencoder_redraw, *again, **live_quiet)
    pad4.input(autoencoder_parts, *apart, **live_quiet)
    examples3.select(chosen_example, None, pad4, **quiet).success(autoencoder_parts, *apart, **quiet).success(
        autoencoder_complete, *filling, **quiet
    )
    half_known.change(autoencoder_complete, *filling, **quiet)
    table.input(autoencoder_tastes, *tasted, **live_quiet)
    for control in (factors, penalty):
        control.release(autoencoder_tastes, *tasted, **live_quiet)
    person.change(autoencoder_tastes, *tasted, **live_quiet)
    reset.click(lambda: views.EXAMPLE, None, table, **quiet).success(autoencoder_tastes, *tasted, **quiet)
    # no tab is empty when it is opened
    if of_roles(*PLANES):
        demo.load(autoencoder_codes, None, cards, api_name="autoencoder_codes").success(
            autoencoder_plane, *planed, **quiet
        ).success(autoencoder_decode_at, *moved, **quiet)
    if of_roles(*FLAT, *PLANES):
        sample_tab.select(update_class, model, label, **quiet).success(autoencoder_sample, *sampled, **quiet)
    if of_roles("dae", "ae"):
        denoise_tab.select(autoencoder_denoise, *cleaned, **quiet)
    if of_roles(*FLAT):
        tangents_tab.select(autoencoder_tangents, *found, **quiet).success(autoencoder_walk, *walked, **quiet)
    if of_roles("hierarchical-vae"):
        levels_tab.select(update_keep, None, keep, **quiet).success(autoencoder_levels, *leveling, **quiet).success(
            autoencoder_redraw, *again, **quiet
        )
    if of_roles("nmf"):
        parts_tab.select(autoencoder_parts, *apart, **quiet).success(autoencoder_complete, *filling, **quiet)
        tastes_tab.select(autoencoder_tastes, *tasted, **quiet)

if __name__ == "__main__":
    launch(demo)
