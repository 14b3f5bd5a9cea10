"""Loading a model as it is published: built first where it carries no code, and verified where it does."""

import tempfile
from pathlib import Path

from training.folders import WITH_CODE, local_folder
from training.layouts.choice import layout_of
from training.options import UsageError
from training.publishing.build import build
from training.publishing.record import read_run
from training.publishing.verify import verify_folder


def load(source: str, device: str = "cpu", trust: bool = False):
    """The pipeline of a run, a checkpoint, a portable folder or a repository; the code is the one it carries.

    A run or a checkpoint carries none: it is built first, so that what is measured is what is published. Code that a folder
    or a repository carries is run where it is this project's, as --verify tells, or where `trust` says so; what was looked
    at is what is loaded.

    Raises:
        UsageError: it is none of these, carries foreign code, or cannot be loaded.
    """
    folder = model_folder(source, trust)
    layout = layout_of(folder)
    with tempfile.TemporaryDirectory() as temporary:
        if not layout.pipeline_module(folder):
            build(folder, Path(temporary) / "model", is_loaded=False)
            folder = Path(temporary) / "model"
        elif not trust:
            good, lines = verify_folder(folder)
            if not good:
                worst = next(line for line in lines if line.startswith("BAD"))
                raise UsageError(
                    f"{source}: carries code that is not known to be this project's ({worst[:300]}); look at all of it by "
                    f"python -m training.publish --verify {source}, or run it by --trust_remote_code true"
                )
        try:
            return layout.load(folder, device)
        except UsageError as error:
            raise UsageError(str(error).replace(str(folder), source)) from None


def model_folder(source: str, trust: bool = False) -> Path:
    """The folder of a model, fetched where it is on the Hub: what may be verified, or all of it where it is trusted.

    Raises:
        UsageError: there is none.
    """
    return local_folder(source, only=("*",) if trust else WITH_CODE)


def record_of(source: str) -> dict:
    """The run.json of a run, a checkpoint, a portable folder or a repository; {} where it has none.

    Raises:
        UsageError: it is damaged.
    """
    return read_run(local_folder(source))
