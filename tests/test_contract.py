"""Every family answers the calls it owes, in the shapes and with the errors that DESIGN's table promises.

FAMILIES is that table: a new family adds a line. Models are tiny and untrained; only the interface is asked here.
"""

import inspect
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from diffusers import DiTTransformer2DModel, DPMSolverMultistepScheduler, UNet2DModel

from pipelines.adversarial.modeling_gan import DiscriminatorModel, GeneratorModel
from pipelines.adversarial.pipeline_gan import GANPipeline
from pipelines.autoencoders.modeling_autoencoder import AutoencoderModel
from pipelines.autoencoders.modeling_hierarchical_vae import HierarchicalVAEModel
from pipelines.autoencoders.modeling_vae import VAEModel
from pipelines.autoencoders.pipeline_autoencoder import AutoencoderPipeline
from pipelines.autoencoders.pipeline_hierarchical_vae import HierarchicalVAEPipeline
from pipelines.autoencoders.pipeline_vae import VAEPipeline
from pipelines.classical.modeling_gaussian_mixture import GaussianMixtureModel
from pipelines.classical.modeling_kde import KDEModel
from pipelines.classical.modeling_pca import PCAModel
from pipelines.classical.pipeline_density import DensityPipeline
from pipelines.diffusion.modeling_ddpm import MLPDenoiser
from pipelines.diffusion.pipeline_ddpm import DenoisingDiffusionPipeline

BINARY = {"support": "binary", "range": [0, 1], "dequantization": "none"}
LEVELS = {"support": "8-bit", "range": [-1, 1], "dequantization": "none"}
DEQUANTISED = {"support": "8-bit", "range": [-1, 1], "dequantization": "uniform"}
UNIT = {"support": "8-bit", "range": [0, 1], "dequantization": "none"}
UNIT_DEQUANTISED = {"support": "8-bit", "range": [0, 1], "dequantization": "uniform"}
REAL = {"support": "real", "range": None, "dequantization": "none"}


def image_spec(kind: dict, channels: int = 1, size: int = 8) -> dict:
    return {"kind": "image", "shape": [channels, size, size], "num_classes": 10, **kind}


VECTOR_SPEC = {"kind": "vector", "shape": [2], "num_classes": 8, **REAL}


@dataclass
class Family:
    """How to make a tiny pipeline, and which calls it owes beyond sampling."""

    make: callable
    likelihood: str
    owes: set = field(default_factory=set)
    conditional: bool = False
    has_log_prob: bool = True  # a bound that no importance sampling tightens, and an implicit likelihood, have none
    knows_no_class: bool = False  # a conditional model that also takes "no class"
    encodes_by_class: bool = True  # where a code means something only together with its class
    judge: str = "discriminate"  # what an implicit likelihood has instead

    def likelihoods(self, pipe) -> tuple:
        if self.likelihood == "implicit":
            return ()
        return (pipe.log_prob, pipe.elbo) if self.has_log_prob else (pipe.elbo,)

    def measure(self, pipe, x, class_labels=None, generator=None) -> torch.Tensor:
        """One number for each x: the bound, or where there is none how real it looks."""
        if self.judge == "reconstruction_error":
            return pipe.reconstruction_error(x)
        if self.likelihood == "implicit":
            labels = class_labels if class_labels or not self.conditional else [0] * len(x)
            return pipe.discriminate(x, class_labels=labels)
        return pipe.elbo(x, class_labels=class_labels, generator=generator)


def vae(spec: dict, **config) -> callable:
    def make():
        torch.manual_seed(0)
        return VAEPipeline(VAEModel(spec, latent_dim=3, width=16, **config)).to("cpu")

    return make


def diffusion(denoiser: callable, spec: dict, conditional: bool = False, **config) -> callable:
    def make():
        torch.manual_seed(0)
        scheduler = DPMSolverMultistepScheduler(
            beta_start=1e-4, prediction_type="v_prediction", timestep_spacing="trailing"
        )
        config["guidance_scale"] = 1.5 if conditional else 1.0
        pipe = DenoisingDiffusionPipeline(denoiser(), scheduler, spec, conditional=conditional, **config)
        pipe.denoiser.eval()
        return pipe.to("cpu")

    return make


