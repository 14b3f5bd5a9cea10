"""Checking what lies in a folder or repository: whether a load would run this project's code, an older build of it, or other.

What a load runs is told by an index, by configs and by the files that they name. So the folder is built anew, from its own
weights, configs and record, by this project's code of today, and of the commit that its card records; each file must be the
one that such a build writes. Only the card may differ: it is shown, never run. Nothing is loaded on the way.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from training.folders import MOST_FILES, WITH_CODE, files_on_hub, local_folder, odd
from training.options import UsageError, check_repo_id
from training.publishing import code
from training.publishing.build import build, checkpoint
from training.publishing.card import NAME, hashes_on, sha256
from training.publishing.commit import commit_on_card, date_of, extract_pipelines, git, has_changed_since
from training.publishing.spaces import space

PICKLED = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".npy", ".npz", ".joblib")
PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
CARD, ATTRIBUTES = "README.md", ".gitattributes"
INDICES = ("model_index.json", "config.json")  # that tell a load what to run
OF_CLIENTS = (".git", ".cache/huggingface")  # folders that git and the Hub's client keep beside a model's files
LONGEST_CARD = 1_000_000  # bytes
# what the metadata of a card may say; other entries make the libraries fetch more
CARD_KEYS = ("datasets", "language", "library_name", "license", "model-index", "model_name", "pipeline_tag", "tags")
PICKLE = "may hold a pickle, which runs code when it is loaded"


def verify(source: str) -> tuple[bool, list[str]]:
    """Whether all that a load of a folder or repository would run is this project's, now or at an older commit.

    Returns the answer, and a line for each file that it rests on.

    Raises:
        UsageError: neither a folder nor a repository that can be read.
    """
    if Path(source).is_dir():
        return verify_folder(Path(source))
    check_repo_id(source.partition("@")[0], "--verify")
    folder = local_folder(source, "--verify", (*WITH_CODE, ATTRIBUTES))
    here = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    left = [name for name in files_on_hub(source) if name not in here]  # what no build makes is not even fetched
    good, lines = verify_folder(folder)
    return good and not left, [*lines, *(f"BAD {name}: {_stranger(name)}" for name in left)]


def verify_folder(folder: Path) -> tuple[bool, list[str]]:
    """As `verify`, of a folder.

    Raises:
        UsageError: it holds neither code nor weights.
    """
    with tempfile.TemporaryDirectory() as temporary:
        judge, verdicts = _Judge(folder, Path(temporary)), []
        entries = _entries(folder)
        names = [path.relative_to(folder).as_posix() for path, _ in entries]
        for name, (path, what) in zip(names, entries, strict=True):
            verdicts.append((name, *((False, f"is {what}, not a plain file") if what else judge(name, path))))
        if len(entries) > MOST_FILES:
            verdicts.append(("", False, f"there are more than {MOST_FILES} files"))
        if not any(name.endswith((".py", ".safetensors")) for name in names):
            raise UsageError(f"--verify {folder}: holds neither code nor weights")
        verdicts += [(name, False, said) for name, said in judge.lacking(names)]
    lines = [f"{'ok ' if good else 'BAD'} {_shown(name)}: {_shown(said)}" for name, good, said in verdicts]
    return all(good for _, good, _ in verdicts), lines


def _entries(top: Path) -> list[tuple[Path, str | None]]:
    """What lies below a folder, each with what is odd about it: its files, and folders that hold none. Of an endless one a
    part, which is more than is allowed."""
    found, todo = [], [top]
    while todo and len(found) <= MOST_FILES:
        folder = todo.pop()
        try:
            inside = sorted(folder.iterdir())
        except OSError as error:
            found.append((folder, f"a folder that cannot be read ({error.strerror})"))
            continue
        for path in inside:
            what = odd(path)
            if what is None and path.is_dir():
                todo += [path] if path.relative_to(top).as_posix() not in OF_CLIENTS else []
            else:
                found.append((path, what))
        if not inside and folder != top:
            found.append((folder, "an empty folder"))
    return sorted(found)


@dataclass
class _Build:
    """What one build of a folder writes.

    Attributes:
        says: of code that is the same.
        files: their contents, by name; a card and weights are compared otherwise, and are None.
        refusal: why it cannot be built.
    """

    says: str
    files: dict[str, bytes | None] = field(default_factory=dict)
    refusal: str = ""

    def same(self, name: str, content: bytes) -> bool:
        return self.files.get(name) == content


class _Judge:
    """The builds that the files of a folder are compared with: today's, and that of the commit which its card records."""

    def __init__(self, folder: Path, temporary: Path):
        self.folder, self.temporary = folder, temporary
        self.card = _card_text(folder)
        self.commit = commit_on_card(self.card)
        index = [name for name in INDICES if (folder / name).exists()]
        self.is_space = (folder / "app.py").exists() and not index
        self.has_code = self.is_space or any(folder.glob("*.py"))
        self.builds = [_Build("this project's code")]
        self._fill(self.builds[0], None)
        asks = not self.is_space and not self._is_whole(self.builds[0])
        date = date_of(self.commit) if asks and self.commit and has_changed_since(self.commit) else None
        if date is not None:
            root = temporary / "tree"
            older = _Build(f"an older build of this project's code, of commit {self.commit[:10]}, {date}")
            root.mkdir()
            if extract_pipelines(self.commit, root):
                self._fill(older, root)
                self.builds.append(older)
        # the build that this folder is: the one whose index it has
        self.whole = [one for one in self.builds if self._is_whole(one)]
        self.own = [*self.whole, *self.builds][0]

    def _fill(self, made: _Build, root: Path | None) -> None:
        """Build the folder anew, and take in what was written."""
        place = self.temporary / f"build-{len(self.builds)}-{root is None}"
        try:
            if self.is_space:
                space(_space_like(self.folder), place)
            elif not self.has_code:
                checkpoint(self.folder, place, None, is_loaded=False)
            else:
                build(self.folder, place, _name_on(self.card) or "model", root, is_loaded=False)
        except UsageError as error:
            made.refusal = str(error).replace(f"{self.folder}/", "").replace(str(self.folder), "it")
            return
        for file in place.rglob("*"):
            if file.is_file():
                name = file.relative_to(place).as_posix()
                large = file.suffix == ".safetensors" or (name == CARD and not self.is_space)
                made.files[name] = None if large else file.read_bytes()
        shutil.rmtree(place)

    def _is_whole(self, made: _Build) -> bool:
        """Whether the folder has all that says what is run, and each of its files of code, as this build writes them."""
        told = [name for name in made.files if name.endswith(".py") or name in INDICES]
        return bool(told) and all(_content(self.folder / name) == made.files[name] for name in told)

    def __call__(self, name: str, path: Path) -> tuple[bool, str]:
        """Whether a file is as it should be, and what is said of it."""
        if name == ATTRIBUTES:
            return True, "of git"
        if name.endswith(".py"):
            return self._code(name, path)
        if name not in self.own.files:
            if (
                self.own.refusal
                and name.endswith((".json", ".safetensors", ".png", ".md"))
                and not name.startswith(".")
            ):
                return self._unbuilt(name, path)
            return False, _stranger(name, path)
        if name.endswith(".safetensors"):
            return self._weights(name, path)
        if name == CARD and not self.is_space:
            return _card(self.card)
        if self.own.same(name, _content(path)):
            return True, "as this project writes it"
        return False, _difference(_content(path), self.own.files[name])

    def _code(self, name: str, path: Path) -> tuple[bool, str]:
        content = _content(path)
        marked, digest = re.search(r"_([0-9a-f]{6})\.py$", name), hashlib.sha256(content).hexdigest()
        if marked and digest[:6] != marked[1]:
            return False, f"foreign: its content is not what its name says; SHA-256 {digest}"
        says = next((made.says for made in self.builds if made.same(name, content)), None)
        if says is None and marked and (committed := _committed(content)):
            says = f"an older build of this project's code, {committed}"
        if says is not None:
            used = (
                not self.whole or name in self.own.files
            )  # of a folder that is no build's whole, the index is told too
            return used, says if used else f"{says}, which this model does not run"
        return False, f"foreign: not this project's code at any commit it names; SHA-256 {digest}"

    def _unbuilt(self, name: str, path: Path) -> tuple[bool, str]:
        """Of a file in a folder that cannot be built anew: the one that stands in the way is told, nothing is known of others."""
        if not name.endswith(".json") and _starts_like_pickle(path):
            return False, PICKLE
        if name.endswith(".safetensors"):
            return self._weights(name, path)
        return False, "cannot be compared: the folder cannot be built anew"

    def _weights(self, name: str, path: Path) -> tuple[bool, str]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as weights:
                count, metadata = len(list(weights.keys())), weights.metadata() or {}
        except (SafetensorError, json.JSONDecodeError, OSError) as error:
            return False, f"no safetensors file ({error})"
        if metadata.keys() - {"format"}:
            return False, f"its header holds more than a format: {', '.join(sorted(metadata))[:100]}"
        told = hashes_on(self.card)
        if not any(other.endswith(".safetensors") for other in told):
            return True, f"{count} tensors; its card is of an older build, and does not tell their SHA-256"
        if told.get(name) != (digest := sha256(path)):
            return False, f"{count} tensors, which are not those that its card tells; SHA-256 {digest}"
        return True, f"{count} tensors, of the SHA-256 that its card tells"

    def lacking(self, names: list[str]) -> Iterator[tuple[str, str]]:
        """What is not there and should be, and why the folder cannot be built anew."""
        if self.own.refusal:
            yield ".", f"cannot be built anew: {self.own.refusal}"
        replaced = {Path(name).parent for name in names if name.endswith(".py")}  # by code that is told already
        for name in sorted(self.own.files.keys() - set(names)):
            if not name.endswith(".py") or Path(name).parent not in replaced:
                yield name, "is missing"


