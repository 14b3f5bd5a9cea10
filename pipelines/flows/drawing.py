"""What the pipelines of flows share: every code is a draw of N(0, I), and codes and x are each other's images."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pipelines.contract import ClassLabels, Contract, Generators
from pipelines.steps import Samples, SampleStep


class Invertible(Contract):
    """A mixin of pipelines whose codes (B, D) are as many numbers as x holds.

    A pipeline has `_codes_of(x, labels)`, of x as `_check_x` gives it, and `_from_codes(z, labels, output_type)`.
    """

    def __init__(self, flow, auto_map: dict | None = None):
        super().__init__()
        self.register_modules(flow=flow)
        self._take_data_spec(flow.config.data_spec)

    @property
    def latent_dim(self) -> int:
        """D: a code holds as many numbers as x."""
        return self._size

    def __call__(
        self,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        latents: Tensor | None = None,
        temperature: float = 1.0,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Samples | tuple:
        """Draw samples.

        Args:
            batch_size: how many; one if nothing else says it.
            class_labels: an int for all samples, or one int each (which sets the batch size), of a conditional flow;
                it draws them at random where none are given.
            latents: (B, D) codes to decode instead of drawing them.
            temperature: the standard deviation of z; below 1 samples crowd where z is likely.
            generator: one, or a list with one for each sample.
            output_type: "pil", "np" or "pt"; of vectors "np" gives an array, else a tensor; "latent" gives the latents.
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as (pipe, step, timestep, {"latents": z}) after each step;
                what it returns as "latents" takes their place, and `pipe._interrupt = True` ends the steps.
            callback_on_step_end_tensor_inputs: what it is given: ["latents"].

        Raises:
            ValueError: an argument is out of range; the message names it.
        """
        steps = self.stream(batch_size, class_labels, latents, temperature, generator, output_type)
        return self._last_of(steps, return_dict, callback_on_step_end, callback_on_step_end_tensor_inputs)

    @torch.no_grad()
    def stream(
        self,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        latents: Tensor | None = None,
        temperature: float = 1.0,
        generator: Generators = None,
        output_type: str = "pil",
    ) -> Iterator[SampleStep]:
        """The samples of `__call__`, step by step: a flow has one step. Same arguments."""
        self._check_output_type(output_type, may_be_latent=True)
        self._check_number("temperature", temperature)
        if latents is not None:
            latents = self._check_latents(latents, (self.latent_dim,))
        batch_size = self._batch_size(batch_size, class_labels, latents, generator)
        labels = self._labels_or_draw(class_labels, batch_size, generator)
        if latents is None:
            latents = temperature * self._noise((batch_size, self.latent_dim), generator)
        yield self._one_step(latents, labels, output_type, lambda z: self._from_codes(z, labels, output_type))

    def _log_prob_of(self, x: Tensor, class_labels: ClassLabels, *noise: Tensor) -> Tensor:
        """What the flow says of x, given the classes: (B,); of a conditional flow without them, of all classes alike."""
        if self.num_classes and class_labels is None:
            by_class = [self.flow(x, labels, *noise).log_prob for labels in self._each_class(len(x))]
            return torch.stack(by_class).logsumexp(0) - math.log(self.num_classes)
        return self.flow(x, self._labels(class_labels, len(x)), *noise).log_prob

    @torch.no_grad()
    def encode(self, x, class_labels: ClassLabels = None) -> Tensor:
        """The code z = f(x): (B, D); of an image that of the middle of each pixel's level."""
        x = self._check_x(x, on_support=True)
        return self._codes_of(x, self._labels_needed(class_labels, len(x), "encoding"))

    def decode(self, latents: Tensor, class_labels: ClassLabels = None, output_type: str = "pil") -> Samples:
        """x = f^-1(z) of codes (B, D)."""
        return self(class_labels=class_labels, latents=latents, output_type=output_type)

    def reconstruct(self, x, class_labels: ClassLabels = None, output_type: str = "pil") -> Samples:
        """decode(encode(x)): x itself, but for rounding."""
        return self.decode(self.encode(x, class_labels), class_labels, output_type)

    def interpolate(self, a, b, steps: int = 8, class_labels: ClassLabels = None, output_type: str = "pil") -> Samples:
        """`steps` samples from a to b (one each), ends included.

        They are decoded from the straight line between the codes of two vectors, and from the great circle between those of
        two images, whose codes are all about sqrt(D) long.
        """
        labels = self._check_path(steps, class_labels)
        path = self._path(self.encode(a, class_labels), self.encode(b, class_labels), steps, on_sphere=self._is_image)
        return self.decode(path, labels, output_type)
