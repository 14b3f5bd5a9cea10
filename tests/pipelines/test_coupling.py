"""Truths of coupling flows: Jacobians, inverses, integrals, and zuko's spline."""

import math

import pytest
import torch
from torch.autograd.functional import jacobian
from zuko.transforms import MonotonicRQSTransform

from pipelines.flows.modeling_coupling import MOST_LOG_SCALE, TRANSFORMS, CouplingFlowModel
from pipelines.flows.pipeline_coupling import CouplingFlowPipeline
from pipelines.flows.splines import LEAST, SHIFT, spline
from tests.contract import CODES, VECTOR_SPEC, Instance


def flow(spec: dict = VECTOR_SPEC, strength: float = 0.3, **config) -> CouplingFlowModel:
    """A flow that is not the identity: its last layers are drawn too."""
    torch.manual_seed(0)
    model = CouplingFlowModel(spec, **{"width": 16, "num_bins": 5, **config})
    for layer in model.layers:
        torch.nn.init.normal_(layer.last.weight, std=strength)
        torch.nn.init.normal_(layer.last.bias, std=strength)
        if layer.own is not None:
            torch.nn.init.normal_(layer.own, std=strength)
    model.set_scale(torch.randn(50, spec["shape"][0]) * 1.5 + 0.3)
    return model.eval()


def instance(spec: dict = VECTOR_SPEC, **config) -> Instance:
    return Instance(
        CouplingFlowPipeline,
        lambda: CouplingFlowPipeline(flow(spec, **config)).to("cpu"),
        "exact",
        CODES | {"sample", "log_prob", "elbo", "layers"},
        classes=spec["num_classes"] if config.get("conditional") else 0,
        loss=lambda pipe, x, labels: -pipe.flow(x, labels if config.get("conditional") else None).log_prob.mean(),
        judge="log_prob",
        codes_need_class=bool(config.get("conditional")),
    )


