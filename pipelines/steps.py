"""Sampling step by step: what a step tells, what a callback may change, and what a call returns in the end."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers import ImagePipelineOutput
from diffusers.utils import BaseOutput
from torch import Tensor

Images = list[PIL.Image.Image] | np.ndarray | Tensor


@dataclass
class VectorPipelineOutput(BaseOutput):
    """Vectors: (B, D), a tensor, or an array with output_type="np"."""

    samples: Tensor | np.ndarray


Samples = ImagePipelineOutput | VectorPipelineOutput


@dataclass
class SampleStep(BaseOutput):
    """What `stream` yields where nothing more is to be told.

    Attributes:
        step, num_steps: counted from 0; a one-shot family has one step.
        latents: (B, D), the codes that became samples.
        class_labels: (B,) int64, or None.
        images: (or samples, of a vector family) in the output_type asked for.
    """

    step: int
    num_steps: int
    latents: Tensor
    class_labels: Tensor | None = None
    images: Images | None = None
    samples: np.ndarray | Tensor | None = None


class StepByStep:
    """A mixin of pipelines that sample, in one step or in several."""

    _callback_tensor_inputs = ("latents",)
    _interrupt = False

    def _wrap(self, result: Images) -> Samples:
        return ImagePipelineOutput(images=result) if self._is_image else VectorPipelineOutput(samples=result)

    def _one_step(
        self,
        latents: Tensor,
        class_labels: Tensor | None,
        output_type: str,
        decode: Callable[[Tensor], Images],
    ) -> SampleStep:
        """The step of a one-shot family, with what `decode` makes of its latents; "latent" gives these themselves."""
        key = "images" if self._is_image else "samples"
        result = latents if output_type == "latent" else decode(latents)
        step = SampleStep(step=0, num_steps=1, latents=latents, class_labels=class_labels, **{key: result})
        step.decode = decode
        return step

    def _last_of(
        self,
        steps: Iterator,
        return_dict: bool,
        callback_on_step_end: Callable | None,
        callback_on_step_end_tensor_inputs: Sequence[str],
        show: Callable = lambda step: step,
    ) -> Samples | tuple:
        """The last of the steps as the output of a call, once `show` has given it images or samples.

        The callback sees each step, as (pipe, step, timestep, {"latents": ...}). It may return other latents in a dict,
        and may set `pipe._interrupt`: then no step follows.
        """
        wrong = [name for name in callback_on_step_end_tensor_inputs if name not in self._callback_tensor_inputs]
        if wrong:
            raise ValueError(f"callback_on_step_end_tensor_inputs holds {wrong[0]!r}; it may hold 'latents'")
        self._interrupt = False
        for step in steps:
            if callback_on_step_end is not None:
                seen = {name: step[name] for name in callback_on_step_end_tensor_inputs}
                answer = callback_on_step_end(self, step.step, step.get("timestep", step.step), seen) or {}
                self._take_latents(step, answer.get("latents", step.latents))
            if self._interrupt:
                break
        last = show(step)
        self.maybe_free_model_hooks()  # offloaded networks go back
        result = last.images if self._is_image else last.samples
        return self._wrap(result) if return_dict else (result,)

    def _take_latents(self, step, latents: Tensor) -> None:
        """Go on from other latents, and show what they are decoded to, where a step was of one-shot."""
        if latents is step.latents:
            return
        before, step.latents = step.latents, self._check_latents(latents, step.latents.shape[1:])
        if len(latents) != len(before):
            raise ValueError(f"latents that the callback returned are {len(latents)}; they must be {len(before)}")
        if hasattr(step, "decode"):
            with torch.no_grad():
                key, shown = ("images", step.images) if self._is_image else ("samples", step.samples)
                step[key] = step.latents if shown is before else step.decode(step.latents)
