"""Agglomerative clustering: every point a cluster, and the two nearest clusters merged until one is left.

The merges are a tree, which a cut at any height turns into clusters. How near two clusters are is the linkage's matter:
    single      the smallest distance between their points
    complete    the largest
    average     the mean
    ward        sqrt(2 |a| |b| / (|a| + |b|)) ||mean_a - mean_b||: what merging adds to the squared error
Each follows from the distances before a merge (Lance and Williams, "A General Theory of Classificatory Sorting
Strategies", 1967). All distances between points are kept, so memory grows with N^2.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from pipelines.specs import check_config, refuse_weights

LINKAGES = ("ward", "complete", "average", "single")
MOST_POINTS = 2_000  # of `merge_steps`, which takes N steps through N^2 distances


@dataclass
class MergeStep(BaseOutput):
    """One merge.

    Attributes:
        step, num_steps: counted from 0; N points take N - 1 merges.
        merge: the two clusters: points are 0 to N - 1, and the cluster that step s makes is N + s.
        height: the distance between them.
    """

    step: int
    num_steps: int
    merge: tuple[int, int]
    height: float


class AgglomerativeModel(ModelMixin, ConfigMixin):
    """Points and their merge tree.

    Args:
        num_points: N.
        dim: D of the points.
        linkage: "ward", "complete", "average" or "single".
        num_clusters: where the tree is cut if nothing else is asked for.

    Attributes:
        points: (N, D).
        merges: (N - 1, 2) int64, the clusters that each step merges: 0 to N - 1 are points, N + s was made by step s.
        heights: (N - 1,), never falling.
    """

    @register_to_config
    def __init__(self, num_points: int, dim: int, linkage: str = "ward", num_clusters: int = 2):
        super().__init__()
        check_config(self)
        if linkage not in LINKAGES:
            raise ValueError(f"linkage is {linkage!r}; it must be one of {', '.join(LINKAGES)}")
        self.points = nn.Parameter(torch.zeros(num_points, dim), requires_grad=False)
        self.merges = nn.Parameter(torch.zeros(num_points - 1, 2, dtype=torch.int64), requires_grad=False)
        self.heights = nn.Parameter(torch.zeros(num_points - 1), requires_grad=False)

    def check_values(self) -> None:
        """Raises a ValueError where the weights are those of no tree."""
        merges, heights = self.merges, self.heights
        made = len(self.points) + torch.arange(len(merges), device=merges.device)[:, None]  # by each step
        once = len(merges.unique()) == merges.numel()
        refuse_weights(
            (
                "merges",
                once and ((merges >= 0) & (merges < made)).all(),
                "each cluster is merged once, after it was made",
            ),
            (
                "heights",
                (heights >= 0).all() and (heights[1:] >= heights[:-1] * (1 - 1e-5)).all(),
                "they must rise from 0 or above",
            ),
        )

    @classmethod
    def of(
        cls, points: Tensor, merges: Tensor, heights: Tensor, linkage: str, num_clusters: int = 2
    ) -> "AgglomerativeModel":
        """From points (N, D) and their tree, in the order of its heights."""
        model = cls(*points.shape, linkage, num_clusters)
        model.points.data, model.merges.data = points.float().contiguous(), merges.long().contiguous()
        model.heights.data = heights.float()
        return model

    @classmethod
    def fit(cls, x: Tensor, linkage: str = "ward") -> "AgglomerativeModel":
        """The tree of (N, D); arguments and errors as of `merge_steps`."""
        steps = list(cls.merge_steps(x, linkage))
        merges, heights = torch.tensor([s.merge for s in steps]), torch.tensor([s.height for s in steps])
        return cls.of(x, merges, heights, linkage)

    @classmethod
    def merge_steps(cls, x: Tensor, linkage: str = "ward") -> Iterator[MergeStep]:
        """The merges of (N, D), one by one.

        Raises:
            ValueError: fewer than 2 points or more than 2 000, values that are not finite, or an unknown linkage.
        """
        if linkage not in LINKAGES:
            raise ValueError(f"linkage is {linkage!r}; it must be one of {', '.join(LINKAGES)}")
        if x.ndim != 2 or not 2 <= len(x) <= MOST_POINTS:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; it must be (N, D) with N from 2 to {MOST_POINTS}, since memory grows with N^2"
            )
        if not x.isfinite().all():
            raise ValueError("x holds NaN or infinite values; all must be finite")
        count = len(x)
        x = x.double()
        distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        distance.fill_diagonal_(torch.inf)
        sizes, names = torch.ones(count, dtype=torch.float64, device=x.device), list(range(count))
        for step in range(count - 1):
            place = int(distance.argmin())
            i, j = sorted((place // count, place % count))
            height = distance[i, j].item()
            yield MergeStep(step, count - 1, tuple(sorted((names[i], names[j]))), height)
            distance[i] = distance[:, i] = _merged(distance[i], distance[j], height, sizes, i, j, linkage)
            distance[i, i] = torch.inf
            distance[j] = distance[:, j] = torch.inf  # gone
            sizes[i] += sizes[j]
            names[i] = count + step

    def cut(self, num_clusters: int | None = None) -> Tensor:
        """The cluster of each point when `num_clusters` are left: (N,) int64, the largest cluster 0.

        Raises:
            ValueError: num_clusters is not between 1 and N.
        """
        count = self.config.num_points
        num_clusters = self.config.num_clusters if num_clusters is None else num_clusters
        if isinstance(num_clusters, bool) or not isinstance(num_clusters, int) or not 1 <= num_clusters <= count:
            raise ValueError(f"num_clusters is {num_clusters!r}; it must be an integer from 1 to {count}")
        members = {i: [i] for i in range(count)}
        for step, (a, b) in enumerate(self.merges[: count - num_clusters].tolist()):
            members[count + step] = members.pop(a) + members.pop(b)
        labels = torch.empty(count, dtype=torch.int64)
        for number, points in enumerate(sorted(members.values(), key=lambda m: (-len(m), min(m)))):
            labels[points] = number
        return labels.to(self.points.device)

    def centres(self, num_clusters: int | None = None) -> Tensor:
        """Means of the clusters of `cut`: (num_clusters, D), float32."""
        labels = self.cut(num_clusters)
        sums = torch.zeros(int(labels.max()) + 1, self.config.dim, device=labels.device)
        sums.index_add_(0, labels, self.points.float())
        return sums / torch.bincount(labels)[:, None]

    def transform(self, x: Tensor, num_clusters: int | None = None) -> Tensor:
        """Distances of (B, D) to the means of the clusters: (B, num_clusters)."""
        centres = self.centres(num_clusters).double()
        origin = centres.mean(0)  # squares of points far from zero cancel
        return torch.cdist(x.double() - origin, centres - origin).float()


def _merged(a: Tensor, b: Tensor, height: float, sizes: Tensor, i: int, j: int, linkage: str) -> Tensor:
    """Distances of all clusters from the union of i and j, given those from i (a) and from j (b): (N,)."""
    if linkage == "single":
        return torch.minimum(a, b)
    if linkage == "complete":
        return torch.maximum(a, b)  # what is gone stays at infinity
    n, m = sizes[i], sizes[j]
    if linkage == "average":
        return (n * a + m * b) / (n + m)
    return (
        (((sizes + n) * a.square() + (sizes + m) * b.square() - sizes * height**2) / (sizes + n + m))
        .clamp(min=0)
        .sqrt()
    )
