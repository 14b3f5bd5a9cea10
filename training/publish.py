"""The build step: from a run or a checkpoint to a folder that `from_pretrained` loads where nothing of ours is.

    python -m training.publish runs/vae-mnist --to build/vae-mnist              # a portable folder
    python -m training.publish runs/vae-mnist --checkpoint checkpoints/vae-mnist --dtype float16
    python -m training.publish --space spaces/vae --to build/space                # a Space that runs by itself
    python -m training.publish --space spaces/gallery --to build/gallery          # all Spaces, as pages of one
    python -m training.publish checkpoints/vae-mnist --repo_id user/vae-mnist     # build and upload
    python -m training.publish --space spaces/vae --repo_id user/vae --model_id user/vae-mnist,user/cvae-mnist
    python -m training.publish --all --namespace user
    python -m training.publish --verify user/vae-mnist

A portable folder holds the weights as safetensors, the code that they need and an index that names it: diffusers'
`model_index.json`, or of a language model transformers' `config.json` with its `custom_pipelines`. Code files
carry a hash of their content in their names (`modeling_vae_3f2a9c.py`): diffusers puts all remote code into one
folder by file name, and two repositories with files of one name would run each other's code. The build reads files
and writes files, nothing else: the same inputs give the same bytes.

A checkpoint is a run without code, optimizer state and local paths: what this repository keeps. A Space is its own
folder and `kit/`, the package that all Spaces share; the gallery holds the other Spaces' modules beside its own.
"""

import ast
import hashlib
import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from training.card import card
from training.hub import check_repo_id, collect, upload, verify
from training.options import LineParser, UsageError, command_line

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ("samples.png", "curve.png", "calibration.png", "nearest.png")
LANGUAGE_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
)  # fmt: skip
# options of a run that name places on the machine it ran on, or say nothing about its result
LOCAL_OPTIONS = ("output_dir", "data_dir", "resume", "overwrite", "report_to", "max_memory_gb", "push_to_hub")


def build(source: Path, to: Path, called: str | None = None) -> None:
    """Write the portable folder of a run, a checkpoint, or a pipeline that was loaded by remote code and saved.

    Raises:
        UsageError: `source` is neither, its code is not in this repository, or `to` holds something else.
    """
    if is_language(source):
        return _build_language(source, to, called)
    index = read_index(source)
    with replacing(to, source, _is_portable) as folder:
        pipeline_file = _defining("pipeline", index["_class_name"])
        module = _add_code(pipeline_file, folder)
        portable, own = {**index, "_class_name": [module, index["_class_name"]]}, []
        for name, (library, class_name) in components(index).items():
            _copy_component(source / name, folder / name)
            if not is_library(library):
                module = _add_code(ROOT / (library.replace(".", "/") + ".py"), folder / name)
                portable[name] = [module, class_name]
                own.append(f"{module}.{class_name}")
        if len(own) == 1:  # diffusers.AutoModel.from_pretrained(repo, subfolder=...) looks here, and knows one model
            portable["auto_map"] = {"AutoModel": own[0]}
        _write_json(folder / "model_index.json", portable)
        _copy_record(source, folder)
        (folder / "README.md").write_text(card(folder, called or to.name, index["_class_name"]), encoding="utf-8")


def _build_language(source: Path, to: Path, called: str | None) -> None:
    """The same of a language model: transformers' files, and the pipeline that its config names."""
    config = read_config(source)
    with replacing(to, source, _is_portable) as folder:
        _copy_files([source / name for name in LANGUAGE_FILES if (source / name).is_file()], folder)
        for task in config["custom_pipelines"].values():
            class_name = task["impl"].split(".")[1]
            task["impl"] = f"{_add_code(_defining('pipeline', class_name), folder)}.{class_name}"
        _write_json(folder / "config.json", config)
        _copy_record(source, folder)
        text = card(folder, called or to.name, class_name, "transformers")
        (folder / "README.md").write_text(text, encoding="utf-8")


