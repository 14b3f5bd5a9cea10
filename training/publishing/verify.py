"""Checking what lies in a folder or repository: this project's code, an older build of it, or foreign; and no pickle."""

import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path

from training.options import UsageError, check_repo_id
from training.publishing import code
from training.publishing.commit import commit_on_card, date_of, extract_pipelines, git
from training.publishing.compile import compiled
from training.publishing.hub import ask_hub

PICKLED = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".npy", ".npz", ".joblib")
PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def verify(source: str, repo_type: str = "model") -> tuple[bool, list[str]]:
    """Whether the code in a folder or repository is this project's, now or at an older commit, and nothing is a pickle.

    Returns the answer, and a line for each file that it rests on.

    Raises:
        UsageError: neither a folder nor a repository that can be read.
    """
    folder = Path(source)
    with tempfile.TemporaryDirectory() as temporary:
        if not folder.is_dir():
            check_repo_id(source, "--verify")
            from huggingface_hub import snapshot_download

            folder = Path(
                ask_hub(
                    lambda: snapshot_download(source, repo_type=repo_type, local_dir=temporary),
                    f"--verify {source}: neither a folder nor a repository that can be read",
                )
            )
            shutil.rmtree(folder / ".cache", ignore_errors=True)
        good, lines = True, []
        builds = _Builds(folder)
        files = [p for p in sorted(folder.rglob("*")) if p.is_file() and ".git" not in p.relative_to(folder).parts]
        for file in files:
            name = file.relative_to(folder).as_posix()
            if file.suffix == ".py":
                known, said = builds.judge(file)
            elif file.suffix == ".safetensors":
                known, said = _weights(file)
            elif file.suffix in PICKLED or file.read_bytes()[:2] in PICKLE_STARTS:
                known, said = False, "may hold a pickle, which runs code when it is loaded"
            else:
                continue
            good &= known
            lines.append(f"{'ok ' if known else 'BAD'} {name}: {said}")
    if not lines:
        raise UsageError(f"--verify {source}: holds neither code nor weights")
    return good, lines


class _Builds:
    """The builds that code is compared with: today's, and that of the commit which the folder's card records."""

    def __init__(self, folder: Path):
        self.commit = commit_on_card(folder)
        self.date = date_of(self.commit) if self.commit else None
        self.now = _built(code.ROOT)
        self.then: set[bytes] | None = None

    def judge(self, file: Path) -> tuple[bool, str]:
        """Whether a code file is this project's, and which of the three answers to give."""
        content = file.read_bytes()
        marked = re.search(r"_([0-9a-f]{6})$", file.stem)
        digest = hashlib.sha256(content).hexdigest()
        if marked and digest[:6] != marked[1]:
            return False, f"foreign: its content is not what its name says; SHA-256 {digest}"
        if content in self.now:
            return True, "this project's code"
        if self.date and content in self._older():
            return True, f"an older build of this project's code, of commit {self.commit[:10]}, {self.date}"
        committed = _committed(content)
        if committed:
            return True, f"an older build of this project's code, {committed}"
        return False, f"foreign: not this project's code at any commit it names; SHA-256 {digest}"

    def _older(self) -> set[bytes]:
        if self.then is None:
            with tempfile.TemporaryDirectory() as temporary:
                found = extract_pipelines(self.commit, Path(temporary))
                self.then = _built(Path(temporary)) if found else set()
        return self.then


def _built(root: Path) -> set[bytes]:
    """Every module that a build of this tree may hold, as the build writes it."""
    built = {p.read_bytes() for p in (root / "spaces").rglob("*.py")}
    for file in root.glob("pipelines/*/*.py"):
        if file.stem.startswith(("modeling_", "pipeline_")):
            try:
                built.add(compiled(file).encode())
            except (
                UsageError,
                SyntaxError,
                OSError,
            ):  # a tree that this build does not understand: older ones are plain
                built.add(file.read_bytes())
    return built


def _committed(content: bytes) -> str | None:
    """Where a file with this very content came in: code that was published as it lay, before parts were compiled in."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # what git calls it
    log = git("log", "--all", "--format=%h %cs", f"--find-object={blob}", "--", "pipelines", "spaces")
    if not log or not log.strip():
        return None
    commit, date = log.decode().strip().splitlines()[-1].split()  # the oldest: where it came in
    return f"of commit {commit}, {date}"


def _weights(file: Path) -> tuple[bool, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as weights:
            return True, f"{len(list(weights.keys()))} tensors"
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        return False, f"no safetensors file ({error})"
