"""Non-negative factorisation: signs, a loss that never rises, missing entries, recommendations."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from pipelines.classical.modeling_nmf import NMFModel
from pipelines.classical.pipeline_nmf import NMFPipeline
from tests.contract import UNIT, VECTOR_SPEC, Instance, image_spec


def instance(spec: dict, size: int, owes: set = frozenset(), data=None) -> Instance:
    def make():
        return NMFPipeline(NMFModel.of(torch.rand(3, size, generator=torch.Generator().manual_seed(0))), spec).to("cpu")

    return Instance(
        NMFPipeline,
        make,
        "none",
        owes | {"transform", "decode", "reconstruct", "parts", "complete", "reconstruction_error"},
        judge="reconstruction_error",
        reason=r"log_prob: a factorisation has no p\(x\)",
        may_miss=True,
        data=data,
    )


def ratings(count: int) -> torch.Tensor:
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(1)) * 5


INSTANCES = {
    "nmf": instance(image_spec(UNIT), 64),
    "nmf of ratings": instance(VECTOR_SPEC, 2, {"recommend"}, ratings),
}

NAN = float("nan")


def spec(size: int) -> dict:
    return {"kind": "vector", "shape": [size], "support": "real", "range": None, "dequantization": "none",
            "num_classes": 0}  # fmt: skip


IMAGES = {"kind": "image", "shape": [1, 4, 4], "support": "8-bit", "range": [0, 1], "dequantization": "none",
          "num_classes": 0}  # fmt: skip


def product(rows: int = 40, rank: int = 3, columns: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, rank, generator=generator) @ torch.rand(rank, columns, generator=generator)


def holes(x: torch.Tensor, share: float, seed: int = 0) -> torch.Tensor:
    return x.masked_fill(torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < share, NAN)


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("penalty", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_negative_and_the_loss_never_rises(share, penalty, seed):
    x = holes(torch.rand(30, 10, generator=torch.Generator().manual_seed(seed)), share)
    steps = list(NMFModel.fit_steps(x, 4, penalty, max_iter=60, tol=0, seed=seed))
    assert all((step.weights >= 0).all() and (step.parts >= 0).all() for step in steps)
    losses = [step.loss for step in steps]
    assert all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(losses)) and losses[-1] < losses[0]


def test_a_product_of_non_negative_factors_is_found_again():
    x = product()
    *_, last = NMFModel.fit_steps(x, 3, max_iter=3_000, tol=1e-8)
    assert last.error < 0.01 * x.mean()


def test_missing_entries_are_predicted_from_what_others_know():
    """A matrix of rank 3 with a fifth of it hidden: what is filled in is nearer than the column's mean."""
    full = product(60, 3, 15)
    x = holes(full, 0.2)
    *_, last = NMFModel.fit_steps(x, 3, max_iter=2_000, tol=1e-9)
    pipe = NMFPipeline(NMFModel.of(last.parts), spec(15))
    filled, missing = pipe.complete(x, output_type="pt").samples, x.isnan()
    assert torch.equal(filled[~missing], x[~missing])
    guess = x.nanmean(0).expand_as(x)
    error, baseline = ((y - full)[missing].square().mean() for y in (filled, guess))
    assert error < 0.1 * baseline


def test_weights_are_the_non_negative_least_squares():
    """Against scipy's active-set solver, with and without missing entries."""
    parts = torch.rand(4, 12, generator=torch.Generator().manual_seed(1))
    model = NMFModel.of(parts)
    for x in (product(6, 5), holes(product(6, 5), 0.3)):
        weights = model.transform(x, sweeps=500)
        for row, found in zip(x, weights, strict=True):
            known = ~row.isnan()
            best, _ = nnls(parts[:, known].T.double().numpy(), row[known].double().numpy())
            np.testing.assert_allclose(found.numpy(), best, atol=2e-3)


def test_recommendations_are_the_best_of_what_is_missing():
    tastes = torch.tensor([[5.0, 5.0, 1.0, 1.0, 5.0], [1.0, 1.0, 5.0, 5.0, 1.0]])
    pipe = NMFPipeline(NMFModel.of(tastes, 0.0, ["tea", "milk", "beer", "wine", "cocoa"]), spec(5))
    found = pipe.recommend([5, NAN, 1, NAN, NAN], k=2)
    assert set(found.names) == {"milk", "cocoa"} and set(found.columns) == {1, 4}
    assert found.ratings[0] >= found.ratings[1] > 4
    assert pipe.recommend([NAN, NAN, 5, 4, 1]).names[0] in ("tea", "milk")
    assert len(pipe.recommend([1, NAN, 5, 4, 1], k=10).columns) == 1  # no more than are missing


def test_images_are_sums_of_parts_and_hidden_pixels_come_back(tmp_path):
    torch.manual_seed(0)
    parts = torch.zeros(2, 16)
    parts[0, :8], parts[1, 8:] = 0.5, 1.0
    parts[:, 0] = 0.25
    pipe = NMFPipeline(NMFModel.of(parts), IMAGES)
    x = (torch.tensor([[0.8, 0.3]]) @ parts).view(1, 1, 4, 4)
    torch.testing.assert_close(pipe.transform(x), torch.tensor([[0.8, 0.3]]), atol=1e-3, rtol=0)
    torch.testing.assert_close(pipe.reconstruct(x, "pt").images, x, atol=1e-3, rtol=0)
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    mask[..., 2:] = False
    torch.testing.assert_close(pipe.complete(x, mask, "pt").images, x, atol=1e-3, rtol=0)
    assert pipe.parts("pt").amax((1, 2, 3)).tolist() == [1.0, 1.0]
    pipe.save_pretrained(tmp_path)
    assert torch.equal(NMFPipeline.from_pretrained(tmp_path).transform(x), pipe.transform(x))


def test_what_cannot_be_factorised_is_named():
    x = product(6, 2, 5)
    row, column = x.clone(), x.clone()
    row[2], column[:, 3] = NAN, NAN
    for bad, count, message in (
        (x - 1, 2, r"x holds -\d\.\d+; a non-negative factorisation needs entries of at least 0"),
        (row, 2, "row 2 of x has no known entry; each row needs at least one"),
        (column, 2, "column 3 of x has no known entry"),
        (x / 0, 2, "x holds infinite values"),
        (x, 6, "num_components is 6; it must be an integer from 1 to 5"),
        (x[0], 2, r"x has shape \(5,\); it must be \(N, D\)"),
    ):
        with pytest.raises(ValueError, match=message):
            next(NMFModel.fit_steps(bad, count))
    pipe = NMFPipeline(NMFModel.of(x), spec(5))
    for call, message in (
        (lambda: pipe.transform(-x), "needs entries of at least 0"),
        (lambda: pipe.recommend([NAN] * 5), "row 0 of x has no known entry"),
        (lambda: pipe.recommend([1, 2]), r"x has shape \(1, 2\); this model takes \(B, 5\)"),
        (lambda: pipe.recommend([1, 2, NAN, 1, 1], 0), "k is 0"),
        (lambda: pipe.decode(torch.zeros(2, 3)), r"weights is \(2, 3\); it must be a tensor of shape \(B, 6\)"),
        (lambda: pipe.complete(x, torch.ones(4)), "mask has dtype torch.float32; it must be bool"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(NotImplementedError, match=r"a factorisation has no p\(x\)"):
        pipe.log_prob(x)
