"""The density Space: kernels, mixtures, k-means and trees on points that anyone can draw, the same on a line, and digits."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import functools
import inspect
import math
import random
from collections.abc import Iterator

import gradio as gr
import numpy as np
import playground
from kit.bounds import MAX_SEED, bounded, one_of, seed_of, whole
from kit.charts import curves, signed
from kit.controls import count_control, result_image, seed_controls
from kit.digits import as_digit, chosen_example, example_digits, examples_gallery
from kit.errors import user_error
from kit.jobs import buttons, job, one_job, unhurried
from kit.lazy import LazyModule
from kit.models import Models
from kit.pictures import Explorer, Pad, grid, upscale
from kit.theme import MATH, explanation, launch, page
from PIL import Image

torch = LazyModule("torch")

TITLE = "Density and clustering"
SENTENCE = "Where are the data, and how densely? Kernels and mixtures answer with an exact log p(x)."
BRANCH = "classical"  # where the family tree puts it
MODELS = Models(
    ("gaussian-mixture-mnist", "kde-mnist", "pca-mnist", "gaussian-mixture-2d", "kde-2d", "kmeans-mnist",
     "agglomerative-mnist")
)  # fmt: skip
DRAWING = "your drawing"
SETS = (*playground.SETS, DRAWING)
RULES = {"by hand": None, "Scott": "scott", "Silverman": "silverman", "held-out": "held_out"}
COVARIANCES = ("full", "tied", "diag", "spherical")
STARTS = ("random points", "k-means")
LINKAGES = ("ward", "complete", "average", "single")
LEAST_LOG, MOST_LOG = -1.7, 0.5  # log10 of a bandwidth
MOST_POINTS, MOST_COMPONENTS, MOST_STEPS, MOST_LEAVES = 1_000, 12, 100, 200
MAX_COUNT = 64
FRAME_SECONDS = 0.12  # between two steps: slow enough to follow

THEORY = r"""
**Kernels** put a small Gaussian on every point. Its width, the bandwidth $h$, decides everything: too small and the
estimate believes only in the points it has seen, too large and it blurs what they have to say.

$$p(x) = \frac{1}{N} \sum_{i=1}^{N} \mathcal N(x;\, x_i,\, h^2 I)$$

A **mixture** has a few Gaussians in place of one for each point, each with a weight, a mean and a covariance:

$$p(x) = \sum_{k=1}^{K} w_k\, \mathcal N(x;\, m_k, S_k), \qquad
r_{ik} = \frac{w_k\, \mathcal N(x_i;\, m_k, S_k)}{p(x_i)}$$

**EM** computes the responsibilities $r_{ik}$ under the parameters so far, and then the parameters as the moments of the
points so shared out. No step lowers the likelihood. More components always fit the points they were fitted to better;
**BIC** $= -2 \log p(x_1, \dots, x_N) + (\text{parameters}) \log N$ asks what they cost.

**K-means** gives each point to its nearest centre and moves each centre to the mean of its points: EM with hard
responsibilities and round Gaussians of one size. An **agglomerative tree** starts with every point by itself and merges
the two nearest clusters, again and again; a cut at any height turns it into clusters.

**PCA** keeps the few directions in which images differ most. A density of those, with white noise in all the others, is a
density of images: $\log p(x) = \log p(z) + \log \mathcal N(x - \hat x)$. All numbers here are exact, in nats; of digits
they are those of pixels in $[0, 256)$, so that bits per dimension compare with other models.

Parzen 1962, *On Estimation of a Probability Density Function and Mode*; Silverman 1986, *Density Estimation for
Statistics and Data Analysis*; Dempster, Laird and Rubin 1977, *Maximum Likelihood from Incomplete Data via the EM
Algorithm*; Schwarz 1978, *Estimating the Dimension of a Model*; Lloyd 1982, *Least Squares Quantization in PCM*; Ward 1963,
*Hierarchical Grouping to Optimize an Objective Function*; Tipping and Bishop 1999, *Probabilistic Principal Component
Analysis*. All of it is in Bishop 2006, *Pattern Recognition and Machine Learning*, chapters 2, 9 and 12.
"""


# Models: the playground takes its classes from them, so that what it fits is what the project publishes


def names_with(*words: str, flat: bool | None = None) -> list[str]:
    """Names of models that hold one of the words; `flat` keeps those of points (True) or of images (False)."""
    return [n for n in MODELS if any(w in n for w in words) and (flat is None or flat == ("2d" in n))]


@functools.cache
def fitted_by(word: str, part: str) -> type:
    """The class of a model whose name holds the word: what fits more of its kind."""
    names = sorted(names_with(word), key=lambda name: "2d" not in name)  # those of points are the smaller
    if not names:
        raise user_error(f"This needs a model with {word!r} in its name: add one to MODEL_ID.")
    return type(getattr(MODELS[names[0]], part))


def kde_class() -> type:
    return fitted_by("kde", "density")


def mixture_class() -> type:
    return fitted_by("mixture", "density")


def kmeans_class() -> type:
    return fitted_by("kmeans", "clustering")


def tree_class() -> type:
    return fitted_by("agglomerative", "clustering")


def tensor_of(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).float()


def fit(make, *values, **options):
    """What a model's own function gives; what it refuses is a message."""
    try:
        return make(*values, **options)
    except ValueError as error:
        raise user_error(str(error)) from None


# Points


def set_of(data: str, count: int, seed: int, picture: Image.Image | None) -> tuple:
    """What decides on the points, checked; functions that remember their results take it."""
    one_of("data", data, SETS)
    count, seed, ink = whole("count", count, 2, MOST_POINTS), whole("seed", seed, 0, MAX_SEED), b""
    if data == DRAWING:
        ink = fit(playground.ink_of, picture).astype(np.float32).tobytes()
    return data, count, seed, ink


@functools.lru_cache(maxsize=64)
def points_of(chosen: tuple, fresh: bool = False, count: int | None = None) -> np.ndarray:
    """The points (N, 2) of a set, or others from the same source."""
    data, given, seed, ink = chosen
    rng = np.random.default_rng([seed, int(fresh)])
    count = count or given
    if data != DRAWING:
        return playground.draw_set(data, count, rng)
    ink = np.frombuffer(ink, np.float32).astype(float)
    return playground.from_ink(ink.reshape(math.isqrt(len(ink)), -1), count, rng)


def field_of(model) -> np.ndarray:
    """log p on the plane: (FIELD, FIELD)."""
    return model.log_prob(tensor_of(playground.places())).view(playground.FIELD, -1).numpy()


def shown_at(place: tuple[float, float], svg: str) -> dict:
    """A figure for an explorer, whose marker stays where it is."""
    return {"x": place[0], "y": place[1], "url": playground.as_url(svg)}


def place_text(model, place: tuple[float, float]) -> str:
    """What a density says of a place, exactly."""
    x = playground.at_place(place)
    log_p = model.log_prob(tensor_of(x[None])).item()
    density = math.exp(log_p)
    coordinates = ", ".join(signed(v + 0.0, 2) for v in x.round(2))  # and no minus before a zero
    if density == 0:  # no floating-point number is so small
        return f"### log p = {signed(log_p, 2)} nats\np is below 10⁻³⁰⁰ per unit of area, at x = ({coordinates})."
    small = f"{density:.3f}" if density >= 0.001 else f"{density:.1e}".replace("e-0", "e-").replace("-", "−")
    return f"### log p = {signed(log_p, 2)} nats\np = {small} per unit of area, at x = ({coordinates})."


