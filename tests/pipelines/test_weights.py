"""Weights are compared with the file that they came from, once, and only where they still are what the file holds."""

import copy
import json
import shutil

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertModel, GPT2Config, GPT2LMHeadModel, GPT2Model

from pipelines.autoencoders.modeling_autoencoder import AutoencoderModel
from pipelines.autoencoders.modeling_vae import VAEModel
from pipelines.autoencoders.pipeline_autoencoder import AutoencoderPipeline
from pipelines.autoencoders.pipeline_vae import VAEPipeline
from pipelines.classical.modeling_gaussian_mixture import GaussianMixtureModel
from pipelines.classical.modeling_kde import KDEModel
from pipelines.classical.modeling_pca import PCAModel
from pipelines.classical.pipeline_density import DensityPipeline
from pipelines.diffusion.pipeline_ddpm import DenoisingDiffusionPipeline
from pipelines.weights import check_weights, read_header
from tests.contract import BINARY, LEVELS, UNIT, VECTOR_SPEC, fitted_to_noise, image_spec

SPEC = image_spec(BINARY)


def vae() -> VAEPipeline:
    torch.manual_seed(0)
    return VAEPipeline(VAEModel(SPEC, latent_dim=2, width=8))


def small_gpt() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2))


class Adapter(nn.Module):
    """A layer with an adapter, named as peft names them."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.base_layer, self.lora_A = layer, nn.Linear(layer.in_features, 2)


def rename(file, name: str) -> None:
    tensors = load_file(file)
    tensors[f"{name}_"] = tensors.pop(name)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "options", [{"variant": "fp16"}, {"max_shard_size": "1KB"}, {"variant": "fp16", "max_shard_size": "1KB"}]
)
def test_every_way_of_laying_files_out_is_found(options, tmp_path):
    vae().save_pretrained(tmp_path, **options)
    variant = {k: v for k, v in options.items() if k == "variant"}
    assert VAEPipeline.from_pretrained(tmp_path, **variant, dtype=torch.float16)
    for file in sorted((tmp_path / "vae").glob("*.safetensors")):
        whole = file.read_bytes()
        name = sorted(load_file(file))[0]
        rename(file, name)
        for memory in ({}, {"low_cpu_mem_usage": False}):
            # an index that names another tensor than its shard diffusers refuses itself
            with pytest.raises((ValueError, KeyError), match=name):
                VAEPipeline.from_pretrained(tmp_path, **variant, **memory)
        file.write_bytes(whole)


def test_what_was_loaded_may_be_trained_saved_and_used_again(tmp_path, monkeypatch):
    vae().save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    pipe = VAEPipeline.from_pretrained("model")
    tuned = VAEModel.from_pretrained("model", subfolder="vae")
    check_weights("vae", tuned)
    rename(tmp_path / "model" / "vae" / "diffusion_pytorch_model.safetensors", "decoder.first.bias")
    with pytest.raises(ValueError, match=r"vae: diffusion_pytorch_model.safetensors lacks decoder.first.bias"):
        check_weights("vae", VAEModel.from_pretrained(tmp_path / "model", subfolder="vae", low_cpu_mem_usage=False))
    # what passed once has an owner
    assert type(pipe)(**pipe.components) and VAEPipeline(copy.deepcopy(pipe.vae))
    with torch.no_grad():
        tuned.decoder.last.weight.mul_(2)
    tuned.more = nn.Linear(2, 2)
    assert VAEPipeline(tuned)
    shutil.rmtree(tmp_path / "model")
    fresh = VAEModel(SPEC, latent_dim=2, width=8)
    fresh.register_to_config(_name_or_path="model")  # a place that is gone
    assert VAEPipeline(fresh)
    tuned.decoder.last.weight.data[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"vae: decoder.last.weight holds NaN or infinite values"):
        VAEPipeline(tuned)


def test_adapters_and_pickled_weights_are_no_damage(tmp_path):
    vae().save_pretrained(tmp_path)
    model = VAEModel.from_pretrained(tmp_path / "vae")
    model.decoder.last = Adapter(model.decoder.last)
    assert "decoder.last.base_layer.weight" in model.state_dict() and VAEPipeline(model)
    vae().save_pretrained(tmp_path / "pickled", safe_serialization=False)
    assert VAEPipeline.from_pretrained(tmp_path / "pickled", use_safetensors=False)


def test_transformers_ties_prefixes_and_parts_are_no_damage(tmp_path):
    small_gpt().save_pretrained(tmp_path / "gpt")
    assert "lm_head.weight" not in read_header(tmp_path / "gpt" / "model.safetensors")
    check_weights("model", GPT2LMHeadModel.from_pretrained(tmp_path / "gpt"))
    small_gpt().transformer.save_pretrained(tmp_path / "body")  # without the prefix, as gpt2 itself is
    check_weights("model", GPT2LMHeadModel.from_pretrained(tmp_path / "body"))
    check_weights("model", GPT2Model.from_pretrained(tmp_path / "gpt"))
    bert = BertForMaskedLM(
        BertConfig(vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    )
    bert.save_pretrained(tmp_path / "bert")  # what is beyond the body is not asked for
    check_weights("text_encoder", BertModel.from_pretrained(tmp_path / "bert", add_pooling_layer=False))
    with pytest.raises(ValueError, match=r"text_encoder: model.safetensors lacks pooler.dense.bias"):
        check_weights("text_encoder", BertModel.from_pretrained(tmp_path / "bert"))
    rename(tmp_path / "gpt" / "model.safetensors", "transformer.wte.weight")
    with pytest.raises(ValueError, match=r"model: model.safetensors lacks (lm_head|wte).weight"):
        check_weights("model", GPT2LMHeadModel.from_pretrained(tmp_path / "gpt"))


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, (9).to_bytes(8, "little") + b'{"a": {}}', b"\2" + bytes(7) + b"[]"]
)
def test_what_is_no_safetensors_file_is_said_to_be_none(content, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model.safetensors: is cut short, or no safetensors file"):
        read_header(tmp_path / "model.safetensors")


def test_a_variance_below_zero_is_refused():
    model = AutoencoderModel(image_spec(UNIT), latent_dim=2, width=8, standardise=True)
    assert AutoencoderPipeline(model)
    model.norm.running_var[1] = -1
    with pytest.raises(ValueError, match=r"autoencoder: norm.running_var holds -1; a variance is at least 0"):
        AutoencoderPipeline(model)


def test_weights_of_no_fit_are_refused():
    """What a fit cannot have given: shares that do not sum to 1, a class that there is not, crooked axes."""
    mixture = fitted_to_noise(lambda x, **kw: GaussianMixtureModel.fit(x, 2, **kw), 2, 8)
    kde = fitted_to_noise(KDEModel.fit, 2, 8)
    pca = PCAModel.fit([torch.randn(40, 2, generator=torch.Generator().manual_seed(0))], 2)
    for model, name, value in (
        (mixture, "weights", 0.9), (mixture, "component_classes", 8), (mixture, "scale", -1.0), (kde, "bandwidth", 0.0),
        (kde, "point_classes", -1), (pca, "components", 0.5), (pca, "variances", -1.0),
    ):  # fmt: skip
        broken, part = copy.deepcopy(model), "pca" if model is pca else "density"
        assert DensityPipeline(**{part: model}, data_spec=VECTOR_SPEC)
        broken.get_parameter(name).view(-1)[-1:] = value
        with pytest.raises(ValueError, match=f"{part}: {name} holds values of no fit"):
            DensityPipeline(**{part: broken}, data_spec=VECTOR_SPEC)


def test_a_component_must_fit_the_data_and_the_others_later_too():
    pipe = AutoencoderPipeline(AutoencoderModel(image_spec(UNIT), latent_dim=2, width=8))
    with pytest.raises(ValueError, match="prior has 3 dimensions; it must have 2"):
        pipe.prior = fitted_to_noise(KDEModel.fit, 3)
    assert pipe.prior is None
    pipe.prior = fitted_to_noise(KDEModel.fit, 2)
    with pytest.raises(ValueError, match="prior has num_classes 3; the data spec has 10"):
        pipe.prior = fitted_to_noise(KDEModel.fit, 2, 3)
    with pytest.raises(ValueError, match="autoencoder is of data"):
        pipe.autoencoder = AutoencoderModel(image_spec(UNIT, size=4), latent_dim=2, width=8)
    assert pipe.prior is not None and pipe.autoencoder.config.data_spec == pipe.data_spec


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"sample_size": 4}, {}, "denoiser has sample_size 4"),
        ({"in_channels": 4}, {}, "denoiser has in_channels 4"),
        ({"out_channels": 2}, {}, "denoiser has out_channels 2"),
        ({"num_class_embeds": 10}, {"conditional": True}, "denoiser has num_class_embeds 10; .* it must be 11"),
        ({"num_class_embeds": 11}, {}, "conditional is False, but denoiser has num_class_embeds 11"),
        ({}, {"conditional": True}, "conditional is True, but denoiser has num_class_embeds None"),
        ({}, {"patch_size": 3}, "patch_size is 3; it must divide the sides of x"),
        ({}, {"patch_size": 0}, "patch_size is 0; it must be an integer of at least 1"),
        ({}, {"guidance_scale": "2"}, "guidance_scale is '2'"),
        ({}, {"num_inference_steps": 10**6}, "num_inference_steps is 1000000; it must be an integer from 1 to 1000"),
        ({}, {"schedule": {"beta_start": 1e-4}}, "scheduler has|num_train_timesteps is False"),
    ],
)
def test_a_denoiser_must_fit_what_the_pipeline_says(changed, options, message):
    blocks = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "norm_num_groups": 4}
    sizes = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (8,), "layers_per_block": 1}
    scheduler = DDPMScheduler(beta_start=1e-4, timestep_spacing="trailing")
    assert DenoisingDiffusionPipeline(UNet2DModel(**sizes, **blocks), scheduler, image_spec(LEVELS))
    with pytest.raises(ValueError, match=message):
        DenoisingDiffusionPipeline(
            UNet2DModel(**{**sizes, **changed}, **blocks), scheduler, image_spec(LEVELS), **options
        )


def test_a_config_of_another_version_of_diffusers_may_lack_what_that_did_not_know(tmp_path):
    blocks = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "norm_num_groups": 4}
    scheduler = DDPMScheduler(beta_start=1e-4, timestep_spacing="trailing")
    denoiser = UNet2DModel(8, 1, 1, block_out_channels=(8,), layers_per_block=1, **blocks)
    DenoisingDiffusionPipeline(denoiser, scheduler, image_spec(LEVELS)).save_pretrained(tmp_path)
    file = tmp_path / "denoiser" / "config.json"
    config = {key: value for key, value in json.loads(file.read_text()).items() if key != "freq_shift"}
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"denoiser: config.json lacks 'freq_shift'"):
        DenoisingDiffusionPipeline.from_pretrained(tmp_path)
    file.write_text(json.dumps({**config, "_diffusers_version": "0.30.0"}))
    assert DenoisingDiffusionPipeline.from_pretrained(tmp_path)
