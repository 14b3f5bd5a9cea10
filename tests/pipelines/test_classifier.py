"""The classifier: p(y|x) as probabilities, its features, and the checks of its pipeline."""

import functools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.classical.modeling_classifier import ClassifierModel
from pipelines.classical.pipeline_classifier import ClassifierPipeline
from tests.contract import LEVELS, Instance, image_spec
from training.classical.classifier import augment


def tiny(architecture: str) -> ClassifierPipeline:
    torch.manual_seed(0)
    model = ClassifierModel(image_spec(LEVELS), width=8, feature_dim=12, architecture=architecture)
    return ClassifierPipeline(model.eval()).to("cpu")


INSTANCES = {
    name: Instance(
        ClassifierPipeline,
        functools.partial(tiny, architecture),
        "none",
        {"classify", "features"},
        loss=lambda pipe, x, labels: pipe.classifier(pipe._to_network(x), torch.arange(len(x)) % 10).loss,
        judge="classify",
        reason=r"log_prob: a classifier models p\(y\|x\), not p\(x\)",
    )
    for name, architecture in (("classifier", "residual"), ("plain classifier", "plain"))
}

SPEC = {"kind": "image", "shape": [1, 8, 8], "support": "8-bit", "range": [-1, 1], "dequantization": "none",
        "num_classes": 10}  # fmt: skip


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(0)
    return ClassifierPipeline(ClassifierModel(SPEC, width=8, feature_dim=12).eval())


@pytest.fixture
def x():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_probabilities_are_the_softmax_of_the_logits_on_the_range_of_the_data_spec(pipe, x):
    p = pipe.classify(x)
    assert p.shape == (5, 10)
    torch.testing.assert_close(p.sum(1), torch.ones(5))
    torch.testing.assert_close(p, pipe.classifier(2 * x - 1).logits.softmax(1))
    torch.testing.assert_close(pipe.classify(x, batch_size=2), p)
    torch.testing.assert_close(pipe(x), p)


def test_the_loss_is_minus_the_log_of_the_given_classes(pipe, x):
    labels = torch.tensor([0, 3, 9, 3, 1])
    loss = pipe.classifier(2 * x - 1, labels).loss
    given = pipe.classify(x)[torch.arange(5), labels]
    torch.testing.assert_close(loss, -given.log().mean())
    with torch.no_grad():  # an untrained head that knows nothing: uniform, log 10 nats
        blank = ClassifierModel(SPEC, width=8)
        blank.head.weight.zero_()
        blank.head.bias.zero_()
        assert blank(2 * x - 1, labels).loss.item() == pytest.approx(math.log(10))


def test_features_are_what_the_head_sees(pipe, x):
    features = pipe.features(x)
    assert features.shape == (5, 12) and features.dtype == torch.float32
    torch.testing.assert_close(pipe.classifier.head(features), pipe.classifier(2 * x - 1).logits)


def test_pictures_arrays_and_tensors_are_one(pipe, x):
    levels = (x * 255).round() / 255
    pictures = [Image.fromarray((image[0] * 255).round().byte().numpy()) for image in levels]
    expected = pipe.classify(levels)
    torch.testing.assert_close(pipe.classify(pictures), expected)
    torch.testing.assert_close(pipe.classify(levels.permute(0, 2, 3, 1).numpy()), expected)
    with pytest.raises(ValueError, match=r"x has shape \(5, 1, 8, 8\); this model takes arrays \(B, 8, 8, 1\)"):
        pipe.classify(levels.numpy())  # an array is (B, H, W, C), as `output_type="np"` gives it


def test_it_has_no_density_and_says_why(pipe, x):
    assert pipe.likelihood == "none"
    for call in (pipe.log_prob, pipe.elbo):
        with pytest.raises(NotImplementedError, match=r"models p\(y\|x\), not p\(x\)"):
            call(x)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (torch.zeros(2, 1, 7, 8), r"x has shape \(2, 1, 7, 8\); this model takes \(B, 1, 8, 8\)"),
        (torch.zeros(0, 1, 8, 8), "x has shape"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "x has dtype torch.uint8"),
        (torch.full((1, 1, 8, 8), 255.0), "x has values from 255 to 255"),
        (torch.full((1, 1, 8, 8), float("nan")), "x holds NaN"),
        (np.zeros((1, 1, 8, 8), np.uint8), "x has dtype"),
        ([Image.new("L", (9, 8))], "x holds images of"),
        ("x", "x is a str"),
    ],
)
def test_bad_input_names_what_is_wrong(pipe, wrong, message):
    with pytest.raises(ValueError, match=message):
        pipe.classify(wrong)


def test_a_model_without_classes_or_images_is_refused():
    with pytest.raises(ValueError, match="at least two classes, but the data has 1"):
        ClassifierModel({**SPEC, "num_classes": 1})
    with pytest.raises(ValueError, match=r"takes images \(C, H, W\), but x has shape \(2,\)"):
        ClassifierModel({**SPEC, "kind": "vector", "shape": [2]})


@pytest.mark.parametrize("side", [7, 8])
def test_the_plain_network_halves_by_max_pooling_and_forgets_shifts_within_a_window(side):
    spec = {**SPEC, "shape": [1, side, side]}
    model = ClassifierModel(spec, width=4, num_levels=1, feature_dim=6, architecture="plain").eval()
    assert not any(conv.stride != (1, 1) for conv in model.levels if isinstance(conv, torch.nn.Conv2d))
    x = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0))
    h = torch.relu(torch.nn.functional.max_pool2d(model.levels[0](x), 2, ceil_mode=True))
    assert h.shape[2:] == (4, 4)
    torch.testing.assert_close(model.features(x), torch.relu(model.hidden(h.flatten(1))))
    with pytest.raises(ValueError, match="architecture is 'deep'; it must be one of residual, plain"):
        ClassifierModel(spec, architecture="deep")


def test_augmentation_moves_within_its_bounds_and_without_any_not_at_all(x):
    assert augment(x, 0, 0, 0) is x
    torch.manual_seed(0)
    assert not torch.equal(augment(x, 1, 10, 0.1), x)
    torch.testing.assert_close(augment(x, 1e-6, 0, 0), x, atol=1e-4, rtol=0)
    ones = torch.ones(3, 1, 8, 8)
    torch.testing.assert_close(augment(ones, 3, 40, 0.2), ones)  # beyond its edge an image goes on as it ends
    inside = torch.zeros(200, 1, 9, 9)
    inside[:, :, 4, 4] = 1
    moved = augment(inside, 2, 0, 0)
    rows, columns = np.indices((9, 9))
    centre = [(moved[:, 0].numpy() * axis).sum((1, 2)) / moved[:, 0].numpy().sum((1, 2)) for axis in (rows, columns)]
    for axis in centre:
        assert 2 - 1e-3 <= axis.min() < 2.6 and 5.4 < axis.max() <= 6 + 1e-3  # up to two pixels each way, and all of it
