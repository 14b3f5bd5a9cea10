"""Messages to the person at the page."""

import gradio as gr

MOST_LETTERS = 1_000


def user_error(text: str) -> gr.Error:
    """What a person did wrong, or what is missing, on one line: shown on the page, which would take what is in angle
    brackets for tags, and told to callers of the API."""
    return gr.Error(" ".join(text.split())[:MOST_LETTERS].replace("<", "\\x3c"), print_exception=False)
