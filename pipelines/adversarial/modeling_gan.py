"""Generator and discriminator: one turns random numbers into x, the other tells such an x from a real one.

    x = G(z, c),  z ~ N(0, I)            D(x, c): a logit of "real", or the value of a critic, one number an x

Goodfellow et al., "Generative Adversarial Networks", arXiv 1406.2661; with a class c on both sides Mirza and Osindero,
arXiv 1411.1784. The convolutional pair follows Radford, Metz and Chintala, arXiv 1511.06434.

Where this departs from the papers:
1. The class is an embedding added to the first hidden layer, which equals concatenating a one-hot vector to the input.
2. The discriminator ends without a sigmoid: the recipe's losses and the pipeline apply it where it belongs.
3. A discriminator is normalised by layers or not at all unless it is told to use batches: a gradient penalty is of each
   x by itself, and batch norm ties the x of a batch together.
"""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from pipelines.specs import check_config

NORMS = ("none", "batch", "layer")


@dataclass
class GeneratorOutput(BaseOutput):
    """`sample`: (B, *shape), x in the range of the data spec."""

    sample: Tensor


@dataclass
class DiscriminatorOutput(BaseOutput):
    """`value`: (B,), the logit of "real", or a critic's value."""

    value: Tensor


def norm_of(kind: str, channels: int, spatial: bool) -> nn.Module:
    """Batch norm, layer norm (over the channels and places of each x) or nothing."""
    if kind == "batch":
        return nn.BatchNorm2d(channels) if spatial else nn.BatchNorm1d(channels)
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    return nn.Identity()


def halvings(side: int) -> int:
    """How often a side can be halved until it is 4 to 7 pixels."""
    return max(0, math.ceil(math.log2(side / 7)))


def check_pair(data_spec: dict, network: str, norm: str, conditional: bool) -> None:
    """Raise a ValueError if no network can be made of these."""
    if network not in ("mlp", "conv"):
        raise ValueError(f"network is {network!r}; it must be mlp or conv")
    if norm not in NORMS:
        raise ValueError(f"norm is {norm!r}; it must be one of {', '.join(NORMS)}")
    if network == "conv" and data_spec["kind"] != "image":
        raise ValueError(f"network 'conv' takes images (C, H, W), but x has shape {tuple(data_spec['shape'])}")
    if conditional and not data_spec.get("num_classes"):
        raise ValueError("conditional is True, but the data has no classes")


class GeneratorModel(ModelMixin, ConfigMixin):
    """x = G(z, c).

    Args:
        data_spec: what x is; see the other families. Images come out by tanh, in [-1, 1]; vectors as they are.
        latent_dim: D of z.
        network: "mlp" or "conv".
        width: hidden units of each layer of an MLP, or the one number of channels at full resolution of a conv net.
        norm: "none", "batch" or "layer".
        conditional: whether the class is given.

    Raises:
        ValueError: no network can be made of these.
    """

    @register_to_config
    def __init__(
        self,
        data_spec: dict,
        latent_dim: int = 100,
        network: str = "mlp",
        width: tuple[int, ...] = (128, 256),
        norm: str = "none",
        conditional: bool = False,
    ):
        super().__init__()
        check_config(self)
        check_pair(data_spec, network, norm, conditional)
        self.shape = tuple(data_spec["shape"])
        self.is_image = data_spec["kind"] == "image"
        classes = data_spec["num_classes"] if conditional else 0
        if network == "mlp":
            layers = []
            for before, after in itertools.pairwise(width):
                layers += [nn.LeakyReLU(0.2), nn.Linear(before, after), norm_of(norm, after, False)]
            layers += [nn.LeakyReLU(0.2), nn.Linear(width[-1], math.prod(self.shape))]
            first = width[0]
            self.place = None
        else:
            channels, height, side = self.shape
            levels = halvings(max(height, side))
            top = width[0] * 2**levels
            self.place = (top, math.ceil(height / 2**levels), math.ceil(side / 2**levels))
            layers = [norm_of(norm, top, True), nn.ReLU()]
            for level in reversed(range(levels)):
                before, after = width[0] * 2 ** (level + 1), width[0] * 2**level
                # a convolution to four times the channels and a pixel shuffle leave no checkerboard
                layers += [
                    nn.Conv2d(before, 4 * after, 3, padding=1),
                    nn.PixelShuffle(2),
                    norm_of(norm, after, True),
                    nn.ReLU(),
                ]
            layers += [nn.Conv2d(width[0], channels, 3, padding=1)]
            first = math.prod(self.place)
        self.first = nn.Linear(latent_dim, first)
        self.label = nn.Embedding(classes, first) if classes else None
        self.layers = nn.Sequential(*layers)

    def forward(
        self, latents: Tensor, class_labels: Tensor | None = None, return_dict: bool = True
    ) -> GeneratorOutput | tuple[Tensor]:
        """latents (B, D), class_labels (B,) -> (B, *shape) in the range of the data spec."""
        h = self.first(latents.to(self.dtype))
        if self.label is not None:
            h = h + self.label(class_labels)
        if self.place is not None:
            h = h.unflatten(1, self.place)
        h = self.layers(h).float()
        if self.place is not None:
            h = h[:, :, : self.shape[1], : self.shape[2]]  # odd sides were rounded up
        x = h.reshape(-1, *self.shape)
        x = torch.tanh(x) if self.is_image else x
        return GeneratorOutput(sample=x) if return_dict else (x,)


