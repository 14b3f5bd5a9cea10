"""A transformers model: config.json, weights and tokenizer at the root, and the pipeline that the config names."""

from pathlib import Path

from training.files import read_json
from training.folders import plain_files
from training.options import UsageError, in_one_line
from training.publishing.code import add_code, defining_file
from training.publishing.configs import cleaned, custom_task, transformers_config
from training.publishing.copying import copy_weights, write_json
from training.publishing.markdown import fenced

LIBRARY = "transformers"
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
OPTIONAL = ("generation_config.json",)
MOST_TOKENIZER = 40_000_000  # bytes

UNKNOWN_LETTER = """
It knows the letters of its training text. Of any other letter the tokenizer raises an error that says `Missing [UNK] token`,
the pipeline below a `ValueError` that names the letter.
"""


def recognises(folder: Path) -> bool:
    return (folder / "config.json").is_file() and not (folder / "model_index.json").is_file()


def pipeline_module(folder: Path) -> str | None:
    try:
        task = next(iter(read_json(folder / "config.json", "config", finite=False)["custom_pipelines"].values()))
        module = task["impl"].split(".")[0]
    except (UsageError, KeyError, TypeError, AttributeError, StopIteration):
        return None
    # a run names the module as it is called here; a portable folder names a file that lies beside its config
    return module if (folder / f"{module}.py").is_file() else ""


def copy(source: Path, folder: Path, dtype: str | None = None) -> None:
    _copy(source, folder, dtype)
    write_json(folder / "config.json", read_config(source))


def build(source: Path, folder: Path, root: Path | None = None) -> str:
    config = read_config(source, root)
    _copy(source, folder)
    for task in config["custom_pipelines"].values():
        class_name = task["impl"].split(".")[1]
        task["impl"] = f"{add_code(defining_file('pipeline', class_name, root), folder)}.{class_name}"
    write_json(folder / "config.json", config)
    return class_name


def _copy(source: Path, folder: Path, dtype: str | None = None) -> None:
    """All but the config."""
    for file in plain_files(source):
        if file.name == "model.safetensors":
            copy_weights(file, folder / file.name, dtype)
        elif file.name in FILES and file.name != "config.json":
            content = read_json(file, "file of a tokenizer" if "token" in file.name else "config", MOST_TOKENIZER)
            write_json(folder / file.name, cleaned(file.name, content, str(file)))


def code(source: Path) -> list[Path]:
    tasks = read_config(source)["custom_pipelines"].values()
    return [defining_file("pipeline", task["impl"].split(".")[1]) for task in tasks]


def load(folder: Path, device: str):
    """Raises a `UsageError` where it cannot be loaded."""
    import torch
    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return pipeline(model=str(folder), trust_remote_code=True, device=device, dtype=torch.float32)
    except Exception as error:  # the library raises many kinds, and files from elsewhere make more
        raise UsageError(f"{folder}: cannot be loaded ({in_one_line(error)})") from None


def networks(pipe) -> dict:
    return {"model": pipe.model}


def snippet(folder: Path, name: str, example: str) -> str:
    task = next(iter(read_json(folder / "config.json", finite=False)["custom_pipelines"].values()))
    model_class = task["pt"][0]
    pipe = f"""from transformers import pipeline

pipe = pipeline(model="{name}", trust_remote_code=True)
{example}"""
    kind = read_json(folder / "tokenizer.json", "file of a tokenizer", MOST_TOKENIZER).get("model", {})
    unknown = (
        UNKNOWN_LETTER if kind.get("type") == "WordLevel" and kind.get("unk_token") not in kind.get("vocab", {}) else ""
    )
    return f"""## Load it

The network and the tokenizer are transformers' own, and need no code from here:

```python
from transformers import {model_class}, AutoTokenizer

model = {model_class}.from_pretrained("{name}")  # a Hub id, or a folder
tokenizer = AutoTokenizer.from_pretrained("{name}")
inputs = tokenizer("The ", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50, do_sample=True)[0]))
```
{unknown}
The pipeline beside them is this project's, and does more. It needs `pip install torch transformers`:

{fenced(pipe, "python")}

Offline, once `hf download {name}` has fetched it, set `HF_HUB_OFFLINE=1`, or give the folder that
`snapshot_download("{name}", local_files_only=True)` returns.
"""


def read_config(source: Path, root: Path | None = None) -> dict:
    """The config of a model, as a run has it: its pipeline by the module's name here, no places.

    Args:
        root: of another tree whose pipelines/ defines our classes.

    Raises:
        UsageError: it is damaged, names what is no class of ours or of transformers, or a file of the model is missing.
    """
    file = source / "config.json"
    content = read_json(file, "config of a finished run or checkpoint", finite=False)
    config, tasks = transformers_config(content, str(file)), content.get("custom_pipelines")
    if not isinstance(tasks, dict) or not tasks:
        raise UsageError(f"{file}: no config of a run of this project: it names no pipeline under custom_pipelines")
    config["custom_pipelines"] = {name: custom_task(name, task, str(file)) for name, task in tasks.items()}
    for task in config["custom_pipelines"].values():
        class_name = task["impl"].split(".")[-1]
        task["impl"] = f"{defining_file('pipeline', class_name, root).stem}.{class_name}"
    missing = [name for name in FILES if name not in OPTIONAL and not (source / name).is_file()]
    if missing:
        raise UsageError(f"{source}: not a finished run or checkpoint; there is no {missing[0]} in it")
    return config
