"""The density Space in a real browser and by its API, on tiny models in their portable form."""

import re
import shutil

import pytest
from PIL import Image

from tests.spaces.conftest import changed, draw_stroke, fill, open_tab, opened, refused, serving, source_of

pytestmark = pytest.mark.browser
MOONS = "moons", 60, 3, None
HERE = {"x": 0.5, "y": 0.5}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Portable folders by name."""
    from training import publish
    from training.classical import clustering, density
    from training.flows import coupling

    place = tmp_path_factory.mktemp("density")
    models = {
        "gaussian-mixture-2d": (density, "--dataset", "moons", "--pca_dim", 0, "--num_components", 3),
        "kde-2d": (density, "--dataset", "moons", "--pca_dim", 0, "--density", "kde", "--bandwidth", "scott"),
        "gaussian-mixture-digits": (density, "--pca_dim", 12, "--num_components", 4, "--max_iter", 20),
        "kmeans-digits": (clustering, "--num_clusters", 6, "--num_starts", 1),
        "agglomerative-digits": (clustering, "--method", "agglomerative"),
        "coupling-2d": (coupling, "--max_steps", 2, "--num_blocks", 2, "--sample_every", 1_000),
    }
    for name, (recipe, *words) in models.items():
        run = place / f"{name}-run"
        few = [] if recipe is coupling else ["--max_samples", "200"]
        recipe.main(["--output_dir", str(run), *few, *map(str, words)])
        publish.build(run, place / name)
    return {name: place / name for name in models}


@pytest.fixture(scope="module")
def url(models, tmp_path_factory):
    place = tmp_path_factory.mktemp("page")
    with serving("density", place / "space", ",".join(map(str, models.values()))) as address:
        yield address


@pytest.fixture
def page(request, browser, url):
    with opened(browser, url, request.param) as page:
        source_of(page, "map-kernels")  # the page is not empty before the first click
        yield page


def move_marker(page, element: str, x: float, y: float) -> None:
    field = page.locator(f"#{element} .explorer")
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


@pytest.mark.parametrize("page", [1280], indirect=True)
def test_the_kernels_and_the_mixture_answer_where_they_are_asked(page):
    page.locator("#curve-kernels path.curve").first.wait_for(state="attached")
    first = page.locator("#here-kernels h3").inner_text()
    move_marker(page, "map-kernels", 0.1, 0.1)
    page.locator("#here-kernels").get_by_text("x = (−2.40, 2.40)").wait_for()
    assert page.locator("#here-kernels h3").inner_text() != first
    old = source_of(page, "map-kernels")
    fill(page, "log₁₀ of the bandwidth", 0)
    page.locator("#about-kernels").get_by_text("h = 1.000").wait_for()
    assert page.get_by_label("by hand").first.is_checked() and source_of(page, "map-kernels") != old

    open_tab(page, "Mixture")
    page.locator("#about-mixture").get_by_text("Step 0 of EM").wait_for()
    page.locator("#about-bic").get_by_text("BIC is lowest at").wait_for()
    page.locator("#em-more").click()
    page.locator("#about-mixture").get_by_text("Step 1 of EM").wait_for()
    drawn = page.locator("#drawn-points svg").inner_html()
    page.locator("#em").click()
    page.locator("#about-mixture").get_by_text("EM has converged.").wait_for()
    page.wait_for_function("old => document.querySelector('#drawn-points svg').innerHTML !== old", arg=drawn)
    move_marker(page, "map-mixture", 0.1, 0.1)
    page.locator("#here-mixture").get_by_text("x = (−2.40, 2.40)").wait_for()

    open_tab(page, "Flow")
    page.locator("#about-flow").get_by_text("mixture").wait_for()
    page.locator("#train-flow-stop").click()
    move_marker(page, "map-flow", 0.1, 0.1)
    page.locator("#here-flow").get_by_text("x = (−2.40, 2.40)").wait_for()


@pytest.mark.parametrize("page", [390], indirect=True)
def test_clusters_follow_the_points_that_are_drawn(page):
    open_tab(page, "K-means")
    page.locator("#about-kmeans").get_by_text("Step 0").wait_for()
    page.locator("#lloyd").click()
    page.get_by_text("No point changes its centre any more.").wait_for()
    page.get_by_label("your drawing").click()
    page.locator("#about-kmeans").get_by_text("Step 0").wait_for()  # of other points
    face = page.locator("#map-kmeans svg").inner_html()
    draw_stroke(page, "pad")
    page.wait_for_function("old => document.querySelector('#map-kmeans svg').innerHTML !== old", arg=face)
    page.locator("#pad .pad-clear").click()
    page.get_by_text("There is nothing on the paper yet").first.wait_for()
    page.get_by_label("three blobs").click()
    open_tab(page, "Tree")
    page.locator("#about-tree").get_by_text("4 clusters of").wait_for()
    fill(page, "Cut into clusters", 3)
    page.locator("#about-tree").get_by_text("3 clusters of").wait_for()
    assert page.locator("#dendrogram svg path").count() == 3 + 1 + 1


@pytest.mark.parametrize("page", [390], indirect=True)
def test_a_line_is_estimated_and_digits_are_drawn_and_redrawn(page):
    open_tab(page, "One line")
    page.locator("#line-figure .bars rect").first.wait_for(state="attached")
    assert not page.locator("#data").is_visible()
    fill(page, "Bins of the histogram", 2)
    page.locator("#line-table").get_by_text("histogram, 2 bins").wait_for()
    open_tab(page, "Digits")
    first = source_of(page, "samples")
    page.get_by_role("button", name="Draw samples").click()
    changed(page, "samples", first)
    open_tab(page, "Few numbers")
    page.get_by_text("numbers in place of 64").wait_for()
    first = source_of(page, "seen")
    page.locator("#examples button.thumbnail-item").nth(1).click()
    changed(page, "seen", first)
    open_tab(page, "Clusters")
    page.get_by_text("K-means with 6 centres").wait_for()
    page.get_by_label("agglomerative-digits").click()
    page.get_by_text("A tree of 200 images").wait_for()


def log_p(text: str) -> float:
    return float(re.search(r"log p = (\S+) nats", text)[1].replace("−", "-"))


def test_the_api_says_the_same_density_everywhere(client):
    shown, text, about, curve, log_h = client.predict(*MOONS, "Scott", -1, HERE, api_name="/density_kernels")
    assert shown["url"].startswith("data:image/svg") and "<svg" in curve and "nats" in about
    assert text == client.predict(*MOONS, "Scott", -1, HERE, api_name="/density_at")
    assert abs(log_p(client.predict(*MOONS, "by hand", log_h, HERE, api_name="/density_at")) - log_p(text)) < 0.1
    mixture = *MOONS, 3, "full", "k-means"
    *_, last = client.predict(*mixture, HERE, api_name="/density_mixture")
    _, text, *_, made = client.predict(*mixture, 100, HERE, api_name="/density_mixture_step")
    assert made == last and text == client.predict(*mixture, 100, HERE, api_name="/density_mixture_at")
    for kind in ("tied", "diag", "spherical"):
        one = *MOONS, 3, kind, "k-means", 100, "1", 7, 0
        assert client.predict(*one, api_name="/density_mixture_sample").count("<circle") == 7
    _, told = client.predict(*MOONS, "full", api_name="/density_bic")
    assert "BIC is lowest at" in told


def test_a_flow_learns_the_points_and_is_asked_as_it_was_trained(client):
    asked = *MOONS, "affine", 60
    refused(client, "is not trained yet", *MOONS, "affine", 59, HERE, api_name="/density_flow_at")
    _, text, table, curve = client.predict(*asked, HERE, api_name="/density_flow")
    assert text == client.predict(*asked, HERE, api_name="/density_flow_at")
    ways = re.findall(r"^\| (\w+) \| (\S+) \| \*\*(\S+)\*\* \|$", table, re.MULTILINE)
    assert [name for name, *_ in ways] == ["flow", "kernels", "mixture"] and "fresh points" in curve
    untrained = client.predict(*MOONS, "affine", 1, HERE, api_name="/density_flow")[2]
    own = [float(re.search(r"flow \| (\S+) \|", t)[1].replace("−", "-")) for t in (untrained, table)]
    assert own[1] > own[0] + 0.2
    refused(client, "transform is 'linear'", *MOONS, "linear", 5, HERE, api_name="/density_flow")
    refused(client, "count is 1; it must be", "ring", 1, 0, None, "affine", 5, HERE, api_name="/density_flow")


def test_the_api_takes_a_drawing_and_gives_the_same_for_a_seed(client, tmp_path):
    from gradio_client import handle_file

    paper = Image.new("L", (64, 64), 255)
    paper.paste(0, (28, 8, 36, 56))
    paper.save(tmp_path / "one.png")
    one = handle_file(str(tmp_path / "one.png"))
    same = [client.predict("your drawing", 40, 5, one, 2, api_name="/density_kmeans") for _ in range(2)]
    assert same[0] == same[1]
    again = client.predict("your drawing", 40, 5, one, 2, 100, api_name="/density_kmeans_step")
    assert again[-1] == same[0][-1] and again[0] == same[0][0]
    figure, tree, told = client.predict("your drawing", 40, 5, one, "single", 2, api_name="/density_tree")
    assert figure.count("<circle") == 40 and "2 clusters" in told and "cut</text>" in tree
    *_, text, spectrum = client.predict(one, 200, api_name="/density_reconstruct")
    assert "12 numbers" in text and "bits/dim" in text and "<svg" in spectrum  # as many as it has
    _, told, seed = client.predict("gaussian-mixture-digits", "2", "sample", 4, 9, False, api_name="/density_sample")
    assert "Component **2** of 4" in told and seed == 9
    _, table, _ = client.predict("heavy tails", 50, 0, 5, "by hand", -1, 2, 9.0, api_name="/density_line")
    assert "log p(9.00)" in table and "−∞" in table


def test_the_api_refuses_what_it_cannot_do(client):
    refused(client, "There are 3 points; 5 components need", "ring", 3, 0, None, 5, "full", "k-means", HERE,
            api_name="/density_mixture")  # fmt: skip
    refused(client, "There are 3 points; 5 clusters need", "ring", 3, 0, None, 5, api_name="/density_kmeans")
    refused(client, "nothing on the paper", "your drawing", 30, 0, None, "ward", 2, api_name="/density_tree")
    refused(client, "data is 'circle'; it must be one of", "circle", 30, 0, None, "full", api_name="/density_bic")
    refused(
        client,
        "count is 10000000; it must be a whole number from 2 to 1000",
        "ring",
        10**7,
        0,
        None,
        "Scott",
        -1,
        HERE,
        api_name="/density_at",
    )
    refused(client, "seed is -1", "ring", 30, -1, None, "Scott", -1, HERE, api_name="/density_at")
    refused(
        client,
        "log_bandwidth is 9; it must be a number from -1.7 to 0.5",
        *MOONS,
        "by hand",
        9,
        HERE,
        api_name="/density_kernels",
    )
    refused(client, "x is", *MOONS, "Scott", -1, {"x": 2, "y": 0}, api_name="/density_at")
    refused(client, "component is '9'", *MOONS, 3, "full", "k-means", 9, "9", 7, 0, api_name="/density_mixture_sample")
    refused(client, "seed is None", "skewed", 50, None, 5, "Scott", -1, 2, 0, api_name="/density_line")
    refused(
        client,
        "model is 'kde-mnist'; it must be one of",
        "kde-mnist",
        "all",
        "mean",
        4,
        0,
        False,
        api_name="/density_sample",
    )
    refused(
        client,
        "clusters is 99; it must be a whole number from 1 to 64",
        "agglomerative-digits",
        99,
        api_name="/density_centres",
    )


def test_a_model_of_any_name_is_on_the_tabs_whose_calls_it_answers(browser, models, tmp_path):
    """Names that say nothing, or what is not true: a mixture of points, a mixture of images, a tree."""
    from gradio_client import Client

    names = {"gaussian-mixture-2d": "my-thing", "gaussian-mixture-digits": "kmeans-2d", "agglomerative-digits": "kde"}
    for name, other in names.items():
        shutil.copytree(models[name], tmp_path / other)
    with serving("density", tmp_path / "space", ",".join(str(tmp_path / other) for other in names.values())) as url:
        with opened(browser, url) as page:
            page.get_by_text("MODEL_ID names no kernel density estimate").first.wait_for()
            page.locator("#estimate").click()
            page.get_by_text("This needs a kernel density estimate, like kde-2d").first.wait_for()
            open_tab(page, "Mixture")
            page.locator("#about-bic").get_by_text("BIC is lowest at").wait_for()
            open_tab(page, "K-means")
            page.get_by_text("MODEL_ID names no clustering by k-means").filter(visible=True).wait_for()
            open_tab(page, "Tree")
            page.locator("#about-tree").get_by_text("4 clusters of").wait_for()
            open_tab(page, "Digits")
            source_of(page, "samples")
            open_tab(page, "Few numbers")
            page.get_by_text("numbers in place of 64").wait_for()
            open_tab(page, "Clusters")
            page.get_by_text("A tree of 200 images").wait_for()
        client = Client(url, verbose=False)
        _, told, _ = client.predict("kmeans-2d", "2", "sample", 4, 9, False, api_name="/density_sample")
        assert "Component **2** of 4" in told
        refused(
            client,
            "model is 'my-thing'; it must be one of",
            "my-thing",
            "all",
            "mean",
            4,
            0,
            False,
            api_name="/density_sample",
        )
        refused(client, "model is 'kmeans-2d'; it must be one of", "kmeans-2d", 4, api_name="/density_centres")
