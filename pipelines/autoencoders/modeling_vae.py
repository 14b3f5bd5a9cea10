"""The variational autoencoder: a latent z explains x, and a bound on log p(x) trains both nets at once.

    log p(x) >= ELBO(x) = E_{q(z|x)} log p(x|z) - KL(q(z|x) || p(z)),      p(z) = N(0, I),
    q(z|x) = N(mu(x), diag sigma^2(x)),      z = mu + sigma * eps,  eps ~ N(0, I)

Kingma and Welling, "Auto-Encoding Variational Bayes", arXiv 1312.6114 (equations 3 and 10); the conditional form
with a class c on both sides is Sohn, Lee and Yan, "Learning Structured Output Representation", NeurIPS 2015.

Where this departs from the papers:
1. Both nets are residual (an MLP with layer norm, or convolutions) instead of one hidden layer.
2. log sigma^2 is kept in [-14, 6] by a smooth squash, so that one bad batch cannot send exp() to infinity.
3. The Gaussian output learns one variance per channel: a variance per pixel lets the density of constant pixels
   grow without limit. The discretised logistic is a probability mass, so there each pixel has its own scale.
4. Nats of 8-bit data always refer to pixels in [0, 256): -elbo / (d ln 2) is bits/dim, whatever the output.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from pipelines.specs import check_config

LOG_2PI = math.log(2 * math.pi)


@dataclass
class VAELossOutput(BaseOutput):
    """What a training step needs.

    Attributes:
        loss: scalar, the batch mean of -(log p(x|z) - beta KL), nats.
        reconstruction: (B,), log p(x|z) at one z ~ q(z|x), nats.
        kl: (B,), KL(q(z|x) || p(z)), nats.
    """

    loss: Tensor = None
    reconstruction: Tensor = None
    kl: Tensor = None


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, I)) in nats: (B, D), (B, D) -> (B,). Appendix B of arXiv 1312.6114."""
    return 0.5 * (logvar.exp() + mean.square() - 1 - logvar).sum(dim=1)


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log of the probability mass of x in {0, 1}: (B, ...), (B, ...) -> (B,), nats."""
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def gaussian_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log density of N(mean, exp(log_scale)^2) at x: (B, ...) -> (B,), nats."""
    scaled = (x - mean) * torch.exp(-log_scale)
    return -(0.5 * scaled.square() + log_scale + 0.5 * LOG_2PI).flatten(1).sum(1)


def discretised_logistic_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor, half_bin: float) -> Tensor:
    """log mass that a logistic gives to the bin around x: (B, ...) -> (B,), nats.

    x lies on the 256 levels of [-1, 1]; the lowest and highest bins reach to -inf and +inf.
    Salimans et al., PixelCNN++, arXiv 1701.05517, equation 2, with one component.
    """
    inverse_scale = torch.exp(-log_scale)
    upper = (x - mean + half_bin) * inverse_scale
    lower = (x - mean - half_bin) * inverse_scale
    # log(sigmoid(upper) - sigmoid(lower)), written so that it neither cancels nor overflows in the tails:
    # = log sigmoid(upper) + log sigmoid(-lower) + log(1 - exp(lower - upper))
    inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))
    log_mass = torch.where(x < -1 + half_bin, F.logsigmoid(upper), inside)
    log_mass = torch.where(x > 1 - half_bin, F.logsigmoid(-lower), log_mass)
    return log_mass.flatten(1).sum(1)


