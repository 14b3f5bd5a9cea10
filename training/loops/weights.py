"""Weights: their optimizer, their learning rate, and their moving average, which is what a run exports."""

import copy
import math

import torch
from torch import nn

from training.loops.run_options import RunOptions
from training.loops.sharding import local


class WeightAverage(nn.Module):
    """The exponential moving average of a model's weights, in `module`; buffers are copied.

    The decay starts low, (1 + n) / (10 + n) after n steps, so that the average forgets the initial weights.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__()
        # made before Accelerate wraps `forward`: a copy made later would call the original's
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.register_buffer("n_averaged", torch.tensor(0))  # stays on the CPU: a GPU would have to be waited for
        self.eval()  # it is only measured and drawn from
        self.pair_with(model)

    @torch.no_grad()
    def pair_with(self, model: nn.Module) -> None:
        """List what is averaged: once, since walking through the modules at each step takes as long as averaging."""
        self.pairs = [[local(p) for p in module.parameters()] for module in (self.module, model)]
        self.buffer_pairs = [list(module.buffers()) for module in (self.module, model)]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's present weights."""
        n = int(self.n_averaged)
        torch._foreach_lerp_(*self.pairs, 1 - min(self.decay, (1 + n) / (10 + n)) if n else 1.0)
        if self.buffer_pairs[0]:
            torch._foreach_copy_(*self.buffer_pairs)
        self.n_averaged += 1


def make_optimizer(model: nn.Module, options: RunOptions, learning_rate: float, beta1: float = 0.9):
    """AdamW as the options say; biases and the gains of norms do not decay."""
    groups = list(model.parameters())
    if options.weight_decay:
        groups = [
            {"params": [p for p in groups if p.ndim > 1], "weight_decay": options.weight_decay},
            {"params": [p for p in groups if p.ndim <= 1], "weight_decay": 0.0},
        ]
    return torch.optim.AdamW(
        groups, lr=learning_rate, betas=(beta1, options.adam_beta2), weight_decay=options.weight_decay, fused=True
    )


def learning_rate_at(step: int, options: RunOptions) -> float:
    """The factor on --learning_rate: a linear rise, then constant, linear or cosine decay to zero."""
    if step < options.lr_warmup_steps:
        return (step + 1) / options.lr_warmup_steps
    done = (step - options.lr_warmup_steps) / max(1, options.max_steps - options.lr_warmup_steps)
    if options.lr_scheduler == "constant":
        return 1.0
    return 1 - done if options.lr_scheduler == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def export_copy(model: nn.Module) -> nn.Module:
    """A copy for exporting, in float32 on the CPU."""
    return copy.deepcopy(model).float().cpu()
