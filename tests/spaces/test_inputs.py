"""What a page is sent from outside: values, files, pictures, addresses; without a browser, on pages of a few controls."""

import asyncio
import base64
import io
import json
import os
import struct
import threading
import time
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from tests.spaces.conftest import kit_package


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    with kit_package(tmp_path_factory.mktemp("kit")) as package:
        yield package


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    """The folder of uploads."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def page_of(kit, handler, *controls) -> gr.Blocks:
    """A page that does nothing but hand these controls to a handler."""
    with kit.theme.page("test") as demo:
        for control in controls:
            control.render()
        gr.Button().click(handler, list(controls), None, api_name="asked")
    return demo


def sent(demo: gr.Blocks, *values, state=None) -> list:
    """What the handler of a page would be given.

    In a thread of its own, since the browser of other tests may have left a running event loop in this one.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, demo.preprocess_data(demo.fns[0], list(values), state)).result()


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def url_of(data: bytes) -> dict:
    return {"url": "data:image/png;base64," + base64.b64encode(data).decode()}


def nested(depth: int) -> list:
    value = []
    for _ in range(depth):
        value = [value]
    return value


# Values


NUMBERS = (True, "3", [3], {"a": 3}, float("nan"), float("inf"), 10**400, -(10**400), nested(900), "9" * 10_000_000)


def test_each_kind_of_control_refuses_what_it_cannot_hold_by_the_name_of_its_argument(kit):
    def asked(count, share, seed, label, output, prompt, new_seed, place):
        """Nothing."""

    demo = page_of(
        kit,
        asked,
        gr.Slider(1, 64, 4, step=1),
        gr.Slider(0, 2, 1, step=0.05),
        gr.Number(0, precision=0),
        gr.Dropdown(["any", "0", "1"], value="any"),
        gr.Radio(["mean", "sample"], value="mean"),
        gr.Textbox(""),
        gr.Checkbox(True),
        kit.pictures.Explorer("map"),
    )
    good = [4, 0.5, 7, "any", "mean", "to be", False, {"x": 0, "y": 1}]
    assert sent(demo, *good) == [4, 0.5, 7, "any", "mean", "to be", False, (0.0, 1.0)]
    assert sent(demo, 4.0, 1, None, *good[3:])[:3] == [4, 1, None]  # an empty field: a handler may do without
    wrong = {
        "count": ("a whole number from 1 to 64", [*NUMBERS, None, 0, 65, 2.5]),
        "share": ("a number from 0 to 2", [*NUMBERS, None, -1, 2.001]),
        "seed": ("a whole number", [*NUMBERS[:6], 2.5, nested(900)]),
        "label": ("one of 'any', '0', '1'", [None, 1, True, "2", ["any"], {}, nested(900), "<b>", "x" * 10_000_000]),
        "output": ("one of 'mean', 'sample'", [None, 0, "MEAN", ["mean"], {"mean": 1}]),
        "prompt": (
            "a text of at most 100,000 letters",
            [None, 3, True, ["a"], {"path": "/etc/hostname"}, "x" * 100_001],
        ),
        "new_seed": ("true or false", [None, 0, 1, "true", [True]]),
        "place": ('{"x": 0 to 1, "y": 0 to 1}', [None, 3, [0, 1], {"x": 0}, nested(900)]),
    }
    for number, (name, (wanted, values)) in enumerate(wrong.items()):
        for value in values:
            given = [*good[:number], value, *good[number + 1 :]]
            with pytest.raises(gr.Error) as raised:
                sent(demo, *given)
            message = raised.value.message
            assert message.startswith(f"{name} is ") and message.endswith(f"; it must be {wanted}"), message
            assert len(message) < 300 and "\n" not in message and "<" not in message
    for place, message in (({"x": 2, "y": 0}, "place: x is 2;"), ({"x": 0, "y": True}, "place: y is True;")):
        with pytest.raises(gr.Error, match=message):
            sent(demo, *good[:-1], place)
    for values in ([], good[:-1], [*good, 1]):
        with pytest.raises(
            gr.Error, match=f"{len(values)} values are given; there must be 8: count, share, seed, label"
        ):
            sent(demo, *values)


