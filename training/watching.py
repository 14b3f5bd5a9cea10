"""How far a command is that works for longer than a second: a line on stderr that moves, and goes when it is done."""

import os
import sys
from collections.abc import Iterable, Iterator

from tqdm.auto import tqdm


def watched(items: Iterable, what: str, total: int | None = None, unit: str = "batch") -> Iterator:
    """The items, with a line that says what is done and how far it is; from the first of several processes."""
    silent = os.environ.get("RANK", "0") != "0"
    return tqdm(items, what, total, leave=False, disable=silent, unit=unit, mininterval=0.5, delay=0.5, file=sys.stderr)
