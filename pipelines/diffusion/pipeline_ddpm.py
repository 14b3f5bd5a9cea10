"""Sampling, guidance, filling in, and the variational bound with a denoising diffusion model.

    q(x_t|x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)                     noise is added in T steps
    x_0-hat, eps-hat = what the denoiser makes of x_t                    from its prediction of eps, x_0 or v
    -log p(x_0) <= L_T + sum_t L_{t-1} + L_0                             the bound, in nats

Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", arXiv 2006.11239 (equations 4 to 7 and 13); v is
sqrt(abar) eps - sqrt(1 - abar) x_0 of Salimans and Ho, arXiv 2202.00512; guidance is Ho and Salimans, arXiv 2207.12598.

Timesteps are counted from 0, as diffusers' schedulers count them: timestep t of the code is t + 1 of the paper.
Images go in and out as values in [0, 1]; see `DenoisingDiffusionPipeline` for the shapes.
"""

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from pipelines.contract import ClassLabels, Contract, Generators
from pipelines.diffusion.bound import VariationalBound
from pipelines.diffusion.denoiser import GuidedDenoiser, keep_labels
from pipelines.diffusion.process import ForwardProcess
from pipelines.diffusion.scheduling import abar, check_samples, scheduler_for_one_call, trained_schedule
from pipelines.saving import settings_of
from pipelines.steps import Images, Samples


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


