"""Fit a density: a kernel density estimate or a Gaussian mixture, of the data or of their principal components.

python -m training.classical.density                                             # digits, seconds
python -m training.classical.density --density kde --dataset moons --pca_dim 0 --output_dir runs/kde-moons
python -m training.classical.density --config training/classical/gaussian-mixture-mnist.yaml

--density mixture   EM from k-means, `--num_components` components; of several numbers the one of lowest BIC
--density kde       Gaussian kernels on `--num_points` rows, the bandwidth by a rule or by held-out likelihood
--density none      the PCA alone
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from pipelines.classical.modeling_gaussian_mixture import GaussianMixtureModel
from pipelines.classical.modeling_kde import KDEModel
from pipelines.classical.modeling_pca import PCAModel
from pipelines.classical.pipeline_density import DensityPipeline
from training.data.batches import random_subset
from training.data.images import DataOptions
from training.data.source import DataSource, class_arguments
from training.declaration import DRAW_IMAGES, DRAW_POINTS, RECONSTRUCT, RECONSTRUCT_POINTS, Declaration
from training.loops.closed_form import FitOptions, check_pca_dim, different_rows, fit, rows_to_fit, training_rows
from training.loops.run import start
from training.options import UsageError, command_line, option, parse, with_default
from training.pictures import samples_or_reconstructions

DECLARATION = Declaration(
    family="density",
    branch="classical",
    title="Density estimate",
    example=DRAW_IMAGES,
    points_example=DRAW_POINTS,
    measures=("likelihood", "reconstruction", "samples", "cost", "kept_rows"),
)
PAPERS = {  # of EM, and of kernels
    "mixture": "https://doi.org/10.1111/j.2517-6161.1977.tb01600.x",
    "kde": "https://doi.org/10.1214/aoms/1177704472",
}
PCA_ALONE = replace(
    DECLARATION,
    title="Principal component analysis",
    example=RECONSTRUCT,
    points_example=RECONSTRUCT_POINTS,
    task="image-feature-extraction",
    paper="https://doi.org/10.1111/1467-9868.00196",
)
RULES = ("scott", "silverman", "held_out")


@dataclass
class DensityOptions(DataOptions, FitOptions):
    output_dir: str = with_default(FitOptions, "output_dir", "runs/mixture-digits")
    density: str = option(
        "mixture",
        "kind of density: Gaussian mixture, kernel density estimate, or none, which fits the PCA alone",
        choices=("mixture", "kde", "none"),
    )
    pca_dim: int = option(
        20, "number of principal components to fit the density to; 0 fits it to the data themselves", least=0
    )
    num_components: list[int] = option(
        (10,),
        "number of components of the mixture, with --conditional of each class's; of several numbers the lowest BIC decides",
        least=1,
    )
    covariance_type: str = option(
        "full", "form of the covariances of the mixture's components", choices=("full", "tied", "diag", "spherical")
    )
    max_iter: int = option(200, "largest number of iterations of EM", least=1)
    tol: float = option(
        1e-3, "EM ends when an iteration changes the mean log-likelihood by less than this, nats", above=0.0
    )
    reg_covar: float = option(
        1e-6, "number that is added to every variance of the mixture, so that none vanishes", least=0.0
    )
    num_points: int = option(5_000, "number of training rows that the kernel density estimate keeps", least=2)
    bandwidth: str = option(
        "held_out", "bandwidth of the kernels: a number, or the rule that chooses it: scott, silverman or held_out"
    )
    conditional: bool = option(False, "fit one density for each class")

    def __post_init__(self):
        super().__post_init__()
        if self.bandwidth not in RULES:
            try:
                float(self.bandwidth)
            except ValueError:
                raise UsageError(
                    f"--bandwidth is {self.bandwidth!r}; it must be a number or one of {', '.join(RULES)}"
                ) from None
        if self.density == "none" and not self.pca_dim:
            raise UsageError("--pca_dim is 0 and --density none: there is nothing to fit")


def fit_mixture(codes, classes: dict, options: DensityOptions, report) -> GaussianMixtureModel:
    """The mixture, or of several numbers of components the one of lowest BIC."""
    found = []
    for count in options.num_components:
        steps = GaussianMixtureModel.em_steps(
            codes, count, options.covariance_type, **classes,
            max_iter=options.max_iter, tol=options.tol, reg_covar=options.reg_covar, seed=options.seed,
        )  # fmt: skip
        number = 0
        for number, step in enumerate(steps, report.step + 1):
            report(number, report.step + step.num_steps - step.step, loss=-step.log_likelihood)
        found.append((step.model.bic(codes), step.model))
        if len(options.num_components) > 1:
            report(number, number, num_components=count, bic=found[-1][0])
    return min(found, key=lambda pair: pair[0])[1]


def make_pipeline(source: DataSource, options: DensityOptions, report) -> DensityPipeline:
    """The density that the options ask for, of the training rows or of their principal components."""
    spec = source.spec("8-bit", (0, 1), "uniform")
    pca, codes, labels = None, [], []
    if options.pca_dim:
        pca = PCAModel.fit((batch["x"] for batch in training_rows(source, spec, options)), options.pca_dim)
        report(1, spectrum_kept=float(pca.variances[: options.pca_dim].sum() / pca.variances.sum()))
    if options.density == "none":
        return DensityPipeline(None, pca, spec)
    for batch in training_rows(source, spec, options):
        codes.append(batch["x"] if pca is None else pca.encode(batch["x"]))
        labels.append(batch.get("class_labels"))
    codes, labels = torch.cat(codes), torch.cat(labels) if options.conditional else None
    if options.density == "kde":
        codes, labels = random_subset(codes, labels, options.num_points, options.seed)
    classes = class_arguments(source, labels, "--conditional") if options.conditional else {}
    if options.density == "mixture":
        return DensityPipeline(fit_mixture(codes, classes, options, report), pca, spec)
    bandwidth = options.bandwidth if options.bandwidth in RULES else float(options.bandwidth)
    kde = KDEModel.fit(codes, bandwidth, **classes)
    report(report.step + 1, bandwidth=float(kde.bandwidth))
    return DensityPipeline(kde, pca, spec)


def picture(pipeline: DensityPipeline, source: DataSource) -> bytes:
    """Samples, by class where the density knows them; without one, what becomes of held-out rows."""
    return samples_or_reconstructions(
        pipeline, source, pipeline.density is not None and pipeline.density.config.conditional
    )


def check(options: DensityOptions, source: DataSource) -> None:
    """Raise a `UsageError` if the options and the data do not fit."""
    # a density of x needs some of it outside the components, to see how much
    check_pca_dim(options.pca_dim, source, options, spare=int(options.density != "none"))
    if options.conditional and not source.class_names:
        raise UsageError(f"--conditional true: {source.name} has no classes")


def warnings(options: DensityOptions, source: DataSource) -> Iterator[str]:
    """What can be fitted to so few rows, and will say little."""
    rows = rows_to_fit(source, options)
    if options.density != "mixture" or rows is None:
        return
    count = max(options.num_components) * (len(source.class_names) if options.conditional else 1)
    dim = options.pca_dim or math.prod(source.shape)
    if (different := different_rows(source, options)) < count:
        yield f"--num_components: {count} components for {different} different rows; some of them will be copies"
    elif options.covariance_type == "full" and rows < count * (dim + 1):
        yield (
            f"--covariance_type full: each component of {dim} dimensions needs {dim + 1} rows or more, and there are "
            f"{rows // count} for each; diag needs fewer"
        )


def main(argv: list[str] | None = None) -> None:
    options = parse(DensityOptions, argv, __doc__)
    declared = PCA_ALONE if options.density == "none" else replace(DECLARATION, paper=PAPERS[options.density])
    run, source, _ = start(declared, None, options, check)
    for warning in warnings(options, source):
        run.remark(warning)
    fit(run, source, lambda report: make_pipeline(source, options, report), picture)


if __name__ == "__main__":
    command_line(main)
