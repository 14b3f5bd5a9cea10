"""Truths of denoising diffusion, most of them on Gaussian data, where the best denoiser is known in closed form."""

import inspect
import math

import diffusers
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UNet2DModel,
    UniPCMultistepScheduler,
    schedulers,
)
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from pipelines.diffusion.bound import discretised_gaussian_log_prob
from pipelines.diffusion.denoiser import run_denoiser
from pipelines.diffusion.modeling_ddpm import MLPDenoiser
from pipelines.diffusion.pipeline_ddpm import DenoisingDiffusionPipeline
from tests.contract import CODES, LEVELS, VECTOR_SPEC, Instance, image_spec


def denoising_loss(pipe, x, labels):
    generator = torch.Generator().manual_seed(0)
    noise, timesteps = torch.randn(x.shape, generator=generator), torch.randint(1000, (len(x),), generator=generator)
    seen = pipe.q_sample(pipe._to_network(x), timesteps, noise)
    return (pipe._network_output(seen, timesteps, labels) - noise).square().mean()


def instance(denoiser, spec: dict, classes: int = 0, **config) -> Instance:
    def make():
        torch.manual_seed(0)
        scheduler = DPMSolverMultistepScheduler(
            beta_start=1e-4, prediction_type="v_prediction", timestep_spacing="trailing"
        )
        config.update(guidance_scale=1.5 if classes else 1.0, num_inference_steps=5)
        pipe = DenoisingDiffusionPipeline(denoiser(), scheduler, spec, conditional=classes > 0, **config)
        pipe.denoiser.eval()
        return pipe.to("cpu")

    few = {"num_inference_steps": 5}
    return Instance(
        DenoisingDiffusionPipeline,
        make,
        "bound",
        CODES | {"sample", "elbo", "elbo_terms", "elbo_curve", "complete", "noise", "predict"},
        classes=classes,
        loss=denoising_loss,
        reason=r"log_prob: a diffusion model .* elbo\(x\)",
        options={
            **dict.fromkeys(CODES, few),
            "complete": {**few, "num_resamples": 2},
            "noise": {"timestep": 3},
            "elbo_curve": {"timesteps": [0, 3]},
        },
    )


def tiny_unet(size: int = 8, channels: int = 1, classes: int | None = None):
    blocks = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "norm_num_groups": 8}
    return lambda: UNet2DModel(
        size, channels, channels, block_out_channels=(8, 16), layers_per_block=1, num_class_embeds=classes, **blocks
    )


def tiny_dit(classes: int = 10):
    return lambda: DiTTransformer2DModel(
        2, 8, 1, 1, num_layers=2, sample_size=8, patch_size=4, num_embeds_ada_norm=classes
    )


INSTANCES = {
    "ddpm": instance(tiny_unet(classes=11), image_spec(LEVELS), 10),
    "ddpm patches": instance(tiny_unet(size=4, channels=12), image_spec(LEVELS, 3), patch_size=2),
    "ddpm dit": instance(tiny_dit(), image_spec(LEVELS), 10),
    "ddpm dit free": instance(tiny_dit(1), image_spec(LEVELS)),
    "ddpm vectors": instance(lambda: MLPDenoiser(2, 16, 1), VECTOR_SPEC),
}

IMAGES = {"kind": "image", "shape": [1, 8, 8], "support": "8-bit", "range": [-1, 1], "dequantization": "none"}
VECTORS = {"kind": "vector", "shape": [2], "support": "real", "range": None, "dequantization": "none", "num_classes": 0}
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.5]])
MEAN = torch.tensor([0.5, -1.0])
PREDICTIONS = ("epsilon", "sample", "v_prediction")


