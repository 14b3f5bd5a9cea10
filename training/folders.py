"""Folders that models come in: what lies in them as plain files, and those of the Hub, fetched once, at one commit.

A folder may come from anywhere. A name in it leads nowhere else, and a link is not followed, except that of the Hub
client's own cache, which keeps the files of a snapshot under `blobs` and puts links to them in their places.
"""

import functools
import re
import stat
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from training.options import UsageError, in_one_line

MOST_FILES, MOST_BYTES = 500, 10_000_000_000  # of what is fetched of one repository
WEIGHTS_AND_CONFIGS = ("*.json", "*.safetensors", "*.txt", "*.model")  # no code and no pickles
WITH_CODE = (*WEIGHTS_AND_CONFIGS, "*.py", "*.png", "*.md")


def is_plain(name) -> bool:
    """Whether a name of a component or a module is one: letters, digits, _ and -, and neither of the last two first."""
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name) is not None


def odd(path: Path) -> str | None:
    """What is wrong with an entry of a folder that came from somewhere; None of a regular file and of a real folder."""
    if path.is_symlink() and not _is_of_cache(path):
        return "a link"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "no regular file"


def _is_of_cache(link: Path) -> bool:
    """Whether a link lies in a snapshot of the Hub client's cache and leads to a file in the blobs of its repository."""
    for place in link.absolute().parents:
        repository = place.parent.parent
        if place.parent.name == "snapshots" and re.match("(models|spaces|datasets)--", repository.name):
            target = link.resolve()
            return target.is_file() and target.parent == (repository / "blobs").resolve()
    return False


def plain_files(folder: Path) -> list[Path]:
    """The regular files that lie directly in a folder, hidden ones left out.

    Raises:
        UsageError: there is no such folder, or it is or holds a link, a pipe or a device.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror})") from None
    for entry in entries:
        if (what := odd(entry)) is not None:
            raise UsageError(f"{entry}: is {what}; a model is made of plain files and folders")
    return [entry for entry in entries if entry.is_file() and not entry.name.startswith(".")]


def plain_folder(source: Path, name: str) -> Path:
    """The folder of a component.

    Raises:
        UsageError: its name leads elsewhere, or it is a link; it may be missing.
    """
    if not is_plain(name):
        raise UsageError(f"{source}: names the component {name!r}; a name is of letters, digits, _ and -")
    if (source / name).is_symlink():
        raise UsageError(f"{source / name}: is a link; a model is made of plain files and folders")
    return source / name


# The Hub


def local_folder(source: str, named: str = "", only: Sequence[str] = WITH_CODE) -> Path:
    """The folder itself, or that of a Hub repository, of which what `only` names is fetched.

    Whatever is asked of one repository in one process is of one commit: what was looked at is what is loaded.

    Args:
        source: a folder, or a Hub id like user/vae-mnist or user/vae-mnist@revision.
        named: the option that named the source.
        only: patterns of the names of files.

    Raises:
        UsageError: it is neither, or larger than a model is.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    place = f"{named} {source}".strip()
    repo_id, _, revision = source.partition("@")
    try:
        commit, sizes = _listed(repo_id, revision or None)
        _check_size(place, [size for name, size in sizes if any(fnmatch(name, one) for one in only)])
        folder = Path(snapshot_download(repo_id, revision=revision or None, allow_patterns=list(only)))
        if commit not in (None, folder.name):  # somebody has published meanwhile
            folder = Path(snapshot_download(repo_id, revision=commit, allow_patterns=list(only)))
        return folder
    except UsageError:
        raise
    except Exception as error:  # the Hub client raises many kinds; each is the same to the user
        raise UsageError(f"{place}: neither a folder nor a repository on the Hub ({in_one_line(error)})") from None


def files_on_hub(source: str) -> list[str]:
    """The names of all files of a repository; [] of a folder, and where the Hub cannot be asked."""
    repo_id, _, revision = source.partition("@")
    return [] if Path(source).is_dir() else [name for name, _ in _listed(repo_id, revision or None)[1]]


@functools.cache
def _listed(repo_id: str, revision: str | None) -> tuple[str | None, tuple[tuple[str, int], ...]]:
    """The commit that a revision of a repository is at, and its files with their sizes; (None, ()) without a network."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi().repo_info(repo_id, revision=revision, files_metadata=True)
    except HfHubHTTPError:
        raise  # an answer
    except Exception:  # no network, or none is wanted: what the client has kept is what there is
        return None, ()
    return info.sha, tuple((file.rfilename, file.size or 0) for file in info.siblings or ())


def _check_size(place: str, sizes: list[int]) -> None:
    if len(sizes) > MOST_FILES or sum(sizes) > MOST_BYTES:
        raise UsageError(
            f"{place}: holds {len(sizes)} files of {sum(sizes) / 1e9:.1f} GB; at most {MOST_FILES} files of "
            f"{MOST_BYTES / 1e9:.0f} GB are fetched"
        )
