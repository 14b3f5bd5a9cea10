"""The models of a page, loaded when they are first used.

MODEL_ID names the models, separated by commas: Hub ids (`user/vae-mnist@revision`) or local portable folders.
MODEL_MEMORY_MB bounds what stays loaded (2000); the model that was used longest ago is dropped first.
"""

import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import gradio as gr

from kit.errors import user_error
from kit.lazy import LazyModule
from kit.records import RESULTS, RUN, read_record
from kit.words import escaped, line_of, short

# For as long as they load a model, diffusers and transformers put functions of their own in the place of those by which
# torch makes parameters: two that load at once, or one that loads while another thread makes a network, get parameters
# without values, and the functions may stay.
making = threading.RLock()


class Models:
    """The models of a page, by name, each loaded when it is first used and then shared by all sessions.

    A page takes each model that answers what it needs, whatever it is called. What a model answers stands in the
    results.json beside it ("calls", "data_kind"); where it does not, the pipeline is asked once it is loaded. In a
    gallery, where MODEL_ID names the models of all pages, a page takes only those of which it is known.

    Args:
        preferred: names that come first, in this order.
        needs: groups of calls, like ("sample", "encode"); a model must answer all of one group. Without any, the page
            takes every model, in a gallery those of the preferred names.
        kind: of the data, "image" or "vector", where the page takes one kind alone.
        library: whose pipelines they are, diffusers or transformers.
        where: a further condition on what is `known` of a model before it is loaded.
    """

    # of all pages together
    loaded: ClassVar[OrderedDict[str, object]] = OrderedDict()  # by address, the last used at the end
    locks: ClassVar[dict[str, threading.Lock]] = {}
    lock: ClassVar[threading.Lock] = threading.Lock()
    libraries: ClassVar[set[str]] = set()
    records: ClassVar[Path | None] = None  # in a gallery, the folder that has a record of each model

    def __init__(
        self,
        preferred: Sequence[str] = (),
        *,
        needs: Sequence[Sequence[str]] = (),
        kind: str | None = None,
        library: str = "diffusers",
        where: Callable[[dict], bool] | None = None,
    ):
        self.preferred, self.needs, self.kind, self.library = tuple(preferred), tuple(needs), kind, library
        self.where = where
        self.libraries.add(library)
        given = [name.strip() for name in os.environ.get("MODEL_ID", "").split(",") if name.strip()]
        addresses = {name.rstrip("/").split("/")[-1].split("@")[0]: name for name in given}
        order = {n: i for i, n in enumerate(self.preferred)}
        names = sorted(addresses, key=lambda name: order.get(name, len(order)))
        self.given = addresses
        self.addresses = {name: addresses[name] for name in names if self.takes(name)}

    def __iter__(self) -> Iterator[str]:
        return iter(self.addresses)

    @property
    def first(self) -> str | None:
        return next(iter(self.addresses), None)

    def takes(self, name: str) -> bool:
        """Whether the page shows a model of this name; in a gallery also of one that MODEL_ID does not name."""
        if not self.needs:
            return self.records is None or name in self.preferred
        return self.fit(name) > 0

    def fit(self, name: str) -> int:
        """How much of what the page needs a model answers: the most calls in a group of which it answers all; 0 for none."""
        return max((len(group) for group in self.needs if self._may_answer(name, group)), default=0)

    def that_answer(self, *calls: str) -> list[str]:
        """Those that answer these calls too, or of which it is not known yet; for a tab's own choice."""
        return [name for name in self if self._may_answer(name, calls)]

    def with_classes(self, surely: bool = False) -> list[str]:
        """Those that take classes, or, unless `surely`, of which it is not known yet."""
        return [name for name in self if self.known(name).get("num_classes", not surely)]

    def known(self, name: str) -> dict:
        """What is known of a model that may not be loaded: "calls", "data_kind", "num_classes" and what was measured,
        and its run.json as "run"; {} where there is no record of it at hand."""
        return _record(Path(self.given[name]) if self.records is None else self.records / name)

    def _may_answer(self, name: str, calls: Sequence[str]) -> bool:
        found = self.known(name)
        if "calls" not in found:
            return self.records is None
        if set(calls) - set(found["calls"]) or self.kind not in (None, found.get("data_kind")):
            return False
        if self.where is not None and not self.where(found):
            return False
        usual = "transformers" if found.get("data_kind") == "text" else "diffusers"
        library = found.get("run", {}).get("declaration", {}).get("layout", usual)
        return library == self.library or library not in PIPELINES

    def control(self) -> gr.Dropdown:
        """The choice of a model; without any, a line that says how to give one."""
        if not self.addresses:
            unfit = ""
            if self.given and self.records is None:
                unfit = f" {escaped(', '.join(self.given))}: not for this page, which asks for {self._asked()}."
            gr.Markdown(
                f"**No model is set.**{unfit} `MODEL_ID` names one or several, separated by commas: Hub ids like "
                "`user/vae-mnist`, or portable folders."
            )
        return gr.Dropdown(list(self), value=self.first, label="Model", elem_id="model")

    def get(self, name: str, *calls: str):
        """The pipeline, which answers what the page needs and these calls.

        Raises:
            gr.Error: there is no such model, it cannot be loaded, or does not answer.
        """
        pipe = self._loaded(name)
        if self.needs and not any(all(answers(pipe, call) for call in group) for group in self.needs):
            raise user_error(f"{name} does not answer what this page asks for: {self._asked()}.")
        missing = [call for call in calls if not answers(pipe, call)]
        if missing:
            able = [other for other in self.that_answer(*calls) if "calls" in self.known(other)]
            hint = f"; choose {able[0]}, which does" if able else ""
            raise user_error(f"{name} does not answer {' and '.join(missing)}{hint}.")
        if self.kind and pipe.data_spec["kind"] != self.kind:
            raise user_error(f"{name} has data of kind {pipe.data_spec['kind']!r}; this page takes {self.kind!r}.")
        return pipe

    def _asked(self) -> str:
        return " or ".join(", ".join(group) for group in self.needs)

    def __getitem__(self, name: str):
        return self.get(name)

    def _address(self, name: str) -> str:
        if not self.addresses:
            raise user_error("No model: set MODEL_ID to a Hub id like user/vae-mnist, or to a portable folder.")
        if not isinstance(name, str) or name not in self.addresses:
            raise user_error(f"model is {short(name)}; it must be one of {', '.join(self)}")
        return self.addresses[name]

    def _loaded(self, name: str):
        address = self._address(name)
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
            load = PIPELINES[self.library]()
            with making:
                return load(where, revision or None)
        except (Exception, SystemExit) as error:  # whatever it is, it belongs on the page and not into a log alone
            raise user_error(f"{where} cannot be loaded: {line_of(error)}") from None

    def results(self, name: str) -> dict:
        """What was measured of a model: what its results.json holds of `kit.records.RESULTS`; {} where it has none, and a
        "problem" where it cannot be read."""
        where, _, revision = self._address(name).partition("@")
        file = Path(where) / "results.json"
        if not Path(where).is_dir():
            try:
                file = Path(
                    LazyModule("huggingface_hub").hf_hub_download(where, "results.json", revision=revision or None)
                )
            except Exception:  # not there, or no network: a page without figures is better than none
                return {}
        found, problem = read_record(file, RESULTS)
        return found | ({"problem": problem} if problem else {})


@functools.cache
def _record(folder: Path) -> dict:
    run, _ = read_record(folder / "run.json", RUN)
    return read_record(folder / "results.json", RESULTS)[0] | ({"run": run} if run else {})


def _of_diffusers() -> Callable:
    loaded = LazyModule("diffusers").DiffusionPipeline

    def load(where: str, revision: str | None):
        # models fitted elsewhere on the page make their parameters at any time: these must not become empty
        options = {"trust_remote_code": True, "low_cpu_mem_usage": False}
        pipe = loaded.from_pretrained(where, revision=revision, **options)
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


def num_classes(pipe) -> int:
    """How many classes a pipeline's calls take; 0 of an unconditional one."""
    return getattr(pipe, "num_classes", None) or getattr(pipe, "_num_classes", 0)


def code_length(pipe) -> int:
    """How many numbers the code of an x has, as `decode` takes it."""
    if hasattr(pipe, "latent_dim"):
        return pipe.latent_dim
    torch = LazyModule("torch")
    labels = [0] if num_classes(pipe) else None
    return pipe.encode(torch.zeros(1, *pipe.data_spec["shape"]), labels).shape[1]
