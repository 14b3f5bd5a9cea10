"""Clusters: which one each x belongs to, how far it is from each, and what their means look like.

The clustering is k-means, or a merge tree that each call cuts where it is told to; of x itself or of its principal
components. Images go in and out as values in [0, 1].
"""

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from pipelines.contract import Contract, NoDensity
from pipelines.saving import settings_of
from pipelines.steps import Images


class ClusteringPipeline(Contract, NoDensity, DiffusionPipeline):
    """A clustering to assign with. It has no distribution over x: it can neither draw nor say how likely x is.

    x is a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them, with values in [0, 1]; a vector
    model takes (B, D).

    Args:
        clustering: a `KMeansModel` or an `AgglomerativeModel`.
        pca: a `PCAModel`, where the clustering is of codes.
        data_spec: what x is, as every model's config here carries it.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.

    Raises:
        ValueError: the parts do not fit each other.
    """

    model_cpu_offload_seq = ""
    _optional_components = ["pca"]  # noqa: RUF012 - diffusers reads this name
    _exclude_from_cpu_offload = ["clustering", "pca"]  # noqa: RUF012 - small, and read by other methods than forward
    likelihood = "none"

    def __init__(self, clustering, pca=None, data_spec: dict | None = None, auto_map: dict | None = None):
        super().__init__()
        self._take_data_spec(data_spec or settings_of(clustering, pca).get("data_spec"))
        self.register_modules(pca=pca, clustering=clustering)
        self.register_to_config(data_spec=self.data_spec)

    def _check_fit(self) -> None:
        self._check_codes_of("clustering")

    @property
    def refusals(self) -> dict[str, str]:
        """The calls that a clustering does not answer, and why."""
        return dict.fromkeys(("log_prob", "elbo"), "a clustering has no p(x); a Gaussian mixture is the one that has")

    def __call__(self, x, num_clusters: int | None = None) -> Tensor:
        """The same as `assign`."""
        return self.assign(x, num_clusters)

    @torch.no_grad()
    def assign(self, x, num_clusters: int | None = None) -> Tensor:
        """The cluster whose mean is nearest: (B,) int64.

        Args:
            num_clusters: where a merge tree is cut; k-means has a number of its own.

        Raises:
            ValueError: x cannot be used, or num_clusters is out of range; the message says which.
        """
        return self.transform(x, num_clusters).argmin(1)

    @torch.no_grad()
    def transform(self, x, num_clusters: int | None = None) -> Tensor:
        """Euclidean distances from the means of the clusters: (B, num_clusters)."""
        flat = self._check_x(x).flatten(1)
        return self.clustering.transform(flat if self.pca is None else self.pca.encode(flat), num_clusters)

    @torch.no_grad()
    def centres(self, num_clusters: int | None = None, output_type: str = "pil"):
        """The means of the clusters: images, or vectors (num_clusters, D)."""
        means = self.clustering.centres(num_clusters)
        return self._decoded(means, output_type)

    @torch.no_grad()
    def reconstruct(self, x, num_clusters: int | None = None, output_type: str = "pil"):
        """Of each x the mean of its cluster: images or vectors."""
        means = self.clustering.centres(num_clusters)[self.assign(x, num_clusters)]
        return self._wrap(self._decoded(means, output_type))

    @torch.no_grad()
    def reconstruction_error(self, x, num_clusters: int | None = None) -> Tensor:
        """Mean squared error of each x against the mean of its cluster, with images in [0, 1]: (B,)."""
        means = self.centres(num_clusters, output_type="pt")[self.assign(x, num_clusters)]
        return (means - self._check_x(x)).square().flatten(1).mean(1)

    def _decoded(self, means: Tensor, output_type: str) -> Images:
        """Means (B, D) of x or of codes -> images or vectors of the output_type."""
        return self._as_output_type(means if self.pca is None else self.pca.decode(means), output_type)
