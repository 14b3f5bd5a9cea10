"""What every pipeline of images or vectors checks and shares: how x, classes, codes and seeds go in, how samples go out.

A pipeline is a `class P(Contract, DiffusionPipeline)` and imports this module by one line. The build puts the module's
source in the place of that line, since from the Hub diffusers fetches one file of a pipeline and none beside it. A
pipeline defines none of the names below anew: the build refuses that.
"""

import inspect
import math

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from pipelines.checks import check_choice, check_count, check_finite, check_generators, check_number
from pipelines.components import CheckedComponents
from pipelines.decoding import as_levels
from pipelines.saving import CarriesCode
from pipelines.specs import check_data_spec
from pipelines.steps import Images, StepByStep

Generators = torch.Generator | list[torch.Generator] | None
ClassLabels = int | list[int] | Tensor | None


def great_circle(first: Tensor, last: Tensor, weights: Tensor) -> Tensor:
    """Points on the great circle from `first` to `last`, (1, ...) each, at weights (N, 1, ...) in [0, 1].

    On the straight line between two draws of N(0, I) points would grow shorter than draws are.

    Raises:
        ValueError: the ends point in opposite directions.
    """
    cosine = F.cosine_similarity(first.flatten(1), last.flatten(1)).clamp(-1, 1)
    angle = torch.acos(cosine).clamp(min=1e-6).item()
    if math.pi - angle < 1e-3:
        raise ValueError("a and b have codes in opposite directions; there is no one shortest way between them")
    return (torch.sin((1 - weights) * angle) * first + torch.sin(weights * angle) * last) / math.sin(angle)


