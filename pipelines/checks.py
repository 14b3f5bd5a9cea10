"""Checks of single arguments: each error names the argument, its value and what would be right."""

import math
import numbers
from collections.abc import Sequence

import torch


def check_count(name: str, value: int, least: int = 1, most: int | None = None) -> int:
    """An integer from `least` to `most`, or a ValueError."""
    wrong = isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least
    if wrong or (most is not None and value > most):
        right = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} is {value!r}; it must be an integer {right}")
    return int(value)


def check_number(
    name: str, value: float, least: float = 0, most: float = math.inf, above_least: bool = False, right: str = ""
) -> float:
    """A finite number from `least` to `most`, or a ValueError; `above_least` excludes `least` itself.

    `right` says what it must do or be, where that can be said better than by the bounds.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not real or value < least or value > most or (above_least and value == least):
        if most == math.inf:
            bounds = f"be a finite number {'above' if above_least else 'of at least'} {least}"
        else:
            bounds = f"be above {least} and at most {most}" if above_least else f"be from {least} to {most}"
        raise ValueError(f"{name} is {value!r}; it must {right or bounds}")
    return float(value)


def check_choice(name: str, value: str, *choices: str) -> None:
    """One of the choices, or a ValueError."""
    if value not in choices:
        *others, last = map(repr, choices)
        raise ValueError(f"{name} is {value!r}; it must be {', '.join(others)} or {last}")


def check_finite(name: str, values) -> None:
    """A tensor without NaN and infinity, or a ValueError."""
    if not values.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinite values; all must be finite")


def check_generators(generator, count: int | None = None, of: str = "samples") -> None:
    """None, a `torch.Generator`, or a list of them, of `count` where that is known; else a ValueError."""
    is_list = isinstance(generator, Sequence) and not isinstance(generator, str)
    for one in generator if is_list else [generator]:
        if one is not None and not isinstance(one, torch.Generator):
            raise ValueError(f"generator is {generator!r:.100}; it must be a torch.Generator, or a list of them")
    if is_list and count is not None and len(generator) != count:
        raise ValueError(f"generator holds {len(generator)} generators for {count} {of}; they must agree")
