"""Sampling, judging and finding codes with a generative adversarial network.

    sample         z ~ N(0, temperature^2 I), x = G(z, c)
    discriminate   sigmoid(D(x, c)), the confidence that x is real, or a critic's value as it is
    encode         the z whose G(z, c) is nearest to x, by optimisation: there is no encoder

The likelihood is implicit. Where z has fewer dimensions than x, G(z) fills a surface on which alone all x lie: there is no
density. Where it has as many or more there is one, but it is an integral over all z that give x, which nothing computes. Images go in and out as values in [0, 1]; see `GANPipeline` for the shapes.
"""

import math
import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from torch import Tensor

Generators = torch.Generator | list[torch.Generator] | None
ENCODING_STEPS, ENCODING_RATE, STARTS = 300, 0.05, 8


@dataclass
class VectorPipelineOutput(BaseOutput):
    """Samples of a vector family: (B, D), a tensor, or an array with output_type="np"."""

    samples: Tensor | np.ndarray


@dataclass
class OptimisedCode(BaseOutput):
    """What `encode` found.

    Attributes:
        latents: (B, D).
        residual: (B,), the mean squared error of G(z, c) against x in [0, 1]: how far the generator is from x at best.
    """

    latents: Tensor
    residual: Tensor


@dataclass
class GANStep(BaseOutput):
    """What `stream` yields.

    Attributes:
        step, num_steps: counted from 0; a one-shot family has one step.
        latents: (B, D), the codes that became samples.
        class_labels: (B,) int64, or None for an unconditional model.
        images: (or samples, of a vector family) in the output_type asked for.
    """

    step: int
    num_steps: int
    latents: Tensor
    class_labels: Tensor | None = None
    images: list[PIL.Image.Image] | np.ndarray | Tensor | None = None
    samples: np.ndarray | Tensor | None = None


