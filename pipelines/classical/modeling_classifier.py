"""A classifier p(y|x), the discriminative counterpart of the generative models: a small convolutional network.

It is trained by maximum likelihood of the class given the image, so its outputs are meant as probabilities. Its last
hidden layer gives the features in which the quality of samples is measured: close images of one digit lie close
together there, whatever single pixels do.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from pipelines.specs import check_config

ARCHITECTURES = {"residual": F.silu, "plain": F.relu}


@dataclass
class ClassifierOutput(BaseOutput):
    """Logits (B, num_classes) and, where class labels were given, the loss: mean -log p(y|x), nats."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class Residual(nn.Module):
    """x + conv3x3(silu(conv3x3(silu(x)))), the identity at first: then it needs no normalisation."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class ClassifierModel(ModelMixin, ConfigMixin):
    """Convolutions that halve the image `num_levels` times, then one hidden layer, the features, and the logits.

    "residual" halves by strides, with residual blocks between; "plain" is LeCun et al., "Gradient-based learning applied to
    document recognition" (1998), with the units of today: 5x5 convolutions, ReLU, max pooling. Two networks that see
    alike by different means make two judges of samples.

    Args:
        data_spec: what x is: an image of 8-bit `support`, `shape` (C, H, W), the `range` that the network sees, and
            `num_classes`.
        width: channels after the first halving; doubled by each further one.
        num_blocks: residual blocks at each resolution; of "residual" only.
        num_levels: how often the image is halved.
        feature_dim: size of the features.
        dropout: probability on the features, in training only.
        architecture: "residual" or "plain".

    Raises:
        ValueError: if the data are no images or have fewer than two classes, or there is no such architecture.
    """

    @register_to_config
    def __init__(
        self,
        data_spec: dict,
        width: int = 32,
        num_blocks: int = 1,
        num_levels: int = 2,
        feature_dim: int = 128,
        dropout: float = 0.0,
        architecture: str = "residual",
    ):
        super().__init__()
        check_config(self, "num_blocks")
        shape, classes = tuple(data_spec["shape"]), data_spec["num_classes"]
        if len(shape) != 3:
            raise ValueError(f"a classifier takes images (C, H, W), but x has shape {shape}")
        if classes < 2:
            raise ValueError(f"a classifier needs at least two classes, but the data has {classes}")
        if architecture not in ARCHITECTURES:
            raise ValueError(f"architecture is {architecture!r}; it must be one of {', '.join(ARCHITECTURES)}")
        levels, channels, (height, side) = [], shape[0], shape[1:]
        for level in range(num_levels):
            w = width * 2**level
            if architecture == "residual":
                levels += [nn.Conv2d(channels, w, 3, stride=2, padding=1), *(Residual(w) for _ in range(num_blocks))]
            else:
                levels += [nn.Conv2d(channels, w, 5, padding=2), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()]
            channels, height, side = w, math.ceil(height / 2), math.ceil(side / 2)
        self.activation = ARCHITECTURES[architecture]
        self.levels = nn.Sequential(*levels)
        self.hidden = nn.Linear(channels * height * side, feature_dim)
        self.drop = nn.Dropout(dropout)  # diffusers answers self.dropout with the option of that name
        self.head = nn.Linear(feature_dim, classes)

    @apply_forward_hook
    def features(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) in the range of the data spec -> (B, feature_dim)."""
        h = self.levels(x.to(self.dtype))
        return self.activation(self.hidden(self.activation(h).flatten(1)))

    def forward(
        self, x: Tensor, class_labels: Tensor | None = None, return_dict: bool = True
    ) -> ClassifierOutput | tuple:
        """Logits of p(y|x), and the loss where `class_labels` (B,) int64 are given."""
        logits = self.head(self.drop(self.features(x))).float()
        loss = None if class_labels is None else F.cross_entropy(logits, class_labels)
        return ClassifierOutput(loss=loss, logits=logits) if return_dict else (loss, logits)
