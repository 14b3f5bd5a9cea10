"""Objectives of the autoencoder's recipe by their closed forms, its prior, its command line, and Tangent Prop."""

import json

import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import wasserstein_distance

from pipelines.autoencoders.modeling_autoencoder import AutoencoderModel
from pipelines.autoencoders.pipeline_autoencoder import AutoencoderPipeline
from pipelines.classical.modeling_classifier import ClassifierModel
from tests.conftest import TINY, run_module
from training.autoencoders.autoencoder import (
    OBJECTIVES,
    AutoencoderOptions,
    contractive_penalty,
    corrupt,
    main,
    make_loss,
    squared_sliced_wasserstein,
)
from training.classical.classifier import tangent_penalty
from training.data.batches import batches_in_order
from training.data.images import DataOptions, load_data
from training.options import UsageError

SPEC = {"kind": "image", "shape": [1, 8, 8], "support": "8-bit", "range": [0, 1], "dequantization": "none",
        "num_classes": 10}  # fmt: skip


def tiny(**config) -> AutoencoderModel:
    torch.manual_seed(0)
    return AutoencoderModel(SPEC, latent_dim=3, width=16, **config)


def test_in_one_dimension_the_sliced_distance_is_the_exact_one():
    """There is one direction only, up to its sign; of equal shifts W_2 is W_1, which scipy knows."""
    torch.manual_seed(0)
    a, b = torch.randn(400, 1), torch.randn(400, 1).square()
    exact = (a.sort(0).values - b.sort(0).values).square().mean()  # the optimal plan on a line is monotone
    assert squared_sliced_wasserstein(a, b, 5).item() == pytest.approx(exact.item(), rel=1e-5)
    shifted = a + 2.5
    expected = wasserstein_distance(a[:, 0].numpy(), shifted[:, 0].numpy())
    assert squared_sliced_wasserstein(a, shifted, 5).sqrt().item() == pytest.approx(expected, rel=1e-5)


def test_the_sliced_distance_grows_linearly_with_a_shift():
    a = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    shift = torch.randn(6, generator=torch.Generator().manual_seed(1))

    def distance(times: float) -> float:
        torch.manual_seed(2)  # the same directions
        return squared_sliced_wasserstein(a, a + times * shift, 2_000).sqrt().item()

    one = distance(1.0)
    assert distance(2.0) == pytest.approx(2 * one, rel=1e-4) and distance(7.0) == pytest.approx(7 * one, rel=1e-4)
    # E <v, shift>^2 over directions v is |shift|^2 / D
    assert one == pytest.approx(shift.norm().item() / 6**0.5, rel=0.05)
    assert squared_sliced_wasserstein(a, a[torch.randperm(300)], 10) == 0


def test_the_contractive_penalty_is_the_jacobians_norm():
    autoencoder = tiny(standardise=True).eval()
    x = torch.rand(4, 1, 8, 8, requires_grad=True)
    exact = contractive_penalty(autoencoder.encode(x), x)
    for i in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda one: autoencoder.encode(one[None])[0], x[i].detach())
        assert exact[i].item() == pytest.approx(jacobian.square().sum().item(), rel=1e-4)
    codes = autoencoder.encode(x)
    estimate = contractive_penalty(codes, x, torch.randn(3_000, *codes.shape))
    torch.testing.assert_close(estimate, exact, rtol=0.15, atol=0)


def test_the_penalty_reaches_the_weights():
    autoencoder = tiny(standardise=True)
    loss = make_loss(AutoencoderOptions(objective="contractive", contractive_weight=1e6))
    x = torch.rand(32, 1, 8, 8)
    optimizer = torch.optim.Adam(autoencoder.parameters(), 1e-2)
    first = None
    for step in range(30):
        terms = loss(autoencoder, {"x": x}, step)
        first = first or terms["jacobian"].item()
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    assert terms["jacobian"].item() < 0.5 * first


def test_corruption_is_what_it_says():
    torch.manual_seed(0)
    x = torch.full((100, 1, 8, 8), 0.5)
    noisy = corrupt(x, "gaussian", 0.3)
    assert (noisy - x).std().item() == pytest.approx(0.3, rel=0.05)
    masked = corrupt(x, "mask", 0.25)
    assert (masked == 0).float().mean().item() == pytest.approx(0.25, abs=0.02) and set(masked.unique().tolist()) == {
        0,
        0.5,
    }


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_of_every_objective_leaves_a_pipeline(objective, tmp_path):
    extra = ["--prior_components", "3"] if objective != "supervised" else ["--prior", "kde", "--prior_by_class", "true"]
    main([*TINY, "--objective", objective, "--output_dir", str(tmp_path / "run"), *extra])
    pipe = AutoencoderPipeline.from_pretrained(tmp_path / "run")
    assert pipe.likelihood == "implicit" and len(pipe(3).images) == 3
    assert pipe.autoencoder.config.supervised == pipe.classifies == (objective == "supervised")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    terms = {"supervised": "class_nats", "sliced_wasserstein": "sliced_wasserstein", "contractive": "jacobian"}
    for line in lines:
        weight = {"supervised": 1.0, "sliced_wasserstein": 100.0, "contractive": 0.1}.get(objective, 0.0)
        if "loss" in line:
            total = line["squared_error"] + weight * line.get(terms.get(objective), 0.0)
            assert line["loss"] == pytest.approx(total, rel=1e-4)


