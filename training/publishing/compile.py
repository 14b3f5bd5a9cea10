"""A pipeline or model file as it goes to the Hub: one module, with the source of the parts that it imports from here.

A part is a module of `pipelines/` that is neither `pipeline_*.py` nor `modeling_*.py`, such as `pipelines/contract.py`.
From the Hub diffusers and transformers fetch one file of a pipeline and one of each component, so parts cannot lie
beside them: `compiled` puts the source of each part, once, in the place of the lines that import from it.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from training.options import UsageError

WIDTH = 120
OWN = ("pipelines", "training", "spaces", "tests", "benchmarks")


def parts(file: Path) -> list[Path]:
    """The parts that a file is compiled from beside itself, each once, what a part needs before it.

    Raises:
        UsageError: as of `compiled`.
    """
    found: list[Path] = []
    _collect(file.resolve(), found, ())
    return found


def compiled(file: Path) -> str:
    """The source of a file with its parts in it; a file without parts as it is.

    Raises:
        UsageError: the file, or a part of it, imports from this project what is no part, by another form than
            `from pipelines.a.b import name` at its top, or a name that the part does not have; parts import each
            other in a circle; a name is defined twice; or a class defines anew a name that it has from a part.
    """
    file = file.resolve()
    used = parts(file)
    if not used:
        return file.read_text(encoding="utf-8")
    imports, sections = _Imports(), []
    for source in [*used, file]:
        name = source.relative_to(_root(file)).as_posix()
        sections.append(f"# {name}\n\n\n{_body(source.read_text(encoding='utf-8'), imports)}")
    head = f"{_docstring(file.read_text(encoding='utf-8'))}\n\n{imports.text()}\n\n"
    module = head.lstrip("\n") + "\n\n\n".join(sections) + "\n"
    _check(module, file, used)
    return module


# Which parts there are


def _root(file: Path) -> Path:
    """The folder that holds `pipelines/`."""
    for folder in file.parents:
        if folder.name == "pipelines":
            return folder.parent
    raise UsageError(f"{file}: does not lie in pipelines/")


def _collect(file: Path, found: list[Path], above: tuple[Path, ...]) -> None:
    if file in above:
        raise UsageError(f"{file}: imports itself, by way of {', '.join(p.stem for p in above[above.index(file) :])}")
    tree = ast.parse(file.read_text(encoding="utf-8"), file)
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        for module in _imported(node):
            if module.split(".")[0] not in ("", *OWN):
                continue
            plain = isinstance(node, ast.ImportFrom) and id(node) in top and not node.level
            if not plain or any(alias.asname or alias.name == "*" for alias in node.names):
                raise UsageError(
                    f"{file}: line {node.lineno}: code of this project comes in by 'from pipelines.a.b import name' "
                    "at the top of the file, and no other way"
                )
            part = _root(file).joinpath(*module.split(".")).with_suffix(".py")
            if not part.is_file() or part.stem.startswith(("modeling_", "pipeline_")):
                raise UsageError(f"{file}: imports {module}; only parts of pipelines/ can be compiled into it")
            lacking = [a.name for a in node.names if a.name not in _top_names(ast.parse(part.read_text("utf-8")))]
            if lacking:
                raise UsageError(f"{file}: imports {lacking[0]} from {module}, which does not define it")
            if part not in found:
                _collect(part, found, (*above, file))
                found.append(part)


def _imported(node: ast.AST) -> list[str]:
    """The modules of an import statement; a relative one begins with a dot."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return ["." * node.level + (node.module or "")] if isinstance(node, ast.ImportFrom) else []


# Putting them together


