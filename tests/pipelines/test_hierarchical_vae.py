"""Truths of the hierarchical VAE: one level is the VAE, the bounds hold, the top is kept and the rest redrawn."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from pipelines.autoencoders.modeling_hierarchical_vae import HierarchicalVAEModel
from pipelines.autoencoders.modeling_vae import VAEModel
from pipelines.autoencoders.pipeline_hierarchical_vae import HierarchicalVAEPipeline
from pipelines.autoencoders.pipeline_vae import VAEPipeline
from tests.contract import BINARY, CODES, LEVELS, REAL, Instance, image_spec


def tiny() -> HierarchicalVAEPipeline:
    torch.manual_seed(0)
    model = HierarchicalVAEModel(image_spec(BINARY), [4, 3, 2], width=16, upper_width=8)
    return HierarchicalVAEPipeline(model).to("cpu")


INSTANCES = {
    "hierarchical vae": Instance(
        HierarchicalVAEPipeline,
        tiny,
        "bound",
        CODES | {"sample", "log_prob", "elbo", "elbo_terms", "active_units", "resample"},
        loss=lambda pipe, x, labels: pipe.hierarchical_vae(x).loss,
        options={"resample": {"num": 1}},
    )
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def seeds(*numbers: int) -> list[torch.Generator]:
    return [generator(n) for n in numbers]


def data(count: int = 8, size: int = 8) -> torch.Tensor:
    return (torch.rand(count, 1, size, size, generator=generator(7)) < 0.5).float()


def make(*latent_dims: int, size: int = 8, shake: float = 0.0) -> HierarchicalVAEPipeline:
    """A tiny pipeline; `shake` moves all weights, so that p(z_l|z_{l+1}) is no longer N(0, I)."""
    torch.manual_seed(0)
    model = HierarchicalVAEModel(image_spec(BINARY, size=size), list(latent_dims), width=16, upper_width=8)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(shake * torch.randn_like(p))
    pipe = HierarchicalVAEPipeline(model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_one_level_is_the_vae():
    """The same weights and the same noise give the same bound, gradient, importance weights, samples and codes."""
    pipe, x = make(3, shake=0.1), data()
    model = VAEModel(image_spec(BINARY), latent_dim=3, width=16)
    model.load_state_dict(pipe.hierarchical_vae.state_dict())
    vae = VAEPipeline(model)
    reconstruction, kl = pipe.elbo_terms(x, 3, generator=generator())
    expected = vae.elbo_terms(x, 3, generator=generator())
    assert torch.equal(reconstruction, expected[0]) and torch.equal(kl, expected[1][:, None])
    assert torch.equal(pipe.elbo(x, generator=generator()), vae.elbo(x, generator=generator()))
    torch.testing.assert_close(pipe.log_prob(x, 7, generator=generator()), vae.log_prob(x, 7, generator=generator()))
    codes = [p.encode(x, sample=True, generator=generator()) for p in (pipe, vae)]
    assert torch.equal(*codes)
    drawn = {"temperature": 0.7, "decoder_output": "sample", "output_type": "pt"}
    assert torch.equal(pipe(4, **drawn, generator=generator()).images, vae(4, **drawn, generator=generator()).images)
    losses = []
    for network in (pipe.hierarchical_vae, model):
        torch.manual_seed(5)
        losses.append(network(x, beta=0.5).loss)
        losses[-1].backward()
    assert torch.equal(*losses)
    for a, b in zip(pipe.hierarchical_vae.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_the_terms_are_those_of_the_definition():
    """Averaged over paths, KL_l is E log q - log p with both densities as torch has them, and the top's is closed."""
    pipe, x = make(4, 3, 2, shake=0.3), data(1).repeat(20_000, 1, 1, 1)
    model = pipe.hierarchical_vae
    with torch.no_grad():
        codes, _, _ = model.encode(x, pipe._noise_of_each_level(len(x), generator()))
        reconstruction, kl = pipe.elbo_terms(x, generator=generator())
        below = x
        for level, z in enumerate(codes):
            mean, logvar = model.posterior(below, level)
            q = Independent(Normal(mean, torch.exp(0.5 * logvar)), 1)
            if level == 2:
                torch.testing.assert_close(kl[:, 2], kl_divergence(q, Independent(Normal(torch.zeros(2), 1.0), 1)))
            else:
                mean, logvar = model.prior(codes[level + 1], level)
                p = Independent(Normal(mean, torch.exp(0.5 * logvar)), 1)
                sampled = q.log_prob(z) - p.log_prob(z)
                error = (sampled - kl[:, level]).std() / math.sqrt(len(x))
                assert (sampled - kl[:, level]).mean().abs() < 5 * error
            below = z
        logits = model.decode(codes[0])
        expected = Independent(torch.distributions.Bernoulli(logits=logits), 3).log_prob(x)
        torch.testing.assert_close(reconstruction, expected)


def test_the_loss_is_the_weighted_sum_of_the_terms():
    pipe, x = make(4, 3, shake=0.3), data()
    torch.manual_seed(5)
    out = pipe.hierarchical_vae(x)
    assert out.reconstruction.shape == (8,) and out.kl.shape == (8, 2)
    torch.testing.assert_close(out.loss, (out.kl.sum(1) - out.reconstruction).mean())
    torch.manual_seed(5)
    assert torch.equal(pipe.elbo(x), (out.reconstruction - out.kl.sum(1)).detach())
    torch.manual_seed(5)
    weighted = pipe.hierarchical_vae(x, beta=[0.5, 0.0], return_dict=False)[0]
    torch.testing.assert_close(weighted, (0.5 * out.kl[:, 0] - out.reconstruction).mean())


def exact_log_prob(model: HierarchicalVAEModel, x: torch.Tensor) -> torch.Tensor:
    """log p(x) of a model with one dimension at each of two levels, by summing over a fine grid of codes."""
    grid = torch.linspace(-8, 8, 801)
    step = (grid[1] - grid[0]).log()
    with torch.no_grad():
        mean, logvar = model.prior(grid[:, None], 0)
        log_p_z1 = Normal(mean, torch.exp(0.5 * logvar)).log_prob(grid) + Normal(0.0, 1.0).log_prob(grid)[:, None]
        log_p_z1 = torch.logsumexp(log_p_z1 + step, 0)  # over z_2
        by_z1 = torch.stack([model.output_log_prob(one.expand(len(grid), -1, -1, -1), grid[:, None]) for one in x])
    return torch.logsumexp(by_z1 + log_p_z1 + step, 1)


def test_the_bounds_rise_to_the_exact_likelihood():
    """ELBO <= IW_k <= log p(x), tighter with k, where log p(x) is known by integration."""
    pipe, x = make(1, 1, size=4, shake=0.4), data(40, size=4)
    with torch.no_grad():  # a q as wide as the prior, or few weights would decide the mean
        for net in (pipe.hierarchical_vae.encoder, pipe.hierarchical_vae.upper_encoders[0]):
            net.last.weight.mul_(0.1)
            net.last.bias.copy_(torch.tensor([0.0, 0.5]))
    truth = exact_log_prob(pipe.hierarchical_vae, x).mean()
    many_x = x.repeat(200, 1, 1, 1)
    elbo = pipe.elbo(many_x, generator=generator(0)).mean()
    fives = pipe.log_prob(many_x, num_samples=5, generator=generator(1)).mean()
    many = pipe.log_prob(x, num_samples=200, generator=generator(2)).mean()
    most = pipe.log_prob(x, num_samples=20_000, generator=generator(3)).mean()
    assert elbo < fives < many < truth + 0.02
    torch.testing.assert_close(most, truth, atol=0.02, rtol=0)


def test_one_importance_sample_estimates_the_elbo():
    pipe, x = make(4, 3, 2, shake=0.3), data(3).repeat_interleave(20_000, 0)
    single = pipe.log_prob(x, num_samples=1, generator=generator(0)).view(3, -1)
    elbo = pipe.elbo(x, generator=generator(1)).view(3, -1)
    error = (single.var(1) + elbo.var(1)).sqrt() / math.sqrt(single.shape[1])
    assert ((single.mean(1) - elbo.mean(1)).abs() < 5 * error).all()


def test_every_named_parameter_moves():
    model, x = make(4, 3, 2).hierarchical_vae, data(32)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(3):  # layers behind a zero-initialised one get their gradient from the second step on
        optimizer.zero_grad()
        model(x).loss.backward()
        optimizer.step()
    assert not [name for name, p in model.named_parameters() if torch.equal(p, before[name])]


