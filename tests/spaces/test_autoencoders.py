"""The autoencoder Space in a real browser and by its API, on tiny models in their portable form."""

import json
import re
import shutil
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from pipelines.autoencoders.modeling_autoencoder import AutoencoderModel
from pipelines.autoencoders.modeling_hierarchical_vae import HierarchicalVAEModel
from pipelines.autoencoders.pipeline_autoencoder import AutoencoderPipeline
from pipelines.autoencoders.pipeline_hierarchical_vae import HierarchicalVAEPipeline
from pipelines.classical.modeling_gaussian_mixture import GaussianMixtureModel
from pipelines.classical.modeling_kde import KDEModel
from pipelines.classical.modeling_nmf import NMFModel
from pipelines.classical.pipeline_nmf import NMFPipeline
from tests.conftest import TINY
from tests.spaces.conftest import changed, draw_stroke, fill, open_tab, opened, refused, serving, source_of, trained
from training.publishing.build import build

pytestmark = pytest.mark.browser
SPEC = {"kind": "image", "shape": [1, 8, 8], "support": "8-bit", "range": [0, 1], "dequantization": "none",
        "num_classes": 10}  # fmt: skip


def make_models(place) -> str:
    """MODEL_ID: one tiny model for most of what the page shows, in their portable form."""
    digits = load_digits()
    x = torch.from_numpy(digits.images).float()[:600, None] / 16
    labels = torch.from_numpy(digits.target).long()[:600]
    classes = {"class_labels": labels, "num_classes": 10}
    torch.manual_seed(0)

    def autoencoder(prior=None, **config) -> AutoencoderPipeline:
        pipe = AutoencoderPipeline(AutoencoderModel(SPEC, **{"latent_dim": 5, "width": 16, **config}).eval())
        return pipe if prior is None else AutoencoderPipeline(pipe.autoencoder, prior(pipe.encode(x)))

    for step in NMFModel.fit_steps(x.flatten(1), 6, max_iter=8):
        parts = step.parts
    pipes = {
        "ae-2d-tiny": autoencoder(lambda z: KDEModel.fit(z, "scott", **classes), latent_dim=2),
        "sae-2d-tiny": autoencoder(lambda z: KDEModel.fit(z, "scott", **classes), latent_dim=2, supervised=True),
        "ae-tiny": autoencoder(lambda z: GaussianMixtureModel.fit(z, 2)),
        "sae-tiny": autoencoder(lambda z: GaussianMixtureModel.fit(z, 1, **classes), supervised=True),
        "swae-tiny": autoencoder(code_prior="gaussian"),
        "cae-tiny": autoencoder(standardise=True),
        "hierarchical-vae-tiny": HierarchicalVAEPipeline(
            HierarchicalVAEModel({**SPEC, "support": "binary"}, latent_dims=[4, 2], width=16).eval()
        ),
        "nmf-tiny": NMFPipeline(NMFModel.of(parts), SPEC),
    }
    for name, pipe in pipes.items():
        pipe.save_pretrained(place / "runs" / name)
        build(place / "runs" / name, place / name)
    return ",".join(str(place / name) for name in pipes)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    place = tmp_path_factory.mktemp("autoencoders")
    with serving("autoencoders", place / "space", make_models(place)) as address:
        yield address


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    """What a caller of the API hands over as a drawing: a one."""
    from gradio_client import handle_file

    paper = Image.new("L", (64, 64), 255)
    paper.paste(0, (28, 8, 36, 56))
    file = tmp_path_factory.mktemp("drawn") / "one.png"
    paper.save(file)
    return handle_file(str(file))


def table(*rows) -> dict:
    return {"people": ["Ann", "Bo", "Cy"], "dishes": ["Pie", "Stew", "Tart"], "ratings": [list(row) for row in rows]}


def taste(client, ratings: dict, factors: int = 1, person: str = "Ann") -> tuple:
    return client.predict(ratings, factors, 0, person, 0, api_name="/autoencoder_tastes")


# In a browser


@pytest.mark.parametrize("width", [1280, 390])
def test_a_plane_is_chosen_and_moved_over(browser, url, width):
    with opened(browser, url, width) as page:
        page.locator("#where h3").wait_for()
        assert page.locator("#planes button").count() == 2
        assert page.get_by_text("Not here").first.inner_text().count("2d") == 3
        first = page.locator("#where").inner_text()
        place = page.locator("#plane .explorer")
        place.focus()
        page.keyboard.press("Shift+ArrowLeft")
        page.wait_for_function("old => document.querySelector('#where').innerText !== old", arg=first)
        before = page.locator("#plane img").get_attribute("src")
        page.locator("#planes button").nth(1).click()
        page.locator("#where").get_by_text("The classifier reads").wait_for()
        page.wait_for_function("old => document.querySelector('#plane img').src !== old", arg=before)
        before = page.locator("#plane img").get_attribute("src")
        page.get_by_label("decoded images").check()
        page.wait_for_function("old => document.querySelector('#plane img').src !== old", arg=before)
        assert page.locator("#planes button[aria-pressed=true]").count() == 1


