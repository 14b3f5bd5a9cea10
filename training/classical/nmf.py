"""Factorise into parts: every image a sum of few, or every row of ratings, from which the missing ones follow.

    python -m training.classical.nmf                                                 # digits, seconds
    python -m training.classical.nmf --ratings ratings.csv --num_components 4 --penalty 0.1 --output_dir runs/ratings
    python -m training.classical.nmf --config training/classical/nmf-mnist.yaml

A file of ratings is a table: what is rated in its first line, who rates in its first column, an empty cell where there is
no rating; or it holds one rating a line, with columns like userId, movieId and rating. Images are factorised by
scikit-learn, which knows no missing entries, ratings by `NMFModel.fit_steps`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.classical.modeling_nmf import NMFModel, check_entries
from pipelines.classical.pipeline_nmf import NMFPipeline
from training.data.images import DataOptions, load_data
from training.data.ratings import RatingOptions, load_ratings
from training.data.source import DataSource
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
    points_example="""ratings = torch.full(tuple(pipe.data_spec["shape"]), torch.nan)  # (D,), NaN where there is no rating
ratings[0] = 5
wanted = pipe.recommend(ratings, k=5).names""",
    measures=("reconstruction", "kept_rows"),
    task="image-feature-extraction",
    paper="https://doi.org/10.1038/44565",
)


@dataclass
class NMFOptions(DataOptions, RatingOptions, FitOptions):
    output_dir: str = with_default(FitOptions, "output_dir", "runs/nmf-digits")
    num_components: int = option(16, "number of parts that each row is a sum of", least=1)
    penalty: float = option(
        0.0, "weight of the squared weights and parts in the loss, per entry of the data", least=0.0
    )
    max_iter: int = option(300, "largest number of iterations of the fit", least=1)
    tol: float = option(1e-4, "the fit ends when an iteration lowers the loss by less than this share", above=0.0)

    def __post_init__(self):
        super().__post_init__()
        if self.ratings is None:
            for role, column in self.columns().items():
                if column is not None:
                    raise UsageError(f"--{role}_column {column}: is a column of --ratings, which is not given")


def load(options: NMFOptions) -> DataSource:
    """The data set that the options name, or the table of ratings: (N, D), NaN where there is no rating."""
    return load_data(options) if options.ratings is None else load_ratings(options)


def fit_parts(x: Tensor, options: NMFOptions) -> Tensor:
    """(N, D) -> (K, D) by scikit-learn's coordinate descent."""
    from sklearn.decomposition import NMF

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
    most = min(x.shape)
    if options.num_components > most:
        raise UsageError(f"--num_components is {options.num_components}; it must be at most {most} for these data")
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