def checkpoint(source: Path, to: Path, dtype: str | None) -> None:
    """Copy what a repository keeps of a run: weights (cast to `dtype`, where given), configs, record, pictures.

    Raises:
        UsageError: `source` is no finished run, or `to` holds something else.
    """
    if is_language(source):
        config = read_config(source)
        with replacing(to, source, _is_checkpoint) as folder:
            _copy_files([source / name for name in LANGUAGE_FILES if (source / name).is_file()], folder, dtype)
            _write_json(folder / "config.json", config)
            _copy_record(source, folder)
        return
    index = read_index(source)
    with replacing(to, source, _is_checkpoint) as folder:
        _write_json(folder / "model_index.json", index)
        for name in components(index):
            _copy_component(source / name, folder / name, dtype)
        _copy_record(source, folder)


def space(source: Path, to: Path) -> None:
    """Write the folder of a Space that runs by itself: its own files, and those that all Spaces share.

    Raises:
        UsageError: `source` is no Space, or `to` holds something else.
    """
    missing = [name for name in ("app.py", "README.md", "requirements.txt") if not (source / name).is_file()]
    if missing:
        raise UsageError(f"--space {source}: not a Space; there is no {missing[0]} in it")
    with replacing(to, source, _is_space) as folder:
        (folder / "kit").mkdir()
        for place, files in ((folder, _files(source)), (folder / "kit", _files(ROOT / "spaces" / "kit"))):
            for file in files:
                shutil.copyfile(file, place / file.name)
        if source.name == "gallery":
            _add_pages(folder)


def _add_pages(folder: Path) -> None:
    """What the gallery shows: the other Spaces as modules, the records and pictures of all checkpoints, their tables.

    Raises:
        UsageError: two Spaces have a module of one name.
    """
    apps = {file.parent.name: file for file in sorted(ROOT.glob("spaces/*/app.py")) if file.parent.name != "gallery"}
    for name, app in apps.items():
        for module in (app, *(file for file in sorted(app.parent.glob("*.py")) if file != app)):
            called = f"{name}.py" if module == app else module.name
            if (folder / called).exists() or (folder / Path(called).stem).exists():
                raise UsageError(f"{module}: the gallery holds all Spaces, and another has a module {called}")
            shutil.copyfile(module, folder / called)
    (folder / "pages.json").write_text(json.dumps(list(apps)) + "\n", encoding="utf-8")
    (folder / "records").mkdir()
    rows = []
    for record in sorted(ROOT.glob("checkpoints/*/run.json")):
        place = folder / "records" / record.parent.name
        place.mkdir()
        _copy_record(record.parent, place)
        run = json.loads(record.read_text())
        rows.append([place.name, run["dataset"]["id"], f"{run['parameters'] / 1e6:.2f} M"])
    tables = [{"title": "All models", "columns": ["model", "data", "parameters"], "rows": rows}]
    (folder / "tables.json").write_text(json.dumps(tables) + "\n", encoding="utf-8")


def _files(folder: Path) -> list[Path]:
    """What belongs to a Space; gradio leaves .pyi files beside modules that define components."""
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".") and p.suffix != ".pyi")


# Reading


def is_language(source: Path) -> bool:
    """Whether a folder is laid out as transformers does it, not as diffusers does."""
    return (source / "config.json").is_file() and not (source / "model_index.json").is_file()


def read_config(source: Path) -> dict:
    """The config of a language model, as a run has it: its pipeline by the module's name here, no places."""
    file = source / "config.json"
    try:
        config = json.loads(file.read_text())
        tasks = config["custom_pipelines"]
        for task in tasks.values():
            class_name = task["impl"].split(".")[-1]
            task["impl"] = f"{_defining('pipeline', class_name).stem}.{class_name}"
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{file}: is cut short, or not of a run of this project") from None
    missing = [name for name in LANGUAGE_FILES if name != "generation_config.json" and not (source / name).is_file()]
    if missing:
        raise UsageError(f"{source}: not a finished run or checkpoint; there is no {missing[0]} in it")
    return {k: v for k, v in config.items() if k != "_name_or_path"}


