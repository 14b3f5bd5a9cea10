"""Many at once: who waits for whom, and what is left out. The order of events, never seconds."""

import ast
import itertools
import json
import os
import threading
import time

import gradio as gr
import gradio.state_holder
import httpx
import pytest
from gradio import networking, processing_utils
from PIL import Image

from tests.conftest import ROOT
from tests.spaces.conftest import kit_package


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """The package with its modules."""
    with kit_package(tmp_path_factory.mktemp("kit")) as package:
        yield package


def begun(thread: threading.Thread) -> threading.Thread:
    thread.daemon = True  # a test that fails ends all the same
    thread.start()
    return thread


def test_turns_are_taken_in_order_and_not_by_who_had_one_before(kit):
    turns, log, holds = kit.jobs.Turns(1), [], threading.Event()

    def work(name: str, until: threading.Event | None = None):
        for number in range(2):
            with turns:
                log.append(f"{name}{number}")
                if until:
                    until.wait(60)

    threads = [begun(threading.Thread(target=work, args=("a", holds)))]
    for waiting, name in enumerate("bc", 1):
        while len(turns.waiting) < waiting - 1 or not log:
            time.sleep(0.001)
        threads.append(begun(threading.Thread(target=work, args=(name,))))
    while len(turns.waiting) < 2:
        time.sleep(0.001)
    holds.set()
    for thread in threads:
        thread.join(60)
    assert log[:3] == ["a0", "b0", "c0"] and sorted(log) == ["a0", "a1", "b0", "b1", "c0", "c1"] and turns.free == 1
    part = kit.jobs.Turns(1, among=turns)
    with part:
        assert (part.free, turns.free) == (0, 0)
    assert (part.free, turns.free) == (1, 1)


@pytest.fixture
def one_turn(kit, monkeypatch):
    """Heavy calls compute one at a time."""
    monkeypatch.setitem(kit.jobs.TURNS, "heavy", kit.jobs.Turns(1))
    return kit.jobs.TURNS["heavy"]


def test_what_is_bounded_is_computing_and_not_streaming(kit, one_turn):
    """A light call waits for no heavy one. A heavy one waits while another computes, and not while it shows a frame."""
    log, inside, on = [], threading.Event(), threading.Event()

    @kit.jobs.one_job(cost="heavy")
    def stream():
        yield "first"
        inside.set()
        on.wait(60)
        log.append("stream computed")
        yield "second"

    @kit.jobs.one_job(cost="heavy")
    def heavy():
        log.append("heavy")

    @kit.jobs.one_job
    def light():
        log.append("light")

    assert [kit.jobs.cost_of(h) for h in (stream, heavy, light, len)] == ["heavy", "heavy", "light", "light"]
    who = [gr.Request(session_hash=name) for name in "abc"]
    frames = stream(who[0])
    assert next(frames) == "first"
    heavy(who[1])  # the first frame is on its way
    second = []
    computes = begun(threading.Thread(target=lambda: second.append(next(frames))))
    assert inside.wait(60)
    waits = begun(threading.Thread(target=heavy, args=(who[1],)))
    while not one_turn.waiting:
        time.sleep(0.001)
    light(who[2])
    assert log == ["heavy", "light"]
    on.set()
    computes.join(60)
    waits.join(60)
    assert log == ["heavy", "light", "stream computed", "heavy"] and second == ["second"]
    assert list(frames) == [] and one_turn.free == 1


def test_a_frame_that_stands_holds_no_turn(kit, one_turn, monkeypatch):
    stands, on = threading.Event(), threading.Event()

    @kit.jobs.one_job(cost="heavy")
    @kit.jobs.unhurried(100)
    def stream():
        yield 1
        yield 2

    def stand(seconds: float):
        if seconds > 50:
            stands.set()
            on.wait(60)

    frames, found = stream(gr.Request(session_hash="stands")), []
    monkeypatch.setattr(kit.jobs.time, "sleep", stand)
    waits = begun(threading.Thread(target=lambda: found.extend(frames)))
    assert stands.wait(60) and one_turn.free == 1
    on.set()
    waits.join(60)
    assert found == [1, 2]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(0.0, seconds)


def shown_by(kit, monkeypatch, frames: int, computed: float, sent: float, seconds: float = 0.0) -> list[tuple]:
    """(frame, seconds since the start) of those that a stream shows, each computed and sent in so much time."""
    clock = Clock()
    monkeypatch.setattr(kit.jobs, "time", clock)

    def stream():
        for number in range(frames):
            clock.sleep(computed)
            yield number

    found = []
    for frame in kit.jobs.one_job(kit.jobs.unhurried(seconds)(stream))(gr.Request(session_hash="clock")):
        found.append((frame, round(clock.now - 100, 2)))
        clock.sleep(sent)
    return found


def test_frames_are_left_out_where_they_come_out_slowly_and_never_the_last(kit, monkeypatch):
    everything = list(range(10))
    for sent in (0.0, 0.1):  # one user alone
        assert [f for f, _ in shown_by(kit, monkeypatch, 10, 0.01, sent)] == everything
    slowly = shown_by(kit, monkeypatch, 10, 0.2, 0.5)
    assert [f for f, _ in slowly] == [0, 3, 6, 9]  # as much computing as sending
    assert [f for f, _ in shown_by(kit, monkeypatch, 10, 0.01, 3.0)] == [0, 9]
    assert [f for f, _ in shown_by(kit, monkeypatch, 10, 0.6, 60.0)] == [0, 2, 4, 6, 8, 9]  # but not forever
    alone = shown_by(kit, monkeypatch, 10, 0.01, 0.02, seconds=0.25)
    assert [f for f, _ in alone] == everything
    assert all(later - earlier == pytest.approx(0.25) for (_, earlier), (_, later) in itertools.pairwise(alone))
    late = shown_by(kit, monkeypatch, 10, 0.01, 0.6, seconds=0.25)
    assert 2 < len(late) < 7 and late[-1][0] == 9 and late[-1][1] < 4  # of 6.1 that all would take
    assert all(later - earlier >= 0.25 for (_, earlier), (_, later) in itertools.pairwise(late))


