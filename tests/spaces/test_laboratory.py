"""What the adversarial laboratory computes, against closed forms."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch

from tests.conftest import ROOT
from tests.spaces.conftest import kit_package, module_at


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """All that its two modules define, by name, beside a copy of `kit`."""
    folder = ROOT / "spaces" / "adversarial"
    with (
        kit_package(tmp_path_factory.mktemp("laboratory")),
        module_at(folder / "adversarial_training.py") as training,
        module_at(folder / "adversarial_densities.py") as densities,
    ):
        yield SimpleNamespace(**vars(training) | vars(densities))


# Modes


def test_modes_are_counted_where_samples_lie(lab):
    for data, centres in lab.CENTRES.items():
        x = lab.draw_modes(data, 4_000, torch.Generator().manual_seed(0)).numpy()
        modes, good = lab.modes_covered(x, centres)
        assert modes == len(centres) and good == pytest.approx(1 - math.exp(-4.5), abs=0.01)  # 3 deviations, in a plane
        one = centres[:1] + 0.01 * np.random.default_rng(0).standard_normal((500, 2))
        assert lab.modes_covered(one, centres) == (1, 1.0)
        assert lab.modes_covered(np.full((500, 2), 50.0), centres) == (0, 0.0)


def test_a_seed_decides_the_training_and_touches_no_other(lab):
    before = torch.random.get_rng_state()
    first, second = ([*lab.train_on_modes("WGAN-GP", "grid of 25", 20, 2, seed=4, every=10)] for _ in range(2))
    other = [*lab.train_on_modes("WGAN-GP", "grid of 25", 20, 2, seed=5, every=10)]
    assert [s.step for s in first] == [0, 10, 20] and first[0].samples.shape == (lab.SHOWN, 2)
    assert np.array_equal(first[-1].samples, second[-1].samples)
    assert not np.array_equal(first[-1].samples, other[-1].samples)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not np.array_equal(first[0].samples, first[-1].samples)  # it moves


def test_the_ground_is_the_discriminators_confidence_the_right_way_up(lab):
    *_, last = lab.train_on_modes("GAN", "ring of 8", 60, 5, every=60)
    assert last.field.shape == (lab.FIELD, lab.FIELD) and last.field.min() >= 0 and last.field.max() <= 1
    ticks = np.linspace(-lab.REACH, lab.REACH, lab.FIELD)
    radius = np.hypot(*np.meshgrid(ticks, -ticks))
    # the corners hold neither data nor, by now, anything that looks like them
    assert last.field[abs(radius - 2) < 0.2].mean() > last.field[radius > 3.9].mean()


@pytest.mark.parametrize("words, message", [
    (("DCGAN", "ring of 8", 10), "objective"), (("GAN", "moons", 10), "data"), (("GAN", "ring of 8", 0), "num_steps"),
])  # fmt: skip
def test_what_cannot_be_trained_is_said(lab, words, message):
    with pytest.raises(ValueError, match=message):
        next(lab.train_on_modes(*words))


def test_the_penalty_of_a_linear_critic_is_that_of_its_slope(lab):
    critic = torch.nn.Linear(2, 1)
    x, y = torch.randn(9, 2), torch.randn(9, 2)
    penalty = lab.gradient_penalty(critic, x, y, torch.Generator().manual_seed(0))
    torch.testing.assert_close(penalty, (critic.weight.norm() - 1) ** 2)


# The game


def test_the_three_ways_to_play_grow_circle_and_shrink(lab):
    rate, start = 0.1, (1.0, -0.5)
    squared = {m: (lab.bilinear_game(m, start, rate, 500) ** 2).sum(1) for m in lab.METHODS}
    assert np.allclose(squared["simultaneous"][1:] / squared["simultaneous"][:-1], 1 + rate**2)
    assert np.allclose(squared["extragradient"][1:] / squared["extragradient"][:-1], 1 - rate**2 + rate**4)
    assert squared["alternating"].max() < 1.2 * squared["alternating"][0]
    x, y = lab.bilinear_game("alternating", start, rate, 500).T
    invariant = x**2 - rate * x * y + y**2
    assert np.allclose(invariant, invariant[0])
    assert squared["simultaneous"][-1] > 100 and squared["extragradient"][-1] < 0.01


# Discriminators


@pytest.mark.parametrize(
    "name", ["the same twice", "one beside the other", "one inside the other", "two hills and one"]
)
def test_a_trained_discriminator_comes_to_the_best_one(lab, name):
    p, q = lab.DENSITIES[name]
    log_p, log_q = p.log_prob(lab.LINE), q.log_prob(lab.LINE)
    density = np.exp(log_p) + np.exp(log_q)
    *_, last = lab.train_discriminator(p, q)
    best = lab.optimal_discriminator(np.exp(log_p), np.exp(log_q))
    assert np.abs(last.confidence - best)[density > 0.01 * density.max()].max() < 0.02
    bound = 2 * lab.jensen_shannon(log_p, log_q, lab.LINE) - 2 * math.log(2)
    assert bound - 1e-3 < last.value <= bound + 1e-9
    if name == "the same twice":
        assert last.value == pytest.approx(-2 * math.log(2), abs=1e-3)


def test_no_discriminator_has_a_higher_value_than_the_best(lab):
    p, q = lab.DENSITIES["two hills and one"]
    log_p, log_q = p.log_prob(lab.LINE), q.log_prob(lab.LINE)
    best = log_p - log_q  # its logit
    bound = 2 * lab.jensen_shannon(log_p, log_q, lab.LINE) - 2 * math.log(2)
    assert lab.game_value(log_p, log_q, best, lab.LINE) == pytest.approx(bound, abs=1e-9)
    for other in (best + 0.3, best * 0.9, best + 0.2 * np.sin(lab.LINE), 0 * best):
        assert lab.game_value(log_p, log_q, other, lab.LINE) < bound


def test_a_mixture_has_mass_one_and_draws_what_it_says(lab):
    p, q = lab.DENSITIES["two hills and one"]
    for density in (p, q):
        assert np.trapezoid(np.exp(density.log_prob(lab.LINE)), lab.LINE) == pytest.approx(1, abs=1e-6)
    x = p.draw(4_000, torch.Generator().manual_seed(0)).numpy()
    exact = [np.trapezoid(np.exp(p.log_prob(lab.LINE)) * lab.LINE**k, lab.LINE) for k in (1, 2)]
    assert x.mean() == pytest.approx(exact[0], abs=5e-3) and (x**2).mean() == pytest.approx(exact[1], abs=2e-2)


# Divergences


def test_wasserstein_of_samples_is_that_of_scipy(lab):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(200), 2 * rng.standard_normal(200) + 1
    assert lab.wasserstein_1d(a, b) == pytest.approx(scipy.stats.wasserstein_distance(a, b))
    assert lab.wasserstein_1d(a, rng.permutation(a) + 3) == pytest.approx(3)
    with pytest.raises(ValueError, match="same N"):
        lab.wasserstein_1d(a, b[:-1])


def test_uniform_densities_slide_apart_as_by_hand(lab):
    shifts = np.array([-1.4, -0.5, 0.25, 0.8, 1.2])
    slide = lab.slide_apart("uniform", shifts)
    overlap = np.clip(1 - abs(shifts), 0, 1)
    assert np.isinf(slide.values["KL(p||q)"]).all() and np.isnan(slide.gradients["KL(q||p)"]).all()
    assert np.allclose(slide.values["Jensen-Shannon"], (1 - overlap) * math.log(2), atol=1e-6)
    # apart they do not say which way to go, the distance does
    assert np.allclose(
        slide.gradients["Jensen-Shannon"], np.where(overlap > 0, np.sign(shifts), 0) * math.log(2), atol=1e-6
    )
    assert np.allclose(slide.values["Wasserstein"], abs(shifts), atol=1e-6)
    assert np.allclose(slide.gradients["Wasserstein"], np.sign(shifts), atol=1e-6)


def test_gaussians_slide_apart_as_by_hand(lab):
    shifts = np.array([0.0, 0.3, 1.5])
    slide = lab.slide_apart("Gaussian", shifts)
    for name in ("KL(p||q)", "KL(q||p)"):
        assert np.allclose(slide.values[name], shifts**2 / (2 * 0.2**2), atol=1e-4)
        assert np.allclose(slide.gradients[name], shifts / 0.2**2, atol=1e-3)
    assert np.allclose(slide.values["Wasserstein"], shifts, atol=1e-6)
    assert slide.values["Jensen-Shannon"][2] == pytest.approx(math.log(2), abs=1e-3)
    with pytest.raises(ValueError, match="shape"):
        lab.slide_apart("triangle", [0.0])


def test_densities_of_every_shape_have_mass_one(lab):
    x = np.linspace(-2, 2, 40_001)
    for shape in lab.SHAPES:
        assert np.trapezoid(np.exp(lab.shape_log_prob(shape, x)), x) == pytest.approx(1, abs=1e-3), shape


# Fits


def test_one_direction_covers_and_the_other_seeks(lab):
    p = lab.Mixture((-2.0, 2.0), (0.6, 0.6), (0.5, 0.5))
    for start in ((1.0, 1.0), (-2.0, 0.5)):
        last = lab.fit_gaussian(p, "KL(p||q)", start)[-1]
        assert last.mean == pytest.approx(0, abs=1e-3)
        assert last.deviation == pytest.approx(math.sqrt(4 + 0.36), abs=1e-3)  # the moments of p
        path = lab.fit_gaussian(p, "KL(q||p)", start)
        assert abs(path[-1].mean) == pytest.approx(2, abs=0.01) and path[-1].deviation == pytest.approx(0.6, abs=0.02)
        assert path[-1].divergence == pytest.approx(math.log(2), abs=0.01)  # half of p is left out
        assert (path[0].mean, path[0].deviation) == pytest.approx(start) and path[-1].divergence < path[0].divergence


def test_a_wide_gaussian_far_away_costs_what_it_costs(lab):
    """KL(q||p) in closed form where p is one Gaussian: nothing of a wide q is cut off."""
    p = lab.Mixture((0.5,), (0.6,), (1.0,))
    first = lab.fit_gaussian(p, "KL(q||p)", (4.0, 4.0), num_steps=1)[0]
    exact = math.log(0.6 / 4) + (4**2 + 3.5**2) / (2 * 0.6**2) - 0.5
    assert first.divergence == pytest.approx(exact, rel=1e-6)


def test_the_page_offers_what_the_laboratory_has(lab, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "spaces" / "adversarial")
    with kit_package(tmp_path):
        import adversarial_lab_game
        import adversarial_lab_modes
        import adversarial_lab_optimum
        import adversarial_lab_slide

    assert set(adversarial_lab_modes.DATA) == set(lab.CENTRES)
    assert set(adversarial_lab_optimum.DENSITIES) == set(lab.DENSITIES)
    assert adversarial_lab_game.METHODS == lab.METHODS and adversarial_lab_slide.SHAPES == lab.SHAPES
