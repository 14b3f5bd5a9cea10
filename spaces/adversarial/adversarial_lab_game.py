"""The laboratory's tab on the game x y: three ways to play it."""

from __future__ import annotations  # torch is not there while the page is read

import itertools

import gradio as gr
import numpy as np
from adversarial_common import QUIET
from kit.bounds import bounded, whole
from kit.charts import columns_of, curves, dots, on_plane, plane
from kit.errors import user_error
from kit.jobs import buttons, job, opening
from kit.lazy import LazyModule
from kit.theme import MATH

laboratory = LazyModule("adversarial_training")  # which imports torch
METHODS = ("simultaneous", "alternating", "extragradient")
GAME_REACH = 2.5
GAME = """
One player lowers $xy$ by moving $x$, the other raises it by moving $y$. The equilibrium is the middle, yet the gradient
never points there: it is always at a right angle to the way. **Simultaneous** steps spiral outwards, **alternating**
ones go around for ever, and **extragradient** steps, which look ahead by one, spiral inwards. Two networks in a game
can circle just so, with no loss that says that anything is wrong.
"""


def laboratory_game(x: float, y: float, rate: float, num_steps: int) -> tuple[str, str, str]:
    """Play min over x, max over y of x y by gradient steps, in three ways.

    Args:
        x: where x starts, -2 to 2.
        y: where y starts, -2 to 2.
        rate: length of a step, 0.01 to 0.5.
        num_steps: 1 to 1000.

    Returns:
        A figure (SVG) of the three paths, one of the distance to the equilibrium, and how far each ends from it.
    """
    start = float(bounded("x", x, -2, 2)), float(bounded("y", y, -2, 2))
    rate, steps = float(bounded("rate", rate, 0.01, 0.5)), whole("num_steps", num_steps, 1, 1_000)
    if start == (0, 0):
        raise user_error("x and y are both 0: that is the equilibrium, where nothing moves. Start elsewhere.")
    paths = {method: laboratory.bilinear_game(method, start, rate, steps) for method in METHODS}
    drawn, distance = "", {}
    for number, (method, path) in enumerate(paths.items()):
        inside = list(itertools.takewhile(lambda p: np.abs(p).max() <= GAME_REACH, path))
        places = "L".join(f"{a:.1f} {b:.1f}" for a, b in on_plane(inside, GAME_REACH))
        drawn += f'<path class="curve thin curve-{number}" d="M{places}"/>'
        distance[method] = np.linalg.norm(path, axis=1)
    cross = dots([(0.0, 0.0)], GAME_REACH, "data", 6) + dots([start], GAME_REACH, "", 7)
    text = "After the last step the distance to the equilibrium is " + ", ".join(
        f"**{d[-1] / d[0]:.3g}** times what it was ({method})" for method, d in distance.items()
    )
    figure = curves(
        columns_of(np.arange(steps + 1), distance, 3 * float(distance["alternating"].max())), "steps", "distance"
    )
    return plane("paths of x and y", drawn, cross), figure, text + "."


def build() -> None:
    fresh = {"trigger_mode": "always_last", "show_progress": "hidden", **QUIET}
    with gr.Tab("The game x y") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            with gr.Row():
                x = gr.Slider(-2, 2, 1, step=0.1, label="Start x", min_width=120)
                y = gr.Slider(-2, 2, 1, step=0.1, label="Start y", min_width=120)
            rate = gr.Slider(0.01, 0.5, 0.1, step=0.01, label="Length of a step")
            rounds = gr.Slider(1, 1_000, 200, step=1, label="Steps")
            play = buttons("Play", "play")
            gr.Markdown(GAME, latex_delimiters=MATH)
        with gr.Column(scale=3, min_width=300):
            ending = gr.Markdown(elem_id="ending")
            paths = gr.HTML(elem_id="paths", min_height=280)
            distance = gr.HTML(elem_id="distance")
        played = job(play, laboratory_game, [x, y, rate, rounds], [paths, distance, ending])
        for control in (x, y, rate, rounds):
            control.input(laboratory_game, *played, **fresh)
        opening(tab).success(laboratory_game, *played, **QUIET)