def test_every_tab_has_something_to_see_and_answers(browser, url):
    with opened(browser, url) as page:
        page.locator("#where h3").wait_for()
        open_tab(page, "Sample")
        first = source_of(page, "own")
        page.locator("#compared .pair").nth(2).wait_for()
        page.get_by_role("button", name="Draw samples").click()
        changed(page, "own", first)
        open_tab(page, "Denoise")
        first = source_of(page, "plain")
        page.locator("#error-curve svg").wait_for()
        assert page.locator("#denoised img").count() == 0  # there is no such model here
        page.get_by_label("pixels set to 0").check()
        changed(page, "plain", first)
        page.locator("#pad .pad-clear").click()
        page.get_by_text("There is nothing on the paper yet").first.wait_for()
        open_tab(page, "Tangents")
        page.locator("#tangents button").nth(4).wait_for()
        first = source_of(page, "strip")
        page.locator("#tangents button").nth(1).click()
        changed(page, "strip", first)
        open_tab(page, "Levels")
        page.get_by_text("All levels are drawn").wait_for()
        first = source_of(page, "redrawn")
        page.get_by_label("my drawing").check()
        second = changed(page, "redrawn", first)
        draw_stroke(page, "pad-levels")
        changed(page, "redrawn", second)
        open_tab(page, "Parts")
        page.locator("#parts-sum .total img").wait_for()
        first = source_of(page, "completed")
        page.get_by_label("left half").check()
        changed(page, "completed", first)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ratings_are_edited_filled_in_and_refused(browser, url, scheme):
    with opened(browser, url, 390, color_scheme=scheme) as page:
        open_tab(page, "Tastes")
        page.get_by_text("For Edda").wait_for()
        assert page.locator("#full-table td.filled").count() == 27
        cell = page.get_by_label("Mira: Cloud cake")
        cell.fill("")
        cell.press("Tab")
        page.wait_for_function("document.querySelectorAll('#full-table td.filled').length === 28")
        cell.fill("-1")
        cell.press("Tab")
        page.get_by_text("Mira's rating of Cloud cake is -1; it must be a number from 0 to 5").first.wait_for()
        page.locator("#reset").click()
        page.wait_for_function("document.querySelectorAll('#full-table td.filled').length === 27")
        assert cell.input_value() == "5"
        fill(page, "Tastes", 2)
        page.locator("#fit").click()
        page.wait_for_function("document.querySelectorAll('#liked thead th').length === 3")


def test_a_page_without_models_says_so(browser, tmp_path):
    with serving("autoencoders", tmp_path / "space", "") as url, opened(browser, url) as page:
        page.get_by_text("No model is set").wait_for()
        open_tab(page, "Parts")
        page.locator("#apart").click()
        page.get_by_text("This needs a model like nmf-mnist").first.wait_for()


@pytest.fixture(scope="module")
def renamed(portable, tmp_path_factory):
    """A page of models whose names say nothing, or what is not true: an autoencoder trained to denoise, a VAE called
    like an autoencoder, and a folder that is not there."""
    place = tmp_path_factory.mktemp("renamed")
    thing = ("--objective", "denoising", "--latent_dim", 2, "--prior", "kde", "--prior_by_class", "true")
    trained("training.autoencoders.autoencoder", place / "my-thing", *TINY, *thing)
    shutil.copytree(portable, place / "ae-2d-mnist")
    addresses = [str(place / name) for name in ("my-thing", "ae-2d-mnist", "nmf-mnist")]
    with serving("autoencoders", place / "space", ",".join(addresses)) as address:
        yield address


