"""Pages as a person meets them: built by the publishing step, served from their own folder, opened in Chromium."""

import contextlib
import importlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TINY, run_here
from training.publishing.spaces import kit_files

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 600  # seconds: a busy machine is slow, not wrong; a cold page imports torch and diffusers first
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@contextlib.contextmanager
def serving(
    space: str,
    place: Path,
    model_id: str,
    python: str = sys.executable,
    change: Callable[[Path], None] | None = None,
    **environment: str,
):
    """The address of a Space, built into `place`, changed there if asked, and running in a process of its own."""
    done = run_here("training.publish", "--space", f"spaces/{space}", "--to", place)
    assert done.returncode == 0, done.stderr
    if change is not None:
        change(place)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environment = {
        **os.environ,
        "MODEL_ID": model_id,
        "GRADIO_SERVER_PORT": str(port),
        # files are named by their content: of two servers with one folder, the second hands out what the first writes
        "GRADIO_TEMP_DIR": str(place.parent / f"{place.name}-files"),
        **environment,
    }
    log = place.parent / f"{place.name}.log"
    with open(log, "w") as out:
        process = subprocess.Popen([python, "app.py"], cwd=place, env=environment, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process, log)
        yield url
        raised = re.findall(r"^[\w.]+(?:Error|Exception)\b", log.read_text(), re.MULTILINE)
        # those are the messages that a person sees; anything else is a fault
        assert set(raised) <= {"gradio.exceptions.Error"}, log.read_text()
    except BaseException as error:
        ended = process.poll()
        how = "runs" if ended is None else f"ended with {ended}"
        error.add_note(f"The server, which {how}, said:\n{log.read_text()[-4_000:]}")
        raise
    finally:
        process.terminate()
        process.wait(60)


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    """Until the server answers, or has ended."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return urllib.request.urlopen(url, timeout=60).close()
        except OSError:
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.1)


def trained(recipe: str, to: Path, *words) -> Path:
    """The portable folder `to` of a model, trained as the words say."""
    run = to.with_name(f"{to.name}-run")
    for line in ((recipe, "--output_dir", run, *words), ("training.publish", run, "--to", to)):
        done = run_here(*line)
        assert done.returncode == 0, done.stderr
    return to


@pytest.fixture(scope="session")
def conditional_portable(shared) -> Path:
    """The portable folder of a tiny model that was trained with classes."""
    return shared("tiny-classes", lambda to: trained("training.autoencoders.vae", to, "--conditional", "true", *TINY))


@pytest.fixture
def client(url):
    """A caller of the API of the page at the module's `url`."""
    from gradio_client import Client

    return Client(url, verbose=False)


@contextlib.contextmanager
def module_at(file: Path):
    """A module of a Space, by its own name, as the Space imports it."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[file.stem]


@contextlib.contextmanager
def kit_package(place: Path):
    """The package `kit` with its modules, from a copy in `place`: gradio leaves files beside modules that define
    components."""
    (place / "kit").mkdir(exist_ok=True)
    for file in kit_files():
        shutil.copyfile(file, place / "kit" / file.name)
    sys.path.insert(0, str(place))
    try:
        package = importlib.import_module("kit")
        for file in sorted((place / "kit").glob("[a-z]*.py")):
            importlib.import_module(f"kit.{file.stem}")
        yield package
    finally:
        sys.path.remove(str(place))
        for name in [name for name in sys.modules if name.split(".")[0] == "kit"]:
            del sys.modules[name]


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail("Chromium is not installed, and REQUIRE_BROWSER is set")
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@contextlib.contextmanager
def opened(browser, url: str, width: int = 1280, expected: tuple[str, ...] = (), **context):
    """A page in a session of its own, which ends with a console free of errors and nothing wider than the window."""
    session = browser.new_context(viewport={"width": width, "height": 900}, **context)
    page = session.new_page()
    page.set_default_timeout(1_000 * PATIENCE)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(url)
    try:
        yield page
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    except BaseException as error:
        with contextlib.suppress(Exception):  # a page that crashed has no text
            error.add_note(f"The page said:\n{page.locator('body').inner_text(timeout=10_000)[-3_000:]}")
        error.add_note(f"Its console: {errors}")
        raise
    finally:
        session.close()
    assert not [error for error in errors if not any(word in error for word in expected)]


def source_of(page, element: str) -> str:
    image = page.locator(f"#{element} img").first
    image.wait_for()
    return image.get_attribute("src")


def changed(page, element: str, old: str) -> str:
    """Wait until an image is another one than before."""
    page.wait_for_function(
        "([e, old]) => (document.querySelector(`#${e} img`)?.getAttribute('src') ?? old) !== old", arg=[element, old]
    )
    return source_of(page, element)


def settled(page, read: Callable[[], str], still: float = 3.0) -> str:
    """What `read` gives once it has stayed the same for `still` seconds: on a busy machine what was on its way comes late."""
    last, since, until = read(), time.monotonic(), time.monotonic() + PATIENCE
    while time.monotonic() - since < still:
        assert time.monotonic() < until, f"it goes on: {last[:80]}"
        page.wait_for_timeout(100)
        if (now := read()) != last:
            last, since = now, time.monotonic()
    return last


def click_until(page, button: str, said: str) -> None:
    """Click a button until a text is seen: while a session's last request runs, which on a busy machine may take longer
    than another one waits for it, it gets another answer."""
    until = time.monotonic() + PATIENCE
    while True:
        page.get_by_role("button", name=button, exact=True).click()
        try:
            return page.get_by_text(said).first.wait_for(timeout=15_000)
        except Exception:
            if time.monotonic() > until:
                raise


def open_tab(page, name: str) -> None:
    """By its tab, or in a narrow window by the menu of those that have no room."""
    page.get_by_role("tab").first.wait_for()
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.is_visible():
        page.locator(".overflow-menu button").first.click()
        tab = page.locator(".overflow-dropdown").get_by_text(name, exact=True)
    tab.click()


def draw_stroke(page, element: str) -> None:
    """A vertical line on a pad."""
    canvas = page.locator(f"#{element} canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y - box["height"] / 4)
    page.mouse.down()
    page.mouse.move(x, y + box["height"] / 4, steps=8)
    page.mouse.up()


def refused(client, message: str, *values, api_name: str) -> None:
    """A call by the API gets this message."""
    from gradio_client.exceptions import AppError

    with pytest.raises((AppError, ValueError), match=message):
        client.predict(*values, api_name=api_name)


def fill(page, label: str, value: int) -> None:
    """A slider's number box."""
    box = page.get_by_label(f"number input for {label}").filter(visible=True).first
    box.fill(str(value))
    box.press("Enter")
