"""Encoding, reconstruction, tangents and, where there is a density of the codes, sampling with an autoencoder.

    reconstruct    decode(encode(x)); of a denoising autoencoder `denoise`
    sample         z ~ prior, x = decode(z): the prior is a density fitted to the codes of the training set, or the one
                   that the objective drew them to; without either there is nothing to draw from
    tangents       the leading right singular vectors of the encoder's Jacobian at x: the directions in which x can
                   move and the code notices (Rifai et al., "The Manifold Tangent Classifier", NeurIPS 2011)

An autoencoder has no p(x): a decoder tells where a code goes to, not how much of the codes' probability comes to x.
Images go in and out as values in [0, 1].
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
class AutoencoderStep(BaseOutput):
    """What `stream` yields.

    Attributes:
        step, num_steps: counted from 0; a one-shot family has one step.
        images: (or samples, of a vector family) in the output_type asked for.
        latents: (B, D), the codes that were decoded.
        class_labels: (B,) int64, or None.
    """

    step: int
    num_steps: int
    latents: Tensor
    class_labels: Tensor | None = None
    images: list[PIL.Image.Image] | np.ndarray | Tensor | None = None
    samples: np.ndarray | Tensor | None = None


@dataclass
class TangentOutput(BaseOutput):
    """The encoder's Jacobian at each x, by its singular value decomposition.

    Attributes:
        tangents: (B, k, *shape), unit vectors, the leading one first.
        singular_values: (B, min(D, dimensions of x)), falling: how fast the code moves along each tangent, all of them.
    """

    tangents: Tensor
    singular_values: Tensor


class AutoencoderPipeline(DiffusionPipeline):
    """An autoencoder to encode with, and to draw from where the density of its codes is known.

    x is a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them, with values in [0, 1]; a vector
    model takes (B, D). A `generator` is one `torch.Generator` for the batch or a list with one for each sample; with a
    list, sample i depends on its own seed alone.

    `likelihood` is "implicit" where there is a prior to draw codes from, "none" where there is not.

    Args:
        autoencoder: an `AutoencoderModel`.
        prior: a density of the codes with `draw(uniform, normal, class_labels)`, a `KDEModel` or a
            `GaussianMixtureModel`; it may know the classes.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.

    Raises:
        ValueError: the prior is of codes of another size.
    """

    model_cpu_offload_seq = "prior->autoencoder"
    _optional_components = ["prior"]  # noqa: RUF012 - diffusers reads this name

    def __init__(self, autoencoder, prior=None, auto_map: dict | None = None):
        super().__init__()
        if prior is not None and prior.config.dim != autoencoder.config.latent_dim:
            raise ValueError(f"prior has {prior.config.dim} dimensions, the codes {autoencoder.config.latent_dim}")
        self.register_modules(autoencoder=autoencoder, prior=prior)
        self.data_spec = autoencoder.config.data_spec
        channels = self.data_spec["shape"][0]
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
        return "none" if self.prior is None and self.autoencoder.config.code_prior is None else "implicit"

    @property
    def classifies(self) -> bool:
        """Whether `classify` answers."""
        return bool(self.autoencoder.config.supervised)

    # Sampling

    def __call__(
        self,
        batch_size: int | None = None,
        class_labels: int | list[int] | Tensor | None = None,
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
    ) -> ImagePipelineOutput | VectorPipelineOutput | tuple:
        """Draw codes from the prior and decode them.

        Args:
            batch_size: how many; one if nothing else says it.
            class_labels: an int for all samples, or one int each (which sets the batch size), of a prior that knows the
                classes; it draws from all of them together where none are given.
            latents: (B, D) codes to decode instead of drawing them.
            generator: one, or a list with one for each sample.
            output_type: "pil", "np" (B, H, W, C) or "pt" (B, C, H, W), in [0, 1].
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as (pipe, step, timestep, {"latents": z}) after each step.

        Raises:
            ValueError: an argument is out of range; the message names it.
            NotImplementedError: there is no prior.
        """
        for step in self.stream(batch_size, class_labels, latents, generator, output_type):
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
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
    ) -> Iterator[AutoencoderStep]:
        """The samples of `__call__`, step by step: an autoencoder has one step. Same arguments."""
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type is {output_type!r}; it must be 'pil', 'np' or 'pt'")
        if latents is not None:
            latents = self._check_latents(latents)
        batch_size = self._batch_size(batch_size, class_labels, latents, generator)
        labels = self._labels(class_labels, batch_size)
        if latents is None:
            latents = self._draw_codes(batch_size, labels, generator)
        key = "images" if self._is_image else "samples"
        x = self._decoded(latents, output_type)
        yield AutoencoderStep(step=0, num_steps=1, latents=latents, class_labels=labels, **{key: x})

    def log_prob(self, x, **_):
        """There is none.

        Raises:
            NotImplementedError: always; the message says why.
        """
        raise NotImplementedError(
            "log_prob: an autoencoder has no p(x), only codes and where they are decoded to; how well it knows x is "
            "reconstruction_error(x)"
        )

    elbo = log_prob

    # Codes

    @torch.no_grad()
    def encode(self, x, class_labels=None) -> Tensor:
        """The code of each x: (B, D). Codes do not depend on `class_labels`, which other families ask for."""
        return self.autoencoder.encode(self._to_network(self._check_x(x)))

    def decode(self, latents: Tensor, class_labels=None, output_type: str = "pil"):
        """Images (or vectors) from codes (B, D)."""
        return self(latents=latents, output_type=output_type)

    def reconstruct(self, x, class_labels=None, output_type: str = "pil"):
        """decode(encode(x))."""
        return self.decode(self.encode(x), output_type=output_type)

    @torch.no_grad()
    def denoise(self, x, output_type: str = "pil"):
        """What is left of x when it has gone through the code: `reconstruct` of values that noise took out of [0, 1]."""
        x = self._check_x(x, bounded=False)
        return self.decode(self.autoencoder.encode(self._to_network(x)), output_type=output_type)

    def interpolate(self, a, b, steps: int = 8, class_labels=None, output_type: str = "pil"):
        """`steps` decoded points on the straight line between the codes of a and b (one each), ends included."""
        self._check_count("steps", steps, least=2)
        ends = torch.cat([self.encode(a), self.encode(b)])
        if len(ends) != 2:
            raise ValueError(f"a and b hold {len(ends)} samples together; interpolate takes one each")
        weights = torch.linspace(0, 1, steps, device=ends.device)[:, None]
        return self.decode(torch.lerp(ends[:1], ends[1:], weights), output_type=output_type)

    @torch.no_grad()
    def reconstruction_error(self, x) -> Tensor:
        """Mean squared error of each x, over its entries, with images in [0, 1]: (B,)."""
        x = self._check_x(x)
        again = self.autoencoder.decode(self.autoencoder.encode(self._to_network(x)))
        return (self._from_network(again) - x).square().flatten(1).mean(1)

    @torch.no_grad()
    def classify(self, x) -> Tensor:
        """Class probabilities given the code: (B, num_classes).

        Raises:
            NotImplementedError: the model was not trained to classify.
        """
        if not self.classifies:
            raise NotImplementedError("classify: this autoencoder was trained without classes (supervised is False)")
        return self.autoencoder.classify(self.encode(x)).softmax(1)

    # The manifold

    def tangents(self, x, k: int = 8) -> TangentOutput:
        """The k directions in which the code of x changes fastest, and all singular values of the Jacobian.

        Args:
            x: (B, *shape).
            k: at most the smaller of the code's and x's dimensions.

        Raises:
            ValueError: k is out of range, or x cannot be used.
        """
        x = self._check_x(x)
        most = min(self.autoencoder.config.latent_dim, math.prod(self.data_spec["shape"]))
        self._check_count("k", k)
        if k > most:
            raise ValueError(f"k is {k}; this model's Jacobian has {most} singular values")

        def code(one: Tensor) -> Tensor:
            return self.autoencoder.encode(self._to_network(one[None]))[0]

        jacobian = torch.func.vmap(torch.func.jacrev(code))(x).flatten(2)  # (B, D, dimensions of x)
        _, values, vectors = torch.linalg.svd(jacobian.detach(), full_matrices=False)
        return TangentOutput(tangents=vectors[:, :k].unflatten(2, x.shape[1:]), singular_values=values)

    def walk(self, x, tangent: Tensor, steps: int = 9, length: float = 1.0, output_type: str = "pil"):
        """From x along a tangent and back: decode(z + t J v) for `steps` values of t from -length to length.

        The walk is along the line of codes that the tangent v points to at z, so that every stop is decoded: to first
        order in t it is encode(x + t v).

        Args:
            x: one image or vector.
            tangent: (*shape), as `tangents` gives it, or any direction in x.
            steps: how many images, at least 2.
            length: of the walk to each side, in units of x: the norm of t v.
        """
        x = self._check_x(x)
        self._check_count("steps", steps, least=2)
        if len(x) != 1:
            raise ValueError(f"x holds {len(x)} samples; a walk starts from one")
        if not isinstance(tangent, Tensor) or tuple(tangent.shape) != tuple(x.shape[1:]):
            got = tuple(tangent.shape) if isinstance(tangent, Tensor) else type(tangent).__name__
            raise ValueError(f"tangent is {got}; it must be a tensor of shape {tuple(x.shape[1:])}")
        if isinstance(length, bool) or not isinstance(length, numbers.Real) or not 0 < length < math.inf:
            raise ValueError(f"length is {length!r}; it must be a finite number above 0")

        def code(one: Tensor) -> Tensor:
            return self.autoencoder.encode(self._to_network(one))

        z, along = torch.func.jvp(code, (x,), (tangent.to(x)[None],))
        t = torch.linspace(-length, length, steps, device=x.device)[:, None]
        return self.decode((z + t * along).detach(), output_type=output_type)

    # What the data spec decides

    @property
    def _is_image(self) -> bool:
        return self.data_spec["kind"] == "image"

    @property
    def _num_classes(self) -> int:
        conditional = self.prior is not None and self.prior.config.conditional
        return self.prior.config.num_classes if conditional else 0

    def _draw_codes(self, batch_size: int, labels: Tensor | None, generator: Generators) -> Tensor:
        if self.likelihood == "none":
            raise NotImplementedError(
                "this autoencoder has no prior over its codes, so there is nothing to draw from: train with "
                "--prior mixture or kde, give AutoencoderPipeline a prior, or decode latents of your own"
            )
        uniform = self._noise((batch_size,), generator, torch.rand)
        normal = self._noise((batch_size, self.autoencoder.config.latent_dim), generator, torch.randn)
        if self.prior is None:
            return self.autoencoder.draw_codes(uniform, normal)
        return self.prior.draw(uniform, normal, labels)

    def _noise(self, shape: tuple[int, ...], generator: Generators, make: Callable) -> Tensor:
        """float32 noise on the pipeline's device; row i from generator i where a list is given."""
        if not isinstance(generator, list):
            device = generator.device if generator is not None else self.device
            return make(shape, generator=generator, device=device).to(self.device)
        return torch.stack([make(shape[1:], generator=g, device=g.device) for g in generator]).to(self.device)

    def _to_network(self, x: Tensor) -> Tensor:
        if self.data_spec["support"] == "real":
            return x
        low, high = self.data_spec["range"]
        return low + (high - low) * x

    def _from_network(self, x: Tensor) -> Tensor:
        if self.data_spec["support"] == "real":
            return x
        low, high = self.data_spec["range"]
        return ((x - low) / (high - low)).clamp(0, 1)

    def _decoded(self, latents: Tensor, output_type: str):
        x = self._from_network(self.autoencoder.decode(latents))
        if self._is_image:
            return self.image_processor.postprocess(x, output_type=output_type)
        return x.cpu().numpy() if output_type == "np" else x

    # Checks: each error names the argument, its value and what would be right

    @staticmethod
    def _check_count(name: str, value: int, least: int = 1) -> None:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(f"{name} is {value!r}; it must be an integer of at least {least}")

    def _check_latents(self, latents: Tensor) -> Tensor:
        dim = self.autoencoder.config.latent_dim
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
        outside = labels[(labels < 0) | (labels >= self._num_classes)]
        if len(outside):
            raise ValueError(f"class_labels holds {outside[0].item()}; classes go from 0 to {self._num_classes - 1}")
        return labels.long().expand(batch_size)

    def _check_x(self, x, bounded: bool = True) -> Tensor:
        """x as (B, *shape) float32 on the device, or a ValueError; `bounded` asks for values in [0, 1]."""
        shape = tuple(self.data_spec["shape"])
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
        if bounded and self.data_spec["support"] != "real" and (x.min() < 0 or x.max() > 1):
            raise ValueError(f"x has values from {x.min():.4g} to {x.max():.4g}; they must lie in [0, 1]")
        return x
