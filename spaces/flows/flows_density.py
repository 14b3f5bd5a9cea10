"""The density of a flow beside those of kernels and a mixture that were fitted to points of the same set."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import functools

import gradio as gr
from flows_models import (
    BESIDE,
    LIVE,
    MODELS,
    MOST_POINTS,
    OF_POINTS,
    QUIET,
    field_of,
    flow_of_points,
    is_of_a_set,
    points_model,
    points_of,
    source_of,
    tensor_of,
)
from kit import maps
from kit.bounds import whole
from kit.charts import signed
from kit.errors import user_error
from kit.jobs import buttons, job, one_job, opening
from kit.pictures import Explorer
from kit.theme import MATH

NAMES = {"flow": "Flow", "kernels": "Kernels", "mixture": "Mixture"}
FRESH, MOST_COMPONENTS = 2_000, 64  # points that none has seen; Gaussians of a mixture
NOTE = """
Drag the ring on any of the maps. **Kernels** put a Gaussian of one width on every point, the **mixture** a few Gaussians of
any shape; the **flow** bends one Gaussian until it fits. All three say $\\log p$ exactly. The flow was trained before, on
more points; the other two are fitted here, in a moment. Light is where $p$ is high; each map has its own scale.
"""
# a ring that is dragged on one map lies at the same place of the others; in the browser, so that it follows at once
FOLLOW = "(a, b, c) => [{...b, x: a.x, y: a.y}, {...c, x: a.x, y: a.y}]"


@functools.lru_cache(maxsize=16)
def fitted(kind: str, name: str, count: int, components: int):
    """Kernels or a mixture of points of the flow's set.

    Raises:
        gr.Error: no model of the page has such a class.
    """
    if kind not in BESIDE:
        usual = {"kernels": "kde-2d", "mixture": "gaussian-mixture-2d"}[kind]
        raise user_error(f"This needs a model with {kind}, like {usual}: name one in MODEL_ID.")
    pipe = MODELS[BESIDE[kind]]
    part = next(part for part in pipe.components.values() if hasattr(part, "log_prob"))
    x = tensor_of(points_of(name, count, 0)[0])
    if kind == "kernels":
        return type(part).fit(x, "held_out")
    return type(part).fit(x, components, max_iter=60, reg_covar=1e-4)


def densities(name: str, count: int, components: int) -> dict:
    """Kind -> log p of points (N, 2), for each kind that there is."""
    others = {kind: fitted(kind, name, count, components).log_prob for kind in NAMES if kind in BESIDE}
    return {"flow": flow_of_points(name).log_prob, **others}


@functools.lru_cache(maxsize=16)
def on_fresh_points(name: str, count: int, components: int) -> dict[str, float]:
    """The mean of log p over points that none of them has seen."""
    x = tensor_of(points_of(name, FRESH, 1)[0])
    return {kind: log_prob(x).mean().item() for kind, log_prob in densities(name, count, components).items()}


@functools.lru_cache(maxsize=32)
def map_of(kind: str, name: str, count: int, components: int) -> str:
    """A map of log p, as an SVG."""
    if kind == "flow":
        field = field_of(name)
    else:
        field = fitted(kind, name, count, components).log_prob(tensor_of(maps.places()))
        field = field.view(maps.FIELD, -1).numpy()
    return maps.screen(f"log p of the {kind}", ground=maps.ground(field))


def checked(model, count, components) -> tuple[str, int, int]:
    flow_of_points(model)
    count, components = whole("count", count, 2, MOST_POINTS), whole("components", components, 1, MOST_COMPONENTS)
    if count < components:
        raise user_error(f"components is {components}; {count} points are fewer")
    return model, count, components


def table_at(chosen: tuple[str, int, int], place: tuple) -> str:
    """log p of each at a place, and its mean over fresh points."""
    x, mean = tensor_of(maps.at_place(place)[None]), on_fresh_points(*chosen)
    where = ", ".join(signed(v + 0.0, 2) for v in maps.at_place(place).round(2))
    rows = [f"| | log p at ({where}) | mean log p of fresh points |", "|---|---|---|"]
    best = max(mean.values())
    for kind, log_prob in densities(*chosen).items():
        bold = "**" if mean[kind] == best else ""
        rows.append(f"| {NAMES[kind]} | {signed(log_prob(x).item(), 2)} | {bold}{signed(mean[kind], 3)}{bold} |")
    return "\n".join(rows)


@one_job(cost="heavy")
def flow_density_at(model: str, count: int, components: int, place: tuple) -> str:
    """log p of a flow, of kernels and of a mixture at one place of the plane, each exactly.

    Args:
        model: a flow on points of the plane.
        count: points that kernels and mixture are fitted to, 2 to 5000.
        components: Gaussians of the mixture, 1 to 64.
        place: {"x": 0 to 1, "y": 0 to 1} of the marker, from the upper left corner of [-3, 3] x [-3, 3].

    Returns:
        A table: log p there, nats, and its mean over points that none of the three has seen.
    """
    return table_at(checked(model, count, components), place)


@one_job(cost="heavy")
def flow_density(model: str, count: int, components: int, place: tuple) -> tuple[dict, dict, dict, str, str]:
    """The density of a flow as a map, beside those of kernels and of a mixture that are fitted to points of its set.

    Args:
        model: a flow on points of the plane.
        count: points that kernels and mixture are fitted to, 2 to 5000.
        components: Gaussians of the mixture, 1 to 64.
        place: {"x": 0 to 1, "y": 0 to 1} of the marker, from the upper left corner of [-3, 3] x [-3, 3].

    Returns:
        Three maps with the marker's place, a table of log p there and on fresh points, and what was fitted.
    """
    chosen = checked(model, count, components)
    found = [map_of(kind, *chosen) if kind == "flow" or kind in BESIDE else "" for kind in NAMES]
    shown = [maps.explorer_value(place, svg) if svg else {"x": 0.5, "y": 0.5, "url": ""} for svg in found]
    told = f"Points of {source_of(model)}{'' if is_of_a_set(model) else ', which favours it'}. "
    if "kernels" in BESIDE:
        told += f"The kernels' width is h = {fitted('kernels', *chosen).bandwidth.item():.3f}, the best for points left out. "
    if missing := [kind for kind in ("kernels", "mixture") if kind not in BESIDE]:
        told += f"No model of this page has {' or '.join(missing)}: name kde-2d or gaussian-mixture-2d in MODEL_ID."
    return *shown, table_at(chosen, place), told


def build(demo: gr.Blocks) -> None:
    with gr.Tab("Density") as tab:
        with gr.Row():
            explorers = []
            for kind, title in NAMES.items():
                with gr.Column(min_width=220):
                    gr.Markdown(f"### {title}")
                    explorers.append(Explorer(f"Map of log p, {kind}", elem_id=f"map-{kind}", elem_classes="smooth"))
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                model = points_model("density-model")
                count = gr.Slider(
                    2, MOST_POINTS, 1_000, step=1, label="Points", info="that the other two are fitted to"
                )
                components = gr.Slider(1, MOST_COMPONENTS, 16, step=1, label="Gaussians of the mixture")
                fit = buttons("Fit the other two", "fit-others")
            with gr.Column(scale=2, min_width=300):
                table = gr.Markdown(elem_id="densities", elem_classes="table")
                about = gr.Markdown(elem_id="about-densities")
                gr.Markdown(NOTE, latex_delimiters=MATH)

    choice = [model, count, components]
    first, second, third = explorers
    fitted_now = job(fit, flow_density, [*choice, first], [*explorers, table, about])
    first.input(flow_density_at, [*choice, first], table, **LIVE, api_name="flow_density_at")
    for moved, others in ((first, (second, third)), (second, (first, third)), (third, (first, second))):
        moved.input(None, [moved, *others], list(others), js=FOLLOW, **QUIET)
        if moved is not first:
            moved.input(flow_density_at, [*choice, moved], table, **LIVE, **QUIET)
    model.input(flow_density, *fitted_now, **QUIET)
    if OF_POINTS:
        opening(tab).success(flow_density, *fitted_now, **QUIET)
