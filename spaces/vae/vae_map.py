"""The tab with a map of the latent space."""

from __future__ import annotations  # torch.Tensor is named before torch is there

from functools import lru_cache

import gradio as gr
import numpy as np
from kit.bounds import ANY, class_of
from kit.controls import class_control, result_image
from kit.jobs import one_job, opening
from kit.lazy import LazyModule
from kit.models import code_length, num_classes
from kit.pictures import Explorer, upscale
from PIL import Image
from vae_common import MODELS, QUIET, offer_classes_of

torch = LazyModule("torch")
MAP_SIDE = 20
FIRST = "vae-2d-mnist"  # opened first: two latent units are all that a map can show


@lru_cache(maxsize=32)
def map_units(model: str, label: int | None) -> tuple[int, int]:
    """The latent units of the map: of more than two, those that change the picture most, each from -1 to 1, others 0."""
    pipe = MODELS[model]
    dim = code_length(pipe)
    if dim == 2:
        return 0, 1
    z = torch.cat([torch.eye(dim), -torch.eye(dim)])
    high, low = pipe.decode(z, None if label is None else [label] * len(z), output_type="pt").images.chunk(2)
    order = (high - low).square().flatten(1).sum(1).argsort(descending=True)
    return int(order[0]), int(order[min(1, dim - 1)])


def codes_at(pipe, model: str, label: int | None, across: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Codes at places (B,), (B,) in (0, 1) of the map: equal areas hold equal probability under the prior."""
    z = torch.zeros(len(across), code_length(pipe))
    for unit, place in zip(map_units(model, label), (across, 1 - down), strict=True):
        z[:, unit] = torch.special.ndtri(place.clamp(0.002, 0.998))
    return z


def map_class(pipe, label: str) -> int | None:
    """A conditional map needs a class: 3, where none is chosen."""
    return class_of("3" if label == ANY else label, num_classes(pipe))


@one_job
def vae_map(model: str, label: str) -> tuple[Image.Image, str]:
    """A map of the latent space: what each place of it decodes to.

    Args:
        model: one of the page's models; of more than two latent units, the two that change the picture most are shown.
        label: the class shown, for a conditional model.

    Returns:
        The map, and what it shows.
    """
    pipe = MODELS[model]
    wanted = map_class(pipe, label)
    ticks = (torch.arange(MAP_SIDE) + 0.5) / MAP_SIDE
    down, across = torch.meshgrid(ticks, ticks, indexing="ij")
    z = codes_at(pipe, model, wanted, across.flatten(), down.flatten())
    images = pipe.decode(z, None if wanted is None else [wanted] * len(z), output_type="np").images
    side = images.shape[1]
    tiles = images.reshape(MAP_SIDE, MAP_SIDE, side, side).transpose(0, 2, 1, 3).reshape(MAP_SIDE * side, -1)
    dim = z.shape[1]
    text = "This model has two latent units: the map shows all that it can draw."
    if dim > 2:
        units = map_units(model, wanted)
        text = (
            f"Of {dim} latent units, {units[0]} (across) and {units[1]} (up) change the picture most; the others are 0."
        )
    return Image.fromarray((tiles * 255).round().astype(np.uint8)), text


def vae_decode_at(model: str, label: str, place: tuple[float, float]) -> tuple[Image.Image, str]:
    """Decode one place of the map.

    Args:
        model: one of the page's models.
        label: the class shown, for a conditional model.
        place: {"x": 0 to 1, "y": 0 to 1}, from the upper left corner of the map.

    Returns:
        The image, and the code that made it.
    """
    pipe = MODELS[model]
    wanted = map_class(pipe, label)
    z = codes_at(pipe, model, wanted, torch.tensor([place[0]]), torch.tensor([place[1]]))
    image = pipe.decode(z, None if wanted is None else [wanted]).images[0]
    return upscale(image, 336), ", ".join(f"z[{u}] = {z[0, u]:+.2f}" for u in map_units(model, wanted))


def build(demo: gr.Blocks, model: gr.Dropdown) -> None:
    with gr.Tab("Map") as tab, gr.Row():
        with gr.Column(scale=3, min_width=300):
            explorer = Explorer("Map of the latent space", elem_id="map")
            about = gr.Markdown()
        with gr.Column(scale=2, min_width=300):
            gr.Markdown("**Click and drag** on the map, or focus it and use the arrow keys.")
            map_model = gr.Dropdown(
                list(MODELS), value=FIRST if FIRST in MODELS else MODELS.first, label="Model of the map"
            )
            label = class_control()
            live = result_image("Decoded here", "live")
            code = gr.Textbox(label="Code", interactive=False, elem_id="code")
    moved = [map_model, label, explorer], [live, code]
    mapped = [map_model, label], [explorer, about]
    explorer.input(
        vae_decode_at, *moved, trigger_mode="always_last", show_progress="hidden", queue=False, api_name="vae_decode_at"
    )
    label.change(vae_map, *mapped, api_name="vae_map").success(vae_decode_at, *moved, **QUIET)
    map_model.change(offer_classes_of, map_model, label, **QUIET).success(vae_map, *mapped, **QUIET).success(
        vae_decode_at, *moved, **QUIET
    )
    # not empty when it is opened
    opening(tab).success(vae_map, *mapped, **QUIET).success(vae_decode_at, *moved, **QUIET)
