"""The adversarial Space in a real browser and by its API, on tiny models in their portable form."""

import re

import numpy as np
import pytest
from PIL import Image

from tests.spaces.conftest import (
    changed,
    click_until,
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
TINY = ["--max_steps", 2, "--eval_every", 2, "--save_every", 2, "--sample_every", 2, "--latent_dim", 5,
        "--generator_width", 8, 16, "--discriminator_width", 16, 8]  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    place = tmp_path_factory.mktemp("adversarial")
    for name, words in (("knows-classes", ["--conditional", "true"]), ("a-critic", ["--objective", "wasserstein"])):
        trained("training.adversarial.gan", place / name, *TINY, *words)
    with serving("adversarial", place / "space", f"{place / 'knows-classes'},{place / 'a-critic'}") as address:
        yield address


@pytest.fixture(params=[1280, 390])
def page(request, browser, url):
    with opened(browser, url, request.param) as page:
        source_of(page, "samples")  # the page is not empty before the first click
        yield page


def open_experiment(page, name: str) -> None:
    if not page.get_by_role("tab", name="Mode collapse").is_visible():
        open_tab(page, "Laboratory")
        page.locator("#modes-gan .plane svg").wait_for(state="attached")
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.is_visible():  # in the menu of the inner row of tabs
        page.locator(".overflow-menu button").filter(visible=True).nth(1).click()
        tab = page.locator(".overflow-dropdown").get_by_text(name, exact=True).filter(visible=True)
    tab.click()


def test_samples_digits_and_walks_are_drawn(page):
    first = source_of(page, "samples")
    page.get_by_role("button", name="Draw samples").click()
    changed(page, "samples", first)
    page.get_by_text("Its discriminator takes these for real").wait_for()
    open_tab(page, "Ten digits")
    first = source_of(page, "sheet")
    page.get_by_role("button", name="Draw all digits").click()
    changed(page, "sheet", first)
    open_tab(page, "Walk")
    first = source_of(page, "strip")
    fill(page, "Number of images", 4)
    page.get_by_role("button", name="Walk").click()
    changed(page, "strip", first)


def test_the_discriminator_answers_and_codes_are_found(page):
    open_tab(page, "Ask the discriminator")
    page.get_by_text("takes your drawing for real").wait_for()
    first = source_of(page, "seen")
    page.locator("#examples button.thumbnail-item").nth(1).click()
    changed(page, "seen", first)
    page.locator("#figure svg .mark").first.wait_for(state="attached")
    open_tab(page, "Find z")
    page.get_by_role("button", name="Find its z").click()
    page.get_by_text("Mean squared error").wait_for()
    source_of(page, "nearest")
    page.locator("#pad-find .pad-clear").click()
    click_until(page, "Find its z", "There is nothing on the paper yet")


def test_both_players_train_live_and_stop(page):
    open_experiment(page, "Mode collapse")
    page.get_by_text("Not trained yet").wait_for()
    fill(page, "Steps of the generator", 3000)
    fill(page, "Discriminator steps for each", 1)
    page.get_by_role("button", name="Train both").click()
    page.get_by_text(re.compile(r"step ([5-9]\d|\d{3,4}) of 3000")).wait_for()
    assert page.locator("#modes-wgan .dots circle").count() > 8
    page.locator("#train-stop").click()
    # in that time 25 steps, the next frame, are long done
    stopped = settled(page, page.locator("#where-modes").inner_text, 4)
    assert "of 3000" in stopped and "step 3000" not in stopped
    open_tab(page, "Sample")
    page.wait_for_timeout(1_000)  # a narrow row of tabs is laid out anew
    open_tab(page, "Laboratory")
    page.wait_for_timeout(500)
    assert page.locator("#where-modes").inner_text() == stopped  # what was trained is still there


def test_the_game_and_the_divergences_follow_their_sliders(page):
    open_experiment(page, "The game x y")
    page.get_by_text("times what it was (simultaneous)").wait_for()
    assert page.locator("#paths path.curve").count() == 3
    fill(page, "Steps", 1)
    page.locator("#ending").get_by_text("1 times what it was (simultaneous)").wait_for()
    open_experiment(page, "Sliding apart")
    page.locator("#numbers").get_by_text("0.416").wait_for()  # 0.6 log 2
    fill(page, "Shift", 1)
    page.locator("#numbers").get_by_text("0.347").wait_for()  # halfway between log 2 and no slope at all


def test_a_discriminator_and_two_fits_come_to_their_ends(page):
    open_experiment(page, "Optimal discriminator")
    fill(page, "Steps", 100)
    page.get_by_role("button", name="Train the discriminator").click()
    page.get_by_text("step 100 of 100").wait_for()
    assert page.locator("#confidence-curve path.curve-3").count() > 0
    open_experiment(page, "One Gaussian for two")
    page.get_by_text("step 500 of 500").wait_for()
    page.locator("#fits").get_by_text("mean 2.00").wait_for()


def test_the_api_gives_the_same_for_a_seed(client):
    same = [client.predict("knows-classes", 3, 1.0, 7, False, api_name="/gan_digits") for _ in range(2)]
    assert same[0][1] == same[1][1] == 7
    sheets = [np.asarray(Image.open(path)) for path, _ in same]
    assert np.array_equal(*sheets) and sheets[0].shape[0] > 3 * sheets[0].shape[1]  # ten classes, three styles
    *_, text, seed = client.predict("ring of 8", 50, 1, 3, False, api_name="/laboratory_modes")
    assert "of 8 modes" in text and seed == 3


def test_a_critic_without_classes_answers_too(client, tmp_path):
    from gradio_client import handle_file

    paper = Image.new("L", (64, 64), 255)
    paper.paste(0, (28, 8, 36, 56))
    paper.save(tmp_path / "one.png")
    one = handle_file(str(tmp_path / "one.png"))
    *_, text, seed = client.predict("a-critic", "any", 4, 1.0, 3, False, api_name="/gan_sample")
    assert "critic" in text and seed == 3
    figure, text, _ = client.predict("a-critic", "any", one, api_name="/gan_confidence")
    assert "The critic gives your drawing" in text and "%" in text and "<svg" in figure
    *_, text = client.predict("a-critic", "any", one, 0, api_name="/gan_find")
    assert "Mean squared error" in text and "Nearest as" not in text
    _, strip = client.predict("a-critic", "any", 1, 2, 3, api_name="/gan_interpolate")
    assert Image.open(strip).width > 2 * Image.open(strip).height


def test_the_api_refuses_what_it_cannot_do(client):
    refused(client, "trained without classes", "a-critic", 3, 1, 0, False, api_name="/gan_digits")
    refused(client, "start and end are both 5", "a-critic", "any", 5, 5, 4, api_name="/gan_interpolate")
    refused(client, "There is nothing on the paper", "a-critic", "any", None, api_name="/gan_confidence")
    refused(client, "both 0", 0, 0, 0.1, 10, api_name="/laboratory_game")
    refused(client, "seed is -1", "one beside the other", 100, -1, api_name="/laboratory_discriminator")
