"""Steps: driving a loop from checkpoint to checkpoint, and one optimizer step of it."""

import time
from collections.abc import Callable

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn

from training.data.batches import to_device
from training.data.source import Source
from training.data.splits import Batch
from training.loops.run import Run
from training.loops.sharding import gathered
from training.loops.weights import learning_rate_at

INTERVALS = ("log_every", "eval_every", "save_every", "sample_every")


def next_batch(run: Run, source: Source, batches, spec: dict) -> Batch:
    """The next batch as the network sees it, on the run's device."""
    return source.prepare(to_device(next(batches), run.accelerator.device), spec)


def run_steps(
    run: Run,
    source: Source,
    step: int,
    parts: dict,
    batches_per_step: int,
    one_step: Callable,
    validate: Callable,
    draw: Callable,
    headline: tuple[str, ...] = ("loss",),
) -> int:
    """Go on from `step` to --max_steps: log, validate, save and draw when it is due. Returns the last step.

    Args:
        parts: what a checkpoint holds.
        batches_per_step: how many batches a step takes.
        one_step: (step, batches) -> terms, scalars by name, after one optimizer step of each player.
        validate: (step), asked at each validation.
        draw: asked for each picture of samples.
        headline: the terms beside the progress bar.

    Raises:
        Stopped: a signal came, or a term was not finite.
    """
    options = run.options
    if step >= options.max_steps:
        run.say(f"the run in {run.folder} has done its {step} steps")
        return step
    pending: list[tuple[int, dict]] = []  # steps whose terms no one has looked at yet

    def flush() -> dict[str, float]:
        """Check and average what is pending: looking at each term as it comes would make a GPU wait."""
        rows = mean_over_processes(run, [terms for _, terms in pending])
        for (number, _), row in zip(pending, rows, strict=True):
            run.check_finite({k: v for k, v in row.items() if k != "stop"}, number)
        pending.clear()
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}

    batches, units = run.batches(source.train, step, batches_per_step), f"{run.declaration.unit}s"
    seen, since = 0, time.perf_counter()
    with run.progress(step) as bar:
        while step < options.max_steps:
            run.seed_step(step)
            terms = one_step(step, batches)
            lr = options.learning_rate * learning_rate_at(step, options)
            step += 1
            seen += options.batch_size * run.world * batches_per_step * source.units_per_row
            stop = torch.full((), float(run.stop_signal is not None), device=run.accelerator.device)
            pending.append((step, {**terms, "stop": stop}))
            bar.update()

            due = {n: step % getattr(options, n) == 0 or step == options.max_steps for n in INTERVALS}
            if any(due.values()) or (run.world == 1 and run.stop_signal is not None):
                means = flush()
                speed = seen / (time.perf_counter() - since)
                shown = ", ".join(f"{name} {means[name]:.4g}" for name in headline)
                bar.set_postfix_str(f"{shown}, {speed:.0f} {units}/s", refresh=False)
                if means.pop("stop") > 0:
                    run.stop(step, parts)
                if due["log_every"]:
                    run.log(step, {**means, f"{units}_per_second": round(speed, 1), "lr": lr})
                if due["eval_every"]:
                    validate(step)
                if due["save_every"]:
                    run.save(step, parts)
                if due["sample_every"]:
                    draw()
                if any(due.values()):
                    seen, since = 0, time.perf_counter()
    batches.close()
    return step


def optimizer_step(run: Run, wrapped: nn.Module, optimizer, parameters: list[nn.Parameter], losses: Callable) -> dict:
    """One optimizer step on the mean over --gradient_accumulation_steps calls of `losses`.

    Args:
        losses: () -> {"loss": scalar, other terms: scalars}, each time of a new batch.

    Returns:
        The means of the terms, and the gradient's norm where it is clipped.
    """
    options, accelerator, sums = run.options, run.accelerator, {}
    for _ in range(options.gradient_accumulation_steps):
        with accelerator.accumulate(wrapped):
            terms = losses()
            accelerator.backward(terms["loss"])
            if accelerator.sync_gradients and options.max_grad_norm:
                norm = accelerator.clip_grad_norm_(parameters, options.max_grad_norm)
                # fp16 may overflow: its scaler then skips the step by itself
                if options.mixed_precision != "fp16":
                    sums["gradient_norm"] = gathered(norm)
            optimizer.step()
            optimizer.zero_grad()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0) + value.detach() / options.gradient_accumulation_steps
    return sums


def mean_over_processes(run: Run, rows: list[dict[str, Tensor]]) -> list[dict[str, float]]:
    """Scalars of several steps, averaged over processes in one exchange."""
    names = list(rows[0])
    table = torch.stack([torch.stack([row[name].detach().float() for name in names]) for row in rows])
    if run.accelerator.distributed_type != DistributedType.NO:
        table = run.accelerator.reduce(table, "mean")
    return [dict(zip(names, row, strict=True)) for row in table.tolist()]
