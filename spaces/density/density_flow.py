"""A coupling flow that learns the points while one looks, beside kernels and a mixture of the same points."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import copy
import threading
from collections import OrderedDict
from collections.abc import Iterator

import gradio as gr
from density_kernels import kernels
from density_mixture import em_path
from density_models import FLOW, KERNELS, MIXTURE, MODELS, or_user_error, say_missing, tensor_of
from density_points import LIVE, QUIET, Points, checked_points, field_of, place_text, points_of
from kit import maps
from kit.bounds import one_of, whole
from kit.charts import curves, signed
from kit.errors import user_error
from kit.jobs import ASIDE, Pace, buttons, job, one_job, opening, stop_job
from kit.lazy import LazyModule
from kit.learning import learn, small_network
from kit.pictures import Explorer
from PIL import Image

torch = LazyModule("torch")

NAME = "Flow"
MOST_STEPS, FRESH, COMPONENTS = 1_000, 1_000, 8  # of training; points that none has seen; Gaussians of the mixture
LEAST = 3.0  # nats below the best that the curve reaches down to
NOTE = """
**A flow bends one Gaussian** until it has the shape of the points. It can take any shape, so with few points it goes on to
draw a thread through each of them: then the line of **its own points** rises and that of **fresh points** falls. Stop
it there, or give it more points.
"""
# as each was trained last, and its steps, by what was asked; the newest at the end
_kept: OrderedDict[tuple, tuple[Density, int]] = OrderedDict()
_keeping, MOST_KEPT = threading.Lock(), 64


class Density:
    """A flow as the other densities of the page are asked."""

    def __init__(self, flow):
        self.flow = flow

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 2) -> (N,), nats."""
        with torch.no_grad():
            return self.flow(x).log_prob


def keep(asked: tuple, density: Density, made: int) -> None:
    """Keep it, unless another session has already trained the same flow for longer."""
    with _keeping:
        if asked in _kept and _kept[asked][1] > made:
            return
        _kept[asked] = density, made
        _kept.move_to_end(asked)
        while len(_kept) > MOST_KEPT:
            _kept.popitem(last=False)


def checked(data, count, seed, picture, transform, steps) -> tuple[tuple, str, int]:
    chosen = checked_points(data, count, seed, picture)
    return chosen, one_of("transform", transform, ("spline", "affine")), whole("steps", steps, 1, MOST_STEPS)


def training(asked: tuple) -> Iterator[tuple]:
    """Train step by step; gives (density, steps made) now and then, and keeps it."""
    if not FLOW.models:
        raise user_error(f"This needs a {FLOW.title}, like {FLOW.usual}: name one in MODEL_ID.")
    chosen, transform, steps = asked
    points = tensor_of(points_of(chosen))
    flow = or_user_error(small_network, MODELS[FLOW.models[0]], transform, points, chosen[2])
    pace = Pace(5, seconds=0.35)
    for step in learn(flow, points, steps, chosen[2], lambda out: -out.log_prob):
        if pace.due(step):
            density = Density(copy.deepcopy(flow).eval())  # the marker asks it while another is trained
            keep(asked, density, step.step + 1)
            yield density, step.step + 1


def others(chosen: tuple) -> dict:
    """The other densities of the same points, as far as the page has models of them."""
    found = {"kernels": kernels(chosen, "held-out", 0.0)} if KERNELS.models else {}
    if MIXTURE.models and chosen[1] >= COMPONENTS:
        found["mixture"] = em_path(chosen, COMPONENTS, "full", "k-means")[-1].model
    return found


def rows_of(models: dict, sets: list[torch.Tensor]) -> list[str]:
    """Of each model the mean of log p over its own points and over fresh ones, a row of a table each."""
    found = {name: [signed(model.log_prob(x).mean().item(), 3) for x in sets] for name, model in models.items()}
    return [f"| {name} | {own} | **{fresh}** |" for name, (own, fresh) in found.items()]


