"""Options: a dataclass, a YAML file and the command line, checked in one place; a file from anywhere does no harm."""

import contextlib
import dataclasses
import importlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from training.autoencoders.vae import VAEOptions
from training.loops.run_options import CommonOptions, RunOptions
from training.options import LineParser, UsageError, check, option, parse, with_default


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
        ("[1, 2]", "holds a list; it must map options to values"),
        ("a: [", "not a YAML file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, text, message):
    with pytest.raises(UsageError) as error:
        parse(Options, ["--config", file(tmp_path, text)])
    assert message in str(error.value) and "\n" not in str(error.value)


BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{new}: &{new} [{f'*{old}, ' * 9}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "line 1: holds an anchor or an alias"),
        ("steps: 3\nrate: *x", "line 2: holds an anchor or an alias"),
        ("sizes: " + "[" * 40_000, "line 1: holds a list; a value must be a single one, or a flat list"),
        ("{" * 40_000, "line 1: holds a mapping; an option must be a word"),
        ("- " * 20_000, "line 1: holds a list; it must map options to values"),
        ("name: {a: 1}", "line 1: holds a mapping; a value must be a single one"),
        ("steps: " + "9" * 40_000, "line 1: a value of 40000 characters; it must have at most 4096"),
        ("steps: " + "9" * 4_000, "--steps is 99"),
        ("steps: 0x" + "f" * 4_000, "line 1: 0xffffffffffffffffff... is no number"),
        ("rate: 1e400", "--rate is inf; it must be a finite number"),
        ("name: " + "x" * 10**7, "it is larger than 50 kB"),
        ("steps: 3\nrate: 2\nsteps: 4", "line 3: names steps twice"),
        ("name: !!python/object/apply:os.system [ls]", "holds the tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("name: !!binary aGk=", "holds the tag"),
        ("<<: {steps: 3}", "holds a mapping"),
        ("3: 4", "3 is not an option"),
        ("[a]: 4", "holds a list; an option must be a word"),
        ("steps: 3\n---\nsteps: 4", "line 2: holds a second document"),
        ("sizes: [1, --fast]", "sizes holds nothing, or an option"),
        ("name: a\0b", "not a YAML file"),
        ("", "holds nothing; it must map options to values"),
    ],
)
def test_a_file_made_to_harm_is_one_line(tmp_path, text, message):
    with pytest.raises(UsageError) as error:
        parse(Options, ["--config", file(tmp_path, text)])
    said = str(error.value)
    assert message in said and "\n" not in said and len(said) <= 1_000


def test_dates_and_words_that_look_like_options_stay_text(tmp_path):
    assert parse(Options, ["--config", file(tmp_path, "name: 2024-01-01\nsizes: 3")]) == Options(
        name="2024-01-01", sizes=[3]
    )
    assert parse(Options, ["--config", file(tmp_path, "name: --fast\nfast: no")]) == Options(name="--fast")


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(UsageError, match=f"--config {name}: it is no regular file"):
            parse(Options, ["--config", str(name)])
    with pytest.raises(UsageError, match=r"--config x*.*x: .*too long"):
        parse(Options, ["--config", "x" * 300])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "1" + "0" * 10**6], "--steps: a value of 1000001 characters; it must have at most 4096"),
        (["--name=" + "x" * 5_000], "--name: a value of 5007 characters"),
        (["--steps", "1" + "0" * 400], "--steps is 1000"),
        (["--sizes", str(2**63)], f"--sizes is {2**63}; its size must be at most {2**63 - 1}"),
        (["--rate", "1e400"], "--rate is inf; it must be a finite number"),
        (["--kind", "a\nb\x1b[31m"], r"it must be one of plain, fancy"),
    ],
)
def test_words_of_the_command_line_are_bounded(words, message):
    with pytest.raises(UsageError) as error:
        parse(Options, words)
    said = str(error.value)
    assert message in said and said.isprintable() and len(said) <= 1_000


