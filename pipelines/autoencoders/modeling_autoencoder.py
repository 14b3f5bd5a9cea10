"""The autoencoder: an encoder to a few numbers, the code, and a decoder back; trained so that x survives the way.

    min E ||x - decode(encode(x))||^2,    which is maximum likelihood under a Gaussian output of fixed variance

Hinton and Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks", Science 313 (2006). What else the
codes are asked for is the objective's business, and the recipe's: to tell the classes, to look like draws from a prior
(Kolouri et al., arXiv 1804.01947), to forget noise (Vincent et al., ICML 2008), or to vary as little as they can (Rifai
et al., ICML 2011). The network is the same for all, and knows its codes' prior only where the objective had one.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from pipelines.specs import check_config

CODE_PRIORS = ("gaussian", "ring", "ball")
RING = 0.7  # inner radius of the ring, whose outer is 1


@dataclass
class AutoencoderOutput(BaseOutput):
    """What a training step needs.

    Attributes:
        codes: (B, D).
        reconstruction: (B, *shape), in the range of the data spec.
        logits: (B, num_classes) of the classes given the code; None where the model does not classify.
    """

    codes: Tensor = None
    reconstruction: Tensor = None
    logits: Tensor | None = None


def prior_codes(kind: str, uniform: Tensor, normal: Tensor) -> Tensor:
    """Draws from a prior over codes, as a function of noise: (B,) in [0, 1), (B, D) -> (B, D).

    - gaussian: N(0, I);
    - ball: uniform in the unit ball;
    - ring: uniform between the spheres of radius 0.7 and 1, an annulus in two dimensions.
    """
    if kind == "gaussian":
        return normal
    inner, dim = RING if kind == "ring" else 0.0, normal.shape[1]
    # the volume within radius r grows as r^dim
    radius = (inner**dim + uniform * (1 - inner**dim)) ** (1 / dim)
    return radius[:, None] * F.normalize(normal, dim=1)


class Residual(nn.Module):
    """x + W silu(norm(x))."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(F.silu(self.norm(x)))


def mlp(sizes: tuple[int, int], width: int, num_blocks: int) -> nn.Sequential:
    """in -> width -> residual blocks -> out, on flat vectors."""
    blocks = [Residual(width) for _ in range(num_blocks)]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(sizes[0], width), *blocks, nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, sizes[1])
    )


def conv_encoder(shape: tuple[int, ...], out_size: int, width: int, num_levels: int) -> nn.Sequential:
    """Convolutions of stride 2, each with twice the channels, and one linear layer to the code."""
    layers, channels, (height, side) = [], shape[0], shape[1:]
    for level in range(num_levels):
        layers += [nn.Conv2d(channels, width * 2**level, 3, stride=2, padding=1), nn.SiLU()]
        channels, height, side = width * 2**level, (height + 1) // 2, (side + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * side, out_size))


def conv_decoder(in_size: int, shape: tuple[int, ...], width: int, num_levels: int) -> nn.Sequential:
    """The way back; each level repeats pixels, then convolves: no checkerboard of a transposed convolution."""
    sizes = [tuple(shape[1:])]
    for _ in range(num_levels):
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
    channels = width * 2 ** (num_levels - 1)
    layers = [nn.Linear(in_size, channels * math.prod(sizes[-1])), nn.Unflatten(1, (channels, *sizes[-1])), nn.SiLU()]
    for level in reversed(range(num_levels)):
        after = width * 2 ** (level - 1) if level else width
        layers += [nn.Conv2d(channels, after, 3, padding=1), nn.SiLU(), nn.Upsample(size=sizes[level])]
        channels = after
    return nn.Sequential(*layers, nn.Conv2d(channels, shape[0], 3, padding=1))


class AutoencoderModel(ModelMixin, ConfigMixin):
    """Encoder and decoder, and where it is supervised a linear classifier on the code.

    Args:
        data_spec: what x is: `kind` ("image" or "vector"), `shape` ((C, H, W) or (D,)), `support` ("8-bit" or "real"),
            `range` [low, high] that the network sees (None for real vectors) and `num_classes`.
        network: "mlp" or "conv".
        latent_dim: D of the codes.
        width: hidden units of the MLP, or channels at half resolution, doubled at each further level.
        num_blocks: residual blocks of each MLP.
        num_levels: how often the conv net halves the image.
        supervised: whether codes are classified.
        standardise: whether each coordinate of the codes has mean 0 and variance 1 over the training set.
        code_prior: "gaussian", "ring" or "ball" where codes were trained to follow it, and may be drawn from it.

    Raises:
        ValueError: the network does not fit the data, or a supervised model has no classes.
    """

    @register_to_config
    def __init__(
        self,
        data_spec: dict,
        network: str = "mlp",
        latent_dim: int = 16,
        width: int = 256,
        num_blocks: int = 1,
        num_levels: int = 2,
        supervised: bool = False,
        standardise: bool = False,
        code_prior: str | None = None,
    ):
        super().__init__()
        check_config(self, "num_blocks")
        shape = tuple(data_spec["shape"])
        if network not in ("mlp", "conv"):
            raise ValueError(f"network is {network!r}; it must be mlp or conv")
        if network == "conv" and len(shape) != 3:
            raise ValueError(f"network 'conv' takes images (C, H, W), but x has shape {shape}")
        if supervised and not data_spec.get("num_classes"):
            raise ValueError("supervised is True, but the data has no classes")
        if code_prior is not None and code_prior not in CODE_PRIORS:
            raise ValueError(f"code_prior is {code_prior!r}; it must be None or one of {', '.join(CODE_PRIORS)}")
        self.shape = shape
        if network == "mlp":
            size = math.prod(shape)
            self.encoder = mlp((size, latent_dim), width, num_blocks)
            self.decoder = mlp((latent_dim, size), width, num_blocks)
        else:
            self.encoder = conv_encoder(shape, latent_dim, width, num_levels)
            self.decoder = conv_decoder(latent_dim, shape, width, num_levels)
        self.norm = nn.BatchNorm1d(latent_dim, affine=False) if standardise else nn.Identity()
        self.classifier = nn.Linear(latent_dim, data_spec["num_classes"]) if supervised else None

    @apply_forward_hook
    def encode(self, x: Tensor) -> Tensor:
        """(B, *shape) in the range of the data spec -> codes (B, D), float32."""
        return self.norm(self.encoder(x.to(self.dtype)).float())

    @apply_forward_hook
    def decode(self, codes: Tensor) -> Tensor:
        """(B, D) -> (B, *shape) in the range of the data spec, or a little beyond it."""
        return self.decoder(codes.to(self.dtype)).float().reshape(-1, *self.shape)

    @apply_forward_hook
    def classify(self, codes: Tensor) -> Tensor:
        """(B, D) -> logits (B, num_classes); a supervised model only."""
        return self.classifier(codes.to(self.dtype)).float()

    @apply_forward_hook
    def draw_codes(self, uniform: Tensor, normal: Tensor) -> Tensor:
        """Codes from `code_prior`, as a function of noise: (B,) in [0, 1), (B, D) -> (B, D)."""
        return prior_codes(self.config.code_prior, uniform, normal)

    def forward(self, x: Tensor, return_dict: bool = True) -> AutoencoderOutput | tuple:
        """x (B, *shape) in the range of the data spec; `return_dict` False gives the three fields as a tuple."""
        codes = self.encode(x)
        found = codes, self.decode(codes), None if self.classifier is None else self.classify(codes)
        return AutoencoderOutput(*found) if return_dict else found
