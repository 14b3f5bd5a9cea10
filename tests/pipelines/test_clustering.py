"""K-means and agglomerative clustering: what never rises, and equality with scikit-learn and scipy."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering, KMeans

from pipelines.classical.modeling_agglomerative import AgglomerativeModel
from pipelines.classical.modeling_kmeans import KMeansModel
from pipelines.classical.modeling_pca import PCAModel
from pipelines.classical.pipeline_clustering import ClusteringPipeline
from tests.contract import UNIT, VECTOR_SPEC, Instance, image_spec


def instance(clustering, spec: dict, pca_dim: int = 0) -> Instance:
    calls = {"assign", "transform", "centres", "reconstruct", "reconstruction_error"}

    def make():
        x = torch.rand(40, math.prod(spec["shape"]), generator=torch.Generator().manual_seed(0))
        pca = PCAModel.fit([x], pca_dim) if pca_dim else None
        return ClusteringPipeline(clustering(x if pca is None else pca.encode(x)), pca, spec).to("cpu")

    return Instance(
        ClusteringPipeline,
        make,
        "none",
        calls,
        judge="transform",
        reason=r"log_prob: a clustering has no p\(x\)",
        options={name: {"num_clusters": 3} for name in calls},
    )


def means(x: torch.Tensor) -> KMeansModel:
    *_, last = KMeansModel.lloyd_steps(x, 3)
    return KMeansModel.of(last.centres, last.assignment.bincount(minlength=3))


INSTANCES = {
    "k-means": instance(means, image_spec(UNIT)),
    "k-means of components": instance(means, image_spec(UNIT, 3), 4),
    "agglomerative": instance(AgglomerativeModel.fit, VECTOR_SPEC),
}

SPEC = {"kind": "vector", "shape": [2], "support": "real", "range": None, "dequantization": "none", "num_classes": 0}


def blobs(count: int = 120, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.tensor([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]])
    return centres[torch.arange(count) % 3] + torch.randn(count, 2, generator=generator)


@pytest.mark.parametrize("seed", range(5))
def test_lloyds_iterations_never_raise_the_inertia(seed):
    x = torch.rand(300, 3, generator=torch.Generator().manual_seed(seed))
    steps = list(KMeansModel.lloyd_steps(x, 7, seed=seed))
    inertia = [step.inertia for step in steps]
    assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(inertia))
    assert steps[-1].converged and len(steps) > 2
    # at the end each centre is the mean of its points
    for k in range(7):
        torch.testing.assert_close(steps[-1].centres[k], x[steps[-1].assignment == k].mean(0))


def test_from_the_same_centres_lloyd_is_scikit_learns():
    x = blobs()
    start = x[:5].clone()
    *_, last = KMeansModel.lloyd_steps(x, 5, centres=start)
    theirs = KMeans(5, init=start.numpy(), n_init=1, tol=0).fit(x.numpy())
    assert last.inertia == pytest.approx(theirs.inertia_, rel=1e-5)
    np.testing.assert_allclose(last.centres.numpy(), theirs.cluster_centers_, atol=1e-4)


def test_starting_points_lie_far_apart():
    """k-means++ finds three clear clusters from nearly every seed."""
    right = 0
    for seed in range(20):
        *_, last = KMeansModel.lloyd_steps(blobs(), 3, seed=seed)
        right += bool((last.assignment.bincount() == 40).all())
    assert right >= 18


def test_doubled_points_are_no_trouble():
    *_, last = KMeansModel.lloyd_steps(torch.ones(5, 2), 3)
    assert last.inertia == 0 and last.centres.isfinite().all()


@pytest.mark.parametrize("linkage", ["ward", "complete", "average", "single"])
def test_merges_are_scikit_learns(linkage):
    x = torch.rand(60, 4, generator=torch.Generator().manual_seed(3))
    model = AgglomerativeModel.fit(x, linkage)
    theirs = AgglomerativeClustering(None, distance_threshold=0.0, linkage=linkage).fit(x.double().numpy())
    np.testing.assert_allclose(model.heights.numpy(), theirs.distances_, rtol=1e-5)
    for count in (1, 2, 5, 60):
        labels = AgglomerativeClustering(count, linkage=linkage).fit(x.double().numpy()).labels_
        ours = model.cut(count)
        assert len(set(zip(ours.tolist(), labels.tolist(), strict=True))) == count == len(set(ours.tolist()))


def test_heights_never_fall_and_a_cut_finds_clear_clusters():
    model = AgglomerativeModel.fit(blobs(), "ward")
    assert (model.heights.diff() >= -1e-5).all()
    assert len({(int(c), i % 3) for i, c in enumerate(model.cut(3))}) == 3
    sizes = model.cut(7).bincount()
    assert (sizes.diff() <= 0).all() and sizes.sum() == 120  # the largest first


@pytest.mark.parametrize("with_pca", [False, True])
@pytest.mark.parametrize("kind", ["kmeans", "agglomerative"])
def test_the_pipeline_assigns_to_the_nearest_mean(kind, with_pca, tmp_path):
    x = blobs()
    pca = PCAModel.fit([x], 2) if with_pca else None
    codes = pca.encode(x) if with_pca else x
    if kind == "kmeans":
        *_, last = KMeansModel.lloyd_steps(codes, 3)
        clustering = KMeansModel.of(last.centres, last.assignment.bincount())
    else:
        clustering = AgglomerativeModel.fit(codes)
    pipe = ClusteringPipeline(clustering, pca, SPEC)
    assert pipe.likelihood == "none"
    centres = pipe.centres(3, "pt")
    assert torch.equal(pipe.assign(x, 3), torch.cdist(x, centres).argmin(1))
    torch.testing.assert_close(pipe.transform(x, 3), torch.cdist(x, centres), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pipe.reconstruct(x, 3, "pt").samples, centres[pipe.assign(x, 3)])
    error = (centres[pipe.assign(x, 3)] - x).square().mean(1)
    torch.testing.assert_close(pipe.reconstruction_error(x, 3), error)
    pipe.save_pretrained(tmp_path)
    again = ClusteringPipeline.from_pretrained(tmp_path)
    assert torch.equal(again.assign(x, 3), pipe.assign(x, 3))
    with pytest.raises(NotImplementedError, match=r"a clustering has no p\(x\)"):
        pipe.log_prob(x)


def test_what_cannot_be_clustered_is_named():
    x = blobs(9)
    for call, message in (
        (lambda: next(KMeansModel.lloyd_steps(x, 10)), "num_clusters is 10, but x holds 9 points"),
        (lambda: next(KMeansModel.lloyd_steps(x, 0)), "num_clusters is 0; it must be an integer of at least 1"),
        (lambda: next(KMeansModel.lloyd_steps(x / 0, 2)), "x holds NaN or infinite values"),
        (lambda: AgglomerativeModel.fit(x[:1]), r"x has shape \(1, 2\); it must be \(N, D\) with N from 2 to 2000"),
        (lambda: AgglomerativeModel.fit(x, "nearest"), "linkage is 'nearest'; it must be one of ward"),
        (lambda: AgglomerativeModel.fit(x).cut(10), "num_clusters is 10; it must be an integer from 1 to 9"),
        (lambda: KMeansModel.of(x, torch.ones(9)).centres(3), "num_clusters is 3; these are 9 means, not a tree"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    pipe = ClusteringPipeline(KMeansModel.of(x, torch.ones(9)), None, SPEC)
    with pytest.raises(ValueError, match=r"x has shape \(9, 1\); this model takes \(B, 2\)"):
        pipe.assign(x[:, :1])
