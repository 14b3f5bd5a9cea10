"""A Gaussian mixture, fitted by expectation and maximisation.

    p(x) = sum_k w_k N(x; m_k, S_k)

EM asks which component each point comes from (the responsibilities, under the parameters so far) and sets the
parameters to the moments of the points so shared out; no iteration lowers the likelihood (Dempster, Laird and Rubin,
"Maximum Likelihood from Incomplete Data via the EM Algorithm", 1977; Bishop, "Pattern Recognition and Machine Learning",
section 9.2). Covariances are kept by their Cholesky factors, and everything is computed in float64.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

COVARIANCES = ("full", "tied", "diag", "spherical")
LOG_2PI = math.log(2 * math.pi)
ROWS = 4_096  # at once
LLOYD = 20  # iterations of k-means before the first of EM


@dataclass
class EMStep(BaseOutput):
    """One iteration: expectation under the parameters before it, then new parameters.

    Attributes:
        step, num_steps: counted from 0; num_steps is the most there can be.
        model: with the new parameters.
        log_likelihood: the mean of log p(x) under the parameters before this step, nats; it never falls.
        converged: whether it rose by less than `tol`.
    """

    step: int
    num_steps: int
    model: "GaussianMixtureModel"
    log_likelihood: float
    converged: bool


def check_fit(x: Tensor, num_components: int, covariance_type: str) -> None:
    """Raise a ValueError unless so many components can be fitted to x."""
    if covariance_type not in COVARIANCES:
        raise ValueError(f"covariance_type is {covariance_type!r}; it must be one of {', '.join(COVARIANCES)}")
    if x.ndim != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be (N, D)")
    if isinstance(num_components, bool) or not isinstance(num_components, int) or num_components < 1:
        raise ValueError(f"num_components is {num_components!r}; it must be an integer of at least 1")
    if len(x) < max(2, num_components):
        raise ValueError(
            f"num_components is {num_components}, but x holds {len(x)} points; it needs at least as many, and 2"
        )
    if not x.isfinite().all():
        raise ValueError("x holds NaN or infinite values; all must be finite")
    constant = (x == x[0]).all(0).nonzero()
    if len(constant):
        column = int(constant[0])
        raise ValueError(
            f"column {column} of x is constant ({x[0, column]:.4g}); a density needs every column to vary: drop it, or "
            "bring the data to fewer dimensions"
        )


class GaussianMixtureModel(ModelMixin, ConfigMixin):
    """K Gaussians and their weights; where it is conditional, each belongs to a class.

    Args:
        num_components: K.
        dim: D.
        covariance_type: "full" (each its own), "tied" (one for all), "diag" or "spherical".
        conditional: whether components have classes, so that p(x|c) is known too.
        num_classes: how many.

    Attributes:
        weights: (K,), with sum 1.
        means: (K, D).
        scale: lower Cholesky factors of the covariances, (K, D, D), or (D, D) where tied; standard deviations where
            they are diagonal (K, D) or spherical (K,).
        component_classes: (K,) int64, or None.
    """

    @register_to_config
    def __init__(
        self,
        num_components: int,
        dim: int,
        covariance_type: str = "full",
        conditional: bool = False,
        num_classes: int = 0,
    ):
        super().__init__()
        if covariance_type not in COVARIANCES:
            raise ValueError(f"covariance_type is {covariance_type!r}; it must be one of {', '.join(COVARIANCES)}")
        k, d = num_components, dim
        shape = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[covariance_type]
        self.weights = nn.Parameter(torch.full((k,), 1 / k), requires_grad=False)
        self.means = nn.Parameter(torch.zeros(k, d), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(shape), requires_grad=False)
        classes = torch.zeros(k, dtype=torch.int64)
        self.component_classes = nn.Parameter(classes, requires_grad=False) if conditional else None

    # Fitting

    @classmethod
    def fit(cls, x: Tensor, num_components: int, covariance_type: str = "full", **arguments) -> "GaussianMixtureModel":
        """The mixture when EM has converged; arguments and errors as of `em_steps`."""
        *_, last = cls.em_steps(x, num_components, covariance_type, **arguments)
        return last.model

    @classmethod
    def em_steps(
        cls,
        x: Tensor,
        num_components: int,
        covariance_type: str = "full",
        class_labels: Tensor | None = None,
        num_classes: int = 0,
        max_iter: int = 100,
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        seed: int = 0,
        initial: Tensor | None = None,
    ) -> Iterator[EMStep]:
        """EM on (N, D), step by step, until the mean log-likelihood rises by less than `tol` nats.

        Args:
            class_labels: (N,) int64: so many components are fitted to each class by itself, and joined with weights as
                the classes' counts. Only the last step's model then holds all classes.
            reg_covar: added to all variances.
            seed: of the k-means that EM starts from.
            initial: (N,) int64 clusters or (N, K) responsibilities to start from instead.

        Raises:
            ValueError: fewer points than components (in a class), a constant column, values that are not finite.
        """
        if class_labels is None:
            check_fit(x, num_components, covariance_type)
            yield from cls._em(x.double(), num_components, covariance_type, max_iter, tol, reg_covar, seed, initial)
            return
        fitted, done = [], 0
        for label in range(num_classes):
            rows = x[class_labels == label].double()
            try:
                check_fit(rows, num_components, covariance_type)
            except ValueError as error:
                raise ValueError(f"class {label}: {error}") from None
            for step in cls._em(rows, num_components, covariance_type, max_iter, tol, reg_covar, seed, None):
                last = step.converged or step.step == max_iter - 1
                if last:
                    fitted.append(step.model)
                    if label == num_classes - 1:
                        counts = torch.bincount(class_labels, minlength=num_classes)
                        step.model = cls._joined(fitted, counts / counts.sum(), covariance_type)
                yield EMStep(done + step.step, done + step.num_steps, step.model, step.log_likelihood, step.converged)
            done += step.step + 1

    @classmethod
    def _em(cls, x, count, covariance_type, max_iter, tol, reg_covar, seed, initial) -> Iterator[EMStep]:
        if initial is None:
            initial = _nearest(x, _centres(x, count, seed))
        if initial.ndim == 1:
            initial = torch.nn.functional.one_hot(initial.long(), count)
        if initial.shape != (len(x), count):
            raise ValueError(f"initial has shape {tuple(initial.shape)}; it must be ({len(x)},) or ({len(x)}, {count})")
        model = cls(count, x.shape[1], covariance_type).double()
        model._maximise(x, initial.double(), reg_covar)
        before = -math.inf
        for step in range(max_iter):
            log_p, responsibilities = model._expect(x)
            now = log_p.mean().item()
            model = cls(count, x.shape[1], covariance_type).double()
            model._maximise(x, responsibilities, reg_covar)
            converged = now - before < tol
            yield EMStep(step, max_iter, model.float_copy(), now, converged)
            if converged:
                return
            before = now

    def float_copy(self) -> "GaussianMixtureModel":
        """The same mixture with parameters in float32."""
        other = type(self)(**{k: v for k, v in self.config.items() if not k.startswith("_")})
        other.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in self.state_dict().items()})
        return other

    @classmethod
    def _joined(
        cls, parts: list["GaussianMixtureModel"], shares: Tensor, covariance_type: str
    ) -> "GaussianMixtureModel":
        """One mixture of those of all classes; a covariance that is tied within a class becomes that of each component."""
        k, d = parts[0].means.shape
        kind = "full" if covariance_type == "tied" else covariance_type
        model = cls(len(parts) * k, d, kind, True, len(parts))
        model.weights.data = torch.cat([share * part.weights for share, part in zip(shares, parts, strict=True)])
        model.means.data = torch.cat([part.means for part in parts])
        scales = [part.scale.expand(k, d, d) if covariance_type == "tied" else part.scale for part in parts]
        model.scale.data = torch.cat(scales).contiguous()
        model.component_classes.data = torch.arange(len(parts)).repeat_interleave(k)
        return model

    def _expect(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x) (N,) and responsibilities (N, K)."""
        joint = self.component_log_prob(x) + self.weights.double().log()
        log_p = torch.logsumexp(joint, 1)
        return log_p, (joint - log_p[:, None]).exp_()

    @torch.no_grad()
    def _maximise(self, x: Tensor, responsibilities: Tensor, reg_covar: float) -> None:
        """Weights, means and covariances of points shared out by responsibilities, in float64."""
        kind, dim = self.config.covariance_type, x.shape[1]
        mass = responsibilities.sum(0) + 10 * torch.finfo(torch.float64).eps  # a component may lose all its points
        means = responsibilities.T @ x / mass[:, None]
        self.weights.data, self.means.data = mass / mass.sum(), means
        if kind in ("diag", "spherical"):
            squares = responsibilities.T @ x.square() / mass[:, None]
            variances = (squares - means.square()).clamp(min=0) + reg_covar
            self.scale.data = (variances if kind == "diag" else variances.mean(1)).sqrt()
            return
        if kind == "tied":
            covariance = (x.T @ x - (means * mass[:, None]).T @ means) / mass.sum()
        else:
            covariance = torch.empty(len(mass), dim, dim, dtype=torch.float64, device=x.device)
            for k in range(len(mass)):
                total = torch.zeros(dim, dim, dtype=torch.float64, device=x.device)
                for rows, shares in zip(x.split(ROWS), responsibilities[:, k].split(ROWS), strict=True):
                    centred = rows - means[k]
                    total.addmm_((centred * shares[:, None]).T, centred)
                covariance[k] = total / mass[k]
        covariance.diagonal(dim1=-2, dim2=-1).add_(reg_covar)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if failed.any():
            raise ValueError(
                "a covariance is not positive: columns of x depend on each other, or a component holds too few points; "
                "raise reg_covar, take fewer components, or bring the data to fewer dimensions"
            )
        self.scale.data = factor

    # Densities

    def component_log_prob(self, x: Tensor) -> Tensor:
        """log N(x; m_k, S_k) of each component: (B, D) -> (B, K), float64, nats."""
        kind, (count, dim) = self.config.covariance_type, self.means.shape
        means, scale = self.means.double(), self.scale.double()
        if kind in ("full", "tied"):
            eye = torch.eye(dim, dtype=torch.float64, device=means.device)
            inverse = torch.linalg.solve_triangular(scale, eye.expand_as(scale), upper=False)  # L^-1
            log_det = scale.diagonal(dim1=-2, dim2=-1).log().sum(-1).expand(count)
            whiten = inverse if kind == "full" else inverse.expand(count, dim, dim)
        else:
            spread = scale if kind == "diag" else scale[:, None].expand(count, dim)
            log_det = spread.log().sum(1)
        found = torch.empty(len(x), count, dtype=torch.float64, device=x.device)
        for begin in range(0, len(x), ROWS):
            rows = x[begin : begin + ROWS].double()
            for k in range(count):
                if kind in ("full", "tied"):
                    # L^-1 (x - m) as one product: the mean is taken through it beforehand
                    white = torch.addmm(-(whiten[k] @ means[k]), rows, whiten[k].T)
                else:
                    white = (rows - means[k]) / spread[k]
                found[begin : begin + ROWS, k] = torch.linalg.vector_norm(white, dim=1).square_()
        return -0.5 * (found + dim * LOG_2PI) - log_det

    @torch.no_grad()
    def log_prob(self, x: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """log p(x), or log p(x|c): (B, D), (B,) -> (B,), nats, exact."""
        joint = self.component_log_prob(x)
        return torch.logsumexp(joint + self._log_weights(len(x), class_labels), 1).float()

    @torch.no_grad()
    def responsibilities(self, x: Tensor) -> Tensor:
        """The probability of each component given x: (B, D) -> (B, K)."""
        return self._expect(x)[1].float()

    def _log_weights(self, count: int, class_labels: Tensor | None) -> Tensor:
        """log weights (B, K); given the class those of its components alone, with sum 1."""
        log_weights = self.weights.double().log().expand(count, -1)
        if class_labels is None:
            return log_weights
        mine = self.component_classes == class_labels[:, None]
        return torch.log_softmax(torch.where(mine, log_weights, -torch.inf), 1)

    @property
    def num_free_parameters(self) -> int:
        k, d = self.means.shape
        kind = self.config.covariance_type
        covariances = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d, "spherical": k}[kind]
        return covariances + k * d + k - 1

    def bic(self, x: Tensor) -> float:
        """Bayesian information criterion, lower is better: -2 sum log p(x) + parameters log N. (N, D) -> float."""
        return -2 * self.log_prob(x).double().sum().item() + self.num_free_parameters * math.log(len(x))

    def draw(
        self, uniform: Tensor, normal: Tensor, class_labels: Tensor | None = None, component: int | None = None
    ) -> Tensor:
        """Samples as a function of noise: (B,) in [0, 1) chooses the component, (B, D) the place in it -> (B, D)."""
        count = len(self.means)
        if component is not None:
            if not 0 <= component < count:
                raise ValueError(f"component is {component}; it must lie between 0 and {count - 1}")
            chosen = torch.full((len(normal),), component, device=normal.device)
        else:
            reached = self._log_weights(len(normal), class_labels).exp().cumsum(1)
            # what is beyond the last by rounding belongs to the last that has a weight
            chosen = (reached < (uniform.double() * reached[:, -1])[:, None]).sum(1).clamp(max=count - 1)
        kind, scale, means = self.config.covariance_type, self.scale.float(), self.means.float()[chosen]
        if kind == "tied":
            return means + normal @ scale.T
        if kind == "full":
            return means + torch.einsum("bij,bj->bi", scale[chosen], normal)
        return means + (scale[chosen] if kind == "diag" else scale[chosen, None]) * normal


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    return torch.cat([torch.cdist(rows, centres).argmin(1) for rows in x.split(ROWS)])


def _centres(x: Tensor, count: int, seed: int) -> Tensor:
    """K-means: points far from each other (k-means++), then Lloyd's iterations."""
    generator = torch.Generator().manual_seed(seed)
    chosen = [int(torch.randint(len(x), (), generator=generator))]
    squared = (x - x[chosen[0]]).square().sum(1)
    while len(chosen) < count:
        weights = squared if squared.sum() > 0 else torch.ones_like(squared)  # all points that are left are doubles
        reached = weights.cumsum(0)  # multinomial takes no more than 2^24 weights
        chosen.append(int(torch.searchsorted(reached, reached[-1] * torch.rand((), generator=generator).double())))
        squared = torch.minimum(squared, (x - x[chosen[-1]]).square().sum(1))
    centres = x[chosen].clone()
    for _ in range(LLOYD):
        nearest = _nearest(x, centres)
        counts = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, nearest, x)
        moved = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres
