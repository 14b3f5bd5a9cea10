"""What several tests share: tiny trained runs and portable folders, made once a session."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# no test may reach the network; set before any Hugging Face library is imported
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", GRADIO_ANALYTICS_ENABLED="False")


@pytest.fixture(scope="session", autouse=True)
def own_caches(tmp_path_factory):
    """Remote code and decoded data go to a folder of this session."""
    home = tmp_path_factory.mktemp("hf_home")
    os.environ["HF_HOME"] = str(home)
    return home


def run_module(module: str, *words: str, env: dict | None = None, timeout: int = 300) -> subprocess.CompletedProcess:
    """`python -m module words...` from the root, as a user types it."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


TINY = ("--max_steps", "12", "--width", "32", "--latent_dim", "4", "--batch_size", "64", "--log_every", "4",
        "--save_every", "4", "--eval_every", "4", "--sample_every", "12", "--lr_warmup_steps", "2")  # fmt: skip


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """A finished run of twelve steps on the digits."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    done = run_module("training.autoencoders.vae", "--output_dir", folder, *TINY)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def portable(tiny_run, tmp_path_factory) -> Path:
    """The portable folder of the tiny run."""
    folder = tmp_path_factory.mktemp("portable") / "tiny"
    done = run_module("training.publish", tiny_run, "--to", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def bare_python():
    """The python of an environment that holds what a pushed Space asks for, torch and diffusers among it, and no more.

    It is kept in .cache/ until the requirements change.
    """
    requirements = ROOT / "spaces" / "vae" / "requirements.txt"
    mark = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    place = ROOT / ".cache" / f"space-{mark}"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        for old in (ROOT / ".cache").glob("space-*"):
            shutil.rmtree(old)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
        done = subprocess.run(install, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (place / "complete").touch()
    return str(python)
