"""The VAE Space in a real browser, on a tiny model in its portable form."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.conftest import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page_url(portable, tmp_path_factory):
    """The app as a Space runs it: from its own folder, without this repository on the path."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    folder = tmp_path_factory.mktemp("space")
    shutil.copytree(ROOT / "spaces" / "vae", folder, dirs_exist_ok=True)
    environment = {**os.environ, "MODEL_ID": str(portable), "GRADIO_SERVER_PORT": str(port)}
    with open(folder / "log.txt", "w") as log:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=folder, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(url, timeout=5)
                break
            except OSError:
                assert process.poll() is None, (folder / "log.txt").read_text()
                time.sleep(0.25)
        yield url
        raised = re.findall(r"^[\w.]+(?:Error|Exception)\b", (folder / "log.txt").read_text(), re.MULTILINE)
        assert set(raised) <= {"gradio.exceptions.Error"}, raised  # those are the messages that the page shows
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
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


@pytest.fixture
def page(browser, page_url):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)  # a busy machine is slow, not wrong
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(page_url)
    page.get_by_role("button", name="Draw samples").wait_for()
    yield page
    page.close()
    assert not errors


def source_of(page, element: str) -> str:
    image = page.locator(f"#{element} img").first
    image.wait_for()
    return image.get_attribute("src")


def test_a_click_draws_new_samples_and_tells_the_seed(page):
    first = source_of(page, "samples")  # the page is not empty before the first click
    page.get_by_role("button", name="Draw samples").click()
    page.wait_for_function("old => document.querySelector('#samples img')?.getAttribute('src') !== old", arg=first)
    seed = page.locator("#seed input").input_value()
    assert re.fullmatch(r"\d+", seed)
    second = source_of(page, "samples")
    page.get_by_label("New seed each time").uncheck()
    page.get_by_label("Number of images").first.fill("4")
    page.get_by_label("Number of images").first.press("Enter")
    page.get_by_role("button", name="Draw samples").click()
    page.wait_for_function("old => document.querySelector('#samples img')?.getAttribute('src') !== old", arg=second)
    assert page.locator("#seed input").input_value() == seed


def test_an_example_is_reconstructed(page):
    page.get_by_role("tab", name="Reconstruct").click()
    page.locator("#examples button.thumbnail-item").first.click()
    source_of(page, "again")
    page.get_by_text("ELBO").last.wait_for()
    assert re.search(r"ELBO -?\d+\.\d nats = reconstruction", page.locator("#terms").inner_text().replace("−", "-"))


def test_a_drawing_is_reconstructed_and_an_empty_canvas_gets_a_message(page):
    page.get_by_role("tab", name="Reconstruct").click()
    page.get_by_role("button", name="Encode and decode").click()
    page.get_by_text("There is nothing on the canvas yet").wait_for()
    canvas = page.locator("#canvas canvas").first
    canvas.wait_for()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y - 60)
    page.mouse.down()
    page.mouse.move(x, y + 60, steps=12)
    page.mouse.up()
    page.get_by_role("button", name="Encode and decode").click()
    source_of(page, "again")


def test_bad_input_by_the_api_gets_a_message(page_url):
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(page_url, verbose=False)
    image, seed = client.predict("tiny", "any", 4, 1.0, "mean", 3, False, api_name="/vae_sample")
    assert seed == 3 and os.path.getsize(image) > 0
    for bad, message in (
        (("tiny", "any", 10**9, 1.0, "mean", 3, False), "1000000000 is greater than maximum value 64"),
        (("tiny", "any", 4, 99.0, "mean", 3, False), "99(.0)? is greater than maximum value 2"),
        (("nothing", "any", 4, 1.0, "mean", 3, False), "not in the list of choices"),
    ):
        with pytest.raises((AppError, ValueError), match=message):
            client.predict(*bad, api_name="/vae_sample")