def test_a_message_is_one_line_that_can_be_printed():
    assert str(UsageError("a\n b\x1b[31m\0")) == r"a b\x1b[31m\x00"
    long = str(UsageError("begin " + "x" * 10**6 + " end"))
    assert len(long) == 1_000 and long.startswith("begin x") and long.endswith("x end")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "3"}, "--steps is '3'; it must be a whole number"),
        ({"steps": True}, "--steps is True; it must be a whole number"),
        ({"steps": 3.0}, "--steps is 3.0; it must be a whole number"),
        ({"rate": None}, "--rate is None; it must be a number"),
        ({"name": 3}, "--name is 3; it must be text or null"),
        ({"fast": 1}, "--fast is 1; it must be true or false"),
        ({"kind": ["plain"]}, "--kind is ['plain']; it must be one value"),
        ({"sizes": 3}, "--sizes is 3; it must be a list"),
        ({"sizes": [1, "2"]}, "--sizes is '2'; it must be a whole number"),
    ],
)
def test_values_of_other_types_are_refused(changes, message):
    """They come from files that keep options, like run.json; a command line is converted."""
    check(Options(rate=1))
    with pytest.raises(UsageError) as error:
        check(Options(**changes))
    assert message == str(error.value)


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


def test_words_of_a_file_stay_as_they_are_written_where_the_option_is_text(tmp_path):
    config = file(tmp_path, "name: no\nfast: no\nkind: plain\n")
    assert parse(Options, ["--config", config]) == Options(name="no", fast=False)
    for word in ("yes", "1e3", "010", "2026-01-02", "on"):
        assert parse(Options, ["--config", file(tmp_path, f"name: {word}\n")]).name == word


def test_the_home_is_written_out_in_files_and_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = file(tmp_path, "name: ~/runs\n")
    assert parse(Options, ["--config", config]).name == f"{tmp_path}/runs"
    assert parse(Options, ["--config=~/options.yaml", "--name=~/other"]).name == f"{tmp_path}/other"
    assert parse(Options, ["--name", "~"]).name == "~" and parse(Options, ["--name", "a~/b"]).name == "a~/b"
    parser = LineParser()
    parser.add_argument("--to", type=Path)
    assert parser.parse_args(["--to=~/x"]).to == tmp_path / "x"


def test_help_keeps_the_lines_groups_the_options_and_shows_choices_bounds_and_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    description = "Train.\n\n    python -m one\n    python -m two"
    with pytest.raises(SystemExit):
        parse(VAEOptions, ["--help"], description)
    said = capsys.readouterr().out
    assert description in said
    titles = [f"{name} options:" for name in ("model", "data", "training", "logging", "run")]
    assert [line for line in said.splitlines() if line in titles] == titles
    parts = {
        title: part
        for title, part in zip(titles, re.split("^(?:" + "|".join(titles) + ")$", said, flags=re.M)[1:], strict=True)
    }
    for group, name in (("model", "latent_dim"), ("data", "dataset"), ("training", "batch_size"), ("run", "seed")):
        assert re.search(rf"^  --{name}\b", parts[f"{group} options:"], re.M), name
    assert "--mixed_precision {no,bf16,fp16}" in said and "--mixed-precision" not in said
    assert re.search(r"--dropout X +dropout .*\(at least 0.0; at most 0.9; default: 0.0\)", said)
    assert re.search(r"--learning_rate X .*above 0.0; default: 0.001", said)


@pytest.mark.parametrize(
    "name", ["user/a--b", "user/a..b", "user/-x", "user/x.git", "user/имя", "user/" + "x" * 120, "x"]
)
def test_names_that_the_hub_refuses_are_refused_before_anything_is_done(name):
    with pytest.raises(UsageError, match=r"^--push_to_hub user/|^--push_to_hub x: must be a Hub id"):
        CommonOptions(push_to_hub=name)
    CommonOptions(push_to_hub="user/a-b_c.d")


@pytest.mark.parametrize(
    ("launcher", "given", "used", "from_launcher"),
    [(None, None, "no", ""), ("bf16", None, "bf16", "bf16"), ("bf16", "no", "no", ""), ("no", "bf16", "bf16", "")],
)
def test_the_precision_is_what_the_launcher_is_configured_to_unless_an_option_says_otherwise(
    launcher, given, used, from_launcher, monkeypatch
):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if launcher:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    options = RunOptions(mixed_precision=given)
    assert (options.mixed_precision, options.precision_of_launcher) == (used, from_launcher)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(UsageError, match="--mixed_precision is 'fp8'; it must be one of no, bf16, fp16"):
        check(RunOptions())
