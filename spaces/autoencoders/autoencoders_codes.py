"""Codes of two numbers: a plane for each autoencoder that has them, to move over."""

from __future__ import annotations  # torch.Tensor is named before torch is there

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import autoencoders_views as views
import gradio as gr
import numpy as np
from autoencoders_models import (
    FACTS,
    OBJECTIVES,
    autoencoder,
    autoencoders,
    code_size,
    first_of,
    objective_of,
    prior_of,
    say_missing,
    titled,
)
from kit.bounds import one_of
from kit.charts import signed
from kit.controls import result_image
from kit.errors import user_error
from kit.lazy import LazyModule
from kit.pictures import Explorer, data_url, upscale
from PIL import Image

torch = LazyModule("torch")

# kernels keep the codes that they stand on, and those are what there is to see
OFFERED = [n for n in autoencoders() if code_size(n) == 2 and prior_of(n).get("num_points")]
USUAL = "ae-2d-mnist"  # what the project calls one of its own
VIEWS = ("codes", "decoded images", "density")
SIDE, CARD_SIDE, MAP_SIDE = 640, 300, 20


@dataclass
class Plane:
    """Codes of a model in the plane, and a square around them.

    Attributes:
        codes: (N, 2) of images of the training set.
        classes: (N,), or None where the model does not say.
        centre: of the square; half: of its side.
        gaps: (N,), from each code to the one next to it, ascending.
        typical: the median density at the codes, as its log.
    """

    codes: torch.Tensor
    classes: np.ndarray | None
    centre: torch.Tensor
    half: float
    gaps: torch.Tensor
    typical: float

    def places(self) -> np.ndarray:
        """The codes in [0, 1], from the upper left; those outside are left out by who draws them."""
        return self.to_place(self.codes).numpy()

    def to_place(self, z: torch.Tensor) -> torch.Tensor:
        return (z - self.centre) / (2 * self.half) * torch.tensor([1.0, -1.0]) + 0.5

    def to_code(self, place: torch.Tensor) -> torch.Tensor:
        return (place - 0.5) * torch.tensor([1.0, -1.0]) * 2 * self.half + self.centre


@lru_cache(maxsize=16)
def plane_of(name: str) -> Plane:
    """The plane of a model; two sessions share it."""
    pipe = autoencoder(name)
    if code_size(name) != 2 or not hasattr(pipe.prior, "points"):
        raise user_error(
            f"{name} has no plane of codes to show: it takes two dimensions, and a kernel density estimate."
        )
    codes = pipe.prior.points.detach().float()
    classes = getattr(pipe.prior, "point_classes", None)
    low, high = (torch.quantile(codes, q, dim=0) for q in (0.005, 0.995))
    distances = torch.cdist(codes.double(), codes.double()).float().fill_diagonal_(float("inf"))
    return Plane(
        codes,
        None if classes is None or not FACTS[name].num_classes else classes.detach().long().numpy(),
        (low + high) / 2,
        float((high - low).max()) * 0.56 + 1e-6,
        distances.min(1).values.sort().values,
        float(pipe.prior.log_prob(codes, None).median()),
    )


def codes_in_view(plane: Plane) -> tuple[np.ndarray, np.ndarray | None]:
    places = plane.places()
    kept = ((places > 0) & (places < 1)).all(1)
    return places[kept], None if plane.classes is None else plane.classes[kept]


@lru_cache(maxsize=16)
def plane_card(name: str) -> dict:
    title, asked = titled(OFFERED)[name], OBJECTIVES[objective_of(name)].asked
    picture = views.scatter(*codes_in_view(plane_of(name)), CARD_SIDE, radius=1.4, badges=False)
    return views.card(name, title, asked, views.few_colours(picture))


@lru_cache(maxsize=48)
def background(name: str, view: str) -> Image.Image:
    """The picture that one moves over."""
    pipe, plane = autoencoder(name), plane_of(name)
    if view == "codes":
        return views.few_colours(views.scatter(*codes_in_view(plane), SIDE))
    side = MAP_SIDE if view == "decoded images" else 100
    ticks = (torch.arange(side) + 0.5) / side
    down, across = torch.meshgrid(ticks, ticks, indexing="ij")
    z = plane.to_code(torch.stack([across.flatten(), down.flatten()], 1))
    if view == "density":
        share = (pipe.prior.log_prob(z, None) - plane.typical).exp().clamp(max=2).div(2).sqrt()
        return views.few_colours(views.density_overlay(share.view(side, side).numpy(), SIDE))
    images = pipe.decode(z, output_type="np").images[..., 0]
    size = images.shape[1]
    tiles = images.reshape(side, side, size, size).transpose(0, 2, 1, 3).reshape(side * size, side * size)
    return Image.fromarray((tiles * 255).round().astype(np.uint8))


