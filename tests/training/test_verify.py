"""--verify's three answers: this project's code, an older build of it by the commit that its card records, foreign."""

import shutil
import subprocess

import pytest

from benchmarks.foreign_code import ATTACKS, PLAIN, added, attack, card_line, changed, entry, linked, one_bit
from tests.conftest import ROOT
from training.publishing import build, code, commit
from training.publishing.code import hashed_name
from training.publishing.spaces import space
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

    # what was never committed as it was built is lost once the tree goes on; a file that lies in git as it was published,
    # before parts were compiled in, is found there
    network = tree / "pipelines" / "autoencoders" / "modeling_vae.py"
    (built,) = (tmp_path / "uncommitted" / "vae").glob("modeling_*.py")
    built.unlink()
    (built.parent / f"{hashed_name('modeling_vae', network.read_bytes())}.py").write_bytes(network.read_bytes())
    change(tree / PART)
    change(network)
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


# What a load would run, beside the code itself


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The portable folders that attacks begin with."""
    place = tmp_path_factory.mktemp("portable")
    for name in ATTACKS:
        build.build(ROOT / "checkpoints" / name, place / name)
        good, lines = verify(str(place / name))
        assert good and all(line.startswith("ok ") for line in lines), lines
    return place


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_that_would_run_foreign_code_is_approved(name, built, tmp_path):
    """The ways are those of benchmarks/foreign_code.py, which counts more of them."""
    ended = attack(built / name, ATTACKS[name], tmp_path)
    assert len(ended) >= 10 and {how for how in ended.values()} == {"BAD"}, ended


def test_what_is_bad_is_named(built, tmp_path):
    def told(change) -> list[str]:
        folder = changed(built / PLAIN, tmp_path / "changed" / PLAIN, change)
        good, lines = verify(str(folder))
        shutil.rmtree(tmp_path / "changed")
        assert not good
        return [line for line in lines if line.startswith("BAD")]

    index = "BAD model_index.json: "
    assert told(entry("model_index.json", "auto_map", value={})) == [
        f"{index}'auto_map' is not what a build of this model writes"
    ]
    assert told(entry("model_index.json", "custom", value=1)) == [f"{index}holds 'custom', which no build writes"]
    (said,) = told(entry("run.json", "hub_note", value="x"))
    assert said == "BAD run.json: holds 'hub_note', which no build writes"
    assert told(added("vae/native.so")) == ["BAD vae/native.so: no build of this model makes such a file"]
    assert "BAD vae: is a link, not a plain file" in told(linked("vae", ""))
    said = told(entry("model_index.json", "vae", value=["subprocess", "Popen"]))
    assert "BAD .: cannot be built anew: Popen: no file pipelines/*/modeling_*.py defines it" in said
    (said,) = told(one_bit)
    assert "20 tensors, which are not those that its card tells; SHA-256 " in said
    (said,) = told(card_line("prior: other/repo"))
    assert said == "BAD README.md: its metadata has 'prior: other/repo', which no card of this project has"
    assert told(added("a\nok  b")) == ["BAD 'a\\nok  b': no build of this model makes such a file"]


def test_files_of_git_and_of_the_client_and_another_text_of_the_card_are_no_matter(built, tmp_path):
    folder = changed(built / PLAIN, tmp_path / PLAIN, added(".cache/huggingface/download/x.metadata"))
    added(".gitattributes", b"*.safetensors filter=lfs\n")(folder)
    added(".git/hooks/pre-commit")(folder)
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nMore about it.\n")
    good, lines = verify(str(folder))
    assert good, lines
    card.write_text(card.read_text().replace("## Weights", "## Other").split("## Other")[0])  # an older card
    good, lines = verify(str(folder))
    assert good and any("its card is of an older build" in line for line in lines), lines


def test_a_checkpoint_and_a_space_are_verified_as_they_are_made(tmp_path):
    assert verify(str(ROOT / "checkpoints" / PLAIN))[0]
    space(ROOT / "spaces" / "vae", tmp_path / "space")
    assert verify(str(tmp_path / "space"))[0]
    for name in ("kit/more.py", "more.json", "kit/theme.py"):
        folder = changed(tmp_path / "space", tmp_path / "changed", added(name))
        assert not verify(str(folder))[0], name
        shutil.rmtree(folder)


def test_a_commit_that_was_only_fetched_makes_no_code_ours(tree, tiny_run, tmp_path):
    """Somebody's branch may lie in the clone; its code is not of this tree's history."""
    first = git(tree, "rev-parse", "--abbrev-ref", "HEAD")
    git(tree, "checkout", "--quiet", "-b", "theirs")
    change(tree / PART)
    change(tree / "pipelines" / "autoencoders" / "modeling_vae.py")
    theirs = commit_all(tree)
    build.build(tiny_run, tmp_path / "built")
    assert theirs in (tmp_path / "built" / "README.md").read_text() and verdicts(tmp_path / "built")[0]
    git(tree, "checkout", "--quiet", first)
    commit._commit_of.cache_clear()
    good, words = verdicts(tmp_path / "built")
    assert not good and all(said.startswith("foreign") for said in words.values()), words