def unet(size: int = 8, channels: int = 1, classes: int | None = None) -> callable:
    blocks = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "norm_num_groups": 8}
    return lambda: UNet2DModel(
        size, channels, channels, block_out_channels=(8, 16), layers_per_block=1, num_class_embeds=classes, **blocks
    )


def dit(classes: int = 10) -> callable:
    return lambda: DiTTransformer2DModel(
        2, 8, 1, 1, num_layers=2, sample_size=8, patch_size=4, num_embeds_ada_norm=classes
    )


def hierarchical_vae(*latent_dims: int) -> callable:
    def make():
        torch.manual_seed(0)
        model = HierarchicalVAEModel(image_spec(BINARY), list(latent_dims), width=16, upper_width=8)
        return HierarchicalVAEPipeline(model).to("cpu")

    return make


def prior_of(kind: str, dim: int, classes: int = 0):
    """A density over codes, or over x, fitted to noise."""
    points = torch.randn(60, dim, generator=torch.Generator().manual_seed(0))
    by_class = {"class_labels": torch.arange(60) % classes, "num_classes": classes} if classes else {}
    if kind == "kde":
        return KDEModel.fit(points, 1.0, **by_class)
    return GaussianMixtureModel.fit(points, 2, reg_covar=0.5, **by_class)


def autoencoder(spec: dict, prior: callable = lambda: None, **config) -> callable:
    def make():
        torch.manual_seed(0)
        return AutoencoderPipeline(AutoencoderModel(spec, latent_dim=3, width=16, **config).eval(), prior()).to("cpu")

    return make


def density(spec: dict, kind: str, pca_dim: int = 0, classes: int = 0) -> callable:
    def make():
        size = math.prod(spec["shape"])
        noise = torch.rand(80, size, generator=torch.Generator().manual_seed(0))
        pca = PCAModel.fit([noise], pca_dim) if pca_dim else None
        return DensityPipeline(prior_of(kind, pca_dim or size, classes), pca, spec).to("cpu")

    return make


def gan(spec: dict, critic: dict | None = None, **config) -> callable:
    def make():
        torch.manual_seed(0)
        generator = GeneratorModel(spec, latent_dim=3, width=(8, 8), **config)
        discriminator = DiscriminatorModel(spec, width=(8, 8), **{**config, **(critic or {})})
        return GANPipeline(generator, discriminator).to("cpu")

    return make


LATENT = {"encode", "decode", "reconstruct", "interpolate"}
FAMILIES = {
    "vae": Family(vae(image_spec(BINARY)), "bound", LATENT),
    "vae conv": Family(vae(image_spec(BINARY, size=7), network="conv", num_levels=2), "bound", LATENT),
    "vae logistic": Family(vae(image_spec(LEVELS, 3), output="logistic"), "bound", LATENT),
    "vae gaussian": Family(vae(image_spec(DEQUANTISED, 3), output="gaussian", network="conv"), "bound", LATENT),
    "vae vectors": Family(vae(VECTOR_SPEC, output="gaussian"), "bound", LATENT),
    "cvae": Family(vae(image_spec(BINARY), conditional=True), "bound", LATENT, conditional=True),
    "cvae conv": Family(vae(image_spec(BINARY), conditional=True, network="conv"), "bound", LATENT, conditional=True),
    "hierarchical vae": Family(hierarchical_vae(4, 3, 2), "bound", LATENT),
    "autoencoder": Family(
        autoencoder(image_spec(UNIT), lambda: prior_of("kde", 3)),
        "implicit",
        LATENT,
        has_log_prob=False,
        judge="reconstruction_error",
    ),
    "autoencoder by class": Family(
        autoencoder(image_spec(UNIT, 3), lambda: prior_of("mixture", 3, 10), network="conv", supervised=True),
        "implicit",
        LATENT,
        True,
        False,
        encodes_by_class=False,
        judge="reconstruction_error",
    ),
    "autoencoder ring": Family(
        autoencoder(VECTOR_SPEC, code_prior="ring"),
        "implicit",
        LATENT,
        has_log_prob=False,
        judge="reconstruction_error",
    ),
    "kde": Family(density(VECTOR_SPEC, "kde"), "exact"),
    "mixture": Family(density(image_spec(UNIT_DEQUANTISED), "mixture"), "exact"),
    "mixture by class": Family(
        density(image_spec(UNIT_DEQUANTISED), "mixture", 4, 10), "exact", LATENT, True, encodes_by_class=False
    ),
    "kde of components": Family(density(image_spec(UNIT_DEQUANTISED, 3), "kde", 4), "exact", LATENT),
    "ddpm": Family(
        diffusion(unet(classes=11), image_spec(LEVELS), conditional=True),
        "bound",
        LATENT | {"complete"},
        True,
        False,
        True,
    ),
    "ddpm patches": Family(
        diffusion(unet(size=4, channels=12), image_spec(LEVELS, 3), patch_size=2),
        "bound",
        LATENT | {"complete"},
        has_log_prob=False,
    ),
    "ddpm dit": Family(
        diffusion(dit(), image_spec(LEVELS), conditional=True), "bound", LATENT | {"complete"}, True, False, True
    ),
    "ddpm dit free": Family(diffusion(dit(1), image_spec(LEVELS)), "bound", LATENT | {"complete"}, has_log_prob=False),
    "ddpm vectors": Family(
        diffusion(lambda: MLPDenoiser(2, 16, 1), VECTOR_SPEC), "bound", LATENT | {"complete"}, has_log_prob=False
    ),
    "gan": Family(gan(image_spec(LEVELS)), "implicit", has_log_prob=False),
    "gan conv": Family(
        gan(image_spec(LEVELS, 3, size=9), network="conv", norm="batch"), "implicit", has_log_prob=False
    ),
    "cgan": Family(gan(image_spec(LEVELS), conditional=True), "implicit", conditional=True, has_log_prob=False),
    "wgan vectors": Family(gan(VECTOR_SPEC, {"output": "critic"}), "implicit", has_log_prob=False),
}


