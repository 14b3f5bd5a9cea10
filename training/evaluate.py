"""Measure a model, print what was found and keep it as results.json, with the pictures that belong to it.

    python -m training.evaluate checkpoints/vae-mnist --data_dir DIR        # a run, a checkpoint, a portable folder
    python -m training.evaluate user/vae-mnist                              # or a repository on the Hub
    python -m training.evaluate checkpoints/vae-mnist --only kept_rows      # one measure; the others stay as they are

Started as several processes, the first measures and the others end: the figures are those of one.

Which measures a model owes stands in its declaration; each module of training/measures/ says what its figures mean, and
whether they apply. All figures are of the test split.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from training.data.source import Source, reader_named
from training.figures import MEASURES, measure_named
from training.files import write_atomically
from training.layouts.choice import declaration_in, layout_of
from training.options import LineParser, UsageError, command_line
from training.publishing.loading import load, model_folder, record_of
from training.publishing.record import read_results
from training.watching import watched

FEW_ROWS = 30  # to measure on


def evaluate(options: argparse.Namespace) -> tuple[dict, dict[str, bytes]]:
    """The figures that the model owes, as results.json holds them, and pictures by file name.

    Raises:
        UsageError: no such model or data, or they do not fit each other.
    """
    folder = model_folder(options.source, options.trust)
    layout, declaration = layout_of(folder), declaration_in(folder)
    owed = MEASURES if declaration is None else declaration.measures
    unknown = [name for name in owed if name not in MEASURES]
    if unknown:
        raise UsageError(f"{options.source}: run.json names the measure {unknown[0]!r}; there is none of this name")
    for name in options.only:
        if name not in owed:
            raise UsageError(f"--only {name}: the model's family does not owe it; it owes {', '.join(owed)}")
    pipe = load(options.source, options.device, options.trust)
    source = held_out_data(options, pipe)
    results = {
        "dataset": source.dataset_id,
        "likelihood": pipe.likelihood,
        "calls": sorted(pipe.calls),  # what a page can do with the model, known before it is loaded
        "data_kind": source.kind,
        "num_classes": getattr(pipe, "num_classes", 0),
        "parameters": sum(p.numel() for part in layout.networks(pipe).values() for p in part.parameters()),
    }
    pictures: dict[str, bytes] = {}
    names = options.only or owed
    for name in (bar := watched(names, "measuring", len(names), "measure")):
        bar.set_description(f"measuring {name}")
        measure = measure_named(name)
        if measure.applies(pipe, source):
            found, drawn = measure.measure(pipe, source, options)
            results |= found
            pictures |= drawn
    return {**results, "machine": machine(options.device), "torch": torch.__version__}, pictures


def held_out_data(options: argparse.Namespace, pipe):
    """The data to measure on: the run's own, or what --dataset names."""
    trained = options.run["dataset"]
    dataset = options.dataset or trained["name"]
    if dataset is None:
        raise UsageError(f"{options.source}: has no run.json that names its data; give --dataset")
    reader = reader_named(trained.get("reader") or "images")
    if set(options.only) == {"kept_rows"}:  # they need no data
        kept = reader.kept_rows(dataset)
        if kept is None:
            raise UsageError(f"--only kept_rows: no rows of {dataset} are kept with the project")
        return kept[0]
    source = reader.held_out(dataset, options.data_dir, options.run["options"], options.dataset is None)
    spec = getattr(pipe, "data_spec", None)
    if spec is not None and list(source.shape) != list(spec["shape"]):
        raise UsageError(f"{options.source}: takes data of shape {spec['shape']}, {dataset} has {list(source.shape)}")
    for warning in warnings(source, trained.get("class_names") if getattr(pipe, "num_classes", 0) else None):
        print(f"warning: {warning}", file=sys.stderr)
    return source


def warnings(source, class_names: list[str] | None) -> Iterator[str]:
    """What makes figures say less than they seem to; `class_names` are those that the model was trained with."""
    rows = source.rows["test"] if isinstance(source, Source) else None
    if rows is not None and rows < FEW_ROWS:
        yield f"{source.name} holds {rows} rows to measure on; figures of so few, and their errors, say little"
    found = list(getattr(source, "class_names", ()))
    if class_names and found and found != list(class_names):
        yield (
            f"the classes of {source.name} are {', '.join(found[:10])}, the model's {', '.join(class_names[:10])}; figures by "
            "class take the first for the first, and so on"
        )


def keys_of(measure: str) -> set[str]:
    """The keys of results.json that a measure's figures stand under."""
    found = [figure for table in measure_named(measure).TABLES for figure in table.figures]
    return {key for figure in found for key in (figure.key, figure.error, figure.interval) if key is not None}


def machine(device: str) -> str:
    """What figures were measured on: the GPU, or the CPU with its number of threads."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        cpu = next((line.split(":")[1].strip() for line in info.open() if line.startswith("model name")), cpu)
    return f"{cpu}, {torch.get_num_threads()} threads"


def main(argv: list[str] | None = None) -> None:
    parser = LineParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument(
        "source", help="the model to measure: a finished run, a checkpoint, a portable folder or a Hub id"
    )
    parser.add_argument("--dataset", help="measure on this data set instead of the one it was trained on")
    parser.add_argument("--data_dir", help="folder or file of a local copy of the named data set")
    parser.add_argument(
        "--only", nargs="*", default=[], choices=MEASURES, help="these measures alone; other figures stay as they are"
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default=device, help="device that the model is measured on"
    )
    parser.add_argument(
        "--to", type=Path, help="write results.json into this folder; by default into the source itself"
    )
    parser.add_argument(
        "--trust_remote_code", choices=("true", "false"), default="false",
        help="run the code that a model carries, even where it is not known to be this project's",
    )  # fmt: skip
    for name in MEASURES:
        measure_named(name).arguments(parser)
    options = parser.parse_args(argv)
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes the first measures, so that the figures are those of one
    options.trust = options.trust_remote_code == "true"
    unrecorded = {"options": {}, "dataset": {"name": None}}
    options.run = record_of(options.source) or unrecorded
    results, pictures = evaluate(options)
    place = options.to or (Path(options.source) if Path(options.source).is_dir() else None)
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
        file = place / "results.json"
        if options.only and file.is_file():  # what was not measured stays as it is, with the machine it was measured on
            measured_anew = {key for name in options.only for key in keys_of(name)}
            kept = {key: value for key, value in read_results(place).items() if key not in measured_anew}
            results = {**results, **kept, **{k: v for k, v in results.items() if k not in ("machine", "torch")}}
        for name, content in pictures.items():
            write_atomically(place / name, content)
        write_atomically(file, json.dumps(results, indent=2, sort_keys=True) + "\n")
    print(json.dumps(results, sort_keys=True))


if __name__ == "__main__":
    command_line(main)
