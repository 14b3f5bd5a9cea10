"""The VAE Space in a real browser and by its API, on tiny models in their portable form."""

import json
import re
import urllib.request

import numpy as np
import pytest
from PIL import Image

from tests.spaces.conftest import changed, draw_stroke, open_tab, opened, refused, serving, settled, source_of

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def url(portable, conditional_portable, tmp_path_factory):
    with serving("vae", tmp_path_factory.mktemp("vae") / "space", f"{conditional_portable},{portable}") as address:
        yield address


@pytest.fixture(params=[1280, 390])
def page(request, browser, url):
    with opened(browser, url, request.param) as page:
        source_of(page, "samples")  # the page is not empty before the first click
        yield page


def test_a_click_draws_new_samples_and_tells_the_seed(page):
    first = source_of(page, "samples")
    page.get_by_role("button", name="Draw samples").click()
    second = changed(page, "samples", first)
    seed = page.locator("#seed input").input_value()
    assert re.fullmatch(r"\d+", seed)
    page.get_by_label("New seed each time").first.uncheck()
    page.get_by_label("number input for Number of images").first.fill("4")
    page.get_by_label("number input for Number of images").first.press("Enter")
    page.get_by_role("button", name="Draw samples").click()
    changed(page, "samples", second)
    assert page.locator("#seed input").input_value() == seed


def test_a_drawing_is_reconstructed_as_it_is_drawn(page):
    open_tab(page, "Reconstruct")
    page.get_by_role("button", name="Encode and decode").click()
    page.get_by_text("There is nothing on the paper yet").first.wait_for()
    draw_stroke(page, "pad")
    first = source_of(page, "again")
    page.get_by_text(re.compile(r"ELBO [−\d]")).first.wait_for()
    assert "reconstruction" in page.locator("#terms").inner_text()
    assert "reads a" in page.locator("#terms").inner_text()  # the first model was trained with classes
    page.locator("#examples button.thumbnail-item").nth(7).click()
    changed(page, "again", first)
    page.locator("#pad .pad-clear").click()
    page.get_by_text("There is nothing on the paper yet").first.wait_for()


def test_a_file_is_put_on_the_pad_and_what_is_no_picture_gets_a_message(page, tmp_path):
    open_tab(page, "Reconstruct")
    (tmp_path / "text.png").write_text("this is no picture")
    page.locator("#pad input[type=file]").set_input_files(tmp_path / "text.png")
    page.get_by_text("text.png is not a picture that can be read").wait_for()
    photo = Image.new("RGB", (8000, 5000), "white")  # 40 megapixels
    photo.paste("black", (3800, 1000, 4200, 4000))
    photo.save(tmp_path / "photo.jpg")
    page.locator("#pad input[type=file]").set_input_files(tmp_path / "photo.jpg")
    source_of(page, "again")


def test_a_walk_shows_its_steps_and_can_be_stopped(page):
    open_tab(page, "Walk")
    page.get_by_label("number input for Number of images").nth(1).fill("48")
    page.get_by_label("number input for Number of images").nth(1).press("Enter")
    page.get_by_role("button", name="Walk", exact=True).click()
    changed(page, "strip", source_of(page, "strip"))  # it is under way
    page.locator("#walk-stop").click()
    stopped = settled(page, lambda: source_of(page, "strip"))  # for ten images and more, had it gone on
    width, height = page.locator("#strip img").first.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert width < 40 * height  # of 48 images beside each other
    # the place of the stopped job is free again
    page.get_by_label("number input for Number of images").nth(1).fill("3")
    page.get_by_label("number input for Number of images").nth(1).press("Enter")
    page.get_by_role("button", name="Walk", exact=True).click()
    changed(page, "strip", stopped)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_reload_in_mid_walk_leaves_a_page_that_works(browser, url, width):
    # gradio's own page reports the connection that the reload cuts
    with opened(browser, url, width, expected=("AbortError", "Connection errored out")) as page:
        open_tab(page, "Walk")
        page.get_by_label("number input for Number of images").nth(1).fill("48")
        page.get_by_label("number input for Number of images").nth(1).press("Enter")
        page.get_by_role("button", name="Walk", exact=True).click()
        source_of(page, "strip")
        page.reload()
        first = source_of(page, "samples")
        page.get_by_role("button", name="Draw samples").click()
        changed(page, "samples", first)


