"""What the diffusion Space says, against what was measured and what its models do; without a browser."""

import json

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