class GaussianDenoiser(ModelMixin, ConfigMixin):
    """The best denoiser of N(MEAN, COVARIANCE): E[x_0|x_t] is linear in x_t."""

    @register_to_config
    def __init__(self, prediction_type: str, schedule: dict):
        super().__init__()
        self.abar = DDPMScheduler.from_config(schedule).alphas_cumprod.double()
        self.place = nn.Parameter(torch.zeros(1))  # a pipeline asks a model for its device and dtype

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        abar = self.abar[timestep.long()].view(-1, 1, 1)
        x, covariance, mean = sample.double(), COVARIANCE.double(), MEAN.double()
        inverse = torch.linalg.inv(abar * covariance + (1 - abar) * torch.eye(2))
        a, s = abar[:, 0].sqrt(), (1 - abar[:, 0]).sqrt()
        x_0 = mean + (a[:, :, None] * covariance @ inverse @ (x - a * mean)[:, :, None])[:, :, 0]
        noise = (x - a * x_0) / s
        out = {"epsilon": noise, "sample": x_0, "v_prediction": a * noise - s * x_0}[self.config.prediction_type]
        return (out.to(sample.dtype),)


def gaussian(
    prediction_type="v_prediction", steps=1000, scheduler=DDIMScheduler, **config
) -> DenoisingDiffusionPipeline:
    config = {"num_train_timesteps": steps, "beta_start": 1e-4 * 1000 / steps, "beta_end": 0.02 * 1000 / steps,
              "prediction_type": prediction_type, "timestep_spacing": "trailing", **config}  # fmt: skip
    base = DDPMScheduler(clip_sample=False, **config)
    denoiser = GaussianDenoiser(prediction_type, dict(base.config))
    pipe = DenoisingDiffusionPipeline(denoiser, base, VECTORS, num_inference_steps=min(20, steps))
    pipe.scheduler = scheduler.from_config(base.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def unet(classes: int | None = None) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        8, 1, 1, block_out_channels=(8, 16), down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2,
        layers_per_block=1, norm_num_groups=8, num_class_embeds=classes,
    ).eval()  # fmt: skip


