"""What the small files of a model say of it, before its weights are read.

A page shows which model goes with which of its tabs when it is built, and then nothing is loaded. What a pipeline can
be asked stands beside what was measured of it, or in its code where nothing was; what it is made of in its index and the
configs of its parts; how it was trained in its record. None of it stands in its name, which whoever publishes a model
may choose.
"""

import ast
import functools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr

from kit.lazy import LazyModule
from kit.models import Models
from kit.records import RESULTS, RUN, fitting, read_json, read_record
from kit.words import escaped, line_of, short

FILES = ["model_index.json", "*/config.json", "run.json", "results.json", "*.py"]  # those that are read here
COUNTS, MOST = ("num_classes", "latent_dim"), 100_000  # settings that are numbers of things, and the most of them
MOST_NAMED = 6  # models that a page leaves out are named, or counted if there are more


@dataclass(frozen=True)
class Facts:
    """What is known of a model that is not loaded.

    Attributes:
        calls: what it answers, as its results.json says; without one, what its pipeline's class can be asked, by the
            names of its public methods, of which it may refuse some: once it is loaded, `kit.models.answers` asks it.
        config: of the pipeline itself.
        parts: the config of each component that it has.
        options: those that it was trained with; none where it has no record.
        problem: why nothing is known of it; empty where all is well.
    """

    calls: frozenset[str] = frozenset()
    config: dict = field(default_factory=dict)
    parts: dict[str, dict] = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    problem: str = ""

    @property
    def data_spec(self) -> dict:
        """What x is: the pipeline's config says it, or that of a part."""
        return next((c["data_spec"] for c in (self.config, *self.parts.values()) if c.get("data_spec")), {})

    @property
    def takes_digits(self) -> bool:
        """Whether its x are square images in one colour, as a drawing is."""
        shape = self.data_spec.get("shape") or []
        return self.data_spec.get("kind") == "image" and len(shape) == 3 and shape[0] == 1 and shape[1] == shape[2]

    @property
    def num_classes(self) -> int:
        """How many classes it can be asked for; 0 for none."""
        for config in (self.config, *self.parts.values()):
            if config.get("conditional"):
                return config.get("num_classes") or self.data_spec.get("num_classes") or 0
        return 0

    def part_with(self, *settings: str) -> str | None:
        """The first component whose config has all these settings."""
        return next((name for name, config in self.parts.items() if set(settings) <= set(config)), None)

    def setting(self, name: str, default=None):
        """A setting of the pipeline or of its first part that has it."""
        return next((c[name] for c in (self.config, *self.parts.values()) if name in c), default)


