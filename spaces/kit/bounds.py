"""Checks of what a handler is given: sliders check what a browser sends, these what anything else does."""

import random

from kit.errors import user_error
from kit.words import short

MAX_SEED = 2**31 - 1


ANY = "any"


def is_number(value) -> bool:
    """Whether it is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def bounded(name: str, value, low: float, high: float) -> float:
    if not is_number(value) or not low <= value <= high:
        raise user_error(f"{name} is {short(value)}; it must lie between {low} and {high}")
    return value


def whole(name: str, value, low: int, high: int) -> int:
    if bounded(name, value, low, high) != int(value):
        raise user_error(f"{name} is {value}; it must be a whole number")
    return int(value)


def one_of(name: str, value, allowed) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise user_error(f"{name} is {short(value)}; it must be one of {', '.join(allowed)}")
    return value


def seed_of(seed, new_seed: bool) -> int:
    """The seed to use: a new one, or the one given."""
    return random.randint(0, MAX_SEED) if new_seed else whole("seed", seed, 0, MAX_SEED)


def class_of(label, count: int) -> int | None:
    """The class that a control holds; None for any, or where the model has no classes."""
    if label == ANY or not count:
        return None
    if label not in [str(c) for c in range(count)]:
        raise user_error(f"label is {short(label)}; it must be {ANY} or 0 to {count - 1}")
    return int(label)
