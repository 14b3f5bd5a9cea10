"""The build step: folders that load where nothing of ours is installed."""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file, save_file

import pipelines.autoencoders.modeling_vae  # noqa: F401  diffusers loads a run's model from an imported module
from pipelines.autoencoders.pipeline_vae import VAEPipeline
from tests.conftest import ROOT, run_here, run_module
from tests.contract import damages
from training.options import UsageError
from training.publishing import build, record
from training.publishing import code as published_code
from training.publishing.compile import compiled

DRAW = """
    import sys, torch
    from diffusers import DiffusionPipeline
    pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
    images = pipe(batch_size=4, generator=torch.Generator().manual_seed(7), output_type="pt").images
    assert not any(m.split(".")[0] in ("pipelines", "training") for m in sys.modules), "our code was imported"
    torch.save(images, sys.argv[2])
"""


def alone(code: str, *words, home, python: str = sys.executable, **environment: str) -> None:
    """Run code in a fresh process, in an empty folder, with an empty HF_HOME and this repository not on the path."""
    environment = {"PATH": os.environ["PATH"], "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", **environment}
    # how arithmetic is done: bits are the same where that is the same
    kernels = ("OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
    environment |= {name: os.environ[name] for name in kernels if name in os.environ}
    command = [python, "-I", "-c", textwrap.dedent(code), *map(str, words)]
    home.mkdir(exist_ok=True)
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr


def test_the_built_folder_loads_anywhere_and_draws_the_same_bits(tiny_run, portable, tmp_path):
    alone(DRAW, portable, tmp_path / "images.pt", home=tmp_path / "home")
    pipe = VAEPipeline.from_pretrained(tiny_run)
    here = pipe(batch_size=4, generator=torch.Generator().manual_seed(7), output_type="pt").images
    assert torch.equal(torch.load(tmp_path / "images.pt"), here)


def test_the_folder_holds_its_code_under_hashed_names_and_no_pickle(portable):
    index = json.loads((portable / "model_index.json").read_text())
    module, class_name = index["_class_name"]
    assert class_name == "VAEPipeline" and (portable / f"{module}.py").is_file()
    component, model_class = index["vae"]
    assert model_class == "VAEModel" and (portable / "vae" / f"{component}.py").is_file()
    content = compiled(ROOT / "pipelines" / "autoencoders" / "modeling_vae.py").encode()
    assert (portable / "vae" / f"{component}.py").read_bytes() == content
    content = compiled(ROOT / "pipelines" / "autoencoders" / "pipeline_vae.py").encode()
    assert (portable / f"{module}.py").read_bytes() == content
    assert module == f"pipeline_vae_{hashlib.sha256(content).hexdigest()[:6]}"
    endings = {p.suffix for p in portable.rglob("*") if p.is_file()}
    assert endings == {".py", ".json", ".safetensors", ".md", ".png"}


def test_the_same_inputs_give_the_same_bytes_and_no_local_path(tiny_run, portable, tmp_path):
    build.build(tiny_run, tmp_path / "again" / portable.name)
    files = sorted(p.relative_to(portable) for p in portable.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "again" / portable.name) for p in (tmp_path / "again").rglob("*") if p.is_file())  # fmt: skip
    for file in files:
        content = (portable / file).read_bytes()
        assert content == (tmp_path / "again" / portable.name / file).read_bytes()
        assert str(tiny_run.parent).encode() not in content and str(ROOT).encode() not in content


def test_two_versions_of_one_family_do_not_mix_in_one_process(tiny_run, portable, tmp_path, monkeypatch):
    """A second repository with other code of the same file names leaves the first one's pipeline alone."""
    changed = tmp_path / "pipelines"
    shutil.copytree(ROOT / "pipelines", changed)
    file = changed / "autoencoders" / "pipeline_vae.py"
    file.write_text(file.read_text().replace('likelihood = "bound"', 'likelihood = "changed"'))
    monkeypatch.setattr(published_code, "ROOT", tmp_path)
    build.build(tiny_run, tmp_path / "second")
    code = """
        import sys
        from diffusers import DiffusionPipeline
        load = lambda folder: DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
        first, second, third = load(sys.argv[1]), load(sys.argv[2]), load(sys.argv[1])
        assert [p.likelihood for p in (first, second, third)] == ["bound", "changed", "bound"]
        names = [type(p).__module__ for p in (first, second, third)]
        assert names[0] == names[2] != names[1]
    """
    alone(code, portable, tmp_path / "second", home=tmp_path / "home")


def test_a_checkpoint_keeps_weights_and_record_but_no_code_or_path(tiny_run, tmp_path):
    build.checkpoint(tiny_run, tmp_path / "half", "float16")
    files = {str(p.relative_to(tmp_path / "half")) for p in (tmp_path / "half").rglob("*") if p.is_file()}
    assert files == {"model_index.json", "run.json", "samples.png", "curve.png", "vae/config.json",
                     "vae/diffusion_pytorch_model.safetensors"}  # fmt: skip
    weights = load_file(tmp_path / "half" / "vae" / "diffusion_pytorch_model.safetensors")
    assert {v.dtype for v in weights.values()} == {torch.float16}
    record = json.loads((tmp_path / "half" / "run.json").read_text())
    assert "--output_dir" not in record["command"] and "--width 32" in record["command"]
    build.build(tmp_path / "half", tmp_path / "portable")
    alone(DRAW, tmp_path / "portable", tmp_path / "images.pt", home=tmp_path / "home")


