"""The build step: from a run or a checkpoint to a folder that `from_pretrained` loads where nothing of ours is.

    python -m training.publish runs/vae-mnist --to build/vae-mnist              # a portable folder
    python -m training.publish runs/vae-mnist --checkpoint checkpoints/vae-mnist --dtype float16
    python -m training.publish --space spaces/vae --to build/space                # a Space that runs by itself
    python -m training.publish --space spaces/gallery --to build/gallery          # all Spaces, as pages of one
    python -m training.publish checkpoints/vae-mnist --repo_id user/vae-mnist     # build and upload
    python -m training.publish --space spaces/vae --repo_id user/vae --model_id user/vae-mnist,user/cvae-mnist
    python -m training.publish --all --namespace user
    python -m training.publish --verify user/vae-mnist
    python -m training.publish --cache .cache                                     # what `make demo` serves, up to date

A portable folder holds the weights as safetensors, the code that they need and an index that names it: diffusers'
`model_index.json`, or of a language model transformers' `config.json` with its `custom_pipelines`. Code files
carry a hash of their content in their names (`modeling_vae_3f2a9c.py`): diffusers puts all remote code into one
folder by file name, and two repositories with files of one name would run each other's code. The build reads files
and writes files, nothing else: the same inputs give the same bytes.

A checkpoint is a run without code, optimizer state and local paths: what this repository keeps. A Space is its own
folder and `kit/`, the package that all Spaces share; the gallery holds the other Spaces' modules beside its own.
"""

import sys
import tempfile
from pathlib import Path

from training.options import LineParser, UsageError, check_repo_id, command_line
from training.publishing.build import build, checkpoint
from training.publishing.cache import refresh, sentence
from training.publishing.hub import Uploaded, make_collection, upload
from training.publishing.spaces import models_for, space
from training.publishing.verify import verify

ROOT = Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> None:
    parser = LineParser(prog="python -m training.publish", description=__doc__)
    parser.add_argument(
        "source", type=Path, nargs="?", help="the model to publish: a finished run, a checkpoint or a saved pipeline"
    )
    parser.add_argument("--space", type=Path, help="publish this Space, a folder under spaces/, instead of a model")
    parser.add_argument(
        "--all", action="store_true", help="publish every checkpoint and Space, and a collection of them"
    )
    parser.add_argument("--verify", help="say whether the code in this folder or repository is this project's")
    parser.add_argument("--cache", type=Path, help="bring the portable folders of all checkpoints and the gallery in this "
                        "folder up to date")  # fmt: skip
    parser.add_argument("--to", type=Path, help="write the portable folder, or the Space, here")
    parser.add_argument("--checkpoint", type=Path, help="write the checkpoint here: weights and record, no code")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="number format that the weights are cast to, with --checkpoint",
    )
    parser.add_argument(
        "--repo_id", help="upload to this repository of the Hub, user/name; created where it is not there"
    )
    parser.add_argument("--private", action="store_true", help="make a new repository a private one")
    parser.add_argument("--revision", help="branch of the repository to upload to, instead of main")
    parser.add_argument("--model_id", help="models that an uploaded Space shows (its MODEL_ID), separated by commas")
    parser.add_argument("--namespace", help="user or organisation that --all publishes for")
    options = parser.parse_args(argv)
    given = [options.source, options.space, options.all or None, options.verify, options.cache]
    if sum(one is not None for one in given) != 1:
        raise UsageError(
            "give a run or a checkpoint, or --space with the folder of a Space, --all, --verify or --cache; one of them"
        )
    if options.verify is not None:
        return _say_verified(options.verify)
    if options.cache is not None:
        return print(f"{options.cache}: {sentence(refresh(ROOT / 'checkpoints', options.cache))}")
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
        done = publish(options.source or options.space, options.repo_id, options.space is not None, options.model_id,
                       options.private, options.revision)  # fmt: skip
        print(done.address)
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
) -> Uploaded:
    """Build and upload a model, or a Space.

    Raises:
        UsageError: as of `build`, `space` and `hub.upload`.
    """
    check_repo_id(repo_id)
    for name in model_id.split(",") if model_id else ():
        check_repo_id(name.partition("@")[0], "--model_id")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / repo_id.split("/")[1]
        if is_space:
            space(source, folder, [name.partition("@")[0] for name in model_id.split(",")] if model_id else [])
            return upload(folder, repo_id, "space", private, revision, {"MODEL_ID": model_id} if model_id else None)
        build(source, folder, repo_id)
        return upload(folder, repo_id, "model", private, revision)


def _publish_all(options) -> None:
    """Every checkpoint as a model; then every Space with those of them that its pages take, each at the commit that was just
    published; then a collection of all. What is as it was is left alone."""
    from tqdm.auto import tqdm

    if not options.namespace:
        raise UsageError("--all: needs --namespace, the user or organisation to publish for")
    checkpoints = sorted(record.parent for record in ROOT.glob("checkpoints/*/run.json"))
    apps = sorted(ROOT.glob("spaces/*/app.py"))
    pinned: dict[Path, str] = {}
    with tqdm(total=len(checkpoints) + len(apps), unit="repository") as bar:

        def one(source: Path, models: list[Path] | None = None) -> str:
            repo_id = f"{options.namespace}/{source.name}"
            bar.set_description(repo_id)
            shown = None if models is None else ",".join(pinned[model] for model in models)
            done = publish(source, repo_id, models is not None, shown, options.private)
            bar.write(f"{repo_id}: {'published' if done.changed else 'as it was'}", file=sys.stderr)
            bar.update()
            return f"{repo_id}@{done.revision}"

        for checkpoint_folder in checkpoints:
            pinned[checkpoint_folder] = one(checkpoint_folder)
        for app in apps:
            one(app.parent, models_for(app.parent, checkpoints))
    items = [(f"{options.namespace}/{folder.name}", "model") for folder in checkpoints]
    items += [(f"{options.namespace}/{app.parent.name}", "space") for app in apps]
    print(make_collection(options.namespace, items))


def _say_verified(source: str) -> None:
    good, lines = verify(source)
    print("\n".join(lines))
    print(f"{source}: " + ("this project's code, no pickle" if good else "NOT as published by this project"))
    if not good:
        raise SystemExit(1)


if __name__ == "__main__":
    command_line(main)
