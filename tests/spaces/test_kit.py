"""What all Spaces share, without a browser."""

import json
import shutil
import threading
import time

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from tests.conftest import ROOT
from tests.spaces.conftest import kit_package


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """The package with its modules."""
    with kit_package(tmp_path_factory.mktemp("kit")) as package:
        yield package


def ink(shape, size=(280, 280), ground="white", pen="black"):
    picture = Image.new("RGB", size, ground)
    ImageDraw.Draw(picture).line(shape, fill=pen, width=20)
    return picture


def test_a_digit_is_white_on_black_with_its_mass_in_the_middle(kit):
    seven = [(70, 70), (210, 70), (117, 238)]
    digits = [
        np.asarray(kit.digits.as_digit(picture, 28), dtype=float)
        for picture in (
            ink(seven),
            ink(seven, ground="black", pen="white"),
            ink([(x + 30, y - 30) for x, y in seven]),
            ink([(4 * x, 4 * y) for x, y in seven], size=(1120, 1120)).resize((300, 300)),
        )
    ]
    for digit in digits:
        assert digit.max() > 200 and digit[0].max() == digit[:, 0].max() == 0
        rows, columns = np.indices(digit.shape) + 0.5
        for axis in (rows, columns):
            assert abs((axis * digit).sum() / digit.sum() - 14) <= 1.0
    for other in digits[1:3]:
        np.testing.assert_allclose(other, digits[0], atol=1)  # neither polarity nor place matters


