"""K-means: K centres, each point with its nearest.

    min over centres c and assignments a of  sum_i ||x_i - c_{a(i)}||^2,  the inertia

Lloyd's iterations (Lloyd, "Least Squares Quantization in PCM", 1982) assign and average in turn; neither raises the
inertia, so they end. They start from points drawn far from each other (Arthur and Vassilvitskii, "k-means++", 2007).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from pipelines.specs import check_config, refuse_weights


@dataclass
class LloydStep(BaseOutput):
    """One iteration.

    Attributes:
        step, num_steps: counted from 0; num_steps is the most there can be.
        centres: (K, D), to which `assignment` and `inertia` belong.
        assignment: (N,) int64, the nearest centre of each point.
        inertia: the sum of squared distances to it.
        converged: whether no point changed its centre since the step before.
    """

    step: int
    num_steps: int
    centres: Tensor
    assignment: Tensor
    inertia: float
    converged: bool


def check_points(x: Tensor, name: str, count: int) -> None:
    """Raise a ValueError unless x is finite, (N, D), and holds at least `count` points."""
    if x.ndim != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be (N, D)")
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"{name} is {count!r}; it must be an integer of at least 1")
    if len(x) < count:
        raise ValueError(f"{name} is {count}, but x holds {len(x)} points; it must be at most that")
    if not x.isfinite().all():
        raise ValueError("x holds NaN or infinite values; all must be finite")


def distances(x: Tensor, centres: Tensor) -> Tensor:
    """Euclidean distances (N, D), (K, D) -> (N, K), float64: in float32, squares of points far from zero cancel."""
    origin = centres.double().mean(0)
    return torch.cdist(x.double() - origin, centres.double() - origin)


class KMeansModel(ModelMixin, ConfigMixin):
    """K centres, and how many points of the training set each has.

    Args:
        num_clusters: K.
        dim: D of the points.
    """

    @register_to_config
    def __init__(self, num_clusters: int, dim: int):
        super().__init__()
        check_config(self)
        self.points = nn.Parameter(torch.zeros(num_clusters, dim), requires_grad=False)
        self.counts = nn.Parameter(torch.zeros(num_clusters, dtype=torch.int64), requires_grad=False)

    def check_values(self) -> None:
        """Raises a ValueError where the weights are those of no clustering."""
        refuse_weights(("counts", (self.counts >= 0).all(), "a cluster has at least 0 points"))

    @classmethod
    def of(cls, centres: Tensor, counts: Tensor) -> "KMeansModel":
        """From centres (K, D) and the number of points of each, (K,)."""
        model = cls(*centres.shape)
        model.points.data, model.counts.data = centres.float().contiguous(), counts.long()
        return model

    @classmethod
    def lloyd_steps(
        cls, x: Tensor, num_clusters: int, max_iter: int = 100, seed: int = 0, centres: Tensor | None = None
    ) -> Iterator[LloydStep]:
        """Lloyd's iterations on (N, D), from `centres` (K, D) or from k-means++, until nothing changes.

        A centre that loses all its points stays where it is.

        Raises:
            ValueError: fewer points than clusters, or values that are not finite.
        """
        check_points(x, "num_clusters", num_clusters)
        centres = cls._far_apart(x, num_clusters, seed) if centres is None else centres
        before = None
        for step in range(max_iter):
            squared = distances(x, centres).square()
            nearest, assignment = squared.min(1)
            converged = before is not None and bool((assignment == before).all())
            yield LloydStep(step, max_iter, centres, assignment, nearest.double().sum().item(), converged)
            if converged:
                return
            counts = torch.bincount(assignment, minlength=num_clusters)
            sums = torch.zeros_like(centres).index_add_(0, assignment, x)
            centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
            before = assignment

    @staticmethod
    def _far_apart(x: Tensor, count: int, seed: int) -> Tensor:
        """Points of x, each drawn with a probability proportional to its squared distance from those before it."""
        generator = torch.Generator().manual_seed(seed)
        chosen = [int(torch.randint(len(x), (), generator=generator))]
        squared = (x - x[chosen[0]]).square().sum(1).double()
        while len(chosen) < count:
            weights = squared if squared.sum() > 0 else torch.ones_like(squared)  # all points that are left are doubles
            chosen.append(int(torch.multinomial(weights.cpu(), 1, generator=generator)))
            squared = torch.minimum(squared, (x - x[chosen[-1]]).square().sum(1).double())
        return x[chosen].clone()

    def centres(self, num_clusters: int | None = None) -> Tensor:
        """(K, D), float32. `num_clusters` can be no other than K."""
        if num_clusters not in (None, self.config.num_clusters):
            raise ValueError(f"num_clusters is {num_clusters}; these are {self.config.num_clusters} means, not a tree")
        return self.points.float()

    def transform(self, x: Tensor, num_clusters: int | None = None) -> Tensor:
        """Distances of (B, D) to the centres: (B, K)."""
        return distances(x, self.centres(num_clusters)).float()
