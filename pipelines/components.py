"""The components of a pipeline are checked as it gets them: each by itself, with the others, and with what x is."""

import inspect
import json
import math
from pathlib import Path
from types import NoneType, UnionType
from typing import Union, get_args, get_origin

import diffusers
from torch import nn

from pipelines.weights import check_weights

# what JSON makes of a value of a type
IN_JSON = {
    int: int, float: int | float, bool: bool, str: str, NoneType: NoneType, dict: dict, list: list | tuple, tuple: list | tuple,
}  # fmt: skip


class CheckedComponents:
    """A mixin of diffusers pipelines, before `DiffusionPipeline`; it sees each component at construction and later.

    A pipeline whose components must fit each other has a method `_check_fit`, which raises a ValueError where they do
    not. It is asked whenever a network comes in, so that `__init__` registers what it needs before, and networks that
    others depend on first.
    """

    def __setattr__(self, name: str, value) -> None:
        before = self.__dict__.get(name)
        if isinstance(value, nn.Module):
            check_weights(name, value)
        super().__setattr__(name, value)
        if isinstance(value, nn.Module) or isinstance(before, nn.Module):
            try:
                self._check_components()
            except ValueError:
                super().__setattr__(name, before)
                raise

    def register_to_config(self, **kwargs) -> None:
        """As of diffusers; what a pipeline was loaded from is the last that it is told."""
        super().register_to_config(**kwargs)
        if "_name_or_path" in kwargs:
            check_configs(self)

    def _part(self, name: str):
        """What the pipeline has of this name; None where there is none, or none yet."""
        return self.__dict__.get(name)

    def _check_components(self) -> None:
        """Whether the networks are of the x that the data spec names, and fit each other."""
        spec, networks = self._part("data_spec"), {k: v for k, v in vars(self).items() if isinstance(v, nn.Module)}
        if spec is None or not networks:
            return
        for name, part in networks.items():
            config = getattr(part, "config", None)
            if not isinstance(config, dict):
                continue
            if "data_spec" in config and _plain(config["data_spec"]) != _plain(spec):
                raise ValueError(f"{name} is of data {config['data_spec']}; this pipeline is of {spec}")
            classes = config.get("num_classes", spec["num_classes"])
            if config.get("conditional") and classes != spec["num_classes"]:
                raise ValueError(f"{name} has num_classes {classes}; the data spec has {spec['num_classes']}")
        if hasattr(self, "_check_fit"):
            self._check_fit()

    @staticmethod
    def _check_dim(name: str, part, dim: int) -> None:
        """Whether a component is of vectors of so many dimensions; a component may be missing."""
        if part is not None and part.config.dim != dim:
            raise ValueError(f"{name} has {part.config.dim} dimensions; it must have {dim}")

    def _check_codes_of(self, name: str) -> None:
        """Whether a PCA, where there is one, is of x, and the component of its codes; else the component of x."""
        pca = self._part("pca")
        self._check_dim("pca", pca, self._size)
        self._check_dim(name, self._part(name), self._size if pca is None else pca.config.num_components)


def _plain(value):
    """A value as JSON would hold it."""
    return json.loads(json.dumps(value, default=list))


def check_configs(pipe) -> None:
    """Refuse an index, or the config of a component, that lacks an argument of its class: a default would stand for it.

    What `save_pretrained` writes has all of them. diffusers' own classes may have got new ones since: of these a config
    is asked only where the same version wrote it.

    Raises:
        ValueError: one line that names the file and the argument.
    """
    index_folder = _folder(pipe)
    if index_folder is None:
        return
    index = _read_json(index_folder / "model_index.json")
    if index and _is_of_class(index, pipe):
        for key in sorted(_arguments(type(pipe)).keys() - {"auto_map"} - index.keys()):
            raise ValueError(f"model_index.json lacks {key!r}; without it the pipeline is another one")
    for name, part in pipe.components.items():
        file = index_folder / name / str(getattr(part, "config_name", None))
        config = _read_json(file)
        if not config or not _is_of_class(config, part):
            continue
        is_theirs = type(part).__module__.startswith("diffusers.")
        if not is_theirs or config.get("_diffusers_version") == diffusers.__version__:
            for key in sorted(_arguments(type(part)).keys() - config.keys()):
                default = _arguments(type(part))[key].default
                older = f"if a version wrote it that did not know {key}, add its default, {default!r:.100}"
                raise ValueError(f"{name}: {file.name} lacks {key!r}; {older}")
        for key, argument in _arguments(type(part)).items():
            if key in config and not _may_be(config[key], argument):
                raise ValueError(f"{name}: {key} is {config[key]!r:.100}; it must be of type {argument.annotation}")


def _folder(pipe) -> Path | None:
    """Where a pipeline was loaded from: a folder, or what of a repository lies in the cache; None where it is gone."""
    origins = [Path(str(pipe.config.get("_name_or_path")))]
    for part in pipe.components.values():
        config = getattr(part, "config", None)
        if isinstance(config, dict) and config.get("_name_or_path"):
            origins.append(Path(config["_name_or_path"]).parent)
    return next((folder for folder in origins if (folder / "model_index.json").is_file()), None)


def _is_of_class(config: dict, thing) -> bool:
    said = config.get("_class_name")
    return type(thing).__name__ == (said[-1] if isinstance(said, list) and said else said)


def _arguments(kind: type) -> dict[str, inspect.Parameter]:
    """What the `__init__` of a class takes and a config keeps."""
    taken = list(inspect.signature(kind.__init__).parameters.values())[1:]
    ignored = getattr(kind, "ignore_for_config", [])
    return {p.name: p for p in taken if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name not in ignored}


def _may_be(value, argument: inspect.Parameter) -> bool:
    """Whether a value out of JSON is of a type that an argument of a library names, or of its default's type."""
    if isinstance(value, float) and not math.isfinite(value) and value != argument.default:
        return False
    kind = argument.annotation
    kinds = get_args(kind) if get_origin(kind) in (UnionType, Union) else [kind]
    taken = [IN_JSON.get(get_origin(one) or one) for one in kinds]
    is_default = type(value) is type(argument.default)
    return None in taken or is_default or any(isinstance(value, one) for one in taken)


def _read_json(file: Path) -> dict | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
