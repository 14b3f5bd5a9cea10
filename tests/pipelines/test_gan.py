"""Truths of the adversarial pipelines: judging, codes by optimisation, the great circle."""

import math

import pytest
import torch
from torch import nn

from pipelines.adversarial.modeling_gan import DiscriminatorModel, GeneratorModel
from pipelines.adversarial.pipeline_gan import GANPipeline
from tests.contract import CODES, LEVELS, VECTOR_SPEC, Instance, image_spec


def game(pipe, x, labels):
    """What both players together can lower: the judge of what is drawn and of what is real."""
    z = torch.randn(len(x), pipe.latent_dim, generator=torch.Generator().manual_seed(0))
    drawn = pipe.discriminator(pipe.generator(z, labels).sample, labels).value
    return (drawn - pipe.discriminator(pipe._to_network(x), labels).value).square().mean() + drawn.square().mean()


def instance(spec: dict, critic: dict | None = None, conditional: bool = False, **config) -> Instance:
    def make():
        torch.manual_seed(0)
        parts = {"width": (8, 8), "conditional": conditional, **config}
        generator = GeneratorModel(spec, latent_dim=3, **parts)
        return GANPipeline(generator, DiscriminatorModel(spec, **{**parts, **(critic or {})})).to("cpu")

    return Instance(
        GANPipeline,
        make,
        "implicit",
        CODES | {"sample", "discriminate"},
        classes=10 if conditional else 0,
        loss=game,
        judge="discriminate",
        reason=r"log_prob: a GAN .* discriminate\(x\)",
        codes_need_class=conditional,
        paths_of_codes=True,
        options={"encode": {"num_steps": 2}},
    )


INSTANCES = {
    "gan": instance(image_spec(LEVELS)),
    "gan conv": instance(image_spec(LEVELS, 3, size=9), network="conv", norm="batch"),
    "cgan": instance(image_spec(LEVELS), conditional=True),
    "wgan vectors": instance(VECTOR_SPEC, {"output": "critic"}),
}

IMAGES = {"kind": "image", "shape": [1, 8, 8], "support": "8-bit", "range": [-1, 1], "dequantization": "none",
          "num_classes": 10}  # fmt: skip
VECTORS = {"kind": "vector", "shape": [2], "support": "real", "range": None, "dequantization": "none", "num_classes": 0}


def pipe(spec=IMAGES, latent_dim=6, critic=None, **config) -> GANPipeline:
    torch.manual_seed(0)
    return GANPipeline(
        GeneratorModel(spec, latent_dim=latent_dim, width=(16, 16), **config),
        DiscriminatorModel(spec, width=(16, 16), **{**config, **(critic or {})}),
    )


def test_the_plain_pair_has_the_published_sizes():
    spec = {**IMAGES, "shape": [1, 28, 28]}
    generator, discriminator = GeneratorModel(spec), DiscriminatorModel(spec)
    sizes = [tuple(p.shape) for p in generator.parameters() if p.ndim == 2]
    assert sizes == [(128, 100), (256, 128), (784, 256)]
    assert [tuple(p.shape) for p in discriminator.parameters() if p.ndim == 2] == [(256, 784), (128, 256), (1, 128)]


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (1, 8), (2, 9), (3, 64)])
def test_convolutional_pairs_fit_any_side(channels, side):
    spec = {**IMAGES, "shape": [channels, side, side]}
    generator = GeneratorModel(spec, latent_dim=4, network="conv", width=(4,), norm="layer")
    x = generator(torch.randn(2, 4)).sample
    assert x.shape == (2, channels, side, side) and x.abs().max() <= 1
    assert DiscriminatorModel(spec, network="conv", width=(4,))(x).value.shape == (2,)


def test_a_probability_is_the_sigmoid_of_the_value_and_a_critic_has_no_bounds():
    sure, critic = pipe(), pipe(critic={"output": "critic"})
    for part in (sure, critic):
        nn.init.constant_(part.discriminator.layers[-1].bias, 5.0)
    x = torch.rand(4, 1, 8, 8)
    value = critic.discriminate(x)
    assert (value > 1).all()
    torch.testing.assert_close(sure.discriminate(x), torch.sigmoid(value))


def test_the_code_of_a_sample_is_found_again():
    """Not its length: all codes are put on the sphere where nearly all draws lie."""
    model = pipe(latent_dim=4)
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    z = 2 * z / z.norm(dim=1, keepdim=True)
    x = model(latents=z, output_type="pt").images
    found = model.encode(x, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(found.latents, z, atol=0.05, rtol=0)
    assert found.residual.max() < 1e-5
    far = model.encode(torch.rand(2, 1, 8, 8), num_steps=50)
    assert (far.residual > 100 * found.residual.max()).all()
    again = model(latents=far.latents, output_type="pt").images
    assert again.shape == (2, 1, 8, 8)


def test_what_a_generator_drew_is_reconstructed():
    model = pipe(latent_dim=4)
    z = torch.nn.functional.normalize(torch.randn(2, 4), dim=1) * 2
    x = model(latents=z, output_type="pt").images
    assert (model.reconstruct(x, output_type="pt").images - x).abs().max() < 0.02


def test_encoding_leaves_the_players_as_they_were():
    model = pipe()
    before = {k: v.clone() for k, v in model.generator.state_dict().items()}
    model.encode(torch.rand(1, 1, 8, 8), num_steps=3)
    assert all(torch.equal(v, before[k]) for k, v in model.generator.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.generator.parameters())


def test_a_path_keeps_to_the_sphere():
    model = pipe(latent_dim=3)
    seen = []
    model.generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    a, b = torch.tensor([[2.0, 0, 0]]), torch.tensor([[0, 2.0, 0]])
    assert len(model.interpolate(a, b, steps=5).images) == 5
    (path,) = seen
    torch.testing.assert_close(path.norm(dim=1), torch.full((5,), 2.0))
    angles = torch.atan2(path[:, 1], path[:, 0])
    torch.testing.assert_close(angles, torch.linspace(0, math.pi / 2, 5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p(class_labels=3), "class_labels is 3, but this model was trained without classes"),
        (lambda p: p(latents=torch.zeros(2, 5)), r"latents is \(2, 5\); it must be a tensor of shape \(B, 6\)"),
        (lambda p: p.interpolate(torch.zeros(1, 5), torch.zeros(1, 6)), r"a is \(1, 5\)"),
        (lambda p: p.interpolate(torch.zeros(2, 6), torch.zeros(1, 6)), "a and b hold 2 and 1 codes"),
        (lambda p: p.interpolate(torch.ones(1, 6), -torch.ones(1, 6)), "opposite directions"),
        (lambda p: p.encode(torch.zeros(1, 1, 8, 8), num_steps=0), "num_steps is 0"),
        (lambda p: p(temperature=-1), "temperature is -1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(pipe())


def test_a_conditional_discriminator_wants_the_class():
    with pytest.raises(ValueError, match="this model needs the class of x, 0 to 9"):
        pipe(conditional=True).discriminate(torch.zeros(1, 1, 8, 8))


def test_an_implicit_likelihood_says_why_it_has_no_number():
    with pytest.raises(NotImplementedError, match="fills a surface in 64 dimensions and has no density"):
        pipe().log_prob(torch.zeros(1, 1, 8, 8))
    with pytest.raises(NotImplementedError, match="elbo: a GAN is not trained by a bound"):
        pipe().elbo(torch.zeros(1, 1, 8, 8))
    with pytest.raises(NotImplementedError, match="an integral over all z of 100 numbers"):
        pipe(latent_dim=100).log_prob(torch.zeros(1, 1, 8, 8))
