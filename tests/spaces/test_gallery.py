"""The gallery: its front page, the way through its pages, and a page for each Space with the models that it can show."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT
from tests.spaces.conftest import changed, kit_package, module_at, open_tab, opened, serving, source_of
from training.publishing.build import build

pytestmark = pytest.mark.browser
CHECKPOINTS = sorted(p.parent.name for p in ROOT.glob("checkpoints/*/run.json"))
SPACES = sorted(p.parent.name for p in ROOT.glob("spaces/*/app.py") if p.parent.name != "gallery")
LIMBS = {
    "exact": "Exact likelihood",
    "bound": "A bound on the likelihood",
    "implicit": "Samples without a likelihood",
    "none": "No distribution of x",
    "": "Not measured yet",
}
NEW_PAGES = [  # branch and title of what is to come
    ("flows", "Continuous flows"), ("autoregressive", "PixelCNN"),
    ("autoregressive", "MaskGIT"), ("autoregressive", "Vector quantisation"), ("diffusion", "Text to image"),
    ("language", "Words and documents"), ("language", "Masked language models"), ("language", "Preferences"),
    ("made-up", "Made-up pictures"),
]  # fmt: skip
PAGE = """
import gradio as gr
from kit.models import Models
from kit.theme import page

TITLE, SENTENCE, BRANCH = {title!r}, "A page that does not exist.", {branch!r}
MODELS = Models(needs=(("a_call_that_nothing_answers",),))
with page(TITLE) as demo:
    gr.Markdown("# " + TITLE)
