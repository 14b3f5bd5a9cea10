"""What the tabs of the language Space share: the models, and the texts that come in."""

import contextlib

from kit.errors import user_error
from kit.models import Models

MODELS = Models(
    ("gpt-shakespeare", "gpt-python-docs"), needs=(("sample", "next_token", "score"),), library="transformers"
)
MOST_LETTERS = 20_000
QUIET = {"api_visibility": "private"}  # for what happens without a button: the API names each handler once
LATEST = {"trigger_mode": "always_last", "show_progress": "hidden", **QUIET}  # while a control moves
# what the text boxes hold at first, for the project's own models; others begin with something plain
OPENINGS = {
    "gpt-shakespeare": ["ROMEO:\nWhat ", "KING RICHARD III:\n", "To be, or not to be", "O Rom"],
    "gpt-python-docs": ['The "with" statement', "If the argument is a string, ", "Note:", "class "],
}
TEXTS = {
    "gpt-shakespeare": "ROMEO:\nBut, soft! what light through yonder window breaks?\nIt is the east, and Juliet is the sun.\n"
    "\nBENVOLIO:\nThe flight is delayed by forty minutes.",
    "gpt-python-docs": 'The "for" statement is used to iterate over the elements of a sequence.\n'
    "The cat is used to iterate over the mice of the garden.",
}


@contextlib.contextmanager
def refusals_shown():
    """What a pipeline refuses, as a message to a person."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        raise user_error(text[:1].upper() + text[1:] + ".") from None


def text_of(name: str, value) -> str:
    value = value or ""
    if len(value) > MOST_LETTERS:
        raise user_error(f"{name} has {len(value):,} characters; at most {MOST_LETTERS:,} are read")
    return value


def openings_of(model: str | None) -> list[str]:
    """Beginnings of a text that a model can go on with."""
    return OPENINGS.get(model, ["The "])
