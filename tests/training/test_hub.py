"""Publishing over real HTTP, by huggingface_hub's own client, to a Hub on loopback; loading from it where nothing is."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import torch

from tests.conftest import ROOT, run_module
from tests.training.test_publish import alone


class Hub:
    """A running Hub, and the environment in which the client speaks to it."""

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}"

    def environment(self, home, token: str | None = "hf_write") -> dict[str, str]:
        given = {"HF_TOKEN": token} if token else {}
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            **given,
        }

    def ask(self, path: str, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request, timeout=60))

    def commits(self, repo: str, branch: str = "main") -> int:
        return self.ask("/_/repos")[repo]["branches"][branch][0]

    def files(self, repo: str, branch: str = "main") -> list[str]:
        return self.ask("/_/repos")[repo]["branches"][branch][1]


@contextlib.contextmanager
def running_hub():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "tests.loopback_hub", str(port)], cwd=ROOT)
    hub = Hub(port)
    try:
        until = time.monotonic() + 300  # a busy machine is slow, not wrong
        while True:
            try:
                hub.ask("/_/repos")
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.1)
        yield hub
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture(autouse=True)
def no_faults(hub):
    hub.ask("/_/fault", [])
    hub.ask("/_/log")


@pytest.fixture
def publish(hub, tmp_path):
    """`python -m training.publish ...` towards the Hub; no output ever holds the token."""

    def run(*words, token: str | None = "hf_write"):
        done = run_module("training.publish", *words, env=hub.environment(tmp_path / "home", token))
        assert "hf_write" not in done.stdout + done.stderr and "hf_read" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


DRAW_FROM_THE_HUB = """
    import sys, torch
    from diffusers import DiffusionPipeline
    pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
    images = pipe(batch_size=4, generator=torch.Generator().manual_seed(7), output_type="pt").images
    torch.save(images, sys.argv[2])
"""
AUTO_MODEL = """
    import sys, torch
    from diffusers import AutoModel
    vae = AutoModel.from_pretrained(sys.argv[1], subfolder="vae", trust_remote_code=True)
    torch.save({name: tensor for name, tensor in vae.state_dict().items()}, sys.argv[2])
"""
DRAW_OFFLINE = """
    import sys, torch
    from diffusers import DiffusionPipeline
    from huggingface_hub import snapshot_download
    folder = snapshot_download(sys.argv[1], local_files_only=True)
    pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    images = pipe(batch_size=4, generator=torch.Generator().manual_seed(7), output_type="pt").images
    torch.save(images, sys.argv[2])
