"""Figures in SVG, in the colours of the page, and numbers as they stand on them."""

import math

import numpy as np
from PIL import Image

from kit.pictures import data_url


def signed(value: float, digits: int = 1) -> str:
    """A number with a minus sign as long as a plus."""
    return f"{value:.{digits}f}".replace("-", "−")


def signed_short(value: float) -> str:
    """A number as an axis shows it: three digits, no exponent below a million, such a minus sign."""
    value = 0.0 if abs(value) < 1e-9 else value
    return (f"{value:,.0f}" if 1_000 <= abs(value) < 1e6 else f"{value:.3g}").replace("-", "−")


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from low to high."""
    if not high > low:
        return [low]
    power = 10 ** math.floor(math.log10((high - low) / count))
    step = next(s for s in (power, 2 * power, 5 * power, 10 * power) if (high - low) / s <= count)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten from low to high, both above 0; the powers alone where those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1,)):
        ticks = [d * 10.0**p for p in powers for d in digits]
        ticks = [t for t in ticks if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]
        if len(ticks) <= 9:
            break
    return ticks


def histogram(values, marks: list[tuple[str, float]], label: str, bins: int = 40, digits: int = 0) -> str:
    """An SVG: how often `values` fall where, and named places among them. It takes the colours of the page."""
    values = np.asarray(values, dtype=float)
    low = min(values.min(), *(v for _, v in marks))
    high = max(values.max(), *(v for _, v in marks))
    low, high = low - 0.04 * (high - low) - 1e-6, high + 0.04 * (high - low) + 1e-6
    counts, edges = np.histogram(values, bins, (low, high))
    left, right, top, floor = 16, 624, 20 + 20 * len(marks), 250

    def x(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    bars = "".join(
        f'<rect x="{x(a):.1f}" width="{max(1.0, x(b) - x(a) - 1):.1f}" '
        f'y="{floor - (floor - top) * n / counts.max():.1f}" height="{(floor - top) * n / counts.max():.1f}"/>'
        for n, a, b in zip(counts, edges, edges[1:], strict=False)
    )
    lines = ""
    for i, (name, value) in enumerate(marks):
        y, place = 16 + 20 * i, x(value)
        anchor, shift = ("end", -6) if place > (left + right) / 2 else ("start", 6)
        lines += (
            f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{y - 10}" y2="{floor}"/>'
            f'<text x="{place + shift:.1f}" y="{y}" text-anchor="{anchor}">{name} {signed(value, digits)}</text>'
        )
    ticks = "".join(
        f'<text x="{x(v):.1f}" y="{floor + 18}" text-anchor="middle">{signed(v, digits)}</text>'
        for v in np.linspace(low, high, 7)[1:-1]
    )
    return (
        f'<div class="figure"><svg viewBox="0 0 640 300" role="img" aria-label="{label}" font-size="14">'
        f'<g class="bars">{bars}</g><line class="axis" x1="{left}" x2="{right}" y1="{floor}" y2="{floor}"/>'
        f'{lines}{ticks}<text x="320" y="{floor + 42}" text-anchor="middle">{label}</text></svg></div>'
    )


def curves(
    series: dict[str, list[tuple[float, float]]],
    x_label: str,
    y_label: str,
    log_x: bool = False,
    marks: bool = False,
    least: float = 0.0,
    bars: list[tuple[float, float, float]] = (),
    here: tuple[str, float] | None = None,
) -> str:
    """An SVG of lines through (x, y), several of them named above; a line has a gap where y is not finite.

    `marks` puts a dot and its value at each point; the vertical axis reaches from `least`, or from the lowest point
    where that is lower, to the highest. Behind the lines stand `bars`, each (from, to, height); `here` is a named place
    on the horizontal axis.
    """
    points = [point for line in series.values() for point in line]
    xs, ys = [x for x, _ in points], [y for _, y in points if math.isfinite(y)] or [0.0]
    xs, ys = [*xs, *(edge for bar in bars for edge in bar[:2])], [*ys, *(bar[2] for bar in bars)]
    left, right, top, floor = 56, 600, 44 if marks else 34, 246  # a mark's value stands above it
    top += 18 if here else 0  # and the name of a place between it and the legend
    low_y, high_y = min(least, *ys), max(ys)
    low_x, high_x = (math.log(min(xs)), math.log(max(xs))) if log_x else (min(xs), max(xs))

    def at(x: float, y: float) -> tuple[float, float]:
        along = ((math.log(x) if log_x else x) - low_x) / (high_x - low_x or 1)
        return left + (right - left) * along, floor - (floor - top) * (y - low_y) / (high_y - low_y or 1)

    drawn = ""
    for start, end, height in bars:
        (x, y), (x_end, zero) = at(start, height), at(end, max(low_y, 0.0))
        drawn += f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(1.0, x_end - x - 1):.1f}" height="{zero - y:.1f}"/>'
    drawn = f'<g class="bars behind">{drawn}</g>' if bars else ""
    for number, line in enumerate(series.values()):
        places = [at(*point) if math.isfinite(point[1]) else None for point in line]
        path = ""
        for before, place in zip([None, *places], places, strict=False):
            if place is not None:
                path += f"{'M' if before is None else 'L'}{place[0]:.1f} {place[1]:.1f}"
        drawn += f'<path class="curve curve-{number}" d="{path}"/>'
        if marks:
            drawn += "".join(
                f'<circle class="dot" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="4"/>'
                f'<text x="{place[0]:.1f}" y="{place[1] - 9:.1f}" text-anchor="middle" font-size="12">{value:.3g}</text>'
                for place, (_, value) in zip(places, line, strict=True)
                if place is not None
            )
    # where all lines have their points, those are the ticks
    even = log_ticks if log_x else lambda low, high: round_ticks(low, high, 8)
    ticks = sorted(set(xs)) if len(set(xs)) <= 9 else even(min(xs), max(xs))
    if here is not None:
        place = at(here[1], low_y)[0]
        anchor, shift = ("end", -6) if place > (left + right) / 2 else ("start", 6)
        drawn += (
            f'<line class="mark" x1="{place:.1f}" x2="{place:.1f}" y1="{top - 10}" y2="{floor}"/>'
            f'<text x="{place + shift:.1f}" y="{top + 3}" text-anchor="{anchor}">{here[0]}</text>'
        )
    marked = "".join(
        f'<text x="{at(x, low_y)[0]:.1f}" y="{floor + 22}" text-anchor="middle">{signed_short(x)}</text>' for x in ticks
    )
    marked += "".join(
        f'<text x="{left - 8}" y="{at(xs[0], y)[1] + 5:.1f}" text-anchor="end">{signed_short(y)}</text>'
        for y in round_ticks(low_y, high_y)
    )
    legend, x = "", 640.0
    for number, name in reversed(list(enumerate(series))) if len(series) > 1 else ():
        x -= 11.5 * len(name) + 36  # wide enough for the larger letters of a narrow window
        legend += f'<path class="curve curve-{number}" d="M{x:.0f} 10h16"/><text x="{x + 21:.0f}" y="15">{name}</text>'
    named = next(iter(series)) if len(series) == 1 else y_label
    return (
        f'<div class="figure"><svg viewBox="-24 -8 664 308" role="img" aria-label="{named} against {x_label}" font-size="14">'
        f'<line class="axis" x1="{left}" x2="{right}" y1="{floor}" y2="{floor}"/>'
        f'<line class="axis" x1="{left}" x2="{left}" y1="{top}" y2="{floor}"/>{drawn}{marked}{legend}'
        f'<text x="4" y="15">{named}</text>'
        f'<text x="320" y="{floor + 46}" text-anchor="middle">{x_label}</text></svg></div>'
    )


def columns_of(x, columns: dict[str, np.ndarray], most: float = math.inf, thin: int = 1) -> dict:
    """Columns of numbers as `curves` takes them, each `thin`-th, with a gap where they are further than `most` from zero
    or not finite."""
    return {
        name: [
            (float(a), float(b) if abs(b) <= most else math.nan) for a, b in zip(x[::thin], column[::thin], strict=True)
        ]
        for name, column in columns.items()
    }


PLANE = 600  # units a side


def on_plane(points, reach: float) -> list[list[float]]:
    """(N, 2), each from -reach to reach, upwards -> places on a `plane`, downwards."""
    scale = PLANE / 2 / reach
    return (np.asarray(points, dtype=float) * [scale, -scale] + PLANE / 2).tolist()


def dots(points, reach: float, kind: str = "", radius: float = 3) -> str:
    """Points (N, 2) that lie within reach, as a layer of a `plane`."""
    inside = [(x, y) for x, y in on_plane(points, reach) if 0 <= x <= PLANE and 0 <= y <= PLANE]
    circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>' for x, y in inside)
    return f'<g class="dots {kind}">{circles}</g>'


def plane(label: str, *layers: str, ground: Image.Image | None = None) -> str:
    """An SVG of a square: layers of SVG in the coordinates of `on_plane`, on a picture that fills it."""
    picture = ""
    if ground is not None:
        picture = f'<image href="{data_url(ground)}" width="{PLANE}" height="{PLANE}" preserveAspectRatio="none"/>'
    return (
        f'<div class="figure plane"><svg viewBox="0 0 {PLANE} {PLANE}" role="img" aria-label="{label}">'
        f'<rect class="frame" width="{PLANE}" height="{PLANE}" rx="10"/>{picture}{"".join(layers)}</svg></div>'
    )