# Kernels


def log_bandwidth_of(value) -> float:
    return float(bounded("log_bandwidth", value, LEAST_LOG, MOST_LOG))


@functools.lru_cache(maxsize=64)
def kernels(chosen: tuple, rule: str, log_bandwidth: float):
    """The estimate of a set's points."""
    bandwidth = RULES[rule] or 10**log_bandwidth
    return fit(kde_class().fit, tensor_of(points_of(chosen)), bandwidth)


@functools.lru_cache(maxsize=32)
def bandwidth_curves(chosen: tuple) -> dict[str, list[tuple[float, float]]]:
    """The mean log-likelihood of an estimate against its bandwidth, on three kinds of points."""
    x, fresh = tensor_of(points_of(chosen)), tensor_of(points_of(chosen, True, 300))
    lines: dict[str, list] = {"its own points": [], "fresh points": [], "left out": []}
    bandwidths = np.geomspace(10**LEAST_LOG, 10**MOST_LOG, 20)
    for h in bandwidths.tolist():
        model = kde_class().fit(x, h)
        lines["its own points"].append((h, model.log_prob(x[:300]).mean().item()))
        lines["fresh points"].append((h, model.log_prob(fresh).mean().item()))
    left_out = playground.left_out(points_of(chosen), bandwidths)
    lines["left out"] = list(zip(bandwidths.tolist(), left_out.tolist(), strict=True))
    # far below the best there is nothing to see but how far
    low = max(y for name in ("fresh points", "left out") for _, y in lines[name]) - 2.5
    return {name: [(h, y if y >= low else math.nan) for h, y in line] for name, line in lines.items()}


def kernels_of(data, count, seed, picture, rule, log_bandwidth):
    chosen = set_of(data, count, seed, picture)
    one_of("rule", rule, RULES)
    return chosen, kernels(chosen, rule, log_bandwidth_of(log_bandwidth) if rule == "by hand" else 0.0)


def density_kernels(
    data: str, count: int, seed: int, picture: Image.Image | None, rule: str, log_bandwidth: float, place: tuple
) -> tuple[dict, str, str, str, float]:
    """Fit a kernel density estimate to points of the plane.

    Args:
        data: "three blobs", "ring", "moons", "spiral", "checkerboard" or "your drawing".
        count: how many points, 2 to 1000.
        seed: of the points, 0 to 2147483647.
        picture: an image file, for "your drawing": points are drawn from its ink.
        rule: of the bandwidth: "by hand", "Scott", "Silverman" or "held-out".
        log_bandwidth: its logarithm to base 10 for "by hand", -1.7 to 0.5.
        place: {"x": 0 to 1, "y": 0 to 1} of the marker, from the upper left corner.

    Returns:
        The map of log p with the marker's place, log p there, what was fitted, the mean log-likelihood against the
        bandwidth (SVG), and the logarithm of the bandwidth.
    """
    chosen, model = kernels_of(data, count, seed, picture, rule, log_bandwidth)
    x, h = points_of(chosen), model.bandwidth.item()
    svg = playground.screen(
        "log p(x)", playground.spots(x, "#ffffff", 3.5), ground=playground.heat(field_of(model)).resize((480, 480))
    )
    fresh = model.log_prob(tensor_of(points_of(chosen, True, 400))).mean().item()
    note = " In two dimensions this rule and Silverman's are one." if rule == "Scott" else ""
    note = " In two dimensions this rule and Scott's are one." if rule == "Silverman" else note
    text = f"Bandwidth **h = {h:.3f}**. Fresh points of the same source get **{signed(fresh, 2)} nats** each.{note}"
    lines = bandwidth_curves(chosen)
    least = min(y for line in lines.values() for _, y in line if math.isfinite(y))
    here = min(max(h, 10**LEAST_LOG), 10**MOST_LOG)
    curve = curves(lines, "bandwidth h", "nats", log_x=True, least=least, here=("h", here))
    slider = min(max(math.log10(h), LEAST_LOG), MOST_LOG) if rule != "by hand" else log_bandwidth
    return shown_at(place, svg), place_text(model, place), text, curve, round(slider, 2)


def density_at(
    data: str, count: int, seed: int, picture: Image.Image | None, rule: str, log_bandwidth: float, place: tuple
) -> str:
    """The exact log p of a kernel density estimate at one place of the plane.

    Args:
        data: "three blobs", "ring", "moons", "spiral", "checkerboard" or "your drawing".
        count: how many points, 2 to 1000.
        seed: of the points, 0 to 2147483647.
        picture: an image file, for "your drawing": points are drawn from its ink.
        rule: of the bandwidth: "by hand", "Scott", "Silverman" or "held-out".
        log_bandwidth: its logarithm to base 10 for "by hand", -1.7 to 0.5.
        place: {"x": 0 to 1, "y": 0 to 1}, from the upper left corner.

    Returns:
        log p in nats, p, and the place.
    """
    return place_text(kernels_of(data, count, seed, picture, rule, log_bandwidth)[1], place)


# Mixtures


def enough(what: str, wanted, chosen: tuple) -> int:
    """A number of components or clusters that the points are enough for."""
    wanted = whole(what, wanted, 1, MOST_COMPONENTS)
    if wanted > chosen[1]:
        raise user_error(f"There are {chosen[1]} points; {wanted} {what} need at least as many.")
    return wanted


@functools.lru_cache(maxsize=16)
def em_path(chosen: tuple, components: int, covariance: str, start: str) -> list:
    """All steps of EM on a set's points."""
    x, seed = points_of(chosen), chosen[2]
    initial = None
    if start == "random points":  # each point begins with the nearest of a few
        centres = x[np.random.default_rng([seed, 2]).permutation(len(x))[:components]]
        initial = torch.from_numpy(((x[:, None] - centres[None]) ** 2).sum(2).argmin(1))
    options = {"max_iter": MOST_STEPS, "tol": 1e-4, "reg_covar": 1e-4, "seed": seed, "initial": initial}
    return fit(lambda: list(mixture_class().em_steps(tensor_of(x), components, covariance, **options)))


def mixture_of(data, count, seed, picture, components, covariance, start) -> tuple[tuple, list]:
    chosen = set_of(data, count, seed, picture)
    components = enough("components", components, chosen)
    one_of("covariance", covariance, COVARIANCES)
    return chosen, em_path(chosen, components, covariance, one_of("start", start, STARTS))


def after(path: list, step) -> int:
    """How many steps were made, of those there are."""
    return min(whole("step", step, 0, MOST_STEPS), len(path) - 1)


def covariances_of(model) -> np.ndarray:
    """(K, 2, 2), whatever their type."""
    scale, kind, count = model.scale.float().numpy(), model.config.covariance_type, len(model.weights)
    if kind in ("full", "tied"):
        full = scale @ scale.swapaxes(-1, -2)
        return np.broadcast_to(full, (count, 2, 2))
    return np.stack([np.eye(2) * np.square(s) for s in scale])


