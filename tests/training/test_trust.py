"""Code of others: it runs where a person says so, or where it is verified to be this project's, and never unasked."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.foreign_code import LANGUAGE, PLAIN, added, changed, entry, honest_name, linked
from pipelines.autoencoders.modeling_vae import VAEModel
from tests.conftest import ROOT, run_here
from tests.training.test_hub import running_hub
from training import folders
from training.components import load_component, load_weights
from training.folders import local_folder
from training.options import UsageError
from training.publishing import build


@pytest.fixture
def foreign(tmp_path):
    """A portable folder with a pipeline that does more: it leaves a mark in the environment when it is imported."""
    build.build(ROOT / "checkpoints" / PLAIN, tmp_path / PLAIN)
    honest_name(tmp_path / PLAIN)
    os.environ.pop("FOREIGN", None)
    yield tmp_path / PLAIN
    os.environ.pop("FOREIGN", None)


def test_foreign_code_is_not_evaluated_unasked(foreign):
    words = ("training.evaluate", foreign, "--only", "kept_rows")
    done = run_here(*words)
    assert done.returncode == 2 and "FOREIGN" not in os.environ and len(done.stderr.strip().splitlines()) == 1
    assert f"error: {foreign}: carries code that is not known to be this project's (BAD" in done.stderr
    assert f"--verify {foreign}, or run it by --trust_remote_code true" in done.stderr
    done = run_here(*words, "--trust_remote_code", "true")
    assert done.returncode == 0 and os.environ["FOREIGN"] == "ran", done.stderr


def test_a_portable_folder_of_this_project_is_evaluated(tmp_path):
    build.build(ROOT / "checkpoints" / PLAIN, tmp_path / PLAIN)
    done = run_here("training.evaluate", tmp_path / PLAIN, "--only", "kept_rows")
    assert done.returncode == 0, done.stderr


def test_a_component_brings_weights_and_no_code(foreign, tmp_path):
    model = load_component(str(foreign), "vae", VAEModel)
    load_weights(model, str(foreign), "vae")
    assert "FOREIGN" not in os.environ
    language = changed(ROOT / "checkpoints" / LANGUAGE, tmp_path / LANGUAGE, added("evil.py"))
    classes = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    entry("config.json", "auto_map", value=classes)(language)
    entry("tokenizer_config.json", "auto_map", value={"AutoTokenizer": ["evil.Tokenizer", None]})(language)
    loaded = load_component(str(language), None, AutoModelForCausalLM, dtype=torch.float32)
    words = load_component(str(language), None, AutoTokenizer)
    assert type(loaded).__name__ == "GPT2LMHeadModel" and len(words) == loaded.config.vocab_size
    assert "FOREIGN" not in os.environ
    entry("config.json", "model_type", value="evil")(language)  # of a class that only that code has
    with pytest.raises(UsageError, match="holds no AutoModelForCausalLM that can be loaded"):
        load_component(str(language), None, AutoModelForCausalLM)
    assert "FOREIGN" not in os.environ


@pytest.mark.parametrize(
    "change",
    [
        entry("vae/config.json", "quantization_config", value={"quant_method": "evil"}),
        entry("vae/config.json", "_attn_implementation", value="other/kernel"),
        linked("vae", ""),
        linked("vae/diffusion_pytorch_model.safetensors", ""),
        linked("vae/config.json", ""),
        lambda folder: (folder / "vae" / "config.json").write_bytes(b"[" * 100_000),
    ],
)
def test_a_component_that_asks_for_more_is_one_line(change, tmp_path):
    folder = changed(ROOT / "checkpoints" / PLAIN, tmp_path / PLAIN, change)
    with pytest.raises(UsageError) as error:
        load_component(str(folder), "vae", VAEModel)
    assert "\n" not in str(error.value)


def test_a_component_s_name_leads_nowhere_else(tmp_path):
    for name in ("../vae", "/etc", ".vae", "a/b", ""):
        with pytest.raises(UsageError, match="a name is of letters, digits, _ and -"):
            load_component(str(ROOT / "checkpoints" / PLAIN), name, VAEModel)


def test_links_are_those_of_the_client_s_cache_or_none(tmp_path):
    repository = tmp_path / "models--user--tiny"
    snapshot = repository / "snapshots" / ("a" * 40)
    (repository / "blobs").mkdir(parents=True)
    (repository / "blobs" / "1").write_text("{}")
    (tmp_path / "elsewhere").write_text("secret")
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/1")
    assert [file.name for file in folders.plain_files(snapshot)] == ["config.json"]
    for to in ("../../../elsewhere", "../../blobs/none", "../../blobs", str(tmp_path / "elsewhere")):
        (snapshot / "x.json").symlink_to(to)
        with pytest.raises(UsageError, match=r"x\.json: is a link"):
            folders.plain_files(snapshot)
        (snapshot / "x.json").unlink()


ON_THE_HUB = """
    import json, os, shutil, sys, tempfile
    from pathlib import Path
    from huggingface_hub import HfApi
    from benchmarks.foreign_code import PLAIN, ROOT, added, build, changed, honest_name
    from pipelines.autoencoders.modeling_vae import VAEModel
    from training import folders
    from training.components import component_folder
    from training.options import UsageError
    from training.publishing.loading import load
    from training.publishing.verify import verify

    api, place, said = HfApi(), Path(tempfile.mkdtemp()), {}
    build(ROOT / "checkpoints" / PLAIN, place / "good")
    changed(place / "good", place / "foreign", honest_name)
    changed(place / "good", place / "more", added("pytorch_model.bin", b"PK"))
    added("vae/native.so", b"ELF")(place / "more")
    for number in range(510):
        added(f"x/{number}.json", b"{}")(place / "many")
    for name in ("good", "foreign", "more", "many"):
        api.create_repo(f"user/{name}")
        api.upload_folder(repo_id=f"user/{name}", folder_path=place / name)

    def ended(call):
        try:
            return call()
        except UsageError as error:
            return str(error)

    said["good"] = verify("user/good")
    said["foreign"] = verify("user/foreign")[0]
    said["more"] = verify("user/more")
    said["many"] = ended(lambda: verify("user/many"))
    said["load foreign"] = ended(lambda: load("user/foreign"))
    said["ran unasked"] = "FOREIGN" in os.environ
    said["load good"] = type(load("user/good")).__name__
    # what is published meanwhile is not what was looked at
    first = folders.local_folder("user/good").name
    api.upload_folder(repo_id="user/good", folder_path=place / "foreign", delete_patterns="*")
    said["the same commit"] = first == folders.local_folder("user/good").name == component_folder("user/good", "vae").parent.name
    said["still good"] = type(load("user/good")).__name__
    load("user/foreign", trust=True)
    said["ran when trusted"] = os.environ.get("FOREIGN")
    print(json.dumps(said))