class GANPipeline(DiffusionPipeline):
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
        self.data_spec = generator.config.data_spec
        channels = self.data_spec["shape"][0]
        # vae_scale_factor=1: the default of 8 would resize 28x28 to 24x24
        self.image_processor = VaeImageProcessor(
            vae_scale_factor=1,
            do_resize=False,
            do_normalize=False,
            do_convert_grayscale=channels == 1,
            do_convert_rgb=channels == 3,
        )
        generator.eval()  # batch norm draws with the statistics of the training
        discriminator.eval()

    # Sampling

    def __call__(
        self,
        batch_size: int | None = None,
        class_labels: int | list[int] | Tensor | None = None,
        temperature: float = 1.0,
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
    ) -> ImagePipelineOutput | VectorPipelineOutput | tuple:
        """Draw samples.

        Args:
            batch_size: how many; one if nothing else says it.
            class_labels: an int for all samples, or one int each (which sets the batch size). A conditional model
                draws classes uniformly where none are given.
            temperature: standard deviation of z, at least 0; 1 is the model itself.
            latents: (B, D) codes instead of drawing z.
            generator: one, or a list with one for each sample.
            output_type: "pil", "np" (B, H, W, C) or "pt" (B, C, H, W), in [0, 1].
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as (pipe, step, timestep, {"latents": z}) after each step.

        Raises:
            ValueError: on an argument out of range; the message names it.
        """
        for step in self.stream(batch_size, class_labels, temperature, latents, generator, output_type):
            if callback_on_step_end is not None:
                callback_on_step_end(self, step.step, step.step, {"latents": step.latents})
        result = step.images if step.images is not None else step.samples
        return self._wrap(result) if return_dict else (result,)

    @torch.no_grad()
    def stream(
        self,
        batch_size: int | None = None,
        class_labels: int | list[int] | Tensor | None = None,
        temperature: float = 1.0,
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
    ) -> Iterator[GANStep]:
        """The samples of `__call__`, step by step: there is one step. Same arguments."""
        self._check_output(output_type)
        if isinstance(temperature, bool) or not (isinstance(temperature, numbers.Real) and 0 <= temperature < math.inf):
            raise ValueError(f"temperature is {temperature!r}; it must be a finite number of at least 0")
        if latents is not None:
            latents = self._check_latents(latents)
        batch_size = self._batch_size(batch_size, class_labels, latents, generator)
        labels = self._labels(class_labels, batch_size, generator)
        if latents is None:
            latents = temperature * self._noise((batch_size, self.latent_dim), generator)
        x = self._output(self.generator(latents, labels, return_dict=False)[0], output_type)
        key = "images" if self._is_image else "samples"
        yield GANStep(step=0, num_steps=1, latents=latents, class_labels=labels, **{key: x})

    def log_prob(self, x, num_samples: int = 1, class_labels=None, generator: Generators = None) -> Tensor:
        """There is none.

        Raises:
            NotImplementedError: with the reason.
        """
        if self.latent_dim < self._size:
            reason = f"G(z) of {self.latent_dim} numbers fills a surface in {self._size} dimensions and has no density"
        else:
            reason = (
                f"p(x) is an integral over all z of {self.latent_dim} numbers that give x, which nothing here computes"
            )
        raise NotImplementedError(f"log_prob: a GAN only draws; {reason}; discriminate(x) says how real x looks")

    def elbo(self, x, num_samples: int = 1, class_labels=None, generator: Generators = None) -> Tensor:
        """There is none, for the same reason.

        Raises:
            NotImplementedError: with the reason.
        """
        raise NotImplementedError("elbo: a GAN is not trained by a bound on log p(x), and has none; see log_prob")

    # Judging

    @torch.no_grad()
    def discriminate(self, x, class_labels=None) -> Tensor:
        """How real x looks: (B,), a probability in [0, 1], or a critic's value, of which only differences mean anything.

        Raises:
            ValueError: x does not fit the model, or a conditional model is not told its class.
        """
        x = self._check_x(x)
        labels = self._labels(class_labels, len(x), None, draw=False)
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
        labels = self._labels(class_labels, len(target), generator, draw=False)
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
        self._check_count("steps", steps, least=2)
        if isinstance(class_labels, list | tuple):
            raise ValueError("class_labels is a list; interpolate keeps one class, so it must be an int")
        ends = [self._check_latents(end, name) for name, end in (("a", a), ("b", b))]
        if len(ends[0]) != 1 or len(ends[1]) != 1:
            raise ValueError(f"a and b hold {len(ends[0])} and {len(ends[1])} codes; interpolate takes one each")
        first, last = ends
        angle = torch.acos(F.cosine_similarity(first, last).clamp(-1, 1)).clamp(min=1e-6).item()
        if math.pi - angle < 1e-3:
            raise ValueError("a and b point in opposite directions; there is no one shortest way between them")
        t = torch.linspace(0, 1, steps, device=first.device)[:, None]
        z = (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * last) / math.sin(angle)
        return self.decode(z, None if class_labels is None else [int(class_labels)] * steps, output_type=output_type)

    # What the data spec decides

    @property
    def latent_dim(self) -> int:
        """D of z."""
        return self.generator.config.latent_dim

    @property
    def _size(self) -> int:
        return math.prod(self.data_spec["shape"])

    @property
    def _is_image(self) -> bool:
        return self.data_spec["kind"] == "image"

    @property
    def _num_classes(self) -> int:
        return self.data_spec["num_classes"] if self.generator.config.conditional else 0

    def _wrap(self, result):
        return ImagePipelineOutput(images=result) if self._is_image else VectorPipelineOutput(samples=result)

    def _noise(self, shape, generator: Generators, uniform: bool = False) -> Tensor:
        """float32 noise on the pipeline's device; row i from generator i where a list is given."""
        make = torch.rand if uniform else torch.randn
        if not isinstance(generator, list):
            device = generator.device if generator is not None else self.device
            return make(tuple(shape), generator=generator, device=device).to(self.device)
        if len(generator) != shape[0]:
            raise ValueError(f"generator holds {len(generator)} generators for {shape[0]} samples; they must agree")
        rows = [make(tuple(shape[1:]), generator=g, device=g.device) for g in generator]
        return torch.stack(rows).to(self.device)

    def _to_network(self, x: Tensor) -> Tensor:
        """[0, 1] -> the range that the networks see."""
        return 2 * x - 1 if self._is_image else x

    def _output(self, x: Tensor, output_type: str):
        """What the generator made, in the output_type."""
        if not self._is_image:
            return x.cpu().numpy() if output_type == "np" else x
        return self.image_processor.postprocess(((x + 1) / 2).clamp(0, 1), output_type=output_type)

    # Checks: each error names the argument, its value and what would be right

    @staticmethod
    def _check_output(output_type: str) -> None:
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type is {output_type!r}; it must be 'pil', 'np' or 'pt'")

    @staticmethod
    def _check_count(name: str, value: int, least: int = 1) -> None:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(f"{name} is {value!r}; it must be an integer of at least {least}")

    def _check_latents(self, latents: Tensor, name: str = "latents") -> Tensor:
        if (
            not isinstance(latents, Tensor)
            or latents.ndim != 2
            or latents.shape[1] != self.latent_dim
            or not len(latents)
        ):
            got = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
            raise ValueError(f"{name} is {got}; it must be a tensor of shape (B, {self.latent_dim})")
        if not latents.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinite values; all must be finite")
        return latents.to(self.device, torch.float32)

    def _batch_size(self, batch_size, class_labels, latents, generator) -> int:
        """The one batch size that all arguments agree on."""
        said = {}
        if batch_size is not None:
            self._check_count("batch_size", batch_size)
            said["batch_size"] = batch_size
        if class_labels is not None and np.ndim(class_labels):
            said["class_labels"] = len(class_labels)
        if latents is not None:
            said["latents"] = len(latents)
        if isinstance(generator, list):
            said["generator"] = len(generator)
        if len(set(said.values())) > 1:
            raise ValueError(", ".join(f"{k} gives {v}" for k, v in said.items()) + " samples; they must agree")
        size = next(iter(said.values()), 1)
        if size < 1:
            raise ValueError(f"{next(iter(said))} is empty; it must hold at least one sample")
        return size

    def _labels(self, class_labels, batch_size: int, generator: Generators, draw: bool = True) -> Tensor | None:
        """class_labels as (B,) int64; drawn uniformly where a conditional model is given none."""
        if class_labels is None:
            if not self._num_classes:
                return None
            if not draw:
                raise ValueError(f"class_labels is None; this model needs the class of x, 0 to {self._num_classes - 1}")
            u = self._noise((batch_size, 1), generator, uniform=True)[:, 0]
            return (u * self._num_classes).long().clamp(max=self._num_classes - 1)
        if not self._num_classes:
            raise ValueError(f"class_labels is {class_labels!r}, but this model was trained without classes")
        labels = torch.as_tensor(class_labels, device=self.device)
        if labels.is_floating_point() or labels.dtype == torch.bool or labels.ndim > 1:
            raise ValueError(f"class_labels is {class_labels!r}; it must be an int or a list of ints")
        if labels.ndim and len(labels) != batch_size:
            raise ValueError(f"class_labels holds {len(labels)} classes for {batch_size} samples; they must agree")
        outside = labels[(labels < 0) | (labels >= self._num_classes)]
        if len(outside):
            raise ValueError(f"class_labels holds {outside[0].item()}; classes go from 0 to {self._num_classes - 1}")
        return labels.long().expand(batch_size)

    def _check_x(self, x) -> Tensor:
        """x as (B, *shape) float32 on the device, or a ValueError."""
        shape, support = tuple(self.data_spec["shape"]), self.data_spec["support"]
        if isinstance(x, PIL.Image.Image):
            x = [x]
        if self._is_image and isinstance(x, list) and x and isinstance(x[0], PIL.Image.Image):
            sizes = sorted({image.size for image in x})
            if len(sizes) > 1 or sizes[0] != (shape[2], shape[1]):
                raise ValueError(f"x holds images of {sizes} (width, height); this model takes {(shape[2], shape[1])}")
            x = self.image_processor.preprocess(x)
        elif isinstance(x, np.ndarray):
            if self._is_image and x.ndim == 4:
                x = x.transpose(0, 3, 1, 2)
            x = torch.from_numpy(np.ascontiguousarray(x))
        if not isinstance(x, Tensor):
            raise ValueError(f"x is a {type(x).__name__}; it must be a tensor, an array or PIL images")
        if not x.is_floating_point():
            raise ValueError(f"x has dtype {x.dtype}; it must be floating point, for 8-bit pixels x / 255")
        if tuple(x.shape[1:]) != shape or not len(x):
            wanted = ", ".join(map(str, shape))
            raise ValueError(f"x has shape {tuple(x.shape)}; this model takes (B, {wanted}) with B at least 1")
        x = x.to(self.device, torch.float32)
        if not x.isfinite().all():
            raise ValueError("x holds NaN or infinite values; all must be finite")
        if support == "real":
            return x
        low, high = x.min().item(), x.max().item()
        if low < 0 or high > 1:
            raise ValueError(f"x has values from {low:.4g} to {high:.4g}; they must lie in [0, 1]")
        return x