def mixture_view(chosen: tuple, path: list, made: int, place: tuple) -> tuple[dict, str, str, str, int]:
    """What the page shows after `made` steps."""
    model, x = path[made].model, points_of(chosen)
    shares = model.responsibilities(tensor_of(x)).numpy()
    ground = playground.heat(field_of(model), playground.SLATE, 6).resize((480, 480))
    layers = playground.ellipses(model.means.numpy(), covariances_of(model))
    svg = playground.screen("the mixture", playground.spots(x, playground.blends(shares)), layers, ground=ground)
    reached = [step.log_likelihood for step in path[: made + 1]]
    lines = {"log-likelihood": list(enumerate(reached))}
    curve = curves(lines, "steps of EM", "nats", least=min(reached))
    end = " EM has converged." if path[made].converged else ""
    text = f"Step **{made}** of EM: **{signed(reached[-1], 3)} nats** a point.{end}"
    return shown_at(place, svg), place_text(model, place), text, curve, made


@one_job
@unhurried(FRAME_SECONDS)
def density_mixture(
    data: str, count: int, seed: int, picture: Image.Image | None, components: int, covariance: str, start: str,
    place: tuple,
) -> Iterator[tuple[dict, str, str, str, int]]:  # fmt: skip
    """Fit a Gaussian mixture to points of the plane by EM, step by step.

    Args:
        data: "three blobs", "ring", "moons", "spiral", "checkerboard" or "your drawing".
        count: how many points, 2 to 1000.
        seed: of the points and of the start, 0 to 2147483647.
        picture: an image file, for "your drawing": points are drawn from its ink.
        components: how many Gaussians, 1 to 12.
        covariance: "full", "tied", "diag" or "spherical".
        start: "random points" or "k-means".
        place: {"x": 0 to 1, "y": 0 to 1} of the marker, from the upper left corner.

    Returns:
        The points and the Gaussians, log p at the marker, where EM is, the log-likelihood so far (SVG), and how many
        steps were made; again for each step.
    """
    chosen, path = mixture_of(data, count, seed, picture, components, covariance, start)
    for made in range(len(path)):
        if made <= 12 or made % 3 == 0 or made == len(path) - 1:
            yield mixture_view(chosen, path, made, place)


def density_mixture_step(
    data: str, count: int, seed: int, picture: Image.Image | None, components: int, covariance: str, start: str,
    step: int, place: tuple,
) -> tuple[dict, str, str, str, int]:  # fmt: skip
    """A Gaussian mixture after a number of steps of EM.

    Args:
        data: "three blobs", "ring", "moons", "spiral", "checkerboard" or "your drawing".
        count: how many points, 2 to 1000.
        seed: of the points and of the start, 0 to 2147483647.
        picture: an image file, for "your drawing": points are drawn from its ink.
        components: how many Gaussians, 1 to 12.
        covariance: "full", "tied", "diag" or "spherical".
        start: "random points" or "k-means".
        step: how many steps of EM to make, 0 to 100; fewer where it converges before.
        place: {"x": 0 to 1, "y": 0 to 1} of the marker, from the upper left corner.

    Returns:
        The points and the Gaussians, log p at the marker, where EM is, the log-likelihood so far (SVG), and how many
        steps were made.
    """
    chosen, path = mixture_of(data, count, seed, picture, components, covariance, start)
    return mixture_view(chosen, path, after(path, step), place)


def density_mixture_at(
    data: str, count: int, seed: int, picture: Image.Image | None, components: int, covariance: str, start: str,
    step: int, place: tuple,
) -> str:  # fmt: skip
    """The exact log p of a Gaussian mixture at one place of the plane, after a number of steps of EM.

    Args:
        data: "three blobs", "ring", "moons", "spiral", "checkerboard" or "your drawing".
        count: how many points, 2 to 1000.
        seed: of the points and of the start, 0 to 2147483647.
        picture: an image file, for "your drawing": points are drawn from its ink.
        components: how many Gaussians, 1 to 12.
        covariance: "full", "tied", "diag" or "spherical".
        start: "random points" or "k-means".
        step: how many steps of EM to make, 0 to 100.
        place: {"x": 0 to 1, "y": 0 to 1}, from the upper left corner.

    Returns:
        log p in nats, p, and the place.
    """
    _, path = mixture_of(data, count, seed, picture, components, covariance, start)
    return place_text(path[after(path, step)].model, place)


def density_mixture_sample(
    data: str, count: int, seed: int, picture: Image.Image | None, components: int, covariance: str, start: str,
    step: int, component: str, draws: int, draw_seed: int,
) -> str:  # fmt: skip
    """Draw points from a Gaussian mixture, or from one of its components.

    Args:
        data: "three blobs", "ring", "moons", "spiral", "checkerboard" or "your drawing".
        count: how many points it is fitted to, 2 to 1000.
        seed: of the points and of the start, 0 to 2147483647.
        picture: an image file, for "your drawing": points are drawn from its ink.
        components: how many Gaussians, 1 to 12.
        covariance: "full", "tied", "diag" or "spherical".
        start: "random points" or "k-means".
        step: how many steps of EM to make, 0 to 100.
        component: "all", or the number of one ("1" to "12").
        draws: how many points to draw, 1 to 2000.
        draw_seed: of what is drawn, 0 to 2147483647.

    Returns:
        A figure (SVG) of the points drawn, each in the colour of the component it is likeliest of.
    """
    _, path = mixture_of(data, count, seed, picture, components, covariance, start)
    model = path[after(path, step)].model
    draws, draw_seed = whole("draws", draws, 1, 2_000), whole("draw_seed", draw_seed, 0, MAX_SEED)
    x = drawn_from(model, component, draws, draw_seed)
    colours = playground.blends(model.responsibilities(x).numpy())
    svg = playground.screen(
        f"{draws} points drawn", playground.spots(x.numpy(), colours, 3.5),
        playground.ellipses(model.means.numpy(), covariances_of(model)),
    )  # fmt: skip
    return playground.as_figure(svg)


def component_of(component, model) -> int | None:
    """What a control of components holds: None for all."""
    if str(component) == "all":
        return None
    count = len(model.weights)
    if not str(component).isdecimal() or not 1 <= int(component) <= count:
        raise user_error(f"component is {component!r}; it must be all, or 1 to {count}")
    return int(component) - 1


