"""Sampling, likelihood and encoding with a (conditional) variational autoencoder.

    sample         z ~ N(0, temperature^2 I), x from p(x|z, c)
    elbo           E_q [log p(x|z) + log p(z) - log q(z|x)] <= log p(x), with the KL in closed form
    log_prob       log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x): the importance-weighted bound, which
                   rises to log p(x) with K (Burda, Grosse and Salakhutdinov, arXiv 1509.00519, equation 8)

Images go in and out as values in [0, 1]; see `VAEPipeline` for the shapes.
"""

import math
import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from torch import Tensor

Generators = torch.Generator | list[torch.Generator] | None


@dataclass
class VectorPipelineOutput(BaseOutput):
    """Samples of a vector family: (B, D), a tensor, or an array with output_type="np"."""

    samples: Tensor | np.ndarray


@dataclass
class VAEStep(BaseOutput):
    """What `stream` yields.

    Attributes:
        step, num_steps: counted from 0; a one-shot family has one step.
        images: (or samples, of a vector family) in the output_type asked for.
        latents: (B, D), the codes that were decoded.
        class_labels: (B,) int64, or None for an unconditional model.
    """

    step: int
    num_steps: int
    latents: Tensor
    class_labels: Tensor | None = None
    images: list[PIL.Image.Image] | np.ndarray | Tensor | None = None
    samples: np.ndarray | Tensor | None = None


