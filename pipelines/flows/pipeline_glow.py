"""Sampling, likelihood and codes with Glow, a flow on images.

    elbo        E log p(y) - log q(y|x) of places y within the levels of x: a lower bound on log p(x)
    log_prob    the importance-weighted bound, tighter with more draws of y
    sample      z ~ N(0, T^2 I), x = f^-1(z)
    resample    the same image with the codes of one resolution drawn anew

Images go in and out as values in [0, 1].
"""

import math

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from pipelines.contract import ClassLabels, Generators
from pipelines.flows.drawing import Invertible
from pipelines.steps import Images, Samples


class GlowPipeline(Invertible, DiffusionPipeline):
    """A flow on images: it draws, bounds log p(x) closely, and maps each image to its code and back.

    x is a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them, with values in [0, 1] on the 256
    levels k / 255. Likelihoods are nats per sample, (B,); -elbo / (d ln 2) is bits/dim. A `generator` is one
    `torch.Generator` for the batch or a list with one for each sample; with a list, sample i depends on its own seed
    alone.

    Args:
        flow: a `GlowModel`.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.
    """

    likelihood = "bound"
    model_cpu_offload_seq = ""
    _exclude_from_cpu_offload = ["flow"]  # noqa: RUF012 - small, and read by other methods than forward

    @property
    def convention(self) -> str:
        """What the likelihood counts."""
        return f"bound by {self.flow.config.dequantization} dequantisation of the 256 levels"

    @property
    def num_levels(self) -> int:
        """How many resolutions there are, each with codes of its own."""
        return len(self.flow.code_shapes)

    # Likelihood

    def _draws(self, x: Tensor, class_labels: ClassLabels, num_samples: int, generator: Generators) -> Tensor:
        """log p(y) - log q(y|x) of places within the levels: (num_samples, B)."""
        uniform = self.flow.dequantizer is None
        places = (self._noise(x.shape, generator, uniform=uniform) for _ in range(num_samples))
        return torch.stack([self._log_prob_of(x, class_labels, place) for place in places])

    @torch.no_grad()
    def elbo(self, x, num_samples: int = 1, class_labels: ClassLabels = None, generator: Generators = None) -> Tensor:
        """A lower bound on log p(x), or with `class_labels` on log p(x|c): (B,), nats.

        It is a mean over `num_samples` draws of the place within the levels: more make it steadier, not higher.
        """
        self._check_count("num_samples", num_samples)
        return self._draws(self._check_x(x, on_support=True), class_labels, num_samples, generator).mean(0)

    @torch.no_grad()
    def log_prob(
        self, x, num_samples: int = 100, class_labels: ClassLabels = None, generator: Generators = None
    ) -> Tensor:
        """The importance-weighted bound on log p(x), or with `class_labels` on log p(x|c): (B,), nats.

        log (1/n) sum_i p(y_i) / q(y_i|x): at least `elbo` in expectation, and tighter with more `num_samples`. Quote it
        together with that number.
        """
        self._check_count("num_samples", num_samples)
        draws = self._draws(self._check_x(x, on_support=True), class_labels, num_samples, generator)
        return draws.logsumexp(0) - math.log(num_samples)

    # Codes

    def _codes_of(self, x: Tensor, labels: Tensor | None) -> Tensor:
        place, _ = self.flow.to_line(self._mid_level(x))
        return self.flow.codes(place, labels)[0]

    def _from_codes(self, z: Tensor, labels: Tensor | None, output_type: str) -> Images:
        return self._as_output_type(self.flow.decode(z, labels), output_type)

    @torch.no_grad()
    def resample(
        self,
        z: Tensor,
        level: int,
        class_labels: ClassLabels = None,
        temperature: float = 1.0,
        generator: Generators = None,
        output_type: str = "pil",
    ) -> Samples:
        """Images of codes z (B, D) whose part of one level is drawn anew.

        Args:
            level: from 0, the finest resolution, to `num_levels` - 1, the coarsest.
            temperature: the standard deviation of what is drawn.

        Raises:
            ValueError: there is no such level, or an argument is out of range.
        """
        self._check_count("level", level, least=0, most=self.num_levels - 1)
        self._check_number("temperature", temperature)
        z = self._check_latents(z, (self.latent_dim,), "z").clone()
        sizes = [math.prod(shape) for shape in self.flow.code_shapes]
        begin = sum(sizes[:level])
        z[:, begin : begin + sizes[level]] = temperature * self._noise((len(z), sizes[level]), generator)
        return self.decode(z, class_labels, output_type)
