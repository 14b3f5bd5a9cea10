"""The cards of all checkpoints: each block of Python runs as it is pasted, and the metadata are what the Hub knows."""

import json
import re

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard

from tests.conftest import ROOT
from training.publishing.build import build

FOLDERS = sorted(file.parent for file in ROOT.glob("checkpoints/*/run.json"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
# of the Hub's list of tasks, https://huggingface.co/tasks
TASKS = {
    "image-classification", "image-feature-extraction", "text-generation", "text-to-image", "unconditional-image-generation",
    "image-to-image", "feature-extraction", "fill-mask", "text-classification", "translation",
}  # fmt: skip


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def built(request, tmp_path_factory):
    """The portable folder of a checkpoint, which its card calls by its own name."""
    folder = tmp_path_factory.mktemp("cards") / request.param.name
    build(request.param, folder, is_loaded=False)
    return folder


@pytest.fixture(scope="module")
def card(built):
    return ModelCard.load(built / "README.md")


def test_every_block_of_python_runs_as_it_is_pasted(built, card, monkeypatch):
    """One after the other, as a reader would; the folder stands for the repository of its name."""
    monkeypatch.chdir(built.parent)
    fetched = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **given: fetched.append(name) or name)
    blocks, names = BLOCK.findall(card.text), {}
    assert len(blocks) >= 2 and "trust_remote_code=True" in card.text
    torch.manual_seed(0)
    for block in blocks:
        exec(compile(block, f"{built.name}/README.md", "exec"), names)
    assert fetched in ([built.name], []) and "pipe" in names
    drawn = names.get("images", names.get("points"))
    if "points" in names:
        assert "image" not in card.text.split("## Limits")[0].lower()
    found = json.loads((built / "results.json").read_text())
    if found.get("num_classes") and "sample" in found["calls"]:
        assert "class_labels=[0, 1]" in card.text and len(drawn) == 2


def test_the_metadata_are_what_the_hub_knows(card):
    data = card.data
    assert data.pipeline_tag in TASKS or data.pipeline_tag is None
    assert {result.task_type for result in data.eval_results or []} <= {data.pipeline_tag or "other"}
    assert data.license == "apache-2.0" and "genus" in data.tags
    assert (data.language == "en") == (data.pipeline_tag == "text-generation")


def test_the_first_lines_name_the_kind_the_paper_and_the_data(built, card):
    run = json.loads((built / "run.json").read_text())
    first = card.text.split("## ")[0]
    assert run["declaration"]["title"] in first and run["dataset"]["id"].split("/")[-1] in first
    links = re.findall(r"\]\((https://[^)]*)\)", first)
    assert all(link in links for link in (run["declaration"]["paper"], run["dataset"].get("url")) if link)
    if "/" in run["dataset"]["id"]:
        assert f"https://huggingface.co/datasets/{run['dataset']['id']}" in links
        assert card.data.datasets == [run["dataset"]["id"]]
