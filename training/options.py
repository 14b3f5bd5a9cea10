"""Options of every command: one dataclass, read from the command line and from a YAML file, checked in one place.

A field may carry bounds in its metadata: `least`, `most` (inclusive), `above` and `below` (exclusive), `choices`. `option(...)`
makes one. `--help` shows each field in a group: its own `group`, or the `GROUP` of the class that brings it in.
A YAML file may come from anywhere: it is bounded, and holds options as single values or flat lists of them, nothing else.
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
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml

BOUNDS = ("least", "most", "above", "below", "choices")
OWN = (*BOUNDS, "may_change_on_resume", "group")  # what argparse does not know
GROUP = "model"  # of options whose class names none: a recipe's own
MOST_YAML, MOST_VALUE = 50_000, 4_096  # bytes of a file of options, characters of one value; a path is no longer
MOST_INTEGER = 2**63 - 1  # tensors hold no larger ones
MOST_MESSAGE = 1_000  # characters; of what is longer, the middle is left out


def one_line(text: object, most: int = MOST_MESSAGE) -> str:
    """Any text, or what an exception says, as one line that can be printed: at most `most` characters, no control codes."""
    line = " ".join(str(text).split())
    if len(line) > most:
        line = f"{line[: most // 2 - 2]} ... {line[3 - most // 2 :]}"
    return line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class UsageError(Exception):
    """Input that cannot be used. The message, one line, names the option, its value and what would be right."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def in_one_line(error: Exception) -> str:
    """What an error of a library says, of whatever kind it is, for the one line of a `UsageError`."""
    return " ".join(str(error).split())[:200] or type(error).__name__


class Stopped(Exception):
    """A run that ended early for a reason its message tells; `code` is the exit status."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """The description as it is written, and each option once: argparse would also name its other spelling."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.option_strings[0] == "-h":
            return super()._format_action_invocation(action)
        return f"{action.option_strings[0]} {self._format_args(action, action.dest.upper())}".rstrip()


class LineParser(argparse.ArgumentParser):
    """A parser whose errors are one line; argparse would print the whole usage before them."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=HelpFormatter, **kwargs)

    def parse_args(self, args=None, namespace=None):
        found = super().parse_args(args, namespace)
        for name, value in vars(found).items():
            if isinstance(value, Path):  # the shell leaves --to=~/x as it is
                setattr(found, name, Path(at_home(str(value))))
        return found

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
    group: str | None = None,
):
    """A dataclass field with a help text and bounds; a tuple is the default of a list, whose bounds are of each number.

    `may_change_on_resume`: it may differ between a run and its continuation, since it does not change the weights.
    `group`: under which --help shows it, where that is not the group of its class.
    """
    metadata = {"help": help, "least": least, "most": most, "above": above, "below": below, "choices": choices}
    metadata |= {"may_change_on_resume": may_change_on_resume, "group": group}
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

    groups: dict[str, argparse._ArgumentGroup] = {}

    class Parser(HfArgumentParser):
        error = LineParser.error

        @staticmethod
        def _parse_dataclass_field(parser, field):  # hands all metadata to argparse, which knows no bounds
            group = group_of(options_class, field)
            if not groups:  # a recipe's own options first, those of every run last
                names = dict.fromkeys(group_of(options_class, one) for one in dataclasses.fields(options_class))
                groups.update((name, parser.add_argument_group(f"{name} options")) for name in reversed(names))
            field = copy.copy(field)
            said = {"help": help_of(field), **metavar_of(field)}
            field.metadata = {k: v for k, v in field.metadata.items() if k not in OWN} | said
            HfArgumentParser._parse_dataclass_field(groups[group], field)

    argv = list(sys.argv[1:] if argv is None else argv)
    for before, word in zip(["", *argv], argv, strict=False):
        if len(word) > MOST_VALUE:
            named = word[:40].partition("=")[0] if word.startswith("--") else before
            raise UsageError(f"{named}: a value of {len(word)} characters; it must have at most {MOST_VALUE}")
    parser = Parser(options_class, allow_abbrev=False, description=description, formatter_class=HelpFormatter)
    if usage := parser.prog:
        parser.usage = f"{usage} [--config FILE] [--option value ...]"
    parser.add_argument("--config", help="a YAML file of options, which the command line overrides")
    kinds = typing.get_type_hints(options_class)
    names = {f.name for f in dataclasses.fields(options_class)}
    texts = {name for name in names if str in typing.get_args(kinds[name]) or kinds[name] is str}
    # a YAML value goes through the very conversions of the command line, by being put in front of it
    line = [*_from_yaml(argv, names, texts), *argv]
    parsed, rest = parser.parse_known_args(line)
    if rest:
        unknown = rest[0].split("=")[0]
        raise UsageError(f"{unknown} is not an option{_close(unknown.lstrip('-'), names, '--')}")
    given = {k: v for k, v in vars(parsed).items() if k in names}
    options = options_class(**{k: at_home(v) if isinstance(v, str) else v for k, v in given.items()})
    check(options)
    return options


def at_home(path: str) -> str:
    """A path that begins with ~/ below the user's home; a shell writes it out, a file of options does not."""
    return os.path.expanduser(path) if path.startswith("~/") else path


