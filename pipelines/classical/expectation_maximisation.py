"""Expectation maximisation of Gaussian mixtures, in float64, and the k-means that it starts from.

Dempster, Laird and Rubin, "Maximum Likelihood from Incomplete Data via the EM Algorithm", 1977; the updates are those
of Bishop, "Pattern Recognition and Machine Learning", 2006, equations 9.23 to 9.27.

A step reads the data once, in blocks: the E step of a block gives its responsibilities, and at once their moments,
from which the M step follows. With full covariances the moments are taken in the coordinates in which the old
component is N(0, I), y = L^-1 (x - mu) with C = L L^T: the E step has made y anyway, and however small a component is
beside the data, its new covariance L cov(y) L^T loses no digits to cancellation.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)
BLOCK = 2**19  # float64 numbers at once, 4 MB
LLOYD_STEPS = 20
WEIGHT_FLOOR = 10 * torch.finfo(torch.float64).eps  # points that a component has at least, as in scikit-learn


class Gaussians:
    """K weighted Gaussians in float64, ready for many points: what the model and EM both compute with.

    Args:
        covariance_type: "full", "diag" or "tied"; "spherical" is "diag" with equal entries.
        weights: (K,), positive.
        means: (K, D).
        scale: full (K, D, D) and tied (D, D): lower Cholesky factors L of the covariances; diag (K, D): standard
            deviations.
    """

    def __init__(self, covariance_type: str, weights: Tensor, means: Tensor, scale: Tensor):
        self.covariance_type, self.weights, self.means, self.scale = covariance_type, weights, means, scale
        count, dim = means.shape
        self.center = means.mean(0)  # squares are expanded around it, so that they cancel less
        means = means - self.center
        if covariance_type == "diag":
            log_det = scale.log().sum(1)
            precision = scale**-2
        else:
            identity = torch.eye(dim, dtype=scale.dtype, device=scale.device).expand_as(scale)
            self.whitening = torch.linalg.solve_triangular(scale, identity, upper=False).mT.contiguous()  # L^-T
            log_det = scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        if covariance_type == "full":
            self.offset = -(means[:, None] @ self.whitening)  # (K, 1, D)
        else:
            if covariance_type == "tied":  # whitened once, every component has unit covariance
                means, precision = means @ self.whitening, torch.ones_like(means)
            # (x - mu)^2 / s^2 = x^2 / s^2 - 2 x mu / s^2 + mu^2 / s^2, summed over columns by two matrix products
            self.quadratic, self.linear = precision.T, (precision * means).T
            self.constant = (precision * means.square()).sum(1)
        self.log_factor = weights.log() - log_det - 0.5 * dim * LOG_2PI  # (K,)
        # rows of a block; never fewer than D, when the covariances weigh as much as the block anyway
        self.rows = max(BLOCK // (count * dim if covariance_type == "full" else count + dim), dim, 1)

    def whiten(self, x: Tensor) -> Tensor:
        """y = L^-1 (x - mu) of full covariances: (n, D) -> (K, n, D)."""
        return torch.baddbmm(self.offset, (x - self.center).expand(len(self.means), -1, -1), self.whitening)

    def log_joint(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """log(w_k N(x; mu_k, C_k)), nats: (n, D) -> (n, K), and y of `whiten` where covariances are full."""
        if self.covariance_type == "full":
            y = self.whiten(x)
            return self.log_factor - 0.5 * torch.linalg.vector_norm(y, dim=2).square().T, y
        x = x - self.center
        if self.covariance_type == "tied":
            x = x @ self.whitening
        square = x.square() @ self.quadratic - 2 * x @ self.linear + self.constant
        return self.log_factor - 0.5 * square.clamp_(min=0), None


@dataclass
class Moments:
    """Sums over all points, weighted by responsibilities, that the M step needs.

    Attributes:
        counts: (K,).
        first: (K, D) of y where covariances are full, of x elsewhere.
        second: full (K, D, D) of y; diag (K, D) of x^2; tied (D, D) of x, which no responsibility changes.
    """

    counts: Tensor
    first: Tensor
    second: Tensor


def expect(
    x: Tensor, gaussians: Gaussians, second: Tensor | None, given: Tensor | None = None
) -> tuple[float, Moments]:
    """The E step: mean log-likelihood (nats per point) of x (N, D) and the moments of its responsibilities.

    `second` is the constant second moment of x where covariances are tied; `given` (N, K) are responsibilities to take
    instead of those of `gaussians`.
    """
    kind, (count, dim) = gaussians.covariance_type, gaussians.means.shape
    counts, first, total = x.new_zeros(count), x.new_zeros(count, dim), 0.0
    if kind != "tied":
        second = x.new_zeros(count, dim, dim) if kind == "full" else x.new_zeros(count, dim)
    for begin in range(0, len(x), gaussians.rows):
        part = x[begin : begin + gaussians.rows]
        joint, y = gaussians.log_joint(part)
        log_prob = joint.logsumexp(1, keepdim=True)
        total += log_prob.sum().item()
        r = (joint - log_prob).exp_() if given is None else given[begin : begin + gaussians.rows].to(x.dtype)
        counts += r.sum(0)
        if kind == "full":
            root = r.T.sqrt()[:, :, None]  # (K, n, 1): half of r goes to each factor of y y^T
            y *= root
            first += (root.mT @ y)[:, 0]
            second += y.mT @ y
        else:
            first += r.T @ part
            if kind == "diag":
                second += r.T @ part.square()
    return total / len(x), Moments(counts + WEIGHT_FLOOR, first, second)


def maximise(old: Gaussians, moments: Moments, count: int, reg_covar: float, spherical: bool) -> Gaussians:
    """The M step: the mixture that fits the moments of `count` points best."""
    kind, counts = old.covariance_type, moments.counts
    means = moments.first / counts[:, None]
    if kind == "full":
        inner = moments.second / counts[:, None, None] - means[:, :, None] * means[:, None]
        covariance = old.scale @ inner @ old.scale.mT
        means = old.means + (old.scale @ means[:, :, None])[:, :, 0]
    elif kind == "tied":
        covariance = (moments.second - (counts[:, None] * means).T @ means) / count
    else:
        covariance = (moments.second / counts[:, None] - means.square()).clamp_(min=0)  # rounding may go below 0
        if spherical:
            covariance = covariance.mean(1, keepdim=True).expand_as(means)
    if kind == "diag":
        scale, failed = (covariance + reg_covar).sqrt(), (covariance + reg_covar <= 0).any()
    else:
        covariance.diagonal(dim1=-2, dim2=-1).add_(reg_covar)
        scale, info = torch.linalg.cholesky_ex(covariance)
        failed = info.any()
    if failed:
        raise ValueError(f"a covariance has become singular; raise reg_covar ({reg_covar:g}) or take fewer components")
    return Gaussians(kind, counts / count, means, scale)


def cluster(x: Tensor, count: int, seed: int) -> Tensor:
    """Labels (N,) int64 of `count` clusters of x (N, D): k-means, at most 20 steps of Lloyd.

    Seeds as in Arthur and Vassilvitskii, "k-means++", 2007, the best of a few candidates at each choice.
    """
    generator = torch.Generator().manual_seed(seed)
    num_candidates = 2 + int(math.log(count))
    squares = x.square().sum(1)

    def distances(centers: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Squared distances to the centres, block by block."""
        rows = max(1, BLOCK // (len(centers) + x.shape[1]))
        for begin in range(0, len(x), rows):
            block = slice(begin, begin + rows)
            yield block, (squares[block, None] - 2 * x[block] @ centers.T + centers.square().sum(1)).clamp_(min=0)

    nearest, centers = torch.ones_like(squares), []
    for _ in range(count):
        # points that are far from all centres are likely candidates; where none is left, all are (nearest is 0)
        cumulative = (nearest if nearest.sum() > 0 else torch.ones_like(nearest)).cumsum(0)
        uniform = torch.rand(num_candidates, generator=generator, dtype=torch.float64).to(x.device)
        chosen = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True).clamp_(max=len(x) - 1)
        if not centers:
            chosen = chosen[:1]
        after = x.new_empty(len(x), len(chosen))
        for block, squared in distances(x[chosen]):
            after[block] = squared if not centers else torch.minimum(squared, nearest[block, None])
        best = after.sum(0).argmin()
        nearest = after[:, best]
        centers.append(x[chosen[best]])
    centers, labels = torch.stack(centers), None
    for _ in range(LLOYD_STEPS):
        new = torch.cat([squared.argmin(1) for _, squared in distances(centers)])
        if labels is not None and torch.equal(new, labels):
            break
        labels = new
        sizes = torch.bincount(labels, minlength=count)[:, None]
        sums = torch.zeros_like(centers).index_add_(0, labels, x)
        centers = torch.where(sizes > 0, sums / sizes.clamp(min=1), centers)  # an empty cluster stays where it is
    return labels


def em_updates(
    x, covariance_type, num_components, start, max_iter, tol, reg_covar
) -> Iterator[tuple[Gaussians, float, bool]]:
    """EM on x (N, D), float64 and centred, from the responsibilities `start`: mixture, log-likelihood, converged."""
    kind, spherical = ("diag", True) if covariance_type == "spherical" else (covariance_type, False)
    dim = x.shape[1]
    second = x.T @ x if kind == "tied" else None
    shape = {"full": (num_components, dim, dim), "tied": (dim, dim), "diag": (num_components, dim)}[kind]
    identity = torch.eye(dim, dtype=x.dtype, device=x.device) if kind != "diag" else x.new_ones(())
    # standard normal, so that the first moments are those of x itself
    gaussians = Gaussians(kind, x.new_ones(num_components), x.new_zeros(num_components, dim), identity.expand(shape))
    _, moments = expect(x, gaussians, second, start)
    previous = -math.inf
    for _ in range(max_iter + 1):
        gaussians = maximise(gaussians, moments, len(x), reg_covar, spherical)
        log_likelihood, moments = expect(x, gaussians, second)
        converged = abs(log_likelihood - previous) < tol
        yield gaussians, log_likelihood, converged
        if converged:
            return
        previous = log_likelihood