def test_a_session_is_asked_for_what_its_own_controls_hold(kit):
    """A page may have changed the choices of one session."""
    control = gr.Dropdown(["any"], value="any")
    demo = page_of(kit, lambda label: None, control)
    from gradio.state_holder import SessionState

    state = SessionState(demo)
    state[control._id] = gr.Dropdown(["any", "0"], render=False)
    assert sent(demo, "0", state=state) == ["0"]
    with pytest.raises(gr.Error, match="label is '0'; it must be one of 'any'"):
        sent(demo, "0")


def test_what_a_function_is_offered_by_without_controls_is_checked_by_its_types(kit):
    def told(model: str, count: int, share: float, sure: bool) -> str:
        return ""

    with kit.theme.page("test") as demo:
        gr.api(told)
    assert sent(demo, "a", 3, 0.5, True) == ["a", 3, 0.5, True]
    for values, message in (
        ((1, 3, 0.5, True), "model is 1; it must be a text"),
        (("a", 3.5, 0.5, True), "count is 3.5; it must be a whole number"),
        (("a", True, 0.5, True), "count is True; it must be a whole number"),
        (("a", 3, "0.5", True), "share is '0.5'; it must be a number"),
        (("a", 3, float("nan"), True), "share is nan; it must be a number"),
        (("a", 3, 0.5, 1), "sure is 1; it must be true or false"),
    ):
        with pytest.raises(gr.Error, match=message):
            sent(demo, *values)


def test_a_control_of_a_new_kind_takes_nothing_before_it_has_a_check(kit, uploads):
    (uploads / "a.txt").write_text("a")
    for control in (gr.File(), gr.Image(), gr.JSON(), gr.Chatbot()):
        demo = page_of(kit, lambda given: None, control)
        with pytest.raises(gr.Error, match=r"given is {.*; it must be nothing"):
            sent(demo, {"path": str(uploads / "a.txt"), "meta": {"_type": "gradio.FileData"}})


def test_where_there_is_nothing_to_choose_the_handler_says_what_is_missing(kit):
    demo = page_of(kit, lambda model: None, gr.Dropdown([], value=None))
    assert sent(demo, None) == [None]
    with pytest.raises(gr.Error, match="model is 'vae'; it must be null: there is nothing to choose"):
        sent(demo, "vae")


def test_a_message_is_one_line_without_tags_however_it_was_made(kit):
    error = kit.errors.user_error("No\n such  <img src=x>" + "!" * 5000)
    assert error.message.startswith(r"No such \x3cimg src=x>") and len(error.message) < 1100
    assert kit.words.line_of(ValueError()) == kit.words.line_of(ValueError("\n \n")) == "ValueError"
    assert kit.words.line_of(OSError("\nfirst.\nsecond")) == "first"
    assert len(kit.words.line_of(ValueError("x" * 10**6))) <= 400


# Files and pictures


def test_only_a_file_that_was_uploaded_is_ever_opened(kit, uploads, tmp_path, monkeypatch):
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(Image.new("RGB", (30, 30), "red")))
    (uploads / "mine.png").write_bytes(secret.read_bytes())
    (uploads / "inside.png").symlink_to(uploads / "mine.png")
    (uploads / "outside.png").symlink_to(secret)
    (uploads / "circle.png").symlink_to(uploads / "circle.png")
    (uploads / "folder").mkdir()
    os.mkfifo(uploads / "pipe.png")
    (uploads / "zero.png").symlink_to("/dev/zero")
    demo = page_of(kit, lambda picture: None, kit.pictures.Pad())
    for name in ("mine.png", "inside.png"):
        for extra in ({}, {"meta": {"_type": "gradio.FileData"}, "url": "http://127.0.0.1:1/x.png", "size": "none"}):
            (picture,) = sent(demo, {"path": str(uploads / name), **extra})
            assert picture.size == (30, 30) and picture.getpixel((5, 5)) == (255, 0, 0)
    opened = []
    monkeypatch.setattr(kit.pictures, "open_picture", lambda *given: opened.append(given))
    paths = ["outside.png", "circle.png", "folder", "pipe.png", "zero.png", "nothing.png", "../secret.png", ""]
    paths = [str(uploads / path) for path in paths]
    paths += [
        str(secret),
        "/dev/zero",
        "/etc/hostname",
        "/proc/self/environ",
        "http://127.0.0.1:1/x.png",
        "a\0b",
        "x" * 5000,
    ]
    for path in paths:
        for meta in ({}, {"meta": {"_type": "gradio.FileData"}}, {"is_stream": True}):
            with pytest.raises(gr.Error, match=r"picture is {.*; it must be a file that was uploaded"):
                sent(demo, {"path": path, **meta})
    for value in (3, True, "x", "/etc/hostname", [1], {}, {"path": 3}, {"path": [1]}, {"url": "http://127.0.0.1:1/x"},
                  {"url": "file:///etc/hostname"}, {"url": "/gradio_api/file=/etc/hostname"}, nested(900)):  # fmt: skip
        with pytest.raises(
            gr.Error, match=r"picture is .*; it must be an image file that was uploaded to this page, a data"
        ):
            sent(demo, value)
    assert not opened
    for empty in (None, "", {"path": None, "url": None}):
        assert sent(demo, empty) == [None]