def drawn_from(model, component: str, draws: int, seed: int) -> torch.Tensor:
    """(draws, D) from a mixture."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(draws, generator=generator), torch.randn(draws, model.config.dim, generator=generator)
    return model.draw(*noise, component=component_of(component, model))


@functools.lru_cache(maxsize=64)
def bic_of(chosen: tuple, components: int, covariance: str) -> float:
    """BIC for each point, of the mixture that EM finds from k-means."""
    x = tensor_of(points_of(chosen))
    options = {"max_iter": 60, "reg_covar": 1e-4, "seed": chosen[2]}
    return fit(mixture_class().fit, x, components, covariance, **options).bic(x) / len(x)


@one_job
def density_bic(
    data: str, count: int, seed: int, picture: Image.Image | None, covariance: str
) -> Iterator[tuple[str, str]]:
    """Compare numbers of components by BIC: mixtures of 1 to 12 Gaussians, each fitted by EM.

    Args:
        data: "three blobs", "ring", "moons", "spiral", "checkerboard" or "your drawing".
        count: how many points, 2 to 1000.
        seed: of the points and of the start, 0 to 2147483647.
        picture: an image file, for "your drawing": points are drawn from its ink.
        covariance: "full", "tied", "diag" or "spherical".

    Returns:
        BIC against the number of components (SVG), and which is lowest; again for each number.
    """
    chosen = set_of(data, count, seed, picture)
    one_of("covariance", covariance, COVARIANCES)
    found: list[tuple[int, float]] = []
    for components in range(1, min(MOST_COMPONENTS, chosen[1]) + 1):
        found.append((components, bic_of(chosen, components, covariance)))
        best, lowest = min(found, key=lambda pair: pair[1])
        values = [value for _, value in found]
        yield (
            curves({"BIC per point": found}, "components", "", least=min(values), here=("lowest", best)),
            f"BIC is lowest at **{best} component{'s' * (best > 1)}** ({signed(lowest, 3)} per point).",
        )


# K-means


@functools.lru_cache(maxsize=16)
def lloyd_path(chosen: tuple, clusters: int) -> list:
    """All of Lloyd's iterations on a set's points, from random ones of them."""
    x, seed = points_of(chosen), chosen[2]
    centres = tensor_of(x[np.random.default_rng([seed, 2]).permutation(len(x))[:clusters]])
    return fit(
        lambda: list(
            kmeans_class().lloyd_steps(tensor_of(x), clusters, max_iter=MOST_STEPS, seed=seed, centres=centres)
        )
    )


def kmeans_of(data, count, seed, picture, clusters) -> tuple[tuple, list]:
    chosen = set_of(data, count, seed, picture)
    return chosen, lloyd_path(chosen, enough("clusters", clusters, chosen))


def kmeans_view(chosen: tuple, path: list, made: int) -> tuple[str, str, str, int]:
    """What the page shows after `made` steps."""
    step, x = path[made], points_of(chosen)
    centres = np.stack([s.centres.numpy() for s in path[: made + 1]])
    svg = playground.screen(
        "points and their nearest centres",
        playground.spots(x, [playground.colour_of(k) for k in step.assignment.tolist()]),
        playground.trails(centres),
        playground.disks(centres[-1]),
        ground=playground.regions(playground.nearest(centres[-1])),
    )
    inertia = [(number, s.inertia / len(x)) for number, s in enumerate(path[: made + 1])]
    curve = curves({"squared distance": inertia}, "steps of Lloyd", "", least=min(v for _, v in inertia))
    end = " No point changes its centre any more." if step.converged else ""
    text = f"Step **{made}**: mean squared distance to the nearest centre **{inertia[-1][1]:.4f}**.{end}"
    return playground.as_figure(svg), text, curve, made


@one_job
@unhurried(2 * FRAME_SECONDS)
def density_kmeans(
    data: str, count: int, seed: int, picture: Image.Image | None, clusters: int
) -> Iterator[tuple[str, str, str, int]]:
    """Cluster points of the plane by k-means, step by step.

    Args:
        data: "three blobs", "ring", "moons", "spiral", "checkerboard" or "your drawing".
        count: how many points, 2 to 1000.
        seed: of the points and of the start, 0 to 2147483647.
        picture: an image file, for "your drawing": points are drawn from its ink.
        clusters: how many centres, 1 to 12.

    Returns:
        A figure (SVG) of the points and centres, where it is, the squared distance so far (SVG), and how many steps
        were made; again for each step.
    """
    chosen, path = kmeans_of(data, count, seed, picture, clusters)
    for made in range(len(path)):
        yield kmeans_view(chosen, path, made)


def density_kmeans_step(
    data: str, count: int, seed: int, picture: Image.Image | None, clusters: int, step: int
) -> tuple[str, str, str, int]:
    """K-means after a number of steps.

    Args:
        data: "three blobs", "ring", "moons", "spiral", "checkerboard" or "your drawing".
        count: how many points, 2 to 1000.
        seed: of the points and of the start, 0 to 2147483647.
        picture: an image file, for "your drawing": points are drawn from its ink.
        clusters: how many centres, 1 to 12.
        step: how many steps to make, 0 to 100; fewer where nothing changes before.

    Returns:
        A figure (SVG) of the points and centres, where it is, the squared distance so far (SVG), and how many steps
        were made.
    """
    chosen, path = kmeans_of(data, count, seed, picture, clusters)
    return kmeans_view(chosen, path, after(path, step))


# Trees


@functools.lru_cache(maxsize=32)
def tree_of(chosen: tuple, linkage: str):
    return fit(tree_class().fit, tensor_of(points_of(chosen)[:MOST_LEAVES]), linkage)


@one_job
def density_tree(
    data: str, count: int, seed: int, picture: Image.Image | None, linkage: str, clusters: int
) -> tuple[str, str, str]:
    """Merge points of the plane into a tree, and cut it.

    Args:
        data: "three blobs", "ring", "moons", "spiral", "checkerboard" or "your drawing".
        count: how many points, 2 to 1000; a tree takes the first 200.
        seed: of the points, 0 to 2147483647.
        picture: an image file, for "your drawing": points are drawn from its ink.
        linkage: how near two clusters are: "ward", "complete", "average" or "single".
        clusters: where the tree is cut, 1 to 12.

    Returns:
        Figures (SVG) of the points coloured by the cut and of the tree, and the heights around the cut.
    """
    chosen = set_of(data, count, seed, picture)
    clusters = enough("clusters", clusters, chosen)
    model = tree_of(chosen, one_of("linkage", linkage, LINKAGES))
    labels, heights, x = model.cut(clusters).numpy(), model.heights.numpy(), model.points.numpy()
    svg = playground.screen(
        "points, coloured by cluster",
        playground.spots(x, [playground.colour_of(k) for k in labels.tolist()], 6),
    )
    sizes = np.bincount(labels)
    told = f"**{clusters} clusters** of " + ", ".join(map(str, sizes.tolist())) + " points."
    if clusters == 1:
        told = f"**One cluster** of {len(x)} points."
    told += f" The cut is at a distance of **{playground.cut_height(heights, clusters):.2f}**."
    if chosen[1] > MOST_LEAVES:
        told += f" A tree shows the first {MOST_LEAVES} points."
    return (
        playground.as_figure(svg),
        playground.as_figure(playground.dendrogram(model.merges.numpy(), heights, labels)),
        told,
    )


# One line


@functools.lru_cache(maxsize=32)
def line_points(shape: str, count: int, seed: int, fresh: bool = False) -> np.ndarray:
    return playground.LINES[shape].draw(count, np.random.default_rng([seed, int(fresh)]))


@one_job
def density_line(
    shape: str, count: int, seed: int, bins: int, rule: str, log_bandwidth: float, components: int, x: float
) -> tuple[str, str, float]:
    """Estimate a density on the line by a histogram, by kernels and by a mixture, beside the truth.

    Args:
        shape: "two bumps", "skewed", "uniform steps" or "heavy tails".
        count: how many points, 2 to 1000.
        seed: 0 to 2147483647.
        bins: of the histogram, 1 to 100.
        rule: of the kernels' bandwidth: "by hand", "Scott", "Silverman" or "held-out".
        log_bandwidth: its logarithm to base 10 for "by hand", -1.7 to 0.5.
        components: of the mixture, 1 to 12.
        x: where to ask for log p, -10 to 10.

    Returns:
        A figure (SVG), a table of log p at x and on fresh points, and the logarithm of the bandwidth.
    """
    line = playground.LINES[one_of("shape", shape, playground.LINES)]
    count, seed = whole("count", count, 2, MOST_POINTS), whole("seed", seed, 0, MAX_SEED)
    bins, x = whole("bins", bins, 1, 100), float(bounded("x", x, -10, 10))
    components = enough("components", components, (shape, count))
    log_bandwidth = log_bandwidth_of(log_bandwidth)
    values = line_points(shape, count, seed)
    histogram, points = playground.Histogram.of(values, bins), tensor_of(values[:, None])
    kde = fit(kde_class().fit, points, RULES[one_of("rule", rule, RULES)] or 10**log_bandwidth)
    mixture = fit(mixture_class().fit, points, components, max_iter=MOST_STEPS, reg_covar=1e-4, seed=seed)
    estimates = {
        "kernels": lambda at: kde.log_prob(tensor_of(at[:, None])).double().numpy(),
        "truth": line.log_prob,
        "mixture": lambda at: mixture.log_prob(tensor_of(at[:, None])).double().numpy(),
    }
    there = np.linspace(line.low, line.high, 361)
    drawn = {name: np.exp(log_prob(there)) for name, log_prob in estimates.items()}
    top = 1.6 * drawn["truth"].max()  # above it, an estimate believes in single points
    series = {n: [(float(a), float(min(b, top))) for a, b in zip(there, p, strict=True)] for n, p in drawn.items()}
    bars = [
        (max(float(a), line.low), min(float(b), line.high), min(float(h), top))
        for a, b, h in zip(histogram.edges, histogram.edges[1:], histogram.heights, strict=False)
        if h > 0 and b > line.low and a < line.high
    ]
    here = ("x", x) if line.low <= x <= line.high else None
    figure = curves(series, "x", "density", bars=bars, here=here)
    fresh = line_points(shape, 2_000, seed, True)
    h = kde.bandwidth.item()
    rows = {
        "truth": "the truth",
        "histogram": f"histogram, {len(histogram.heights)} bins",
        "kernels": f"kernels, h = {h:.3f}",
        "mixture": f"mixture of {components}",
    }
    table = f"| | log p({signed(x, 2)}) | fresh points |\n|---|---|---|\n"
    for name, title in rows.items():
        log_prob = estimates.get(name, histogram.log_prob)
        mean = float(log_prob(fresh).mean())
        table += f"| {title} | {nats(float(log_prob(np.array([x]))[0]))} | {nats(mean)} |\n"
    missed = int(np.isinf(histogram.log_prob(fresh)).sum())
    table += "\nNats, exact; of fresh points the mean of 2,000 that no estimate has seen."
    if missed:
        table += f" {missed} of them fall where the histogram has nothing: it called them impossible."
    outside = int(((values < line.low) | (values > line.high)).sum())
    if outside:
        table += f" {outside} of the {count} points lie outside of the figure."
    slider = round(min(max(math.log10(h), LEAST_LOG), MOST_LOG), 2)
    return figure, table, log_bandwidth if rule == "by hand" else slider


def nats(value: float) -> str:
    return "−∞" if value == -math.inf else signed(value, 3)


# Digits


def image_pipe(name: str, part: str):
    """A pipeline of images that has this part."""
    pipe = MODELS[name]
    if pipe.data_spec["kind"] != "image":
        raise user_error(f"{name} is of points and not of images.")
    if getattr(pipe, part, None) is None:
        raise user_error(f"{name} has no {part}, so it cannot do this.")
    return pipe


def first_of(*words: str) -> str:
    """The first model of images whose name holds the first word, or one of the others where there is none."""
    names = [name for word in words for name in names_with(word, flat=False)]
    if not names:
        raise user_error(
            f"This needs a model of images with {' or '.join(map(repr, words))} in its name: add one to MODEL_ID."
        )
    return names[0]


@one_job
def density_sample(
    model: str, component: str, output: str, count: int, seed: int, new_seed: bool
) -> tuple[Image.Image, str, int]:
    """Draw images from a density of principal components.

    Args:
        model: one of the page's densities of images.
        component: "all", or the number of one component of a mixture, from 1.
        output: "mean" decodes the components alone, "sample" adds what they leave out as noise.
        count: how many, 1 to 64.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        The images in one grid, what the model is, and the seed that made them.
    """
    pipe = image_pipe(model, "density")
    count, seed = whole("count", count, 1, MAX_COUNT), seed_of(seed, new_seed)
    one_of("output", output, ("mean", "sample"))
    density, latents, size = pipe.density, None, pipe.density.config.dim
    generator = torch.Generator().manual_seed(seed + 1)  # the latents have the seed itself
    if hasattr(density, "weights"):
        chosen = component_of(component, density)
        told = f"A mixture of **{len(density.weights)} Gaussians** in {size} dimensions."
        if chosen is not None:
            told = f"Component **{chosen + 1}** of {len(density.weights)}, of weight {density.weights[chosen]:.1%}."
        latents = drawn_from(density, component, count, seed)
    else:
        if str(component) != "all":
            raise user_error(f"{model} has no components to choose from: take all.")
        told = f"**{density.config.num_points:,} kernels** in {size} dimensions, of bandwidth {density.bandwidth:.3g}."
    images = pipe(count, decoder_output=output, latents=latents, generator=generator).images
    return grid(images), told, seed


def as_input(pipe, picture: Image.Image | None) -> torch.Tensor:
    """A drawing as a model takes it: (1, 1, H, W) in [0, 1]."""
    channels, height, width = pipe.data_spec["shape"]
    if channels != 1 or height != width:
        raise user_error(
            f"This model's images are {width} x {height} in {channels} colours; it takes no drawing in one."
        )
    return torch.from_numpy(np.asarray(as_digit(picture, height), dtype=np.float32) / 255)[None, None]


@one_job
def density_reconstruct(picture: Image.Image | None, components: int) -> tuple[Image.Image, Image.Image, str, str]:
    """Redraw a digit from a few principal components, and measure its exact likelihood.

    Args:
        picture: an image file with one digit, dark on light or light on dark.
        components: how many principal components to keep, 1 to 200, or as many as the model has.

    Returns:
        The digit as the models see it, the digit redrawn, what is kept and how likely it is, and the share of the
        variance that the first components keep (SVG).
    """
    pipe = image_pipe(first_of("pca", "mixture", "kde"), "pca")
    most = pipe.pca.config.num_components
    kept = min(whole("components", components, 1, 200), most)
    x = as_input(pipe, picture)
    again = pipe.reconstruct(x, num_components=kept, output_type="pt").images
    error = (again - x).square().mean().item()
    variances = pipe.pca.variances.double()
    share = (variances.cumsum(0) / variances.sum()).tolist()
    figure = curves(
        {"share of the variance": list(enumerate(share[:most], 1))}, "principal components", "", here=(f"{kept}", kept)
    )
    size = x.numel()
    text = (
        f"**{kept} numbers** in place of {size} keep {share[kept - 1]:.1%} of how digits differ; of yours they leave a mean "
        f"squared error of **{error:.4f}**.\n\n"
    )
    rows = ""
    for name in names_with("mixture", "kde", flat=False):
        judge = image_pipe(name, "density")
        digit = as_input(judge, picture)
        log_p = judge.log_prob(digit, generator=torch.Generator().manual_seed(0)).item()
        bits = -log_p / (digit.numel() * math.log(2))
        rows += f"| {name} | **{signed(log_p, 1)}** | {signed(bits, 3)} |\n"
    if rows:
        text += "| log p of your digit, exact | nats | bits/dim |\n|---|---|---|\n" + rows
    to_image = pipe.image_processor.postprocess
    return upscale(to_image(x)[0], 252), upscale(to_image(again)[0], 252), text, figure


@one_job
def density_centres(model: str, clusters: int) -> tuple[Image.Image, str]:
    """The means of clusters of images.

    Args:
        model: one of the page's clusterings of images.
        clusters: where a tree is cut, 1 to 64; k-means has a number of its own.

    Returns:
        The means in one grid, the largest cluster first, and what they are.
    """
    pipe = image_pipe(model, "clustering")
    clusters, clustering = whole("clusters", clusters, 1, MAX_COUNT), pipe.clustering
    if not hasattr(clustering, "merges"):
        counts = clustering.counts.tolist()
        told = f"**K-means** with {len(counts)} centres: the largest cluster has {max(counts):,} images, the smallest {min(counts):,}."
        return grid(pipe.centres()), told
    if clusters > clustering.config.num_points:
        raise user_error(
            f"The tree has {clustering.config.num_points} images; it cannot be cut into {clusters} clusters."
        )
    sizes = torch.bincount(clustering.cut(clusters))
    told = (
        f"**A tree** of {clustering.config.num_points:,} images ({clustering.config.linkage} linkage), cut into {clusters}: "
        f"the largest cluster has {int(sizes[0]):,}, the smallest {int(sizes[-1]):,}."
    )
    return grid(pipe.centres(clusters)), told


def offer_components(model: str) -> gr.Dropdown:
    """The components of a mixture, to choose from; out of sight for kernels."""
    density = image_pipe(model, "density").density
    count = len(density.weights) if hasattr(density, "weights") else 0
    return gr.Dropdown(["all", *map(str, range(1, count + 1))], value="all", visible=count > 0)


def offer_kept(kept: int) -> gr.Slider:
    """As many principal components as there are."""
    most = image_pipe(first_of("pca", "mixture", "kde"), "pca").pca.config.num_components
    return gr.Slider(maximum=most, value=min(kept, most))


# The page

LEAD = f"""
# {TITLE}
The oldest question of statistics, **where are the data, and how densely?**, and five answers to it. Choose points, or
draw them, and watch each answer take shape. Kernels and mixtures say exactly how probable every place is.
"""
KERNELS = """
Light is where $p$ is high. A narrow kernel makes $p$ high at **its own points** and nowhere else, so that line falls all the
way; on **fresh points** it is worthless. The bandwidth that is best for points **left out** of the estimate, which needs no
others, is close to the best there is.
"""
MIXTURE = """
Ellipses are one and two standard deviations; a point has the colours of the components that answer for it. EM only climbs:
where it ends depends on where it starts, so try another seed.
"""
KMEANS = """
Each place has the colour of its nearest centre, and white lines are the ways of the centres. Borders are straight and all
directions count the same: moons, rings and spirals are cut through. Another seed starts elsewhere, and may end elsewhere.
"""
TREE = """
**Single** linkage follows chains, which is right for rings and spirals, and wrong as soon as one stray point makes a bridge.
**Ward** and **complete** make compact clusters. A long gap between two merges is a good place to cut.
"""
LINE = """
A histogram has edges where there are none in the data, and calls **impossible** what it has not seen. Kernels and mixtures
never do, though far outside a Gaussian comes close: compare them on heavy tails.
"""


def when_open(tab: str, handler, outputs: list):
    """A handler that answers only while its tab is the one that is open."""

    def run(request: gr.Request, opened: str, *values):
        return called(handler, request, *values) if opened == tab else [gr.skip()] * len(outputs)

    return run


def by_hand(handler, place: int):
    """A handler whose value at `place` is the rule of the bandwidth: with the slider's."""

    def run(request: gr.Request, *values):
        return called(handler, request, *values[:place], "by hand", *values[place + 1 :])

    return run