def test_the_map_answers_to_the_mouse_and_to_the_keys(page):
    open_tab(page, "Map")
    first = source_of(page, "live")
    page.locator("#map img").wait_for()
    place = page.locator("#map .explorer")
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.95 * box["width"], box["y"] + 0.1 * box["height"], steps=5)
    page.mouse.up()
    changed(page, "live", first)
    page.wait_for_function("document.querySelector('#code textarea, #code input').value.includes('+1.64')")
    second = page.locator("#code textarea, #code input").first.input_value()
    place.focus()
    page.keyboard.press("Shift+ArrowLeft")
    page.wait_for_function("old => document.querySelector('#code textarea, #code input').value !== old", arg=second)


def test_styles_keep_z_and_change_the_class(page):
    open_tab(page, "Styles")
    first = source_of(page, "sheet")
    page.get_by_label("picture", exact=True).check()
    page.get_by_role("button", name="Decode every class").click()
    changed(page, "sheet", first)
    page.get_by_text("Its style is kept in all ten classes").wait_for()


def test_the_likelihood_of_a_drawing_is_told_with_a_figure(page):
    open_tab(page, "How likely")
    page.get_by_role("button", name="How likely is it?").click()
    page.locator("#figure svg text").get_by_text("yours").wait_for()
    page.get_by_text("1,000 samples").wait_for()
    draw_stroke(page, "pad-likely")


def test_a_model_without_classes_says_so_and_the_session_goes_on(browser, url):
    with opened(browser, url) as page:
        first = source_of(page, "samples")
        page.locator("#model input").click()
        page.get_by_role("option", name="tiny", exact=True).click()
        second = changed(page, "samples", first)
        assert not page.locator("#class").is_visible()
        open_tab(page, "Styles")
        page.get_by_text("tiny was trained without classes").first.wait_for()
        open_tab(page, "Sample")
        page.get_by_role("button", name="Draw samples").click()
        changed(page, "samples", second)


def test_two_browsers_at_once_see_their_own_results(browser, url):
    with opened(browser, url) as one, opened(browser, url) as other:
        before = [source_of(p, "samples") for p in (one, other)]
        for page, seed in ((one, "1"), (other, "2")):
            page.get_by_label("New seed each time").first.uncheck()
            page.locator("#seed input").fill(seed)
        for page in (one, other):
            page.get_by_role("button", name="Draw samples").click()
        after = [changed(p, "samples", old) for p, old in zip((one, other), before, strict=True)]
        assert after[0] != after[1]
        assert [p.locator("#seed input").input_value() for p in (one, other)] == ["1", "2"]


