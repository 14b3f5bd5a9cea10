"""The weights in the repository: they load as they are published, answer as when they were measured, and draw."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image, ImageOps

from tests.conftest import ROOT
from training.data.batches import batches_in_order
from training.data.images import DataOptions, load_data
from training.layouts.choice import declaration_in, layout_of
from training.measures.kept_rows import figures_on_kept_rows
from training.publishing.build import build
from training.publishing.loading import load

FOLDERS = sorted(p for p in (ROOT / "checkpoints").iterdir() if p.is_dir())


MOST_BYTES = 160_000_000  # of all checkpoints together


@pytest.fixture(params=FOLDERS, ids=lambda p: p.name, scope="module")
def folder(request):
    return request.param


@pytest.fixture(scope="module")
def pipe(folder):
    """Loaded from its portable folder, as from the Hub."""
    return load(str(folder))


def test_all_weights_together_stay_small():
    assert sum(p.stat().st_size for f in FOLDERS for p in f.rglob("*") if p.is_file()) <= MOST_BYTES


def test_it_answers_on_kept_rows_as_when_it_was_measured(pipe, folder):
    """Every checkpoint, on every machine: likelihood, reconstruction, classes and samples, to 1e-3."""
    known = json.loads((folder / "results.json").read_text())
    found = figures_on_kept_rows(pipe, json.loads((folder / "run.json").read_text())["dataset"])
    assert found.keys() == known["figures_on_kept_rows"].keys() and found
    for name, value in found.items():
        assert value == pytest.approx(known["figures_on_kept_rows"][name], rel=1e-3), name
    assert (known["likelihood"], known["calls"]) == (pipe.likelihood, sorted(pipe.calls))


def test_the_record_declares_its_family(folder):
    declaration = declaration_in(folder)
    assert declaration is not None and declaration.family == json.loads((folder / "run.json").read_text())["family"]
    assert (ROOT / "pipelines" / declaration.branch).is_dir() and declaration.title and declaration.measures
    assert layout_of(folder).__name__.endswith(declaration.layout)


def test_the_record_names_a_committed_recipe_and_no_local_place(folder):
    record = json.loads((folder / "run.json").read_text())
    words = record["command"].split()
    assert record["status"] == "finished" and words[:2] == ["python", "-m"]
    assert (ROOT / (words[2].replace(".", "/") + ".py")).is_file()
    assert all((ROOT / word).is_file() for word in words if word.endswith(".yaml"))
    assert not {"output_dir", "data_dir"} & record["options"].keys()


# What single families owe beyond that


def with_component(name: str) -> list[Path]:
    return [folder for folder in FOLDERS if (folder / name).is_dir()]


def test_the_box_is_not_empty():
    names = {"vae-mnist", "cvae-mnist", "vae-2d-mnist", "vae-digits", "classifier-mnist"}
    names |= {"ddpm-mnist", "ddpm-digits", "ddpm-2d", "gan-mnist", "wgan-gp-mnist", "cgan-mnist", "gan-digits"}
    assert names <= {p.name for p in FOLDERS}


@pytest.mark.parametrize("folder", with_component("vae"), ids=lambda p: p.name, indirect=True)
def test_it_draws_and_measures_its_own_samples(pipe):
    images = pipe(batch_size=4, generator=torch.Generator().manual_seed(0), output_type="pt").images
    assert images.shape == (4, *pipe.data_spec["shape"]) and images.isfinite().all() and images.std() > 0.05
    assert pipe.vae.dtype == torch.float32  # float16 in the file, full precision in use
    likely = pipe.elbo((images > 0.5).float(), 4, generator=torch.Generator().manual_seed(0))
    noise = (torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) < images.mean()).float()
    assert (likely > pipe.elbo(noise, 4, generator=torch.Generator().manual_seed(0)) + 10).all()


@pytest.mark.parametrize("folder", with_component("discriminator"), ids=lambda p: p.name, indirect=True)
def test_a_gan_draws_many_things_and_finds_its_own_again(pipe):
    images = pipe(batch_size=32, generator=torch.Generator().manual_seed(0), output_type="pt").images
    assert images.shape == (32, *pipe.data_spec["shape"]) and images.isfinite().all()
    assert images.std(0).mean() > 0.1  # not one picture again and again
    conditional = pipe.generator.config.conditional
    labels = list(range(4)) if conditional else None
    x = pipe(4, labels, generator=torch.Generator().manual_seed(1), output_type="pt").images
    found = pipe.encode(x, labels, 60, torch.Generator().manual_seed(0))
    assert (found.residual < 0.5 * x.square().mean((1, 2, 3))).all()
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    assert (pipe.discriminate(x, labels) > pipe.discriminate(noise, labels)).all()


@pytest.mark.parametrize("folder", with_component("denoiser"), ids=lambda p: p.name, indirect=True)
def test_a_diffusion_model_finds_its_own_samples_likelier_than_others(pipe):
    labels, generator = [i % pipe.data_spec["num_classes"] for i in range(8)], torch.Generator().manual_seed(0)
    drawn = pipe(class_labels=labels, generator=generator, output_type="pt")
    assert pipe.denoiser.dtype == torch.float32  # float16 in the file, full precision in use
    if pipe.data_spec["kind"] == "image":
        x = (drawn.images * 255).round() / 255
        other = x.flatten(1)[:, torch.randperm(x[0].numel(), generator=generator)].view_as(x)
    else:
        x = drawn.samples
        other = 2 * torch.randn(x.shape, generator=generator)
    likely, unlikely = (pipe.elbo(part, 8, labels, torch.Generator().manual_seed(0)).mean() for part in (x, other))
    assert likely > unlikely + 2


def test_digits_are_of_the_class_that_was_asked_for(tmp_path):
    for name in ("ddpm-mnist", "classifier-mnist"):
        build(ROOT / "checkpoints" / name, tmp_path / name)
    pipe, judge = (
        DiffusionPipeline.from_pretrained(tmp_path / name, trust_remote_code=True)
        for name in ("ddpm-mnist", "classifier-mnist")
    )
    pipe.set_progress_bar_config(disable=True)
    labels = list(range(10)) * 3
    images = pipe(class_labels=labels, generator=torch.Generator().manual_seed(0), output_type="pt").images
    assert (judge.classify(images).argmax(1) == torch.tensor(labels)).sum() >= 28


@pytest.mark.parametrize("folder", with_component("classifier"), ids=lambda p: p.name, indirect=True)
def test_a_classifier_knows_digits_of_other_hands(pipe, folder):
    assert (folder / "classifier" / "diffusion_pytorch_model.safetensors").stat().st_size <= 1_000_000
    strip = Image.open(ROOT / "tests" / "digits.png")
    digits = []
    for c in range(10):  # 8x8 enlarged into MNIST's frame: other hands, another scanner
        small = strip.crop((8 * c, 0, 8 * c + 8, 8)).resize((20, 20), Image.Resampling.BICUBIC)
        digits.append(ImageOps.expand(small, 4))
    answers = pipe.classify(digits).argmax(1)
    assert (answers == torch.arange(10)).sum() >= 8


def test_the_digits_are_explained_better_than_by_their_mean_image():
    from pipelines.autoencoders.modeling_vae import VAEModel  # noqa: F401  diffusers wants it imported
    from pipelines.autoencoders.pipeline_vae import VAEPipeline

    source = load_data(DataOptions())
    pipe = VAEPipeline.from_pretrained(Path(ROOT) / "checkpoints" / "vae-digits", dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    x = source.as_input(next(batches_in_order(source.test, 1_000)), pipe.data_spec, generator)
    mean = source.train.columns["x"].float().mean(0).div(255).clamp(1e-3, 1 - 1e-3)
    independent = torch.distributions.Bernoulli(mean).log_prob(x).sum((1, 2, 3)).mean()
    assert pipe.elbo(x, 10, generator=generator).mean() > independent + 3
