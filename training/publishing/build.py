"""Building: from a run or a checkpoint to a folder that `from_pretrained` loads where nothing of ours is.

The build reads files and writes files: the same inputs give the same bytes. Before they take their place they are loaded
once, with the code that was just written, which refuses damaged weights and configs.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from training.layouts.choice import layout_of
from training.options import UsageError
from training.publishing.card import card
from training.publishing.record import copy_record
from training.publishing.secrets import refuse_secrets

# what a build writes, and what running a Space leaves beside it
PUBLISHED = (".json", ".safetensors", ".png", ".py", ".md", ".txt", ".js", ".css", ".html", ".svg", ".pyc", ".pyi")


def build(source: Path, to: Path, called: str | None = None, root: Path | None = None, is_loaded: bool = True) -> None:
    """Write the portable folder of a run, a checkpoint, or a pipeline that was loaded by remote code and saved.

    Args:
        called: how the card calls the model; the folder's name where it is not given.
        root: of another tree, whose pipelines/ the code is taken from.
        is_loaded: whether the model must load before it takes its place; without, who calls loads it next, or never.

    Raises:
        UsageError: `source` is neither, its code is not in this repository, it is damaged, it holds what looks like a
            token, or `to` holds something else.
    """
    layout = layout_of(source)
    with FolderReplacement(to, source, is_portable) as folder:
        class_name = layout.build(source, folder, root)
        copy_record(source, folder)
        text = card(folder, called or to.name, class_name, layout)
        (folder / "README.md").write_text(text, encoding="utf-8")
        if is_loaded:
            _check_loads(folder, source, to.name)


def checkpoint(source: Path, to: Path, dtype: str | None, is_loaded: bool = True) -> None:
    """Copy what a repository keeps of a run: weights (cast to `dtype`, where given), configs, record, pictures.

    Args:
        is_loaded: as of `build`.

    Raises:
        UsageError: `source` is no finished run, it is damaged, or `to` holds something else.
    """
    layout = layout_of(source)
    with FolderReplacement(to, source, is_checkpoint) as folder:
        layout.copy(source, folder, dtype)
        copy_record(source, folder)
        if is_loaded:
            with tempfile.TemporaryDirectory() as temporary:
                portable = Path(temporary) / to.name
                build(folder, portable, is_loaded=False)
                _check_loads(portable, source, to.name)


def _check_loads(folder: Path, source: Path, name: str) -> None:
    """A UsageError that names `source` where what was built of it cannot be loaded."""
    refuse_secrets(folder)  # before a message about a value repeats one
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / name  # transformers keeps code by the folder's name: one name, one copy
        place.symlink_to(folder.resolve(), target_is_directory=True)
        try:
            layout_of(place).load(place, "cpu")
        except UsageError as error:
            raise UsageError(str(error).replace(str(place), str(source))) from None


# Folders that may be replaced


def is_portable(folder: Path) -> bool:
    """Whether a folder was built: it names code by a hash."""
    return bool(re.search("_[0-9a-f]{6}$", _pipeline_module(folder) or ""))


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint: a record, weights, and no code."""
    return _pipeline_module(folder) == "" and (folder / "run.json").is_file()


def _pipeline_module(folder: Path) -> str | None:
    """As of a layout; None also of a run, which is never replaced."""
    if (folder / "checkpoints").exists() or (folder / "log.jsonl").exists():
        return None
    try:
        return layout_of(folder).pipeline_module(folder)
    except UsageError:
        return None


class FolderReplacement:
    """A folder that takes the place of `to` when the block ends well, and leaves `to` as it was when it does not.

    Only an empty folder is replaced, or one that the same call made before, which `ours` can tell. Nothing beside it is
    touched, and what looks like a token takes no place at all.
    """

    def __init__(self, to: Path, source: Path, ours: Callable[[Path], bool]):
        self.to, place, origin = to, to.resolve(), source.resolve()
        if to.is_symlink():
            raise UsageError(f"{to}: is a link; give a folder")
        if to.name in ("", "..") or place.parent == place:
            raise UsageError(f"{to}: is no name of a folder")
        if to.exists():
            replaceable = to.is_dir() and (not any(to.iterdir()) or (ours(to) and not _others(to)))
            if place == origin or not replaceable:
                raise UsageError(f"{to}: holds something else; give a new folder, or one that was built before")
        if place.is_relative_to(origin) or origin.is_relative_to(place):
            raise UsageError(f"{to}: lies in {source}, or holds it; give a folder beside it")

    def __enter__(self) -> Path:
        self.made = [folder for folder in self.to.parents if not folder.exists()]  # the innermost first
        try:
            self.to.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=f".{self.to.name}.", dir=self.to.parent))
        except OSError as error:
            raise UsageError(f"{self.to}: cannot be written ({error})") from None
        self.folder.chmod(0o755)
        return self.folder

    def __exit__(self, kind, error, trace) -> None:
        try:
            if error is None:
                refuse_secrets(self.folder)
                shutil.rmtree(self.to, ignore_errors=True)
                os.replace(self.folder, self.to)
                return
        except BaseException:
            self._leave()
            raise
        self._leave()
        if isinstance(error, OSError | SafetensorError):
            raise UsageError(f"{self.to}: cannot be written ({error})") from None

    def _leave(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # somebody else has written there meanwhile
            for folder in self.made:
                folder.rmdir()


def _others(folder: Path) -> list[Path]:
    """What lies in a folder that no build writes: it would be lost with it."""
    return [
        file for file in folder.rglob("*") if file.is_symlink() or (file.is_file() and file.suffix not in PUBLISHED)
    ]
