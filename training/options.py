"""Options of every command: one dataclass, read from the command line and from a YAML file, checked in one place.

A field may carry bounds in its metadata: `least`, `most` (inclusive), `above` and `below` (exclusive), `choices`. `option(...)`
makes one.
Bad input is a `UsageError`: `command_line` prints it as one line and ends with exit code 2.
"""

import argparse
import copy
import dataclasses
import difflib
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

BOUNDS = ("least", "most", "above", "below", "choices")
OWN = (*BOUNDS, "may_change_on_resume")  # what argparse does not know


class UsageError(Exception):
    """Input that cannot be used. The message names the option, its value and what would be right."""


def in_one_line(error: Exception) -> str:
    """What an error of a library says, of whatever kind it is, for the one line of a `UsageError`."""
    return " ".join(str(error).split())[:200] or type(error).__name__


class Stopped(Exception):
    """A run that ended early for a reason its message tells; `code` is the exit status."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class LineParser(argparse.ArgumentParser):
    """A parser whose errors are one line; argparse would print the whole usage before them."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str):
        # argparse names the option with its spellings: "argument --batch_size/--batch-size: invalid ..."
        raise UsageError(re.sub(r"^argument (--\w+)(/[-\w]+)*", r"\1", message))


def option(
    default,
    help: str,
    least=None,
    most=None,
    above=None,
    below=None,
    choices: tuple[str, ...] = (),
    may_change_on_resume: bool = False,
):
    """A dataclass field with a help text and bounds; a tuple is the default of a list, whose bounds are of each number.

    `may_change_on_resume`: it may differ between a run and its continuation, since it does not change the weights.
    """
    metadata = {"help": help, "least": least, "most": most, "above": above, "below": below, "choices": choices}
    metadata["may_change_on_resume"] = may_change_on_resume
    if isinstance(default, tuple):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def with_default(options_class: type, name: str, default):
    """The option `name` of a base class with another default; its help text and its bounds stay as they are."""
    (field,) = (field for field in dataclasses.fields(options_class) if field.name == name)
    return dataclasses.field(default=default, metadata=field.metadata)


def parse(options_class: type, argv: Sequence[str] | None = None, description: str | None = None):
    """An `options_class` from `argv`; `--config FILE.yaml` sets values that the rest of the line overrides.

    Raises:
        UsageError: unknown or abbreviated options, unknown YAML keys, values of the wrong type, out of bounds or not
            finite.
    """
    from transformers import HfArgumentParser  # here, since importing it takes a second

    class Parser(HfArgumentParser):
        error = LineParser.error

        @staticmethod
        def _parse_dataclass_field(parser, field):  # hands all metadata to argparse, which knows no bounds
            field = copy.copy(field)
            field.metadata = {k: v for k, v in field.metadata.items() if k not in OWN}
            HfArgumentParser._parse_dataclass_field(parser, field)

    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(options_class, allow_abbrev=False, description=description)
    parser.add_argument("--config", help="a YAML file of options, which the command line overrides")
    names = {f.name for f in dataclasses.fields(options_class)}
    # a YAML value goes through the very conversions of the command line, by being put in front of it
    line = [*_from_yaml(argv, names), *argv]
    parsed, rest = parser.parse_known_args(line)
    if rest:
        unknown = rest[0].split("=")[0]
        raise UsageError(f"{unknown} is not an option{_close(unknown.lstrip('-'), names, '--')}")
    options = options_class(**{k: v for k, v in vars(parsed).items() if k in names})
    check(options)
    return options


def _from_yaml(argv: list[str], names: set[str]) -> list[str]:
    file = None
    for i, word in enumerate(argv):
        if word == "--config" and i + 1 < len(argv):
            file = argv[i + 1]
        elif word.startswith("--config="):
            file = word.removeprefix("--config=")
    if file is None:
        return []
    if not Path(file).is_file():
        raise UsageError(f"--config {file}: there is no such file")
    try:
        values = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {file}: not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UsageError(f"--config {file}: holds {type(values).__name__}; it must map options to values")
    line = []
    for key, value in values.items():
        if key not in names:
            raise UsageError(f"--config {file}: {key} is not an option{_close(str(key), names, '')}")
        if value is not None:
            several = value if isinstance(value, list) else [value]
            line += [f"--{key}", *(str(v) for v in several)]
    return line


def _close(word: str, names: set[str], prefix: str) -> str:
    near = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else "; --help lists them"


def check(options) -> None:
    """Numbers must be finite and within the bounds of their fields, words among their choices."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        for one in value if isinstance(value, list) else [value]:
            _check_one(field.name, one, field.metadata)


def _check_one(name: str, value, bounds) -> None:
    if bounds.get("choices") and value not in bounds["choices"]:
        raise UsageError(f"--{name} is {value!r}; it must be one of {', '.join(bounds['choices'])}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise UsageError(f"--{name} is {value}; it must be a finite number")
    if bounds.get("least") is not None and value < bounds["least"]:
        raise UsageError(f"--{name} is {value}; it must be at least {bounds['least']}")
    if bounds.get("most") is not None and value > bounds["most"]:
        raise UsageError(f"--{name} is {value}; it must be at most {bounds['most']}")
    if bounds.get("above") is not None and value <= bounds["above"]:
        raise UsageError(f"--{name} is {value}; it must be above {bounds['above']}")
    if bounds.get("below") is not None and value >= bounds["below"]:
        raise UsageError(f"--{name} is {value}; it must be below {bounds['below']}")


def command_line(main: Callable[[], None]) -> None:
    """Run `main`; what a user has to know becomes one line on stderr and an exit code, never a traceback."""
    try:
        main()
    except (UsageError, Stopped) as error:
        if os.environ.get("RANK", "0") == "0":  # one voice for all processes
            print(f"{'error: ' if isinstance(error, UsageError) else ''}{error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else error.code)
    except KeyboardInterrupt:
        print("interrupted before the first step; nothing was written", file=sys.stderr)
        sys.exit(130)


def check_repo_id(repo_id: str, option_name: str = "--repo_id") -> None:
    """Raise a `UsageError` if it is no id of the Hub."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise UsageError(f"{option_name} {repo_id}: must be a Hub id like user/vae-mnist")