def group_of(options_class: type, field: dataclasses.Field) -> str:
    """Under which title --help shows a field: its own group, or that of the class that first has it."""
    if field.metadata.get("group"):
        return field.metadata["group"]
    having = [kind for kind in options_class.__mro__ if field.name in getattr(kind, "__dataclass_fields__", {})]
    return vars(having[-1]).get("GROUP", GROUP)


def help_of(field: dataclasses.Field) -> str:
    """What --help says of a field: its meaning, its choices or bounds, and its default."""
    bounds, text = field.metadata, field.metadata.get("help", "")
    said = [f"at least {bounds['least']}"] if bounds.get("least") is not None else []
    said += [f"above {bounds['above']}"] if bounds.get("above") is not None else []
    said += [f"at most {bounds['most']}"] if bounds.get("most") is not None else []
    said += [f"below {bounds['below']}"] if bounds.get("below") is not None else []
    default = field.default_factory() if field.default is dataclasses.MISSING else field.default
    if default is not None:
        words = [str(one).lower() if isinstance(one, bool) else str(one) for one in _listed(default)]
        said.append(f"default: {' '.join(words)}")
    return f"{text} ({'; '.join(said)})".replace("%", "%%") if said else text.replace("%", "%%")


def _listed(value) -> list:
    return value if isinstance(value, list) else [value]


def metavar_of(field: dataclasses.Field) -> dict[str, str]:
    """What --help shows in the place of a field's value: the choices, or what kind of value it is."""
    if field.metadata.get("choices"):
        return {"metavar": "{" + ",".join(field.metadata["choices"]) + "}"}
    if field.type is bool and field.default is True:  # transformers adds --no_..., which takes no value
        return {}
    kinds = [*typing.get_args(field.type), field.type]
    words = {bool: "{true,false}", int: "N", float: "X", str: "TEXT"}
    return {"metavar": next((words[kind] for kind in kinds if kind in words), "VALUE")}