def test_a_data_url_is_bounded_before_it_is_decoded_and_refused_in_one_line(kit):
    demo = page_of(kit, lambda picture: None, kit.pictures.Pad())
    (picture,) = sent(demo, url_of(encoded(Image.new("L", (20, 10), 0))))
    assert picture.size == (20, 10) and picture.mode == "RGB"
    for value, message in (
        ({"url": "data:image/png;base64," + "A" * kit.pictures.MAX_URL}, "it must be a data URL of at most 4,000,000"),
        ({"url": "data:image/png;base64,A!"}, "picture: the drawing is not base64-encoded"),
        (url_of(b"nothing"), "picture: the drawing is not a picture that can be read"),
        (url_of(encoded(Image.new("L", (2500, 2500)))), "picture: the drawing has more than 4 megapixels, the most"),
    ):
        with pytest.raises(gr.Error, match=message):
            sent(demo, value)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def tags_that_share(count: int, size: int) -> bytes:
    """EXIF of `count` tags, each of which is the same `size` bytes."""
    start = 8 + 2 + 12 * count + 4
    tags = b"".join(struct.pack("<HHII", 1000 + i, 1, size, start) for i in range(count))
    return b"II*\0" + struct.pack("<IH", 8, count) + tags + bytes(4 + size)


def test_a_small_file_that_unpacks_to_much_costs_little(kit):
    """Each within 100 MB of memory, measured in a process of its own by the benchmark; here by what is kept of it."""
    small = Image.new("RGB", (300, 200), "white")
    png, jpeg = encoded(small), encoded(small, "JPEG")
    exif = tags_that_share(300, 3_000_000)  # 0.9 GB
    parts = [exif[i : i + 60_000] for i in range(0, len(exif), 60_000)]
    body = b"".join(b"\xff\xe1" + struct.pack(">H", 8 + len(part)) + b"Exif\0\0" + part for part in parts)
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000)))
    scan = encoded(Image.new("L", (300, 200)), "JPEG", progressive=True)
    scan, end = scan[: scan.rindex(b"\xff\xda")], scan[scan.rindex(b"\xff\xda") : -2]
    frames = [Image.new("P", (300, 200), i) for i in range(50)]
    read = kit.pictures.open_picture
    before = resident()
    for data in (
        png[:33] + chunk(b"eXIf", exif) + png[33:],
        jpeg[:2] + body + jpeg[2:],
        encoded(small, "WEBP", exif=b"Exif\0\0" + exif),
        encoded(small.convert("P"), "GIF", save_all=True, append_images=frames),
        encoded(small, "PNG", save_all=True, append_images=frames),
        encoded(small, "BMP"),
    ):
        assert read(data, "it").size == (300, 200)
    for data in (
        png[:33] + 10 * text + png[33:],
        png[:-12] + 10 * text + png[-12:],
        png[:33] + chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(50_000_000))) + png[33:],
        scan + 200 * end + b"\xff\xd9",
        encoded(small, "TIFF"),
        encoded(small, "PPM"),
        encoded(small, "EPS"),
        b"%!PS\n",
        b"",
    ):
        with pytest.raises(
            gr.Error, match="it is not a picture that can be read; a PNG, JPEG, WebP, GIF or BMP would be"
        ):
            read(data, "it")
    assert resident() - before < 200e6
    for side in ((2100, 2000), (65_000, 65_000)):
        header = struct.pack(">IIBBBBB", *side, 8, 6, 0, 0, 0)
        with pytest.raises(gr.Error, match="it has more than 4 megapixels"):
            read(png[:8] + chunk(b"IHDR", header) + png[33:], "it")
    with pytest.raises(gr.Error, match="it has more than 10 MB"):
        read(bytes(10_000_001), "it")


