"""The models of the autoencoder Space: which there are, and which of its tabs each can be shown on."""

from __future__ import annotations  # torch.Tensor is named before torch is there

from dataclasses import dataclass

import gradio as gr
from kit.errors import user_error
from kit.facts import facts_of
from kit.lazy import LazyModule
from kit.models import Models
from kit.pictures import upscale
from PIL import Image

torch = LazyModule("torch")

MODELS = Models(
    (
        "ae-mnist", "swae-mnist", "sae-mnist", "dae-mnist", "cae-mnist", "ae-2d-mnist", "sae-2d-mnist", "swae-2d-mnist",
        "dae-2d-mnist", "cae-2d-mnist", "hierarchical-vae-mnist", "nmf-mnist",
    ),
    needs=(("tangents",), ("resample",), ("parts",)),
)  # fmt: skip
FACTS = facts_of(MODELS)  # of each of them


@dataclass(frozen=True)
class Objective:
    """What an autoencoder was trained for.

    Attributes:
        title: as the page calls it.
        asked: what is asked of its codes.
        usual: the project's own model of it; of codes in the plane it is called {usual}-2d-mnist.
    """

    title: str
    asked: str
    usual: str


OBJECTIVES = {
    "plain": Objective("Plain", "nothing but to bring the image back", "ae"),
    "supervised": Objective("Supervised", "a linear classifier reads the digit from them", "sae"),
    "sliced_wasserstein": Objective("Sliced Wasserstein", "they fill a shape that was chosen", "swae"),
    "denoising": Objective("Denoising", "they forget noise that was added", "dae"),
    "contractive": Objective("Contractive", "they move as little as they can", "cae"),
}


# Which models a tab can show


def answering(*calls: str) -> list[str]:
    """The models of digits whose pipelines answer all these calls."""
    return [name for name, facts in FACTS.items() if facts.takes_digits and facts.calls >= set(calls)]


def code_size(name: str) -> int:
    """How many numbers a code has."""
    return FACTS[name].setting("latent_dim", 0)


def prior_of(name: str) -> dict:
    """The config of the density that was fitted to a model's codes; {} where there is none."""
    return FACTS[name].parts.get("prior", {})


def objective_of(name: str) -> str:
    """What a model was trained for, by its record; where it has none, by what its config tells of it."""
    facts = FACTS[name]
    if facts.options.get("objective") in OBJECTIVES:
        return facts.options["objective"]
    traces = {"supervised": "supervised", "code_prior": "sliced_wasserstein", "standardise": "contractive"}
    return next((objective for setting, objective in traces.items() if facts.setting(setting)), "plain")


def of_objective(names: list[str], objective: str) -> list[str]:
    return [name for name in names if objective_of(name) == objective]


def of_shape(names: list[str], shape: list[int]) -> list[str]:
    """Those whose images have this shape."""
    return [name for name in names if FACTS[name].data_spec["shape"] == shape]


def titled(names: list[str]) -> dict[str, str]:
    """Model -> title, by its objective; with its name, where several have the same."""
    found = [objective_of(name) for name in names]
    titles = [OBJECTIVES[objective].title for objective in found]
    several = {objective for objective in found if found.count(objective) > 1}
    return {n: f"{t} ({n})" if o in several else t for n, t, o in zip(names, titles, found, strict=True)}


def autoencoders(*calls: str) -> list[str]:
    """The autoencoders that answer these calls too, those with more than two numbers in a code first.

    Tangents of the data are what a plain autoencoder answers and no other model of the page does.
    """
    return sorted(answering("tangents", "encode", "decode", *calls), key=lambda name: code_size(name) == 2)


def usual(objectives, in_the_plane: bool = False) -> list[str]:
    """What the project calls its own models of these objectives."""
    return [OBJECTIVES[o].usual + ("-2d-mnist" if in_the_plane else "-mnist") for o in objectives]


def say_missing(offered: list[str], objectives=(), in_the_plane: bool = False, names: tuple[str, ...] = ()) -> None:
    """A line on the page about models that a tab lacks: of objectives, or by their names if it has none at all."""
    there = {objective_of(name) for name in offered}
    missing = usual([o for o in objectives if o not in there], in_the_plane) + ([] if offered else list(names))
    if missing:
        them = "it" if len(missing) == 1 else "them"
        listed = ", ".join(f"`{name}`" for name in missing)
        gr.Markdown(f"Not here, since `MODEL_ID` does not name {them}: {listed}.")


def first_of(offered: list[str], like: str) -> str:
    """The first of the models that a tab offers.

    Raises:
        gr.Error: there is none.
    """
    if not offered:
        raise user_error(f"This needs a model like {like}: name one in MODEL_ID.")
    return offered[0]


def model_choice(elem_id: str, offered: list[str]) -> gr.Dropdown:
    return gr.Dropdown(offered, value=next(iter(offered), None), label="Model", elem_id=elem_id)


# Models that are loaded


def loaded(name: str, *calls: str):
    """The pipeline of a model that answers these calls.

    Raises:
        gr.Error: it does not, or it cannot be loaded.
    """
    pipe = MODELS.get(name, *calls)
    channels, height, width = pipe.data_spec["shape"] if pipe.data_spec["kind"] == "image" else (0, 0, 0)
    if channels != 1 or height != width:
        raise user_error(f"{name} has images of {width} x {height} in {channels} colours, which this page cannot show.")
    return pipe


def autoencoder(name: str):
    """The pipeline of an autoencoder of square gray images."""
    return loaded(name, "tangents")


def factors_of(pipe) -> object:
    """The part of a factorisation that holds its parts and can fit others."""
    return next(part for part in pipe.components.values() if hasattr(part, "fit_steps"))


def as_picture(pipe, x: torch.Tensor, side: int = 252) -> Image.Image:
    return upscale(pipe.image_processor.postprocess(x.clamp(0, 1))[0], side)
