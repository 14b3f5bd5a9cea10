"""The record of a run as it is published: run.json without the places of the machine it ran on, figures, pictures.

Records may come from anywhere, and land on a page: fields that no run writes are left out, each of the others is of its
kind and of bounded length, and of a picture only the pixels are kept.
"""

import re
import shlex
from pathlib import Path

from training.declaration import declaration_of
from training.figures import figures
from training.files import read_json
from training.folders import plain_files
from training.options import UsageError
from training.publishing.copying import write_json
from training.publishing.png import only_pixels

# options of a run that name places on the machine it ran on, or say nothing about its result
LOCAL_OPTIONS = ("output_dir", "data_dir", "resume", "overwrite", "report_to", "max_memory_gb", "push_to_hub")
NUMBER, MAYBE = (int, float), type(None)
RUN_FIELDS = {  # what a run writes, and of what kind it is
    "family": str, "declaration": dict, "status": str, "step": int, "dataset": dict, "model": dict, "parameters": int,
    "options": dict, "command": str, "processes": int, "device": str, "versions": dict, "best": (dict, MAYBE),
    "warnings": list, "seconds": NUMBER,
}  # fmt: skip
NEEDED = ("step", "dataset", "parameters", "options", "command", "device", "seconds")  # of a card
DATASET_FIELDS, ADDED_LATER = ("name", "id", "licence", "reader", "held_out"), ("url", "language")
ADDRESS = re.compile(r"https://[\w.-]+(/[\w.~%+/-]*)?", re.ASCII)  # nothing that ends a link on a page
RESULT_FIELDS = {
    "dataset": str, "convention": str, "split": str, "extractor": dict, "floor": dict, "samples": int,
    "memorised": NUMBER, "second_extractor": dict, "second_floor": dict,
}  # fmt: skip
LONGEST_LINE, LONGEST_TEXT, MOST_VALUES = 500, 10_000, 100_000  # characters, characters, values in a record


def read_run(folder: Path) -> dict:
    """A folder's run.json, the fields that a run writes; {} where there is none.

    Raises:
        UsageError: it is damaged, or a field is missing or of another kind.
    """
    file = folder / "run.json"
    if not file.exists():
        return {}
    run = read_json(file, "record of a run")
    run = {name: value for name, value in run.items() if name in RUN_FIELDS}
    missing = [name for name in NEEDED if name not in run]
    if missing:
        raise UsageError(f"{file}: no record of a run: it lacks {missing[0]}")
    _check_kinds(run, RUN_FIELDS, file)
    for name in ("family", "status", "device"):
        _check_text(run.get(name, ""), f"{file}: {name}", LONGEST_LINE)
    names = run["dataset"].get("class_names")
    _check_address(run["dataset"].get("url"), f"{file}: dataset.url")
    language = run["dataset"].get("language")
    if language is not None and not re.fullmatch("[a-z]{2,3}", str(language)):
        raise UsageError(f"{file}: dataset.language is {language!r:.100}; it must be a code like 'en'")
    kept = (*DATASET_FIELDS, *(name for name in ADDED_LATER if name in run["dataset"]))
    run["dataset"] = {name: run["dataset"].get(name) for name in kept}
    for name, value in run["dataset"].items():
        if value is not None:
            _check_text(value, f"{file}: dataset.{name}", LONGEST_LINE)
    if names:
        _check_kinds({"class_names": names}, {"class_names": list}, file)
        for name in names:
            _check_text(name, f"{file}: dataset.class_names", LONGEST_LINE)
        run["dataset"]["class_names"] = names
    if "declaration" in run:
        try:
            run["declaration"] = declaration_of(run).record()
        except ValueError as error:
            raise UsageError(f"{file}: {error}") from None
        for name, value in run["declaration"].items():
            if isinstance(value, str) and "example" not in name:  # an example is several lines of Python
                _check_text(value, f"{file}: declaration.{name}", LONGEST_LINE)
            if name == "task" and not re.fullmatch("[a-z0-9-]*", value):
                raise UsageError(f"{file}: declaration.{name} is {value!r:.100}; it must be a name of the Hub's lists")
        _check_address(run["declaration"]["paper"], f"{file}: declaration.paper")
    _check_values(run, file)
    return run


def read_results(folder: Path) -> dict:
    """A folder's results.json; {} where there is none.

    Raises:
        UsageError: it is damaged, or a figure that cards show is of another kind.
    """
    file = folder / "results.json"
    if not file.exists():
        return {}
    found = read_json(file, "file of results")
    numbers = [figure for figure in figures() if figure.metric_type is not None and figure.key in found]
    kinds = {name: NUMBER for figure in numbers for name in (figure.key, figure.error) if name is not None}
    _check_kinds(found, {**kinds, **RESULT_FIELDS}, file)
    for interval in (found[figure.interval] for figure in numbers if figure.interval in found):
        if not isinstance(interval, list) or [type(value) in (int, float) for value in interval] != [True, True]:
            raise UsageError(f"{file}: an interval is {interval!r:.100}; it must be two numbers")
    if numbers and "dataset" not in found:
        raise UsageError(f"{file}: no file of results: it lacks dataset")
    for name in ("dataset", "split"):
        _check_text(found.get(name, ""), f"{file}: {name}", LONGEST_LINE)
    if "extractor" in found:
        _check_kinds(found, dict.fromkeys(("samples", "memorised"), object), file, needed=True)
    for prefix in ("", "second_"):
        if f"{prefix}extractor" in found:
            _check_extractor(found, prefix, file)
    _check_values(found, file)
    return found