def _from_yaml(argv: list[str], names: set[str], texts: set[str]) -> list[str]:
    file = None
    for i, word in enumerate(argv):
        if word == "--config" and i + 1 < len(argv):
            file = argv[i + 1]
        elif word.startswith("--config="):
            file = word.removeprefix("--config=")
    if file is None:
        return []
    line = []
    try:
        for key, values in _yaml_options(_read_yaml(Path(at_home(file))), texts):
            if key not in names:
                raise ValueError(f"{key} is not an option{_close(key, names, '')}")
            if values is None or isinstance(values, str):
                line += [] if values is None else [f"--{key}={values}"]
            else:
                line += [f"--{key}", *values]
    except (OSError, ValueError) as error:
        raise UsageError(f"--config {file}: {error}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"--config {file}: not a YAML file: {error}") from None
    return line


def _read_yaml(file: Path) -> str:
    if not file.is_file():  # a pipe or a device would not end
        raise ValueError("it is no regular file" if file.exists() else "there is no such file")
    with open(file, "rb") as opened:
        content = opened.read(MOST_YAML + 1)
    if len(content) > MOST_YAML:
        raise ValueError(f"it is larger than {MOST_YAML // 1000} kB; options take a few lines")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not a YAML file: {error}") from None


_YAML_NAMES = {
    yaml.ScalarEvent: "a value",
    yaml.SequenceStartEvent: "a list",
    yaml.MappingStartEvent: "a mapping",
    yaml.DocumentStartEvent: "a second document",
    yaml.StreamEndEvent: "nothing",
}


def _yaml_options(text: str, texts: set[str]) -> Iterator[tuple[str, str | list[str] | None]]:
    """What a YAML file maps options to: (option, its value or the values of its list), as a command line says them.

    Values of the options in `texts` stay as they are written: `no` is a word there, and false elsewhere.

    Read event by event, and no further than what is refused: aliases can multiply a file's size, deep nesting the time
    it takes, and tags make objects.

    Raises:
        ValueError: anything but one mapping of words to values or flat lists of values.
        yaml.YAMLError: no YAML.
    """
    loader, seen = yaml.SafeLoader(text), set()

    def event(*wanted: type, what: str) -> yaml.Event:
        found = loader.get_event()
        line = found.start_mark.line + 1
        if getattr(found, "anchor", None) is not None:
            raise ValueError(f"line {line}: holds an anchor or an alias; write the value out")
        if getattr(found, "tag", None) is not None:
            raise ValueError(f"line {line}: holds the tag {found.tag}; a value has none")
        if not isinstance(found, wanted):
            raise ValueError(f"line {line}: holds {_YAML_NAMES[type(found)]}; {what}")
        return found

    must_map, one_mapping = "it must map options to values", "it must hold one mapping and nothing after it"
    event(yaml.StreamStartEvent, what=must_map)
    event(yaml.DocumentStartEvent, what=must_map)
    event(yaml.MappingStartEvent, what=must_map)
    while True:
        found = event(yaml.ScalarEvent, yaml.MappingEndEvent, what="an option must be a word")
        if isinstance(found, yaml.MappingEndEvent):
            break
        key = found.value
        if key in seen:
            raise ValueError(f"line {found.start_mark.line + 1}: names {key} twice")
        seen.add(key)
        flat = "a value must be a single one, or a flat list of such"
        found = event(yaml.ScalarEvent, yaml.SequenceStartEvent, what=flat)
        if isinstance(found, yaml.ScalarEvent):
            yield key, _yaml_value(loader, found, key in texts)
            continue
        values = []
        while isinstance(found := event(yaml.ScalarEvent, yaml.SequenceEndEvent, what=flat), yaml.ScalarEvent):
            values.append(_yaml_value(loader, found, key in texts))
        if any(value is None or value.startswith("--") for value in values):
            raise ValueError(f"{key} holds nothing, or an option, where a value must stand")
        yield key, values
    event(yaml.DocumentEndEvent, what=one_mapping)
    event(yaml.StreamEndEvent, what=one_mapping)


def _yaml_value(loader: yaml.SafeLoader, found: yaml.ScalarEvent, is_text: bool) -> str | None:
    """A value as a command line says it: numbers and words for true and false are read, dates and all else stay text."""
    where = f"line {found.start_mark.line + 1}"
    if len(found.value) > MOST_VALUE:
        raise ValueError(f"{where}: a value of {len(found.value)} characters; it must have at most {MOST_VALUE}")
    kind = loader.resolve(yaml.ScalarNode, found.value, found.implicit).rpartition(":")[2]
    if kind == "null":
        return None
    if is_text or kind not in ("bool", "int", "float"):
        return found.value
    node = yaml.ScalarNode(f"tag:yaml.org,2002:{kind}", found.value)
    try:
        return str(loader.construct_object(node))
    except (ValueError, OverflowError):  # an integer of more digits than Python turns into text
        raise ValueError(f"{where}: {found.value[:20]}... is no number that can be used") from None


def _close(word: str, names: set[str], prefix: str) -> str:
    near = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else "; --help lists them"


def check(options) -> None:
    """Values must be of their fields' types, numbers finite and within bounds, words among their choices."""
    kinds = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        of_list = typing.get_origin(kinds[field.name]) is list
        kind = typing.get_args(kinds[field.name])[0] if of_list else kinds[field.name]
        if of_list != isinstance(value, list):
            raise UsageError(f"--{field.name} is {value!r}; it must be {'a list' if of_list else 'one value'}")
        for one in value if of_list else [value]:
            _check_one(field.name, one, kind, field.metadata)


def _check_one(name: str, value, kind, bounds) -> None:
    allowed = typing.get_args(kind) or (kind,)
    # a whole number is a number, but true is neither
    fits = type(value) in allowed or (type(value) is int and float in allowed)
    if not fits:
        words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}
        raise UsageError(f"--{name} is {value!r}; it must be {' or '.join(words.get(k, str(k)) for k in allowed)}")
    if bounds.get("choices") and value is not None and value not in bounds["choices"]:
        raise UsageError(f"--{name} is {value!r}; it must be one of {', '.join(bounds['choices'])}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"--{name} is {value}; it must be a finite number")
    if bounds.get("least") is not None and value < bounds["least"]:
        raise UsageError(f"--{name} is {value}; it must be at least {bounds['least']}")
    if bounds.get("most") is not None and value > bounds["most"]:
        raise UsageError(f"--{name} is {value}; it must be at most {bounds['most']}")
    if bounds.get("above") is not None and value <= bounds["above"]:
        raise UsageError(f"--{name} is {value}; it must be above {bounds['above']}")
    if bounds.get("below") is not None and value >= bounds["below"]:
        raise UsageError(f"--{name} is {value}; it must be below {bounds['below']}")
    if isinstance(value, int) and abs(value) > MOST_INTEGER:
        raise UsageError(f"--{name} is {value}; its size must be at most {MOST_INTEGER}")


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
    """Raise a `UsageError` if it is no id of the Hub, or one that the Hub would refuse."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id  # takes half a second

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id, re.ASCII):
        raise UsageError(f"{option_name} {repo_id}: must be a Hub id like user/vae-mnist")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(f"{option_name} {repo_id}: is no name that the Hub takes ({in_one_line(error)})") from None
