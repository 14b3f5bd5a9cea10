"""Invertible layers of images: each maps (B, C, H, W) to the same shape, and says by how much it stretches space.

After Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", arXiv 1807.03039, table 1. What is
scaled is computed in float32, or in the type of x where that is finer; the networks in that of their weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.flows.gaussian import scaled

MOST_LOG_SCALE = 2.0  # of an affine coupling: no input makes it overflow
MIXINGS = ("lu", "plain")


class Actnorm(nn.Module):
    """y = exp(s) (x + b), for each channel; a new one is the identity until `initialise` has seen data."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """So that each channel of these data (N, C, H, W) comes out with mean 0 and variance 1.

        Raises:
            ValueError: a channel is constant.
        """
        std, mean = torch.std_mean(x.double(), dim=(0, 2, 3))
        constant = (~(std > 1e-6)).nonzero()[:, 0].tolist()
        if constant:
            raise ValueError(
                f"channel {constant[0]} has standard deviation 0 here; a flow has no density of a constant"
            )
        self.bias.copy_(-mean)
        self.log_scale.copy_(-std.log())

    def scale(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """exp(s) and b (C,), and the sum of s, which is log |det| at each pixel."""
        log_scale = self.log_scale.to(dtype)
        return log_scale.exp(), self.bias.to(dtype), log_scale.sum()


class Mixing(nn.Module):
    """An invertible 1x1 convolution: y = W x at each pixel, log |det| = H W log |det W|.

    "plain" learns W itself; "lu" learns its decomposition W = P L (U + diag(s)), of which log |det W| = sum log |s|.
    W is a random rotation at first.
    """

    def __init__(self, channels: int, kind: str):
        super().__init__()
        self.kind = kind
        weight = torch.linalg.qr(torch.randn(channels, channels))[0]
        if kind == "plain":
            self.weight = nn.Parameter(weight)
            return
        permutation, lower, upper = torch.linalg.lu(weight)
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", upper.diagonal().sign())
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))
        self.log_s = nn.Parameter(upper.diagonal().abs().log())

    def matrix(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """W and log |det W|."""
        if self.kind == "plain":
            weight = self.weight.to(dtype)
            return weight, torch.linalg.slogdet(weight).logabsdet
        log_s = self.log_s.to(dtype)
        lower = self.lower.to(dtype).tril(-1) + torch.eye(len(log_s), dtype=dtype, device=log_s.device)
        upper = self.upper.to(dtype).triu(1) + torch.diag(self.sign.to(dtype) * log_s.exp())
        return self.permutation.to(dtype) @ lower @ upper, log_s.sum()

    def forward(self, x: Tensor, norm: Actnorm | None = None, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """x -> y and log |det|, a scalar; or back, by the inverse of W in float64.

        With `norm` it is both at once, y = W exp(s) (x + b): images pass once and not twice.
        """
        with torch.autocast(x.device.type, enabled=False):  # whatever the networks around it compute in
            weight, log_det = self.matrix(x.dtype)
            bias = None
            if norm is not None:
                scale, bias, log_scale = norm.scale(x.dtype)
                weight, log_det = weight * scale, log_det + log_scale
            if inverse:
                weight, log_det = torch.linalg.inv(weight.double()).to(x.dtype), -log_det
            offset = bias if bias is None else -bias if inverse else weight @ bias
            y = F.linear(x.movedim(1, -1), weight, offset).movedim(-1, 1)  # channels last: a product without a copy
        return y, x.shape[2] * x.shape[3] * log_det

    def check_values(self) -> None:
        """Raises a ValueError where W has no inverse."""
        weight, log_det = self.matrix(torch.float64)
        if not log_det.isfinite() or torch.linalg.cond(weight) > 1e6:
            raise ValueError("the 1x1 convolution's W is singular; a flow needs one with an inverse")


class Gated(nn.Module):
    """A residual block whose branch is gated: h + a sigmoid(b), with a and b made of h by a 3x3 and a 1x1 convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, 2 * width, 1)

    def forward(self, h: Tensor) -> Tensor:
        value, gate = self.outer(F.silu(self.inner(F.silu(h)))).chunk(2, 1)
        return h + value * torch.sigmoid(gate)


class Affine(nn.Module):
    """An affine coupling: half of the channels stay, the others are scaled and shifted by what a network makes of these.

    The network is Glow's three convolutions, or with `depth` that many gated residual blocks between two of them. The
    coupling is the identity at first. The log-scale keeps within `MOST_LOG_SCALE`.
    """

    def __init__(
        self, channels: int, width: int, seen: int = 0, swapped: bool = False, depth: int = 0, activation=nn.SiLU
    ):
        super().__init__()
        self.kept, self.swapped = channels // 2, swapped
        moved = channels - self.kept
        if swapped:
            self.kept, moved = moved, self.kept
        inside = [Gated(width) for _ in range(depth)] or [activation(), nn.Conv2d(width, width, 1)]
        self.net = nn.Sequential(
            nn.Conv2d(self.kept + seen, width, 3, padding=1),
            *inside,
            activation(),
            nn.Conv2d(width, 2 * moved, 3, padding=1),
        )
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, x: Tensor, seen: Tensor | None = None, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """x, and what else the network sees (B, `seen`, H, W) -> y and log |det| (B,); or back."""
        moving = x.shape[1] - self.kept
        if self.swapped:
            moved, kept = x.split([moving, self.kept], 1)
        else:
            kept, moved = x.split([self.kept, moving], 1)
        given = kept if seen is None else torch.cat([kept, seen.to(kept.dtype)], 1)
        given = given.to(self.net[0].weight.dtype).contiguous(memory_format=torch.channels_last)
        shift, raw = self.net(given).to(x.dtype).chunk(2, 1)
        moved, log_det = scaled(moved, shift, raw, MOST_LOG_SCALE, inverse)
        return torch.cat([moved, kept] if self.swapped else [kept, moved], 1), log_det


def squeeze(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 4 C, H/2, W/2): each 2x2 square becomes channels, which lie beside each other in memory."""
    return F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)


def unsqueeze(x: Tensor) -> Tensor:
    """The inverse of `squeeze`."""
    return F.pixel_shuffle(x, 2)
