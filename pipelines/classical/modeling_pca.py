"""Principal component analysis: the linear code that loses least.

    z = W^T (x - m),   x^ = m + W z,   W^T W = I,   minimising E ||x - x^||^2

The columns of W are the eigenvectors of the covariance with the largest eigenvalues (Pearson 1901; Bishop, "Pattern
Recognition and Machine Learning", section 12.1). What is left over, x - x^, is orthogonal to W; taken as white noise, of
the mean of the smaller eigenvalues as its variance (Tipping and Bishop, "Probabilistic Principal Component Analysis",
1999, equation 8), a density of z makes a density of x: log p(x) = log p(z) + log N(x - x^), since a rotation keeps volumes.
"""

import math
from collections.abc import Iterable

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from pipelines.specs import check_config, refuse_weights

LEAST_VARIANCE = 1e-10  # of what is left over: data that lie in a plane have none, and no density off it


class PCAModel(ModelMixin, ConfigMixin):
    """The mean, the leading directions and the whole spectrum of a set of vectors.

    Args:
        dim: dimensions of x.
        num_components: of the code, at most dim.

    Attributes:
        mean: (dim,).
        components: (dim, num_components), orthonormal columns, the direction of largest variance first.
        variances: (dim,), all eigenvalues of the covariance, falling.
    """

    @register_to_config
    def __init__(self, dim: int, num_components: int):
        super().__init__()
        check_config(self)
        if not 1 <= num_components <= dim:
            raise ValueError(f"num_components is {num_components}; it must lie between 1 and {dim}, the size of x")
        self.mean = nn.Parameter(torch.zeros(dim), requires_grad=False)
        self.components = nn.Parameter(torch.eye(dim, num_components), requires_grad=False)
        self.variances = nn.Parameter(torch.ones(dim), requires_grad=False)

    def check_values(self) -> None:
        """Raises a ValueError where the weights are those of no PCA."""
        w, variances = self.components.float(), self.variances
        # in bfloat16 an entry is off by 1 / 256 of itself
        unit = (w.T @ w - torch.eye(w.shape[1], device=w.device)).abs().max() < 0.02
        falling = (variances >= 0).all() and (variances[1:] <= variances[:-1]).all()
        refuse_weights(
            ("components", unit, "the columns must be orthonormal"),
            ("variances", falling, "they must fall, and be at least 0"),
        )

    @classmethod
    def fit(cls, batches: Iterable[Tensor], num_components: int) -> "PCAModel":
        """From the rows of all batches, each (B, dim), read once: the covariance in float64, and its eigenvectors.

        Raises:
            ValueError: fewer than two rows, values that are not finite, rows of other sizes, or num_components out of
                range: N rows span no more than N - 1 directions.
        """
        count, origin, total, second = 0, None, 0.0, 0.0
        for batch in batches:
            if batch.ndim != 2 or (origin is not None and batch.shape[1] != len(origin)):
                raise ValueError(f"x has shape {tuple(batch.shape)}; all batches must be (B, dim) of one dim")
            x = batch.double()
            if origin is None:  # far from zero, second moments would cancel
                origin = x.mean(0)
            x = x - origin
            count, total, second = count + len(x), total + x.sum(0), second + x.T @ x
        if count < 2:
            raise ValueError(f"x holds {count} rows; PCA needs at least 2")
        if num_components > count - 1:
            raise ValueError(f"num_components is {num_components}; {count} rows span at most {count - 1} directions")
        mean = total / count
        covariance = second / count - torch.outer(mean, mean)
        if not covariance.isfinite().all():
            raise ValueError("x holds NaN or infinite values; all must be finite")
        variances, vectors = torch.linalg.eigh(covariance)  # rising
        model = cls(len(mean), num_components)
        # of each direction, the sign that makes its largest entry positive: the decomposition leaves it open
        vectors = vectors.flip(1)[:, :num_components]
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        model.mean.data = (origin + mean).float()
        model.components.data = (vectors * largest.sign()).float().contiguous()
        model.variances.data = variances.flip(0).clamp(min=0).float()
        return model

    @property
    def residual_variance(self) -> float:
        """Variance per direction of what the code leaves out; 0 where it leaves out nothing."""
        left = self.variances[self.config.num_components :].double()
        return max(left.mean().item(), LEAST_VARIANCE) if len(left) else 0.0

    def encode(self, x: Tensor) -> Tensor:
        """(B, dim) -> (B, num_components), float32."""
        return (x.float() - self.mean.float()) @ self.components.float()

    def decode(self, z: Tensor, num_components: int | None = None) -> Tensor:
        """(B, num_components) -> (B, dim), from the first so many components, all by default."""
        z = z.float()[:, :num_components]
        return self.mean.float() + z @ self.components.float()[:, : z.shape[1]].T

    def residual_noise(self, normal: Tensor) -> Tensor:
        """White noise (B, dim) -> what may lie between x and its reconstruction, (B, dim): none of it along W."""
        w = self.components.float()
        return math.sqrt(self.residual_variance) * (normal - (normal @ w) @ w.T)

    def residual_log_prob(self, x: Tensor) -> Tensor:
        """log N(x - x^; 0, residual_variance) in the directions that the code leaves out: (B, dim) -> (B,), nats."""
        left = self.config.dim - self.config.num_components
        if not left:
            return torch.zeros(len(x), device=x.device)
        centred = x.double() - self.mean.double()
        w = self.components.double()
        squared = (centred - (centred @ w) @ w.T).square().sum(1)
        variance = self.residual_variance
        return -0.5 * (squared / variance + left * math.log(2 * math.pi * variance)).float()
