"""The hierarchical variational autoencoder: a chain of latents z_1 ... z_L explains x, the top being pure noise.

    p(x, z) = p(x|z_1) p(z_1|z_2) ... p(z_{L-1}|z_L) p(z_L),    p(z_L) = N(0, I)
    q(z|x)  = q(z_1|x) q(z_2|z_1) ... q(z_L|z_{L-1})            all Gaussian with diagonal covariance
    log p(x) >= E_q log p(x|z_1) - sum_l KL_l,
    KL_l = E_q [log q(z_l|z_{l-1}) - log p(z_l|z_{l+1})],  z_0 = x

Rezende, Mohamed and Wierstra, arXiv 1401.4082 (section 3); Burda, Grosse and Salakhutdinov, arXiv 1509.00519, train
it with two levels (section 5); Sønderby et al., arXiv 1602.02282 (section 2.3), warm the KL up, without which the upper
levels stay unused. One level is the VAE of arXiv 1312.6114.

Where this departs from the papers:
1. All nets are residual MLPs with layer norm instead of two hidden layers of tanh units.
2. log sigma^2 is kept in [-14, 6] by a smooth squash, so that one bad batch cannot send exp() to infinity.
3. p(z_l|z_{l+1}) begins as N(0, I), so training starts as that of a VAE; q(z_{l+1}|z_l) begins narrow, so that z_{l+1}
   tells of z_l from the first step. Both wide would be a saddle: z_{l+1} would be noise, which p rightly ignores.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from pipelines.specs import check_config

NARROW = -3.0  # log variance with which q of the upper levels begins: see 3. above


@dataclass
class HierarchicalVAELossOutput(BaseOutput):
    """What a training step needs.

    Attributes:
        loss: scalar, the batch mean of -(log p(x|z_1) - sum_l beta_l KL_l), nats.
        reconstruction: (B,), log p(x|z_1) at one draw from q, nats.
        kl: (B, L), KL_l at that draw, bottom to top, nats. Below the top it may be negative, even in the mean: where
            z_{l+1} tells of z_l more than z_{l-1} does, the level above has paid for it.
    """

    loss: Tensor = None
    reconstruction: Tensor = None
    kl: Tensor = None


class ResidualLinear(nn.Module):
    """x + W silu(norm(x)): one square matrix a block, so depth is cheap in parameters."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(F.silu(self.norm(x)))


class MLP(nn.Module):
    """in -> width -> residual blocks -> out on flat vectors: (B, ...) -> (B, out_size)."""

    def __init__(self, in_size: int, out_size: int, width: int, num_blocks: int):
        super().__init__()
        self.first = nn.Linear(in_size, width)
        self.blocks = nn.ModuleList(ResidualLinear(width) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width) if num_blocks else nn.Identity()
        self.last = nn.Linear(width, out_size)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.flatten(1))
        for block in self.blocks:
            h = block(h)
        return self.last(F.silu(self.norm(h)))


def mean_and_logvar(h: Tensor) -> tuple[Tensor, Tensor]:
    """What a net gives, (B, 2 D), as mean (B, D) and log variance (B, D) in [-14, 6]: see 2. above."""
    mean, raw = h.float().chunk(2, dim=1)
    return mean, -4 + 10 * torch.tanh((raw + 4) / 10)  # the identity near -4


