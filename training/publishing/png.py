"""Pictures as they are published: the pixels of a PNG, and nothing else that such a file may carry.

A PNG may hold text, places, thumbnails, or a file of another kind behind its end. Only what draws the picture is kept, and
its pixels must be as many as its header says, so that no small file unpacks to a large one.
"""

import re
import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_BYTES, MOST_PIXEL_BYTES = 8_000_000, 64_000_000  # of the file; of what it unpacks to
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the kind of colour
KEPT = (b"IHDR", b"PLTE", b"tRNS", b"pHYs", b"IDAT", b"IEND")  # pHYs: points to an inch
MAKER = re.compile(rb"Software\x00Matplotlib version[\w.]{1,20}, https://matplotlib\.org/")  # the one text that is kept


def only_pixels(content: bytes) -> bytes:
    """The same picture without anything but its pixels and colours.

    Raises:
        ValueError: it is no PNG, is damaged or interlaced, or is larger than a picture of a model.
    """
    chunks = _chunks(content)
    header, packed = (b"".join(body for name, body in chunks if name == kind) for kind in (b"IHDR", b"IDAT"))
    if len(header) != 13:
        raise ValueError("it is no PNG: its header is damaged")
    width, height, bits, kind, compression, filtering, interlaced = struct.unpack(">IIBBBBB", header)
    if kind not in CHANNELS or bits not in (1, 2, 4, 8, 16) or not width or not height:
        raise ValueError("it is no PNG: its header is damaged")
    if compression or filtering or interlaced:
        raise ValueError("it is an interlaced PNG; save it as a plain one")
    size = height * (1 + (width * CHANNELS[kind] * bits + 7) // 8)
    if size > MOST_PIXEL_BYTES:
        raise ValueError(f"it has {width} x {height} pixels; that is larger than a picture of a model")
    stream = zlib.decompressobj()
    try:
        pixels = stream.decompress(packed, size + 1)
    except zlib.error:
        raise ValueError("it is no PNG: its pixels are damaged") from None
    if len(pixels) != size or not stream.eof or stream.unused_data:
        raise ValueError("it is no PNG: its pixels are not as many as its header says")
    return SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks that are kept, (name, content), as they follow each other."""
    if len(content) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES / 1e6:g} MB")
    if not content.startswith(SIGNATURE):
        raise ValueError("it is no PNG")
    found, place, name = [], len(SIGNATURE), b""
    while name != b"IEND":
        length, name = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        body, mark = content[place + 8 : place + 8 + length], content[place + 8 + length : place + 12 + length]
        if len(mark) < 4 or zlib.crc32(name + body) != int.from_bytes(mark, "big"):
            raise ValueError("it is no PNG: it is cut short or damaged")
        if name in KEPT or (name == b"tEXt" and MAKER.fullmatch(body)):
            found.append((name, body))
        place += 12 + length
    names = [name for name, _ in found]
    if names[0] != b"IHDR" or b"IDAT" not in names or any(names.count(n) > 1 for n in KEPT if n != b"IDAT"):
        raise ValueError("it is no PNG: it has no pixels, or two headers")
    if any(len(body) > 800 for name, body in found if name != b"IDAT"):
        raise ValueError("it is no PNG: a part of it is too long")
    return found
