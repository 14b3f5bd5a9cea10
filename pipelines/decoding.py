"""Any picture as levels: gray or colour of 8 bits each, upright, laid on white where it is transparent.

Training, pipelines and Spaces all read pictures by `as_levels`, so that a picture means the same to each of them. What Pillow
does by itself loses pictures in silence: 16 bits of gray are cut off at 255, floating-point ones become black, and the
colours beneath full transparency appear.
"""

import numpy as np
import PIL.Image
from PIL import ImageOps
from PIL.ExifTags import Base

GROUND = 255  # white: what is seen through a transparent picture
GRAY = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # Pillow's modes without colour


def as_levels(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A picture as Pillow's mode "L" where it is gray, else "RGB"; of an animated one the frame that it stands at.

    - 16 bits of gray: 0 to 65535 become 0 to 255;
    - floating point: [0, 1] becomes 0 to 255;
    - what is transparent is laid on white, as far as it is;
    - turned as EXIF says.

    Raises:
        ValueError: floating point outside [0, 1], or 32-bit whole numbers, whose range no one knows.
    """
    if picture.getexif().get(Base.Orientation) is not None:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        return _of_deep(picture)
    gray = picture.mode in GRAY
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA") if picture.mode != "La" else picture.convert("LA").convert("RGBA")
        ground = PIL.Image.new("RGBA", picture.size, (GROUND, GROUND, GROUND, 255))
        picture = PIL.Image.alpha_composite(ground, picture)
    return picture.convert("L" if gray else "RGB")


def _of_deep(picture: PIL.Image.Image) -> PIL.Image.Image:
    """One number a pixel, of more than 8 bits -> mode "L"."""
    values = np.asarray(picture)
    if picture.mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError(
                f"floating-point pixels from {values.min():.4g} to {values.max():.4g}; they must lie in [0, 1]"
            )
        return PIL.Image.fromarray(np.rint(values * 255).astype(np.uint8))
    # older versions of Pillow open 16-bit PNG as 32 bits
    if picture.mode == "I" and (picture.format != "PNG" or values.min() < 0 or values.max() > 65535):
        raise ValueError("32-bit whole numbers, whose range is not known; save it with 8 or 16 bits")
    found = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if isinstance(transparent := picture.info.get("transparency"), int):
        found[values == transparent] = GROUND
    return PIL.Image.fromarray(found)
