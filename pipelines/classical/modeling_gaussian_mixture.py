"""A mixture of K Gaussians, fitted by expectation maximisation.

    p(x) = sum_k w_k N(x; mu_k, C_k)          p(x|c) = the same over the components of class c, weights renormalised

Dempster, Laird and Rubin, "Maximum Likelihood from Incomplete Data via the EM Algorithm", 1977; the updates are those
of Bishop, "Pattern Recognition and Machine Learning", 2006, equations 9.23 to 9.27.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from pipelines.checks import check_count
from pipelines.classical.expectation_maximisation import Gaussians, cluster, em_updates
from pipelines.specs import check_config, refuse_weights

COVARIANCES = ("full", "tied", "diag", "spherical")


@dataclass
class EMStep(BaseOutput):
    """The state after `step` updates; step 0 is the start.

    Attributes:
        step: 0, 1, ...; it runs on through the classes where there are any.
        num_steps: how many there can be at most.
        model: the mixture of this step. With classes: that of all classes so far, the current one included.
        log_likelihood: mean log p(x) under this very mixture, nats per point. With classes: of the points of the
            current class, given the class.
        converged: whether log_likelihood changed by less than `tol` in this step; then it is the last one (of its
            class).
        class_label: the current class, where there are classes.
    """

    step: int
    num_steps: int
    model: "GaussianMixtureModel"
    log_likelihood: float
    converged: bool
    class_label: int | None = None


def _check_covariance_type(covariance_type: str) -> None:
    if covariance_type not in COVARIANCES:
        raise ValueError(f"covariance_type is {covariance_type!r}; it must be one of {', '.join(COVARIANCES)}")


def _check_data(x: Tensor) -> None:
    """x is floating point (N, D), finite, and no column is constant."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x is a {type(x).__name__}; it must be a floating point tensor (N, D)")
    if not x.is_floating_point() or x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"x has shape {tuple(x.shape)} and dtype {x.dtype}; it must be a floating point tensor (N, D)")
    if not x.isfinite().all():
        raise ValueError("x holds NaN or infinite values; all must be finite")
    constant = (x.amin(0) == x.amax(0)).nonzero()
    if len(constant):
        column = constant[0].item()
        raise ValueError(
            f"column {column} of x is constant ({x[0, column].item():.4g}); a density needs every column to vary: "
            "drop it, or bring the data to fewer dimensions"
        )


def _check_labels(class_labels: Tensor, count: int, num_classes: int) -> None:
    """class_labels are integers (count,) in [0, num_classes)."""
    if not isinstance(class_labels, Tensor):
        raise ValueError(f"class_labels is a {type(class_labels).__name__}; it must be an integer tensor ({count},)")
    if class_labels.is_floating_point() or class_labels.shape != (count,):
        raise ValueError(
            f"class_labels has shape {tuple(class_labels.shape)} and dtype {class_labels.dtype}; "
            f"it must be an integer tensor ({count},), one for each row"
        )
    wrong = class_labels[(class_labels < 0) | (class_labels >= num_classes)]
    if len(wrong):
        raise ValueError(f"class_labels holds {wrong[0].item()}; classes go from 0 to {num_classes - 1}")


def _responsibilities(initial: Tensor, count: int, num_components: int) -> Tensor:
    """Cluster labels (N,) or responsibilities (N, K), checked, as responsibilities."""
    shape = tuple(initial.shape)
    if shape not in ((count,), (count, num_components)):
        raise ValueError(
            f"initial has shape {shape}; it must be ({count},) cluster labels or ({count}, {num_components}) "
            "responsibilities"
        )
    if initial.ndim == 1:
        if initial.is_floating_point():
            raise ValueError(f"initial has dtype {initial.dtype}; cluster labels must be integers")
        wrong = initial[(initial < 0) | (initial >= num_components)]
        if len(wrong):
            raise ValueError(f"initial holds {wrong[0].item()}; cluster labels go from 0 to {num_components - 1}")
        return nn.functional.one_hot(initial.long(), num_components).to(torch.uint8)
    sums = initial.double().sum(1)
    if not (initial >= 0).all() or not ((sums - 1).abs() < 1e-3).all():
        raise ValueError("initial holds responsibilities that are negative or do not sum to 1 for a point")
    return initial