def images(classes: int = 0, scheduler=None, **config) -> DenoisingDiffusionPipeline:
    scheduler = scheduler or DDPMScheduler(beta_start=1e-4, timestep_spacing="trailing")
    pipe = DenoisingDiffusionPipeline(
        unet(classes + 1 if classes else None), scheduler, {**IMAGES, "num_classes": classes}, conditional=classes > 0,
        **config,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def draws(count: int, number: int = 0) -> torch.Tensor:
    return MEAN + torch.randn(count, 2, generator=seed(number)) @ torch.linalg.cholesky(COVARIANCE).T


# The forward process


def test_one_step_to_t_equals_t_small_ones():
    pipe = gaussian(steps=50)
    x, t, count = torch.tensor([[1.0, -2.0]]), 20, 40_000
    many = x.expand(count, 2)
    for one in (False, True):
        drawn = pipe.noise(many, t, generator=seed(), step_by_step=one)
        a, variance = pipe.abar[t].sqrt().item(), 1 - pipe.abar[t].item()
        error = math.sqrt(variance / count)
        assert (drawn.mean(0) - a * x[0]).abs().max() < 4 * error
        assert (drawn.var(0) - variance).abs().max() < 4 * variance * math.sqrt(2 / count)


@pytest.mark.parametrize("timestep", [1, 40, 99])
def test_the_posterior_mean_with_x_0_equals_the_one_with_the_noise(timestep):
    pipe = gaussian(steps=100)
    x_0, noise = draws(5), torch.randn(5, 2, generator=seed(1))
    abar, before = pipe.abar[timestep].item(), pipe.abar[timestep - 1].item()
    alpha = abar / before
    x_t = math.sqrt(abar) * x_0 + math.sqrt(1 - abar) * noise
    mean, variance = pipe.posterior(x_0, x_t, timestep)
    torch.testing.assert_close(mean, (x_t - (1 - alpha) / math.sqrt(1 - abar) * noise) / math.sqrt(alpha))
    assert variance == pytest.approx((1 - before) / (1 - abar) * (1 - alpha))


def test_a_posterior_over_several_steps_equals_bayes_rule():
    """q(x_s|x_t, x_0) is proportional to q(x_t|x_s) q(x_s|x_0): precisions add."""
    pipe = gaussian(steps=100)
    t, s, x_0, x_t = 70, 30, draws(1), draws(1, 1)
    abar_t, abar_s = pipe.abar[t].item(), pipe.abar[s].item()
    alpha = abar_t / abar_s
    precision = alpha / (1 - alpha) + 1 / (1 - abar_s)
    mean = (math.sqrt(alpha) / (1 - alpha) * x_t + math.sqrt(abar_s) / (1 - abar_s) * x_0) / precision
    found, variance = pipe.posterior(x_0, x_t, t, s)
    torch.testing.assert_close(found, mean)
    assert variance == pytest.approx(1 / precision)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_every_prediction_gives_the_same_x_0_and_noise(kind):
    pipe, reference = gaussian(kind), gaussian("epsilon")
    x = draws(4)
    for timestep in (3, 500, 990):
        torch.testing.assert_close(pipe.predict(x, timestep), reference.predict(x, timestep), atol=1e-3, rtol=1e-3)


# The bound


def test_the_bound_is_above_the_exact_value_and_closer_with_more_steps():
    exact = torch.distributions.MultivariateNormal(MEAN, COVARIANCE)
    x = draws(2_000)
    gaps = []
    for steps in (25, 100, 400):
        bound = gaussian(steps=steps).elbo_curve(x[: 800_000 // (steps * 4)], generator=seed(1)).sum(0)
        pipe = gaussian(steps=steps)
        used = x[: len(bound)]
        gap = bound + pipe.elbo_terms(used, 1, generator=seed())[0] + exact.log_prob(used)
        gaps.append((gap.mean().item(), gap.std().item() / math.sqrt(len(used))))
    for mean, error in gaps:
        assert mean > -3 * error
    assert gaps[0][0] > 1.5 * gaps[1][0] > 2 * gaps[2][0]


def test_sampled_terms_are_unbiased_for_their_sum():
    pipe, x = gaussian(steps=60), draws(3_000)
    whole = pipe.elbo_curve(x, generator=seed(1))[1:].sum(0)
    for number in (1, 7):
        guess = pipe.elbo_terms(x, number, generator=seed(2))[1]
        error = (whole - guess).std().item() / math.sqrt(len(x))
        assert abs((whole - guess).mean().item()) < 4 * error and error < 0.1 * whole.mean()


def test_more_samples_steady_the_estimate():
    pipe, x = gaussian(), draws(1).expand(500, 2)
    spread = [pipe.elbo(x, number, generator=seed()).std().item() for number in (1, 16)]
    assert spread[1] < spread[0] / 2


def test_the_prior_term_is_the_kl_to_the_standard_normal():
    pipe, x = gaussian(steps=10, beta_end=0.3), draws(3)
    abar = pipe.abar[-1].float()
    last = torch.distributions.Normal(abar.sqrt() * x, (1 - abar).sqrt().expand_as(x))
    expected = torch.distributions.kl_divergence(last, torch.distributions.Normal(torch.zeros(2), torch.ones(2)))
    torch.testing.assert_close(pipe.elbo_terms(x)[0], expected.sum(1), atol=1e-4, rtol=1e-4)


def test_a_transition_is_the_kl_of_two_gaussians():
    pipe, x = gaussian(steps=50), draws(4)
    t, noise = 20, torch.randn(4, 2, generator=seed(3))
    x_t = pipe.q_sample(x, t, noise)
    mean, variance = pipe.posterior(x, x_t, t)
    guess, _ = pipe.posterior(pipe.predict(x_t, t)[0], x_t, t)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, variance**0.5), normal(guess, variance**0.5)).sum(1)
    torch.testing.assert_close(pipe._transition_kl(x, torch.full((4,), t), None, noise), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("mean", [-1.3, -1.0, 0.2, 0.99])
def test_the_levels_of_a_pixel_have_mass_one(mean):
    levels = 2 * torch.arange(256).view(256, 1) / 255 - 1
    for std in (0.005, 0.3):
        mass = discretised_gaussian_log_prob(levels, torch.full_like(levels, mean), std, 1 / 255)
        assert mass.isfinite().all() and mass.exp().sum().item() == pytest.approx(1, abs=1e-5)


# Samplers


@pytest.mark.parametrize(
    ("scheduler", "kind", "steps"),
    [
        (DDPMScheduler, "epsilon", 1000),
        (DDPMScheduler, "v_prediction", 1000),
        (DPMSolverMultistepScheduler, "v_prediction", 25),
        (DPMSolverMultistepScheduler, "sample", 25),
        (UniPCMultistepScheduler, "epsilon", 25),
        (DDIMScheduler, "v_prediction", 200),
        (EulerDiscreteScheduler, "v_prediction", 200),
        (HeunDiscreteScheduler, "epsilon", 50),
    ],
)
def test_with_the_best_denoiser_samples_have_mean_and_covariance_of_the_data(scheduler, kind, steps):
    pipe = gaussian(kind, scheduler=scheduler)
    samples = pipe(4_000, num_inference_steps=steps, generator=seed(), output_type="pt").samples
    torch.testing.assert_close(samples.mean(0), MEAN, atol=0.08, rtol=0)
    torch.testing.assert_close(samples.T.cov(), COVARIANCE, atol=0.08, rtol=0)


@pytest.mark.parametrize("scheduler", [DDIMScheduler, DDPMScheduler])
def test_vectors_are_never_clipped_to_the_range_of_pixels(scheduler):
    """A config that says nothing of clip_sample gives such a scheduler its default, which is to clip to [-1, 1]."""
    pipe = gaussian()
    config = {name: value for name, value in pipe.scheduler.config.items() if name != "clip_sample"}
    pipe.scheduler = scheduler.from_config(config)
    assert pipe.scheduler.config.clip_sample
    steps = 1000 if scheduler is DDPMScheduler else 200
    samples = pipe(2_000, num_inference_steps=steps, generator=seed(), output_type="pt").samples
    assert (samples[:, 1] < -1).float().mean() > 0.4  # the mean is -1
    torch.testing.assert_close(samples.mean(0), MEAN, atol=0.1, rtol=0)
    assert pipe.scheduler.config.clip_sample  # the scheduler that was given is left as it was


SIGMAS = ({}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True})
FITTING = [
    *["DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDPMScheduler", "DEISMultistepScheduler"],
    *["DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler"],
    *["EulerDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler"],
    *[
        "LCMScheduler",
        "LMSDiscreteScheduler",
        "PNDMScheduler",
        "SASolverScheduler",
        "TCDScheduler",
        "UniPCMultistepScheduler",
    ],
]


@pytest.mark.parametrize("sigmas", SIGMAS, ids=str)
@pytest.mark.parametrize("name", FITTING)
def test_every_scheduler_that_fits_draws_from_the_data_whatever_its_sigmas(name, sigmas):
    """With the best denoiser; karras and the others place the same number of steps elsewhere."""
    kind = getattr(diffusers, name)
    if sigmas.keys() - inspect.signature(kind.__init__).parameters.keys():
        return
    pipe = gaussian("epsilon")
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **sigmas)
    for count in (1, 7):
        assert pipe(2, num_inference_steps=max(count, 4 * (name == "PNDMScheduler"))).samples.isfinite().all()
    samples = pipe(4_000, num_inference_steps=50, generator=seed(), output_type="pt").samples
    assert samples.isfinite().all()
    # beta puts most steps at the two ends, so that solvers of high order err; an LCM step is made for distilled models
    if not sigmas.get("use_beta_sigmas") and name != "LCMScheduler":
        torch.testing.assert_close(samples.mean(0), MEAN, atol=0.08, rtol=0)
        torch.testing.assert_close(samples.T.cov(), COVARIANCE, atol=0.2, rtol=0)


