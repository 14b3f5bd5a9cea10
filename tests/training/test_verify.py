"""--verify's three answers: this project's code, an older build of it by the commit that its card records, foreign."""

import shutil
import subprocess

import pytest

from tests.conftest import ROOT
from training.publishing import build, code, commit
from training.publishing.code import hashed_name
from training.publishing.verify import verify

PART = "pipelines/contract.py"  # compiled into every pipeline of images, into no network


def git(folder, *words: str) -> str:
    names = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *names, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A repository of this project's code, with one commit, that the build and --verify take for their own."""
    folder = tmp_path / "tree"
    for name in ("pipelines", "spaces"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyi"))
    git(tmp_path, "init", "--quiet", str(folder))
    commit_all(folder)
    monkeypatch.setattr(code, "ROOT", folder)
    yield folder
    commit._commit_of.cache_clear()


def commit_all(folder) -> str:
    """Commits all of it; the commit."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A step")
    commit._commit_of.cache_clear()
    return git(folder, "rev-parse", "HEAD")


def change(file) -> None:
    file.write_text(file.read_text() + "\n\nLATER = True\n")
    commit._commit_of.cache_clear()  # a process looks once


def verdicts(folder) -> tuple[bool, dict[str, str]]:
    """The answer, and what is said of each code file, by its name without hash."""
    good, lines = verify(str(folder))
    rows = [line.split(": ", 1) for line in lines if ".py: " in line]
    return good, {name.split()[-1].split("/")[-1][: -len("_123456.py")]: words for name, words in rows}


def test_code_of_today_of_an_older_commit_and_of_none(tree, tiny_run, tmp_path):
    first = git(tree, "rev-parse", "HEAD")
    build.build(tiny_run, tmp_path / "built")
    ours = {"pipeline_vae": "this project's code", "modeling_vae": "this project's code"}
    assert verdicts(tmp_path / "built") == (True, ours)
    assert commit.commit_on_card((tmp_path / "built" / "README.md").read_text()) == first

    change(tree / PART)  # what is not committed yet is today's code all the same
    older = f"an older build of this project's code, of commit {first[:10]}, {commit.date_of(first)}"
    assert verdicts(tmp_path / "built") == (True, {**ours, "pipeline_vae": older})
    build.build(tiny_run, tmp_path / "uncommitted")
    assert verdicts(tmp_path / "uncommitted") == (True, ours)
    assert commit.commit_on_card((tmp_path / "uncommitted" / "README.md").read_text()) is None

    commit_all(tree)
    assert verdicts(tmp_path / "built") == (True, {**ours, "pipeline_vae": older})

    # what was never committed as it was built is lost once the tree goes on; a network's file lies in git as it is built
    change(tree / PART)
    change(tree / "pipelines" / "autoencoders" / "modeling_vae.py")
    good, words = verdicts(tmp_path / "uncommitted")
    assert not good and words["pipeline_vae"].startswith("foreign: not this project's code at any commit it names; SHA")
    assert words["modeling_vae"].startswith("an older build of this project's code, of commit")


def test_a_card_that_names_another_commit_makes_no_code_ours(tree, tiny_run, tmp_path):
    first = git(tree, "rev-parse", "HEAD")
    build.build(tiny_run, tmp_path / "built")
    (file,) = (tmp_path / "built").glob("pipeline_*.py")
    content = file.read_bytes() + b"\nimport os\n"
    file.unlink()
    (tmp_path / "built" / f"{hashed_name('pipeline_vae', content)}.py").write_bytes(content)  # a name that is honest
    good, words = verdicts(tmp_path / "built")
    assert not good and words["pipeline_vae"].startswith("foreign: not this project's code at any commit it names")
    card = tmp_path / "built" / "README.md"
    for other in ("0" * 40, first[:12]):
        card.write_text(card.read_text().replace(first, other))
        assert not verdicts(tmp_path / "built")[0]


def test_without_git_today_s_code_is_still_told(tree, tiny_run, tmp_path, monkeypatch):
    build.build(tiny_run, tmp_path / "built")
    monkeypatch.setattr(commit.shutil, "which", lambda name: None)
    assert verdicts(tmp_path / "built")[0]
    change(tree / PART)
    good, words = verdicts(tmp_path / "built")
    assert not good and words["modeling_vae"] == "this project's code" and words["pipeline_vae"].startswith("foreign")