@pytest.fixture(params=FAMILIES, scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def family(name):
    return FAMILIES[name]


@pytest.fixture(scope="module")
def pipe(family):
    pipeline = family.make()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def data(pipe, count: int = 3) -> torch.Tensor:
    """Points of the support, as a user passes them."""
    spec = pipe.data_spec
    generator = torch.Generator().manual_seed(1)
    u = torch.rand(count, *spec["shape"], generator=generator)
    return {"binary": (u < 0.5).float(), "8-bit": (u * 255).round() / 255, "real": 4 * u - 2}[spec["support"]]


def seeds(*numbers: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(n) for n in numbers]


def result(output) -> torch.Tensor:
    return output.images if hasattr(output, "images") else output.samples


def labels_for(family, count: int):
    return list(range(count)) if family.conditional else None


def test_samples_have_the_shape_and_range_of_the_data_spec(pipe):
    shape = tuple(pipe.data_spec["shape"])
    samples = result(pipe(batch_size=4, generator=torch.Generator().manual_seed(0), output_type="pt"))
    assert samples.shape == (4, *shape) and samples.isfinite().all()
    array = result(pipe(batch_size=4, generator=torch.Generator().manual_seed(0), output_type="np"))
    if pipe.data_spec["kind"] == "image":
        assert samples.min() >= 0 and samples.max() <= 1
        np.testing.assert_allclose(array, samples.permute(0, 2, 3, 1).numpy(), atol=1e-6)
        picture = result(pipe(generator=torch.Generator().manual_seed(0)))[0]
        assert picture.size == (shape[2], shape[1])
    assert torch.equal(pipe(batch_size=2, generator=seeds(0, 1), output_type="pt", return_dict=False)[0],
                       result(pipe(batch_size=2, generator=seeds(0, 1), output_type="pt")))  # fmt: skip


def test_a_list_of_generators_makes_each_sample_independent_of_its_batch(pipe, family):
    labels = labels_for(family, 4)
    together = result(pipe(class_labels=labels, generator=seeds(5, 6, 7, 8), output_type="pt"))
    for i in range(4):
        alone = result(pipe(class_labels=labels and labels[i : i + 1], generator=seeds(5 + i), output_type="pt"))
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)