class VAEPipeline(DiffusionPipeline):
    """A variational autoencoder to draw from, to measure with and to encode with.

    x is a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them, with values in [0, 1]; a vector
    model takes (B, D). Likelihoods are nats per sample, shape (B,); of 8-bit data -log_prob / (d ln 2) is bits/dim.
    A binary model measures only x in {0, 1}: `(torch.rand_like(x) < x).float()` binarises gray levels. An 8-bit model
    measures only x on the 256 levels k / 255.

    A `generator` is one `torch.Generator` for the batch or a list with one for each sample; with a list, sample i
    depends on its own seed alone.

    Args:
        vae: a `VAEModel`.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.
    """

    model_cpu_offload_seq = "vae"
    likelihood = "bound"

    def __init__(self, vae, auto_map: dict | None = None):
        super().__init__()
        self.register_modules(vae=vae)
        self.data_spec = vae.config.data_spec
        channels = self.data_spec["shape"][0]
        # vae_scale_factor=1: the default of 8 would resize 28x28 to 24x24
        self.image_processor = VaeImageProcessor(
            vae_scale_factor=1,
            do_resize=False,
            do_normalize=False,
            do_convert_grayscale=channels == 1,
            do_convert_rgb=channels == 3,
        )

    # Sampling

    def __call__(
        self,
        batch_size: int | None = None,
        class_labels: int | list[int] | Tensor | None = None,
        temperature: float = 1.0,
        decoder_output: str = "mean",
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
            decoder_output: "mean" gives E[x|z], "sample" draws x ~ p(x|z).
            latents: (B, D) codes to decode instead of drawing z.
            generator: one, or a list with one for each sample.
            output_type: "pil", "np" (B, H, W, C) or "pt" (B, C, H, W), in [0, 1].
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as (pipe, step, timestep, {"latents": z}) after each step.

        Raises:
            ValueError: on an argument out of range; the message names it.
        """
        steps = self.stream(batch_size, class_labels, temperature, decoder_output, latents, generator, output_type)
        for step in steps:
            if callback_on_step_end is not None:
                callback_on_step_end(self, step.step, step.step, {"latents": step.latents})
        result = step.images if step.images is not None else step.samples
        if not return_dict:
            return (result,)
        return self._wrap(result)

    @torch.no_grad()
    def stream(
        self,
        batch_size: int | None = None,
        class_labels: int | list[int] | Tensor | None = None,
        temperature: float = 1.0,
        decoder_output: str = "mean",
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
    ) -> Iterator[VAEStep]:
        """The samples of `__call__`, step by step: a VAE has one step. Same arguments."""
        self._check_output(output_type, decoder_output)
        if isinstance(temperature, bool) or not (isinstance(temperature, numbers.Real) and 0 <= temperature < math.inf):
            raise ValueError(f"temperature is {temperature!r}; it must be a finite number of at least 0")
        if latents is not None:
            latents = self._check_latents(latents)
        batch_size = self._batch_size(batch_size, class_labels, latents, generator)
        labels = self._labels(class_labels, batch_size, generator)
        if latents is None:
            latents = temperature * self._noise((batch_size, self.vae.config.latent_dim), generator)
        x = self._decode(latents, labels, decoder_output, generator, output_type)
        key = "images" if self._is_image else "samples"
        yield VAEStep(step=0, num_steps=1, latents=latents, class_labels=labels, **{key: x})

    # Likelihood

    @torch.no_grad()
    def elbo(self, x, num_samples: int = 1, class_labels=None, generator: Generators = None) -> Tensor:
        """A lower bound on log p(x), or on log p(x|c): (B,), nats.

        The mean over `num_samples` draws of z; the KL is in closed form. A conditional model without `class_labels`
        bounds the marginal over equally likely classes, with the class as one more latent: sum_c r_c (elbo(x|c) -
        log r_c - log C), where r is the softmax of the classes' bounds, estimated from draws of its own.
        """
        reconstruction, kl = self.elbo_terms(x, num_samples, class_labels, generator)
        return reconstruction - kl

    @torch.no_grad()
    def elbo_terms(self, x, num_samples: int = 1, class_labels=None, generator=None) -> tuple[Tensor, Tensor]:
        """The two terms of the bound, E_q log p(x|z) and KL(q(z|x) || p(z)): (B,) each, nats; elbo is their difference.

        A conditional model without `class_labels` averages both over r(c|x), see `elbo`; KL(r || uniform) is part of
        the second.
        """

        def terms(x, labels, count):
            total = 0.0
            for _ in range(count):
                seen = self._to_network(x, generator)
                mean, logvar = self.vae.encode(seen, labels)
                z = mean + torch.exp(0.5 * logvar) * self._noise(mean.shape, generator)
                kl = self._kl(mean, logvar)
                total = total + torch.stack([self.vae.output_log_prob(seen, z, labels), kl])
            return total / count

        x = self._check_x(x, on_support=True)
        self._check_count("num_samples", num_samples)
        if self._num_classes and class_labels is None:
            classes = self._each_class(len(x))
            # r and what it weights come from different draws: from the same ones the bound would be too high
            guess = torch.stack([terms(x, labels, 1) for labels in classes])  # (C, 2, B)
            log_r = torch.log_softmax(guess[:, 0] - guess[:, 1], 0)
            by_class = torch.stack([terms(x, labels, num_samples) for labels in classes])
            reconstruction, kl = (log_r.exp()[:, None] * by_class).sum(0)
            return reconstruction, kl + (log_r.exp() * log_r).sum(0) + math.log(self._num_classes)
        reconstruction, kl = terms(x, self._labels(class_labels, len(x), generator), num_samples)
        return reconstruction, kl

    @torch.no_grad()
    def log_prob(self, x, num_samples: int = 100, class_labels=None, generator: Generators = None) -> Tensor:
        """An importance-weighted estimate of log p(x), or of log p(x|c), from `num_samples` draws: (B,), nats.

        In expectation it is a lower bound that tightens as `num_samples` grows; with one sample it is the ELBO with
        the KL estimated. Quote it together with `num_samples`. Without `class_labels` a conditional model gives the
        marginal over equally likely classes.
        """

        def estimate(x, labels):
            total = torch.full((len(x),), -math.inf, device=x.device)
            chunk = max(1, 4096 // len(x))  # samples of z that go through the nets at once
            done = 0
            while done < num_samples:
                k = min(chunk, num_samples - done)
                many = x.repeat_interleave(k, 0)
                many_labels = None if labels is None else labels.repeat_interleave(k, 0)
                many_generator = [g for g in generator for _ in range(k)] if isinstance(generator, list) else generator
                seen = self._to_network(many, many_generator)
                mean, logvar = self.vae.encode(seen, many_labels)
                noise = self._noise(mean.shape, many_generator)
                z = mean + torch.exp(0.5 * logvar) * noise
                # log p(z) - log q(z|x): the constants of the two normals cancel
                ratio = 0.5 * (logvar + noise.square() - z.square()).sum(1)
                weight = self.vae.output_log_prob(seen, z, many_labels) + ratio  # (B k,)
                total = torch.logaddexp(total, torch.logsumexp(weight.view(len(x), k), 1))
                done += k
            return total - math.log(num_samples)

        x = self._check_x(x, on_support=True)
        self._check_count("num_samples", num_samples)
        if self._num_classes and class_labels is None:
            by_class = torch.stack([estimate(x, labels) for labels in self._each_class(len(x))])
            return torch.logsumexp(by_class, 0) - math.log(self._num_classes)
        return estimate(x, self._labels(class_labels, len(x), generator))

    # The latent space

    @torch.no_grad()
    def encode(self, x, class_labels=None, sample: bool = False, generator: Generators = None) -> Tensor:
        """The mean of q(z|x), or with `sample` a draw from it: (B, D)."""
        x = self._check_x(x)
        labels = self._labels(class_labels, len(x), generator, draw=False)
        mean, logvar = self.vae.encode(self._to_network(x, None, dequantise=False), labels)
        return mean + torch.exp(0.5 * logvar) * self._noise(mean.shape, generator) if sample else mean

    @torch.no_grad()
    def decode(
        self,
        latents: Tensor,
        class_labels=None,
        decoder_output: str = "mean",
        generator: Generators = None,
        output_type: str = "pil",
    ) -> ImagePipelineOutput | VectorPipelineOutput:
        """Images (or vectors) from codes (B, D); arguments as in `__call__`."""
        return self(
            class_labels=class_labels,
            decoder_output=decoder_output,
            latents=latents,
            generator=generator,
            output_type=output_type,
        )

    def reconstruct(self, x, class_labels=None, sample: bool = False, **decoding):
        """decode(encode(x)); `sample` draws z from q(z|x) instead of taking its mean."""
        z = self.encode(x, class_labels, sample=sample, generator=decoding.get("generator"))
        return self.decode(z, class_labels, **decoding)

    def interpolate(self, a, b, steps: int = 8, class_labels=None, **decoding):
        """`steps` decoded points on the straight line between the codes of a and b (one each), ends included."""
        self._check_count("steps", steps, least=2)
        if isinstance(class_labels, list | tuple):
            raise ValueError("class_labels is a list; interpolate keeps one class, so it must be an int")
        ends = torch.cat([self.encode(a, class_labels), self.encode(b, class_labels)])
        if len(ends) != 2:
            raise ValueError(f"a and b hold {len(ends)} samples together; interpolate takes one each")
        weights = torch.linspace(0, 1, steps, device=ends.device)[:, None]
        z = torch.lerp(ends[:1], ends[1:], weights)  # (steps, D)
        return self.decode(z, None if class_labels is None else [int(class_labels)] * steps, **decoding)

    @torch.no_grad()
    def active_units(self, x, class_labels=None, threshold: float = 0.01) -> Tensor:
        """Which latent units the posterior uses: (D,) bool, where Var_x(E[z|x]) exceeds the threshold.

        Section 5.2 of arXiv 1509.00519. A conditional model needs the class of each x.
        """
        return self.encode(x, class_labels).var(0, correction=0) > threshold

    # What the data spec decides

    @property
    def _is_image(self) -> bool:
        return self.data_spec["kind"] == "image"

    @property
    def _num_classes(self) -> int:
        return self.data_spec["num_classes"] if self.vae.config.conditional else 0

    def _wrap(self, result):
        return ImagePipelineOutput(images=result) if self._is_image else VectorPipelineOutput(samples=result)

    def _each_class(self, batch_size: int) -> list[Tensor]:
        return [torch.full((batch_size,), c, device=self.device) for c in range(self._num_classes)]

    @staticmethod
    def _kl(mean: Tensor, logvar: Tensor) -> Tensor:
        return 0.5 * (logvar.exp() + mean.square() - 1 - logvar).sum(1)

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

    def _to_network(self, x: Tensor, generator: Generators, dequantise: bool = True) -> Tensor:
        """[0, 1] -> the range that the network sees, 8-bit levels dequantised where the data spec says so."""
        spec = self.data_spec
        if spec["support"] != "8-bit":
            return x
        if spec["dequantization"] == "uniform":
            noise = self._noise(x.shape, generator, uniform=True) if dequantise else 0.5
            x = ((x * 255).round() + noise) / 256
        low, high = spec["range"]
        return low + (high - low) * x

    def _decode(self, z: Tensor, labels: Tensor | None, decoder_output: str, generator: Generators, output_type: str):
        """p(x|z, c) -> its mean or a draw from it, in the output_type."""
        first, second = self.vae.decode(z, labels)
        kind, draw = self.vae.config.output, decoder_output == "sample"
        if kind == "bernoulli":
            x = torch.sigmoid(first)
            x = (self._noise(x.shape, generator, uniform=True) < x).float() if draw else x
        elif kind == "gaussian":
            x = first + torch.exp(second) * self._noise(first.shape, generator) if draw else first
        else:
            u = self._noise(first.shape, generator, uniform=True).clamp(1e-6, 1 - 1e-6) if draw else torch.tensor(0.5)
            x = first + torch.exp(second) * torch.logit(u.to(first.device))  # the logistic's inverse distribution
        if not self._is_image:
            return x.cpu().numpy() if output_type == "np" else x
        if self.data_spec["support"] == "8-bit":
            low, high = self.data_spec["range"]
            x = (x - low) / (high - low)
            if draw:
                uniform = self.data_spec["dequantization"] == "uniform"
                x = (torch.floor(x * 256) if uniform else torch.round(x * 255)) / 255
        return self.image_processor.postprocess(x.clamp(0, 1), output_type=output_type)

    # Checks: each error names the argument, its value and what would be right

    def _check_output(self, output_type: str, decoder_output: str) -> None:
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type is {output_type!r}; it must be 'pil', 'np' or 'pt'")
        if decoder_output not in ("mean", "sample"):
            raise ValueError(f"decoder_output is {decoder_output!r}; it must be 'mean' or 'sample'")

    @staticmethod
    def _check_count(name: str, value: int, least: int = 1) -> None:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(f"{name} is {value!r}; it must be an integer of at least {least}")

    def _check_latents(self, latents: Tensor) -> Tensor:
        dim = self.vae.config.latent_dim
        if not isinstance(latents, Tensor) or latents.ndim != 2 or latents.shape[1] != dim or not len(latents):
            got = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
            raise ValueError(f"latents is {got}; it must be a tensor of shape (B, {dim})")
        if not latents.isfinite().all():
            raise ValueError("latents holds NaN or infinite values; all must be finite")
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
                raise ValueError(f"class_labels is None; encoding needs the class, 0 to {self._num_classes - 1}")
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

    def _check_x(self, x, on_support: bool = False) -> Tensor:
        """x as (B, *shape) float32 on the device, or a ValueError; `on_support` refuses values of probability zero."""
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
        if on_support and support == "binary" and not ((x == 0) | (x == 1)).all():
            gray = x[(x != 0) & (x != 1)][0].item()
            raise ValueError(
                f"x holds {gray:.4g}, but this model gives probability to 0 and 1 only: "
                "binarise first, for example (torch.rand_like(x) < x).float()"
            )
        if on_support and support == "8-bit":
            levels = x * 255
            if (levels - levels.round()).abs().max() > 0.2:
                raise ValueError("x is not on the 256 levels k / 255 of 8-bit data: round it first")
        return x