def test_each_other_scheduler_of_diffusers_is_refused_by_name():
    names = {name for name in dir(schedulers) if name.endswith("Scheduler") and not name.startswith("Flax")}
    assert set(FITTING) < names
    pipe, refused = gaussian("epsilon"), 0
    for name in sorted(names - set(FITTING)):
        try:
            pipe.scheduler = getattr(schedulers, name).from_config(pipe.scheduler.config)
        except (TypeError, ValueError, ImportError):  # it cannot be made of this config, or needs another package
            continue
        with pytest.raises(ValueError, match=f"scheduler is a {name}"):
            pipe(2)
        refused += 1
    assert refused > 5


def test_samples_that_are_not_finite_are_an_error_that_names_the_scheduler():
    pipe = gaussian("epsilon")
    pipe.denoiser.forward = lambda sample, *_, **__: (torch.full_like(sample, torch.nan),)
    with pytest.raises(ValueError, match="what scheduler DDIMScheduler made in 20 steps holds NaN or infinite values"):
        pipe(2)


def test_ancestral_sampling_equals_diffusers_own_pipeline():
    ours = images()
    reference = DDPMPipeline(ours.denoiser, ours.scheduler)
    reference.set_progress_bar_config(disable=True)
    for steps in (10, 50):
        drawn = ours(3, num_inference_steps=steps, generator=seed(), output_type="np").images
        other = reference(3, num_inference_steps=steps, generator=seed(), output_type="np").images
        torch.testing.assert_close(torch.from_numpy(drawn), torch.from_numpy(other), atol=1e-6, rtol=0)


