"""The density of codes, and scaling that no input makes overflow: what flows on vectors and on images share."""

import math

import torch
from torch import Tensor


def standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I), nats: (B, ...) -> (B,)."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)


def scaled(x: Tensor, shift: Tensor, raw: Tensor, most: float, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """x exp(s) + shift, with s = most tanh(raw / most), and log |det| (B,); or back, (x - shift) exp(-s)."""
    log_scale = (most * torch.tanh(raw / most)).expand_as(x)
    log_det = log_scale.sum(tuple(range(1, x.ndim)))
    if inverse:
        return (x - shift) * torch.exp(-log_scale), -log_det
    return x * torch.exp(log_scale) + shift, log_det
