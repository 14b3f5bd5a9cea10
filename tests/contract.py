"""What each family's tests tell tests/test_contract.py: tiny untrained pipelines of it, and what each of them owes.

A file tests/pipelines/test_<family>.py exports `INSTANCES`, a dict from a name to an `Instance`; every instance that is
found there is asked the questions of tests/test_contract.py.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

BINARY = {"support": "binary", "range": [0, 1], "dequantization": "none"}
LEVELS = {"support": "8-bit", "range": [-1, 1], "dequantization": "none"}
DEQUANTISED = {"support": "8-bit", "range": [-1, 1], "dequantization": "uniform"}
UNIT = {"support": "8-bit", "range": [0, 1], "dequantization": "none"}
UNIT_DEQUANTISED = {"support": "8-bit", "range": [0, 1], "dequantization": "uniform"}
REAL = {"support": "real", "range": None, "dequantization": "none"}
CODES = frozenset({"encode", "decode", "reconstruct", "interpolate"})


def image_spec(kind: dict, channels: int = 1, size: int = 8) -> dict:
    return {"kind": "image", "shape": [channels, size, size], "num_classes": 10, **kind}


VECTOR_SPEC = {"kind": "vector", "shape": [2], "num_classes": 8, **REAL}


def seeds(*numbers: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(n) for n in numbers]


def result(output) -> Tensor:
    return output.images if hasattr(output, "images") else output.samples


@dataclass(frozen=True, eq=False)
class Instance:
    """A tiny pipeline and what it owes.

    Attributes:
        pipeline: its class.
        make: makes it, the same each time.
        likelihood: what it must say of it.
        owes: the calls that it must answer, "sample" among them where it draws.
        classes: how many classes its calls take.
        loss: (pipe, x, labels) -> what training lowers; None where nothing is learned by gradients.
        judge: the call that gives numbers for each x.
        reason: of `log_prob`, where there is none: a pattern of what it says.
        codes_need_class: whether `encode` refuses to guess the class.
        paths_of_codes: whether `interpolate` takes codes; x otherwise.
        may_miss: whether NaN stands for what is not known.
        data: count -> x, where what the data spec says is not enough.
        options: of calls, by name: what makes them quick, and arguments that they need beside x.
        draw: of a discrete sampler, (pipe, numbers of seeds) -> for each seed its tokens, and for each token by how
            much it won.
    """

    pipeline: type
    make: Callable
    likelihood: str
    owes: frozenset = frozenset()
    classes: int = 0
    loss: Callable | None = None
    judge: str = "elbo"
    reason: str = ""
    codes_need_class: bool = False
    paths_of_codes: bool = False
    may_miss: bool = False
    data: Callable | None = None
    options: dict = field(default_factory=dict)
    draw: Callable | None = None

    @property
    def is_diffusers(self) -> bool:
        return issubclass(self.pipeline, DiffusionPipeline)

    def labels(self, count: int) -> list[int] | None:
        return [i % self.classes for i in range(count)] if self.classes else None

    def x(self, pipe, count: int = 3) -> Tensor:
        """Points of the support, as a user passes them."""
        if self.data is not None:
            return self.data(count)
        spec = pipe.data_spec
        u = torch.rand(count, *spec["shape"], generator=torch.Generator().manual_seed(1))
        return {"binary": (u < 0.5).float(), "8-bit": (u * 255).round() / 255, "real": 4 * u - 2}[spec["support"]]

    def ask(self, pipe, name: str, *args, **offered):
        """The answer of a call, given what it takes of labels, generator and output_type, and its `options`."""
        call = pipe if name == "sample" else getattr(pipe, name)
        takes = inspect.signature(pipe.__call__ if name == "sample" else call).parameters
        more = {"output_type"} if any(p.kind is p.VAR_KEYWORD for p in takes.values()) else set()
        given = {"output_type": "pt", **offered}
        given = {k: v for k, v in given.items() if k in takes or k in more}
        return call(*args, **{**self.options.get(name, {}), **given})

    def measure(self, pipe, x, class_labels=None, generator=None) -> Tensor:
        """Numbers for each x: what `judge` says."""
        if self.codes_need_class and self.judge != "elbo" and class_labels is None:
            class_labels = [0] * len(x) if self.classes else None
        return self.ask(pipe, self.judge, x, class_labels=class_labels, generator=generator)

    def measures(self, pipe) -> list:
        """The likelihoods that it has, or what it has instead."""
        names = [name for name in ("log_prob", "elbo") if name in pipe.calls] or [self.judge]
        return [getattr(pipe, name) for name in names]


def damages(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What may have become of a weights file: what was done, and the tensors that it then holds."""
    name, tensor = next((key, value) for key, value in sorted(tensors.items()) if value.is_floating_point())
    others = {key: value for key, value in tensors.items() if key != name}
    integers = torch.ones(tensor.shape, dtype=torch.int8)
    nothing = {key: torch.zeros_like(value) if value.is_floating_point() else value for key, value in tensors.items()}
    found = {
        "removed": others,
        "renamed": {**others, f"{name}_": tensor},
        "added": {**tensors, "more": torch.zeros(1)},
        "NaN": {**tensors, name: torch.full_like(tensor, torch.nan)},
        "infinite": {**tensors, name: torch.full_like(tensor, torch.inf)},
        "integers": {**tensors, name: integers},
        "reshaped": {**tensors, name: tensor[None].clone()},
    }
    one_vector = len(tensors) == 1 and tensor.ndim < 2  # of which all may be zero
    return found if one_vector else {**found, "all zero": nothing}


def fitted_to_noise(fit: Callable, dim: int, classes: int = 0):
    """A density over codes, or over x, by the `fit` of its class."""
    points = torch.randn(60, dim, generator=torch.Generator().manual_seed(0))
    return fit(points, **({"class_labels": torch.arange(60) % classes, "num_classes": classes} if classes else {}))
