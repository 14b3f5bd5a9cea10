"""Families that do not exist move in: their own files are all that they need.

Each is written into a copy of the tree, trained for a few steps, kept as a checkpoint, evaluated, published, loaded in a
bare process, and found in the tables and on the gallery's front page. In that copy git then names the new files and
the table that was made anew, and no other.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.training.test_publish import alone

MADE_UP = ROOT / "tests" / "made_up"
QUICK = [
    "--max_steps",
    "8",
    "--lr_warmup_steps",
    "1",
    "--log_every",
    "4",
    "--eval_every",
    "4",
    "--save_every",
    "4",
    "--sample_every",
    "8",
]
COMMANDS = """
    import importlib, sys
    for line in sys.argv[1:]:
        module, *words = line.split()
        importlib.import_module(module).main(words)
"""


def git(place: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def house(tmp_path) -> Path:
    """A copy of the tree as it lies here, committed to a repository of its own."""
    place = tmp_path / "house"
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, place / name)
    git(place, "init", "-q")
    git(place, "add", "-A")
    git(place, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "the house")
    return place


def move_in(house: Path, family: str) -> set[str]:
    """Copy the made-up family's files to their places; returns these."""
    files = {p.relative_to(MADE_UP / family).as_posix() for p in (MADE_UP / family).rglob("*") if p.is_file()}
    for name in files:
        place = house / name
        assert not place.exists()
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(MADE_UP / family / name, place)
    return files


def run(house: Path, training: str, *lines: str) -> None:
    """`python -m training...`, and then commands `module word word ...` in one process, as a user types them there."""
    code = "\n".join(line.removeprefix("    ") for line in COMMANDS.splitlines())
    for words in (["-m", *training.split()], ["-c", code, *lines]):
        done = subprocess.run([sys.executable, *words], cwd=house, capture_output=True, text=True, timeout=900,
                              env={**os.environ, "PYTHONPATH": str(house)})  # fmt: skip
        assert done.returncode == 0, done.stderr


def changed(house: Path) -> tuple[set[str], set[str]]:
    """What git calls new, and what it calls modified."""
    lines = git(house, "status", "--porcelain", "--untracked-files=all").splitlines()
    assert {line[:2] for line in lines} <= {"??", " M"}
    return tuple({line[3:] for line in lines if line[:2] == kind} for kind in ("??", " M"))


def front_page(house: Path, model: Path) -> str:
    """The gallery's pages as the browser is told of them, with this one model."""
    code = "import json, app; print(json.dumps(app.demo.get_config_file(), default=str))"
    done = subprocess.run([sys.executable, "-c", code], cwd=house / "build" / "gallery", capture_output=True, text=True,
                          env={**os.environ, "MODEL_ID": str(model), "PYTHONPATH": "."})  # fmt: skip
    assert done.returncode == 0, done.stderr
    components = json.loads(done.stdout)["components"]
    tree = next(c["props"]["value"] for c in components if c["props"].get("elem_id") == "tree")
    return f"{tree} {json.dumps(components)}"


def test_a_family_of_images_moves_in(house, tmp_path):
    files = move_in(house, "stripes")
    run(
        house,
        f"training.guessing.stripes --config training/guessing/stripes-digits.yaml {' '.join(QUICK)}",
        "training.publish runs/stripes-digits --checkpoint checkpoints/stripes-digits --dtype float16",
        "training.evaluate checkpoints/stripes-digits",
        "training.publish checkpoints/stripes-digits --to build/stripes-digits",
        "training.publish --verify build/stripes-digits",
        "training.publish --space spaces/gallery --to build/gallery",
        "training.leaderboard",
    )
    code = """
        import sys
        from diffusers import DiffusionPipeline
        pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
        images = pipe(batch_size=3, output_type="pt").images
        assert images.shape == (3, 1, 8, 8) and pipe.log_prob((images > 0.5).float()).shape == (3,)
        assert pipe.calls == {"sample", "log_prob", "elbo"}
    """
    alone(code, house / "build" / "stripes-digits", home=tmp_path / "home")
    card = (house / "build" / "stripes-digits" / "README.md").read_text()
    assert "pipe(batch_size=16).images" in card and "-log p(x), nats per image" in card

    results = json.loads((house / "checkpoints" / "stripes-digits" / "results.json").read_text())
    assert results["likelihood"] == "exact" and results["nats"] > 0 and "nats" in results["figures_on_kept_rows"]
    assert re.search(r"\| `stripes-digits` \| scikit-learn digits \|", (house / "docs" / "measured.md").read_text())
    page = front_page(house, house / "build" / "stripes-digits")
    assert "Made-up stripes" in page and "stripes-digits" in page

    kept = {
        p.relative_to(house).as_posix() for p in (house / "checkpoints" / "stripes-digits").rglob("*") if p.is_file()
    }
    new, modified = changed(house)
    assert new == files | kept and modified == {"docs/measured.md"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_contract.py",
                           "tests/test_house.py", "tests/pipelines/test_stripes.py", "tests/test_checkpoints.py", "-k",
                           "stripes or house"], cwd=house, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20


def test_a_family_of_language_with_pairs_moves_in(house, tmp_path):
    files = move_in(house, "preference")
    run(
        house,
        f"training.ranking.preference --config training/ranking/preference-counts.yaml {' '.join(QUICK)}",
        "training.publish runs/preference-counts --checkpoint checkpoints/preference-counts",
        "training.evaluate checkpoints/preference-counts",
        "training.publish checkpoints/preference-counts --to build/preference-counts",
        "training.publish --verify build/preference-counts",
        "training.publish --space spaces/gallery --to build/gallery",
        "training.leaderboard",
    )
    code = """
        import sys
        from transformers import pipeline
        pipe = pipeline(model=sys.argv[1], trust_remote_code=True)
        assert len(pipe.reward(["one two", "two one"])) == 2 and "reward" in pipe.calls
    """
    alone(code, house / "build" / "preference-counts", home=tmp_path / "home")
    card = (house / "build" / "preference-counts" / "README.md").read_text()
    assert "AutoModelForSequenceClassification" in card and "pipe.reward(" in card and "share of pairs" in card

    results = json.loads((house / "checkpoints" / "preference-counts" / "results.json").read_text())
    assert 0 <= results["pair_accuracy"] <= 1
    table = (house / "docs" / "measured.md").read_text().split("### Preferences")[1]
    assert "| pairs in order |" in table and "| `preference-counts` | counted words |" in table
    page = front_page(house, house / "build" / "preference-counts")
    assert "Made-up preferences" in page and "preference-counts" in page

    kept = {
        p.relative_to(house).as_posix() for p in (house / "checkpoints" / "preference-counts").rglob("*") if p.is_file()
    }
    new, modified = changed(house)
    assert new == files | kept and modified == {"docs/measured.md"}
