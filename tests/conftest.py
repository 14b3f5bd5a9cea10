"""What several tests share: how commands are run, tiny trained runs and portable folders, made once a session.

`make test` runs the suite in several processes, each with one thread. A file's tests run in one of them, one after another,
since they share what their file makes; what several files share is made once for all processes, see `shared`.
"""

import contextlib
import hashlib
import io
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from training.files import locked

ROOT = Path(__file__).resolve().parents[1]

# no test may reach the network, and each process keeps remote code and decoded data in a folder of its own; set before any
# Hugging Face library is imported
HOME = Path(tempfile.gettempdir()) / f"genus-tests-{os.getpid()}"
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", GRADIO_ANALYTICS_ENABLED="False", HF_HOME=str(HOME))
# tests are small: more threads take turns and win nothing; set before torch is imported, and for all processes of tests
os.environ.setdefault("OMP_NUM_THREADS", "1")

# where several processes share the work, the files that take longest come first
LONGEST = ("test_docs.py", "test_made_up", "spaces/", "training/test_hub.py", "training/", "test_")


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):  # of one process of several
        names = {item: item.path.relative_to(ROOT / "tests").as_posix() for item in items}
        items.sort(key=lambda item: next((i for i, w in enumerate(LONGEST) if names[item].startswith(w)), len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def own_caches():
    HOME.mkdir(exist_ok=True)
    yield
    shutil.rmtree(HOME, ignore_errors=True)


def run_module(module: str, *words: str, env: dict | None = None, timeout: int = 900) -> subprocess.CompletedProcess:
    """`python -m module words...` from the root, as a user types it."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def run_here(module: str, *words: str) -> subprocess.CompletedProcess:
    """The same in this process, which has imported torch already; of each command some test runs a process of its own."""
    words = [module, *map(str, words)]
    out, err, before, code = io.StringIO(), io.StringIO(), sys.argv, 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(ROOT):
        sys.argv = words
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")  # it is imported already
                runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            code = ended.code or 0
        except Exception:
            traceback.print_exc()
            code = 1
        finally:
            sys.argv = before
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


TINY = ("--max_steps", "12", "--width", "32", "--latent_dim", "4", "--batch_size", "64", "--log_every", "4",
        "--save_every", "4", "--eval_every", "4", "--sample_every", "12", "--lr_warmup_steps", "2")  # fmt: skip


@pytest.fixture(scope="session")
def shared(request, tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """shared(name, make): a copy of the folder that `make` writes, which is called once for all processes of a session."""
    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        base = base.parent  # that of all processes
    base = base / "shared"
    base.mkdir(exist_ok=True)

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        with locked(base / f"{name}.lock"):
            if not (base / f"{name}.made").exists():
                shutil.rmtree(base / name, ignore_errors=True)
                make(base / name)
                (base / f"{name}.made").touch()
        own = tmp_path_factory.mktemp("shared") / name
        shutil.copytree(base / name, own)
        return own

    return folder


@pytest.fixture(scope="session")
def tiny_run(shared) -> Path:
    """A finished run of twelve steps on the digits."""

    def make(folder: Path) -> None:
        done = run_module("training.autoencoders.vae", "--output_dir", folder, *TINY)
        assert done.returncode == 0, done.stderr

    return shared("tiny-run", make)


@pytest.fixture(scope="session")
def portable(tiny_run, shared) -> Path:
    """The portable folder of the tiny run."""

    def make(folder: Path) -> None:
        done = run_module("training.publish", tiny_run, "--to", folder)
        assert done.returncode == 0, done.stderr

    return shared("tiny", make)


@pytest.fixture(scope="session")
def bare_python():
    """The python of an environment that holds what a pushed Space asks for, torch and diffusers among it, and no more.

    It is kept in .cache/ until the requirements change.
    """
    requirements = ROOT / "spaces" / "vae" / "requirements.txt"
    mark = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    place = ROOT / ".cache" / f"space-{mark}"
    python = place / "bin" / "python"
    place.parent.mkdir(exist_ok=True)
    with locked(place.parent / "space.lock"):
        if not (place / "complete").exists():
            for old in (ROOT / ".cache").glob("space-*"):
                shutil.rmtree(old)
            subprocess.run([sys.executable, "-m", "venv", place], check=True)
            install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
            done = subprocess.run(install, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            (place / "complete").touch()
    return str(python)
