"""Messages to the person at the page."""

import gradio as gr

MOST_LETTERS = 1_000


def user_error(text: str) -> gr.Error:
    """What a person did wrong, or what is missing, on one line: shown on the page and told to callers of the API."""
    return gr.Error(" ".join(text.split())[:MOST_LETTERS], print_exception=False)
