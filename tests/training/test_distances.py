"""Distances of sets of features: closed forms, and what bounds them."""

import pytest
import torch

from training.distances import (
    frechet_distance,
    frechet_interval,
    memorised_share,
    nearest_distances,
    precision_recall_density_coverage,
)


def with_moments(mean: torch.Tensor, root: torch.Tensor, n: int = 4_000) -> torch.Tensor:
    """Points whose sample mean is `mean` and sample covariance root root^T, both exactly."""
    z = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(int(100 * root.sum())), dtype=torch.float64)
    z = z - z.mean(0)
    z = z @ torch.linalg.inv(torch.linalg.cholesky(z.T @ z / (n - 1))).T
    return mean + z @ root.T


def test_the_frechet_distance_of_two_gaussians_is_its_closed_form():
    one = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64)
    other = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    a = with_moments(one, torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)))
    b = with_moments(other, torch.diag(torch.tensor([2.0, 2.0, 0.5], dtype=torch.float64)))
    # commuting covariances: |difference of means|^2 + sum of squared differences of standard deviations
    expected = 1 + 0 + 9 + (1 - 2) ** 2 + 0 + (3 - 0.5) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-4)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(expected, rel=1e-4)  # features have no axes


def test_nearest_leaves_out_the_point_itself():
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert nearest_distances(line, line, 1, skip_self=True).tolist() == [1, 1, 2, 4]
    assert nearest_distances(line, line, 1).tolist() == [0, 0, 0, 0]
    assert nearest_distances(torch.tensor([[2.5]]), line, 2).tolist() == [1.5]


def test_precision_recall_density_and_coverage_of_sets_with_a_known_answer():
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(2_000, 2, generator=generator)
    same = precision_recall_density_coverage(real, real)
    assert same["precision"] == same["recall"] == same["coverage"] == 1
    far = precision_recall_density_coverage(real, real + 10)
    assert set(far.values()) == {0}
    # samples that fill the left half: precise, and half of what is there
    half = torch.rand(2_000, 2, generator=generator) * torch.tensor([0.5, 1.0])
    figures = precision_recall_density_coverage(real, half)
    assert figures["precision"] > 0.97 and figures["recall"] == pytest.approx(0.5, abs=0.04)
    assert figures["coverage"] == pytest.approx(0.5, abs=0.04)
    # half of the samples nowhere near: precision and density halve, the rest stays
    astray = torch.cat([torch.rand(1_000, 2, generator=generator), 10 + torch.rand(1_000, 2, generator=generator)])
    figures = precision_recall_density_coverage(real, astray)
    assert figures["precision"] == pytest.approx(0.5, abs=0.02) and figures["density"] == pytest.approx(0.5, abs=0.05)
    # independent draws of one distribution: a ball holds k others on average, so the density is 1
    fresh = precision_recall_density_coverage(real, torch.rand(2_000, 2, generator=generator))
    assert fresh["density"] == pytest.approx(1, abs=0.1)


def test_copies_of_training_images_are_found_out():
    generator = torch.Generator().manual_seed(0)
    train, test, fresh = (torch.randn(2_000, 6, generator=generator) for _ in range(3))
    assert memorised_share(train, test, fresh) == pytest.approx(0.01, abs=0.01)
    copied = torch.cat([fresh[:1_000], train[:1_000] + 1e-4])
    assert memorised_share(train, test, copied) == pytest.approx(0.505, abs=0.01)


def test_the_interval_of_a_distance_holds_the_true_one_and_narrows_with_the_number_of_rows():
    generator = torch.Generator().manual_seed(0)
    shift, held, widths = 2.0, 0, {}
    for count in (100, 400):
        for _ in range(20):
            a = torch.randn(count, 2, generator=generator, dtype=torch.float64)
            b = torch.randn(count, 2, generator=generator, dtype=torch.float64) + shift
            low, high = frechet_interval(a, b, draws=60)
            assert low < frechet_distance(a, b) < high
            held += low < 2 * shift**2 < high  # of two Gaussians of one covariance: the squared distance of the means
            widths.setdefault(count, []).append(high - low)
    assert held >= 32  # of 40; 38 expected of a perfect 95 % interval
    assert torch.tensor(widths[400]).mean() / torch.tensor(widths[100]).mean() == pytest.approx(0.5, abs=0.1)
