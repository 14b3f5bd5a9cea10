"""The variational bound of denoising diffusion, in nats.

    -log p(x_0) <= L_T + sum_t L_{t-1} + L_0

Ho, Jain and Abbeel, arXiv 2006.11239, equations 5 and 13.
"""

import math

import torch
from torch import Tensor

from pipelines.contract import Generators

ELBO_SAMPLES = 16  # timesteps of the bound that are drawn for each x, unless a call says otherwise


def discretised_gaussian_log_prob(x: Tensor, mean: Tensor, std: float, half_bin: float) -> Tensor:
    """log mass that N(mean, std^2) gives to the bin around x: (B, ...) -> (B,), nats.

    x lies on the 256 levels of [-1, 1]; the lowest and highest bins reach to -inf and +inf. Equation 13 of
    arXiv 2006.11239.
    """
    x, mean = x.double(), mean.double()
    lower, upper = (x - mean - half_bin) / std, (x - mean + half_bin) / std
    # the bin or its mirror image, whichever is in the left tail, where log Phi is precise
    mirrored = lower + upper > 0
    a, b = torch.where(mirrored, -upper, lower), torch.where(mirrored, -lower, upper)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    log_mass = log_b + torch.log(-torch.expm1(log_a - log_b))
    log_mass = torch.where(x < -1 + half_bin, torch.special.log_ndtr(upper), log_mass)
    log_mass = torch.where(x > 1 - half_bin, torch.special.log_ndtr(-lower), log_mass)
    return log_mass.flatten(1).sum(1).float()