class ResidualLinear(nn.Module):
    """x + dropout(W silu(norm(x))): one square matrix a block, so depth is cheap in parameters."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.linear(F.silu(self.norm(x))))


class ResidualConv(nn.Module):
    """x + conv3x3(dropout(silu(conv3x3(silu(x))))), the identity at first: then it needs no normalisation."""

    def __init__(self, channels: int, dropout: float):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(x))
        return x + self.conv2(self.dropout(F.silu(h)))


class MLP(nn.Module):
    """in -> width -> residual blocks -> out on flat vectors; a class shifts the first hidden layer."""

    def __init__(self, in_size: int, out_size: int, width: int, num_blocks: int, dropout: float, num_classes: int):
        super().__init__()
        self.first = nn.Linear(in_size, width)
        # adding an embedding here equals concatenating the one-hot class to the input
        self.label = nn.Embedding(num_classes, width) if num_classes else None
        self.blocks = nn.ModuleList(ResidualLinear(width, dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width) if num_blocks else nn.Identity()
        self.last = nn.Linear(width, out_size)

    def forward(self, x: Tensor, class_labels: Tensor | None) -> Tensor:
        h = self.first(x.flatten(1))
        if self.label is not None:
            h = h + self.label(class_labels)
        for block in self.blocks:
            h = block(h)
        return self.last(F.silu(self.norm(h)))


def resolutions(shape: tuple[int, ...], num_levels: int) -> list[tuple[int, int]]:
    """(H, W) halved `num_levels` times, rounded up: [full, half, quarter, ...]."""
    sizes = [(shape[1], shape[2])]
    for _ in range(num_levels):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


class ConvEncoder(nn.Module):
    """Halve, then residual blocks, `num_levels` times; then one linear layer to the code.

    Nothing runs at full resolution, where most of the time would go and little would be learned.
    """

    def __init__(self, shape, out_size: int, width: int, num_blocks: int, num_levels: int, dropout, num_classes):
        super().__init__()
        self.levels = nn.ModuleList()
        channels = shape[0]
        for level in range(num_levels):
            w = width * 2**level
            blocks = [ResidualConv(w, dropout) for _ in range(num_blocks)]
            self.levels.append(nn.Sequential(nn.Conv2d(channels, w, 3, stride=2, padding=1), *blocks))
            channels = w
        self.label = nn.Embedding(num_classes, width) if num_classes else None
        self.last = nn.Linear(channels * math.prod(resolutions(shape, num_levels)[-1]), out_size)

    def forward(self, x: Tensor, class_labels: Tensor | None) -> Tensor:
        h = x.contiguous(memory_format=torch.channels_last)  # the layout in which convolutions are fast
        for i, level in enumerate(self.levels):
            h = level(h)  # (B, C, H, W) -> (B, width 2^i, H / 2, W / 2)
            if i == 0 and self.label is not None:
                h = h + self.label(class_labels)[:, :, None, None]
        return self.last(F.silu(h).flatten(1))


class ConvDecoder(nn.Module):
    """The encoder backwards; a convolution to four times the channels and a pixel shuffle double the resolution."""

    def __init__(
        self, in_size: int, shape, out_channels: int, width: int, num_blocks, num_levels, dropout, num_classes
    ):
        super().__init__()
        self.sizes = resolutions(shape, num_levels)[::-1]  # coarsest first
        top = width * 2 ** (num_levels - 1)
        self.first = nn.Linear(in_size, top * math.prod(self.sizes[0]))
        self.label = nn.Embedding(num_classes, top) if num_classes else None
        self.levels = nn.ModuleList()
        for level in reversed(range(num_levels)):
            w = width * 2**level
            after = w // 2 if level else out_channels
            blocks = [ResidualConv(w, dropout) for _ in range(num_blocks)]
            self.levels.append(nn.Sequential(*blocks, nn.SiLU(), nn.Conv2d(w, 4 * after, 3, padding=1)))

    def forward(self, z: Tensor, class_labels: Tensor | None) -> Tensor:
        h = self.first(z).unflatten(1, (-1, *self.sizes[0]))  # (B, D) -> (B, top, h, w)
        if self.label is not None:
            h = h + self.label(class_labels)[:, :, None, None]
        h = h.contiguous(memory_format=torch.channels_last)
        for (height, side), level in zip(self.sizes[1:], self.levels, strict=True):
            h = F.pixel_shuffle(level(h), 2)[:, :, :height, :side]  # odd sizes were rounded up
        return h


class VAEModel(ModelMixin, ConfigMixin):
    """Encoder q(z|x, c) and decoder p(x|z, c) of a variational autoencoder.

    Args:
        data_spec: what x is: `kind` ("image" or "vector"), `shape` ((C, H, W) or (D,)), `support` ("binary",
            "8-bit" or "real"), `range` [low, high] that the network sees (None for real vectors), `dequantization`
            ("none" or "uniform") and `num_classes`.
        output: "bernoulli" (binary), "logistic" (discretised, 8-bit) or "gaussian" (real, or 8-bit dequantised).
        network: "mlp" or "conv".
        latent_dim: D of z.
        width: hidden units of the MLP, or channels at half resolution, doubled at each further level.
        num_blocks: residual blocks in each net (MLP), or at each resolution (conv).
        num_levels: how often the conv net halves the image.
        encoder_width, encoder_blocks: an MLP encoder of this size before a conv decoder, where given: an encoder that
            sees the whole image at once brings q(z|x) closer to the posterior, and costs little.
        dropout: probability inside the residual blocks, in training only.
        conditional: whether the class c is given to both nets.

    Raises:
        ValueError: if output and support do not fit, or a conditional model has no classes.
    """

    @register_to_config
    def __init__(
        self,
        data_spec: dict,
        output: str = "bernoulli",
        network: str = "mlp",
        latent_dim: int = 16,
        width: int = 256,
        num_blocks: int = 1,
        num_levels: int = 2,
        encoder_width: int | None = None,
        encoder_blocks: int = 1,
        dropout: float = 0.0,
        conditional: bool = False,
    ):
        super().__init__()
        check_config(self, "num_blocks")
        shape, support = tuple(data_spec["shape"]), data_spec["support"]
        fits = {"bernoulli": ("binary",), "logistic": ("8-bit",), "gaussian": ("real", "8-bit")}
        if output not in fits:
            raise ValueError(f"output is {output!r}; it must be one of {', '.join(fits)}")
        if support not in fits[output]:
            raise ValueError(
                f"output {output!r} models {' or '.join(fits[output])} data, but the support is {support!r}"
            )
        if output == "gaussian" and support == "8-bit" and data_spec["dequantization"] != "uniform":
            raise ValueError(
                "a gaussian output on 8-bit data needs dequantization 'uniform' for its density to be finite"
            )
        if output == "logistic" and list(data_spec["range"]) != [-1, 1]:
            raise ValueError(
                f"a logistic output works on the range [-1, 1], but the data spec has {data_spec['range']}"
            )
        if conditional and not data_spec.get("num_classes"):
            raise ValueError("conditional is True, but the data has no classes")
        if network not in ("mlp", "conv"):
            raise ValueError(f"network is {network!r}; it must be mlp or conv")
        if network == "mlp" and encoder_width:
            raise ValueError(f"encoder_width is {encoder_width}, but only network 'conv' takes an encoder of its own")
        if network == "conv" and len(shape) != 3:
            raise ValueError(f"network 'conv' takes images (C, H, W), but x has shape {shape}")

        self.shape = shape
        self.size = math.prod(shape)
        self.num_classes = data_spec["num_classes"] if conditional else 0
        params = 2 if output == "logistic" else 1  # numbers the decoder gives for each entry of x
        code, values, classes = 2 * latent_dim, params * self.size, self.num_classes
        if network == "mlp":
            self.encoder = MLP(self.size, code, width, num_blocks, dropout, classes)
            self.decoder = MLP(latent_dim, values, width, num_blocks, dropout, classes)
        else:
            common = (width, num_blocks, num_levels, dropout, classes)
            if encoder_width:
                self.encoder = MLP(self.size, code, encoder_width, encoder_blocks, dropout, classes)
            else:
                self.encoder = ConvEncoder(shape, code, *common)
            self.decoder = ConvDecoder(latent_dim, shape, params * shape[0], *common)
        # one scale per channel, or per coordinate of a vector: see 3. above
        self.log_scale = nn.Parameter(torch.zeros(shape[0], *[1] * (len(shape) - 1))) if output == "gaussian" else None

        # density of the range the network sees -> density of pixels in [0, 256): see 4. above
        low, high = data_spec["range"] if support == "8-bit" else (0, 256)
        self.log_volume = self.size * math.log((high - low) / 256) if output == "gaussian" else 0.0
        self.half_bin = (high - low) / 255 / 2  # of the discretised logistic

    @apply_forward_hook
    def encode(self, x: Tensor, class_labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """q(z|x, c): x (B, *shape) in the range of the data spec -> mean (B, D), log variance (B, D)."""
        if self.config.data_spec["support"] == "binary":
            x = 2 * x - 1  # centred inputs train faster
        h = self.encoder(x.to(self.dtype), class_labels).float()
        mean, raw = h.chunk(2, dim=1)
        return mean, -4 + 10 * torch.tanh((raw + 4) / 10)  # see 2. above; the identity near -4

    @apply_forward_hook
    def decode(self, z: Tensor, class_labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """p(x|z, c): z (B, D) -> its two parameters, each (B, *shape) or broadcast to it.

        Bernoulli: logits and None. Gaussian and logistic: mean and log scale, in the range of the data spec.
        """
        h = self.decoder(z.to(self.dtype), class_labels).float()
        if self.config.output == "bernoulli":
            return h.reshape(-1, *self.shape), None
        if self.config.output == "gaussian":
            return h.reshape(-1, *self.shape), self.log_scale.float().clamp(min=-8)
        h = h.reshape(len(z), 2, *self.shape)
        return h[:, 0], (h[:, 1] - 2).clamp(min=-8)

    @apply_forward_hook
    def output_log_prob(self, x: Tensor, z: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """log p(x|z, c): (B, *shape), (B, D) -> (B,), nats."""
        first, second = self.decode(z, class_labels)
        if self.config.output == "bernoulli":
            return bernoulli_log_prob(x, first)
        if self.config.output == "gaussian":
            return gaussian_log_prob(x, first, second) + self.log_volume
        return discretised_logistic_log_prob(x, first, second, self.half_bin)

    def forward(
        self, x: Tensor, class_labels: Tensor | None = None, beta: float = 1.0, return_dict: bool = True
    ) -> VAELossOutput | tuple[Tensor, Tensor, Tensor]:
        """One estimate of -ELBO with the KL weighted by beta (arXiv 1804.03599 for beta != 1).

        Args:
            x: (B, *shape), in the range of the data spec.
            class_labels: (B,) int64, if the model is conditional.
            return_dict: False gives the three fields as a tuple.
        """
        mean, logvar = self.encode(x, class_labels)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)  # equation 10
        reconstruction = self.output_log_prob(x, z, class_labels)
        kl = gaussian_kl(mean, logvar)
        loss = (beta * kl - reconstruction).mean()
        if not return_dict:
            return loss, reconstruction, kl
        return VAELossOutput(loss=loss, reconstruction=reconstruction, kl=kl)
