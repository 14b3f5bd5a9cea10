"""Digits: drawings made ready for a model, and examples to click."""

from __future__ import annotations  # torch.Tensor is named before torch is there

import functools
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image, ImageOps

from kit.errors import user_error
from kit.ink import ink_of
from kit.lazy import LazyModule
from kit.words import short

HERE = Path(__file__).parent
torch = LazyModule("torch")


def as_digit(picture: Image.Image | None, size: int) -> Image.Image:
    """A drawing or a photograph as the data sets hold digits: white on black, centred, with a margin.

    Raises:
        gr.Error: there is nothing on it.
    """
    empty = user_error("There is nothing on the paper yet: draw a digit, upload one or click an example.")
    if picture is None:
        raise empty
    ink = ink_of(picture)
    if ink is None:
        raise empty
    ink = Image.fromarray((ink * (255 / ink.max())).astype(np.uint8))
    ink = ink.crop(ink.point(lambda v: 255 if v > 60 else 0).getbbox())
    side = round(size * 20 / 28) if size > 10 else size  # MNIST's margin; the 8x8 digits have none
    scale = side / max(ink.size)
    ink = ink.resize([max(1, round(s * scale)) for s in ink.size], Image.Resampling.LANCZOS)
    weight = np.asarray(ink, dtype=np.float32)
    weight *= 255 / weight.max()  # a thin pen has become faint
    ink = Image.fromarray(weight.astype(np.uint8))
    # MNIST puts the centre of mass on the pixel right below the middle, as far as the margin allows
    middle = size / 2 + size / 56
    place = []
    for axis, length in ((0, ink.width), (1, ink.height)):
        along = weight.sum(axis)
        centre = (along * (np.arange(length) + 0.5)).sum() / along.sum()
        place.append(round(min(max(middle - centre, 0), size - length)))
    digit = Image.new("L", (size, size))
    digit.paste(ink, tuple(place))
    return digit


def digit_tensor(pipe, picture: Image.Image | None) -> torch.Tensor:
    """A drawing as a pipeline takes it, (1, 1, H, W) in [0, 1], on the support of its data: black and white if binary.

    Raises:
        gr.Error: there is nothing on it, or the model's images are not square or have colours.
    """
    channels, height, width = pipe.data_spec["shape"]
    if channels != 1 or height != width:
        raise user_error(
            f"This model's images are {width} x {height} in {channels} colours; it takes no drawing in one."
        )
    x = torch.from_numpy(np.asarray(as_digit(picture, height), dtype=np.float32) / 255)[None, None]
    return (x > 0.5).float() if pipe.data_spec["support"] == "binary" else x


@functools.cache
def example_digits() -> list[Image.Image]:
    """Ten handwritten digits, one a class, as ink on paper: the first of each class in `mnist_digits`."""
    large = (Image.fromarray(digits[0]).resize((280, 280), Image.Resampling.BICUBIC) for digits in mnist_digits())
    return [ImageOps.invert(digit) for digit in large]


def examples_gallery(elem_id: str) -> gr.Gallery:
    """The ten example digits, to click."""
    return gr.Gallery(
        example_digits(),
        label="Examples: click one",
        columns=5,
        object_fit="contain",
        allow_preview=False,
        buttons=[],
        elem_id=elem_id,
        elem_classes="examples",
    )


def chosen_example(event: gr.SelectData) -> Image.Image:
    """The digit that was clicked in such a gallery."""
    if event.index not in range(len(example_digits())):
        raise user_error(f"example is {short(event.index)}; it must be one of those shown")
    return example_digits()[event.index]


@functools.cache
def mnist_digits() -> np.ndarray:
    """200 digits of MNIST's test split, (10, 20, 28, 28) of uint8, white on black: 20 of each class, class by class."""
    sheet = np.asarray(Image.open(HERE / "mnist-digits.png").convert("L"))
    return sheet.reshape(10, 28, 20, 28).swapaxes(1, 2)
