"""What all loops share: the run folder, seeding, averaging, checkpoints, progress, trackers, pictures.

A run folder holds
    run.json                what was run and how far it came
    log.jsonl               one line of figures every --log_every steps
    checkpoints/step-N/     everything needed to go on, written whole or not at all
    samples.png curve.png   redrawn as the run goes
    model_index.json, <component>/      the finished pipeline: the averaged weights; of a language model
                                        transformers' files instead

Randomness is a function of (seed, step, process): each step seeds its generators from these numbers, so that nothing
about them needs to be stored, and a run that was killed and resumed draws what an unbroken one would have drawn.
"""

import contextlib
import copy
import dataclasses
import hashlib
import io
import json
import math
import os
import platform
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from tqdm.auto import tqdm

from training.data import batches, derive_seed, load_data, prepare
from training.hub import check_repo_id
from training.options import Stopped, UsageError, option


@dataclasses.dataclass
class CommonOptions:
    """What every run is told, trained by steps or fitted at once."""

    output_dir: str = option("runs/run", "the run folder", may_change_on_resume=True)
    resume: bool = option(False, "go on with the run in --output_dir", may_change_on_resume=True)
    overwrite: bool = option(False, "discard the run in --output_dir and start anew", may_change_on_resume=True)
    seed: int = option(0, "of weights, order and noise", least=0)
    report_to: str = option(
        "none",
        "a tracker of the figures",
        choices=("none", "tensorboard", "trackio", "wandb"),
        may_change_on_resume=True,
    )
    push_to_hub: str | None = option(
        None, "the repository of the Hub, user/name, to publish the finished run to", may_change_on_resume=True
    )

    def __post_init__(self):
        if self.push_to_hub is not None:
            check_repo_id(self.push_to_hub, "--push_to_hub")


@dataclasses.dataclass
class RunOptions(CommonOptions):
    """How to train by steps; the options of such a recipe begin with these and with `DataOptions`."""

    init_from: str | None = option(None, "a run, checkpoint or Hub repository whose weights to start from")
    max_steps: int = option(1_000, "optimizer steps", least=1)
    batch_size: int = option(128, "samples a process takes at once", least=1)
    gradient_accumulation_steps: int = option(1, "batches that one optimizer step averages over", least=1)
    learning_rate: float = option(1e-3, "at its highest", above=0.0)
    lr_scheduler: str = option("cosine", "after the warm-up", choices=("constant", "linear", "cosine"))
    lr_warmup_steps: int = option(100, "steps in which the learning rate rises from zero", least=0)
    weight_decay: float = option(0.0, "of AdamW", least=0.0)
    adam_beta2: float = option(0.99, "of AdamW", least=0.0, below=1.0)
    max_grad_norm: float = option(100.0, "gradients are clipped to this norm; 0 leaves them", least=0.0)
    ema_decay: float = option(
        0.999, "of the weight average that is exported; 0 exports the last weights", least=0.0, most=1.0
    )
    mixed_precision: str = option("no", "of the networks", choices=("no", "bf16", "fp16"))
    dataloader_workers: int = option(
        0, "processes that decode images, for sets larger than memory", least=0, may_change_on_resume=True
    )
    log_every: int = option(50, "steps between two lines of the log", least=1, may_change_on_resume=True)
    eval_every: int = option(500, "steps between two validations", least=1)
    save_every: int = option(500, "steps between two checkpoints", least=1, may_change_on_resume=True)
    sample_every: int = option(500, "steps between two sample grids", least=1, may_change_on_resume=True)
    keep_checkpoints: int = option(2, "how many are kept, beside the best", least=1, may_change_on_resume=True)
    export: str = option(
        "best", "which averaged weights the finished pipeline holds, by validation", choices=("best", "last")
    )


# Weights


class Average(nn.Module):
    """The exponential moving average of a model's weights, in `module`; buffers are copied.

    The decay starts low, (1 + n) / (10 + n) after n steps, so that the average forgets the initial weights.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__()
        # made before Accelerate wraps `forward`: a copy made later would call the original's
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.register_buffer("n_averaged", torch.tensor(0))  # stays on the CPU: a GPU would have to be waited for
        self.eval()  # it is only measured and drawn from
        # listed once: walking through the modules at each step takes as long as averaging
        self.pairs = [list(module.parameters()) for module in (self.module, model)]
        self.buffer_pairs = [list(module.buffers()) for module in (self.module, model)]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's present weights."""
        n = int(self.n_averaged)
        torch._foreach_lerp_(*self.pairs, 1 - min(self.decay, (1 + n) / (10 + n)) if n else 1.0)
        if self.buffer_pairs[0]:
            torch._foreach_copy_(*self.buffer_pairs)
        self.n_averaged += 1


