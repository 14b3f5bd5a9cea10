"""How a page is served to many at once: queues by cost, and what would otherwise grow with calls, sessions and threads."""

import os
import secrets
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import gradio.state_holder
from gradio import networking, processing_utils
from gradio.route_utils import get_fn
from gradio.state_holder import SessionState

from kit.jobs import COSTS, MOST_WAITING, cost_of

MOST_SESSIONS = 1_000  # of which it is remembered what they changed on a page
MOST_ASKED = 60  # times, for three seconds each, whether a page that starts is there


class Session(SessionState):
    """What one session has changed on the pages.

    Gradio's own begins with a description of each component of all pages, for links that reproduce a page as someone
    left it, which these pages have not. In the gallery that took 60 ms, in which nobody was answered, and some MB.
    """

    def __init__(self, blocks: gr.Blocks):
        super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks={}))


def keep_little() -> None:
    """Let what gradio keeps of a session be a `Session`."""
    gradio.state_holder.SessionState = Session


def start_in_its_own_time() -> None:
    """Let a page that is slow to start be there all the same.

    Gradio asks it for a sign of life, and ends it where none comes within three seconds.
    """
    asked_once = networking.url_ok

    def asked_often(url: str) -> bool:
        return any(asked_once(url) for _ in range(MOST_ASKED))

    networking.url_ok = asked_often


def write_pictures_whole() -> None:
    """Let the file of a picture appear when it is complete.

    Gradio names it by its content and writes it anew where the same picture is drawn again, while a browser may be
    reading it: that one would get a part of it.
    """

    def save(img, cache_dir: str, name: str = "image", format: str = "webp") -> str:
        content = processing_utils.encode_pil_to_bytes(img, format)
        file = (Path(cache_dir) / processing_utils.hash_bytes(content) / f"{name}.{format}").resolve()
        file.parent.mkdir(parents=True, exist_ok=True)
        begun = file.with_name(f".{secrets.token_hex(8)}.tmp")
        begun.write_bytes(content)
        os.replace(begun, file)
        return str(file)

    processing_utils.save_pil_to_cache = save


def queue_by_cost(demo: gr.Blocks) -> None:
    """Let each call wait behind those of its cost alone, and be refused where these are too many already.

    Gradio counts the calls that wait in all queues together, so it is asked for no bound; and it makes a table of
    all calls so far after each one, which these pages do not show.
    """
    for block in demo.fns.values():
        block.concurrency_id = cost_of(block.fn)
        block.concurrency_limit = COSTS[block.concurrency_id]
    queue = demo._queue
    queue.ANAYLTICS_CACHE_FREQUENCY, queue.ANALYTICS_MAX_EVENTS = 10**9, 1  # make it never, and remember one call
    push = queue.push

    async def push_if_short(body, request, username):
        waiting = 0
        if body.fn_index is not None:
            line = queue.event_queue_per_concurrency_id.get(get_fn(demo, None, body).concurrency_id)
            waiting = len(line.queue) if line else 0
        if waiting >= MOST_WAITING:
            return False, f"{waiting} calls like this one are waiting already; try again in a minute.", "queue_full"
        return await push(body, request, username)

    queue.push = push_if_short


def one_thread_each() -> None:
    """Let each call compute by one thread, before torch is there: two calls of two threads on two cores wait for one
    another, and each thread that calls torch would keep threads and memory of its own."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
