"""Mixtures: EM step by step, how many components there should be, and what a mixture draws."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import functools
from collections.abc import Iterator

import density_playground as playground
import gradio as gr
import numpy as np
from density_models import MIXTURE, MOST_COMPONENTS, drawn_from, fitting, or_user_error, say_missing, tensor_of
from density_points import (
    FRAME_SECONDS,
    LIVE,
    MOST_STEPS,
    QUIET,
    Points,
    check_count,
    checked_points,
    field_of,
    place_text,
    points_of,
    step_controls,
    steps_made,
)
from kit import maps
from kit.bounds import MAX_SEED, one_of, whole
from kit.charts import curves, signed
from kit.controls import seed_number
from kit.jobs import buttons, job, one_job, opening, unhurried
from kit.lazy import LazyModule
from kit.pictures import Explorer
from PIL import Image

torch = LazyModule("torch")

NAME = "Mixture"
COVARIANCES = ("full", "tied", "diag", "spherical")
STARTS = ("random points", "k-means")
NOTE = """
Ellipses are one and two standard deviations; a point has the colours of the components that answer for it. EM only climbs:
where it ends depends on where it starts, so try another seed.
"""


@functools.lru_cache(maxsize=16)
def em_path(chosen: tuple, components: int, covariance: str, start: str) -> list:
    """All steps of EM on a set's points."""
    x, seed = points_of(chosen), chosen[2]
    initial = None
    if start == "random points":  # each point begins with the nearest of a few
        centres = x[np.random.default_rng([seed, 2]).permutation(len(x))[:components]]
        initial = torch.from_numpy(((x[:, None] - centres[None]) ** 2).sum(2).argmin(1))
    options = {"max_iter": MOST_STEPS, "tol": 1e-4, "reg_covar": 1e-4, "seed": seed, "initial": initial}
    return or_user_error(lambda: list(fitting(MIXTURE).em_steps(tensor_of(x), components, covariance, **options)))


def mixture_of(data, count, seed, picture, components, covariance, start) -> tuple[tuple, list]:
    chosen = checked_points(data, count, seed, picture)
    components = check_count("components", components, chosen)
    one_of("covariance", covariance, COVARIANCES)
    return chosen, em_path(chosen, components, covariance, one_of("start", start, STARTS))


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
    ground = maps.ground(field_of(model), maps.SLATE, 6)
    layers = playground.ellipses(model.means.numpy(), covariances_of(model))
    svg = maps.screen("the mixture", maps.spots(x, playground.blends(shares)), layers, ground=ground)
    reached = [step.log_likelihood for step in path[: made + 1]]
    lines = {"log-likelihood": list(enumerate(reached))}
    curve = curves(lines, "steps of EM", "nats", least=min(reached))
    end = " EM has converged." if path[made].converged else ""
    text = f"Step **{made}** of EM: **{signed(reached[-1], 3)} nats** a point.{end}"
    return maps.explorer_value(place, svg), place_text(model, place), text, curve, made


@one_job(cost="heavy")
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
    return mixture_view(chosen, path, steps_made(path, step), place)


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
    return place_text(path[steps_made(path, step)].model, place)


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
    model = path[steps_made(path, step)].model
    draws, draw_seed = whole("draws", draws, 1, 2_000), whole("draw_seed", draw_seed, 0, MAX_SEED)
    x = drawn_from(model, component, draws, draw_seed)
    colours = playground.blends(model.responsibilities(x).numpy())
    svg = maps.screen(
        f"{draws} points drawn", maps.spots(x.numpy(), colours, 3.5),
        playground.ellipses(model.means.numpy(), covariances_of(model)),
    )  # fmt: skip
    return maps.as_figure(svg)


@functools.lru_cache(maxsize=64)
def bic_of(chosen: tuple, components: int, covariance: str) -> float:
    """BIC for each point, of the mixture that EM finds from k-means."""
    x = tensor_of(points_of(chosen))
    options = {"max_iter": 60, "reg_covar": 1e-4, "seed": chosen[2]}
    return or_user_error(fitting(MIXTURE).fit, x, components, covariance, **options).bic(x) / len(x)


@one_job(cost="heavy")
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
    chosen = checked_points(data, count, seed, picture)
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


def update_components(count: int) -> gr.Dropdown:
    return gr.Dropdown(["all", *map(str, range(1, int(count) + 1))], value="all")


def one_more_step(*values):
    return density_mixture_step(*values[:-2], min(values[-2] + 1, MOST_STEPS), values[-1])


def start_over(*values):
    return density_mixture_step(*values[:-2], 0, values[-1])


def build(demo: gr.Blocks, points: Points) -> None:
    """The tab, on the page `demo`."""
    with gr.Tab(NAME) as tab:
        say_missing(MIXTURE)
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                explorer = Explorer("Map of the mixture", elem_id="map-mixture", elem_classes="smooth")
                here = gr.Markdown(elem_id="here-mixture")
            with gr.Column(scale=2, min_width=300):
                with gr.Row():
                    components = gr.Slider(1, MOST_COMPONENTS, 4, step=1, label="Components", min_width=140)
                    start = gr.Radio(list(STARTS), value=STARTS[0], label="Start from", min_width=140)
                covariance = gr.Radio(list(COVARIANCES), value="full", label="Covariance", elem_id="covariance")
                run, more, back, made = step_controls("em", "Run EM")
                about = gr.Markdown(elem_id="about-mixture")
                curve = gr.HTML(elem_id="curve-mixture", elem_classes="narrow")
                gr.Markdown(NOTE)
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
                    draw_seed = seed_number(0, "Seed", min_width=110)
                draws = gr.Slider(1, 2_000, 500, step=1, label="Points to draw")
                draw = buttons("Draw points", "draw-points")
                drawn = gr.HTML(elem_id="drawn-points")

    given, shown = [*points.inputs, components, covariance, start], [explorer, here, about, curve, made]
    stepped = [*given, made, explorer]
    job(run, density_mixture, [*given, explorer], shown)
    compared = job(compare, density_bic, [*points.inputs, covariance], [curve_bic, about_bic])
    pointed = job(draw, density_mixture_sample, [*given, made, component, draws, draw_seed], [drawn])
    explorer.input(density_mixture_at, stepped, here, queue=False, **LIVE, api_name="density_mixture_at")
    made.submit(density_mixture_step, stepped, shown, **LIVE, api_name="density_mixture_step")
    more.click(one_more_step, stepped, shown, show_progress="hidden", **QUIET)
    back.click(start_over, stepped, shown, show_progress="hidden", **QUIET)
    points.shown_in(tab, NAME, True)
    points.followed_by(NAME, start_over, stepped, shown)
    components.input(update_components, components, component, queue=False, **LIVE, **QUIET)
    about.change(density_mixture_sample, *pointed, **LIVE, **QUIET)  # which says another thing after each step
    component.input(density_mixture_sample, *pointed, **LIVE, **QUIET)
    for control in (components, covariance, start):
        control.input(start_over, stepped, shown, **LIVE, **QUIET)
    if MIXTURE.models:
        opening(tab).success(density_mixture_step, stepped, shown, **QUIET).success(density_bic, *compared, **QUIET)
