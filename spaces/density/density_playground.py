"""What the playground shows, without models: sets of points, densities on the line, and figures (SVG).

    draw_set, ink_of, from_ink      points of the plane, from a set or from a drawing
    left_out                        how well kernels do at points that they leave out
    LINES                           densities on the line that can be drawn from and computed
    regions, ellipses, disks        what lies on a `screen` of kit.maps
    dendrogram                      a tree of merges and where it is cut

Points and fields are as in kit.maps.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from kit.charts import on_plane, round_ticks, signed_short
from kit.maps import NIGHT, PALE, REACH, SIDE, places, rgb, screen
from kit.toy_points import TOYS
from PIL import Image

# The plane


def _blobs(n: int, rng: np.random.Generator) -> np.ndarray:
    which = rng.integers(0, 3, n)
    centres = np.array([[-1.4, -1.0], [1.5, -0.7], [0.0, 1.4]])
    shapes = np.array([[[0.55, 0.25], [0.0, 0.3]], [[0.3, 0.0], [-0.2, 0.6]], [[0.7, 0.0], [0.0, 0.25]]])
    return centres[which] + 0.8 * np.einsum("nij,nj->ni", shapes[which], rng.standard_normal((n, 2)))


def _ring(n: int, rng: np.random.Generator) -> np.ndarray:
    angle, radius = 2 * np.pi * rng.random(n), 1.9 + 0.15 * rng.standard_normal(n)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


def _toy(name: str, scale: float) -> Callable:
    """A set that models of the project are trained on, somewhat larger."""
    return lambda n, rng: scale * TOYS[name](n, rng)[0]


SETS: dict[str, Callable] = {
    "three blobs": _blobs,
    "ring": _ring,
    "moons": _toy("moons", 1.0),
    "spiral": _toy("spiral", 1.15),
    "checkerboard": _toy("checkerboard", 1.2),
}


def draw_set(name: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 2) points of one of SETS."""
    return SETS[name](count, rng)


def ink_of(picture: Image.Image | None, side: int = 140) -> np.ndarray:
    """Where a drawing has ink: (side, side) in [0, 1], dark on light or light on dark.

    Raises:
        ValueError: there is nothing on it.
    """
    empty = ValueError("There is nothing on the paper yet: draw something, and points will be drawn from its ink.")
    if picture is None:
        raise empty
    gray = np.asarray(picture.convert("L").resize((side, side), Image.Resampling.BOX), dtype=float)
    ink = np.abs(gray - np.median(gray))
    if ink.max() < 30:
        raise empty
    return np.where(ink > 0.25 * ink.max(), ink / ink.max(), 0.0)


