"""The models of the flows Space: flows on points and on images, and the classes of kernels and mixtures beside them."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import functools

import gradio as gr
import numpy as np
from kit import maps
from kit.controls import offer_classes
from kit.errors import user_error
from kit.facts import facts_of
from kit.lazy import LazyModule
from kit.models import Models, num_classes
from kit.toy_points import TOYS

torch = LazyModule("torch")


def is_shown(known: dict) -> bool:
    """A flow, or a density of points to compare with."""
    if {"layers", "resample"} & set(known["calls"]):
        return True
    return known.get("data_kind") == "vector" and "density" in known.get("run", {}).get("model", {})


MODELS = Models(
    ("coupling-2d", "glow-mnist", "glow-digits", "kde-2d", "gaussian-mixture-2d"),
    needs=(("layers", "log_prob", "encode"), ("resample", "encode", "elbo"), ("log_prob",)),
    where=is_shown,
)
FACTS = facts_of(MODELS)  # of each of them
OF_POINTS = [  # that are told no class
    name
    for name, facts in FACTS.items()
    if "layers" in facts.calls and facts.data_spec.get("shape") == [2] and not facts.num_classes
]
OF_IMAGES = [n for n, facts in FACTS.items() if "resample" in facts.calls and facts.data_spec.get("kind") == "image"]
OF_DIGITS = [name for name in OF_IMAGES if FACTS[name].takes_digits]
SETTING = {"kernels": "num_points", "mixture": "covariance_type"}  # of the config of each
DENSITIES = {  # name -> kind
    name: kind
    for name, facts in FACTS.items()
    for kind, setting in SETTING.items()
    if facts.part_with(setting) and not facts.part_with("linkage")
}
BESIDE = {kind: name for name, kind in reversed(DENSITIES.items())}  # kind -> the first model whose class fits it
QUIET = {"api_visibility": "private"}  # for events whose handler the API has already
LIVE = {"trigger_mode": "always_last", "show_progress": "hidden"}
MOST_POINTS = 5_000


def points_model(elem_id: str) -> gr.Dropdown:
    if not OF_POINTS:
        gr.Markdown("Nothing to show here: `MODEL_ID` names no flow on points, like `coupling-2d`.")
    return gr.Dropdown(OF_POINTS, value=next(iter(OF_POINTS), None), label="Model of points", elem_id=elem_id)


def image_model(elem_id: str, names: list[str]) -> gr.Dropdown:
    if not names:
        gr.Markdown("Nothing to show here: `MODEL_ID` names no flow on such images, like `glow-mnist`.")
    return gr.Dropdown(names, value=next(iter(names), None), label="Model of images", elem_id=elem_id)


def offer_classes_of(model: str) -> gr.Dropdown:
    """The update of a class control to a model."""
    return offer_classes(num_classes(MODELS[model]))


def flow_of_points(name: str):
    """The pipeline of a flow on the plane.

    Raises:
        gr.Error: it is of something else, or of points that lie elsewhere.
    """
    pipe = MODELS.get(name, "layers", "log_prob")
    if pipe.data_spec["shape"] != [2] or num_classes(pipe):
        hint = f"; choose {' or '.join(OF_POINTS)}" if OF_POINTS else ""
        raise user_error(f"{name} is no flow on points of the plane without classes{hint}.")
    flow = next((part for part in pipe.components.values() if hasattr(part, "mean") and hasattr(part, "std")), None)
    furthest = float((flow.mean.abs() + flow.std).max()) if flow is not None else 0.0
    if furthest > maps.REACH:
        raise user_error(f"The data of {name} reach to {furthest:.3g}; this page shows the plane from -3 to 3.")
    return pipe


def flow_of_images(name: str):
    """The pipeline of a flow on images.

    Raises:
        gr.Error: it is of something else.
    """
    return MODELS.get(name, "resample", "encode", "elbo")


def tensor_of(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).float()


def is_of_a_set(name: str) -> bool:
    """Whether a flow was trained on one of the sets that are made by formulas."""
    dataset = FACTS[name].options.get("dataset")
    return isinstance(dataset, str) and dataset in TOYS


def points_of(name: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, 2) of the set that a flow was trained on, and their classes (count,), zeros where it has none.

    Of a flow on other data they are its own draws.
    """
    if is_of_a_set(name):
        points, labels = TOYS[FACTS[name].options["dataset"]](count, np.random.default_rng([7, seed]))
        return points, np.zeros(count, dtype=int) if labels is None else labels
    drawn = flow_of_points(name)(count, generator=torch.Generator().manual_seed(seed), output_type="pt").samples
    return drawn.numpy(), np.zeros(count, dtype=int)


def source_of(name: str) -> str:
    """Where `points_of` has them from, in words."""
    return f"the set {FACTS[name].options['dataset']}" if is_of_a_set(name) else "the flow itself"


@functools.lru_cache(maxsize=8)
def field_of(name: str) -> np.ndarray:
    """log p of a flow on the plane: (FIELD, FIELD)."""
    return flow_of_points(name).log_prob(tensor_of(maps.places())).view(maps.FIELD, -1).numpy()
