"""A diffusers pipeline: model_index.json, and a folder with config and weights for each component."""

import re
from pathlib import Path

from training.files import read_json
from training.folders import is_plain, plain_files, plain_folder
from training.options import UsageError, in_one_line
from training.publishing.code import add_code, defining_file, module_name, text_of
from training.publishing.configs import MARKS, arguments, cleaned, library_class, only, taken_by, transformers_config
from training.publishing.copying import copy_weights, write_json
from training.publishing.markdown import fenced

LIBRARY = "diffusers"
INDEX = "model_index.json"
# of a component: what else may lie in its folder is not copied
CONFIGS = ("config.json", "scheduler_config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")


def recognises(folder: Path) -> bool:
    return (folder / INDEX).is_file()


def pipeline_module(folder: Path) -> str | None:
    try:
        class_name = read_json(folder / INDEX, "index of a pipeline")["_class_name"]
    except (UsageError, KeyError):
        return None
    return str(class_name[0]) if isinstance(class_name, list) and class_name else ""


def copy(source: Path, folder: Path, dtype: str | None = None) -> None:
    index = read_index(source)
    write_json(folder / INDEX, index)
    for name in components(index):
        _copy_component(source, name, index, folder, dtype)


def build(source: Path, folder: Path, root: Path | None = None) -> str:
    index = read_index(source, root)
    module = add_code(defining_file("pipeline", index["_class_name"], root), folder)
    portable, own, defining = {**index, "_class_name": [module, index["_class_name"]]}, [], set()
    for name, (library, class_name) in components(index).items():
        _copy_component(source, name, index, folder, None, root)
        if not is_library(library):
            file = defining_file("modeling", class_name, root)
            # diffusers runs a module's file anew for each component: networks of one file get a module each, or the
            # class of the first would no longer be found by its name, and not pickle
            module = add_code(file, folder / name, f"{file.stem}_{name}" if file in defining else "")
            defining.add(file)
            portable[name] = [module, class_name]
            own.append(f"{module}.{class_name}")
    if len(own) == 1:  # diffusers.AutoModel.from_pretrained(repo, subfolder=...) looks here, and knows one model
        portable["auto_map"] = {"AutoModel": own[0]}
    write_json(folder / INDEX, portable)
    return index["_class_name"]


def code(source: Path) -> list[Path]:
    index = read_index(source)
    own = [class_name for library, class_name in components(index).values() if not is_library(library)]
    return [defining_file("pipeline", index["_class_name"]), *(defining_file("modeling", name) for name in own)]


def load(folder: Path, device: str):
    """Raises a `UsageError` where it cannot be loaded."""
    import torch
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()  # of loading: an instant
    try:
        pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(device)
    except Exception as error:  # the library raises many kinds, and files from elsewhere make more
        raise UsageError(f"{folder}: cannot be loaded ({in_one_line(error)})") from None


def networks(pipe) -> dict:
    from torch import nn

    return {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}


def snippet(folder: Path, name: str, example: str) -> str:
    imports = "import torch\n" if "torch." in example else ""
    online = f"""{imports}from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{name}", trust_remote_code=True)  # a Hub id, or a folder
{example}"""
    return f"""## Load it

It needs `pip install torch diffusers`, nothing else; the code that runs it lies beside its weights. Online:

{fenced(online, "python")}

Offline, once `hf download {name}` has fetched all of it (loading alone fetches only what it needs):

```python
from diffusers import DiffusionPipeline
from huggingface_hub import snapshot_download

folder = snapshot_download("{name}", local_files_only=True)
pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
```
"""


# The index and its components


