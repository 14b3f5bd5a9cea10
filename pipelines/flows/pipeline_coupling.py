"""Sampling, exact likelihood and codes with a coupling flow on vectors.

log_prob    log N(z; 0, I) + log |det dz/dx|, exact
sample      z ~ N(0, T^2 I), x = f^-1(z)
layers      the points after each layer, and how much each stretches space there
"""

from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from pipelines.contract import ClassLabels, ExactLikelihood, Generators
from pipelines.flows.drawing import Invertible
from pipelines.flows.gaussian import standard_normal
from pipelines.steps import Images


@dataclass
class FlowLayers(BaseOutput):
    """A flow layer by layer, from x to z.

    Attributes:
        points: (T + 2, B, D): x, x standardised, and what each of the T layers makes of it; the last is z.
        log_dets: (T + 1, B), the log |det| of each of these maps; their sum is that of all.
        log_prior: (B,), log N(z; 0, I); with the sum of `log_dets` it is log p(x).
    """

    points: Tensor
    log_dets: Tensor
    log_prior: Tensor


class CouplingFlowPipeline(Invertible, ExactLikelihood, DiffusionPipeline):
    """A flow on vectors: it draws, measures exactly, and maps x to its code and back without loss.

    x is a tensor or an array (B, D). Likelihoods are nats per sample, (B,). A `generator` is one `torch.Generator` for
    the batch or a list with one for each sample; with a list, sample i depends on its own seed alone.

    Args:
        flow: a `CouplingFlowModel`.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.
    """

    likelihood = "exact"
    model_cpu_offload_seq = ""
    _exclude_from_cpu_offload = ["flow"]  # noqa: RUF012 - small, and read by other methods than forward

    # Likelihood

    @torch.no_grad()
    def log_prob(self, x, class_labels: ClassLabels = None, generator: Generators = None) -> Tensor:
        """log p(x), with `class_labels` log p(x|c): (B,), nats, exact.

        Without classes a conditional flow gives log p(x) of all classes alike. `generator` changes nothing.
        """
        x = self._check_x(x)
        return self._log_prob_of(x, class_labels)

    # Codes

    def _codes_of(self, x: Tensor, labels: Tensor | None) -> Tensor:
        return self.flow(x.double(), labels).z.float()

    def _from_codes(self, z: Tensor, labels: Tensor | None, output_type: str) -> Images:
        return self._as_output_type(self.flow.inverse(z.double(), labels).float(), output_type)

    @torch.no_grad()
    def layers(self, x, class_labels: ClassLabels = None) -> FlowLayers:
        """What each layer makes of x (B, D), and its log |det| there."""
        x = self._check_x(x)
        points, log_dets = self.flow.steps(x, self._labels_needed(class_labels, len(x), "layers"))
        log_prior = standard_normal(points[-1])
        return FlowLayers(points=torch.stack(points), log_dets=torch.stack(log_dets), log_prior=log_prior)
