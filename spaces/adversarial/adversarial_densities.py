"""What an adversary measures, against densities that are known, and other divergences beside it.

    optimal_discriminator p / (p + q), the value 2 JS - 2 log 2 it reaches, and a network trained to reach both
    slide_apart           KL both ways, JS and Wasserstein of two densities as their supports part, with gradients
    fit_gaussian          one Gaussian fitted to two, by KL(p||q) or by KL(q||p)

Everything here computes and returns arrays; nothing draws. Divergences are in nats, distances in the units of x.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from adversarial_training import check_choice, check_range
from kit.learning import seeded
from torch import Tensor, nn

LOG_2 = math.log(2)

# Densities on the line, by quadrature


LINE = np.linspace(-10, 10, 4_001)


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians on the line.

    Attributes:
        means, deviations, weights: one number for each part; weights add up to 1.
    """

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    weights: tuple[float, ...]

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """log p at places of any shape, in nats."""
        return self.log_prob_of(torch.from_numpy(np.asarray(x, dtype=float))).numpy()

    def log_prob_of(self, x: Tensor) -> Tensor:
        """The same of a tensor, with gradients."""
        parts = [
            math.log(w) - 0.5 * ((x - m) / s) ** 2 - math.log(s * math.sqrt(2 * math.pi))
            for m, s, w in zip(self.means, self.deviations, self.weights, strict=True)
        ]
        return torch.logsumexp(torch.stack(parts), 0)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,), ascending, one from each of `count` slices of equal probability: means over them scatter little."""
        u = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        return torch.from_numpy(np.interp(u.numpy(), self._cdf, LINE)).float()

    @functools.cached_property
    def _cdf(self) -> np.ndarray:
        mass = np.exp(self.log_prob(LINE)).cumsum()
        return mass / mass[-1]


DENSITIES = {
    "the same twice": (Mixture((0.0,), (1.0,), (1.0,)), Mixture((0.0,), (1.0,), (1.0,))),
    "one beside the other": (Mixture((-1.0,), (1.0,), (1.0,)), Mixture((1.0,), (1.0,), (1.0,))),
    "one inside the other": (Mixture((0.0,), (2.0,), (1.0,)), Mixture((0.0,), (0.7,), (1.0,))),
    "two hills and one": (Mixture((-2.0, 2.0), (0.7, 0.7), (0.5, 0.5)), Mixture((0.5,), (1.5,), (1.0,))),
}


def optimal_discriminator(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """D*(x) = p(x) / (p(x) + q(x)), from the two densities at the same places, (N,) each (arXiv 1406.2661, proposition 1)."""
    return p / (p + q)


def game_value(log_p: np.ndarray, log_q: np.ndarray, logit: np.ndarray, x: np.ndarray) -> float:
    """E_p log D + E_q log(1 - D), where D = sigmoid(logit), by the trapezoidal rule on the places x; (N,) each."""
    return float(np.trapezoid(-np.exp(log_p) * np.logaddexp(0, -logit) - np.exp(log_q) * np.logaddexp(0, logit), x))


def jensen_shannon(log_p: np.ndarray, log_q: np.ndarray, x: np.ndarray) -> float:
    """(KL(p||m) + KL(q||m)) / 2 with m = (p + q) / 2, in nats: 0 to log 2."""
    log_m = np.logaddexp(log_p, log_q) - LOG_2
    return 0.5 * (kullback_leibler(log_p, log_m, x) + kullback_leibler(log_q, log_m, x))


def kullback_leibler(log_p: np.ndarray, log_q: np.ndarray, x: np.ndarray) -> float:
    """KL(p||q) in nats; infinite where p has mass and q has none."""
    inside = np.isfinite(log_p)
    if np.isneginf(log_q[inside]).any():
        return math.inf
    terms = np.zeros_like(log_p)
    terms[inside] = np.exp(log_p[inside]) * (log_p[inside] - log_q[inside])
    return float(np.trapezoid(terms, x))


def wasserstein_1d(a, b) -> float:
    """W_1 of two samples of equal size on the line: the mean distance of the sorted ones (both (N,)).

    Raises:
        ValueError: they are not of one size.
    """
    a, b = np.sort(np.asarray(a, dtype=float)), np.sort(np.asarray(b, dtype=float))
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"a and b have shapes {a.shape} and {b.shape}; both must be (N,) with the same N")
    return float(np.abs(a - b).mean())


@dataclass
class DiscriminatorStep:
    """What a discriminator has learned so far.

    Attributes:
        step, num_steps: steps so far, and in all.
        confidence: D at the places `LINE`.
        value: E_p log D + E_q log(1 - D) by quadrature; at most 2 JS - 2 log 2.
    """

    step: int
    num_steps: int
    confidence: np.ndarray
    value: float


class Steps(nn.Module):
    """(N, 1) -> (N, width): smooth steps up and down at places all along the line, so that its ends are learned too."""

    def __init__(self, width: int):
        super().__init__()
        self.slope = nn.Parameter(torch.randn(width))
        self.place = nn.Parameter(torch.linspace(-6, 6, width)[torch.randperm(width)])

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.slope * (x - self.place))


def train_discriminator(
    p: Mixture, q: Mixture, num_steps: int = 2_000, seed: int = 0, every: int = 100
) -> Iterator[DiscriminatorStep]:
    """Train a discriminator on samples of two densities, q in the generator's place, which stands still.

    What is shown is the moving average of its weights.

    Raises:
        ValueError: num_steps or every is not within 1 to 100 000.
    """
    check_range("num_steps", num_steps, 1, 100_000)
    check_range("every", every, 1, 100_000)
    rng = torch.Generator().manual_seed(seed)
    network = seeded(seed, lambda: nn.Sequential(Steps(64), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)))
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99)
    )
    optimizer = torch.optim.Adam(network.parameters())
    places = torch.from_numpy(LINE).float()[:, None]
    log_p, log_q = p.log_prob(LINE), q.log_prob(LINE)
    for step in range(1, num_steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        real, made = network(p.draw(512, rng)[:, None]), network(q.draw(512, rng)[:, None])
        loss = F.softplus(-real).mean() + F.softplus(made).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(network)
        if step % every == 0 or step == num_steps:
            with torch.no_grad():
                logit = average(places)[:, 0].double().numpy()
            value = game_value(log_p, log_q, logit, LINE)
            yield DiscriminatorStep(step, num_steps, 1 / (1 + np.exp(-logit)), value)


# Divergences of two densities that slide apart


SHAPES = ("uniform", "bump", "Gaussian")
CELL = 1 / 4_000  # of the quadrature


def shape_log_prob(shape: str, x: np.ndarray) -> np.ndarray:
    """log of a density of width about 1 around 0; -inf outside of its support."""
    with np.errstate(divide="ignore"):
        if shape == "uniform":
            return np.log((np.abs(x) < 0.5).astype(float))
        if shape == "bump":  # a raised cosine
            return np.log(np.where(np.abs(x) < 0.5, 1 + np.cos(2 * math.pi * np.clip(x, -0.5, 0.5)), 0))
    return -0.5 * (x / 0.2) ** 2 - math.log(0.2 * math.sqrt(2 * math.pi))


@dataclass
class Slide:
    """Divergences of p(x) from p(x - shift), and their derivatives by the shift; each (number of shifts,).

    Attributes:
        shifts: as asked.
        values: name -> nats, or units of x for the Wasserstein distance; infinite where it is.
        gradients: name -> derivative by the shift; NaN where the divergence is infinite.
    """

    shifts: np.ndarray
    values: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]


def divergences(shape: str, shift: float) -> dict[str, float]:
    """KL both ways, JS and Wasserstein of two densities of a shape, one moved by `shift`, by quadrature."""
    # in the middle of cells whose edges fall on those of the supports: exact where a density jumps
    shift = round(shift / CELL) * CELL
    x = np.arange(round((min(0.0, shift) - 2) / CELL), round((max(0.0, shift) + 2) / CELL)) * CELL + CELL / 2
    log_p, log_q = shape_log_prob(shape, x), shape_log_prob(shape, x - shift)
    gap = np.cumsum(np.exp(log_p) - np.exp(log_q)) * CELL  # of the distribution functions
    return {
        "KL(p||q)": kullback_leibler(log_p, log_q, x),
        "KL(q||p)": kullback_leibler(log_q, log_p, x),
        "Jensen-Shannon": jensen_shannon(log_p, log_q, x),
        "Wasserstein": float(np.abs(gap).sum() * CELL),
    }


def slide_apart(shape: str, shifts) -> Slide:
    """How far p is from itself moved by each of `shifts` (N,), and how that changes with the shift (a central difference).

    Raises:
        ValueError: there is no such shape, or a shift is not finite.
    """
    check_choice("shape", shape, SHAPES)
    shifts, h = np.asarray(shifts, dtype=float), 0.02
    if not np.isfinite(shifts).all():
        raise ValueError("shifts holds NaN or infinite values; all must be finite")
    rows = [[divergences(shape, s + d) for d in (-h, 0, h)] for s in shifts]
    values, gradients = {}, {}
    for name in rows[0][0]:
        before, here, after = (np.array([row[i][name] for row in rows]) for i in range(3))
        with np.errstate(invalid="ignore"):
            slope = (after - before) / (2 * h)
        values[name], gradients[name] = here, np.where(np.isfinite(slope) & np.isfinite(here), slope, np.nan)
    return Slide(shifts, values, gradients)


# One Gaussian for two


DIRECTIONS = ("KL(p||q)", "KL(q||p)")


@dataclass
class FitStep:
    """A Gaussian q on its way: its mean, its standard deviation, and the divergence from p that is left, in nats."""

    mean: float
    deviation: float
    divergence: float


def log_normal(u: Tensor) -> Tensor:
    """log N(u; 0, 1)."""
    return -0.5 * u**2 - 0.5 * math.log(2 * math.pi)


def fit_gaussian(
    p: Mixture, direction: str, start: tuple[float, float] = (0.5, 1.0), num_steps: int = 500, rate: float = 0.1
) -> list[FitStep]:
    """Fit N(mean, deviation^2) to p by gradient descent on a divergence computed by quadrature; the start is included.

    KL(p||q) ends at the mean and deviation of p, wherever it starts: q must be where p is. KL(q||p) wants q not to be
    where p is not, and has several optima: one on each hill of p, and one across the valley where that is not deep.

    Raises:
        ValueError: direction is neither, the mean is not within -8 to 8, the deviation not within 0.05 to 8, or num_steps
            not within 0 to 100 000.
    """
    check_choice("direction", direction, DIRECTIONS)
    check_range("mean", start[0], -8, 8)
    check_range("deviation", start[1], 0.05, 8)
    check_range("num_steps", num_steps, 0, 100_000)
    line, unit = torch.from_numpy(LINE), torch.linspace(-8, 8, 1_601, dtype=torch.float64)
    log_p_line = p.log_prob_of(line)
    mean = torch.tensor(float(start[0]), dtype=torch.float64, requires_grad=True)
    log_deviation = torch.tensor(math.log(start[1]), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([mean, log_deviation], lr=rate)
    path = []
    for step in range(num_steps + 1):
        # over the line for p, whose places are known; over the deviations of q from its mean for q, wherever it goes
        if direction == "KL(p||q)":
            log_q = log_normal((line - mean) / log_deviation.exp()) - log_deviation
            loss = torch.trapezoid(log_p_line.exp() * (log_p_line - log_q), line)
        else:
            log_q = log_normal(unit) - log_deviation
            log_p = p.log_prob_of(mean + log_deviation.exp() * unit)
            loss = torch.trapezoid(log_normal(unit).exp() * (log_q - log_p), unit)
        path.append(FitStep(mean.item(), log_deviation.exp().item(), loss.item()))
        if step < num_steps:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return path
