"""Sampling, judging and finding codes with a generative adversarial network.

    sample         z ~ N(0, temperature^2 I), x = G(z, c)
    discriminate   sigmoid(D(x, c)), the confidence that x is real, or a critic's value as it is
    encode         the z whose G(z, c) is nearest to x, by optimisation: there is no encoder

The likelihood is implicit. Where z has fewer dimensions than x, G(z) fills a surface on which alone all x lie: there is no
density. Where it has as many or more there is one, but it is an integral over all z that give x, which nothing computes. Images go in and out as values in [0, 1]; see `GANPipeline` for the shapes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from pipelines.contract import ClassLabels, Contract, Generators, NoDensity
from pipelines.steps import Images, Samples, SampleStep

ENCODING_STEPS, ENCODING_RATE, STARTS = 300, 0.05, 8


@dataclass
class OptimisedCode(BaseOutput):
    """What `encode` found.

    Attributes:
        latents: (B, D).
        residual: (B,), the mean squared error of G(z, c) against x in [0, 1]: how far the generator is from x at best.
    """

    latents: Tensor
    residual: Tensor


class GANPipeline(Contract, NoDensity, DiffusionPipeline):
    """A generative adversarial network to draw from, to judge with and to move about in.

    x is a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them, with values in [0, 1]; a vector
    model takes (B, D). Codes are (B, latent_dim).

    A `generator` is one `torch.Generator` for the batch or a list with one for each sample; with a list, sample i
    depends on its own seed alone.

    Args:
        generator: a `GeneratorModel`.
        discriminator: a `DiscriminatorModel`.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.
    """

    model_cpu_offload_seq = "generator->discriminator"
    likelihood = "implicit"

    def __init__(self, generator, discriminator, auto_map: dict | None = None):
        super().__init__()
        self.register_modules(generator=generator, discriminator=discriminator)
        self._take_data_spec(generator.config.data_spec)
        generator.eval()  # batch norm draws with the statistics of the training
        discriminator.eval()

    # Sampling

    def __call__(
        self,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        temperature: float = 1.0,
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
            temperature: standard deviation of z, at least 0; 1 is the model itself.
            latents: (B, D) codes instead of drawing z.
            generator: one, or a list with one for each sample.
            output_type: "pil", "np" (B, H, W, C) or "pt" (B, C, H, W), in [0, 1]; "latent" gives the latents.
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as (pipe, step, timestep, {"latents": z}) after each step;
                what it returns as "latents" takes their place, and `pipe._interrupt = True` ends the steps.
            callback_on_step_end_tensor_inputs: what it is given: ["latents"].

        Raises:
            ValueError: on an argument out of range; the message names it.
        """
        steps = self.stream(batch_size, class_labels, temperature, latents, generator, output_type)
        return self._last_of(steps, return_dict, callback_on_step_end, callback_on_step_end_tensor_inputs)

    @torch.no_grad()
    def stream(
        self,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        temperature: float = 1.0,
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
    ) -> Iterator[SampleStep]:
        """The samples of `__call__`, step by step: there is one step. Same arguments."""
        self._check_output_type(output_type, may_be_latent=True)
        self._check_number("temperature", temperature)
        if latents is not None:
            latents = self._check_latents(latents, (self.latent_dim,))
        batch_size = self._batch_size(batch_size, class_labels, latents, generator)
        labels = self._labels_or_draw(class_labels, batch_size, generator)
        if latents is None:
            latents = temperature * self._noise((batch_size, self.latent_dim), generator)

        def decode(z: Tensor) -> Images:
            return self._output(self.generator(z, labels, return_dict=False)[0], output_type)

        yield self._one_step(latents, labels, output_type, decode)

    @property
    def refusals(self) -> dict[str, str]:
        """The calls that a GAN does not answer, and why."""
        if self.latent_dim < self._size:
            reason = f"G(z) of {self.latent_dim} numbers fills a surface in {self._size} dimensions and has no density"
        else:
            reason = (
                f"p(x) is an integral over all z of {self.latent_dim} numbers that give x, which nothing here computes"
            )
        return {
            "log_prob": f"a GAN only draws; {reason}; discriminate(x) says how real x looks",
            "elbo": "a GAN is not trained by a bound on log p(x), and has none; see log_prob",
        }

    # Judging

    @torch.no_grad()
    def discriminate(self, x, class_labels=None) -> Tensor:
        """How real x looks: (B,), a probability in [0, 1], or a critic's value, of which only differences mean anything.

        Raises:
            ValueError: x does not fit the model, or a conditional model is not told its class.
        """
        x = self._check_x(x)
        labels = self._labels_needed(class_labels, len(x), "this model")
        value = self.discriminator(self._to_network(x), labels, return_dict=False)[0]
        return value if self.discriminator.config.output == "critic" else torch.sigmoid(value)

    # The latent space

    def encode(
        self, x, class_labels=None, num_steps: int = ENCODING_STEPS, generator: Generators = None
    ) -> OptimisedCode:
        """The z whose G(z, c) is nearest to x in squared error, found by optimisation from several random starts.

        There is no encoder: this is `num_steps` of Adam on z, kept on the sphere near which z ~ N(0, I) lies, and what is
        found may be a local optimum. `residual` says how far off it stays.

        Args:
            x: see the class; B of them.
            class_labels: an int for all, or one int each; a conditional model needs them.
            num_steps: of Adam, at least 1.
            generator: of the starting points; one, or a list with one for each x.

        Raises:
            ValueError: on an argument that does not fit; the message names it.
        """
        self._check_count("num_steps", num_steps)
        target = self._to_network(self._check_x(x))
        labels = self._labels_needed(class_labels, len(target), "this model")
        radius = math.sqrt(self.latent_dim)
        noise = self._noise((len(target), STARTS, self.latent_dim), generator).flatten(0, 1)
        many = target.repeat_interleave(STARTS, 0)
        many_labels = None if labels is None else labels.repeat_interleave(STARTS, 0)
        with torch.enable_grad():
            z = noise.clone().requires_grad_(True)
            optimizer = torch.optim.Adam([z], lr=ENCODING_RATE)
            for _ in range(num_steps):
                on_sphere = radius * F.normalize(z, dim=1)
                drawn = self.generator(on_sphere, many_labels, return_dict=False)[0]
                loss = (drawn - many).square().flatten(1).mean(1)
                # of z alone: the generator may be in use elsewhere at the same time
                (z.grad,) = torch.autograd.grad(loss.sum(), z)
                optimizer.step()
        with torch.no_grad():
            found = radius * F.normalize(z.detach(), dim=1)
            error = (self.generator(found, many_labels, return_dict=False)[0] - many).square().flatten(1).mean(1)
            error = error.view(len(target), STARTS)
            best = error.argmin(1)
            found = found.view(len(target), STARTS, -1)[torch.arange(len(target)), best]
        scale = 4 if self._is_image else 1  # [-1, 1] is twice as wide as [0, 1]
        return OptimisedCode(latents=found, residual=error.min(1).values / scale)

    def decode(self, latents: Tensor, class_labels=None, generator: Generators = None, output_type: str = "pil"):
        """Images (or vectors) from codes (B, D); arguments and errors as of `__call__`."""
        return self(class_labels=class_labels, latents=latents, generator=generator, output_type=output_type)

    def reconstruct(self, x, class_labels=None, generator: Generators = None, output_type: str = "pil"):
        """The images (or vectors) nearest to x that the generator draws; arguments and errors as of `encode`."""
        found = self.encode(x, class_labels, generator=generator)
        return self.decode(found.latents, class_labels, output_type=output_type)

    def interpolate(self, a: Tensor, b: Tensor, steps: int = 8, class_labels=None, output_type: str = "pil"):
        """`steps` images on the great circle between the codes a and b, (1, D) each, ends included.

        On the straight line between two draws of N(0, I) codes grow shorter than the generator has ever seen.

        Raises:
            ValueError: a or b is no single code, they point in opposite directions (no way between them is the
                shortest), or steps is below 2.
        """
        labels = self._check_path(steps, class_labels)
        ends = [self._check_latents(end, (self.latent_dim,), name) for name, end in (("a", a), ("b", b))]
        return self.decode(self._path(*ends, steps, on_sphere=True), labels, output_type=output_type)

    @property
    def latent_dim(self) -> int:
        """D of z."""
        return self.generator.config.latent_dim
