"""What `make demo` serves: the portable folder of each checkpoint and the gallery, each built anew when its inputs change.

    .cache/portable/vae-mnist    as `python -m training.publish checkpoints/vae-mnist --to` writes it
    .cache/gallery               as `python -m training.publish --space spaces/gallery --to` writes it
    .cache/keys.json             of each folder a digest of all that it was built of

A key is of contents: files that were only touched build nothing. A model's key counts its checkpoint, those files of
`pipelines/` that are compiled into it, and the build step itself; the gallery's counts the Spaces and the records. The
commit that a card names does not count: another commit with the same code is the same model.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from training.files import locked, read_json, write_atomically
from training.layouts.choice import layout_of
from training.options import UsageError
from training.publishing.build import build, is_portable
from training.publishing.compile import parts
from training.publishing.record import record_files
from training.publishing.spaces import kit_files, space, space_files

ROOT = Path(__file__).resolve().parents[2]
KEYS, ALL = "keys.json", "all"
# of training/: what decides how a folder is built
BUILD_STEP = ("publishing/*.py", "layouts/*.py", "measures/*.py", "figures.py", "declaration.py")


@dataclass(frozen=True)
class Folder:
    """A folder of the cache.

    Attributes:
        inputs: the files that it is built of; raises a `UsageError` where they cannot be told.
        make: writes it to a place.
    """

    inputs: Callable[[], Iterable[Path]]
    make: Callable[[Path], None]


def refresh(checkpoints: Path, cache: Path) -> list[str]:
    """Build each folder of the cache whose inputs changed, and drop those of checkpoints that are gone.

    Returns:
        What was built: names of checkpoints, and "gallery".

    Raises:
        UsageError: something cannot be built; its folder is as it was, and all others are as they should be.
    """
    folders, built, failed = _folders(checkpoints), [], []
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / ".lock"):
        keys, digest = _read(cache / KEYS), _Digest()
        # all that any of them may be built of: where none of it changed, there is no need to ask what each depends on
        everything = digest(_everything(checkpoints))
        if keys.pop(ALL, None) == everything and all(_is_there(cache / name) for name in folders):
            return []
        try:
            keys = {name: key for name, key in keys.items() if name in folders}
            _drop_others(cache / "portable", folders.keys())
            for name, folder in folders.items():
                try:
                    key = digest(folder.inputs())
                    if keys.pop(name, None) != key or not _is_there(cache / name):
                        folder.make(cache / name)
                        built.append(name.removeprefix("portable/"))
                    keys[name] = key
                except (UsageError, SyntaxError) as error:
                    where = f"{error.filename}: line {error.lineno}: " if isinstance(error, SyntaxError) else ""
                    failed.append(f"{where}{error.msg if where else error}")
            if not failed:
                keys[ALL] = everything
        finally:
            write_atomically(cache / KEYS, json.dumps(keys, indent=1, sort_keys=True) + "\n")
    if failed:
        more = f"; {len(failed)} folders of {cache} could not be built" if len(failed) > 1 else ""
        raise UsageError(f"{failed[0]}{more}")
    return built


def sentence(built: list[str]) -> str:
    """What was built, in one line."""
    models = [name for name in built if name != "gallery"]
    said = [f"{len(models)} models"] if len(models) > 4 else list(models)
    said += ["the gallery"] if "gallery" in built else []
    return f"built {', '.join(said)}" if said else "up to date"


def _drop_others(portable: Path, names: Iterable[str]) -> None:
    """What is left of checkpoints that are gone, and of builds that were killed; nothing that is not of a build."""
    for place in portable.glob("*"):
        if f"portable/{place.name}" not in names and (is_portable(place) or re.fullmatch(r"\..+\.\w{8}", place.name)):
            shutil.rmtree(place)


def _is_there(folder: Path) -> bool:
    return (folder / "README.md").is_file()


def _build_step() -> list[Path]:
    return [file for pattern in BUILD_STEP for file in sorted((ROOT / "training").glob(pattern))]


def _space_files() -> list[Path]:
    folders = (folder for folder in sorted(ROOT.glob("spaces/*/")) if folder.name != "kit")
    return [*(file for folder in folders for file in space_files(folder)), *kit_files()]


def _checkpoint_files(source: Path) -> list[Path]:
    return [file for file in sorted(source.rglob("*")) if file.is_file()]


def _everything(checkpoints: Path) -> list[Path]:
    code_files = sorted((ROOT / "pipelines").rglob("*.py"))
    records = [file for source in sorted(ROOT.glob("checkpoints/*/")) for file in record_files(source)]
    return [*_checkpoint_files(checkpoints), *records, *code_files, *_space_files(), *_build_step()]


def _folders(checkpoints: Path) -> dict[str, Folder]:
    """All that belong into the cache, by their place in it."""
    sources = sorted(record.parent for record in checkpoints.glob("*/run.json"))

    def model(source: Path) -> Folder:
        def inputs() -> list[Path]:
            used = {part for file in layout_of(source).code(source) for part in (*parts(file), file)}
            return [*_checkpoint_files(source), *sorted(used), *_build_step()]

        return Folder(inputs, lambda to: build(source, to))

    def gallery_inputs() -> list[Path]:
        records = (file for source in sorted(ROOT.glob("checkpoints/*/")) for file in record_files(source))
        return [*records, *_space_files(), *_build_step()]

    gallery = Folder(gallery_inputs, lambda to: space(ROOT / "spaces" / "gallery", to))
    return {**{f"portable/{source.name}": model(source) for source in sources}, "gallery": gallery}


class _Digest:
    """A digest of files, names and contents; each file is read once."""

    def __init__(self):
        self.known: dict[Path, str] = {}

    def __call__(self, files: Iterable[Path]) -> str:
        return hashlib.sha256("".join(f"{f.as_posix()} {self._of(f)}\n" for f in files).encode()).hexdigest()

    def _of(self, file: Path) -> str:
        if file not in self.known:
            with open(file, "rb") as content:
                self.known[file] = hashlib.file_digest(content, "sha256").hexdigest()
        return self.known[file]


def _read(file: Path) -> dict[str, str]:
    try:
        return read_json(file)
    except UsageError:
        return {}
