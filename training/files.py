"""Files that are written whole or not at all, and by one process at a time."""

import contextlib
import os
from collections.abc import Iterator
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


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """One process at a time is inside; others wait. The lock goes with its process, however that ends."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    with open(file, "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
