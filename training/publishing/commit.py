"""The commit that published code is of: what a card records, and what --verify builds again."""

import re
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path

from training.publishing import code

UNCOMMITTED = "not committed"


def git(*words: str, root: Path | None = None) -> bytes | None:
    """What git prints; None where there is no git, no repository, or it fails."""
    if shutil.which("git") is None:
        return None
    done = subprocess.run(["git", *words], cwd=root or code.ROOT, capture_output=True)
    return done.stdout if done.returncode == 0 else None


def commit_of_code() -> str:
    """The last commit that changed pipelines/, or "not committed" where it was changed since, or git does not know it."""
    return _commit_of(code.ROOT)


@cache
def _commit_of(root: Path) -> str:
    changed = git("status", "--porcelain", "--", "pipelines", root=root)
    last = git("log", "-1", "--format=%H", "--", "pipelines", root=root)
    return (
        last.decode().strip() if last and last.strip() and changed is not None and not changed.strip() else UNCOMMITTED
    )


def commit_on_card(card: str) -> str | None:
    """The commit that a card's text records: 40 hexadecimal digits, or None."""
    found = re.search(r"^Of commit ([0-9a-f]{40})\.$", card, re.M)
    return found[1] if found else None


def date_of(commit: str) -> str | None:
    """The day of a commit in the history of this tree; None where it is none: what was only fetched is somebody's."""
    if git("merge-base", "--is-ancestor", commit, "HEAD") is None:
        return None
    found = git("show", "-s", "--format=%cs", f"{commit}^{{commit}}", "--")
    return found.decode().strip() if found else None


def has_changed_since(commit: str) -> bool:
    """Whether pipelines/ is otherwise now than at a commit of this repository."""
    return git("diff", "--quiet", commit, "--", "pipelines") is None


def extract_pipelines(commit: str, to: Path) -> bool:
    """Write pipelines/ as it was at a commit below `to`; whether that went well."""
    archive = git("archive", "--format=tar", commit, "pipelines")
    if archive is None:
        return False
    file = to / "pipelines.tar"
    file.write_bytes(archive)
    with tarfile.open(file) as tar:
        tar.extractall(to, filter="data")
    file.unlink()
    return True
