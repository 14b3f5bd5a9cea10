"""The card of a published model: README.md with its metadata, built from the record and the figures beside the weights."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from training.declaration import UNDECLARED, Declaration
from training.figures import MEASURES, figures, measure_named
from training.layouts.choice import declaration_in
from training.options import UsageError
from training.publishing.code import SUPPORTED
from training.publishing.commit import commit_of_code
from training.publishing.markdown import fenced, plain
from training.publishing.record import read_results, read_run

NAME = re.compile(r"[\w.-]+/[\w.-]+|\w[\w .+()-]*", re.ASCII)  # nothing that ends a string, a heading or a cell


def card(folder: Path, name: str, class_name: str, layout: ModuleType) -> str:
    """README.md for a portable folder.

    Args:
        folder: with the weights, the code, and run.json and results.json where there are such.
        name: how the card calls the model: a Hub id, or the folder's name.
        class_name: of the pipeline.
        layout: of the folder, a module of training/layouts/.

    Raises:
        UsageError: the name, or what the record says, cannot stand on a page.
    """
    from huggingface_hub import ModelCard, ModelCardData  # takes most of a second

    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r:.200}: goes into the card; a name is of letters, digits, blanks and . _ - + ( )")
    run, found = read_run(folder), read_results(folder)
    declaration = declaration_in(folder) or UNDECLARED
    dataset = run["dataset"] if run else {}
    dataset_id = dataset.get("id")
    data = ModelCardData(
        library_name=layout.LIBRARY,
        pipeline_tag=declaration.task if declaration.task != "other" else None,
        language=dataset.get("language"),
        license="apache-2.0",
        tags=["genus", class_name],
        datasets=[dataset_id] if dataset_id and "/" in dataset_id else None,
        model_name=name.split("/")[-1],
        eval_results=_eval_results(found, declaration),
    )
    pictures = {file: said for measure in MEASURES for file, said in measure_named(measure).PICTURES.items()}
    parts = [
        f"# {name}\n",
        _about(declaration, dataset),
        "![Samples](samples.png)\n" if (folder / "samples.png").is_file() else "",
        layout.snippet(folder, name, _example(declaration, found)),
        _further(declaration),
        _training(run),
        _figures(found, declaration, dataset),
        *(f"{said}:\n\n![{said}]({file})\n" for file, said in pictures.items() if (folder / file).is_file()),
        _limits(dataset),
        _code(folder, layout.LIBRARY),
        _weights(folder),
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(part for part in parts if part)))


def _about(declaration: Declaration, dataset: dict) -> str:
    """What kind of model it is, and the pages of its paper and its data."""
    if not declaration.title:
        return ""
    kind = f"[{plain(declaration.title)}]({declaration.paper})" if declaration.paper else plain(declaration.title)
    data = f", trained on {_named(dataset)}" if dataset.get("id") else ""
    return (
        f"{kind}{data}. One of the models of Genus, which holds families of generative models behind one interface.\n"
    )


def _named(dataset: dict) -> str:
    """The data, as a link where they have a page."""
    name, url = dataset["id"], dataset.get("url")
    if url is None and re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII):
        url = f"https://huggingface.co/datasets/{name}"
    return f"[{plain(name)}]({url})" if url else plain(name)


def _example(declaration: Declaration, found: dict) -> str:
    """What a card shows first; of a model that takes classes also how they are given."""
    if not found.get("num_classes") or "sample" not in found.get("calls", []):
        return declaration.example
    names = ("points", "samples") if declaration.unit == "point" else ("images", "images")
    return f"{declaration.example}\n{names[0]} = pipe({declaration.class_arguments}).{names[1]}  # one of each class"


def _further(declaration: Declaration) -> str:
    """How to train it further, where its network's input does not tell."""
    if declaration.training_example is None:
        return ""
    return f"## Train it further\n\n{fenced(declaration.training_example, 'python')}\n"


def _describe(figure, declaration: Declaration, found: dict) -> str:
    names = {name: found.get(name, {}).get("id", "") for name in ("extractor", "second_extractor")}
    return figure.description.format(unit=declaration.unit, **names)


