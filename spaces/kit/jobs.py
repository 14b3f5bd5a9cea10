"""Jobs: one at a time for each session, at a pace that a browser keeps up with, until someone stops them.

Calls wait in queues by what they cost: `light` ones answer within a quarter of a second alone, `heavy` ones compute for
up to a few seconds, `training` for ten and more. What is bounded beyond that is computing, not streaming: a job holds
one of the `computing` slots from one frame to the next, and none while a frame is sent or stands.
"""

import contextlib
import functools
import inspect
import math
import os
import threading
import time
import typing
import weakref
from collections import deque
from collections.abc import Callable

import gradio as gr

from kit.errors import user_error

# how many calls of each cost run at once; together fewer than gradio's 40 threads, or one queue would wait for another
COSTS = {"light": 16, "heavy": 16, "training": 4}
MOST_WAITING = 64  # calls in each queue
WAIT_SECONDS = 10.0  # for a session's own earlier job
SLOW_SECONDS = 0.15  # a frame that takes longer to send comes out too slowly; then frames are left out
ASIDE = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}  # of what waits for no other call
MOST_SECONDS = 1.0  # that are computed without a frame because the frames before came out slowly


class Turns:
    """So many may compute at once, as a context. Who waits comes next, in order, also before one that has just been.

    Args:
        count: how many.
        among: others, of whom these are a part.
    """

    def __init__(self, count: int, among: "Turns | None" = None):
        self.free, self.among, self.waiting, self.lock = count, among, deque(), threading.Lock()

    def __enter__(self):
        turn = threading.Lock()
        with self.lock:
            if self.free:
                self.free -= 1
            else:
                turn.acquire()
                self.waiting.append(turn)
        turn.acquire()  # at once, or when it is handed over
        if self.among is not None:
            self.among.__enter__()

    def __exit__(self, *raised):
        if self.among is not None:
            self.among.__exit__()
        with self.lock:
            if self.waiting:
                self.waiting.popleft().release()  # handed over, and never free
            else:
                self.free += 1


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
computing = Turns(CORES)
# which light calls do not wait for; one step of a training takes as long as many of another job
TURNS = {"light": contextlib.nullcontext(), "heavy": computing, "training": Turns(max(1, CORES // 2), computing)}


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


def cost_of(handler: Callable) -> str:
    """One of COSTS; `one_job` is told what is not light."""
    return getattr(handler, "cost", "light")


def one_job(handler: Callable | None = None, *, cost: str = "light") -> Callable:
    """A handler of which, and of all others so wrapped, a session runs one at a time.

    A second one waits ten seconds for the first and then gets a message. Generators hold their place until they end,
    are stopped by `stop_job`, or their page is closed. The last frame of a generator is always shown; others are left
    out where frames are sent more slowly than they are computed.

    Args:
        cost: one of COSTS; of any but "light" each step waits for its turn to compute.
    """
    if handler is None:
        return functools.partial(one_job, cost=cost)
    turn = TURNS[cost]

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
            steps, end = handler(*values[1:]), object()
            frames = Frames(getattr(handler, "seconds", 0.0))
            left_out = end
            try:
                while session not in _stops:
                    with turn:
                        _now.session, _now.away = session, frames.away
                        step = next(steps, end)
                    if step is end:
                        if left_out is not end:
                            yield left_out
                        return
                    if frames.late():
                        left_out = step
                    else:
                        left_out = end
                        frames.stand()
                        yield step
                        frames.sent()
            finally:
                steps.close()
                _stops.discard(session)
                slot.release()
    else:

        @functools.wraps(handler)
        def run(*values):
            slot = take(session_of(values[0]))
            try:
                with turn:
                    return handler(*values[1:])
            finally:
                slot.release()

    # gradio hands the request to the parameter of this type
    signature = inspect.signature(handler)
    request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)
    run.__signature__ = signature.replace(parameters=[request, *signature.parameters.values()])
    run.__annotations__ = {"request": gr.Request, **typing.get_type_hints(handler)}
    run.cost = cost
    del run.__wrapped__
    return run


class Frames:
    """When the frames of a stream are shown.

    Args:
        seconds: that each stands, at least; when they are late, some are left out, so that all take little longer.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.shown = -math.inf  # when the last one was due, of those that stand
        self.resumed = -math.inf  # when it had been sent
        self.passed = 0  # computed since
        self.away = 0.0  # seconds that sending it took

    def late(self) -> bool:
        """Whether to leave the frame out that was just computed."""
        self.passed += 1
        now = time.monotonic()
        if self.seconds:
            return now > self.shown + (self.passed + 1) * self.seconds and self.shown > -math.inf
        return self.away > SLOW_SECONDS and now - self.resumed < min(self.away, MOST_SECONDS)

    def stand(self) -> None:
        """Wait until the frame before has stood long enough."""
        time.sleep(max(0.0, self.shown + self.seconds - time.monotonic()))
        self.shown = time.monotonic()

    def sent(self) -> None:
        self.resumed = time.monotonic()
        self.away, self.passed = self.resumed - self.shown, 0


class Pace:
    """Which steps of a stream to show: the first, the last, each k-th that is not too soon after the one before, and
    any at which the session wants to stop.

    Faster than that a browser does not keep up: what it has not shown yet piles up, and Stop seems to do nothing. On a
    busy server frames come out more slowly: no more time goes into them than into the steps between.
    """

    def __init__(self, every: int = 1, seconds: float = 0.15):
        self.every, self.seconds, self.shown = every, seconds, -math.inf

    def due(self, step) -> bool:
        seconds = max(self.seconds, 2 * min(getattr(_now, "away", 0.0), MOST_SECONDS)) if self.seconds else 0.0
        now, ends = time.monotonic(), step.step in (0, step.num_steps - 1)
        ends = ends or getattr(_now, "session", None) in _stops
        if not ends and ((step.step + 1) % self.every or now - self.shown < seconds):
            return False
        self.shown = now
        return True


def unhurried(seconds: float) -> Callable:
    """A generator, for `one_job` to wrap, of frames that can be followed: each stands for at least `seconds`."""

    def slowed(handler: Callable) -> Callable:
        handler.seconds = seconds
        return handler

    return slowed


def opening(tab: gr.Tab) -> gr.events.Dependency:
    """When a tab is opened: what runs on another one has been stopped; the tab's own handler follows by `.success(...)`."""
    return tab.select(stop_job, **ASIDE)


def buttons(label: str, elem_id: str, stop: bool = False) -> list[gr.Button]:
    """The button that starts a job; beside it one that stops it, where the job is a generator that takes a while."""
    with gr.Row():
        start = gr.Button(label, variant="primary", elem_id=elem_id, scale=3, min_width=140)
        return [start, gr.Button("Stop", elem_id=f"{elem_id}-stop", scale=1, min_width=70)] if stop else [start]


def job(pressed: list[gr.Button], handler: Callable, inputs: list, outputs: list) -> tuple[list, list]:
    """A handler behind its `buttons`, and an endpoint of its name; returns what it takes and gives.

    What it gave is taken off the page when another model is chosen, which is the first that it takes where it takes one;
    what runs then is stopped.
    """
    if isinstance(inputs[0], gr.Dropdown) and (inputs[0].label or "").startswith("Model"):
        shown = [output for output in outputs if output not in inputs]
        empty = ", ".join('""' if isinstance(output, gr.HTML | gr.Markdown) else "null" for output in shown)
        # in the browser: an answer of the server could come after what the new model gives
        inputs[0].change(None, None, shown, js=f"() => [{empty}]", api_visibility="private")
        inputs[0].change(stop_job, **ASIDE)
    pressed[0].click(handler, inputs, outputs, api_name=handler.__name__)
    if len(pressed) > 1:
        pressed[1].click(stop_job, **ASIDE)
    return inputs, outputs
