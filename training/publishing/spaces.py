"""Building Spaces: a folder that runs by itself, or the gallery, which holds all of them as pages of one.

A Space is its own folder and `kit/`, the package that all Spaces share. The gallery holds the other Spaces' modules
beside its own, and of each checkpoint the record, the figures and the pictures.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from training.figures import all_tables
from training.options import UsageError
from training.publishing.build import FolderReplacement
from training.publishing.record import copy_record

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("pipelines/decoding.py", "training/data/toy_points.py")  # that pages do as pipelines and recipes do


def space(source: Path, to: Path, models: Sequence[str] = ()) -> None:
    """Write the folder of a Space that runs by itself: its own files, and those that all Spaces share.

    Args:
        models: Hub ids of the models that it shows, which its README then names.

    Raises:
        UsageError: `source` is no Space, or `to` holds something else.
    """
    missing = [name for name in ("app.py", "README.md", "requirements.txt") if not (source / name).is_file()]
    if missing:
        raise UsageError(f"--space {source}: not a Space; there is no {missing[0]} in it")
    with FolderReplacement(to, source, _is_space) as folder:
        (folder / "kit").mkdir()
        for place, files in ((folder, space_files(source)), (folder / "kit", kit_files())):
            for file in files:
                shutil.copyfile(file, place / file.name)
        if source.name == "gallery":
            _add_pages(folder)
        if models:
            _name_models(folder / "README.md", models)


def _add_pages(folder: Path) -> None:
    """What the gallery shows: the other Spaces as modules, the records and pictures of all checkpoints, their tables.

    Raises:
        UsageError: two Spaces have a module of one name.
    """
    apps = {file.parent.name: file for file in sorted(ROOT.glob("spaces/*/app.py")) if file.parent.name != "gallery"}
    for name, app in apps.items():
        for module in (app, *(file for file in sorted(app.parent.glob("*.py")) if file != app)):
            called = f"{name}.py" if module == app else module.name
            if (folder / called).exists() or (folder / Path(called).stem).exists():
                raise UsageError(f"{module}: the gallery holds all Spaces, and another has a module {called}")
            shutil.copyfile(module, folder / called)
    (folder / "pages.json").write_text(json.dumps(list(apps)) + "\n", encoding="utf-8")
    tables = json.dumps(all_tables(ROOT / "checkpoints"), ensure_ascii=False, indent=1)
    (folder / "tables.json").write_text(tables + "\n", encoding="utf-8")
    (folder / "records").mkdir()
    for record in sorted(ROOT.glob("checkpoints/*/run.json")):
        place = folder / "records" / record.parent.name
        place.mkdir()
        copy_record(record.parent, place)


def _name_models(readme: Path, models: Sequence[str]) -> None:
    """Let the metadata of a Space's README name its models: the Hub then links the two."""
    from huggingface_hub import SpaceCard

    card = SpaceCard.load(readme)
    card.data.models = list(models)
    card.save(readme)


def models_for(source: Path, checkpoints: Sequence[Path]) -> list[Path]:
    """Those of the checkpoints that a Space's pages take, in the order in which they show them; of the gallery all.

    The Space is asked itself, in a process of its own: its modules say what they need of a model (`kit.models.Models`), and
    what a model answers stands in its record.

    Raises:
        UsageError: the Space cannot be asked.
    """
    if source.name == "gallery":
        return list(checkpoints)
    modules = [file.stem for file in space_files(source) if file.suffix == ".py" and _makes_models(file)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / source.name
        space(source, folder)
        given = {"MODEL_ID": ",".join(map(str, checkpoints)), "PYTHONPATH": str(folder)}
        done = subprocess.run(
            [sys.executable, "-c", ASK, *modules],
            cwd=folder,
            env={**os.environ, **given},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise UsageError(f"--space {source}: cannot be asked for its models ({why[0]})")
    by_name = {folder.name: folder for folder in checkpoints}
    return [by_name[name] for name in json.loads(done.stdout.splitlines()[-1])]


ASK = """
import importlib, json, sys
from kit.models import Models
found = {}
for module in map(importlib.import_module, sys.argv[1:]):
    for models in vars(module).values():
        if isinstance(models, Models):
            found |= dict.fromkeys(models)
print(json.dumps(list(found)))
"""


def _makes_models(file: Path) -> bool:
    """Whether a module makes `Models` at its top level."""
    calls = (n.value for n in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(n, ast.Assign))
    return any(isinstance(call, ast.Call) and ast.unparse(call.func) == "Models" for call in calls)


def space_files(folder: Path) -> list[Path]:
    """What belongs to a Space; gradio leaves .pyi files beside modules that define components."""
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".") and p.suffix != ".pyi")


def kit_files() -> list[Path]:
    """What all Spaces share, how pipelines read a picture, and the points that models were trained on."""
    return [*space_files(ROOT / "spaces" / "kit"), *(ROOT / file for file in SHARED)]


def _is_space(folder: Path) -> bool:
    has_kit = (folder / "kit" / "theme.py").is_file() or (folder / "kit.py").is_file()  # the second in older builds
    return has_kit and all((folder / name).is_file() for name in ("app.py", "README.md"))
