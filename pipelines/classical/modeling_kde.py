"""Kernel density estimation: every training point x_i becomes a small Gaussian, and the density is their mean.

    p(x) = 1/N sum_i N(x; x_i, h^2 I)          p(x|c) = the same over the points of class c

Parzen, "On Estimation of a Probability Density Function and Mode", 1962, in D dimensions. There is nothing to train:
the points are the model, and only the bandwidth h is chosen, by a rule or by the likelihood of points left out.

The sum is exact. It runs in blocks that stay in the cache of a CPU, with a running maximum and a running sum, so that
memory does not grow with the number of pairs and no density underflows, however far x lies from the points.
"""

import math
from collections.abc import Callable, Iterator
from numbers import Real

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from pipelines.specs import check_config, refuse_weights

LOG_2PI = math.log(2 * math.pi)
RULES = ("scott", "silverman", "held_out")
LOG_2 = math.log(2)
FEW_DIMENSIONS = 4  # up to here differences are as fast as a matrix product
HELD_OUT_QUERIES = 5_000  # points that choose a bandwidth

# torch shares an operation on 2^15 numbers or more among its threads, which wait for each other at the end of each:
# beside other work on the machine that can take a hundred times as long as one thread does. So sums run in pieces
# smaller than that. A matrix product is shared whatever its size, so there are few and large ones. A GPU takes more.
PIECE, PRODUCT, GPU_BLOCK = 2**15 - 1, 2**20, 2**24
COLUMNS = 1024  # points at once, where there are as many

Strip = Callable[[slice], Iterator[Tensor]]


def _by_differences(x: Tensor, points: Tensor, bandwidth: float, width: int) -> Strip:
    """-|x - x_i|^2 / (2 h^2 log 2) of some rows of x and all points: float32 blocks from left to right.

    Differences of float32 numbers lose nothing where they are small, which is where the density lies.
    """
    power = 2.0 ** -round(math.log2(bandwidth))  # to multiply by it is exact, and keeps squares in the float32 range
    factor = -0.5 / (bandwidth * power) ** 2 / LOG_2
    x, zero = x * power, x.new_zeros(())
    columns = [part.unbind() for part in (points * power).T.contiguous().split(width, 1)]

    def strip(rows: slice) -> Iterator[Tensor]:
        own = x[rows, :, None].unbind(1)
        for part in columns:
            exponent = zero
            for a, b in zip(own, part, strict=True):  # dimension by dimension
                gap = a - b
                exponent = torch.addcmul(exponent, gap, gap, value=factor)
            yield exponent

    return strip


def _by_products(x: Tensor, points: Tensor, bandwidth: float, width: int) -> Strip:
    """The same as matrix products, (x x_i - |x|^2 / 2 - |x_i|^2 / 2) / log 2 in units of h, for many dimensions.

    The three terms cancel, so they are float64 and measured from the mean of the points.
    """
    center = points.double().mean(0)
    x, points = (x.double() - center) / bandwidth, (points.double() - center) / bandwidth
    left = torch.cat([x, x.square().sum(1, keepdim=True).mul(-0.5), x.new_ones(len(x), 1)], 1) / LOG_2
    right = torch.cat([points, points.new_ones(len(points), 1), points.square().sum(1, keepdim=True).mul(-0.5)], 1)
    columns = right.T.split(width, 1)
    return lambda rows: (left[rows] @ part for part in columns)


def _without(blocks: Iterator[Tensor], left_out: Tensor) -> Iterator[Tensor]:
    """The blocks, in which row i does not count the point left_out[i]."""
    first = 0
    for exponent in blocks:
        column = left_out - first
        here = ((column >= 0) & (column < exponent.shape[1])).nonzero()[:, 0]
        exponent[here, column[here]] = -math.inf
        first += exponent.shape[1]
        yield exponent


