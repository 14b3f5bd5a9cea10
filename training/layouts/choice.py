"""Layouts: how the files of a model lie in a folder. One module of this package a layout, each with

    LIBRARY                        whose `from_pretrained` reads it, as the Hub calls the library
    recognises(folder)             whether a folder without a declaration is laid out so
    pipeline_module(folder)        the module that the folder names for its pipeline: "" where it names a class alone, as
                                   runs and checkpoints do; None where it holds no pipeline
    copy(source, folder, dtype)    what a checkpoint keeps: weights, cast where a dtype is given, and configs
    build(source, folder, root)    the same with the code that loads it, of this tree or of another at `root`; returns the
                                   pipeline's class name
    code(source)                   the files of pipelines/ that a build takes its code from, what they import left out
    load(folder, device)           the pipeline of a built folder, in float32
    networks(pipe)                 its networks by name
    snippet(folder, name, example) the part of the card that tells how to load it

A new layout is a new module here; a recipe names it in its declaration.
"""

import importlib
from pathlib import Path
from types import ModuleType

from training.declaration import Declaration, declaration_of
from training.files import read_json
from training.options import UsageError

LAYOUTS = sorted(file.stem for file in Path(__file__).parent.glob("*.py") if file.stem not in ("__init__", "choice"))


def layout_named(name: str) -> ModuleType:
    """Raises a `UsageError` where there is no such layout."""
    if name not in LAYOUTS:
        raise UsageError(f"layout is {name!r}; it must be one of {', '.join(LAYOUTS)}")
    return importlib.import_module(f"training.layouts.{name}")


def layout_of(folder: Path) -> ModuleType:
    """The layout that a folder's run.json declares, or the one that recognises its files.

    Raises:
        UsageError: no layout does.
    """
    declared = declaration_in(folder)
    if declared is not None:
        return layout_named(declared.layout)
    for name in LAYOUTS:
        if layout_named(name).recognises(folder):
            return layout_named(name)
    if not folder.is_dir():
        raise UsageError(f"{folder}: not a finished run or checkpoint; there is no such folder")
    state = "it is an unfinished run" if (folder / "run.json").is_file() else "no layout knows its files"
    raise UsageError(f"{folder}: not a finished run or checkpoint; {state}")


def declaration_in(folder: Path) -> Declaration | None:
    """The declaration that lies in a folder's run.json; None where there is none, or of an older version."""
    try:
        return declaration_of(read_json(folder / "run.json"))
    except (UsageError, ValueError):
        return None
