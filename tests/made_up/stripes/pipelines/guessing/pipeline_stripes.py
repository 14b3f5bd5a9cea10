"""Drawing and measuring with a made-up density of striped images."""

from collections.abc import Callable, Iterator, Sequence

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from pipelines.contract import ClassLabels, Contract, ExactLikelihood, Generators
from pipelines.steps import Images, Samples, SampleStep


class StripesPipeline(Contract, ExactLikelihood, DiffusionPipeline):
    """Binary images in stripes; likelihoods are exact, in nats per image, of x in {0, 1}.

    Args:
        stripes: a `StripesModel`.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.
    """

    likelihood = "exact"

    def __init__(self, stripes, auto_map: dict | None = None):
        super().__init__()
        self.register_modules(stripes=stripes)
        self._take_data_spec(stripes.config.data_spec)

    def __call__(
        self,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Samples | tuple:
        """Draw images; arguments as of every family."""
        steps = self.stream(batch_size, class_labels, generator, output_type)
        return self._last_of(steps, return_dict, callback_on_step_end, callback_on_step_end_tensor_inputs)

    @torch.no_grad()
    def stream(
        self,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        generator: Generators = None,
        output_type: str = "pil",
    ) -> Iterator[SampleStep]:
        """The samples of `__call__` in one step."""
        self._check_output_type(output_type, may_be_latent=True)
        batch_size = self._batch_size(batch_size, class_labels, None, generator)
        self._labels(class_labels, batch_size)
        u = self._noise((batch_size, *self._shape), generator, uniform=True)

        def decode(u: Tensor) -> Images:
            return self._output((u.view(-1, *self._shape) < self.stripes.logits.sigmoid()).float(), output_type)

        yield self._one_step(u.flatten(1), None, output_type, decode)

    @torch.no_grad()
    def log_prob(self, x, class_labels: ClassLabels = None, generator: Generators = None) -> Tensor:
        """log p(x): (B,), nats."""
        self._labels(class_labels, 1)
        return self.stripes.log_prob(self._check_x(x, on_support=True))
