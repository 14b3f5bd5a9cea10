"""`reconstruction_error`: mean squared error of reconstructions over the test split, per entry, of pixels in [0, 1]."""

import argparse
import math

import torch

from training.averages import mean_and_error
from training.data.batches import batches_in_order
from training.figures import Figure, Table
from training.watching import watched

ERROR = Figure(
    "reconstruction_error",
    "squared error",
    "mean squared error of reconstructions, per pixel in [0, 1]",
    digits=4,
    metric_type="mse",
    order=50,
    show=lambda found: f"{found['reconstruction_error']:.4f}",
)
TABLES = (Table("Reconstructions", (ERROR,), lambda found: ERROR.key in found, 40),)
PICTURES = {}


def arguments(parser: argparse.ArgumentParser) -> None:
    pass


def applies(pipe, source) -> bool:
    return "reconstruction_error" in pipe.calls


def measure(pipe, source, options: argparse.Namespace) -> tuple[dict, dict[str, bytes]]:
    batches = watched(batches_in_order(source.test, 500), "reconstruction", math.ceil(len(source.test) / 500))
    errors = [pipe.reconstruction_error(source.as_input(batch)).cpu() for batch in batches]
    mean, error = mean_and_error(torch.cat(errors) if errors else torch.empty(0), "the squared error")
    return {
        "reconstruction_error": float(f"{mean:.4g}"),
        "reconstruction_error_standard_error": float(f"{error:.2g}"),
        "test_images": sum(map(len, errors)),
    }, {}
