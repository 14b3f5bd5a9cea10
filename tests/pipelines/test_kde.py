"""Truths of the kernel density estimate: the sum itself, integrals, bandwidths, draws."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KernelDensity

import pipelines.classical.modeling_kde as modeling
from pipelines.classical.modeling_kde import KDEModel
from pipelines.classical.modeling_pca import PCAModel
from pipelines.classical.pipeline_density import DensityPipeline
from tests.contract import CODES, UNIT_DEQUANTISED, VECTOR_SPEC, Instance, fitted_to_noise, image_spec


def density_instance(fit, spec: dict, pca_dim: int = 0, classes: int = 0) -> Instance:
    """A density of x, or of its principal components, by the `fit` of its class."""

    def make():
        size = math.prod(spec["shape"])
        noise = torch.rand(80, size, generator=torch.Generator().manual_seed(0))
        pca = PCAModel.fit([noise], pca_dim) if pca_dim else None
        return DensityPipeline(fitted_to_noise(fit, pca_dim or size, classes), pca, spec).to("cpu")

    codes = CODES | {"reconstruction_error"} if pca_dim else set()
    return Instance(DensityPipeline, make, "exact", codes | {"sample", "log_prob", "elbo"}, classes=classes)


def wide(points, **by_class) -> KDEModel:
    return KDEModel.fit(points, 1.0, **by_class)


INSTANCES = {
    "kde": density_instance(wide, VECTOR_SPEC),
    "kde of components": density_instance(wide, image_spec(UNIT_DEQUANTISED, 3), 4),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=generator(seed)) * torch.linspace(0.5, 2, dim) + 3


def by_sklearn(points: torch.Tensor, x: torch.Tensor, h: float) -> torch.Tensor:
    """One leaf for all points: a tree of several subtracts bounds that cancel, and its tails are wrong (see below)."""
    kde = KernelDensity(bandwidth=h, leaf_size=len(points)).fit(points.double().numpy())
    return torch.from_numpy(kde.score_samples(x.double().numpy()))


def three_classes() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(3).repeat_interleave(torch.tensor([50, 350, 200]))
    shuffled = labels[torch.randperm(600, generator=generator(3))]
    return cloud(600, 2, seed=4) + 10 * shuffled[:, None], shuffled


@pytest.mark.parametrize("dim", [1, 2, 4, 5, 40])
@pytest.mark.parametrize("bandwidth", [0.05, 0.5, 3.0])
def test_log_prob_is_that_of_scikit_learn(dim, bandwidth):
    points, x = cloud(700, dim), cloud(300, dim, seed=1)
    ours = KDEModel.fit(points, bandwidth).log_prob(x)
    theirs = by_sklearn(points, x, torch.tensor(bandwidth).item())
    assert ours.dtype == torch.float32 and ours.shape == (300,)
    torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-6)  # rtol: float32 itself, at -1e4


def test_log_prob_is_that_of_scikit_learn_at_its_defaults_where_the_density_is_not_small():
    points, x = cloud(3_000, 2), cloud(3_000, 2, seed=1)
    model = KDEModel.fit(points)
    kde = KernelDensity(bandwidth=model.bandwidth.item()).fit(points.numpy())
    theirs = torch.from_numpy(kde.score_samples(x.numpy()))
    torch.testing.assert_close(model.log_prob(x).double(), theirs, atol=1e-5, rtol=0)


def test_log_prob_is_the_sum_where_scikit_learn_at_its_defaults_is_not():
    points, x = cloud(700, 4), cloud(300, 4, seed=1)
    model, h = KDEModel.fit(points, 0.0625), 0.0625
    exponent = -torch.cdist(x.double(), points.double()).square() / (2 * h * h)
    truth = exponent.logsumexp(1) - math.log(700) - 4 * math.log(h * math.sqrt(2 * math.pi))
    torch.testing.assert_close(model.log_prob(x).double(), truth, atol=1e-5, rtol=1e-6)
    theirs = torch.from_numpy(KernelDensity(bandwidth=h).fit(points.numpy()).score_samples(x.numpy()))
    assert (theirs - truth).abs().max() > 1  # should this fail one day, by_sklearn needs its leaf_size no more


@pytest.mark.parametrize("dim", [2, 6])
def test_blocks_change_nothing(dim, monkeypatch):
    points, x = cloud(501, dim), cloud(203, dim, seed=1)
    model = KDEModel.fit(points, 0.3)
    whole = model.log_prob(x)
    for piece, columns, product in ((64, 7, 500), (1_000, 100, 9_000), (100_000, 501, 2**20), (1, 1, 1)):
        monkeypatch.setattr(modeling, "PIECE", piece)
        monkeypatch.setattr(modeling, "COLUMNS", columns)
        monkeypatch.setattr(modeling, "PRODUCT", product)
        some = x if piece > 1 else x[:3]
        torch.testing.assert_close(model.log_prob(some), whole[: len(some)], atol=3e-6, rtol=3e-6)


def test_a_row_alone_gives_what_it_gives_in_a_batch():
    model, x = KDEModel.fit(cloud(3_000, 2)), cloud(50, 2, seed=1)
    alone = torch.cat([model.log_prob(row[None]) for row in x])
    torch.testing.assert_close(model.log_prob(x), alone, atol=2e-6, rtol=0)
    assert model.log_prob(x[:0]).shape == (0,)


def test_the_density_integrates_to_one():
    line = KDEModel.fit(cloud(50, 1), "silverman")
    x = torch.linspace(-5, 11, 4_001)[:, None]
    torch.testing.assert_close(torch.trapezoid(line.log_prob(x).exp(), x[:, 0]), torch.tensor(1.0), atol=1e-4, rtol=0)
    plane = KDEModel.fit(cloud(50, 2))
    side = torch.linspace(-10, 16, 401)
    mass = plane.log_prob(torch.cartesian_prod(side, side)).exp().sum() * (side[1] - side[0]) ** 2
    torch.testing.assert_close(mass, torch.tensor(1.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dim", [2, 10])
def test_far_in_the_tails_the_nearest_point_is_left(dim):
    points = cloud(2_000, dim)
    model = KDEModel.fit(points, 0.1)
    x = 3 + torch.tensor([[10.0], [200.0], [1e6]]).expand(3, dim)
    ours = model.log_prob(x)
    assert ours.isfinite().all() and ours[1] < -1e6
    torch.testing.assert_close(ours.double(), by_sklearn(points, x, model.bandwidth.item()), rtol=1e-6, atol=0)


def test_small_differences_of_large_numbers_count():
    """In few dimensions a point far from zero and a bandwidth far below the spread lose no digits."""
    points = (cloud(500, 2) * 1_000).round() + torch.tensor([10_000.0, -40_000.0])
    x = points[:100] + 2.0**-7
    torch.testing.assert_close(
        KDEModel.fit(points, 0.01).log_prob(x).double(), by_sklearn(points, x, 0.01), atol=1e-5, rtol=0
    )


def test_rules_for_the_bandwidth():
    x = cloud(400, 3)
    s = x.std(0).mean().item()
    assert KDEModel.fit(x).bandwidth.item() == pytest.approx(s * 400 ** (-1 / 7))
    assert KDEModel.fit(x, "silverman").bandwidth.item() == pytest.approx(s * (400 * 5 / 4) ** (-1 / 7))
    assert KDEModel.fit(x, np.float32(0.25)).bandwidth.item() == 0.25
    # scikit-learn's words leave the spread of the data out
    theirs = KernelDensity(bandwidth="scott").fit(x.numpy()).bandwidth_
    assert KDEModel.fit(x).bandwidth.item() == pytest.approx(s * theirs)


def two_clusters(count: int, seed: int) -> torch.Tensor:
    x = 0.1 * torch.randn(count, 2, generator=generator(seed))
    return x + 4 * (torch.arange(count) % 2)[:, None]


def test_a_held_out_bandwidth_is_the_best_by_leave_one_out_and_beats_the_rules():
    x = two_clusters(300, 0)
    held_out = KDEModel.fit(x, "held_out")
    others = [KDEModel.fit(x, rule) for rule in ("scott", "silverman")]
    unseen = two_clusters(500, 1)
    best = held_out.log_prob(unseen).mean()
    assert all(best > model.log_prob(unseen).mean() + 0.5 for model in others)

    def leave_one_out(h: float) -> float:  # by the definition
        distance = torch.cdist(x.double(), x.double()).square()
        log_kernel = -distance / (2 * h * h) - 2 * math.log(h)
        return log_kernel.fill_diagonal_(-math.inf).logsumexp(1).mean().item()

    h = held_out.bandwidth.item()
    top = max(leave_one_out(h * factor) for factor in np.geomspace(0.2, 5, 161))
    assert leave_one_out(h) == pytest.approx(top, abs=1e-3)


def test_of_many_points_some_choose_the_bandwidth(monkeypatch):
    x = two_clusters(2_000, 0)
    every = KDEModel.fit(x, "held_out").bandwidth.item()
    monkeypatch.setattr(modeling, "HELD_OUT_QUERIES", 500)
    some = KDEModel.fit(x, "held_out").bandwidth
    assert some.item() == pytest.approx(every, rel=0.2)
    assert torch.equal(some, KDEModel.fit(x, "held_out").bandwidth)


def test_doubled_points_end_at_the_lower_bound():
    x = cloud(100, 2).repeat(2, 1)
    lower = KDEModel.fit(x, "silverman").bandwidth.item() / 30
    assert KDEModel.fit(x, "held_out").bandwidth.item() == pytest.approx(lower, rel=1e-5)


def test_draws_are_points_of_the_set_with_noise():
    x, labels = three_classes()
    model = KDEModel.fit(x, 0.2, labels, 3)
    uniform, normal = torch.rand(40_000, generator=generator(1)), torch.randn(40_000, 2, generator=generator(2))
    drawn = model.draw(uniform, normal)
    torch.testing.assert_close(drawn.mean(0), x.mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), x.T.cov(correction=0) + 0.04 * torch.eye(2), atol=1.0, rtol=0.02)
    asked = torch.arange(40_000) % 3
    for c in range(3):
        ours = model.draw(uniform, normal, asked)[asked == c]
        torch.testing.assert_close(ours.mean(0), x[labels == c].mean(0), atol=0.05, rtol=0)
    still = model.draw(torch.tensor([0.0, 1 - 1e-7]), torch.zeros(2, 2))
    assert torch.equal(still, x[[0, -1]])
    ends = model.draw(torch.tensor([0.0, 1 - 1e-7, 1.0]), torch.zeros(3, 2), torch.tensor([2, 2, 2]))
    assert torch.equal(ends, x[labels == 2][[0, -1, -1]])


def test_a_draw_depends_on_its_own_noise_alone():
    model = KDEModel.fit(cloud(50, 2))
    uniform, normal = torch.rand(5, generator=generator()), torch.randn(5, 2, generator=generator())
    assert torch.equal(model.draw(uniform, normal)[3:4], model.draw(uniform[3:4], normal[3:4]))


def test_conditional_densities_are_those_of_the_classes_and_make_the_marginal():
    x, labels = three_classes()
    model, queries = KDEModel.fit(x, 0.4, labels, 3), cloud(90, 2, seed=7) * 5
    by_class = torch.stack([model.log_prob(queries, torch.full((90,), c)) for c in range(3)])
    for c in range(3):
        torch.testing.assert_close(by_class[c], KDEModel.fit(x[labels == c], 0.4).log_prob(queries), atol=1e-5, rtol=0)
    mixture = (by_class + (labels.bincount() / 600).log()[:, None]).logsumexp(0)
    torch.testing.assert_close(model.log_prob(queries), mixture, atol=2e-5, rtol=1e-6)
    asked = torch.arange(90) % 3
    assert torch.equal(model.log_prob(queries, asked), by_class[asked, torch.arange(90)])


@pytest.mark.parametrize("conditional", [False, True])
def test_a_saved_model_is_the_same(tmp_path, conditional):
    x, labels = three_classes()
    model = KDEModel.fit(x, "silverman", *((labels, 3) if conditional else ()))
    model.save_pretrained(tmp_path)
    loaded = KDEModel.from_pretrained(tmp_path)
    asked = torch.arange(600) % 3 if conditional else None
    assert torch.equal(loaded.log_prob(x, asked), model.log_prob(x, asked))
    assert model.num_parameters() == 1_201 + 600 * conditional
    half = KDEModel.from_pretrained(tmp_path, torch_dtype=torch.float16)
    assert half.dtype == torch.float16 and half.log_prob(x, asked).dtype == torch.float32
    torch.testing.assert_close(half.log_prob(x, asked), model.log_prob(x, asked), atol=0.1, rtol=0)


def test_computing_is_not_in_the_dtype_of_the_weights():
    x = cloud(100, 2)
    model = KDEModel.fit(x, 0.5)
    rounded = KDEModel.fit(x.bfloat16().float(), 0.5)
    assert torch.equal(model.bfloat16().log_prob(x), rounded.log_prob(x))


CONSTANT = torch.cat([cloud(20, 3), torch.full((20, 1), 0.5)], 1)
BAD_NUMBER = "it must be above 0, or one of scott, silverman, held_out"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3),), r"x has shape \(3,\) and dtype torch.float32; it must be a floating point tensor \(N, D\)"),
        ((torch.zeros(3, 2, dtype=torch.int64),), "dtype torch.int64; it must be a floating point"),
        (([[0.0]],), "x is a list; it must be a floating point tensor"),
        ((torch.zeros(1, 2),), "x holds 1 points; a density needs at least 2"),
        ((torch.tensor([[0.0], [math.nan]]),), "x holds NaN or infinite values"),
        ((cloud(9, 2), 0), f"bandwidth is 0; {BAD_NUMBER}"),
        ((cloud(9, 2), -1.5), f"bandwidth is -1.5; {BAD_NUMBER}"),
        ((cloud(9, 2), math.inf), f"bandwidth is inf; {BAD_NUMBER}"),
        ((cloud(9, 2), math.nan), f"bandwidth is nan; {BAD_NUMBER}"),
        ((cloud(9, 2), 1e-50), f"bandwidth is 1e-50; {BAD_NUMBER}"),
        ((cloud(9, 2), "best"), f"bandwidth is 'best'; {BAD_NUMBER}"),
        ((cloud(9, 2), None), f"bandwidth is None; {BAD_NUMBER}"),
        ((CONSTANT,), r"column 3 of x is constant \(0.5\); a density needs every column to vary: drop it, or bring"),
        ((CONSTANT, "held_out"), "column 3 of x is constant"),
        ((cloud(3, 2), 1.0, torch.tensor([0, 1, 2]), 2), "class_labels holds 2; classes go from 0 to 1"),
        ((cloud(3, 2), 1.0, torch.tensor([0, 1]), 2), r"class_labels has shape \(2,\) .* integer tensor \(3,\)"),
        ((cloud(3, 2), 1.0, torch.tensor([0.0, 1, 1]), 2), "class_labels has shape .* dtype torch.float32"),
        ((cloud(3, 2), 1.0, [0, 1, 1], 2), "class_labels is a list"),
        ((cloud(3, 2), 1.0, torch.tensor([0, 0, 0])), "num_classes is 0; with class_labels it must be at least 1"),
    ],
)  # fmt: skip
def test_an_estimate_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        KDEModel.fit(*arguments)
    assert "\n" not in str(error.value)


def test_a_number_is_taken_though_a_column_is_constant():
    assert KDEModel.fit(CONSTANT, 0.1).log_prob(CONSTANT).isfinite().all()


def test_calls_name_what_is_wrong():
    x, labels = three_classes()
    free, model = KDEModel.fit(x), KDEModel.fit(x, 1.0, labels, 4)
    with pytest.raises(ValueError, match=r"x has shape \(5, 3\); this model takes \(B, 2\)"):
        free.log_prob(torch.zeros(5, 3))
    for call in (free.log_prob, lambda x, c: free.draw(x[:, 0], x, c)):
        with pytest.raises(ValueError, match="class_labels is given, but this model was fitted without classes"):
            call(x, labels)
    for call in (model.log_prob, lambda x, c: model.draw(x[:, 0], x, c)):
        with pytest.raises(ValueError, match="class_labels holds 3, a class of which this model has no points"):
            call(x[:2], torch.tensor([0, 3]))
        with pytest.raises(ValueError, match="class_labels holds 4; classes go from 0 to 3"):
            call(x[:2], torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="num_points is 0; it must be an integer from 1"):
        KDEModel(0, 2)
    with pytest.raises(ValueError, match="conditional is True, but the data has no classes"):
        KDEModel(3, 2, conditional=True)
