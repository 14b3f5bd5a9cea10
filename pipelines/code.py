"""The code that lies beside the weights of a published model: which classes came from it, and how it goes along."""

import inspect
import json
import shutil
from pathlib import Path

REMOTE = ("diffusers_modules", "transformers_modules")
LIBRARIES = ("diffusers", "transformers")


def is_remote(kind: type) -> bool:
    """Whether a class was loaded from a file that lies beside weights."""
    return kind.__module__.split(".")[0] in REMOTE


def copy_code(kind: type, folder: Path) -> str:
    """Copy the file that defines a class into a folder; returns the module's name there."""
    module = kind.__module__.split(".")[-1]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(inspect.getfile(kind), folder / f"{module}.py")
    return module


def rewrite(file: Path, **entries) -> None:
    """Put entries into a JSON file, and take out the place that it was loaded from."""
    content = {**json.loads(file.read_text(encoding="utf-8")), **entries}
    content.pop("_name_or_path", None)
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
