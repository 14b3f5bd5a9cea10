"""The laboratory's tab on one Gaussian fitted to two hills, by KL one way and the other."""

from __future__ import annotations  # torch is not there while the page is read

from collections.abc import Iterator

import gradio as gr
import numpy as np
from adversarial_common import QUIET
from kit.bounds import bounded
from kit.charts import columns_of, curves, signed
from kit.jobs import buttons, job, one_job, opening, unhurried
from kit.lazy import LazyModule
from kit.theme import MATH

laboratory = LazyModule("adversarial_densities")  # which imports torch
FIT_FRAMES, FRAME_SECONDS = 30, 0.1
FIT = """
$\\mathrm{KL}(p\\|q)$ grows without bound as $q$ comes to miss a part of $p$: the fit covers both hills, and the valley that holds
nothing. $\\mathrm{KL}(q\\|p)$ grows without bound as $q$ comes to lie where $p$ is not: the fit takes one hill and forgets the other.
Maximum likelihood is the first: it covers, and blurs. A model fitted by the second looks sharp, and leaves out. From a wide
start the second can end across both hills too, at a greater divergence: it has several optima.
"""


@one_job(cost="heavy")
@unhurried(FRAME_SECONDS)
def laboratory_fit(distance: float, mean: float, deviation: float) -> Iterator[tuple[str, str]]:
    """Fit one Gaussian to two hills, by KL(p||q) and by KL(q||p).

    Args:
        distance: of each hill from the middle, 0.5 to 4.
        mean: where the Gaussian starts, -4 to 4.
        deviation: how wide it starts, 0.2 to 4.

    Returns:
        A figure (SVG) of the hills and of both fits, and their divergences; again as they move.
    """
    distance = float(bounded("distance", distance, 0.5, 4))
    start = float(bounded("mean", mean, -4, 4)), float(bounded("deviation", deviation, 0.2, 4))
    p = laboratory.Mixture((-distance, distance), (0.6, 0.6), (0.5, 0.5))
    paths = {d: laboratory.fit_gaussian(p, d, start) for d in laboratory.DIRECTIONS}
    x = laboratory.LINE
    here = np.abs(x) <= 7
    count = len(next(iter(paths.values())))
    for frame in np.unique(np.geomspace(1, count, FIT_FRAMES).astype(int)) - 1:
        columns, text = {"p": np.exp(p.log_prob(x))}, ""
        for name, path in paths.items():
            at = path[frame]
            columns[f"q by {name}"] = np.exp(laboratory.Mixture((at.mean,), (at.deviation,), (1.0,)).log_prob(x))
            text += (
                f"**{name}** = {max(at.divergence, 0):.3f} nats at mean {signed(at.mean, 2)}, "
                f"deviation {at.deviation:.2f}. "
            )
        shown = {k.replace("||", "‖"): v[here] for k, v in columns.items()}
        figure = curves(columns_of(x[here], shown, most=1.5, thin=8), "x", "")
        yield figure, f"step {frame} of {count - 1}. " + text.replace("||", "‖")


def build() -> None:
    with gr.Tab("One Gaussian for two") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            hills = gr.Slider(0.5, 4, 2, step=0.1, label="Distance of each hill from the middle")
            mean = gr.Slider(-4, 4, 1, step=0.1, label="Mean to start from")
            deviation = gr.Slider(0.2, 4, 1, step=0.1, label="Deviation to start from")
            fit = buttons("Fit", "fit", stop=True)
            gr.Markdown(FIT, latex_delimiters=MATH)
        with gr.Column(scale=3, min_width=300):
            fits = gr.Markdown(elem_id="fits")
            drawn = gr.HTML(elem_id="fit-curves", min_height=240)
        fitted = job(fit, laboratory_fit, [hills, mean, deviation], [drawn, fits])
        opening(tab).success(laboratory_fit, *fitted, **QUIET)