def called(handler, request: gr.Request, *values):
    """What a handler gives; those of which a session runs one at a time are told whose it is."""
    told = "request" in inspect.signature(handler).parameters
    return handler(request, *values) if told else handler(*values)


def update_components(count: int) -> gr.Dropdown:
    return gr.Dropdown(["all", *map(str, range(1, int(count) + 1))], value="all")


def bandwidth_controls(elem_id: str) -> tuple[gr.Radio, gr.Slider]:
    rule = gr.Radio(list(RULES), value="held-out", label="Bandwidth by", elem_id=f"{elem_id}-rule")
    slider = gr.Slider(LEAST_LOG, MOST_LOG, -0.7, step=0.01, label="log₁₀ of the bandwidth", elem_id=f"{elem_id}-h",
                       info="−1 is 0.1, 0 is 1; moving it sets the bandwidth by hand")  # fmt: skip
    return rule, slider


def step_controls(elem_id: str, run: str) -> tuple[list[gr.Button], gr.Button, gr.Button, gr.Number]:
    """Run, stop, one step more, back to the first; and how many were made."""
    pressed = buttons(run, elem_id, stop=True)
    with gr.Row():
        more = gr.Button("Step", elem_id=f"{elem_id}-more", min_width=70)
        back = gr.Button("Start over", elem_id=f"{elem_id}-back", min_width=120)
        made = gr.Number(0, label="Steps", precision=0, elem_id=f"{elem_id}-made", min_width=100)
    return pressed, more, back, made


