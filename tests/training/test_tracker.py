"""Experiment trackers: options of every kind reach them, and one that fails loses no run."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY, run_module
from training.adversarial.gan import main as gan
from training.autoencoders.vae import main as vae
from training.classical.density import main as density

DENSITY = ["--dataset", "moons", "--num_components", "2", "--pca_dim", "0"]
GAN = ["--dataset", "moons", "--network", "mlp", "--max_steps", "2", "--batch_size", "16", "--lr_warmup_steps", "0"]


def record_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize(("recipe", "words"), [(density, DENSITY), (gan, GAN)], ids=["fitted", "by steps"])
def test_options_that_are_lists_are_tracked(tmp_path, recipe, words):
    recipe([*words, "--report_to", "tensorboard", "--output_dir", str(tmp_path / "run")])
    record = record_of(tmp_path / "run")
    assert record["status"] == "finished" and not [w for w in record["warnings"] if "--report_to" in w["message"]]
    assert list((tmp_path / "run").rglob("events.out.tfevents*")) and list((tmp_path / "run").rglob("hparams.yml"))


@pytest.mark.parametrize(("recipe", "words"), [(density, DENSITY), (vae, TINY)], ids=["fitted", "by steps"])
def test_a_tracker_that_fails_loses_no_run(tmp_path, capsys, recipe, words):
    folder = tmp_path / "run"
    recipe([*words, "--output_dir", str(folder)])
    (folder / "genus").write_text("where TensorBoard would make its folder")
    recipe([*words, "--output_dir", str(folder), "--overwrite", "true", "--report_to", "tensorboard"])
    record = record_of(folder)
    said = [w["message"] for w in record["warnings"] if "--report_to" in w["message"]]
    assert record["status"] == "finished" and len(said) == 1
    assert said[0].startswith("--report_to tensorboard failed and is left alone from here on")
    assert said[0] in capsys.readouterr().err


def test_a_folder_of_the_trackers_name_is_no_tracker(tmp_path):
    (tmp_path / "wandb").mkdir()
    words = ["training.autoencoders.vae", *TINY, "--report_to", "wandb", "--output_dir", tmp_path / "run"]
    done = run_module(*words, env={"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])})
    assert done.returncode == 2
    assert done.stderr.strip() == "error: --report_to wandb: not installed; pip install wandb"
    assert not (tmp_path / "run").exists()
