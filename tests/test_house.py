"""The rules of the house: who may import whom, names, empty `__init__.py` files."""

import ast
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