def make_optimizer(model: nn.Module, options: RunOptions, learning_rate: float, beta1: float = 0.9):
    """AdamW as the options say; biases and the gains of norms do not decay."""
    groups = list(model.parameters())
    if options.weight_decay:
        groups = [
            {"params": [p for p in groups if p.ndim > 1], "weight_decay": options.weight_decay},
            {"params": [p for p in groups if p.ndim <= 1], "weight_decay": 0.0},
        ]
    return torch.optim.AdamW(
        groups, lr=learning_rate, betas=(beta1, options.adam_beta2), weight_decay=options.weight_decay, fused=True
    )


def learning_rate_at(step: int, options: RunOptions) -> float:
    """The factor on --learning_rate: a linear rise, then constant, linear or cosine decay to zero."""
    if step < options.lr_warmup_steps:
        return (step + 1) / options.lr_warmup_steps
    done = (step - options.lr_warmup_steps) / max(1, options.max_steps - options.lr_warmup_steps)
    if options.lr_scheduler == "constant":
        return 1.0
    return 1 - done if options.lr_scheduler == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def load_weights(model: nn.Module, source: str, component: str, named: str = "--init_from") -> None:
    """What the option `named` asks for: the weights of `component` in a run folder, a checkpoint or a Hub repository.

    Raises:
        UsageError: nothing there, or weights of another shape.
    """
    folder = Path(source)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(source, allow_patterns=[f"{component}/*"]))
        except Exception as error:
            why = " ".join(str(error).split())[:200]
            raise UsageError(f"{named} {source}: neither a folder nor a repository on the Hub ({why})") from None
    file = folder / component / "diffusion_pytorch_model.safetensors"
    if not file.is_file():
        raise UsageError(f"{named} {source}: holds no {component}/{file.name}")
    try:
        model.load_state_dict(load_safetensors(file.read_bytes()))
    except Exception as error:
        why = str(error).split("\n")[-1].strip()
        raise UsageError(f"{named} {source}: its weights do not fit this model ({why})") from None


# Files that are written whole or not at all


def write_atomically(file: Path, content: bytes | str) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with open(temporary, "wb") as out:
            out.write(content if isinstance(content, bytes) else content.encode())
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


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


# The run


