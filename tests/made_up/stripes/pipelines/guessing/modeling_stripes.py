"""A made-up density of binary images: every pixel of a column is 1 with one probability, by itself."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from pipelines.specs import check_config


class StripesModel(ModelMixin, ConfigMixin):
    """p(x) = product over columns w and rows h of p_w^x_hw (1 - p_w)^(1 - x_hw).

    Args:
        data_spec: what x is, a binary image.
    """

    @register_to_config
    def __init__(self, data_spec: dict):
        super().__init__()
        check_config(self)
        self.logits = nn.Parameter(torch.zeros(data_spec["shape"][2]))

    def log_prob(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) in {0, 1} -> (B,), nats."""
        return -nn.functional.binary_cross_entropy_with_logits(
            self.logits.expand_as(x), x, reduction="none"
        ).flatten(1).sum(1)  # fmt: skip

    forward = log_prob
