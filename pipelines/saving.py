"""A pipeline that was loaded with the code beside its weights takes that code along when it is saved or pushed.

diffusers and transformers save weights and configs, and name the classes of remote code by modules that no other
process has. From a checkout of this project nothing is added: there a run holds no code.
"""

import inspect
import logging
from pathlib import Path

from diffusers.utils.hub_utils import load_or_create_model_card, populate_model_card
from huggingface_hub import create_repo
from torch import nn

from pipelines.code import LIBRARIES, copy_code, is_remote, rewrite

SETTINGS = "_pipeline_settings"  # an attribute of a network: what its pipeline was made with beside its components


class CarriesCode:
    """A mixin of diffusers pipelines, before `DiffusionPipeline`."""

    def save_pretrained(self, save_directory, *args, push_to_hub: bool = False, **kwargs) -> None:
        """As of diffusers, with the code of the pipeline and of its networks, where all of it is remote code.

        `push_to_hub` uploads the folder once the code is in it; `repo_id`, `private`, `token`, `commit_message` and
        `create_pr` as of diffusers.
        """
        names = ("repo_id", "private", "token", "commit_message", "create_pr")
        of_push = {name: kwargs.pop(name) for name in names if name in kwargs} if push_to_hub else {}
        super().save_pretrained(save_directory, *args, push_to_hub=False, **kwargs)
        folder = Path(save_directory)
        for file in folder.glob("*/config.json"):
            rewrite(file)
        rewrite(folder / self.config_name, **self._code_in(folder))
        if push_to_hub:
            self._push(folder, **of_push)

    def _code_in(self, folder: Path) -> dict:
        """Copy the code into a saved folder; returns the entries of the index that name it."""
        parts = {name: type(getattr(part, "_orig_mod", part)) for name, part in self.components.items() if part}
        own = {name: kind for name, kind in parts.items() if kind.__module__.split(".")[0] not in LIBRARIES}
        if not is_remote(type(self)):
            return {}
        local = [name for name, kind in own.items() if not is_remote(kind)]
        if local:
            logging.getLogger(__name__).warning(
                f"{local[0]} is a {own[local[0]].__name__} of no remote code, so {folder} holds no code and loads only "
                "where its classes are installed"
            )
            return {}
        entries = {name: [copy_code(kind, folder / name), kind.__name__] for name, kind in own.items()}
        if len(entries) == 1:  # what diffusers.AutoModel reads
            entries["auto_map"] = {"AutoModel": ".".join(next(iter(entries.values())))}
        return {**entries, "_class_name": [copy_code(type(self), folder), type(self).__name__]}

    def _push(self, folder: Path, repo_id=None, private=None, token=None, commit_message=None, create_pr=False) -> None:
        repo_id = create_repo(repo_id or folder.name, exist_ok=True, private=private, token=token).repo_id
        populate_model_card(load_or_create_model_card(repo_id, token=token, is_pipeline=True)).save(
            folder / "README.md"
        )
        self._upload_folder(folder, repo_id, token=token, commit_message=commit_message, create_pr=create_pr)

    @classmethod
    def from_pipe(cls, pipeline, **kwargs):
        """As of diffusers; components are taken over by name, since their classes lie in files of their own."""
        taken = cls._get_signature_keys(cls)[0]
        parts = {name: part for name, part in pipeline.components.items() if name in taken}
        return super().from_pipe(pipeline, **{**parts, **kwargs})

    @classmethod
    def _get_signature_types(cls) -> dict:
        """As of diffusers, of which older versions do not know `dict | None` and then lack the entry."""
        unknown = dict.fromkeys(inspect.signature(cls.__init__).parameters, (inspect.Signature.empty,))
        return {name: kinds for name, kinds in {**unknown, **super()._get_signature_types()}.items() if name != "self"}

    @property
    def components(self) -> dict:
        """As of diffusers; each network remembers what else its pipeline was made with, see `settings_of`."""
        parts = super().components
        settings = {k: self.config[k] for k in self._get_signature_keys(type(self))[1] if k in self.config}
        for part in parts.values():
            if isinstance(part, nn.Module):
                part.__dict__[SETTINGS] = settings
        return parts


def settings_of(*networks: nn.Module | None) -> dict:
    """What the pipeline was made with that these networks were the components of; {} where there was none.

    So `type(pipe)(**pipe.components)` is the same pipeline.
    """
    found = [network.__dict__.get(SETTINGS, {}) for network in networks if isinstance(network, nn.Module)]
    return next((dict(settings) for settings in found if settings), {})