def test_a_finished_run_gets_another_prior(tmp_path):
    words = [*TINY, "--output_dir", str(tmp_path / "run")]
    main([*words, "--prior", "none"])
    before = load_file(tmp_path / "run" / "autoencoder" / "diffusion_pytorch_model.safetensors")
    assert AutoencoderPipeline.from_pretrained(tmp_path / "run").likelihood == "none"
    main([*words, "--prior", "kde", "--prior_points", "50", "--resume", "true"])
    pipe = AutoencoderPipeline.from_pretrained(tmp_path / "run")
    assert pipe.prior.config.num_points == 50
    after = pipe.autoencoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--objective", "sparse"], "--objective is 'sparse'; it must be one of plain"),
        (["--dataset", "checkerboard", "--objective", "supervised"], "supervised is True, but the data has no classes"),
        (
            ["--dataset", "checkerboard", "--prior_by_class", "true"],
            "--prior_by_class true: checkerboard has no classes",
        ),
        (["--dataset", "moons", "--network", "conv"], "network 'conv' takes images"),
        (["--corruption_level", "0"], "--corruption_level is 0.0; it must be above 0.0"),
        (["--prior_components", "2000"], "--prior mixture: num_components is 2000, but x holds"),
    ],
)
def test_what_does_not_fit_is_named(words, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        main([*TINY, *words, "--output_dir", str(tmp_path / "run")])


def test_one_line_on_the_command_line(tmp_path):
    done = run_module("training.autoencoders.autoencoder", "--objective", "sparse", "--output_dir", tmp_path / "run")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and not (tmp_path / "run").exists()


# Tangent Prop


def test_the_tangent_penalty_is_the_squared_derivative():
    torch.manual_seed(0)
    classifier = ClassifierModel({**SPEC, "range": [-1, 1]}, width=4, feature_dim=8).eval()
    x = torch.rand(3, 1, 8, 8)
    tangents = torch.randn(3, 2, 1, 8, 8)
    expected = 0.0
    for i in range(3):
        for v in tangents[i]:
            _, along = torch.func.jvp(lambda one: classifier(one[None]).logits[0], (x[i],), (v,))
            expected += along.square().sum().item() / 3
    x.requires_grad_()
    logits = classifier(x).logits
    estimate = sum(tangent_penalty(logits, x, tangents).item() for _ in range(3_000)) / 3_000
    assert estimate == pytest.approx(expected, rel=0.15)


@pytest.fixture(scope="module")
def contractive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "cae"
    main(["--max_steps", "300", "--objective", "contractive", "--latent_dim", "8", "--width", "64", "--prior", "none",
          "--eval_every", "300", "--save_every", "300", "--sample_every", "300", "--output_dir", str(folder)])  # fmt: skip
    return folder


def test_tangent_prop_lowers_the_derivative_along_tangents(contractive, tmp_path):
    from training.classical.classifier import main as classify

    pipe = AutoencoderPipeline.from_pretrained(contractive)
    x = next(batches_in_order(load_data(DataOptions()).test, 100))["x"].float() / 255
    tangents = pipe.tangents(x, 4).tangents
    along, accuracy = {}, {}
    for weight in ("0", "0.01"):
        folder = tmp_path / weight
        classify(["--max_steps", "200", "--width", "8", "--feature_dim", "32", "--tangents", str(contractive),
                  "--num_tangents", "4", "--tangent_weight", weight, "--eval_every", "200", "--save_every", "200",
                  "--sample_every", "200", "--output_dir", str(folder)])  # fmt: skip
        classifier = ClassifierModel.from_pretrained(folder / "classifier")
        total = 0.0
        for j in range(4):
            _, moved = torch.func.jvp(lambda image: classifier(image).logits, (2 * x - 1,), (tangents[:, j],))  # noqa: B023
            total += moved.square().sum(1).mean().item()
        along[weight] = total
        accuracy[weight] = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["validation_accuracy"]
    assert along["0.01"] < 0.5 * along["0"] and accuracy["0.01"] > 0.8


def test_tangents_of_something_else_are_refused(contractive, tiny_run, tmp_path):
    from training.classical.classifier import main as classify

    for words, message in (
        (["--tangents", str(tiny_run)], "holds no autoencoder/config.json"),
        (
            ["--tangents", str(contractive), "--resolution", "10"],
            r"takes images of \[1, 8, 8\], the data has \[1, 10, 10\]",
        ),
        (["--tangents", str(contractive), "--num_tangents", "9"], "--num_tangents is 9; the autoencoder has 8 at most"),
    ):
        with pytest.raises(UsageError, match=message):
            classify([*words, "--max_steps", "2", "--output_dir", str(tmp_path / "run")])
