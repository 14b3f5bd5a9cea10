"""The laboratory's tab on the optimal discriminator: a network trained to reach it."""

from __future__ import annotations  # torch is not there while the page is read

from collections.abc import Iterator

import gradio as gr
import numpy as np
from kit.bounds import one_of, seed_of, whole
from kit.charts import columns_of, curves
from kit.controls import seed_number
from kit.jobs import buttons, job, one_job
from kit.lazy import LazyModule
from kit.theme import MATH

laboratory = LazyModule("adversarial_densities")  # which imports torch
DENSITIES = ("one beside the other", "one inside the other", "two hills and one", "the same twice")
DISCRIMINATOR = """
For data of density $p$ and samples of density $p_g$ the best discriminator is $D^*(x) = p / (p + p_g)$, and the value
of the game is then $2\\,\\mathrm{JS}(p, p_g) - 2\\log 2$. Here both densities are known, so both can be computed, and a
network trained on samples can be held against them. It never gets above the line; when $p_g = p$ all it can say is one
half.
"""


@one_job(cost="training")
def laboratory_discriminator(densities: str, num_steps: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """Train a discriminator on two known densities and watch it come to p / (p + p_g).

    Args:
        densities: "one beside the other", "one inside the other", "two hills and one" or "the same twice".
        num_steps: 100 to 5000.
        seed: 0 to 2147483647.

    Returns:
        A figure (SVG) of the densities with both discriminators, one of the value of the game, and the numbers; again
        as it goes.
    """
    one_of("densities", densities, DENSITIES)
    steps, seed = whole("num_steps", num_steps, 100, 5_000), seed_of(seed, False)
    p, q = laboratory.DENSITIES[densities]
    x = laboratory.LINE
    log_p, log_q = p.log_prob(x), q.log_prob(x)
    both = np.exp(log_p) + np.exp(log_q)
    there = both > 0.01 * both.max()
    best = laboratory.optimal_discriminator(np.exp(log_p), np.exp(log_q))
    divergence = laboratory.jensen_shannon(log_p, log_q, x)
    bound, values = 2 * divergence - 2 * laboratory.LOG_2, []
    for step in laboratory.train_discriminator(p, q, steps, seed, every=50):
        values.append((step.step, step.value))
        error = np.abs(step.confidence - best)[there].max()
        columns = {"p": np.exp(log_p), "p_g": np.exp(log_q), "D trained": step.confidence, "p/(p + p_g)": best}
        figure = curves(columns_of(x[there], {k: v[there] for k, v in columns.items()}, thin=8), "x", "")
        ends = {"value": values, "2 JS − 2 log 2": [(0, bound), (steps, bound)]}
        curve = curves(ends, "steps of the discriminator", "", least=bound)
        text = (
            f"step **{step.step}** of {steps}. The value of the game is **{step.value:.4f}**; at most it can be "
            f"2 JS − 2 log 2 = **{bound:.4f}**, with JS = {divergence:.4f} nats. The discriminator is at most "
            f"**{error:.3f}** off, where there is data."
        )
        yield figure, curve, text.replace("-", "−")


def build() -> None:
    with gr.Tab("Optimal discriminator"), gr.Row():
        with gr.Column(scale=2, min_width=300):
            densities = gr.Radio(list(DENSITIES), value=DENSITIES[0], label="Data and samples")
            updates = gr.Slider(100, 5_000, 2_000, step=100, label="Steps")
            seed = seed_number(0, "Seed")
            watch = buttons("Train the discriminator", "watch", stop=True)
            gr.Markdown(DISCRIMINATOR, latex_delimiters=MATH)
        with gr.Column(scale=3, min_width=300):
            state = gr.Markdown(elem_id="state")
            confidence = gr.HTML(elem_id="confidence-curve", min_height=240)
            value = gr.HTML(elem_id="value-curve")
        job(watch, laboratory_discriminator, [densities, updates, seed], [confidence, value, state])
