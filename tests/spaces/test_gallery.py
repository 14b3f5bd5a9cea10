"""The gallery: the front page, and a page for each Space, with the models that it can show."""

import json

import pytest

from tests.conftest import ROOT
from tests.spaces.conftest import changed, open_tab, opened, serving, source_of
from training.publishing.build import build

pytestmark = pytest.mark.browser
CHECKPOINTS = sorted(p.parent.name for p in ROOT.glob("checkpoints/*/run.json"))


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The gallery with one model of the box, in its portable form, and one that no page knows."""
    folder = tmp_path_factory.mktemp("gallery")
    build(ROOT / "checkpoints" / "vae-digits", folder / "vae-digits")
    with serving("gallery", folder / "space", f"{folder}/vae-digits,{folder}/unknown") as address:
        yield address


@pytest.mark.parametrize("width", [1280, 390])
def test_the_front_page_leads_to_each_space_and_lists_the_box(browser, url, width):
    with opened(browser, url, width) as page:
        page.get_by_text("Can it say how probable something is?").wait_for()
        for name in CHECKPOINTS:
            assert page.locator("#box td").get_by_text(name, exact=True).count() == 1
        for app in ROOT.glob("spaces/*/app.py"):
            if app.parent.name != "gallery":
                card = page.locator(f"#tree a.card[href='{app.parent.name}']")
                assert card.locator("img").get_attribute("src").startswith("data:image/png")
        page.locator("#tree a.card[href='vae']").click()
        first = source_of(page, "samples")
        page.get_by_role("button", name="Draw samples").click()
        changed(page, "samples", first)
        open_tab(page, "Reconstruct")
        page.locator("#examples button.thumbnail-item").first.click()
        source_of(page, "again")
        page.get_by_role("link", name="Home").click()
        page.get_by_text("In the box").wait_for()


def test_a_page_shows_its_own_models_only(url):
    from gradio_client import Client

    choices = json.dumps(Client(url, verbose=False).view_api(return_format="dict"))
    assert "vae-digits" in choices and "unknown" not in choices
