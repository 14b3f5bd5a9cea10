"""The models of the density Space: which there are, and the classes that the playground fits with.

It takes its classes from the models of the page, so that what it fits is what the project publishes.
"""

from __future__ import annotations  # torch.Tensor is named before torch is there

import functools
from dataclasses import dataclass

import gradio as gr
import numpy as np
from kit.errors import user_error
from kit.facts import facts_of
from kit.lazy import LazyModule
from kit.models import Models
from kit.words import short

torch = LazyModule("torch")

MODELS = Models(
    ("gaussian-mixture-mnist", "kde-mnist", "pca-mnist", "gaussian-mixture-2d", "kde-2d", "kmeans-mnist",
     "agglomerative-mnist", "coupling-2d"),
    needs=(("log_prob", "layers"), ("log_prob",), ("encode", "decode", "reconstruction_error"), ("centres",)),
    where=lambda known: "layers" in known["calls"]
    or bool({"density", "pca", "clustering"} & set(known.get("run", {}).get("model", {}))),
)  # fmt: skip
FACTS = facts_of(MODELS)  # of each of them
MOST_COMPONENTS = 12  # of a mixture, or clusters


@dataclass(frozen=True)
class Kind:
    """A kind of model that can be fitted to points, and how it is told from others.

    Attributes:
        title: what it is.
        setting: that its config has.
        attribute: that the model has once it is loaded.
        usual: what the project calls one of its own.
        without: a setting that its config does not have.
    """

    title: str
    setting: str
    attribute: str
    usual: str
    without: str = ""

    @property
    def models(self) -> list[str]:
        """The models of the page that have a part of this kind, those of points, which are small, first."""
        found = [
            name
            for name, facts in FACTS.items()
            if any(self.setting in config and self.without not in config for config in facts.parts.values())
        ]
        return sorted(found, key=lambda name: FACTS[name].data_spec.get("kind") != "vector")


KERNELS = Kind("kernel density estimate", "num_points", "bandwidth", "kde-2d", without="linkage")
MIXTURE = Kind("Gaussian mixture", "covariance_type", "em_steps", "gaussian-mixture-2d")
KMEANS = Kind("clustering by k-means", "num_clusters", "lloyd_steps", "kmeans-mnist", without="linkage")
TREE = Kind("agglomerative tree", "linkage", "merge_steps", "agglomerative-mnist")
FLOW = Kind("coupling flow", "transform", "set_scale", "coupling-2d")


@functools.cache
def fitting(kind: Kind) -> type:
    """The class that fits more of a kind.

    Raises:
        gr.Error: no model of the page has one.
    """
    if not kind.models:
        raise user_error(f"This needs a {kind.title}, like {kind.usual}: name one in MODEL_ID.")
    parts = MODELS[kind.models[0]].components.values()
    return next(type(part) for part in parts if hasattr(part, kind.attribute))


def say_missing(*kinds: Kind) -> None:
    """A line on the page about the kinds that a tab needs and no model has."""
    missing = [f"no {kind.title} (like `{kind.usual}`)" for kind in kinds if not kind.models]
    if missing:
        gr.Markdown(f"Nothing can be fitted here: `MODEL_ID` names {' and '.join(missing)}.")


def or_user_error(call, *values, **options):
    """What a call gives; what it refuses is a message."""
    try:
        return call(*values, **options)
    except ValueError as error:
        raise user_error(str(error)) from None


def tensor_of(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).float()


# Components of a mixture


def component_of(component, model) -> int | None:
    """What a control of components holds: None for all."""
    if component == "all":
        return None
    count = len(model.weights)
    if component not in [str(c + 1) for c in range(count)]:
        raise user_error(f"component is {short(component)}; it must be all, or 1 to {count}")
    return int(component) - 1


def drawn_from(model, component: str, draws: int, seed: int) -> torch.Tensor:
    """(draws, D) from a mixture."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(draws, generator=generator), torch.randn(draws, model.config.dim, generator=generator)
    return model.draw(*noise, component=component_of(component, model))
