"""The look of all pages, how a page is begun, and how it is served."""

import contextlib
import copy
import importlib.util
import os
import threading
import traceback
from pathlib import Path

import gradio as gr
from gradio.routes import App

from kit import requests
from kit.errors import user_error
from kit.inputs import Refused, taken
from kit.models import Models
from kit.serving import (
    MOST_SESSIONS,
    keep_little,
    one_thread_each,
    queue_by_cost,
    start_in_its_own_time,
    write_pictures_whole,
)
from kit.words import short

MAX_UPLOAD = "10mb"
MATH = [{"left": "$$", "right": "$$", "display": True}, {"left": "$", "right": "$", "display": False}]


def theme() -> gr.themes.Base:
    """Dark orange on paper or slate; all text has a contrast of at least 4.5 in light and dark."""
    # by their names, so that nothing is fetched from elsewhere; gradio compares fonts, which plain words cannot be
    fonts = [gr.themes.Font(name) for name in ("ui-sans-serif", "system-ui", "sans-serif")]
    return gr.themes.Base(
        primary_hue="orange",
        neutral_hue="slate",
        radius_size="lg",
        font=fonts,
        font_mono=[gr.themes.Font(name) for name in ("ui-monospace", "Consolas", "monospace")],
    ).set(
        body_background_fill="#faf8f4",
        body_background_fill_dark="#10141c",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_background_fill="white",
        block_background_fill_dark="#1a202c",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_100",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        button_primary_background_fill="#c2410c",
        button_primary_background_fill_dark="#c2410c",
        button_primary_background_fill_hover="#9a3412",
        button_primary_background_fill_hover_dark="#9a3412",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_secondary_text_color="*neutral_800",
        button_secondary_text_color_dark="*neutral_100",
        color_accent="#c2410c",
        link_text_color="#9a3412",
        link_text_color_dark="#fdba74",
        link_text_color_hover="#7c2d12",
        link_text_color_hover_dark="#fed7aa",
        link_text_color_visited="#9a3412",
        link_text_color_visited_dark="#fdba74",
        error_text_color="#b91c1c",
        error_text_color_dark="#fca5a5",
    )


def launch(demo: gr.Blocks) -> None:
    """Serve a page: queues by cost, uploads of at most 10 MB, an MCP server where gradio's `mcp` extra is installed."""
    demo.enable_monitoring = False  # gradio heeds its own option only once the page has been there for a while
    one_thread_each()
    keep_little()
    write_pictures_whole()
    start_in_its_own_time()
    demo.queue(max_size=None)
    queue_by_cost(demo)
    demo.launch(
        theme=theme(),
        css=Path(__file__).with_name("kit.css").read_text(),
        inbrowser=os.environ.get("OPEN_PAGE") == "1",
        max_file_size=MAX_UPLOAD,
        show_error=True,  # callers of the API get the message too
        enable_monitoring=False,  # who asked for what is no one's concern
        app_kwargs={**requests.OPTIONS},  # gradio adds to them
        mcp_server=importlib.util.find_spec("mcp") is not None,
        state_session_capacity=MOST_SESSIONS,
        prevent_thread_lock=True,
    )
    soon = threading.Timer(2, Models.prepare)  # once the page is there, before its reader asks for more
    soon.daemon = True
    soon.start()
    demo.block_thread()


class Page(gr.Blocks):
    """A page that becomes a server when it is launched. gradio makes one of it each time that it is begun, ended or given
    a queue, twenty for a gallery, and throws all but the last away: half of the time that it takes to start.

    Whatever its controls are sent is checked here, before gradio reads it, and what is refused is told by the name of
    the argument. What fails all the same goes to the log of the server, and not to who asked.
    """

    def __init__(self, **options):
        with _no_server():
            super().__init__(**options)

    def __exit__(self, *raised):
        with _no_server():
            super().__exit__(*raised)

    def queue(self, *arguments, **options):
        with _no_server():
            return super().queue(*arguments, **options)

    async def preprocess_data(self, block_fn, inputs, state, explicit_call=False):
        names = argument_names(block_fn)
        if len(inputs) != len(names):
            raise user_error(
                f"{len(inputs)} values are given; there must be {len(names)}: {', '.join(names) or 'none'}"
            )
        ready = []
        for name, control, value in zip(names, block_fn.inputs, inputs, strict=True):
            alone = copy.copy(block_fn)  # one by one: what gradio says does not tell which it is
            alone.inputs = [control]
            try:
                kept = state and not control.stateful and control._id in state
                now = state[control._id] if kept else control  # as the session has it
                ready += await super().preprocess_data(alone, [taken(now, value)], state, explicit_call)
            except Refused as wanted:
                raise user_error(f"{name} is {short(value)}; it must be {wanted}") from None
            except gr.Error as error:
                raise user_error(f"{name}: {error.message}") from None
        return ready

    async def process_api(self, *arguments, **options):
        try:
            return await super().process_api(*arguments, **options)
        except gr.Error:
            raise
        except Exception:
            traceback.print_exc()
            raise user_error("This page has failed at what it was asked; its log says why") from None


def argument_names(block_fn) -> list[str]:
    """What the arguments of a handler are called; where they have no names, its controls."""
    names = block_fn.input_parameter_names or [None] * len(block_fn.inputs)
    return [name or str(control.label) for name, control in zip(names, block_fn.inputs, strict=True)]


@contextlib.contextmanager
def _no_server():
    """Neither a server nor the description of a page that it hands out; launching makes both."""
    made, told = vars(App)["create_app"], gr.Blocks.get_config_file
    App.create_app = staticmethod(lambda *_, **__: None)
    gr.Blocks.get_config_file = lambda _: {}
    try:
        yield
    finally:
        App.create_app, gr.Blocks.get_config_file = made, told


def page(title: str) -> gr.Blocks:
    """An empty page; files that it wrote are deleted after an hour."""
    return Page(title=title, delete_cache=(600, 3600))


def explanation(text: str) -> None:
    """Folded below the result: what happens, the equation, the paper."""
    with gr.Accordion("How it works", open=False):
        gr.Markdown(text, latex_delimiters=MATH)
