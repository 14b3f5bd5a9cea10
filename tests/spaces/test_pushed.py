"""A Space as it is pushed: its folder alone, in an environment that holds what its requirements.txt asks for."""

import pytest

from tests.conftest import ROOT
from tests.spaces.conftest import serving

pytestmark = pytest.mark.browser


def test_a_pushed_space_runs_by_itself(bare_python, portable, tmp_path):
    from gradio_client import Client

    # PYTHONPATH empty and the folder its own: nothing of this repository can be imported
    with serving("vae", tmp_path / "space", str(portable), bare_python, PYTHONPATH="") as url:
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
