"""Sampling, likelihood and encoding with a (conditional) variational autoencoder.

    sample         z ~ N(0, temperature^2 I), x from p(x|z, c)
    elbo           E_q [log p(x|z) + log p(z) - log q(z|x)] <= log p(x), with the KL in closed form
    log_prob       log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x): the importance-weighted bound, which
                   rises to log p(x) with K (Burda, Grosse and Salakhutdinov, arXiv 1509.00519, equation 8)

Images go in and out as values in [0, 1]; see `VAEPipeline` for the shapes.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from pipelines.contract import ClassLabels, Contract, Generators
from pipelines.steps import Images, Samples, SampleStep


class VAEPipeline(Contract, DiffusionPipeline):
    """A variational autoencoder to draw from, to measure with and to encode with.

    x is a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them, with values in [0, 1]; a vector
    model takes (B, D). Likelihoods are nats per sample, shape (B,); of 8-bit data -log_prob / (d ln 2) is bits/dim.
    A binary model measures only x in {0, 1}: `(torch.rand_like(x) < x).float()` binarises gray levels. An 8-bit model
    measures only x on the 256 levels k / 255.

    A `generator` is one `torch.Generator` for the batch or a list with one for each sample; with a list, sample i
    depends on its own seed alone.

    Args:
        vae: a `VAEModel`.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.
    """

    model_cpu_offload_seq = "vae"
    likelihood = "bound"

    def __init__(self, vae, auto_map: dict | None = None):
        super().__init__()
        self.register_modules(vae=vae)
        self._take_data_spec(vae.config.data_spec)

    # Sampling

    def __call__(
        self,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        temperature: float = 1.0,
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
            class_labels: an int for all samples, or one int each (which sets the batch size). A conditional model
                draws classes uniformly where none are given.
            temperature: standard deviation of z, at least 0; 1 is the model itself.
            decoder_output: "mean" gives E[x|z], "sample" draws x ~ p(x|z).
            latents: (B, D) codes to decode instead of drawing z.
            generator: one, or a list with one for each sample.
            output_type: "pil", "np" (B, H, W, C) or "pt" (B, C, H, W), in [0, 1]; "latent" gives the latents.
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as (pipe, step, timestep, {"latents": z}) after each step;
                what it returns as "latents" takes their place, and `pipe._interrupt = True` ends the steps.
            callback_on_step_end_tensor_inputs: what it is given: ["latents"].

        Raises:
            ValueError: on an argument out of range; the message names it.
        """
        steps = self.stream(batch_size, class_labels, temperature, decoder_output, latents, generator, output_type)
        return self._last_of(steps, return_dict, callback_on_step_end, callback_on_step_end_tensor_inputs)

    @torch.no_grad()
    def stream(
        self,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        temperature: float = 1.0,
        decoder_output: str = "mean",
        latents: Tensor | None = None,
        generator: Generators = None,
        output_type: str = "pil",
    ) -> Iterator[SampleStep]:
        """The samples of `__call__`, step by step: a VAE has one step. Same arguments."""
        self._check_output_type(output_type, may_be_latent=True)
        self._check_choice("decoder_output", decoder_output, "mean", "sample")
        self._check_number("temperature", temperature)
        if latents is not None:
            latents = self._check_latents(latents, (self.latent_dim,))
        batch_size = self._batch_size(batch_size, class_labels, latents, generator)
        labels = self._labels_or_draw(class_labels, batch_size, generator)
        if latents is None:
            latents = temperature * self._noise((batch_size, self.latent_dim), generator)

        def decode(z: Tensor) -> Images:
            return self._decode(z, labels, decoder_output, generator, output_type)

        yield self._one_step(latents, labels, output_type, decode)

    # Likelihood

    @torch.no_grad()
    def elbo(self, x, num_samples: int = 1, class_labels=None, generator: Generators = None) -> Tensor:
        """A lower bound on log p(x), or on log p(x|c): (B,), nats.

        The mean over `num_samples` draws of z; the KL is in closed form. A conditional model without `class_labels`
        bounds the marginal over equally likely classes, with the class as one more latent: sum_c r_c (elbo(x|c) -
        log r_c - log C), where r is the softmax of the classes' bounds, estimated from draws of its own.
        """
        reconstruction, kl = self.elbo_terms(x, num_samples, class_labels, generator)
        return reconstruction - kl

    @torch.no_grad()
    def elbo_terms(self, x, num_samples: int = 1, class_labels=None, generator=None) -> tuple[Tensor, Tensor]:
        """The two terms of the bound, E_q log p(x|z) and KL(q(z|x) || p(z)): (B,) each, nats; elbo is their difference.

        A conditional model without `class_labels` averages both over r(c|x), see `elbo`; KL(r || uniform) is part of
        the second.
        """

        def terms(x, labels, count):
            total = 0.0
            for _ in range(count):
                seen = self._network_input(x, generator)
                mean, logvar = self.vae.encode(seen, labels)
                z = mean + torch.exp(0.5 * logvar) * self._noise(mean.shape, generator)
                kl = self._kl(mean, logvar)
                total = total + torch.stack([self.vae.output_log_prob(seen, z, labels), kl])
            return total / count

        x = self._check_x(x, on_support=True)
        self._check_count("num_samples", num_samples)
        if self.num_classes and class_labels is None:
            classes = self._each_class(len(x))
            # r and what it weights come from different draws: from the same ones the bound would be too high
            guess = torch.stack([terms(x, labels, 1) for labels in classes])  # (C, 2, B)
            log_r = torch.log_softmax(guess[:, 0] - guess[:, 1], 0)
            by_class = torch.stack([terms(x, labels, num_samples) for labels in classes])
            reconstruction, kl = (log_r.exp()[:, None] * by_class).sum(0)
            return reconstruction, kl + (log_r.exp() * log_r).sum(0) + math.log(self.num_classes)
        reconstruction, kl = terms(x, self._labels(class_labels, len(x)), num_samples)
        return reconstruction, kl

    @torch.no_grad()
    def log_prob(self, x, num_samples: int = 100, class_labels=None, generator: Generators = None) -> Tensor:
        """An importance-weighted estimate of log p(x), or of log p(x|c), from `num_samples` draws: (B,), nats.

        In expectation it is a lower bound that tightens as `num_samples` grows; with one sample it is the ELBO with
        the KL estimated. Quote it together with `num_samples`. Without `class_labels` a conditional model gives the
        marginal over equally likely classes.
        """

        def estimate(x, labels):
            total = torch.full((len(x),), -math.inf, device=x.device)
            chunk = max(1, 4096 // len(x))  # samples of z that go through the nets at once
            done = 0
            while done < num_samples:
                k = min(chunk, num_samples - done)
                many = x.repeat_interleave(k, 0)
                many_labels = None if labels is None else labels.repeat_interleave(k, 0)
                many_generator = [g for g in generator for _ in range(k)] if isinstance(generator, list) else generator
                seen = self._network_input(many, many_generator)
                mean, logvar = self.vae.encode(seen, many_labels)
                noise = self._noise(mean.shape, many_generator)
                z = mean + torch.exp(0.5 * logvar) * noise
                # log p(z) - log q(z|x): the constants of the two normals cancel
                ratio = 0.5 * (logvar + noise.square() - z.square()).sum(1)
                weight = self.vae.output_log_prob(seen, z, many_labels) + ratio  # (B k,)
                total = torch.logaddexp(total, torch.logsumexp(weight.view(len(x), k), 1))
                done += k
            return total - math.log(num_samples)

        x = self._check_x(x, on_support=True)
        self._check_count("num_samples", num_samples)
        if self.num_classes and class_labels is None:
            by_class = torch.stack([estimate(x, labels) for labels in self._each_class(len(x))])
            return torch.logsumexp(by_class, 0) - math.log(self.num_classes)
        return estimate(x, self._labels(class_labels, len(x)))

    # The latent space

    @torch.no_grad()
    def encode(self, x, class_labels=None, sample: bool = False, generator: Generators = None) -> Tensor:
        """The mean of q(z|x), or with `sample` a draw from it: (B, D)."""
        x = self._check_x(x)
        labels = self._labels_needed(class_labels, len(x), "encoding")
        mean, logvar = self.vae.encode(self._network_input(x, middle=True), labels)
        return mean + torch.exp(0.5 * logvar) * self._noise(mean.shape, generator) if sample else mean

    @torch.no_grad()
    def decode(
        self,
        latents: Tensor,
        class_labels=None,
        decoder_output: str = "mean",
        generator: Generators = None,
        output_type: str = "pil",
    ) -> Samples:
        """Images (or vectors) from codes (B, D); arguments as in `__call__`."""
        return self(
            class_labels=class_labels,
            decoder_output=decoder_output,
            latents=latents,
            generator=generator,
            output_type=output_type,
        )

    def reconstruct(self, x, class_labels=None, sample: bool = False, **decoding):
        """decode(encode(x)); `sample` draws z from q(z|x) instead of taking its mean."""
        z = self.encode(x, class_labels, sample=sample, generator=decoding.get("generator"))
        return self.decode(z, class_labels, **decoding)

    def interpolate(self, a, b, steps: int = 8, class_labels=None, **decoding):
        """`steps` decoded points on the straight line between the codes of a and b (one each), ends included."""
        labels = self._check_path(steps, class_labels)
        ends = [self.encode(end, class_labels) for end in (a, b)]
        return self.decode(self._path(*ends, steps), labels, **decoding)

    @torch.no_grad()
    def active_units(self, x, class_labels=None, threshold: float = 0.01) -> Tensor:
        """Which latent units the posterior uses: (D,) bool, where Var_x(E[z|x]) exceeds the threshold.

        Section 5.2 of arXiv 1509.00519. A conditional model needs the class of each x.
        """
        return self.encode(x, class_labels).var(0, correction=0) > threshold

    # From x to the network and back

    @property
    def latent_dim(self) -> int:
        """D of z."""
        return self.vae.config.latent_dim

    @staticmethod
    def _kl(mean: Tensor, logvar: Tensor) -> Tensor:
        return 0.5 * (logvar.exp() + mean.square() - 1 - logvar).sum(1)

    def _network_input(self, x: Tensor, generator: Generators = None, middle: bool = False) -> Tensor:
        """[0, 1] -> the range that the network sees, 8-bit levels dequantised where the data spec says so.

        `middle` takes the middle of each level instead of a place that is drawn.
        """
        if self.data_spec["dequantization"] == "uniform":
            x = self._mid_level(x) if middle else self._dequantised(x, generator)
        return self._to_network(x)

    def _decode(
        self, z: Tensor, labels: Tensor | None, decoder_output: str, generator: Generators, output_type: str
    ) -> Images:
        """p(x|z, c) -> its mean or a draw from it, in the output_type."""
        first, second = self.vae.decode(z, labels)
        kind, draw = self.vae.config.output, decoder_output == "sample"
        if kind == "bernoulli":
            x = torch.sigmoid(first)
            x = (self._noise(x.shape, generator, uniform=True) < x).float() if draw else x
        elif kind == "gaussian":
            x = first + torch.exp(second) * self._noise(first.shape, generator) if draw else first
        else:
            u = self._noise(first.shape, generator, uniform=True).clamp(1e-6, 1 - 1e-6) if draw else torch.tensor(0.5)
            x = first + torch.exp(second) * torch.logit(u.to(first.device))  # the logistic's inverse distribution
        if self.data_spec["support"] == "8-bit":
            x = self._from_network(x)
            if draw:
                uniform = self.data_spec["dequantization"] == "uniform"
                x = (torch.floor(x * 256) if uniform else torch.round(x * 255)) / 255
        return self._as_output_type(x, output_type)
