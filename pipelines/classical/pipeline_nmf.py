"""Parts and their weights by non-negative matrix factorisation; what is missing is filled in, and recommended from.

    transform    W >= 0 with x = W H as nearly as can be, from the entries that are known
    complete     known entries as they are, the others as W H has them
    recommend    of a row of ratings, the missing entries with the largest W H

Images go in and out as values in [0, 1]; ratings are vectors with NaN where there is none.
"""

import math
import numbers
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from torch import Tensor


@dataclass
class VectorPipelineOutput(BaseOutput):
    """Vectors: (B, D), a tensor, or an array with output_type="np"."""

    samples: Tensor | np.ndarray


@dataclass
class Recommendation(BaseOutput):
    """Missing entries of one row, the highest expected first.

    Attributes:
        columns: which.
        names: what the model calls them; the columns as words where it has no names.
        ratings: what is expected.
    """

    columns: list[int]
    names: list[str]
    ratings: list[float]


class NMFPipeline(DiffusionPipeline):
    """A non-negative factorisation. It has no distribution over x: it can neither draw nor say how likely x is.

    x is a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them, with values in [0, 1]; of vectors
    (B, D), at least 0. NaN stands for what is not known, in vectors and in tensors or arrays of images.

    Args:
        nmf: an `NMFModel`.
        data_spec: what x is, as every model's config here carries it.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.

    Raises:
        ValueError: the model is of another size.
    """

    model_cpu_offload_seq = "nmf"
    likelihood = "none"

    def __init__(self, nmf, data_spec: dict | None = None, auto_map: dict | None = None):
        super().__init__()
        if data_spec is None:
            raise ValueError("data_spec is None; it must say what x is, for example {'kind': 'image', ...}")
        size = math.prod(data_spec["shape"])
        if nmf.config.dim != size:
            raise ValueError(f"nmf has {nmf.config.dim} dimensions; it must have {size}")
        self.register_modules(nmf=nmf)
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

    def __call__(self, x) -> Tensor:
        """The same as `transform`."""
        return self.transform(x)

    @torch.no_grad()
    def transform(self, x) -> Tensor:
        """The weight of each part in x: (B, K), at least 0.

        Raises:
            ValueError: x has another shape, type or range, or a row of it has no known entry; the message says which.
        """
        return self.nmf.transform(self._check_x(x).flatten(1))

    @torch.no_grad()
    def decode(self, weights: Tensor, output_type: str = "pil"):
        """W H: `.images`, or `.samples` (B, D), from weights (B, K)."""
        count = self.nmf.config.num_components
        if not isinstance(weights, Tensor) or weights.ndim != 2 or weights.shape[1] != count:
            got = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
            raise ValueError(f"weights is {got}; it must be a tensor of shape (B, {count})")
        if not (weights >= 0).all():
            raise ValueError("weights holds negative values or NaN; all must be at least 0")
        return self._wrap(self._presented(self.nmf.decode(weights.to(self.device)), output_type))

    def reconstruct(self, x, output_type: str = "pil"):
        """decode(transform(x))."""
        return self.decode(self.transform(x), output_type)

    @torch.no_grad()
    def parts(self, output_type: str = "pil"):
        """The K parts: images, each brightened until its largest entry is 1; or vectors (K, D), as they are."""
        parts = self.nmf.parts.float()
        return self._presented(
            parts / parts.amax(1, keepdim=True).clamp(min=1e-12) if self._is_image else parts, output_type
        )

    @torch.no_grad()
    def complete(self, x, mask: Tensor | None = None, output_type: str = "pil"):
        """x with what is missing filled in.

        Args:
            mask: (*shape) or (B, *shape) bool, True where x is known; by default wherever it is not NaN.
        """
        x = self._check_x(x)
        if mask is not None:
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape not in (x.shape, x.shape[1:]):
                got = f"{tuple(mask.shape)} of {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
                raise ValueError(f"mask is {got}; it must be bool, of shape {tuple(x.shape[1:])} or {tuple(x.shape)}")
            x = torch.where(mask.to(x.device), x, torch.nan)
        filled = self.nmf.decode(self.nmf.transform(x.flatten(1))).unflatten(1, x.shape[1:])
        return self._wrap(self._presented(torch.where(x.isnan(), filled, x).flatten(1), output_type))

    @torch.no_grad()
    def recommend(self, ratings, k: int = 5) -> Recommendation:
        """The k missing entries of one row that it is expected to rate highest.

        Args:
            ratings: (D,) or (1, D), NaN where there is none.
        """
        if isinstance(k, bool) or not isinstance(k, numbers.Integral) or k < 1:
            raise ValueError(f"k is {k!r}; it must be an integer of at least 1")
        if self._is_image:
            raise NotImplementedError("recommend: this factorisation is of images; complete(x, mask) fills them in")
        ratings = torch.as_tensor(ratings, dtype=torch.float32).cpu().reshape(1, -1)
        expected = self.nmf.decode(self.transform(ratings))[0].cpu()
        missing = ratings[0].isnan().nonzero()[:, 0]
        best = missing[expected[missing].argsort(descending=True)][:k].tolist()
        names = self.nmf.config.item_names or [str(i) for i in range(ratings.shape[1])]
        return Recommendation(best, [names[i] for i in best], expected[best].tolist())

    @torch.no_grad()
    def reconstruction_error(self, x) -> Tensor:
        """Mean squared error of each x over its known entries, with images in [0, 1]: (B,)."""
        x = self._check_x(x)
        again = self.nmf.decode(self.transform(x)).unflatten(1, x.shape[1:])
        return (again - x).square().flatten(1).nanmean(1)

    def log_prob(self, x, **_):
        """There is none.

        Raises:
            NotImplementedError: always; the message says why.
        """
        raise NotImplementedError(
            "log_prob: a factorisation has no p(x), only a squared error: reconstruction_error(x)"
        )

    elbo = log_prob

    # What the data spec decides

    @property
    def _is_image(self) -> bool:
        return self.data_spec["kind"] == "image"

    def _wrap(self, x):
        return ImagePipelineOutput(images=x) if self._is_image else VectorPipelineOutput(samples=x)

    def _presented(self, x: Tensor, output_type: str):
        """(B, D) -> images or vectors of the output_type."""
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type is {output_type!r}; it must be 'pil', 'np' or 'pt'")
        x = x.unflatten(1, tuple(self.data_spec["shape"]))
        if self._is_image:
            return self.image_processor.postprocess(x.clamp(0, 1), output_type=output_type)
        return x.cpu().numpy() if output_type == "np" else x

    def _check_x(self, x) -> Tensor:
        """x as (B, *shape) float32 on the device, or a ValueError."""
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
        known = x[~x.isnan()]
        if self._is_image and len(known) and (known.min() < 0 or known.max() > 1):
            raise ValueError(f"x has values from {known.min():.4g} to {known.max():.4g}; they must lie in [0, 1]")
        return x
