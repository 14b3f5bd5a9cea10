"""Sampling: noise becomes images, step by step."""

from collections.abc import Iterator

import gradio as gr
from diffusion_models import (
    FACTS,
    MAX_STEPS,
    OF_IMAGES,
    SOLVERS,
    checked_guidance,
    guidance_control,
    image_model,
    progress_of,
    steps_control,
    update_class_and_guidance,
    with_solver,
)
from kit.bounds import class_of, seed_of, whole
from kit.controls import class_control, count_control, result_image, seed_controls
from kit.jobs import Pace, buttons, job, one_job
from kit.lazy import LazyModule
from kit.pictures import grid
from PIL import Image

torch = LazyModule("torch")

MAX_COUNT = 36
STRIP = 10  # steps of one image that the strip below the samples shows


@one_job(cost="heavy")
def diffusion_sample(
    model: str,
    label: str,
    count: int,
    num_inference_steps: int,
    solver: str,
    guidance_scale: float,
    every: int,
    seed: int,
    new_seed: bool,
) -> Iterator[tuple[Image.Image, Image.Image, Image.Image, str, int]]:
    """Draw images from a diffusion model, and watch.

    Args:
        model: one of the page's models.
        label: "any", or the class of all images ("0" to "9").
        count: how many, 1 to 36.
        num_inference_steps: of the solver, 1 to 1000.
        solver: "DPM-Solver++", "UniPC", "DDIM", "Euler" or "DDPM (ancestral)"; the last wants all 1000 steps.
        guidance_scale: 1 is no guidance, more makes the class more pronounced, 0 to 10.
        every: show each k-th step, 1 to 100.
        seed: 0 to 2147483647.
        new_seed: draw a new seed and return it.

    Returns:
        x_t, the x_0 predicted from it, both of the first image so far as a strip, where the sampler is, and the seed;
        again for each step shown.
    """
    pipe = with_solver(image_model(model), solver)
    count = whole("count", count, 1, MAX_COUNT)
    steps = whole("num_inference_steps", num_inference_steps, 1, MAX_STEPS)
    every = whole("every", every, 1, 100)
    seed = seed_of(seed, new_seed)
    stream = pipe.stream(
        batch_size=count,
        class_labels=class_of(label, FACTS[model].num_classes),
        num_inference_steps=steps,
        guidance_scale=checked_guidance(model, guidance_scale),
        generator=torch.Generator().manual_seed(seed),
    )
    way: list[tuple[Image.Image, Image.Image]] = []  # of the first image
    pace = Pace(every)
    for step in stream:
        if step.step * (STRIP - 1) >= len(way) * (step.num_steps - 1):
            way.append((step.images[0], step.predicted_images[0]))
        if pace.due(step):
            blank = [Image.new("L", way[0][0].size, 40)] * (STRIP - len(way))  # of the steps to come
            rows = [image for row in zip(*way, strict=True) for image in [*row, *blank]]
            strip = grid(rows, columns=STRIP)
            yield grid(step.images), grid(step.predicted_images), strip, progress_of(step), seed


def suit_solver(solver: str):
    """Steps that suit it, and how many of them to show."""
    return (1000, 50) if SOLVERS[solver] == "DDPMScheduler" else (20, 1)


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    """The tab; it is the first of the page `demo`, and filled when that opens."""
    with gr.Tab("Sample"), gr.Row():
        with gr.Column(scale=2, min_width=300):
            label = class_control("class")
            count = count_control(MAX_COUNT)
            solver = gr.Dropdown(list(SOLVERS), value="DPM-Solver++", label="Solver", elem_id="solver")
            steps = steps_control(20)
            guidance = guidance_control()
            every = gr.Slider(1, 100, 1, step=1, label="Show every k-th step")
            seed, new_seed = seed_controls()
            draw = buttons("Draw samples", "draw", stop=True)
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                samples = result_image("x at this step", "samples", min_width=260)
                predicted = result_image("the x₀ it sees in it", "predicted", min_width=260)
            where = gr.Markdown(elem_id="where")
            strip = result_image("The way of the first image: x above, the x₀ seen in it below", "strip")

    quiet = {"api_visibility": "private"}  # the API names each handler once
    drawn = job(
        draw,
        diffusion_sample,
        [model, label, count, steps, solver, guidance, every, seed, new_seed],
        [samples, predicted, strip, where, seed],
    )
    solver.change(suit_solver, solver, [steps, every], **quiet)
    model.change(update_class_and_guidance, model, [label, guidance], **quiet).success(
        diffusion_sample, *drawn, **quiet
    )
    if OF_IMAGES:
        demo.load(update_class_and_guidance, model, [label, guidance], **quiet).success(
            diffusion_sample, *drawn, **quiet
        )