with page("Genus: density and clustering") as demo:
    gr.Markdown(LEAD, latex_delimiters=MATH, elem_classes="lead")
    if not MODELS.first:
        gr.Markdown(
            "**No model is set.** `MODEL_ID` names one or several, separated by commas: Hub ids like `user/kde-2d`, or "
            "portable folders."
        )
    opened = gr.State("Kernels")
    with gr.Row(elem_id="points") as points_row:
        with gr.Column(scale=3, min_width=300):
            data = gr.Radio(list(SETS), value="moons", label="Points", elem_id="data")
            with gr.Row():
                count = gr.Slider(2, MOST_POINTS, 300, step=1, label="Number of points", scale=3, min_width=180)
                seed = gr.Number(0, label="Seed", precision=0, scale=1, min_width=90, elem_id="seed")
            again = gr.Button("New points", elem_id="new-points", size="sm")
        with gr.Column(scale=2, min_width=280, visible=False) as paper:
            pad = Pad(playground.example_drawing(), label="Draw where the points shall be", elem_id="pad")
    chosen = [data, count, seed, pad]
    tabs: dict[str, gr.Tab] = {}
    with gr.Tab("Kernels") as tabs["Kernels"], gr.Row():
        with gr.Column(scale=3, min_width=300):
            map_kernels = Explorer("Map of log p", elem_id="map-kernels", elem_classes="smooth")
            here_kernels = gr.Markdown(elem_id="here-kernels")
        with gr.Column(scale=2, min_width=300):
            rule, log_bandwidth = bandwidth_controls("kernels")
            estimate = buttons("Fit the kernels", "estimate")
            about_kernels = gr.Markdown(elem_id="about-kernels")
            curve_kernels = gr.HTML(elem_id="curve-kernels", elem_classes="narrow")
            gr.Markdown("**Click and drag** on the map, or focus it and use the arrow keys.\n\n" + KERNELS,
                        latex_delimiters=MATH)  # fmt: skip
    with gr.Tab("Mixture") as tabs["Mixture"]:
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                map_mixture = Explorer("Map of the mixture", elem_id="map-mixture", elem_classes="smooth")
                here_mixture = gr.Markdown(elem_id="here-mixture")
            with gr.Column(scale=2, min_width=300):
                with gr.Row():
                    components = gr.Slider(1, MOST_COMPONENTS, 4, step=1, label="Components", min_width=140)
                    start = gr.Radio(list(STARTS), value=STARTS[0], label="Start from", min_width=140)
                covariance = gr.Radio(list(COVARIANCES), value="full", label="Covariance", elem_id="covariance")
                run_em, more_em, back_em, made_em = step_controls("em", "Run EM")
                about_mixture = gr.Markdown(elem_id="about-mixture")
                curve_mixture = gr.HTML(elem_id="curve-mixture", elem_classes="narrow")
                gr.Markdown(MIXTURE)
        with gr.Row():
            with gr.Column(min_width=300):
                gr.Markdown("### How many components?")
                about_bic = gr.Markdown(elem_id="about-bic")
                curve_bic = gr.HTML(elem_id="curve-bic", elem_classes="narrow")
                compare = buttons("Compare by BIC", "bic", stop=True)
            with gr.Column(min_width=300):
                gr.Markdown("### Draw from it")
                with gr.Row():
                    component = gr.Dropdown(["all", *map(str, range(1, MOST_COMPONENTS + 1))], value="all",
                                            label="Component", min_width=110)  # fmt: skip
                    draw_seed = gr.Number(0, label="Seed", precision=0, min_width=110)
                draws = gr.Slider(1, 2_000, 500, step=1, label="Points to draw")
                draw_points = buttons("Draw points", "draw-points")
                drawn_points = gr.HTML(elem_id="drawn-points")
    with gr.Tab("K-means") as tabs["K-means"], gr.Row():
        with gr.Column(scale=3, min_width=300):
            map_kmeans = gr.HTML(elem_id="map-kmeans", min_height=280)
        with gr.Column(scale=2, min_width=300):
            clusters = gr.Slider(1, MOST_COMPONENTS, 5, step=1, label="Clusters")
            run_lloyd, more_lloyd, back_lloyd, made_lloyd = step_controls("lloyd", "Run k-means")
            about_kmeans = gr.Markdown(elem_id="about-kmeans")
            curve_kmeans = gr.HTML(elem_id="curve-kmeans", elem_classes="narrow")
            gr.Markdown(KMEANS)
    with gr.Tab("Tree") as tabs["Tree"]:
        with gr.Row():
            linkage = gr.Radio(list(LINKAGES), value="ward", label="Linkage", elem_id="linkage", min_width=300)
            cut = gr.Slider(1, MOST_COMPONENTS, 4, step=1, label="Cut into clusters", min_width=300)
        grow = buttons("Grow the tree", "grow")
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                dendrogram = gr.HTML(elem_id="dendrogram", elem_classes="narrow", min_height=240)
                about_tree = gr.Markdown(elem_id="about-tree")
                gr.Markdown(TREE)
            with gr.Column(scale=2, min_width=300):
                map_tree = gr.HTML(elem_id="map-tree", min_height=280)
    with gr.Tab("One line") as tabs["One line"], gr.Row():
        with gr.Column(scale=2, min_width=300):
            shape = gr.Radio(list(playground.LINES), value="two bumps", label="Density")
            with gr.Row():
                line_count = gr.Slider(2, MOST_POINTS, 200, step=1, label="Points", scale=2, min_width=160)
                line_seed = gr.Number(0, label="Seed", precision=0, scale=1, min_width=80)
            bins = gr.Slider(1, 100, 24, step=1, label="Bins of the histogram")
            line_components = gr.Slider(1, MOST_COMPONENTS, 2, step=1, label="Components of the mixture")
            line_rule, line_bandwidth = bandwidth_controls("line")
        with gr.Column(scale=3, min_width=300):
            line_figure = gr.HTML(elem_id="line-figure", min_height=160)
            at = gr.Slider(-10, 10, 0, step=0.05, label="x", elem_id="line-x")
            line_table = gr.Markdown(elem_id="line-table")
            measure = buttons("Estimate", "measure")
            gr.Markdown(LINE)
    with gr.Tab("Digits") as tabs["Digits"]:
        gr.Markdown(
            "What works in the plane does not work in 784 dimensions: every image is far from every other. So **PCA** first keeps "
            "the few directions in which digits differ most, and a density of those is one of digits."
        )
        with gr.Tab("Samples"), gr.Row():
            with gr.Column(scale=2, min_width=300):
                densities = names_with("mixture", "kde", flat=False)
                model = gr.Dropdown(densities, value=next(iter(densities), None), label="Model", elem_id="model")
                # a caller of the API may choose a model whose components are not shown
                digit_component = gr.Dropdown(
                    ["all", *map(str, range(1, 201))], value="all", label="Component", elem_id="digit-component"
                )
                output = gr.Radio(["mean", "sample"], value="mean", label="What PCA leaves out",
                                  info="mean: nothing; sample: noise of its variance")  # fmt: skip
                digit_count = count_control(MAX_COUNT, 25)
                digit_seed, new_seed = seed_controls("seed-digits")
                draw = buttons("Draw samples", "draw")
                about_samples = gr.Markdown(elem_id="about-samples")
            with gr.Column(scale=3, min_width=300):
                samples = result_image("Samples", "samples")
        with gr.Tab("Few numbers") as few_tab, gr.Row():
            with gr.Column(scale=2, min_width=300):
                digit_pad = Pad(example_digits()[2], label="Draw a digit", elem_id="pad-digit")
                examples = examples_gallery("examples")
            with gr.Column(scale=3, min_width=300):
                kept = gr.Slider(1, 200, 20, step=1, label="Principal components to keep", elem_id="kept")
                redraw = buttons("Redraw it", "redraw")
                with gr.Row():
                    seen = result_image("Your digit", "seen", min_width=140)
                    redrawn = result_image("Redrawn", "redrawn", min_width=140)
                about_digit = gr.Markdown(elem_id="about-digit")
                spectrum = gr.HTML(elem_id="spectrum")
        with gr.Tab("Clusters") as clusters_tab, gr.Row():
            with gr.Column(scale=2, min_width=300):
                clusterings = names_with("kmeans", "agglomerative", flat=False)
                clustering = gr.Radio(clusterings, value=next(iter(clusterings), None), label="Clustering",
                                      elem_id="clustering")  # fmt: skip
                image_clusters = gr.Slider(1, MAX_COUNT, 16, step=1, label="Cut the tree into",
                                           info="k-means has a number of its own")  # fmt: skip
                average = buttons("Show the means", "average")
                about_centres = gr.Markdown(elem_id="about-centres")
            with gr.Column(scale=3, min_width=300):
                centres = result_image("Means of the clusters", "centres")
    explanation(THEORY)

    fitted = job(
        estimate, density_kernels, [*chosen, rule, log_bandwidth, map_kernels],
        [map_kernels, here_kernels, about_kernels, curve_kernels, log_bandwidth],
    )  # fmt: skip
    mixed = [*chosen, components, covariance, start], [map_mixture, here_mixture, about_mixture, curve_mixture, made_em]
    job(run_em, density_mixture, [*mixed[0], map_mixture], mixed[1])
    stepped = [*mixed[0], made_em, map_mixture]
    compared = job(compare, density_bic, [*chosen, covariance], [curve_bic, about_bic])
    pointed = job(
        draw_points, density_mixture_sample, [*mixed[0], made_em, component, draws, draw_seed], [drawn_points]
    )
    clustered = [*chosen, clusters], [map_kmeans, about_kmeans, curve_kmeans, made_lloyd]
    job(run_lloyd, density_kmeans, *clustered)
    grown = job(grow, density_tree, [*chosen, linkage, cut], [map_tree, dendrogram, about_tree])
    measured = job(
        measure, density_line,
        [shape, line_count, line_seed, bins, line_rule, line_bandwidth, line_components, at],
        [line_figure, line_table, line_bandwidth],
    )  # fmt: skip
    sampled = job(
        draw, density_sample, [model, digit_component, output, digit_count, digit_seed, new_seed],
        [samples, about_samples, digit_seed],
    )  # fmt: skip
    rebuilt = job(redraw, density_reconstruct, [digit_pad, kept], [seen, redrawn, about_digit, spectrum])
    averaged = job(average, density_centres, [clustering, image_clusters], [centres, about_centres])

    # what happens without a button; the handlers are the same, so the API names them once
    quiet = {"api_visibility": "private"}
    live = {"trigger_mode": "always_last", "show_progress": "hidden"}
    fresh = {**live, **quiet}

    map_kernels.input(
        density_at,
        [*chosen, rule, log_bandwidth, map_kernels],
        here_kernels,
        queue=False,
        **live,
        api_name="density_at",
    )
    map_mixture.input(density_mixture_at, stepped, here_mixture, queue=False, **live, api_name="density_mixture_at")

    def one_more(*values):
        return density_mixture_step(*values[:-2], min(values[-2] + 1, MOST_STEPS), values[-1])

    def from_start(*values):
        return density_mixture_step(*values[:-2], 0, values[-1])

    def one_more_lloyd(*values):
        return density_kmeans_step(*values[:-1], min(values[-1] + 1, MOST_STEPS))

    def lloyd_from_start(*values):
        return density_kmeans_step(*values[:-1], 0)

    lloyd_stepped = [*clustered[0], made_lloyd]
    made_em.submit(density_mixture_step, stepped, mixed[1], **live, api_name="density_mixture_step")
    made_lloyd.submit(density_kmeans_step, lloyd_stepped, clustered[1], **live, api_name="density_kmeans_step")
    more_em.click(one_more, stepped, mixed[1], show_progress="hidden", **quiet)
    back_em.click(from_start, stepped, mixed[1], show_progress="hidden", **quiet)
    more_lloyd.click(one_more_lloyd, lloyd_stepped, clustered[1], show_progress="hidden", **quiet)
    back_lloyd.click(lloyd_from_start, lloyd_stepped, clustered[1], show_progress="hidden", **quiet)

    # each tab shows its answer when it is opened, and when the points change while it is open
    plane_tabs = {
        "Kernels": (density_kernels, fitted),
        "Mixture": (from_start, (stepped, mixed[1])),
        "K-means": (lloyd_from_start, (lloyd_stepped, clustered[1])),
        "Tree": (density_tree, grown),
    }
    renewed = again.click(lambda: random.randint(0, MAX_SEED), None, seed, queue=False, **quiet)
    changes = [data.input, count.input, seed.submit, pad.input]
    data.change(lambda d: gr.Column(visible=d == DRAWING), data, paper, queue=False, show_progress="hidden", **quiet)
    for name, (handler, (given, shown)) in plane_tabs.items():
        answer = when_open(name, handler, shown)
        gr.on(changes, answer, [opened, *given], shown, **fresh)
        renewed.success(answer, [opened, *given], shown, **fresh)
    for name, tab in tabs.items():
        on_plane = name in plane_tabs
        tab.select(
            functools.partial(lambda name, on_plane: (name, gr.Row(visible=on_plane)), name, on_plane), None,
            [opened, points_row], queue=False, show_progress="hidden", **quiet,
        )  # fmt: skip

    log_bandwidth.input(lambda: "by hand", None, rule, queue=False, show_progress="hidden", **quiet)
    log_bandwidth.input(by_hand(density_kernels, 4), *fitted, **fresh)
    rule.input(density_kernels, *fitted, **fresh)
    components.input(update_components, components, component, queue=False, **fresh)
    about_mixture.change(density_mixture_sample, *pointed, **fresh)  # which says another thing after each step
    component.input(density_mixture_sample, *pointed, **fresh)
    for control in (components, covariance, start):
        control.input(from_start, stepped, mixed[1], **fresh)
    clusters.input(lloyd_from_start, lloyd_stepped, clustered[1], **fresh)
    for control in (linkage, cut):
        control.input(density_tree, *grown, **fresh)
    line_bandwidth.input(lambda: "by hand", None, line_rule, queue=False, show_progress="hidden", **quiet)
    line_bandwidth.input(by_hand(density_line, 4), *measured, **fresh)
    for control in (shape, line_count, bins, line_components, line_rule, at):
        control.input(density_line, *measured, **fresh)
    digit_pad.input(density_reconstruct, *rebuilt, **fresh)
    kept.input(density_reconstruct, *rebuilt, **fresh)
    examples.select(chosen_example, None, digit_pad, **quiet).success(density_reconstruct, *rebuilt, **quiet)
    model.change(offer_components, model, digit_component, **quiet).success(density_sample, *sampled, **quiet)
    clustering.input(density_centres, *averaged, **quiet)
    image_clusters.input(density_centres, *averaged, **fresh)
    if MODELS.first:
        # no tab is empty when it is opened
        demo.load(density_kernels, *fitted, **quiet)
        tabs["Kernels"].select(density_kernels, *fitted, **quiet)
        tabs["Mixture"].select(density_mixture_step, stepped, mixed[1], **quiet).success(
            density_bic, *compared, **quiet
        )
        tabs["K-means"].select(density_kmeans_step, lloyd_stepped, clustered[1], **quiet)
        tabs["Tree"].select(density_tree, *grown, **quiet)
        tabs["One line"].select(density_line, *measured, **quiet)
    if densities:
        tabs["Digits"].select(offer_components, model, digit_component, **quiet).success(
            density_sample, *sampled, **quiet
        )
        few_tab.select(offer_kept, kept, kept, **quiet).success(density_reconstruct, *rebuilt, **quiet)
    if clusterings:
        clusters_tab.select(density_centres, *averaged, **quiet)

if __name__ == "__main__":
    launch(demo)
