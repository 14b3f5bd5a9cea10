"""The recipe of the hierarchical VAE: what it leaves, what it warns of and refuses."""

import json

import pytest
import torch

from pipelines.autoencoders.pipeline_hierarchical_vae import HierarchicalVAEPipeline
from training.autoencoders import hierarchical_vae
from training.autoencoders.hierarchical_vae import HierarchicalVAEOptions
from training.data.images import load_data
from training.options import UsageError, parse

SHORT = ["--max_steps", "12", "--width", "32", "--upper_width", "16", "--batch_size", "64", "--log_every", "4",
         "--save_every", "4", "--eval_every", "4", "--sample_every", "12", "--lr_warmup_steps", "2"]  # fmt: skip


def test_a_run_leaves_a_pipeline_and_the_kl_of_every_level(tmp_path):
    words = ["--output_dir", str(tmp_path / "run"), *SHORT, "--latent_dims", "6", "4", "2"]
    hierarchical_vae.main(words)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["family"], record["status"], record["step"]) == ("hierarchical-vae", "finished", 12)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {"loss", "reconstruction", "kl_1", "kl_2", "kl_3"} <= lines[0].keys()
    last = [line for line in lines if "validation" in line][-1]
    assert {"validation_kl_3", "active_units_1", "active_units_2", "active_units_3"} <= last.keys()
    beta = 13 / 500  # validation weighs the terms as the step after the last would
    kl = sum(last[f"validation_kl_{level}"] for level in (1, 2, 3))
    assert last["validation"] == pytest.approx(last["validation_reconstruction"] + beta * kl, rel=1e-4)
    assert (tmp_path / "run" / "samples.png").read_bytes().startswith(b"\x89PNG")
    pipe = HierarchicalVAEPipeline.from_pretrained(tmp_path / "run")
    assert pipe.latent_dims == [6, 4, 2] and len(pipe(batch_size=2).images) == 2
    assert record["parameters"] == sum(p.numel() for p in pipe.hierarchical_vae.parameters())


def test_training_lowers_the_bound(tmp_path):
    words = [*SHORT, "--max_steps", "200", "--eval_every", "50", "--kl_warmup_steps", "20"]
    hierarchical_vae.main(["--output_dir", str(tmp_path / "run"), *words])
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    curve = [line["validation"] for line in lines if "validation" in line]
    assert curve[-1] < curve[0] - 1


def test_an_unused_top_is_warned_of():
    options = parse(HierarchicalVAEOptions, ["--latent_dims", "4", "2", "--width", "16"])
    source = load_data(options)
    torch.manual_seed(0)
    model = hierarchical_vae.build_model(options, source)
    figures, warnings = hierarchical_vae.inspect(HierarchicalVAEPipeline(model), source)
    assert set(figures) == {"active_units_1", "active_units_2"} and not warnings
    with torch.no_grad():  # q(z2|z1) = N(0, I), whatever z1 is
        last = model.upper_encoders[0].last
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0, 0.0, 0.228, 0.228]))
    figures, warnings = hierarchical_vae.inspect(HierarchicalVAEPipeline(model), source)
    assert figures["active_units_2"] == 0 and "the top level is not used: its KL is 0.00" in warnings[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--latent_dims", "8", "0"), "--latent_dims is 0; it must be at least 1"),
        (("--latent_dims", "8", "x"), "--latent_dims"),
        (("--upper_width", "0"), "--upper_width is 0; it must be at least 1"),
        (("--beta", "-1"), "--beta is -1"),
        (("--latent_dim", "8"), "--latent_dim is not an option; did you mean --latent_dims?"),
        (("--dataset", "moons"), "--dataset moons"),
    ],
)
def test_bad_options_are_one_line(tmp_path, words, message):
    with pytest.raises(UsageError, match=message):
        hierarchical_vae.main(["--output_dir", str(tmp_path / "run"), *SHORT, *words])
    assert not (tmp_path / "run" / "run.json").exists()
