"""Principal components: the singular value decomposition, orthonormal, in batches; and the density they carry."""

import math

import pytest
import torch
from scipy.stats import multivariate_normal

from pipelines.classical.modeling_gaussian_mixture import GaussianMixtureModel
from pipelines.classical.modeling_kde import KDEModel
from pipelines.classical.modeling_pca import PCAModel
from pipelines.classical.pipeline_density import DensityPipeline
from tests.contract import CODES, UNIT_DEQUANTISED, VECTOR_SPEC, Instance, image_spec


def instance(spec: dict, num_components: int) -> Instance:
    def make():
        noise = torch.rand(80, math.prod(spec["shape"]), generator=torch.Generator().manual_seed(0))
        return DensityPipeline(None, PCAModel.fit([noise], num_components), spec).to("cpu")

    return Instance(
        DensityPipeline,
        make,
        "none",
        CODES | {"reconstruction_error"},
        judge="reconstruction_error",
        reason=r"log_prob: a PCA without a density of its codes has no p\(x\)",
    )


INSTANCES = {"pca": instance(image_spec(UNIT_DEQUANTISED), 4), "pca of vectors": instance(VECTOR_SPEC, 1)}

IMAGES = {"kind": "image", "shape": [1, 4, 4], "support": "8-bit", "range": [0, 1], "dequantization": "uniform",
          "num_classes": 0}  # fmt: skip


def vectors(size: int) -> dict:
    return {"kind": "vector", "shape": [size], "support": "real", "range": None, "dequantization": "none",
            "num_classes": 0}  # fmt: skip


@pytest.fixture(scope="module")
def x():
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(8, 8, generator=generator)
    return torch.randn(500, 8, generator=generator) @ mixed + 100  # far from zero


def test_components_are_the_singular_vectors(x):
    pca = PCAModel.fit([x], 3)
    centred = x.double() - x.double().mean(0)
    _, values, vectors = torch.linalg.svd(centred, full_matrices=False)
    torch.testing.assert_close(pca.variances.double(), values.square() / len(x), rtol=1e-4, atol=1e-5)
    projector = pca.components @ pca.components.T
    torch.testing.assert_close(projector.double(), vectors[:3].T @ vectors[:3], atol=1e-4, rtol=0)
    torch.testing.assert_close(pca.components.T @ pca.components, torch.eye(3), atol=1e-5, rtol=0)


def test_batches_change_nothing(x):
    whole, parts = PCAModel.fit([x], 3), PCAModel.fit(x.split(37), 3)
    for name in ("mean", "components", "variances"):
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name), rtol=1e-4, atol=1e-4)


def test_the_error_is_what_the_spectrum_leaves_out(x):
    for k in (1, 3, 8):
        pca = PCAModel.fit([x], k)
        again = pca.decode(pca.encode(x))
        left = pca.variances[k:].sum().item()
        assert (again - x).square().sum(1).mean().item() == pytest.approx(left, rel=1e-3, abs=1e-4)
        # no other plane of as many dimensions does better
        other = torch.linalg.qr(torch.randn(8, k, generator=torch.Generator().manual_seed(k)))[0]
        centred = x - x.mean(0)
        assert (centred - centred @ other @ other.T).square().sum(1).mean() >= left - 1e-3


def test_a_gaussian_of_the_codes_is_probabilistic_pca(x):
    """log p(x) against the closed form N(x; m, W L W^T + s^2 (I - W W^T))."""
    pca = PCAModel.fit([x], 3)
    mixture = GaussianMixtureModel.fit(pca.encode(x), 1, max_iter=5, reg_covar=0.0)
    pipe = DensityPipeline(mixture, pca, vectors(8))
    w = pca.components.double()
    covariance = w @ torch.diag(pca.variances[:3].double()) @ w.T + pca.residual_variance * (torch.eye(8) - w @ w.T)
    expected = multivariate_normal(pca.mean.double().numpy(), covariance.numpy()).logpdf(x[:50].double().numpy())
    torch.testing.assert_close(pipe.log_prob(x[:50]).double(), torch.from_numpy(expected), atol=2e-3, rtol=1e-4)