def read_index(source: Path) -> dict:
    """The index of a pipeline, as a run has it: our classes by their modules here, no places, nothing derived."""
    file = source / "model_index.json"
    if not file.is_file():
        state = "it is an unfinished run" if (source / "run.json").is_file() else "there is no model_index.json in it"
        raise UsageError(f"{source}: not a finished run or checkpoint; {state}")
    try:
        index = json.loads(file.read_text())
        class_name = index["_class_name"]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{file}: is cut short, or no pipeline's index") from None
    missing = [name for name in components(index) if not (source / name).is_dir()]
    if missing:
        raise UsageError(f"{source}: its component {missing[0]} is missing")
    # a portable folder, or a pipeline that was loaded from one and saved again, names modules of its own: as a run's
    # index names them, both are built anew from this project's code
    index = {k: v for k, v in index.items() if k not in ("_name_or_path", "auto_map")}
    for name, (library, part) in components(index).items():
        if not is_library(library):
            module = _defining("modeling", part).relative_to(ROOT).with_suffix("")
            index[name] = [".".join(module.parts), part]
    return {**index, "_class_name": class_name[1] if isinstance(class_name, list) else class_name}


def components(index: dict) -> dict[str, list[str]]:
    return {k: v for k, v in index.items() if isinstance(v, list) and not k.startswith("_") and v[0] is not None}


def is_library(library: str) -> bool:
    """Whether a component's class is diffusers' or transformers' own; ours are named by their module, here, in a
    portable folder, or as diffusers imported them from one."""
    return library.split(".")[0] in ("diffusers", "transformers")


