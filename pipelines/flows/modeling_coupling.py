"""Coupling flows on vectors: invertible layers, each of which moves one half of x by what it sees in the other half.

    z = f_T(...f_1(x)),  log p(x) = log N(z; 0, I) + sum_t log |det df_t|

A layer's Jacobian is triangular, so its log-determinant is a sum. Affine layers scale and shift (Dinh, Sohl-Dickstein and
Bengio, "Density estimation using Real NVP", arXiv 1605.08803); spline layers bend (Durkan et al., arXiv 1906.04032).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from pipelines.flows.gaussian import scaled, standard_normal
from pipelines.flows.splines import spline
from pipelines.specs import check_config, refuse_weights

TRANSFORMS = ("spline", "affine")
MOST_LOG_SCALE = 3.0  # of an affine layer: no input makes it overflow


@dataclass
class FlowOutput(BaseOutput):
    """What `forward` gives.

    Attributes:
        z: (B, D), of x.
        log_det: (B,), log |det dz/dx|.
        log_prob: (B,), log p(x) or log p(x|c), nats.
    """

    z: Tensor = None
    log_det: Tensor = None
    log_prob: Tensor = None


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """The layer in the type of x: weights of half precision measure in float32, and an inverse is computed in float64."""
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


class Coupling(nn.Module):
    """One layer: what `kept` says is seen by a small network, which says how the rest is moved; the identity at first.

    With `elementwise` each number of the first half moves too, by a transform of its own that sees nothing.
    """

    def __init__(
        self, kept: Tensor, classes: int, width: int, transform: str, bins: int, bound: float, elementwise: bool
    ):
        super().__init__()
        places = {"kept": kept.nonzero()[:, 0], "moved": (~kept).nonzero()[:, 0]}
        for name, value in (*places.items(), ("order", torch.cat(list(places.values())).argsort())):
            self.register_buffer(name, value, persistent=False)
        self.transform, self.bound, self.classes = transform, bound, classes
        self.numbers = 3 * bins - 1 if transform == "spline" else 2
        self.first = nn.Linear(len(self.kept) + classes, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, len(self.moved) * self.numbers)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.own = nn.Parameter(torch.zeros(len(self.kept), self.numbers)) if elementwise else None

    def _moved(self, x: Tensor, parameters: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """x (B, M) by parameters (B, M, numbers) -> (B, M) and log |det| (B,); or back."""
        if self.transform == "affine":
            shift, raw = parameters.unbind(-1)
            return scaled(x, shift, raw, MOST_LOG_SCALE, inverse)
        x, log_slope = spline(x, parameters, self.bound, inverse)
        return x, log_slope.sum(1)

    def forward(self, x: Tensor, class_labels: Tensor | None, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """x (B, D) -> the layer's output (B, D) and its log-determinant (B,); or back."""
        kept, moved, of_kept = x.index_select(1, self.kept), x.index_select(1, self.moved), 0.0
        own = None if self.own is None else self.own.to(x.dtype).expand(len(x), -1, -1)
        if own is not None and inverse:  # the network has seen what was there before
            kept, of_kept = self._moved(kept, own, inverse=True)
        h = kept
        if self.classes:
            h = torch.cat([h, F.one_hot(class_labels, self.classes).to(h.dtype)], 1)
        h = F.relu(linear(F.relu(linear(h, self.first)), self.second))
        parameters = linear(h, self.last).unflatten(1, (len(self.moved), self.numbers))
        if own is not None and not inverse:  # all numbers at once
            y, log_det = self._moved(torch.cat([kept, moved], 1), torch.cat([own, parameters], 1))
            return y.index_select(1, self.order), log_det
        moved, log_det = self._moved(moved, parameters, inverse)
        return torch.cat([kept, moved], 1).index_select(1, self.order), log_det + of_kept


