"""Means over samples with their standard errors, as figures are reported."""

import math

from torch import Tensor

from training.options import UsageError


def mean_and_error(values: Tensor, what: str) -> tuple[float, float]:
    """Mean and its standard error over samples; 0 for the error of a single one.

    Raises:
        UsageError: a value is not finite (a mean that hides it would be no figure), or there is none.
    """
    values = values.double().cpu()
    if not len(values):
        raise UsageError(f"{what}: the test split is empty, so there is nothing to measure on")
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        number = int(bad[0])
        raise UsageError(f"{what} of test sample {number} is {values[number].item()}; {len(bad)} of {len(values)} so")
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return values.mean().item(), error
