"""Truths of the Gaussian mixture: densities, expectation maximisation, the information criterion, draws."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

import pipelines.classical.expectation_maximisation as em
from pipelines.classical.modeling_gaussian_mixture import COVARIANCES, GaussianMixtureModel
from tests.contract import UNIT_DEQUANTISED, image_spec
from tests.pipelines.test_kde import density_instance


def two(points, **by_class) -> GaussianMixtureModel:
    return GaussianMixtureModel.fit(points, 2, reg_covar=0.5, **by_class)


INSTANCES = {
    "mixture": density_instance(two, image_spec(UNIT_DEQUANTISED)),
    "mixture by class": density_instance(two, image_spec(UNIT_DEQUANTISED), 4, 10),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clusters(count: int = 600, dim: int = 2, spread: float = 6.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three Gaussians of different shape and size, and which of them each point is from."""
    g = generator(seed)
    labels = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), count, replacement=True, generator=g)
    means = spread * torch.randn(3, dim, generator=generator(100)) + 2
    factors = torch.randn(3, dim, dim, generator=generator(200)) * 0.4 + torch.eye(dim)
    noise = torch.randn(count, dim, generator=g)
    return means[labels] + (factors[labels] @ noise[:, :, None])[:, :, 0], labels


def in_sklearn(model: GaussianMixtureModel) -> GaussianMixture:
    """scikit-learn's mixture with these parameters."""
    kind, scale = model.config.covariance_type, model.scale.double()
    theirs = GaussianMixture(len(model.weights), covariance_type=kind)
    theirs.weights_ = (model.weights.double() / model.weights.double().sum()).numpy()
    theirs.means_ = model.means.double().numpy()
    if kind in ("full", "tied"):
        theirs.covariances_ = (scale @ scale.mT).numpy()
        theirs.precisions_cholesky_ = torch.linalg.inv(scale).mT.contiguous().numpy()
    else:
        theirs.covariances_ = scale.square().numpy()
        theirs.precisions_cholesky_ = (1 / scale).numpy()
    return theirs


class FromResponsibilities(GaussianMixture):
    """scikit-learn's mixture, started from given responsibilities."""

    def start(self, responsibilities: torch.Tensor) -> "FromResponsibilities":
        self.given = responsibilities.double().numpy()
        return self

    def _initialize_parameters(self, X, random_state, xp=None):
        self._initialize(X, self.given)


def soft_start(count: int, num_components: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, num_components, generator=generator(seed)).mul(4).softmax(1).double()


