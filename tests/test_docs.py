"""README and docs do what they say: every block of Python and every command is run, and every link leads somewhere.

The blocks of a page run in the order of the page, in a folder of its own that looks like the root of this repository: the
code is there by links, and what is written stays in the folder. Python runs in a process that knows nothing of this
repository, as a reader's own program would; commands run in one that does, against a Hub on loopback. Both processes
serve all pages, since importing torch takes seconds.

`RULES` says what is done otherwise than the page says, and why.
"""

import dataclasses
import functools
import json
import os
import random
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
README_WORDS = 1_500

# What is done otherwise than a page says


@dataclasses.dataclass(frozen=True)
class Rule:
    """Of commands and blocks in which `where` is found.

    Attributes:
        why: the reason.
        swap: pieces of text, and what takes their place: {name} is what `Given` makes.
        add: options that are added to a command; the last of two equal ones counts.
        how: "run"; or "parse": the command's own parser reads it; "dry": make shows what it would do; "help": the
            command's help is shown; "exists": the file is there and is Python.
    """

    where: str
    why: str
    swap: dict[str, str] = dataclasses.field(default_factory=dict)
    add: str = ""
    how: str = "run"


RULES = (
    Rule(
        r"-m training\.(autoencoders|adversarial|diffusion|flows|language|classical\.classifier)",
        "two steps show that it trains",
        add="--max_steps 2 --batch_size 8 --lr_warmup_steps 1 --log_every 1 --eval_every 2 --save_every 2 --sample_every 2 "
        "--mixed_precision no",
    ),
    Rule(
        r"-m training\.autoencoders\.(vae|autoencoder|hierarchical_vae)",
        "a small network is as good",
        add="--width 8",
    ),
    Rule(r"-m training\.autoencoders\.autoencoder", "a small prior is as good", add="--prior_components 2"),
    Rule(
        r"-m training\.diffusion\.ddpm(?!.*--network mlp)",
        "a small network and few steps of sampling are as good",
        add="--width 8 8 --num_inference_steps 2",
    ),
    Rule(
        r"-m training\.language\.gpt(?!.*--init_from)",
        "a small network is as good",
        add="--width 16 --num_heads 2 --num_layers 1 --context_length 32 --vocab_size 300",
    ),
    Rule(r"-m training\.language\.gpt.*--init_from", "a context that the stand-in has", add="--context_length 32"),
    Rule(r"gaussian-mixture-mnist\.yaml", "few rows", add="--pca_dim 5 --num_components 2"),
    Rule(r"-mnist\.yaml(?!.*--data_dir)", "MNIST is not in the repository", add="--data_dir {mnist}"),
    Rule(
        r"gpt-shakespeare\.yaml(?!.*--data_dir)", "tiny Shakespeare is not in the repository", add="--data_dir {texts}"
    ),
    Rule(r"--data_dir DIR", "the reader's own copy of MNIST", swap={"DIR": "{mnist}"}),
    Rule(r"--dataset user/texts", "a set of the Hub", swap={"user/texts": "{tables}"}),
    Rule(
        r"--init_from openai-community/gpt2",
        "a model of the Hub, and the reader's own file",
        swap={"openai-community/gpt2": "checkpoints/gpt-shakespeare", "my_book.txt": "{texts}"},
    ),
    Rule(r"-m training\.evaluate", "few samples", add="--num_samples 10 --importance_samples 2"),
    Rule(
        r"-m training\.evaluate (checkpoints/|runs/(gan-discs|ddpm-flags|mixture-stripes|glow-waves))",
        "takes seconds; it is run for one model of images, vae-shapes, and for one of text, book",
        how="parse",
    ),
    Rule(r"-m training\.leaderboard", "writes into the repository; tests/training runs it", how="parse"),
    Rule(r"-m training\.publish --all", "takes half a minute; tests/training/test_hub.py runs it", how="parse"),
    Rule(r"--help", "prints and ends", how="help"),
    Rule(r"^make (demo|test|lint)", "installs, serves until it is stopped, or runs this very suite", how="dry"),
    Rule(r"-m pytest", "runs this very suite", how="exists"),
    Rule(r"python \S+/app\.py", "serves until it is stopped; tests/spaces opens every Space", how="exists"),
    Rule(r"take_pictures", "opens the gallery in Chromium, and writes into the repository", how="exists"),
    Rule(r"hf auth login", "asks for a token", how="help"),
    Rule(r"gradio_client", "the gallery is elsewhere here", swap={"http://127.0.0.1:7860": "{gallery}"}),
    Rule(r"digit\.png", "the reader's own picture", swap={"digit.png": "{digit}"}),
)


