"""The rules of the house: who may import whom, names, empty `__init__.py` files."""

import ast
import builtins
import copy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import diffusers
import pytest

from training.publishing.compile import compiled, parts

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    p for d in ("pipelines", "training", "spaces", "benchmarks", "tests") for p in (ROOT / d).rglob("*.py")
)
HUB_FILES = sorted(p for p in (ROOT / "pipelines").rglob("*.py") if p.name != "__init__.py")


def imports(file: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function; relative imports begin with a dot."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def top(module: str) -> str:
    return "." if module.startswith(".") else module.split(".")[0]


def test_the_rules_below_look_at_something():
    assert len(HUB_FILES) >= 2 and len(SOURCES) > 10


@pytest.mark.parametrize("file", HUB_FILES, ids=lambda p: p.name)
def test_a_hub_file_stands_alone(file):
    """It is published without its neighbours: it imports libraries, and parts, whose source is compiled into it."""
    ours = {"pipelines", "training", "spaces", "tests", "benchmarks", "."}
    allowed = {f"pipelines.{'.'.join(p.relative_to(ROOT / 'pipelines').with_suffix('').parts)}" for p in parts(file)}
    assert not {m for m in imports(file) if top(m) in ours} - allowed
    tree = ast.parse(compiled(file))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    installed = {"torch", "diffusers", "transformers", "numpy", "PIL"}
    assert {top(m) for m in modules} <= installed | sys.stdlib_module_names
    wrong = [line for line in file.read_text().splitlines() if line.startswith("from pipelines.") and "(" in line]
    assert not wrong, "a part comes in by one line"


def test_data_walks_one_way():
    for file in SOURCES:
        place, names = file.relative_to(ROOT).parts[0], {top(m) for m in imports(file)}
        if place == "training":
            assert not names & {"spaces", "tests", "benchmarks"}, file
        if place == "spaces":
            assert not names & {"pipelines", "training", "tests", "benchmarks", "spaces", "."}, file


def test_a_family_touches_no_other_family():
    """A recipe imports its own pipelines and the shared modules, no other recipe; the shared ones no recipe."""
    branches = {p.name for p in (ROOT / "pipelines").iterdir() if p.is_dir()}
    for file in (ROOT / "training").rglob("*.py"):
        parts = file.relative_to(ROOT / "training").parts
        for module in imports(file):
            words = module.split(".")
            if words[0] == "training" and len(words) > 1:
                assert words[1] not in branches, f"{file} imports {module}"
            if words[0] == "pipelines":
                assert parts[0] in branches, f"{file} is shared and imports {module}"


def test_module_names_on_the_hub_are_unique():
    counts = Counter(p.name for p in HUB_FILES)
    assert not [name for name, count in counts.items() if count > 1]


def test_no_name_is_that_of_a_pipeline_of_diffusers():
    """diffusers takes a folder or module of such a name for its own."""
    package = Path(diffusers.__file__).parent / "pipelines"
    theirs = {p.stem for p in package.iterdir()} - {"__init__", "__pycache__"}
    assert {"ddpm", "latent_diffusion", "dit"} <= theirs | {"deprecated", "latent_diffusion"}
    ours = {p.stem for p in HUB_FILES} | {p.name for p in (ROOT / "pipelines").rglob("*") if p.is_dir()}
    assert not ours & theirs


def test_init_files_are_empty():
    files = [p for p in SOURCES if p.name == "__init__.py"]
    assert files and not [p for p in files if p.read_text()]


def test_spaces_is_not_importable_in_a_running_space():
    """gradio would take it for Hugging Face's own package."""
    assert not (ROOT / "spaces" / "__init__.py").exists()
    for app in ROOT.glob("spaces/*/app.py"):
        code = "import sys, importlib.util as u; sys.path[0] = sys.argv[1]; sys.exit(u.find_spec('spaces') is not None)"
        done = subprocess.run([sys.executable, "-c", code, str(app.parent)], cwd=ROOT, env={"PATH": ""})
        assert done.returncode == 0, app


def test_checkpoints_hold_weights_and_no_code():
    for folder in (ROOT / "checkpoints").iterdir():
        files = [p for p in folder.rglob("*") if p.is_file()]
        endings = {p.suffix for p in files}
        assert endings <= {".json", ".safetensors", ".png"}, f"{folder}: {endings}"
        weights = sum(p.stat().st_size for p in files if p.suffix == ".safetensors")
        most = 8_000_000 if (folder / "tokenizer.json").is_file() else 4_000_000
        assert 0 < weights <= most, f"{folder} weighs {weights} bytes"


class _Anonymous(ast.NodeTransformer):
    """A syntax tree without what may differ between two copies: names of variables, texts, annotations."""

    def __init__(self):
        self.names: dict[str, str] = {}

    def visit_Name(self, node):
        if node.id == "self" or node.id in dir(builtins):
            return node
        return ast.Name(self.names.setdefault(node.id, f"_{len(self.names)}"), node.ctx)

    def visit_arg(self, node):
        return ast.arg(node.arg if node.arg == "self" else self.names.setdefault(node.arg, f"_{len(self.names)}"))

    def visit_Constant(self, node):
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node):
        return ast.Constant("")

    def visit_AnnAssign(self, node):
        node = self.generic_visit(node)
        return ast.AnnAssign(node.target, ast.Constant(None), node.value, node.simple)


def stated(file: Path) -> list[tuple[str, str]]:
    """What a file states, (what, where): functions of two statements or more; of what raises the condition and the words."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            has_docstring = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
            body = node.body[has_docstring:]
            if len(body) > 1:
                plain = copy.deepcopy(ast.FunctionDef("_", node.args, body, [], None))
                found.append((ast.dump(_Anonymous().visit(plain)), f"{file.name}:{node.lineno} {node.name}"))
        if isinstance(node, ast.If) and any(isinstance(part, ast.Raise) for part in node.body):
            where = f"{file.name}:{node.lineno} if {ast.unparse(node.test)}"
            words = [part.value for line in node.body for part in ast.walk(line) if isinstance(part, ast.Constant)]
            found.append((" ".join(str(word).strip() for word in words), where))
            if not _is_plain(node.test):
                found.append((ast.dump(_Anonymous().visit(copy.deepcopy(node.test))), where))
    return found


def _is_plain(test: ast.expr) -> bool:
    """Whether a condition says of one variable that it is missing, empty or true: too little to be the same check."""
    if isinstance(test, ast.UnaryOp):
        test = test.operand
    elif isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Is | ast.IsNot):
        test = test.left
    return isinstance(test, ast.Name)


def repeated(files: list[Path]) -> list[str]:
    first, twice = {}, []
    for what, where in (pair for file in files for pair in stated(file)):
        if what in first:
            twice.append(f"{first[what]}  and  {where}")
        first.setdefault(what, where)
    assert len(first) > 3
    return twice


def test_no_two_pipelines_state_the_same_check(tmp_path):
    """Nor a pipeline and a part: what two of them need stands in `pipelines/contract.py`, or in a part of their own."""
    assert not repeated([p for p in HUB_FILES if not p.stem.startswith("modeling_")])
    text = (ROOT / "pipelines" / "checks.py").read_text()
    copied = text.replace("value", "number").replace("it must be", "it should be").replace("def check", "def is")
    for name, content in (("one", text), ("two", copied)):
        (tmp_path / f"{name}.py").write_text(content)
    assert len(repeated([tmp_path / "one.py", tmp_path / "two.py"])) >= 6