# What a text's colour and the first opaque ground behind it make of a page, by WCAG 2: relative luminance, contrast.
CONTRAST = """() => {
  const channels = (c) => c.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  const walker = document.createTreeWalker(document.querySelector('.gradio-container main'), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element.closest('svg, style, .katex')) continue;
    let ground = [255, 255, 255];
    for (let e = element; e; e = e.parentElement) {
      const c = channels(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.99) { ground = c; break; }
    }
    const [a, b] = [luminance(channels(getComputedStyle(element).color)), luminance(ground)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${walker.currentNode.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(browser, url, scheme):
    with opened(browser, url, color_scheme=scheme) as page:
        source_of(page, "samples")
        dark = page.evaluate("document.body.classList.contains('dark')")
        assert dark == (scheme == "dark")
        for tab in ("Sample", "Reconstruct", "Walk", "Map", "Styles", "How likely"):
            open_tab(page, tab)
            page.wait_for_timeout(300)
            assert page.evaluate(CONTRAST) == []


def test_every_endpoint_answers(client, tmp_path):
    from gradio_client import handle_file

    picture = Image.new("L", (60, 60), 255)
    picture.paste(0, (25, 10, 35, 50))
    picture.save(tmp_path / "one.png")
    one, m = handle_file(tmp_path / "one.png"), "tiny-classes"
    image, seed = client.predict(m, "3", 4, 1.0, "mean", 7, False, api_name="/vae_sample")
    again, _ = client.predict(m, "3", 4, 1.0, "mean", 7, False, api_name="/vae_sample")
    assert seed == 7 and np.array_equal(Image.open(image), Image.open(again))
    _, _, text = client.predict(m, "any", one, api_name="/vae_reconstruct")
    assert "ELBO" in text
    steps = client.submit(m, one, one, 5, api_name="/vae_walk")
    steps.result()
    assert len(steps.outputs()) == 5  # one for each image, as it is made
    figure, text = client.predict(m, one, 50, api_name="/vae_how_likely")
    assert figure.startswith("<div") and "50 samples" in text
    _, seed, _ = client.predict(m, "random", None, 2, 1.0, 5, False, api_name="/vae_styles")
    assert seed == 5
    _, text = client.predict("tiny", "any", api_name="/vae_map")
    assert "latent units" in text
    _, code = client.predict("tiny", "any", {"x": 0.5, "y": 0.5}, api_name="/vae_decode_at")
    assert code.count("0.00") == 2  # the middle of the map is the median of the prior


def test_bad_input_by_the_api_gets_a_message_and_the_session_goes_on(client, tmp_path):
    from gradio_client import handle_file

    m = "tiny-classes"
    for values, message in (
        ((m, "any", 10**9, 1.0, "mean", 3, False), "count is 1000000000; it must be a whole number from 1 to 64"),
        ((m, "any", 2.5, 1.0, "mean", 3, False), "count is 2.5; it must be a whole number"),
        ((m, "any", 4, 99.0, "mean", 3, False), "temperature is 99(.0)?; it must be a number from 0 to 2"),
        ((m, "any", 4, 1.0, "mean", -1, False), "seed is -1; it must be a whole number from 0 to 2147483647"),
        ((m, "any", 4, 1.0, "mean", 2**70, False), f"seed is {2**70}; it must be a whole number from 0 to"),
        ((m, "banana", 4, 1.0, "mean", 3, False), "label is 'banana'; it must be one of 'any', '0', '1'"),
        (("nothing", "any", 4, 1.0, "mean", 3, False), "model is 'nothing'; it must be one of "),
    ):
        refused(client, message, *values, api_name="/vae_sample")
    (tmp_path / "text.png").write_text("this is no picture")
    Image.new("L", (8000, 5000), 255).save(tmp_path / "huge.png")
    frames = [Image.new("L", (60, 60), 255) for _ in range(3)]
    frames[1].paste(0, (25, 10, 35, 50))
    frames[0].save(tmp_path / "empty.gif", save_all=True, append_images=frames[1:])  # its first frame is empty
    for name, message in (
        ("text.png", "'text.png' is not a picture that can be read"),
        ("huge.png", "'huge.png' has more than 4 megapixels, the most that can be read"),
        ("empty.gif", "There is nothing on the paper yet"),
    ):
        refused(client, message, m, "any", handle_file(tmp_path / name), api_name="/vae_reconstruct")
    refused(client, "There is nothing on the paper yet", m, "any", None, api_name="/vae_reconstruct")
    refused(client, "x is 3; it must lie between 0 and 1", "tiny", "any", {"x": 3, "y": 0}, api_name="/vae_decode_at")
    refused(client, "place is 'banana'; it must be {", "tiny", "any", "banana", api_name="/vae_decode_at")
    clear = Image.new("RGBA", (60, 60), (0, 0, 0, 0))  # ink on nothing: the nothing is paper, though black below
    clear.paste((0, 0, 0, 255), (25, 10, 35, 50))
    clear.save(tmp_path / "clear.png")
    original, _, _ = client.predict(m, "any", handle_file(tmp_path / "clear.png"), api_name="/vae_reconstruct")
    seen = np.asarray(Image.open(original).convert("L"))
    assert seen[0, 0] == 0 and seen[len(seen) // 2, len(seen) // 2] == 255


def test_endpoints_are_tools_with_names_of_their_own(url):
    with urllib.request.urlopen(f"{url}/gradio_api/mcp/schema", timeout=30) as answer:
        tools = {tool["name"]: tool for tool in json.load(answer)}
    assert {
        "vae_sample",
        "vae_reconstruct",
        "vae_walk",
        "vae_map",
        "vae_decode_at",
        "vae_styles",
        "vae_how_likely",
    } == set(tools)
    assert all(tool["description"] for tool in tools.values())
    assert "request" not in tools["vae_sample"]["inputSchema"]["properties"]


@pytest.mark.parametrize(
    "model_id, message",
    [
        ("", "MODEL_ID names one or several"),
        ("no-such-model", "no-such-model, which is neither a folder nor a Hub id"),
        ("nobody/no-such-model", "nobody/no-such-model cannot be loaded"),
    ],
)
def test_a_missing_or_wrong_model_is_explained_on_the_page(browser, tmp_path, model_id, message):
    with serving("vae", tmp_path / "space", model_id) as url, opened(browser, url) as page:
        page.get_by_text(message).first.wait_for()
