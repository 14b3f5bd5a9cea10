"""Two dimensions: points of noise move to where the data lie."""

from __future__ import annotations  # torch.Tensor is named before torch is there

from collections.abc import Iterator

import gradio as gr
from diffusion_models import (
    FACTS,
    MAX_STEPS,
    MODELS,
    OF_POINTS,
    SOLVERS,
    progress_of,
    steps_control,
    update_class,
    with_solver,
)
from kit import charts
from kit.bounds import class_of, seed_of, whole
from kit.charts import dots, on_plane
from kit.controls import class_control, seed_controls
from kit.errors import user_error
from kit.jobs import Pace, buttons, job, one_job, opening, unhurried
from kit.lazy import LazyModule

torch = LazyModule("torch")

MAX_POINTS = 1000
FRAMES, FRAME_SECONDS = 40, 0.1  # of the moving points: slow enough to follow
REACH = 2.6  # of the plane, from its middle


def points_and_field(points: torch.Tensor, places: torch.Tensor, field: torch.Tensor) -> str:
    """An SVG: points (N, 2), and arrows from places (M, 2) by (M, 2)."""
    arrows = "".join(
        f'<path d="M{a:.0f} {b:.0f}L{c:.1f} {d:.1f}"/><circle cx="{c:.1f}" cy="{d:.1f}" r="2"/>'
        for (a, b), (c, d) in zip(on_plane(places, REACH), on_plane(places + field, REACH), strict=True)
    )
    return charts.plane("points and field", f'<g class="field">{arrows}</g>', dots(points, REACH))


@one_job(cost="heavy")
@unhurried(FRAME_SECONDS)
def diffusion_points(
    model: str,
    label: str,
    count: int,
    num_inference_steps: int,
    solver: str,
    seed: int,
    new_seed: bool,
) -> Iterator[tuple[str, str, int]]:
    """Move points of pure noise to where the data lie, and show the field that moves them.

    Args:
        model: a model of two-dimensional data.
        label: "any", or a class.
        count: points, 10 to 1000.
        num_inference_steps: 1 to 1000.
        solver: as in diffusion_sample.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        A figure (SVG) of the points and of the noise that the model sees, pointing away from it, where the sampler is,
        and the seed; again for up to 40 steps.
    """
    pipe = with_solver(MODELS[model], solver)
    if pipe.data_spec["shape"] != [2]:
        raise user_error(f"{model} draws no points in two dimensions; choose a model of points.")
    count = whole("count", count, 10, MAX_POINTS)
    steps = whole("num_inference_steps", num_inference_steps, 1, MAX_STEPS)
    wanted = class_of(label, FACTS[model].num_classes)
    seed = seed_of(seed, new_seed)
    ticks = torch.linspace(-REACH, REACH, 19)[1:-1]
    places = torch.cartesian_prod(ticks, ticks)
    labels = None if wanted is None else [wanted] * len(places)
    stream = pipe.stream(
        batch_size=count,
        class_labels=wanted,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    )
    pace = Pace(max(1, steps // FRAMES), seconds=0)
    for step in stream:
        if not pace.due(step):
            continue
        # where the next step begins, and how much noise is left there
        t = max(round(step.timestep - pipe.num_timesteps / step.num_steps), 0)
        _, noise = pipe.predict(places, t, labels)
        field = -0.35 * noise * float((1 - pipe.abar[t]) ** 0.5)
        yield points_and_field(step.latents, places, field), progress_of(step), seed


def build() -> None:
    """The tab, which has models of its own."""
    with gr.Tab("2-D") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            model = gr.Dropdown(
                OF_POINTS, value=next(iter(OF_POINTS), None), label="Model of points", elem_id="flat-model"
            )
            label = class_control("class-points")
            points = gr.Slider(10, MAX_POINTS, 400, step=10, label="Points")
            solver = gr.Dropdown(list(SOLVERS), value="DPM-Solver++", label="Solver")
            steps = steps_control(40)
            seed, new_seed = seed_controls("seed-points")
            move = buttons("Move the points", "move", stop=True)
            gr.Markdown(
                "Arrows point to where the noise that the model sees is taken away: first to the middle of all data, later to the "
                "nearest part of it."
            )
        with gr.Column(scale=3, min_width=300):
            cloud = gr.HTML(elem_id="cloud", min_height=300)
            where = gr.Markdown()

    quiet = {"api_visibility": "private"}  # the API names each handler once
    moved = job(move, diffusion_points, [model, label, points, steps, solver, seed, new_seed], [cloud, where, seed])
    model.change(update_class, model, label, **quiet)
    if OF_POINTS:
        opening(tab).success(update_class, model, label, **quiet).success(diffusion_points, *moved, **quiet)