class DiscriminatorModel(ModelMixin, ConfigMixin):
    """D(x, c): a logit of "real", or a critic's value.

    Args:
        data_spec: what x is.
        network: "mlp" or "conv".
        width: hidden units of each layer of an MLP, or the one number of channels at half resolution of a conv net.
        norm: "none", "batch" or "layer".
        dropout: probability after each hidden layer, in training only.
        conditional: whether the class is given.
        output: "probability", where the sigmoid of the value is that of "real", or "critic", a number without bounds.

    Raises:
        ValueError: no network can be made of these.
    """

    @register_to_config
    def __init__(
        self,
        data_spec: dict,
        network: str = "mlp",
        width: tuple[int, ...] = (256, 128),
        norm: str = "none",
        dropout: float = 0.0,
        conditional: bool = False,
        output: str = "probability",
    ):
        super().__init__()
        check_config(self)
        check_pair(data_spec, network, norm, conditional)
        if output not in ("probability", "critic"):
            raise ValueError(f"output is {output!r}; it must be probability or critic")
        shape = tuple(data_spec["shape"])
        classes = data_spec["num_classes"] if conditional else 0
        layers: list[nn.Module] = []
        if network == "mlp":
            self.first = nn.Linear(math.prod(shape), width[0])
            for before, after in itertools.pairwise(width):
                layers += [
                    nn.Dropout(dropout),
                    nn.Linear(before, after),
                    norm_of(norm, after, False),
                    nn.LeakyReLU(0.2),
                ]
            layers += [nn.Dropout(dropout), nn.Linear(width[-1], 1)]
        else:
            channels, height, side = shape
            levels = max(1, halvings(max(height, side)))
            self.first = nn.Conv2d(channels, width[0], 3, stride=2, padding=1)
            for level in range(1, levels):
                before, after = width[0] * 2 ** (level - 1), width[0] * 2**level
                layers += [nn.Dropout(dropout), nn.Conv2d(before, after, 3, stride=2, padding=1)]
                layers += [norm_of(norm, after, True), nn.LeakyReLU(0.2)]
            last = (math.ceil(height / 2**levels), math.ceil(side / 2**levels))
            top = width[0] * 2 ** (levels - 1)
            layers += [nn.Flatten(), nn.Dropout(dropout), nn.Linear(top * math.prod(last), 1)]
        self.is_flat = network == "mlp"
        self.label = nn.Embedding(classes, width[0]) if classes else None
        self.layers = nn.Sequential(*layers)

    def forward(
        self, x: Tensor, class_labels: Tensor | None = None, return_dict: bool = True
    ) -> DiscriminatorOutput | tuple[Tensor]:
        """x (B, *shape) in the range of the data spec, class_labels (B,) -> (B,)."""
        h = self.first(x.to(self.dtype).flatten(1) if self.is_flat else x.to(self.dtype))
        if self.label is not None:
            shift = self.label(class_labels)
            h = h + (shift if self.is_flat else shift[:, :, None, None])
        value = self.layers(F.leaky_relu(h, 0.2)).float()[:, 0]
        return DiscriminatorOutput(value=value) if return_dict else (value,)