def test_a_model_of_any_name_is_on_the_tabs_whose_calls_it_answers(browser, renamed):
    with opened(browser, renamed) as page:
        page.get_by_text("but not on this page").wait_for()
        left_out = page.get_by_text("but not on this page").inner_text()
        assert "ae-2d-mnist" in left_out and "nmf-mnist (neither a folder" in left_out and "my-thing" not in left_out
        page.locator("#where h3").wait_for()
        assert page.locator("#planes button").count() == 1 and "Denoising" in page.locator("#planes").inner_text()
        open_tab(page, "Sample")
        source_of(page, "own")
        page.locator("#compared .pair").wait_for()
        open_tab(page, "Denoise")
        source_of(page, "denoised")
        assert page.locator("#plain img").count() == 0
        open_tab(page, "Tangents")
        page.locator("#tangents button").nth(1).wait_for()
        source_of(page, "strip")
        for tab, usual in (("Levels", "hierarchical-vae-mnist"), ("Parts", "nmf-mnist"), ("Tastes", "nmf-mnist")):
            open_tab(page, tab)
            missing = page.get_by_text(f"Not here, since MODEL_ID does not name it: {usual}").filter(visible=True)
            missing.wait_for()
        page.locator("#fit").click()
        page.get_by_text("This needs a model like nmf-mnist").first.wait_for()


def test_a_model_of_any_name_answers_by_the_api(renamed, digit):
    from gradio_client import Client

    client = Client(renamed, verbose=False)
    assert [card["name"] for card in client.predict(api_name="/autoencoder_codes")["cards"]] == ["my-thing"]
    *_, text, seed = client.predict("my-thing", "3", 4, 7, False, api_name="/autoencoder_sample")
    assert "codes of 2 numbers" in text and "one a class" in text and seed == 7
    _, _, denoised, other, errors, _ = client.predict(digit, "Gaussian noise", 0.5, 0, api_name="/autoencoder_denoise")
    assert denoised and other is None and "denoising" in errors
    cards, *_ = client.predict("my-thing", digit, api_name="/autoencoder_tangents")
    assert len(cards["cards"]) == 2
    for name in ("sample", "walk"):
        values = {"sample": ("any", 4, 7, False), "walk": (digit, "1", 2, 4)}[name]
        refused(client, "ae-2d-mnist", "ae-2d-mnist", *values, api_name=f"/autoencoder_{name}")


# By the API


def test_the_planes_tell_codes_from_holes(client):
    cards = client.predict(api_name="/autoencoder_codes")["cards"]
    assert [card["name"] for card in cards] == ["ae-2d-tiny", "sae-2d-tiny"]
    assert all(card["url"].startswith("data:image/png") for card in cards)
    place = {"x": 0.5, "y": 0.5}
    for view in ("codes", "decoded images", "density"):
        shown = client.predict("ae-2d-tiny", view, place, api_name="/autoencoder_plane")
        assert shown["url"].startswith("data:image/png") and (shown["x"], shown["y"]) == (0.5, 0.5)
    texts = [
        client.predict("ae-2d-tiny", {"x": x, "y": y}, api_name="/autoencoder_decode_at")[1]
        for x in (0.0, 0.5, 1.0)
        for y in (0.0, 0.5, 1.0)
    ]
    assert any("A hole" in text for text in texts) and all("times" in t or "millionth" in t for t in texts)


def test_the_api_gives_the_same_for_a_seed(client, digit):
    for model, label in (("ae-tiny", "any"), ("sae-tiny", "3"), ("swae-tiny", "any"), ("ae-2d-tiny", "7")):
        both = [client.predict(model, label, 4, 7, False, api_name="/autoencoder_sample") for _ in range(2)]
        assert both[0][3] == both[1][3] == 7
        assert all(np.array_equal(Image.open(a), Image.open(b)) for a, b in zip(both[0][:2], both[1][:2], strict=True))
    assert client.predict("any", 3, api_name="/autoencoder_compare").count('class="pair"') == 3
    both = [client.predict("new codes", None, 3, 4, 1, 5, False, api_name="/autoencoder_redraw") for _ in range(2)]
    assert np.array_equal(*(np.asarray(Image.open(image)) for image, _, _ in both))


def test_noise_tangents_levels_and_parts_by_the_api(client, digit):
    clean = client.predict(digit, "Gaussian noise", 0, 0, api_name="/autoencoder_denoise")
    assert clean[2] is None and clean[3] and "**0.0000**" in clean[4] and "<svg" in clean[5]  # nothing is corrupted
    cards, figure, text = client.predict("cae-tiny", digit, api_name="/autoencoder_tangents")
    assert len(cards["cards"]) == 5 and "curve-1" in figure and "5 numbers" in text
    steps = client.submit("cae-tiny", digit, "2", 2, 4, api_name="/autoencoder_walk")
    steps.result()
    assert len(steps.outputs()) == 4
    steps = client.submit(4, 1, 5, False, api_name="/autoencoder_levels")
    steps.result()
    assert [re.search(r"\*\*(\d)\*\* of 2", text)[1] for _, _, text, _ in steps.outputs()] == ["2", "1"]
    parts, total, text = client.predict(digit, 3, api_name="/autoencoder_parts")
    assert 1 <= total.count("×") <= 3 and "of 6 parts" in text and Image.open(parts).width > 100
    known, filled, original, text = client.predict(digit, "upper half", api_name="/autoencoder_complete")
    known, filled, original = (np.asarray(Image.open(p).convert("RGB")) for p in (known, filled, original))
    half = len(known) // 2
    assert (known[half:] == (194, 65, 12)).all() and np.array_equal(filled[:half], original[:half])


