"""Ink: what was drawn, told from what a photograph shows beside it, which is bars, shadows and the edge of the paper."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 160  # of a photograph, while its ink is looked for
LEAST = 30  # levels by which ink differs from its ground
ALIKE = 12  # levels between the pixels of a line that belongs to a bar
LEAST_HEIGHT = 0.12  # of ink that is a drawing, of the picture's height


def ink_of(picture: Image.Image) -> np.ndarray | None:
    """Ink, float32 (H, W): how much each pixel differs from the paper around it; None where none does.

    Dark on light or light on dark: most of a picture is its ground. Where something reaches the border, the picture is
    taken for a photograph: bars at its sides are cut off, ink is measured against the light around it, and what is joined
    to the border is no ink as long as anything else is.
    """
    picture = picture.convert("L")
    picture.thumbnail((512, 512), Image.Resampling.LANCZOS)
    gray = np.asarray(picture, dtype=np.float32)
    ink = np.abs(gray - np.median(gray))
    if ink.max() < LEAST:
        return None
    ring = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    if (ring < LEAST).mean() > 0.97:
        return ink
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    gray = without_bars(np.asarray(picture, dtype=np.float32))
    ink = against_its_ground(gray)
    return None if ink is None else without_border(ink)


def without_bars(gray: np.ndarray) -> np.ndarray:
    """A picture without lines of one level at its sides that differ from what is within them."""
    for _ in range(4):  # where there are bars at all sides, one pair is seen once the other is gone
        before = gray.shape
        for _ in range(4):
            gray = np.rot90(gray[_bar(gray) :])
        if gray.shape == before:
            break
    return gray


def _bar(gray: np.ndarray) -> int:
    """How many lines at the top are a bar."""
    low, high = np.percentile(gray, (5, 95), axis=1)
    level = np.median(gray, axis=1)
    same = (high - low <= ALIKE) & (np.abs(level - level[0]) <= ALIKE)
    count = len(same) if same.all() else int(np.argmin(same))
    within = count + 2  # the edge of a bar is not quite sharp; where light fades slowly there is none
    return within if count < 0.6 * len(gray) and abs(level[within] - level[0]) >= LEAST else 0


def against_its_ground(gray: np.ndarray) -> np.ndarray | None:
    """Ink by how much darker, or lighter, a pixel is than most around it: a shadow darkens ink and paper by the same share."""
    size = 2 * (min(gray.shape) // 5) + 1
    small = Image.fromarray(gray.astype(np.uint8))
    ground = np.asarray(small.filter(ImageFilter.MedianFilter(size)), dtype=np.float32)
    share = np.log((gray + 10) / (ground + 10))
    dark, light = np.percentile(-share, 98), np.percentile(share, 98)
    ink = np.maximum(-share if dark >= light else share, 0)
    return ink if np.abs(gray - ground).max() >= LEAST and ink.max() > 0 else None


def without_border(ink: np.ndarray) -> np.ndarray:
    """Ink without what is joined to the border, if something of a drawing's size is left."""
    top = np.percentile(ink, 99)
    found = Image.fromarray(np.where(ink > 0.4 * top, 255, 0).astype(np.uint8))
    opened = found.filter(ImageFilter.MinFilter(3)).filter(ImageFilter.MaxFilter(3))  # without the edges of shadows
    if np.asarray(opened).sum() > 0.5 * np.asarray(found).sum():
        found = opened
    framed = Image.new("L", (found.width + 2, found.height + 2), 255)
    framed.paste(found, (1, 1))
    ImageDraw.floodfill(framed, (0, 0), 128)
    inside = np.asarray(framed)[1:-1, 1:-1] == 255
    rows = np.flatnonzero(inside.any(1))
    if not len(rows) or rows[-1] - rows[0] < LEAST_HEIGHT * len(ink):
        inside = np.asarray(found) > 0
    near = Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)).filter(ImageFilter.MaxFilter(5))
    return np.where(np.asarray(near) > 0, ink, 0).astype(np.float32)
