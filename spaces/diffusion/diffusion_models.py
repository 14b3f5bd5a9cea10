"""The models of the diffusion Space, what they are asked through, and the controls that several tabs have."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import copy

import gradio as gr
from kit.bounds import bounded, is_number, one_of
from kit.controls import offer_classes
from kit.digits import as_digit
from kit.errors import user_error
from kit.facts import facts_of
from kit.lazy import LazyModule
from kit.models import Models
from kit.theme import MATH
from kit.words import escaped
from PIL import Image

diffusers = LazyModule("diffusers")

# what makes it a diffusion model: it can noise x, and say what it sees in what is noised
CALLS = ("sample", "noise", "predict")
MODELS = Models(("ddpm-mnist", "ddpm-digits", "ddpm-2d"), needs=(CALLS,))
FACTS = facts_of(MODELS)  # of each of them
DIFFUSING = [name for name, facts in FACTS.items() if facts.calls >= set(CALLS)]
OF_IMAGES = [name for name in DIFFUSING if FACTS[name].data_spec.get("kind") == "image"]
OF_POINTS = [name for name in DIFFUSING if FACTS[name].data_spec.get("shape") == [2]]
MAX_STEPS = 1000
SOLVERS = {  # as the page calls them -> class of diffusers
    "DPM-Solver++": "DPMSolverMultistepScheduler",
    "UniPC": "UniPCMultistepScheduler",
    "DDIM": "DDIMScheduler",
    "Euler": "EulerDiscreteScheduler",
    "DDPM (ancestral)": "DDPMScheduler",
}


# What the network of a model predicts, by the prediction_type of its schedule.
PREDICTS = {
    "epsilon": "the **noise** $\\epsilon$ in $x_t$; $x_0$ follows from it",
    "sample": "the image **$x_0$** behind $x_t$; the noise follows from it",
    "v_prediction": "$v = \\sqrt{\\bar\\alpha_t}\\,\\epsilon - \\sqrt{1 - \\bar\\alpha_t}\\,x_0$, a mixture of noise and image; "
    "both follow from it",
}


def what_it_predicts(model: str | None) -> str:
    """A sentence on what the network of a model predicts; "" where its schedule does not say."""
    kind = (FACTS[model].config.get("schedule") or {}).get("prediction_type") if model in FACTS else None
    said = PREDICTS.get(kind) if isinstance(kind, str) else None
    return f"The network of {escaped(model)} predicts {said}." if said else ""


def say_prediction(model: gr.Dropdown) -> None:
    """A line on the page about what the chosen model predicts."""
    line = gr.Markdown(what_it_predicts(model.value), latex_delimiters=MATH, elem_id="predicts")
    model.change(what_it_predicts, model, line, api_visibility="private")


def image_model(name: str, *calls: str):
    """The pipeline of a model of images that answers these calls.

    Raises:
        gr.Error: it is of something else, or does not answer one of them.
    """
    pipe = MODELS.get(name, *calls)
    if pipe.data_spec["kind"] != "image":
        raise user_error(f"{name} draws points and no images: the tab 2-D shows it.")
    return pipe


def checked_guidance(name: str, guidance_scale) -> float | None:
    """A guidance scale within bounds; None, the model's own, where there are no classes to guide by."""
    guidance_scale = float(bounded("guidance_scale", guidance_scale, 0, 10))
    return guidance_scale if FACTS[name].num_classes else None


def with_solver(pipe, solver: str):
    """The pipeline with another sampler; a copy, since all sessions share the one that is loaded."""
    one_of("solver", solver, SOLVERS)
    own = copy.copy(pipe)
    own.scheduler = getattr(diffusers, SOLVERS[solver]).from_config(pipe.scheduler.config)
    if pipe.data_spec["kind"] != "image" and own.scheduler.config.get("clip_sample"):
        own.scheduler.register_to_config(clip_sample=False)  # its default, and to [-1, 1]: points reach further
    return own


def as_input(pipe, picture: Image.Image | None) -> Image.Image:
    """A drawing as the model takes it."""
    _, height, width = pipe.data_spec["shape"]
    if height != width:
        raise user_error(f"This model's images are {width} x {height}; a drawing is square.")
    return as_digit(picture, height)


def progress_of(step) -> str:
    """Where a sampler is: a step is named by the t that it began at, and the last one ends at the data."""
    at = f"from t = {step.timestep}" if step.step + 1 < step.num_steps else "the end: t = 0, and x is x₀"
    return f"step **{step.step + 1}** of {step.num_steps}, {at}"


def update_class(model: str) -> gr.Dropdown:
    """The classes of a model, to choose from."""
    return offer_classes(FACTS[model].num_classes if model else 0)


def own_guidance(model: str | None) -> float:
    """The guidance that a model was published with, 0 to 10; 1, none, where it says nothing."""
    scale = FACTS[model].setting("guidance_scale") if model else None
    return min(max(float(scale), 0.0), 10.0) if is_number(scale) else 1.0


def update_class_and_guidance(model: str) -> tuple[gr.Dropdown, float]:
    """The classes of a model, and the guidance that it was published with."""
    return update_class(model), own_guidance(model)


def steps_control(start: int, most: int = MAX_STEPS, least: int = 1) -> gr.Slider:
    return gr.Slider(least, most, start, step=1, label="Steps")


def guidance_control() -> gr.Slider:
    """At the first model's own guidance; `update_class_and_guidance` sets it to another's."""
    start = own_guidance(next(iter(OF_IMAGES), None))
    return gr.Slider(0, 10, start, step=0.1, label="Guidance", info="1: none; more: more typical, less varied")
