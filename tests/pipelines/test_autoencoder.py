"""The autoencoder: its codes' priors, tangents on a known manifold, walks, and what it refuses."""

import math

import pytest
import torch

from pipelines.autoencoders.modeling_autoencoder import AutoencoderModel, prior_codes
from pipelines.autoencoders.pipeline_autoencoder import AutoencoderPipeline
from pipelines.classical.modeling_gaussian_mixture import GaussianMixtureModel
from pipelines.classical.modeling_kde import KDEModel
from tests.contract import CODES, UNIT, VECTOR_SPEC, Instance, fitted_to_noise, image_spec
from training.autoencoders.autoencoder import AutoencoderOptions, make_loss


def instance(spec: dict, owes: set = frozenset(), prior=lambda: None, classes: int = 0, **config) -> Instance:
    def make():
        torch.manual_seed(0)
        return AutoencoderPipeline(AutoencoderModel(spec, latent_dim=3, width=16, **config).eval(), prior()).to("cpu")

    def loss(pipe, x, labels):
        found, x = pipe.autoencoder(pipe._to_network(x)), pipe._to_network(x)
        told = 0 if found.logits is None else torch.nn.functional.cross_entropy(found.logits, torch.arange(len(x)) % 10)
        return (found.reconstruction - x).square().mean() + told

    return Instance(
        AutoencoderPipeline,
        make,
        "implicit" if "sample" in owes else "none",
        CODES | {"denoise", "reconstruction_error", "tangents", "walk"} | owes,
        classes=classes,
        loss=loss,
        judge="reconstruction_error",
        reason=r"log_prob: an autoencoder .* reconstruction_error\(x\)",
        options={"tangents": {"k": 2}},
    )


def kde_prior():
    return fitted_to_noise(lambda *points, **classes: KDEModel.fit(*points, 1.0, **classes), 3)


def mixture_prior():
    return fitted_to_noise(
        lambda *points, **classes: GaussianMixtureModel.fit(*points, 2, reg_covar=0.5, **classes), 3, 10
    )


INSTANCES = {
    "autoencoder": instance(image_spec(UNIT), {"sample"}, kde_prior),
    "autoencoder by class": instance(
        image_spec(UNIT, 3), {"sample", "classify"}, mixture_prior, 10, network="conv", supervised=True
    ),
    "autoencoder ring": instance(VECTOR_SPEC, {"sample"}, code_prior="ring"),
    "autoencoder without prior": instance(image_spec(UNIT)),
}

IMAGES = {"kind": "image", "shape": [1, 8, 8], "support": "8-bit", "range": [0, 1], "dequantization": "none",
          "num_classes": 10}  # fmt: skip
VECTORS = {"kind": "vector", "shape": [50], "support": "real", "range": None, "dequantization": "none",
           "num_classes": 0}  # fmt: skip


def model(spec=IMAGES, **config) -> AutoencoderModel:
    torch.manual_seed(0)
    return AutoencoderModel(spec, **{"latent_dim": 3, "width": 16, **config}).eval()


@pytest.fixture
def x():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def noise(count: int, dim: int):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, generator=generator), torch.randn(count, dim, generator=generator)


@pytest.mark.parametrize("dim", [2, 5])
def test_a_ball_and_a_ring_are_filled_evenly(dim):
    """The share of draws within a radius is the share of the volume within it."""
    radius = prior_codes("ball", *noise(20_000, dim)).norm(dim=1)
    assert radius.max() <= 1 + 1e-6
    assert (radius < 0.8).float().mean() == pytest.approx(0.8**dim, abs=0.02)
    radius = prior_codes("ring", *noise(20_000, dim)).norm(dim=1)
    assert radius.min() >= 0.7 - 1e-6 and radius.max() <= 1 + 1e-6
    assert (radius < 0.85).float().mean() == pytest.approx((0.85**dim - 0.7**dim) / (1 - 0.7**dim), abs=0.02)


def test_a_gaussian_prior_is_the_noise_itself():
    uniform, normal = noise(10, 3)
    assert torch.equal(prior_codes("gaussian", uniform, normal), normal)


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("size", [7, 8])
def test_reconstructions_have_the_shape_of_x(network, size):
    spec = {**IMAGES, "shape": [3, size, size + 2]}
    autoencoder = model(spec, network=network, width=4)
    found = autoencoder(torch.rand(2, 3, size, size + 2))
    assert found.codes.shape == (2, 3) and found.reconstruction.shape == (2, 3, size, size + 2)
    assert found.logits is None