class HierarchicalVAEModel(ModelMixin, ConfigMixin):
    """All the nets of a hierarchical VAE on binary images; level l is that of z_l, counted from 0 at the bottom.

    Args:
        data_spec: what x is: `kind` ("image"), `shape` (C, H, W), `support` ("binary") and what else the recipe knows.
        latent_dims: D of z_1, z_2, ..., from the bottom to the top; its length is L.
        width: hidden units of q(z_1|x) and p(x|z_1).
        num_blocks: residual blocks in each net.
        upper_width: hidden units of the nets between two levels.

    Raises:
        ValueError: if x is not a binary image, or latent_dims is empty or holds anything but positive integers.
    """

    @register_to_config
    def __init__(
        self,
        data_spec: dict,
        latent_dims: Sequence[int] = (16, 8),
        width: int = 256,
        num_blocks: int = 1,
        upper_width: int = 128,
    ):
        super().__init__()
        check_config(self, "num_blocks")
        kind, support = data_spec["kind"], data_spec["support"]
        if kind != "image" or support != "binary":
            raise ValueError(f"the data is of kind {kind!r} and support {support!r}; this model takes binary images")
        dims = list(latent_dims)
        self.latent_dims, self.num_levels = dims, len(dims)
        self.shape = tuple(data_spec["shape"])
        size = math.prod(self.shape)
        self.encoder = MLP(size, 2 * dims[0], width, num_blocks)
        self.decoder = MLP(dims[0], size, width, num_blocks)
        between = list(itertools.pairwise(dims))  # (D of z_l, D of z_{l+1})
        self.upper_encoders = nn.ModuleList(MLP(low, 2 * high, upper_width, num_blocks) for low, high in between)
        self.upper_decoders = nn.ModuleList(MLP(high, 2 * low, upper_width, num_blocks) for low, high in between)
        for encoder, decoder in zip(self.upper_encoders, self.upper_decoders, strict=True):  # see 3. above
            nn.init.constant_(encoder.last.bias.chunk(2)[1], NARROW)
            nn.init.zeros_(decoder.last.weight)
            nn.init.zeros_(decoder.last.bias)

    @apply_forward_hook
    def posterior(self, below: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """q(z_l|z_{l-1}): x (B, C, H, W) at level 0, else the code below -> mean, log variance, (B, D_l) each."""
        if level == 0:
            return mean_and_logvar(self.encoder((2 * below - 1).to(self.dtype)))  # centred inputs train faster
        return mean_and_logvar(self.upper_encoders[level - 1](below.to(self.dtype)))

    @apply_forward_hook
    def prior(self, above: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """p(z_l|z_{l+1}) of a level below the top: the code above (B, D_{l+1}) -> mean, log variance, (B, D_l) each."""
        return mean_and_logvar(self.upper_decoders[level](above.to(self.dtype)))

    @apply_forward_hook
    def decode(self, z: Tensor) -> Tensor:
        """p(x|z_1): (B, D_1) -> the logits of its pixels, (B, C, H, W)."""
        return self.decoder(z.to(self.dtype)).float().reshape(-1, *self.shape)

    @apply_forward_hook
    def output_log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z_1): (B, C, H, W) in {0, 1}, (B, D_1) -> (B,), nats."""
        return -F.binary_cross_entropy_with_logits(self.decode(z), x, reduction="none").flatten(1).sum(1)

    @apply_forward_hook
    def encode(self, x: Tensor, noise: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """One path up: the codes z_l, and mean and log variance of q at each level; L tensors (B, D_l) each.

        Args:
            x: (B, C, H, W).
            noise: standard normal (B, D_l) for each level; zeros give the means.
        """
        codes, means, logvars, below = [], [], [], x
        for level, epsilon in enumerate(noise):
            mean, logvar = self.posterior(below, level)
            below = mean + torch.exp(0.5 * logvar) * epsilon
            codes.append(below)
            means.append(mean)
            logvars.append(logvar)
        return codes, means, logvars

    @apply_forward_hook
    def bound_terms(self, x: Tensor, noise: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """An unbiased estimate of the bound's terms along one path: log p(x|z_1) (B,) and KL_l (B, L), nats.

        Below the top E log q, the negative entropy, is in closed form and log p is taken at the sample: z_{l+1} depends
        on the very z_l that p(z_l|z_{l+1}) is asked about, so the closed KL of the two Gaussians would be another
        number. At the top p is fixed, and the KL is in closed form (appendix B of arXiv 1312.6114).
        """
        codes, means, logvars = self.encode(x, noise)
        kl = []
        for level in range(self.num_levels - 1):
            mean, logvar = self.prior(codes[level + 1], level)
            scaled = (codes[level] - mean).square() * torch.exp(-logvar)
            kl.append(0.5 * (logvar - logvars[level] - 1 + scaled).sum(1))
        kl.append(0.5 * (logvars[-1].exp() + means[-1].square() - 1 - logvars[-1]).sum(1))
        return self.output_log_prob(x, codes[0]), torch.stack(kl, 1)

    def forward(
        self, x: Tensor, beta: float | Sequence[float] = 1.0, return_dict: bool = True
    ) -> HierarchicalVAELossOutput | tuple[Tensor, Tensor, Tensor]:
        """One estimate of -ELBO with KL_l weighted by beta_l.

        Args:
            x: (B, C, H, W) in {0, 1}.
            beta: one weight for all levels, or one each from the bottom to the top; 1 is the bound itself.
            return_dict: False gives the three fields as a tuple.
        """
        noise = [torch.randn(len(x), dim, device=x.device) for dim in self.latent_dims]
        reconstruction, kl = self.bound_terms(x, noise)
        loss = ((torch.as_tensor(beta, device=x.device) * kl).sum(1) - reconstruction).mean()
        if not return_dict:
            return loss, reconstruction, kl
        return HierarchicalVAELossOutput(loss=loss, reconstruction=reconstruction, kl=kl)