def _shown(text: str) -> str:
    """A name or a message that stays in its line."""
    return text if text.isprintable() else repr(text)


def _stranger(name: str, path: Path | None = None) -> str:
    """What is said of a file that no build makes."""
    if name.lower().endswith(PICKLED) or (path is not None and _starts_like_pickle(path)):
        return PICKLE
    return "no build of this model makes such a file"


def _starts_like_pickle(path: Path) -> bool:
    with open(path, "rb") as content:
        return content.read(2) in PICKLE_STARTS


def _content(path: Path) -> bytes:
    """The content of a file that is compared; nothing of one that is none, or larger than any that a build writes."""
    most = 100_000_000
    return path.read_bytes() if path.is_file() and path.stat().st_size <= most and odd(path) is None else b""


def _difference(found: bytes, built: bytes) -> str:
    """Where a file is not what the build writes: for JSON the first entry that differs."""
    try:
        mine, theirs = json.loads(built), json.loads(found)
        names = sorted(mine.keys() | theirs.keys())
        name = next(n for n in names if n not in mine or n not in theirs or mine[n] != theirs[n])
    except (ValueError, RecursionError, AttributeError, StopIteration):
        return f"not what this project writes; SHA-256 {hashlib.sha256(found).hexdigest()}"
    if name not in mine:
        return f"holds {name!r:.100}, which no build writes"
    return f"{name!r:.100} is not what a build of this model writes"