"""


def record(folder, name: str, title: str, **results) -> None:
    """A model of a family that does not exist, drawn by `vae-mnist`."""
    place = folder / "records" / name
    shutil.copytree(folder / "records" / "vae-mnist", place)
    run = json.loads((place / "run.json").read_text())
    declared = {"family": "made_up", "branch": "made-up", "title": title}
    (place / "run.json").write_text(json.dumps({**run, "family": "made_up", "declaration": declared}))
    if results:
        (place / "results.json").write_text(json.dumps(results))
    else:
        (place / "results.json").unlink()


def grow(folder) -> None:
    """Pages and models that others would add, each by files of its own."""
    pages = json.loads((folder / "pages.json").read_text())
    for number, (branch, title) in enumerate(NEW_PAGES):
        (folder / f"new-{number}.py").write_text(PAGE.format(title=title, branch=branch))
        pages.append(f"new-{number}")
    (folder / "pages.json").write_text(json.dumps(pages))
    calls = json.loads((folder / "records" / "vae-mnist" / "results.json").read_text())["calls"]
    record(folder, "painter-mnist", "Painter", likelihood="exact", calls=["paint"], data_kind="image", num_classes=0)
    record(folder, "coder-mnist", "Coder", likelihood="bound", calls=calls, data_kind="image", num_classes=0)
    record(folder, "newcomer-mnist", "Newcomer")


@pytest.fixture(scope="module")
def portable_digits(tmp_path_factory):
    """The portable folder of a model that comes with the project, and beside it the name of one that no page knows."""
    folder = tmp_path_factory.mktemp("gallery")
    build(ROOT / "checkpoints" / "vae-digits", folder / "vae-digits")
    return folder


@pytest.fixture(scope="module")
def url(portable_digits):
    models = f"{portable_digits}/vae-digits,{portable_digits}/unknown"
    with serving("gallery", portable_digits / "space", models) as address:
        yield address


@pytest.fixture(scope="module")
def grown_url(portable_digits):
    with serving("gallery", portable_digits / "grown", f"{portable_digits}/vae-digits", change=grow) as address:
        yield address


@pytest.mark.parametrize("width", [1280, 390])
def test_the_front_page_leads_to_each_space_and_lists_the_models(browser, portable_digits, url, width):
    tables = json.loads((portable_digits / "space" / "tables.json").read_text())
    with opened(browser, url, width) as page:
        page.get_by_text("Can it say how probable something is?").wait_for()
        for name in CHECKPOINTS:
            cells = page.locator("#tables td:first-child").get_by_text(name, exact=True).count()
            assert cells == sum(name in (row[0] for row in table["rows"]) for table in tables) >= 1
        for name in SPACES:
            card = page.locator(f"#tree a.card[href='{name}']").first
            assert card.locator("img").get_attribute("src").startswith("data:image/png")
        page.locator("#tree a.card[href='vae']").first.click()
        first = source_of(page, "samples")
        page.get_by_role("button", name="Draw samples").click()
        changed(page, "samples", first)
        open_tab(page, "Reconstruct")
        page.locator("#examples button.thumbnail-item").first.click()
        source_of(page, "again")
        page.get_by_role("link", name="Home").click()
        page.get_by_text("Trained weights that come with the project").wait_for()


def test_each_model_stands_where_its_likelihood_puts_it(browser, url):
    with opened(browser, url) as page:
        page.locator("#tree .limb").first.wait_for()
        limbs = {limb.locator("h3").inner_text(): limb.inner_text() for limb in page.locator("#tree .limb").all()}
        for name, likelihood in (("kde-mnist", "exact"), ("gpt-shakespeare", "exact"), ("vae-mnist", "bound"),
                                 ("ddpm-mnist", "bound"), ("ae-mnist", "implicit"), ("gan-mnist", "implicit"),
                                 ("kmeans-mnist", "none"), ("cae-mnist", "none"), ("pca-mnist", "none")):  # fmt: skip
            results = json.loads((ROOT / "checkpoints" / name / "results.json").read_text())
            assert results["likelihood"] == likelihood
            assert re.search(rf"(?<![\w-]){name}(?![\w-])", limbs[LIMBS[likelihood]]), name
        assert LIMBS[""] not in limbs  # all are measured


def test_a_page_shows_its_own_models_only(url):
    from gradio_client import Client

    choices = json.dumps(Client(url, verbose=False).view_api(return_format="dict"))
    assert "vae-digits" in choices and "unknown" not in choices


def test_a_new_family_appears_by_its_own_record(browser, grown_url):
    with opened(browser, grown_url) as page:
        for title, name, likelihood, link in (
            ("Painter", "painter-mnist", "exact", None),  # no page can show it
            ("Coder", "coder-mnist", "bound", "vae"),  # this one answers what a page asks for
            ("Newcomer", "newcomer-mnist", "", None),
        ):
            limb = page.locator("#tree .limb").filter(has=page.get_by_role("heading", name=LIMBS[likelihood]))
            card = limb.locator(".card").filter(has=page.get_by_text(title, exact=True))
            card.wait_for()
            assert name in card.inner_text() and card.locator("img").count() == 1
            assert card.get_attribute("href") == link


@pytest.mark.parametrize("width", [1180, 390])
def test_the_way_through_sixteen_pages_stays_one_line(browser, grown_url, width):
    count = len(SPACES) + len(NEW_PAGES)
    assert count == 16
    with opened(browser, f"{grown_url}/new-0", width) as page:
        bar = page.locator("nav.site")
        bar.wait_for()
        assert bar.bounding_box()["height"] <= 50
        assert page.locator(".nav-holder").is_hidden()  # gradio's own
        entries = [e.bounding_box() for e in page.locator(".site > *, .site-menus > *").all() if e.is_visible()]
        edges = bar.bounding_box()
        assert all(edges["y"] <= e["y"] and e["y"] + e["height"] <= edges["y"] + edges["height"] for e in entries)
        assert all(e["x"] + e["width"] <= edges["x"] + edges["width"] for e in entries)
        if width < 500:
            page.locator(".site-drawer summary").click()
            links = page.locator(".site-drawer li a")
            assert links.count() == count
            page.locator(".site-drawer").get_by_text("MaskGIT", exact=True).click()
        else:
            page.locator(".site-menus").get_by_text("Language", exact=True).click()
            assert page.locator(".site-menus details[open] a").count() == 4
            page.locator(".site-menus").get_by_text("Autoregressive", exact=True).click()
            assert page.locator(".site-menus details[open] a").count() == 3  # the other is closed again
            page.keyboard.press("Escape")
            assert page.locator(".site-menus details[open]").count() == 0
            page.locator(".site-menus").get_by_text("Autoregressive", exact=True).click()
            page.locator(".site-menus").get_by_text("MaskGIT", exact=True).click()
        page.get_by_role("heading", name="MaskGIT").wait_for()
        page.locator(".site-foot .next").click()
        page.get_by_role("heading", name="Vector quantisation").wait_for()
        page.locator(".site-foot .previous").click()
        page.get_by_role("heading", name="MaskGIT").wait_for()


def test_the_foot_leads_through_all_pages_in_the_order_of_teaching(tmp_path):
    branches = ["made-up", "language", "diffusion", "flows", "adversarial", "autoencoders", "classical", "diffusion"]
    pages = {f"page-{i}": SimpleNamespace(TITLE=f"Page {i}", BRANCH=b) for i, b in enumerate(branches)}
    gallery = ROOT / "spaces" / "gallery"
    with (
        kit_package(tmp_path),
        module_at(gallery / "gallery_records.py"),
        module_at(gallery / "gallery_navigation.py") as navigation,
    ):
        walked = ["page-6"]
        while (following := re.search(r'class="next" href="([^"]+)"', navigation.foot(pages, walked[-1]))[1]) != "./":
            assert f'class="previous" href="{walked[-1]}"' in navigation.foot(pages, following)
            walked.append(following)
        assert [pages[name].BRANCH for name in walked] == [
            "classical", "autoencoders", "adversarial", "flows", "diffusion", "diffusion", "language", "made-up",
        ]  # fmt: skip
        assert 'class="site crowded"' not in navigation.bar(pages, None)
        many = pages | {f"more-{i}": SimpleNamespace(TITLE=f"More {i}", BRANCH=f"another-branch-{i}") for i in range(6)}
        assert 'class="site crowded"' in navigation.bar(many, None)  # then the drawer holds them in any window


def test_two_spaces_with_a_module_of_one_name_are_refused(tmp_path, monkeypatch):
    from training.options import UsageError
    from training.publishing import spaces

    for name in ("kit", "gallery"):
        shutil.copytree(ROOT / "spaces" / name, tmp_path / "spaces" / name)
    for name in ("one", "other"):
        shutil.copytree(ROOT / "spaces" / "gallery", tmp_path / "spaces" / name, ignore=lambda *_: ["__pycache__"])
        for module in (tmp_path / "spaces" / name).glob("gallery_*.py"):
            module.unlink()
    for file in spaces.SHARED:  # with pipelines and recipes
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, tmp_path / file)
    monkeypatch.setattr(spaces, "ROOT", tmp_path)
    spaces.space(tmp_path / "spaces" / "gallery", tmp_path / "built")
    assert (tmp_path / "built" / "one.py").is_file() and (tmp_path / "built" / "other.py").is_file()
    for module, message in (("tab.py", "has a module tab.py"), ("one.py", "has a module one.py"), ("kit.py", "kit.py")):
        for name in ("one", "other"):
            (tmp_path / "spaces" / name / module).write_text("")
        with pytest.raises(UsageError, match=message):
            spaces.space(tmp_path / "spaces" / "gallery", tmp_path / "built")
        for name in ("one", "other"):
            (tmp_path / "spaces" / name / module).unlink()