def rules_of(text: str) -> list[Rule]:
    return [rule for rule in RULES if re.search(rule.where, text)]


# Reading a page


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block, or one command of it; `line` is where it begins."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    found, language, begin, lines = [], None, 0, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        assert not re.match(r"\s+```|\s*~~~", line), f"{page}:{number}: a block that begins otherwise is not found"
        if line.startswith("```"):
            if language is None:
                language, begin, lines = line[3:].strip(), number + 1, []
            else:
                found.append(Block(str(page.relative_to(ROOT)), begin, language, "\n".join(lines)))
                language = None
        elif language is not None:
            lines.append(line)
    assert language is None, f"{page}: the block of line {begin} does not end"
    return found


def commands_of(block: Block) -> list[Block]:
    """The lines of a block of commands, without comments; a backslash joins two."""
    found, begun = [], ""
    for number, line in enumerate(block.text.splitlines(), block.line):
        begun += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        words = shlex.split(begun, comments=True)
        if words:
            found.append(Block(block.page, number, "bash", shlex.join(words)))
        begun = ""
    return found


def prose_of(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


# The two processes that do it

COMMON = """
import json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w")
log = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_APPEND)
os.dup2(log, 1), os.dup2(log, 2)

def serve(do):
    for line in sys.stdin:
        job, code, before = json.loads(line), 0, dict(os.environ)
        os.chdir(job["folder"])
        os.environ.update(job["environment"])
        try:
            do(**job["what"])
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        os.environ.clear(), os.environ.update(before)
        sys.stdout.flush(), sys.stderr.flush()
        print(json.dumps(code), file=answers, flush=True)
"""
PYTHON = """
names = {}  # of each page

def do(page, line, code):
    assert not any(m.split(".")[0] in ("training", "pipelines", "spaces") for m in sys.modules)
    # as many lines before it as on the page, so that a traceback names the line
    exec(compile("\\n" * (line - 1) + code, page, "exec"), names.setdefault(page, {"__name__": "__main__"}))

serve(do)
"""
COMMANDS = """
import argparse, runpy, warnings
warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
reads = argparse.ArgumentParser.parse_known_args

class Parsed(BaseException):
    pass

def only_parse(self, *words, **more):
    _, rest = reads(self, *words, **more)
    if rest:
        self.error(f"unknown: {rest}")
    raise Parsed

def do(launcher, module, words, parse):
    if launcher:
        if launcher[0] == "accelerate":
            from accelerate.commands.launch import launch_command_parser
            found = launch_command_parser().parse_args([*launcher[2:], module, *words])
        else:
            from torch.distributed.run import get_args_parser
            found = get_args_parser().parse_args([*launcher[1:], module, *words])
        assert found.module and found.training_script == module and found.training_script_args == words
    sys.argv = [module, *words]
    argparse.ArgumentParser.parse_known_args = only_parse if parse else reads
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        assert not parse, f"{module} has no parser"
    except Parsed:
        pass
    finally:
        argparse.ArgumentParser.parse_known_args = reads
        if "accelerate.state" in sys.modules:  # one process does what many would
            sys.modules["accelerate.state"].AcceleratorState._reset_state(True)

serve(do)
"""


class Worker:
    """A process that is sent one thing after another to do."""

    def __init__(self, flag: str, code: str, log: Path, environment: dict[str, str]):
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, flag, "-c", COMMON + code, str(log)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment},
        )  # fmt: skip

    def __call__(self, folder: Path, environment: dict[str, str] | None = None, **what) -> tuple[int, str]:
        """Do it in `folder`; returns the exit code and what was said."""
        begin = self.log.stat().st_size if self.log.exists() else 0
        job = {"folder": str(folder), "environment": environment or {}, "what": what}
        print(json.dumps(job), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        said = self.log.read_bytes()[begin:].decode(errors="replace")
        assert answer, f"the process has ended: {said}"
        return json.loads(answer), said

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(20)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answering(url: str, process: subprocess.Popen) -> str:
    for _ in range(2_400):  # a busy machine is slow, not wrong
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return url
        except OSError:
            assert process.poll() is None, f"{url}: the server has ended"
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


class Given:
    """What a reader has and the repository has not: data, a Hub, a gallery that runs. Made when first asked for."""

    def __init__(self, place: Path):
        self.place, self.made, self.processes, self.workers = place, {}, [], {}

    def __getitem__(self, name: str) -> str:
        if name not in self.made:
            self.made[name] = str(getattr(self, name)())
        return self.made[name]

    def mnist(self) -> Path:
        """Parquet files with MNIST's columns and sizes, of made-up images."""
        import io

        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq
        from PIL import Image

        rng, folder = np.random.default_rng(0), self.place / "mnist"
        folder.mkdir()
        for split, count in (("train", 300), ("test", 40)):
            images = []
            for number in range(count):
                image = np.zeros((28, 28), np.uint8)
                image[4 + number % 10 : 14 + number % 10, 8:20] = rng.integers(0, 256, (10, 12))
                content = io.BytesIO()
                Image.fromarray(image).save(content, "PNG")
                images.append({"bytes": content.getvalue(), "path": None})
            rows = pa.table({"image": images, "label": [i % 10 for i in range(count)]})
            pq.write_table(rows, folder / f"{split}-00000-of-00001.parquet")
        return folder

    def texts(self) -> Path:
        """A folder with the text `input.txt`."""
        rng, folder = random.Random(0), self.place / "texts"
        folder.mkdir()
        words = ["Ay", "my", "lord", "no", "sir", "good", "night"]
        lines = ["ROMEO:\n" + " ".join(rng.choice(words) for _ in range(8)) + ".\n" for _ in range(200)]
        (folder / "input.txt").write_text("\n".join(lines))
        return folder

    def tables(self) -> Path:
        """A folder of a parquet file with a column of texts."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder = self.place / "tables"
        folder.mkdir()
        rows = pa.table({"text": [f"Text number {i} tells of the number {i * i}, at some length." for i in range(600)]})
        pq.write_table(rows, folder / "train-00000-of-00001.parquet")
        return folder

    def digit(self) -> Path:
        from PIL import Image, ImageDraw

        image = Image.new("L", (28, 28))
        ImageDraw.Draw(image).line((9, 7, 19, 7, 13, 22), fill=255, width=3)
        image.save(self.place / "digit.png")
        return self.place / "digit.png"

    def hub(self) -> str:
        port = free_port()
        self.processes.append(subprocess.Popen([sys.executable, "-m", "tests.loopback_hub", str(port)], cwd=ROOT))
        answering(f"http://127.0.0.1:{port}/_/repos", self.processes[-1])
        return f"http://127.0.0.1:{port}"

    def gallery(self) -> str:
        """The gallery, with the models that the page asks."""
        folder, models = self.place / "gallery", []
        for name in ("cvae-mnist", "ddpm-mnist", "cgan-mnist", "gpt-shakespeare"):
            models.append(self.place / "models" / name)
            self.published(ROOT / "checkpoints" / name, "--to", models[-1])
        self.published("--space", ROOT / "spaces" / "gallery", "--to", folder)
        port = free_port()
        environment = {"MODEL_ID": ",".join(map(str, models)), "GRADIO_SERVER_PORT": str(port)}
        environment["GRADIO_TEMP_DIR"] = str(self.place / "gallery-files")
        with open(self.place / "gallery.log", "w") as out:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "app.py"], cwd=folder, env={**os.environ, **environment}, stdout=out, stderr=out
                )
            )
        return answering(f"http://127.0.0.1:{port}", self.processes[-1])

    def published(self, *words) -> None:
        words = [str(word) for word in words]
        code, said = self.worker("commands")(
            self.place, launcher=[], module="training.publish", words=words, parse=False
        )
        assert code == 0, said

    @property
    def environment(self) -> dict[str, str]:
        """In which the Hub's client speaks to the Hub on loopback."""
        return {
            "HF_ENDPOINT": self["hub"], "HF_HOME": str(self.place / "home"), "HF_TOKEN": "hf_write",
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }  # fmt: skip

    def worker(self, name: str) -> Worker:
        if name not in self.workers:
            # isolated, or with the root on the path but not the folder that it works in
            flag, code, path = ("-I", PYTHON, {}) if name == "python" else ("-P", COMMANDS, {"PYTHONPATH": str(ROOT)})
            self.workers[name] = Worker(flag, code, self.place / f"{name}.log", {**self.environment, **path})
        return self.workers[name]

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()
        for process in self.processes:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    given = Given(tmp_path_factory.mktemp("docs"))
    yield given
    given.close()


# What is done with a block


def as_here(text: str, given: Given) -> str:
    """A block's text, or a command's, with what the rules put in its place."""
    for rule in rules_of(text):
        for piece, instead in rule.swap.items():
            name = re.fullmatch(r"{(\w+)}", instead)
            text = text.replace(piece, given[name[1]] if name else instead)
    return text


def run_python(block: Block, folder: Path, given: Given) -> None:
    code = as_here(block.text, given)
    status, said = given.worker("python")(folder, page=block.page, line=block.line, code=code)
    assert status == 0, f"{block}\n{block.text}\n\n{said}"


def run_command(command: Block, folder: Path, given: Given, how: str | None = None) -> None:
    """Run one, or do what a rule, or `how`, says instead."""
    rules = rules_of(command.text)
    how = how or next((rule.how for rule in rules if rule.how != "run"), "run")
    words = shlex.split(as_here(command.text, given) if how == "run" else command.text)
    environment = {}
    while words[0] == "time" or re.match(r"[A-Z_]+=", words[0]):
        name, _, value = words.pop(0).partition("=")
        environment |= {name: value} if value else {}
    kind = next((kind for kind in KINDS if words[: len(kind.begins)] == list(kind.begins)), None)
    assert kind, f"{command}: no one has said how to run {command.text}"
    if how == "run":
        for rule in rules:
            name = re.search(r"{(\w+)}", rule.add)
            words += shlex.split(rule.add.replace(name[0], given[name[1]]) if name else rule.add)
    status, said = kind.do(words, folder, given, how, environment)
    assert status == 0, f"{command}: {command.text}\nwas run as: {shlex.join(words)} ({how})\n\n{said}"


def _module(words: list[str], folder: Path, given: Given, how: str, environment: dict) -> tuple[int, str]:
    place = words.index("-m")
    if words[place + 1] == "pytest":
        missing = [word for word in words[place + 2 :] if not (ROOT / word).is_file()]
        return len(missing), f"there is no {missing}"
    launcher = [] if words[0] == "python" else words[: place + 1]
    what = {"launcher": launcher, "module": words[place + 1], "words": words[place + 2 :]}
    return given.worker("commands")(folder, environment, **what, parse=how == "parse")


def _file(words: list[str], folder: Path, given: Given, how: str, environment: dict) -> tuple[int, str]:
    """A Space that was built, or a benchmark: that it is there, that it takes these options, that its models are there."""
    assert how in ("exists", "parse")
    file = folder / words[1]
    if not file.is_file():
        return 1, f"there is no {words[1]}"
    source = file.read_text(encoding="utf-8")
    compile(source, words[1], "exec")
    options = [word for word in words[2:] if word.startswith("--") and f'"{word}"' not in source]
    models = [name for name in environment.get("MODEL_ID", "").split(",") if name and not (folder / name).is_dir()]
    return len(options + models), f"unknown: {options}; missing: {models}"


@functools.cache
def said_by(*words: str) -> tuple[int, str]:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def _make(words: list[str], folder: Path, given: Given, how: str, environment: dict) -> tuple[int, str]:
    return said_by("make", "-n", *words[1:])


def _hf(words: list[str], folder: Path, given: Given, how: str, environment: dict) -> tuple[int, str]:
    hf = str(Path(sys.executable).with_name("hf"))
    if how == "help":
        return said_by(hf, *words[1:], "--help")
    environment = {**os.environ, **given.environment}
    done = subprocess.run([hf, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@dataclasses.dataclass(frozen=True)
class Kind:
    begins: tuple[str, ...]
    do: Callable


KINDS = (
    Kind(("python", "-m"), _module),
    Kind(("accelerate", "launch"), _module),
    Kind(("torchrun",), _module),
    Kind(("python",), _file),
    Kind(("make",), _make),
    Kind(("hf",), _hf),
)


# The tests


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_does_what_it_says(page, given, tmp_path):
    for name in ("training", "pipelines", "spaces", "benchmarks", "docs", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "checkpoints", tmp_path / "checkpoints")
    for block in blocks_of(page):
        if block.language == "python":
            run_python(block, tmp_path, given)
        elif block.language == "yaml":  # of accelerate; tests/training/test_machines.py gives it to accelerate
            assert "distributed_type" in yaml.safe_load(block.text)
        else:
            assert block.language == "bash", f"{block}: a block of {block.language or 'nothing'}, which no one runs"
            for command in commands_of(block):
                run_command(command, tmp_path, given)
    # commands within the text, such as those beside figures: their own parsers read them
    for text in re.findall(r"`((?:\w+=\S+ )?(?:time |make |hf |python )[^`]+)`", prose_of(page)):
        command = Block(str(page.relative_to(ROOT)), 0, "bash", text.replace("\n", " "))
        how = {"make": "dry", "hf": "help"}.get(text.split()[0], "parse")
        run_command(command, tmp_path, given, how)


def test_every_rule_is_of_use():
    said = [b.text for page in PAGES for b in blocks_of(page) if b.language == "python"]
    said += [c.text for page in PAGES for b in blocks_of(page) if b.language == "bash" for c in commands_of(b)]
    assert [rule.where for rule in RULES if not any(re.search(rule.where, text) for text in said)] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= README_WORDS


def headings_of(page: Path) -> set[str]:
    """What a link may name after #, as GitHub makes it of a heading."""
    lines = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", prose_of(page)):
        place, _, heading = "".join(link).partition("#")
        if place.startswith("http"):
            continue
        file = (page.parent / place).resolve() if place else page
        assert file.exists(), f"{page.name}: there is no {place}"
        assert not heading or heading in headings_of(file), f"{page.name}: {place} has no heading {heading}"


def test_every_page_is_linked_from_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if f"](docs/{page.name}" not in text] == []


def test_every_option_that_is_named_exists():
    known, of_launcher = {"--help", "--nproc_per_node"}, set(launch_command_parser()._option_string_actions)
    for file in [*ROOT.glob("training/**/*.py"), *ROOT.glob("benchmarks/*.py")]:
        text = file.read_text(encoding="utf-8")
        known |= {f"--{name}" for name in re.findall(r"^    (\w+): .*= option\(", text, re.MULTILINE)}
        known |= set(re.findall(r"add_argument\(\s*\"(--\w+)\"", text))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        # before -m stands what the launcher is told; a line that ends in a backslash goes on
        launches = re.findall(r"accelerate launch((?:\\\n|[^\n])*?) +-m ", text)
        for piece in filter(None, launches):
            assert set(re.findall(r"--\w+", piece)) <= of_launcher, f"{page.name}: {piece}"
            text = text.replace(piece, "")
        named = set(re.findall(r"(?<![\w-])--\w+", text))
        assert named <= known, f"{page.name}: {sorted(named - known)}"