FIVE = {**VECTOR_SPEC, "shape": [5]}
INSTANCES = {
    "coupling": instance(),
    "coupling affine": instance(transform="affine"),
    "coupling conditional": instance(conditional=True),
    "coupling of five": instance(FIVE),
    "coupling elementwise": instance(elementwise=True),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("spec", [VECTOR_SPEC, FIVE], ids=["two", "five"])
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("elementwise", [False, True])
def test_the_log_determinant_is_that_of_the_jacobian(transform, spec, conditional, elementwise):
    model = flow(spec, transform=transform, conditional=conditional, elementwise=elementwise).double()
    x = 2 * torch.randn(6, spec["shape"][0], dtype=torch.float64)
    labels = torch.arange(6) % 8 if conditional else None
    out = model(x, labels)
    for i in range(len(x)):
        own = labels[i : i + 1] if conditional else None
        matrix = jacobian(lambda row, own=own: model(row[None], own).z[0], x[i])
        assert abs(torch.linalg.slogdet(matrix).logabsdet - out.log_det[i]) < 1e-10
    points, log_dets = model.steps(x, labels)
    torch.testing.assert_close(torch.stack(log_dets).sum(0), out.log_det)
    assert len(points) == len(model.layers) + 2 and torch.equal(points[-1], out.z)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("elementwise", [False, True])
def test_the_inverse_undoes_the_flow(transform, elementwise):
    model = flow(transform=transform, num_blocks=4, strength=0.1, elementwise=elementwise)
    x = 2 * torch.randn(1_000, 2)
    assert (model.inverse(model(x).z) - x).abs().max() <= 1e-5
    double = flow(transform=transform, num_blocks=8, elementwise=elementwise).double()
    x = 3 * torch.randn(1_000, 2, dtype=torch.float64)
    assert (double.inverse(double(x).z) - x).abs().max() < 1e-10


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_density_integrates_to_one(transform):
    model = flow(transform=transform, strength=0.3)
    side = torch.linspace(-12, 12, 1_201)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        total = torch.cat([model(part).log_prob.exp() for part in grid.split(200_000)]).sum() * (24 / 1_200) ** 2
    assert abs(total.item() - 1) < 1e-3


def test_a_new_flow_is_the_identity_on_standardised_data():
    model = CouplingFlowModel(VECTOR_SPEC, num_blocks=3, width=8)
    x = torch.randn(20, 2) * torch.tensor([2.0, 0.5]) + 1
    model.set_scale(x)
    z = (x - x.mean(0)) / x.std(0)
    torch.testing.assert_close(model(x).z, z, atol=1e-5, rtol=1e-5)
    normal = torch.distributions.Normal(x.mean(0), x.std(0)).log_prob(x).sum(1)
    torch.testing.assert_close(model(x).log_prob, normal, atol=1e-4, rtol=1e-4)


def test_the_spline_is_that_of_zuko():
    torch.manual_seed(0)
    bound, raw = 3.0, torch.randn(200, 3 * 6 - 1, dtype=torch.float64)
    x = torch.linspace(-3, 3, 200, dtype=torch.float64)
    theirs = MonotonicRQSTransform(raw[:, :6], raw[:, 6:12], raw[:, 12:], bound=bound)
    shares = LEAST + (1 - LEAST * 6) * raw[:, :12].unflatten(1, (2, 6)).softmax(-1)
    knots = torch.nn.functional.pad(2 * bound * shares.cumsum(-1), (1, 0)) - bound
    theirs.horizontal, theirs.vertical = knots.unbind(1)
    inner = LEAST + torch.nn.functional.softplus(raw[:, 12:] + SHIFT)
    theirs.derivatives = torch.nn.functional.pad(inner, (1, 1), value=1.0)
    wanted, log_slope = theirs.call_and_ladj(x)
    y, found = spline(x, raw, bound)
    torch.testing.assert_close(y, wanted)
    torch.testing.assert_close(found, log_slope)
    back, undone = spline(y, raw, bound, inverse=True)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(undone, -found)


def test_beyond_its_box_a_spline_is_the_identity_and_at_its_edge_smooth():
    raw = torch.randn(1, 14).double()
    far = torch.tensor([-50.0, -4.0001, 4.0001, 1e6]).double()
    y, log_slope = spline(far, raw.expand(4, 14), 4.0)
    assert torch.equal(y, far) and not log_slope.any()
    edge, slope = spline(torch.tensor([-4.0, 4.0]).double(), raw.expand(2, 14), 4.0)
    torch.testing.assert_close(edge, torch.tensor([-4.0, 4.0]).double())
    torch.testing.assert_close(slope, torch.zeros(2).double(), atol=1e-12, rtol=0)
    x = torch.linspace(-5, 5, 1_000).double()
    y, _ = spline(x, raw.expand(1_000, 14), 4.0)
    assert (y.diff() > 0).all()


def test_no_affine_layer_overflows():
    model = flow(transform="affine", strength=100.0)
    z = model(1e3 * torch.randn(50, 2)).z
    assert z.isfinite().all() and model.inverse(torch.randn(50, 2)).isfinite().all()
    _, log_dets = model.steps(torch.randn(50, 2))
    assert torch.stack(log_dets[1:]).abs().max() <= MOST_LOG_SCALE


def test_layers_say_what_the_likelihood_says():
    pipe = INSTANCES["coupling"].make()
    x = torch.randn(7, 2)
    layers = pipe.layers(x)
    assert layers.points.shape == (10, 7, 2) and layers.log_dets.shape == (9, 7)
    assert torch.equal(layers.points[0], x)
    torch.testing.assert_close(layers.points[-1], pipe.encode(x))
    torch.testing.assert_close(layers.log_prior + layers.log_dets.sum(0), pipe.log_prob(x))


def test_samples_have_the_mean_log_density_that_the_flow_says():
    """The mean of -log p over draws of p is its entropy, which here is that of z less the mean of log |det|."""
    pipe = INSTANCES["coupling"].make()
    x = pipe(20_000, generator=torch.Generator().manual_seed(0), output_type="pt").samples
    layers = pipe.layers(x)
    entropy = math.log(2 * math.pi * math.e) - layers.log_dets.sum(0).mean().item()
    assert abs(-pipe.log_prob(x).mean().item() - entropy) < 0.03


def test_temperature_scales_the_codes():
    pipe = INSTANCES["coupling"].make()
    draws = {t: pipe(500, temperature=t, generator=torch.Generator().manual_seed(0), output_type="latent").samples
             for t in (0.0, 0.5, 1.0)}  # fmt: skip
    torch.testing.assert_close(draws[0.5], 0.5 * draws[1.0])
    assert not draws[0.0].any()
    with pytest.raises(ValueError, match="temperature is -1; it must be a finite number of at least 0"):
        pipe(temperature=-1)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"transform": "cubic"}, "transform is 'cubic'; it must be one of spline, affine"),
        ({"num_bins": 1}, "num_bins is 1; it must be from 2 to 256"),
        ({"bound": 0.0}, "bound is 0.0; it must be above 0"),
        ({"data_spec": {**VECTOR_SPEC, "shape": [1]}}, "it must be a vector of two or more"),
        ({"data_spec": {**VECTOR_SPEC, "num_classes": 0}, "conditional": True}, "the data have no classes"),
    ],
)
def test_configs_that_cannot_be_are_refused(config, said):
    with pytest.raises(ValueError, match=said):
        CouplingFlowModel(**{"data_spec": VECTOR_SPEC, **config})


def test_a_constant_column_is_refused():
    with pytest.raises(ValueError, match="column 1 has standard deviation 0"):
        CouplingFlowModel(VECTOR_SPEC).set_scale(torch.stack([torch.randn(9), torch.full((9,), 2.5)], 1))


def test_without_a_class_a_conditional_flow_is_the_mixture_of_its_classes():
    pipe = INSTANCES["coupling conditional"].make()
    x = torch.randn(5, 2)
    by_class = torch.stack([pipe.log_prob(x, class_labels=c) for c in range(8)])
    torch.testing.assert_close(pipe.log_prob(x), by_class.exp().mean(0).log())
