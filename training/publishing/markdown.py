"""Text from anywhere in Markdown: as it is, and never as markup."""

import re


def plain(text) -> str:
    """Text as Markdown and HTML show it: no character has a meaning of its own."""
    return re.sub(r"([\\`*_\[\]<>|~$#&!])", r"\\\1", str(text))


def fenced(text: str, language: str = "") -> str:
    """Text as a block of code, whose fence is longer than any in the text."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}{language}\n{text}\n{fence}"
