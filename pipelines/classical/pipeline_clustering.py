"""Clusters: which one each x belongs to, how far it is from each, and what their means look like.

The clustering is k-means, or a merge tree that each call cuts where it is told to; of x itself or of its principal
components. Images go in and out as values in [0, 1].
"""

import math
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


class ClusteringPipeline(DiffusionPipeline):
    """A clustering to assign with. It has no distribution over x: it can neither draw nor say how likely x is.

    x is a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them, with values in [0, 1]; a vector
    model takes (B, D).

    Args:
        clustering: a `KMeansModel` or an `AgglomerativeModel`.
        pca: a `PCAModel`, where the clustering is of codes.
        data_spec: what x is, as every model's config here carries it.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.

    Raises:
        ValueError: the parts do not fit each other.
    """

    model_cpu_offload_seq = "pca->clustering"
    _optional_components = ["pca"]  # noqa: RUF012 - diffusers reads this name
    likelihood = "none"

    def __init__(self, clustering, pca=None, data_spec: dict | None = None, auto_map: dict | None = None):
        super().__init__()
        if data_spec is None:
            raise ValueError("data_spec is None; it must say what x is, for example {'kind': 'image', ...}")
        size = math.prod(data_spec["shape"])
        if pca is not None and pca.config.dim != size:
            raise ValueError(f"pca takes {pca.config.dim} dimensions, x has {size}")
        size = size if pca is None else pca.config.num_components
        if clustering.config.dim != size:
            raise ValueError(f"clustering has {clustering.config.dim} dimensions; it must have {size}")
        self.register_modules(clustering=clustering, pca=pca)
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

    def __call__(self, x, num_clusters: int | None = None) -> Tensor:
        """The same as `assign`."""
        return self.assign(x, num_clusters)

    @torch.no_grad()
    def assign(self, x, num_clusters: int | None = None) -> Tensor:
        """The cluster whose mean is nearest: (B,) int64.

        Args:
            num_clusters: where a merge tree is cut; k-means has a number of its own.

        Raises:
            ValueError: x cannot be used, or num_clusters is out of range; the message says which.
        """
        return self.transform(x, num_clusters).argmin(1)

    @torch.no_grad()
    def transform(self, x, num_clusters: int | None = None) -> Tensor:
        """Euclidean distances from the means of the clusters: (B, num_clusters)."""
        flat = self._check_x(x).flatten(1)
        return self.clustering.transform(flat if self.pca is None else self.pca.encode(flat), num_clusters)

    @torch.no_grad()
    def centres(self, num_clusters: int | None = None, output_type: str = "pil"):
        """The means of the clusters: images, or vectors (num_clusters, D)."""
        means = self.clustering.centres(num_clusters)
        return self._presented(means if self.pca is None else self.pca.decode(means), output_type)

    @torch.no_grad()
    def reconstruct(self, x, num_clusters: int | None = None, output_type: str = "pil"):
        """Of each x the mean of its cluster: images or vectors."""
        means = self.clustering.centres(num_clusters)[self.assign(x, num_clusters)]
        x = self._presented(means if self.pca is None else self.pca.decode(means), output_type)
        return ImagePipelineOutput(images=x) if self._is_image else VectorPipelineOutput(samples=x)

    @torch.no_grad()
    def reconstruction_error(self, x, num_clusters: int | None = None) -> Tensor:
        """Mean squared error of each x against the mean of its cluster, with images in [0, 1]: (B,)."""
        means = self.centres(num_clusters, output_type="pt")[self.assign(x, num_clusters)]
        return (means - self._check_x(x)).square().flatten(1).mean(1)

    def log_prob(self, x, **_):
        """There is none.

        Raises:
            NotImplementedError: always; the message says why.
        """
        raise NotImplementedError("log_prob: a clustering has no p(x); a Gaussian mixture is the one that has")

    elbo = log_prob

    # What the data spec decides

    @property
    def _is_image(self) -> bool:
        return self.data_spec["kind"] == "image"

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
        if not x.isfinite().all():
            raise ValueError("x holds NaN or infinite values; all must be finite")
        if self._is_image and (x.min() < 0 or x.max() > 1):
            raise ValueError(f"x has values from {x.min():.4g} to {x.max():.4g}; they must lie in [0, 1]")
        return x
