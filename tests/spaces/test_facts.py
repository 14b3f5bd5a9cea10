"""What is known of a model before it is loaded, without a browser."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_module
from tests.spaces.conftest import kit_package


def different_checkpoints() -> list[Path]:
    """One of each pipeline and of each set of calls that it answers."""
    found = {}
    for file in sorted(ROOT.glob("checkpoints/*/model_index.json")):
        calls = json.loads((file.parent / "results.json").read_text())["calls"]
        found.setdefault((json.loads(file.read_text())["_class_name"], *calls), file.parent)
    return list(found.values())


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    with kit_package(tmp_path_factory.mktemp("kit")) as kit:
        yield kit.facts


CODE = '''
class Shared:
    def encode(self): return 1
    def decode(self): return 2
    def _check(self): return 3

class Model(Shared, Elsewhere):
    @property
    def likelihood(self): return "none"
    def stream(self): yield 0
    def decode(self):
        """It has no codes."""
        raise NotImplementedError("decode: there is none")
    def log_prob(self): raise NotImplementedError
    elbo = log_prob
    again = encode_twice = stream
'''


def test_calls_are_read_from_the_code_and_refusals_are_none(facts):
    assert facts.calls_in(CODE, "Model") == {"sample", "encode", "again", "encode_twice"}
    assert facts.calls_in(CODE, "Shared") == {"encode", "decode"}
    assert facts.calls_in(CODE, "Elsewhere") == frozenset()


@pytest.mark.parametrize("folder", different_checkpoints(), ids=lambda folder: folder.name)
def test_a_checkpoint_says_before_it_is_loaded_what_it_answers_when_it_is(facts, folder, tmp_path):
    from diffusers import DiffusionPipeline

    from training.publishing.build import build

    build(folder, tmp_path / "unrelated")
    known = facts.read_facts(str(tmp_path / "unrelated"))
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "unrelated", trust_remote_code=True)
    assert not known.problem and known.data_spec == dict(pipe.data_spec)
    assert known.parts.keys() == {name for name, part in pipe.components.items() if part is not None}
    classes = getattr(pipe, "num_classes", getattr(pipe, "_num_classes", None))
    assert known.num_classes == classes or classes is None
    assert known.options == json.loads((folder / "run.json").read_text())["options"]
    # the record says what this one answers; the code, what any of its class may
    recorded = json.loads((folder / "results.json").read_text())["calls"]
    assert known.calls == set(recorded) == set(getattr(pipe, "calls", recorded))
    (tmp_path / "unrelated" / "results.json").rename(tmp_path / "results.json")
    facts.read_facts.cache_clear()
    unmeasured = facts.read_facts(str(tmp_path / "unrelated")).calls
    assert unmeasured >= known.calls and all(callable(getattr(pipe, call)) for call in unmeasured - {"sample"})
    if pipe.likelihood == "none":
        assert not known.calls & {"sample", "log_prob", "elbo"}


def test_a_model_that_cannot_be_read_says_why(facts, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "model_index.json").write_text('{"_class_name": ')
    for address, word in (
        (tmp_path / "empty", "No such file"),
        (tmp_path / "cut", "Expecting value"),
        ("nowhere", "neither a folder"),
    ):
        known = facts.read_facts(str(address))
        assert word in known.problem and not known.calls and not known.data_spec and not known.takes_digits


def test_a_model_on_the_hub_is_known_without_its_weights_and_then_offline(portable, tiny_run, tmp_path):
    from tests.training.test_hub import running_hub

    shutil.copytree(ROOT / "spaces" / "kit", tmp_path / "kit")
    code = (
        "import sys; from kit.facts import read_facts; f = read_facts(sys.argv[1]); print(f.problem, sorted(f.calls))"
    )

    def told(environment: dict, address: str) -> str:
        environment = {**os.environ, **environment, "PYTHONPATH": str(tmp_path)}
        words = [sys.executable, "-c", code, address]
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout

    here = told({}, str(portable))
    assert "log_prob" in here
    with running_hub() as hub:
        environment = hub.environment(tmp_path / "home")
        done = run_module("training.publish", tiny_run, "--repo_id", "user/thing", env=environment)
        assert done.returncode == 0, done.stderr
        environment["HF_HOME"] = str(tmp_path / "reader")
        assert told(environment, "user/thing") == told(environment, "user/thing@main") == here
        assert "log_prob" not in told(environment, "user/nothing")
    assert not list((tmp_path / "reader").rglob("*.safetensors"))
    assert told({**environment, "HF_HUB_OFFLINE": "1"}, "user/thing") == here
