"""The flows Space in a real browser and by its API, on tiny models in their portable form."""

import re

import numpy as np
import pytest
from PIL import Image

from tests.spaces.conftest import changed, fill, open_tab, opened, refused, serving, source_of

pytestmark = pytest.mark.browser
HERE, CORNER = {"x": 0.5, "y": 0.5}, {"x": 0.1, "y": 0.1}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Portable folders by name."""
    from training import publish
    from training.classical import density
    from training.flows import coupling, glow

    place = tmp_path_factory.mktemp("flows")
    points = ("--dataset", "moons", "--pca_dim", 0, "--max_samples", 200)
    training = ("--sample_every", 1_000)
    models = {
        "coupling-2d": (
            coupling,
            "--max_steps",
            60,
            "--num_blocks",
            4,
            "--width",
            16,
            "--elementwise",
            "false",
            *training,
        ),
        "glow-digits": (glow, "--max_steps", 2, "--num_blocks", 1, "--width", 8, "--conditional", "true", *training),
        "kde-2d": (density, *points, "--density", "kde"),
        "gaussian-mixture-2d": (density, *points, "--num_components", 3),
    }
    for name, (recipe, *words) in models.items():
        run = place / f"{name}-run"
        recipe.main(["--output_dir", str(run), *map(str, words)])
        publish.build(run, place / name)
    return {name: place / name for name in models}


@pytest.fixture(scope="module")
def url(models, tmp_path_factory):
    place = tmp_path_factory.mktemp("page")
    with serving("flows", place / "space", ",".join(map(str, models.values()))) as address:
        yield address


@pytest.fixture
def page(request, browser, url):
    with opened(browser, url, request.param) as page:
        page.locator("#where-layers").get_by_text("z, after layer 4 of 4").wait_for()  # filled before the first click
        yield page


def move_marker(page, element: str, x: float, y: float) -> None:
    field = page.locator(f"#{element} .explorer")
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


@pytest.mark.parametrize("page", [1280], indirect=True)
def test_the_plane_deforms_and_a_place_is_followed(page):
    source_of(page, "map-layers")
    deformed = page.locator("#stage svg").inner_html()
    fill(page, "Layer", 0)
    page.locator("#where-layers").get_by_text("x, the data").wait_for()
    assert page.locator("#stage svg").inner_html() != deformed
    assert page.locator("#table-layers tbody tr").count() == 1 + 1 + 4
    move_marker(page, "map-layers", 0.1, 0.1)
    page.locator("#here-layers").get_by_text("x = (−2.40, 2.40)").wait_for()
    assert page.locator("#table-layers tbody tr").first.inner_text().split() == ["x", "−2.40", "2.40"]

    open_tab(page, "Density")
    page.locator("#densities tbody tr").nth(2).wait_for()
    assert page.locator("#densities td:first-child").all_inner_texts() == ["Flow", "Kernels", "Mixture"]
    for kind in ("flow", "kernels", "mixture"):
        source_of(page, f"map-{kind}")
    move_marker(page, "map-mixture", 0.9, 0.9)
    page.locator("#densities").get_by_text("log p at (2.40, −2.40)").wait_for()
    places = [page.locator(f"#map-{kind} .explorer-marker").bounding_box() for kind in ("flow", "mixture")]
    fields = [page.locator(f"#map-{kind} .explorer").bounding_box() for kind in ("flow", "mixture")]
    for axis in ("x", "y"):  # the ring of the others went along
        first, second = (at[axis] - field[axis] for at, field in zip(places, fields, strict=True))
        assert abs(first - second) < 2
    source_of(page, "map-flow")


@pytest.mark.parametrize("page", [390], indirect=True)
def test_flows_learn_live_and_digits_come_back(page):
    open_tab(page, "Without log |det|")
    page.locator("#terms").get_by_text("step 1 of 300").wait_for()
    page.locator("#train-stop").click()
    page.locator("#without-codes svg circle").first.wait_for(state="attached")

    open_tab(page, "Sample")
    first = source_of(page, "samples")
    page.get_by_role("button", name="Draw samples").click()
    changed(page, "samples", first)

    open_tab(page, "A digit and its code")
    page.locator("#about-code").get_by_text("every pixel comes back on its own level").wait_for()
    page.locator("#about-redrawn").get_by_text("row 1 redraws").wait_for()
    first = source_of(page, "seen")
    page.locator("#examples button.thumbnail-item").nth(1).click()
    changed(page, "seen", first)

    open_tab(page, "Walk")
    first = source_of(page, "strip")
    fill(page, "Number of images", 3)
    page.get_by_role("button", name="Walk").click()
    changed(page, "strip", first)


def number(text: str, what: str) -> list[float]:
    """The numbers of a row of a table."""
    (row,) = [line for line in text.splitlines() if what in line]
    return [float(n.replace("−", "-")) for n in re.findall(r"[-−]?\d+\.\d+", row)]


def test_what_is_shown_adds_up(client):
    stage, where, text, table, _ = client.predict("coupling-2d", 2.5, CORNER, api_name="/flow_layers")
    assert "after layer **1.5** of 4" in where and stage.count("<circle") > 100
    (log_p,) = re.findall(r"log p = (\S+) nats", text)
    prior, sign, log_det = re.findall(r"= ([-−]?[\d.]+) ([+−]) ([\d.]+)$", text)[0]
    total = float(prior.replace("−", "-")) + (1 if sign == "+" else -1) * float(log_det)
    assert abs(float(log_p.replace("−", "-")) - total) < 0.02
    layers = [number(table, f"layer {i} ") for i in (1, 2, 3, 4)]
    for before, (a, b, log_det, so_far) in zip([number(table, "standardised"), *layers], layers, strict=False):
        assert (a == before[0]) + (b == before[1]) >= 1  # a layer leaves one coordinate as it is
        assert abs(before[3] + log_det - so_far) < 0.02
    shown = client.predict("coupling-2d", 300, 3, CORNER, api_name="/flow_density_at")
    assert abs(number(shown, "Flow")[0] - float(log_p.replace("−", "-"))) < 0.01
    *maps, table, told = client.predict("coupling-2d", 300, 3, CORNER, api_name="/flow_density")
    assert table == shown and "the set moons" in told and all(m["url"].startswith("data:image/svg") for m in maps)


def test_without_its_log_determinant_a_flow_shrinks_to_a_point(client):
    *figures, table, curve = client.predict("coupling-2d", "moons", "affine", 120, 0, api_name="/flow_training")
    assert len(figures) == 4 and all("<svg" in figure for figure in (*figures, curve))
    spread, shrunk = number(table, "standard deviation")
    assert shrunk < 0.05 < 0.5 < spread
    log_n, log_det, log_p = (number(table, what) for what in ("log N(z", "| log \\|det\\| |", "**log p(x)**"))
    assert log_n[1] > log_n[0] and log_det[1] < log_det[0] and log_p[1] < log_p[0] - 2
    assert abs(log_n[1] + np.log(2 * np.pi)) < 0.05  # the highest that N(0, I) gives


def test_images_go_to_their_codes_and_back(client, tmp_path):
    from gradio_client import handle_file

    paper = Image.new("L", (64, 64), 255)
    paper.paste(0, (28, 8, 36, 56))
    paper.save(tmp_path / "one.png")
    one = handle_file(str(tmp_path / "one.png"))
    seen, _, back, told = client.predict("glow-digits", one, api_name="/flow_code")
    assert "the largest residual is 0" in told and "64 numbers" in told
    assert np.array_equal(np.asarray(Image.open(seen)), np.asarray(Image.open(back)))
    _, told, seed = client.predict("glow-digits", one, 2, 0.7, 3, False, api_name="/flow_redraw")
    assert seed == 3 and "row 2 redraws 32 numbers" in told
    frame, strip = client.predict("glow-digits", one, one, 3, api_name="/flow_walk")
    assert np.asarray(Image.open(strip)).std() > 0 and Image.open(frame).width > 100
    same = [client.predict("glow-digits", "3", 4, 1, 5, False, api_name="/flow_sample")[0] for _ in range(2)]
    assert np.array_equal(*(np.asarray(Image.open(file)) for file in same))


def test_the_api_refuses_what_it_cannot_do(client):
    refused(client, "layer is -1", "coupling-2d", -1, HERE, api_name="/flow_layers")
    refused(client, "model is 'kde-2d'", "kde-2d", 0, HERE, api_name="/flow_layers")
    for call in ("/flow_density", "/flow_density_at"):
        refused(client, "components is 9; 5 points are fewer", "coupling-2d", 5, 9, HERE, api_name=call)
    refused(client, "place: x is 2", "coupling-2d", 300, 3, {"x": 2, "y": 0}, api_name="/flow_density_at")
    refused(client, "data is 'circle'", "coupling-2d", "circle", "affine", 5, 0, api_name="/flow_training")
    refused(client, "steps is 10000000", "coupling-2d", "moons", "affine", 10**7, 0, api_name="/flow_training")
    refused(client, "temperature is -1", "glow-digits", "any", 4, -1, 0, False, api_name="/flow_sample")
    refused(client, "label is '17'", "glow-digits", "17", 4, 1, 0, False, api_name="/flow_sample")
    refused(client, "nothing on the paper", "glow-digits", None, api_name="/flow_code")
    refused(client, "model is 'coupling-2d'", "coupling-2d", None, 4, 1, 0, False, api_name="/flow_redraw")


def test_a_page_without_others_to_compare_with_says_so(browser, models, tmp_path):
    with serving("flows", tmp_path / "space", str(models["coupling-2d"])) as url, opened(browser, url) as page:
        page.locator("#where-layers").get_by_text("z, after layer 4 of 4").wait_for()
        open_tab(page, "Density")
        page.locator("#about-densities").get_by_text("No model of this page has kernels or mixture").wait_for()
        assert page.locator("#densities tbody tr").count() == 1
        open_tab(page, "Sample")
        page.get_by_text("MODEL_ID names no flow on such images").filter(visible=True).wait_for()