def from_ink(ink: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 2) points, each at a random place of a pixel that was chosen in proportion to its ink (M, M)."""
    side = len(ink)
    chosen = rng.choice(side * side, count, p=(ink / ink.sum()).ravel())
    down, across = np.divmod(chosen, side)
    places = (np.stack([across, down], 1) + rng.random((count, 2))) / side
    return (places - 0.5) * [2, -2] * 0.9 * REACH


@functools.cache
def example_drawing() -> Image.Image:
    """A face, for the paper that nobody has drawn on yet."""
    from PIL import ImageDraw

    picture = Image.new("RGB", (280, 280), "white")
    pen = ImageDraw.Draw(picture)
    pen.ellipse((34, 34, 246, 246), outline="black", width=14)
    for x in (100, 180):
        pen.ellipse((x - 15, 94, x + 15, 134), fill="black")
    pen.arc((86, 100, 194, 204), 25, 155, fill="black", width=14)
    return picture


def left_out(x: np.ndarray, bandwidths: np.ndarray) -> np.ndarray:
    """The mean of log p at each of the points x (N, D) under Gaussian kernels on all others, for each bandwidth, nats."""
    count, dim = x.shape
    squared = ((x[:, None] - x[None]) ** 2).sum(2)
    np.fill_diagonal(squared, np.inf)
    nearest = squared.min(1)  # kernels are summed in units of the nearest one, which may be as good as zero
    found = []
    for h in bandwidths:
        inside = np.exp((nearest[:, None] - squared) / (2 * h * h)).sum(1)
        log_p = (
            np.log(inside) - nearest / (2 * h * h) - math.log(count - 1) - dim * math.log(h * math.sqrt(2 * math.pi))
        )
        found.append(log_p.mean())
    return np.array(found)


# The line


@dataclass(frozen=True)
class Line:
    """A density on the line.

    Attributes:
        draw: (count, rng) -> (count,).
        log_prob: (N,) -> (N,), nats; -inf where there is nothing.
        low, high: what is shown of it.
    """

    draw: Callable
    log_prob: Callable
    low: float
    high: float


def log_normal(x: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    """log N(x; mean, deviation^2)."""
    return -0.5 * ((x - mean) / deviation) ** 2 - math.log(deviation * math.sqrt(2 * math.pi))


def _draw_bumps(n: int, rng: np.random.Generator) -> np.ndarray:
    first = rng.random(n) < 0.6
    return np.where(first, -1.5 + 0.5 * rng.standard_normal(n), 1.5 + 0.8 * rng.standard_normal(n))


def _log_bumps(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(math.log(0.6) + log_normal(x, -1.5, 0.5), math.log(0.4) + log_normal(x, 1.5, 0.8))


def _log_skewed(x: np.ndarray) -> np.ndarray:
    inside = np.maximum(x, 1e-300)
    return np.where(x > 0, np.log(inside) - inside, -np.inf)


STEPS, STEP_WIDTH = np.array([0.1, 0.35, 0.05, 0.3, 0.2]), 1.2  # from -3 to 3


def _draw_steps(n: int, rng: np.random.Generator) -> np.ndarray:
    return (rng.choice(len(STEPS), n, p=STEPS) + rng.random(n)) * STEP_WIDTH - 3


def _log_steps(x: np.ndarray) -> np.ndarray:
    step = np.floor((np.asarray(x) + 3) / STEP_WIDTH)
    inside = (step >= 0) & (step < len(STEPS))
    return np.where(inside, np.log(STEPS / STEP_WIDTH)[np.clip(step, 0, len(STEPS) - 1).astype(int)], -np.inf)


def _log_student(x: np.ndarray) -> np.ndarray:
    """Two degrees of freedom: p(x) = (2 + x^2)^(-3/2)."""
    return -1.5 * np.log(2 + np.square(x))


LINES = {
    "two bumps": Line(_draw_bumps, _log_bumps, -4.0, 5.0),
    "skewed": Line(lambda n, rng: rng.gamma(2.0, 1.0, n), _log_skewed, -1.0, 8.0),
    "uniform steps": Line(_draw_steps, _log_steps, -4.0, 4.0),
    "heavy tails": Line(lambda n, rng: rng.standard_t(2, n), _log_student, -8.0, 8.0),
}


@dataclass(frozen=True)
class Histogram:
    """Counts as a density: count / (N width) within each bin, 0 outside of all.

    Attributes:
        edges: (bins + 1,).
        heights: (bins,).
    """

    edges: np.ndarray
    heights: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, bins: int) -> "Histogram":
        """With bins of one width from the least of x (N,) to the greatest."""
        counts, edges = np.histogram(x, bins)
        return cls(edges, counts / (len(x) * np.diff(edges)))

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """(N,) -> (N,), nats."""
        bin_of = np.searchsorted(self.edges, x, side="right") - 1
        bin_of = np.where(x == self.edges[-1], len(self.heights) - 1, bin_of)
        inside = (bin_of >= 0) & (bin_of < len(self.heights))
        height = np.where(inside, self.heights[np.clip(bin_of, 0, len(self.heights) - 1)], 0.0)
        with np.errstate(divide="ignore"):
            return np.log(height)


# Colours: of things that lie on a screen, in the same order everywhere

COLOURS = ("#fb923c", "#38bdf8", "#a3e635", "#f472b6", "#facc15", "#a78bfa", "#34d399", "#f87171", "#67e8f9", "#e879f9",
           "#e2e8f0", "#d6a77a")  # fmt: skip


def colour_of(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def blends(weights: np.ndarray) -> list[str]:
    """Rows of weights (N, K) that add up to 1 -> the K colours mixed so."""
    mixed = weights @ np.array([rgb(colour_of(k)) for k in range(weights.shape[1])])
    return ["#" + bytes(row).hex() for row in np.clip(mixed.round(), 0, 255).astype(np.uint8)]


# Figures


def regions(which: np.ndarray) -> Image.Image:
    """A field of whole numbers (M, M) as a picture in dark shades of their colours."""
    shades = np.array([0.3 * rgb(colour_of(k)) + 0.7 * rgb(NIGHT) for k in range(int(which.max()) + 1)])
    return Image.fromarray(shades[which].round().astype(np.uint8))


def nearest(centres: np.ndarray, side: int = 300) -> np.ndarray:
    """Which of the centres (K, 2) is nearest to each place of a field: (side, side)."""
    squared = ((places(side)[:, None] - centres[None]) ** 2).sum(2)
    return squared.argmin(1).reshape(side, side)


def ellipses(means: np.ndarray, covariances: np.ndarray) -> str:
    """One and two standard deviations of Gaussians: means (K, 2), covariances (K, 2, 2)."""
    drawn = ""
    for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
        variances, axes = np.linalg.eigh(covariance)
        deviations = np.sqrt(np.maximum(variances, 0)) * SIDE / (2 * REACH)
        angle = -math.degrees(math.atan2(axes[1, 1], axes[0, 1]))  # of the longer axis; the plane has y downwards
        ((x, y),) = on_plane([mean], REACH)
        for times, width, opacity in ((1, 3.0, 1.0), (2, 2.0, 0.7)):
            drawn += (
                f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="{times * deviations[1]:.1f}" ry="{times * deviations[0]:.1f}" '
                f'transform="rotate({angle:.2f} {x:.1f} {y:.1f})" fill="none" stroke="{colour_of(k)}" '
                f'stroke-width="{width}" stroke-opacity="{opacity}"/>'
            )
        drawn += f'<path d="M{x - 7:.1f} {y:.1f}h14M{x:.1f} {y - 7:.1f}v14" stroke="{PALE}" stroke-width="2.5"/>'
    return drawn


def disks(centres: np.ndarray) -> str:
    """Centres (K, 2) of clusters."""
    return "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="11" fill="{colour_of(k)}" stroke="white" stroke-width="3.5"/>'
        for k, (x, y) in enumerate(on_plane(centres, REACH))
    )


def trails(paths: np.ndarray) -> str:
    """Ways of centres, (steps, K, 2)."""
    drawn = ""
    for k in range(paths.shape[1]):
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in on_plane(paths[:, k], REACH))
        drawn += f'<path d="M{line}" fill="none" stroke="white" stroke-width="2.5" stroke-opacity="0.75"/>'
    return drawn


def leaf_order(merges: np.ndarray) -> list[int]:
    """Points in an order in which no branches cross; merges (N - 1, 2) as of an agglomerative model."""
    count = len(merges) + 1
    order, left = [], [2 * count - 2]
    while left:
        node = left.pop()
        if node < count:
            order.append(node)
        else:
            left.extend(int(child) for child in merges[node - count][::-1])
    return order


def cut_height(heights: np.ndarray, num_clusters: int) -> float:
    """A height between the merges that a cut into so many clusters makes and those that it does not; heights (N - 1,)."""
    made = len(heights) + 1 - num_clusters
    below = heights[made - 1] if made else 0.0
    above = heights[made] if made < len(heights) else 1.06 * heights[-1]
    return float(below + above) / 2


def dendrogram(merges: np.ndarray, heights: np.ndarray, labels: np.ndarray) -> str:
    """A tree: merges (N - 1, 2), heights (N - 1,), and labels (N,) of the clusters that its cut makes."""
    count, clusters = len(labels), int(labels.max()) + 1
    height, left, right, top, floor = 420, 62, 588, 26, 396
    tallest = float(heights.max()) or 1.0
    place = {point: (left + (right - left) * (i + 0.5) / count, 0.0) for i, point in enumerate(leaf_order(merges))}
    colour = {point: colour_of(int(label)) for point, label in enumerate(labels)}

    def y(value: float) -> float:
        return floor - (floor - top) * value / (1.06 * tallest)

    branches: dict[str, str] = {}
    for step, (a, b) in enumerate(merges.tolist()):
        (x_a, h_a), (x_b, h_b), h = place[a], place[b], float(heights[step])
        place[count + step] = ((x_a + x_b) / 2, h)
        colour[count + step] = colour[a] if step < count - clusters else "#94a3b8"
        path = f"M{x_a:.1f} {y(h_a):.1f}V{y(h):.1f}H{x_b:.1f}V{y(h_b):.1f}"
        branches[colour[count + step]] = branches.get(colour[count + step], "") + path
    drawn = "".join(f'<path d="{d}" fill="none" stroke="{c}" stroke-width="1.8"/>' for c, d in branches.items())
    drawn += "".join(
        f'<rect x="{place[p][0] - (right - left) / count / 2:.1f}" width="{(right - left) / count + 0.3:.1f}" y="{floor}" '
        f'height="10" fill="{colour[p]}"/>'
        for p in range(count)
    )
    words = f'style="fill:{PALE}" text-anchor="end" font-size="14"'
    ticks = "".join(
        f'<text x="{left - 10}" y="{y(v) + 5:.1f}" {words}>{signed_short(v)}</text>' for v in round_ticks(0, tallest, 4)
    )
    cut = y(cut_height(heights, clusters))
    line = (
        f'<path d="M{left - 6} {cut:.1f}H{right + 6}" stroke="white" stroke-width="2" stroke-dasharray="7 6"/>'
        f'<text x="{right + 4}" y="{max(cut - 7, 18):.1f}" {words}>cut</text>'
    )
    return screen(f"a tree of {count} points, cut into {clusters} clusters", drawn, ticks, line, height=height)
