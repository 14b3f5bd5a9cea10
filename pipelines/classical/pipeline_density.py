"""Sampling and exact likelihood with a density: of x itself, or of its principal components.

    log_prob    log p(x); with PCA log p(z) + log N(x - x^), see `PCAModel`
    sample      x ~ p; with PCA z ~ p(z), x = m + W z, with decoder_output="sample" also what the code leaves out

The density is a kernel density estimate or a Gaussian mixture; a PCA without one encodes and reconstructs only. Images
go in and out as values in [0, 1]; their likelihood is that of pixels in [0, 256), dequantised by uniform noise.
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
class DensityStep(BaseOutput):
    """What `stream` yields.

    Attributes:
        step, num_steps: counted from 0; a one-shot family has one step.
        images: (or samples, of a vector family) in the output_type asked for.
        latents: (B, K), what the density gave: codes, or without PCA x itself, flat.
        class_labels: (B,) int64, or None.
    """

    step: int
    num_steps: int
    latents: Tensor
    class_labels: Tensor | None = None
    images: list[PIL.Image.Image] | np.ndarray | Tensor | None = None
    samples: np.ndarray | Tensor | None = None


class DensityPipeline(DiffusionPipeline):
    """A density to draw from and to measure with, and a PCA to encode with; one of the two may be missing.

    x is a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them, with values in [0, 1]; a vector
    model takes (B, D). Likelihoods are nats per sample, shape (B,); of images -log_prob / (d ln 2) is bits/dim. A
    `generator` is one `torch.Generator` for the batch or a list with one for each sample; with a list, sample i depends
    on its own seed alone.

    `likelihood` is "exact", or "none" where there is no density.

    Args:
        density: a `KDEModel` or a `GaussianMixtureModel` of x, or of its codes; it may know the classes.
        pca: a `PCAModel`.
        data_spec: what x is, as every model's config here carries it.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.

    Raises:
        ValueError: the parts do not fit each other.
    """

    model_cpu_offload_seq = "density->pca"
    _optional_components = ["density", "pca"]  # noqa: RUF012 - diffusers reads this name

    def __init__(self, density=None, pca=None, data_spec: dict | None = None, auto_map: dict | None = None):
        super().__init__()
        if data_spec is None:
            raise ValueError("data_spec is None; it must say what x is, for example {'kind': 'image', ...}")
        if density is None and pca is None:
            raise ValueError("density and pca are both None; give at least one of them")
        size = math.prod(data_spec["shape"])
        if pca is not None and pca.config.dim != size:
            raise ValueError(f"pca takes {pca.config.dim} dimensions, x has {size}")
        size = size if pca is None else pca.config.num_components
        if density is not None and density.config.dim != size:
            raise ValueError(f"density has {density.config.dim} dimensions; it must have {size}")
        self.register_modules(density=density, pca=pca)
        self.register_to_config(data_spec=data_spec)
        self.data_spec = data_spec
        channels = data_spec["shape"][0]
        # vae_scale_factor=1: the default of 8 would resize 28x28 to 24x24
        self.image_processor = VaeImageProcessor(
            vae_scale_factor=1,
            do_resize=False,
            do_normalize=False,
            do_convert_grayscale=channels == 1,
            do_convert_rgb=channels == 3,
        )

    @property
    def likelihood(self) -> str:
        return "none" if self.density is None else "exact"

    # Sampling

    def __call__(
        self,
        batch_size: int | None = None,
        class_labels: int | list[int] | Tensor | None = None,
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
            class_labels: an int for all samples, or one int each (which sets the batch size), of a density that knows
                the classes; it draws from all of them together where none are given.
            decoder_output: "mean" gives m + W z, "sample" adds what the code leaves out; without PCA it says nothing.
            latents: (B, K) codes to decode instead of drawing them.
            generator: one, or a list with one for each sample.
            output_type: "pil", "np" (B, H, W, C) or "pt" (B, C, H, W), in [0, 1].
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as (pipe, step, timestep, {"latents": z}) after each step.

        Raises:
            ValueError: an argument is out of range; the message names it.
            NotImplementedError: there is no density.
        """
        for step in self.stream(batch_size, class_labels, decoder_output, latents, generator, output_type):
            if callback_on_step_end is not None:
                callback_on_step_end(self, step.step, step.step, {"latents": step.latents})
        result = step.images if self._is_image else step.samples
        if not return_dict:
            return (result,)
        return ImagePipelineOutput(images=result) if self._is_image else VectorPipelineOutput(samples=result)

    @torch.no_grad()
    def stream(
        self,
        batch_size: int | None = None,
        class_labels: int | list[int] | Tensor | None = None,
        decoder_output: str = "mean",
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
    ) -> Iterator[DensityStep]:
        """The samples of `__call__`, step by step: a density has one step. Same arguments."""
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type is {output_type!r}; it must be 'pil', 'np' or 'pt'")
        if decoder_output not in ("mean", "sample"):
            raise ValueError(f"decoder_output is {decoder_output!r}; it must be 'mean' or 'sample'")
        if latents is not None:
            latents = self._check_latents(latents)
        batch_size = self._batch_size(batch_size, class_labels, latents, generator)
        labels = self._labels(class_labels, batch_size)
        if latents is None:
            if self.density is None:
                raise NotImplementedError(
                    "this PCA has no density of its codes, so there is nothing to draw from: fit with --density mixture "
                    "or kde, give DensityPipeline a density, or decode latents of your own"
                )
            uniform = self._noise((batch_size,), generator, torch.rand)
            latents = self.density.draw(uniform, self._noise((batch_size, self._code_size), generator), labels)
        x = latents if self.pca is None else self.pca.decode(latents)
        if decoder_output == "sample" and self.pca is not None:
            x = x + self.pca.residual_noise(self._noise(tuple(x.shape), generator))
        key = "images" if self._is_image else "samples"
        x = self._presented(x, decoder_output == "sample" or self.pca is None, output_type)
        yield DensityStep(step=0, num_steps=1, latents=latents, class_labels=labels, **{key: x})

    # Likelihood

    @torch.no_grad()
    def log_prob(self, x, class_labels=None, generator: Generators = None) -> Tensor:
        """log p(x), or log p(x|c): (B,), nats, exact.

        Of 8-bit images it is the density of pixels in [0, 256) at a place within each pixel's level that `generator`
        draws: in expectation a lower bound on the probability mass of the level.

        Raises:
            NotImplementedError: there is no density.
        """
        if self.density is None:
            raise NotImplementedError("log_prob: a PCA without a density of its codes has no p(x)")
        x = self._check_x(x, on_support=True)
        labels = self._labels(class_labels, len(x))
        flat = self._to_model(x, generator).flatten(1)
        codes = flat if self.pca is None else self.pca.encode(flat)
        log_prob = self.density.log_prob(codes, labels)
        if self.pca is not None:
            log_prob = log_prob + self.pca.residual_log_prob(flat)
        # density on [0, 1] -> density of pixels in [0, 256)
        return log_prob - (flat.shape[1] * math.log(256) if self.data_spec["support"] == "8-bit" else 0.0)

    def elbo(self, x, num_samples: int = 1, class_labels=None, generator: Generators = None) -> Tensor:
        """The bound of a family whose likelihood is exact is that likelihood; `num_samples` changes nothing."""
        self._check_count("num_samples", num_samples)
        return self.log_prob(x, class_labels, generator)

    # Codes

    @torch.no_grad()
    def encode(self, x, class_labels=None) -> Tensor:
        """W^T (x - m): (B, K). Codes do not depend on `class_labels`, which other families ask for."""
        self._check_pca("encode")
        return self.pca.encode(self._to_model(self._check_x(x), None, dequantise=False).flatten(1))

    def decode(
        self,
        latents: Tensor,
        class_labels=None,
        decoder_output: str = "mean",
        generator: Generators = None,
        output_type: str = "pil",
    ):
        """m + W z: images (or vectors) from codes (B, K)."""
        self._check_pca("decode")
        return self(decoder_output=decoder_output, latents=latents, generator=generator, output_type=output_type)

    def reconstruct(self, x, class_labels=None, num_components: int | None = None, **decoding):
        """decode(encode(x)), from the first `num_components` only where that is given."""
        z = self.encode(x)
        if num_components is not None:
            self._check_count("num_components", num_components)
            z = torch.cat([z[:, :num_components], torch.zeros_like(z[:, num_components:])], 1)
        return self.decode(z, **decoding)

    def interpolate(self, a, b, steps: int = 8, class_labels=None, **decoding):
        """`steps` decoded points on the straight line between the codes of a and b (one each), ends included."""
        self._check_count("steps", steps, least=2)
        ends = torch.cat([self.encode(a), self.encode(b)])
        if len(ends) != 2:
            raise ValueError(f"a and b hold {len(ends)} samples together; interpolate takes one each")
        weights = torch.linspace(0, 1, steps, device=ends.device)[:, None]
        return self.decode(torch.lerp(ends[:1], ends[1:], weights), **decoding)

    @torch.no_grad()
    def reconstruction_error(self, x) -> Tensor:
        """Mean squared error of each x, over its entries, with images in [0, 1]: (B,)."""
        self._check_pca("reconstruction_error")
        again = self.reconstruct(x, output_type="pt")
        x = self._check_x(x)
        return ((again.images if self._is_image else again.samples) - x).square().flatten(1).mean(1)

    # What the data spec decides

    @property
    def _is_image(self) -> bool:
        return self.data_spec["kind"] == "image"

    @property
    def _code_size(self) -> int:
        return math.prod(self.data_spec["shape"]) if self.pca is None else self.pca.config.num_components

    @property
    def _num_classes(self) -> int:
        conditional = self.density is not None and self.density.config.conditional
        return self.density.config.num_classes if conditional else 0

    def _noise(self, shape: tuple[int, ...], generator: Generators, make: Callable = torch.randn) -> Tensor:
        """float32 noise on the pipeline's device; row i from generator i where a list is given."""
        if not isinstance(generator, list):
            device = generator.device if generator is not None else self.device
            return make(shape, generator=generator, device=device).to(self.device)
        if len(generator) != shape[0]:
            raise ValueError(f"generator holds {len(generator)} generators for {shape[0]} samples; they must agree")
        return torch.stack([make(shape[1:], generator=g, device=g.device) for g in generator]).to(self.device)

    def _to_model(self, x: Tensor, generator: Generators, dequantise: bool = True) -> Tensor:
        """Images in [0, 1] -> (k + u) / 256, the middle of each level where nothing is drawn; vectors as they are."""
        if self.data_spec["support"] == "real":
            return x
        return (x * 255 + (self._noise(tuple(x.shape), generator, torch.rand) if dequantise else 0.5)) / 256

    def _presented(self, x: Tensor, drawn: bool, output_type: str):
        """What the model gives -> the output_type, the levels of a drawn image as 8 bits hold them."""
        x = x.unflatten(1, tuple(self.data_spec["shape"]))
        if not self._is_image:
            return x.cpu().numpy() if output_type == "np" else x
        x = torch.floor(x * 256) / 255 if drawn else (x * 256 - 0.5) / 255
        return self.image_processor.postprocess(x.clamp(0, 1), output_type=output_type)

    # Checks: each error names the argument, its value and what would be right

    def _check_pca(self, call: str) -> None:
        if self.pca is None:
            raise NotImplementedError(f"{call}: this density is of x itself; there are no codes without a PCA")

    @staticmethod
    def _check_count(name: str, value: int, least: int = 1) -> None:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(f"{name} is {value!r}; it must be an integer of at least {least}")

    def _check_latents(self, latents: Tensor) -> Tensor:
        dim = self._code_size
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

    def _labels(self, class_labels, batch_size: int) -> Tensor | None:
        """class_labels as (B,) int64."""
        if class_labels is None:
            return None
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
        """x as (B, *shape) float32 on the device, or a ValueError; `on_support` refuses what is on no 8-bit level."""
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
        if x.min() < 0 or x.max() > 1:
            raise ValueError(f"x has values from {x.min():.4g} to {x.max():.4g}; they must lie in [0, 1]")
        levels = x * 255
        if on_support and (levels - levels.round()).abs().max() > 0.2:
            raise ValueError("x is not on the 256 levels k / 255 of 8-bit data: round it first")
        return x
