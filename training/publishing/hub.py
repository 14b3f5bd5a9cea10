"""Uploading what the build step made.

Everything of one upload is one commit: it is there whole or not at all. What is unchanged is not sent again. The token
is the Hub client's own (`hf auth login`, or HF_TOKEN); no message repeats it.
"""

from dataclasses import dataclass
from pathlib import Path

from training.options import UsageError


@dataclass(frozen=True)
class Uploaded:
    """What an upload came to.

    Attributes:
        address: of the repository.
        revision: the commit that the repository is at.
        changed: False where nothing of it was otherwise before.
    """

    address: str
    revision: str
    changed: bool


def upload(
    folder: Path,
    repo_id: str,
    repo_type: str = "model",
    private: bool = False,
    revision: str | None = None,
    variables: dict[str, str] | None = None,
) -> Uploaded:
    """Make the repository what `folder` is, in one commit; create it where it is not there.

    Args:
        private: whether a new repository is; one that is there stays as it is.
        revision: the branch, created where it is not there; main by default.
        variables: of a Space; only those that are otherwise are set, since each change starts the Space anew.

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
    new = not ask_hub(lambda: api.repo_exists(repo_id, repo_type=repo_type), f"{place}: the Hub does not answer")
    left = f"the new repository {repo_id} is empty" if new else "the repository is as it was"
    try:
        address = api.create_repo(
            repo_id, repo_type=repo_type, private=private, exist_ok=True,
            space_sdk="gradio" if repo_type == "space" else None,
        )  # fmt: skip
        held = {} if new or not variables else api.get_space_variables(repo_id)
        otherwise = {k: v for k, v in (variables or {}).items() if k not in held or held[k].value != v}
        for key, value in otherwise.items():
            api.add_space_variable(repo_id, key, value)
        if revision:
            api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
    except Exception as error:
        raise UsageError(f"{place}: cannot be created ({_why(error)}); nothing was uploaded") from None
    again = "give the same command again to complete it"
    before = _head(api, repo_id, repo_type, revision)
    try:
        commit = api.upload_folder(
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
        return Uploaded(str(address), now, True)
    return Uploaded(str(address), commit.oid, commit.oid != before or bool(otherwise))


def _head(api, repo_id: str, repo_type: str, revision: str | None) -> str | None:
    """The last commit; None where the Hub does not answer."""
    try:
        return api.repo_info(repo_id, repo_type=repo_type, revision=revision).sha
    except Exception:
        return None


def make_collection(namespace: str, items: list[tuple[str, str]]) -> str:
    """A collection of (repository, type) in the namespace; those that are in it stay. Returns its address.

    Raises:
        UsageError: the Hub does not make it.
    """
    from huggingface_hub import HfApi

    api = HfApi()

    def make():
        collection = api.create_collection("Genus", namespace=namespace, exists_ok=True)
        there = {(item.item_type, item.item_id) for item in api.get_collection(collection.slug).items}
        for item, kind in items:
            if (kind, item) not in there:
                api.add_collection_item(collection.slug, item, kind, exists_ok=True)
        return collection.url

    return ask_hub(make, f"--namespace {namespace}: the collection cannot be made")


def ask_hub(call, what: str):
    """What `call` returns; its failure is a `UsageError` that begins with `what`."""
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