# no job of the session's: it runs while the page opens, and whoever goes to another tab meanwhile need not wait for it
def autoencoder_codes() -> Iterator[dict]:
    """Codes of training digits in the plane, for each model with codes of two numbers.

    Returns:
        A card for each model: its name, its objective, and a picture of its codes by class; again for each.
    """
    first, cards = first_of(OFFERED, USUAL), []
    for name in OFFERED:
        cards.append(plane_card(name))
        yield {"cards": list(cards), "chosen": first}


def autoencoder_plane(model: str, view: str, place: tuple[float, float]) -> dict:
    """The plane of codes of a model, as a picture to move over.

    Args:
        model: one with codes of two numbers.
        view: "codes" by class, "decoded images" of places all over it, or the "density" of the codes.
        place: {"x": 0 to 1, "y": 0 to 1}, where the marker stands.

    Returns:
        The picture and the marker.
    """
    picture = background(chosen_plane(model), one_of("view", view, VIEWS))
    return {"x": place[0], "y": place[1], "url": data_url(picture)}


def chosen_plane(model: str | None) -> str:
    """A model of the plane, the first where none is chosen."""
    return one_of("model", model or first_of(OFFERED, USUAL), OFFERED or [first_of(OFFERED, USUAL)])


def autoencoder_decode_at(model: str, place: tuple[float, float]) -> tuple[Image.Image, str]:
    """Decode one place of a plane of codes, and say how far it is from any code.

    Args:
        model: one with codes of two numbers.
        place: {"x": 0 to 1, "y": 0 to 1}, from the upper left corner.

    Returns:
        The decoded image; the code, the distance to the nearest code of a training digit, and the density there.
    """
    name = chosen_plane(model)
    pipe, plane = autoencoder(name), plane_of(name)
    z = plane.to_code(torch.tensor([place]))
    distance, nearest = torch.cdist(z, plane.codes)[0].min(0)
    usual = float(plane.gaps[len(plane.gaps) // 2])
    ratio = float((pipe.prior.log_prob(z, None)[0] - plane.typical).exp())
    if ratio >= 0.25:
        verdict = "Among the codes."
    else:
        verdict = "Codes are thin here." if ratio >= 0.03 else "A hole: hardly a code is near."
    of_a = "" if plane.classes is None else f", a **{plane.classes[int(nearest)]}**,"
    density = f"{ratio:.2g} times" if ratio >= 1e-6 else "less than a millionth of"
    text = (
        f"### {verdict}\nCode ({signed(float(z[0, 0]), 2)}, {signed(float(z[0, 1]), 2)}). The nearest code of a "
        f"training digit{of_a} is **{float(distance):.2g}** away; half of the codes have one within {usual:.2g}. The "
        f"density here is **{density}** that at a typical code."
    )
    if FACTS[name].setting("supervised"):
        with torch.no_grad():
            share = pipe.autoencoder.classify(z).softmax(1)[0]
        text += f" The classifier reads a **{int(share.argmax())}** ({share.max():.0%})."
    return upscale(pipe.decode(z).images[0], 280), text


def build(demo: gr.Blocks) -> None:
    """The tab; it is the first of the page `demo`, and filled when that opens."""
    with gr.Tab("Codes"):
        gr.Markdown(
            "**Codes of two numbers can be looked at.** Each dot is the code of a training digit. All five have the "
            "same networks; what differs is what was asked of the codes. Choose one, and move over its plane below."
        )
        say_missing(OFFERED, OBJECTIVES, in_the_plane=True)
        cards = views.Cards("Planes of codes", width=176, elem_id="planes", min_height=120)
        gr.HTML(views.legend(), css_template=views.LEGEND_CSS)
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                view = gr.Radio(list(VIEWS), value=VIEWS[0], label="Show", elem_id="view")
                explorer = Explorer("Plane of codes", elem_id="plane", elem_classes="paper")
            with gr.Column(scale=2, min_width=300):
                gr.Markdown("**Click and drag** on the plane, or focus it and use the arrow keys. Look for **holes**.")
                live = result_image("Decoded here", "live")
                where = gr.Markdown(elem_id="where")

    quiet = {"api_visibility": "private"}  # the API names each handler once
    planed = [cards, view, explorer], explorer
    moved = [cards, explorer], [live, where]
    explorer.input(
        autoencoder_decode_at,
        *moved,
        trigger_mode="always_last",
        show_progress="hidden",
        queue=False,
        api_name="autoencoder_decode_at",
    )
    cards.input(autoencoder_plane, *planed, api_name="autoencoder_plane").success(
        autoencoder_decode_at, *moved, **quiet
    )
    view.change(autoencoder_plane, *planed, **quiet)
    if OFFERED:
        demo.load(autoencoder_codes, None, cards, api_name="autoencoder_codes").success(
            autoencoder_plane, *planed, **quiet
        ).success(autoencoder_decode_at, *moved, **quiet)
