"""The points of the plane that five tabs share, and what these tabs show of a density."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import functools
import inspect
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import density_playground as playground
import gradio as gr
import numpy as np
from density_models import MOST_COMPONENTS, or_user_error, tensor_of
from kit import maps
from kit.bounds import MAX_SEED, one_of, whole
from kit.controls import seed_number
from kit.errors import user_error
from kit.jobs import buttons, cost_of, opening
from kit.pictures import Pad
from PIL import Image

DRAWING = "your drawing"
SETS = (*playground.SETS, DRAWING)
MOST_POINTS, MOST_STEPS = 1_000, 100
FRAME_SECONDS = 0.12  # between two steps: slow enough to follow
QUIET = {"api_visibility": "private"}  # for events whose handler the API has already
LIVE = {"trigger_mode": "always_last", "show_progress": "hidden"}


def checked_points(data: str, count: int, seed: int, picture: Image.Image | None) -> tuple:
    """What decides on the points, checked; functions that remember their results take it."""
    one_of("data", data, SETS)
    count, seed, ink = whole("count", count, 2, MOST_POINTS), whole("seed", seed, 0, MAX_SEED), b""
    if data == DRAWING:
        ink = or_user_error(playground.ink_of, picture).astype(np.float32).tobytes()
    return data, count, seed, ink


@functools.lru_cache(maxsize=64)
def points_of(chosen: tuple, fresh: bool = False, count: int | None = None) -> np.ndarray:
    """The points (N, 2) of a set, or others from the same source."""
    data, given, seed, ink = chosen
    rng = np.random.default_rng([seed, int(fresh)])
    count = count or given
    if data != DRAWING:
        return playground.draw_set(data, count, rng)
    ink = np.frombuffer(ink, np.float32).astype(float)
    return playground.from_ink(ink.reshape(math.isqrt(len(ink)), -1), count, rng)


def check_count(what: str, wanted, chosen: tuple) -> int:
    """A number of components or clusters that the points are enough for."""
    wanted = whole(what, wanted, 1, MOST_COMPONENTS)
    if wanted > chosen[1]:
        raise user_error(f"There are {chosen[1]} points; {wanted} {what} need at least as many.")
    return wanted


def steps_made(path: list, step) -> int:
    """How many steps were made, of those there are."""
    return min(whole("step", step, 0, MOST_STEPS), len(path) - 1)


def field_of(model) -> np.ndarray:
    """log p on the plane: (FIELD, FIELD)."""
    return model.log_prob(tensor_of(maps.places())).view(maps.FIELD, -1).numpy()


def place_text(model, place: tuple[float, float]) -> str:
    """What a density says of a place, exactly."""
    return maps.place_text(model.log_prob(tensor_of(maps.at_place(place)[None])).item(), place)


# On the page


@dataclass
class Points:
    """The controls that say which points there are.

    Attributes:
        inputs: what a handler takes of them: data, count, seed, picture.
        row: what holds them; only some tabs show it.
        opened: the name of the tab that is open.
        changes: the events at which they become others.
        renewed: the same, of the button that draws a new seed.
    """

    inputs: list[gr.components.Component]
    row: gr.Row
    opened: gr.State
    changes: list[Callable]
    renewed: gr.events.Dependency

    def shown_in(self, tab: gr.Tab, name: str, visible: bool) -> None:
        """Note that a tab was opened; the points are there or not."""
        opening(tab).success(lambda: (name, gr.Row(visible=visible)), None, [self.opened, self.row], queue=False,
                   show_progress="hidden", **QUIET)  # fmt: skip

    def followed_by(self, name: str, handler: Callable, inputs: list, outputs: list) -> None:
        """A handler answers when the points change while its tab is open."""
        answer = when_open(name, handler, outputs)
        gr.on(self.changes, answer, [self.opened, *inputs], outputs, **LIVE, **QUIET)
        self.renewed.success(answer, [self.opened, *inputs], outputs, **LIVE, **QUIET)


def build(first: str) -> Points:
    """The controls; `first` is the name of the tab that is open at the beginning."""
    opened = gr.State(first)
    with gr.Row(elem_id="points") as row:
        with gr.Column(scale=3, min_width=300):
            data = gr.Radio(list(SETS), value="moons", label="Points", elem_id="data")
            with gr.Row():
                count = gr.Slider(2, MOST_POINTS, 300, step=1, label="Number of points", scale=3, min_width=180)
                seed = seed_number(0, "Seed", scale=1, min_width=90, elem_id="seed")
            again = gr.Button("New points", elem_id="new-points", size="sm")
        with gr.Column(scale=2, min_width=280, visible=False) as paper:
            pad = Pad(playground.example_drawing(), label="Draw where the points shall be", elem_id="pad")
    data.change(lambda d: gr.Column(visible=d == DRAWING), data, paper, queue=False, show_progress="hidden", **QUIET)
    renewed = again.click(lambda: random.randint(0, MAX_SEED), None, seed, queue=False, **QUIET)
    return Points([data, count, seed, pad], row, opened, [data.input, count.input, seed.submit, pad.input], renewed)


def when_open(tab: str, handler, outputs: list):
    """A handler that answers only while its tab is the one that is open."""

    def run(request: gr.Request, opened: str, *values):
        return call_handler(handler, request, *values) if opened == tab else [gr.skip()] * len(outputs)

    run.cost = cost_of(handler)
    return run


def call_handler(handler, request: gr.Request, *values):
    """What a handler gives; those of which a session runs one at a time are told whose it is."""
    told = "request" in inspect.signature(handler).parameters
    return handler(request, *values) if told else handler(*values)


def step_controls(elem_id: str, run: str) -> tuple[list[gr.Button], gr.Button, gr.Button, gr.Number]:
    """Run, stop, one step more, back to the first; and how many were made."""
    pressed = buttons(run, elem_id, stop=True)
    with gr.Row():
        more = gr.Button("Step", elem_id=f"{elem_id}-more", min_width=70)
        back = gr.Button("Start over", elem_id=f"{elem_id}-back", min_width=120)
        made = gr.Number(0, label="Steps", precision=0, elem_id=f"{elem_id}-made", min_width=100)
    return pressed, more, back, made