def facts_of(models: Models) -> dict[str, Facts]:
    """The facts of all models of a page, in its order. Those on the Hub are asked for at once."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(models, pool.map(read_facts, models.addresses.values()), strict=True))


def say_left_out(models: Models, facts: dict[str, Facts], offered: Iterable[Iterable[str]]) -> None:
    """A line on the page about the models that none of its tabs offers, and why; not in a gallery, where MODEL_ID names
    those of all pages."""
    there = {name for names in offered for name in names}
    reasons: dict[str, list[str]] = {}
    for name in models.given:
        if name not in there:
            reason = facts.get(name, Facts()).problem or "not made for what its tabs ask"
            reasons.setdefault(reason, []).append(name)
    listed = [
        f"{', '.join(f'`{name}`' for name in names) if len(names) <= MOST_NAMED else f'{len(names)} models'} "
        f"({escaped(reason)})"
        for reason, names in reasons.items()
    ]
    if listed and models.records is None:
        gr.Markdown(f"Named by `MODEL_ID`, but not on this page: {'; '.join(listed)}.")


@functools.cache
def read_facts(address: str) -> Facts:
    """The facts of a model by its address, a portable folder or a Hub id with or without a revision."""
    where, _, revision = address.partition("@")
    try:
        folder = Path(where)
        if not folder.is_dir() and ("/" not in where or where.startswith((".", "/"))):
            return Facts(problem="neither a folder nor a Hub id like user/vae-mnist")
        if not folder.is_dir():
            download = LazyModule("huggingface_hub").snapshot_download
            folder = Path(download(where, revision=revision or None, allow_patterns=FILES))
        return _read(folder)
    except Exception as error:  # not there, no network, no JSON: the page says so where someone asks for the model
        return Facts(problem=line_of(error))


def _read(folder: Path) -> Facts:
    index = read_json(folder / "model_index.json")
    own = index.get("_class_name")  # [module, class] where the folder holds the code
    parts = {}
    for name, value in index.items():
        if not name.startswith("_") and _is_component(value) and value[0] is not None:
            file = folder / _plain(name) / "config.json"
            parts[name] = _checked(read_json(file)) if file.is_file() else {}
    config = {k: v for k, v in index.items() if not k.startswith("_") and not _is_component(v)}
    options = read_record(folder / "run.json", RUN)[0].get("options", {})
    calls = read_record(folder / "results.json", RESULTS)[0].get("calls")
    if calls is None and _is_component(own):
        calls = calls_in((folder / f"{_plain(own[0])}.py").read_text(encoding="utf-8"), own[1])
    return Facts(frozenset(calls or ()), _checked(config), parts, options)


def _plain(name: str) -> str:
    """A name that leads to no other folder."""
    if not str(name).isidentifier():
        raise ValueError(f"a part is called {short(name)}; it must be a plain name")
    return name


def _checked(config: dict) -> dict:
    """A config in which what pages compute with is what they take it for."""
    spec = config.get("data_spec", {})
    if not isinstance(spec, dict) or fitting(spec.get("shape", []), [int]) != spec.get("shape", []):
        raise ValueError(
            f"data_spec in a config is {short(spec)}; it must be an object whose shape is a list of numbers"
        )
    for name, count in [(name, c[name]) for name in COUNTS for c in (config, spec) if c.get(name) is not None]:
        if fitting(count, int) is None or not 0 <= count <= MOST:
            raise ValueError(f"{name} in a config is {short(count)}; it must be a whole number from 0 to {MOST}")
    return config


def _is_component(value) -> bool:
    """Whether a value of an index is [library, class], or [None, None] of a part that is left out."""
    return isinstance(value, list) and len(value) == 2 and all(v is None or isinstance(v, str) for v in value)


def calls_in(code: str, class_name: str) -> frozenset[str]:
    """What a class can be asked, by its code: its public methods and those of its bases in the same file, without
    properties and without those that do nothing but raise NotImplementedError; "sample" stands for `stream`."""
    classes = {node.name: node for node in ast.parse(code).body if isinstance(node, ast.ClassDef)}

    def methods(name: str) -> dict[str, bool]:
        """Name -> whether it answers."""
        if name not in classes:
            return {}
        found: dict[str, bool] = {}
        for base in reversed(classes[name].bases):
            found |= methods(base.id) if isinstance(base, ast.Name) else {}
        for node in classes[name].body:
            if isinstance(node, ast.FunctionDef):
                found[node.name] = not _is_property(node) and not _only_refuses(node)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):  # elbo = log_prob
                found |= {t.id: found.get(node.value.id, False) for t in node.targets if isinstance(t, ast.Name)}
        return found

    found = {name for name, answers in methods(class_name).items() if answers and not name.startswith("_")}
    return frozenset(found - {"stream"} | ({"sample"} if "stream" in found else set()))


def _is_property(node: ast.FunctionDef) -> bool:
    names = {d.id if isinstance(d, ast.Name) else getattr(d, "attr", "") for d in node.decorator_list}
    return bool(names & {"property", "cached_property", "setter"})


def _only_refuses(node: ast.FunctionDef) -> bool:
    body = [n for n in node.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    if len(body) != 1 or not isinstance(body[0], ast.Raise):
        return False
    raised = body[0].exc.func if isinstance(body[0].exc, ast.Call) else body[0].exc
    return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
