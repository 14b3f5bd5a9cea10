"""Non-negative matrix factorisation: every row a sum of few parts, with nothing subtracted.

    min over W, H >= 0 of  sum over known (n, d) of (X - W H)_nd^2  +  penalty (||W||^2 + ||H||^2)

Lee and Seung, "Learning the parts of objects by non-negative matrix factorization", Nature 401 (1999). Entries that are
not known (NaN) count for nothing: the rows of a rating matrix then predict what is missing from what others know.
The solver sets one coordinate at a time to its best value (Cichocki and Phan, "Fast local algorithms for large scale
nonnegative matrix and tensor factorizations", 2009), so that the loss never rises.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from pipelines.specs import check_config, refuse_weights

ROWS = 4_096  # rows at once where each has a system of its own


@dataclass
class NMFStep(BaseOutput):
    """One round over all weights and all parts.

    Attributes:
        step, num_steps: counted from 0; num_steps is the most there can be.
        weights: (N, K).
        parts: (K, D).
        loss: see the module; `error` is the root mean square over known entries.
    """

    step: int
    num_steps: int
    weights: Tensor
    parts: Tensor
    loss: float
    error: float


def check_entries(x: Tensor) -> None:
    """Raise a ValueError unless x is (N, D), at least 0 where it is known, and known somewhere in each row."""
    if x.ndim != 2 or not x.numel():
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be (N, D)")
    if x.isinf().any():
        raise ValueError("x holds infinite values; entries must be finite, or NaN where they are missing")
    known = ~x.isnan()
    if (x[known] < 0).any():
        raise ValueError(f"x holds {x[known].min():.4g}; a non-negative factorisation needs entries of at least 0")
    empty = (~known.any(1)).nonzero()
    if len(empty):
        raise ValueError(f"row {int(empty[0])} of x has no known entry; each row needs at least one")


def non_negative_weights(x: Tensor, known: Tensor | None, parts: Tensor, start: Tensor, penalty: float, sweeps: int):
    """Improve W >= 0 towards the least (x - W H)^2 + penalty W^2, each row by itself: (N, D), (K, D), (N, K) -> (N, K).

    `known` (N, D) bool says which entries count; None is all of them. No sweep raises the loss of any row.
    """
    if len(x) > ROWS:
        masks = [None] * math.ceil(len(x) / ROWS) if known is None else known.split(ROWS)
        parts_of_x = zip(x.split(ROWS), masks, start.split(ROWS), strict=True)
        return torch.cat([non_negative_weights(r, m, parts, s, penalty, sweeps) for r, m, s in parts_of_x])
    if known is None:
        gram = (parts @ parts.T).expand(len(x), -1, -1)
        target = x @ parts.T
    else:
        gram = torch.einsum("nd,kd,ld->nkl", known.to(parts), parts, parts)  # each row has a system of its own
        target = torch.where(known, x, 0.0) @ parts.T
    weights = start.clone()
    for _ in range(sweeps):
        for k in range(len(parts)):
            curvature = gram[:, k, k] + penalty
            slope = target[:, k] - (gram[:, k] * weights).sum(1) - penalty * weights[:, k]
            # a part that is zero wherever the row is known says nothing: its weight stays
            step = torch.where(curvature > 0, slope / curvature.clamp(min=1e-12), 0.0)
            weights[:, k] = (weights[:, k] + step).clamp(min=0)
    return weights


class NMFModel(ModelMixin, ConfigMixin):
    """K non-negative parts of D entries.

    Args:
        num_components: K.
        dim: D.
        penalty: of the squared weights and parts.
        item_names: what the D entries of a rating matrix are.
    """

    @register_to_config
    def __init__(self, num_components: int, dim: int, penalty: float = 0.0, item_names: list[str] | None = None):
        super().__init__()
        check_config(self)
        self.parts = nn.Parameter(torch.zeros(num_components, dim), requires_grad=False)
        if item_names is not None and len(item_names) != dim:
            raise ValueError(f"item_names holds {len(item_names)} names; there are {dim} items")

    def check_values(self) -> None:
        """Raises a ValueError where the weights are those of no factorisation."""
        refuse_weights(("parts", (self.parts >= 0).all(), "all must be at least 0"))

    @classmethod
    def of(cls, parts: Tensor, penalty: float = 0.0, item_names: list[str] | None = None) -> "NMFModel":
        """From parts (K, D)."""
        model = cls(*parts.shape, penalty, item_names)
        model.parts.data = parts.float().contiguous()
        return model

    @classmethod
    def fit_steps(
        cls, x: Tensor, num_components: int, penalty: float = 0.0, max_iter: int = 200, tol: float = 1e-5, seed: int = 0
    ) -> Iterator[NMFStep]:
        """Rounds on (N, D), NaN where an entry is missing, until the loss falls by less than its share `tol`.

        Raises:
            ValueError: negative or infinite entries, a row or a column without a known entry, more components than rows
                or columns.
        """
        check_entries(x)
        most = min(x.shape)
        if isinstance(num_components, bool) or not isinstance(num_components, int) or not 1 <= num_components <= most:
            raise ValueError(f"num_components is {num_components!r}; it must be an integer from 1 to {most}")
        x = x.double()
        known = None if not x.isnan().any() else ~x.isnan()
        if known is not None and not known.any(0).all():
            column = int((~known.any(0)).nonzero()[0])
            raise ValueError(f"column {column} of x has no known entry; each column needs at least one")
        generator = torch.Generator().manual_seed(seed)
        scale = math.sqrt(x.nanmean().item() / num_components)
        weights, parts = (
            scale * (0.5 + torch.rand(shape, generator=generator, dtype=torch.float64))
            for shape in ((len(x), num_components), (num_components, x.shape[1]))
        )
        before = math.inf
        for step in range(max_iter):
            weights = non_negative_weights(x, known, parts, weights, penalty, 1)
            across = None if known is None else known.T
            parts = non_negative_weights(x.T, across, weights.T, parts.T, penalty, 1).T
            squared = (x - weights @ parts).square().nansum().item()
            loss = squared + penalty * (weights.square().sum() + parts.square().sum()).item()
            count = x.numel() if known is None else int(known.sum())
            yield NMFStep(step, max_iter, weights.float(), parts.float(), loss, math.sqrt(squared / count))
            if before - loss <= tol * loss:
                return
            before = loss

    def transform(self, x: Tensor, sweeps: int = 50) -> Tensor:
        """The weights of the parts in each row, NaN where an entry is missing: (B, D) -> (B, K), at least 0.

        Raises:
            ValueError: negative or infinite entries, or a row without a known one.
        """
        check_entries(x)
        x, parts = x.float(), self.parts.float()
        known = None if not x.isnan().any() else ~x.isnan()
        start = torch.zeros(len(x), len(parts), device=x.device)
        return non_negative_weights(x, known, parts, start, self.config.penalty, sweeps)

    def decode(self, weights: Tensor) -> Tensor:
        """W H: (B, K) -> (B, D)."""
        return weights.float() @ self.parts.float()
