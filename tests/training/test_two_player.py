"""The two-player loop and the losses of its recipe."""

import json
import math
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pipelines.adversarial.modeling_gan import DiscriminatorModel
from pipelines.adversarial.pipeline_gan import GANPipeline
from tests.conftest import ROOT, run_module
from training.adversarial import gan
from training.adversarial.gan import GANOptions, gradient_penalty, make_losses
from training.loops import two_player
from training.options import UsageError

TINY = ["--max_steps", "6", "--eval_every", "3", "--save_every", "2", "--sample_every", "6", "--log_every", "2",
        "--generator_width", "8", "16", "--discriminator_width", "16", "8", "--latent_dim", "5"]  # fmt: skip
CONV = ["--network", "conv", "--generator_width", "4", "--discriminator_width", "4", "--generator_norm", "batch"]


def tiny(folder, *words) -> GANPipeline:
    gan.main(["--output_dir", str(folder), *TINY, *map(str, words)])
    return GANPipeline.from_pretrained(folder)


def weights(folder) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value
        for name in ("generator", "discriminator")
        for key, value in load_file(folder / name / "diffusion_pytorch_model.safetensors").items()
    }


def test_each_half_step_moves_its_own_player_and_all_of_it(tmp_path, monkeypatch):
    seen, moved = [], {"generator": set(), "discriminator": set()}
    plain = two_player.optimizer_step

    def watched(run, wrapped, optimizer, parameters, losses):
        players = {"generator": players_of[0], "discriminator": players_of[1]}
        before = {(n, k): v.clone() for n, p in players.items() for k, v in p.named_parameters()}
        terms = plain(run, wrapped, optimizer, parameters, losses)
        changed = {
            (n, k) for n, p in players.items() for k, v in p.named_parameters() if not torch.equal(v, before[n, k])
        }
        names = {n for n, _ in changed}
        assert len(names) == 1
        seen.append(names.pop())
        for n, k in changed:
            moved[n].add(k)
        return terms

    build = gan.build_players

    def kept(options, source):
        players_of[:] = build(options, source)
        return tuple(players_of)

    players_of: list = []
    monkeypatch.setattr(two_player, "optimizer_step", watched)
    monkeypatch.setattr(gan, "build_players", kept)
    tiny(tmp_path / "run", "--n_critic", 2, "--conditional", "true")
    assert seen == ["discriminator", "discriminator", "generator"] * 6
    for name, player in zip(("generator", "discriminator"), players_of, strict=True):
        assert moved[name] == {k for k, _ in player.named_parameters()}


@pytest.mark.parametrize(
    "words", [["--objective", "wasserstein", "--n_critic", "2"], [*CONV, "--conditional", "true", "--dropout", "0.3"]]
)
def test_a_resumed_run_ends_with_the_same_players(words, tmp_path, capsys):
    tiny(tmp_path / "whole", *words)
    tiny(tmp_path / "parts", *words)
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "step-00000006")
    tiny(tmp_path / "parts", *words, "--resume", "true")
    assert "going on from step 4" in capsys.readouterr().err
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys() and all(torch.equal(whole[k], parts[k]) for k in whole)


