"""Uploading what the build step made, and checking what lies in a repository.

Everything of one upload is one commit: it is there whole or not at all. What is unchanged is not sent again. The token
is the Hub client's own (`hf auth login`, or HF_TOKEN); no message repeats it.
"""

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from training.options import UsageError
from training.publishing.compile import compiled

ROOT = Path(__file__).resolve().parents[1]
PICKLED = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".npy", ".npz", ".joblib")


def check_repo_id(repo_id: str, option_name: str = "--repo_id") -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise UsageError(f"{option_name} {repo_id}: must be a Hub id like user/vae-mnist")


def upload(
    folder: Path,
    repo_id: str,
    repo_type: str = "model",
    private: bool = False,
    revision: str | None = None,
    variables: dict[str, str] | None = None,
) -> str:
    """Make the repository what `folder` is, in one commit; create it where it is not there. Returns its address.

    Args:
        private: whether a new repository is; one that is there stays as it is.
        revision: the branch, created where it is not there; main by default.
        variables: of a Space.

    Raises:
        UsageError: no token, no right to write, or the Hub fails; the message says how far it came.
    """
    from huggingface_hub import HfApi

    api, place = HfApi(), f"--repo_id {repo_id}"
    try:
        api.whoami()
    except Exception as error:
        raise UsageError(
            f"{place}: no valid token ({_why(error)}); log in by `hf auth login`, or set HF_TOKEN"
        ) from None
    new = not _answered(lambda: api.repo_exists(repo_id, repo_type=repo_type), f"{place}: the Hub does not answer")
    left = f"the new repository {repo_id} is empty" if new else "the repository is as it was"
    try:
        address = api.create_repo(
            repo_id, repo_type=repo_type, private=private, exist_ok=True,
            space_sdk="gradio" if repo_type == "space" else None,
        )  # fmt: skip
        for key, value in (variables or {}).items():
            api.add_space_variable(repo_id, key, value)
        if revision:
            api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
    except Exception as error:
        raise UsageError(f"{place}: cannot be created ({_why(error)}); nothing was uploaded") from None
    again = "give the same command again to complete it"
    before = _head(api, repo_id, repo_type, revision)
    try:
        api.upload_folder(
            repo_id=repo_id, repo_type=repo_type, folder_path=folder, revision=revision,
            commit_message="Published by Genus",
            delete_patterns="*",  # code under older names would be left behind
        )  # fmt: skip
    except Exception as error:
        now, said = _head(api, repo_id, repo_type, revision), f"{place}: the upload failed ({_why(error)})"
        if now is None:  # an answer that was lost is not a commit that was
            raise UsageError(f"{said}; whether it was committed cannot be told; {again}") from None
        if now == before:
            raise UsageError(f"{said}; nothing was committed, {left}; {again}") from None
    return str(address)


def _head(api, repo_id: str, repo_type: str, revision: str | None) -> str | None:
    """The last commit; None where the Hub does not answer."""
    try:
        return api.repo_info(repo_id, repo_type=repo_type, revision=revision).sha
    except Exception:
        return None


def collect(namespace: str, items: list[tuple[str, str]]) -> str:
    """A collection of (repository, type) in the namespace; those that are in it stay. Returns its address."""
    from huggingface_hub import HfApi

    api = HfApi()

    def make():
        collection = api.create_collection("Genus", namespace=namespace, exists_ok=True)
        for item, kind in items:
            api.add_collection_item(collection.slug, item, kind, exists_ok=True)
        return collection.url

    return _answered(make, f"--namespace {namespace}: the collection cannot be made")


def _answered(call, what: str):
    try:
        return call()
    except Exception as error:  # the Hub client raises many kinds
        raise UsageError(f"{what} ({_why(error)})") from None


def _why(error: Exception) -> str:
    """One line about an error of the Hub client, without the token."""
    from huggingface_hub import get_token

    text = " ".join(str(error).split())[:300] or type(error).__name__
    token = get_token()
    return text.replace(token, "***") if token else text


# What lies in a repository


def verify(source: str, repo_type: str = "model") -> tuple[bool, list[str]]:
    """Whether the code in a folder or repository is this project's, and that nothing in it is a pickle.

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
                _answered(
                    lambda: snapshot_download(source, repo_type=repo_type, local_dir=temporary),
                    f"--verify {source}: neither a folder nor a repository that can be read",
                )
            )
            shutil.rmtree(folder / ".cache", ignore_errors=True)
        good, lines = True, []
        files = [p for p in sorted(folder.rglob("*")) if p.is_file() and ".git" not in p.relative_to(folder).parts]
        for file in files:
            name = file.relative_to(folder).as_posix()
            if file.suffix == ".py":
                known, said = _code(file)
            elif file.suffix == ".safetensors":
                known, said = _weights(file)
            elif file.suffix in PICKLED or file.read_bytes()[:2] in (
                b"\x80\x02",
                b"\x80\x03",
                b"\x80\x04",
                b"\x80\x05",
            ):
                known, said = False, "may hold a pickle, which runs code when it is loaded"
            else:
                continue
            good &= known
            lines.append(f"{'ok ' if known else 'BAD'} {name}: {said}")
    if not lines:
        raise UsageError(f"--verify {source}: holds neither code nor weights")
    return good, lines


def _code(file: Path) -> tuple[bool, str]:
    content = file.read_bytes()
    marked = re.search(r"_([0-9a-f]{6})$", file.stem)
    if marked and hashlib.sha256(content).hexdigest()[:6] != marked[1]:
        return False, f"its content is not what its name says; SHA-256 {hashlib.sha256(content).hexdigest()}"
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # what git calls it
    log = ["git", "log", "--all", "--format=%h %cs", f"--find-object={blob}", "--", "pipelines", "spaces"]
    done = subprocess.run(log, cwd=ROOT, capture_output=True, text=True) if shutil.which("git") else None
    if done is not None and done.returncode == 0 and done.stdout.strip():
        commit, date = done.stdout.strip().splitlines()[-1].split()  # the oldest: where it came in
        return True, f"this project's code of commit {commit}, {date}"
    here = {p.read_bytes() for d in ("pipelines", "spaces") for p in (ROOT / d).rglob("*.py")}
    here |= {compiled(p).encode() for p in ROOT.glob("pipelines/*/*_*.py") if p.name != "__init__.py"}
    if content in here:
        return True, "this project's code as it lies here, not committed"
    return False, f"not this project's code at any commit; SHA-256 {hashlib.sha256(content).hexdigest()}"


def _weights(file: Path) -> tuple[bool, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as weights:
            return True, f"{len(list(weights.keys()))} tensors"
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        return False, f"no safetensors file ({error})"