class Run:
    """One training run: its folder, its processes and its record.

    Args:
        family: the recipe's name, written into run.json; a folder of another family is refused.
        options: the recipe's options, a `CommonOptions`.

    Raises:
        UsageError: the folder holds another family's run, or any run where neither --resume nor --overwrite is given.
    """

    def __init__(self, family: str, options: CommonOptions):
        self.family, self.options = family, options
        self.folder = Path(options.output_dir)
        self.started = time.time()
        self.before = 0.0  # seconds that earlier parts of a resumed run took
        self.stop_signal: int | None = None
        self.handlers = {}
        self.trackers = None if options.report_to == "none" else options.report_to
        self._check_folder()
        self._check_tracker()
        by_steps = {}
        if isinstance(options, RunOptions):
            by_steps = {k: getattr(options, k) for k in ("mixed_precision", "gradient_accumulation_steps")}
        try:
            self.accelerator = Accelerator(log_with=self.trackers, project_dir=str(self.folder), **by_steps)
        except ValueError as error:
            raise UsageError(f"--mixed_precision is {options.mixed_precision}: {error}") from None
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        self.record = {}
        self.accelerator.wait_for_everyone()  # all have looked at the folder before one writes into it
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        torch.manual_seed(derive_seed(options.seed, -1))  # the initial weights, the same on every process

    # the folder

    def _check_folder(self) -> None:
        options, record = self.options, self._read_record()
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"--output_dir {self.folder}: is a file; it must be a folder")
        if record is None:
            if options.resume:
                raise UsageError(f"--resume: there is no run in --output_dir {self.folder}")
            if self.folder.is_dir() and any(not p.name.endswith(".tmp") for p in self.folder.iterdir()):
                raise UsageError(
                    f"--output_dir {self.folder}: holds files that are no run; give an empty or new folder"
                )
            return
        if record["family"] != self.family:
            raise UsageError(
                f"--output_dir {self.folder}: holds a run of {record['family']}, not of {self.family}; give another folder"
            )
        if options.resume:
            now = dataclasses.asdict(options)
            # a recipe that gives an option another default leaves it as changeable as it was
            kinds = [kind for kind in type(options).__mro__ if dataclasses.is_dataclass(kind)]
            changeable = {
                f.name for kind in kinds for f in dataclasses.fields(kind) if f.metadata.get("may_change_on_resume")
            }
            changed = [k for k, v in record["options"].items() if k not in changeable and k in now and now[k] != v]
            if changed:
                key = changed[0]
                raise UsageError(
                    f"--{key} is {now[key]}, but the run in {self.folder} has {record['options'][key]}; "
                    "resume with the same options, or start another run with --init_from"
                )
        elif not options.overwrite:
            raise UsageError(
                f"--output_dir {self.folder}: holds a {record['status']} run; "
                "--resume true goes on with it, --overwrite true starts anew"
            )

    def _read_record(self) -> dict | None:
        try:
            record = json.loads((self.folder / "run.json").read_text())
        except (OSError, json.JSONDecodeError):
            return None
        whole = isinstance(record, dict) and {"family", "status", "options"} <= record.keys()
        return record if whole else None

    def _check_tracker(self) -> None:
        if self.trackers is not None:
            from importlib.util import find_spec

            if find_spec(self.trackers) is None:
                raise UsageError(f"--report_to {self.trackers}: not installed; pip install {self.trackers}")

    def _clear(self) -> None:
        """Remove what a run wrote; files that are not a run's stay."""
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        # the record goes last
        for name in ("log.jsonl", "samples.png", "curve.png", "model_index.json", "config.json", "run.json"):
            (self.folder / name).unlink(missing_ok=True)

    # beginning and end

    def begin(self, source, model_config: dict, parts: dict, parameters: int) -> int:
        """Open the run: load the last whole checkpoint into `parts` on --resume. Returns the step to go on with."""
        options, step = self.options, 0
        old = self._read_record() or {}
        if options.resume:
            step = self._resume(parts)
            self.before = old.get("seconds", 0.0)
        elif self.is_main and options.overwrite:
            self._clear()
        self.record = {
            "family": self.family,
            "status": "running",
            "step": step,
            "dataset": {"name": source.name, "id": source.dataset_id},
            "model": model_config,
            "parameters": parameters,
            "options": dataclasses.asdict(options),
            "command": _command(),
            "processes": self.world,
            "device": _device(self.accelerator.device),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "best": None,
            "warnings": [w for w in old.get("warnings", []) if options.resume and w["step"] <= step],
        }
        if self.is_main:
            with self.saving():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._write_record()
                self._cut_log(step)
        if self.trackers:
            self.accelerator.init_trackers(
                "genus", {k: v for k, v in dataclasses.asdict(options).items() if v is not None}
            )
        self.handlers = {n: signal.signal(n, self._note_signal) for n in (signal.SIGINT, signal.SIGTERM)}
        return step

    def finish(self, step: int, make_pipeline, model: nn.Module) -> None:
        """Write the finished pipeline into the run folder and close the record."""
        if self.is_main:
            with self.saving():
                self._export(make_pipeline(model))
                self._write_record(status="finished", step=step)
            minutes = self.record["seconds"] / 60
            self.say(f"finished {step} steps in {minutes:.1f} minutes; the pipeline is in {self.folder}")
        self.close()
        self.push()

    def push(self) -> None:
        """Publish the finished run where --push_to_hub says so."""
        repo_id = self.options.push_to_hub
        if not self.is_main or not repo_id:
            return
        from training.publish import publish

        try:
            self.say(publish(self.folder, repo_id))
        except UsageError as error:
            raise UsageError(
                f"{error}; the run itself is finished: python -m training.publish {self.folder} --repo_id {repo_id}"
            ) from None

    def _export(self, pipeline) -> None:
        """Save beside the run first, so that a full disk leaves no half-written pipeline."""
        temporary = self.folder / ".export.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            pipeline.save_pretrained(temporary)
            for part in temporary.iterdir():
                if (self.folder / part.name).is_dir():
                    shutil.rmtree(self.folder / part.name)
                os.replace(part, self.folder / part.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @property
    def finished(self) -> bool:
        """Whether the folder holds a run that came to its end."""
        return (self._read_record() or {}).get("status") == "finished"

    def close(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.accelerator.end_training()

    def _write_record(self, **changes) -> None:
        seconds = self.before + time.time() - self.started
        self.record.update(changes, seconds=round(seconds, 1))
        write_atomically(self.folder / "run.json", json.dumps(self.record, indent=1) + "\n")

    # checkpoints

    @property
    def checkpoints(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").glob("step-*"), key=lambda p: int(p.name[5:]))

    def save(self, step: int, parts: dict) -> None:
        """Checkpoint `parts` after `step` steps; drop those that are no longer kept."""
        if self.is_main:
            with self.saving():
                facts = {"family": self.family, "step": step, "processes": self.world}
                save_checkpoint(self.folder / "checkpoints" / f"step-{step:08d}", parts, facts)
                self._write_record(step=step)
                for old in self.checkpoints[: -self.options.keep_checkpoints]:
                    shutil.rmtree(old, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def save_best(self, step: int, figure: float, average: nn.Module) -> None:
        """Keep the averaged weights if their validation figure is the lowest so far (main process)."""
        folder = self.folder / "checkpoints" / "best"
        try:
            lowest = json.loads((folder / "state.json").read_text())["validation"]
        except (OSError, KeyError, json.JSONDecodeError):
            lowest = math.inf
        if figure < lowest:
            self.record["best"] = {"step": step, "validation": figure}
            with self.saving():
                save_checkpoint(folder, {"average": average}, {"family": self.family, **self.record["best"]})

    def load_best(self, average: nn.Module) -> None:
        """The best averaged weights so far; the last ones where they cannot be read (main process)."""
        folder = self.folder / "checkpoints" / "best"
        if not folder.exists():
            return  # nothing to validate on
        try:
            facts = load_checkpoint(folder, {"average": average})
            self.record["best"] = {"step": facts["step"], "validation": facts["validation"]}
        except ValueError as error:
            self.say(f"the best checkpoint cannot be used ({error}); exporting the last weights")

    def _resume(self, parts: dict) -> int:
        for folder in reversed(self.checkpoints):
            try:
                facts = load_checkpoint(folder, parts)
            except ValueError as error:
                self.say(f"{folder} cannot be used ({error}); going back to the one before")
                continue
            if facts["processes"] != self.world:
                self.say(f"the run had {facts['processes']} processes and now has {self.world}: weights will differ")
            if getattr(self.options, "streaming", False):
                self.say("streamed rows start over: the weights will differ from those of an unbroken run")
            self.say(f"going on from step {facts['step']}")
            return facts["step"]
        self.say(f"{self.folder} holds no whole checkpoint; starting from step 0")
        return 0

    @contextlib.contextmanager
    def saving(self):
        """Turn a failure to write into one line that says what is still there."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            last = self.checkpoints[-1] if self.checkpoints else "none"
            raise UsageError(
                f"--output_dir {self.folder}: cannot be written ({error}); the last whole checkpoint is {last}, "
                "--resume true goes on from it"
            ) from None

    # what happens at each step

    def batches(self, split, step: int, per_step: int):
        """Batches for this process from `step` on, of which each step takes `per_step`."""
        options = self.options
        first = step * per_step
        return batches(
            split, options.batch_size, options.seed, first, self.rank, self.world, options.dataloader_workers
        )

    def seed_step(self, step: int) -> None:
        """All randomness of a step, on every device, from (seed, step, process)."""
        seed, device = derive_seed(self.options.seed, step, self.rank), self.accelerator.device
        # not torch.manual_seed: where a GPU could be but is not, that keeps a stack trace at each call, for half a ms
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            getattr(torch, device.type).manual_seed(seed)

    def stop(self, step: int, parts: dict) -> None:
        """After Ctrl-C or SIGTERM on any process: save, say how to go on, and end by raising `Stopped`."""
        self.save(step, parts)
        if self.is_main:
            self._write_record(status="stopped")
        self.close()
        code = 128 + (self.stop_signal or signal.SIGINT)
        raise Stopped(f"stopped and saved at step {step}; to go on: {_command(resume=True)}", code)

    def _note_signal(self, number, frame) -> None:
        self.stop_signal = number

    def check_finite(self, means: dict[str, float], step: int) -> None:
        """Raise `Stopped` if a term of the loss at `step` is not finite."""
        bad = [k for k, v in means.items() if not math.isfinite(v)]
        if not bad:
            return
        # the loss and the gradient are not finite whenever a term is not: name the term
        term = min(bad, key=("gradient_norm", "loss").__contains__)
        last = self.checkpoints[-1] if self.checkpoints else "none"
        if self.is_main:
            self._write_record(status="not finite")
        self.close()
        raise Stopped(f"step {step}: {term} is {means[term]}; the last good checkpoint is {last}", 1)

    # what a person sees

    def say(self, message: str) -> None:
        if self.is_main:
            tqdm.write(message, file=sys.stderr)

    def warn(self, step: int, message: str) -> None:
        """Say it, and keep it in run.json."""
        self.say(f"warning: step {step}: {message}")
        self.record["warnings"].append({"step": step, "message": message})

    def progress(self, step: int) -> tqdm:
        return tqdm(
            total=self.options.max_steps,
            initial=step,
            disable=not self.is_main,
            unit="step",
            mininterval=0.5,
            dynamic_ncols=True,
        )

    def log(self, step: int, figures: dict) -> None:
        if self.is_main:
            with self.saving(), open(self.folder / "log.jsonl", "a") as out:
                out.write(json.dumps({"step": step, **figures}) + "\n")
        if self.trackers:
            self.accelerator.log(figures, step=step)

    def _read_log(self) -> list[dict]:
        file = self.folder / "log.jsonl"
        lines = []
        for line in file.read_text().splitlines() if file.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):  # the last line of a killed run
                lines.append(json.loads(line))
        return lines

    def _cut_log(self, step: int) -> None:
        """Drop what a killed run logged after its last checkpoint."""
        kept = [line for line in self._read_log() if line["step"] <= step]
        write_atomically(self.folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    def draw_curve(self, names: tuple[str, ...] = ("loss",)) -> None:
        """curve.png: the losses of these names, and the mean over validation where there is one."""
        lines = self._read_log()
        if not self.is_main or not lines:
            return
        from training.pictures import loss_curve

        with self.saving():
            write_atomically(self.folder / "curve.png", loss_curve(lines, names))

    def draw_samples(self, picture: bytes) -> None:
        with self.saving():
            write_atomically(self.folder / "samples.png", picture)


INTERVALS = ("log_every", "eval_every", "save_every", "sample_every")


def next_batch(run: Run, batches, spec: dict) -> tuple[Tensor, Tensor | None]:
    """x as the network sees it, and class_labels, on the run's device."""
    device = run.accelerator.device
    x, class_labels = next(batches)
    x = prepare(x.to(device, non_blocking=True), spec)
    return x, None if class_labels is None else class_labels.to(device, non_blocking=True)


def drive(
    run: Run,
    split,
    step: int,
    parts: dict,
    batches_per_step: int,
    one_step: Callable,
    look: Callable,
    draw: Callable,
    headline: tuple[str, ...] = ("loss",),
    unit: tuple[str, int] = ("images", 1),
) -> int:
    """Go on from `step` to --max_steps: log, validate, save and draw when it is due. Returns the last step.

    Args:
        parts: what a checkpoint holds.
        batches_per_step: how many batches a step takes.
        one_step: (step, batches) -> terms, scalars by name, after one optimizer step of each player.
        look: (step), asked at each validation.
        draw: asked for each picture of samples.
        headline: the terms beside the progress bar.
        unit: what speed is counted in, and how many of them a row holds.

    Raises:
        Stopped: a signal came, or a term was not finite.
    """
    options = run.options
    if step >= options.max_steps:
        run.say(f"the run in {run.folder} has done its {step} steps")
        return step
    pending: list[tuple[int, dict]] = []  # steps whose terms no one has looked at yet

    def flush() -> dict[str, float]:
        """Check and average what is pending: looking at each term as it comes would make a GPU wait."""
        rows = mean_over_processes(run, [terms for _, terms in pending])
        for (number, _), row in zip(pending, rows, strict=True):
            run.check_finite({k: v for k, v in row.items() if k != "stop"}, number)
        pending.clear()
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}

    batches = run.batches(split, step, batches_per_step)
    seen, since = 0, time.perf_counter()
    with run.progress(step) as bar:
        while step < options.max_steps:
            run.seed_step(step)
            terms = one_step(step, batches)
            lr = options.learning_rate * learning_rate_at(step, options)
            step += 1
            seen += options.batch_size * run.world * batches_per_step * unit[1]
            stop = torch.full((), float(run.stop_signal is not None), device=run.accelerator.device)
            pending.append((step, {**terms, "stop": stop}))
            bar.update()

            due = {n: step % getattr(options, n) == 0 or step == options.max_steps for n in INTERVALS}
            if any(due.values()) or (run.world == 1 and run.stop_signal is not None):
                means = flush()
                speed = seen / (time.perf_counter() - since)
                shown = ", ".join(f"{name} {means[name]:.4g}" for name in headline)
                bar.set_postfix_str(f"{shown}, {speed:.0f} {unit[0]}/s", refresh=False)
                if means.pop("stop") > 0:
                    run.stop(step, parts)
                if due["log_every"]:
                    run.log(step, {**means, f"{unit[0]}_per_second": round(speed, 1), "lr": lr})
                if due["eval_every"]:
                    look(step)
                if due["save_every"]:
                    run.save(step, parts)
                if due["sample_every"]:
                    draw()
                if any(due.values()):
                    seen, since = 0, time.perf_counter()
    batches.close()
    return step


def backward(run: Run, wrapped: nn.Module, optimizer, parameters: list[nn.Parameter], losses: Callable) -> dict:
    """One optimizer step on the mean over --gradient_accumulation_steps calls of `losses`.

    Args:
        losses: () -> {"loss": scalar, other terms: scalars}, each time of a new batch.

    Returns:
        The means of the terms, and the gradient's norm where it is clipped.
    """
    options, accelerator, sums = run.options, run.accelerator, {}
    for _ in range(options.gradient_accumulation_steps):
        with accelerator.accumulate(wrapped):
            terms = losses()
            accelerator.backward(terms["loss"])
            if accelerator.sync_gradients and options.max_grad_norm:
                norm = accelerator.clip_grad_norm_(parameters, options.max_grad_norm)
                # fp16 may overflow: its scaler then skips the step by itself
                if options.mixed_precision != "fp16":
                    sums["gradient_norm"] = norm
            optimizer.step()
            optimizer.zero_grad()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0) + value.detach() / options.gradient_accumulation_steps
    return sums


def start(
    family: str,
    component: str | tuple[str, str] | None,
    options: RunOptions,
    build_model: Callable,
    load: Callable = load_data,
) -> tuple:
    """A run, its data, and its model `build_model(options, source)`, on the weights of --init_from where it is given.

    Where there are two players, `component` and what is built are pairs; None where `build_model` sees to --init_from.

    Raises:
        UsageError: the options do not fit the folder, the data or the weights.
    """
    run = Run(family, options)
    with run.accelerator.local_main_process_first():  # one process decodes, the others read the result
        source = load(options)
    try:
        model = build_model(options, source)
    except ValueError as error:
        raise UsageError(f"--dataset {options.dataset}: {error}") from None
    if component is not None and options.init_from:
        pairs = [(model, component)] if isinstance(component, str) else zip(model, component, strict=True)
        for part, name in pairs:
            load_weights(part, options.init_from, name)
    return run, source, model


def export_copy(model: nn.Module) -> nn.Module:
    """A copy for exporting, in float32 on the CPU."""
    return copy.deepcopy(model).float().cpu()


def mean_over_processes(run: Run, rows: list[dict[str, Tensor]]) -> list[dict[str, float]]:
    """Scalars of several steps, averaged over processes in one exchange."""
    names = list(rows[0])
    table = torch.stack([torch.stack([row[name].detach().float() for name in names]) for row in rows])
    if run.accelerator.distributed_type != DistributedType.NO:
        table = run.accelerator.reduce(table, "mean")
    return [dict(zip(names, row, strict=True)) for row in table.tolist()]


def _command(resume: bool = False) -> str:
    """The command that started this process, as a person would type it."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    start = f"python -m {spec.name}" if spec else f"python {Path(sys.argv[0]).name}"
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:  # as many processes again, or the weights would differ
        cpu = "" if torch.cuda.is_available() else "ACCELERATE_USE_CPU=true "
        start = start.replace("python", f"{cpu}torchrun --nproc_per_node {processes}", 1)
    words = [w for i, w in enumerate(sys.argv[1:], 1) if not _about_resuming(i)]
    if resume:
        words += ["--resume", "true"]
    return " ".join([start, *map(shlex.quote, words)])


def _about_resuming(i: int) -> bool:
    """Whether word i of the command line belongs to --resume or --overwrite."""
    word, before = sys.argv[i], sys.argv[i - 1]
    flags = ("--resume", "--overwrite")
    return word.startswith(flags) or (before in flags and not word.startswith("--"))


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