def test_streams_that_take_their_time_are_declared_heavy(kit):
    """What stands, what shows some of its steps only, and what trains."""
    found = {}
    for file in (ROOT / "spaces").glob("*/*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            marks = [ast.unparse(mark) for mark in getattr(node, "decorator_list", [])]
            jobs = [mark for mark in marks if mark.startswith("one_job")]
            if jobs and (any("unhurried" in mark for mark in marks) or "Pace(" in ast.unparse(node)):
                found[node.name] = jobs[0]
    costs = {mark.partition("cost='")[2].rstrip("')") for mark in found.values()}
    assert len(found) > 10 and costs <= set(kit.jobs.COSTS) - {"light"}, found
    assert sum(kit.jobs.COSTS.values()) < 40  # gradio's threads: no queue waits for another


def messages(url: str, session: str):
    """What the server says to a session, as the page reads it."""
    with httpx.stream("GET", f"{url}/queue/data", params={"session_hash": session}, timeout=120) as answer:
        for line in answer.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line[5:])


def test_calls_wait_behind_those_of_their_cost_and_are_refused_alone(kit, monkeypatch):
    """A light call is answered while heavy ones run and wait; who waits is told the place; one too many is refused."""
    monkeypatch.setattr(gradio.state_holder, "SessionState", kit.serving.Session)
    monkeypatch.setitem(kit.serving.COSTS, "heavy", 1)
    monkeypatch.setattr(kit.serving, "MOST_WAITING", 1)
    runs, on = threading.Event(), threading.Event()

    @kit.jobs.one_job(cost="heavy")
    def heavy() -> str:
        runs.set()
        on.wait(60)
        return "heavy"

    def light() -> str:
        return "light"

    with gr.Blocks() as demo:
        text = gr.Textbox()
        demo.load(heavy, None, text)
        demo.load(light, None, text)
    demo.queue(max_size=None)
    kit.serving.queue_by_cost(demo)
    assert [block.concurrency_id for block in demo.fns.values()] == ["heavy", "light"]
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, inbrowser=False)
    url = f"{url.rstrip('/')}/gradio_api"

    def join(number: int, session: str) -> httpx.Response:
        body = {"data": [], "fn_index": number, "session_hash": session}
        return httpx.post(f"{url}/queue/join", json=body, timeout=120)

    try:
        assert join(0, "runs").status_code == 200 and runs.wait(60)
        assert join(0, "waits").status_code == 200
        refused = join(0, "too many")
        assert refused.status_code == 503 and refused.json()["detail"].startswith("1 calls like this one are waiting")
        place = next(messages(url, "waits"))
        assert (place["msg"], place["rank"], place["queue_size"]) == ("estimation", 0, 1)
        assert join(1, "light").status_code == 200
        assert [m["output"]["data"] for m in messages(url, "light") if m["msg"] == "process_completed"] == [["light"]]
        assert not on.is_set()
        on.set()
        done = [m for m in messages(url, "runs") if m["msg"] == "process_completed"]
        assert done[0]["output"]["data"] == ["heavy"]
        state = demo.app.state_holder.session_data["light"]
        assert isinstance(state, kit.serving.Session) and set(state.config_values) == {text._id}  # what was changed
        assert len(demo._queue.event_analytics) <= 1
    finally:
        on.set()
        demo.close()


def test_a_picture_that_is_drawn_again_is_whole_for_whom_reads_it(kit, tmp_path, monkeypatch):
    monkeypatch.setattr(processing_utils, "save_pil_to_cache", processing_utils.save_pil_to_cache)
    theirs = processing_utils.save_pil_to_cache(Image.new("L", (9, 9)), str(tmp_path), format="png")
    kit.serving.write_pictures_whole()
    ours = processing_utils.save_pil_to_cache(Image.new("L", (9, 9)), str(tmp_path), format="png")
    assert ours == theirs and os.listdir(os.path.dirname(ours)) == ["image.png"]
    before = os.stat(ours).st_ino
    with open(ours, "rb") as reading:
        reading.read(5)
        processing_utils.save_pil_to_cache(Image.new("L", (9, 9)), str(tmp_path), format="png")
        assert os.stat(ours).st_ino != before  # another file: the one that is open stays as it was
        assert Image.open(ours).size == (9, 9) and reading.read().endswith(b"IEND\xaeB`\x82")


def test_a_page_that_is_slow_to_start_is_not_ended(kit, monkeypatch):
    """gradio gives a page three seconds to answer itself, once."""
    monkeypatch.setattr(networking, "url_ok", networking.url_ok)
    answers = iter([httpx.ReadTimeout("slow"), httpx.ReadTimeout("slow"), httpx.Response(200)])

    def head(*_, **__):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(httpx, "head", head)
    kit.serving.start_in_its_own_time()
    assert networking.url_ok("http://127.0.0.1:7860") and next(answers, None) is None