@pytest.mark.parametrize("kind", COVARIANCES)
@pytest.mark.parametrize("dim", [1, 3, 20])
def test_log_prob_is_that_of_scikit_learn(kind, dim):
    x, _ = clusters(500, dim)
    model = GaussianMixtureModel.fit(x, 3, kind, max_iter=3)
    theirs = in_sklearn(model)
    queries = torch.cat([x, x[:50] + 5])
    array = queries.double().numpy()
    log_prob = model.log_prob(queries)
    assert log_prob.dtype == torch.float32 and log_prob.shape == (550,)
    torch.testing.assert_close(log_prob.double(), torch.from_numpy(theirs.score_samples(array)), atol=1e-5, rtol=1e-6)
    responsibilities = model.responsibilities(queries)
    torch.testing.assert_close(responsibilities.double(), torch.from_numpy(theirs.predict_proba(array)), atol=1e-5, rtol=0)  # fmt: skip
    torch.testing.assert_close(responsibilities.sum(1), torch.ones(550))
    joint = model.component_log_prob(queries) + model.weights.log()
    torch.testing.assert_close(joint.logsumexp(1), log_prob, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", COVARIANCES)
def test_the_density_integrates_to_one(kind):
    x, _ = clusters(300, 2, spread=2.0)
    model = GaussianMixtureModel.fit(x, 3, kind)
    side = torch.linspace(-12, 14, 601)
    mass = model.log_prob(torch.cartesian_prod(side, side)).exp().sum() * (side[1] - side[0]) ** 2
    torch.testing.assert_close(mass, torch.tensor(1.0), atol=1e-4, rtol=0)
    line = GaussianMixtureModel.fit(x[:, :1], 3, kind)
    torch.testing.assert_close(
        torch.trapezoid(line.log_prob(side[:, None]).exp(), side), torch.tensor(1.0), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("kind", COVARIANCES)
def test_tails_are_finite(kind):
    model = GaussianMixtureModel.fit(clusters()[0], 3, kind)
    far = torch.tensor([[1e3, -1e3], [1e6, 1e6]])
    log_prob = model.log_prob(far)
    assert log_prob.isfinite().all() and (log_prob < -1e4).all()
    torch.testing.assert_close(model.responsibilities(far).sum(1), torch.ones(2))


@pytest.mark.parametrize("kind", COVARIANCES)
def test_blocks_change_nothing(kind, monkeypatch):
    x, _ = clusters(203, 4)
    steps = [s.log_likelihood for s in GaussianMixtureModel.em_steps(x, 3, kind, max_iter=5, tol=0.0)]
    model = GaussianMixtureModel.fit(x, 3, kind, max_iter=5, tol=0.0)
    monkeypatch.setattr(em, "BLOCK", 60)
    again = GaussianMixtureModel.fit(x, 3, kind, max_iter=5, tol=0.0)
    assert [s.log_likelihood for s in GaussianMixtureModel.em_steps(x, 3, kind, max_iter=5, tol=0.0)] == pytest.approx(
        steps, abs=1e-9
    )
    torch.testing.assert_close(again.scale, model.scale)
    torch.testing.assert_close(again.log_prob(x), model.log_prob(x))
    assert model.log_prob(x[:0]).shape == (0,) and model.responsibilities(x[:0]).shape == (0, 3)


@pytest.mark.parametrize("kind", COVARIANCES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_likelihood_never_falls(kind, seed):
    x, _ = clusters(400, 3, spread=1.0, seed=seed)
    starts = [None, soft_start(400, 5, seed)]
    for start in starts:
        values = [s.log_likelihood for s in GaussianMixtureModel.em_steps(x, 5, kind, tol=1e-6, seed=seed, initial=start)]  # fmt: skip
        assert len(values) > 5
        for before, after in pairwise(values):
            assert after >= before - 1e-6 * abs(before)


@pytest.mark.parametrize("kind", COVARIANCES)
def test_each_step_is_that_of_scikit_learn(kind):
    x, _ = clusters(300, 3, spread=2.0)
    start, array = soft_start(300, 4), x.double().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        theirs = {n: FromResponsibilities(4, covariance_type=kind, max_iter=n, tol=0.0).start(start).fit(array) for n in (1, 2, 15)}  # fmt: skip
    steps = list(GaussianMixtureModel.em_steps(x, 4, kind, max_iter=15, tol=0.0, initial=start))
    assert [s.step for s in steps] == list(range(16)) and steps[0].num_steps == 16
    for n, reference in theirs.items():
        ours = steps[n].model
        torch.testing.assert_close(ours.weights.double(), torch.from_numpy(reference.weights_), atol=1e-6, rtol=0)
        torch.testing.assert_close(ours.means.double(), torch.from_numpy(reference.means_), atol=1e-5, rtol=0)
        covariances = torch.from_numpy(in_sklearn(ours).covariances_)
        torch.testing.assert_close(covariances, torch.from_numpy(reference.covariances_), atol=1e-5, rtol=1e-5)
        assert steps[n].log_likelihood == pytest.approx(reference.score(array), abs=1e-7)
    # scikit-learn's list begins with the likelihood of the start, as ours does
    assert [s.log_likelihood for s in steps[:15]] == pytest.approx(theirs[15].lower_bounds_, abs=1e-9)


def test_a_step_has_the_likelihood_of_its_own_model():
    x, _ = clusters(300)
    steps = list(GaussianMixtureModel.em_steps(x, 3, max_iter=4, tol=0.0))
    for step in steps:
        assert step.log_likelihood == pytest.approx(step.model.log_prob(x).mean().item(), abs=1e-4)


def test_it_ends_when_the_likelihood_stands_still():
    x, _ = clusters(spread=1.0)
    steps = list(GaussianMixtureModel.em_steps(x, 3, tol=1e-4))
    changes = [b.log_likelihood - a.log_likelihood for a, b in pairwise(steps)]
    assert all(c >= 1e-4 for c in changes[:-1]) and changes[-1] < 1e-4
    assert [s.converged for s in steps] == [False] * (len(steps) - 1) + [True]
    fitted = GaussianMixtureModel.fit(x, 3, tol=1e-4)
    assert torch.equal(fitted.log_prob(x), steps[-1].model.log_prob(x))
    only = list(GaussianMixtureModel.em_steps(x, 3, max_iter=0))
    assert len(only) == 1 and not only[0].converged


def test_labels_start_as_one_hot_responsibilities_do():
    x, labels = clusters()
    by_labels = GaussianMixtureModel.fit(x, 3, max_iter=2, initial=labels)
    by_rows = GaussianMixtureModel.fit(x, 3, max_iter=2, initial=torch.nn.functional.one_hot(labels, 3).float())
    assert torch.equal(by_labels.scale, by_rows.scale)


def test_the_seed_decides_and_clear_clusters_are_found():
    x, labels = clusters(spread=10.0)
    for seed in range(8):
        model = GaussianMixtureModel.fit(x, 3, seed=seed)
        assert torch.equal(model.scale, GaussianMixtureModel.fit(x, 3, seed=seed).scale)
        found = model.responsibilities(x).argmax(1)
        assert len({(a, b) for a, b in zip(labels.tolist(), found.tolist(), strict=True)}) == 3
        torch.testing.assert_close(model.weights.sort()[0], labels.bincount().sort()[0] / 600, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", COVARIANCES)
def test_bic_is_that_of_scikit_learn_and_finds_three_clusters(kind):
    x = torch.randn(600, 2, generator=generator(1)) + 8 * torch.eye(3, 2)[torch.arange(600) % 3]
    values = {}
    for count in range(1, 6):
        model = GaussianMixtureModel.fit(x, count, kind)
        values[count] = model.bic(x)
        theirs = in_sklearn(model)
        assert model.num_free_parameters == theirs._n_parameters()
        assert values[count] == pytest.approx(theirs.bic(x.double().numpy()), rel=1e-9)
    assert min(values, key=values.get) == 3


@pytest.mark.parametrize("kind", COVARIANCES)
def test_draws_have_the_moments_of_the_mixture(kind):
    x, labels = clusters(600, 2, spread=4.0)
    model = GaussianMixtureModel.fit(x, 2, kind, labels, 3)
    uniform, normal = torch.rand(60_000, generator=generator(1)), torch.randn(60_000, 2, generator=generator(2))
    drawn = model.draw(uniform, normal)
    assert drawn.dtype == torch.float32 and drawn.shape == (60_000, 2)
    torch.testing.assert_close(drawn.mean(0), x.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), x.T.cov(), atol=3.0 if kind == "spherical" else 0.5, rtol=0)
    asked = torch.arange(60_000) % 3
    of_class = model.draw(uniform, normal, asked)
    for c in range(3):
        torch.testing.assert_close(of_class[asked == c].mean(0), x[labels == c].mean(0), atol=0.1, rtol=0)
    k = 4
    own = model.draw(uniform, normal, component=k)
    torch.testing.assert_close(own.mean(0), model.means[k], atol=0.05, rtol=0)
    scale = model.scale[model.component_classes[k] if kind == "tied" else k]
    covariance = scale @ scale.T if kind in ("full", "tied") else scale.square() * torch.eye(2)
    torch.testing.assert_close(own.T.cov(), covariance, atol=0.02, rtol=0.05)
    # each sample from its own noise
    torch.testing.assert_close(model.draw(uniform[7:8], normal[7:8], asked[7:8])[0], of_class[7])


def test_tied_draws_without_classes_and_a_component_of_no_weight():
    x, _ = clusters()
    model = GaussianMixtureModel.fit(x, 3, "tied")
    uniform, normal = torch.rand(40_000, generator=generator(1)), torch.randn(40_000, 2, generator=generator(2))
    torch.testing.assert_close(model.draw(uniform, normal).T.cov(), x.T.cov(), atol=0.5, rtol=0.03)
    model.weights.copy_(torch.tensor([0.0, 1.0, 0.0]))
    ends = torch.tensor([0.0, 0.5, 1 - 1e-7])
    assert torch.equal(model.draw(ends, torch.zeros(3, 2)), model.means[[1, 1, 1]])
    assert model.log_prob(x).isfinite().all()


@pytest.mark.parametrize("kind", COVARIANCES)
def test_conditional_densities_are_those_of_the_classes_and_make_the_marginal(kind):
    x, labels = clusters(600, 2, spread=2.0)
    steps = list(GaussianMixtureModel.em_steps(x, 2, kind, labels, 3))
    model = steps[-1].model
    assert model.config.num_components == 6 and model.component_classes.tolist() == [0, 0, 1, 1, 2, 2]
    by_class = torch.stack([model.log_prob(x, torch.full((600,), c)) for c in range(3)])
    for c in range(3):
        own = [s for s in steps if s.class_label == c]
        assert own[-1].model.config.num_components == 2 * (c + 1)
        members = labels == c
        assert own[-1].log_likelihood == pytest.approx(by_class[c][members].mean().item(), abs=1e-4)
        alone = GaussianMixtureModel.fit(x[members], 2, kind)
        torch.testing.assert_close(alone.log_prob(x), by_class[c], atol=1e-4, rtol=1e-5)
    mixture = (by_class + (labels.bincount() / 600).log()[:, None]).logsumexp(0)
    torch.testing.assert_close(model.log_prob(x), mixture, atol=2e-5, rtol=1e-6)
    assert [s.step for s in steps] == list(range(len(steps))) and len(steps) <= steps[0].num_steps == 303
    # three mixtures of two components, and the two free shares of the classes
    own = [GaussianMixtureModel.fit(x[labels == c], 2, kind).num_free_parameters for c in range(3)]
    assert model.num_free_parameters == sum(own) + 2


@pytest.mark.parametrize("kind", COVARIANCES)
@pytest.mark.parametrize("conditional", [False, True])
def test_a_saved_model_is_the_same(tmp_path, kind, conditional):
    x, labels = clusters(200)
    model = GaussianMixtureModel.fit(x, 2, kind, *((labels, 3) if conditional else ()))
    model.save_pretrained(tmp_path)
    loaded = GaussianMixtureModel.from_pretrained(tmp_path)
    asked = labels if conditional else None
    assert torch.equal(loaded.log_prob(x, asked), model.log_prob(x, asked))
    half = GaussianMixtureModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and half.log_prob(x, asked).dtype == torch.float32
    assert (half.log_prob(x, asked) - model.log_prob(x, asked)).abs().median() < 0.1


@pytest.mark.parametrize("kind", COVARIANCES)
def test_a_component_without_points_does_no_harm(kind):
    x, labels = clusters(300)
    start = labels.clamp(max=1)  # nothing starts in the third
    values = [s.log_likelihood for s in GaussianMixtureModel.em_steps(x, 3, kind, max_iter=20, tol=0.0, initial=start)]
    model = GaussianMixtureModel.fit(x, 3, kind, max_iter=20, tol=0.0, initial=start)
    assert np.isfinite(values).all() and all(p.isfinite().all() for p in model.parameters())
    assert model.log_prob(x).isfinite().all()


@pytest.mark.parametrize("kind", COVARIANCES)
def test_doubled_points_and_as_many_components_as_points_give_no_nan(kind):
    x = torch.tensor([[0.0, 1.0], [2.0, 5.0], [3.0, 3.0]])
    for data, count in ((x, 3), (x.repeat(4, 1), 5), (x.repeat(4, 1), 12)):
        steps = list(GaussianMixtureModel.em_steps(data, count, kind, max_iter=10))
        assert all(math.isfinite(s.log_likelihood) for s in steps)
        assert steps[-1].model.log_prob(data).isfinite().all()


def test_a_tight_cluster_far_from_zero_keeps_its_covariance():
    """A component a million times smaller than the spread of the data, which itself is far from zero."""
    g = generator(5)
    wide = 1e3 * torch.randn(500, 2, generator=g, dtype=torch.float64) + 1e5
    factor = torch.tensor([[1e-2, 0.0], [0.9e-2, 0.3e-2]], dtype=torch.float64)
    tight = torch.randn(500, 2, generator=g, dtype=torch.float64) @ factor.T + 1e5 + 700
    x, labels = torch.cat([wide, tight]), torch.arange(1_000) // 500
    for step in GaussianMixtureModel.em_steps(x, 2, max_iter=5, tol=0.0, reg_covar=0.0, initial=labels):
        scale = step.model.scale[1].double()
        torch.testing.assert_close(scale @ scale.T, tight.T.cov(correction=0), rtol=1e-3, atol=0)


THREE = torch.randn(3, 2, generator=generator())
TEN = torch.randn(10, 2, generator=generator())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": THREE, "num_components": 5}, "num_components is 5, but x holds 3 points; a component needs at least one"),
        ({"class_labels": torch.tensor([0] * 8 + [1] * 2), "num_classes": 2, "num_components": 3},
         "num_components is 3, but class 1 holds 2 points"),
        ({"class_labels": torch.tensor([0] * 10), "num_classes": 2}, "num_components is 2, but class 1 holds 0 points"),
        ({"num_components": 0}, "num_components is 0; it must be an integer of at least 1"),
        ({"num_components": 2.5}, "num_components is 2.5; it must be an integer"),
        ({"num_components": True}, "num_components is True; it must be an integer"),
        ({"covariance_type": "round"}, "covariance_type is 'round'; it must be one of full, tied, diag, spherical"),
        ({"max_iter": -1}, "max_iter is -1; it must be an integer of at least 0"),
        ({"tol": -1e-3}, "tol is -0.001; it must be a number of at least 0"),
        ({"reg_covar": math.nan}, "reg_covar is nan; it must be a number of at least 0"),
        ({"x": TEN.numpy()}, r"x is a ndarray; it must be a floating point tensor \(N, D\)"),
        ({"x": TEN[0]}, r"x has shape \(2,\) and dtype torch.float32; it must be a floating point tensor"),
        ({"x": TEN.long()}, "dtype torch.int64; it must be a floating point tensor"),
        ({"x": TEN / 0}, "x holds NaN or infinite values; all must be finite"),
        ({"x": torch.cat([TEN, torch.full((10, 1), 0.5)], 1)},
         r"column 2 of x is constant \(0.5\); a density needs every column to vary: drop it, or bring"),
        ({"class_labels": torch.arange(10), "num_classes": 9}, "class_labels holds 9; classes go from 0 to 8"),
        ({"class_labels": torch.arange(9), "num_classes": 9}, r"class_labels has shape \(9,\) .* integer tensor \(10,\)"),
        ({"class_labels": [0] * 10, "num_classes": 1}, "class_labels is a list"),
        ({"class_labels": torch.arange(10)}, "num_classes is 0; it must be an integer of at least 1"),
        ({"initial": torch.zeros(9, dtype=torch.int64)},
         r"initial has shape \(9,\); it must be \(10,\) cluster labels or \(10, 2\) responsibilities"),
        ({"initial": torch.full((10,), 2)}, "initial holds 2; cluster labels go from 0 to 1"),
        ({"initial": torch.zeros(10)}, "initial has dtype torch.float32; cluster labels must be integers"),
        ({"initial": torch.full((10, 2), 0.3)}, "initial holds responsibilities that are negative or do not sum to 1"),
    ],
)  # fmt: skip
def test_a_mixture_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as error:  # at the call, not at the first step
        GaussianMixtureModel.em_steps(**{"x": TEN, "num_components": 2, **arguments})
    assert "\n" not in str(error.value)


def test_a_covariance_that_shrinks_to_nothing_is_refused_where_nothing_prevents_it():
    with pytest.raises(ValueError, match=r"a covariance has become singular; raise reg_covar \(0\)"):
        GaussianMixtureModel.fit(THREE, 3, reg_covar=0.0)


def test_calls_name_what_is_wrong():
    x, labels = clusters(100)
    free, model = GaussianMixtureModel.fit(x, 2), GaussianMixtureModel.fit(x, 2, "full", labels, 3)
    for call in (free.log_prob, free.component_log_prob, free.responsibilities, free.bic):
        with pytest.raises(ValueError, match=r"x has shape \(5, 3\); this model takes \(B, 2\)"):
            call(torch.zeros(5, 3))
    uniform, normal = torch.zeros(2), torch.zeros(2, 2)
    for call in (lambda c: free.log_prob(normal, c), lambda c: free.draw(uniform, normal, c)):
        with pytest.raises(ValueError, match="class_labels is given, but this model was fitted without classes"):
            call(torch.tensor([0, 1]))
    model.component_classes[model.component_classes == 2] = 1
    for call in (lambda c: model.log_prob(normal, c), lambda c: model.draw(uniform, normal, c)):
        with pytest.raises(ValueError, match="class_labels holds 3; classes go from 0 to 2"):
            call(torch.tensor([0, 3]))
        with pytest.raises(ValueError, match="class_labels holds 2, a class of which this model has no components"):
            call(torch.tensor([0, 2]))
    for component in (6, -1, 1.5):
        with pytest.raises(ValueError, match=f"component is {component}; components go from 0 to 5"):
            model.draw(uniform, normal, component=component)
    with pytest.raises(ValueError, match="component and class_labels are both given"):
        model.draw(uniform, normal, torch.tensor([0, 1]), component=0)
    for arguments, message in (
        ({"num_components": 0}, "num_components is 0"),
        ({"dim": 0}, "dim is 0"),
        ({"covariance_type": "x"}, "covariance_type is 'x'"),
        ({"conditional": True}, "conditional is True, but the data has no classes"),
    ):
        with pytest.raises(ValueError, match=message):
            GaussianMixtureModel(**{"num_components": 2, "dim": 2, **arguments})