def _defining(kind: str, class_name: str) -> Path:
    """The file pipelines/*/<kind>_*.py that defines a class."""
    for file in sorted(ROOT.glob(f"pipelines/*/{kind}_*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.ClassDef) and node.name == class_name for node in tree.body):
            return file
    raise UsageError(f"{class_name}: no file pipelines/*/{kind}_*.py defines it")


# Writing


def _is_portable(folder: Path) -> bool:
    return bool(re.search("_[0-9a-f]{6}$", _module(folder) or ""))


def _is_checkpoint(folder: Path) -> bool:
    return _module(folder) is not None and not _is_portable(folder) and (folder / "run.json").is_file()


def _is_space(folder: Path) -> bool:
    has_kit = (folder / "kit" / "theme.py").is_file() or (folder / "kit.py").is_file()  # the second in older builds
    return has_kit and all((folder / name).is_file() for name in ("app.py", "README.md"))


def _module(folder: Path) -> str | None:
    """The module that a folder's index or config names for its pipeline, "" where it names a class alone.

    None where the folder holds no pipeline, or is a run.
    """
    if (folder / "checkpoints").exists() or (folder / "log.jsonl").exists():
        return None
    try:
        if is_language(folder):
            task = next(iter(json.loads((folder / "config.json").read_text())["custom_pipelines"].values()))
            return task["impl"].split(".")[0]
        class_name = json.loads((folder / "model_index.json").read_text())["_class_name"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return None
    return class_name[0] if isinstance(class_name, list) else ""


class replacing:
    """A folder that takes the place of `to` when the block ends well, and leaves `to` as it was when it does not.

    Only an empty folder is replaced, or one that the same call made before, which `ours` can tell.
    """

    def __init__(self, to: Path, source: Path, ours: Callable[[Path], bool]):
        self.to = to
        if to.exists():
            free = to.is_dir() and (not any(to.iterdir()) or ours(to))
            if to.resolve() == source.resolve() or not free:
                raise UsageError(f"{to}: holds something else; give a new folder, or one that was built before")

    def __enter__(self) -> Path:
        try:
            self.to.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=f".{self.to.name}.", dir=self.to.parent))
        except OSError as error:
            raise UsageError(f"{self.to}: cannot be written ({error})") from None
        self.folder.chmod(0o755)
        return self.folder

    def __exit__(self, kind, error, trace) -> None:
        if error is None:
            shutil.rmtree(self.to, ignore_errors=True)
            os.replace(self.folder, self.to)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if isinstance(error, OSError | SafetensorError):
            raise UsageError(f"{self.to}: cannot be written ({error})") from None


def _add_code(file: Path, folder: Path) -> str:
    """Copy a module under a name that carries its hash; returns that name."""
    content = file.read_bytes()
    module = f"{file.stem}_{hashlib.sha256(content).hexdigest()[:6]}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_bytes(content)
    return module


def _copy_component(source: Path, to: Path, dtype: str | None = None) -> None:
    """Configs and safetensors; nothing else that may lie there."""
    to.mkdir(parents=True, exist_ok=True)
    _copy_files(sorted(source.iterdir()), to, dtype)


def _copy_files(files: list[Path], to: Path, dtype: str | None = None) -> None:
    for file in files:
        if file.suffix == ".safetensors" and dtype is not None:
            _cast(file, to / file.name, dtype)
        elif file.suffix == ".json":
            config = json.loads(file.read_text())
            config.pop("_name_or_path", None)
            _write_json(to / file.name, config)
        elif file.suffix in (".safetensors", ".txt", ".model"):
            shutil.copyfile(file, to / file.name)


def _cast(file: Path, to: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    target = getattr(torch, dtype)
    tensors = {k: v.to(target) if v.is_floating_point() else v for k, v in tensors.items()}
    if not all(v.isfinite().all() for v in tensors.values() if v.is_floating_point()):
        raise UsageError(f"--dtype {dtype}: weights of {file} overflow; keep float32")
    save_file(tensors, to, metadata={"format": "pt"})


def _copy_record(source: Path, folder: Path) -> None:
    """run.json without local paths, results.json, pictures."""
    if (source / "run.json").is_file():
        record = json.loads((source / "run.json").read_text())
        record["options"] = {k: v for k, v in record["options"].items() if k not in LOCAL_OPTIONS}
        record["options"] = {k: _public(v) for k, v in record["options"].items()}
        record["dataset"] = {k: _public(v) for k, v in record["dataset"].items()}
        record["command"] = _public_command(record["command"])
        _write_json(folder / "run.json", record)
    for name in ("results.json", *PICTURES):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _public_command(command: str) -> str:
    """The command without options that name local places."""
    words, kept = shlex.split(command), []
    while words:
        word = words.pop(0)
        name, _, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in LOCAL_OPTIONS:
            while not value and words and not words[0].startswith("--"):
                words.pop(0)
        else:
            kept.append(_public(word))
    return shlex.join(kept)


def _public(value):
    """A path of the machine that a run was made on, cut to its last part; anything else as it is."""
    if isinstance(value, str) and (value.startswith(("/", "./", "../", "~")) or re.match(r"[A-Za-z]:\\", value)):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value


def _write_json(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    parser = LineParser(prog="python -m training.publish", description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, nargs="?", help="a finished run, a checkpoint, or a saved pipeline")
    parser.add_argument("--space", type=Path, help="publish this Space, a folder under spaces/, instead of a model")
    parser.add_argument(
        "--all", action="store_true", help="publish every checkpoint and Space, and a collection of them"
    )
    parser.add_argument("--verify", help="say whether the code in this folder or repository is this project's")
    parser.add_argument("--to", type=Path, help="write the portable folder, or the Space, here")
    parser.add_argument("--checkpoint", type=Path, help="write the checkpoint here: weights and record, no code")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="of the weights, with --checkpoint")
    parser.add_argument(
        "--repo_id", help="upload to this repository of the Hub, user/name; created where it is not there"
    )
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", help="the branch to upload to, instead of main")
    parser.add_argument("--model_id", help="the models of an uploaded Space, separated by commas: its MODEL_ID")
    parser.add_argument("--namespace", help="the user or organisation that --all publishes for")
    options = parser.parse_args(argv)
    if sum([options.source is not None, options.space is not None, options.all, options.verify is not None]) != 1:
        raise UsageError(
            "give a run or a checkpoint, or --space with the folder of a Space, --all or --verify; one of them"
        )
    if options.verify is not None:
        return _say_verified(options.verify)
    if options.all:
        return _publish_all(options)
    if sum([options.to is not None, options.checkpoint is not None, options.repo_id is not None]) != 1:
        raise UsageError("give --to with a folder, --checkpoint with a folder, or --repo_id; one of the three")
    if options.space and options.checkpoint:
        raise UsageError(f"--checkpoint {options.checkpoint}: a Space has no weights; give --to")
    if options.dtype and not options.checkpoint:
        raise UsageError(
            f"--dtype {options.dtype}: goes with --checkpoint; otherwise the weights are copied as they are"
        )
    for name in ("private", "revision", "model_id"):
        if getattr(options, name) and not options.repo_id:
            raise UsageError(f"--{name}: goes with --repo_id")
    if options.model_id and not options.space:
        raise UsageError(f"--model_id {options.model_id}: goes with --space")
    if options.repo_id:
        print(publish(options.source or options.space, options.repo_id, options.space is not None, options.model_id,
                      options.private, options.revision))  # fmt: skip
        return
    if options.space:
        space(options.space, options.to)
    elif options.checkpoint:
        checkpoint(options.source, options.checkpoint, options.dtype)
    else:
        build(options.source, options.to)
    print(options.checkpoint or options.to)


def publish(
    source: Path,
    repo_id: str,
    is_space: bool = False,
    model_id: str | None = None,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Build and upload a model, or a Space; returns its address.

    Raises:
        UsageError: as of `build`, `space` and `hub.upload`.
    """
    check_repo_id(repo_id)
    for name in model_id.split(",") if model_id else ():
        check_repo_id(name.partition("@")[0], "--model_id")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / repo_id.split("/")[1]
        if is_space:
            space(source, folder)
            return upload(folder, repo_id, "space", private, revision, {"MODEL_ID": model_id} if model_id else None)
        build(source, folder, repo_id)
        return upload(folder, repo_id, "model", private, revision)


def _publish_all(options) -> None:
    """Every checkpoint as a model, every Space with the models that are its own, and a collection."""
    from tqdm.auto import tqdm

    if not options.namespace:
        raise UsageError("--all: needs --namespace, the user or organisation to publish for")
    names = sorted(record.parent.name for record in ROOT.glob("checkpoints/*/run.json"))
    models = ",".join(f"{options.namespace}/{name}" for name in names)
    jobs = [(ROOT / "checkpoints" / name, f"{options.namespace}/{name}", False) for name in names]
    jobs += [
        (app.parent, f"{options.namespace}/{app.parent.name}", True) for app in sorted(ROOT.glob("spaces/*/app.py"))
    ]
    for source, repo_id, is_space in (bar := tqdm(jobs, unit="repository")):
        bar.set_description(repo_id)
        publish(source, repo_id, is_space, models if is_space else None, options.private)
    print(collect(options.namespace, [(repo_id, "space" if is_space else "model") for _, repo_id, is_space in jobs]))


def _say_verified(source: str) -> None:
    good, lines = verify(source)
    print("\n".join(lines))
    print(f"{source}: " + ("this project's code, no pickle" if good else "NOT as published by this project"))
    if not good:
        raise SystemExit(1)


if __name__ == "__main__":
    command_line(main)
