"""Components: a model that others are made of, from a run, a checkpoint, a portable folder or the Hub."""

import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from pipelines.autoencoders.modeling_autoencoder import AutoencoderModel
from pipelines.autoencoders.modeling_vae import VAEModel
from tests.conftest import ROOT, run_module
from tests.training.test_hub import running_hub
from training.components import component_folder, load_component, load_weights
from training.options import UsageError
from training.publishing import build

FILE = "diffusion_pytorch_model.safetensors"
FROM_THE_HUB = """
    import sys, torch
    from pipelines.autoencoders.modeling_vae import VAEModel
    from training.components import load_component
    from training.options import UsageError
    torch.save(load_component(sys.argv[1], "vae", VAEModel).state_dict(), sys.argv[2])
    for wrong, named in (("user/parts@v9", "--prior_from"), ("user/parts@v2", "--prior_from")):
        try:
            load_component(wrong, "prior", VAEModel, named)
        except UsageError as error:
            print(error)
"""


@pytest.fixture(scope="module")
def weights(tiny_run) -> dict[str, torch.Tensor]:
    return VAEModel.from_pretrained(tiny_run / "vae").state_dict()


def equal(model, weights: dict) -> bool:
    found = model.state_dict()
    return found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)


def test_a_run_a_checkpoint_and_a_portable_folder_give_the_same_component(tiny_run, portable, weights, tmp_path):
    build.checkpoint(tiny_run, tmp_path / "kept", None)
    for source in (tiny_run, tmp_path / "kept", portable):
        model = load_component(str(source), "vae", VAEModel)
        assert type(model) is VAEModel and equal(model, weights)
    build.checkpoint(tiny_run, tmp_path / "half", "float16")
    half = load_component(str(tmp_path / "half"), "vae", VAEModel)
    assert half.dtype == torch.float32  # whatever the file holds
    other = VAEModel(**{k: v for k, v in half.config.items() if not k.startswith("_")})
    load_weights(other, str(tiny_run), "vae")
    assert equal(other, weights)


def test_the_hub_gives_it_at_a_revision(tiny_run, weights, tmp_path):
    with running_hub() as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "home")}
        words = (tiny_run, "--repo_id", "user/parts", "--revision", "v2")
        assert run_module("training.publish", *words, env=environment).returncode == 0
        command = [sys.executable, "-c", textwrap.dedent(FROM_THE_HUB), "user/parts@v2", str(tmp_path / "vae.pt")]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        fetched = [line for line in hub.ask("/_/log") if "/resolve/" in line and line.startswith("GET")]
    found = torch.load(tmp_path / "vae.pt")
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert fetched and all("/vae/" in line for line in fetched)  # the component alone
    unknown, lacking = done.stdout.splitlines()
    assert unknown.startswith("--prior_from user/parts@v9: neither a folder nor a repository on the Hub (")
    assert lacking == "--prior_from user/parts@v2: holds no prior/config.json"


def one_line(call) -> str:
    with pytest.raises(UsageError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_no_such_component_is_one_line(tiny_run, tmp_path):
    source = str(tiny_run)
    said = one_line(lambda: load_component(source, "prior", VAEModel, "--prior_from"))
    assert said == f"--prior_from {source}: holds no prior/config.json"
    said = one_line(lambda: load_component(source, "vae", AutoencoderModel, "--tangents"))
    reason = "its class is VAEModel, not AutoencoderModel"
    assert said == f"--tangents {source}: holds no vae that can be loaded ({reason})"
    said = one_line(lambda: load_component(source, None, AutoTokenizer, "--tokenizer_from"))
    assert said.startswith(f"--tokenizer_from {source}: holds no AutoTokenizer that can be loaded (")
    said = one_line(lambda: component_folder("nobody/nothing", "vae", "--base_from"))
    assert said.startswith("--base_from nobody/nothing: neither a folder nor a repository on the Hub (")
    state = load_file(tiny_run / "vae" / FILE)
    (tmp_path / "less" / "vae").mkdir(parents=True)
    shutil.copyfile(tiny_run / "vae" / "config.json", tmp_path / "less" / "vae" / "config.json")
    save_file({k: v for k, v in state.items() if k != "encoder.last.bias"}, tmp_path / "less" / "vae" / FILE)
    said = one_line(lambda: load_component(str(tmp_path / "less"), "vae", VAEModel))
    assert said.endswith("holds no vae that can be loaded (its weights lack encoder.last.bias)")
    for name, content in (("config.json", "{"), (FILE, "cut short")):
        damaged = tmp_path / name
        shutil.copytree(tiny_run / "vae", damaged / "vae")
        (damaged / "vae" / name).write_text(content)
        said = one_line(lambda place=damaged: load_component(str(place), "vae", VAEModel))
        assert said.startswith(f"--init_from {damaged}: holds no vae that can be loaded (")


def test_weights_of_another_shape_are_one_line(tiny_run, tmp_path):
    config = json.loads((tiny_run / "vae" / "config.json").read_text())
    wider = VAEModel(**{k: v for k, v in config.items() if not k.startswith("_")} | {"width": 48})
    said = one_line(lambda: load_weights(wider, str(tiny_run), "vae"))
    assert said.startswith(f"--init_from {tiny_run}: its weights do not fit this model (size mismatch")
    said = one_line(lambda: load_weights(wider, str(tiny_run), "denoiser"))
    assert said == f"--init_from {tiny_run}: holds no denoiser/config.json"
    (tmp_path / "vae").mkdir()
    shutil.copyfile(tiny_run / "vae" / "config.json", tmp_path / "vae" / "config.json")
    said = one_line(lambda: load_weights(wider, str(tmp_path), "vae"))
    assert said == f"--init_from {tmp_path}: holds no vae/{FILE}"
