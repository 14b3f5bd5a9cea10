"""The single-loss loop: one model, one optimizer, one loss.

A recipe hands over four functions and nothing else:
    loss(model, x, class_labels, step) -> {"loss": scalar, other terms: scalars}, in the units that the log shows
    make_pipeline(model) -> the pipeline to export
    picture(pipeline, source) -> PNG bytes for samples.png
    inspect(pipeline, source) -> ({figure: value}, [warnings]), asked at each validation
"""

import time
from collections.abc import Callable

import torch
from torch import nn

from training.data import DataSource, StreamSplit, check_batch_size, in_order, mix, prepare, remember
from training.loops.common import Average, Run, export_copy, learning_rate_at, mean_over_processes

VALIDATION_ROWS, STREAMED_VALIDATION_ROWS = 10_000, 1_000
INTERVALS = ("log_every", "eval_every", "save_every", "sample_every")


def train(
    run: Run,
    source: DataSource,
    model: nn.Module,
    loss: Callable,
    make_pipeline: Callable,
    picture: Callable,
    inspect: Callable = lambda pipeline, source: ({}, []),
    spec: dict | None = None,
) -> None:
    """Train `model` on `source.train` and leave the finished pipeline in the run folder.

    `spec` is the data spec of x, the model's own where it has one.

    Raises:
        Stopped: a signal came, or a term of the loss was not finite.
        UsageError: the options and the data do not fit, or the folder cannot be written.
    """
    options, accelerator = run.options, run.accelerator
    check_batch_size(source.train, options.batch_size, run.world)  # before anything is written
    spec = spec or model.config.data_spec
    if isinstance(source.validation, StreamSplit):
        source.validation = remember(source.validation, STREAMED_VALIDATION_ROWS)
    model.to(accelerator.device)
    average = Average(model, options.ema_decay)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=options.learning_rate,
        betas=(0.9, options.adam_beta2),
        weight_decay=options.weight_decay,
        fused=True,
    )
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    parts = {"model": model, "average": average, "optimizer": optimizer}
    if accelerator.scaler is not None:
        parts["scaler"] = accelerator.scaler
    parameters = list(model.parameters())
    step = run.begin(source, dict(model.config), parts, sum(p.numel() for p in parameters))
    if step >= options.max_steps:
        run.say(f"the run in {run.folder} has done its {step} steps")

    def look(step: int) -> None:
        """Validate the averaged weights, keep the best, draw the curve."""
        if not run.is_main:
            return
        figures = validate(run, source, average.module, loss, spec)
        if figures is None:
            return
        more, warnings = inspect(make_pipeline(average.module), source)
        run.log(step, {**figures, **more})
        for warning in warnings:
            run.warn(step, warning)
        run.save_best(step, figures["validation"], average.module)
        run.draw_curve()

    def draw() -> None:
        if run.is_main:
            run.draw_samples(picture(make_pipeline(average.module), source))

    pending: list[tuple[int, dict]] = []  # steps whose loss no one has looked at yet

    def flush() -> dict[str, float]:
        """Check and average what is pending: looking at each loss as it comes would make a GPU wait."""
        rows = mean_over_processes(run, [terms for _, terms in pending])
        for (number, _), row in zip(pending, rows, strict=True):
            run.check_finite({k: v for k, v in row.items() if k != "stop"}, number)
        pending.clear()
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}

    batches = run.batches(source.train, step) if step < options.max_steps else None
    seen, since = 0, time.perf_counter()
    with run.progress(step) as bar:
        while step < options.max_steps:
            # ---- one training step ----
            run.seed_step(step)
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * learning_rate_at(step, options)
            sums: dict[str, torch.Tensor] = {}
            for _ in range(options.gradient_accumulation_steps):
                x, class_labels = next(batches)
                x = prepare(x.to(accelerator.device, non_blocking=True), spec)
                if class_labels is not None:
                    class_labels = class_labels.to(accelerator.device, non_blocking=True)
                with accelerator.accumulate(wrapped):
                    terms = loss(wrapped, x, class_labels, step)
                    accelerator.backward(terms["loss"])
                    if accelerator.sync_gradients and options.max_grad_norm:
                        norm = accelerator.clip_grad_norm_(parameters, options.max_grad_norm)
                        # fp16 may overflow: its scaler then skips the step by itself
                        if options.mixed_precision != "fp16":
                            sums["gradient_norm"] = norm
                    optimizer.step()
                    optimizer.zero_grad()
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0) + value.detach() / options.gradient_accumulation_steps
            average.update()
            # -------------------------------
            step += 1
            seen += options.batch_size * run.world * options.gradient_accumulation_steps
            stop = torch.full((), float(run.stop_signal is not None), device=accelerator.device)
            pending.append((step, {**sums, "stop": stop}))
            bar.update()

            due = {n: step % getattr(options, n) == 0 or step == options.max_steps for n in INTERVALS}
            if any(due.values()) or (run.world == 1 and run.stop_signal is not None):
                means = flush()
                speed = seen / (time.perf_counter() - since)
                bar.set_postfix_str(f"loss {means['loss']:.4g}, {speed:.0f} images/s", refresh=False)
                if means.pop("stop") > 0:
                    run.stop(step, parts)
                if due["log_every"]:
                    run.log(
                        step, {**means, "images_per_second": round(speed, 1), "lr": optimizer.param_groups[0]["lr"]}
                    )
                if due["eval_every"]:
                    look(step)
                if due["save_every"]:
                    run.save(step, parts)
                if due["sample_every"]:
                    draw()
                if any(due.values()):
                    seen, since = 0, time.perf_counter()
    if batches is not None:
        batches.close()
    if options.export == "best" and run.is_main:
        run.load_best(average.module)
    run.finish(step, make_pipeline, export_copy(average.module))


@torch.no_grad()
def validate(run: Run, source: DataSource, model: nn.Module, loss: Callable, spec: dict) -> dict[str, float] | None:
    """The loss over the validation split, in float32, with the same noise at every call.

    Returns {"validation": mean loss, "validation_<term>": mean} in the units of `loss`, or None if the split is empty,
    as that of a handful of own images can be.
    """
    device = run.accelerator.device
    totals, count = {}, 0
    for number, (x, class_labels) in enumerate(in_order(source.validation, 500, VALIDATION_ROWS)):
        torch.manual_seed(mix(run.options.seed, -2, number))  # each training step seeds anew, so none is disturbed
        x = prepare(x.to(device), spec)
        terms = loss(model, x, None if class_labels is None else class_labels.to(device), run.options.max_steps)
        for name, value in terms.items():
            totals[name] = totals.get(name, 0.0) + value.item() * len(x)
        count += len(x)
    if count == 0:
        return None
    means = {name: value / count for name, value in totals.items()}
    return {"validation": means.pop("loss"), **{f"validation_{name}": value for name, value in means.items()}}