"""


def test_a_repository_is_verified_and_loaded_at_one_commit_and_no_more_is_fetched(tmp_path):
    with running_hub() as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "home")}
        command = [sys.executable, "-c", textwrap.dedent(ON_THE_HUB)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        fetched = [line for line in hub.ask("/_/log") if "/resolve/" in line]
    said = json.loads(done.stdout.splitlines()[-1])
    good, lines = said["good"]
    assert good and all(line.startswith("ok ") for line in lines) and len(lines) > 8
    assert said["foreign"] is False
    good, lines = said["more"]
    assert not good and "BAD vae/native.so: no build of this model makes such a file" in lines
    assert "BAD pytorch_model.bin: may hold a pickle, which runs code when it is loaded" in lines
    assert "holds 51" in said["many"] and "at most 500 files" in said["many"]
    assert not [line for line in fetched if "native.so" in line or ".bin" in line or "/many/" in line]
    assert said["load foreign"].startswith("user/foreign: carries code that is not known to be this project's")
    assert said["ran unasked"] is False and said["ran when trusted"] == "ran"
    assert said["load good"] == said["still good"] == "VAEPipeline" and said["the same commit"]


def test_a_repository_of_many_gigabytes_is_not_fetched():
    with pytest.raises(
        UsageError, match=r"user/large: holds 2 files of 12.0 GB; at most 500 files of 10 GB are fetched"
    ):
        folders._check_size("user/large", [6_000_000_000] * 2)
    with pytest.raises(UsageError, match="neither a folder nor a repository on the Hub"):
        local_folder("nobody/nothing")
