"""Agglomerative trees: the nearest clusters are merged, and the tree is cut."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import functools

import density_playground as playground
import gradio as gr
import numpy as np
from density_models import MOST_COMPONENTS, TREE, fitting, or_user_error, say_missing, tensor_of
from density_points import LIVE, QUIET, Points, check_count, checked_points, points_of
from kit import maps
from kit.bounds import one_of
from kit.jobs import buttons, job, one_job, opening
from PIL import Image

NAME = "Tree"
LINKAGES = ("ward", "complete", "average", "single")
MOST_LEAVES = 200
NOTE = """
**Single** linkage follows chains, which is right for rings and spirals, and wrong as soon as one stray point makes a bridge.
**Ward** and **complete** make compact clusters. A long gap between two merges is a good place to cut.
"""


@functools.lru_cache(maxsize=32)
def tree_of(chosen: tuple, linkage: str):
    return or_user_error(fitting(TREE).fit, tensor_of(points_of(chosen)[:MOST_LEAVES]), linkage)


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
    chosen = checked_points(data, count, seed, picture)
    clusters = check_count("clusters", clusters, chosen)
    model = tree_of(chosen, one_of("linkage", linkage, LINKAGES))
    labels, heights, x = model.cut(clusters).numpy(), model.heights.numpy(), model.points.numpy()
    svg = maps.screen(
        "points, coloured by cluster",
        maps.spots(x, [playground.colour_of(k) for k in labels.tolist()], 6),
    )
    sizes = np.bincount(labels)
    told = f"**{clusters} clusters** of " + ", ".join(map(str, sizes.tolist())) + " points."
    if clusters == 1:
        told = f"**One cluster** of {len(x)} points."
    told += f" The cut is at a distance of **{playground.cut_height(heights, clusters):.2f}**."
    if chosen[1] > MOST_LEAVES:
        told += f" A tree shows the first {MOST_LEAVES} points."
    return (
        maps.as_figure(svg),
        maps.as_figure(playground.dendrogram(model.merges.numpy(), heights, labels)),
        told,
    )


def build(demo: gr.Blocks, points: Points) -> None:
    """The tab, on the page `demo`."""
    with gr.Tab(NAME) as tab:
        say_missing(TREE)
        with gr.Row():
            linkage = gr.Radio(list(LINKAGES), value="ward", label="Linkage", elem_id="linkage", min_width=300)
            cut = gr.Slider(1, MOST_COMPONENTS, 4, step=1, label="Cut into clusters", min_width=300)
        grow = buttons("Grow the tree", "grow")
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                dendrogram = gr.HTML(elem_id="dendrogram", elem_classes="narrow", min_height=240)
                about = gr.Markdown(elem_id="about-tree")
                gr.Markdown(NOTE)
            with gr.Column(scale=2, min_width=300):
                picture = gr.HTML(elem_id="map-tree", min_height=280)

    grown = job(grow, density_tree, [*points.inputs, linkage, cut], [picture, dendrogram, about])
    points.shown_in(tab, NAME, True)
    points.followed_by(NAME, density_tree, *grown)
    for control in (linkage, cut):
        control.input(density_tree, *grown, **LIVE, **QUIET)
    if TREE.models:
        opening(tab).success(density_tree, *grown, **QUIET)
