"""Truths of Glow: Jacobians, inverses, the mass of the levels, bounds."""

import math

import pytest
import torch
from torch.autograd.functional import jacobian

from pipelines.flows.layers import MIXINGS, Actnorm, Affine, Mixing, squeeze, unsqueeze
from pipelines.flows.modeling_glow import DEQUANTISATIONS, Dequantiser, GlowModel, standard_normal
from pipelines.flows.pipeline_glow import GlowPipeline
from tests.contract import CODES, LEVELS, UNIT, Instance, image_spec

SPEC = image_spec(UNIT)


def glow(spec: dict = SPEC, strength: float = 0.1, **config) -> GlowModel:
    """A flow whose networks, splits and top say something."""
    torch.manual_seed(0)
    model = GlowModel(spec, **{"width": 8, "dequantizer_width": 8, **config})
    last = [part.net[-1] for part in model.modules() if isinstance(part, Affine)]
    for weight in (*(p for part in (*last, *model.splits) for p in part.parameters()), model.top):
        torch.nn.init.normal_(weight, std=strength)
    model.initialise(images(20, spec))
    return model.eval()


def images(count: int, spec: dict = SPEC) -> torch.Tensor:
    return torch.randint(256, (count, *spec["shape"])) / 255


def instance(spec: dict = SPEC, **config) -> Instance:
    return Instance(
        GlowPipeline,
        lambda: GlowPipeline(glow(spec, **config)).to("cpu"),
        "bound",
        CODES | {"sample", "log_prob", "elbo", "resample"},
        classes=spec["num_classes"] if config.get("conditional") else 0,
        loss=lambda pipe, x, labels: -pipe.flow(x, labels if config.get("conditional") else None).log_prob.mean(),
        codes_need_class=bool(config.get("conditional")),
        data=lambda count: images(count, spec),
        options={"resample": {"level": 0}},
    )


INSTANCES = {
    "glow": instance(),
    "glow variational": instance(dequantization="variational", conditional=True, depth=1),
    "glow plain in colour": instance(image_spec(UNIT, 3), mixing="plain"),
}
SMALL = image_spec(UNIT, size=4)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize(("conditional", "depth"), [(False, 0), (True, 2)])
def test_the_log_determinant_is_that_of_the_jacobian(mixing, conditional, depth):
    model = glow(SMALL, strength=0.3, mixing=mixing, conditional=conditional, depth=depth).double()
    x, labels = images(3, SMALL).double(), torch.tensor([1, 4, 7]) if conditional else None
    noise = torch.rand_like(x)
    out = model(x, labels, noise)
    for i in range(len(x)):
        own = labels[i : i + 1] if conditional else None

        def to_codes(pixels, own=own):
            h, _ = model.to_line(pixels.view(1, 1, 4, 4) / 256)
            return model.codes(h, own)[0][0]

        pixels = ((x[i] * 255).round() + noise[i]).flatten()
        matrix = jacobian(to_codes, pixels)
        assert abs(torch.linalg.slogdet(matrix).logabsdet - out.log_det[i]) < 1e-8
        torch.testing.assert_close(to_codes(pixels), out.z[i])
    torch.testing.assert_close(out.log_prob, standard_normal(out.z) + out.log_det)


@pytest.mark.parametrize("kind", MIXINGS)
def test_the_1x1_convolution_is_that_of_torch_and_stretches_by_its_determinant(kind):
    torch.manual_seed(0)
    layer = Mixing(6, kind).double()
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    x = torch.randn(2, 6, 3, 5).double()
    matrix, _ = layer.matrix(torch.float64)
    y, log_det = layer(x)
    torch.testing.assert_close(y, torch.nn.functional.conv2d(x, matrix[:, :, None, None]))
    torch.testing.assert_close(log_det, 15 * torch.linalg.slogdet(matrix).logabsdet)
    if kind == "lu":
        torch.testing.assert_close(log_det, 15 * layer.log_s.sum())
    torch.testing.assert_close(layer(y, inverse=True)[0], x)
    norm = Actnorm(6).double()
    for weight in norm.parameters():
        torch.nn.init.normal_(weight)
    both, log_det = layer(x, norm)
    scaled = (x + norm.bias.view(6, 1, 1)) * norm.log_scale.exp().view(6, 1, 1)
    torch.testing.assert_close(both, layer(scaled)[0])
    torch.testing.assert_close(log_det, layer(scaled)[1] + 15 * norm.log_scale.sum())
    torch.testing.assert_close(layer(both, norm, inverse=True)[0], x)


