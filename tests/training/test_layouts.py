"""Layouts: which one a folder is laid out in, by its declaration or by its files; a new one is a new module."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from training.layouts import choice
from training.layouts.choice import LAYOUTS, layout_named, layout_of
from training.options import UsageError

MADE_UP = '''
"""A model that is one file."""

LIBRARY = "none"


def recognises(folder) -> bool:
    return (folder / "everything.txt").is_file()


def pipeline_module(folder) -> str | None:
    return ""
'''


def names_of_functions() -> list[str]:
    """What the docstring of training/layouts/choice.py promises of every layout."""
    lines = [line.strip() for line in choice.__doc__.splitlines()]
    return [
        line.split("(")[0].split()[0] for line in lines if line[:1].isupper() is False and "(" in line.split(" ")[0]
    ]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_has_all_that_shared_code_asks_of_it(name):
    layout = layout_named(name)
    promised = names_of_functions()
    assert {"recognises", "copy", "build", "load", "networks", "snippet"} <= set(promised)
    assert isinstance(layout.LIBRARY, str) and all(callable(getattr(layout, each)) for each in promised)


def test_each_folder_is_recognised_by_one_layout(tiny_run, portable):
    folders = {folder: folder.name for folder in (tiny_run, portable)}
    folders |= {record.parent: record.parent.name for record in ROOT.glob("checkpoints/*/run.json")}
    for folder in folders:
        fits = [name for name in LAYOUTS if layout_named(name).recognises(folder)]
        assert len(fits) == 1 and layout_of(folder).__name__ == f"training.layouts.{fits[0]}"
    assert layout_of(tiny_run).pipeline_module(tiny_run) == ""  # a run names a class, and carries no code
    assert layout_of(portable).pipeline_module(portable).startswith("pipeline_")


def test_files_tell_the_layout_where_no_record_does(tiny_run, tmp_path):
    saved = tmp_path / "saved"
    shutil.copytree(tiny_run, saved, ignore=shutil.ignore_patterns("checkpoints", "run.json"))
    assert layout_of(saved) is layout_of(tiny_run)


def test_what_no_layout_knows_is_one_line(tiny_run, tmp_path):
    with pytest.raises(UsageError, match=f"layout is 'odd'; it must be one of {', '.join(LAYOUTS)}"):
        layout_named("odd")
    with pytest.raises(UsageError, match="not a finished run or checkpoint; there is no such folder"):
        layout_of(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="not a finished run or checkpoint; no layout knows its files"):
        layout_of(tmp_path)
    record = json.loads((tiny_run / "run.json").read_text())
    record["declaration"]["layout"] = "odd"
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match="layout is 'odd'"):
        layout_of(tmp_path)
    (tmp_path / "run.json").write_text('{"status": "running"}')
    with pytest.raises(UsageError, match="it is an unfinished run"):
        layout_of(tmp_path)


def test_a_layout_that_is_dropped_in_is_found(tmp_path):
    shutil.copytree(ROOT / "training", tmp_path / "training", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "training" / "layouts" / "single_file.py").write_text(MADE_UP)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "everything.txt").write_text("weights")
    code = "from pathlib import Path; from training.layouts.choice import LAYOUTS, layout_of; "
    code += "print('single_file' in LAYOUTS, layout_of(Path('model')).LIBRARY)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "none"], done.stderr