"""


def test_a_published_model_loads_from_the_hub_and_then_offline_with_the_same_bits(
    hub, publish, tiny_run, bare_python, tmp_path
):
    from pipelines.autoencoders.pipeline_vae import VAEPipeline

    done = publish(tiny_run, "--repo_id", "user/tiny")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("user/tiny")
    assert {"README.md", "model_index.json", "run.json"} < set(hub.files("model/user/tiny"))
    pipe = VAEPipeline.from_pretrained(tiny_run)
    here = pipe(batch_size=4, generator=torch.Generator().manual_seed(7), output_type="pt").images
    environment = hub.environment(tmp_path / "fresh", None)
    alone(AUTO_MODEL, "user/tiny", tmp_path / "vae.pt", home=tmp_path / "fresh", python=bare_python, **environment)
    loaded = torch.load(tmp_path / "vae.pt")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in pipe.vae.state_dict().items())
    fetch = "import sys, huggingface_hub; huggingface_hub.snapshot_download(sys.argv[1])"  # hf download
    alone(
        DRAW_FROM_THE_HUB,
        "user/tiny",
        tmp_path / "online.pt",
        home=tmp_path / "fresh",
        python=bare_python,
        **environment,
    )
    alone(fetch, "user/tiny", home=tmp_path / "fresh", python=bare_python, **environment)
    environment["HF_HUB_OFFLINE"] = "1"
    alone(
        DRAW_OFFLINE, "user/tiny", tmp_path / "offline.pt", home=tmp_path / "fresh", python=bare_python, **environment
    )
    for name in ("online.pt", "offline.pt"):
        assert torch.equal(torch.load(tmp_path / name), here)
    environment["HF_HUB_OFFLINE"] = "0"
    refusal = "from diffusers import DiffusionPipeline; DiffusionPipeline.from_pretrained('user/tiny')"
    done = subprocess.run([sys.executable, "-I", "-c", refusal], env={**os.environ, **environment}, cwd=tmp_path,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode and "trust_remote_code=True" in done.stderr


def test_publishing_twice_uploads_nothing_and_a_change_replaces_the_code(hub, publish, tiny_run, portable, tmp_path):
    for _ in range(2):
        assert publish(tiny_run, "--repo_id", "user/twice").returncode == 0
    assert hub.commits("model/user/twice") == 2  # the first, of the empty repository, and one of ours
    assert not [line for line in hub.ask("/_/log")[-8:] if "/commit/" in line]
    code = [f for f in hub.files("model/user/twice") if f.endswith(".py")]
    assert len(code) == 2 and ".gitattributes" in hub.files("model/user/twice")
    # an older version of the code lies there: after publishing, only the present one does
    old = "from huggingface_hub import upload_file as u; u(path_or_fileobj=b'x = 1', path_in_repo='a_000000.py', repo_id='{}')"
    alone(old.format("user/twice"), home=tmp_path / "home", **hub.environment(tmp_path / "home"))
    assert "a_000000.py" in hub.files("model/user/twice")
    assert publish(tiny_run, "--repo_id", "user/twice").returncode == 0
    assert [f for f in hub.files("model/user/twice") if f.endswith(".py")] == code


def test_a_private_repository_and_a_branch(hub, publish, tiny_run, tmp_path):
    assert publish(tiny_run, "--repo_id", "user/secret", "--private", "--revision", "v2").returncode == 0
    held = hub.ask("/_/repos")["model/user/secret"]
    assert held["private"] and "model_index.json" in held["branches"]["v2"][1]
    assert "model_index.json" not in held["branches"]["main"][1]
    load = "from diffusers import DiffusionPipeline as P; P.from_pretrained('user/secret', revision='v2', trust_remote_code=True)"
    alone(load, home=tmp_path / "with", **hub.environment(tmp_path / "with"))
    with pytest.raises(AssertionError, match="user/secret"):
        alone(load, home=tmp_path / "without", **hub.environment(tmp_path / "without", None))
    done = publish("--verify", "user/secret", token=None)
    assert done.returncode == 2 and "neither a folder nor a repository on the Hub" in done.stderr


def test_a_failed_upload_to_a_new_branch_is_told(hub, publish):
    hub.ask("/_/fault", [{"where": r"PUT /lfs/", "status": 403, "times": 100}])
    done = publish("checkpoints/vae-digits", "--repo_id", "user/branch", "--revision", "v3")
    assert done.returncode == 2 and "nothing was committed" in done.stderr, done.stderr
    assert hub.files("model/user/branch", "v3") == [".gitattributes"]


def test_a_space_is_created_with_its_models(hub, publish):
    done = publish("--space", "spaces/vae", "--repo_id", "user/vae", "--model_id", "user/tiny,user/other@v2")
    assert done.returncode == 0, done.stderr
    held = hub.ask("/_/repos")["space/user/vae"]
    assert held["variables"] == {"MODEL_ID": "user/tiny,user/other@v2"}
    assert {"app.py", "kit/theme.py", "README.md", "requirements.txt"} < set(held["branches"]["main"][1])


FEW = ("vae-digits", "gan-digits", "ddpm-digits", "gpt-python-docs")
PAGES = ("vae", "diffusion", "adversarial", "gallery")


@pytest.fixture
def few(tmp_path):
    """A copy of the tree with few checkpoints and Spaces: each model is built twice, each Space asked in a process."""
    for name in ("training", "pipelines", "spaces/kit", *(f"spaces/{page}" for page in PAGES)):
        shutil.copytree(ROOT / name, tmp_path / "few" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FEW:
        shutil.copytree(ROOT / "checkpoints" / name, tmp_path / "few" / "checkpoints" / name)
    return tmp_path / "few"


def test_everything_at_once_models_first_spaces_at_their_commits_and_a_second_time_nothing(hub, few, tmp_path):
    def publish_all() -> subprocess.CompletedProcess:
        words = [sys.executable, "-m", "training.publish", "--all", "--namespace", "team"]
        environment = {**os.environ, **hub.environment(tmp_path / "home")}
        return subprocess.run(words, cwd=few, env=environment, capture_output=True, text=True, timeout=900)

    done = publish_all()
    assert done.returncode == 0, done.stderr
    first, said = hub.ask("/_/log"), hub.ask("/_/repos")
    names, apps = set(FEW), set(PAGES)
    assert {f"model/team/{name}" for name in names} | {f"space/team/{name}" for name in apps} == {
        name for name in said if "/team/" in name
    }
    commits = [line for line in first if re.search(r"POST .*/team/.*/commit/", line)]
    kinds = ["space" if "/spaces/" in line else "model" for line in commits]
    assert kinds == ["model"] * len(names) + ["space"] * len(apps)  # a Space loads what is there already
    shown = {name: said[f"space/team/{name}"]["variables"]["MODEL_ID"].split(",") for name in apps}
    for models in shown.values():
        for model in models:
            name, _, revision = model.partition("@")
            assert revision == hub.ask(f"/api/models/{name}")["sha"]
    assert {model.partition("@")[0] for model in shown["gallery"]} == {f"team/{name}" for name in names}
    only = {name: {m.split("/")[1].split("@")[0] for m in models} for name, models in shown.items()}
    for name, needed in NEEDED.items():  # what the record of a model says that it answers
        answers = {
            n for n in names if needed <= set(json.loads((ROOT / f"checkpoints/{n}/results.json").read_text())["calls"])
        }
        assert only[name] == answers and 0 < len(answers) < len(names)
    assert not only["vae"] & only["adversarial"]
    readme = urllib.request.urlopen(f"{hub.url}/spaces/team/diffusion/resolve/main/README.md").read().decode()
    assert "models:\n- team/ddpm" in readme and "sdk: gradio" in readme
    items = hub.ask("/api/collections/team/genus-1")["items"]
    assert len(items) == len(names) + len(apps)
    done = publish_all()
    assert done.returncode == 0 and "published" not in done.stderr and done.stderr.count("as it was") == len(items)
    changes = [
        line
        for line in hub.ask("/_/log")
        if re.match(r"(POST|PUT|DELETE) .*(/commit/|/variables|/items)|PUT /lfs/", line)
    ]
    assert not changes and hub.ask("/_/repos") == said


NEEDED = {  # calls that a model of the page answers, and no other
    "diffusion": {"noise", "predict"},
    "adversarial": {"discriminate"},
    "vae": {"elbo_terms", "reconstruct", "log_prob"},
}


FAULTS = [
    {"where": r"POST /api/repos/create", "status": 500},
    {"where": r"/preupload/", "status": 500},
    {"where": r"/preupload/", "cut": True},
    {"where": r"/info/lfs/objects/batch", "status": 500},
    {"where": r"PUT /lfs/", "status": 403},
    {"where": r"PUT /lfs/", "cut": True},
    {"where": r"/commit/", "status": 500},
    {"where": r"/commit/", "status": 429, "retry_after": 1},
    {"where": r"/commit/", "cut": True},
]


def test_a_failure_half_way_commits_nothing_and_the_next_call_completes_it(tmp_path):
    """Each phase of an upload fails in each way; all at once, each with a Hub of its own, for the client is patient."""

    def start(hub, number: int) -> subprocess.Popen:
        words = [sys.executable, "-m", "training.publish", "checkpoints/vae-digits", "--repo_id", "user/fault"]
        environment = {**os.environ, **hub.environment(tmp_path / str(number))}
        return subprocess.Popen(
            words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    with contextlib.ExitStack() as stack:
        hubs = [stack.enter_context(running_hub()) for _ in FAULTS]
        for hub, fault in zip(hubs, FAULTS, strict=True):
            hub.ask("/_/fault", [{**fault, "times": 100}])
        for hub, fault, process in zip(hubs, FAULTS, [start(h, i) for i, h in enumerate(hubs)], strict=True):
            _, said = process.communicate(timeout=900)
            assert process.returncode == 2 and "Traceback" not in said and "hf_write" not in said, (fault, said)
            # the client may say before it that it tries again, and how far each file came
            (last,) = re.findall(r"error: --repo_id user/fault: .*", said)
            held = hub.ask("/_/repos").get("model/user/fault")
            if held is None:
                assert "cannot be created" in last and "nothing was uploaded" in last
            else:
                assert "nothing was committed, the new repository user/fault is empty" in last, (fault, last)
                assert held["branches"]["main"] == [1, [".gitattributes"]]
            hub.ask("/_/fault", [])
        some = hubs[::4]  # each costs seconds, and all stand alike now
        for hub, process in zip(some, [start(h, i) for i, h in enumerate(some)], strict=True):
            _, said = process.communicate(timeout=900)
            assert process.returncode == 0, said
            assert "model_index.json" in hub.files("model/user/fault")


def test_tokens_that_may_not_are_told_so(hub, publish, tiny_run):
    for token, message in ((None, "no valid token"), ("hf_wrong", "no valid token"), ("hf_read", "cannot be created")):
        done = publish(tiny_run, "--repo_id", "user/not-mine", token=token)
        assert done.returncode == 2 and message in done.stderr and "hf_wrong" not in done.stderr, done.stderr
    assert "model/user/not-mine" not in hub.ask("/_/repos")


def test_a_run_publishes_itself_when_it_ends(hub, tmp_path):
    from tests.conftest import TINY

    words = ("--output_dir", tmp_path / "run", "--push_to_hub", "user/trained", *TINY)
    done = run_module("training.autoencoders.vae", *words, env=hub.environment(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert "model_index.json" in hub.files("model/user/trained")
    # where it cannot be uploaded the run is finished all the same, and the line says how to go on
    words = ("--output_dir", tmp_path / "other", "--push_to_hub", "user/other", *TINY)
    done = run_module("training.autoencoders.vae", *words, env=hub.environment(tmp_path / "home", "hf_read"))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "cannot be created" in last and f"python -m training.publish {tmp_path}/other --repo_id user/other" in last
    assert json.loads((tmp_path / "other" / "run.json").read_text())["status"] == "finished"
    assert not re.search("hf_(read|write)", (tmp_path / "other" / "run.json").read_text())