def _log2_sum(blocks: Iterator[Tensor], piece: int) -> Tensor:
    """log2 of the sum of 2^exponent over all columns of blocks (n, ...), `piece` rows at a time: (n,) float64.

    The maximum so far is subtracted before the power is taken, and the sum is rescaled when a block raises it: Milakov
    and Gimelshein, "Online normalizer calculation for softmax", arXiv 1805.02867, algorithm 3.
    """
    most = total = None
    for block in blocks:
        if most is None:  # finite from the start: an exponent of -inf then leads to no inf - inf
            most = [e.new_full((len(e), 1), torch.finfo(torch.float32).min) for e in block.split(piece)]
            total = [torch.zeros_like(m, dtype=torch.float64) for m in most]
        for i, exponent in enumerate(block.split(piece)):
            new = torch.maximum(most[i], exponent.amax(1, keepdim=True))
            total[i] *= (most[i] - new).exp2_()
            # 2^-124 adds nothing to a sum of at least 1; powers below it, not normal numbers, are 40 times slower.
            # torch shares exp(), unlike exp2(), whatever its size
            total[i] += exponent.sub_(new).float().clamp_(min=-124).exp2_().sum(1, keepdim=True)
            most[i] = new
    return torch.cat([(t.log2_() + m)[:, 0] for t, m in zip(total, most, strict=True)])


