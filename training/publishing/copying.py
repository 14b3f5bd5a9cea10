"""Copying what a model is made of: configs without local places, safetensors as they are or cast, nothing else."""

import json
import shutil
from pathlib import Path

from training.options import UsageError


def write_json(file: Path, content: dict) -> None:
    """Write JSON with sorted keys, the same bytes for the same content."""
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def copy_files(files: list[Path], to: Path, dtype: str | None = None) -> None:
    """Configs and weights, the latter cast to `dtype` where it is given; nothing else that may lie among them.

    Raises:
        UsageError: weights overflow in that dtype.
    """
    to.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.suffix == ".safetensors" and dtype is not None:
            _cast(file, to / file.name, dtype)
        elif file.suffix == ".json":
            config = json.loads(file.read_text())
            config.pop("_name_or_path", None)
            write_json(to / file.name, config)
        elif file.suffix in (".safetensors", ".txt", ".model"):
            shutil.copyfile(file, to / file.name)


def _cast(file: Path, to: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    target = getattr(torch, dtype)
    tensors = {k: v.to(target) if v.is_floating_point() else v for k, v in tensors.items()}
    if not all(v.isfinite().all() for v in tensors.values() if v.is_floating_point()):
        raise UsageError(f"--dtype {dtype}: weights of {file} overflow; keep float32")
    save_file(tensors, to, metadata={"format": "pt"})
