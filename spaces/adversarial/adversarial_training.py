"""Adversarial training small enough to watch: two networks on Gaussians in the plane, and a game of two numbers.

    train_on_modes        a GAN or a WGAN-GP on a ring of 8 or a grid of 25 Gaussians, and how many of them it covers
    bilinear_game         V(x, y) = x y under simultaneous, alternating and extragradient steps

Everything here computes and returns arrays; nothing draws.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from kit.learning import seeded
from torch import Tensor, nn


def check_choice(name: str, value, choices) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")


def check_range(name: str, value: float, low: float, high: float) -> None:
    if not (isinstance(value, int | float) and low <= value <= high):
        raise ValueError(f"{name} is {value!r}; it must lie between {low} and {high}")


# Modes


SPREAD = 0.1  # standard deviation of each Gaussian
CENTRES = {
    "ring of 8": np.stack([2 * np.cos(np.arange(8) * np.pi / 4), 2 * np.sin(np.arange(8) * np.pi / 4)], 1),
    "grid of 25": np.stack([np.arange(25) % 5 - 2.0, np.arange(25) // 5 - 2.0], 1),
}
OBJECTIVES = ("GAN", "WGAN-GP")
LATENT, BATCH, SHOWN, PENALTY = 2, 256, 2_000, 0.1
RATE, BETAS = 1e-3, (0.5, 0.9)
FIELD = 40  # places a side at which the discriminator is asked
REACH = 3.0  # and how far they go


def draw_modes(data: str, count: int, generator: torch.Generator) -> Tensor:
    """(count, 2): the centres are equally likely, with isotropic noise of standard deviation `SPREAD`."""
    centres = torch.from_numpy(CENTRES[data]).float()
    which = torch.randint(len(centres), (count,), generator=generator)
    return centres[which] + SPREAD * torch.randn(count, 2, generator=generator)


def modes_covered(samples: np.ndarray, centres: np.ndarray) -> tuple[int, float]:
    """How many of the centres have samples (N, 2), and the share of samples within three standard deviations of one.

    A mode is covered if it gets at least a quarter of its fair share of N.
    """
    distance = np.linalg.norm(samples[:, None] - centres[None], axis=2)
    near = distance.argmin(1)[distance.min(1) < 3 * SPREAD]
    counts = np.bincount(near, minlength=len(centres))
    return int((counts >= len(samples) / len(centres) / 4).sum()), len(near) / len(samples)


@dataclass
class ModesStep:
    """Where training stands.

    Attributes:
        step, num_steps: generator steps so far, and in all.
        samples: (N, 2), from the same z at each step.
        modes: how many modes are covered.
        good: the share of samples within three standard deviations of a mode.
        field: (FIELD, FIELD), the discriminator's confidence that a place is real, in [0, 1], or a critic's value
            scaled to [0, 1] by its extremes; row 0 is the top, y = REACH.
    """

    step: int
    num_steps: int
    samples: np.ndarray
    modes: int
    good: float
    field: np.ndarray


def perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2),
        nn.Linear(width, outputs),
    )  # fmt: skip


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    """E (|grad C(x)| - 1)^2 between each real and fake x (arXiv 1704.00028, equation 3)."""
    between = torch.lerp(real, fake, torch.rand(len(real), 1, generator=generator)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.norm(dim=1) - 1).square().mean()


def train_on_modes(
    objective: str, data: str, num_steps: int, n_critic: int = 5, seed: int = 0, every: int = 50
) -> Iterator[ModesStep]:
    """Train two networks by one or the other objective, and look at them before, each `every` steps and at the end.

    Networks, optimizer, data and the steps of the discriminator (or critic) for each of the generator's are the same
    for both objectives. The GAN plays the non-saturating game.

    Raises:
        ValueError: objective or data is none of these; num_steps or every is not within 1 to 100 000, n_critic not
            within 1 to 100.
    """
    check_choice("objective", objective, OBJECTIVES)
    check_choice("data", data, CENTRES)
    check_range("num_steps", num_steps, 1, 100_000)
    check_range("n_critic", n_critic, 1, 100)
    check_range("every", every, 1, 100_000)
    wasserstein = objective == "WGAN-GP"
    rng = torch.Generator().manual_seed(seed)
    generator, critic = seeded(seed, lambda: (perceptron(LATENT, 128, 2), perceptron(2, 128, 1)))
    players = [torch.optim.Adam(net.parameters(), lr=RATE, betas=BETAS) for net in (generator, critic)]
    fixed = torch.randn(SHOWN, LATENT, generator=rng)
    ticks = torch.linspace(-REACH, REACH, FIELD)
    places = torch.stack(torch.meshgrid(ticks, -ticks, indexing="xy"), 2).view(-1, 2)

    def generated() -> Tensor:
        return generator(torch.randn(BATCH, LATENT, generator=rng))

    def update(player: int, loss: Tensor) -> None:
        players[player].zero_grad()
        loss.backward()
        players[player].step()

    def snapshot(step: int) -> ModesStep:
        with torch.no_grad():
            samples, field = generator(fixed).numpy(), critic(places).view(FIELD, FIELD)
        low, high = field.min(), field.max()
        field = (field - low) / (high - low).clamp(min=1e-12) if wasserstein else torch.sigmoid(field)
        return ModesStep(step, num_steps, samples, *modes_covered(samples, CENTRES[data]), field.numpy())

    yield snapshot(0)
    for step in range(1, num_steps + 1):
        for _ in range(n_critic):
            real = draw_modes(data, BATCH, rng)
            with torch.no_grad():
                made = generated()
            if wasserstein:
                penalty = gradient_penalty(critic, real, made, rng)
                update(1, critic(made).mean() - critic(real).mean() + PENALTY * penalty)
            else:
                update(1, F.softplus(-critic(real)).mean() + F.softplus(critic(made)).mean())
        value = critic(generated())
        update(0, -value.mean() if wasserstein else F.softplus(-value).mean())
        if step % every == 0 or step == num_steps:
            yield snapshot(step)


# A game


METHODS = ("simultaneous", "alternating", "extragradient")


def bilinear_game(method: str, start: tuple[float, float], rate: float, num_steps: int) -> np.ndarray:
    """Where min_x max_y x y goes by gradient steps of length `rate`: (num_steps + 1, 2), the start included.

    simultaneous   both step from the same place: x^2 + y^2 grows by the factor 1 + rate^2 at each step
    alternating    y answers to the new x: x^2 - rate x y + y^2 stays as it is, so the path is an ellipse
    extragradient  both look ahead by a step and take the gradient from there: x^2 + y^2 shrinks by the factor
                   1 - rate^2 + rate^4 (Korpelevich 1976)

    Raises:
        ValueError: method is none of these, rate is not within 0 to 1, or num_steps not within 1 to 100 000.
    """
    check_choice("method", method, METHODS)
    check_range("rate", rate, 0, 1)
    check_range("num_steps", num_steps, 1, 100_000)
    x, y = map(float, start)
    path = [(x, y)]
    for _ in range(num_steps):
        if method == "simultaneous":
            x, y = x - rate * y, y + rate * x
        elif method == "alternating":
            x = x - rate * y
            y = y + rate * x
        else:
            ahead_x, ahead_y = x - rate * y, y + rate * x
            x, y = x - rate * ahead_y, y + rate * ahead_x
        path.append((x, y))
    return np.array(path)
