"""What the tabs of the adversarial Space share: the models, and what their discriminators say."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import gradio as gr
from kit.controls import offer_classes
from kit.lazy import LazyModule
from kit.models import Models, num_classes

torch = LazyModule("torch")

MODELS = Models(
    ("cgan-mnist", "wgan-gp-mnist", "gan-mnist", "gan-digits"),
    needs=(("sample", "encode", "decode", "interpolate", "discriminate"),),
    kind="image",
)
QUIET = {"api_visibility": "private"}  # for what happens without a button: the API names each handler once


def is_critic(pipe) -> bool:
    """Whether `discriminate` gives the values of a critic and no probabilities: the config of a part says so."""
    configs = [part.config for part in pipe.components.values() if hasattr(part, "config")]
    return any(config.get("output") == "critic" for config in configs)


def verdicts(pipe, x: torch.Tensor, labels: torch.Tensor | list | None) -> torch.Tensor:
    """What the discriminator says, (B,): a probability in per cent, or a critic's value."""
    value = pipe.discriminate(x, labels)
    return value if is_critic(pipe) else 100 * value


def offer_classes_of(model: str) -> gr.Dropdown:
    """The update of a class control to a model."""
    return offer_classes(num_classes(MODELS[model]) if model else 0)
