"""Sampling, guidance, filling in, and the variational bound with a denoising diffusion model.

    q(x_t|x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)                     noise is added in T steps
    x_0-hat, eps-hat = what the denoiser makes of x_t                    from its prediction of eps, x_0 or v
    -log p(x_0) <= L_T + sum_t L_{t-1} + L_0                             the bound, in nats

Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", arXiv 2006.11239 (equations 4 to 7 and 13); v is
sqrt(abar) eps - sqrt(1 - abar) x_0 of Salimans and Ho, arXiv 2202.00512; guidance is Ho and Salimans, arXiv 2207.12598.

Timesteps are counted from 0, as diffusers' schedulers count them: timestep t of the code is t + 1 of the paper.
Images go in and out as values in [0, 1]; see `DenoisingDiffusionPipeline` for the shapes.
"""

import copy
import inspect
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from pipelines.contract import ClassLabels, Contract, Generators, Images, Samples

# what a scheduler must share with the training of the network
ELBO_SAMPLES = 16  # timesteps of the bound that are drawn for each x, unless a call says otherwise
SCHEDULE = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "rescale_betas_zero_snr", "prediction_type",
)  # fmt: skip


@dataclass
class DenoisingStep(BaseOutput):
    """What `stream` yields after each step.

    Attributes:
        step, num_steps: counted from 0.
        timestep: where the step began, 0 to T - 1.
        latents: (B, *shape), x after the step, in the range of the data spec.
        predicted: (B, *shape), the x_0 that the denoiser predicted, in the same range.
        class_labels: (B,) int64, or None for an unconditional model.
        images, predicted_images: both in the output_type asked for (`samples` and `predicted_samples` of vectors).
    """

    step: int
    num_steps: int
    timestep: int
    latents: Tensor
    predicted: Tensor
    class_labels: Tensor | None = None
    images: Images | None = None
    predicted_images: Images | None = None
    samples: Images | None = None
    predicted_samples: Images | None = None


def keep_labels(denoiser: nn.Module) -> nn.Module:
    """A DiT's blocks drop labels in training, each on its own; after this none does: that is for a recipe to decide."""
    for module in denoiser.modules():
        if hasattr(module, "dropout_prob") and hasattr(module, "token_drop"):
            module.dropout_prob = 0
    return denoiser


def run_denoiser(denoiser: nn.Module, x: Tensor, timestep: Tensor, class_labels: Tensor | None, patch_size: int):
    """The denoiser's output at x (B, *shape), timestep (B,), in x's shape and float32.

    With a `patch_size` p above 1 the network sees (B, C p^2, H / p, W / p): noise that is independent in every pixel
    stays so, and a network at half the resolution costs a quarter.
    """
    if patch_size > 1:
        x = F.pixel_unshuffle(x, patch_size)
    out = denoiser(x, timestep, class_labels=class_labels, return_dict=False)[0]
    return (F.pixel_shuffle(out, patch_size) if patch_size > 1 else out).float()


def discretised_gaussian_log_prob(x: Tensor, mean: Tensor, std: float, half_bin: float) -> Tensor:
    """log mass that N(mean, std^2) gives to the bin around x: (B, ...) -> (B,), nats.

    x lies on the 256 levels of [-1, 1]; the lowest and highest bins reach to -inf and +inf. Equation 13 of
    arXiv 2006.11239.
    """
    x, mean = x.double(), mean.double()
    lower, upper = (x - mean - half_bin) / std, (x - mean + half_bin) / std
    # the bin or its mirror image, whichever is in the left tail, where log Phi is precise
    mirrored = lower + upper > 0
    a, b = torch.where(mirrored, -upper, lower), torch.where(mirrored, -lower, upper)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    log_mass = log_b + torch.log(-torch.expm1(log_a - log_b))
    log_mass = torch.where(x < -1 + half_bin, torch.special.log_ndtr(upper), log_mass)
    log_mass = torch.where(x > 1 - half_bin, torch.special.log_ndtr(-lower), log_mass)
    return log_mass.flatten(1).sum(1).float()