def test_local_places_leave_the_command():
    command = "python -m training.autoencoders.vae --data_dir /my/data --output_dir='a b' --seed 3 --resume"
    assert record.command_without_local_paths(command) == "python -m training.autoencoders.vae --seed 3"


def test_what_cannot_be_built_is_refused_and_nothing_is_lost(tiny_run, tmp_path):
    precious = tmp_path / "mine"
    precious.mkdir()
    (precious / "thesis.tex").write_text("precious")
    for source, to, message in (
        (tmp_path / "nowhere", tmp_path / "to", "not a finished run or checkpoint"),
        (tiny_run, precious, "holds something else"),
        (tiny_run, tiny_run, "holds something else"),
    ):
        done = run_here("training.publish", source, "--to", to)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert (precious / "thesis.tex").read_text() == "precious" and not (tmp_path / "to").exists()


def test_a_build_that_fails_leaves_the_old_folder(tiny_run, tmp_path, monkeypatch):
    build.build(tiny_run, tmp_path / "to")
    before = {p: p.read_bytes() for p in (tmp_path / "to").rglob("*") if p.is_file()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "copy_record", full)
    with pytest.raises(UsageError, match="No space left on device"):
        build.build(tiny_run, tmp_path / "to")
    assert {p: p.read_bytes() for p in (tmp_path / "to").rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["to"]


def test_damaged_models_are_neither_published_nor_kept_nor_measured(tiny_run, tmp_path):
    """One line that names what is damaged, exit 2; nothing is written, and what was there stays."""
    shutil.copytree(tiny_run, tmp_path / "run")
    build.build(tmp_path / "run", tmp_path / "to")
    before = {p: p.read_bytes() for p in (tmp_path / "to").rglob("*") if p.is_file()}
    file, config = (tmp_path / "run" / "vae" / f for f in ("diffusion_pytorch_model.safetensors", "config.json"))
    for what, tensors in damages(load_file(file)).items():
        whole = file.read_bytes()
        save_file(tensors, file, metadata={"format": "pt"})
        for words in (("--to", tmp_path / "to"), ("--checkpoint", tmp_path / "kept")):
            done = run_here("training.publish", tmp_path / "run", *words)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), (what, done.stderr)
            assert f"{tmp_path / 'run'}: cannot be loaded" in done.stderr
        file.write_bytes(whole)
    text = config.read_text()
    for bad in (
        text[:40],
        text.replace('"num_classes"', '"classes"'),
        text.replace('"latent_dim": 4', '"latent_dim": -4'),
    ):
        config.write_text(bad)
        with pytest.raises(UsageError):
            build.build(tmp_path / "run", tmp_path / "to")
        done = run_here("training.evaluate", tmp_path / "run", "--only", "kept_rows")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), (bad, done.stderr)
    assert {p: p.read_bytes() for p in (tmp_path / "to").rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "to"]


def test_a_space_is_its_folder_and_what_all_share(tmp_path):
    place = tmp_path / "space"
    for run in (run_module, run_here):  # a second build replaces the first, with the same bytes
        assert run("training.publish", "--space", "spaces/vae", "--to", place).returncode == 0
        own = {
            f"{at}{p.name}": p.read_bytes()
            for d, at in (("vae", ""), ("kit", "kit/"))
            for p in (ROOT / "spaces" / d).iterdir()
            if p.is_file()
        }
        for file in (ROOT / "pipelines" / "decoding.py", ROOT / "training" / "data" / "toy_points.py"):
            own[f"kit/{file.name}"] = file.read_bytes()
        own = {name: content for name, content in own.items() if not name.endswith(".pyi")}
        built = {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}
        assert built == own


def test_the_gallery_holds_all_spaces_and_the_record_of_the_box(tmp_path):
    place = tmp_path / "gallery"
    assert run_here("training.publish", "--space", "spaces/gallery", "--to", place).returncode == 0
    pages = json.loads((place / "pages.json").read_text())
    assert pages == sorted(p.parent.name for p in ROOT.glob("spaces/*/app.py") if p.parent.name != "gallery")
    for p in ROOT.glob("spaces/*/*.py"):
        assert (place / ("kit" if p.parent.name == "kit" else "") / p.name).is_file()
    for name in pages:
        assert (place / f"{name}.py").read_bytes() == (ROOT / "spaces" / name / "app.py").read_bytes()
    box = {p.name for p in (place / "records").iterdir()}
    assert box == {p.parent.name for p in ROOT.glob("checkpoints/*/run.json")}
    assert not list(place.rglob("*.safetensors"))


