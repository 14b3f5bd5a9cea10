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
    distances = 2 * bound * (LEAST + (1 - LEAST * raw.shape[-1]) * torch.softmax(raw, dim=-1))
    return F.pad(distances.cumsum(-1), (1, 0)) - bound, distances


def slopes_at(raw: Tensor) -> Tensor:
    """(..., K - 1) of any values -> the K + 1 slopes at the knots, 1 at both ends."""
    return F.pad(LEAST + F.softplus(raw + math.log(math.expm1(1 - LEAST))), (1, 1), value=1.0)


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
    place = x.clamp(-bound, bound)
    # of x and of y at once: on few numbers each operation costs alike, however many it is of
    both, distances = knots(parameters[..., : 2 * bins].unflatten(-1, (2, bins)), bound)
    index = (place[..., None] >= both[..., int(inverse), 1:-1]).sum(-1)
    index = index[..., None, None].expand(*index.shape, 2, 1)
    x_low, y_low = both.gather(-1, index)[..., 0].unbind(-1)
    width, height = distances.gather(-1, index)[..., 0].unbind(-1)
    slopes = slopes_at(parameters[..., 2 * bins :])
    here = index[..., 0, :]
    slope, next_slope = slopes.gather(-1, torch.cat([here, here + 1], -1)).unbind(-1)
    steepness = height / width
    bend = slope + next_slope - 2 * steepness
    if inverse:  # the root of a quadratic equation in [0, 1]
        y = place - y_low
        a, b, c = height * (steepness - slope) + y * bend, height * slope - y * bend, -steepness * y
        part = 2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())
    else:
        part = (place - x_low) / width
    rest = 1 - part
    product = part * rest
    below = steepness + bend * product
    out = x_low + part * width if inverse else y_low + height * (steepness * part.square() + slope * product) / below
    rise = next_slope * part.square() + 2 * steepness * product + slope * rest.square()
    log_slope = torch.log(rise * (steepness / below).square())
    inside = place == x
    return torch.where(inside, out, x), torch.where(inside, -log_slope if inverse else log_slope, 0.0)
