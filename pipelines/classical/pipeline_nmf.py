"""Parts and their weights by non-negative matrix factorisation; what is missing is filled in, and recommended from.

    transform    W >= 0 with x = W H as nearly as can be, from the entries that are known
    complete     known entries as they are, the others as W H has them
    recommend    of a row of ratings, the missing entries with the largest W H

Images go in and out as values in [0, 1]; ratings are vectors with NaN where there is none.
"""

from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from pipelines.contract import Contract, NoDensity
from pipelines.saving import settings_of


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


class NMFPipeline(Contract, NoDensity, DiffusionPipeline):
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

    model_cpu_offload_seq = ""
    _exclude_from_cpu_offload = ["nmf"]  # noqa: RUF012 - small, and read by other methods than forward
    likelihood = "none"

    def __init__(self, nmf, data_spec: dict | None = None, auto_map: dict | None = None):
        super().__init__()
        self._take_data_spec(data_spec or settings_of(nmf).get("data_spec"))
        self.register_modules(nmf=nmf)
        self.register_to_config(data_spec=self.data_spec)

    def _check_fit(self) -> None:
        self._check_dim("nmf", self.nmf, self._size)

    @property
    def refusals(self) -> dict[str, str]:
        """The calls that this instance does not answer, and why."""
        reason = "a factorisation has no p(x), only a squared error: reconstruction_error(x)"
        found = {"log_prob": reason, "elbo": reason}
        if self._is_image:
            found["recommend"] = "this factorisation is of images; complete(x, mask) fills them in"
        return found

    def __call__(self, x) -> Tensor:
        """The same as `transform`."""
        return self.transform(x)

    @torch.no_grad()
    def transform(self, x) -> Tensor:
        """The weight of each part in x: (B, K), at least 0.

        Raises:
            ValueError: x has another shape, type or range, or a row of it has no known entry; the message says which.
        """
        return self.nmf.transform(self._check_x(x, may_miss=True).flatten(1))

    @torch.no_grad()
    def decode(self, weights: Tensor, output_type: str = "pil"):
        """W H: `.images`, or `.samples` (B, D), from weights (B, K)."""
        weights = self._check_latents(weights, (self.nmf.config.num_components,), "weights")
        if not (weights >= 0).all():
            raise ValueError(f"weights holds {weights.min().item():.4g}; all must be at least 0")
        return self._wrap(self._as_output_type(self.nmf.decode(weights), output_type))

    def reconstruct(self, x, output_type: str = "pil"):
        """decode(transform(x))."""
        return self.decode(self.transform(x), output_type)

    @torch.no_grad()
    def parts(self, output_type: str = "pil"):
        """The K parts: images, each brightened until its largest entry is 1; or vectors (K, D), as they are."""
        parts = self.nmf.parts.float()
        if self._is_image:
            parts = parts / parts.amax(1, keepdim=True).clamp(min=1e-12)
        return self._as_output_type(parts, output_type)

    @torch.no_grad()
    def complete(self, x, mask=None, output_type: str = "pil"):
        """x with what is missing filled in.

        Args:
            mask: bool, True where x is known: (H, W), (C, H, W) or (B, C, H, W), with 1 for C where all channels
                share it; (D,) or (B, D) of vectors. By default x is known wherever it is not NaN.
        """
        x = self._check_x(x, may_miss=True)
        if mask is not None:
            x = torch.where(self._check_mask(mask, x), x, torch.nan)
        filled = self.nmf.decode(self.nmf.transform(x.flatten(1))).unflatten(1, x.shape[1:])
        return self._wrap(self._as_output_type(torch.where(x.isnan(), filled, x), output_type))

    @torch.no_grad()
    def recommend(self, ratings, k: int = 5) -> Recommendation:
        """The k missing entries of one row that it is expected to rate highest.

        Args:
            ratings: (D,) or (1, D), NaN where there is none.
        """
        self._check_answers("recommend")
        self._check_count("k", k)
        ratings = torch.as_tensor(ratings, dtype=torch.float32).cpu().reshape(1, -1)
        expected = self.nmf.decode(self.transform(ratings))[0].cpu()
        missing = ratings[0].isnan().nonzero()[:, 0]
        best = missing[expected[missing].argsort(descending=True)][:k].tolist()
        names = self.nmf.config.item_names or [str(i) for i in range(ratings.shape[1])]
        return Recommendation(best, [names[i] for i in best], expected[best].tolist())

    @torch.no_grad()
    def reconstruction_error(self, x) -> Tensor:
        """Mean squared error of each x over its known entries, with images in [0, 1]: (B,)."""
        x = self._check_x(x, may_miss=True)
        again = self.nmf.decode(self.transform(x)).unflatten(1, x.shape[1:])
        return (again - x).square().flatten(1).nanmean(1)
