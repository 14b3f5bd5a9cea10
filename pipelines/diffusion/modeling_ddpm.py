"""A denoiser for vectors: what `UNet2DModel` and `DiTTransformer2DModel` are to images.

x_t, the timestep and the class go in, a vector of x's shape comes out: the noise, x_0 or v, as the pipeline reads it.
The timestep enters every block as a scale and a shift, after Peebles and Xie, "Scalable Diffusion Models with
Transformers", arXiv 2212.09748 (adaLN-Zero, section 3.2).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from pipelines.specs import check_config


@dataclass
class MLPDenoiserOutput(BaseOutput):
    """`sample`: (B, D), the prediction, named as diffusers' denoisers name theirs."""

    sample: Tensor


class Block(nn.Module):
    """x + gate W2 silu(W1 (scale norm(x) + shift)); the identity at first."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 3 * width)
        self.linear1 = nn.Linear(width, width)
        self.linear2 = nn.Linear(width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift, gate = self.modulation(condition).chunk(3, dim=1)
        h = self.norm(x) * (1 + scale) + shift
        return x + gate * self.linear2(F.silu(self.linear1(h)))


class MLPDenoiser(ModelMixin, ConfigMixin):
    """Predicts the noise in a vector.

    Args:
        sample_size: D of x.
        width: hidden units.
        num_blocks: residual blocks.
        num_class_embeds: rows of the table of classes, the last of them for "no class"; None without classes.
    """

    @register_to_config
    def __init__(self, sample_size: int, width: int = 128, num_blocks: int = 3, num_class_embeds: int | None = None):
        super().__init__()
        check_config(self, "num_blocks")
        self.time_features = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(width, width)
        self.class_embedding = nn.Embedding(num_class_embeds, width) if num_class_embeds else None
        self.first = nn.Linear(sample_size, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, sample_size)

    def forward(
        self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None, return_dict: bool = True
    ) -> MLPDenoiserOutput | tuple[Tensor]:
        """sample (B, D), timestep (B,) or a scalar, class_labels (B,) -> (B, D)."""
        timestep = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        condition = self.time_embedding(self.time_features(timestep).to(sample.dtype))
        if self.class_embedding is not None:
            condition = condition + self.class_embedding(class_labels)
        condition = F.silu(condition)
        h = self.first(sample)
        for block in self.blocks:
            h = block(h, condition)
        out = self.last(F.silu(self.norm(h)))
        return MLPDenoiserOutput(sample=out) if return_dict else (out,)
