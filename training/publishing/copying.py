"""Writing what a model is made of: JSON as the same bytes for the same content, safetensors as they are or cast."""

import json
import shutil
from pathlib import Path

from training.options import UsageError


def write_json(file: Path, content: dict) -> None:
    """Write JSON with sorted keys, the same bytes for the same content."""
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def copy_weights(file: Path, to: Path, dtype: str | None = None) -> None:
    """Weights, cast to `dtype` where it is given.

    Raises:
        UsageError: weights overflow in that dtype, or a config is damaged.
    """
    if dtype is None:
        shutil.copyfile(file, to)
        return
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    target = getattr(torch, dtype)
    tensors = {k: v.to(target) if v.is_floating_point() else v for k, v in tensors.items()}
    if not all(v.isfinite().all() for v in tensors.values() if v.is_floating_point()):
        raise UsageError(f"--dtype {dtype}: weights of {file} overflow; keep float32")
    save_file(tensors, to, metadata={"format": "pt"})
