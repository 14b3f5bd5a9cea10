"""Monotonic rational-quadratic splines: smooth maps of an interval onto itself, with their inverse and their slope.

After Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", arXiv 1906.04032, section 3.1. Outside of
[-bound, bound] they are the identity.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-3  # of the interval: width and height of a bin; and the slope at a knot


def knots(raw: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """(..., K) of any values -> K + 1 rising places from -bound to bound, and the K distances between them."""
    share = LEAST + (1 - LEAST * raw.shape[-1]) * torch.softmax(raw, dim=-1)
    places = F.pad(2 * bound * share.cumsum(-1) - bound, (1, 0), value=-bound)
    return places, 2 * bound * share


def at(values: Tensor, index: Tensor) -> Tensor:
    """The value of each spline (..., K) at its bin (...)."""
    return values.gather(-1, index[..., None])[..., 0]


def spline(x: Tensor, parameters: Tensor, bound: float, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Each x through its own spline, or back through it.

    Args:
        x: any shape.
        parameters: (*x.shape, 3 K - 1) of any values: K bins' widths and heights, K - 1 slopes between them; all zero is
            the identity.
        bound: of the interval.

    Returns:
        y and log |dy/dx|, of x's shape.
    """
    bins = (parameters.shape[-1] + 1) // 3
    widths, heights, slopes = parameters.split([bins, bins, bins - 1], dim=-1)
    inside = (x >= -bound) & (x <= bound)
    place = x.clamp(-bound, bound)
    (x_knots, widths), (y_knots, heights) = knots(widths, bound), knots(heights, bound)
    slopes = F.pad(LEAST + F.softplus(slopes + math.log(math.expm1(1 - LEAST))), (1, 1), value=1.0)
    index = (place[..., None] >= (y_knots if inverse else x_knots)[..., 1:-1]).sum(-1)
    x_low, y_low, width, height = (at(v, index) for v in (x_knots, y_knots, widths, heights))
    slope, next_slope, steepness = at(slopes, index), at(slopes, index + 1), height / width
    bend = slope + next_slope - 2 * steepness
    if inverse:  # the root of a quadratic equation in [0, 1]
        y = place - y_low
        a, b, c = height * (steepness - slope) + y * bend, height * slope - y * bend, -steepness * y
        part = 2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())
        out = x_low + part * width
    else:
        part = (place - x_low) / width
        both = part * (1 - part)
        out = y_low + height * (steepness * part.square() + slope * both) / (steepness + bend * both)
    both = part * (1 - part)
    rise = next_slope * part.square() + 2 * steepness * both + slope * (1 - part).square()
    log_slope = 2 * steepness.log() + rise.log() - 2 * (steepness + bend * both).log()
    log_slope = -log_slope if inverse else log_slope
    return torch.where(inside, out, x), torch.where(inside, log_slope, 0.0)
