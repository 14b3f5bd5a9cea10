"""What the density playground computes and draws, without a browser."""

import base64
import importlib
import math
import re

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.spaces.conftest import kit_package, module_at


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    """The module beside a copy of `kit`."""
    folder = tmp_path_factory.mktemp("playground")
    with kit_package(folder), module_at(ROOT / "spaces" / "density" / "density_playground.py") as module:
        assert "torch" not in vars(module)
        yield module


@pytest.fixture(scope="module")
def maps(playground):
    """What its figures lie on, shared by pages."""
    return importlib.import_module("kit.maps")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_every_set_lies_on_the_plane_and_follows_its_seed(playground, maps):
    for name in playground.SETS:
        points = playground.draw_set(name, 2_000, rng())
        assert points.shape == (2_000, 2) and (np.abs(points).max(1) < maps.REACH).mean() > 0.999
        assert np.array_equal(points, playground.draw_set(name, 2_000, rng()))
        assert not np.array_equal(points, playground.draw_set(name, 2_000, rng(1)))


def test_points_come_from_the_ink_of_a_drawing(playground, maps):
    picture = Image.new("RGB", (280, 280), "white")
    picture.paste("black", (140, 0, 280, 140))  # upper right
    points = playground.from_ink(playground.ink_of(picture), 500, rng())
    assert points.shape == (500, 2) and (points > -0.05).all() and (points < maps.REACH).all()
    inverted = Image.new("L", (90, 90), 0)
    inverted.paste(255, (0, 60, 30, 90))  # light on dark, lower left
    assert (playground.from_ink(playground.ink_of(inverted), 100, rng()) < 0).all()
    for empty in (None, Image.new("RGB", (50, 50), "white")):
        with pytest.raises(ValueError, match="nothing on the paper"):
            playground.ink_of(empty)
    assert playground.ink_of(playground.example_drawing()).mean() > 0.02


def test_places_and_the_marker_agree_with_the_plane(playground, maps):
    places = maps.places(4)
    assert places[0].tolist() == [-2.25, 2.25] and places[-1].tolist() == [2.25, -2.25]
    assert places[1].tolist() == [-0.75, 2.25]  # along the row
    assert maps.at_place((0, 0)).tolist() == [-3, 3]
    assert maps.at_place((0.5, 1)).tolist() == [0, -3]
    assert playground.nearest(np.array([[-2.0, 2.0], [2.0, -2.0]]), 10)[0, 0] == 0


def test_points_that_are_left_out_are_likely_under_the_others_alone(playground):
    x = rng().standard_normal((7, 2))
    expected = []
    for i, point in enumerate(x):
        others = np.delete(x, i, 0)
        expected.append(np.log(np.mean(np.exp(-((others - point) ** 2).sum(1) / 0.5) / (2 * np.pi * 0.25))))
    found = playground.left_out(x, np.array([0.5, 1e-3]))
    assert found[0] == pytest.approx(np.mean(expected)) and np.isfinite(found[1])


def test_densities_on_the_line_add_up_to_one_and_draw_what_they_say(playground):
    wide = np.linspace(-400, 400, 4_000_001)
    for name, line in playground.LINES.items():
        p = np.exp(line.log_prob(wide))
        assert np.trapezoid(p, wide) == pytest.approx(1, abs=1e-3), name
        drawn = line.draw(20_000, rng())
        cdf = np.interp(drawn, wide, p.cumsum() * (wide[1] - wide[0]))
        distance = np.abs(np.sort(cdf) - np.arange(20_000) / 20_000).max()
        assert distance < 1.63 / math.sqrt(20_000), name  # Kolmogorov and Smirnov at 1%


def test_a_histogram_is_a_density_and_zero_outside(playground):
    x = np.array([0.0, 0.1, 0.2, 0.9, 2.0])
    histogram = playground.Histogram.of(x, 4)
    assert (histogram.heights * np.diff(histogram.edges)).sum() == pytest.approx(1)
    found = histogram.log_prob(np.array([-0.1, 0.0, 0.7, 1.2, 2.0, 2.1]))
    expected = np.array([-np.inf, math.log(3 / 2.5), math.log(1 / 2.5), -np.inf, math.log(1 / 2.5), -np.inf])
    np.testing.assert_allclose(found, expected)


def test_colours_of_points_mix_by_responsibility(playground, maps):
    pure = playground.blends(np.eye(3))
    assert pure == list(playground.COLOURS[:3])
    half = maps.rgb(playground.blends(np.array([[0.5, 0.5]]))[0])
    np.testing.assert_allclose(half, (maps.rgb(pure[0]) + maps.rgb(pure[1])) / 2, atol=0.6)


def test_heat_is_brightest_where_the_density_is_highest(maps):
    log_p = maps.places(20).reshape(20, 20, 2).sum(2)  # rises to the upper right
    light = np.asarray(maps.heat(log_p).convert("L"), dtype=int)
    assert light[0, 19] == light.max() and light[19, 0] == light.min() and light[0, 19] > light[10, 10]
    flat = np.asarray(maps.heat(np.zeros((3, 3))))
    assert (flat == flat[0, 0]).all()


def test_an_ellipse_is_as_wide_and_as_turned_as_its_covariance(playground):
    turn = np.radians(30)
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    svg = playground.ellipses(np.array([[1.0, 1.0]]), (axes @ np.diag([1.0, 0.25]) @ axes.T)[None])
    found = re.findall(r'cx="(\S+)" cy="(\S+)" rx="(\S+)" ry="(\S+)" transform="rotate\((\S+) ', svg)
    x, y, rx, ry, angle = map(float, found[0])
    assert (x, y) == (400, 200) and (rx, ry) == (100, 50)
    assert (angle + 30) % 180 == pytest.approx(0, abs=0.01)  # upwards is less on the screen
    assert float(found[1][2]) == 200


def test_a_tree_is_drawn_without_crossings_and_cut_between_merges(playground):
    merges, heights = np.array([[0, 2], [1, 3], [4, 5]]), np.array([1.0, 2.0, 5.0])
    order = playground.leaf_order(merges)
    assert sorted(order) == [0, 1, 2, 3] and abs(order.index(0) - order.index(2)) == 1
    assert [playground.cut_height(heights, k) for k in (4, 3, 2)] == [0.5, 1.5, 3.5]
    assert playground.cut_height(heights, 1) > 5
    svg = playground.dendrogram(merges, heights, np.array([0, 1, 0, 1]))
    assert svg.count("<path") == 2 + 1 + 1  # two clusters, what joins them, the cut
    two = playground.dendrogram(np.array([[0, 1]]), np.array([0.0]), np.array([0, 0]))
    assert "nan" not in two


def test_a_screen_is_a_file_of_its_own(playground, maps):
    from xml.etree import ElementTree

    layers = maps.spots(np.array([[0.0, 0.0], [9.0, 0.0]]), "#ffffff"), playground.disks(np.zeros((1, 2)))
    svg = maps.screen("points", *layers, ground=Image.new("RGB", (2, 2)))
    url = maps.as_url(svg)
    root = ElementTree.fromstring(base64.b64decode(url.partition(",")[2]))
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and svg.count("<circle") == 2
    assert playground.trails(np.zeros((3, 2, 2))).count("<path") == 2