def test_what_is_no_space_is_refused_and_nothing_is_lost(tiny_run, portable, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    for words, message in (
        (("--space", "spaces/kit", "--to", tmp_path / "x"), "not a Space; there is no app.py in it"),
        (("--space", "spaces/vae", "--to", tmp_path / "notes"), "holds something else"),
        (("--space", "spaces/vae", "--to", portable), "holds something else"),
        (("--space", "spaces/vae", "--checkpoint", tmp_path / "x"), "a Space has no weights"),
        (("--space", "spaces/vae", tiny_run, "--to", tmp_path / "x"), "one of them"),
        (("--to", tmp_path / "x"), "one of them"),
        (("--space", "spaces/vae"), "one of the three"),
        ((tiny_run, "--repo_id", "me"), "--repo_id me: must be a Hub id like user/vae-mnist"),
        (("--space", "spaces/vae", "--repo_id", "a/b", "--model_id", "x"), "--model_id x: must be a Hub id"),
        ((tiny_run, "--to", tmp_path / "x", "--private"), "--private: goes with --repo_id"),
        ((tiny_run, "--repo_id", "a/b", "--model_id", "a/c"), "goes with --space"),
        (("--all",), "needs --namespace"),
        (("--verify", tmp_path / "notes"), "holds neither code nor weights"),
    ):
        done = run_here("training.publish", *words)
        assert done.returncode == 2 and message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine" and not (tmp_path / "x").exists()


def test_what_was_loaded_by_remote_code_is_published_again(tiny_run, portable, tmp_path):
    """A portable folder, and a pipeline that was loaded from one and saved: diffusers' index of it no longer loads."""
    saved = tmp_path / "saved"
    alone(RESAVE, portable, saved, home=tmp_path / "home")
    build.checkpoint(portable, tmp_path / "kept", None)  # and a checkpoint of one names this project's modules
    assert (
        json.loads((tmp_path / "kept" / "model_index.json").read_text())["vae"][0]
        == "pipelines.autoencoders.modeling_vae"
    )
    for source in (portable, saved, tmp_path / "kept"):
        built = tmp_path / "again" / source.name / portable.name
        build.build(source, built)
        for file in ("model_index.json", "vae/config.json", "vae/diffusion_pytorch_model.safetensors"):
            assert (built / file).read_bytes() == (portable / file).read_bytes(), file
        alone(DRAW, built, tmp_path / "images.pt", home=tmp_path / "home")


RESAVE = """
    import sys
    from diffusers import DiffusionPipeline
    DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True).save_pretrained(sys.argv[2])
"""


def test_the_card_tells_the_figures_and_the_code(tiny_run, tmp_path):
    from huggingface_hub import ModelCard

    source = tmp_path / "run"
    build.checkpoint(tiny_run, source, None)
    figures = {
        "dataset": "ylecun/mnist", "nats": 86.28, "nats_standard_error": 0.22, "convention": "bound; binarised",
        "frechet_distance": 4.2, "samples": 10_000, "memorised": 0.012, "floor": {"frechet_distance": 0.1},
        "extractor": {"id": "classifier-mnist", "sha256": "abc"},
    }  # fmt: skip
    (source / "results.json").write_text(json.dumps(figures))
    build.build(source, tmp_path / "model", "me/model")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    found = {r.metric_name: (r.metric_type, r.metric_value, r.dataset_type) for r in card.data.eval_results}
    assert found["-log p(x), nats per image (bound; binarised)"] == ("nll", 86.28, "ylecun/mnist")
    assert found["Fréchet distance in the features of classifier-mnist"][1] == 4.2
    assert card.data.license == "apache-2.0" and card.data.library_name == "diffusers" and "genus" in card.data.tags
    for file in (tmp_path / "model").rglob("*.py"):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in card.text
    assert 'from_pretrained("me/model", trust_remote_code=True)' in card.text and "1.2% lie closer" in card.text
    assert "CC BY 4.0" in card.text  # of the digits that the run was trained on


def test_verify_tells_ours_from_what_was_tampered_with(portable, tmp_path):
    done = run_module("training.publish", "--verify", portable)
    assert done.returncode == 0 and "this project's code, no pickle" in done.stdout, done.stdout + done.stderr
    for name, change, message in (
        ("code", lambda p: next(p.glob("pipeline_*.py")).write_text("import os\n"), "its content is not what its name"),
        ("new", lambda p: (p / "extra.py").write_text("import os\n"), "foreign: not this project's code at any commit"),
        ("pickle", lambda p: torch.save({}, p / "weights.bin"), "may hold a pickle"),
        ("hidden", lambda p: (p / "x.json").write_bytes(pickle.dumps({})), "may hold a pickle"),
        ("cut", lambda p: _cut(p / "vae" / "diffusion_pytorch_model.safetensors"), "no safetensors file"),
    ):
        shutil.copytree(portable, tmp_path / name)
        change(tmp_path / name)
        done = run_here("training.publish", "--verify", tmp_path / name)
        assert done.returncode == 1 and message in done.stdout and "BAD" in done.stdout, done.stdout + done.stderr


def _cut(file):
    file.write_bytes(file.read_bytes()[:100])