def resident() -> float:
    """Bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_picture_is_upright_on_white_paper_and_no_larger_than_is_needed(kit):
    read = kit.pictures.open_picture
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(np.uint8(np.arange(300 * 200).reshape(200, 300) % 256))
    assert read(encoded(lying, "JPEG", exif=exif), "it").size == (200, 300)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        assert read(encoded(Image.new("RGB", (2000, 1000), "white"), kind), "it").size == (1024, 512)
    clear = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    assert read(encoded(clear), "it").getpixel((0, 0)) == (255, 255, 255)
    assert read(encoded(Image.new("I;16", (4, 4), 30_000)), "it").getpixel((0, 0)) == (117, 117, 117)
    assert read(encoded(Image.new("L", (1_000_000, 1))), "it").size == (1024, 1)


def test_one_picture_is_decoded_at_a_time(kit, monkeypatch):
    inside, most = [], []

    def slowly(picture, data):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return picture

    monkeypatch.setattr(kit.pictures, "_decoded", slowly)
    data = encoded(Image.new("L", (10, 10)))
    threads = [threading.Thread(target=kit.pictures.open_picture, args=(data, "it")) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


# A page that is served


@pytest.fixture(scope="module")
def served(kit, tmp_path_factory):
    """The address of a small page, as all Spaces are launched."""

    def asked(count: int, picture) -> str:
        if count == 3:
            raise RuntimeError("a secret of the server")
        return f"{count} {picture is None}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        with kit.theme.page("test") as demo:
            given = [gr.Slider(1, 9, 1, step=1), kit.pictures.Pad()]
            gr.Button().click(asked, given, gr.Textbox(), api_name="asked")
        threading.Thread(target=kit.theme.launch, args=(demo,), daemon=True).start()
        until = time.monotonic() + 120
        while not getattr(demo, "local_url", None) and time.monotonic() < until:
            time.sleep(0.05)
        yield SimpleNamespace(url=demo.local_url, demo=demo)
        demo.close()


def answer(address: str, body: bytes | None = None) -> tuple[int, str]:
    headers = {"Content-Type": "application/json"} if body is not None else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_no_one_is_told_what_others_do(served):
    for place in ("monitoring", "monitoring/summary", "monitoring/x", "monitoring/x/dashboard"):
        assert answer(f"{served.url}{place}")[0] in (403, 404), place
    assert answer(served.url)[0] == 200


def test_what_reaches_no_control_is_answered_in_one_line_too(served):
    api = f"{served.url}gradio_api"

    def said(path: str, content) -> tuple[int, str]:
        status, text = answer(f"{api}/{path}", content if isinstance(content, bytes) else json.dumps(content).encode())
        assert "Traceback" not in text and 'File "' not in text and len(text) < 500
        return status, text

    for path, content, status, words in (
        ("run/asked", {"data": [2, None]}, 200, "2 True"),
        ("run/asked", {"data": [True, None]}, 500, "count is True; it must be a whole number from 1 to 9"),
        ("run/asked", {"data": [3, None]}, 500, "This page has failed at what it was asked; its log says why"),
        ("run/asked", b'{"data": [NaN, null]}', 500, "count is nan"),
        ("run/asked", {"data": 3}, 422, "valid list"),
        ("run/asked", b"[" * 100_000, 400, "parsing"),
        ("run/nothing", {"data": []}, 400, "API name: nothing"),
        ("call/v2/asked", {"nothing": 1}, 400, "nothing"),
        ("call/v2/asked", {"count": 1}, 400, "required argument: picture"),
        ("queue/join", {"data": [], "fn_index": 99, "session_hash": "x"}, 400, "99"),
        ("run/asked", {"data": ["x" * 16_000_000, None]}, 413, "too long; at most 16 MB"),
    ):
        found = said(path, content)
        assert found[0] == status and words in found[1], (path, found)
