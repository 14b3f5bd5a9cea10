"""Sampling and exact likelihood with a density: of x itself, or of its principal components.

    log_prob    log p(x); with PCA log p(z) + log N(x - x^), see `PCAModel`
    sample      x ~ p; with PCA z ~ p(z), x = m + W z, with decoder_output="sample" also what the code leaves out

The density is a kernel density estimate or a Gaussian mixture; a PCA without one encodes and reconstructs only. Images
go in and out as values in [0, 1]; their likelihood is that of pixels in [0, 256), dequantised by uniform noise.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from pipelines.contract import ClassLabels, Contract, ExactLikelihood, Generators
from pipelines.saving import settings_of
from pipelines.steps import Images, Samples, SampleStep


class DensityPipeline(Contract, ExactLikelihood, DiffusionPipeline):
    """A density to draw from and to measure with, and a PCA to encode with; one of the two may be missing.

    x is a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them, with values in [0, 1]; a vector
    model takes (B, D). Likelihoods are nats per sample, shape (B,); of images -log_prob / (d ln 2) is bits/dim. A
    `generator` is one `torch.Generator` for the batch or a list with one for each sample; with a list, sample i depends
    on its own seed alone.

    `likelihood` is "exact", or "none" where there is no density.

    Args:
        density: a `KDEModel` or a `GaussianMixtureModel` of x, or of its codes; it may know the classes.
        pca: a `PCAModel`.
        data_spec: what x is, as every model's config here carries it.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.

    Raises:
        ValueError: the parts do not fit each other.
    """

    model_cpu_offload_seq = ""
    _optional_components = ["density", "pca"]  # noqa: RUF012 - diffusers reads this name
    _exclude_from_cpu_offload = ["density", "pca"]  # noqa: RUF012 - small, and read by other methods than forward

    def __init__(self, density=None, pca=None, data_spec: dict | None = None, auto_map: dict | None = None):
        super().__init__()
        self._take_data_spec(data_spec or settings_of(density, pca).get("data_spec"))
        if density is None and pca is None:
            raise ValueError("density and pca are both None; give at least one of them")
        self.register_modules(pca=pca, density=density)
        self.register_to_config(data_spec=self.data_spec)

    def _check_fit(self) -> None:
        self._check_codes_of("density")

    @property
    def likelihood(self) -> str:
        return "none" if self.density is None else "exact"

    @property
    def refusals(self) -> dict[str, str]:
        """The calls that this instance does not answer, and why."""
        if self.density is None:
            return {
                "sample": "this PCA has no density of its codes, so there is nothing to draw from: fit with --density "
                "mixture or kde, give DensityPipeline a density, or decode latents of your own",
                "log_prob": "a PCA without a density of its codes has no p(x)",
                "elbo": "a PCA without a density of its codes has no p(x)",
            }
        if self.pca is None:
            reason = "this density is of x itself; there are no codes without a PCA"
            return dict.fromkeys(("encode", "decode", "reconstruct", "interpolate", "reconstruction_error"), reason)
        return {}

    # Sampling

    def __call__(
        self,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        decoder_output: str = "mean",
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Samples | tuple:
        """Draw samples.

        Args:
            batch_size: how many; one if nothing else says it.
            class_labels: an int for all samples, or one int each (which sets the batch size), of a density that knows
                the classes; it draws from all of them together where none are given.
            decoder_output: "mean" gives m + W z, "sample" adds what the code leaves out; without PCA it says nothing.
            latents: (B, K) codes to decode instead of drawing them.
            generator: one, or a list with one for each sample.
            output_type: "pil", "np" (B, H, W, C) or "pt" (B, C, H, W), in [0, 1]; "latent" gives the latents.
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as (pipe, step, timestep, {"latents": z}) after each step;
                what it returns as "latents" takes their place, and `pipe._interrupt = True` ends the steps.
            callback_on_step_end_tensor_inputs: what it is given: ["latents"].

        Raises:
            ValueError: an argument is out of range; the message names it.
            NotImplementedError: there is no density.
        """
        steps = self.stream(batch_size, class_labels, decoder_output, latents, generator, output_type)
        return self._last_of(steps, return_dict, callback_on_step_end, callback_on_step_end_tensor_inputs)

    @torch.no_grad()
    def stream(
        self,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        decoder_output: str = "mean",
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
    ) -> Iterator[SampleStep]:
        """The samples of `__call__`, step by step: a density has one step. Same arguments."""
        self._check_output_type(output_type, may_be_latent=True)
        self._check_choice("decoder_output", decoder_output, "mean", "sample")
        if latents is not None:
            latents = self._check_latents(latents, (self.latent_dim,))
        batch_size = self._batch_size(batch_size, class_labels, latents, generator)
        labels = self._labels(class_labels, batch_size)
        if latents is None:
            self._check_answers("sample")
            uniform = self._noise((batch_size,), generator, uniform=True)
            latents = self.density.draw(uniform, self._noise((batch_size, self.latent_dim), generator), labels)

        def decode(z: Tensor) -> Images:
            x = z if self.pca is None else self.pca.decode(z)
            if decoder_output == "sample" and self.pca is not None:
                x = x + self.pca.residual_noise(self._noise(x.shape, generator))
            if self._is_image:  # the levels of a drawn image as 8 bits hold them
                drawn = decoder_output == "sample" or self.pca is None
                x = torch.floor(x * 256) / 255 if drawn else (x * 256 - 0.5) / 255
            return self._as_output_type(x, output_type)

        yield self._one_step(latents, labels, output_type, decode)

    # Likelihood

    @torch.no_grad()
    def log_prob(self, x, class_labels=None, generator: Generators = None) -> Tensor:
        """log p(x), or log p(x|c): (B,), nats, exact.

        Of 8-bit images it is the density of pixels in [0, 256) at a place within each pixel's level that `generator`
        draws: in expectation a lower bound on the probability mass of the level.

        Raises:
            NotImplementedError: there is no density.
        """
        self._check_answers("log_prob")
        x = self._check_x(x, on_support=True)
        labels = self._labels(class_labels, len(x))
        is_real = self.data_spec["support"] == "real"
        flat = (x if is_real else self._dequantised(x, generator)).flatten(1)
        codes = flat if self.pca is None else self.pca.encode(flat)
        log_prob = self.density.log_prob(codes, labels)
        if self.pca is not None:
            log_prob = log_prob + self.pca.residual_log_prob(flat)
        # density on [0, 1] -> density of pixels in [0, 256)
        return log_prob - (0.0 if is_real else self._size * math.log(256))

    # Codes

    @torch.no_grad()
    def encode(self, x, class_labels=None) -> Tensor:
        """W^T (x - m): (B, K). Codes do not depend on `class_labels`, which other families ask for."""
        self._check_answers("encode")
        x = self._check_x(x)
        return self.pca.encode((x if self.data_spec["support"] == "real" else self._mid_level(x)).flatten(1))

    def decode(
        self,
        latents: Tensor,
        class_labels=None,
        decoder_output: str = "mean",
        generator: Generators = None,
        output_type: str = "pil",
    ):
        """m + W z: images (or vectors) from codes (B, K)."""
        self._check_answers("decode")
        return self(decoder_output=decoder_output, latents=latents, generator=generator, output_type=output_type)

    def reconstruct(self, x, class_labels=None, num_components: int | None = None, **decoding):
        """decode(encode(x)), from the first `num_components` only where that is given."""
        z = self.encode(x)
        if num_components is not None:
            self._check_count("num_components", num_components)
            z = torch.cat([z[:, :num_components], torch.zeros_like(z[:, num_components:])], 1)
        return self.decode(z, **decoding)

    def interpolate(self, a, b, steps: int = 8, class_labels=None, **decoding):
        """`steps` decoded points on the straight line between the codes of a and b (one each), ends included."""
        self._check_path(steps, class_labels)
        return self.decode(self._path(self.encode(a), self.encode(b), steps), **decoding)

    @torch.no_grad()
    def reconstruction_error(self, x) -> Tensor:
        """Mean squared error of each x, over its entries, with images in [0, 1]: (B,)."""
        self._check_answers("reconstruction_error")
        again = self.reconstruct(x, output_type="pt")
        x = self._check_x(x)
        return ((again.images if self._is_image else again.samples) - x).square().flatten(1).mean(1)

    @property
    def latent_dim(self) -> int:
        """K of the codes; without PCA these are x itself, flat."""
        return self._size if self.pca is None else self.pca.config.num_components