class CouplingFlowModel(ModelMixin, ConfigMixin):
    """An invertible network on vectors, whose density is exact.

    Args:
        data_spec: what x is: a vector of at least two real dimensions.
        transform: "spline" or "affine", what a layer does to the half that it moves.
        num_blocks: layers; every second one moves the other half.
        width: hidden units of each layer's network.
        num_bins: of a spline.
        bound: splines are the identity outside of [-bound, bound], in standard deviations of the data.
        conditional: whether each layer is told the class.
        elementwise: whether each number of the half that a layer sees moves too, by a transform of its own (arXiv 1906.04032,
            section 4.1): one layer is then as good as two, at little more cost.

    Raises:
        ValueError: the config is not of these values, or x is no such vector.
    """

    @register_to_config
    def __init__(
        self,
        data_spec: dict,
        transform: str = "spline",
        num_blocks: int = 8,
        width: int = 64,
        num_bins: int = 16,
        bound: float = 4.0,
        conditional: bool = False,
        elementwise: bool = False,
    ):
        super().__init__()
        check_config(self)
        if data_spec["kind"] != "vector" or data_spec["shape"][0] < 2:
            raise ValueError(
                f"data_spec is of {data_spec['kind']} {data_spec['shape']}; it must be a vector of two or more"
            )
        if transform not in TRANSFORMS:
            raise ValueError(f"transform is {transform!r}; it must be one of {', '.join(TRANSFORMS)}")
        if not 2 <= num_bins <= 256:
            raise ValueError(f"num_bins is {num_bins}; it must be from 2 to 256")
        if not 0 < bound <= 1_000:
            raise ValueError(f"bound is {bound}; it must be above 0 and at most 1000")
        if conditional and not data_spec["num_classes"]:
            raise ValueError("conditional is True, but the data have no classes")
        dim, classes = data_spec["shape"][0], data_spec["num_classes"] if conditional else 0
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        half = torch.arange(dim) < dim // 2
        layers = []
        for number in range(num_blocks):
            # of many dimensions every second pair of layers parts them in another way: even ones from odd ones
            kept = half if number % 4 < 2 or dim == 2 else torch.arange(dim) % 2 == 0
            layers.append(
                Coupling(kept if number % 2 else ~kept, classes, width, transform, num_bins, bound, elementwise)
            )
        self.layers = nn.ModuleList(layers)

    def check_values(self) -> None:
        """Raises a ValueError where the scale of the data is none."""
        refuse_weights(("std", bool((self.std > 0).all()), "each must be above 0"))

    def set_scale(self, points: Tensor) -> None:
        """Take mean and standard deviation of the data from rows (N, D).

        Raises:
            ValueError: a column is constant.
        """
        std, mean = torch.std_mean(points.double(), dim=0)
        constant = (~(std > 1e-6 * (1 + mean.abs()))).nonzero()[:, 0].tolist()
        if constant:
            raise ValueError(f"column {constant[0]} has standard deviation 0; a flow has no density of a constant")
        self.mean.copy_(mean)
        self.std.copy_(std)

    def steps(self, x: Tensor, class_labels: Tensor | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """x (B, D) and what each layer makes of it, the first the standardised x: T + 2 of (B, D); T + 1 log-dets (B,)."""
        mean, std = self.mean.to(x.dtype), self.std.to(x.dtype)
        points, log_dets = [x, (x - mean) / std], [-std.log().sum().expand(len(x))]
        for layer in self.layers:
            point, log_det = layer(points[-1], class_labels)
            points.append(point)
            log_dets.append(log_det)
        return points, log_dets

    def forward(self, x: Tensor, class_labels: Tensor | None = None) -> FlowOutput:
        """x (B, D), class_labels (B,) of a conditional flow -> z, log |det| and log p(x)."""
        points, log_dets = self.steps(x, class_labels)
        z, log_det = points[-1], torch.stack(log_dets).sum(0)
        return FlowOutput(z=z, log_det=log_det, log_prob=standard_normal(z) + log_det)

    def inverse(self, z: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """z (B, D) -> x (B, D)."""
        for layer in reversed(self.layers):
            z, _ = layer(z, class_labels, inverse=True)
        return z * self.std.to(z.dtype) + self.mean.to(z.dtype)
