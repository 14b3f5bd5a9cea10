"""A transformers model: config.json, weights and tokenizer at the root, and the pipeline that the config names."""

import json
from pathlib import Path

from training.options import UsageError
from training.publishing.code import add_code, defining_file
from training.publishing.copying import copy_files, write_json

LIBRARY = "transformers"
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
OPTIONAL = ("generation_config.json",)


def recognises(folder: Path) -> bool:
    return (folder / "config.json").is_file() and not (folder / "model_index.json").is_file()


def pipeline_module(folder: Path) -> str | None:
    try:
        task = next(iter(json.loads((folder / "config.json").read_text())["custom_pipelines"].values()))
        module = task["impl"].split(".")[0]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return None
    # a run names the module as it is called here; a portable folder names a file that lies beside its config
    return module if (folder / f"{module}.py").is_file() else ""


def copy(source: Path, folder: Path, dtype: str | None = None) -> None:
    config = read_config(source)
    copy_files([source / name for name in FILES if (source / name).is_file()], folder, dtype)
    write_json(folder / "config.json", config)


def build(source: Path, folder: Path) -> str:
    config = read_config(source)
    copy_files([source / name for name in FILES if (source / name).is_file()], folder)
    for task in config["custom_pipelines"].values():
        class_name = task["impl"].split(".")[1]
        task["impl"] = f"{add_code(defining_file('pipeline', class_name), folder)}.{class_name}"
    write_json(folder / "config.json", config)
    return class_name


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
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"{folder}: cannot be loaded ({' '.join(str(error).split())[:200]})") from None


def networks(pipe) -> dict:
    return {"model": pipe.model}


def snippet(folder: Path, name: str, example: str) -> str:
    task = next(iter(json.loads((folder / "config.json").read_text())["custom_pipelines"].values()))
    model_class = task["pt"][0]
    return f"""## Load it

The network and the tokenizer are transformers' own, and need no code from here:

```python
from transformers import {model_class}, AutoTokenizer

model = {model_class}.from_pretrained("{name}")  # a Hub id, or a folder
tokenizer = AutoTokenizer.from_pretrained("{name}")
```

The pipeline beside them is this project's, and does more. It needs `pip install torch transformers`:

```python
from transformers import pipeline

pipe = pipeline(model="{name}", trust_remote_code=True)
{example}
```

Offline, once `hf download {name}` has fetched it, set `HF_HUB_OFFLINE=1`, or give the folder that
`snapshot_download("{name}", local_files_only=True)` returns.
"""


def read_config(source: Path) -> dict:
    """The config of a model, as a run has it: its pipeline by the module's name here, no places.

    Raises:
        UsageError: it is damaged, or a file of the model is missing.
    """
    file = source / "config.json"
    try:
        config = json.loads(file.read_text())
        for task in config["custom_pipelines"].values():
            class_name = task["impl"].split(".")[-1]
            task["impl"] = f"{defining_file('pipeline', class_name).stem}.{class_name}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{file}: is cut short, or not of a run of this project") from None
    missing = [name for name in FILES if name not in OPTIONAL and not (source / name).is_file()]
    if missing:
        raise UsageError(f"{source}: not a finished run or checkpoint; there is no {missing[0]} in it")
    return {k: v for k, v in config.items() if k != "_name_or_path"}
