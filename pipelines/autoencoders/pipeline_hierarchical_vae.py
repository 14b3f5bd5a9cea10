"""Sampling, likelihood, encoding and redrawing with a hierarchical variational autoencoder.

    sample         z_L ~ N(0, I), z_l ~ p(z_l|z_{l+1}) from the top down, x from p(x|z_1)
    elbo           E_q log p(x|z_1) - sum_l KL_l <= log p(x); see `HierarchicalVAEModel.bound_terms`
    log_prob       log 1/K sum_k p(x, z^k) / q(z^k|x), z^k ~ q(z|x), all levels at once: the importance-weighted bound,
                   which rises to log p(x) with K (Burda, Grosse and Salakhutdinov, arXiv 1509.00519, equation 8)
    resample       the levels at the top stay as they are, those below are drawn anew from p

Levels are counted from 0 at the bottom, next to x, to L - 1 at the top. Images go in and out as values in [0, 1].
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils import BaseOutput
from torch import Tensor

from pipelines.checks import check_generators
from pipelines.contract import Contract, Generators
from pipelines.steps import Images


@dataclass
class HierarchicalVAEStep(BaseOutput):
    """What `stream` yields.

    Attributes:
        step, num_steps: counted from 0, the top, to L - 1, the bottom.
        level: whose code was drawn in this step, L - 1 - step.
        latents: (B, D_level), that code.
        images: in the output_type asked for: what the codes so far decode to, the levels below at their means.
        class_labels: None, since there are no classes.
    """

    step: int
    num_steps: int
    level: int
    latents: Tensor
    images: Images | None = None
    class_labels: Tensor | None = None


@dataclass
class ResampleOutput(BaseOutput):
    """What `resample` gives.

    Attributes:
        images: B times `num`, those of the first x first, in the output_type asked for.
        codes: L tensors (B num, D_l), bottom to top: the codes of the images.
    """

    images: Images
    codes: list[Tensor]


class HierarchicalVAEPipeline(Contract, DiffusionPipeline):
    """A hierarchical variational autoencoder of binary images to draw from, to measure with and to encode with.

    x is a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them, with values in [0, 1].
    Likelihoods are nats per sample, shape (B,), and of x in {0, 1} only: `(torch.rand_like(x) < x).float()` binarises
    gray levels. The model has no classes; `class_labels` stands in the calls as in every family and must be None.

    A `generator` is one `torch.Generator` for the batch or a list with one for each sample; with a list, sample i
    depends on its own seed alone.

    Args:
        hierarchical_vae: a `HierarchicalVAEModel`.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.
    """

    model_cpu_offload_seq = "hierarchical_vae"
    likelihood = "bound"

    def __init__(self, hierarchical_vae, auto_map: dict | None = None):
        super().__init__()
        self.register_modules(hierarchical_vae=hierarchical_vae)
        self._take_data_spec(hierarchical_vae.config.data_spec)

    @property
    def latent_dims(self) -> list[int]:
        """D of each level, bottom to top."""
        return list(self.hierarchical_vae.config.latent_dims)

    @property
    def num_levels(self) -> int:
        return len(self.latent_dims)

    # Sampling

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int | None = None,
        class_labels=None,
        temperature: float = 1.0,
        decoder_output: str = "mean",
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple:
        """Draw samples, from the top level down.

        Args:
            batch_size: how many; one if nothing else says it.
            class_labels: None.
            temperature: what the standard deviation of each level is multiplied by, at least 0; 1 is the model itself.
            decoder_output: "mean" gives E[x|z_1], "sample" draws x ~ p(x|z_1).
            latents: (B, D_L) codes of the top level to begin with instead of drawing them.
            generator: one, or a list with one for each sample.
            output_type: "pil", "np" (B, H, W, C) or "pt" (B, C, H, W), in [0, 1]; "latent" gives the latents.
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as (pipe, step, timestep, {"latents": z_l}) after each level;
                what it returns as "latents" takes their place, and `pipe._interrupt = True` ends the steps.
            callback_on_step_end_tensor_inputs: what it is given: ["latents"].

        Raises:
            ValueError: on an argument out of range; the message names it.
        """
        self._check_outputs(output_type, decoder_output)
        return self._last_of(
            self._steps_down(batch_size, class_labels, temperature, latents, generator),
            return_dict,
            callback_on_step_end,
            callback_on_step_end_tensor_inputs,
            lambda step: self._with_images(step, decoder_output, generator, output_type),
        )

    @torch.no_grad()
    def stream(
        self,
        batch_size: int | None = None,
        class_labels=None,
        temperature: float = 1.0,
        decoder_output: str = "mean",
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
    ) -> Iterator[HierarchicalVAEStep]:
        """The samples of `__call__` as they arise, one step a level; the last holds what `__call__` gives.

        Same arguments; before the last step the images are means, whatever `decoder_output` says.
        """
        self._check_outputs(output_type, decoder_output)
        for step in self._steps_down(batch_size, class_labels, temperature, latents, generator):
            yield self._with_images(step, decoder_output if step.level == 0 else "mean", generator, output_type)

    @torch.no_grad()
    def resample(
        self,
        x=None,
        keep: int = 1,
        num: int = 8,
        latents: Tensor | None = None,
        temperature: float = 1.0,
        decoder_output: str = "mean",
        generator: Generators = None,
        output_type: str = "pil",
    ) -> ResampleOutput:
        """Keep the top of x and draw what lies below anew: `num` images for each x.

        Args:
            x: (B, C, H, W) or what else the pipeline takes; its codes are those of `encode`.
            keep: how many levels stay as they are, counted from the top: with L, nothing is drawn but the output.
            num: images for each x.
            latents: (B, D_L) codes of the top level instead of x; `keep` must then be 1.
            temperature, decoder_output, output_type: as in `__call__`.
            generator: one, or a list with one for each of the B num images.

        Raises:
            ValueError: on an argument out of range, or if not exactly one of x and latents is given.
        """
        self._check_outputs(output_type, decoder_output)
        self._check_number("temperature", temperature)
        self._check_count("num", num)
        self._check_count("keep", keep)
        if keep > self.num_levels:
            raise ValueError(f"keep is {keep}, but this model has {self.num_levels} levels")
        if (x is None) == (latents is None):
            given = "neither is" if x is None else "both are"
            raise ValueError(f"x and latents: {given} given; resample takes one of them")
        if latents is not None:
            if keep > 1:
                raise ValueError(f"keep is {keep}, but latents are of the top level alone; it must be 1")
            kept = [self._check_code(latents, self.num_levels - 1)]
        else:
            kept = self._means(self._check_x(x))[-keep:]
        kept = [z.repeat_interleave(num, 0) for z in kept]  # bottom to top
        lowest = self.num_levels - len(kept)
        check_generators(generator, len(kept[0]))
        codes = self._codes_below(kept[0], lowest, temperature, generator) + kept[1:]
        return ResampleOutput(images=self._image(codes[0], decoder_output, generator, output_type), codes=codes)

    # Likelihood

    @torch.no_grad()
    def elbo(self, x, num_samples: int = 1, class_labels=None, generator: Generators = None) -> Tensor:
        """A lower bound on log p(x), the mean over `num_samples` paths of codes: (B,), nats."""
        reconstruction, kl = self.elbo_terms(x, num_samples, class_labels, generator)
        return reconstruction - kl.sum(1)

    @torch.no_grad()
    def elbo_terms(self, x, num_samples: int = 1, class_labels=None, generator=None) -> tuple[Tensor, Tensor]:
        """The terms of the bound: E_q log p(x|z_1), (B,), and KL_l from the bottom to the top, (B, L); nats.

        elbo is the first less the sum of the second. Below the top a KL_l may be negative, even in the mean: where
        z_{l+1} tells of z_l more than z_{l-1} does, the level above has paid for it.
        """
        x = self._check_x(x, on_support=True)
        self._check_count("num_samples", num_samples)
        self._labels(class_labels, len(x))
        reconstruction, kl = 0.0, 0.0
        for _ in range(num_samples):
            terms = self.hierarchical_vae.bound_terms(x, self._noise_of_each_level(len(x), generator))
            reconstruction, kl = reconstruction + terms[0], kl + terms[1]
        return reconstruction / num_samples, kl / num_samples

    @torch.no_grad()
    def log_prob(self, x, num_samples: int = 100, class_labels=None, generator: Generators = None) -> Tensor:
        """An importance-weighted estimate of log p(x) from `num_samples` paths of codes: (B,), nats.

        In expectation it is a lower bound that tightens as `num_samples` grows; with one sample it is the ELBO with
        every KL estimated. Quote it together with `num_samples`.
        """
        x = self._check_x(x, on_support=True)
        self._check_count("num_samples", num_samples)
        self._labels(class_labels, len(x))
        total = torch.full((len(x),), -math.inf, device=x.device)
        # paths that go through the nets at once; one where each x has its generator, whose draws else came in an order
        # that depends on the batch
        chunk = 1 if isinstance(generator, list) else max(1, 4096 // len(x))
        done = 0
        while done < num_samples:
            k = min(chunk, num_samples - done)
            many_generator = [g for g in generator for _ in range(k)] if isinstance(generator, list) else generator
            weight = self._log_weight(x.repeat_interleave(k, 0), self._noise_of_each_level(len(x) * k, many_generator))
            total = torch.logaddexp(total, torch.logsumexp(weight.view(len(x), k), 1))
            done += k
        return total - math.log(num_samples)

    def _log_weight(self, x: Tensor, noise: list[Tensor]) -> Tensor:
        """log p(x, z) - log q(z|x) at the codes that the noise leads to: (B,), nats."""
        model = self.hierarchical_vae
        codes, _, logvars = model.encode(x, noise)
        weight = model.output_log_prob(x, codes[0])
        for level, z in enumerate(codes):  # the constants of the normals cancel level by level
            weight = weight + 0.5 * (logvars[level] + noise[level].square()).sum(1)
            if level < self.num_levels - 1:
                mean, logvar = model.prior(codes[level + 1], level)
                weight = weight - 0.5 * (logvar + (z - mean).square() * torch.exp(-logvar)).sum(1)
            else:
                weight = weight - 0.5 * z.square().sum(1)
        return weight

    # The codes

    @torch.no_grad()
    def encode(
        self, x, class_labels=None, sample: bool = False, generator: Generators = None, level: int = 0
    ) -> Tensor:
        """The code of x at a level: (B, D_level).

        The mean of q given the means below, or with `sample` a draw from q along a drawn path. Level 0, the bottom, is
        what `decode` takes by default, so that decode(encode(x)) reconstructs x.
        """
        x = self._check_x(x)
        self._labels(class_labels, len(x))
        self._check_level(level)
        if not sample:
            return self._means(x)[level]
        return self.hierarchical_vae.encode(x, self._noise_of_each_level(len(x), generator))[0][level]

    @torch.no_grad()
    def decode(
        self,
        latents: Tensor,
        class_labels=None,
        decoder_output: str = "mean",
        generator: Generators = None,
        output_type: str = "pil",
        level: int = 0,
    ) -> ImagePipelineOutput:
        """Images from codes (B, D_level) of a level; the levels below it are at their means."""
        self._check_outputs(output_type, decoder_output)
        self._check_level(level)
        latents = self._check_code(latents, level)
        self._labels(class_labels, len(latents))
        z = self._codes_below(latents, level)[0]
        return ImagePipelineOutput(images=self._image(z, decoder_output, generator, output_type))

    def reconstruct(self, x, class_labels=None, sample: bool = False, level: int = 0, **decoding):
        """decode(encode(x)) by way of a level; `sample` draws the codes from q instead of taking its means."""
        z = self.encode(x, class_labels, sample=sample, generator=decoding.get("generator"), level=level)
        return self.decode(z, class_labels, level=level, **decoding)

    def interpolate(self, a, b, steps: int = 8, class_labels=None, level: int = 0, **decoding):
        """`steps` decoded points on the straight line between the codes of a and b (one each), ends included."""
        labels = self._check_path(steps, class_labels)
        ends = [self.encode(end, class_labels, level=level) for end in (a, b)]
        return self.decode(self._path(*ends, steps), labels, level=level, **decoding)

    @torch.no_grad()
    def active_units(self, x, class_labels=None, threshold: float = 0.01, level: int = 0) -> Tensor:
        """Which units of a level the posterior uses: (D_level,) bool, where Var_x(E[z_l|x]) exceeds the threshold.

        Section 5.2 of arXiv 1509.00519, with the mean given the means below in place of E[z_l|x].
        """
        return self.encode(x, class_labels, level=level).var(0, correction=0) > threshold

    # Up and down the levels

    def _steps_down(self, batch_size, class_labels, temperature, latents, generator) -> Iterator[HierarchicalVAEStep]:
        """The codes of samples, from the top to the bottom, without images."""
        self._check_number("temperature", temperature)
        top = self.num_levels - 1
        if latents is not None:
            latents = self._check_code(latents, top)
        batch_size = self._batch_size(batch_size, class_labels, latents, generator)
        self._labels(class_labels, batch_size)
        if latents is None:
            latents = temperature * self._noise((batch_size, self.latent_dims[top]), generator)
        for level in reversed(range(self.num_levels)):
            if level < top:
                latents = self._draw_below(latents, level, temperature, generator)
            step = HierarchicalVAEStep(step=top - level, num_steps=self.num_levels, level=level, latents=latents)
            yield step
            latents = step.latents  # a callback may have changed them

    def _with_images(self, step: HierarchicalVAEStep, decoder_output: str, generator: Generators, output_type: str):
        """The step with the images that its code decodes to, by way of the means below."""
        if output_type == "latent":
            return HierarchicalVAEStep(**{**step, "images": step.latents})
        z = self._codes_below(step.latents, step.level)[0]
        return HierarchicalVAEStep(**{**step, "images": self._image(z, decoder_output, generator, output_type)})

    def _draw_below(self, above: Tensor, level: int, temperature: float, generator: Generators) -> Tensor:
        """z_l from p(z_l|z_{l+1}); temperature 0 takes the mean and uses up no noise."""
        mean, logvar = self.hierarchical_vae.prior(above, level)
        if temperature == 0:
            return mean
        return mean + temperature * torch.exp(0.5 * logvar) * self._noise(mean.shape, generator)

    def _codes_below(
        self, z: Tensor, level: int, temperature: float = 0.0, generator: Generators = None
    ) -> list[Tensor]:
        """A code of `level` and those drawn below it, bottom to top: level + 1 tensors."""
        codes = [z]
        for lower in reversed(range(level)):
            codes.insert(0, self._draw_below(codes[0], lower, temperature, generator))
        return codes

    def _means(self, x: Tensor) -> list[Tensor]:
        noise = [torch.zeros(len(x), dim, device=self._execution_device) for dim in self.latent_dims]
        return self.hierarchical_vae.encode(x, noise)[0]

    def _noise_of_each_level(self, batch_size: int, generator: Generators) -> list[Tensor]:
        return [self._noise((batch_size, dim), generator) for dim in self.latent_dims]

    def _image(self, z: Tensor, decoder_output: str, generator: Generators, output_type: str) -> Images:
        """p(x|z_1) -> its mean or a draw from it, in the output_type."""
        x = torch.sigmoid(self.hierarchical_vae.decode(z))
        if decoder_output == "sample":
            x = (self._noise(x.shape, generator, uniform=True) < x).float()
        return self._as_output_type(x, output_type)

    # Checks: each error names the argument, its value and what would be right

    def _check_outputs(self, output_type: str, decoder_output: str) -> None:
        self._check_output_type(output_type, may_be_latent=True)
        self._check_choice("decoder_output", decoder_output, "mean", "sample")

    def _check_level(self, level: int) -> None:
        self._check_count("level", level, least=0)
        if level >= self.num_levels:
            raise ValueError(f"level is {level}; levels go from 0, the bottom, to {self.num_levels - 1}")

    def _check_code(self, latents: Tensor, level: int) -> Tensor:
        return self._check_latents(latents, (self.latent_dims[level],), meaning=f", a code of level {level}")
