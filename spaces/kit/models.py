"""The models of a page, loaded when they are first used.

MODEL_ID names the models, separated by commas: Hub ids (`user/vae-mnist@revision`) or local portable folders.
MODEL_MEMORY_MB bounds what stays loaded (2000); the model that was used longest ago is dropped first.
"""

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import gradio as gr

from kit.errors import user_error
from kit.lazy import LazyModule


class Models:
    """The models of a page, by name, each loaded when it is first used and then shared by all sessions.

    Args:
        preferred: names in the order in which the page shows them. In a gallery, where MODEL_ID names the models of
            all pages, only these are the page's; alone, a page shows whatever MODEL_ID names.
        library: whose pipelines they are, diffusers or transformers.
    """

    # of all pages together
    loaded: ClassVar[OrderedDict[str, object]] = OrderedDict()  # by address, the last used at the end
    locks: ClassVar[dict[str, threading.Lock]] = {}
    lock: ClassVar[threading.Lock] = threading.Lock()
    libraries: ClassVar[set[str]] = set()
    gallery: ClassVar[bool] = False

    def __init__(self, preferred: tuple[str, ...], library: str = "diffusers"):
        self.preferred, self.library = preferred, library
        self.libraries.add(library)
        given = [name.strip() for name in os.environ.get("MODEL_ID", "").split(",") if name.strip()]
        self.addresses = {name.rstrip("/").split("/")[-1].split("@")[0]: name for name in given}
        if self.gallery:
            self.addresses = {n: self.addresses[n] for n in preferred if n in self.addresses}
        else:
            order = {n: i for i, n in enumerate(preferred)}
            self.addresses = dict(sorted(self.addresses.items(), key=lambda item: order.get(item[0], len(order))))

    def __iter__(self) -> Iterator[str]:
        return iter(self.addresses)

    @property
    def first(self) -> str | None:
        return next(iter(self.addresses), None)

    def control(self) -> gr.Dropdown:
        """The choice of a model; without any, a line that says how to give one."""
        if not self.addresses:
            gr.Markdown(
                "**No model is set.** `MODEL_ID` names one or several, separated by commas: Hub ids like "
                "`user/vae-mnist`, or portable folders."
            )
        return gr.Dropdown(list(self), value=self.first, label="Model", elem_id="model")

    def __getitem__(self, name: str):
        """The pipeline.

        Raises:
            gr.Error: there is no such model, or it cannot be loaded.
        """
        if not self.addresses:
            raise user_error("No model: set MODEL_ID to a Hub id like user/vae-mnist, or to a portable folder.")
        if name not in self.addresses:
            raise user_error(f"model is {name!r}; it must be one of {', '.join(self)}")
        address = self.addresses[name]
        with self.lock:
            own = self.locks.setdefault(address, threading.Lock())
        with own:  # two sessions that ask for one model at once load it once
            with self.lock:
                if address in self.loaded:
                    self.loaded.move_to_end(address)
                    return self.loaded[address]
            pipe = self._load(address)
            with self.lock:
                self.loaded[address] = pipe
                bound = float(os.environ.get("MODEL_MEMORY_MB", "2000")) * 1e6
                while len(self.loaded) > 1 and sum(map(size_of, self.loaded.values())) > bound:
                    self.loaded.popitem(last=False)
        return pipe

    @classmethod
    def prepare(cls) -> None:
        """Import what will be needed; it takes seconds."""
        for library in cls.libraries:
            PIPELINES[library]()

    def _load(self, address: str):
        where, _, revision = address.partition("@")
        if not Path(where).is_dir() and ("/" not in where or where.startswith((".", "/"))):
            raise user_error(f"MODEL_ID names {where}, which is neither a folder nor a Hub id like user/vae-mnist.")
        try:
            return PIPELINES[self.library]()(where, revision or None)
        except Exception as error:  # whatever it is, it belongs on the page and not into a log that no one reads
            raise user_error(f"{where} cannot be loaded: {str(error).strip().splitlines()[0]}") from None

    def results(self, name: str) -> dict:
        """What was measured of a model: its results.json, or {} where it has none."""
        where, _, revision = self.addresses.get(name, "").partition("@")
        if not where:
            raise user_error(f"model is {name!r}; it must be one of {', '.join(self)}")
        file = Path(where) / "results.json"
        if not Path(where).is_dir():
            try:
                file = Path(
                    LazyModule("huggingface_hub").hf_hub_download(where, "results.json", revision=revision or None)
                )
            except Exception:  # not there, or no network: a page without figures is better than none
                return {}
        return json.loads(file.read_text()) if file.is_file() else {}


def _of_diffusers() -> Callable:
    loaded = LazyModule("diffusers").DiffusionPipeline

    def load(where: str, revision: str | None):
        pipe = loaded.from_pretrained(where, trust_remote_code=True, revision=revision)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return load


def _of_transformers() -> Callable:
    made = LazyModule("transformers").pipeline
    LazyModule("transformers.utils.logging").disable_progress_bar()

    def load(where: str, revision: str | None):
        return made(model=where, trust_remote_code=True, revision=revision)

    return load


PIPELINES = {"diffusers": _of_diffusers, "transformers": _of_transformers}  # -> what loads (address, revision)


def size_of(pipe) -> int:
    """Bytes of a pipeline's weights."""
    parts = pipe.components.values() if hasattr(pipe, "components") else [pipe.model]
    modules = [m for m in parts if hasattr(m, "parameters")]
    return sum(p.numel() * p.element_size() for m in modules for p in [*m.parameters(), *m.buffers()])


def answers(pipe, call: str) -> bool:
    """Whether a pipeline answers a call ("reconstruct", "log_prob", "sample", ...): asked of it, never of its name."""
    calls = getattr(pipe, "calls", None)
    if calls is not None:
        return call in calls
    return callable(pipe) if call == "sample" else hasattr(pipe, call)
