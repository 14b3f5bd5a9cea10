"""The laboratory's tab on densities that slide apart: what four divergences say."""

from __future__ import annotations  # torch is not there while the page is read

import functools
import math

import gradio as gr
import numpy as np
from adversarial_common import QUIET
from kit.bounds import bounded, one_of
from kit.charts import columns_of, curves
from kit.jobs import buttons, job, opening
from kit.lazy import LazyModule
from kit.theme import MATH

laboratory = LazyModule("adversarial_densities")  # which imports torch
SHAPES = ("uniform", "bump", "Gaussian")
MOST_SHIFT = 1.5
SLIDE = """
Two equal densities, one moved away. As soon as one is where the other has no mass, **KL** is infinite; a Gaussian has mass
everywhere, and its KL grows with the square of the distance. Once they do not overlap, **Jensen-Shannon** stays at $\\log 2$, however far apart they are: its derivative is zero, and a generator that
follows it learns nothing. The **Wasserstein** distance says how far there is to go, and its derivative which way. (KL is
the same both ways here, and drawn once, where it is finite and below 3.)
"""


@functools.lru_cache
def slid(shape: str):
    return laboratory.slide_apart(shape, np.linspace(-MOST_SHIFT, MOST_SHIFT, 61))


def laboratory_slide(shape: str, shift: float) -> tuple[str, str, str, str]:
    """Move a density away from itself: how far apart do four divergences say that it is, and which way back?

    Args:
        shape: "uniform", "bump" or "Gaussian".
        shift: -1.5 to 1.5.

    Returns:
        Figures (SVG) of the two densities, of the divergences against the shift, of their derivatives, and the numbers.
    """
    one_of("shape", shape, SHAPES)
    shift = float(bounded("shift", shift, -MOST_SHIFT, MOST_SHIFT))
    x = np.linspace(-2.2, 2.2, 441)
    two = {name: np.exp(laboratory.shape_log_prob(shape, x - s)) for name, s in (("p", 0), ("q", shift))}
    slide, here = slid(shape), laboratory.slide_apart(shape, [shift])
    left_out = {"KL(q||p)"}  # equal to the other by symmetry: the same line

    def figure(columns: dict, most: float, name: str) -> str:
        kept = {k: v for k, v in columns.items() if k not in left_out}
        return curves(columns_of(slide.shifts, kept, most), "shift", name)

    table = "| | value | slope |\n|---|---|---|\n"
    for name, value in here.values.items():
        slope = here.gradients[name][0]
        shown = "∞" if math.isinf(value[0]) else f"{value[0]:.3f}"
        table += f"| {name} | {shown} | {'–' if math.isnan(slope) else f'{slope:.3f}'} |\n"
    return (
        curves(columns_of(x, two), "x", "density"),
        figure(slide.values, 3, "divergence"),
        figure(slide.gradients, 8, "derivative"),
        table.replace("-0.000", "0.000").replace(" -", " −").replace("||", "‖"),
    )


def build() -> None:
    fresh = {"trigger_mode": "always_last", "show_progress": "hidden", **QUIET}
    with gr.Tab("Sliding apart") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            shape = gr.Radio(list(SHAPES), value=SHAPES[0], label="Shape")
            shift = gr.Slider(-MOST_SHIFT, MOST_SHIFT, 0.6, step=0.05, label="Shift", elem_id="shift")
            slide = buttons("Compare", "slide")
            numbers = gr.Markdown(elem_id="numbers")
            gr.Markdown(SLIDE, latex_delimiters=MATH)
        with gr.Column(scale=3, min_width=300):
            two = gr.HTML(elem_id="two", min_height=240)
            divergences = gr.HTML(elem_id="divergences")
            slopes = gr.HTML(elem_id="slopes")
        compared = job(slide, laboratory_slide, [shape, shift], [two, divergences, slopes, numbers])
        shape.input(laboratory_slide, *compared, **fresh)
        shift.input(laboratory_slide, *compared, **fresh)
        opening(tab).success(laboratory_slide, *compared, **QUIET)