def test_steps_show_x_and_the_predicted_x_0():
    pipe = gaussian(scheduler=DPMSolverMultistepScheduler)
    steps = list(pipe.stream(500, num_inference_steps=10, generator=seed(), output_type="pt"))
    assert [s.timestep for s in steps] == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    # the first prediction is the mean of all data, the last one the sample
    assert (steps[0].predicted - MEAN).abs().max() < 0.2
    torch.testing.assert_close(steps[-1].predicted_samples, steps[-1].samples, atol=0.2, rtol=0)
    assert torch.equal(steps[-1].latents, steps[-1].samples)


def test_two_streams_of_one_pipeline_do_not_disturb_each_other():
    pipe = gaussian(scheduler=DPMSolverMultistepScheduler)
    alone = [s.latents for s in pipe.stream(2, generator=seed(1))]
    pairs = zip(pipe.stream(2, generator=seed(1)), pipe.stream(2, generator=seed(2)), strict=True)
    assert all(torch.equal(a, b.latents) for a, (b, _) in zip(alone, pairs, strict=True))


def test_a_closed_stream_computes_no_further_step():
    pipe, calls = gaussian(), []
    pipe.denoiser.register_forward_pre_hook(lambda *_: calls.append(1))
    stream = pipe.stream(2, num_inference_steps=50)
    next(stream)
    stream.close()
    assert len(calls) == 1


def test_a_zero_terminal_snr_schedule_starts_from_pure_noise():
    pipe = gaussian("v_prediction", rescale_betas_zero_snr=True, scheduler=DPMSolverMultistepScheduler)
    assert pipe.abar[-1] == 0 and pipe.elbo_terms(draws(3))[0].abs().max() < 1e-6
    samples = pipe(4_000, num_inference_steps=25, generator=seed(), output_type="pt").samples
    torch.testing.assert_close(samples.mean(0), MEAN, atol=0.08, rtol=0)
    torch.testing.assert_close(samples.T.cov(), COVARIANCE, atol=0.08, rtol=0)


# Guidance


