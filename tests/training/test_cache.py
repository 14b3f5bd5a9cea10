"""The folders that `make demo` serves: what changed is built anew, nothing else is."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import ROOT
from training.files import locked
from training.options import UsageError
from training.publishing import build, cache, code, spaces
from training.publishing.cache import refresh, sentence

MODELS = ["kde-2d", "kmeans-mnist", "vae-digits"]


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """A copy of the repository with three small checkpoints, to be changed."""
    root = tmp_path / "tree"
    for name in ("pipelines", "training", "spaces"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyi"))
    for name in MODELS:
        shutil.copytree(ROOT / "checkpoints" / name, root / "checkpoints" / name)
    for module in (cache, code, spaces):
        monkeypatch.setattr(module, "ROOT", root)
    return root


def refreshed(tree: Path) -> list[str]:
    return refresh(tree / "checkpoints", tree / ".cache")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, file
    file.write_text(text.replace(old, new))


def test_all_is_built_once_as_each_command_builds_it(tree, tmp_path):
    assert refreshed(tree) == [*MODELS, "gallery"]
    for name in MODELS:
        build.build(tree / "checkpoints" / name, tmp_path / "alone" / name)
        assert contents(tree / ".cache" / "portable" / name) == contents(tmp_path / "alone" / name)
    spaces.space(tree / "spaces" / "gallery", tmp_path / "alone" / "gallery")
    assert contents(tree / ".cache" / "gallery") == contents(tmp_path / "alone" / "gallery")
    for file in tree.rglob("*.py"):
        file.touch()  # as a checkout of another branch and back does
    assert refreshed(tree) == []
    shutil.rmtree(tree / ".cache" / "portable" / "kde-2d")
    shutil.rmtree(tree / ".cache" / "gallery")
    assert refreshed(tree) == ["kde-2d", "gallery"] and refreshed(tree) == []
    (tree / ".cache" / "keys.json").write_text("cut")
    assert refreshed(tree) == [*MODELS, "gallery"]


def test_what_depends_on_a_change_is_built_and_nothing_else(tree):
    refreshed(tree)
    for file, old, new, expected in (
        ("pipelines/autoencoders/pipeline_vae.py", "import", "import", []),
        ("pipelines/autoencoders/pipeline_vae.py", 'likelihood = "bound"', 'likelihood = "none"', ["vae-digits"]),
        ("pipelines/classical/modeling_kde.py", "RULES = (", "RULES = (  # once\n    ", ["kde-2d"]),
        ("pipelines/adversarial/pipeline_gan.py", "import torch\n", "import torch  # once\n", []),
        ("pipelines/contract.py", "it must be a tensor", "it has to be a tensor", MODELS),
        ("checkpoints/kde-2d/results.json", '"dataset"', '"dataset" ', ["kde-2d", "gallery"]),
        ("spaces/vae/app.py", "import", "import ", ["gallery"]),
        ("training/publishing/card.py", "import hashlib\n", "import hashlib  # once\n", [*MODELS, "gallery"]),
        ("training/measures/cost.py", "import json\n", "import json  # once\n", [*MODELS, "gallery"]),
        ("training/averages.py", "import", "import ", []),
    ):
        edit(tree / file, old, new)
        assert refreshed(tree) == expected, file
    built = tree / ".cache" / "portable" / "vae-digits"
    module = json.loads((built / "model_index.json").read_text())["_class_name"][0]
    text = (built / f"{module}.py").read_text()
    assert "it has to be a tensor" in text and 'likelihood = "none"' in text
    assert len(list(built.glob("*.py"))) == 1  # the code of before is gone
    new = tree / "checkpoints" / "kde-2d" / "curve.png"  # a new file counts, and one less
    shutil.copyfile(ROOT / "checkpoints" / "kde-2d" / "samples.png", new)
    assert refreshed(tree) == ["kde-2d", "gallery"]
    (tree / "checkpoints" / "kde-2d" / "curve.png").unlink()
    assert refreshed(tree) == ["kde-2d", "gallery"]


def test_the_folder_of_a_removed_checkpoint_goes(tree):
    refreshed(tree)
    shutil.rmtree(tree / "checkpoints" / "kde-2d")
    (tree / ".cache" / "portable" / ".vae-digits.x1y2z3_4").mkdir()  # a build that was killed
    (tree / ".cache" / "portable" / "notes").mkdir()  # not of a build
    assert refreshed(tree) == ["gallery"]
    left = sorted(p.name for p in (tree / ".cache" / "portable").iterdir())
    assert left == ["kmeans-mnist", "notes", "vae-digits"]
    assert "portable/kde-2d" not in json.loads((tree / ".cache" / "keys.json").read_text())
    assert not (tree / ".cache" / "gallery" / "records" / "kde-2d").exists()


def test_what_cannot_be_built_stays_as_it_was_and_holds_up_nothing_else(tree):
    refreshed(tree)
    before = contents(tree / ".cache" / "portable" / "vae-digits")
    weights = tree / "checkpoints" / "vae-digits" / "vae"
    weights.rename(tree / "elsewhere")
    edit(tree / "pipelines" / "classical" / "modeling_kde.py", "RULES = (", "RULES = (  # once\n    ")
    with pytest.raises(UsageError, match=r"vae-digits: its component vae is missing$"):
        refreshed(tree)
    assert contents(tree / ".cache" / "portable" / "vae-digits") == before
    assert "(  # once" in next((tree / ".cache" / "portable" / "kde-2d").rglob("modeling_kde_*.py")).read_text()
    with pytest.raises(UsageError):  # until it is mended
        refreshed(tree)
    (tree / "elsewhere").rename(weights)
    assert refreshed(tree) == []  # it is what it was built of
    edit(tree / "pipelines" / "autoencoders" / "pipeline_vae.py", "class VAEPipeline(", "class VAEPipeline((")
    with pytest.raises(UsageError, match=r"pipeline_vae\.py: line \d+: invalid syntax"):
        refreshed(tree)
    assert contents(tree / ".cache" / "portable" / "vae-digits") == before


def test_a_build_that_fails_is_done_again(tree, monkeypatch):
    refreshed(tree)
    edit(tree / "pipelines" / "autoencoders" / "pipeline_vae.py", 'likelihood = "bound"', 'likelihood = "none"')
    plain = cache.build

    def full(source: Path, to: Path):
        raise UsageError(f"{to}: cannot be written (No space left on device)")

    monkeypatch.setattr(cache, "build", full)
    with pytest.raises(UsageError, match="No space left on device"):
        refreshed(tree)
    monkeypatch.setattr(cache, "build", plain)
    assert refreshed(tree) == ["vae-digits"] and refreshed(tree) == []


def test_the_command_says_what_it_built_and_where_nothing_changed_imports_little(tree):
    words = ["-m", "training.publish", "--cache", ".cache"]

    def told(*flags: str) -> subprocess.CompletedProcess:
        done = subprocess.run([sys.executable, *flags, *words], cwd=tree, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    assert told().stdout == ".cache: built kde-2d, kmeans-mnist, vae-digits, the gallery\n"
    again = told("-X", "importtime")
    assert again.stdout == ".cache: up to date\n"
    imported = {line.split("|")[-1].strip().split(".")[0] for line in again.stderr.splitlines()}
    assert "training" in imported and not imported & {"torch", "huggingface_hub", "diffusers", "transformers", "numpy"}


def test_many_are_counted():
    assert sentence([]) == "up to date" and sentence(["a", "b"]) == "built a, b"
    assert sentence([*"abcde", "gallery"]) == "built 5 models, the gallery"


def test_one_process_at_a_time_is_inside(tmp_path):
    order = []

    def other():
        with locked(tmp_path / "lock"):
            order.append("other")

    with locked(tmp_path / "lock"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join(20)
    assert order == ["first", "other"]