def log_kernel_sum(x: Tensor, points: Tensor, bandwidth: float, left_out: Tensor | None = None) -> Tensor:
    """log sum_i exp(-|x - x_i|^2 / 2 h^2): x (B, D), points (N, D), both float32 -> (B,) float64.

    `left_out` (B,) int64 names for each x one point that is not counted.
    """
    few, on_cpu = points.shape[1] <= FEW_DIMENSIONS, x.device.type == "cpu"
    piece = PIECE if on_cpu else GPU_BLOCK
    height = max(1, min(len(x), (PRODUCT if on_cpu and not few else piece) // min(len(points), COLUMNS)))
    width = min(len(points), max(COLUMNS, piece // height))  # few x take more points at once
    exponents = (_by_differences if few else _by_products)(x, points, bandwidth, width)
    sums = []
    for top in range(0, max(1, len(x)), height):
        rows = slice(top, top + height)
        blocks = exponents(rows) if left_out is None else _without(exponents(rows), left_out[rows])
        sums.append(_log2_sum(blocks, max(1, piece // width)))
    return LOG_2 * torch.cat(sums)


def golden_section_maximum(function: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    """Where `function` is largest in [low, high], within `tolerance`, if it has one maximum; the ends included.

    Kiefer, "Sequential Minimax Search for a Maximum", 1953: each step keeps 0.618 of the interval and one value.
    """
    ratio = (math.sqrt(5) - 1) / 2
    ends = (low, high)
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > tolerance:
        if at_left >= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    if low == ends[0]:  # the maximum was never seen to lie inside
        return low
    return high if high == ends[1] else (low + high) / 2


def _check_data(x: Tensor) -> Tensor:
    """x as float32 (N, D) with N >= 2 and D >= 1, finite."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x is a {type(x).__name__}; it must be a floating point tensor (N, D)")
    if not x.is_floating_point() or x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"x has shape {tuple(x.shape)} and dtype {x.dtype}; it must be a floating point tensor (N, D)")
    if len(x) < 2:
        raise ValueError(f"x holds {len(x)} points; a density needs at least 2")
    x = x.detach().float()
    if not x.isfinite().all():
        raise ValueError("x holds NaN or infinite values; all must be finite")
    return x


def _check_labels(class_labels: Tensor, count: int, num_classes: int) -> Tensor:
    """class_labels as int64 (count,) in [0, num_classes)."""
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
    return class_labels.long()


class KDEModel(ModelMixin, ConfigMixin):
    """A Gaussian kernel density estimate with one bandwidth for all points and columns. `fit` makes one.

    Weights: points (N, D), bandwidth () and, where conditional, point_classes (N,) int64. They may have any dtype;
    all computing is float32 or float64.

    Args:
        num_points: N.
        dim: D.
        conditional: whether each point has a class.
        num_classes: how many there are.

    Raises:
        ValueError: if N or D is no positive integer, or a conditional model has no classes.
    """

    @register_to_config
    def __init__(self, num_points: int, dim: int, conditional: bool = False, num_classes: int = 0):
        super().__init__()
        check_config(self)
        if conditional and num_classes < 1:
            raise ValueError("conditional is True, but the data has no classes")
        # parameters, so that saving, dtype and device take care of them; nothing here learns by gradient
        self.points = nn.Parameter(torch.zeros(num_points, dim), requires_grad=False)
        self.bandwidth = nn.Parameter(torch.ones(()), requires_grad=False)
        self.point_classes = None
        if conditional:
            self.point_classes = nn.Parameter(torch.zeros(num_points, dtype=torch.int64), requires_grad=False)

    def check_values(self) -> None:
        """Raises a ValueError where the weights are those of no density."""
        classes, count = self.point_classes, self.config.num_classes
        refuse_weights(
            ("bandwidth", self.bandwidth > 0, "it must be above 0"),
            (
                "point_classes",
                classes is None or ((classes >= 0) & (classes < count)).all(),
                f"classes go from 0 to {count - 1}",
            ),
        )

    @classmethod
    @torch.no_grad()
    def fit(
        cls, x: Tensor, bandwidth: str | float = "scott", class_labels: Tensor | None = None, num_classes: int = 0
    ) -> "KDEModel":
        """The density estimate of these points.

        With s the mean over columns of the standard deviation (one h serves all columns, so columns should be of
        similar scale), `bandwidth` is one of
            "scott"      h = s N^(-1 / (D + 4)); Scott, "Multivariate Density Estimation", 1992, equation 6.42
            "silverman"  h = s (N (D + 2) / 4)^(-1 / (D + 4)), the best h where the data are one Gaussian;
                         Silverman, "Density Estimation for Statistics and Data Analysis", 1986, section 4.3.2
            "held_out"   the h between Silverman's / 30 and 3 times Silverman's that maximises, within 1 %, the mean
                         of log p(x_i) under all the other points; Duin, "On the Choice of Smoothing Parameters for
                         Parzen Estimators", 1976. Of more than 5 000 points 5 000 are asked, always the same. Where
                         every point is there twice the likelihood has no maximum, and h is the lower end.
            a number     h itself.
        Classes play no part in it.

        Args:
            x: (N, D) floating point; kept in float32.
            class_labels: (N,) integers; makes the model conditional.
            num_classes: how many classes there are, with `class_labels` only.

        Raises:
            ValueError: x is not (N, D), has fewer than 2 points or values that are not finite; a column is constant
                and h is to be estimated; the bandwidth is no rule and no positive finite number; class_labels has
                another shape or holds a class out of range.
        """
        x = _check_data(x)
        if class_labels is None:
            num_classes = 0
        else:
            if num_classes < 1:
                raise ValueError(f"num_classes is {num_classes}; with class_labels it must be at least 1")
            class_labels = _check_labels(class_labels, len(x), num_classes)
        model = cls(*x.shape, conditional=class_labels is not None, num_classes=num_classes)
        model.to(x.device)
        model.points.copy_(x)
        model.bandwidth.copy_(torch.tensor(cls._bandwidth(x, bandwidth)))
        if class_labels is not None:
            model.point_classes.copy_(class_labels)
        return model.eval()

    @staticmethod
    def _bandwidth(x: Tensor, bandwidth: str | float) -> float:
        """h by a rule, or the number that was given."""
        if bandwidth not in RULES:
            number = isinstance(bandwidth, Real) and not isinstance(bandwidth, bool)
            # below `tiny` float32, in which h is kept, would make it zero
            if not number or not torch.finfo(torch.float32).tiny <= bandwidth <= torch.finfo(torch.float32).max:
                raise ValueError(f"bandwidth is {bandwidth!r}; it must be above 0, or one of {', '.join(RULES)}")
            return float(bandwidth)
        constant = (x.amin(0) == x.amax(0)).nonzero()
        if len(constant):
            column = constant[0].item()
            raise ValueError(
                f"column {column} of x is constant ({x[0, column].item():.4g}); a density needs every column to vary: "
                "drop it, or bring the data to fewer dimensions"
            )
        count, dim = x.shape
        # scikit-learn's KernelDensity(bandwidth="scott") takes s = 1: right only for standardised columns
        s = x.double().std(0).mean().item()
        if bandwidth == "scott":
            return s * count ** (-1 / (dim + 4))
        silverman = s * (count * (dim + 2) / 4) ** (-1 / (dim + 4))
        if bandwidth == "silverman":
            return silverman
        own = torch.arange(count, device=x.device)
        if count > HELD_OUT_QUERIES:
            own = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:HELD_OUT_QUERIES].to(x.device)

        def leave_one_out(log_h: float) -> float:
            """Mean log density, up to a constant, of points under all others."""
            return log_kernel_sum(x[own], x, math.exp(log_h), left_out=own).mean().item() - dim * log_h

        low, high = math.log(silverman / 30), math.log(silverman * 3)
        return math.exp(golden_section_maximum(leave_one_out, low, high, tolerance=0.01))

    def _check_x(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.config.dim:
            raise ValueError(f"x has shape {tuple(x.shape)}; this model takes (B, {self.config.dim})")
        return x.float()

    def _class_sizes(self, class_labels: Tensor, count: int) -> Tensor:
        """Points of each class (num_classes,), once it is known that every class asked for has some."""
        if self.point_classes is None:
            raise ValueError("class_labels is given, but this model was fitted without classes")
        _check_labels(class_labels, count, self.config.num_classes)
        sizes = torch.bincount(self.point_classes, minlength=self.config.num_classes)
        empty = class_labels[sizes[class_labels] == 0]
        if len(empty):
            raise ValueError(f"class_labels holds {empty[0].item()}, a class of which this model has no points")
        return sizes

    @torch.no_grad()
    def log_prob(self, x: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """log p(x), or with classes log p(x|c): (B, D) -> (B,) float32, nats; exact, and finite far in the tails.

        Args:
            x: (B, D); read as float32.
            class_labels: (B,) int64; each x then meets only the points of its class.

        Raises:
            ValueError: x is not (B, D); class_labels are given to a model without classes, do not fit x, are out of
                range, or name a class without points.
        """
        x, points, bandwidth = self._check_x(x), self.points.float(), self.bandwidth.item()
        if class_labels is None:
            log_mean = log_kernel_sum(x, points, bandwidth) - math.log(len(points))
        else:
            sizes = self._class_sizes(class_labels, len(x))
            log_mean = torch.empty(len(x), dtype=torch.float64, device=x.device)
            for c in class_labels.unique().tolist():
                asked = class_labels == c
                own = log_kernel_sum(x[asked], points[self.point_classes == c], bandwidth)
                log_mean[asked] = own - math.log(sizes[c].item())
        return (log_mean - self.config.dim * (math.log(bandwidth) + 0.5 * LOG_2PI)).float()

    @torch.no_grad()
    def draw(self, uniform: Tensor, normal: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Samples as a function of noise: one of the points, plus h times the normal noise; (B, D) float32.

        Args:
            uniform: (B,) in [0, 1); chooses the point, of the class where one is given.
            normal: (B, D), standard normal.
            class_labels: (B,) int64.

        Raises:
            ValueError: class_labels as in `log_prob`.
        """
        uniform = uniform.double()
        if class_labels is None:
            index = (uniform * len(self.points)).long().clamp(max=len(self.points) - 1)
        else:
            sizes = self._class_sizes(class_labels, len(uniform))
            by_class = self.point_classes.argsort(stable=True)
            place = (uniform * sizes[class_labels]).long().minimum(sizes[class_labels] - 1)  # among its class
            index = by_class[(sizes.cumsum(0) - sizes)[class_labels] + place]
        return self.points[index].float() + self.bandwidth.float() * normal.float()
