"""The loop of models that are fitted, not trained: from the training set to a finished pipeline in one go.

A recipe hands over two functions and nothing else:
    solve(report) -> the pipeline; it calls report(step, total, **figures) as it comes along
    picture(pipeline, source) -> PNG bytes for samples.png
The run folder, its record, the log, the curve and publishing are those of every other run, but the folder is written when
the fit has come to its end: one that fails or is killed leaves nothing behind, and what was there before as it was.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from tqdm.auto import tqdm

from training.data.batches import batches_in_order, derive_seed, num_rows
from training.data.source import DataSource
from training.data.splits import Batch, StreamSplit
from training.loops.run import Run
from training.loops.run_options import CommonOptions
from training.options import Stopped, UsageError, option

VALIDATION_ROWS = 10_000
ROWS_AT_ONCE = 1_000


@dataclass
class FitOptions(CommonOptions):
    """How to fit; the options of such a recipe begin with these and with `DataOptions`."""

    GROUP: ClassVar[str] = "training"

    max_samples: int | None = option(None, "number of training rows to fit to, the first ones; all by default", least=2)


def rows_to_fit(source: DataSource, options: FitOptions) -> int | None:
    """How many training rows there are to fit to; None of a stream that no option ends."""
    counts = [count for count in (source.rows["train"], options.max_samples) if count is not None]
    return min(counts, default=None)


def different_rows(source: DataSource, options: FitOptions) -> int:
    """How many of the training rows that are fitted to differ, as they are stored."""
    seen, left = set(), rows_to_fit(source, options)
    for batch in batches_in_order(source.train, ROWS_AT_ONCE, left):
        seen.update(hash(row.tobytes()) for row in batch["x"][:left].numpy())
        left = None if left is None else left - num_rows(batch)
    return len(seen)


def check_pca_dim(pca_dim: int, source: DataSource, options: FitOptions, spare: int = 0) -> None:
    """Raise a `UsageError` if the data have fewer dimensions than principal components are asked for, or too few rows.

    N rows span N - 1 directions; `spare` is how many of them must be left for what the components leave out.
    """
    size, rows = math.prod(source.shape), rows_to_fit(source, options)
    if pca_dim > size:
        raise UsageError(f"--pca_dim is {pca_dim}; these data have {size} dimensions, and 0 takes them as they are")
    most = size if rows is None or rows > size else max(0, rows - 1 - spare)
    if pca_dim > most:
        raise UsageError(
            f"--pca_dim is {pca_dim}; with {rows} training rows it must be at most {most}, and 0 takes the data as they are"
        )


def training_rows(source: DataSource, spec: dict, options: FitOptions) -> Iterator[Batch]:
    """The training set once, by the batch, as the model sees it: x (B, dimensions), and class_labels (B,) if any.

    The same noise at every call, so that what is read twice is the same.

    Raises:
        UsageError: the set is streamed without --max_samples.
    """
    if isinstance(source.train, StreamSplit) and options.max_samples is None:
        raise UsageError("--max_samples is not given; a streamed set has no end, so say how many rows to fit to")
    left = options.max_samples
    for number, batch in enumerate(batches_in_order(source.train, ROWS_AT_ONCE, options.max_samples)):
        generator = torch.Generator().manual_seed(derive_seed(options.seed, -3, number))
        batch = source.prepare(batch, spec, generator)
        batch["x"] = batch["x"].flatten(1)
        yield {name: value[:left] for name, value in batch.items()}
        left = None if left is None else left - num_rows(batch)


class FitProgress:
    """What `solve` is given: it shows how far the fit has come, and keeps the figures for the log."""

    def __init__(self, visible: bool = True):
        self.step, self.lines = 0, []
        self.bar = tqdm(disable=not visible, delay=1.0, unit="step", mininterval=0.5, dynamic_ncols=True)

    def __call__(self, step: int, total: int | None = None, **figures: float) -> None:
        """After `step` of at most `total` steps.

        Raises:
            Stopped: a figure is not finite.
        """
        self.step = step
        self.bar.total = total
        self.bar.set_postfix_str(", ".join(f"{k.replace('_', ' ')} {v:.5g}" for k, v in figures.items()), refresh=False)
        self.bar.update(step - self.bar.n)
        self.lines.append((step, figures))
        for name, value in figures.items():
            if not math.isfinite(value):
                raise Stopped(f"step {step}: {name} is {value}; nothing was written", 1)


def fit(run: Run, source: DataSource, solve: Callable, picture: Callable) -> None:
    """Fit on the main process, and leave the finished pipeline in the run folder.

    Raises:
        Stopped: a figure was not finite.
        UsageError: the options and the data do not fit, or the folder cannot be written.
    """
    if run.options.resume and run.finished:
        run.say(f"the run in {run.folder} is finished")
        run.close()
        return run.push()
    report, pipeline, modules = FitProgress(run.is_main), None, {}
    if run.is_main:
        try:
            with torch.no_grad():
                pipeline = solve(report)
        except ValueError as error:
            raise UsageError(f"--dataset {source.name}: {error}") from None
        report.bar.close()
        modules = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    configs = {name: {k: v for k, v in part.config.items() if k[0] != "_"} for name, part in modules.items()}
    run.begin(source, configs, {}, sum(p.numel() for part in modules.values() for p in part.parameters()))
    last = max(1, report.step)
    if run.is_main:
        for step, figures in report.lines:
            run.log(step, figures)
        figures = validation_figure(pipeline, source)
        if figures:
            run.log(last, figures)
        run.draw_curve()
        run.draw_samples(picture(pipeline, source))
    run.finish(last, lambda _: pipeline, None)
    return None


def validation_figure(pipeline, source: DataSource) -> dict[str, float]:
    """The validation split's mean -log p(x), nats, or where there is none its mean squared error."""
    if pipeline.likelihood == "exact":
        generator = torch.Generator().manual_seed(0)
        measure, sign = (lambda x: pipeline.log_prob(x, generator=generator)), -1
    elif "reconstruction_error" in pipeline.calls:
        measure, sign = pipeline.reconstruction_error, 1
    else:
        return {}
    total, count = 0.0, 0
    for batch in batches_in_order(source.validation, ROWS_AT_ONCE, VALIDATION_ROWS):
        total += sign * measure(source.as_input(batch)).sum().item()
        count += num_rows(batch)
    return {"validation": total / count} if count else {}
