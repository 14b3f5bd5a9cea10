"""The single-loss loop: one model, one optimizer, one loss.

A recipe hands over four functions and nothing else:
    loss(model, batch, step) -> {"loss": scalar, other terms: scalars}, in the units that the log shows
    make_pipeline(model) -> the pipeline to export
    picture(pipeline, source) -> PNG bytes for samples.png
    inspect(pipeline, source) -> ({figure: value}, [warnings]), asked at each validation
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from training.data.batches import batches_in_order, check_batch_size, derive_seed, materialise, num_rows, to_device
from training.data.source import Source
from training.data.splits import StreamSplit
from training.loops.run import Run
from training.loops.sharding import skeleton_of, whole_module
from training.loops.steps import next_batch, optimizer_step, run_steps
from training.loops.weights import WeightAverage, export_copy, learning_rate_at, make_optimizer

VALIDATION_ROWS, STREAMED_VALIDATION_ROWS = 10_000, 1_000


def train(
    run: Run,
    source: Source,
    model: nn.Module,
    loss: Callable,
    make_pipeline: Callable,
    picture: Callable,
    inspect: Callable = lambda pipeline, source: ({}, []),
    spec: dict | None = None,
    make_final: Callable | None = None,
) -> None:
    """Train `model` on `source.train` and leave the finished pipeline in the run folder.

    `spec` is the data spec of x, the model's own where it has one. `make_final` makes the pipeline to export where that
    takes more than `make_pipeline` does at each validation.

    Raises:
        Stopped: a signal came, or a term of the loss was not finite.
        UsageError: the options and the data do not fit, or the folder cannot be written.
    """
    options, accelerator = run.options, run.accelerator
    check_batch_size(source.train, options.batch_size, run.world)  # before anything is written
    spec = spec or model.config.data_spec
    if isinstance(source.validation, StreamSplit):
        source.validation = materialise(source.validation, STREAMED_VALIDATION_ROWS)
    if run.sharding:  # the whole of a model may not fit on a device
        skeleton, average = skeleton_of(model), WeightAverage(model, options.ema_decay)
        shard(run, model, average)
        wrapped, optimizer = model, accelerator.prepare_optimizer(make_optimizer(model, options, options.learning_rate))
    else:
        skeleton, average = None, WeightAverage(model.to(accelerator.device), options.ema_decay)
        wrapped, optimizer = accelerator.prepare(model, make_optimizer(model, options, options.learning_rate))
    parts = {"model": model, "average": average, "optimizer": optimizer}
    if accelerator.scaler is not None:
        parts["scaler"] = accelerator.scaler
    parameters = list(model.parameters())
    # diffusers' configs are dicts, transformers' turn into one
    config = dict(model.config) if isinstance(model.config, dict) else model.config.to_dict()
    step = run.begin(source, config, parts, sum(p.numel() for p in parameters))

    def validate(step: int) -> None:
        """Measure the averaged weights, keep the best, draw the curve."""
        if not (run.is_main or run.sharding):
            return
        figures = validation_loss(run, source, average.module, loss, spec)
        averaged = whole_module(average.module, skeleton)
        if figures is None or not run.is_main:
            return
        more, warnings = inspect(make_pipeline(averaged), source)
        run.log(step, {**figures, **more})
        for warning in warnings:
            run.warn(step, warning)
        run.save_best(step, figures["validation"], averaged)
        run.draw_curve()

    def draw() -> None:
        averaged = whole_module(average.module, skeleton)
        if run.is_main:
            run.draw_samples(picture(make_pipeline(averaged), source))

    def one_step(step: int, batches) -> dict[str, torch.Tensor]:
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * learning_rate_at(step, options)
        terms = optimizer_step(
            run, wrapped, optimizer, parameters, lambda: loss(wrapped, next_batch(run, source, batches, spec), step)
        )
        average.update()
        return terms

    step = run_steps(run, source, step, parts, options.gradient_accumulation_steps, one_step, validate, draw)
    averaged = whole_module(average.module, skeleton)
    if options.export == "best" and run.is_main:
        run.load_best(averaged)
    run.finish(step, make_final or make_pipeline, export_copy(averaged))


def shard(run: Run, model: nn.Module, average: WeightAverage) -> None:
    """Part a model and its average among the processes, in place, and say so."""
    device, precision = run.accelerator.device, run.options.mixed_precision
    dataclasses.replace(run.sharding, reshard_after_forward=True).apply(average.module, device, "no")
    names = run.sharding.apply(model, device, precision)
    average.pair_with(model)
    run.say(
        f"FSDP: {run.world} processes hold a part of every weight, and gather each {' or '.join(names)} as it computes"
    )


@torch.no_grad()
def validation_loss(run: Run, source: Source, model: nn.Module, loss: Callable, spec: dict) -> dict[str, float] | None:
    """The loss over the validation split, in float32, with the same noise at every call.

    Returns {"validation": mean loss, "validation_<term>": mean} in the units of `loss`, or None if the split is empty,
    as that of a handful of own images can be.
    """
    device = run.accelerator.device
    totals, count = {}, 0
    for number, batch in enumerate(batches_in_order(source.validation, source.rows_at_once, VALIDATION_ROWS)):
        # each training step seeds anew, so none is disturbed
        torch.manual_seed(derive_seed(run.options.seed, -2, number))
        terms = loss(model, source.prepare(to_device(batch, device), spec), run.options.max_steps)
        for name, value in terms.items():
            totals[name] = totals.get(name, 0.0) + value.item() * num_rows(batch)
        count += num_rows(batch)
    if count == 0:
        return None
    means = {name: value / count for name, value in totals.items()}
    return {"validation": means.pop("loss"), **{f"validation_{name}": value for name, value in means.items()}}
