"""Glow: a flow on images of 8 bits, in several resolutions.

    levels k -> a place y in [k, k + 1) / 256 -> logit y -> squeeze, K steps, half of the channels become a code; again;

Each step is actnorm, an invertible 1x1 convolution and an affine coupling (Kingma and Dhariwal, arXiv 1807.03039). All codes
are draws of N(0, I): what leaves at a split is first standardised by what the other half says of it, what is left at the
top by a mean and a scale of its own, or of its class. The place within a level is drawn uniformly, or by a small flow that
sees the image (Ho et al., "Flow++", arXiv 1902.00275, section 3.1); in expectation log p(y) - log q(y|k) is a lower bound on
the log-probability of the levels.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from pipelines.flows.gaussian import scaled, standard_normal
from pipelines.flows.layers import MIXINGS, Actnorm, Affine, Mixing, squeeze, unsqueeze
from pipelines.specs import check_config

DEQUANTISATIONS = ("uniform", "variational")
EDGE = 1e-5  # the logit is taken of EDGE + (1 - 2 EDGE) y, which keeps off 0 and 1
WIDEST = 1.7  # standard deviations: a draw of N(0, 1) times this, through a sigmoid, is almost uniform
MOST_OF_A_SPLIT = 4.0  # of what leaves at a split: no input makes it overflow


@dataclass
class GlowOutput(BaseOutput):
    """What `forward` gives.

    Attributes:
        z: (B, D), the codes of all levels, the finest first.
        log_det: (B,), log |det dz/dy|, with y in pixels of [0, 256).
        log_q: (B,), of the place within the levels; 0 where it is uniform.
        log_prob: (B,), log p(y) - log q(y|k): in expectation a lower bound on log p(k), nats.
    """

    z: Tensor = None
    log_det: Tensor = None
    log_q: Tensor = None
    log_prob: Tensor = None


class Step(nn.Module):
    """Actnorm, 1x1 convolution, affine coupling."""

    def __init__(self, channels: int, width: int, depth: int, mixing: str):
        super().__init__()
        self.norm, self.mixing = Actnorm(channels), Mixing(channels, mixing)
        # Glow's own networks have ReLUs, which cost less
        self.coupling = Affine(channels, width, depth=depth, activation=nn.SiLU if depth else nn.ReLU)

    def forward(self, x: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        if inverse:
            x, of_coupling = self.coupling(x, inverse=True)
            x, of_mixing = self.mixing(x, self.norm, inverse=True)
        else:
            x, of_mixing = self.mixing(x, self.norm)
            x, of_coupling = self.coupling(x)
        return x, of_mixing + of_coupling

    def initialise(self, x: Tensor) -> Tensor:
        """Set the actnorm by these data; returns what the step makes of them."""
        self.norm.initialise(x)
        return self(x)[0]


class Dequantiser(nn.Module):
    """q(u|k): where in its level each pixel lies, a flow of affine couplings that see the image."""

    def __init__(self, channels: int, width: int, num_blocks: int):
        super().__init__()
        channels = 4 * channels
        self.features = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.SiLU(),
                                      nn.Conv2d(width, width, 3, padding=1), nn.SiLU())  # fmt: skip
        self.couplings = nn.ModuleList(Affine(channels, width, width, bool(i % 2)) for i in range(num_blocks))

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W) in [0, 1], noise of N(0, I) -> u in (0, 1) and log q(u|x) (B,)."""
        seen = self.features((2 * squeeze(x) - 1).to(self.features[0].weight.dtype))
        h, log_q = squeeze(noise), standard_normal(noise)
        for coupling in self.couplings:
            h, log_det = coupling(h, seen)
            log_q = log_q - log_det
        h = WIDEST * unsqueeze(h)
        log_q = log_q - h[0].numel() * math.log(WIDEST) - (F.logsigmoid(h) + F.logsigmoid(-h)).flatten(1).sum(1)
        return torch.sigmoid(h), log_q


