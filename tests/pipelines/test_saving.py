"""A pipeline that was loaded with its code, saved or pushed, and loaded again where nothing of ours is."""

import importlib
import json

import pytest
import torch

from pipelines.saving import settings_of
from tests.conftest import ROOT
from tests.training.test_hub import DRAW_FROM_THE_HUB, running_hub
from tests.training.test_publish import alone
from training.publishing.build import build

# loads each folder of a list, writes what it answers, and saves it again
AGAIN = """
    import json, sys, torch
    from pathlib import Path
    from diffusers import DiffusionPipeline
    from transformers import pipeline

    def numbers(answer):
        parts = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, (list, tuple)) else [answer]
        return [torch.as_tensor(part) for part in parts]

    for source, to in json.loads(Path(sys.argv[1]).read_text()):
        seed = torch.Generator().manual_seed(7)
        if Path(source, "model_index.json").exists():
            pipe = DiffusionPipeline.from_pretrained(source, trust_remote_code=True)
            pipe.set_progress_bar_config(disable=True)
            x = torch.load(Path(source).parent / "x.pt")
            given = {"batch_size": 2, "generator": seed, "output_type": "pt"} if "sample" in pipe.calls else {}
            answer = pipe(**given) if given else pipe(x)
        else:
            pipe = pipeline(model=source, trust_remote_code=True, device="cpu")
            answer = pipe("The ", 20, generator=seed)["token_ids"]
        torch.save(numbers(answer), f"{to}.pt")
        pipe.save_pretrained(to)
    assert not any(m.split(".")[0] in ("pipelines", "training") for m in sys.modules), "our code was imported"
"""


def test_two_generations_of_saving_and_loading_draw_the_same(tmp_path):
    """One pipeline of each class, each generation in a process of its own; no folder names a place, all carry code."""
    from tests.test_contract import FIRST, INSTANCES

    folders = []
    for name in FIRST.values():
        instance = INSTANCES[name]
        if instance.is_diffusers:
            place = tmp_path / name.replace(" ", "-")
            pipe = instance.make()
            pipe.save_pretrained(place / "saved")
            torch.save(instance.x(pipe), place / "x.pt")
            build(place / "saved", place / "0", is_loaded=False)
            folders.append(place)
    build(ROOT / "checkpoints" / "gpt-python-docs", tmp_path / "gpt" / "0", is_loaded=False)
    folders.append(tmp_path / "gpt")
    for generation in range(3):
        pairs = [[str(place / str(generation)), str(place / str(generation + 1))] for place in folders]
        (tmp_path / "pairs.json").write_text(json.dumps(pairs))
        alone(AGAIN, tmp_path / "pairs.json", home=tmp_path / f"home-{generation}")
    for place in folders:
        answers = [torch.load(place / f"{generation}.pt") for generation in (1, 2, 3)]
        assert len(answers[0]) and all(
            torch.equal(a, b) for other in answers[1:] for a, b in zip(answers[0], other, strict=True)
        ), place
        files = [
            sorted(p.relative_to(place / g).as_posix() for p in (place / g).rglob("*.py")) for g in ("0", "1", "3")
        ]
        assert files[0] == files[1] == files[2] and files[0], place
        for file in (place / "3").rglob("*.json"):
            assert "_name_or_path" not in file.read_text() and str(tmp_path) not in file.read_text(), file
    built, again = (json.loads((tmp_path / "vae" / g / "model_index.json").read_text()) for g in ("0", "3"))
    assert built == again


def test_from_the_repository_it_is_saved_as_diffusers_saves_it(tmp_path):
    from pipelines.autoencoders.pipeline_vae import VAEPipeline
    from tests.pipelines.test_vae import INSTANCES

    INSTANCES["vae"].make().save_pretrained(tmp_path / "first")
    VAEPipeline.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    assert not list(tmp_path.rglob("*.py"))
    for file in tmp_path.glob("second/**/*.json"):
        assert str(tmp_path) not in file.read_text(), file
    index = json.loads((tmp_path / "second" / "model_index.json").read_text())
    assert index["_class_name"] == "VAEPipeline" and index["vae"] == ["pipelines.autoencoders.modeling_vae", "VAEModel"]


def test_a_network_that_was_of_no_pipeline_has_no_settings():
    assert settings_of(torch.nn.Linear(1, 1), None) == {}


PUSH = """
    import sys
    from diffusers import DiffusionPipeline
    pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
    pipe.push_to_hub("user/pushed")
    pipe.save_pretrained("here", push_to_hub=True, repo_id="user/saved", private=True)
"""
PUSH_TEXT = """
    import sys
    from transformers import pipeline
    pipe = pipeline(model=sys.argv[1], trust_remote_code=True, device="cpu")
    pipe.save_pretrained("here", push_to_hub=True, repo_id="user/text")
"""
LOAD_TEXT = """
    from transformers import pipeline
    assert pipeline(model="user/text", trust_remote_code=True, device="cpu")("The ", 3)["token_ids"]
"""


def test_what_is_pushed_carries_its_code(portable, tmp_path):
    build(ROOT / "checkpoints" / "gpt-python-docs", tmp_path / "gpt", is_loaded=False)
    with running_hub() as hub:
        environment = hub.environment(tmp_path / "home")
        alone(PUSH, portable, home=tmp_path / "home", **environment)
        alone(PUSH_TEXT, tmp_path / "gpt", home=tmp_path / "home", **environment)
        code = {file.relative_to(portable).as_posix() for file in portable.rglob("*.py")}
        for repo in ("user/pushed", "user/saved"):
            assert code < set(hub.files(f"model/{repo}")) and "README.md" in hub.files(f"model/{repo}")
            alone(DRAW_FROM_THE_HUB, repo, tmp_path / f"{repo[5:]}.pt", home=tmp_path / repo[5:], **environment)
        assert torch.equal(torch.load(tmp_path / "pushed.pt"), torch.load(tmp_path / "saved.pt"))
        alone(LOAD_TEXT, home=tmp_path / "text", **environment)


PICKLED = """
    import pickle, sys, torch
    from diffusers import DiffusionPipeline
    pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
    for name, part in pipe.components.items():
        again = pickle.loads(pickle.dumps(part))
        assert all(torch.equal(a, b) for a, b in zip(part.state_dict().values(), again.state_dict().values())), name
"""


@pytest.mark.parametrize("family", ["gan", "vae"])
def test_the_networks_of_a_loaded_pipeline_pickle(family, tmp_path):
    """Also where two of them are defined in one file."""
    instances = importlib.import_module(f"tests.pipelines.test_{family}").INSTANCES
    instances[family].make().save_pretrained(tmp_path / "saved")
    build(tmp_path / "saved", tmp_path / "built", is_loaded=False)
    alone(PICKLED, tmp_path / "built", home=tmp_path / "home")
