"""Files: written whole or not at all, and by one process at a time; JSON that may come from anywhere, read with bounds."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from training.options import UsageError

MOST_JSON, MOST_DEPTH, MOST_DIGITS = 8_000_000, 60, 100  # bytes of a file, brackets in brackets, digits of an integer


def write_atomically(file: Path, content: bytes | str) -> None:
    """Write beside the file first, then take its place: a reader sees the old content or the new one.

    Raises:
        OSError: nothing was written; the file is as it was.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with open(temporary, "wb") as out:
            out.write(content if isinstance(content, bytes) else content.encode())
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """One process at a time is inside; others wait. The lock goes with its process, however that ends."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    with open(file, "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


# JSON


def read_json(file: Path, what: str = "JSON object", most: int = MOST_JSON, finite: bool = True) -> dict:
    """The object in a JSON file that may be damaged, or made to harm.

    Args:
        what: what the file should hold, for the message.
        most: bytes of a file that is read.
        finite: whether NaN and Infinity are refused; diffusers writes -Infinity into configs of schedulers.

    Raises:
        UsageError: there is no such file, or it cannot be taken; one line that names the file and the reason.
    """
    try:
        if not file.is_file():  # a pipe or a device would not end
            raise ValueError("there is no such file" if not file.exists() else "it is no regular file")
        with open(file, "rb") as opened:
            content = opened.read(most + 1)
        if len(content) > most:
            raise ValueError(f"it is larger than {most / 1e6:g} MB")
        return parse_json(content, finite)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: no {what}: {' '.join(str(error).split())[:200]}") from None


def parse_json(content: bytes | str, finite: bool = True) -> dict:
    """The object that JSON in UTF-8 holds.

    Raises:
        ValueError: it is damaged or no object; names a key twice; nests deeper, or has longer integers, than any file of
            a model; holds text that is no Unicode, or, where `finite`, a number that is not finite.
    """
    refuse_constant = _refuse_constant if finite else None
    try:
        text = content if isinstance(content, str) else content.decode()
        found = json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_float=_float if finite else None,
                           parse_constant=refuse_constant)  # fmt: skip
    except RecursionError:
        raise ValueError(f"it nests deeper than {MOST_DEPTH} levels") from None
    if not isinstance(found, dict):
        raise ValueError(f"it holds {_KINDS.get(type(found), type(found).__name__)}; it must be an object, {{...}}")
    level = [found]
    for _ in range(MOST_DEPTH):
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return found
    raise ValueError(f"it nests deeper than {MOST_DEPTH} levels")


_KINDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}


def _object(pairs: list[tuple]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):  # readers differ in which of the two they take
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {next(n for n in names if names.count(n) > 1)!r} twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"it holds an integer of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    return value if abs(value) < float("inf") else _refuse_constant(digits)


def _refuse_constant(word: str):
    raise ValueError(f"it holds {word[:20]}; numbers must be finite")


def _inside(value) -> list:
    """What a list or an object holds that may hold more. Text must be Unicode: half a character cannot be written."""
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    for part in parts:
        if isinstance(part, str) and not part.isascii():
            part.encode()
    return [part for part in parts if isinstance(part, dict | list)]
