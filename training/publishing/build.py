"""Building: from a run or a checkpoint to a folder that `from_pretrained` loads where nothing of ours is.

The build reads files and writes files, nothing else: the same inputs give the same bytes.
"""

import json
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


def build(source: Path, to: Path, called: str | None = None) -> None:
    """Write the portable folder of a run, a checkpoint, or a pipeline that was loaded by remote code and saved.

    Raises:
        UsageError: `source` is neither, its code is not in this repository, or `to` holds something else.
    """
    layout = layout_of(source)
    with FolderReplacement(to, source, is_portable) as folder:
        class_name = layout.build(source, folder)
        copy_record(source, folder)
        text = card(folder, called or to.name, class_name, layout)
        (folder / "README.md").write_text(text, encoding="utf-8")


def checkpoint(source: Path, to: Path, dtype: str | None) -> None:
    """Copy what a repository keeps of a run: weights (cast to `dtype`, where given), configs, record, pictures.

    Raises:
        UsageError: `source` is no finished run, or `to` holds something else.
    """
    layout = layout_of(source)
    with FolderReplacement(to, source, is_checkpoint) as folder:
        layout.copy(source, folder, dtype)
        copy_record(source, folder)


def local_folder(source: str) -> Path:
    """The folder itself, or that of a Hub repository, fetched.

    Raises:
        UsageError: it is neither.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    repo_id, _, revision = source.partition("@")
    try:
        return Path(snapshot_download(repo_id, revision=revision or None))
    except Exception as error:  # the Hub client raises many kinds; each is the same to the user
        why = " ".join(str(error).split())[:200]
        raise UsageError(f"{source}: neither a folder nor a repository on the Hub ({why})") from None


def load(source: str, device: str = "cpu"):
    """The pipeline of a run, a checkpoint, a portable folder or a repository; the code is the one it carries.

    A run or a checkpoint carries none: it is built first, so that what is measured is what is published.

    Raises:
        UsageError: it is none of these, or cannot be loaded.
    """
    folder = local_folder(source)
    layout = layout_of(folder)
    with tempfile.TemporaryDirectory() as temporary:
        if not layout.pipeline_module(folder):
            build(folder, Path(temporary) / folder.name)
            folder = Path(temporary) / folder.name
        return layout.load(folder, device)


def record_of(source: str) -> dict:
    """The run.json of a run, a checkpoint, a portable folder or a repository; {} where it has none."""
    file = local_folder(source) / "run.json"
    return json.loads(file.read_text()) if file.is_file() else {}


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

    Only an empty folder is replaced, or one that the same call made before, which `ours` can tell.
    """

    def __init__(self, to: Path, source: Path, ours: Callable[[Path], bool]):
        self.to = to
        if to.exists():
            replaceable = to.is_dir() and (not any(to.iterdir()) or ours(to))
            if to.resolve() == source.resolve() or not replaceable:
                raise UsageError(f"{to}: holds something else; give a new folder, or one that was built before")

    def __enter__(self) -> Path:
        try:
            self.to.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=f".{self.to.name}.", dir=self.to.parent))
        except OSError as error:
            raise UsageError(f"{self.to}: cannot be written ({error})") from None
        self.folder.chmod(0o755)
        return self.folder

    def __exit__(self, kind, error, trace) -> None:
        if error is None:
            shutil.rmtree(self.to, ignore_errors=True)
            os.replace(self.folder, self.to)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if isinstance(error, OSError | SafetensorError):
            raise UsageError(f"{self.to}: cannot be written ({error})") from None
