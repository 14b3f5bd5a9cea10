"""The network of denoising diffusion, with and without a class, and guidance between the two.

v is sqrt(abar) eps - sqrt(1 - abar) x_0 of Salimans and Ho, arXiv 2202.00512; guidance is Ho and Salimans, arXiv
2207.12598.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def keep_labels(denoiser: nn.Module) -> nn.Module:
    """A DiT's blocks drop labels in training, each on its own; after this none does: that is for a recipe to decide."""
    for module in denoiser.modules():
        if hasattr(module, "dropout_prob") and hasattr(module, "token_drop"):
            module.dropout_prob = 0
    return denoiser


def run_denoiser(denoiser: nn.Module, x: Tensor, timestep: Tensor, class_labels: Tensor | None, patch_size: int):
    """The denoiser's output at x (B, *shape), timestep (B,), in x's shape and float32.

    With a `patch_size` p above 1 the network sees (B, C p^2, H / p, W / p): noise that is independent in every pixel
    stays so, and a network at half the resolution costs a quarter.
    """
    if patch_size > 1:
        x = F.pixel_unshuffle(x, patch_size)
    out = denoiser(x, timestep, class_labels=class_labels, return_dict=False)[0]
    return (F.pixel_shuffle(out, patch_size) if patch_size > 1 else out).float()


class GuidedDenoiser:
    """A mixin of a pipeline whose `denoiser` may know classes, and then also "none"."""

    def _check_fit(self) -> None:
        """Whether the denoiser, by what its config says, takes x in patches and the classes that there are."""
        config, patch, (channels, *sides) = getattr(self.denoiser, "config", {}), self.config.patch_size, self._shape
        if not self._is_image:
            channels, sides = None, [channels]
        if any(side % patch for side in sides) or (patch > 1 and not self._is_image):
            raise ValueError(f"patch_size is {patch}; it must divide the sides of x, whose shape is {self._shape}")
        size, classes = config.get("sample_size"), self.data_spec["num_classes"]
        wanted = {"sample_size": [side // patch for side in sides]}
        wanted |= {name: [channels * patch**2] for name in ("in_channels", "out_channels") if channels}
        for name, right in wanted.items():
            size = config.get(name)
            found = size if isinstance(size, list | tuple) else [size] * len(right)
            if size is not None and list(found) != right:
                raise ValueError(f"denoiser has {name} {size}; x has shape {self._shape}, so it must be {right}")
        if self.config.conditional not in (True, False) or (self.config.conditional and not classes):
            raise ValueError(f"conditional is {self.config.conditional!r}, and the data spec has num_classes {classes}")
        # the table of a U-Net has a row for "none"; that of a DiT makes one itself, and has one without classes
        for name, rows in (("num_class_embeds", classes + 1), ("num_embeds_ada_norm", classes)):
            found = config.get(name)
            if found and self.config.conditional and found != rows:
                raise ValueError(f"denoiser has {name} {found}; the data has {classes} classes, so it must be {rows}")
        table = config.get("num_class_embeds"), config.get("num_embeds_ada_norm")
        if "num_class_embeds" in config and not any(table) == self.config.conditional:
            raise ValueError(f"conditional is {self.config.conditional}, but denoiser has num_class_embeds {table[0]}")

    @torch.no_grad()
    def predict(self, x_t: Tensor, timestep: int, class_labels=None, guidance_scale: float | None = None):
        """What the denoiser makes of x_t (B, *shape), in the range of the data spec: (x_0, noise), each (B, *shape)."""
        timestep, x_t = self._check_timestep(timestep), self._check_latents(x_t, self._shape, "x_t")
        guidance_scale = self._checked_guidance_scale(guidance_scale)
        labels = self._labels(class_labels, len(x_t))
        return self._predict(x_t, timestep, labels, guidance_scale)

    def _network_output(
        self, x: Tensor, timestep: Tensor, labels: Tensor | None, guidance_scale: float = 1.0
    ) -> Tensor:
        """The output of the network at x and one timestep or one each, with guidance; no labels means "no class"."""
        timesteps = timestep.to(x.device).expand(len(x))
        if self._takes_classes and (labels is None or guidance_scale == 0):
            labels = torch.full((len(x),), self._null_class, device=x.device)
            guidance_scale = 1.0
        patch, x = self.config.patch_size, x.to(self.denoiser.dtype)
        if guidance_scale == 1 or not self.num_classes:
            return run_denoiser(self.denoiser, x, timesteps, labels, patch)
        none = torch.full_like(labels, self._null_class)
        both = run_denoiser(self.denoiser, torch.cat([x, x]), timesteps.repeat(2), torch.cat([labels, none]), patch)
        given, free = both.chunk(2)
        return free + guidance_scale * (given - free)

    def _predict(self, x: Tensor, timestep: int | Tensor, labels, guidance_scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """x_0 and noise at x (B, *shape)."""
        timestep = torch.as_tensor(timestep)
        return self.predict_x0_and_noise(self._network_output(x, timestep, labels, guidance_scale), x, timestep)

    @property
    def _null_class(self) -> int:
        """The row of the table of classes that means none: the last."""
        return self.num_classes

    @property
    def _takes_classes(self) -> bool:
        """Whether the network wants labels: a DiT always does."""
        return self.config.conditional or bool(self.denoiser.config.get("num_embeds_ada_norm"))

    def _checked_guidance_scale(self, guidance_scale: float | None) -> float:
        if guidance_scale is None:
            return float(self.config.guidance_scale) if self.num_classes else 1.0
        self._check_number("guidance_scale", guidance_scale)
        if guidance_scale != 1 and not self.num_classes:
            raise ValueError(
                f"guidance_scale is {guidance_scale}, but this model was trained without classes; leave it out"
            )
        return float(guidance_scale)
