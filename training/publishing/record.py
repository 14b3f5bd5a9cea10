"""The record of a run as it is published: run.json without the places of the machine it ran on, figures, pictures."""

import json
import re
import shlex
import shutil
from pathlib import Path

from training.publishing.copying import write_json

# options of a run that name places on the machine it ran on, or say nothing about its result
LOCAL_OPTIONS = ("output_dir", "data_dir", "resume", "overwrite", "report_to", "max_memory_gb", "push_to_hub")


def record_files(source: Path) -> list[Path]:
    """What of a folder belongs to its record: run.json, results.json, pictures."""
    files = (source / "run.json", source / "results.json", *sorted(source.glob("*.png")))
    return [file for file in files if file.is_file()]


def copy_record(source: Path, folder: Path) -> None:
    """run.json without local paths, results.json, and the pictures that lie beside them."""
    if (source / "run.json").is_file():
        record = json.loads((source / "run.json").read_text())
        options = {k: v for k, v in record["options"].items() if k not in LOCAL_OPTIONS}
        record["options"] = {k: without_local_path(v) for k, v in options.items()}
        record["dataset"] = {k: without_local_path(v) for k, v in record["dataset"].items()}
        record["command"] = command_without_local_paths(record["command"])
        write_json(folder / "run.json", record)
    for file in record_files(source):
        if file.name != "run.json":
            shutil.copyfile(file, folder / file.name)


def command_without_local_paths(command: str) -> str:
    """The command without options that name local places."""
    words, kept = shlex.split(command), []
    while words:
        word = words.pop(0)
        name, _, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in LOCAL_OPTIONS:
            while not value and words and not words[0].startswith("--"):
                words.pop(0)
        else:
            kept.append(without_local_path(word))
    return shlex.join(kept)


def without_local_path(value):
    """A path of the machine that a run was made on, cut to its last part; anything else as it is."""
    if isinstance(value, str) and (value.startswith(("/", "./", "../", "~")) or re.match(r"[A-Za-z]:\\", value)):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value
