"""Words from outside as they are shown: cut, on one line, and without markup of their own."""

import reprlib

MOST_LETTERS = 80  # of a value in a message
MOST_IN_A_LINE = 400  # of what a library said

# As HTML or Markdown may read them; by number, a page of either kind shows them as they are.
_MARKUP = str.maketrans({letter: f"&#{ord(letter)};" for letter in "&<>\"'\\`*_[]|~$#"})

_values = reprlib.Repr()
_values.maxlevel, _values.maxdict, _values.maxlist, _values.maxstring, _values.maxother = 2, 3, 4, 60, 60


def short(value) -> str:
    """A value as Python writes it, of at most 80 letters."""
    try:
        text = _values.repr(value)
    except Exception:  # an integer of more digits than Python writes, or whatever else cannot be written
        text = f"a {type(value).__name__}"
    return _cut(text, MOST_LETTERS)


def line_of(error: BaseException) -> str:
    """What an exception says, or else its kind: one line that is not empty, without a stop at its end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _cut((lines or [type(error).__name__])[0], MOST_IN_A_LINE).rstrip(".")


def escaped(text: str) -> str:
    """A text on one line that HTML and Markdown show as it is."""
    return " ".join(text.split()).translate(_MARKUP)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
