"""What the tabs of the VAE Space share: the models, a drawing as they take it, and its likeliest class."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import gradio as gr
from kit.bounds import class_of
from kit.controls import offer_classes
from kit.lazy import LazyModule
from kit.models import Models, num_classes

torch = LazyModule("torch")

MODELS = Models(
    ("cvae-mnist", "vae-mnist", "vae-2d-mnist", "vae-digits"),
    needs=(("sample", "encode", "decode", "reconstruct", "elbo", "elbo_terms", "log_prob"),),
    kind="image",
)
QUIET = {"api_visibility": "private"}  # for what happens without a button: the API names each handler once


def likeliest_class(pipe, x: torch.Tensor) -> tuple[int, float]:
    """The class whose bound on log p(x|c) is highest, and its probability under the bounds."""
    generator = torch.Generator().manual_seed(0)
    bounds = torch.stack([pipe.elbo(x, 8, c, generator)[0] for c in range(num_classes(pipe))])
    best = int(bounds.argmax())
    return best, float(bounds.softmax(0)[best])


def labels_for(pipe, x: torch.Tensor, label: str) -> tuple[list[int] | None, str]:
    """The class to encode x with, the likeliest where none is chosen, and a sentence about it."""
    wanted = class_of(label, num_classes(pipe))
    if wanted is not None or not num_classes(pipe):
        return None if wanted is None else [wanted], ""
    best, probability = likeliest_class(pipe, x)
    sure = "more than 99%" if probability > 0.99 else f"{probability:.0%}"
    return [best], f"The model reads a **{best}** (probability {sure} under its bounds). "


def offer_classes_of(model: str) -> gr.Dropdown:
    """The update of a class control to a model."""
    return offer_classes(num_classes(MODELS[model]))
