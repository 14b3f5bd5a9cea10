"""What an earlier run left in its folder: its record, its log and its checkpoints. All of it may be damaged."""

import hashlib
import os
import re
from pathlib import Path

from training.files import parse_json, read_json
from training.options import UsageError

RECORD, LOG, CHECKPOINTS = "run.json", "log.jsonl", "checkpoints"
KINDS = {  # of what a record needs to hold for a run to go on; those of older runs have no id, and say not what was exported
    "id": (str, type(None)),
    "exported": (dict, type(None)), "family": (str,), "status": (str,), "step": (int,), "options": (dict,),
    "seconds": (int, float), "warnings": (list,),
}  # fmt: skip
MOST_LINE = 1_000_000  # bytes of a line of the log


def read_record(folder: Path) -> dict | None:
    """run.json of a run folder; None where there is none.

    Raises:
        UsageError: it is damaged; one line that names the file.
    """
    file = folder / RECORD
    if not os.path.lexists(file):
        return None
    record = read_json(file, "record of a run")
    whole = {key: type(record.get(key)) in kinds for key, kinds in KINDS.items()}
    if all(whole.values()):
        whole["step"], whole["seconds"] = record["step"] >= 0, record["seconds"] >= 0
        whole["exported"] = all(isinstance(seal, list) for seal in (record.get("exported") or {}).values())
        whole["warnings"] = all(isinstance(w, dict) and type(w.get("step")) is int for w in record["warnings"])
    odd = [key for key, fits in whole.items() if not fits]
    if odd:
        raise UsageError(f"{file}: no record of a run: its {odd[0]} is {record.get(odd[0])!r}")
    return record


def exported(folder: Path) -> dict:
    """How large each file of a finished pipeline is, and its hash, as its record keeps them."""
    return {p.relative_to(folder).as_posix(): _seal(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def _seal(file: Path) -> list:
    with open(file, "rb") as opened:
        return [file.stat().st_size, hashlib.file_digest(opened, "sha256").hexdigest()]


def check_exported(folder: Path, record: dict) -> None:
    """Raise a `UsageError` if the finished pipeline of a run is not the one that its record tells of."""
    for name, kept in (record.get("exported") or {}).items():
        file = folder / name
        # the size is looked at first: a file may have grown to any
        if not file.is_file() or [file.stat().st_size] != kept[:1] or _seal(file) != kept:
            raise UsageError(
                f"--resume: {file} is damaged or was changed; put it back, or --overwrite true starts anew"
            )


def checkpoints_of(folder: Path) -> list[Path]:
    """The folders checkpoints/step-N, the oldest first. What else lies there, links too, was not written by a run."""
    found = [p for p in (folder / CHECKPOINTS).glob("step-*") if p.is_dir() and not p.is_symlink()]
    return sorted((p for p in found if p.name == name_of(step_of(p))), key=step_of)


def name_of(step: int) -> str:
    """The name of the folder of a checkpoint."""
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """The step that a checkpoint's name tells; -1 where it tells none."""
    digits = re.fullmatch(r"step-([0-9]{8,18})", folder.name)
    return int(digits[1]) if digits else -1


def read_log(folder: Path) -> tuple[list[dict], int]:
    """The lines of figures of log.jsonl, and how many of the others were not just cut off at the end."""
    file, lines, damaged, rest = folder / LOG, [], 0, b""
    if not file.is_file():
        return [], 0
    with open(file, "rb") as opened:
        while raw := opened.readline(MOST_LINE):
            damaged, rest = damaged + bool(rest), b""
            try:
                line = parse_json(raw, finite=False)
                if type(line["step"]) is not int or not all(type(value) in (int, float) for value in line.values()):
                    raise ValueError
                lines.append(line)
            except (ValueError, KeyError):
                rest = raw
    return lines, damaged + rest.endswith(b"\n")  # a run that is killed leaves half a line