def test_at_first_the_lower_levels_have_a_standard_normal_prior_and_the_top_tells_of_what_is_below():
    pipe = make(4, 3)
    mean, logvar = pipe.hierarchical_vae.prior(torch.randn(5, 3), 0)
    assert torch.equal(mean, torch.zeros(5, 4)) and logvar.abs().max() < 0.25
    _, logvar = pipe.hierarchical_vae.posterior(torch.randn(5, 4), 1)
    assert (logvar < -1).all()


def test_a_drawn_code_goes_down_the_levels():
    """Samples are p's: the mean and spread of z_1 over many draws are those of p(z_1|z_2) at the z_2 given."""
    pipe = make(4, 3, shake=0.3)
    top = torch.randn(1, 3, generator=generator())
    mean, logvar = pipe.hierarchical_vae.prior(top, 0)
    first, last = pipe.stream(latents=top.repeat(20_000, 1), generator=generator(1), output_type="pt")
    assert (first.level, last.level, first.num_steps) == (1, 0, 2) and torch.equal(first.latents[0], top[0])
    torch.testing.assert_close(last.latents.mean(0), mean[0].detach(), atol=0.05, rtol=0.05)
    torch.testing.assert_close(last.latents.std(0), torch.exp(0.5 * logvar)[0].detach(), atol=0.02, rtol=0.03)
    half = list(pipe.stream(latents=top, temperature=0.5, generator=generator(1)))[-1].latents
    one = list(pipe.stream(latents=top, temperature=1.0, generator=generator(1)))[-1].latents
    torch.testing.assert_close(half - mean, 0.5 * (one - mean))
    # before the last step the picture is that of the means below
    torch.testing.assert_close(first.images[:1], pipe.decode(top, level=1, output_type="pt").images)
    flat = pipe(2, temperature=0.0, output_type="pt").images
    assert torch.equal(flat[0], flat[1])


def test_resample_keeps_the_top_and_draws_the_rest_anew():
    pipe, x = make(4, 3, 2, shake=0.5), data(2)
    kept = [pipe.encode(x, level=level).repeat_interleave(3, 0) for level in range(3)]
    for keep in (1, 2, 3):
        out = pipe.resample(x, keep=keep, num=3, generator=generator(), output_type="pt")
        assert out.images.shape == (6, 1, 8, 8) and [tuple(z.shape) for z in out.codes] == [(6, 4), (6, 3), (6, 2)]
        for level in range(3):
            same = torch.equal(out.codes[level], kept[level])
            assert same == (level >= 3 - keep)
        different = (out.images[:3] - out.images[[1, 2, 0]]).abs().amax((1, 2, 3))
        assert (different > 1e-3).all() if keep < 3 else (different < 1e-5).all()
    again = pipe.reconstruct(x, output_type="pt").images  # of another batch size: the same numbers, not the same bits
    torch.testing.assert_close(out.images[::3], again, atol=1e-5, rtol=0)
    bits = pipe.resample(x, keep=3, num=3, decoder_output="sample", generator=generator(), output_type="pt").images
    assert torch.isin(bits, torch.tensor([0.0, 1.0])).all() and not torch.equal(bits[0], bits[1])
    top = torch.randn(2, 2, generator=generator())
    out = pipe.resample(latents=top, num=2, generator=generator(), output_type="pt")
    assert torch.equal(out.codes[-1], top.repeat_interleave(2, 0))
    expected = pipe(latents=top.repeat_interleave(2, 0), generator=generator(), output_type="pt").images
    assert torch.equal(out.images, expected)


def test_each_redrawn_image_depends_on_its_own_generator():
    pipe, x = make(4, 3, shake=0.5), data(2)
    draw = {"num": 2, "decoder_output": "sample", "output_type": "pt"}
    together = pipe.resample(x, **draw, generator=seeds(1, 2, 3, 4))
    again = pipe.resample(x, **draw, generator=seeds(9, 2, 9, 4))
    for i in (1, 3):
        torch.testing.assert_close(again.codes[0][i], together.codes[0][i], atol=1e-5, rtol=0)
        assert torch.equal(again.images[i], together.images[i])
    assert not torch.equal(again.images[0], together.images[0])
    with pytest.raises(ValueError, match="generator holds 2 generators for 4 samples"):
        pipe.resample(x, num=2, generator=seeds(0, 1))