def _check_address(value, where: str) -> None:
    if value is not None and not (isinstance(value, str) and len(value) <= LONGEST_LINE and ADDRESS.fullmatch(value)):
        raise UsageError(f"{where} is {value!r:.100}; it must be an address like https://arxiv.org/abs/1312.6114")


def _check_extractor(found: dict, prefix: str, file: Path) -> None:
    """What a card says of a classifier in whose features samples were compared."""
    _check_kinds(found, {f"{prefix}floor": object}, file, needed=True)
    _check_kinds(found[f"{prefix}floor"], {"frechet_distance": NUMBER}, file, needed=True)
    told = found[f"{prefix}extractor"]
    _check_kinds(told, {"id": str, "sha256": str}, file, needed=True)
    for name, value in told.items():
        if not re.fullmatch(r"[\w./@-]{1,200}", str(value), re.ASCII):
            raise UsageError(
                f"{file}: {prefix}extractor.{name} is {value!r:.100}; it must be a name, or digits of a hash"
            )


def _check_kinds(found: dict, kinds: dict, file: Path, needed: bool = False) -> None:
    for name, kind in kinds.items():
        if name not in found:
            if needed:
                raise UsageError(f"{file}: lacks {name}")
            continue
        value = found[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not object):
            words = " or ".join(KINDS[one] for one in (kind if isinstance(kind, tuple) else (kind,)) if one in KINDS)
            raise UsageError(f"{file}: {name} is {value!r:.100}; it must be {words}")


KINDS = {str: "a text", dict: "an object", list: "a list", int: "an integer", float: "a number", MAYBE: "null"}


def _check_text(value, where: str, most: int) -> None:
    """Raise unless a text is of characters that can be seen, and none too many; only longer ones have several lines."""
    blanks = "\n\t" if most > LONGEST_LINE else ""
    if not isinstance(value, str):
        raise UsageError(f"{where} is {value!r:.100}; it must be a text")
    if len(value) > most:
        raise UsageError(f"{where} has {len(value)} characters; it must be at most {most}")
    bad = next((c for c in value if not c.isprintable() and c not in blanks), None)
    if bad is not None:
        raise UsageError(f"{where} holds the character U+{ord(bad):04X}; it must be text that can be seen")


def _check_values(record: dict, file: Path) -> None:
    """All texts of a record, names among them."""
    todo, count = [("", record)], 0
    while todo:
        where, value = todo.pop()
        count += 1
        if count > MOST_VALUES:
            raise UsageError(f"{file}: holds more than {MOST_VALUES} values; no run writes as many")
        if isinstance(value, dict):
            for name, inner in value.items():
                _check_text(name, f"{file}: a name in {where or 'it'}", LONGEST_LINE)
                todo.append((f"{where}.{name}".lstrip("."), inner))
        elif isinstance(value, list):
            todo += [(where, inner) for inner in value]
        elif isinstance(value, str):
            _check_text(value, f"{file}: {where}", LONGEST_TEXT)


def record_files(source: Path) -> list[Path]:
    """What of a folder belongs to its record: run.json, results.json, pictures."""
    files = plain_files(source)
    named = [file for file in files if file.name in ("run.json", "results.json")]
    return [*sorted(named, reverse=True), *(file for file in files if file.suffix == ".png")]


def copy_record(source: Path, folder: Path) -> None:
    """run.json without local paths, results.json, and the pictures that lie beside them.

    Raises:
        UsageError: one of them is damaged, or not of its kind.
    """
    for file in record_files(source):
        if file.name == "run.json":
            write_json(folder / file.name, without_places(read_run(source)))
        elif file.name == "results.json":
            write_json(folder / file.name, read_results(source))
        else:
            try:
                (folder / file.name).write_bytes(only_pixels(file.read_bytes()))
            except ValueError as error:
                raise UsageError(f"{file}: cannot be published: {error}") from None


def without_places(record: dict) -> dict:
    """A record without the places of the machine that the run was made on."""
    options = {k: v for k, v in record["options"].items() if k not in LOCAL_OPTIONS}
    return {
        **record,
        "options": {k: without_local_path(v) for k, v in options.items()},
        "dataset": {k: without_local_path(v) for k, v in record["dataset"].items()},
        "command": command_without_local_paths(record["command"]),
    }


def command_without_local_paths(command: str) -> str:
    """The command without options that name local places.

    Raises:
        UsageError: it is no command line.
    """
    try:
        words, kept = shlex.split(command), []
    except ValueError as error:
        raise UsageError(f"run.json: command is no command line ({error})") from None
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
