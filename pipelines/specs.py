"""What the config of a model may hold: a data spec that fits together, and values of the types that its class names."""

import inspect
import math
import sys
from types import NoneType, UnionType
from typing import get_args, get_origin

from torch import Tensor, nn

from pipelines.checks import check_choice, check_count, check_number

MOST_NUMBERS = 2**28  # of one x
MOST_VALUES = 2**20  # of a list in a config
DATA_SPEC = ("kind", "shape", "support", "range", "dequantization", "num_classes")
# what makes a network deep has a bound of its own: layers are made one by one, channels double with each level
MOST = {"num_blocks": 1_000, "encoder_blocks": 1_000, "num_levels": 12, "num_points": 2**24}


def check_data_spec(data_spec: dict) -> None:
    """A data spec as `Contract` describes it, or a ValueError that names what is missing or wrong in it."""
    if not isinstance(data_spec, dict):
        raise ValueError(
            f"data_spec is {data_spec!r:.100}; it must say what x is, for example {{'kind': 'image', 'shape': [1, 28, 28], ...}}"
        )
    missing = [key for key in DATA_SPEC if key not in data_spec]
    if missing:
        raise ValueError(f"data_spec has no {missing[0]!r}; it must have {', '.join(DATA_SPEC)}")
    kind, shape, support, limits = (data_spec[key] for key in DATA_SPEC[:4])
    check_choice("data_spec['kind']", kind, "image", "vector")
    if not isinstance(shape, list | tuple) or len(shape) != (3 if kind == "image" else 1):
        right = "[channels, height, width]" if kind == "image" else "[dimensions]"
        raise ValueError(f"data_spec['shape'] is {shape!r:.100}; of kind {kind!r} it must be {right}")
    for side in shape:
        check_count("a size in data_spec['shape']", side, most=MOST_NUMBERS)
    if math.prod(shape) > MOST_NUMBERS:
        raise ValueError(f"data_spec['shape'] is {shape!r:.100}; x must hold at most {MOST_NUMBERS} numbers")
    check_choice("data_spec['support']", support, "binary", "8-bit", "real")
    if limits is not None or support != "real":
        if not isinstance(limits, list | tuple) or len(limits) != 2:
            raise ValueError(f"data_spec['range'] is {limits!r:.100}; of support {support!r} it must be [low, high]")
        low, high = (check_number("a bound in data_spec['range']", limit, -math.inf) for limit in limits)
        if low >= high or (support == "binary" and (low, high) != (0, 1)):
            right = "[0, 1]" if support == "binary" else "[low, high] with low below high"
            raise ValueError(f"data_spec['range'] is {limits!r:.100}; of support {support!r} it must be {right}")
    check_choice("data_spec['dequantization']", data_spec["dequantization"], "none", "uniform")
    if data_spec["dequantization"] == "uniform" and support != "8-bit":
        raise ValueError(
            f"data_spec['dequantization'] is 'uniform', but the support is {support!r}; it must be '8-bit'"
        )
    check_count("data_spec['num_classes']", data_spec["num_classes"], least=0, most=2**20)


def check_config(model: nn.Module, *may_be_zero: str) -> None:
    """The first line of a model's `__init__`: each value of its config is what the argument's annotation says.

    Integers go from 1, or from 0 where that is the default or the name is in `may_be_zero`; other numbers are finite
    and at least 0; a `data_spec` is checked as a whole. Nothing is allocated before.

    Raises:
        ValueError: names the argument, its value and what would be right.
    """
    for name, argument in list(inspect.signature(type(model).__init__).parameters.items())[1:]:
        value, kind = model.config[name], argument.annotation
        if name == "data_spec":
            check_data_spec(value)
            continue
        least, most = int(name not in may_be_zero and argument.default != 0), MOST.get(name, 2**20)
        if not _is_of(value, kind, least, most):
            raise ValueError(f"{name} is {value!r:.100}; it must be {_described(kind, least, most)}")


def _is_of(value, kind, least: int, most: int) -> bool:
    """Whether a value, which may come out of JSON, is what an annotation says: a list is a tuple too."""
    if get_origin(kind) is UnionType:
        return any(_is_of(value, one, least, most) for one in get_args(kind))
    if get_origin(kind) is not None:
        right = isinstance(value, list | tuple) and 0 < len(value) <= MOST_VALUES
        return right and all(_is_of(one, get_args(kind)[0], least, most) for one in value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    if kind is float:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        return real and 0 <= value <= sys.float_info.max
    return isinstance(value, kind)


def _described(kind, least: int, most: int) -> str:
    if get_origin(kind) is UnionType:
        return " or ".join(_described(one, least, most) for one in get_args(kind))
    if get_origin(kind) is not None:
        return f"a list, each {_described(get_args(kind)[0], least, most)}"
    words = {int: f"an integer from {least} to {most}", float: "a number of at least 0", bool: "True or False"}
    return {**words, str: "a text", NoneType: "None"}[kind]


def refuse_weights(*checks: tuple[str, bool | Tensor, str]) -> None:
    """For `check_values` of a fitted model: a ValueError at the first of (tensor, whether it is right, what is right)."""
    for key, is_right, right in checks:
        if not is_right:
            raise ValueError(f"{key} holds values of no fit; {right}")