# The card


def _card_text(folder: Path) -> str:
    file = folder / CARD
    if not file.is_file() or odd(file) is not None:
        return ""
    with open(file, encoding="utf-8", errors="replace") as opened:
        return opened.read(LONGEST_CARD)


def _name_on(card: str) -> str | None:
    """How a card calls its model."""
    found = re.search(r"^# (.+)$", card, re.M)
    return found[1] if found and NAME.fullmatch(found[1]) else None


def _card(text: str) -> tuple[bool, str]:
    """Whether a card's metadata has only what this project's cards have; its text is shown, and never run."""
    parts = text.split("---\n", 2)
    if len(parts) != 3 or parts[0]:
        return False, "no card: it has no metadata"
    keys = [line for line in parts[1].splitlines() if not line.startswith((" ", "- "))]
    other = [line for line in keys if not line.startswith(tuple(f"{key}:" for key in CARD_KEYS))]
    if other:
        return False, f"its metadata has {other[0]!r:.100}, which no card of this project has"
    return True, "a card, which is shown and never run"


# Other sources of code


def _committed(content: bytes) -> str | None:
    """Where a file with this very content came in: code that was published as it lay, before parts were compiled in."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # what git calls it
    log = git("log", "--format=%h %cs", f"--find-object={blob}", "--", "pipelines")
    if not log or not log.strip():
        return None
    commit, date = log.decode().strip().splitlines()[-1].split()  # the oldest: where it came in
    return f"of commit {commit}, {date}"


def _space_like(folder: Path) -> Path:
    """The Space of this project whose page a folder has.

    Raises:
        UsageError: there is none.
    """
    app = _content(folder / "app.py")
    for file in sorted(code.ROOT.glob("spaces/*/app.py")):
        if file.read_bytes() == app:
            return file.parent
    raise UsageError("app.py is of no Space of this project")
