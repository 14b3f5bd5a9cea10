"""What looks like a token, a password or a private key, which nothing that is published may hold.

A command line, a record or a config may hold one that nobody thought of. Before a folder takes its place each text in it is
searched; the message names the file and the field, and never repeats what was found.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from training.options import UsageError

# kinds that their owners made recognisable
KNOWN = re.compile(
    r"hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|"
    r"\bsk-[\w-]{16,}|\b(AKIA|ASIA)[A-Z0-9]{12,}|\bAIza[\w-]{30,}|\bxox[abprs]-[\w-]{10,}|\bnpm_[A-Za-z0-9]{30,}|"
    r"\bpypi-[\w-]{30,}|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY|"
    r"\b[a-z][a-z0-9+.-]*://[^\s/@:]*:[^\s/@]+@|\bBearer\s+[\w.~+/-]{8,}",
    re.ASCII,
)
# what is called so, whatever it looks like: --hub_token x, token=x, "api_key": "x"; not the tokens of a vocabulary
NAME = (
    r"(?<![A-Za-z])" + "".join(f"(?<!{kind}_)" for kind in ("pad", "eos", "bos", "unk", "sep", "cls", "mask", "text")) +
    r"(?:(?:hub|hf|auth|access|api|github|wandb|bearer|secret|private|client|session|aws|openai|security)[_-]?)*"
    r"(?:token|password|passwd|passphrase|secret|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"
)  # fmt: skip
ASSIGNED = re.compile(
    rf"{NAME}\s*=\s*['\"]?[\w.~+/-]{{6,}}(?![\w.~+/-]*[(\[])|--(?:\w+[_-])?{NAME}[=\s]\s*\S", re.I | re.ASCII
)
IN_CODE = re.compile(rf"{NAME}['\"]?\s*[=:]\s*['\"][\w.~+/-]{{8,}}['\"]", re.I | re.ASCII)
CALLED = re.compile(rf"(?:^|[_-]){NAME}$", re.I | re.ASCII)
CODE = (".py", ".js", ".css", ".html")


def looks_secret(text: str, code: bool = False) -> bool:
    """Whether a text, or a line of code, holds what looks like a token, a password or a key."""
    return bool(KNOWN.search(text) or (IN_CODE if code else ASSIGNED).search(text))


def refuse_secrets(folder: Path) -> None:
    """Look through what is about to be published.

    Raises:
        UsageError: a file holds what looks like a secret; the message names the file and the field.
    """
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        for field, text in _texts(file):
            if looks_secret(text, file.suffix in CODE) or (CALLED.search(field.split(".")[-1]) and text):
                at = f", {field}" if field else ""
                raise UsageError(
                    f"{file.relative_to(folder).as_posix()}{at}: holds what looks like a token, a password or a key; take it "
                    "out, and give it up: what was written into a file may have been read"
                )


def _texts(file: Path) -> Iterator[tuple[str, str]]:
    """What a file says, as (field, text)."""
    if file.suffix == ".json":
        yield from _fields("", json.loads(file.read_bytes()))
    elif file.suffix == ".safetensors":
        yield from _fields("header", _header(file))
    elif file.suffix != ".png":  # of a picture only pixels are published
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            yield f"line {number}", line


def _fields(name: str, value) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if looks_secret(key):
                yield f"{name}.(a key)".lstrip("."), key
            yield from _fields(f"{name}.{key}".lstrip("."), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(name, inner)


def _header(file: Path) -> dict:
    """The names and metadata in front of weights; {} where they cannot be read, which others say."""
    with open(file, "rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        content = opened.read(min(size, 100_000_000))
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return {"names": list(found), "metadata": found.get("__metadata__")} if isinstance(found, dict) else {}