class GaussianMixtureModel(ModelMixin, ConfigMixin):
    """A mixture of Gaussians, with or without classes. `fit` makes one.

    Weights, all without gradient and of any dtype (all computing is float64): weights (K,), means (K, D), where
    conditional component_classes (K,) int64, and `scale`, by covariance type
        "full"       (K, D, D), lower Cholesky factors of the covariances;
        "tied"       (D, D), the one factor of all components; where conditional (num_classes, D, D), one for a class;
        "diag"       (K, D), standard deviations;
        "spherical"  (K,), standard deviations.

    Args:
        num_components: K, of all classes together.
        dim: D.
        covariance_type: one of the four.
        conditional: whether each component belongs to a class.
        num_classes: how many there are.

    Raises:
        ValueError: if K or D is no positive integer, the covariance type is unknown, or a conditional model has no
            classes.
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
        check_config(self)
        _check_covariance_type(covariance_type)
        if conditional and num_classes < 1:
            raise ValueError("conditional is True, but the data has no classes")

        def parameter(values: Tensor) -> nn.Parameter:
            return nn.Parameter(values, requires_grad=False)  # saved and moved with the model; not for gradients

        self.weights = parameter(torch.full((num_components,), 1 / num_components))
        self.means = parameter(torch.zeros(num_components, dim))
        if covariance_type == "full":
            scale = torch.eye(dim).repeat(num_components, 1, 1)
        elif covariance_type == "tied":
            scale = torch.eye(dim).repeat(num_classes, 1, 1) if conditional else torch.eye(dim)
        else:
            scale = torch.ones(num_components, dim) if covariance_type == "diag" else torch.ones(num_components)
        self.scale = parameter(scale)
        classes = torch.zeros(num_components, dtype=torch.int64)
        self.component_classes = parameter(classes) if conditional else None

    def check_values(self) -> None:
        """Raises a ValueError where the weights are those of no mixture."""
        weights, scale, classes = self.weights.double(), self.scale.double(), self.component_classes
        is_factor = self.config.covariance_type in ("full", "tied")
        deviations = scale.diagonal(dim1=-2, dim2=-1) if is_factor else scale
        refuse_weights(
            # in half precision they sum to 1 within K / 2048
            ("weights", (weights >= 0).all() and abs(weights.sum() - 1) < 0.01, "they must be shares that sum to 1"),
            ("scale", (deviations > 0).all(), "standard deviations must be above 0"),
            ("scale", not is_factor or not scale.triu(1).any(), "factors must be lower triangular"),
            (
                "component_classes",
                classes is None or ((classes >= 0) & (classes < self.config.num_classes)).all(),
                f"classes go from 0 to {self.config.num_classes - 1}",
            ),
        )

    # Fitting

    @classmethod
    def fit(cls, *args, **kwargs) -> "GaussianMixtureModel":
        """The mixture of the last step of `em_steps`; arguments and errors are the same.

        It may not have converged within `max_iter`; `em_steps` tells.
        """
        for step in cls.em_steps(*args, **kwargs):
            model = step.model
        return model

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
        """Fit a mixture by maximum likelihood and show each step: an iterator of `EMStep`.

        Step 0 is the mixture of the initial responsibilities; each further step is one E and one M step. With the same
        start, step n is what scikit-learn's GaussianMixture has after n iterations. On convergence scikit-learn has
        done one M step more, worth less than `tol`: it returns a mixture of which it has not seen the likelihood.

        Arguments are checked here and not at the first step.

        Args:
            x: (N, D) floating point.
            num_components: K; with classes, of each class.
            covariance_type: "full", "tied", "diag" or "spherical".
            class_labels: (N,) integers: a mixture is fitted to each class, one class after the other, and they are
                joined with the shares of the classes as weights.
            num_classes: how many classes there are, with `class_labels` only.
            max_iter: updates at most; with classes, for each.
            tol: a change of the mean log-likelihood, nats, below which EM has converged.
            reg_covar: added to all variances, so that no component shrinks to a point.
            seed: of the k-means that finds the initial responsibilities.
            initial: (N,) integer labels or (N, K) responsibilities to start from instead.

        Raises:
            ValueError: x is not (N, D), not finite, or has a constant column; there are fewer points than components,
                of a class too; covariance_type is unknown; a number is out of its range; class_labels or initial have
                another shape or values out of range. While it runs: a covariance becomes singular, which reg_covar
                prevents.
        """
        check_count("num_components", num_components, 1)
        check_count("max_iter", max_iter, 0)
        _check_covariance_type(covariance_type)
        for name, value in (("tol", tol), ("reg_covar", reg_covar)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value!r}; it must be a number of at least 0")
        _check_data(x)
        groups = [(None, torch.arange(len(x), device=x.device))]
        if class_labels is not None:
            check_count("num_classes", num_classes, 1)
            _check_labels(class_labels, len(x), num_classes)
            groups = [(c, (class_labels == c).nonzero()[:, 0]) for c in range(num_classes)]
        for c, members in groups:
            if len(members) < num_components:
                raise ValueError(
                    f"num_components is {num_components}, but {'x' if c is None else f'class {c}'} holds "
                    f"{len(members)} points; a component needs at least one: take fewer components or more points"
                )
        if initial is not None:
            initial = _responsibilities(initial, len(x), num_components)
        return cls._steps(x.detach(), groups, num_components, covariance_type, max_iter, tol, reg_covar, seed, initial)

    @classmethod
    def _steps(cls, x, groups, num_components, covariance_type, max_iter, tol, reg_covar, seed, initial):
        """The iterator of `em_steps`, class after class."""
        done, step = [], 0  # mixtures of the classes before, and their data's mean
        for c, members in groups:
            points = x[members].double()
            shift = points.mean(0)
            points -= shift
            if initial is None:
                start = _responsibilities(cluster(points, num_components, seed), len(points), num_components)
            else:
                start = initial[members].to(x.device)
            for gaussians, log_likelihood, converged in em_updates(
                points, covariance_type, num_components, start, max_iter, tol, reg_covar
            ):
                fitted = [*done, (c, len(members), gaussians, shift)]
                yield EMStep(
                    step=step,
                    num_steps=len(groups) * (max_iter + 1),
                    model=cls._joined(fitted, covariance_type, 0 if c is None else len(groups)),
                    log_likelihood=log_likelihood,
                    converged=converged,
                    class_label=c,
                )
                step += 1
            done = fitted

    @classmethod
    @torch.no_grad()
    def _joined(cls, fitted: list, covariance_type: str, num_classes: int) -> "GaussianMixtureModel":
        """One model of mixtures (class, number of points, Gaussians, shift)."""
        total = sum(count for _, count, _, _ in fitted)
        means = torch.cat([gaussians.means + shift for _, _, gaussians, shift in fitted])
        model = cls(*means.shape, covariance_type, conditional=num_classes > 0, num_classes=num_classes)
        model.to(means.device)
        model.means.copy_(means)
        shares = [gaussians.weights / gaussians.weights.sum() * (count / total) for _, count, gaussians, _ in fitted]
        model.weights.copy_(torch.cat(shares))
        scales = [gaussians.scale for _, _, gaussians, _ in fitted]
        if covariance_type == "tied":
            if num_classes:
                model.scale[: len(fitted)] = torch.stack(scales).to(model.scale.dtype)
            else:
                model.scale.copy_(scales[0])
        else:
            scale = torch.cat(scales)
            model.scale.copy_(scale[:, 0] if covariance_type == "spherical" else scale)
        if num_classes:
            each = means.shape[0] // len(fitted)
            model.component_classes.copy_(torch.tensor([c for c, _, _, _ in fitted]).repeat_interleave(each))
        return model.eval()

    # Densities

    def _gaussians(self, components: Tensor | None = None) -> Gaussians:
        """All components, or those of these indices (n,)."""
        weights, means, scale = self.weights.double(), self.means.double(), self.scale.double()
        kind = self.config.covariance_type
        if kind == "spherical":
            kind, scale = "diag", scale[:, None].expand_as(means)
        elif kind == "tied" and self.config.conditional:
            kind, scale = "full", scale[self.component_classes]
        if components is not None:
            weights, means = weights[components], means[components]
            scale = scale if kind == "tied" else scale[components]
        return Gaussians(kind, weights / weights.sum(), means, scale)

    def _log_joint(self, x: Tensor, gaussians: Gaussians) -> Iterator[Tensor]:
        """log(w_k N_k(x)), nats, (n, K) float64 for each block of x (B, D)."""
        if x.ndim != 2 or x.shape[1] != self.config.dim:
            raise ValueError(f"x has shape {tuple(x.shape)}; this model takes (B, {self.config.dim})")
        for part in x.split(gaussians.rows):
            yield gaussians.log_joint(part.double())[0]

    def _log_prob(self, x: Tensor, gaussians: Gaussians) -> Tensor:
        return torch.cat([joint.logsumexp(1) for joint in self._log_joint(x, gaussians)])

    def _of_class(self, class_label: int) -> Tensor:
        """Indices of the components of a class."""
        components = (self.component_classes == class_label).nonzero()[:, 0]
        if len(components) == 0:
            raise ValueError(f"class_labels holds {class_label}, a class of which this model has no components")
        return components

    def _check_classes(self, class_labels: Tensor, count: int) -> None:
        if self.component_classes is None:
            raise ValueError("class_labels is given, but this model was fitted without classes")
        _check_labels(class_labels, count, self.config.num_classes)

    @torch.no_grad()
    def log_prob(self, x: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """log p(x), or with classes log p(x|c): (B, D) -> (B,) float32, nats.

        Args:
            x: (B, D) floating point.
            class_labels: (B,) int64.

        Raises:
            ValueError: x is not (B, D); class_labels are given to a model without classes, do not fit x, are out of
                range, or name a class without components.
        """
        if class_labels is None:
            return self._log_prob(x, self._gaussians()).float()
        self._check_classes(class_labels, len(x))
        log_prob = torch.empty(len(x), device=x.device)
        for c in class_labels.unique().tolist():
            asked = class_labels == c
            log_prob[asked] = self._log_prob(x[asked], self._gaussians(self._of_class(c))).float()
        return log_prob

    @torch.no_grad()
    def component_log_prob(self, x: Tensor) -> Tensor:
        """log N(x; mu_k, C_k), nats: (B, D) -> (B, K) float32. ValueError if x is not (B, D)."""
        gaussians = self._gaussians()
        return torch.cat([(joint - gaussians.weights.log()).float() for joint in self._log_joint(x, gaussians)])

    @torch.no_grad()
    def responsibilities(self, x: Tensor) -> Tensor:
        """p(k|x), which sum to 1: (B, D) -> (B, K) float32. ValueError if x is not (B, D)."""
        return torch.cat([joint.softmax(1).float() for joint in self._log_joint(x, self._gaussians())])

    @property
    def num_free_parameters(self) -> int:
        """Numbers that a fit determines: weights, which sum to 1, means and the free entries of the covariances."""
        count, dim = self.means.shape
        triangle = dim * (dim + 1) // 2
        covariances = {
            "full": count * triangle,
            "tied": triangle * (self.config.num_classes if self.config.conditional else 1),
            "diag": count * dim,
            "spherical": count,
        }[self.config.covariance_type]
        return count - 1 + count * dim + covariances

    @torch.no_grad()
    def bic(self, x: Tensor) -> float:
        """The Bayesian information criterion of x (N, D), -2 sum log p(x) + num_free_parameters log N; less is better.

        Schwarz, "Estimating the Dimension of a Model", 1978. ValueError if x is not (N, D).
        """
        return -2 * self._log_prob(x, self._gaussians()).sum().item() + self.num_free_parameters * math.log(len(x))

    # Sampling

    @torch.no_grad()
    def draw(
        self,
        uniform: Tensor,
        normal: Tensor,
        class_labels: Tensor | None = None,
        component: int | None = None,
    ) -> Tensor:
        """Samples as a function of noise: the mean of a component plus its scale times the noise; (B, D) float32.

        Args:
            uniform: (B,) in [0, 1); chooses the component by its weight, among those of the class where one is given.
            normal: (B, D), standard normal.
            class_labels: (B,) int64.
            component: one component for all samples, 0 to K - 1, instead.

        Raises:
            ValueError: class_labels as in `log_prob`; component is out of range, or given together with class_labels.
        """
        count = len(self.weights)
        if component is not None:
            if class_labels is not None:
                raise ValueError("component and class_labels are both given; a component belongs to one class already")
            if not isinstance(component, Integral) or not 0 <= component < count:
                raise ValueError(f"component is {component!r}; components go from 0 to {count - 1}")
            chosen = torch.full((len(uniform),), component, device=uniform.device)
        elif class_labels is not None:
            self._check_classes(class_labels, len(uniform))
            chosen = torch.empty(len(uniform), dtype=torch.int64, device=uniform.device)
            for c in class_labels.unique().tolist():
                asked, components = class_labels == c, self._of_class(c)
                chosen[asked] = components[self._pick(uniform[asked], components)]
        else:
            chosen = self._pick(uniform, torch.arange(count, device=uniform.device))
        means, scale, noise = self.means.double(), self.scale.double(), normal.double()
        kind = self.config.covariance_type
        if kind == "spherical":
            spread = scale[chosen, None] * noise
        elif kind == "diag":
            spread = scale[chosen] * noise
        elif kind == "tied" and not self.config.conditional:
            spread = noise @ scale.T
        else:  # one factor after the other: a factor for each sample would take B D^2 numbers
            factors = chosen if kind == "full" else self.component_classes[chosen]
            spread = torch.empty_like(noise)
            for k in factors.unique().tolist():
                spread[factors == k] = noise[factors == k] @ scale[k].T
        return (means[chosen] + spread).float()

    def _pick(self, uniform: Tensor, components: Tensor) -> Tensor:
        """Positions in `components` (n,) that uniform numbers (B,) choose, by weight; one of weight 0 never."""
        cumulative = self.weights[components].double().cumsum(0)
        place = torch.searchsorted(cumulative, uniform.double() * cumulative[-1], right=True)
        return place.clamp(max=len(components) - 1)
