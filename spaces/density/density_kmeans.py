"""K-means: centres and the points nearest to them, step by step."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import functools
from collections.abc import Iterator

import density_playground as playground
import gradio as gr
import numpy as np
from density_models import KMEANS, MOST_COMPONENTS, fitting, or_user_error, say_missing, tensor_of
from density_points import (
    FRAME_SECONDS,
    LIVE,
    MOST_STEPS,
    QUIET,
    Points,
    check_count,
    checked_points,
    points_of,
    step_controls,
    steps_made,
)
from kit import maps
from kit.charts import curves
from kit.jobs import job, one_job, opening, unhurried
from PIL import Image

NAME = "K-means"
NOTE = """
Each place has the colour of its nearest centre, and white lines are the ways of the centres. Borders are straight and all
directions count the same: moons, rings and spirals are cut through. Another seed starts elsewhere, and may end elsewhere.
"""


@functools.lru_cache(maxsize=16)
def lloyd_path(chosen: tuple, clusters: int) -> list:
    """All of Lloyd's iterations on a set's points, from random ones of them."""
    x, seed = points_of(chosen), chosen[2]
    centres = tensor_of(x[np.random.default_rng([seed, 2]).permutation(len(x))[:clusters]])
    return or_user_error(
        lambda: list(
            fitting(KMEANS).lloyd_steps(tensor_of(x), clusters, max_iter=MOST_STEPS, seed=seed, centres=centres)
        )
    )


def kmeans_of(data, count, seed, picture, clusters) -> tuple[tuple, list]:
    chosen = checked_points(data, count, seed, picture)
    return chosen, lloyd_path(chosen, check_count("clusters", clusters, chosen))


def kmeans_view(chosen: tuple, path: list, made: int) -> tuple[str, str, str, int]:
    """What the page shows after `made` steps."""
    step, x = path[made], points_of(chosen)
    centres = np.stack([s.centres.numpy() for s in path[: made + 1]])
    svg = maps.screen(
        "points and their nearest centres",
        maps.spots(x, [playground.colour_of(k) for k in step.assignment.tolist()]),
        playground.trails(centres),
        playground.disks(centres[-1]),
        ground=playground.regions(playground.nearest(centres[-1])),
    )
    inertia = [(number, s.inertia / len(x)) for number, s in enumerate(path[: made + 1])]
    curve = curves({"squared distance": inertia}, "steps of Lloyd", "", least=min(v for _, v in inertia))
    end = " No point changes its centre any more." if step.converged else ""
    text = f"Step **{made}**: mean squared distance to the nearest centre **{inertia[-1][1]:.4f}**.{end}"
    return maps.as_figure(svg), text, curve, made


@one_job(cost="heavy")
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
    return kmeans_view(chosen, path, steps_made(path, step))


def one_more_step(*values):
    return density_kmeans_step(*values[:-1], min(values[-1] + 1, MOST_STEPS))


def start_over(*values):
    return density_kmeans_step(*values[:-1], 0)


def build(demo: gr.Blocks, points: Points) -> None:
    """The tab, on the page `demo`."""
    with gr.Tab(NAME) as tab:
        say_missing(KMEANS)
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                picture = gr.HTML(elem_id="map-kmeans", min_height=280)
            with gr.Column(scale=2, min_width=300):
                clusters = gr.Slider(1, MOST_COMPONENTS, 5, step=1, label="Clusters")
                run, more, back, made = step_controls("lloyd", "Run k-means")
                about = gr.Markdown(elem_id="about-kmeans")
                curve = gr.HTML(elem_id="curve-kmeans", elem_classes="narrow")
                gr.Markdown(NOTE)

    given, shown = [*points.inputs, clusters], [picture, about, curve, made]
    stepped = [*given, made]
    job(run, density_kmeans, given, shown)
    made.submit(density_kmeans_step, stepped, shown, **LIVE, api_name="density_kmeans_step")
    more.click(one_more_step, stepped, shown, show_progress="hidden", **QUIET)
    back.click(start_over, stepped, shown, show_progress="hidden", **QUIET)
    points.shown_in(tab, NAME, True)
    points.followed_by(NAME, start_over, stepped, shown)
    clusters.input(start_over, stepped, shown, **LIVE, **QUIET)
    if KMEANS.models:
        opening(tab).success(density_kmeans_step, stepped, shown, **QUIET)
