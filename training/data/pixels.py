"""Stored images -> uint8 (C, H, W): where they may lie, how large they may be, how they are cropped and scaled."""

import io
import os
import warnings
from dataclasses import dataclass

import numpy as np

from pipelines.decoding import GRAY, as_levels
from training.data.local import lies_in
from training.options import UsageError, one_line

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")  # PIL would start other programs for some others
MOST_PIXELS, MOST_BYTES = 2**26, 2**28  # of an image, and of its file


class Unreadable(Exception):
    """Why an image cannot be read: it is damaged, or holds numbers that no levels can be made of."""

    def at(self, where: str) -> UsageError:
        """The same as an error of a user's."""
        return UsageError(f"{where}: no image that can be read, {self}; it must be one of {', '.join(FORMATS)}")


@dataclass
class Stored:
    """Reads images as rows of a table hold them: {"bytes", "path"}, as they were encoded.

    Attributes:
        roots: the real folders in which images may lie that a table only names.
        address: how addresses of the streamed set begin; None of others.
    """

    roots: list[str]
    address: str | None = None

    def read(self, image: dict | None, where: str) -> bytes:
        """The encoded image; `where` names the row.

        Raises:
            UsageError: there is none, or it lies elsewhere: a table from anywhere could name any file.
        """
        if image is None or (image["bytes"] is None and image["path"] is None):
            raise UsageError(f"{where}: holds no image")
        if image["bytes"] is not None:
            return image["bytes"]
        path = image["path"]
        if self.address is not None and path.rpartition("::")[2].startswith(self.address):
            from datasets.utils.file_utils import xopen

            with xopen(path, "rb") as file:
                return file.read(MOST_BYTES)
        if not lies_in(path, self.roots) or not os.path.isfile(path):
            raise UsageError(
                f"{where}: names {path}; an image must lie in the table, or be a file of the set's own folder"
            )
        with open(path, "rb") as file:
            return file.read(MOST_BYTES)

    def head(self, image: dict, where: str) -> tuple[bool, tuple[int, int]]:
        """Whether an image is gray, and its size (W, H) once it is upright; nothing is decoded.

        Raises:
            UsageError: it lies elsewhere, or is too large.
            Unreadable: it is damaged.
        """
        return self._decoded(image, where, lambda found: (found.mode in GRAY, upright_size(found)))

    def picture(self, image: dict, where: str):
        """The PIL image as levels of 8 bits, see `as_levels`: of mode "L" or "RGB". Raises as of `head`."""

        def decode(found):
            found.load()
            return as_levels(found)

        return self._decoded(image, where, decode)

    def _decoded(self, image: dict, where: str, decode):
        from PIL import Image

        content = self.read(image, where)
        where = f"{where} ({image['path']})" if image["path"] and image["path"] != where else where
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it is refused below
                found = Image.open(io.BytesIO(content), formats=FORMATS)
            width, height = found.size
            if width * height > MOST_PIXELS:
                raise Image.DecompressionBombError(f"{width} x {height} pixels")
            return decode(found)
        except Image.DecompressionBombError as error:
            raise UsageError(
                f"{where}: is too large, {one_line(error, 200)}; it must have at most {MOST_PIXELS >> 20} megapixels"
            ) from None
        except Exception as error:  # what a damaged image raises depends on its format
            why = f"{type(error).__name__}: {one_line(error, 200)}"
            raise Unreadable(why) from None


@dataclass
class Decoder:
    """An image of a row -> uint8 (C, H, W), cropped and scaled where a resolution is given.

    Attributes:
        mode: "L" or "RGB".
        size: (W, H) that all must have where there is no resolution.
        name: of the set, for messages.
    """

    stored: Stored
    mode: str
    resolution: int | None
    size: tuple[int, int]
    name: str

    def __call__(self, image: dict, where: str) -> np.ndarray:
        """The image, or a `UsageError`."""
        try:
            return self.decoded(image, where)
        except Unreadable as error:
            raise error.at(where) from None

    def decoded(self, image: dict, where: str) -> np.ndarray:
        """The image.

        Raises:
            UsageError: it is of another size and no resolution is given, or in colour where others are gray; or as of
                `Stored.head`.
            Unreadable: it is damaged.
        """
        picture = self.stored.picture(image, where)
        self.check(picture.mode == "L", picture.size, where)
        return pixels(picture, self.mode, self.resolution)

    def check(self, gray: bool, size: tuple[int, int], where: str) -> None:
        """Raise a `UsageError` if an image does not fit to those that were looked at."""
        if self.resolution is None and tuple(size) != self.size:
            raise UsageError(
                f"--dataset {self.name}: images of mixed sizes, {self.size[0]}x{self.size[1]} and "
                f"{size[0]}x{size[1]} ({where}); give --resolution to crop and scale them"
            )
        if self.mode == "L" and not gray:  # of a stream, whose first rows alone were looked at
            raise UsageError(
                f"--dataset {self.name}: {where} is in colour, and the first rows are gray; without --streaming true all "
                "rows are looked at"
            )


def upright_size(picture) -> tuple[int, int]:
    """(W, H) of a PIL image once it is turned as EXIF says, which from 5 on means by a quarter."""
    from PIL.ExifTags import Base

    width, height = picture.size
    if width == height:  # of a PNG, looking for EXIF decodes it
        return width, height
    return (height, width) if picture.getexif().get(Base.Orientation) in (5, 6, 7, 8) else (width, height)


def pixels(picture, mode: str, resolution: int | None) -> np.ndarray:
    """A PIL image -> uint8 (C, H, W)."""
    from PIL import Image, ImageOps

    picture = picture.convert(mode)
    if resolution is not None and picture.size != (resolution, resolution):
        picture = ImageOps.fit(picture, (resolution, resolution), Image.Resampling.LANCZOS)
    x = np.array(picture)  # a copy: torch wants it writable
    return x[None] if mode == "L" else x.transpose(2, 0, 1)