def test_without_a_prior_there_is_nothing_to_draw_from(x):
    pipe = AutoencoderPipeline(model())
    assert pipe.likelihood == "none"
    with pytest.raises(NotImplementedError, match=r"no prior over its codes.*--prior mixture or kde"):
        pipe()
    assert len(pipe.reconstruct(x).images) == 5  # everything else works
    with pytest.raises(NotImplementedError, match=r"an autoencoder has no p\(x\)"):
        pipe.log_prob(x)


@pytest.mark.parametrize("kind", ["gaussian", "ring", "ball"])
def test_a_prior_of_the_objective_is_drawn_from(kind):
    pipe = AutoencoderPipeline(model(code_prior=kind))
    assert pipe.likelihood == "implicit"
    (step,) = pipe.stream(200, generator=torch.Generator().manual_seed(0), output_type="pt")
    assert step.images.shape == (200, 1, 8, 8)
    assert kind == "gaussian" or step.latents.norm(dim=1).max() <= 1 + 1e-6


def test_a_fitted_prior_goes_with_the_pipeline(x, tmp_path):
    plain = AutoencoderPipeline(model())
    codes, labels = plain.encode(torch.rand(200, 1, 8, 8)), torch.arange(200) % 10
    for prior in (
        KDEModel.fit(codes, "scott", labels, 10),
        GaussianMixtureModel.fit(codes, 2, "diag", class_labels=labels, num_classes=10),
        GaussianMixtureModel.fit(codes, 3),
    ):
        pipe = AutoencoderPipeline(model(), prior)
        pipe.save_pretrained(tmp_path)
        again = AutoencoderPipeline.from_pretrained(tmp_path)
        known = {"class_labels": [3, 4]} if prior.config.conditional else {"batch_size": 2}
        drawn = [p(**known, generator=torch.Generator().manual_seed(0), output_type="pt").images for p in (pipe, again)]
        assert torch.equal(*drawn)
    plain.save_pretrained(tmp_path)
    assert AutoencoderPipeline.from_pretrained(tmp_path).prior is None
    with pytest.raises(ValueError, match="prior has 2 dimensions; it must have 3"):
        AutoencoderPipeline(model(), KDEModel.fit(codes[:, :2]))


def test_a_class_is_drawn_from_its_own_codes():
    """Classes whose codes lie far apart stay apart."""
    centres = 10 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(400) % 4
    codes = centres[labels] + 0.1 * torch.randn(400, 3, generator=torch.Generator().manual_seed(1))
    spec = {**IMAGES, "num_classes": 4}
    pipe = AutoencoderPipeline(model(spec), GaussianMixtureModel.fit(codes, 1, class_labels=labels, num_classes=4))
    (step,) = pipe.stream(class_labels=[0, 1, 2, 3] * 20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cdist(step.latents, centres).argmin(1), torch.arange(80) % 4)


def test_tangents_are_the_singular_vectors_of_the_jacobian(x):
    """Against the Jacobian row by row, by plain autograd."""
    pipe = AutoencoderPipeline(model())
    found = pipe.tangents(x, k=2)
    assert found.tangents.shape == (5, 2, 1, 8, 8) and found.singular_values.shape == (5, 3)
    for i in range(5):
        one = x[i : i + 1].clone().requires_grad_()
        code = pipe.autoencoder.encode(one)
        rows = [torch.autograd.grad(code[0, d], one, retain_graph=True)[0].flatten() for d in range(3)]
        jacobian = torch.stack(rows)
        assert found.singular_values[i].square().sum() == pytest.approx(jacobian.square().sum().item(), rel=1e-4)
        v = found.tangents[i].flatten(1)
        torch.testing.assert_close(v @ v.T, torch.eye(2), atol=1e-4, rtol=0)
        torch.testing.assert_close((jacobian @ v.T).norm(dim=0), found.singular_values[i, :2], rtol=1e-3, atol=1e-6)