def test_tastes_are_filled_in_as_the_rank_says(client):
    text, filled, _, _ = taste(client, table([1, 2, 4], [1, 2, None], [0.5, 1, 2]), person="Bo")
    assert "**Tart**" in text and re.search(r"filled[^>]*>(3\.9|4\.0)<", filled)
    text, *_ = taste(client, table([1, 2, 4], [1, 2, 4], [0.5, 1, 2]))
    assert "Ann has rated everything" in text
    hostile = {**table([1, 2, None], [1, 2, 4], [1, 1, 1]), "dishes": ["<b>x</b>", "Stew", "[i](//y) *z*"]}
    hostile["people"] = ["<i>\n# Ann", "Bo", "Cy"]
    text, *tables = taste(client, hostile, person=hostile["people"][0])
    assert not [made for made in (text, *tables) if "<b>x" in made or "<i>" in made]
    assert text.startswith("### For &#60;i&#62; &#35; Ann\n1. **&#91;i&#93;(//y) &#42;z&#42;**")


def test_the_api_refuses_what_it_cannot_do(client, digit):
    for rows, message in (
        (([1, -2, 4], [1, 2, 3], [1, 1, 1]), "Ann's rating of Stew is -2; it must be a number from 0 to 5"),
        (([1, 2, 4], [None, None, None], [1, 1, 1]), "Bo has rated nothing yet"),
        (([1, None, 4], [1, None, 3], [1, None, 1]), "No one has rated Stew yet"),
        (([0, 0, 0], [0, None, 0], [0, 0, 0]), "All ratings are 0"),
        (([1, 2], [1, 2, 3], [1, 1, 1]), "Ann's row must hold 3 ratings"),
        (([1, "good", 4], [1, 2, 3], [1, 1, 1]), "Ann's rating of Stew is 'good'"),
    ):
        refused(client, message, table(*rows), 1, 0.1, "Ann", 0, api_name="/autoencoder_tastes")
    refused(
        client,
        "ratings is .*; it must be {.people.: names",
        {"people": ["A", "B"]},
        1,
        0,
        "A",
        0,
        api_name="/autoencoder_tastes",
    )
    for values, message, name in (
        (("ae-2d-tiny", {"x": 3, "y": 0}), "x is 3; it must lie between 0 and 1", "decode_at"),
        (("nmf-tiny", {"x": 0, "y": 0}), "model is 'nmf-tiny'; it must be one of", "decode_at"),
        (("ae-tiny", "any", 4, -1, False), "seed is -1", "sample"),
        (("ae-tiny", "any", 2.5, 1, False), "2.5", "sample"),
        (("any", -1), "seed is -1", "compare"),
        ((None, "Gaussian noise", 0.5, 0), "There is nothing on the paper yet", "denoise"),
        ((digit, "pixels set to 0", 1, 0), "level is 1(.0)?; it must lie between 0 and 0.95", "denoise"),
        (("cae-tiny", None), "There is nothing on the paper yet", "tangents"),
        (("cae-tiny", digit, "9", 1, 4), "tangent is '9'; it must be one of 1, 2, 3, 4, 5", "walk"),
        (("my drawing", None, 1, 1, 1, 0, False), "There is nothing on the paper yet", "redraw"),
        ((None, 3), "There is nothing on the paper yet", "parts"),
        ((None, "left half"), "There is nothing on the paper yet", "complete"),
    ):
        refused(client, message, *values, api_name=f"/autoencoder_{name}")


def test_endpoints_are_tools_with_names_of_their_own(url):
    with urllib.request.urlopen(f"{url}/gradio_api/mcp/schema", timeout=30) as answer:
        tools = {tool["name"]: tool for tool in json.load(answer)}
    names = "codes plane decode_at sample compare denoise tangents walk levels redraw parts complete tastes"
    assert set(tools) == {f"autoencoder_{name}" for name in names.split()}
    assert all(tool["description"] for tool in tools.values())
