"""A Space as it is pushed: its folder alone, in an environment that holds what its requirements.txt asks for."""

import hashlib
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.spaces.conftest import serving

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def environment():
    """The python of an environment of its own, kept in .cache/ until the requirements change."""
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


def test_a_pushed_space_runs_by_itself(environment, portable, tmp_path):
    from gradio_client import Client

    # PYTHONPATH empty and the folder its own: nothing of this repository can be imported
    with serving("vae", tmp_path / "space", str(portable), environment, PYTHONPATH="") as url:
        client = Client(url, verbose=False)
        _, seed = client.predict("tiny", "any", 4, 1.0, "sample", 3, False, api_name="/vae_sample")
        assert seed == 3


def test_all_spaces_ask_for_the_pinned_versions():
    pins = set((ROOT / "requirements.txt").read_text().splitlines())
    for file in ROOT.glob("spaces/*/requirements.txt"):
        assert set(file.read_text().split()) <= pins, file
    gradio = next(pin.split("==")[1] for pin in pins if pin.startswith("gradio=="))
    for file in ROOT.glob("spaces/*/README.md"):
        assert f"\nsdk_version: {gradio}\n" in file.read_text(), file
