"""The small JSON files beside a model, of which anyone may have written anything."""

import json
import math
from pathlib import Path

from kit.bounds import is_number

MOST_BYTES = 20_000_000

SWEEP = {
    "samples": int,
    "rows": [{"value": float, "frechet_distance": float, "class_accuracy": float, "coverage": float}],
}
# what pages read of results.json and of run.json
RESULTS = {
    "calls": [str],
    "data_kind": str,
    "num_classes": int,
    "likelihood": str,
    "sweeps": {"num_inference_steps": SWEEP, "guidance_scale": SWEEP},
}
RUN = {
    "family": str,
    "declaration": {"title": str, "branch": str, "layout": str},
    "model": dict,
    "options": dict,
}


def read_json(file: Path) -> dict:
    """The object in a file.

    Raises:
        ValueError: it is too large, no JSON, or no object; in one line.
    """
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has {file.stat().st_size / 1e6:.0f} MB; at most {MOST_BYTES // 10**6} are read")
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} holds a {type(content).__name__}; it must be an object")
    return content


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def read_record(file: Path, shape: dict) -> tuple[dict, str]:
    """What of a record has its shape, and why there is nothing of it; {} and nothing more where there is no file."""
    if not file.is_file():
        return {}, ""
    try:
        return fitting(read_json(file), shape), ""
    except ValueError as error:
        return {}, str(error)


def fitting(value, shape):
    """What of a value has a shape, or None.

    Args:
        shape: a type; {name: shape} for an object, of which the fields are kept that fit; [shape] for a list, of which
            the elements are. A float is any finite number, and true is no integer.
    """
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return None
        found = {name: fitting(value.get(name), part) for name, part in shape.items()}
        return {name: part for name, part in found.items() if part is not None}
    if isinstance(shape, list):
        if not isinstance(value, list):
            return None
        return [part for part in (fitting(part, shape[0]) for part in value) if part is not None]
    if shape is float:
        return value if is_number(value) and abs(value) < math.inf else None
    return value if isinstance(value, shape) and not isinstance(value, bool) else None