class VariationalBound:
    """A mixin of a pipeline that is a `ForwardProcess` and a `GuidedDenoiser`."""

    @property
    def convention(self) -> str:
        """How `elbo` measures, by default: what a figure made by it should say."""
        decoder = "discretised" if self._is_image else "density of a"
        return f"T = {self.num_timesteps}, {ELBO_SAMPLES} sampled terms an x, {decoder} Gaussian decoder"

    @torch.no_grad()
    def elbo(self, x, num_samples: int = ELBO_SAMPLES, class_labels=None, generator: Generators = None) -> Tensor:
        """A lower bound on log p(x), or on log p(x|c): (B,), nats; an unbiased estimate of it.

        `num_samples` of the T - 1 terms L_{t-1} are evaluated for each x, spread over t and weighted by how often they
        are chosen; more make the estimate steadier, not higher. Without `class_labels` a conditional model is
        measured as the unconditional one that it also is.
        """
        prior, diffusion, decoder = self.elbo_terms(x, num_samples, class_labels, generator)
        return -(prior + diffusion + decoder)

    @torch.no_grad()
    def elbo_terms(
        self, x, num_samples: int = ELBO_SAMPLES, class_labels=None, generator: Generators = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """L_T, the sum of the L_{t-1} and L_0: (B,) each, nats; minus their sum is `elbo`.

        L_T = KL(q(x_T|x_0) || N(0, I)). L_{t-1} = KL(q(x_{t-1}|x_t, x_0) || p(x_{t-1}|x_t)), of two Gaussians with
        the posterior's variance. L_0 = -log p(x_0|x_1), a Gaussian of variance beta_1: its mass in the bin of a pixel,
        its density of vectors. Predictions of x_0 are clipped to the range of images.
        """
        self._check_count("num_samples", num_samples)
        x = self._to_network(self._check_x(x, on_support=True))
        labels = self._labels(class_labels, len(x))
        weights = self.timestep_weights()
        edges = weights.cumsum(0)
        u = self._noise((len(x), num_samples), generator, uniform=True).double().cpu()
        diffusion = 0.0
        for k in range(num_samples):
            # one draw from each of `num_samples` slices of equal chance
            place = torch.searchsorted(edges, (k + u[:, k]) / num_samples).clamp(max=len(edges) - 1)
            term = self._transition_kl(x, place + 1, labels, self._noise(x.shape, generator))
            diffusion = diffusion + term / (weights[place] * num_samples).to(x.device, torch.float32)
        decoder = self._decoder_nats(x, labels, self._noise(x.shape, generator))
        return self._prior_kl(x), diffusion, decoder

    @torch.no_grad()
    def elbo_curve(self, x, timesteps=None, class_labels=None, generator: Generators = None) -> Tensor:
        """Each term of the bound at `timesteps`, all by default: (N, B), nats.

        Timestep 0 is L_0, timestep t is L_t of `elbo_terms`' sum: KL(q(x_{t-1}|x_t, x_0) || p(x_{t-1}|x_t)).
        """
        timesteps = range(self.num_timesteps) if timesteps is None else [self._check_timestep(t) for t in timesteps]
        x = self._to_network(self._check_x(x, on_support=True))
        labels = self._labels(class_labels, len(x))
        rows = []
        for t in timesteps:
            noise = self._noise(x.shape, generator)
            if t == 0:
                rows.append(self._decoder_nats(x, labels, noise))
            else:
                rows.append(self._transition_kl(x, torch.full((len(x),), t), labels, noise))
        return torch.stack(rows)

    def log_prob(self, x, num_samples: int = ELBO_SAMPLES, class_labels=None, generator: Generators = None) -> Tensor:
        """There is none: x can be reached on infinitely many paths.

        Raises:
            NotImplementedError: with the call that answers instead.
        """
        self._check_answers("log_prob")

    def _prior_kl(self, x: Tensor) -> Tensor:
        abar = self.abar[-1].item()
        kl = 0.5 * ((1 - abar) + abar * x.square() - 1 - math.log1p(-abar))
        return kl.flatten(1).sum(1)

    def _transition_kl(self, x: Tensor, timesteps: Tensor, labels, noise: Tensor) -> Tensor:
        """KL(q(x_{t-1}|x_t, x_0) || p(x_{t-1}|x_t)) at t >= 1, one t for each x: (B,), nats."""
        x_t = self.q_sample(x, timesteps, noise)
        predicted, _ = self._predict(x_t, timesteps, labels)
        # both means hold the same x_t, so they differ by the difference of x_0; beta~ and its factor make SNRs
        error = (x - self._clip_to_range(predicted)).square().flatten(1).sum(1)
        return 0.5 * self._snr_differences()[timesteps - 1].to(x.device, torch.float32) * error

    def _decoder_nats(self, x: Tensor, labels, noise: Tensor) -> Tensor:
        """-log p(x_0|x_1): (B,), nats."""
        predicted, _ = self._predict(self.q_sample(x, 0, noise), 0, labels)
        mean, std = self._clip_to_range(predicted), (1 - self.abar[0]).sqrt().item()
        if self._is_image:
            return -discretised_gaussian_log_prob(x, mean, std, half_bin=1 / 255)
        scaled = (x - mean) / std
        return (0.5 * scaled.square() + math.log(std) + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)

    def _snr_differences(self) -> Tensor:
        """SNR(t - 1) - SNR(t) for t = 1 to T - 1, where SNR = abar / (1 - abar): (T - 1,)."""
        snr = self.abar / (1 - self.abar)
        return snr[:-1] - snr[1:]

    def timestep_weights(self) -> Tensor:
        """How often L_{t-1} of t = 1 to T - 1 is chosen: (T - 1,), double, sums to 1.

        In proportion to what the terms would be for Gaussian data of variance 1/4, with a tenth spread evenly so that
        no weight exceeds ten times the plain one.
        """
        abar = self.abar[1:]
        guess = self._snr_differences() * (1 - abar) / (abar / 4 + 1 - abar)
        return 0.9 * guess / guess.sum() + 0.1 / len(guess)

    @property
    def _range(self) -> tuple[float, float]:
        return tuple(self.data_spec["range"]) if self._is_image else (-math.inf, math.inf)

    def _clip_to_range(self, x: Tensor) -> Tensor:
        return x.clamp(*self._range)
