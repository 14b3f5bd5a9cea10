"""Files that are written whole or not at all."""

import os
from pathlib import Path


def write_atomically(file: Path, content: bytes | str) -> None:
    """Write beside the file first, then take its place: a reader sees the old content or the new one.

    Raises:
        OSError: nothing was written; the file is as it was.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with open(temporary, "wb") as out:
            out.write(content if isinstance(content, bytes) else content.encode())
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
