"""Figures of two sets of features, (N, F) of real images and (M, F) of samples."""

import torch
from torch import Tensor, nn

NEIGHBOURS = 5
RESAMPLED = 200  # draws of a bootstrap interval


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)): Fréchet distance of two Gaussians fitted to (N, F), (M, F).

    Heusel et al., arXiv 1706.08500, equation 6, by torchmetrics.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    identity = nn.Identity()
    identity.num_features = a.shape[1]  # the features are computed already
    metric = FrechetInceptionDistance(feature=identity)
    metric.update(a, real=True)
    metric.update(b, real=False)
    return metric.compute().item()


def frechet_interval(a: Tensor, b: Tensor, draws: int = RESAMPLED) -> tuple[float, float]:
    """A 95 % bootstrap interval of `frechet_distance(a, b)`: both sets drawn anew, with replacement, `draws` times.

    A set drawn with replacement holds fewer different images, which alone makes its distance larger. So the spread of the
    draws around their own mean is laid around the distance itself.
    """
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(draws):
        drawn = [rows[torch.randint(len(rows), (len(rows),), generator=generator).to(rows.device)] for rows in (a, b)]
        found.append(frechet_distance(*drawn))
    around = torch.tensor(found, dtype=torch.float64)
    low, high = (around - around.mean()).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    distance = frechet_distance(a, b)
    return max(distance + low, 0.0), distance + high


def nearest_distances(a: Tensor, b: Tensor, k: int = 1, skip_self: bool = False) -> Tensor:
    """Distance from each of (N, F) to its k-th nearest of (M, F): (N,). `skip_self` where a and b are one set."""
    k += skip_self
    return torch.cat([torch.cdist(part, b).topk(k, 1, largest=False).values[:, -1] for part in a.split(1_000)])


def precision_recall_density_coverage(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> dict[str, float]:
    """How much of `fake` (M, F) lies where `real` (N, F) does, and the reverse.

    Precision and recall: Kynkäänniemi et al., arXiv 1904.06991, equation 1; density and coverage: Naeem et al., arXiv
    2002.09797, equations 2 and 3. Balls reach to the k-th nearest neighbour within a set, the image itself not counted.
    """
    real_radius, fake_radius = nearest_distances(real, real, k, True), nearest_distances(fake, fake, k, True)
    inside_real = torch.zeros(len(fake))  # for each fake: how many balls of real images hold it
    covered, recalled = torch.zeros(len(real), dtype=torch.bool), torch.zeros(len(real), dtype=torch.bool)
    for begin in range(0, len(real), 1_000):
        rows = slice(begin, begin + 1_000)
        distance = torch.cdist(real[rows], fake)
        inside = distance <= real_radius[rows, None]
        inside_real += inside.sum(0).cpu()
        covered[rows] = inside.any(1).cpu()
        recalled[rows] = (distance <= fake_radius[None]).any(1).cpu()
    return {
        "precision": (inside_real > 0).float().mean().item(),
        "recall": recalled.float().mean().item(),
        "density": inside_real.mean().item() / k,
        "coverage": covered.float().mean().item(),
    }


def memorised_share(train: Tensor, test: Tensor, fake: Tensor) -> float:
    """The share of `fake` nearer to a training image than 99 % of `test` are."""
    near = nearest_distances(test, train).quantile(0.01)
    return (nearest_distances(fake, train) < near).float().mean().item()
