"""Data sets of the Hub that --dataset knows by a short name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownSet:
    """A data set of the Hub.

    Attributes:
        hub_id, image_column, label_column: of the Hub.
        licence: as its page states it.
        shape: (C, H, W) of its images, where extractors for them are named.
        extractors: checkpoints of this repository, in whose features samples of images of this shape are compared.
    """

    hub_id: str
    image_column: str
    label_column: str = "label"
    licence: str = "not stated"
    shape: tuple[int, int, int] | None = None
    extractors: tuple[str, ...] = ()


GRAY_28 = {"shape": (1, 28, 28), "extractors": ("classifier-mnist", "classifier-mnist-plain")}
KNOWN = {
    "mnist": KnownSet("ylecun/mnist", "image", licence="MIT", **GRAY_28),
    "fashion_mnist": KnownSet("zalando-datasets/fashion_mnist", "image", licence="MIT", **GRAY_28),
    "cifar10": KnownSet("uoft-cs/cifar10", "img"),
}


def extractors_of(shape: tuple[int, ...]) -> tuple[str, ...]:
    """The extractors of the known sets whose images (C, H, W) are of this shape; () where no such set names one."""
    found = (known.extractors for known in KNOWN.values() if known.extractors and known.shape == tuple(shape))
    return next(found, ())
