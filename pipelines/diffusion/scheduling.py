"""Schedulers of diffusers, checked against the schedule that a network was trained with."""

import copy
import inspect

import torch
from diffusers import DDPMScheduler

from pipelines.checks import check_finite

# what a scheduler must share with the training of the network
SCHEDULE = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "rescale_betas_zero_snr", "prediction_type",
)  # fmt: skip


def trained_schedule(config: dict) -> dict:
    """The part of a scheduler's config that belongs to the network.

    Raises:
        ValueError: a schedule that cannot be sampled.
    """
    schedule = {name: config.get(name, False) for name in SCHEDULE}
    if schedule["rescale_betas_zero_snr"] and schedule["prediction_type"] == "epsilon":
        raise ValueError(
            "prediction_type is 'epsilon' with a zero-terminal-SNR schedule: at the last timestep x_t is pure noise "
            "and x_0 cannot be computed from it; train with 'v_prediction' or 'sample'"
        )
    return schedule


def abar(schedule: dict) -> torch.Tensor:
    """abar_t of the forward process, (T,), t = 0 to T - 1, in double precision: the bound takes differences of it."""
    return DDPMScheduler.from_config(schedule).alphas_cumprod.double()


def scheduler_for_one_call(scheduler, schedule: dict, count: int, eta: float, device: torch.device, clips: bool = True):
    """A copy of the scheduler, set to `count` steps, and what its step takes beside the prediction.

    A copy, so that two streams of one pipeline do not share a scheduler's memory.

    Args:
        schedule: that the network was trained with, as `trained_schedule` gives it.
        eta: in [0, 1]; 0 asks nothing of the scheduler.
        clips: whether x lies in [-1, 1], as pixels do. Some schedulers clip x_0 to that by default, and others made from
            their config do so again; x without bounds would lose all that lies further out.

    Raises:
        ValueError: the scheduler does not fit the network, or cannot make these steps.
    """
    name, config = type(scheduler).__name__, scheduler.config
    # the forward process as a scheduler of the other kinds (flow matching, ...) does not have it
    if not all(hasattr(scheduler, part) for part in ("alphas_cumprod", "scale_model_input", "add_noise")):
        raise ValueError(f"scheduler is a {name}; it must be one with alphas_cumprod, such as DDIMScheduler")
    for key, value in schedule.items():
        if config.get(key, False) != value:
            raise ValueError(
                f"scheduler has {key} {config.get(key, False)!r}, but the network was trained with {value!r}; "
                f"build it by {name}.from_config(pipe.scheduler.config)"
            )
    if not torch.allclose(torch.as_tensor(scheduler.alphas_cumprod).float(), abar(schedule).float(), atol=1e-6):
        raise ValueError(
            f"scheduler is a {name}, whose alphas_cumprod are not those of the schedule that the network was trained "
            "with; such as DDIMScheduler keeps them"
        )
    zero_snr = schedule["rescale_betas_zero_snr"]
    if zero_snr and config.get("timestep_spacing", "trailing") != "trailing":
        raise ValueError(
            f"scheduler has timestep_spacing {config['timestep_spacing']!r}; a zero-terminal-SNR schedule needs "
            "'trailing', which begins at the last timestep"
        )
    scheduler = copy.deepcopy(scheduler)
    if not clips and config.get("clip_sample"):
        scheduler.register_to_config(clip_sample=False)
    takes = inspect.signature(scheduler.step).parameters
    if eta and "eta" not in takes:
        raise ValueError(f"eta is {eta}, but {name} takes none; use DDIMScheduler, or leave it out")
    options = {"eta": eta} if "eta" in takes else {}
    try:
        scheduler.set_timesteps(count, device=device)
        if hasattr(scheduler, "set_begin_index"):  # else some look for their place by the timestep, and find another
            scheduler.set_begin_index(0)
        trial = copy.deepcopy(scheduler)  # a step on nothing, to see whether it can
        nothing = torch.zeros(1, 1, 1, 1, device=device)
        trial.scale_model_input(nothing, trial.timesteps[0])
        trial.step(nothing, trial.timesteps[0], nothing, **options)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, AssertionError, ImportError) as error:
        kind, why = schedule["prediction_type"], " ".join(str(error).split())[:200]
        raise ValueError(f"scheduler is a {name}, which cannot make {count} steps from {kind!r}: {why}") from None
    if len(scheduler.timesteps) > 1 and scheduler.timesteps[0] < scheduler.timesteps[-1]:
        raise ValueError(f"scheduler is a {name}, which goes from x to noise; encode(x) does that")
    return scheduler, options


def check_samples(x: torch.Tensor, scheduler, count: int) -> None:
    """Refuse samples that are not finite.

    Raises:
        ValueError: names the scheduler.
    """
    check_finite(f"what scheduler {type(scheduler).__name__} made in {count} steps", x)
