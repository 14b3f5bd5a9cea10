"""Truths of the variational autoencoder: closed forms, bounds, gradients."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from pipelines.autoencoders.modeling_vae import (
    VAEModel,
    bernoulli_log_prob,
    discretised_logistic_log_prob,
    gaussian_kl,
    gaussian_log_prob,
)
from pipelines.autoencoders.pipeline_vae import VAEPipeline
from tests.contract import BINARY, CODES, DEQUANTISED, LEVELS, REAL, VECTOR_SPEC, Instance, image_spec


def instance(spec: dict, conditional: bool = False, **config) -> Instance:
    def make():
        torch.manual_seed(0)
        return VAEPipeline(VAEModel(spec, latent_dim=3, width=16, conditional=conditional, **config)).to("cpu")

    return Instance(
        VAEPipeline,
        make,
        "bound",
        CODES | {"sample", "log_prob", "elbo", "elbo_terms", "active_units"},
        classes=10 if conditional else 0,
        loss=lambda pipe, x, labels: pipe.vae(pipe._network_input(x), labels).loss,
        codes_need_class=conditional,
    )


INSTANCES = {
    "vae": instance(image_spec(BINARY)),
    "vae conv": instance(image_spec(BINARY, size=7), network="conv", num_levels=2),
    "vae logistic": instance(image_spec(LEVELS, 3), output="logistic"),
    "vae gaussian": instance(image_spec(DEQUANTISED, 3), output="gaussian", network="conv"),
    "vae vectors": instance(VECTOR_SPEC, output="gaussian"),
    "cvae": instance(image_spec(BINARY), conditional=True),
    "cvae conv": instance(image_spec(BINARY), conditional=True, network="conv"),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_closed_form_kl_is_that_of_torch():
    mean, logvar = torch.randn(7, 5, generator=generator(1)), torch.randn(7, 5, generator=generator(2))
    posterior = Independent(Normal(mean, torch.exp(0.5 * logvar)), 1)
    prior = Independent(Normal(torch.zeros(5), torch.ones(5)), 1)
    torch.testing.assert_close(gaussian_kl(mean, logvar), kl_divergence(posterior, prior))
    torch.testing.assert_close(VAEPipeline._kl(mean, logvar), kl_divergence(posterior, prior))


def test_output_densities_are_those_of_torch():
    x, mean, log_scale = torch.randn(3, 4, 6, generator=generator()).unbind()
    scale = log_scale.exp()
    torch.testing.assert_close(gaussian_log_prob(x, mean, log_scale), Normal(mean, scale).log_prob(x).sum(1))
    bits = (x > 0).float()
    reference = torch.distributions.Bernoulli(logits=mean).log_prob(bits).sum(1)
    torch.testing.assert_close(bernoulli_log_prob(bits, mean), reference)


@pytest.mark.parametrize("mean", [-1.3, 0.1, 0.98])
@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 1.0])
def test_the_discretised_logistic_is_a_probability_mass(mean, log_scale):
    levels = 2 * torch.arange(256.0)[:, None] / 255 - 1
    log_mass = discretised_logistic_log_prob(levels, torch.tensor(mean), torch.tensor(log_scale), 1 / 255)
    assert log_mass.isfinite().all()
    torch.testing.assert_close(log_mass.exp().sum(), torch.tensor(1.0), atol=1e-4, rtol=0)


def linear_gaussian(latent_dim: int = 2, size: int = 5):
    """A VAE whose log p(x) is known: x = W z + b + noise, z ~ N(0, I), so x ~ N(b, W W^T + s^2 I).

    The decoder is made linear by feeding silu with a large positive hidden layer, where it is the identity.
    """
    spec = {"kind": "vector", "shape": [size], "num_classes": 0, **REAL}
    torch.manual_seed(3)
    model = VAEModel(spec, output="gaussian", latent_dim=latent_dim, width=latent_dim, num_blocks=0)
    shift = 60.0
    weight, offset = torch.randn(size, latent_dim), torch.randn(size)
    with torch.no_grad():
        model.decoder.first.weight.copy_(torch.eye(latent_dim))
        model.decoder.first.bias.fill_(shift)
        model.decoder.last.weight.copy_(weight)
        model.decoder.last.bias.copy_(offset - weight @ torch.full((latent_dim,), shift))
        model.log_scale.fill_(math.log(0.7))
    covariance = weight @ weight.T + 0.49 * torch.eye(size)
    return model, torch.distributions.MultivariateNormal(offset, covariance)


def test_the_bounds_rise_to_the_exact_likelihood():
    """ELBO <= IW_k <= log p(x), tighter with k, on a model whose log p(x) has a closed form."""
    model, exact = linear_gaussian()
    pipe = VAEPipeline(model)
    x = exact.sample((64,))
    truth = exact.log_prob(x)
    elbo = pipe.elbo(x, num_samples=200, generator=generator(0)).mean()
    tens = pipe.log_prob(x, num_samples=10, generator=generator(1)).mean()
    many = pipe.log_prob(x, num_samples=1_000, generator=generator(2)).mean()
    most = pipe.log_prob(x, num_samples=30_000, generator=generator(3)).mean()
    assert elbo < tens < many < most < truth.mean() + 0.05
    torch.testing.assert_close(most, truth.mean(), atol=0.1, rtol=0)


def test_one_importance_sample_estimates_the_elbo():
    model, exact = linear_gaussian()
    pipe, x = VAEPipeline(model), exact.sample((4,))
    many = x.repeat_interleave(20_000, 0)
    single = pipe.log_prob(many, num_samples=1, generator=generator(0)).view(4, -1)
    error = single.std(1) / math.sqrt(single.shape[1])
    elbo = pipe.elbo(x, num_samples=20_000, generator=generator(1))
    assert ((single.mean(1) - elbo).abs() < 6 * error).all()


def test_the_terms_of_the_bound_add_up_to_the_training_loss():
    model = VAEModel(image_spec(BINARY), latent_dim=3, width=16)
    x = (torch.rand(8, 1, 8, 8, generator=generator()) < 0.5).float()
    torch.manual_seed(5)
    out = model(x)
    torch.testing.assert_close(out.loss, (out.kl - out.reconstruction).mean())
    torch.manual_seed(5)
    assert torch.equal(VAEPipeline(model).elbo(x), (out.reconstruction - out.kl).detach())
    torch.manual_seed(5)
    torch.testing.assert_close(model(x, beta=0.0).loss, -out.reconstruction.mean())


def test_the_conditional_bound_without_a_class_is_the_mixture_over_classes():
    torch.manual_seed(0)
    pipe = VAEPipeline(VAEModel(image_spec(BINARY), latent_dim=3, width=16, conditional=True))
    x = (torch.rand(2, 1, 8, 8, generator=generator()) < 0.5).float()
    by_class = torch.stack([pipe.log_prob(x, 3_000, c, generator(c)) for c in range(10)])
    mixture = torch.logsumexp(by_class, 0) - math.log(10)
    torch.testing.assert_close(pipe.log_prob(x, 3_000, generator=generator(99)), mixture, atol=0.1, rtol=0)
    reconstruction, kl = pipe.elbo_terms(x, 500, generator=generator(1))
    assert (reconstruction - kl <= mixture + 0.1).all() and (kl > 0).all()


def test_density_on_the_networks_range_becomes_density_on_pixels():
    """A dequantised Gaussian model of 8-bit data integrates to one over pixels in [0, 256)."""
    spec = {"kind": "image", "shape": [1, 1, 1], "num_classes": 0, **DEQUANTISED}
    model = VAEModel(spec, output="gaussian", latent_dim=1, width=4)
    with torch.no_grad():
        model.log_scale.fill_(math.log(0.1))
    levels = (torch.arange(256.0) / 255).view(256, 1, 1, 1)
    log_mass = VAEPipeline(model).log_prob(levels, num_samples=3_000, generator=generator())
    torch.testing.assert_close(log_mass.exp().sum(), torch.tensor(1.0), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    "config",
    [
        {"network": "mlp", "num_blocks": 2},
        {"network": "mlp", "num_blocks": 0, "conditional": True},
        {"network": "conv", "num_blocks": 1, "conditional": True},
        {"network": "conv", "output": "logistic"},
        {"network": "conv", "encoder_width": 16, "conditional": True},
        {"network": "conv", "output": "gaussian"},
    ],
)
def test_every_named_parameter_moves(config):
    kind = {"logistic": LEVELS, "gaussian": DEQUANTISED}.get(config.get("output"), BINARY)
    torch.manual_seed(0)
    model = VAEModel(image_spec(kind), latent_dim=3, width=8, **config)
    x = torch.rand(32, 1, 8, 8).round()
    labels = torch.arange(32) % 10 if config.get("conditional") else None
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(3):  # layers behind a zero-initialised one get their gradient from the second step on
        optimizer.zero_grad()
        model(x, labels).loss.backward()
        optimizer.step()
    still = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert not still


def test_temperature_scales_z_and_zero_gives_the_mode_of_the_prior():
    pipe = VAEPipeline(VAEModel(image_spec(BINARY), latent_dim=3, width=16))
    one, cold = (next(pipe.stream(4, temperature=t, generator=generator())).latents for t in (1.0, 0.5))
    torch.testing.assert_close(cold, 0.5 * one)
    flat = pipe(4, temperature=0.0, output_type="pt").images
    assert torch.equal(flat[0], flat[3])


def test_sampled_output_has_the_mean_output_as_its_mean():
    for kind, output in ((BINARY, "bernoulli"), (LEVELS, "logistic"), (DEQUANTISED, "gaussian")):
        torch.manual_seed(0)
        pipe = VAEPipeline(VAEModel(image_spec(kind), output=output, latent_dim=3, width=16))
        if output == "gaussian":
            torch.nn.init.constant_(pipe.vae.log_scale, -2.5)
        z = torch.zeros(4_000, 3)
        drawn = pipe.decode(z, decoder_output="sample", generator=generator(), output_type="pt").images
        levels = torch.tensor([0.0, 1.0]) if output == "bernoulli" else torch.arange(256) / 255
        assert torch.isin(drawn, levels).all()
        mean = pipe.decode(z[:1], output_type="pt").images
        torch.testing.assert_close(drawn.mean(0, keepdim=True), mean, atol=0.04, rtol=0)


def test_active_units_are_those_that_the_posterior_uses():
    model = VAEModel(image_spec(BINARY), latent_dim=4, width=16)
    with torch.no_grad():  # the means of units 1 and 3 do not depend on x
        model.encoder.last.weight[[1, 3]] = 0.0
        model.encoder.last.weight[[0, 2]] *= 10
    x = (torch.rand(200, 1, 8, 8, generator=generator()) < 0.5).float()
    assert VAEPipeline(model).active_units(x).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("spec", "config", "message"),
    [
        (image_spec(BINARY), {"output": "gaussian"}, "output 'gaussian' models real or 8-bit data"),
        (image_spec(LEVELS), {"output": "gaussian"}, "needs dequantization 'uniform'"),
        (image_spec(BINARY), {"output": "poisson"}, "output is 'poisson'"),
        (image_spec(BINARY), {"network": "transformer"}, "network is 'transformer'"),
        ({**image_spec(BINARY), "num_classes": 0}, {"conditional": True}, "the data has no classes"),
        ({"kind": "vector", "shape": [2], "num_classes": 0, **REAL}, {"output": "gaussian", "network": "conv"}, "takes images"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_is_refused(spec, config, message):
    with pytest.raises(ValueError, match=message):
        VAEModel(spec, **config)