class Contract(CheckedComponents, CarriesCode, StepByStep):
    """A mixin of pipelines whose x is an image or a vector, as their `data_spec` says.

    `data_spec` holds `kind` ("image" or "vector"), `shape` ((C, H, W) or (D,)), `support` ("binary", "8-bit" or
    "real"), `range` [low, high] that the network sees (None for real vectors), `dequantization` and `num_classes`.

    x is a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them, with values in [0, 1]; a vector
    model takes (B, D). A PIL image is turned upright, scaled to 8 bits and laid on white where it is transparent. A `generator` is one `torch.Generator` for the batch or a list with one for each sample; with a
    list, sample i depends on its own seed alone.

    A pipeline that does not answer some of its calls says so by a property `refusals`: the reason for each of them.
    Every error names the argument, its value and what would be right.
    """

    def _take_data_spec(self, data_spec: dict | None) -> None:
        """To be called once, in `__init__`: what x is, and how pictures become tensors and tensors pictures.

        Raises:
            ValueError: the data spec does not fit together, or components that are there already do not fit it.
        """
        check_data_spec(data_spec)
        self.data_spec = data_spec
        self._check_components()
        channels = data_spec["shape"][0]
        # vae_scale_factor=1: the default of 8 would resize 28x28 to 24x24
        self.image_processor = VaeImageProcessor(
            vae_scale_factor=1,
            do_resize=False,
            do_normalize=False,
            do_convert_grayscale=channels == 1,
            do_convert_rgb=channels == 3,
        )

    # What it can do

    @property
    def calls(self) -> frozenset[str]:
        """What this instance answers: "sample" where it draws, and the names of its other calls."""
        own = [kind for kind in type(self).__mro__ if not issubclass(DiffusionPipeline, kind)]
        names = {name for kind in own for name, value in vars(kind).items() if inspect.isfunction(value)}
        answers = {
            name for name in names if not name.startswith(("_", "stream")) and not hasattr(DiffusionPipeline, name)
        }
        if "stream" in names:
            answers.add("sample")
        return frozenset(answers - getattr(self, "refusals", {}).keys())

    @property
    def num_classes(self) -> int:
        """How many classes the calls take; 0 of an unconditional model."""
        for part in (self, *self.components.values()):
            config = getattr(part, "config", None)
            if isinstance(config, dict) and config.get("conditional"):
                return config.get("num_classes") or self.data_spec["num_classes"]
        return 0

    def _check_answers(self, call: str) -> None:
        """NotImplementedError with the reason, where this instance does not answer `call`."""
        reason = getattr(self, "refusals", {}).get(call)
        if reason is not None:
            raise NotImplementedError(f"{call}: {reason}")

    # What x is

    @property
    def _is_image(self) -> bool:
        return self.data_spec["kind"] == "image"

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(self.data_spec["shape"])

    @property
    def _size(self) -> int:
        """How many numbers x holds."""
        return math.prod(self._shape)

    def _check_x(
        self,
        x,
        name: str = "x",
        on_support: bool = False,
        bounded: bool = True,
        may_miss: bool = False,
        move: bool = True,
    ) -> Tensor:
        """x as (B, *shape) float32.

        Args:
            name: of the argument.
            on_support: refuse what has probability zero: gray of binary data, values between two levels of 8-bit data.
            bounded: refuse values outside [0, 1], where the data spec has bounds.
            may_miss: NaN stands for what is not known.
            move: to the pipeline's device; else x stays where it is.

        Raises:
            ValueError: x has another type, shape or range.
        """
        shape, support = self._shape, self.data_spec["support"]
        if isinstance(x, PIL.Image.Image):
            x = [x]
        if self._is_image and isinstance(x, list) and x and all(isinstance(p, PIL.Image.Image) for p in x):
            try:
                x = [as_levels(picture) for picture in x]
            except ValueError as error:
                raise ValueError(f"{name} holds an image of {error}") from None
            sizes = sorted({picture.size for picture in x})
            if sizes != [(shape[2], shape[1])]:
                raise ValueError(
                    f"{name} holds images of {sizes} (width, height); this model takes {(shape[2], shape[1])}"
                )
            x = self.image_processor.preprocess(x)
        is_array = isinstance(x, np.ndarray)
        if is_array:
            x = torch.from_numpy(np.ascontiguousarray(x))
        if not isinstance(x, Tensor):
            raise ValueError(f"{name} is a {type(x).__name__}; it must be a tensor, an array or PIL images")
        if not x.is_floating_point():
            raise ValueError(f"{name} has dtype {x.dtype}; it must be floating point, for 8-bit pixels x / 255")
        last_is_channel = is_array and self._is_image
        wanted = (*shape[1:], shape[0]) if last_is_channel else shape
        if tuple(x.shape[1:]) != wanted or not len(x):
            takes = f"{'arrays ' if last_is_channel else ''}(B, {', '.join(map(str, wanted))})"
            raise ValueError(f"{name} has shape {tuple(x.shape)}; this model takes {takes} with B at least 1")
        if last_is_channel:
            x = x.permute(0, 3, 1, 2)
        x = x.to(self._execution_device if move else x.device, torch.float32)
        if may_miss:
            if x.isinf().any():
                raise ValueError(f"{name} holds infinite values; all must be finite, or NaN where nothing is known")
        else:
            self._check_finite(name, x)
        known = x[~x.isnan()] if may_miss else x
        if support == "real" or not known.numel():
            return x
        low, high = known.min().item(), known.max().item()
        if bounded and (low < 0 or high > 1):
            raise ValueError(f"{name} has values from {low:.4g} to {high:.4g}; they must lie in [0, 1]")
        if on_support and support == "binary" and not ((x == 0) | (x == 1)).all():
            gray = x[(x != 0) & (x != 1)][0].item()
            raise ValueError(
                f"{name} holds {gray:.4g}, but this model gives probability to 0 and 1 only: "
                "binarise first, for example (torch.rand_like(x) < x).float()"
            )
        if on_support and support == "8-bit" and (x * 255 - (x * 255).round()).abs().max() > 0.2:
            raise ValueError(f"{name} is not on the 256 levels k / 255 of 8-bit data: round it first")
        return x

    def _check_mask(self, mask, x: Tensor) -> Tensor:
        """mask as bool, True where x (B, *shape) is known, with as many axes as x and sizes that broadcast to it."""
        mask = torch.as_tensor(np.asarray(mask) if isinstance(mask, PIL.Image.Image) else mask)
        if mask.dtype != torch.bool:
            raise ValueError(f"mask has dtype {mask.dtype}; it must be bool, True where x is known")
        shape = self._shape
        full = mask[None] if self._is_image and mask.ndim == 2 else mask
        full = full[None] if full.ndim == len(shape) else full
        fits = full.ndim == x.ndim and full.shape[0] in (1, len(x)) and full.shape[2:] == shape[1:]
        if not fits or full.shape[1] not in ({1, shape[0]} if self._is_image else {shape[0]}):
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}; x is {tuple(x.shape)}, so it must be {shape} or broadcast to it"
            )
        return full.to(x.device)

    # Between [0, 1] and the range that the network sees

    def _to_network(self, x: Tensor) -> Tensor:
        """[0, 1] -> the range of the data spec; what has no range stays as it is."""
        if self.data_spec["range"] is None:
            return x
        low, high = self.data_spec["range"]
        return low + (high - low) * x

    def _from_network(self, x: Tensor) -> Tensor:
        """The range of the data spec, or a little beyond it -> [0, 1]; what has no range stays as it is."""
        if self.data_spec["range"] is None:
            return x
        low, high = self.data_spec["range"]
        return ((x - low) / (high - low)).clamp(0, 1)

    def _dequantised(self, x: Tensor, generator: Generators) -> Tensor:
        """8-bit levels in [0, 1] -> (k + u) / 256, u ~ U[0, 1): a place within each level."""
        return ((x * 255).round() + self._noise(x.shape, generator, uniform=True)) / 256

    def _mid_level(self, x: Tensor) -> Tensor:
        """[0, 1] -> (255 x + 1/2) / 256: of a level, its middle in the range of `_dequantised`."""
        return (x * 255 + 0.5) / 256

    def _as_output_type(self, x: Tensor, output_type: str) -> Images:
        """x (B, *shape) or (B, D), of images in [0, 1] -> the output_type."""
        self._check_output_type(output_type)
        x = x.reshape(len(x), *self._shape)
        if not self._is_image:
            return x.cpu().numpy() if output_type == "np" else x
        return self.image_processor.postprocess(x.clamp(0, 1), output_type=output_type)

    def _output(self, x: Tensor, output_type: str) -> Images:
        """x (B, *shape) in the range of the data spec -> the output_type."""
        return self._as_output_type(self._from_network(x), output_type)

    # Seeds and classes

    def _noise(self, shape: tuple[int, ...], generator: Generators, uniform: bool = False) -> Tensor:
        """float32 noise on the pipeline's device, normal or uniform; row i from generator i where a list is given."""
        check_generators(generator, shape[0])
        make = torch.rand if uniform else torch.randn
        if not isinstance(generator, list):
            device = generator.device if generator is not None else self._execution_device
            return make(tuple(shape), generator=generator, device=device).to(self._execution_device)
        rows = [make(tuple(shape[1:]), generator=g, device=g.device) for g in generator]
        return torch.stack(rows).to(self._execution_device)

    def _batch_size(self, batch_size, class_labels, latents, generator: Generators, image: Tensor | None = None) -> int:
        """The one batch size that all arguments agree on; a single image serves any."""
        said = {}
        if batch_size is not None:
            said["batch_size"] = self._check_count("batch_size", batch_size)
        if class_labels is not None and np.ndim(class_labels):
            said["class_labels"] = len(class_labels)
        if latents is not None:
            said["latents"] = len(latents)
        check_generators(generator)
        if isinstance(generator, list):
            said["generator"] = len(generator)
        if image is not None and len(image) > 1:
            said["image"] = len(image)
        if len(set(said.values())) > 1:
            raise ValueError(", ".join(f"{k} gives {v}" for k, v in said.items()) + " samples; they must agree")
        size = next(iter(said.values()), 1)
        if size < 1:
            raise ValueError(f"{next(iter(said))} is empty; it must hold at least one sample")
        return size

    def _labels(self, class_labels: ClassLabels, batch_size: int) -> Tensor | None:
        """class_labels as (B,) int64; None stays None."""
        if class_labels is None:
            return None
        count = self.num_classes
        if not count:
            raise ValueError(f"class_labels is {class_labels!r}, but this model was trained without classes")
        try:
            labels = torch.as_tensor(class_labels, device=self._execution_device)
        except (TypeError, ValueError, RuntimeError):
            labels = None
        if labels is None or labels.is_floating_point() or labels.dtype == torch.bool or labels.ndim > 1:
            raise ValueError(f"class_labels is {class_labels!r:.100}; it must be an int or a list of ints")
        if labels.ndim and len(labels) != batch_size:
            raise ValueError(f"class_labels holds {len(labels)} classes for {batch_size} samples; they must agree")
        outside = labels[(labels < 0) | (labels >= count)]
        if len(outside):
            raise ValueError(f"class_labels holds {outside[0].item()}; classes go from 0 to {count - 1}")
        return labels.long().expand(batch_size)

    def _labels_or_draw(self, class_labels: ClassLabels, batch_size: int, generator: Generators) -> Tensor | None:
        """class_labels as (B,) int64; drawn uniformly where a conditional model is given none."""
        if class_labels is not None or not self.num_classes:
            return self._labels(class_labels, batch_size)
        u = self._noise((batch_size, 1), generator, uniform=True)[:, 0]
        return (u * self.num_classes).long().clamp(max=self.num_classes - 1)

    def _labels_needed(self, class_labels: ClassLabels, batch_size: int, by: str) -> Tensor | None:
        """class_labels as (B,) int64; a conditional model that is given none refuses, and says what needs them."""
        if class_labels is None and self.num_classes:
            raise ValueError(f"class_labels is None; {by} needs the class of x, 0 to {self.num_classes - 1}")
        return self._labels(class_labels, batch_size)

    def _each_class(self, batch_size: int) -> list[Tensor]:
        """For each class, that class for all samples: (B,) int64 each."""
        return [torch.full((batch_size,), c, device=self._execution_device) for c in range(self.num_classes)]

    # Paths between two codes

    def _check_path(self, steps: int, class_labels: ClassLabels) -> list[int] | None:
        """The classes of a path of so many steps: the one class that is given, at each of them."""
        self._check_count("steps", steps, least=2)
        if class_labels is None:
            return None
        if np.ndim(class_labels):
            kind = type(class_labels).__name__
            raise ValueError(f"class_labels is a {kind}; interpolate keeps one class, so it must be an int")
        return [int(class_labels)] * steps

    def _path(self, first: Tensor, last: Tensor, steps: int, on_sphere: bool = False) -> Tensor:
        """`steps` codes from `first` to `last`, one each, on the straight line or on the great circle."""
        if len(first) != 1 or len(last) != 1:
            raise ValueError(f"a and b hold {len(first)} and {len(last)} codes; interpolate takes one each")
        weights = torch.linspace(0, 1, steps, device=first.device).view(-1, *[1] * (first.ndim - 1))
        return great_circle(first, last, weights) if on_sphere else torch.lerp(first, last, weights)

    # Single arguments

    def _check_latents(
        self, latents: Tensor, shape: tuple[int, ...], name: str = "latents", meaning: str = ""
    ) -> Tensor:
        """Codes (B, *shape) as float32 on the device."""
        if not isinstance(latents, Tensor) or tuple(latents.shape[1:]) != tuple(shape) or not len(latents):
            got = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
            wanted = ", ".join(map(str, shape))
            raise ValueError(f"{name} is {got}; it must be a tensor of shape (B, {wanted}){meaning}")
        self._check_finite(name, latents)
        return latents.to(self._execution_device, torch.float32)

    _check_count = staticmethod(check_count)
    _check_number = staticmethod(check_number)
    _check_choice = staticmethod(check_choice)
    _check_finite = staticmethod(check_finite)

    def _check_output_type(self, output_type: str, may_be_latent: bool = False) -> None:
        self._check_choice("output_type", output_type, "pil", "np", "pt", *(["latent"] if may_be_latent else []))


class ExactLikelihood:
    """A mixin of pipelines whose `log_prob` is exact: the bound that other families have is that very number."""

    def elbo(self, x, num_samples: int = 1, class_labels=None, generator: Generators = None) -> Tensor:
        """log p(x), or log p(x|c), as `log_prob` gives it: (B,), nats; `num_samples` changes nothing."""
        self._check_count("num_samples", num_samples)
        return self.log_prob(x, class_labels=class_labels, generator=generator)


class NoDensity:
    """A mixin of pipelines whose `refusals` say why there is neither log p(x) nor a bound on it."""

    def log_prob(self, x, *_, **__) -> Tensor:
        """There is none.

        Raises:
            NotImplementedError: with the reason.
        """
        raise NotImplementedError(f"log_prob: {self.refusals['log_prob']}")

    def elbo(self, x, *_, **__) -> Tensor:
        """There is none, for the same reason.

        Raises:
            NotImplementedError: with the reason.
        """
        raise NotImplementedError(f"elbo: {self.refusals['elbo']}")