class GlowModel(ModelMixin, ConfigMixin):
    """An invertible network on images.

    Args:
        data_spec: what x is: an image of 8-bit `support` whose height and width can be halved `num_levels` times.
        num_levels: resolutions.
        num_blocks: steps at each of them.
        width: channels inside each coupling's network at the finest resolution.
        top_width: the same at all others; None for `width`.
        depth: gated residual blocks in each coupling's network; 0 for Glow's three convolutions.
        mixing: how the 1x1 convolution's W is learned, "lu" or "plain".
        dequantization: "uniform" or "variational".
        dequantizer_width, dequantizer_blocks: channels and couplings of the variational one.
        conditional: whether the codes at the top have a mean and a scale for each class.

    Raises:
        ValueError: the config is not of these values, or x is no such image.
    """

    @register_to_config
    def __init__(
        self,
        data_spec: dict,
        num_levels: int = 2,
        num_blocks: int = 4,
        width: int = 32,
        top_width: int | None = None,
        depth: int = 0,
        mixing: str = "lu",
        dequantization: str = "uniform",
        dequantizer_width: int = 16,
        dequantizer_blocks: int = 4,
        conditional: bool = False,
    ):
        super().__init__()
        check_config(self)
        if data_spec["kind"] != "image" or data_spec["support"] != "8-bit" or list(data_spec["range"]) != [0, 1]:
            raise ValueError(
                f"data_spec is of {data_spec['support']} {data_spec['kind']}s in {data_spec['range']}; "
                "it must be of 8-bit images in [0, 1]"
            )
        channels, height, width_of_image = data_spec["shape"]
        if height % 2**num_levels or width_of_image % 2**num_levels:
            raise ValueError(
                f"num_levels is {num_levels}; images of {width_of_image}x{height} cannot be halved so often"
            )
        for name, value, right in (("mixing", mixing, MIXINGS), ("dequantization", dequantization, DEQUANTISATIONS)):
            if value not in right:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(right)}")
        if conditional and not data_spec["num_classes"]:
            raise ValueError("conditional is True, but the data have no classes")
        self.shape = (channels, height, width_of_image)
        self.dequantizer = None
        if dequantization == "variational":
            self.dequantizer = Dequantiser(channels, dequantizer_width, dequantizer_blocks)
        self.levels, self.splits, self.code_shapes = nn.ModuleList(), nn.ModuleList(), []
        for number in range(num_levels):
            channels, height, width_of_image = 4 * channels, height // 2, width_of_image // 2
            inside = width if number == 0 or top_width is None else top_width
            self.levels.append(nn.ModuleList(Step(channels, inside, depth, mixing) for _ in range(num_blocks)))
            if number < num_levels - 1:
                channels //= 2
                split = nn.Conv2d(channels, 2 * channels, 3, padding=1)
                nn.init.zeros_(split.weight)
                nn.init.zeros_(split.bias)
                self.splits.append(split)
            self.code_shapes.append((channels, height, width_of_image))
        rows = data_spec["num_classes"] if conditional else 1
        self.top = nn.Parameter(torch.zeros(rows, 2 * channels, height, width_of_image))

    def check_values(self) -> None:
        """Raises a ValueError where a 1x1 convolution has no inverse."""
        for part in self.modules():
            if isinstance(part, Mixing):
                part.check_values()

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set every actnorm by data, once, before training: x (B, C, H, W) in [0, 1].

        Raises:
            ValueError: a channel is constant.
        """
        h, _ = self.to_line(self.place(x, torch.full_like(x, 0.5) if self.dequantizer else torch.rand_like(x)))
        for number, level in enumerate(self.levels):
            h = squeeze(h)
            for step in level:
                h = step.initialise(h)
            if number < len(self.splits):
                h, _ = h.chunk(2, 1)

    # From levels to the real line

    def place(self, x: Tensor, u: Tensor) -> Tensor:
        """Levels x in [0, 1] and a place u within each -> (k + u) / 256."""
        return ((x * 255).round() + u) / 256

    def to_line(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y in [0, 1] -> its logit, and log |det| (B,) with y in pixels of [0, 256)."""
        p = EDGE + (1 - 2 * EDGE) * y
        log_p, log_rest = torch.log(p), torch.log1p(-p)
        log_det = -(log_p + log_rest).flatten(1).sum(1) + y[0].numel() * math.log((1 - 2 * EDGE) / 256)
        return log_p - log_rest, log_det

    def dequantise(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W) in [0, 1] and noise, uniform or of N(0, I) as `dequantization` says -> u in [0, 1) and log q (B,)."""
        if self.dequantizer is None:
            return noise, noise.new_zeros(len(x))
        return self.dequantizer(x, noise)

    # The flow

    def _top(self, labels: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        top = self.top.to(like.dtype)
        return (top if labels is None else top[labels]).chunk(2, 1)

    def codes(self, h: Tensor, class_labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """h (B, C, H, W) on the real line -> codes (B, D), the finest first, and log |det| (B,)."""
        total, found = 0.0, []
        for number, level in enumerate(self.levels):
            h = squeeze(h)
            for step in level:
                h, log_det = step(h)
                total = total + log_det
            if number < len(self.splits):
                h, gone = h.chunk(2, 1)
                mean, raw = self._of_split(number, h)
                z, log_det = scaled(gone, mean, raw, MOST_OF_A_SPLIT, inverse=True)
                found.append(z.flatten(1))
                total = total + log_det
        mean, raw = self._top(class_labels, h)
        z, log_det = scaled(h, mean, raw, MOST_OF_A_SPLIT, inverse=True)
        return torch.cat([*found, z.flatten(1)], 1), total + log_det

    def _of_split(self, number: int, kept: Tensor) -> tuple[Tensor, Tensor]:
        split = self.splits[number]
        return split(kept.to(split.weight.dtype)).to(kept.dtype).chunk(2, 1)

    def inverse(self, z: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Codes (B, D) -> h (B, C, H, W) on the real line."""
        parts = [part.unflatten(1, shape) for part, shape in
                 zip(z.split([math.prod(shape) for shape in self.code_shapes], 1), self.code_shapes, strict=True)]  # fmt: skip
        h, _ = scaled(parts[-1], *self._top(class_labels, parts[-1]), MOST_OF_A_SPLIT)
        for number in reversed(range(len(self.levels))):
            if number < len(self.splits):
                gone, _ = scaled(parts[number], *self._of_split(number, h), MOST_OF_A_SPLIT)
                h = torch.cat([h, gone], 1)
            for step in reversed(self.levels[number]):
                h, _ = step(h, inverse=True)
            h = unsqueeze(h)
        return h

    def decode(self, z: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Codes (B, D) -> levels (B, C, H, W) in [0, 1]."""
        y = (torch.sigmoid(self.inverse(z, class_labels)) - EDGE) / (1 - 2 * EDGE)
        return (256 * y).floor().clamp(0, 255) / 255

    def forward(self, x: Tensor, class_labels: Tensor | None = None, noise: Tensor | None = None) -> GlowOutput:
        """x (B, C, H, W) on the levels k / 255, class_labels (B,) of a conditional flow -> codes and a bound on log p(x).

        `noise` chooses the place within the levels: of x's shape, uniform, or of N(0, I) where the dequantization is
        variational; drawn where it is not given.
        """
        if noise is None:
            noise = torch.rand_like(x) if self.dequantizer is None else torch.randn_like(x)
        u, log_q = self.dequantise(x, noise)
        h, to_line = self.to_line(self.place(x, u))
        z, log_det = self.codes(h, class_labels)
        log_det = log_det + to_line
        return GlowOutput(z=z, log_det=log_det, log_q=log_q, log_prob=standard_normal(z) + log_det - log_q)
