"""A flow layer by layer: a grid and points deform from the data to N(0, I), and one place is followed through all of it."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import gradio as gr
import numpy as np
from flows_models import LIVE, OF_POINTS, QUIET, field_of, flow_of_points, points_model, points_of, tensor_of
from kit import maps
from kit.bounds import bounded
from kit.charts import curves, on_plane, signed
from kit.jobs import ASIDE, buttons, job, one_job, stop_job, unhurried
from kit.pictures import Explorer
from kit.theme import MATH

POINTS, LINES, ALONG = 700, 25, 81  # that deform; of the grid, and places along each line
STEP, FRAME_SECONDS, MOST_FRAMES = 0.125, 0.09, 160  # of a layer between two frames, and how long each stands
COLOURS = ("#fb923c", "#38bdf8", "#a3e635", "#f472b6", "#facc15", "#a78bfa", "#34d399", "#f87171")
MOST_LAYERS = 1_001  # that a flow can have, and the standardisation
NOTE = """
**Left**: $\\log p(x)$ of the flow; drag the ring. **Right**: the same plane on its way through the layers. Each layer moves
one coordinate by what it sees in the other (and the other, if at all, by itself), so it never folds; what a layer squeezes
together gets a negative $\\log|\\det|$. At the end the points are a draw of $\\mathcal N(0, I)$: the circles are one and two standard deviations.
"""


@dataclass
class Stages:
    """What each layer makes of points and of a grid; the first stage is x, the second x standardised, the last z.

    Attributes:
        points: (S, N, 2).
        grid: (S, lines, places along a line, 2).
        colours: of the points.
    """

    points: np.ndarray
    grid: np.ndarray
    colours: list[str]


@functools.lru_cache(maxsize=8)
def stages(name: str) -> Stages:
    x, labels = points_of(name, POINTS, 0)
    across, along = np.linspace(-maps.REACH, maps.REACH, LINES), np.linspace(-maps.REACH, maps.REACH, ALONG)
    upright = np.stack(np.broadcast_arrays(across[:, None], along[None]), 2)
    lines = np.concatenate([upright, upright[..., ::-1]])
    both = np.concatenate([x, lines.reshape(-1, 2)])
    moved = flow_of_points(name).layers(tensor_of(both)).points.numpy()
    grid = moved[:, POINTS:].reshape(-1, *lines.shape)
    return Stages(moved[:, :POINTS], grid, [COLOURS[c % len(COLOURS)] for c in labels])


def between(stack: np.ndarray, at: float) -> np.ndarray:
    """A stage, or a part of the way from one to the next."""
    low = min(int(at), len(stack) - 1)
    high = min(low + 1, len(stack) - 1)
    return stack[low] + (at - low) * (stack[high] - stack[low])


def stage_figure(name: str, at: float, followed: np.ndarray) -> str:
    """The plane after `at` layers, and where a place (S, 2) is there."""
    found = stages(name)
    lines = "".join(
        "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in np.clip(on_plane(line, maps.REACH), -300, 900))
        for line in between(found.grid, at)
    )
    ((x, y),) = np.clip(on_plane([between(followed, at)], maps.REACH), 8, maps.SIDE - 8)
    ring = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="13" fill="none" stroke="{colour}" stroke-width="{width}"/>'
        for colour, width in (("white", 8), ("#ff6a00", 4))
    )
    return maps.as_figure(
        maps.screen(
            f"the plane after {at:g} layers",
            f'<path d="{lines}" fill="none" stroke="{maps.PALE}" stroke-width="1" stroke-opacity="0.28"/>',
            maps.unit_circles(),
            maps.spots(between(found.points, at), found.colours, 4),
            ring,
        )
    )


def stage_words(at: float, last: int) -> str:
    """Where a stage is."""
    names = {0: "**x**, the data", 1: "**x standardised**", last: f"**z**, after layer {last - 1} of {last - 1}"}
    if at in names:
        return names[at]
    if at < 1:
        return "from x to x standardised"
    return f"after layer **{at - 1:g}** of {last - 1}"


def layers_of(name: str, place: tuple):
    """A place through all layers: `FlowLayers` of one point."""
    return flow_of_points(name).layers(tensor_of(maps.at_place(place)[None]))


def layers_view(name: str, at: float, place: tuple) -> tuple[str, str, str, str, str]:
    """The stage, where it is, what the flow says of the place, a table of its layers, and the log-determinants so far."""
    out = layers_of(name, place)
    points, log_dets = out.points[:, 0].numpy().astype(float), out.log_dets[:, 0].tolist()
    last = len(points) - 1
    at = min(at, last)
    total, prior = sum(log_dets), out.log_prior.item()
    text = (
        f"{maps.place_text(prior + total, place)}\n\n= log N(z; 0, I) + Σ log |det| = "
        f"{signed(prior, 2)} {'+' if total >= 0 else '−'} {abs(total):.2f}"
    )
    rows = ["| | first | second | log \\|det\\| | so far |", "|---|---|---|---|---|"]
    rounded = points.round(2) + 0.0  # and no minus before a zero
    rows.append(f"| x | {signed(rounded[0, 0], 2)} | {signed(rounded[0, 1], 2)} | | |")
    so_far, line = 0.0, [(0.0, 0.0)]
    for number, ((a, b), log_det) in enumerate(zip(rounded[1:], log_dets, strict=True)):
        so_far += log_det
        line.append((number + 1.0, so_far))
        what = "standardised" if number == 0 else f"layer {number}"
        rows.append(f"| {what} | {signed(a, 2)} | {signed(b, 2)} | {signed(log_det, 2)} | {signed(so_far, 2)} |")
    least = min(y for _, y in line)
    curve = curves({"Σ log |det| so far": line}, "stage", "nats", least=least, here=("shown", at))
    return stage_figure(name, at, points), stage_words(at, last), text, "\n".join(rows), curve


def flow_layers(model: str, layer: float, place: tuple) -> tuple[str, str, str, str, str]:
    """A flow on the plane after some of its layers, and one place through all of them.

    Args:
        model: a flow on points of the plane.
        layer: the stage that is shown: 0 is x, 1 is x standardised, 2 what the first layer makes of it, and so on; between
            two whole numbers a part of the way.
        place: {"x": 0 to 1, "y": 0 to 1} of the marker, from the upper left corner of [-3, 3] x [-3, 3].

    Returns:
        The grid and points at that stage (SVG), where it is, log p of the place, a table of the place and of
        log |det| after each layer, and their sum so far (SVG).
    """
    flow_of_points(model)
    return layers_view(model, float(bounded("layer", layer, 0, MOST_LAYERS)), place)


@one_job(cost="heavy")
@unhurried(FRAME_SECONDS)
def flow_deform(model: str, place: tuple) -> Iterator[tuple[float, str, str, str, str, str]]:
    """Deform the plane from the data to N(0, I), layer by layer.

    Args:
        model: a flow on points of the plane.
        place: {"x": 0 to 1, "y": 0 to 1} of the marker, from the upper left corner of [-3, 3] x [-3, 3].

    Returns:
        The stage, and what `flow_layers` gives of it; again for each eighth of a layer, or for 160 stages.
    """
    flow_of_points(model)
    last = len(stages(model).points) - 1
    frames = min(round(last / STEP), MOST_FRAMES)
    for frame in range(frames + 1):
        at = round(last * frame / frames / STEP) * STEP
        yield at, *layers_view(model, at, place)


def opened_map(model: str, place: tuple) -> tuple[dict, gr.Slider]:
    """The map of a flow, and the slider of its layers."""
    flow_of_points(model)
    svg = maps.screen("log p(x)", ground=maps.ground(field_of(model)))
    return maps.explorer_value(place, svg), gr.Slider(value=0, maximum=len(stages(model).points) - 1)


def build(demo: gr.Blocks) -> None:
    """The tab; it is the first of the page `demo`, and filled when that opens."""
    with gr.Tab("Layers"):
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                model = points_model("layers-model")
                explorer = Explorer("Map of log p", elem_id="map-layers", elem_classes="smooth")
                here = gr.Markdown(elem_id="here-layers")
            with gr.Column(scale=1, min_width=300):
                layer = gr.Slider(0, MOST_LAYERS, 0, step=STEP, label="Layer", elem_id="layer",
                                  info="0 is x, the last is z")  # fmt: skip
                stage = gr.HTML(elem_id="stage", min_height=300)
                where = gr.Markdown(elem_id="where-layers")
                play = buttons("From x to z", "deform", stop=True)
        gr.Markdown(NOTE, latex_delimiters=MATH)
        with gr.Row():
            with gr.Column(min_width=300):
                table = gr.Markdown(elem_id="table-layers", elem_classes="table")
            with gr.Column(min_width=300):
                curve = gr.HTML(elem_id="curve-layers", elem_classes="narrow")

    shown = [stage, where, here, table, curve]
    given = [model, layer, explorer]
    for moved in (layer, explorer):
        moved.input(stop_job, **ASIDE)  # the next frame would take it back
    layer.input(flow_layers, given, shown, **LIVE, api_name="flow_layers")
    explorer.input(flow_layers, given, shown, **LIVE, **QUIET)
    job(play, flow_deform, [model, explorer], [layer, *shown])
    fresh = {"fn": opened_map, "inputs": [model, explorer], "outputs": [explorer, layer], **QUIET}
    model.input(**fresh).success(flow_layers, given, shown, **QUIET)
    if OF_POINTS:
        demo.load(**fresh).success(flow_deform, [model, explorer], [layer, *shown], **QUIET)