def test_two_processes_resume_alike(tmp_path):
    def run(folder, *words):
        line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m",
                "training.adversarial.gan", "--output_dir", folder, *TINY, "--objective", "wasserstein", *words]  # fmt: skip
        env = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        done = subprocess.run([str(w) for w in line], cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        record = json.loads((folder / "run.json").read_text())
        assert record["processes"] == 2 and record["status"] == "finished"
        return done.stderr

    run(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "step-00000006")
    assert "going on from step 4" in run(tmp_path / "parts", "--resume", "true")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


def test_the_average_of_the_generator_keeps_its_buffers(tmp_path):
    pipe = tiny(tmp_path / "run", *CONV, "--ema_decay", "0.5")
    assert not torch.equal(
        pipe.generator.layers[0].running_mean, torch.zeros_like(pipe.generator.layers[0].running_mean)
    )
    pipe.set_progress_bar_config(disable=True)
    alone = pipe(latents=torch.ones(1, 5), output_type="pt").images
    together = pipe(latents=torch.cat([torch.ones(1, 5), torch.randn(7, 5)]), output_type="pt").images
    torch.testing.assert_close(alone[0], together[0])


def test_the_log_names_its_terms_and_the_figure_of_diversity(tmp_path):
    tiny(tmp_path / "run", "--objective", "wasserstein")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {"discriminator_wasserstein_estimate", "discriminator_gradient_penalty", "generator_loss"} <= lines[0].keys()
    assert any("diversity" in line for line in lines)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "lost diversity: samples lie" in record["warnings"][0]["message"] and record["warnings"][0]["step"] == 3


# Objectives


class Linear(nn.Module):
    """C(x) = w x, of which the gradient is w everywhere."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x, class_labels=None, return_dict=False):
        return (x.flatten(1) @ self.w,)


def test_the_gradient_penalty_of_a_linear_critic_is_its_closed_form():
    w = torch.tensor([1.0, 2.0, 2.0])
    critic = Linear(w)
    penalty = gradient_penalty(critic, torch.randn(7, 3), torch.randn(7, 3))
    assert penalty.item() == pytest.approx((3 - 1) ** 2)
    penalty.backward()
    torch.testing.assert_close(critic.w.grad, 2 * (3 - 1) * w / 3)


class Still(nn.Module):
    """A generator that always draws the same place."""

    def __init__(self, place: float):
        super().__init__()
        self.place = nn.Parameter(torch.tensor(place))

    def forward(self, z, class_labels=None, return_dict=False):
        return (self.place.expand(len(z), 1),)


def games(objective: str):
    return make_losses(GANOptions(objective=objective, latent_dim=2))


def test_at_equal_densities_the_value_of_the_game_is_minus_two_log_two():
    """V = E log D + E log(1 - D) of the best discriminator, 1/2 everywhere; the loss is -V."""
    loss = games("non_saturating")[0](Still(1.0), Linear(torch.zeros(1)), {"x": torch.ones(64, 1)}, 0)["loss"]
    assert -loss.item() == pytest.approx(-2 * math.log(2), abs=1e-5)


@pytest.mark.parametrize("objective", ["minimax", "non_saturating", "wasserstein"])
def test_the_losses_are_those_of_the_game(objective):
    """Data at 2, samples at -1, and a logit (or value) of 3 x: in closed form."""
    discriminator_loss, generator_loss = games(objective)
    generator, critic = Still(-1.0), Linear(torch.tensor([3.0]))
    found = discriminator_loss(generator, critic, {"x": torch.full((5, 1), 2.0)}, 0)
    own = generator_loss(generator, critic, {"x": torch.full((5, 1), 2.0)}, 0)["loss"].item()
    real, fake = 1 / (1 + math.exp(-6)), 1 / (1 + math.exp(3))
    if objective == "wasserstein":
        assert found["wasserstein_estimate"].item() == pytest.approx(6 - -3)
        assert found["loss"].item() == pytest.approx(10 * (3 - 1) ** 2 - 9) and own == pytest.approx(3)
    else:
        assert found["loss"].item() == pytest.approx(-math.log(real) - math.log(1 - fake), rel=1e-5)
        assert found["confidence_in_data"].item() == pytest.approx(real)
        assert found["confidence_in_samples"].item() == pytest.approx(fake)
        assert own == pytest.approx(math.log(1 - fake) if objective == "minimax" else -math.log(fake), rel=1e-5)


@pytest.mark.parametrize("objective", ["minimax", "non_saturating", "wasserstein"])
def test_the_generator_climbs_where_the_discriminator_says_real(objective):
    _, generator_loss = make_losses(GANOptions(objective=objective, latent_dim=2))

    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.by = nn.Parameter(torch.zeros(2))

        def forward(self, z, class_labels=None, return_dict=False):
            return (z + self.by,)

    generator = Shift()
    generator_loss(generator, Linear(torch.tensor([1.0, 0.0])), {"x": torch.randn(64, 2)}, 0)["loss"].backward()
    assert generator.by.grad[0] < 0 and generator.by.grad[1] == 0


def test_where_samples_are_rejected_for_sure_only_minimax_stops_teaching():
    """grad log(1 - D) vanishes with D, grad -log D does not: section 3 of arXiv 1406.2661."""
    slopes = {}
    for objective in ("minimax", "non_saturating"):
        generator = Still(-20.0)
        games(objective)[1](generator, Linear(torch.ones(1)), {"x": torch.zeros(4, 1)}, 0)["loss"].backward()
        slopes[objective] = generator.place.grad.item()
    assert abs(slopes["minimax"]) < 1e-8 and slopes["non_saturating"] == pytest.approx(-1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n_critic", "0"], "--n_critic is 0; it must be at least 1"),
        (
            ["--objective", "wasserstein", "--discriminator_norm", "batch"],
            "--discriminator_norm is 'batch', but the gradient",
        ),
        (["--network", "conv"], "--generator_width is 128 256; with --network conv it must be one number"),
        (["--objective", "hinge"], "--objective is 'hinge'; it must be one of minimax"),
        (["--dataset", "ring", *CONV], "--dataset ring: network 'conv' takes images"),
        (["--dataset", "checkerboard", "--conditional", "true"], "--dataset checkerboard: conditional is True"),
    ],
)
def test_what_does_not_fit_is_one_line(words, message, tmp_path):
    with pytest.raises(UsageError) as error:
        gan.main(["--output_dir", str(tmp_path / "run"), *words])
    assert message in str(error.value) and not (tmp_path / "run").exists()


def test_the_command_line_ends_with_2(tmp_path):
    done = run_module("training.adversarial.gan", "--output_dir", tmp_path / "run", "--n_critic", "0")
    assert done.returncode == 2 and done.stderr.strip().endswith("--n_critic is 0; it must be at least 1")


def test_a_discriminator_with_batch_norm_is_no_function_of_one_x():
    """Why the gradient penalty refuses it."""
    torch.manual_seed(0)
    spec = {
        "kind": "vector",
        "shape": [3],
        "support": "real",
        "range": None,
        "dequantization": "none",
        "num_classes": 0,
    }
    for norm, alone in (("batch", False), ("layer", True), ("none", True)):
        critic = DiscriminatorModel(spec, width=(8, 8), norm=norm).train()
        x = torch.randn(4, 3)
        changed = x.clone()
        changed[1:] += 3
        assert torch.allclose(critic(x).value[0], critic(changed).value[0], atol=1e-6) == alone