class DenoisingDiffusionPipeline(Contract, DiffusionPipeline):
    """A denoising diffusion model to draw from, to guide, to fill in with, to measure and to encode with.

    x is a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them, with values in [0, 1]; a vector
    model takes (B, D). Bounds are nats per sample, shape (B,); of 8-bit images -elbo / (d ln 2) is bits/dim.

    `pipe.scheduler` may be any scheduler of diffusers that steps with this network's schedule and prediction:
    `pipe.scheduler = DDPMScheduler.from_config(pipe.scheduler.config)`. A network that knows classes also knows
    "none", from label dropout in training: calls without `class_labels` that are given an x use that.

    A `generator` is one `torch.Generator` for the batch or a list with one for each sample; with a list, sample i
    depends on its own seed alone.

    Args:
        denoiser: a `UNet2DModel`, `DiTTransformer2DModel` or `MLPDenoiser`, trained with the schedule below.
        scheduler: what samples by default.
        data_spec: what x is: `kind` ("image" or "vector"), `shape` ((C, H, W) or (D,)), `support` ("8-bit" or
            "real"), `range` [low, high] that the network sees (None for real vectors), `dequantization` ("none") and
            `num_classes`.
        schedule: the configuration that the network was trained with, the scheduler's own where it is left out.
        conditional: whether the network takes classes.
        patch_size: pixels of p x p squares become channels before the network.
        guidance_scale: the default of the calls that sample with a class.
        num_inference_steps: the default number of steps.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.

    Raises:
        ValueError: no data spec, or a schedule that cannot be sampled.
    """

    model_cpu_offload_seq = "denoiser"
    likelihood = "bound"

    def __init__(
        self,
        denoiser,
        scheduler,
        data_spec: dict | None = None,
        schedule: dict | None = None,
        conditional: bool = False,
        patch_size: int = 1,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 20,
        auto_map: dict | None = None,
    ):
        super().__init__()
        self._take_data_spec(data_spec)
        schedule = {name: (schedule or scheduler.config).get(name, False) for name in SCHEDULE}
        if schedule["rescale_betas_zero_snr"] and schedule["prediction_type"] == "epsilon":
            raise ValueError(
                "prediction_type is 'epsilon' with a zero-terminal-SNR schedule: at the last timestep x_t is pure noise "
                "and x_0 cannot be computed from it; train with 'v_prediction' or 'sample'"
            )
        self.register_modules(denoiser=denoiser, scheduler=scheduler)
        self.register_to_config(
            data_spec=data_spec,
            schedule=schedule,
            conditional=conditional,
            patch_size=patch_size,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
        )
        keep_labels(denoiser)
        # abar_t of the forward process, t = 0 to T - 1, in double precision: the bound takes differences of it
        self.abar = DDPMScheduler.from_config(schedule).alphas_cumprod.double()

    @property
    def refusals(self) -> dict[str, str]:
        """The calls that a diffusion model does not answer, and why."""
        return {"log_prob": "a diffusion model gives a bound on log p(x), not its value; call elbo(x)"}

    # Sampling

    def __call__(
        self,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        eta: float = 0.0,
        image=None,
        strength: float = 0.5,
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
    ) -> Samples | tuple:
        """Draw samples.

        Args:
            batch_size: how many; one if nothing else says it.
            class_labels: an int for all samples, or one int each (which sets the batch size). A conditional model
                draws classes uniformly where none are given.
            num_inference_steps: steps of the scheduler, 1 to the number of timesteps of the training; the pipeline's
                default where none is given. `DDPMScheduler` wants all of them.
            guidance_scale: w of uncond + w (cond - uncond), at least 0: 1 is no guidance, 0 ignores the class, more
                exaggerates it. The pipeline's default where none is given.
            eta: of `DDIMScheduler`, noise per step: 0 is deterministic, 1 as much as ancestral sampling.
            image: x to begin from instead of pure noise (image-to-image), one for all samples or one each.
            strength: how far back `image` is noised: (0, 1] of the timesteps, to the nearest step of the scheduler.
            latents: (B, *shape) standard normal noise to begin from instead of drawing it.
            generator: one, or a list with one for each sample.
            output_type: "pil", "np" (B, H, W, C) or "pt" (B, C, H, W), in [0, 1].
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as (pipe, step, timestep, {"latents": x}) after each step.

        Raises:
            ValueError: on an argument out of range, or a scheduler that does not fit the network, before anything is
                computed; the message names it.
        """
        steps = self._steps(batch_size, class_labels, num_inference_steps, guidance_scale, eta, image, strength,
                            latents, generator, output_type)  # fmt: skip
        return self._run(steps, output_type, return_dict, callback_on_step_end)

    def stream(
        self,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        eta: float = 0.0,
        image=None,
        strength: float = 0.5,
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
    ) -> Iterator[DenoisingStep]:
        """The samples of `__call__`, step by step, with what the denoiser predicts. Same arguments."""
        steps = self._steps(batch_size, class_labels, num_inference_steps, guidance_scale, eta, image, strength,
                            latents, generator, output_type)  # fmt: skip
        for step in steps:
            yield self._show(step, output_type)

    @torch.no_grad()
    def _steps(self, batch_size, class_labels, num_inference_steps, guidance_scale, eta, image, strength, latents,
               generator, output_type) -> Iterator[DenoisingStep]:  # fmt: skip
        self._check_output_type(output_type)
        count = self._check_steps(num_inference_steps)
        guidance_scale = self._guidance(guidance_scale)
        scheduler, options = self._fresh_scheduler(count, eta)
        if image is not None:
            image = self._to_network(self._check_x(image, "image"))
            self._check_number("strength", strength, most=1, above_least=True)
        if latents is not None:
            latents = self._check_latents(latents, self._shape)
        batch_size = self._batch_size(batch_size, class_labels, latents, generator, image)
        labels = self._labels_or_draw(class_labels, batch_size, generator)
        timesteps, order = scheduler.timesteps, getattr(scheduler, "order", 1)
        noise = self._noise((batch_size, *self._shape), generator) if latents is None else latents
        if image is None:
            x = noise * scheduler.init_noise_sigma
        else:
            wanted = strength * self.num_timesteps - 1
            begin = int((timesteps.double() - wanted).abs().argmin())
            begin -= begin % order  # a scheduler of second order looks at most timesteps twice
            timesteps = timesteps[begin:]
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(begin)
            x = scheduler.add_noise(image.expand_as(noise), noise, timesteps[:1].repeat(batch_size))
        if "generator" in inspect.signature(scheduler.step).parameters:
            options["generator"] = generator
        for number, timestep in enumerate(timesteps):
            seen = scheduler.scale_model_input(x, timestep)
            output = self._guided(seen, timestep, labels, guidance_scale)
            predicted, _ = self.predict_x0_and_noise(output, seen, timestep)
            x = scheduler.step(output, timestep, x, **options).prev_sample
            yield DenoisingStep(number, len(timesteps), int(timestep), x, predicted, labels)

    def complete(
        self,
        x,
        mask,
        class_labels: ClassLabels = None,
        num_inference_steps: int = 50,
        num_resamples: int = 4,
        guidance_scale: float | None = None,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
    ) -> Samples | tuple:
        """Fill in what is not known of x, as arXiv 2201.09865 (RePaint, algorithm 1) does: known pixels stay as they are.

        At each step the known part is noised to the same level and put in; going back and forth `num_resamples`
        times lets the rest settle to it. The steps are ancestral, whatever `pipe.scheduler` is.

        Args:
            x: what is known, see the class; the values elsewhere do not matter.
            mask: True where x is known: (H, W), (C, H, W) or (B, C, H, W) with 1 for C where all channels share it;
                (D,) or (B, D) of vectors.
            class_labels: the class to draw, where the model knows classes; without one, whichever fits.
            num_inference_steps: 1 to the number of timesteps of the training.
            num_resamples: how often each step is made, at least 1.
            guidance_scale: as in `__call__`.

        Raises:
            ValueError: a mask of another size, or one that knows nothing or everything.
        """
        steps = self._completing(x, mask, class_labels, num_inference_steps, num_resamples, guidance_scale, generator,
                                 output_type)  # fmt: skip
        return self._run(steps, output_type, return_dict, callback_on_step_end)

    def stream_complete(
        self,
        x,
        mask,
        class_labels: ClassLabels = None,
        num_inference_steps: int = 50,
        num_resamples: int = 4,
        guidance_scale: float | None = None,
        generator: Generators = None,
        output_type: str = "pil",
    ) -> Iterator[DenoisingStep]:
        """`complete` step by step; a step is one pass of the network, so there are steps times resamples."""
        steps = self._completing(x, mask, class_labels, num_inference_steps, num_resamples, guidance_scale, generator,
                                 output_type)  # fmt: skip
        for step in steps:
            yield self._show(step, output_type)

    @torch.no_grad()
    def _completing(self, x, mask, class_labels, num_inference_steps, num_resamples, guidance_scale, generator,
                    output_type) -> Iterator[DenoisingStep]:  # fmt: skip
        self._check_output_type(output_type)
        count = self._check_steps(num_inference_steps)
        self._check_count("num_resamples", num_resamples)
        guidance_scale = self._guidance(guidance_scale)
        known = self._to_network(self._check_x(x))
        mask = self._check_partly_known(mask, known)
        size = self._batch_size(None, class_labels, None, generator, known)
        known, mask = known.expand(size, *known.shape[1:]), mask.expand(size, *known.shape[1:])
        labels = self._labels(class_labels, size)
        times = [-1, *self._spread(count)]  # -1: the data itself
        x = self._noise(known.shape, generator)
        number, total = 0, count * num_resamples
        for t, s in zip(times[:0:-1], times[-2::-1], strict=True):  # from t down to s
            for again in range(num_resamples):
                predicted, _ = self._predict(x, t, labels, guidance_scale)
                if s < 0:
                    x = torch.where(mask, known, predicted.clamp(*self._bounds))
                else:
                    mean, variance = self.posterior(predicted, x, t, s)
                    x = mean + variance**0.5 * self._noise(x.shape, generator)
                    x = torch.where(mask, self.q_sample(known, s, self._noise(x.shape, generator)), x)
                yield DenoisingStep(number, total, t, x, torch.where(mask, known, predicted), labels)
                number += 1
                if again < num_resamples - 1:  # back up, from s to t
                    ratio = (self._abar(t) / self._abar(s)).item()
                    x = ratio**0.5 * x + (1 - ratio) ** 0.5 * self._noise(x.shape, generator)

    # The forward process and its posterior

    @property
    def convention(self) -> str:
        """How `elbo` measures, by default: what a figure made by it should say."""
        decoder = "discretised" if self._is_image else "density of a"
        return f"T = {self.num_timesteps}, {ELBO_SAMPLES} sampled terms an x, {decoder} Gaussian decoder"

    @property
    def num_timesteps(self) -> int:
        """T, the number of timesteps of the training."""
        return len(self.abar)

    @torch.no_grad()
    def noise(self, x, timestep: int, generator: Generators = None, step_by_step: bool = False) -> Tensor:
        """A draw of q(x_t|x_0), in the range of the data spec: (B, *shape).

        `step_by_step` makes timestep + 1 small steps of q(x_t|x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)
        instead of the one in closed form; the distribution is the same.
        """
        timestep = self._check_timestep(timestep)
        x = self._to_network(self._check_x(x))
        if not step_by_step:
            return self.q_sample(x, timestep, self._noise(x.shape, generator))
        for t in range(timestep + 1):
            keep = (self._abar(t) / self._abar(t - 1)).item()
            x = keep**0.5 * x + (1 - keep) ** 0.5 * self._noise(x.shape, generator)
        return x

    def posterior(self, x_0: Tensor, x_t: Tensor, timestep: int, previous: int | None = None) -> tuple[Tensor, float]:
        """Mean and variance of q(x_s|x_t, x_0), for s the timestep before t or an earlier one; -1 is the data.

        x_0 and x_t (B, *shape) in the range of the data spec. Equations 6 and 7 of arXiv 2006.11239.
        """
        previous = timestep - 1 if previous is None else previous
        abar_t, abar_s = self._abar(timestep), self._abar(previous)
        alpha = abar_t / abar_s  # of all steps from s to t together
        of_x_0 = (abar_s.sqrt() * (1 - alpha) / (1 - abar_t)).item()
        of_x_t = (alpha.sqrt() * (1 - abar_s) / (1 - abar_t)).item()
        return of_x_0 * x_0 + of_x_t * x_t, ((1 - abar_s) * (1 - alpha) / (1 - abar_t)).item()

    @torch.no_grad()
    def predict(self, x_t: Tensor, timestep: int, class_labels=None, guidance_scale: float | None = None):
        """What the denoiser makes of x_t (B, *shape), in the range of the data spec: (x_0, noise), each (B, *shape)."""
        timestep, x_t = self._check_timestep(timestep), self._check_latents(x_t, self._shape, "x_t")
        guidance_scale = self._guidance(guidance_scale)
        labels = self._labels(class_labels, len(x_t))
        return self._predict(x_t, timestep, labels, guidance_scale)

    # The bound

    @torch.no_grad()
    def elbo(self, x, num_samples: int = ELBO_SAMPLES, class_labels=None, generator: Generators = None) -> Tensor:
        """A lower bound on log p(x), or on log p(x|c): (B,), nats; an unbiased estimate of it.

        `num_samples` of the T - 1 terms L_{t-1} are evaluated for each x, spread over t and weighted by how often they
        are chosen; more make the estimate steadier, not higher. Without `class_labels` a conditional model is
        measured as the unconditional one that it also is.
        """
        prior, diffusion, decoder = self.elbo_terms(x, num_samples, class_labels, generator)
        return -(prior + diffusion + decoder)

    @torch.no_grad()
    def elbo_terms(
        self, x, num_samples: int = ELBO_SAMPLES, class_labels=None, generator: Generators = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """L_T, the sum of the L_{t-1} and L_0: (B,) each, nats; minus their sum is `elbo`.

        L_T = KL(q(x_T|x_0) || N(0, I)). L_{t-1} = KL(q(x_{t-1}|x_t, x_0) || p(x_{t-1}|x_t)), of two Gaussians with
        the posterior's variance. L_0 = -log p(x_0|x_1), a Gaussian of variance beta_1: its mass in the bin of a pixel,
        its density of vectors. Predictions of x_0 are clipped to the range of images.
        """
        self._check_count("num_samples", num_samples)
        x = self._to_network(self._check_x(x, on_support=True))
        labels = self._labels(class_labels, len(x))
        weights = self.timestep_weights()
        edges = weights.cumsum(0)
        u = self._noise((len(x), num_samples), generator, uniform=True).double().cpu()
        diffusion = 0.0
        for k in range(num_samples):
            # one draw from each of `num_samples` slices of equal chance
            place = torch.searchsorted(edges, (k + u[:, k]) / num_samples).clamp(max=len(edges) - 1)
            term = self._transition(x, place + 1, labels, self._noise(x.shape, generator))
            diffusion = diffusion + term / (weights[place] * num_samples).to(x.device, torch.float32)
        decoder = self._decoder(x, labels, self._noise(x.shape, generator))
        return self._prior(x), diffusion, decoder

    @torch.no_grad()
    def elbo_curve(self, x, timesteps=None, class_labels=None, generator: Generators = None) -> Tensor:
        """Each term of the bound at `timesteps`, all by default: (N, B), nats.

        Timestep 0 is L_0, timestep t is L_t of `elbo_terms`' sum: KL(q(x_{t-1}|x_t, x_0) || p(x_{t-1}|x_t)).
        """
        timesteps = range(self.num_timesteps) if timesteps is None else [self._check_timestep(t) for t in timesteps]
        x = self._to_network(self._check_x(x, on_support=True))
        labels = self._labels(class_labels, len(x))
        rows = []
        for t in timesteps:
            noise = self._noise(x.shape, generator)
            if t == 0:
                rows.append(self._decoder(x, labels, noise))
            else:
                rows.append(self._transition(x, torch.full((len(x),), t), labels, noise))
        return torch.stack(rows)

    def log_prob(self, x, num_samples: int = ELBO_SAMPLES, class_labels=None, generator: Generators = None) -> Tensor:
        """There is none: x can be reached on infinitely many paths.

        Raises:
            NotImplementedError: with the call that answers instead.
        """
        self._check_answers("log_prob")

    def _prior(self, x: Tensor) -> Tensor:
        abar = self.abar[-1].item()
        kl = 0.5 * ((1 - abar) + abar * x.square() - 1 - math.log1p(-abar))
        return kl.flatten(1).sum(1)

    def _transition(self, x: Tensor, timesteps: Tensor, labels, noise: Tensor) -> Tensor:
        """KL(q(x_{t-1}|x_t, x_0) || p(x_{t-1}|x_t)) at t >= 1, one t for each x: (B,), nats."""
        x_t = self.q_sample(x, timesteps, noise)
        predicted, _ = self._predict(x_t, timesteps, labels)
        # both means hold the same x_t, so they differ by the difference of x_0; beta~ and its factor make SNRs
        error = (x - self._clip(predicted)).square().flatten(1).sum(1)
        return 0.5 * self._snr_fall()[timesteps - 1].to(x.device, torch.float32) * error

    def _decoder(self, x: Tensor, labels, noise: Tensor) -> Tensor:
        """-log p(x_0|x_1): (B,), nats."""
        predicted, _ = self._predict(self.q_sample(x, 0, noise), 0, labels)
        mean, std = self._clip(predicted), (1 - self.abar[0]).sqrt().item()
        if self._is_image:
            return -discretised_gaussian_log_prob(x, mean, std, half_bin=1 / 255)
        scaled = (x - mean) / std
        return (0.5 * scaled.square() + math.log(std) + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)

    def _snr_fall(self) -> Tensor:
        """SNR(t - 1) - SNR(t) for t = 1 to T - 1, where SNR = abar / (1 - abar): (T - 1,)."""
        snr = self.abar / (1 - self.abar)
        return snr[:-1] - snr[1:]

    def timestep_weights(self) -> Tensor:
        """How often L_{t-1} of t = 1 to T - 1 is chosen: (T - 1,), double, sums to 1.

        In proportion to what the terms would be for Gaussian data of variance 1/4, with a tenth spread evenly so that
        no weight exceeds ten times the plain one.
        """
        abar = self.abar[1:]
        guess = self._snr_fall() * (1 - abar) / (abar / 4 + 1 - abar)
        return 0.9 * guess / guess.sum() + 0.1 / len(guess)

    # Codes: the deterministic path between noise and data

    @torch.no_grad()
    def encode(self, x, class_labels=None, num_inference_steps: int = 100) -> Tensor:
        """The noise that deterministic sampling would turn into x: (B, *shape), about standard normal.

        DDIM backwards, by Euler steps of the probability-flow ODE (arXiv 2010.02502, equation 14); the error falls as
        1 / num_inference_steps.
        """
        count = self._check_steps(num_inference_steps)
        x = self._to_network(self._check_x(x))
        labels = self._labels(class_labels, len(x))
        times = [-1, *self._spread(count)]
        for s, t in itertools.pairwise(times):
            _, noise = self._predict(x, max(s, 0), labels)
            x = self._ddim(x, noise, s, t)
        return x

    @torch.no_grad()
    def decode(
        self, latents: Tensor, class_labels=None, num_inference_steps: int = 100, output_type: str = "pil"
    ) -> Samples:
        """What deterministic sampling makes of noise (B, *shape); `encode` backwards."""
        self._check_output_type(output_type)
        count = self._check_steps(num_inference_steps)
        x = self._check_latents(latents, self._shape)
        labels = self._labels(class_labels, len(x))
        times = [-1, *self._spread(count)]
        for t, s in zip(times[:0:-1], times[-2::-1], strict=True):
            predicted, noise = self._predict(x, t, labels)
            x = predicted if s < 0 else self._ddim(x, noise, t, s, predicted)
        return self._wrap(self._output(x, output_type))

    def reconstruct(self, x, class_labels=None, num_inference_steps: int = 100, output_type: str = "pil"):
        """decode(encode(x))."""
        z = self.encode(x, class_labels, num_inference_steps)
        return self.decode(z, class_labels, num_inference_steps, output_type)

    def interpolate(self, a, b, steps: int = 8, class_labels=None, num_inference_steps: int = 100, **decoding):
        """`steps` decoded points on the great circle between the codes of a and b (one each), ends included."""
        labels = self._check_path(steps, class_labels)
        ends = [self.encode(end, class_labels, num_inference_steps) for end in (a, b)]
        return self.decode(self._path(*ends, steps, on_sphere=True), labels, num_inference_steps, **decoding)

    def _ddim(self, x: Tensor, noise: Tensor, t: int, s: int, predicted: Tensor | None = None) -> Tensor:
        """From x at timestep t to timestep s, in either direction, with the noise held fixed."""
        abar_t, abar_s = self._abar(t), self._abar(s)
        if predicted is None:
            predicted = (x - (1 - abar_t).sqrt().item() * noise) / abar_t.sqrt().item()
        return abar_s.sqrt().item() * predicted + (1 - abar_s).sqrt().item() * noise

    # The denoiser

    def _guided(self, x: Tensor, timestep: Tensor, labels: Tensor | None, guidance_scale: float = 1.0) -> Tensor:
        """The output of the network at x and one timestep or one each, with guidance; no labels means "no class"."""
        timesteps = timestep.to(x.device).expand(len(x))
        if self._takes_classes and (labels is None or guidance_scale == 0):
            labels = torch.full((len(x),), self._null_class, device=x.device)
            guidance_scale = 1.0
        patch, x = self.config.patch_size, x.to(self.denoiser.dtype)
        if guidance_scale == 1 or not self.num_classes:
            return run_denoiser(self.denoiser, x, timesteps, labels, patch)
        none = torch.full_like(labels, self._null_class)
        both = run_denoiser(self.denoiser, torch.cat([x, x]), timesteps.repeat(2), torch.cat([labels, none]), patch)
        given, free = both.chunk(2)
        return free + guidance_scale * (given - free)

    def _predict(self, x: Tensor, timestep: int | Tensor, labels, guidance_scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """x_0 and noise at x (B, *shape)."""
        timestep = torch.as_tensor(timestep)
        return self.predict_x0_and_noise(self._guided(x, timestep, labels, guidance_scale), x, timestep)

    def predict_x0_and_noise(self, output: Tensor, x: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """x_0 and noise from the output of the network."""
        abar = self._abar(timestep)
        a, s = (root.to(x.device, torch.float32) for root in (abar.sqrt(), (1 - abar).sqrt()))
        if a.ndim:
            a, s = (root.view(-1, *[1] * (x.ndim - 1)) for root in (a, s))
        kind = self.config.schedule["prediction_type"]
        if kind == "epsilon":
            return (x - s * output) / a, output
        if kind == "sample":
            return output, (x - a * output) / s
        return a * x - s * output, a * output + s * x  # v

    def q_sample(self, x: Tensor, timestep: int | Tensor, noise: Tensor) -> Tensor:
        abar = self._abar(timestep).to(x.device)
        if abar.ndim:
            abar = abar.view(-1, *[1] * (x.ndim - 1))
        return abar.sqrt().float() * x + (1 - abar).sqrt().float() * noise

    def _abar(self, timestep: int | Tensor) -> Tensor:
        """abar at timesteps, 1 at -1 (the data), between two timesteps on the line that joins them."""
        timestep = torch.as_tensor(timestep, dtype=torch.float64, device="cpu")
        table = torch.cat([torch.ones(1, dtype=torch.float64), self.abar])
        low = timestep.floor().long()
        high = (low + 1).clamp(max=self.num_timesteps - 1)
        return torch.lerp(table[low + 1], table[high + 1], timestep - low)

    def _spread(self, count: int) -> list[int]:
        """`count` timesteps spread evenly, the last one included, in rising order ("trailing")."""
        return [round((i + 1) * self.num_timesteps / count) - 1 for i in range(count)]

    # What the data spec decides

    @property
    def _bounds(self) -> tuple[float, float]:
        return tuple(self.data_spec["range"]) if self._is_image else (-math.inf, math.inf)

    def _clip(self, x: Tensor) -> Tensor:
        return x.clamp(*self._bounds)

    @property
    def _null_class(self) -> int:
        """The row of the table of classes that means none: the last."""
        return self.num_classes

    @property
    def _takes_classes(self) -> bool:
        """Whether the network wants labels: a DiT always does."""
        return self.config.conditional or bool(self.denoiser.config.get("num_embeds_ada_norm"))

    def _show(self, step: DenoisingStep, output_type: str) -> DenoisingStep:
        shown, predicted = self._output(step.latents, output_type), self._output(step.predicted, output_type)
        names = ("images", "predicted_images") if self._is_image else ("samples", "predicted_samples")
        return DenoisingStep(**{**step, names[0]: shown, names[1]: predicted})

    def _run(self, steps: Iterator[DenoisingStep], output_type: str, return_dict: bool, callback: Callable | None):
        """The last of `steps` as the output of a call, with a progress bar."""
        return self._drain(
            self._with_progress(steps), return_dict, callback, lambda step: self._show(step, output_type)
        )

    def _with_progress(self, steps: Iterator[DenoisingStep]) -> Iterator[DenoisingStep]:
        first = next(steps)  # checks come before the progress bar
        with self.progress_bar(total=first.num_steps) as bar:
            for step in itertools.chain([first], steps):
                bar.update()
                yield step

    # Checks: each error names the argument, its value and what would be right

    def _fresh_scheduler(self, count: int, eta: float):
        """A copy of the scheduler, set to `count` steps, and what its step takes beside the prediction.

        A copy, so that two streams of one pipeline do not share a scheduler's memory.
        """
        name, config = type(self.scheduler).__name__, self.scheduler.config
        # the forward process as a scheduler of the other kinds (flow matching, ...) does not have it
        if not all(hasattr(self.scheduler, part) for part in ("alphas_cumprod", "scale_model_input", "add_noise")):
            raise ValueError(f"scheduler is a {name}; it must be one with alphas_cumprod, such as DDIMScheduler")
        for key, value in self.config.schedule.items():
            if config.get(key, False) != value:
                raise ValueError(
                    f"scheduler has {key} {config.get(key, False)!r}, but the network was trained with {value!r}; "
                    f"build it by {name}.from_config(pipe.scheduler.config)"
                )
        zero_snr = self.config.schedule["rescale_betas_zero_snr"]
        if zero_snr and config.get("timestep_spacing", "trailing") != "trailing":
            raise ValueError(
                f"scheduler has timestep_spacing {config['timestep_spacing']!r}; a zero-terminal-SNR schedule needs "
                "'trailing', which begins at the last timestep"
            )
        scheduler = copy.deepcopy(self.scheduler)
        takes = inspect.signature(scheduler.step).parameters
        self._check_number("eta", eta, most=1)
        if eta and "eta" not in takes:
            raise ValueError(f"eta is {eta}, but {name} takes none; use DDIMScheduler, or leave it out")
        options = {"eta": eta} if "eta" in takes else {}
        try:
            scheduler.set_timesteps(count, device=self.device)
            trial = copy.deepcopy(scheduler)  # a step on nothing, to see whether it can
            nothing = torch.zeros(1, 1, 1, 1, device=self.device)
            trial.scale_model_input(nothing, trial.timesteps[0])
            trial.step(nothing, trial.timesteps[0], nothing, **options)
        except (TypeError, ValueError, NotImplementedError, RuntimeError, AttributeError, IndexError) as error:
            kind, why = self.config.schedule["prediction_type"], " ".join(str(error).split())[:200]
            raise ValueError(f"scheduler is a {name}, which cannot make {count} steps from {kind!r}: {why}") from None
        return scheduler, options

    def _guidance(self, guidance_scale: float | None) -> float:
        if guidance_scale is None:
            return float(self.config.guidance_scale) if self.num_classes else 1.0
        self._check_number("guidance_scale", guidance_scale)
        if guidance_scale != 1 and not self.num_classes:
            raise ValueError(
                f"guidance_scale is {guidance_scale}, but this model was trained without classes; leave it out"
            )
        return float(guidance_scale)

    def _check_steps(self, value: int | None) -> int:
        value = self.config.num_inference_steps if value is None else value
        return self._check_count("num_inference_steps", value, most=self.num_timesteps)

    def _check_timestep(self, value: int) -> int:
        return self._check_count("timestep", value, least=0, most=self.num_timesteps - 1)

    def _check_partly_known(self, mask, x: Tensor) -> Tensor:
        """The mask of `complete`: something of each x is known, and not everything."""
        mask = self._check_mask(mask, x)
        if not mask.flatten(1).any(1).all():
            raise ValueError("mask is False everywhere: nothing of x is known; to draw from nothing, call the pipeline")
        if mask.all():
            raise ValueError("mask is True everywhere: there is nothing to fill in")
        return mask
