"""The forward process of denoising diffusion: what noise does to x, and what is known of x once it is noisy.

q(x_t|x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)
"""

import torch
from torch import Tensor

from pipelines.contract import Generators


class ForwardProcess:
    """A mixin of a pipeline that has `abar` (T,), double, and its network's `config.schedule`."""

    @property
    def num_timesteps(self) -> int:
        """T, the number of timesteps of the training."""
        return len(self.abar)

    @torch.no_grad()
    def noise(self, x, timestep: int, generator: Generators = None, step_by_step: bool = False) -> Tensor:
        """A draw of q(x_t|x_0), in the range of the data spec: (B, *shape).

        `step_by_step` makes timestep + 1 small steps of q(x_t|x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)
        instead of the one in closed form; the distribution is the same.
        """
        timestep = self._check_timestep(timestep)
        x = self._to_network(self._check_x(x))
        if not step_by_step:
            return self.q_sample(x, timestep, self._noise(x.shape, generator))
        for t in range(timestep + 1):
            keep = (self._abar_at(t) / self._abar_at(t - 1)).item()
            x = keep**0.5 * x + (1 - keep) ** 0.5 * self._noise(x.shape, generator)
        return x

    def q_sample(self, x: Tensor, timestep: int | Tensor, noise: Tensor) -> Tensor:
        abar = self._abar_at(timestep).to(x.device)
        if abar.ndim:
            abar = abar.view(-1, *[1] * (x.ndim - 1))
        return abar.sqrt().float() * x + (1 - abar).sqrt().float() * noise

    def _abar_at(self, timestep: int | Tensor) -> Tensor:
        """abar at timesteps, 1 at -1 (the data), between two timesteps on the line that joins them."""
        timestep = torch.as_tensor(timestep, dtype=torch.float64, device="cpu")
        table = torch.cat([torch.ones(1, dtype=torch.float64), self.abar])
        low = timestep.floor().long()
        high = (low + 1).clamp(max=self.num_timesteps - 1)
        return torch.lerp(table[low + 1], table[high + 1], timestep - low)

    def posterior(self, x_0: Tensor, x_t: Tensor, timestep: int, previous: int | None = None) -> tuple[Tensor, float]:
        """Mean and variance of q(x_s|x_t, x_0), for s the timestep before t or an earlier one; -1 is the data.

        x_0 and x_t (B, *shape) in the range of the data spec. Equations 6 and 7 of arXiv 2006.11239.
        """
        previous = timestep - 1 if previous is None else previous
        abar_t, abar_s = self._abar_at(timestep), self._abar_at(previous)
        alpha = abar_t / abar_s  # of all steps from s to t together
        of_x_0 = (abar_s.sqrt() * (1 - alpha) / (1 - abar_t)).item()
        of_x_t = (alpha.sqrt() * (1 - abar_s) / (1 - abar_t)).item()
        return of_x_0 * x_0 + of_x_t * x_t, ((1 - abar_s) * (1 - alpha) / (1 - abar_t)).item()

    def predict_x0_and_noise(self, output: Tensor, x: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """x_0 and noise from the output of the network."""
        abar = self._abar_at(timestep)
        a, s = (root.to(x.device, torch.float32) for root in (abar.sqrt(), (1 - abar).sqrt()))
        if a.ndim:
            a, s = (root.view(-1, *[1] * (x.ndim - 1)) for root in (a, s))
        kind = self.config.schedule["prediction_type"]
        if kind == "epsilon":
            return (x - s * output) / a, output
        if kind == "sample":
            return output, (x - a * output) / s
        return a * x - s * output, a * output + s * x  # v

    def _ddim_step(self, x: Tensor, noise: Tensor, t: int, s: int, predicted: Tensor | None = None) -> Tensor:
        """From x at timestep t to timestep s, in either direction, with the noise held fixed."""
        abar_t, abar_s = self._abar_at(t), self._abar_at(s)
        if predicted is None:
            predicted = (x - (1 - abar_t).sqrt().item() * noise) / abar_t.sqrt().item()
        return abar_s.sqrt().item() * predicted + (1 - abar_s).sqrt().item() * noise

    def _evenly_spaced_timesteps(self, count: int) -> list[int]:
        """`count` timesteps spread evenly, the last one included, in rising order ("trailing")."""
        return [round((i + 1) * self.num_timesteps / count) - 1 for i in range(count)]

    def _check_timestep(self, value: int) -> int:
        return self._check_count("timestep", value, least=0, most=self.num_timesteps - 1)
