"""Kernels: a Gaussian on every point, and the bandwidth that decides everything."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import functools
import math

import density_playground as playground
import gradio as gr
import numpy as np
from density_models import KERNELS, fitting, or_user_error, say_missing, tensor_of
from density_points import (
    LIVE,
    QUIET,
    Points,
    call_handler,
    checked_points,
    field_of,
    place_text,
    points_of,
)
from kit import maps
from kit.bounds import bounded, one_of
from kit.charts import curves, signed
from kit.jobs import buttons, job, opening
from kit.pictures import Explorer
from kit.theme import MATH
from PIL import Image

NAME = "Kernels"
RULES = {"by hand": None, "Scott": "scott", "Silverman": "silverman", "held-out": "held_out"}
LEAST_LOG, MOST_LOG = -1.7, 0.5  # log10 of a bandwidth
NOTE = """
**Click and drag** on the map, or focus it and use the arrow keys.

Light is where $p$ is high. A narrow kernel makes $p$ high at **its own points** and nowhere else, so that line falls all the
way; on **fresh points** it is worthless. The bandwidth that is best for points **left out** of the estimate, which needs no
others, is close to the best there is.
"""


def log_bandwidth_of(value) -> float:
    return float(bounded("log_bandwidth", value, LEAST_LOG, MOST_LOG))


@functools.lru_cache(maxsize=64)
def kernels(chosen: tuple, rule: str, log_bandwidth: float):
    """The estimate of a set's points."""
    bandwidth = RULES[rule] or 10**log_bandwidth
    return or_user_error(fitting(KERNELS).fit, tensor_of(points_of(chosen)), bandwidth)


@functools.lru_cache(maxsize=32)
def bandwidth_curves(chosen: tuple) -> dict[str, list[tuple[float, float]]]:
    """The mean log-likelihood of an estimate against its bandwidth, on three kinds of points."""
    x, fresh = tensor_of(points_of(chosen)), tensor_of(points_of(chosen, True, 300))
    lines: dict[str, list] = {"its own points": [], "fresh points": [], "left out": []}
    bandwidths = np.geomspace(10**LEAST_LOG, 10**MOST_LOG, 20)
    for h in bandwidths.tolist():
        model = fitting(KERNELS).fit(x, h)
        lines["its own points"].append((h, model.log_prob(x[:300]).mean().item()))
        lines["fresh points"].append((h, model.log_prob(fresh).mean().item()))
    left_out = playground.left_out(points_of(chosen), bandwidths)
    lines["left out"] = list(zip(bandwidths.tolist(), left_out.tolist(), strict=True))
    # far below the best there is nothing to see but how far
    low = max(y for name in ("fresh points", "left out") for _, y in lines[name]) - 2.5
    return {name: [(h, y if y >= low else math.nan) for h, y in line] for name, line in lines.items()}


def kernels_of(data, count, seed, picture, rule, log_bandwidth):
    chosen = checked_points(data, count, seed, picture)
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
    svg = maps.screen("log p(x)", maps.spots(x, "#ffffff", 3.5), ground=maps.ground(field_of(model)))
    fresh = model.log_prob(tensor_of(points_of(chosen, True, 400))).mean().item()
    note = " In two dimensions this rule and Silverman's are one." if rule == "Scott" else ""
    note = " In two dimensions this rule and Scott's are one." if rule == "Silverman" else note
    text = f"Bandwidth **h = {h:.3f}**. Fresh points of the same source get **{signed(fresh, 2)} nats** each.{note}"
    lines = bandwidth_curves(chosen)
    least = min(y for line in lines.values() for _, y in line if math.isfinite(y))
    here = min(max(h, 10**LEAST_LOG), 10**MOST_LOG)
    curve = curves(lines, "bandwidth h", "nats", log_x=True, least=least, here=("h", here))
    slider = min(max(math.log10(h), LEAST_LOG), MOST_LOG) if rule != "by hand" else log_bandwidth
    return maps.explorer_value(place, svg), place_text(model, place), text, curve, round(slider, 2)


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


def by_hand(handler, place: int):
    """A handler whose value at `place` is the rule of the bandwidth: with the slider's."""

    def run(request: gr.Request, *values):
        return call_handler(handler, request, *values[:place], "by hand", *values[place + 1 :])

    return run


def bandwidth_controls(elem_id: str) -> tuple[gr.Radio, gr.Slider]:
    rule = gr.Radio(list(RULES), value="held-out", label="Bandwidth by", elem_id=f"{elem_id}-rule")
    slider = gr.Slider(LEAST_LOG, MOST_LOG, -0.7, step=0.01, label="log₁₀ of the bandwidth", elem_id=f"{elem_id}-h",
                       info="−1 is 0.1, 0 is 1; moving it sets the bandwidth by hand")  # fmt: skip
    return rule, slider


def build(demo: gr.Blocks, points: Points) -> None:
    """The tab; it is the first of the page `demo`, and filled when that opens."""
    with gr.Tab(NAME) as tab:
        say_missing(KERNELS)
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                explorer = Explorer("Map of log p", elem_id="map-kernels", elem_classes="smooth")
                here = gr.Markdown(elem_id="here-kernels")
            with gr.Column(scale=2, min_width=300):
                rule, log_bandwidth = bandwidth_controls("kernels")
                estimate = buttons("Fit the kernels", "estimate")
                about = gr.Markdown(elem_id="about-kernels")
                curve = gr.HTML(elem_id="curve-kernels", elem_classes="narrow")
                gr.Markdown(NOTE, latex_delimiters=MATH)

    given = [*points.inputs, rule, log_bandwidth, explorer]
    fitted = job(estimate, density_kernels, given, [explorer, here, about, curve, log_bandwidth])
    explorer.input(density_at, given, here, queue=False, **LIVE, api_name="density_at")
    points.shown_in(tab, NAME, True)
    points.followed_by(NAME, density_kernels, *fitted)
    log_bandwidth.input(lambda: "by hand", None, rule, queue=False, show_progress="hidden", **QUIET)
    log_bandwidth.input(by_hand(density_kernels, 4), *fitted, **LIVE, **QUIET)
    rule.input(density_kernels, *fitted, **LIVE, **QUIET)
    if KERNELS.models:
        demo.load(density_kernels, *fitted, **QUIET)
        opening(tab).success(density_kernels, *fitted, **QUIET)
