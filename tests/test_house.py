"""The rules of the house: who may import whom, who may name whom, sizes, names, help texts, empty `__init__.py` files."""

import ast
import builtins
import copy
import dataclasses
import importlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import diffusers
import pytest

from training.declaration import Declaration
from training.figures import MEASURES
from training.layouts.choice import LAYOUTS
from training.loops.run_options import CommonOptions
from training.publishing.compile import compiled, parts

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    p for d in ("pipelines", "training", "spaces", "benchmarks", "tests") for p in (ROOT / d).rglob("*.py")
)
HUB_FILES = sorted(p for p in (ROOT / "pipelines").rglob("*.py") if p.name != "__init__.py")
BRANCHES = sorted(p.name for p in (ROOT / "pipelines").iterdir() if p.is_dir() and p.name != "__pycache__")
RECIPES = sorted(p for b in BRANCHES for p in (ROOT / "training" / b).glob("*.py") if p.name != "__init__.py")


def imports(file: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function; relative imports begin with a dot."""
    return imports_of(ast.parse(file.read_text(encoding="utf-8")))


def imports_of(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
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
    installed = {"torch", "diffusers", "transformers", "huggingface_hub", "numpy", "PIL"}
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


# From left to right: a room imports from itself and from those before it. Figures stand before publishing, whose cards
# and galleries show them, and find the measures that declare them by name.
ROOMS = (
    ("options", "files", "declaration", "watching"),
    ("averages", "folders", "components"),
    ("data",),
    ("pictures",),
    ("loops",),
    ("denoising",),
    tuple(BRANCHES),
    tuple(f"publishing.{name}" for name in ("compile", "code", "configs", "copying", "commit", "markdown")),
    ("layouts",),
    ("figures", "distances"),
    ("publishing",),
    ("measures",),
    ("evaluate", "publish", "leaderboard"),
)
FOUND_BY_NAME = {  # the only imports of a module whose name is not written out: what is dropped in is found
    "figures": "training.measures.",
    "layouts.choice": "training.layouts.",
    "data.source": "training.data.",
}


def room(module: str) -> int:
    """The place of a module of training/, without "training.", in `ROOMS`; the longest name that fits counts."""
    fits = {name: i for i, names in enumerate(ROOMS) for name in names if f"{module}.".startswith(f"{name}.")}
    assert fits, f"training.{module} has no place in ROOMS"
    return fits[max(fits, key=len)]


def test_data_walks_one_way_within_training():
    files = [p for p in (ROOT / "training").rglob("*.py") if p.name != "__init__.py"]
    modules = {".".join(p.relative_to(ROOT / "training").with_suffix("").parts): p for p in files}
    known = {}
    for module, file in modules.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        # of `from training.publishing import code` it is the module that is imported, not the package
        whole = {f"{n.module}.{a.name}" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
        ours = {name.removeprefix("training.") for name in imports_of(tree) | whole} & modules.keys()
        known[module] = ours
        for other in ours:
            assert room(other) <= room(module), f"{file} imports training.{other}, which stands to its right"
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        named = [call for call in calls if ast.unparse(call.func).endswith("import_module")]
        starts = {call.args[0].values[0].value for call in named}
        assert starts == ({FOUND_BY_NAME[module]} if module in FOUND_BY_NAME else set()), file
    assert len(modules) > 40 and not circle(known)


def circle(imported: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; [] where none do."""
    left = {name: set(others) for name, others in imported.items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_the_rule_of_one_way_finds_what_breaks_it():
    assert room("publishing.compile") < room("layouts.diffusers") < room("publishing.build") < room("measures.cost")
    assert room("loops.run") < room(f"{BRANCHES[0]}.any") < room("publishing.code")
    with pytest.raises(AssertionError, match="elsewhere has no place in ROOMS"):
        room("elsewhere")
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["a", "b", "c"] and not circle({"a": {"b"}, "b": set()})


def test_a_family_touches_no_other_family():
    """A recipe imports its own pipelines and the shared modules, no other recipe; the shared ones no recipe."""
    branches = set(BRANCHES)
    for file in (ROOT / "training").rglob("*.py"):
        parts = file.relative_to(ROOT / "training").parts
        for module in imports(file):
            words = module.split(".")
            if words[0] == "training" and len(words) > 1:
                assert words[1] not in branches, f"{file} imports {module}"
            if words[0] == "pipelines":  # what all pipelines share lies beside their branches, and names none
                assert parts[0] in branches or len(words) == 2, f"{file} is shared and imports {module}"


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


# Families declare themselves


def declarations(file: Path) -> list[Declaration]:
    """What a recipe declares, its DECLARATION first."""
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    others = [value for value in vars(module).values() if isinstance(value, Declaration)]
    return [module.DECLARATION, *others]


def test_every_recipe_declares_what_shared_code_can_serve():
    """tests/training/test_options.py says of each YAML file that a recipe beside it takes all of it."""
    families = [declarations(file)[0].family for file in RECIPES]
    assert len(families) == len(set(families)) >= 10
    for file in RECIPES:
        for declaration in declarations(file):
            assert (declaration.family, declaration.branch) == (declarations(file)[0].family, file.parent.name), file
            assert declaration.layout in LAYOUTS and set(declaration.measures) <= set(MEASURES), file
            assert declaration.measures and declaration.title and declaration.unit, file


# what has a family's name and means another thing: a word of a shared file, and what it means there
OTHER_MEANINGS = {
    "training/distances.py": {"density": "how many real images' balls hold a sample (Naeem et al.)"},
    "training/measures/samples.py": {"density": "how many real images' balls hold a sample (Naeem et al.)"},
    "training/data/known.py": {
        "classifier-mnist": "the first judge that a data set names: a checkpoint, not a family",
        "classifier-mnist-plain": "the second judge that a data set names",
    },
}
END_OF_SHARED_PART = "# What single families owe beyond that"


def shared_files() -> list[Path]:
    """What every family stands on, and no family may be named in."""
    training = [p for p in (ROOT / "training").rglob("*.py") if p not in RECIPES]
    tests = [ROOT / "tests" / name for name in ("contract.py", "test_contract.py", "test_checkpoints.py")]
    pages = [p for d in ("kit", "gallery") for p in (ROOT / "spaces" / d).iterdir() if p.suffix in (".py", ".js")]
    return [*training, *(ROOT / "pipelines").glob("*.py"), *pages, *tests, ROOT / "Makefile"]


def names_of_families() -> tuple[set[str], set[str]]:
    """Words that name a family, and longer names that hold one: of checkpoints, of classes, of modules."""
    families = {declarations(file)[0].family for file in RECIPES}
    classes = {n.name for f in HUB_FILES for n in ast.parse(f.read_text()).body if isinstance(n, ast.ClassDef)}
    own = {name for name in classes if re.search(r"(Model|Pipeline|Denoiser)$", name)}
    modules = {p.stem for p in HUB_FILES if p.stem.startswith(("modeling_", "pipeline_"))}
    checkpoints = {p.parent.name for p in ROOT.glob("checkpoints/*/run.json")}
    words = families | {name.replace("-", "_") for name in families}
    return words | {f"is_{word}" for word in words}, own | modules | checkpoints


def code_words(text: str) -> Iterator[tuple[int, str, bool]]:
    """(line, word or text, whether it is a name) of a module: identifiers, imports and strings, docstrings left out."""
    tree = ast.parse(text)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
    }
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield line, node.value, not re.search(r"\s", node.value.strip())
        for field in ("id", "attr", "arg", "name", "module"):
            if isinstance(getattr(node, field, None), str):
                yield from ((line, part, True) for part in getattr(node, field).split("."))


def families_named(text: str, words: set[str], names: set[str]) -> list[str]:
    """Where a Python module names a family: as code, not in prose or as an example like user/vae-mnist."""
    found = []
    longer = re.compile(
        r"(?<![\w/-])(" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + r")(?![\w-])"
    )
    for line, word, is_name in code_words(text):
        if (is_name and word in words) or longer.search(word):
            found.append(f"{line}: {word}")
    return sorted(found)


def test_no_shared_file_names_a_family():
    words, names = names_of_families()
    kinds = words | {f"is_{branch}" for branch in BRANCHES}
    for file in shared_files():
        text, place = file.read_text(encoding="utf-8"), file.relative_to(ROOT).as_posix()
        if file.name == "test_checkpoints.py":
            text, _ = text.split(END_OF_SHARED_PART)
        if file.suffix == ".py":
            found = families_named(text, kinds, names)
        else:
            found = re.findall(rf"(?<![\w/-])({'|'.join(map(re.escape, words | names))})(?![\w-])", text)
        other = OTHER_MEANINGS.get(place, {})
        assert not [hit for hit in found if hit.split(": ")[-1] not in other], (place, found)
        assert all(any(hit.endswith(f": {word}") for hit in found) for word in other), f"{place}: no longer there"


def test_the_search_for_names_finds_them_and_no_prose():
    words, names = {"vae", "gan", "is_gan", "density"}, {"VAEPipeline", "vae-mnist", "pipeline_vae"}
    bad = 'x = "gan"\nfrom pipelines.autoencoders.pipeline_vae import VAEPipeline\nif is_gan: pass\ny = f"take vae-mnist {x}"'
    assert [hit.split(":")[0] for hit in families_named(bad, words, names)] == ["1", "2", "2", "3", "4"]
    good = '"""A VAEPipeline, vae."""\nx = f"an id like user/vae-mnist; the density of {y}"\nvae_scale_factor = 1'
    assert not families_named(good, words, names)


def test_shared_code_asks_no_model_what_kind_it_is():
    """What a pipeline can do stands in its `calls`, what its family owes in its declaration."""
    subjects = r"(pipe|pipeline|model)(\.\w+)?"
    for file in shared_files():
        if not file.is_relative_to(ROOT / "training"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            said = ast.unparse(node) if isinstance(node, ast.Call | ast.Compare) else ""
            asks = rf"hasattr\({subjects}, |isinstance\({subjects}, (?!dict\)|nn\.Module\))|'vocab_size' in |"
            asks += r"(__class__|type\(\w+\))\.__name__ (==|in|!=|not in) |\.(family|branch) (==|in|!=|not in) ['\[({]"
            assert not re.match(asks, said), f"{file}:{node.lineno}: {said}"


# Sizes and texts


def test_no_file_is_too_long():
    files = [p for d in ("pipelines", "training", "spaces") for e in ("py", "js") for p in (ROOT / d).rglob(f"*.{e}")]
    lines = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in files}
    assert len(lines) > 100 and not {p: n for p, n in lines.items() if n > 450}
    assert not {p: lines[p] for p in RECIPES if lines[p] > 250}  # a recipe is read from top to bottom


# words that a help text does not begin with: it would say whose or where, and not what
RELATIVE = ("of", "at", "in", "on", "by", "with", "inside", "between", "after", "before", "its", "it", "their", "as")
UNCLEAR = r"\blikewise\b|\bthe game\b|\bnets?\b|\bplayers?\b|\bat its (highest|lowest)\b|\bso many\b|\bthe same\b|%"


def unclear(text: str) -> bool:
    """Whether a help text does not say by itself what an option does; it may begin with the objective it belongs to."""
    said = re.sub(r"^\w+: ", "", text)
    return len(text.split()) < 5 or said.split()[0] in RELATIVE or bool(re.search(UNCLEAR, text))


def test_every_option_says_what_it_does():
    texts = {}
    for file in RECIPES:
        module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
        kinds = [k for k in vars(module).values() if isinstance(k, type) and issubclass(k, CommonOptions)]
        texts |= {f"{kind.__name__}.{f.name}": f.metadata["help"] for kind in kinds for f in dataclasses.fields(kind)}
    for file in (ROOT / "training").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument"):
                given = {word.arg: word.value for word in node.keywords}
                assert "help" in given, f"{file}:{node.lineno}"
                texts[f"{file.name} {node.args[0].value}"] = given["help"].value
    assert len(texts) > 200 and not {name: text for name, text in texts.items() if unclear(text)}


def test_an_unclear_help_text_is_found():
    for text in ("of both nets", "at its highest", "likewise", "the game", "T", "its residual blocks", "inside the blocks",
                 "supervised: of the class's -log p(y|z), nats", "of the finished pipeline, unless a call says otherwise"):  # fmt: skip
        assert unclear(text), text
    assert not unclear("number of dimensions of the code")