class _Imports:
    """The import statements of several modules as one block."""

    def __init__(self):
        self.future: set[str] = set()
        self.plain: set[tuple[str, str | None]] = set()
        self.named: dict[str, set[tuple[str, str | None]]] = {}

    def add(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            self.plain |= {(alias.name, alias.asname) for alias in node.names}
        elif node.module == "__future__":
            self.future |= {alias.name for alias in node.names}
        elif node.module.split(".")[0] != "pipelines":
            self.named.setdefault(node.module, set()).update((alias.name, alias.asname) for alias in node.names)

    def text(self) -> str:
        """`from __future__`, the standard library, what is installed; each sorted as ruff sorts it."""
        blocks = [[f"from __future__ import {', '.join(sorted(self.future))}"] if self.future else [], [], []]
        for name, alias in sorted(self.plain, key=lambda pair: (pair[0].lower(), pair[1] or "")):
            blocks[_block(name)].append(f"import {_as(name, alias)}")
        for module in sorted(self.named, key=str.lower):
            names = sorted(self.named[module], key=lambda pair: _order(pair[0]))
            line = f"from {module} import {', '.join(_as(*pair) for pair in names)}"
            if len(line) > WIDTH:
                inside = "".join(f"    {_as(*pair)},\n" for pair in names)
                line = f"from {module} import (\n{inside})"
            blocks[_block(module)].append(line)
        return "\n\n".join("\n".join(block) for block in blocks if block)


def _block(module: str) -> int:
    return 1 if module.split(".")[0] in sys.stdlib_module_names else 2


def _as(name: str, alias: str | None) -> str:
    return f"{name} as {alias}" if alias else name


def _order(name: str) -> tuple:
    """CONSTANTS, Classes, functions."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, name.lower(), name


def _docstring(text: str) -> str:
    """The docstring of a module, as it is written; nothing where there is none."""
    first = ast.parse(text).body[:1]
    if not first or not _is_docstring(first[0]):
        return ""
    return "\n".join(text.splitlines()[first[0].lineno - 1 : first[0].end_lineno])


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _body(text: str, imports: _Imports) -> str:
    """A module's source without its docstring and the imports at its top, which go to `imports`."""
    lines, gone = text.split("\n"), set()
    for number, node in enumerate(ast.parse(text).body):
        is_import = isinstance(node, ast.Import | ast.ImportFrom)
        if is_import:
            imports.add(node)
        if is_import or (number == 0 and _is_docstring(node)):
            gone |= set(range(node.lineno - 1, node.end_lineno))
    kept: list[str] = []
    follows_gone = False
    for number, line in enumerate(lines):
        if number in gone or (follows_gone and not line):
            follows_gone = True
            continue
        if follows_gone and kept:
            kept += [""] * (2 - len([blank for blank in kept[-2:] if not blank]))
        follows_gone = False
        kept.append(line)
    return "\n".join(kept).strip("\n")


# What is refused


def _check(module: str, file: Path, used: list[Path]) -> None:
    tree = ast.parse(module)
    seen: set[str] = set()
    for name in _bound(tree):
        if name in seen:
            by = f"{file.name} with {', '.join(p.name for p in used)}"
            raise UsageError(f"{file}: {name} is defined twice in what is compiled of {by}")
        seen.add(name)
    own = _top_names(ast.parse(file.read_text(encoding="utf-8")))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for name in own & classes.keys():
        defined: dict[str, str] = {}
        for kind in _ancestors(name, classes):
            for member in _members(classes[kind]):
                if member in defined and (kind not in own or defined[member] not in own):
                    raise UsageError(
                        f"{file}: {defined[member]} defines {member}, which {kind} defines already; parts are not "
                        "overridden: take another name, or let the part ask for what differs"
                    )
                defined.setdefault(member, kind)


def _ancestors(name: str, classes: dict[str, ast.ClassDef]) -> Iterator[str]:
    """A class and its bases that are in the module, each once."""
    found, todo = [], [name]
    while todo:
        kind = todo.pop(0)
        if kind in classes and kind not in found:
            found.append(kind)
            todo += [base.id for base in classes[kind].bases if isinstance(base, ast.Name)]
    return iter(found)


def _members(node: ast.ClassDef) -> set[str]:
    """What a class defines, but for names that Python gives a meaning."""
    return {name for name in _bound(node) if not (name.startswith("__") and name.endswith("__"))}


def _top_names(tree: ast.Module) -> set[str]:
    """What a module defines itself, imports left out."""
    return set(_bound(ast.Module([node for node in tree.body if not _imported(node)], [])))


def _bound(tree: ast.Module | ast.ClassDef) -> Iterator[str]:
    """The names that a module or a class binds at its top, in order; a name with a setter, once."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not any(isinstance(d, ast.Attribute) and d.attr in ("setter", "deleter") for d in node.decorator_list):
                yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))
