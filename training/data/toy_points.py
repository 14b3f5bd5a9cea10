"""The formulas of the two-dimensional sets: each draws n points (n, 2) and their classes, or None, by a generator."""

import numpy as np


def _ring(n: int, rng: np.random.Generator):
    """Eight Gaussians on a circle of radius 2."""
    label = rng.integers(0, 8, n)
    angle = label * (2 * np.pi / 8)
    return np.stack([2 * np.cos(angle), 2 * np.sin(angle)], 1) + 0.1 * rng.standard_normal((n, 2)), label


def _grid(n: int, rng: np.random.Generator):
    """Twenty-five Gaussians on a 5 x 5 grid."""
    label = rng.integers(0, 25, n)
    return np.stack([label % 5 - 2.0, label // 5 - 2.0], 1) + 0.1 * rng.standard_normal((n, 2)), label


def _moons(n: int, rng: np.random.Generator):
    """Two interleaved half circles."""
    label = rng.integers(0, 2, n)
    angle = np.pi * rng.random(n)
    upper = np.stack([np.cos(angle), np.sin(angle)], 1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], 1)
    points = np.where(label[:, None] == 0, upper, lower) - [0.5, 0.25]
    return 1.5 * points + 0.1 * rng.standard_normal((n, 2)), label


def _spiral(n: int, rng: np.random.Generator):
    """Two arms of an Archimedean spiral."""
    label = rng.integers(0, 2, n)
    angle = 3 * np.pi * np.sqrt(rng.random(n))
    radius = 2 * angle / (3 * np.pi)
    turned = angle + np.pi * label
    return radius[:, None] * np.stack([np.cos(turned), np.sin(turned)], 1) + 0.05 * rng.standard_normal((n, 2)), label


def _checkerboard(n: int, rng: np.random.Generator):
    """The black squares of a 4 x 4 board on [-2, 2]^2; no classes."""
    row = rng.integers(0, 4, n)
    column = 2 * rng.integers(0, 2, n) + row % 2
    return np.stack([column, row], 1) - 2.0 + rng.random((n, 2)), None


TOYS = {"ring": _ring, "grid": _grid, "moons": _moons, "spiral": _spiral, "checkerboard": _checkerboard}
