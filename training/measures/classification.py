"""Accuracy, -log p(y|x) and calibration over the test split, of what answers with classes and draws nothing."""

import argparse

import torch
from torch import Tensor

from training.averages import mean_and_error
from training.data.batches import batches_in_order
from training.figures import Figure, Table
from training.pictures import reliability_diagram

ACCURACY = Figure(
    "accuracy", "accuracy", "accuracy", metric_type="accuracy", order=40, show=lambda found: f"{found['accuracy']:.2%}"
)
NATS = Figure("class_nats", "nats", digits=4, error="class_nats_standard_error")
CALIBRATION = Figure("calibration_error", "calibration error", digits=4)
TABLES = (Table("Classification", (ACCURACY, NATS, CALIBRATION), lambda found: "accuracy" in found, 50),)
PICTURES = {"calibration.png": "Accuracy against confidence"}


def arguments(parser: argparse.ArgumentParser) -> None:
    pass


def applies(pipe, source) -> bool:
    return "classify" in pipe.calls and pipe.likelihood == "none"


def measure(pipe, source, options: argparse.Namespace) -> tuple[dict, dict[str, bytes]]:
    given, labels = [], []
    for batch in batches_in_order(source.test, 500):
        given.append(pipe.classify(source.as_input(batch)).cpu())
        labels.append(batch["class_labels"])
    if not given:
        mean_and_error(torch.empty(0), "-log p(y|x)")
    given, labels = torch.cat(given), torch.cat(labels)
    mean, error = mean_and_error(-given.gather(1, labels[:, None]).log()[:, 0], "-log p(y|x)")
    wrong, rows = calibration(given, labels)
    return {
        "accuracy": round((given.argmax(1) == labels).float().mean().item(), 5),
        "class_nats": round(mean, 5),
        "class_nats_standard_error": round(error, 5),
        "calibration_error": round(wrong, 5),
        "calibration": [[round(c, 4), round(a, 4), n] for c, a, n in rows],
        "test_images": len(labels),
    }, {"calibration.png": reliability_diagram(rows)}


def calibration(probabilities: Tensor, labels: Tensor, bins: int = 15) -> tuple[float, list[tuple[float, float, int]]]:
    """Expected calibration error, and (confidence, accuracy, count) of each bin that holds something.

    Guo et al., arXiv 1706.04599, equation 3: the mean over images of |accuracy - confidence| of their bin.
    """
    confidence, answer = probabilities.max(1)
    right = (answer == labels).float()
    which = (confidence * bins).ceil().long().clamp(1, bins)
    rows, error = [], 0.0
    for number in range(1, bins + 1):
        inside = which == number
        if inside.any():
            rows.append((confidence[inside].mean().item(), right[inside].mean().item(), int(inside.sum())))
            error += abs(rows[-1][0] - rows[-1][1]) * rows[-1][2] / len(labels)
    return error, rows
