"""What the diffusion Space says, against what was measured and what its models do; without a browser."""

import dataclasses
import json
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT
from tests.spaces.conftest import kit_package, module_at

CHECKPOINTS = [ROOT / "checkpoints" / name for name in ("ddpm-mnist", "ddpm-digits", "ddpm-2d")]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The module of the Space that knows the models."""
    with pytest.MonkeyPatch.context() as patch, kit_package(tmp_path_factory.mktemp("kit")):
        patch.setenv("MODEL_ID", ",".join(map(str, CHECKPOINTS)))
        with module_at(ROOT / "spaces" / "diffusion" / "diffusion_models.py") as module:
            yield module


def test_guidance_starts_where_the_models_own_table_is_best(models):
    rows = json.loads((CHECKPOINTS[0] / "results.json").read_text())["sweeps"]["guidance_scale"]["rows"]
    best = min(rows, key=lambda row: row["frechet_distance"])["value"]
    assert models.own_guidance("ddpm-mnist") == best == 1.3
    assert models.guidance_control().value == best
    assert models.update_class_and_guidance("ddpm-digits")[1] == 1.0
    assert models.own_guidance(None) == 1.0


def test_what_the_network_predicts_follows_its_schedule(models, monkeypatch):
    assert "predicts $v = " in models.what_it_predicts("ddpm-mnist")
    for kind, said in (("epsilon", "predicts the **noise**"), ("sample", "predicts the image **$x_0$**")):
        facts = dataclasses.replace(models.FACTS["ddpm-mnist"], config={"schedule": {"prediction_type": kind}})
        monkeypatch.setitem(models.FACTS, "ddpm-mnist", facts)
        assert said in models.what_it_predicts("ddpm-mnist")
    monkeypatch.setitem(models.FACTS, "ddpm-mnist", dataclasses.replace(models.FACTS["ddpm-2d"], config={}))
    assert models.what_it_predicts("ddpm-mnist") == models.what_it_predicts(None) == ""


def test_the_last_step_is_the_end(models):
    steps = [SimpleNamespace(step=i, num_steps=3, timestep=t) for i, t in enumerate((999, 666, 333))]
    said = [models.progress_of(step) for step in steps]
    assert said[0] == "step **1** of 3, from t = 999" and said[1].endswith("t = 666")
    assert said[2] == "step **3** of 3, the end: t = 0, and x is x₀"


def test_no_solver_clips_points_to_the_range_of_pixels(models):
    from diffusers import DDPMScheduler

    pipe = SimpleNamespace(scheduler=DDPMScheduler(prediction_type="v_prediction"), data_spec={"kind": "vector"})
    config = {name: value for name, value in pipe.scheduler.config.items() if name != "clip_sample"}
    pipe.scheduler = SimpleNamespace(config=config)
    for solver in models.SOLVERS:
        assert not models.with_solver(pipe, solver).scheduler.config.get("clip_sample")
    pipe.data_spec = {"kind": "image"}
    assert models.with_solver(pipe, "DDIM").scheduler.config.clip_sample