def test_a_singular_w_is_refused():
    pipe = INSTANCES["glow plain in colour"].make()
    with torch.no_grad():
        pipe.flow.levels[0][0].mixing.weight[0] = pipe.flow.levels[0][0].mixing.weight[1]
    with pytest.raises(ValueError, match="W is singular"):
        GlowPipeline(pipe.flow)


def test_actnorm_is_set_by_data_once_and_a_loaded_model_never_again(tmp_path):
    layer = Actnorm(3)
    x = 3 * torch.randn(50, 3, 4, 4) + torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1)
    layer.initialise(x)
    scale, bias, _ = layer.scale(x.dtype)
    y = scale.view(3, 1, 1) * (x + bias.view(3, 1, 1))
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)
    pipe = INSTANCES["glow"].make()
    pipe.save_pretrained(tmp_path)
    loaded = GlowPipeline.from_pretrained(tmp_path)
    loaded.flow.train()
    loaded.flow(images(4))
    for name, weight in pipe.flow.state_dict().items():
        assert torch.equal(weight, loaded.flow.state_dict()[name]), name
    with pytest.raises(ValueError, match="channel 1 has standard deviation 0"):
        layer.initialise(torch.randn(9, 3, 2, 2) * torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1))


def test_each_channel_of_each_step_begins_with_mean_0_and_variance_1():
    torch.manual_seed(0)
    model = GlowModel(SPEC, width=8)
    x = images(200)
    torch.manual_seed(1)
    model.initialise(x)
    torch.manual_seed(1)
    h, _ = model.to_line(model.place(x, torch.rand_like(x)))
    scale, bias, _ = model.levels[0][0].norm.scale(h.dtype)
    first = scale.view(4, 1, 1) * (squeeze(h) + bias.view(4, 1, 1))
    torch.testing.assert_close(first.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_coupling_keeps_one_half_and_undoes_the_other(swapped):
    torch.manual_seed(0)
    layer = Affine(6, 8, seen=2, swapped=swapped).double()
    torch.nn.init.normal_(layer.net[-1].weight)
    x, seen = torch.randn(3, 6, 4, 4).double(), torch.randn(3, 2, 4, 4).double()
    y, log_det = layer(x, seen)
    same = (y == x).flatten(2).all(2).all(0)
    assert same.tolist() == ([False] * 3 + [True] * 3 if swapped else [True] * 3 + [False] * 3)
    back, undone = layer(y, seen, inverse=True)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(undone, -log_det)


@pytest.mark.parametrize("dequantization", DEQUANTISATIONS)
def test_the_inverse_undoes_the_flow(dequantization):
    pipe = GlowPipeline(glow(dequantization=dequantization))
    x = images(16)
    z = pipe.encode(x)
    again = pipe.decode(z, output_type="pt").images
    assert torch.equal((again * 255).round(), (x * 255).round())
    h, _ = pipe.flow.to_line(pipe._mid_level(x))
    assert (torch.sigmoid(pipe.flow.inverse(z)) - torch.sigmoid(h)).abs().max() <= 1e-5
    double = pipe.flow.double()
    place = torch.randn(4, 1, 8, 8).double()
    assert (double.inverse(double.codes(place)[0]) - place).abs().max() < 1e-10


def test_squares_become_channels_and_back():
    x = torch.randn(2, 3, 4, 6)
    assert squeeze(x).shape == (2, 12, 2, 3) and torch.equal(unsqueeze(squeeze(x)), x)


def test_the_density_integrates_to_one():
    """Over the four numbers of a 2x2 image, by draws of a wide Gaussian with their weights."""
    model = glow(image_spec(UNIT, size=2), num_levels=1, num_blocks=2).double()
    wide, spread = torch.randn(200_000, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double(), 6.0
    z, log_det = model.codes(spread * wide)
    log_weight = standard_normal(z) + log_det - standard_normal(wide) + 4 * math.log(spread)
    weight = log_weight.exp()
    assert abs(weight.mean() - 1) < 5 * weight.std() / math.sqrt(len(wide)) < 0.1


def test_the_place_within_a_level_has_the_density_that_is_said_of_it():
    """A pixel's u: log q integrates to one over (0, 1), and at first q is almost uniform."""
    torch.manual_seed(0)
    model = Dequantiser(1, 8, 2).double()
    x = images(1, SMALL).double().expand(20_000, 1, 4, 4)
    u, log_q = model(x, torch.randn(20_000, 1, 4, 4).double())
    assert (u > 0).all() and (u < 1).all()
    assert abs(u.mean() - 0.5) < 0.01 and abs(u.var() - 1 / 12) < 0.01
    assert abs(log_q.mean() / 16) < 0.05  # of a uniform draw it is 0
    torch.nn.init.normal_(model.couplings[0].net[-1].weight, std=0.3)
    one = torch.randn(1, 1, 4, 4).double()

    def place(noise):
        return model(x[:1], noise.view(1, 1, 4, 4))[0].flatten()

    matrix = jacobian(place, one.flatten())
    _, log_q = model(x[:1], one)
    torch.testing.assert_close(log_q[0], standard_normal(one)[0] - torch.linalg.slogdet(matrix).logabsdet)


@pytest.mark.parametrize("name", ["glow", "glow variational"])
def test_more_draws_make_the_bound_tighter(name):
    pipe = INSTANCES[name].make()
    x = images(8)
    given = {"class_labels": [0] * 8} if pipe.num_classes else {}
    elbo = pipe.elbo(x, num_samples=200, generator=torch.Generator().manual_seed(0), **given)
    tight = pipe.log_prob(x, num_samples=200, generator=torch.Generator().manual_seed(0), **given)
    assert (tight >= elbo).all()
    one = torch.Generator().manual_seed(5)
    same = torch.Generator().manual_seed(5)
    torch.testing.assert_close(pipe.elbo(x, generator=one, **given), pipe.log_prob(x, 1, generator=same, **given))


def test_classes_move_the_top_alone():
    pipe = INSTANCES["glow variational"].make()
    x = images(2)
    first, second = (pipe.encode(x, class_labels=[c, c]) for c in (0, 1))
    finest = math.prod(pipe.flow.code_shapes[0])
    assert torch.equal(first[:, :finest], second[:, :finest]) and not torch.equal(first, second)


def test_one_level_alone_is_drawn_anew():
    pipe = INSTANCES["glow"].make()
    z = pipe.encode(images(2))
    for level in range(pipe.num_levels):
        before = z.clone()
        images_ = pipe.resample(z, level, generator=torch.Generator().manual_seed(0), output_type="pt").images
        assert torch.equal(z, before) and images_.shape == (2, 1, 8, 8)
        assert images_.isfinite().all()
    with pytest.raises(ValueError, match="level is 2; it must be an integer from 0 to 1"):
        pipe.resample(z, 2)


def test_no_draw_is_infinite_though_networks_say_extremes():
    model = glow(strength=50.0)
    z = 5 * torch.randn(100, 64)
    assert model.inverse(z).isfinite().all()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"data_spec": image_spec(LEVELS)}, "it must be of 8-bit images in"),
        ({"data_spec": image_spec(UNIT, size=6), "num_levels": 2}, "images of 6x6 cannot be halved so often"),
        ({"mixing": "svd"}, "mixing is 'svd'; it must be one of lu, plain"),
        ({"dequantization": "none"}, "dequantization is 'none'; it must be one of uniform, variational"),
    ],
)
def test_configs_that_cannot_be_are_refused(config, said):
    with pytest.raises(ValueError, match=said):
        GlowModel(**{"data_spec": SPEC, **config})
