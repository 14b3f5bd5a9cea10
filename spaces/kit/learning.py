"""Networks that learn while one looks: with the weights of a seed, and small invertible ones of points."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kit.lazy import LazyModule
from kit.models import making

torch = LazyModule("torch")

SIZE = {"num_blocks": 4, "width": 48, "num_bins": 8, "elementwise": True}
RATE, BATCH, MOST_NORM = 6e-3, 256, 10.0
SPEC = {"kind": "vector", "shape": [2], "support": "real", "range": None, "dequantization": "none", "num_classes": 0}


@dataclass
class Trained:
    """A step of training, as `kit.jobs.Pace` takes it."""

    step: int
    num_steps: int


def seeded(seed: int, build: Callable):
    """The network that `build()` makes, with the weights of this seed; torch's own generator is left as it was."""
    with making, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def small_network(pipe, transform: str, points: torch.Tensor, seed: int):
    """An untrained network of the class that the pipeline has, with the scale of the points (N, 2).

    Raises:
        ValueError: all points have one coordinate in common, or the pipeline has no such network.
    """
    like = next((part for part in pipe.components.values() if hasattr(part, "set_scale")), None)
    if like is None:
        raise ValueError("no part of this model can be trained on points: none has set_scale")
    known = inspect.signature(type(like).__init__).parameters  # models keep their code, and may lack what came later
    size = {name: value for name, value in SIZE.items() if name in known}
    made = seeded(seed, lambda: type(like)(SPEC, transform=transform, **size))
    made.set_scale(points)
    return made


def learn(network, points: torch.Tensor, num_steps: int, seed: int, loss: Callable) -> Iterator[Trained]:
    """Lower the mean of `loss` of what the network gives of some of the points (N, 2), step by step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(seed)
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / num_steps)
        batch = points[torch.randint(len(points), (BATCH,), generator=generator)]
        with torch.enable_grad():
            optimizer.zero_grad()
            loss(network(batch)).mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), MOST_NORM)
        optimizer.step()
        yield Trained(step, num_steps)
