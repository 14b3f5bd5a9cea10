"""Messages to the person at the page."""

import gradio as gr


def user_error(text: str) -> gr.Error:
    """What a person did wrong, or what is missing: shown on the page and told to callers of the API."""
    return gr.Error(text, print_exception=False)
