"""One module of a pipeline and its parts: what it holds, what changes it, and what is refused."""

import ast
import pickle
import shutil
import subprocess
import sys
import textwrap

import pytest

from tests.conftest import ROOT
from training.options import UsageError
from training.publishing.compile import compiled, parts

FILES = sorted(p for kind in ("pipeline", "modeling") for p in ROOT.glob(f"pipelines/*/{kind}_*.py"))
CONTRACT = ROOT / "pipelines" / "contract.py"


@pytest.fixture
def tree(tmp_path):
    """A copy of `pipelines/`, to be changed."""
    shutil.copytree(ROOT / "pipelines", tmp_path / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "pipelines"


def write(file, text: str):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text).lstrip("\n"))
    return file


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)
def test_what_is_compiled_is_one_readable_module(file):
    text = compiled(file)
    assert text == compiled(file)
    if not parts(file):
        assert text == file.read_text()
        return
    before, after = ast.parse(file.read_text()), ast.parse(text)
    assert ast.get_docstring(before) == ast.get_docstring(after)
    names = [node.name for node in after.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    for part in (*parts(file), file):
        own = [n.name for n in ast.parse(part.read_text()).body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
        assert set(own) <= set(names) and len(names) == len(set(names))
        assert part.relative_to(ROOT).as_posix() in text
    ruff = [sys.executable, "-m", "ruff"]
    for words in (("check", "--quiet"), ("format", "--check")):
        done = subprocess.run(
            [*ruff, *words, "--config", ROOT / "pyproject.toml", "--stdin-filename", "x.py", "-"],
            input=text, text=True, capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_contract_changes_every_pipeline_that_uses_it_and_no_other(tree):
    files = [tree / file.relative_to(ROOT / "pipelines") for file in FILES]
    before = {file: compiled(file) for file in files}
    contract = tree / "contract.py"
    contract.write_text(contract.read_text().replace("it must be a tensor of shape", "it has to be a tensor of shape"))
    changed = {file for file in files if compiled(file) != before[file]}
    assert changed == {file for file in files if contract in parts(file)} and 0 < len(changed) < len(files)


def test_each_part_comes_once_and_before_what_needs_it(tmp_path):
    place = tmp_path / "pipelines"
    write(
        place / "base.py",
        '''
        """The base."""

        from __future__ import annotations

        import math


        class Base:
            def area(self) -> float:
                return math.pi
    ''',
    )
    write(
        place / "a" / "middle.py",
        '''
        import math
        from dataclasses import dataclass

        from pipelines.base import Base

        TEXT = """one



        two"""


        @dataclass
        class Middle(Base):
            size: int = 1
    ''',
    )
    file = write(
        place / "a" / "pipeline_a.py",
        '''
        """What it is."""

        import os

        from pipelines.a.middle import TEXT, Middle
        from pipelines.base import Base

        HERE = os.sep


        class P(Middle):
            def twice(self) -> float:
                return 2 * self.area()
    ''',
    )
    text = compiled(file)
    assert [p.stem for p in parts(file)] == ["base", "middle"]
    order = [
        text.index(word) for word in ('"""What', "__future__", "import math", "class Base", "class Middle", "class P")
    ]
    assert order == sorted(order) and text.count("import math") == text.count("class Base") == 1
    write(tmp_path / "alone" / "made.py", text)
    code = """
        import inspect, pickle, sys
        sys.path.insert(0, sys.argv[1])
        from made import TEXT, Base, Middle, P
        p = pickle.loads(pickle.dumps(P(3)))
        assert isinstance(p, Base) and p.size == 3 and p.twice() > 6.28 and p == P(3)
        assert TEXT == "one\\n\\n\\n\\ntwo" and inspect.getfile(P).endswith("made.py")
    """
    done = subprocess.run([sys.executable, "-I", "-c", textwrap.dedent(code), tmp_path / "alone"], capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import pipelines.contract", "code of this project comes in by 'from pipelines.a.b import name'"),
        ("from pipelines.contract import *", "and no other way"),
        ("from pipelines.contract import Contract as C", "and no other way"),
        ("from ..contract import Contract", "and no other way"),
        ("def f():\n    from pipelines.contract import Contract", "and no other way"),
        ("from training.options import UsageError", "only parts of pipelines/ can be compiled into it"),
        ("from pipelines.autoencoders.modeling_vae import VAEModel", "only parts of pipelines/ can be compiled"),
        ("from pipelines.nowhere import x", "only parts of pipelines/ can be compiled"),
        ("from pipelines.contract import torch", "imports torch from pipelines.contract, which does not define it"),
        ("from pipelines.contract import Contract\ndef great_circle(): ...", "great_circle is defined twice"),
        ("from pipelines.contract import Contract\nimport json as math", "math is defined twice"),
        ("from pipelines.contract import Contract\nclass P(Contract):\n    def _check_x(self): ...",
         "P defines _check_x, which Contract defines already"),
        ("from pipelines.contract import Contract\nclass P(Contract):\n    calls = ()", "P defines calls, which"),
        ("from pipelines.contract import Contract\nclass Q(Contract): ...\nclass P(Q):\n    calls = ()", "P defines calls"),
        ("from pipelines.contract import Contract, NoDensity\nclass P(NoDensity, Contract):\n    def elbo(self): ...",
         "P defines elbo, which NoDensity defines already"),
    ],
)  # fmt: skip
def test_what_cannot_be_compiled_is_refused(tree, text, message):
    file = write(tree / "odd" / "pipeline_odd.py", text + "\n")
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        compiled(file)


def test_parts_do_not_go_in_circles(tmp_path):
    place = tmp_path / "pipelines"
    write(place / "one.py", "from pipelines.two import B\nA = 1\n")
    write(place / "two.py", "from pipelines.one import A\nB = 1\n")
    file = write(place / "a" / "pipeline_a.py", "from pipelines.one import A\n")
    with pytest.raises(UsageError, match="imports itself, by way of one, two"):
        compiled(file)


def test_the_contract_shadows_nothing_of_diffusers():
    from diffusers import DiffusionPipeline

    from pipelines import contract

    for kind in (contract.Contract, contract.NoDensity):
        own = {name for name in vars(kind) if not name.startswith("__")}
        assert own and not own & set(dir(DiffusionPipeline))
    assert pickle.loads(pickle.dumps(contract.Contract)) is contract.Contract
