"""What the tabs of the VAE Space share: the models, and a control of their classes."""

import gradio as gr
from kit.controls import offer_classes
from kit.models import Models, num_classes

MODELS = Models(
    ("cvae-mnist", "vae-mnist", "vae-2d-mnist", "vae-digits"),
    needs=(("sample", "encode", "decode", "reconstruct", "elbo", "elbo_terms", "log_prob"),),
    kind="image",
)
QUIET = {"api_visibility": "private"}  # for what happens without a button: the API names each handler once


def offer_classes_of(model: str) -> gr.Dropdown:
    """The update of a class control to a model."""
    return offer_classes(num_classes(MODELS[model]))