def photographed(digit: np.ndarray, kind: str) -> Image.Image:
    """A digit, (28, 28) of ink, as a photograph of 480 x 360 shows it: on paper, beside bars, or half in a shadow."""
    ink = np.zeros((360, 480))
    ink[110:250, 170:310] = np.asarray(Image.fromarray(digit).resize((140, 140), Image.Resampling.BICUBIC)) / 255
    light = np.full(ink.shape, 225.0)
    if "shadow" in kind:
        light[np.add.outer(np.arange(360), 2 * np.arange(480)) < 620] /= 2
    photo = light * (1 - 0.85 * ink)
    for side in {"bars": (1, 3), "letterbox": (0, 2), "frame": range(4)}.get(kind.split()[0], ()):
        np.rot90(photo, side)[:30] = 8
    if "table" in kind:
        photo[-30:] = np.random.default_rng(0).normal(90, 12, (30, 480))
    return Image.fromarray(photo.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("kind", ["bars", "letterbox", "frame", "shadow", "table"])
def test_ink_is_found_and_bars_and_shadows_are_not(kit, kind):
    for c in range(10):
        digit = kit.digits.mnist_digits()[c, 3]
        plain, photo = (
            np.asarray(kit.digits.as_digit(photographed(digit, k), 28), dtype=float) for k in ("plain", kind)
        )
        moved = [np.roll(photo, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        assert max(np.corrcoef(plain.flatten(), m.flatten())[0, 1] for m in moved) > 0.7, (c, kind)


def test_an_empty_paper_is_refused(kit):
    for empty in (None, Image.new("RGB", (50, 50), "white"), Image.new("L", (50, 50), 0)):
        with pytest.raises(gr.Error, match="nothing on the paper"):
            kit.digits.as_digit(empty, 28)


def test_digits_of_mnist_come_back_from_paper_as_they_are(kit):
    assert len(kit.digits.example_digits()) == 10
    kept = 0
    for digit in kit.digits.mnist_digits().reshape(-1, 28, 28):
        paper = ImageOps.invert(Image.fromarray(digit).resize((280, 280), Image.Resampling.BICUBIC))
        again = np.asarray(kit.digits.as_digit(paper, 28), dtype=float)
        moves = {(y, x): np.roll(again, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)}
        errors = {move: np.abs(moved - digit).mean() for move, moved in moves.items()}
        assert min(errors.values()) < 16  # of 255 levels: enlarged, and made small again
        kept += min(errors, key=errors.get) == (0, 0)
    assert kept >= 150  # of 200; a centre that lies between two pixels may fall to either side


def test_the_mnist_digits_are_read_class_by_class(kit):
    digits = kit.digits.mnist_digits()
    assert digits.shape == (10, 20, 28, 28) and digits.dtype == np.uint8
    sheet = np.asarray(Image.open(ROOT / "spaces" / "kit" / "mnist-digits.png"))
    assert np.array_equal(digits[3, 5], sheet[3 * 28 : 4 * 28, 5 * 28 : 6 * 28])
    assert digits[1].mean() < digits[0].mean()  # a one has the least ink


def test_a_pipeline_is_asked_what_it_answers(kit):
    class Older:
        def __call__(self):
            """Draw."""

        def log_prob(self):
            """Measure."""

    class Newer(Older):
        calls = frozenset({"sample"})  # a class can have calls that this instance refuses

    answers = kit.models.answers
    assert answers(Older(), "sample") and answers(Older(), "log_prob") and not answers(Older(), "encode")
    assert answers(Newer(), "sample") and not answers(Newer(), "log_prob")


def test_a_grid_keeps_every_pixel(kit):
    rng = np.random.default_rng(0)
    tiles = [rng.integers(0, 256, (8, 8), dtype=np.uint8) for _ in range(6)]
    sheet = np.asarray(kit.pictures.grid([Image.fromarray(t) for t in tiles], columns=3).convert("L"))
    factor = 640 // 3 // 8
    for i, tile in enumerate(tiles):
        top, left = (4 + k * (8 * factor + 4) for k in divmod(i, 3))
        shown = sheet[top : top + 8 * factor, left : left + 8 * factor]
        assert np.array_equal(shown, tile.repeat(factor, 0).repeat(factor, 1))


def test_bounds_name_the_argument_and_its_value(kit):
    for check, words in (
        (lambda: kit.bounds.whole("count", 10**9, 1, 64), "count is 1000000000; it must lie between 1 and 64"),
        (lambda: kit.bounds.whole("count", 2.5, 1, 64), "count is 2.5; it must be a whole number"),
        (lambda: kit.bounds.bounded("temperature", float("nan"), 0, 2), "temperature is nan"),
        (lambda: kit.bounds.bounded("temperature", None, 0, 2), "temperature is None"),
        (lambda: kit.bounds.seed_of(2**70, False), f"seed is {2**70}"),
        (lambda: kit.bounds.class_of("banana", 10), "label is 'banana'; it must be any or 0 to 9"),
        (lambda: kit.bounds.class_of("10", 10), "label is '10'"),
        (lambda: kit.bounds.one_of("output", "x", ("mean",)), "output is 'x'; it must be one of mean"),
    ):
        with pytest.raises(gr.Error, match=words):
            check()
    assert kit.bounds.class_of("7", 10) == 7 and kit.bounds.class_of("any", 10) is kit.bounds.class_of("3", 0) is None
    assert kit.bounds.seed_of(-5, True) in range(kit.bounds.MAX_SEED + 1)


def test_a_session_runs_one_job_at_a_time_and_others_run_beside_it(kit, monkeypatch):
    monkeypatch.setattr(kit.jobs, "WAIT_SECONDS", 0.2)
    one, other = gr.Request(session_hash="one"), gr.Request(session_hash="other")

    @kit.jobs.one_job
    def steps(n: int):
        """Steps."""
        yield from range(n)

    @kit.jobs.one_job
    def answer() -> int:
        return 42

    running = steps(one, 3)
    assert next(running) == 0
    with pytest.raises(gr.Error, match="last request is still running"):
        answer(one)
    assert answer(other) == 42
    running.close()  # what a stop, or a closed page, does
    assert answer(one) == 42
    assert list(steps(one, 3)) == [0, 1, 2] and answer(one) == 42

    @kit.jobs.one_job
    def broken():
        raise ValueError("no")

    with pytest.raises(ValueError):
        broken(one)
    assert answer(one) == 42  # a job that fails frees its place


def test_a_job_that_is_stopped_ends_at_its_next_step_and_no_other_does(kit):
    from types import SimpleNamespace

    one, other = gr.Request(session_hash="stops"), gr.Request(session_hash="goes on")
    closed = []

    @kit.jobs.one_job
    def steps():
        pace = kit.jobs.Pace(every=1_000)
        try:
            for number in range(10):
                if pace.due(SimpleNamespace(step=number, num_steps=10)):
                    yield number
        finally:
            closed.append(True)

    kit.jobs.stop_job(one)  # nothing runs: nothing is remembered
    running, beside = steps(one), steps(other)
    assert next(running) == next(beside) == 0
    kit.jobs.stop_job(one)
    assert list(running) == [] and closed == [True]
    assert list(beside) == [9]  # not each step, but the last
    assert list(steps(one)) == [0, 9]  # the next job is not stopped

    waits = steps(one)
    next(waits)
    kit.jobs.stop_job(one)
    waits.close()
    assert list(steps(one)) == [0, 9]


def test_a_waiting_job_starts_when_the_first_one_ends(kit):
    request = gr.Request(session_hash="waits")
    log = []

    @kit.jobs.one_job
    def work(name: str):
        log.append(f"{name} begins")
        time.sleep(0.1)
        log.append(f"{name} ends")

    threads = [threading.Thread(target=work, args=(request, name)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line.split()[1] for line in log] == ["begins", "ends", "begins", "ends"]


def test_models_are_shared_and_kept_within_a_bound(kit, portable, tmp_path, monkeypatch):
    for name in "abc":
        shutil.copytree(portable, tmp_path / name)
    monkeypatch.setenv("MODEL_ID", ",".join(str(tmp_path / name) for name in "abc"))
    kit.models.Models.loaded.clear()
    models = kit.models.Models(("c", "b"))
    assert list(models) == ["c", "b", "a"] and not models.loaded  # nothing is loaded before its first use
    first = models["a"]
    found = []
    threads = [threading.Thread(target=lambda: found.append(models["b"])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(pipe) for pipe in found}) == 1 and models["a"] is first
    weights = sum(p.numel() * p.element_size() for p in first.vae.parameters())
    assert kit.models.size_of(first) == weights
    monkeypatch.setenv("MODEL_MEMORY_MB", str(2.5 * weights / 1e6))
    models["c"]
    assert list(models.loaded) == [str(tmp_path / name) for name in "ac"]  # b was used longest ago
    assert torch.equal(models["b"].vae.state_dict()["encoder.last.bias"], first.vae.state_dict()["encoder.last.bias"])
    with pytest.raises(gr.Error, match="model is 'd'; it must be one of c, b, a"):
        models["d"]


def recorded(folder, **results):
    """The record of a model, as a gallery has it."""
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results))


def test_in_a_gallery_a_page_takes_its_own_models_only(kit, tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_ID", "user/x-mnist, user/a@v1,b/, user/points, user/sorts")
    monkeypatch.setattr(kit.models.Models, "records", tmp_path)
    draws = {"calls": ["encode", "sample"], "data_kind": "image", "num_classes": 0}
    recorded(tmp_path / "a", **{**draws, "num_classes": 10})
    recorded(tmp_path / "b", **draws)
    recorded(tmp_path / "points", **{**draws, "data_kind": "vector"})
    recorded(tmp_path / "sorts", calls=["assign"], data_kind="image", num_classes=0)

    def page(*preferred, needs=(("sample",),), kind="image"):
        return kit.models.Models(preferred, needs=needs, kind=kind)

    assert list(page("b", "a", "c")) == ["b", "a"]  # x-mnist has no record: nothing is known of it
    assert page("a", needs=(("sample",), ("assign",))).addresses == {
        "a": "user/a@v1",
        "b": "b/",
        "sorts": "user/sorts",
    }
    assert list(page(kind=None)) == ["a", "b", "points"]
    assert page().that_answer("encode") == ["a", "b"] and page().that_answer("log_prob") == []
    assert page().with_classes() == page().with_classes(surely=True) == ["a"]
    assert list(page(needs=(("no_such_call",),))) == []
    assert page(needs=(("sample",), ("sample", "encode"))).fit("a") == 2 and page().fit("x-mnist") == 0
    with_classes = kit.models.Models(needs=(("sample",),), where=lambda known: known["num_classes"] > 0)
    assert list(with_classes) == ["a"]
    text = {"calls": ["sample"], "data_kind": "text"}
    recorded(tmp_path / "x-mnist", **text)  # of another library than the page's
    kit.models._record.cache_clear()
    assert "x-mnist" not in page(kind=None) and list(
        kit.models.Models(needs=(("sample",),), library="transformers")
    ) == ["x-mnist"]


def test_alone_a_page_takes_what_is_not_known_yet_and_asks_it_when_it_is_there(kit, portable, tmp_path, monkeypatch):
    recorded(tmp_path / "sorts", calls=["assign"], data_kind="image")
    monkeypatch.setenv("MODEL_ID", f"{portable},{tmp_path / 'sorts'}")

    def page(needs=(("sample", "encode"),), kind="image"):
        return kit.models.Models(("sorts",), needs=needs, kind=kind)

    assert list(page()) == ["tiny"]  # of the other it is known that it does not answer
    assert page()["tiny"] is page().get("tiny", "elbo") and page().with_classes() == ["tiny"]
    for models, calls, message in (
        (page(needs=(("assign",), ("sample", "no_such_call"))), (), "asks for: assign or sample, no_such_call"),
        (page(), ("assign", "walk"), "tiny does not answer assign and walk"),
        (page(kind="vector"), (), "tiny has data of kind 'image'; this page takes 'vector'"),
    ):
        with pytest.raises(gr.Error, match=message):
            models.get("tiny", *calls)


def test_a_histogram_puts_its_marks_where_they_belong(kit):
    import re

    svg = kit.charts.histogram([0.0, 1.0, 2.0, 2.0], [("low", 0.0), ("high", 2.0)], "nats")
    places = [float(x) for x in re.findall(r'class="mark" x1="([\d.]+)"', svg)]
    bars = [(float(x), float(h)) for x, h in re.findall(r'<rect x="([\d.]+)".*? height="([\d.]+)"', svg)]
    tallest = max(bars, key=lambda bar: bar[1])
    assert places[0] < places[1] and abs(tallest[0] - places[1]) < 20


def test_a_theme_can_be_compared_with_gradios_own(kit):
    """As gradio does after a launch, where its analytics are on."""
    from gradio.utils import BUILT_IN_THEMES

    assert len(BUILT_IN_THEMES) > 3
    for theme in BUILT_IN_THEMES.values():
        assert kit.theme.theme().to_dict() != theme.to_dict()


def test_a_pace_shows_the_ends_and_each_kth_step_but_none_too_soon(kit):
    from types import SimpleNamespace

    def shown(pace, wait: float = 0.0) -> list[int]:
        due = []
        for number in range(10):
            time.sleep(wait)
            if pace.due(SimpleNamespace(step=number, num_steps=10)):
                due.append(number)
        return due

    assert shown(kit.jobs.Pace(3, seconds=0)) == [0, 2, 5, 8, 9]
    assert shown(kit.jobs.Pace(1, seconds=60)) == [0, 9]
    assert shown(kit.jobs.Pace(2, seconds=0.01), wait=0.02) == [0, 1, 3, 5, 7, 9]


def test_curves_go_through_their_points(kit):
    import re

    svg = kit.charts.curves({"loss": [(1, 4.0), (10, 2.0), (100, 0.0)]}, "steps", "", log_x=True, marks=True)
    path = re.search(r'd="M([^"]+)"', svg)[1]
    (x0, y0), (x1, y1), (x2, y2) = [map(float, p.split()) for p in path.split("L")]
    assert x1 - x0 == pytest.approx(x2 - x1) and y1 - y0 == pytest.approx(y2 - y1) and y2 > y0
    assert svg.count("<circle") == 3 and ">100<" in svg
    assert kit.charts.curves({"flat": [(0, 1.0)]}, "x", "y").count("<svg") == 1


def test_several_curves_are_named_and_stop_where_there_is_no_number(kit):
    import re

    inf = float("inf")
    svg = kit.charts.curves({"a": [(0, 1.0), (1, inf), (2, 3.0), (3, 2.0)], "b": [(0, 0.0), (3, -1.0)]}, "x", "y")
    path = re.search(r'class="curve curve-0" d="([^"]*)"', svg)[1]
    assert path.count("M") == 2 and path.count("L") == 1
    assert ">a<" in svg and ">b<" in svg and "−1" in svg and "inf" not in svg
    assert "M" not in re.search(r'curve-0" d="([^"]*)"', kit.charts.curves({"none": [(0, inf)]}, "x", "y"))[1]


def test_bars_and_a_named_place_stand_among_curves(kit):
    import re

    svg = kit.charts.curves({"p": [(0, 1.0), (4, 1.0)]}, "x", "", bars=[(0, 2, 0.5), (2, 4, 2.0)], here=("here", 2.0))
    bars = [tuple(map(float, b)) for b in re.findall(r'<rect x="(\S+)" y="(\S+)" width="\S+" height="(\S+)"/>', svg)]
    line = [float(n) for n in re.search(r'curve-0" d="M(\S+) (\S+)L', svg).groups()]
    assert bars[0][0] == line[0] and bars[1][2] == pytest.approx(4 * bars[0][2], abs=0.2)
    assert bars[1][1] < line[1] < bars[0][1]  # the line is as high as 1, between them
    assert float(re.search(r'class="mark" x1="(\S+)"', svg)[1]) == bars[1][0] and ">here<" in svg


def test_ticks_of_a_logarithmic_axis_are_round(kit):
    assert kit.charts.log_ticks(0.04, 1) == pytest.approx([0.05, 0.1, 0.2, 0.5, 1])
    assert kit.charts.log_ticks(1e-4, 1e3) == pytest.approx([10.0**p for p in range(-4, 4)])
    xs = [0.01 * 1.3**i for i in range(20)]
    assert ">0.02<" in kit.charts.curves({"a": [(x, x) for x in xs]}, "x", "y", log_x=True)


def test_a_plane_has_up_above_and_shows_what_lies_on_it(kit):
    assert kit.charts.on_plane([[0, 0], [2, 2], [-2, 0]], reach=2) == [[300, 300], [600, 0], [0, 300]]
    svg = kit.charts.plane("points", kit.charts.dots([[0, 0], [9, 0]], reach=2), ground=Image.new("RGB", (2, 2)))
    assert svg.count("<circle") == 1 and svg.index("<image") < svg.index("<circle")


def test_models_load_at_once_while_networks_are_made(kit, portable, tmp_path, monkeypatch):
    """diffusers and transformers replace functions of torch while they load: nobody may meet these, and they must not stay."""
    addresses = [str(shutil.copytree(portable, tmp_path / name)) for name in ("one", "two")]
    monkeypatch.setenv("MODEL_ID", ",".join(addresses))
    models, before = kit.models.Models(), torch.nn.Module.register_parameter
    ended, wrong = threading.Event(), []

    def load(name: str) -> None:
        for _ in range(6):
            kit.models.Models.loaded.clear()
            wrong.extend(p for p in models[name].vae.parameters() if p.is_meta)

    def make() -> None:
        while not ended.is_set():
            layer = kit.learning.seeded(0, lambda: torch.nn.Linear(3, 2))
            wrong.extend([layer] if layer.weight.is_meta or not torch.equal(layer.weight, expected) else [])
            plain = torch.nn.Module()  # as what is fitted from data is made, without the lock
            plain.weight = torch.nn.Parameter(torch.ones(1))
            wrong.extend([plain] if plain.weight.is_meta else [])

    expected = kit.learning.seeded(0, lambda: torch.nn.Linear(3, 2)).weight
    threads = [threading.Thread(target=load, args=(name,)) for name in ("one", "two")]
    maker = threading.Thread(target=make)
    for thread in (maker, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    maker.join()
    assert not wrong and torch.nn.Module.register_parameter is before
