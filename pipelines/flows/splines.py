"""Monotonic rational-quadratic splines: smooth maps of an interval onto itself, with their inverse and their slope.

After Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", arXiv 1906.04032, section 3.1. Outside of
[-bound, bound] they are the identity. With s = height / width of a bin, t the place in it from 0 to 1, r = 1 - t, and d, e
the slopes at its ends,

    y = y_low + height (s t^2 + d t r) / D,   dy/dx = s^2 (e t^2 + 2 s t r + d r^2) / D^2,   D = s + (d + e - 2 s) t r
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-3  # of the interval: width and height of a bin; and the slope at a knot
SHIFT = math.log(math.expm1(1 - LEAST))  # of what is 0: the slope is 1 then, as it is at both ends of the interval


class Bin:
    """The bin in which each x lies, or each y.

    Args:
        place: any shape, within the interval.
        parameters: (*place.shape, 3 K - 1) of any values: K bins' widths and heights, K - 1 slopes between them.
        of_y: whether `place` is a y.
    """

    def __init__(self, place: Tensor, parameters: Tensor, bound: float, of_y: bool):
        bins = (parameters.shape[-1] + 1) // 3
        # of x and of y at once: on few numbers each operation costs alike, however many it is of
        shares = torch.softmax(parameters[..., : 2 * bins].unflatten(-1, (2, bins)), -1)
        distances = shares * (2 * bound * (1 - LEAST * bins)) + 2 * bound * LEAST
        rising = distances.cumsum(-1) - bound
        index = (place[..., None] >= rising[..., int(of_y), :-1]).sum(-1)[..., None]
        of_both = index[..., None].expand(*index.shape[:-1], 2, 1)
        self.width, self.height = distances.gather(-1, of_both)[..., 0].unbind(-1)
        x_high, y_high = rising.gather(-1, of_both)[..., 0].unbind(-1)
        self.x_low, self.y_low = x_high - self.width, y_high - self.height
        slopes = F.pad(parameters[..., 2 * bins :], (1, 1)).gather(-1, torch.cat([index, index + 1], -1))
        self.slope, self.next_slope = (LEAST + F.softplus(slopes + SHIFT)).unbind(-1)
        self.steepness = self.height / self.width
        self.bend = self.slope + self.next_slope - 2 * self.steepness

    def at(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """t r, D and log dy/dx at a place in the bin."""
        r = 1 - t
        product = t * r
        below = self.steepness + self.bend * product
        rise = self.next_slope * t.square() + 2 * self.steepness * product + self.slope * r.square()
        return product, below, torch.log(rise * (self.steepness / below).square())


def spline(x: Tensor, parameters: Tensor, bound: float, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Each x through its own spline, or back through it.

    Args:
        x: any shape.
        parameters: (*x.shape, 3 K - 1) of any values, as of a `Bin`; all zero is the identity.
        bound: of the interval.

    Returns:
        y and log |dy/dx|, of x's shape.
    """
    place = x.clamp(-bound, bound)
    here = Bin(place, parameters, bound, inverse)
    if inverse:  # t is the root of a quadratic equation in [0, 1]
        up = place - here.y_low
        a = here.height * (here.steepness - here.slope) + up * here.bend
        b, c = here.height * here.slope - up * here.bend, -here.steepness * up
        t = 2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())
    else:
        t = (place - here.x_low) / here.width
    product, below, log_slope = here.at(t)
    if inverse:
        out, log_slope = here.x_low + t * here.width, -log_slope
    else:
        out = here.y_low + here.height * (here.steepness * t.square() + here.slope * product) / below
    inside = place == x
    return torch.where(inside, out, x), torch.where(inside, log_slope, 0.0)