def test_stream_yields_what_the_call_returns_and_the_callback_sees_each_step(pipe):
    steps = list(pipe.stream(batch_size=2, generator=seeds(0, 1), output_type="pt"))
    seen = []
    final = pipe(batch_size=2, generator=seeds(0, 1), output_type="pt",
                 callback_on_step_end=lambda pipe, step, timestep, inputs: seen.append((step, set(inputs))))  # fmt: skip
    last = steps[-1]
    assert torch.equal(last.images if "images" in last else last.samples, result(final))
    assert [s.step for s in steps] == list(range(steps[0].num_steps)) == [step for step, _ in seen]
    assert all("latents" in names for _, names in seen)


def test_class_labels_set_the_batch_size(pipe, family):
    if not family.conditional:
        with pytest.raises(ValueError, match="class_labels is 3, but this model was trained without classes"):
            pipe(class_labels=3)
        return
    for labels in ([1, 2, 3], torch.tensor([1, 2, 3])):
        assert len(result(pipe(class_labels=labels, output_type="pt"))) == 3
    assert len(result(pipe(class_labels=3, output_type="pt"))) == 1
    assert len(result(pipe(batch_size=5, class_labels=np.int64(3), output_type="pt"))) == 5
    fixed = pipe(class_labels=[3] * 5, generator=seeds(*range(5)), output_type="pt")
    single = pipe(batch_size=5, class_labels=3, generator=seeds(*range(5)), output_type="pt")
    assert torch.equal(result(fixed), result(single))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be an integer of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"batch_size": 3, "generator": seeds(0, 1)}, "batch_size gives 3, generator gives 2"),
        ({"output_type": "jpeg"}, "output_type is 'jpeg'; it must be"),
        ({"class_labels": []}, "class_labels"),
    ],
)
def test_sampling_names_the_argument_that_is_wrong(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(**arguments)


@pytest.mark.parametrize("label", [-1, 10, [0, 10]])
def test_a_class_outside_the_range_is_refused(pipe, family, label):
    if family.conditional:
        with pytest.raises(ValueError, match=r"class_labels holds (-1|10); classes go from 0 to 9"):
            pipe(class_labels=label)


def test_likelihood_says_what_it_is(pipe, family):
    assert pipe.likelihood == family.likelihood in ("exact", "bound", "implicit", "none")


def test_likelihoods_are_nats_per_sample(pipe, family):
    x = data(pipe)
    for labels in {None, tuple(labels_for(family, 3) or ()) or None}:
        labels = None if labels is None else list(labels)
        for call in family.likelihoods(pipe):
            count = {"num_samples": 2} if "num_samples" in inspect.signature(call).parameters else {}
            value = call(x, **count, class_labels=labels, generator=torch.Generator().manual_seed(0))
            assert value.shape == (3,) and value.dtype == torch.float32 and value.isfinite().all()


def test_a_family_without_a_likelihood_gives_the_reason(pipe, family):
    if not family.has_log_prob:
        said = r"log_prob: an? (diffusion model|GAN|autoencoder) .* (elbo|discriminate|reconstruction_error)\(x\)"
        with pytest.raises(NotImplementedError, match=said):
            pipe.log_prob(data(pipe))


def test_a_sample_keeps_its_likelihood_in_another_batch(pipe, family):
    x = data(pipe)
    together = family.measure(pipe, x, generator=seeds(1, 2, 3))
    for i in range(3):
        torch.testing.assert_close(
            family.measure(pipe, x[i : i + 1], generator=seeds(i + 1))[0], together[i], atol=1e-3, rtol=1e-5
        )


def test_likelihood_refuses_what_it_cannot_measure(pipe, family):
    x, support = data(pipe), pipe.data_spec["support"]
    wrong = {
        "shape": (x[..., :-1], r"x has shape .* this model takes \(B, "),
        "rank": (x[0], "x has shape"),
        "empty": (x[:0], "with B at least 1"),
        "dtype": (x.to(torch.uint8), r"x has dtype torch.uint8; it must be floating point"),
        "nan": (torch.full_like(x, math.nan), "x holds NaN"),
        "type": ("a string", "x is a str"),
    }
    if support != "real":
        wrong["range"] = (x * 255, "x has values from .* they must lie in")
    if support == "binary":
        wrong["support"] = (x * 0.5, "binarise first")
    if support == "8-bit" and family.likelihoods(pipe):
        wrong["support"] = (torch.full_like(x, 0.5 / 255), "not on the 256 levels")
    for bad, message in wrong.values():
        for call in family.likelihoods(pipe) or (getattr(pipe, family.judge),):
            with pytest.raises(ValueError, match=message):
                call(bad)
    for call in family.likelihoods(pipe):
        if "num_samples" in inspect.signature(call).parameters:
            with pytest.raises(ValueError, match="num_samples is 0"):
                call(x, num_samples=0)


def test_codes_go_there_and_back(pipe, family):
    if "encode" not in family.owes:
        return
    x, labels = data(pipe), labels_for(family, 3)
    z = pipe.encode(x, class_labels=labels)
    assert z.shape[0] == 3 and z.ndim >= 2
    decoded = result(pipe.decode(z, class_labels=labels, output_type="pt"))
    assert decoded.shape == x.shape
    assert torch.equal(decoded, result(pipe.reconstruct(x, class_labels=labels, output_type="pt")))
    path = result(
        pipe.interpolate(x[:1], x[1:2], steps=5, class_labels=0 if family.conditional else None, output_type="pt")
    )
    assert path.shape == (5, *x.shape[1:])
    ends = result(pipe.decode(pipe.encode(x[:2], class_labels=[0, 0] if family.conditional else None),
                              class_labels=[0, 0] if family.conditional else None, output_type="pt"))  # fmt: skip
    torch.testing.assert_close(path[[0, -1]], ends, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="steps is 1"):
        pipe.interpolate(x[:1], x[1:2], steps=1)
    if family.knows_no_class:
        assert pipe.encode(x).shape == z.shape
    elif family.conditional and family.encodes_by_class:
        with pytest.raises(ValueError, match="encoding needs the class"):
            pipe.encode(x)


def test_what_is_known_of_x_stays(pipe, family):
    if "complete" not in family.owes:
        return
    x, labels = data(pipe), labels_for(family, 3)
    mask = torch.zeros(x.shape[1:], dtype=torch.bool)
    mask[..., : x.shape[-1] // 2] = True
    filled = result(pipe.complete(x, mask, labels, generator=seeds(1, 2, 3), output_type="pt"))
    torch.testing.assert_close(filled[:, mask], x[:, mask], atol=1e-6, rtol=0)
    assert (filled[:, ~mask] - x[:, ~mask]).abs().mean() > 0.01 and filled.isfinite().all()
    for bad, message in (
        (mask[..., :-1], "mask has shape"),
        (torch.zeros_like(mask), "mask is False everywhere"),
        (torch.ones_like(mask), "mask is True everywhere"),
        (mask.float(), "mask has dtype torch.float32; it must be bool"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe.complete(x, bad, labels)


def test_images_go_in_as_pictures_and_arrays(pipe, family):
    if pipe.data_spec["kind"] != "image":
        return
    x = (data(pipe) > 0.5).float()
    pictures = pipe.image_processor.postprocess(x, output_type="pil")
    array = x.permute(0, 2, 3, 1).numpy()
    given = [0, 0, 0] if family.conditional else None
    expected = family.measure(pipe, x, given, seeds(1, 2, 3))
    torch.testing.assert_close(family.measure(pipe, pictures, given, seeds(1, 2, 3)), expected)
    torch.testing.assert_close(family.measure(pipe, array, given, seeds(1, 2, 3)), expected)
    with pytest.raises(ValueError, match="x holds images of"):
        (getattr(pipe, family.judge) if family.likelihood == "implicit" else pipe.elbo)(pictures[0].resize((5, 5)))


def test_half_precision_weights_still_measure_in_float32(family):
    pipe = family.make().to("cpu", torch.bfloat16)
    x, labels = data(pipe), labels_for(family, 3)
    value = family.measure(pipe, x, labels, seeds(1, 2, 3))
    assert value.dtype == torch.float32
    reference = family.measure(family.make(), x, labels, seeds(1, 2, 3))
    torch.testing.assert_close(value, reference, rtol=0.05, atol=0.5)


def test_saved_and_loaded_it_draws_the_same_samples(pipe, family, tmp_path):
    pipe.save_pretrained(tmp_path)
    again = type(pipe).from_pretrained(tmp_path)
    draw = {"batch_size": 2, "generator": seeds(0, 1), "output_type": "pt"}
    assert torch.equal(result(pipe(**draw)), result(again(**{**draw, "generator": seeds(0, 1)})))
