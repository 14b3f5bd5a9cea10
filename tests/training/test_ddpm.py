"""The diffusion recipe: what it weighs, what it hides, what it leaves, what it refuses."""

import json

import pytest
import torch
from diffusers import DDPMScheduler, HeunDiscreteScheduler, LCMScheduler

from pipelines.diffusion.pipeline_ddpm import DenoisingDiffusionPipeline
from tests.conftest import run_module
from training.diffusion import ddpm
from training.diffusion.ddpm import DDPMOptions, build_scheduler, loss_weight, spread_timesteps

TINY = ["--max_steps", "2", "--eval_every", "2", "--save_every", "1", "--sample_every", "2", "--log_every", "1",
        "--num_inference_steps", "3"]  # fmt: skip
UNET = ["--width", "8", "16"]


def tiny(folder, *words) -> DenoisingDiffusionPipeline:
    ddpm.main(["--output_dir", str(folder), *TINY, *map(str, words)])
    pipe = DenoisingDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_timesteps_cover_all_of_them_and_each_is_uniform():
    torch.manual_seed(0)
    rows = torch.stack([spread_timesteps(10, 1000, "cpu") for _ in range(4_000)])
    assert ((rows // 100).sort(1).values == torch.arange(10)).all()  # one in each tenth
    tenth = rows[:, 3] - 300
    assert tenth.min() < 2 and tenth.max() > 97 and abs(tenth.float().mean() - 49.5) < 2


def test_min_snr_weighs_the_error_of_x_0_alike_whatever_is_predicted():
    snr, error = torch.tensor([0.01, 1.0, 5.0, 400.0]), 0.3
    squared = {"epsilon": snr * error, "sample": torch.full((4,), error), "v_prediction": (snr + 1) * error}
    weighted = [loss_weight(snr, kind, "min_snr", 5.0) * squared[kind] for kind in squared]
    torch.testing.assert_close(weighted[0], weighted[1])
    torch.testing.assert_close(weighted[0], weighted[2])
    torch.testing.assert_close(weighted[0], snr.clamp(max=5) * error)
    assert torch.equal(loss_weight(snr, "epsilon", "simple", 5.0), torch.ones(4))


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_each_prediction_and_schedule_leaves_a_pipeline_that_samples(kind, tmp_path):
    zero = str(kind != "epsilon").lower()
    pipe = tiny(
        tmp_path / "run", *UNET, "--prediction_type", kind, "--zero_terminal_snr", zero, "--beta_schedule", "linear"
    )
    assert pipe.config.schedule["prediction_type"] == kind
    assert (pipe.abar[-1] == 0) == (kind != "epsilon")
    assert (
        pipe(class_labels=[1, 2], generator=torch.Generator().manual_seed(0), output_type="pt").images.isfinite().all()
    )
    reference = DDPMScheduler(beta_schedule="linear", rescale_betas_zero_snr=kind != "epsilon").alphas_cumprod
    torch.testing.assert_close(pipe.abar.float(), reference)


def test_a_dit_without_classes_and_a_run_that_goes_on(tmp_path):
    words = ["--network", "dit", "--width", "32", "--num_blocks", "1", "--patch_size", "4", "--conditional", "false"]
    whole = tiny(tmp_path / "whole", *words)
    assert not whole.config.conditional and whole.config.patch_size == 1
    tiny(tmp_path / "parts", *words)
    last = tmp_path / "parts" / "checkpoints" / "step-00000002"
    for file in sorted(last.iterdir()):
        file.unlink()
    last.rmdir()
    again = tiny(tmp_path / "parts", *words, "--resume", "true")
    # what only the finished pipeline's calls depend on may be chosen anew
    assert (
        tiny(tmp_path / "parts", *words, "--resume", "true", "--num_inference_steps", 7).config.num_inference_steps == 7
    )
    for a, b in zip(whole.denoiser.parameters(), again.denoiser.parameters(), strict=True):
        assert torch.equal(a, b)


def test_vectors_take_an_mlp(tmp_path):
    pipe = tiny(tmp_path / "run", "--dataset", "ring", "--network", "mlp", "--width", "16", "--num_blocks", "1")
    assert pipe(4, output_type="pt").samples.shape == (4, 2)
    assert pipe.elbo(torch.zeros(3, 2)).shape == (3,)
    assert (tmp_path / "run" / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_labels_are_hidden_in_training_and_given_in_validation(tmp_path, monkeypatch):
    seen = {True: [], False: []}
    run_denoiser = ddpm.run_denoiser

    def watched(denoiser, x, timestep, class_labels, patch_size):
        seen[torch.is_grad_enabled()].append(class_labels.clone())
        return run_denoiser(denoiser, x, timestep, class_labels, patch_size)

    monkeypatch.setattr(ddpm, "run_denoiser", watched)
    tiny(tmp_path / "run", *UNET, "--label_dropout", 0.5, "--batch_size", 400)
    hidden = (torch.cat(seen[True]) == 10).float().mean().item()
    assert 0.42 < hidden < 0.58
    assert torch.cat(seen[False]).max() == 9


def test_a_scheduler_made_from_the_trained_one_keeps_its_noise():
    """diffusers puts a class's own default for what a configuration does not say."""
    trained = build_scheduler(DDPMOptions(beta_schedule="linear", prediction_type="epsilon"))
    for kind in (HeunDiscreteScheduler, LCMScheduler):
        torch.testing.assert_close(kind.from_config(trained.config).alphas_cumprod, trained.alphas_cumprod)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prediction_type", "epsilon", "--zero_terminal_snr", "true"], "--prediction_type is 'epsilon', but with"),
        (["--prediction_type", "noise"], "--prediction_type is 'noise'; it must be one of epsilon, sample"),
        (["--num_inference_steps", "2000"], "--num_inference_steps is 2000; it must be at most --num_train_timesteps"),
        (["--dataset", "ring"], "--network is unet, but --dataset ring holds vectors; it must be mlp"),
        (["--network", "mlp", "--width", "16"], "--network is mlp, but --dataset digits holds images"),
        (["--network", "dit"], r"--width is [32, 64]; a dit has one width"),
        (["--network", "dit", "--width", "40"], "--width is 40; that of a dit must be a multiple of 32"),
        (["--width", "12"], "--width is 12; that of a unet must be a multiple of 8"),
        (["--width", "4"], "--width is 4; it must be at least 8"),
        (["--width", "8", "8", "8", "8", "8"], "--width names 5 levels; images of 8 (after --patch_size)"),
        (["--patch_size", "3"], "--patch_size is 3; it must divide the images' side, 8"),
        (["--label_dropout", "0"], "--label_dropout is 0.0; it must be above 0"),
        (["--attention_levels", "3"], "--attention_levels is 3; --width names 2 levels"),
    ],
)
def test_what_does_not_fit_is_one_line(words, message, tmp_path, capsys):
    from training.options import UsageError

    with pytest.raises(UsageError) as error:
        ddpm.main(["--output_dir", str(tmp_path / "run"), *words])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_the_command_line_ends_with_2(tmp_path):
    done = run_module("training.diffusion.ddpm", "--output_dir", tmp_path / "run", "--width", "12")
    assert done.returncode == 2 and done.stderr.strip().splitlines()[-1].startswith("error: --width is 12")


def test_a_published_model_knows_its_data_and_its_guidance(tmp_path):
    from diffusers import DiffusionPipeline

    from training.publishing.build import build

    tiny(tmp_path / "run", *UNET, "--guidance_scale", 2.5, "--patch_size", 2)
    build(tmp_path / "run", tmp_path / "portable")
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "portable", trust_remote_code=True)
    assert type(pipe).__module__.startswith("diffusers_modules")
    assert pipe.data_spec["shape"] == [1, 8, 8] and pipe.config.guidance_scale == 2.5 and pipe.config.patch_size == 2
    pipe.set_progress_bar_config(disable=True)
    assert pipe(2, output_type="pt").images.shape == (2, 1, 8, 8)
    index = json.loads((tmp_path / "portable" / "model_index.json").read_text())
    assert (
        index["denoiser"] == ["diffusers", "UNet2DModel"] and index["schedule"]["beta_schedule"] == "squaredcos_cap_v2"
    )
