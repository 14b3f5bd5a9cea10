"""Maps of the plane, dark in light and dark: densities as heat, points as spots, and the place of a marker.

Points are (N, 2), within REACH of the middle, upwards; a field is (M, M), its first row the top, as `places` has them.
"""

import base64
import math

import numpy as np
from PIL import Image

from kit.charts import PLANE, on_plane, signed
from kit.pictures import data_url

REACH = 3.0  # of the plane, from its middle
FIELD = 120  # places a side at which a density is asked
SIDE = PLANE
NIGHT, PALE = "#141a26", "#e2e8f0"
EMBER = ("#141a26", "#3a1f33", "#7c2a23", "#c2410c", "#f97316", "#fdba74", "#fff3e0")  # from nothing to much
SLATE = ("#141a26", "#1c2535", "#2a3649", "#42526b")


def rgb(colour: str) -> np.ndarray:
    """#rrggbb -> (3,), 0 to 255."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=float)


def places(side: int = FIELD) -> np.ndarray:
    """(side * side, 2): the middles of the cells of a field, row by row from the top."""
    ticks = (np.arange(side) + 0.5) / side * 2 * REACH - REACH
    return np.stack(np.meshgrid(ticks, -ticks), 2).reshape(-1, 2)


def at_place(place: tuple[float, float]) -> np.ndarray:
    """(x, y) of an explorer, each in [0, 1] and downwards, as a point of the plane."""
    return (np.array(place) - 0.5) * [2, -2] * REACH


def place_text(log_p: float, place: tuple[float, float]) -> str:
    """What a density says of the place of an explorer."""
    p = math.exp(min(log_p, 700.0))
    coordinates = ", ".join(signed(v + 0.0, 2) for v in at_place(place).round(2))  # and no minus before a zero
    if p == 0:  # no floating-point number is so small
        return f"### log p = {signed(log_p, 2)} nats\np is below 10⁻³⁰⁰ per unit of area, at x = ({coordinates})."
    small = f"{p:.3f}" if p >= 0.001 else f"{p:.1e}".replace("e-0", "e-").replace("-", "−")
    return f"### log p = {signed(log_p, 2)} nats\np = {small} per unit of area, at x = ({coordinates})."


def explorer_value(place: tuple[float, float], svg: str) -> dict:
    """A figure for an explorer, whose marker stays where it is."""
    return {"x": place[0], "y": place[1], "url": as_url(svg)}


def heat(
    log_p: np.ndarray, ramp: tuple[str, ...] = EMBER, depth: float = 8.0, highest: float | None = None
) -> Image.Image:
    """A field of log p (M, M) as a picture; what lies `depth` nats below the highest has the first colour.

    `highest` is that of another field, for maps that are to be compared.
    """
    level = np.clip(1 + (log_p - (log_p.max() if highest is None else highest)) / depth, 0, 1) * (len(ramp) - 1)
    colours = np.array([rgb(c) for c in ramp])
    picture = np.stack([np.interp(level, np.arange(len(ramp)), colours[:, i]) for i in range(3)], -1)
    return Image.fromarray(picture.round().astype(np.uint8))


def ground(
    field: np.ndarray, ramp: tuple[str, ...] = EMBER, depth: float = 8.0, highest: float | None = None
) -> Image.Image:
    """`heat`, as large as the ground of a `screen` has to be to look smooth."""
    return heat(field, ramp, depth, highest).resize((480, 480))


def unit_circles() -> str:
    """Circles of one and two standard deviations of N(0, I)."""
    middle, unit = SIDE / 2, SIDE / 2 / REACH
    drawn = "".join(f'<circle cx="{middle}" cy="{middle}" r="{k * unit:.0f}"/>' for k in (1, 2))
    return f'<g fill="none" stroke="{PALE}" stroke-width="2" stroke-dasharray="4 6" stroke-opacity="0.8">{drawn}</g>'


def spots(points: np.ndarray, colours: list[str] | str, radius: float = 4.5) -> str:
    """Points (N, 2), of one colour or of one each; those beyond the edge are left out."""
    colours = [colours] * len(points) if isinstance(colours, str) else colours
    drawn = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>'
        for (x, y), colour in zip(on_plane(points, REACH), colours, strict=True)
        if 0 <= x <= SIDE and 0 <= y <= SIDE
    )
    return f'<g stroke="{NIGHT}" stroke-width="1" fill-opacity="0.85">{drawn}</g>'


def screen(label: str, *layers: str, ground: Image.Image | None = None, height: int = SIDE) -> str:
    """An SVG, 600 wide, dark on every page: layers in the coordinates of `on_plane`, on a picture that fills it."""
    picture = ""
    if ground is not None:
        picture = f'<image href="{data_url(ground)}" width="{SIDE}" height="{height}" preserveAspectRatio="none"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {height}" width="{SIDE}" height="{height}" '
        f'style="border-radius: 10px" role="img" aria-label="{label}">'
        f'<rect width="{SIDE}" height="{height}" fill="{NIGHT}"/>{picture}{"".join(layers)}'
        f'<rect x="1" y="1" width="{SIDE - 2}" height="{height - 2}" rx="9" fill="none" stroke="#475569" stroke-width="2"/>'
        "</svg>"
    )


def as_figure(svg: str) -> str:
    """A screen as part of a page."""
    return f'<div class="figure plane">{svg}</div>'


def as_url(svg: str) -> str:
    """A screen as the address of an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
