"""Fitting a mixture of ten full Gaussians to MNIST in 50 principal components, against scikit-learn.

    python benchmarks/mixture.py --data_dir DIR_OF_MNIST [--max_iter 30] [--rounds 1]

Both start from the same clusters (scikit-learn's KMeans), in float64, with the same tolerance, 1e-3 nats, and the same
regularisation. scikit-learn gets the start as means, weights and precisions, which are those of the first M step. The
time is that of the EM alone: loading, components and clusters are ready before. Prints one JSON line:
    speedup                   the median over rounds of scikit-learn's seconds an iteration over ours, within a round
    speedup_to_convergence    the same of the seconds of the whole fit
    ours, scikit_learn        seconds, iterations (n of them are n + 1 E steps in both), final mean log-likelihood in
                              nats a point
    relative_difference       of the two likelihoods
    largest_step_down         the most that our likelihood fell in a step, relative; 0 is not at all
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipelines.classical.modeling_gaussian_mixture import GaussianMixtureModel  # noqa: E402
from training.data.images import DataOptions, load_data  # noqa: E402

COMPONENTS, DIMENSIONS, REG = 10, 50, 1e-6


def principal_components(data_dir: str) -> torch.Tensor:
    """The training images, x / 255, in their 50 leading components: (N, 50) float32."""
    x = load_data(DataOptions(dataset="mnist", data_dir=data_dir)).train.columns["x"].flatten(1).double() / 255
    _, vectors = torch.linalg.eigh(x.T.cov())  # in ascending order
    return ((x - x.mean(0)) @ vectors[:, -DIMENSIONS:].flip(1)).float()


def fit_ours(x: torch.Tensor, labels: torch.Tensor, max_iter: int) -> tuple[dict, list[float]]:
    """Figures of our EM, and its mean log-likelihood after each step, nats."""
    begin = time.perf_counter()
    steps = list(
        GaussianMixtureModel.em_steps(x, COMPONENTS, "full", initial=labels, max_iter=max_iter, tol=1e-3, reg_covar=REG)
    )
    seconds = time.perf_counter() - begin
    mean = steps[-1].model.log_prob(x).double().mean().item()
    last = steps[-1]
    figures = {"seconds": seconds, "iterations": last.step, "log_likelihood": mean, "converged": last.converged}
    return figures, [step.log_likelihood for step in steps]


def fit_scikit_learn(x: torch.Tensor, labels: torch.Tensor, max_iter: int) -> dict:
    """The same figures of scikit-learn's."""
    from sklearn.mixture import GaussianMixture

    x = x.double()
    parts = [x[labels == k] for k in range(COMPONENTS)]
    precisions = [torch.linalg.inv(p.T.cov(correction=0) + REG * torch.eye(DIMENSIONS, dtype=x.dtype)) for p in parts]
    mixture = GaussianMixture(
        COMPONENTS,
        covariance_type="full",
        max_iter=max_iter,
        tol=1e-3,
        reg_covar=REG,
        weights_init=(labels.bincount(minlength=COMPONENTS).double() / len(x)).numpy(),
        means_init=torch.stack([p.mean(0) for p in parts]).numpy(),
        precisions_init=torch.stack(precisions).numpy(),
        init_params="random",  # the parts above replace it, and it costs no k-means
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged is in the figures
        begin = time.perf_counter()
        mixture.fit(x.numpy())
        seconds = time.perf_counter() - begin
    mean = mixture.score(x.numpy())
    return {"seconds": seconds, "iterations": mixture.n_iter_, "log_likelihood": mean, "converged": mixture.converged_}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--max_iter", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()

    from sklearn.cluster import KMeans

    x = principal_components(options.data_dir)
    labels = torch.from_numpy(KMeans(COMPONENTS, n_init=1, random_state=0).fit_predict(x.numpy())).long()
    fit_ours(x, labels, 2)  # the first calls start threads
    fit_scikit_learn(x, labels, 2)
    an_iteration, whole = [], []
    for _ in range(options.rounds):
        mine, values = fit_ours(x, labels, options.max_iter)
        other = fit_scikit_learn(x, labels, options.max_iter)
        an_iteration.append((other["seconds"] / other["iterations"]) / (mine["seconds"] / mine["iterations"]))
        whole.append(other["seconds"] / mine["seconds"])
    difference = (mine["log_likelihood"] - other["log_likelihood"]) / abs(other["log_likelihood"])
    figures = {
        "speedup": round(statistics.median(an_iteration), 2),
        "speedup_to_convergence": round(statistics.median(whole), 2),
        "points": len(x),
        "threads": torch.get_num_threads(),
        "ours": {k: round(v, 5) if isinstance(v, float) else v for k, v in mine.items()},
        "scikit_learn": {k: round(v, 5) if isinstance(v, float) else v for k, v in other.items()},
        "relative_difference": difference,
        "largest_step_down": max([0.0, *((a - b) / abs(a) for a, b in pairwise(values))]),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
