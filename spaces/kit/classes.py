"""The class of a picture under a model that was trained with classes: the one whose bound on log p(x|c) is highest."""

from __future__ import annotations  # torch.Tensor is named before torch is there

from kit.bounds import class_of
from kit.lazy import LazyModule
from kit.models import num_classes

torch = LazyModule("torch")


def likeliest_class(pipe, x: torch.Tensor) -> tuple[int, float]:
    """The class whose bound on log p(x|c) is highest, and its probability under the bounds."""
    # by the same draws for each class: what differs is the class alone
    draws = ((c, torch.Generator().manual_seed(0)) for c in range(num_classes(pipe)))
    bounds = torch.stack([pipe.elbo(x, 8, c, generator)[0] for c, generator in draws])
    best = int(bounds.argmax())
    return best, float(bounds.softmax(0)[best])


def labels_for(pipe, x: torch.Tensor, label: str) -> tuple[list[int] | None, str]:
    """The class to encode x with, the likeliest where none is chosen, and a sentence about it."""
    wanted = class_of(label, num_classes(pipe))
    if wanted is not None or not num_classes(pipe):
        return None if wanted is None else [wanted], ""
    best, probability = likeliest_class(pipe, x)
    sure = "more than 99%" if probability > 0.99 else f"{probability:.0%}"
    return [best], f"The model reads a **{best}** (probability {sure} under its bounds). "