@one_job(cost="training")
def density_flow(
    data: str, count: int, seed: int, picture: Image.Image | None, transform: str, steps: int, place: tuple
) -> Iterator[tuple[dict, str, str, str]]:
    """Train a small coupling flow on points of the plane.

    Args:
        data: "three blobs", "ring", "moons", "spiral", "checkerboard" or "your drawing".
        count: how many points, 2 to 1000.
        seed: of the points and of the flow, 0 to 2147483647.
        picture: an image file, for "your drawing": points are drawn from its ink.
        transform: what a layer does, "spline" or "affine".
        steps: of training, 1 to 1000.
        place: {"x": 0 to 1, "y": 0 to 1} of the marker, from the upper left corner.

    Returns:
        The map of log p with the marker's place, log p there, a table beside kernels and a mixture, and log p of the
        points so far (SVG); again for some of the steps.
    """
    asked = checked(data, count, seed, picture, transform, steps)
    sets = [tensor_of(points_of(asked[0])), tensor_of(points_of(asked[0], True, FRESH))]
    head, beside = (
        ["| mean log p of | its own points | fresh points |", "|---|---|---|"],
        rows_of(others(asked[0]), sets),
    )
    lines: dict[str, list] = {"its own points": [], "fresh points": []}
    for density, made in training(asked):
        for line, points in zip(lines.values(), sets, strict=True):
            line.append((made, density.log_prob(points).mean().item()))
        best = max(y for line in lines.values() for _, y in line)
        drawn = {name: [(a, max(y, best - LEAST)) for a, y in line] for name, line in lines.items()}
        curve = curves(drawn, "steps of training", "nats", least=min(y for line in drawn.values() for _, y in line))
        svg = maps.screen(
            "log p(x)", maps.spots(sets[0].numpy(), "#ffffff", 3.5), ground=maps.ground(field_of(density))
        )
        table = "\n".join([*head, *rows_of({"flow": density}, sets), *beside])
        yield maps.explorer_value(place, svg), place_text(density, place), table, curve


def density_flow_at(
    data: str, count: int, seed: int, picture: Image.Image | None, transform: str, steps: int, place: tuple
) -> str:
    """The exact log p of a flow at one place of the plane; of the flow as it was trained last.

    Args:
        data: "three blobs", "ring", "moons", "spiral", "checkerboard" or "your drawing".
        count: how many points, 2 to 1000.
        seed: of the points and of the flow, 0 to 2147483647.
        picture: an image file, for "your drawing": points are drawn from its ink.
        transform: what a layer does, "spline" or "affine".
        steps: of training, 1 to 1000.
        place: {"x": 0 to 1, "y": 0 to 1}, from the upper left corner.

    Returns:
        log p in nats, p, and the place.
    """
    asked = checked(data, count, seed, picture, transform, steps)
    with _keeping:
        density, _ = _kept.get(asked, (None, 0))
    if density is None:
        raise user_error("This flow is not trained yet: train it, and ask then.")
    return place_text(density, place)


def build(demo: gr.Blocks, points: Points) -> None:
    with gr.Tab(NAME) as tab:
        say_missing(FLOW)
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                explorer = Explorer("Map of log p", elem_id="map-flow", elem_classes="smooth")
                here = gr.Markdown(elem_id="here-flow")
            with gr.Column(scale=2, min_width=300):
                transform = gr.Radio(["spline", "affine"], value="spline", label="A layer", elem_id="flow-transform")
                steps = gr.Slider(1, MOST_STEPS, 400, step=1, label="Steps of training")
                train = buttons("Train the flow", "train-flow", stop=True)
                table = gr.Markdown(elem_id="about-flow", elem_classes="table")
                curve = gr.HTML(elem_id="curve-flow", elem_classes="narrow")
                gr.Markdown(NOTE)

    given = [*points.inputs, transform, steps, explorer]
    trained = job(train, density_flow, given, [explorer, here, table, curve])
    explorer.input(density_flow_at, given, here, queue=False, **LIVE, api_name="density_flow_at")
    points.shown_in(tab, NAME, True)
    for changed in (*points.changes, transform.input):
        changed(stop_job, **ASIDE)  # of a flow that learns what is no longer wanted
    points.followed_by(NAME, density_flow, *trained)
    transform.input(density_flow, *trained, **QUIET)
    if FLOW.models:
        opening(tab).success(density_flow, *trained, **QUIET)
