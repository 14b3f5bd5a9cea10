"""Cluster: k-means, or a tree of merges that can be cut anywhere.

    python -m training.classical.clustering                                          # digits, seconds
    python -m training.classical.clustering --method agglomerative --output_dir runs/agglomerative-digits
    python -m training.classical.clustering --config training/classical/kmeans-mnist.yaml

Both are fitted by scikit-learn. The tree needs the distance of every point from every other: 8 N^2 bytes, twice over
while it is made.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from pipelines.classical.modeling_agglomerative import LINKAGES, AgglomerativeModel
from pipelines.classical.modeling_kmeans import KMeansModel
from pipelines.classical.modeling_pca import PCAModel
from pipelines.classical.pipeline_clustering import ClusteringPipeline
from training.data.images import DataOptions
from training.data.source import DataSource, rows_to_show
from training.declaration import RECONSTRUCT, SOME_POINTS, Declaration
from training.loops.closed_form import FitOptions, check_pca_dim, different_rows, fit, rows_to_fit, training_rows
from training.loops.run import start
from training.options import UsageError, command_line, option, parse, with_default
from training.pictures import image_grid, scatter

DECLARATION = Declaration(
    family="clustering",
    branch="classical",
    title="Clustering",
    example=RECONSTRUCT,
    points_example=f"{SOME_POINTS}\nclusters = pipe.assign(points)",
    measures=("reconstruction", "kept_rows"),
    task="image-feature-extraction",
)
PAPERS = {  # of Lloyd's iterations, and of merging by the least growth of the squared distances
    "kmeans": "https://doi.org/10.1109/TIT.1982.1056489",
    "agglomerative": "https://doi.org/10.1080/01621459.1963.10500845",
}
MOST_POINTS = 20_000  # of a tree: 3.2 GB of distances, and as much again


@dataclass
class ClusteringOptions(DataOptions, FitOptions):
    output_dir: str = with_default(FitOptions, "output_dir", "runs/kmeans-digits")
    method: str = option(
        "kmeans", "kind of clustering: k-means, or a tree of merges", choices=("kmeans", "agglomerative")
    )
    num_clusters: int = option(
        10, "number of clusters of k-means; of a tree, where it is cut if a call says nothing else", least=1
    )
    num_starts: int = option(4, "number of k-means runs, of which the best is kept", least=1)
    linkage: str = option("ward", "how the distance of two clusters of a tree is measured", choices=LINKAGES)
    pca_dim: int = option(0, "number of principal components to cluster; 0 clusters the data themselves", least=0)


def fit_tree(points: torch.Tensor, options: ClusteringOptions) -> AgglomerativeModel:
    """The merges of (N, D) by scikit-learn."""
    from sklearn.cluster import AgglomerativeClustering

    if not 2 <= len(points) <= MOST_POINTS:
        raise UsageError(
            f"--max_samples: a tree of {len(points)} points; it must have from 2 to {MOST_POINTS}, since memory grows "
            f"with N^2 ({16 * len(points) ** 2 / 1e9:.1f} GB here)"
        )
    found = AgglomerativeClustering(None, distance_threshold=0.0, linkage=options.linkage).fit(points.double().numpy())
    merges = torch.from_numpy(np.sort(found.children_, 1).astype(np.int64))
    return AgglomerativeModel.of(
        points, merges, torch.from_numpy(found.distances_), options.linkage, options.num_clusters
    )


def fit_means(points: torch.Tensor, options: ClusteringOptions, report) -> KMeansModel:
    """The best of several runs of k-means by scikit-learn."""
    from sklearn.cluster import KMeans

    best, array = None, points.numpy()
    for number in range(options.num_starts):
        found = KMeans(options.num_clusters, n_init=1, max_iter=300, random_state=options.seed + number).fit(array)
        report(number + 1, options.num_starts, loss=found.inertia_ / len(points))
        best = found if best is None or found.inertia_ < best.inertia_ else best
    counts = np.bincount(best.labels_, minlength=options.num_clusters)
    order = np.argsort(-counts, kind="stable")  # the largest cluster first
    return KMeansModel.of(torch.from_numpy(best.cluster_centers_[order].copy()), torch.from_numpy(counts[order]))


def make_pipeline(source: DataSource, options: ClusteringOptions, report) -> ClusteringPipeline:
    """The clustering that the options ask for, of the training rows or of their principal components."""
    spec = source.spec("8-bit", (0, 1))
    pca = None
    if options.pca_dim:
        pca = PCAModel.fit((batch["x"] for batch in training_rows(source, spec, options)), options.pca_dim)
    rows = (batch["x"] for batch in training_rows(source, spec, options))
    points = torch.cat([x if pca is None else pca.encode(x) for x in rows])
    clustering = fit_means(points, options, report) if options.method == "kmeans" else fit_tree(points, options)
    return ClusteringPipeline(clustering, pca, spec)


def picture(pipeline: ClusteringPipeline, source: DataSource) -> bytes:
    """Means of the clusters, of images; of points each mean among them."""
    means = pipeline.centres(output_type="np")
    return (
        image_grid(means)
        if source.kind == "image"
        else scatter(means, source.as_input(rows_to_show(source, 2_000)).numpy())
    )


def check(options: ClusteringOptions, source: DataSource) -> None:
    """Raise a `UsageError` if the options and the data do not fit."""
    check_pca_dim(options.pca_dim, source, options)
    if rows_to_fit(source, options) is None:
        return  # a stream without an end is refused when it is read
    different = different_rows(source, options)
    if different < options.num_clusters:
        raise UsageError(
            f"--num_clusters is {options.num_clusters}, but there are only {different} different points; more would be copies"
        )


def main(argv: list[str] | None = None) -> None:
    options = parse(ClusteringOptions, argv, __doc__)
    run, source, _ = start(replace(DECLARATION, paper=PAPERS[options.method]), None, options, check)
    fit(run, source, lambda report: make_pipeline(source, options, report), picture)


if __name__ == "__main__":
    command_line(main)