def test_samples_have_the_moments_of_the_model(x):
    pca = PCAModel.fit([x], 3)
    pipe = DensityPipeline(GaussianMixtureModel.fit(pca.encode(x), 2), pca, vectors(8))
    generator = torch.Generator().manual_seed(0)
    drawn = pipe(40_000, decoder_output="sample", generator=generator).samples
    torch.testing.assert_close(drawn.mean(0), x.mean(0), atol=0.15, rtol=0)
    covariance = torch.cov(x.T, correction=0)
    w = pca.components
    off = torch.eye(8) - w @ w.T  # what the code leaves out is spread evenly over its directions
    expected = w @ w.T @ covariance @ w @ w.T + pca.residual_variance * off
    assert (torch.cov(drawn.T) - expected).abs().max() < 0.05 * covariance.diagonal().max()
    flat = pipe(1_000, generator=generator).samples  # the mean has none of it
    assert ((flat - pca.mean) @ off).abs().max() < 1e-3


def test_images_are_measured_as_pixels_in_0_to_256():
    """A density that is flat over [0, 256) gives log 1/256 for each pixel."""
    points = torch.full((2, 16), 0.5)
    wide = KDEModel.fit(points, 1e3)  # flat on [0, 1]
    pipe = DensityPipeline(wide, None, IMAGES)
    x = (torch.rand(5, 1, 4, 4) * 255).round() / 255
    flat = -16 * math.log(math.sqrt(2 * math.pi) * 1e3)
    torch.testing.assert_close(pipe.log_prob(x), torch.full((5,), flat - 16 * math.log(256)), atol=1e-3, rtol=0)


def test_levels_come_back_from_a_full_code():
    x = (torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    pca = PCAModel.fit([((x * 255 + 0.5) / 256).flatten(1)], 16)
    pipe = DensityPipeline(None, pca, IMAGES)
    torch.testing.assert_close(pipe.reconstruct(x, output_type="pt").images, x, atol=1e-4, rtol=0)
    errors = [pipe.reconstruct(x, num_components=k, output_type="pt").images.sub(x).square().mean() for k in (1, 4, 9)]
    assert errors[0] > errors[1] > errors[2] > pipe.reconstruction_error(x).mean()


def test_a_pca_alone_has_no_density(x, tmp_path):
    pipe = DensityPipeline(None, PCAModel.fit([x], 3), vectors(8))
    assert pipe.likelihood == "none"
    with pytest.raises(NotImplementedError, match=r"has no density of its codes.*--density mixture or kde"):
        pipe()
    with pytest.raises(NotImplementedError, match=r"a PCA without a density of its codes has no p\(x\)"):
        pipe.log_prob(x)
    pipe.save_pretrained(tmp_path)
    again = DensityPipeline.from_pretrained(tmp_path)
    assert again.density is None and torch.equal(again.encode(x), pipe.encode(x))


def test_what_does_not_fit_is_named(x):
    pca = PCAModel.fit([x], 3)
    for call, message in (
        (lambda: PCAModel.fit([x], 9), "num_components is 9; it must lie between 1 and 8"),
        (lambda: PCAModel.fit([x[:1]], 2), "x holds 1 rows; PCA needs at least 2"),
        (lambda: PCAModel.fit([x, x[:, :2]], 2), "all batches must be"),
        (lambda: PCAModel.fit([x / 0], 2), "x holds NaN or infinite values"),
        (lambda: DensityPipeline(None, None, vectors(8)), "density and pca are both None"),
        (lambda: DensityPipeline(None, pca, vectors(9)), "pca has 8 dimensions; it must have 9"),
        (lambda: DensityPipeline(KDEModel.fit(x), pca, vectors(8)), "density has 8 dimensions; it must have 3"),
        (lambda: DensityPipeline(None, pca), "data_spec is None"),
        (lambda: DensityPipeline(None, pca, vectors(8)).decode(x), r"latents is \(500, 8\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(NotImplementedError, match="there are no codes without a PCA"):
        DensityPipeline(KDEModel.fit(x), None, vectors(8)).encode(x)
