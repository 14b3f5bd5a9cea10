"""Checkpoints: modules and optimizers as one folder that appears when it is complete, and is whole or refused."""

import hashlib
import io
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import nn

from training.files import write_atomically


def _pack(state) -> tuple[str, bytes]:
    """A module or an optimizer as (file ending, bytes): first in memory, so that a full disk is an OSError."""
    if isinstance(state, nn.Module):
        tensors, places = {}, set()
        for name, value in state.state_dict().items():
            value = value.detach().cpu().contiguous()
            # weights that are tied lie in one place, which safetensors refuses to write twice
            tensors[name] = value.clone() if value.data_ptr() in places else value
            places.add(value.data_ptr())
        return ".safetensors", save_safetensors(tensors)
    buffer = io.BytesIO()
    torch.save(state.state_dict(), buffer)
    return ".pt", buffer.getvalue()


def save_checkpoint(folder: Path, parts: dict, facts: dict) -> None:
    """Write `parts` (modules and optimizers by name) and `facts` as one folder that appears when it is complete."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        digests = {}
        for name, part in parts.items():
            ending, content = _pack(part)
            digests[name + ending] = hashlib.sha256(content).hexdigest()
            write_atomically(temporary / (name + ending), content)
        write_atomically(temporary / "state.json", json.dumps({**facts, "sha256": digests}, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def load_checkpoint(folder: Path, parts: dict) -> dict:
    """Fill `parts` from a checkpoint and return its facts; nothing is changed unless all of it is whole.

    Raises:
        ValueError: a file is missing, cut short or altered, or a tensor is missing or of another shape.
    """
    try:
        facts = json.loads((folder / "state.json").read_text())
        loaded = {}
        for file, digest in facts["sha256"].items():
            content = (folder / file).read_bytes()
            if hashlib.sha256(content).hexdigest() != digest:
                raise ValueError(f"{file} is cut short or altered")
            name, ending = os.path.splitext(file)
            loaded[name] = (
                load_safetensors(content) if ending == ".safetensors" else torch.load(io.BytesIO(content), "cpu")
            )
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    for name, part in parts.items():
        if name not in loaded:
            raise ValueError(f"{name} is missing")
        if isinstance(part, nn.Module):
            wanted = {k: v.shape for k, v in part.state_dict().items()}
            found = {k: v.shape for k, v in loaded[name].items()}
            if wanted != found:
                odd = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
                raise ValueError(f"{name} lacks or misshapes {', '.join(odd[:3])}")
        elif hasattr(part, "param_groups"):
            wanted, found = (
                [len(g["params"]) for g in state["param_groups"]] for state in (part.state_dict(), loaded[name])
            )
            if wanted != found:
                raise ValueError(f"{name} has parameters in groups of {found}, not of {wanted}")
    for name, part in parts.items():
        part.load_state_dict(loaded[name])
    return facts
