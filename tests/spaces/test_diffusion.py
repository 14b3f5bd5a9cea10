"""The diffusion Space in a real browser and by its API, on tiny models in their portable form."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.spaces.conftest import (
    changed,
    draw_stroke,
    fill,
    open_tab,
    opened,
    refused,
    serving,
    settled,
    source_of,
    trained,
)

pytestmark = pytest.mark.browser
TINY = ["--max_steps", 2, "--eval_every", 2, "--save_every", 2, "--sample_every", 2, "--num_inference_steps", 4]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folder that holds two portable ones."""
    place = tmp_path_factory.mktemp("diffusion")
    for name, words in (
        ("ddpm-tiny", ["--width", "8", "8"]),
        ("ddpm-2d", ["--dataset", "spiral", "--network", "mlp", "--width", "16"]),
    ):
        trained("training.diffusion.ddpm", place / name, *TINY, *words)
    return place


@pytest.fixture(scope="module")
def url(models):
    with serving("diffusion", models / "space", f"{models / 'ddpm-tiny'},{models / 'ddpm-2d'}") as address:
        yield address


@pytest.fixture(params=[1280, 390])
def page(request, browser, url):
    with opened(browser, url, request.param) as page:
        page.get_by_text(re.compile("step 20 of 20")).first.wait_for()  # the page is not empty before the first click
        yield page


def test_samples_are_streamed_and_can_be_stopped(page):
    first = source_of(page, "samples")
    fill(page, "Steps", 1000)
    page.get_by_role("button", name="Draw samples").click()
    changed(page, "samples", first)
    page.locator("#draw-stop").click()
    stopped = settled(page, page.locator("#where").inner_text)
    assert re.search(r"step \d+ of 1000", stopped) and "step 1000" not in stopped
    # the place of the stopped job is free again
    fill(page, "Steps", 3)
    page.get_by_role("button", name="Draw samples").click()
    page.get_by_text("step 3 of 3").wait_for()
    source_of(page, "strip")


def test_noise_follows_the_slider(page):
    open_tab(page, "Noise")
    first = source_of(page, "at-once")
    fill(page, "Timestep t", 900)
    second = changed(page, "at-once", first)
    assert source_of(page, "bit-by-bit") != second
    guess = source_of(page, "guess")  # before the click: on a quick machine the answer is there at once
    page.locator("#examples button.thumbnail-item").nth(1).click()
    changed(page, "guess", guess)
    page.locator("#pad .pad-clear").click()
    page.get_by_text("There is nothing on the paper yet").first.wait_for()


def test_what_is_painted_over_is_filled_in(page):
    open_tab(page, "Fill in")
    first = source_of(page, "filled")
    page.get_by_label("all but what I paint over").check()
    page.get_by_text("step 160 of 160").wait_for()
    page.get_by_role("button", name="Fill in").click()
    page.get_by_text("Nothing is painted over yet").first.wait_for()
    draw_stroke(page, "pad-cover")
    page.get_by_role("button", name="Fill in").click()
    changed(page, "filled", first)


def test_a_drawing_is_redrawn(page):
    open_tab(page, "From a drawing")
    first = source_of(page, "redrawn")
    page.get_by_text("step 24 of 24").wait_for()
    fill(page, "Different ways", 1)
    page.get_by_role("button", name="Redraw").click()
    changed(page, "redrawn", first)


def test_points_move_through_a_field(page):
    open_tab(page, "2-D")
    page.locator("#cloud .dots circle").first.wait_for()
    page.get_by_text("step 40 of 40").wait_for()
    assert page.locator("#cloud .dots circle").count() > 20
    page.get_by_text("step 40 of 40, the end: t = 0, and x is x₀").wait_for()
    page.get_by_role("button", name="Move the points").click()
    page.locator("#cloud .field path").first.wait_for(state="attached")


def test_a_model_without_measured_steps_says_so(page):
    open_tab(page, "Steps and quality")
    page.get_by_text("Nothing about steps was measured of ddpm-tiny").wait_for()


def test_the_api_keeps_what_is_known(client, tmp_path):
    from gradio_client import handle_file

    paper = Image.new("L", (64, 64), 255)
    paper.paste(0, (28, 8, 36, 56))
    paper.save(tmp_path / "one.png")
    one = handle_file(str(tmp_path / "one.png"))
    known, filled, where, seed = client.predict(
        "ddpm-tiny", one, "upper half", None, "any", 1, 5, 1, 7, False, api_name="/diffusion_complete"
    )
    assert "step **5** of 5" in where and seed == 7
    whole = np.asarray(Image.open(known).convert("RGB")).astype(int)
    half = len(whole) // 2
    assert whole[:half].std() > 0 and (whole[half:] == (194, 65, 12)).all()
    assert Image.open(filled).width > 100
    same = [
        client.predict("ddpm-tiny", "3", 2, 3, "DDIM", 2.0, 1, 5, False, api_name="/diffusion_sample")[0]
        for _ in range(2)
    ]
    assert np.array_equal(*(np.asarray(Image.open(path)) for path in same))


def test_the_api_refuses_what_it_cannot_do(client):
    sample = {"api_name": "/diffusion_sample"}
    # what a slider or a menu bounds, gradio refuses by itself
    refused(
        client,
        "num_inference_steps is 0; it must be a whole number from 1 to 1000",
        "ddpm-tiny",
        "any",
        1,
        0,
        "DDIM",
        1,
        1,
        0,
        False,
        **sample,
    )
    refused(
        client,
        "solver is 'Magic'; it must be one of 'DPM-Solver\\+\\+'",
        "ddpm-tiny",
        "any",
        1,
        5,
        "Magic",
        1,
        1,
        0,
        False,
        **sample,
    )
    refused(client, "ddpm-2d", "ddpm-2d", "any", 1, 5, "DDIM", 1, 1, 0, False, **sample)
    points = {"api_name": "/diffusion_points"}
    refused(client, "ddpm-tiny", "ddpm-tiny", "any", 10, 5, "DDIM", 0, False, **points)
    refused(client, "There is nothing on the paper", "ddpm-tiny", None, 100, 0, api_name="/diffusion_noise")


def test_a_model_of_any_name_is_on_the_tabs_whose_data_it_has(browser, models, portable, tmp_path):
    """Images under the name of points, points under one that says nothing, and a VAE."""
    for name, other in (("ddpm-tiny", "ddpm-2d"), ("ddpm-2d", "my-thing")):
        shutil.copytree(models / name, tmp_path / other)
    addresses = f"{tmp_path / 'ddpm-2d'},{tmp_path / 'my-thing'},{portable}"
    with serving("diffusion", tmp_path / "space", addresses) as url, opened(browser, url) as page:
        page.get_by_text("step 20 of 20").first.wait_for()
        assert page.get_by_text("but not on this page: tiny").count() == 1
        assert page.locator("#model input").input_value() == "ddpm-2d"
        source_of(page, "samples")
        open_tab(page, "2-D")
        page.locator("#cloud .dots circle").first.wait_for()
        assert page.locator("#flat-model input").input_value() == "my-thing"
        page.get_by_text("step 40 of 40").wait_for()