def test_codes_of_every_level_go_there_and_back():
    pipe, x = make(4, 3, 2, shake=0.3), data(3)
    for level, dim in enumerate((4, 3, 2)):
        z = pipe.encode(x, level=level)
        assert z.shape == (3, dim) and pipe.active_units(x, level=level).shape == (dim,)
        decoded = pipe.decode(z, level=level, output_type="pt").images
        assert torch.equal(decoded, pipe.reconstruct(x, level=level, output_type="pt").images)
        path = pipe.interpolate(x[:1], x[1:2], steps=3, level=level, output_type="pt").images
        torch.testing.assert_close(path[[0, -1]], decoded[:2], atol=1e-5, rtol=0)
    drawn = pipe.encode(x[:1].expand(20_000, -1, -1, -1), sample=True, generator=generator())
    mean, logvar = pipe.hierarchical_vae.posterior(x[:1], 0)
    torch.testing.assert_close(drawn.mean(0), mean[0].detach(), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.exp(0.5 * logvar)[0].detach(), atol=0.02, rtol=0.03)


def test_saved_and_loaded_it_measures_and_redraws_the_same(tmp_path):
    pipe, x = make(4, 3, 2, shake=0.3), data(3)
    pipe.save_pretrained(tmp_path)
    again = HierarchicalVAEPipeline.from_pretrained(tmp_path)
    assert again.latent_dims == [4, 3, 2] and again.num_levels == 3
    assert torch.equal(pipe.elbo(x, generator=generator()), again.elbo(x, generator=generator()))
    left, right = (p.resample(x, 2, generator=generator(), output_type="pt").images for p in (pipe, again))
    assert torch.equal(left, right)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": 3}, "keep is 3, but this model has 2 levels"),
        ({"keep": 0}, "keep is 0; it must be an integer of at least 1"),
        ({"num": 0}, "num is 0; it must be an integer of at least 1"),
        ({"x": None}, "neither is given; resample takes one of them"),
        ({"latents": torch.zeros(1, 3)}, "both are given"),
        ({"x": None, "latents": torch.zeros(1, 3), "keep": 2}, "keep is 2, but latents are of the top level alone"),
        ({"x": None, "latents": torch.zeros(1, 4)}, r"latents is \(1, 4\); it must be a tensor of shape \(B, 3\)"),
        ({"temperature": -1.0}, "temperature is -1.0; it must be a finite number of at least 0"),
        ({"output_type": "jpeg"}, "output_type is 'jpeg'"),
        ({"decoder_output": "mode"}, "decoder_output is 'mode'"),
    ],
)
def test_resample_names_the_argument_that_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(4, 3).resample(**{"x": data(1), **arguments})


def test_other_calls_name_the_argument_that_is_wrong():
    pipe, x = make(4, 3), data(2)
    for call, message in (
        (lambda: pipe.encode(x, level=2), "level is 2; levels go from 0, the bottom, to 1"),
        (lambda: pipe.encode(x, level=-1), "level is -1; it must be an integer of at least 0"),
        (lambda: pipe.decode(torch.zeros(1, 3)), r"it must be a tensor of shape \(B, 4\), a code of level 0"),
        (lambda: pipe(latents=torch.full((1, 3), math.nan)), "latents holds NaN"),
        (lambda: pipe(latents=torch.zeros(2, 3), batch_size=3), "batch_size gives 3, latents gives 2 samples"),
        (lambda: pipe.elbo(x, class_labels=[1, 2]), "but this model was trained without classes"),
        (lambda: pipe.encode(x, class_labels=1), "but this model was trained without classes"),
        (lambda: pipe.interpolate(x, x), "a and b hold 2 and 2 codes; interpolate takes one each"),
        (lambda: pipe(temperature=True), "temperature is True"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("spec", "latent_dims", "message"),
    [
        (image_spec(LEVELS), [4], "support '8-bit'; this model takes binary images"),
        ({"kind": "vector", "shape": [2], "num_classes": 0, **REAL}, [4], "kind 'vector'"),
        (image_spec(BINARY), [], r"latent_dims is \[\]; it must be a list, each an integer from 1"),
        (image_spec(BINARY), [4, 0], r"latent_dims is \[4, 0\]"),
        (image_spec(BINARY), [4, 2.0], r"latent_dims is \[4, 2.0\]"),
    ],
)
def test_a_model_that_cannot_be_is_refused(spec, latent_dims, message):
    with pytest.raises(ValueError, match=message):
        HierarchicalVAEModel(spec, latent_dims)
