"""Whether the weights of a model are those of its files, and can be those of any model.

diffusers and transformers load a file that lacks a tensor: with a warning, and with whatever memory held in its place.
Tensors that the model does not know they drop, and integers they take for weights. A pipeline gets its models when all
this has happened, but each knows where it came from: so the header of its file is compared with what the model holds.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.checks import check_finite

WEIGHT_FILE = re.compile(
    r"(diffusion_pytorch_model|model)(\.[\w-]+?)?(-\d{5}-of-(?P<parts>\d{5}))?(\.[\w-]+)?\.safetensors"
)
FLOATING = ("F16", "BF16", "F32", "F64")
LARGEST_HEADER = 100_000_000  # bytes; safetensors' own bound
PASSED = "_weights_were_compared"  # an attribute of a model whose weights were those of its file; it may change since


def check_weights(name: str, model: nn.Module) -> None:
    """Refuse a model whose weights are missing, unexpected, of another shape or type, not finite, or no weights at all.

    A model that was loaded from a folder of safetensors is compared with their headers, once: what is made of it later,
    by fine-tuning or by adapters, is its owner's affair. All weights must be there and finite each time. A model may
    have a method `check_values`, which raises a ValueError where the weights cannot be those of a fit.

    Args:
        name: of the component, for the error.

    Raises:
        ValueError: one line that names the component and the tensor.
    """
    model = getattr(model, "_orig_mod", model)  # of a compiled one
    weights = model.state_dict()
    origin = getattr(getattr(model, "config", None), "_name_or_path", None)
    if origin and PASSED not in model.__dict__ and not _is_altered(model, weights):
        for files in _weight_files(name, model):
            _compare(name, model, weights, files)
    _check_values(name, model, weights, bool(origin))
    model.__dict__[PASSED] = True


def _check_values(name: str, model: nn.Module, weights: dict[str, Tensor], was_loaded: bool) -> None:
    is_offloaded = any(hasattr(part, "_hf_hook") for part in model.modules())
    for key, tensor in weights.items():
        if tensor.is_meta and not is_offloaded:
            raise ValueError(f"{name}: the weights lack {key}; it must be in the file")
    floating = {k: _comparable(t) for k, t in weights.items() if t.is_floating_point() and not t.is_meta}
    for key, tensor in floating.items():
        check_finite(f"{name}: {key}", tensor)
    is_network = len(floating) > 1 or any(tensor.ndim > 1 for tensor in floating.values())  # not one vector of logits
    if was_loaded and is_network and not any(tensor.any() for tensor in floating.values()):
        raise ValueError(f"{name}: all weights are zero, {next(iter(floating))} and all others; the file was damaged")
    for key, part in model.named_modules():
        variance = getattr(part, "running_var", None)
        if isinstance(variance, Tensor) and not variance.is_meta and (variance < 0).any():
            raise ValueError(f"{name}: {key}.running_var holds {variance.min().item():.4g}; a variance is at least 0")
    if hasattr(model, "check_values") and not any(tensor.is_meta for tensor in weights.values()):
        try:
            model.check_values()
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def _comparable(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.element_size() == 1 else tensor  # 8-bit floats know few operations


def _is_altered(model: nn.Module, weights: dict[str, Tensor]) -> bool:
    """Whether the names of tensors are no longer those of the file: adapters, or quantised weights."""
    quantised = getattr(model, "hf_quantizer", None) is not None or getattr(model, "is_quantized", False)
    return quantised or hasattr(model, "peft_config") or any(".base_layer." in f".{key}" for key in weights)


# What the files say


def folder_of(config) -> Path | None:
    """The folder that a config was read from: of a repository of the Hub, what of it lies in the cache."""
    origin, commit = str(config._name_or_path), getattr(config, "_commit_hash", None)
    if commit and not Path(origin).is_dir():
        from transformers.utils import cached_file

        try:
            origin = str(Path(cached_file(origin, "config.json", revision=commit, local_files_only=True)).parent)
        except OSError:  # in another cache, or gone
            return None
    return Path(origin) if origin and Path(origin).is_dir() else None


def _weight_files(name: str, model: nn.Module) -> list[list[Path]]:
    """The safetensors that a model may have been loaded from, shards of one model together; [] where none is there."""
    folder, groups = folder_of(model.config), {}
    for place in () if folder is None else (folder, folder / name):
        for file in sorted(place.glob("*.safetensors")) if not groups else ():
            said = WEIGHT_FILE.fullmatch(file.name)
            if said:
                groups.setdefault((said[1], said[2] or said[5], said["parts"]), []).append(file)
    return [files for (*_, count), files in groups.items() if count is None or len(files) == int(count)]


def read_header(file: Path) -> dict[str, dict]:
    """What the header of a safetensors file says of each tensor: `dtype` and `shape`, by name.

    Raises:
        ValueError: it is no such file.
    """
    try:
        with open(file, "rb") as content:
            length = int.from_bytes(content.read(8), "little")
            found = json.loads(content.read(length)) if length <= LARGEST_HEADER else None
        return {key: {"dtype": said["dtype"], "shape": said["shape"]} for key, said in found.items() if key[:2] != "__"}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError(f"{file}: is cut short, or no safetensors file") from None


def _compare(name: str, model: nn.Module, weights: dict[str, Tensor], files: list[Path]) -> None:
    """Whether the tensors of a model are those of the files."""
    where = files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"
    there = {key: said for file in files for key, said in read_header(file).items()}
    if hasattr(model, "_fix_state_dict_keys_on_load"):  # diffusers renames what older versions called otherwise
        model._fix_state_dict_keys_on_load(there)
    weights, is_whole = dict(weights), True
    prefix = getattr(model, "base_model_prefix", None)
    if prefix is not None:  # transformers
        if _is_converted(model):
            return
        architectures = getattr(model.config, "architectures", None) or [type(model).__name__]
        is_whole = type(model).__name__ in architectures  # else it is a part of what the file holds
        there = {_usual(key, prefix): said for key, said in there.items()}
        weights = {_usual(key, prefix): tensor for key, tensor in weights.items()}
    tied = {}
    for key, tensor in weights.items():
        tied.setdefault((tensor.data_ptr(), tensor.shape) if tensor.numel() and not tensor.is_meta else key, set()).add(
            key
        )
    # of tied tensors a file holds one
    known = {key for keys in tied.values() if keys & there.keys() for key in keys}
    for key in _left(weights.keys() - known, model, "missing"):
        raise ValueError(f"{name}: {where} lacks {key}, which the model has; its values would be random")
    if is_whole:
        for key in _left(there.keys() - weights.keys(), model, "unexpected"):
            raise ValueError(f"{name}: {where} holds {key}, which the model does not have; its config is of another")
    floating = _floating(model, weights)
    for key, tensor in weights.items():
        said = there.get(key)
        if said is None:
            continue
        if list(tensor.shape) != said["shape"]:
            raise ValueError(f"{name}: {key} is {said['shape']} in {where}; in the model it is {list(tensor.shape)}")
        is_floating = key in floating
        if is_floating != (said["dtype"] in FLOATING):
            kind = f"one of {', '.join(FLOATING)}" if is_floating else "integers"
            raise ValueError(f"{name}: {key} has dtype {said['dtype']} in {where}; it must be {kind}")


def _floating(model: nn.Module, weights: dict[str, Tensor]) -> set[str]:
    """Which tensors the class makes floating: one without gradient becomes what the file holds, integers too."""
    if all(tensor.is_floating_point() for tensor in weights.values()) or not isinstance(model.config, dict):
        return {key for key, tensor in weights.items() if tensor.is_floating_point()}
    with torch.device("meta"):
        made = type(model).from_config(model.config).state_dict()
    return {key for key, tensor in made.items() if tensor.is_floating_point()}


def _usual(key: str, prefix: str) -> str:
    """A tensor's name without the part that transformers adds and drops, and without its former words."""
    key = key.removeprefix(f"{prefix}.") if prefix else key
    return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", key))


def _left(keys: set[str], model: nn.Module, how: str) -> Iterator[str]:
    """The keys that the class does not say may be missing, or unexpected; in order."""
    patterns = getattr(model, f"_keys_to_ignore_on_load_{how}", None) or ()
    return iter(sorted(key for key in keys if not any(re.search(pattern, key) for pattern in patterns)))


def _is_converted(model: nn.Module) -> bool:
    """Whether transformers rewrites the tensors of such a model while it loads them."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
    except ImportError:
        return False
    return bool(get_model_conversion_mapping(model, add_legacy=False))
