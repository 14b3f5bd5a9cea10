"""A diffusers pipeline: model_index.json, and a folder with config and weights for each component."""

import json
from pathlib import Path

from training.options import UsageError
from training.publishing.code import add_code, defining_file, file_of_module, module_name
from training.publishing.copying import copy_files, write_json

LIBRARY = "diffusers"
INDEX = "model_index.json"


def recognises(folder: Path) -> bool:
    return (folder / INDEX).is_file()


def pipeline_module(folder: Path) -> str | None:
    try:
        class_name = json.loads((folder / INDEX).read_text())["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return class_name[0] if isinstance(class_name, list) else ""


def copy(source: Path, folder: Path, dtype: str | None = None) -> None:
    index = read_index(source)
    write_json(folder / INDEX, index)
    for name in components(index):
        copy_files(sorted((source / name).iterdir()), folder / name, dtype)


def build(source: Path, folder: Path) -> str:
    index = read_index(source)
    module = add_code(defining_file("pipeline", index["_class_name"]), folder)
    portable, own = {**index, "_class_name": [module, index["_class_name"]]}, []
    for name, (library, class_name) in components(index).items():
        copy_files(sorted((source / name).iterdir()), folder / name)
        if not is_library(library):
            module = add_code(file_of_module(library), folder / name)
            portable[name] = [module, class_name]
            own.append(f"{module}.{class_name}")
    if len(own) == 1:  # diffusers.AutoModel.from_pretrained(repo, subfolder=...) looks here, and knows one model
        portable["auto_map"] = {"AutoModel": own[0]}
    write_json(folder / INDEX, portable)
    return index["_class_name"]


def code(source: Path) -> list[Path]:
    index = read_index(source)
    own = [library for library, _ in components(index).values() if not is_library(library)]
    return [defining_file("pipeline", index["_class_name"]), *map(file_of_module, own)]


def load(folder: Path, device: str):
    """Raises a `UsageError` where it cannot be loaded."""
    import torch
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()  # of loading: an instant
    try:
        pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UsageError(f"{folder}: cannot be loaded ({' '.join(str(error).split())[:200]})") from None
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def networks(pipe) -> dict:
    from torch import nn

    return {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}


def snippet(folder: Path, name: str, example: str) -> str:
    return f"""## Load it

It needs `pip install torch diffusers`, nothing else; the code that runs it lies beside its weights. Online:

```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{name}", trust_remote_code=True)  # a Hub id, or a folder
{example}
```

Offline, once `hf download {name}` has fetched all of it (loading alone fetches only what it needs):

```python
from diffusers import DiffusionPipeline
from huggingface_hub import snapshot_download

folder = snapshot_download("{name}", local_files_only=True)
pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
```
"""


# The index


def read_index(source: Path) -> dict:
    """The index of a pipeline, as a run has it: our classes by their modules here, no places, nothing derived.

    Raises:
        UsageError: there is none, it is damaged, or a component is missing.
    """
    file = source / INDEX
    if not file.is_file():
        state = "it is an unfinished run" if (source / "run.json").is_file() else f"there is no {INDEX} in it"
        raise UsageError(f"{source}: not a finished run or checkpoint; {state}")
    try:
        index = json.loads(file.read_text())
        class_name = index["_class_name"]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{file}: is cut short, or no pipeline's index") from None
    missing = [name for name in components(index) if not (source / name).is_dir()]
    if missing:
        raise UsageError(f"{source}: its component {missing[0]} is missing")
    # a portable folder, or a pipeline that was loaded from one and saved again, names modules of its own: as a run's
    # index names them, both are built anew from this project's code
    index = {k: v for k, v in index.items() if k not in ("_name_or_path", "auto_map")}
    for name, (library, part) in components(index).items():
        if not is_library(library):
            index[name] = [module_name(defining_file("modeling", part)), part]
    return {**index, "_class_name": class_name[1] if isinstance(class_name, list) else class_name}


def components(index: dict) -> dict[str, list[str]]:
    return {k: v for k, v in index.items() if isinstance(v, list) and not k.startswith("_") and v[0] is not None}


def is_library(library: str) -> bool:
    """Whether a component's class is diffusers' or transformers' own; ours are named by their module, here, in a
    portable folder, or as diffusers imported them from one."""
    return library.split(".")[0] in ("diffusers", "transformers")
