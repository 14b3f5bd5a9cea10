"""Factorise into parts: every image a sum of few, or every row of ratings, from which the missing ones follow.

    python -m training.classical.nmf                                                 # digits, seconds
    python -m training.classical.nmf --ratings ratings.csv --num_components 4 --penalty 0.1 --output_dir runs/ratings
    python -m training.classical.nmf --config training/classical/nmf-mnist.yaml

A file of ratings is a table: what is rated in its first line, who rates in its first column, an empty cell where there is
no rating. Images are factorised by scikit-learn, which knows no missing entries, ratings by `NMFModel.fit_steps`.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipelines.classical.modeling_nmf import NMFModel, check_entries
from pipelines.classical.pipeline_nmf import NMFPipeline
from training.data.images import DataOptions, load_data
from training.data.local import lines_of
from training.data.source import DataSource
from training.data.splits import ArraySplit
from training.declaration import RECONSTRUCT, Declaration
from training.loops.closed_form import FitOptions, fit, training_rows
from training.loops.run import start
from training.options import UsageError, command_line, option, parse, with_default
from training.pictures import heat_map, image_grid

DECLARATION = Declaration(
    family="nmf",
    branch="classical",
    title="Non-negative matrix factorisation",
    example=RECONSTRUCT,
    points_example="wanted = pipe.recommend(ratings, k=5).names  # (D,), NaN where there is no rating",
    measures=("reconstruction", "kept_rows"),
)


MOST_ITEMS, MOST_RATINGS = 100_000, 50_000_000  # of a table of ratings: columns, and cells


@dataclass
class NMFOptions(DataOptions, FitOptions):
    output_dir: str = with_default(FitOptions, "output_dir", "runs/nmf-digits")
    ratings: str | None = option(None, "CSV file of ratings to factorise, instead of --dataset")
    num_components: int = option(16, "number of parts that each row is a sum of", least=1)
    penalty: float = option(
        0.0, "weight of the squared weights and parts in the loss, per entry of the data", least=0.0
    )
    max_iter: int = option(300, "largest number of iterations of the fit", least=1)
    tol: float = option(1e-4, "the fit ends when an iteration lowers the loss by less than this share", above=0.0)


def read_ratings(file: str) -> tuple[list[str], Tensor]:
    """What is rated, and the ratings (N, D), NaN where there is none.

    Raises:
        UsageError: no such file, too large a one, rows of mixed lengths, or a cell that is no number.
    """
    if not Path(file).is_file():
        there = Path(file).exists()
        raise UsageError(f"--ratings {file}: {'it is no regular file' if there else 'there is no such file'}")
    names, table, rows = [], [], csv.reader(_lines(file))
    try:
        for row in rows:
            where = f"--ratings {file}: line {rows.line_num}"
            if not names:
                names = row
            elif row and len(row) != len(names):
                raise UsageError(f"{where} has {len(row)} cells; it must have {len(names)}")
            elif row:
                table.append(
                    torch.tensor([_rating(c, f"{where}, {n}") for c, n in zip(row[1:], names[1:], strict=True)])
                )
            if len(table) * len(names) > MOST_RATINGS:
                raise UsageError(f"{where}: there are more than {MOST_RATINGS} cells by now; a table has fewer")
    except csv.Error as error:
        raise UsageError(f"--ratings {file}: is no table in UTF-8 ({error})") from None
    if not table or len(names) < 2:
        raise UsageError(
            f"--ratings {file}: holds {len(table) + bool(names)} lines; it needs a line of names, and one for each person"
        )
    ratings = torch.stack(table)
    try:
        check_entries(ratings)
    except ValueError as error:
        raise UsageError(f"--ratings {file}: {error}") from None
    return names[1:], ratings


def _lines(file: str) -> Iterator[str]:
    for number, line in enumerate(lines_of(Path(file)), 1):
        if line.count(b",") >= MOST_ITEMS:
            raise UsageError(f"--ratings {file}: line {number} has more than {MOST_ITEMS} cells; a table has fewer")
        yield line.decode("utf-8-sig")


def _rating(cell: str, where: str) -> float:
    try:
        return float(cell) if cell.strip() else math.nan
    except ValueError:
        raise UsageError(f"{where}: {cell!r} is no number; a cell holds one, or nothing") from None


def load(options: NMFOptions) -> DataSource:
    """The data set that the options name, or the table of ratings: (N, D), NaN where there is no rating."""
    if options.ratings is None:
        return load_data(options)
    names, ratings = read_ratings(options.ratings)
    name, nothing = Path(options.ratings).name, ArraySplit({"x": torch.empty(0, len(names))})
    return DataSource(
        name, name, ArraySplit({"x": ratings}), nothing, nothing, kind="vector", shape=(len(names),), item_names=names
    )


def fit_parts(x: Tensor, options: NMFOptions) -> Tensor:
    """(N, D) -> (K, D) by scikit-learn's coordinate descent."""
    from sklearn.decomposition import NMF

    most = min(x.shape)
    if options.num_components > most:
        raise UsageError(f"--num_components is {options.num_components}; it must be at most {most} for these data")
    strength = {"alpha_W": options.penalty, "alpha_H": options.penalty, "l1_ratio": 0.0}
    solver = NMF(
        options.num_components, init="nndsvda", max_iter=options.max_iter, tol=options.tol,
        random_state=options.seed, **strength,
    )  # fmt: skip
    return torch.from_numpy(solver.fit(x.numpy()).components_)


def make_pipeline(source: DataSource, options: NMFOptions, report) -> NMFPipeline:
    """The factorisation of the training rows."""
    spec = source.spec("8-bit", (0, 1))
    x = torch.cat([batch["x"] for batch in training_rows(source, spec, options)])
    check_entries(x)
    penalty = options.penalty * x.shape[1]
    if source.kind == "image":
        parts = fit_parts(x, options)
    else:
        for step in NMFModel.fit_steps(x, options.num_components, penalty, options.max_iter, options.tol, options.seed):
            report(step.step + 1, step.num_steps, loss=step.loss, error=step.error)
        parts = step.parts
    return NMFPipeline(NMFModel.of(parts, penalty, source.item_names), spec)


def picture(pipeline: NMFPipeline, source: DataSource) -> bytes:
    """The parts: images, or of ratings a table of parts by items."""
    if source.kind == "image":
        return image_grid(pipeline.parts("np"))
    return heat_map(pipeline.parts("np"), pipeline.nmf.config.item_names)


def main(argv: list[str] | None = None) -> None:
    options = parse(NMFOptions, argv, __doc__)
    run, source, _ = start(DECLARATION, None, options, lambda options, source: None, load)
    fit(run, source, lambda report: make_pipeline(source, options, report), picture)


if __name__ == "__main__":
    command_line(main)
