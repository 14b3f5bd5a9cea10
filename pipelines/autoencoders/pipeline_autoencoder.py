"""Encoding, reconstruction, tangents and, where there is a density of the codes, sampling with an autoencoder.

    reconstruct    decode(encode(x)); of a denoising autoencoder `denoise`
    sample         z ~ prior, x = decode(z): the prior is a density fitted to the codes of the training set, or the one
                   that the objective drew them to; without either there is nothing to draw from
    tangents       the leading right singular vectors of the encoder's Jacobian at x: the directions in which x can
                   move and the code notices (Rifai et al., "The Manifold Tangent Classifier", NeurIPS 2011)

An autoencoder has no p(x): a decoder tells where a code goes to, not how much of the codes' probability comes to x.
Images go in and out as values in [0, 1].
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from pipelines.contract import ClassLabels, Contract, Generators, NoDensity
from pipelines.steps import Images, Samples, SampleStep


@dataclass
class TangentOutput(BaseOutput):
    """The encoder's Jacobian at each x, by its singular value decomposition.

    Attributes:
        tangents: (B, k, *shape), unit vectors, the leading one first.
        singular_values: (B, min(D, dimensions of x)), falling: how fast the code moves along each tangent, all of them.
    """

    tangents: Tensor
    singular_values: Tensor


class AutoencoderPipeline(Contract, NoDensity, DiffusionPipeline):
    """An autoencoder to encode with, and to draw from where the density of its codes is known.

    x is a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them, with values in [0, 1]; a vector
    model takes (B, D). A `generator` is one `torch.Generator` for the batch or a list with one for each sample; with a
    list, sample i depends on its own seed alone.

    `likelihood` is "implicit" where there is a prior to draw codes from, "none" where there is not.

    Args:
        autoencoder: an `AutoencoderModel`.
        prior: a density of the codes with `draw(uniform, normal, class_labels)`, a `KDEModel` or a
            `GaussianMixtureModel`; it may know the classes.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.

    Raises:
        ValueError: the prior is of codes of another size.
    """

    model_cpu_offload_seq = "autoencoder"
    _optional_components = ["prior"]  # noqa: RUF012 - diffusers reads this name
    _exclude_from_cpu_offload = ["prior"]  # noqa: RUF012 - small, and read by other methods than forward

    def __init__(self, autoencoder, prior=None, auto_map: dict | None = None):
        super().__init__()
        self.register_modules(autoencoder=autoencoder, prior=prior)
        self._take_data_spec(autoencoder.config.data_spec)

    def _check_fit(self) -> None:
        self._check_dim("prior", self._part("prior"), self.latent_dim)

    @property
    def likelihood(self) -> str:
        return "none" if self.prior is None and self.autoencoder.config.code_prior is None else "implicit"

    @property
    def classifies(self) -> bool:
        """Whether `classify` answers."""
        return "classify" not in self.refusals

    @property
    def latent_dim(self) -> int:
        """D of the codes."""
        return self.autoencoder.config.latent_dim

    @property
    def refusals(self) -> dict[str, str]:
        """The calls that this instance does not answer, and why."""
        reason = (
            "an autoencoder has no p(x), only codes and where they are decoded to; how well it knows x is "
            "reconstruction_error(x)"
        )
        found = {"log_prob": reason, "elbo": reason}
        if self.likelihood == "none":
            found["sample"] = (
                "this autoencoder has no prior over its codes, so there is nothing to draw from: train with "
                "--prior mixture or kde, give AutoencoderPipeline a prior, or decode latents of your own"
            )
        if not self.autoencoder.config.supervised:
            found["classify"] = "this autoencoder was trained without classes (supervised is False)"
        return found

    # Sampling

    def __call__(
        self,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Samples | tuple:
        """Draw codes from the prior and decode them.

        Args:
            batch_size: how many; one if nothing else says it.
            class_labels: an int for all samples, or one int each (which sets the batch size), of a prior that knows the
                classes; it draws from all of them together where none are given.
            latents: (B, D) codes to decode instead of drawing them.
            generator: one, or a list with one for each sample.
            output_type: "pil", "np" (B, H, W, C) or "pt" (B, C, H, W), in [0, 1]; "latent" gives the latents.
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as (pipe, step, timestep, {"latents": z}) after each step;
                what it returns as "latents" takes their place, and `pipe._interrupt = True` ends the steps.
            callback_on_step_end_tensor_inputs: what it is given: ["latents"].

        Raises:
            ValueError: an argument is out of range; the message names it.
            NotImplementedError: there is no prior.
        """
        steps = self.stream(batch_size, class_labels, latents, generator, output_type)
        return self._last_of(steps, return_dict, callback_on_step_end, callback_on_step_end_tensor_inputs)

    @torch.no_grad()
    def stream(
        self,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
    ) -> Iterator[SampleStep]:
        """The samples of `__call__`, step by step: an autoencoder has one step. Same arguments."""
        self._check_output_type(output_type, may_be_latent=True)
        if latents is not None:
            latents = self._check_latents(latents, (self.latent_dim,))
        batch_size = self._batch_size(batch_size, class_labels, latents, generator)
        labels = self._labels(class_labels, batch_size)
        if latents is None:
            latents = self._draw_codes(batch_size, labels, generator)

        def decode(z: Tensor) -> Images:
            return self._output(self.autoencoder.decode(z), output_type)

        yield self._one_step(latents, labels, output_type, decode)

    # Codes

    @torch.no_grad()
    def encode(self, x, class_labels=None) -> Tensor:
        """The code of each x: (B, D). Codes do not depend on `class_labels`, which other families ask for."""
        return self.autoencoder.encode(self._to_network(self._check_x(x)))

    def decode(self, latents: Tensor, class_labels=None, output_type: str = "pil"):
        """Images (or vectors) from codes (B, D)."""
        return self(latents=latents, output_type=output_type)

    def reconstruct(self, x, class_labels=None, output_type: str = "pil"):
        """decode(encode(x))."""
        return self.decode(self.encode(x), output_type=output_type)

    @torch.no_grad()
    def denoise(self, x, output_type: str = "pil"):
        """What is left of x when it has gone through the code: `reconstruct` of values that noise took out of [0, 1]."""
        x = self._check_x(x, bounded=False)
        return self.decode(self.autoencoder.encode(self._to_network(x)), output_type=output_type)

    def interpolate(self, a, b, steps: int = 8, class_labels=None, output_type: str = "pil"):
        """`steps` decoded points on the straight line between the codes of a and b (one each), ends included."""
        self._check_path(steps, class_labels)
        return self.decode(self._path(self.encode(a), self.encode(b), steps), output_type=output_type)

    @torch.no_grad()
    def reconstruction_error(self, x) -> Tensor:
        """Mean squared error of each x, over its entries, with images in [0, 1]: (B,)."""
        x = self._check_x(x)
        again = self.autoencoder.decode(self.autoencoder.encode(self._to_network(x)))
        return (self._from_network(again) - x).square().flatten(1).mean(1)

    @torch.no_grad()
    def classify(self, x) -> Tensor:
        """Class probabilities given the code: (B, num_classes).

        Raises:
            NotImplementedError: the model was not trained to classify.
        """
        self._check_answers("classify")
        return self.autoencoder.classify(self.encode(x)).softmax(1)

    # The manifold

    def tangents(self, x, k: int = 8) -> TangentOutput:
        """The k directions in which the code of x changes fastest, and all singular values of the Jacobian.

        Args:
            x: (B, *shape).
            k: at most the smaller of the code's and x's dimensions.

        Raises:
            ValueError: k is out of range, or x cannot be used.
        """
        x = self._check_x(x)
        most = min(self.latent_dim, self._size)
        self._check_count("k", k)
        if k > most:
            raise ValueError(f"k is {k}; this model's Jacobian has {most} singular values")

        def code(one: Tensor) -> Tensor:
            return self.autoencoder.encode(self._to_network(one[None]))[0]

        jacobian = torch.func.vmap(torch.func.jacrev(code))(x).flatten(2)  # (B, D, dimensions of x)
        _, values, vectors = torch.linalg.svd(jacobian.detach(), full_matrices=False)
        return TangentOutput(tangents=vectors[:, :k].unflatten(2, x.shape[1:]), singular_values=values)

    def walk(self, x, tangent: Tensor, steps: int = 9, length: float = 1.0, output_type: str = "pil"):
        """From x along a tangent and back: decode(z + t J v) for `steps` values of t from -length to length.

        The walk is along the line of codes that the tangent v points to at z, so that every stop is decoded: to first
        order in t it is encode(x + t v).

        Args:
            x: one image or vector.
            tangent: (*shape), as `tangents` gives it, or any direction in x.
            steps: how many images, at least 2.
            length: of the walk to each side, in units of x: the norm of t v.
        """
        x = self._check_x(x)
        self._check_count("steps", steps, least=2)
        if len(x) != 1:
            raise ValueError(f"x holds {len(x)} samples; a walk starts from one")
        if not isinstance(tangent, Tensor) or tuple(tangent.shape) != tuple(x.shape[1:]):
            got = tuple(tangent.shape) if isinstance(tangent, Tensor) else type(tangent).__name__
            raise ValueError(f"tangent is {got}; it must be a tensor of shape {tuple(x.shape[1:])}")
        self._check_number("length", length, above_least=True)

        def code(one: Tensor) -> Tensor:
            return self.autoencoder.encode(self._to_network(one))

        z, along = torch.func.jvp(code, (x,), (tangent.to(x)[None],))
        t = torch.linspace(-length, length, steps, device=x.device)[:, None]
        return self.decode((z + t * along).detach(), output_type=output_type)

    def _draw_codes(self, batch_size: int, labels: Tensor | None, generator: Generators) -> Tensor:
        self._check_answers("sample")
        uniform = self._noise((batch_size,), generator, uniform=True)
        normal = self._noise((batch_size, self.latent_dim), generator)
        if self.prior is None:
            return self.autoencoder.draw_codes(uniform, normal)
        return self.prior.draw(uniform, normal, labels)