def along_the_circle(contractive_weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """|cosine| of the leading tangent and the circle's own direction at 200 points, and the singular values there."""
    torch.manual_seed(0)
    plane = torch.linalg.qr(torch.randn(50, 2))[0].T
    angle = 2 * math.pi * torch.rand(2_000)
    x = torch.stack([angle.cos(), angle.sin()], 1) @ plane * 3
    autoencoder = AutoencoderModel(VECTORS, latent_dim=4, width=64, standardise=True)
    optimizer = torch.optim.Adam(autoencoder.parameters(), 3e-3)
    loss = make_loss(AutoencoderOptions(objective="contractive", contractive_weight=contractive_weight))
    for step in range(600):
        rows = torch.randint(len(x), (128,))
        terms = loss(autoencoder, {"x": x[rows] + 0.1 * torch.randn(128, 50)}, step)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    found = AutoencoderPipeline(autoencoder.eval()).tangents(x[:200], k=1)
    along = torch.stack([-angle.sin(), angle.cos()], 1)[:200] @ plane
    return (found.tangents[:, 0] * along).sum(1).abs(), found.singular_values


def test_the_leading_tangent_of_a_circle_is_the_circles():
    """On a circle in 50 dimensions, with noise around it, the penalty leaves one direction: along the circle."""
    cosine, values = along_the_circle(contractive_weight=1.0)
    assert cosine.quantile(0.05) > 0.95 and cosine.median() > 0.98
    assert (values[:, 0] > 4 * values[:, 1]).float().mean() > 0.95
    without, _ = along_the_circle(contractive_weight=0.0)
    assert without.median() < 0.7  # the code of an autoencoder alone follows the noise as well


def test_a_walk_goes_through_x_along_the_tangent(x):
    pipe = AutoencoderPipeline(model())
    tangent = pipe.tangents(x[:1], 1).tangents[0, 0]
    path = pipe.walk(x[:1], tangent, steps=5, length=1e-2, output_type="pt").images
    torch.testing.assert_close(path[2:3], pipe.reconstruct(x[:1], output_type="pt").images)
    ahead = pipe.reconstruct((x[:1] + 1e-2 * tangent).clamp(0, 1), output_type="pt").images
    assert (path[4:] - ahead).abs().max() < 1e-3  # to first order
    with pytest.raises(ValueError, match="steps is 1"):
        pipe.walk(x[:1], tangent, steps=1)
    with pytest.raises(ValueError, match=r"tangent is \(64,\); it must be a tensor of shape \(1, 8, 8\)"):
        pipe.walk(x[:1], tangent.flatten())
    with pytest.raises(ValueError, match="x holds 5 samples; a walk starts from one"):
        pipe.walk(x, tangent)


def test_what_is_out_of_range_is_named(x):
    pipe = AutoencoderPipeline(model())
    for k, message in ((0, "k is 0"), (4, "k is 4; this model's Jacobian has 3 singular values")):
        with pytest.raises(ValueError, match=message):
            pipe.tangents(x, k)
    with pytest.raises(ValueError, match=r"latents is \(2, 4\); it must be a tensor of shape \(B, 3\)"):
        pipe.decode(torch.zeros(2, 4))
    with pytest.raises(NotImplementedError, match="trained without classes"):
        pipe.classify(x)
    with pytest.raises(ValueError, match="class_labels is 3, but this model was trained without classes"):
        pipe(class_labels=3)
    with pytest.raises(ValueError, match="code_prior is 'square'"):
        model(code_prior="square")
    with pytest.raises(ValueError, match="supervised is True, but the data has no classes"):
        model(VECTORS, supervised=True)


def test_a_supervised_model_tells_classes_from_codes(x):
    pipe = AutoencoderPipeline(model(supervised=True))
    probabilities = pipe.classify(x)
    assert probabilities.shape == (5, 10)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5))
    torch.testing.assert_close(probabilities, pipe.autoencoder.classify(pipe.encode(x)).softmax(1))


def test_the_reconstruction_error_is_the_mean_square(x):
    pipe = AutoencoderPipeline(model())
    again = pipe.reconstruct(x, output_type="pt").images
    torch.testing.assert_close(pipe.reconstruction_error(x), (again - x).square().mean((1, 2, 3)))
