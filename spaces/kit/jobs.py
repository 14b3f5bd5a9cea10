"""Jobs: one at a time for each session, at a pace that a browser keeps up with, until someone stops them."""

import functools
import inspect
import math
import threading
import time
import typing
import weakref
from collections.abc import Callable

import gradio as gr

from kit.errors import user_error

WAIT_SECONDS = 10.0  # for a session's own earlier job


# one running job of a session; a session that runs none is forgotten
_slots: "weakref.WeakValueDictionary[str, threading.Semaphore]" = weakref.WeakValueDictionary()


_slots_lock = threading.Lock()


# Sessions that asked to stop. Gradio's own way, `cancels`, now and then shows "Error" on a page that only stopped: its
# word that the job is over can overtake the last of what the job said.
_stops: set[str] = set()


_now = threading.local()  # .session: whose job this thread is at


def session_of(request: gr.Request) -> str:
    return str(getattr(request, "session_hash", None) or getattr(request, "client", None))


def stop_job(request: gr.Request) -> None:
    """End the session's running job, if there is one, after its next yield."""
    with _slots_lock:
        if session_of(request) in _slots:
            _stops.add(session_of(request))


def one_job(handler: Callable) -> Callable:
    """A handler of which, and of all others so wrapped, a session runs one at a time.

    A second one waits ten seconds for the first and then gets a message. Generators hold their place until they end,
    are stopped by `stop_job`, or their page is closed.
    """

    def take(session: str) -> threading.Semaphore:
        with _slots_lock:
            slot = _slots.setdefault(session, threading.Semaphore())
        if not slot.acquire(timeout=WAIT_SECONDS):
            raise user_error("Your last request is still running: stop it, or wait for it to end.")
        return slot

    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def run(*values):
            session = session_of(values[0])
            slot = take(session)
            _stops.discard(session)  # whoever asked meant the job before
            steps = handler(*values[1:])
            try:
                while session not in _stops:
                    _now.session = session
                    try:
                        step = next(steps)
                    except StopIteration:
                        return
                    yield step
            finally:
                steps.close()
                _stops.discard(session)
                slot.release()
    else:

        @functools.wraps(handler)
        def run(*values):
            slot = take(session_of(values[0]))
            try:
                return handler(*values[1:])
            finally:
                slot.release()

    # gradio hands the request to the parameter of this type
    signature = inspect.signature(handler)
    request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)
    run.__signature__ = signature.replace(parameters=[request, *signature.parameters.values()])
    run.__annotations__ = {"request": gr.Request, **typing.get_type_hints(handler)}
    del run.__wrapped__
    return run


class Pace:
    """Which steps of a stream to show: the first, the last, each k-th that is not too soon after the one before, and
    any at which the session wants to stop.

    Faster than that a browser does not keep up: what it has not shown yet piles up, and Stop seems to do nothing.
    """

    def __init__(self, every: int = 1, seconds: float = 0.15):
        self.every, self.seconds, self.shown = every, seconds, -math.inf

    def due(self, step) -> bool:
        now, ends = time.monotonic(), step.step in (0, step.num_steps - 1)
        ends = ends or getattr(_now, "session", None) in _stops
        if not ends and ((step.step + 1) % self.every or now - self.shown < self.seconds):
            return False
        self.shown = now
        return True


def unhurried(seconds: float) -> Callable:
    """A generator of frames that can be followed: each stands for at least `seconds`."""

    def slowed(handler: Callable) -> Callable:
        @functools.wraps(handler)
        def run(*values):
            began = time.monotonic()
            for frame in handler(*values):
                yield frame
                time.sleep(max(0.0, seconds - (time.monotonic() - began)))
                began = time.monotonic()

        return run

    return slowed


def buttons(label: str, elem_id: str, stop: bool = False) -> list[gr.Button]:
    """The button that starts a job; beside it one that stops it, where the job is a generator that takes a while."""
    with gr.Row():
        start = gr.Button(label, variant="primary", elem_id=elem_id, scale=3, min_width=140)
        return [start, gr.Button("Stop", elem_id=f"{elem_id}-stop", scale=1, min_width=70)] if stop else [start]


def job(pressed: list[gr.Button], handler: Callable, inputs: list, outputs: list) -> tuple[list, list]:
    """A handler behind its `buttons`, and an endpoint of its name; returns what it takes and gives."""
    pressed[0].click(handler, inputs, outputs, api_name=handler.__name__)
    if len(pressed) > 1:
        pressed[1].click(stop_job, queue=False, show_progress="hidden", api_visibility="private")
    return inputs, outputs