def _eval_results(found: dict, declaration: Declaration) -> list | None:
    """The figures as huggingface_hub.EvalResult."""
    from huggingface_hub import EvalResult

    results = []
    for figure in figures():
        if figure.metric_type is None or figure.key not in found:
            continue
        said = _describe(figure, declaration, found)
        if (
            figure.metric_type in ("nll", "bits_per_byte")
            and "convention" in found
            and not figure.key.startswith("importance")
        ):
            said += f" ({found['convention']})"
        results.append(
            EvalResult(
                task_type=declaration.task,
                dataset_type=found["dataset"],
                dataset_name=found["dataset"],
                dataset_split=found.get("split", "test"),
                metric_type=figure.metric_type,
                metric_name=said,
                metric_value=found[figure.key],
            )
        )
    return results or None


def _training(run: dict) -> str:
    if not run:
        return ""
    return (
        f"## Training\n\n{run['step']} steps on {_named(run['dataset'])} in {run['seconds'] / 60:.1f} minutes "
        f"({plain(run['device'])}), {run['parameters']:,} parameters:\n\n{fenced(run['command'])}\n"
    )


def _figures(found: dict, declaration: Declaration, dataset: dict) -> str:
    if not found:
        return ""
    extractor, second, lines = found.get("extractor"), found.get("second_extractor"), []
    for figure in figures():
        if figure.metric_type is not None and figure.key in found:
            value = f"{found[figure.key]}"
            if figure.error in found:
                value += f" ± {found[figure.error]}"
            if figure.interval in found:
                value += " (95 % interval {} to {})".format(*found[figure.interval])
            lines.append(f"| {plain(_describe(figure, declaration, found))} | {value} |")
    if not lines:
        return ""
    text = f"## Measured\n\nOn {plain(dataset.get('held_out') or 'test data')}:\n\n| what | figure |\n|---|---|\n"
    text += "\n".join(lines) + "\n"
    if "convention" in found:
        text += f"\nLikelihood: {plain(found['convention'])}.\n"
    if extractor:
        text += (
            f"\nDistances are of {found['samples']:,} samples, in the features of `{extractor['id']}` (SHA-256 of its "
            f"weights {extractor['sha256']}); training images are at {found['floor']['frechet_distance']}. Of the "
            f"samples, {found['memorised']:.1%} lie closer to a training image than 99 % of test images do.\n"
        )
    if second:
        text += (
            f"\nThe second judge, `{second['id']}` (SHA-256 of its weights {second['sha256']}), is another network: what "
            f"only one of the two says is of that network. In its features training images are at "
            f"{found['second_floor']['frechet_distance']}.\n"
        )
    return text


def _limits(dataset: dict) -> str:
    licence = dataset.get("licence") or "see its page"
    name = dataset.get("id")
    data = f" It knows nothing but {plain(name)} (licence of the data: {plain(licence)})." if name else ""
    return (
        "## Limits and intended use\n\nFor learning, teaching and comparing generative models, and as a small part of "
        f"other programs.{data} Likelihoods compare only within one data set and one convention. The code and the "
        "weights are under Apache-2.0.\n"
    )


def _code(folder: Path, library: str) -> str:
    oldest, newest = SUPPORTED[library]
    return (
        f"## Code\n\nOf commit {commit_of_code()}.\n\nTried with {library} {oldest} and {newest}.\n\n"
        f"{_hashes(folder, folder.rglob('*.py'))}"
    )


def _weights(folder: Path) -> str:
    return f"## Weights\n\n{_hashes(folder, folder.rglob('*.safetensors'))}"


def _hashes(folder: Path, files: Iterable[Path]) -> str:
    """A table of files, each with its SHA-256."""
    rows = "".join(f"| `{file.relative_to(folder).as_posix()}` | {sha256(file)} |\n" for file in sorted(files))
    return f"| file | SHA-256 |\n|---|---|\n{rows}"


def sha256(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def hashes_on(text: str) -> dict[str, str]:
    """The SHA-256 that a card tells of each file."""
    return dict(re.findall(r"^\| `([^`|\n]+)` \| ([0-9a-f]{64}) \|$", text, re.M))
