"""Whether a run may use its folder, and from which checkpoint it goes on.

An earlier run may have left anything there. A run goes on with what it can prove to be its own and whole, or is refused: it
never starts over where something would be lost.
"""

import dataclasses
import os
from pathlib import Path

from training.loops.checkpoints import fill, read_checkpoint
from training.loops.record import CHECKPOINTS, LOG, checkpoints_of, read_record, step_of
from training.loops.run_options import CommonOptions, RunOptions
from training.options import UsageError


def settings(options: CommonOptions) -> dict:
    """The options that must not change when a run goes on."""
    # a recipe that gives an option another default leaves it as changeable as it was
    kinds = [kind for kind in type(options).__mro__ if dataclasses.is_dataclass(kind)]
    changeable = {f.name for kind in kinds for f in dataclasses.fields(kind) if f.metadata.get("may_change_on_resume")}
    return {name: value for name, value in dataclasses.asdict(options).items() if name not in changeable}


def changed_setting(options: CommonOptions, kept: dict) -> str | None:
    """The first setting that is not as it was kept; one that the version of then did not know had its default."""
    fields = {field.name: field for field in dataclasses.fields(options)}
    for name, value in settings(options).items():
        field = fields[name]
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if kept.get(name, default) != value:
            return name
    return None


def check_folder(folder: Path, family: str, options: CommonOptions) -> dict:
    """The record of the run that goes on; {} where a run begins.

    Raises:
        UsageError: the folder holds something that is no run, another family's run, a damaged one, one with other settings,
            or any where neither --resume nor --overwrite is given.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--output_dir {folder}: is a file; it must be a folder")
        place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        if not os.access(place, os.W_OK):
            raise UsageError(f"--output_dir {folder}: cannot be written, {place} is read-only or another user's")
        empty = not folder.is_dir() or all(p.name.endswith(".tmp") for p in folder.iterdir())
    except OSError as error:
        raise UsageError(f"--output_dir {folder}: cannot be read ({error})") from None
    try:
        record = read_record(folder)
    except UsageError as error:
        if options.overwrite and not options.resume and (folder / LOG).is_file():  # it was a run's folder
            return {}
        raise UsageError(
            f"--output_dir {folder}: its run is damaged, {error}; put the file back, or --overwrite true starts anew"
        ) from None
    if record is None:
        if options.resume:
            raise UsageError(f"--resume: there is no run in --output_dir {folder}")
        if not empty:
            raise UsageError(f"--output_dir {folder}: holds files that are no run; give an empty or new folder")
        return {}
    if record["family"] != family:
        raise UsageError(
            f"--output_dir {folder}: holds a run of {record['family']}, not of {family}; give another folder"
        )
    if options.resume:
        key = changed_setting(options, record["options"])
        if key is not None:
            raise UsageError(
                f"--{key} is {getattr(options, key)}, but the run in {folder} has {record['options'].get(key)}; "
                "resume with the same options, or start another run with --init_from"
            )
        done = record["status"] == "finished" and not isinstance(options, RunOptions)  # fitted at once, without any
        if not done and not checkpoints_of(folder):
            _check_nothing_is_lost(folder, record, "there is none")
        return record
    if not options.overwrite:
        raise UsageError(
            f"--output_dir {folder}: holds a {record['status']} run; "
            "--resume true goes on with it, --overwrite true starts anew"
        )
    return {}


def _check_nothing_is_lost(folder: Path, record: dict, why: str) -> None:
    """Raise a `UsageError` if a run without a usable checkpoint had written one: starting over would discard its work."""
    written = [p for p in (folder / CHECKPOINTS).glob("step-*")]
    if written or record["step"] > 0 or record["status"] == "finished":
        raise UsageError(
            f"--resume: {folder} has no checkpoint that can be used ({why}), and its run had done {record['step']} steps; "
            "put one back, or --overwrite true starts anew"
        )


def go_on(folder: Path, parts: dict, options: RunOptions, record: dict, run: str, world: int) -> tuple:
    """Fill `parts` from the last checkpoint that is whole and of this run.

    Args:
        record, run: of the run that goes on, and its id.
        world: number of processes.

    Returns:
        Its step, 0 where there was none yet; which averaged weights are the best so far, {"step", "validation"} or None;
        and lines that the user should read.

    Raises:
        UsageError: there was one, and none can be used.
    """
    best, place = "there are none", folder / CHECKPOINTS / "best"
    if "average" in parts and os.path.lexists(place):
        try:
            best, _ = read_checkpoint(place, {"average": parts["average"].module}, run)
        except ValueError as error:
            best = str(error)
    passed = []
    for checkpoint in reversed(checkpoints_of(folder)):
        try:
            facts, states = read_checkpoint(checkpoint, parts, run)
            best_then = _best_then(checkpoint, facts, best, options)
        except ValueError as error:
            passed.append(f"{checkpoint} cannot be used ({error})")
            continue
        fill(parts, states)
        lines = [f"{line}; going back to the one before" for line in passed]
        if facts["processes"] != world:
            lines.append(f"the run had {facts['processes']} processes and now has {world}: weights will differ")
        if getattr(options, "streaming", False):
            lines.append("streamed rows start over: the weights will differ from those of an unbroken run")
        return facts["step"], best_then, [*lines, f"going on from step {facts['step']}"]
    _check_nothing_is_lost(folder, record, passed[0] if passed else "there is none")
    return 0, None, [f"{folder} holds no checkpoint yet; starting from step 0"]


def _best_then(checkpoint: Path, facts: dict, best: dict | str, options: RunOptions) -> dict | None:
    """Which weights were the best when a checkpoint was written, or after it.

    Args:
        best: the facts of checkpoints/best, or why it cannot be used.

    Raises:
        ValueError: it is of another step or other settings, or those weights are not there any more.
    """
    if facts["step"] != step_of(checkpoint):
        raise ValueError(f"it is of step {facts['step']}")
    key = changed_setting(options, facts["options"])
    if key is not None:
        raise ValueError(f"its --{key} was {facts['options'].get(key)}")
    # those of a later step were written before the run was killed, and come again when that step does
    if isinstance(best, dict):
        if best["step"] > facts["step"] or best["best"] == facts["best"]:
            return best["best"]
        best = f"those there are of step {best['step']}"
    if facts["best"] is not None and options.export == "best":
        raise ValueError(
            f"the best weights are those of step {facts['best']['step']}, and {best}; --export last does without them"
        )
    return None
