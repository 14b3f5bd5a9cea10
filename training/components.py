"""Models that others are made of: `load_component`, from a run, a checkpoint, a portable folder or the Hub.

Only weights and configs are taken, into classes of this project and of the libraries: code that lies beside them is neither
fetched nor run, and pickles are not read.
"""

from pathlib import Path

from training.files import read_json
from training.folders import WEIGHTS_AND_CONFIGS, local_folder, plain_files, plain_folder
from training.options import UsageError, in_one_line


def component_folder(source: str, name: str | None, named: str = "--init_from") -> Path:
    """The local folder of a component, fetched from the Hub where `source` is no folder.

    Args:
        source: a run folder, a checkpoint, a portable folder, or a Hub id like user/vae-mnist or user/vae-mnist@revision.
        name: of the component's folder in it; None for the whole, as transformers lays out a model.
        named: the option that named the source.

    Raises:
        UsageError: neither a folder nor a repository that can be read, or it holds no such component.
    """
    only = WEIGHTS_AND_CONFIGS if name is None else [f"{name}/{one}" for one in WEIGHTS_AND_CONFIGS]
    folder = local_folder(source, named, only)
    if name is not None:
        folder = plain_folder(folder, name)
        if not (folder / "config.json").is_file():
            raise UsageError(f"{named} {source}: holds no {name}/config.json")
    plain_files(folder)  # holds no link
    return folder


def load_component(source: str, name: str | None, cls: type, named: str = "--init_from", **options):
    """A model, its weights in float32, or a tokenizer: `cls.from_pretrained` of a component's folder.

    Args:
        source, name, named: as of `component_folder`.
        cls: the class that the component must be of: diffusers', transformers', an Auto class of theirs, or ours.
        options: for `from_pretrained`.

    Raises:
        UsageError: there is no such component, it is of another class, or it is damaged.
    """
    from torch import nn

    folder = component_folder(source, name, named)
    what, tells_what_it_lacks = name or cls.__name__, issubclass(cls, nn.Module)
    try:
        _check_config(folder, cls)
        if not tells_what_it_lacks:
            return cls.from_pretrained(folder, local_files_only=True, **_no_code(cls), **options)
        model, found = cls.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **_no_code(cls), **options
        )
        if found["missing_keys"]:  # they would be random
            raise ValueError(f"its weights lack {', '.join(sorted(found['missing_keys'])[:3])}")
        return model
    except Exception as error:
        raise UsageError(f"{named} {source}: holds no {what} that can be loaded ({in_one_line(error)})") from None


def _no_code(cls: type) -> dict:
    """What an Auto class has to be told, or it would ask a person whether it may run what a config names."""
    return {"trust_remote_code": False} if cls.__name__.startswith("Auto") else {}


def _check_config(folder: Path, cls: type) -> None:
    """Raise if a config of diffusers names another class: it would load, with random weights; or if it asks for more than a
    model: a quantizer, a kernel of the Hub."""
    file = folder / "config.json"
    config = read_json(file, "config", finite=False) if file.is_file() else {}
    class_name = config.get("_class_name")
    if class_name is not None and class_name != cls.__name__ and cls.__name__ != "AutoModel":
        raise ValueError(f"its class is {class_name}, not {cls.__name__}")
    asked = [
        name for name in config if name == "quantization_config" or name.endswith(("attn_implementation", "kernels"))
    ]
    if asked:
        raise ValueError(f"its config has {asked[0]}, which a model that others are made of may not ask for")


def load_weights(model, source: str, name: str, named: str = "--init_from") -> None:
    """The weights of a component into a model of the same shapes: the config stays the model's own.

    Raises:
        UsageError: nothing there, or weights of another shape.
    """
    from safetensors.torch import load as load_safetensors

    file = component_folder(source, name, named) / "diffusion_pytorch_model.safetensors"
    if not file.is_file():
        raise UsageError(f"{named} {source}: holds no {name}/{file.name}")
    try:
        model.load_state_dict(load_safetensors(file.read_bytes()))
    except Exception as error:
        why = str(error).split("\n")[-1].strip()
        raise UsageError(f"{named} {source}: its weights do not fit this model ({why})") from None