def test_guidance_of_one_is_none_and_of_zero_ignores_the_class():
    pipe = images(classes=10, guidance_scale=3.0)
    x, t, labels = torch.randn(4, 1, 8, 8, generator=seed()), 700, torch.tensor([0, 3, 9, 9])
    timesteps = torch.full((4,), t)
    with torch.no_grad():
        given = pipe.denoiser(x, timesteps, class_labels=labels).sample
        free = pipe.denoiser(x, timesteps, class_labels=torch.full((4,), 10)).sample
    torch.testing.assert_close(pipe.predict(x, t, labels, 1.0)[1], given)
    torch.testing.assert_close(pipe.predict(x, t, labels, 0.0)[1], free, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(pipe.predict(x, t, labels)[1], free + 3 * (given - free), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(pipe.predict(x, t)[1], free)
    plain = pipe(
        class_labels=labels, guidance_scale=1, num_inference_steps=5, generator=seed(), output_type="pt"
    ).images
    free = DenoisingDiffusionPipeline(
        pipe.denoiser, pipe.scheduler, pipe.data_spec, conditional=True, guidance_scale=1.0
    )
    free.set_progress_bar_config(disable=True)
    assert torch.equal(
        plain, free(class_labels=labels, num_inference_steps=5, generator=seed(), output_type="pt").images
    )


def test_a_dit_drops_no_labels_by_itself():
    dit = DiTTransformer2DModel(2, 8, 1, 1, num_layers=2, sample_size=8, patch_size=4, num_embeds_ada_norm=10)
    scheduler = DDPMScheduler(beta_start=1e-4)
    DenoisingDiffusionPipeline(dit, scheduler, {**IMAGES, "num_classes": 10}, conditional=True)
    dit.train()
    x, t, labels = torch.randn(64, 1, 8, 8), torch.full((64,), 5), torch.zeros(64, dtype=torch.int64)
    for part in dit.parameters():
        nn.init.normal_(part, std=0.2)
    assert torch.equal(dit(x, t, class_labels=labels).sample, dit(x, t, class_labels=labels).sample)


def test_patches_are_channels_of_a_smaller_picture():
    class Seen(nn.Module):
        def forward(self, x, timestep, class_labels=None, return_dict=False):
            assert x.shape == (2, 4, 4, 4)
            return (x * torch.arange(4).view(1, 4, 1, 1),)

    x = torch.randn(2, 1, 8, 8)
    out = run_denoiser(Seen(), x, torch.zeros(2), None, 2)
    weight = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat(4, 4)
    torch.testing.assert_close(out, x * weight)


# Codes


def test_inversion_errs_as_one_over_steps():
    pipe, x = gaussian(), draws(200)
    errors = {}
    for steps in (125, 250, 500, 1000):
        again = pipe.reconstruct(x, num_inference_steps=steps, output_type="pt").samples
        errors[steps] = ((again - x).norm() / x.norm()).item()
    assert errors[1000] < 0.01
    for steps in (125, 250, 500):
        assert 1.6 < errors[steps] / errors[2 * steps] < 2.6


def test_codes_of_gaussian_data_are_standard_normal():
    z = gaussian().encode(draws(4_000), num_inference_steps=500)
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=0.08, rtol=0)
    torch.testing.assert_close(z.T.cov(), torch.eye(2), atol=0.1, rtol=0)


def test_there_is_no_way_between_opposite_codes(monkeypatch):
    pipe = gaussian()
    monkeypatch.setattr(type(pipe), "encode", lambda self, x, *_: x)
    with pytest.raises(ValueError, match="a and b have codes in opposite directions"):
        pipe.interpolate(draws(1), -draws(1))


# Filling in, and starting from an image


def test_what_is_filled_in_follows_from_what_is_known():
    """Of a Gaussian with one coordinate known, the other has mean m_2 + c_12 / c_11 (x_1 - m_1)."""
    pipe, known = gaussian(), 1.5
    x = torch.tensor([[known, 99.0]]).expand(1_000, 2)
    filled = pipe.complete(
        x, torch.tensor([True, False]), num_inference_steps=250, num_resamples=4, generator=seed(), output_type="pt"
    ).samples
    assert torch.equal(filled[:, 0], x[:, 0])
    (c11, c12), (_, c22) = COVARIANCE.tolist()
    assert filled[:, 1].mean().item() == pytest.approx(-1.0 + c12 / c11 * (known - 0.5), abs=0.06)
    assert filled[:, 1].std().item() == pytest.approx(math.sqrt(c22 - c12**2 / c11), rel=0.2)


def test_the_strength_says_how_much_of_an_image_is_kept():
    pipe = gaussian(scheduler=DPMSolverMultistepScheduler)
    x = torch.tensor([[2.0, 0.5]])
    far = []
    for strength, first in ((0.1, 99), (0.5, 499), (1.0, 999)):
        steps = list(pipe.stream(500, image=x, strength=strength, num_inference_steps=50, generator=seed()))
        assert steps[0].timestep == first and len(steps) == strength * 50
        far.append((steps[-1].latents - x).norm(dim=1).mean().item())
    assert far[0] < 0.4 * far[1] < far[1] < far[2]


# Bad input


def scheduled(kind, **config):
    return kind(beta_start=1e-4, timestep_spacing="trailing", **config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps is 0; it must be an integer from 1 to 1000"),
        ({"num_inference_steps": 1001}, "num_inference_steps is 1001"),
        ({"num_inference_steps": 2.5}, "num_inference_steps is 2.5"),
        ({"guidance_scale": 2.0}, "guidance_scale is 2.0, but this model was trained without classes"),
        ({"guidance_scale": -1}, "guidance_scale is -1; it must be a finite number of at least 0"),
        ({"eta": 0.5}, "eta is 0.5, but DDPMScheduler takes none"),
        ({"strength": 0, "image": torch.zeros(1, 1, 8, 8)}, "strength is 0; it must be above 0"),
        ({"image": torch.zeros(1, 1, 8, 7)}, "image has shape"),
        ({"latents": torch.zeros(1, 3)}, r"latents is \(1, 3\); it must be a tensor of shape \(B, 1, 8, 8\)"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_computed(arguments, message):
    pipe = images()
    pipe.denoiser.register_forward_pre_hook(lambda *_: pytest.fail("computed before checking"))
    with pytest.raises(ValueError, match=message):
        pipe(**arguments)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (DPMSolverMultistepScheduler(beta_start=1e-4, prediction_type="v_prediction"),
         "scheduler has prediction_type 'v_prediction', but the network was trained with 'epsilon'"),
        (LCMScheduler(), "scheduler has beta_start 0.00085, but the network was trained with 0.0001"),
        (DDIMScheduler(beta_start=1e-4, num_train_timesteps=500), "scheduler has num_train_timesteps 500"),
        (FlowMatchEulerDiscreteScheduler(), "scheduler is a FlowMatchEulerDiscreteScheduler; it must be one with"),
    ],
)  # fmt: skip
def test_a_scheduler_that_does_not_fit_is_refused(scheduler, message):
    pipe = images()
    pipe.scheduler = scheduler
    pipe.denoiser.register_forward_pre_hook(lambda *_: pytest.fail("computed before checking"))
    with pytest.raises(ValueError, match=message):
        pipe()


def test_a_scheduler_that_cannot_step_from_this_prediction_is_refused():
    pipe = gaussian("sample", scheduler=PNDMScheduler)
    with pytest.raises(ValueError, match="scheduler is a PNDMScheduler, which cannot make 20 steps from 'sample'"):
        pipe()


def test_zero_terminal_snr_wants_v_or_x_0_and_the_last_timestep():
    with pytest.raises(ValueError, match="prediction_type is 'epsilon' with a zero-terminal-SNR schedule"):
        images(scheduler=DDPMScheduler(rescale_betas_zero_snr=True))
    pipe = gaussian("v_prediction", rescale_betas_zero_snr=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading")
    with pytest.raises(ValueError, match="timestep_spacing 'leading'; a zero-terminal-SNR schedule needs 'trailing'"):
        pipe()


def test_a_vector_denoiser_knows_the_time_and_the_class():
    torch.manual_seed(0)
    model = MLPDenoiser(2, 16, 2, num_class_embeds=4)
    for part in model.parameters():
        nn.init.normal_(part, std=0.5)
    x, labels = torch.randn(3, 2), torch.tensor([0, 1, 3])
    base = model(x, torch.tensor([5, 5, 5]), labels).sample
    assert base.shape == (3, 2)
    assert (base != model(x, torch.tensor([6, 6, 6]), labels).sample).all()
    other = model(x, torch.tensor([5, 5, 5]), torch.tensor([0, 2, 3])).sample
    assert torch.equal(other[[0, 2]], base[[0, 2]]) and (other[1] != base[1]).all()