class DenoisingDiffusionPipeline(Contract, ForwardProcess, GuidedDenoiser, VariationalBound, DiffusionPipeline):
    """A denoising diffusion model to draw from, to guide, to fill in with, to measure and to encode with.

    x is a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them, with values in [0, 1]; a vector
    model takes (B, D). Bounds are nats per sample, shape (B,); of 8-bit images -elbo / (d ln 2) is bits/dim.

    `pipe.scheduler` may be any scheduler of diffusers that steps with this network's schedule and prediction:
    `pipe.scheduler = DDPMScheduler.from_config(pipe.scheduler.config)`. Vectors have no range and
    are never clipped, whatever its `clip_sample` says. A network that knows classes also knows
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
        ValueError: an argument out of its range, a denoiser that does not fit the data spec, or a schedule that cannot
            be sampled.
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
        if data_spec is None and (settings := settings_of(denoiser)):  # what is not given is as it was
            given = {"schedule": schedule, "conditional": conditional, "patch_size": patch_size,
                     "guidance_scale": guidance_scale, "num_inference_steps": num_inference_steps}  # fmt: skip
            defaults = inspect.signature(type(self).__init__).parameters
            settings |= {name: value for name, value in given.items() if value != defaults[name].default}
            return self.__init__(denoiser, scheduler, **settings)
        super().__init__()
        self._take_data_spec(data_spec)
        schedule = trained_schedule(schedule or scheduler.config)
        most = self._check_count("num_train_timesteps", schedule["num_train_timesteps"])
        num_inference_steps = self._check_count("num_inference_steps", num_inference_steps, most=most)
        scheduler_for_one_call(scheduler, schedule, num_inference_steps, 0.0, "cpu")
        # `Other.from_config(pipe.scheduler.config)` takes Other's default for what was left to a default, unless told
        scheduler.register_to_config(_use_default_values=[])
        self.register_to_config(
            data_spec=data_spec,
            schedule=schedule,
            conditional=conditional,
            patch_size=self._check_count("patch_size", patch_size),
            guidance_scale=self._check_number("guidance_scale", guidance_scale),
            num_inference_steps=num_inference_steps,
        )
        self.register_modules(denoiser=denoiser, scheduler=scheduler)
        keep_labels(denoiser)
        self.abar = abar(schedule)

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
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
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
            output_type: "pil", "np" (B, H, W, C) or "pt" (B, C, H, W), in [0, 1]; "latent" gives the latents.
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as (pipe, step, timestep, {"latents": x}) after each step;
                what it returns as "latents" takes their place, and `pipe._interrupt = True` ends the steps.
            callback_on_step_end_tensor_inputs: what it is given: ["latents"].

        Raises:
            ValueError: on an argument out of range, or a scheduler that does not fit the network, before anything is
                computed; the message names it.
        """
        steps = self._sampling_steps(batch_size, class_labels, num_inference_steps, guidance_scale, eta, image, strength,
                            latents, generator, output_type)  # fmt: skip
        return self._run_to_end(
            steps, output_type, return_dict, callback_on_step_end, callback_on_step_end_tensor_inputs
        )

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
        steps = self._sampling_steps(batch_size, class_labels, num_inference_steps, guidance_scale, eta, image, strength,
                            latents, generator, output_type)  # fmt: skip
        for step in steps:
            yield self._with_images(step, output_type)

    @torch.no_grad()
    def _sampling_steps(self, batch_size, class_labels, num_inference_steps, guidance_scale, eta, image, strength, latents,
               generator, output_type) -> Iterator[DenoisingStep]:  # fmt: skip
        self._check_output_type(output_type, may_be_latent=True)
        count = self._check_inference_steps(num_inference_steps)
        guidance_scale = self._checked_guidance_scale(guidance_scale)
        self._check_number("eta", eta, most=1)
        scheduler, options = scheduler_for_one_call(
            self.scheduler, self.config.schedule, count, eta, self._execution_device, clips=self._is_image
        )
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
            output = self._network_output(seen, timestep, labels, guidance_scale)
            predicted, _ = self.predict_x0_and_noise(output, seen, timestep)
            x = scheduler.step(output, timestep, x, **options).prev_sample
            if number == len(timesteps) - 1:
                check_samples(x, scheduler, number + 1)
            step = DenoisingStep(number, len(timesteps), int(timestep), x, predicted, labels)
            yield step
            x = step.latents  # a callback may have changed them

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
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
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
        steps = self._completion_steps(x, mask, class_labels, num_inference_steps, num_resamples, guidance_scale, generator,
                                 output_type)  # fmt: skip
        return self._run_to_end(
            steps, output_type, return_dict, callback_on_step_end, callback_on_step_end_tensor_inputs
        )

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
        steps = self._completion_steps(x, mask, class_labels, num_inference_steps, num_resamples, guidance_scale, generator,
                                 output_type)  # fmt: skip
        for step in steps:
            yield self._with_images(step, output_type)

    @torch.no_grad()
    def _completion_steps(self, x, mask, class_labels, num_inference_steps, num_resamples, guidance_scale, generator,
                    output_type) -> Iterator[DenoisingStep]:  # fmt: skip
        self._check_output_type(output_type, may_be_latent=True)
        count = self._check_inference_steps(num_inference_steps)
        self._check_count("num_resamples", num_resamples)
        guidance_scale = self._checked_guidance_scale(guidance_scale)
        known = self._to_network(self._check_x(x))
        mask = self._check_partly_known(mask, known)
        size = self._batch_size(None, class_labels, None, generator, known)
        known, mask = known.expand(size, *known.shape[1:]), mask.expand(size, *known.shape[1:])
        labels = self._labels(class_labels, size)
        times = [-1, *self._evenly_spaced_timesteps(count)]  # -1: the data itself
        x = self._noise(known.shape, generator)
        number, total = 0, count * num_resamples
        for t, s in zip(times[:0:-1], times[-2::-1], strict=True):  # from t down to s
            for again in range(num_resamples):
                predicted, _ = self._predict(x, t, labels, guidance_scale)
                if s < 0:
                    x = torch.where(mask, known, predicted.clamp(*self._range))
                else:
                    mean, variance = self.posterior(predicted, x, t, s)
                    x = mean + variance**0.5 * self._noise(x.shape, generator)
                    x = torch.where(mask, self.q_sample(known, s, self._noise(x.shape, generator)), x)
                step = DenoisingStep(number, total, t, x, torch.where(mask, known, predicted), labels)
                yield step
                x, number = step.latents, number + 1  # a callback may have changed them
                if again < num_resamples - 1:  # back up, from s to t
                    ratio = (self._abar_at(t) / self._abar_at(s)).item()
                    x = ratio**0.5 * x + (1 - ratio) ** 0.5 * self._noise(x.shape, generator)

    # Codes: the deterministic path between noise and data

    @torch.no_grad()
    def encode(self, x, class_labels=None, num_inference_steps: int = 100) -> Tensor:
        """The noise that deterministic sampling would turn into x: (B, *shape), about standard normal.

        DDIM backwards, by Euler steps of the probability-flow ODE (arXiv 2010.02502, equation 14); the error falls as
        1 / num_inference_steps.
        """
        count = self._check_inference_steps(num_inference_steps)
        x = self._to_network(self._check_x(x))
        labels = self._labels(class_labels, len(x))
        times = [-1, *self._evenly_spaced_timesteps(count)]
        for s, t in itertools.pairwise(times):
            _, noise = self._predict(x, max(s, 0), labels)
            x = self._ddim_step(x, noise, s, t)
        return x

    @torch.no_grad()
    def decode(
        self, latents: Tensor, class_labels=None, num_inference_steps: int = 100, output_type: str = "pil"
    ) -> Samples:
        """What deterministic sampling makes of noise (B, *shape); `encode` backwards."""
        self._check_output_type(output_type)
        count = self._check_inference_steps(num_inference_steps)
        x = self._check_latents(latents, self._shape)
        labels = self._labels(class_labels, len(x))
        times = [-1, *self._evenly_spaced_timesteps(count)]
        for t, s in zip(times[:0:-1], times[-2::-1], strict=True):
            predicted, noise = self._predict(x, t, labels)
            x = predicted if s < 0 else self._ddim_step(x, noise, t, s, predicted)
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

    def _with_images(self, step: DenoisingStep, output_type: str) -> DenoisingStep:
        shown, predicted = step.latents, step.predicted
        if output_type != "latent":
            shown, predicted = self._output(shown, output_type), self._output(predicted, output_type)
        names = ("images", "predicted_images") if self._is_image else ("samples", "predicted_samples")
        return DenoisingStep(**{**step, names[0]: shown, names[1]: predicted})

    def _run_to_end(
        self,
        steps: Iterator[DenoisingStep],
        output_type: str,
        return_dict: bool,
        callback: Callable | None,
        tensor_inputs: Sequence[str],
    ):
        """The last of `steps` as the output of a call, with a progress bar."""
        return self._last_of(
            self._with_progress(steps),
            return_dict,
            callback,
            tensor_inputs,
            lambda step: self._with_images(step, output_type),
        )

    def _with_progress(self, steps: Iterator[DenoisingStep]) -> Iterator[DenoisingStep]:
        first = next(steps)  # checks come before the progress bar
        with self.progress_bar(total=first.num_steps) as bar:
            for step in itertools.chain([first], steps):
                bar.update()
                yield step

    def _check_inference_steps(self, value: int | None) -> int:
        value = self.config.num_inference_steps if value is None else value
        return self._check_count("num_inference_steps", value, most=self.num_timesteps)

    def _check_partly_known(self, mask, x: Tensor) -> Tensor:
        """The mask of `complete`: something of each x is known, and not everything."""
        mask = self._check_mask(mask, x)
        if not mask.flatten(1).any(1).all():
            raise ValueError("mask is False everywhere: nothing of x is known; to draw from nothing, call the pipeline")
        if mask.all():
            raise ValueError("mask is True everywhere: there is nothing to fill in")
        return mask
