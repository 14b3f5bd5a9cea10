"""Options: a dataclass, a YAML file and the command line, checked in one place."""

import contextlib
import dataclasses
import importlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from training.loops.run_options import CommonOptions
from training.options import UsageError, option, parse, with_default


@dataclass
class Options:
    steps: int = option(10, "how many", least=1, most=100)
    rate: float = option(0.1, "how fast", above=0.0)
    name: str | None = option(None, "what to call it")
    fast: bool = option(False, "whether to hurry")
    kind: str = option("plain", "of what sort", choices=("plain", "fancy"))
    sizes: list[int] = option((1, 2), "how large each is", least=1)


def file(tmp_path: Path, text: str) -> str:
    (tmp_path / "options.yaml").write_text(text)
    return str(tmp_path / "options.yaml")


def test_the_command_line_overrides_the_file_which_overrides_the_defaults(tmp_path):
    config = file(tmp_path, "steps: 20\nrate: 1e-3\nfast: true\nname: null\n")
    assert parse(Options, ["--config", config]) == Options(steps=20, rate=1e-3, fast=True)
    assert parse(Options, ["--steps", "30", f"--config={config}"]).steps == 30
    assert parse(Options, []) == Options()
    assert parse(Options, []).sizes == [1, 2] and parse(Options, ["--sizes", "4", "5", "--fast", "true"]).sizes == [
        4,
        5,
    ]


@dataclass
class Slower(Options):
    rate: float = with_default(Options, "rate", 0.01)


def test_another_default_keeps_the_text_and_the_bounds():
    assert parse(Slower, []).rate == 0.01 and parse(Options, []).rate == 0.1
    with pytest.raises(UsageError, match=r"--rate is 0\.0; it must be above"):
        parse(Slower, ["--rate", "0"])
    first, again = (next(f for f in dataclasses.fields(kind) if f.name == "rate") for kind in (Options, Slower))
    assert first.metadata == again.metadata


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepps: 3", "stepps is not an option; did you mean steps?"),
        ("steps: many", "--steps: invalid int value: 'many'"),
        ("steps: 0", "--steps is 0; it must be at least 1"),
        ("steps: 1000", "--steps is 1000; it must be at most 100"),
        ("kind: odd", "--kind is 'odd'; it must be one of plain, fancy"),
        ("sizes: [3, 0]", "--sizes is 0; it must be at least 1"),
        ("sizes: [3, x]", "--sizes: invalid int value: 'x'"),
        ("rate: .inf", "--rate is inf; it must be a finite number"),
        ("[1, 2]", "holds list; it must map options to values"),
        ("a: [", "not a YAML file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, text, message):
    with pytest.raises(UsageError) as error:
        parse(Options, ["--config", file(tmp_path, text)])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("words", [["--step", "3"], ["--steps", "3", "stray"], ["--no_such", "1"]])
def test_abbreviated_and_unknown_options_are_refused(words):
    with pytest.raises(UsageError, match="is not an option"):
        parse(Options, words)


@pytest.mark.parametrize("config", sorted(Path("training").rglob("*.yaml")), ids=lambda p: p.name)
def test_committed_configs_are_valid(config):
    """One of the recipes beside a config takes it whole."""
    taken = []
    for recipe in config.parent.glob("*.py"):
        module = importlib.import_module(".".join(recipe.with_suffix("").parts))
        for kind in vars(module).values():
            here = isinstance(kind, type) and kind.__module__ == module.__name__
            if here and issubclass(kind, CommonOptions):
                with contextlib.suppress(UsageError):
                    taken.append(parse(kind, ["--config", str(config)]))
    assert [options.output_dir for options in taken] == [f"runs/{config.stem}"]