def read_index(source: Path, root: Path | None = None) -> dict:
    """The index of a pipeline, as a run has it: our classes by their modules here, no places, nothing derived.

    Args:
        root: of another tree whose pipelines/ defines our classes.

    Raises:
        UsageError: there is none, it is damaged, it names a class that is neither ours nor a model of the libraries, or a
            component is missing.
    """
    file = source / INDEX
    if not file.is_file():
        state = "it is an unfinished run" if (source / "run.json").is_file() else f"there is no {INDEX} in it"
        raise UsageError(f"{source}: not a finished run or checkpoint; {state}")
    plain_files(source)  # holds no link
    index = read_json(file, "index of a pipeline")
    class_name = index.get("_class_name")
    # a portable folder, or a pipeline that was loaded from one and saved again, names modules of its own: as a run's
    # index names them, both are built anew from this project's code
    class_name = class_name[1] if isinstance(class_name, list) and len(class_name) == 2 else class_name
    if not is_plain(class_name):
        raise UsageError(f"{file}: no index of a pipeline: _class_name is {index.get('_class_name')!r}")
    names = arguments(text_of(defining_file("pipeline", class_name, root)), class_name)
    lists = {name: value for name, value in index.items() if isinstance(value, list) and not name.startswith("_")}
    found = only(index, names - lists.keys() - {"auto_map"}, str(file)) | _marks(index, file)
    found |= {name: _component(name, value, names, file, root) for name, value in lists.items()}
    found["_class_name"] = class_name
    missing = [name for name in components(found) if not plain_folder(source, name).is_dir()]
    if missing:
        raise UsageError(f"{source}: its component {missing[0]} is missing")
    return found


def _component(name: str, value: list, names: frozenset[str], file: Path, root: Path | None) -> list:
    """The entry of a component: [library, class], our class by its module here; [None, None] where there is none."""
    if value == [None, None]:
        return value
    if len(value) != 2 or not all(isinstance(word, str) for word in value) or not is_plain(value[1]):
        raise UsageError(f"{file}: {name} is {value!r:.100}; a component is a library and a class")
    if name not in names or not is_plain(name):
        raise UsageError(f"{file}: names the component {name!r:.100}, which the pipeline does not take")
    library, class_name = value
    if is_library(library):
        library_class(library, class_name, f"{file}: {name}")
        return value
    return [module_name(defining_file("modeling", class_name, root)), class_name]


def _marks(content: dict, file: Path) -> dict:
    """The entries by which diffusers marks its files: the class, and the version that wrote it."""
    version = content.get("_diffusers_version", "0")
    if not isinstance(version, str) or not re.fullmatch(r"[0-9A-Za-z.+-]{1,40}", version):
        raise UsageError(f"{file}: _diffusers_version is {version!r:.100}; it must be a version like 0.42.1")
    return only(content, MARKS, str(file))


def _copy_component(
    source: Path, name: str, index: dict, folder: Path, dtype: str | None, root: Path | None = None
) -> None:
    """Configs, with what the component's class takes, and weights; nothing else that may lie among them.

    Raises:
        UsageError: a file of it is missing or damaged.
    """
    library, class_name = index[name]
    (folder / name).mkdir()
    for file in plain_files(plain_folder(source, name)):
        if file.name in WEIGHTS:
            copy_weights(file, folder / name / file.name, dtype)
        elif file.name in CONFIGS:
            content = read_json(file, "config", finite=False)
            write_json(folder / name / file.name, _config(file, content, library, class_name, root))
    there = {file.name for file in (folder / name).iterdir()}
    for any_of in _needed(library, class_name):
        if not there & set(any_of):
            raise UsageError(f"{source / name}: is not whole; there is no {any_of[0]} in it")


def _needed(library: str, class_name: str) -> list[tuple[str, ...]]:
    """The files of a component of a class, one of each."""
    kind = library_class(library, class_name, class_name) if is_library(library) else None
    if hasattr(kind, "vocab_files_names"):
        return [("tokenizer.json",), ("tokenizer_config.json",)]
    if getattr(kind, "config_name", "") == "scheduler_config.json":
        return [("scheduler_config.json",)]
    return [("config.json",), WEIGHTS]


def _config(file: Path, content: dict, library: str, class_name: str, root: Path | None) -> dict:
    where = str(file)
    if library == "transformers":
        return transformers_config(content, where) if file.name == "config.json" else cleaned(file.name, content, where)
    if content.get("_class_name") != class_name:
        raise UsageError(f"{file}: its class is {content.get('_class_name')!r:.100}, not {class_name}")
    if is_library(library):
        names = taken_by(library_class(library, class_name, where))
    else:
        names = arguments(text_of(defining_file("modeling", class_name, root)), class_name)
    return {**only(content, names, where), **_marks(content, file)}


def components(index: dict) -> dict[str, list[str]]:
    """The components of an index as `read_index` returns it that the pipeline has."""
    return {k: v for k, v in index.items() if isinstance(v, list) and not k.startswith("_") and v[0] is not None}


def is_library(library: str) -> bool:
    """Whether a component's class is diffusers' or transformers' own; ours are named by their module, here, in a
    portable folder, or as diffusers imported them from one."""
    return library in ("diffusers", "transformers")
