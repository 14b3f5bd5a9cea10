"""Checkpoints: modules and optimizers as one folder that appears when it is complete, and is whole or refused.

Beside the weights lies state.json: which run they are of and how far it had come, a hash of each file, and one of all that.
"""

import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from training.files import read_json, write_atomically
from training.loops.sharding import load_whole
from training.options import UsageError, one_line

STATE = "state.json"
KINDS = {
    "run": str,
    "step": int,
    "processes": int,
    "best": dict | None,
    "options": dict,
    "sha256": dict,
}  # in state.json
SLACK, TIMES = 2**24, 8  # bytes of a file of a checkpoint: at most so many, and so many times those of the weights


def _pack(state: dict) -> tuple[str, bytes]:
    """The state of a part as (file ending, bytes): first in memory, so that a full disk is an OSError."""
    if all(isinstance(value, Tensor) for value in state.values()):  # of a module
        tensors, places = {}, set()
        for name, value in state.items():
            value = value.detach().cpu().contiguous()
            # weights that are tied lie in one place, which safetensors refuses to write twice
            tensors[name] = value.clone() if value.data_ptr() in places else value
            places.add(value.data_ptr())
        return ".safetensors", save_safetensors(tensors)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return ".pt", buffer.getvalue()


def _digest(facts: dict) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _remove(place: Path) -> None:
    """Whatever lies there: a folder, or a file or a link in its place."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def save_checkpoint(folder: Path, states: dict, facts: dict) -> None:
    """Write `states` (those of modules and optimizers, by name) and `facts` as one folder that appears when it is complete.

    `facts` are those of `KINDS`.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        _remove(temporary)
        temporary.mkdir(parents=True)
        digests = {}
        for name, state in states.items():
            ending, content = _pack(state)
            digests[name + ending] = hashlib.sha256(content).hexdigest()
            write_atomically(temporary / (name + ending), content)
        facts = {**facts, "sha256": digests}
        write_atomically(temporary / STATE, json.dumps({**facts, "digest": _digest(facts)}, indent=1))
        _remove(folder)
        os.replace(temporary, folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def read_checkpoint(folder: Path, parts: dict, run: str | None) -> tuple[dict, dict]:
    """The facts of a checkpoint, and the state of each of its parts; `fill` puts them in.

    Args:
        parts: what it must hold, by name, as it is now: nothing else fits.
        run: which run it must be of.

    Raises:
        ValueError: a file is missing, cut short, altered, of another run or larger than these parts can be; a tensor is
            missing, not finite, or of another shape or type.
    """
    try:
        facts = read_json(folder / STATE, "state of a checkpoint")
    except UsageError as error:
        raise ValueError(str(error)) from None
    if facts.pop("digest", None) != _digest(facts):
        raise ValueError(f"{STATE} is altered, or of an older version")
    odd = [key for key, kind in KINDS.items() if key not in facts or not isinstance(facts[key], kind)]
    if not odd and facts["best"] is not None and facts["best"].keys() != {"step", "validation"}:
        odd = ["best"]
    if odd:
        raise ValueError(f"{STATE} has no {odd[0]}")
    if facts["run"] != run:
        raise ValueError("it is of another run")
    weights = [t for part in parts.values() if isinstance(part, nn.Module) for t in part.state_dict().values()]
    most = SLACK + TIMES * sum(t.numel() * t.element_size() for t in weights)
    return facts, {name: _unpack(folder, name, part, facts["sha256"], most) for name, part in parts.items()}


def _unpack(folder: Path, name: str, part, digests: dict, most: int) -> dict:
    """The state of one part, which fits it."""
    file = folder / (name + (".safetensors" if isinstance(part, nn.Module) else ".pt"))
    if file.name not in digests:
        raise ValueError(f"{name} is missing")
    try:
        if not file.is_file():
            raise ValueError(f"{file.name} is missing" if not file.exists() else f"{file.name} is no regular file")
        with open(file, "rb") as opened:
            content = opened.read(most + 1)
    except OSError as error:
        raise ValueError(f"{file.name} cannot be read, {error}") from None
    if len(content) > most:
        raise ValueError(f"{file.name} is larger than {most} bytes, and {name} is not")
    if hashlib.sha256(content).hexdigest() != digests[file.name]:
        raise ValueError(f"{file.name} is cut short or altered")
    try:
        if isinstance(part, nn.Module):
            state = load_safetensors(content)
            _check_module(name, part, state)
            return state
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > len(content):
                raise ValueError(f"{file.name} is compressed, and would grow")
        state = torch.load(io.BytesIO(content), "cpu", weights_only=True)  # tensors and numbers: nothing in it is run
        (_check_optimizer if hasattr(part, "param_groups") else _check_numbers)(name, part, state)
        return state
    except ValueError:
        raise
    except Exception as error:  # what other content raises depends on the library that meets it first
        raise ValueError(f"{file.name} does not hold {name}, {type(error).__name__}: {one_line(error, 200)}") from None


def _check_module(name: str, part: nn.Module, state: dict) -> None:
    wanted = part.state_dict()
    odd = [k for k in wanted.keys() | state.keys() if k not in wanted or k not in state]
    odd = odd or [k for k, v in wanted.items() if (v.shape, v.dtype) != (state[k].shape, state[k].dtype)]
    if odd:
        raise ValueError(f"{name} lacks or misshapes {', '.join(sorted(odd)[:3])}")
    for key, value in state.items():
        if not value.isfinite().all():
            raise ValueError(f"{name} is not finite in {key}")


def _check_optimizer(name: str, part, state: dict) -> None:
    """Nothing in it may differ from a fresh state but the learning rate and what is kept of each parameter."""
    groups, kept = state["param_groups"], state["state"]
    wanted, found = ([len(group["params"]) for group in some] for some in (part.param_groups, groups))
    if wanted != found:
        raise ValueError(f"{name} has parameters in groups of {found}, not of {wanted}")
    for mine, other in zip(part.state_dict()["param_groups"], groups, strict=True):
        odd = [k for k in mine if k != "lr" and repr(other.get(k, mine[k])) != repr(mine[k])]
        if odd or not isinstance(other["lr"], float):
            raise ValueError(f"{name} has another {(odd or ['lr'])[0]}")
    parameters = [p for group in part.param_groups for p in group["params"]]
    for number, tensors in kept.items():
        for key, value in tensors.items():
            if value.shape not in (parameters[number].shape, ()) or not value.isfinite().all():
                raise ValueError(f"{name} is misshaped or not finite in {key} of parameter {number}")


def _check_numbers(name: str, part, state: dict) -> None:
    wanted = part.state_dict()
    if state.keys() != wanted.keys() or not all(isinstance(value, int | float) for value in state.values()):
        raise ValueError(f"{name} does not hold {', '.join(wanted)}")


def fill(parts: dict, states: dict) -> None:
    """Put what `read_checkpoint` found into `parts`."""
    for name, state in states.items():
        load_whole(parts[name], state)
