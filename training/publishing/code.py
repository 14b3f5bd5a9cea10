"""The code that a published model carries: the files of pipelines/ that define its classes, under names with their hash.

diffusers puts all remote code into one folder by file name, and two repositories with files of one name would run each
other's code: a module's name therefore carries a hash of its content.
"""

import ast
import hashlib
from functools import cache, lru_cache
from pathlib import Path

from training.options import UsageError
from training.publishing.compile import compiled

ROOT = Path(__file__).resolve().parents[2]
# the oldest and the newest version that load and draw all that is published: benchmarks/versions.py
SUPPORTED = {"diffusers": ("0.32.0", "0.42.1"), "transformers": ("4.48.0", "5.24.0")}


def defining_file(kind: str, class_name: str, root: Path | None = None) -> Path:
    """The file pipelines/*/<kind>_*.py that defines a class, of this tree or of another at `root`.

    Raises:
        UsageError: none does.
    """
    for file in sorted((root or ROOT).glob(f"pipelines/*/{kind}_*.py")):
        if class_name in _classes(file, file.stat().st_mtime_ns):
            return file
    raise UsageError(f"{class_name}: no file pipelines/*/{kind}_*.py defines it")


@cache
def _classes(file: Path, changed: int) -> frozenset[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"), file)
    return frozenset(node.name for node in tree.body if isinstance(node, ast.ClassDef))


def module_name(file: Path) -> str:
    """The module's dotted name from the root: pipelines.autoencoders.modeling_vae."""
    return ".".join((*file.parts[-3:-1], file.stem))


def text_of(file: Path) -> str:
    """A module of pipelines/ as it goes to the Hub. An older tree may hold what is compiled no more: it went as it lay.

    Raises:
        UsageError: as of `compiled`, of this tree.
    """
    state = tuple((part, part.stat().st_mtime_ns) for part in sorted(file.parents[1].rglob("*.py")))
    return _text_of(file, file.is_relative_to(ROOT), state)


@lru_cache(maxsize=256)
def _text_of(file: Path, is_ours: bool, state: tuple) -> str:
    try:
        return compiled(file)
    except (UsageError, SyntaxError):
        if is_ours:
            raise
        return file.read_text(encoding="utf-8")


def hashed_name(stem: str, content: bytes) -> str:
    """A module's name with six digits of the SHA-256 of its content: modeling_vae_3f2a9c."""
    return f"{stem}_{hashlib.sha256(content).hexdigest()[:6]}"


def add_code(file: Path, folder: Path, called: str = "") -> str:
    """Write a module of pipelines/, with what it shares compiled in, under its hashed name; returns that name.

    Args:
        called: what the name begins with, in place of the module's own.
    """
    content = text_of(file).encode()
    module = hashed_name(called or file.stem, content)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_bytes(content)
    return module
