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
import dataclasses
import json
import math
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import nn
from tqdm.auto import tqdm

from training.components import load_weights
from training.data.batches import derive_seed, training_batches
from training.data.images import load_data
from training.data.source import Source
from training.declaration import Declaration
from training.files import write_atomically
from training.loops.checkpoints import fill, read_checkpoint, save_checkpoint
from training.loops.command import command_line_of_this_run, device_name
from training.loops.record import (
    CHECKPOINTS,
    LOG,
    RECORD,
    check_exported,
    checkpoints_of,
    exported,
    name_of,
    read_log,
    step_of,
)
from training.loops.resume import check_folder, go_on, settings
from training.loops.run_options import CommonOptions, RunOptions
from training.loops.sharding import asked_for, check_processes, whole
from training.loops.tracker import Tracker
from training.options import Stopped, UsageError

INDICES = ("model_index.json", "config.json")  # that say what a finished pipeline consists of
SECONDS_TO_SETTLE = 0.5  # between the last barrier of several processes and the end of their group


class Run:
    """One training run: its folder, its processes and its record.

    Args:
        declaration: what the family says of itself, written into run.json; a folder of another family is refused.
        options: the recipe's options, a `CommonOptions`.

    Raises:
        UsageError: as of `check_folder`; the tracker is not installed.
    """

    def __init__(self, declaration: Declaration, options: CommonOptions):
        self.declaration, self.family, self.options = declaration, declaration.family, options
        self.folder = Path(options.output_dir)
        self.started = time.time()
        self.before = 0.0  # seconds that earlier parts of a resumed run took
        self.stop_signal: int | None = None
        self.handlers = {}
        self.old = check_folder(self.folder, self.family, options)  # the record of the run that goes on
        self.id = self.old.get("id") or secrets.token_hex(8)
        self.tracker = Tracker(options.report_to, lambda message: self.warn(self.record["step"], message))
        by_steps = {}
        if isinstance(options, RunOptions):
            by_steps = {k: getattr(options, k) for k in ("mixed_precision", "gradient_accumulation_steps")}
        log_with = None if options.report_to == "none" else options.report_to
        self.sharding = asked_for()
        try:
            self.accelerator = Accelerator(log_with=log_with, project_dir=str(self.folder), **by_steps)
        except ValueError as error:
            raise UsageError(f"--mixed_precision is {options.mixed_precision}: {error}") from None
        check_processes(self.accelerator.distributed_type, self.accelerator.num_processes)
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        self.record = {}
        self.remarks: list[str] = []  # warnings before there is a record
        launcher = os.environ.get(
            "ACCELERATE_MIXED_PRECISION", "no"
        )  # which is also what it says where it was told nothing
        if by_steps and launcher not in ("no", options.mixed_precision):
            chosen = f"--mixed_precision {options.mixed_precision}"
            self.remark(f"{chosen} is used, though accelerate launch is configured to {launcher}")
        self.accelerator.wait_for_everyone()  # all have looked at the folder before one writes into it
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        torch.manual_seed(derive_seed(options.seed, -1))  # the initial weights, the same on every process

    # the folder

    def _clear(self) -> None:
        """Remove what a run wrote; files that are not a run's stay."""
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)
        # the record goes last
        for name in (LOG, "samples.png", "curve.png", *INDICES, RECORD):
            (self.folder / name).unlink(missing_ok=True)

    # beginning and end

    def begin(self, source: Source, model_config: dict, parts: dict, parameters: int) -> int:
        """Open the run: load the last whole checkpoint into `parts` on --resume. Returns the step to go on with."""
        options, step, best = self.options, 0, None
        if options.resume:
            step, best, lines = go_on(self.folder, parts, options, self.old, self.id, self.world)
            for line in lines:
                self.say(line)
            self.before = self.old["seconds"]
        elif self.is_main and options.overwrite:
            with self.saving():
                self._clear()
        early = [{"step": 0, "message": message} for message in self.remarks]
        self.record = {
            "id": self.id,
            "family": self.family,
            "declaration": self.declaration.record(),
            "status": "running",
            "step": step,
            "dataset": source.describe(),
            "model": model_config,
            "parameters": parameters,
            "options": dataclasses.asdict(options),
            "command": command_line_of_this_run(precision=getattr(options, "precision_of_launcher", "")),
            "processes": self.world,
            "device": device_name(self.accelerator.device),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "best": best,
            "warnings": [*early, *(w for w in self.old.get("warnings", []) if w["step"] <= step and w not in early)],
        }
        if self.is_main:
            with self.saving():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._write_record()
                self._cut_log(step)
        self.tracker.start(self.accelerator, options)
        self.handlers = {n: signal.signal(n, self._note_signal) for n in (signal.SIGINT, signal.SIGTERM)}
        return step

    def finish(self, step: int, make_pipeline, model: nn.Module) -> None:
        """Write the finished pipeline into the run folder and close the record."""
        self.tracker.finish()
        if self.is_main:
            with self.saving():
                self._export(make_pipeline(model))
                self._write_record(status="finished", step=step)
            minutes = self.record["seconds"] / 60
            self.say(f"finished {step} steps in {minutes:.1f} minutes; the pipeline is in {self.folder}")
        self.close()
        self.push()

    def push(self) -> None:
        """Publish the finished run where --push_to_hub says so, by the command that a person would type.

        A process of its own: publishing reads run folders, and no loop knows how it is done.
        """
        repo_id = self.options.push_to_hub
        if not self.is_main or not repo_id:
            return
        words = ["-m", "training.publish", str(self.folder), "--repo_id", repo_id]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
        if done.returncode:
            why = done.stderr.strip().splitlines()[-1:] or [f"training.publish ended with {done.returncode}"]
            raise UsageError(f"{why[0].removeprefix('error: ')}; the run itself is finished: python {' '.join(words)}")
        self.say(done.stdout.strip())

    def _export(self, pipeline) -> None:
        """Save beside the run first, so that a full disk leaves no half-written pipeline."""
        temporary = self.folder / ".export.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            pipeline.save_pretrained(temporary)
            self.record["exported"] = exported(temporary)
            for index in INDICES:  # until the new one is there the folder is that of an unfinished run, never a mixture
                (self.folder / index).unlink(missing_ok=True)
            for part in sorted(temporary.iterdir(), key=lambda part: part.name in INDICES):
                if (self.folder / part.name).is_dir():
                    shutil.rmtree(self.folder / part.name)
                os.replace(part, self.folder / part.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @property
    def finished(self) -> bool:
        """Whether the folder holds a run that came to its end.

        Raises:
            UsageError: it did, but its pipeline is damaged.
        """
        done = self.old.get("status") == "finished"
        if done:
            check_exported(self.folder, self.old)
        return done

    def close(self) -> None:
        """Give the signals back, and end the tracker and the processes' group."""
        self.tracker.finish()
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        if self.world > 1:
            # A thread of gloo may still be letting go of the last barrier's tensors, for which it needs the interpreter.
            # Destroying the process group meanwhile would wait for that thread, and hold the interpreter, for good.
            time.sleep(SECONDS_TO_SETTLE)
        self.accelerator.end_training()

    def _write_record(self, **changes) -> None:
        seconds = self.before + time.time() - self.started
        self.record.update(changes, seconds=round(seconds, 1))
        write_atomically(self.folder / RECORD, json.dumps(self.record, indent=1) + "\n")

    # checkpoints

    @property
    def checkpoints(self) -> list[Path]:
        """The folders checkpoints/step-N, the oldest first."""
        return checkpoints_of(self.folder)

    def _facts(self, step: int) -> dict:
        """What a checkpoint keeps of its run, so that it goes on as this one and no other."""
        facts = {"run": self.id, "family": self.family, "step": step, "processes": self.world}
        return {**facts, "best": self.record["best"], "options": settings(self.options)}

    def save(self, step: int, parts: dict) -> None:
        """Checkpoint `parts` after `step` steps; drop those that are no longer kept."""
        states = whole({name: part.state_dict() for name, part in parts.items()})
        if self.is_main:
            with self.saving():
                save_checkpoint(self.folder / CHECKPOINTS / name_of(step), states, self._facts(step))
                self._write_record(step=step)
                before = [folder for folder in self.checkpoints if step_of(folder) <= step]
                for old in before[: -self.options.keep_checkpoints]:
                    shutil.rmtree(old, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    @property
    def best_folder(self) -> Path:
        """Where the best averaged weights lie."""
        return self.folder / CHECKPOINTS / "best"

    def save_best(self, step: int, figure: float, average: nn.Module) -> None:
        """Keep the averaged weights if their validation figure is the lowest so far (main process)."""
        best = self.record["best"]
        if figure < (math.inf if best is None else best["validation"]):
            self.record["best"] = {"step": step, "validation": figure}
            with self.saving():
                save_checkpoint(self.best_folder, {"average": average.state_dict()}, self._facts(step))

    def load_best(self, average: nn.Module) -> None:
        """Put in the best averaged weights so far; nothing where there was nothing to validate on (main process).

        Raises:
            UsageError: they are damaged.
        """
        if self.record["best"] is None:
            return
        try:
            facts, states = read_checkpoint(self.best_folder, {"average": average}, self.id)
            if facts["best"] != self.record["best"]:
                raise ValueError(f"it is of step {facts['step']}, not {self.record['best']['step']}")
        except ValueError as error:
            raise UsageError(
                f"{self.best_folder} cannot be used ({error}); the last weights are saved, --resume true --export last "
                "exports them"
            ) from None
        fill({"average": average}, states)

    @contextlib.contextmanager
    def saving(self):
        """Turn a failure to write into one line that says what is still there."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            done = self.checkpoints[-1:]
            left = (
                f"the last whole checkpoint is {done[0]}, --resume true goes on from it" if done else "nothing was kept"
            )
            raise UsageError(f"--output_dir {self.folder}: cannot be written ({error}); {left}") from None

    # what happens at each step

    def batches(self, split, step: int, per_step: int):
        """Batches for this process from `step` on, of which each step takes `per_step`."""
        options = self.options
        first = step * per_step
        return training_batches(
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
        raise Stopped(f"stopped and saved at step {step}; to go on: {self.record['command']} --resume true", code)

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
        """A line to the user, from the main process."""
        if self.is_main:
            tqdm.write(message, file=sys.stderr)

    def warn(self, step: int, message: str) -> None:
        """Say it, and keep it in run.json."""
        self.say(f"warning: step {step}: {message}")
        self.record["warnings"].append({"step": step, "message": message})

    def remark(self, message: str) -> None:
        """Warn before the work has begun: say it, and keep it for run.json."""
        self.say(f"warning: {message}")
        self.remarks.append(message)

    def take(self, source: Source) -> None:
        """Say what the data hold, and what of them is left out.

        Raises:
            UsageError: a run goes on, and its data are others than they were.
        """
        for line in source.report.lines():
            self.say(line)
        before = (self.old.get("dataset") or {}).get("fingerprint")
        if self.options.resume and before not in (None, source.fingerprint):
            rows = (self.old["dataset"].get("rows") or {}).get("train")
            raise UsageError(
                f"--resume: {source.name} is not as it was: the run in {self.folder} had {rows} rows to train on, now there "
                f"are {source.rows['train']}, or others; put the data back, or start another run with --init_from"
            )
        for message in source.report.warnings:
            self.remark(message)

    def progress(self, step: int) -> tqdm:
        """A progress bar of optimizer steps that begins at `step`."""
        return tqdm(
            total=self.options.max_steps,
            initial=step,
            disable=not self.is_main,
            unit="step",
            mininterval=0.5,
            dynamic_ncols=True,
        )

    def log(self, step: int, figures: dict) -> None:
        """Write a line of figures to log.jsonl, and send them to the tracker."""
        if self.is_main:
            with self.saving(), open(self.folder / LOG, "a") as out:
                out.write(json.dumps({"step": step, **figures}) + "\n")
        self.tracker.log(step, figures)

    def _cut_log(self, step: int) -> None:
        """Drop what a killed run logged after its last checkpoint."""
        lines, damaged = read_log(self.folder)
        if damaged and self.options.resume:
            self.say(f"{self.folder / LOG}: {damaged} lines are damaged and left out")
        kept = [line for line in lines if line["step"] <= step]
        write_atomically(self.folder / LOG, "".join(json.dumps(line) + "\n" for line in kept))

    def draw_curve(self, names: tuple[str, ...] = ("loss",)) -> None:
        """curve.png: the losses of these names, and the mean over validation where there is one."""
        lines, _ = read_log(self.folder)
        if not self.is_main or not lines:
            return
        from training.pictures import loss_curve

        with self.saving():
            write_atomically(self.folder / "curve.png", loss_curve(lines, names))

    def draw_samples(self, picture: bytes) -> None:
        """Write samples.png."""
        with self.saving():
            write_atomically(self.folder / "samples.png", picture)


def start(
    declaration: Declaration,
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
    run = Run(declaration, options)
    with run.accelerator.local_main_process_first():  # one process decodes, the others read the result
        source = load(options)
    run.take(source)
    if source.kind == "vector":
        run.declaration = declaration.of_points()
    try:
        model = build_model(options, source)
    except ValueError as error:
        raise UsageError(f"--dataset {options.dataset}: {error}") from None
    if component is not None and options.init_from:
        pairs = [(model, component)] if isinstance(component, str) else zip(model, component, strict=True)
        for part, name in pairs:
            load_weights(part, options.init_from, name)
    return run, source, model
