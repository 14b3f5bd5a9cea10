"""What a control is sent, checked before gradio reads it.

gradio takes what it is sent nearly as it is: a list for a text, "3" or true for a number, any path of the server for a
file, any address for it to fetch. Here each kind of control says what it takes; the rest is refused in one line.
"""

import stat
from pathlib import Path

import gradio as gr
from gradio.components import Component
from gradio.components.api_component import Api
from gradio.utils import get_upload_folder

from kit.bounds import is_number
from kit.words import short

MOST = 10**15  # of a number that has no bounds of its own
MOST_LETTERS = 100_000  # of a text; a handler may take fewer
MOST_CHOICES = 20  # that a message lists


class Refused(ValueError):
    """What would be right instead of a value: "a whole number from 1 to 64"."""


def taken(control: Component, value):
    """What a control is sent, as far as it can be what the control holds.

    A component of ours has a method `taken` of its own, which returns a value without what it does not read.

    Raises:
        Refused: it cannot.
        gr.Error: it cannot, and the reason is another than its kind.
    """
    if control.stateful:  # it is kept here, whatever is sent
        return None
    if hasattr(control, "taken"):
        return control.taken(value)
    for kind, check in CHECKS.items():
        if isinstance(control, kind):
            check(control, value)
            return value
    raise Refused(f"nothing: a {control.get_block_name()} is not to be sent")  # a new kind needs a check of its own


def check_fields(value, fields: dict[str, str]) -> dict:
    """These fields of an object and no others.

    Args:
        fields: what the value of each must be, in words; for a message.
    """
    if not isinstance(value, dict) or not set(fields) <= set(value):
        raise Refused("{" + ", ".join(f'"{name}": {words}' for name, words in fields.items()) + "}")
    return {name: value[name] for name in fields}


def uploaded(path) -> Path:
    """A file in the folder of uploads, with links followed: nothing else of the server is ever opened.

    Raises:
        Refused: there is no such regular file there.
    """
    try:
        file, folder = Path(path).resolve(strict=True), Path(get_upload_folder()).resolve()
        inside = file.is_relative_to(folder) and stat.S_ISREG(file.stat().st_mode)
    except (OSError, ValueError, TypeError, RuntimeError):  # not there, a zero in its name, no text, a circle of links
        inside = False
    if not inside:
        raise Refused("a file that was uploaded to this page")
    return file


def _number(control, value) -> None:
    if value is None and isinstance(control, gr.Number):  # the field is empty: the handler says whether it may be
        return
    low, high = control.minimum, control.maximum
    whole = control.precision == 0 or (isinstance(control, gr.Slider) and control.step == 1)
    kind = "a whole number" if whole else "a number"
    between = "" if low is None or high is None else f" from {low} to {high}"
    fits = is_number(value) and (-MOST if low is None else low) <= value <= (MOST if high is None else high)
    if not fits or (whole and value != int(value)):
        raise Refused(f"{kind}{between}")


def _choice(control, value) -> None:
    if getattr(control, "allow_custom_value", False):
        return _text(control, value)
    choices = [choice for _, choice in control.choices]
    if value is None and not choices:  # nothing can be chosen: the handler says what is missing
        return
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        listed = ", ".join(map(short, choices[:MOST_CHOICES])) + (", …" if len(choices) > MOST_CHOICES else "")
        raise Refused(f"one of {listed}" if choices else "null: there is nothing to choose")


def _text(control, value) -> None:
    most = getattr(control, "max_length", None) or MOST_LETTERS
    if not isinstance(value, str) or len(value) > most:
        raise Refused(f"a text of at most {most:,} letters")


def _switch(control, value) -> None:
    if not isinstance(value, bool):
        raise Refused("true or false")


def _of_type(control, value) -> None:
    """What a function's annotation asks for, that is offered without controls."""
    asked = control.api_info()["type"]
    if asked == "string":
        return _text(control, value)
    if asked == "boolean":
        return _switch(control, value)
    if not is_number(value) or not -MOST <= value <= MOST or (asked == "integer" and value != int(value)):
        raise Refused("a whole number" if asked == "integer" else "a number")


CHECKS = {
    gr.Slider: _number,
    gr.Number: _number,
    gr.Dropdown: _choice,
    gr.Radio: _choice,
    gr.Textbox: _text,
    gr.Checkbox: _switch,
    Api: _of_type,
}
