"""Figures of a few rows that are kept with the project, so that any machine can measure a checkpoint again in a second.

They say whether a model still answers as it did when its figures were written, to 1e-3; they are no figures of quality.
Of MNIST the rows are the 200 test digits of `spaces/kit/mnist-digits.png`, of embedded sets the first 200 of the test
split, of text the passage below. Binary models see levels above one half as ones.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MNIST_DIGITS = Path(__file__).resolve().parents[2] / "spaces" / "kit" / "mnist-digits.png"
ROWS, SAMPLES = 200, 20
# William Shakespeare, Hamlet: public domain
TEXT = """To be, or not to be: that is the question:
Whether 'tis nobler in the mind to suffer
The slings and arrows of outrageous fortune,
Or to take arms against a sea of troubles,
And by opposing end them."""


def mnist_digits() -> tuple[Tensor, Tensor]:
    """The kept digits (200, 1, 28, 28), uint8, and their classes (200,): 20 of each class, a class a row of the sheet."""
    sheet = torch.from_numpy(np.array(Image.open(MNIST_DIGITS)))
    digits = sheet.view(10, 28, 20, 28).transpose(1, 2).reshape(200, 1, 28, 28)
    return digits, torch.arange(10).repeat_interleave(20)


def figures(pipe, x: Tensor, class_labels: Tensor | None, num_classes: int) -> dict[str, float]:
    """Of a diffusers pipeline whatever it answers, a mean over the rows.

    Args:
        x: as the pipeline takes it, (B, *shape).
        class_labels: (B,) of the rows.
        num_classes: that the calls take; 0 for an unconditional model.
    """
    generator = torch.Generator().manual_seed(0)
    known = {"class_labels": class_labels.tolist()} if num_classes else {}
    found = {}
    if pipe.likelihood == "exact":
        found["nats"] = -pipe.log_prob(x, generator=generator, **known)
    elif pipe.likelihood == "bound":
        binary = pipe.data_spec["support"] == "binary"
        found["nats"] = -pipe.elbo((x > 0.5).float() if binary else x, 1, generator=generator, **known)
    if hasattr(pipe, "discriminate"):
        found["discriminator"] = pipe.discriminate(x, **known)
    for name, call in (
        ("reconstruction_error", getattr(pipe, "reconstruction_error", None)),
        ("class_nats", _class_nats(pipe, class_labels)),
    ):
        try:
            if call is not None:
                found[name] = call(x)
        except NotImplementedError:  # an instance without a code, or without classes
            continue
    if pipe.likelihood != "none":
        labels = {"class_labels": [i % num_classes for i in range(SAMPLES)]} if num_classes else {}
        drawn = pipe(batch_size=SAMPLES, generator=generator.manual_seed(0), output_type="pt", **labels)
        found["sample_mean_square"] = (drawn.images if "images" in drawn else drawn.samples).square()
    return {name: float(f"{value.double().mean().item():.6g}") for name, value in found.items()}


def _class_nats(pipe, class_labels: Tensor | None):
    if class_labels is None or not hasattr(pipe, "classify"):
        return None
    return lambda x: -pipe.classify(x).cpu().gather(1, class_labels[:, None]).log()


def text_figures(pipe) -> dict[str, float]:
    """Of a language model: -log P of the kept passage, nats per token."""
    return {"nats_per_token": float(f"{-pipe.score(TEXT).log_probs.double().mean().item():.6g}")}
