"""The loop: what a run leaves, how it resumes, stops and fails."""

import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.autoencoders.pipeline_vae import VAEPipeline
from tests.conftest import ROOT, TINY, run_module
from training.autoencoders import vae
from training.data.images import load_data
from training.loops.run import Run
from training.loops.run_options import RunOptions
from training.loops.single import train
from training.loops.weights import WeightAverage, learning_rate_at
from training.options import Stopped, UsageError, parse
from training.publishing.build import build


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")


def assert_same_weights(a: Path, b: Path) -> None:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def tiny(folder: Path, *words) -> Path:
    vae.main(["--output_dir", str(folder), *TINY, *map(str, words)])
    return folder


def test_a_run_leaves_a_pipeline_a_record_and_pictures(tiny_run):
    record = json.loads((tiny_run / "run.json").read_text())
    assert (record["family"], record["status"], record["step"]) == ("vae", "finished", 12)
    assert record["command"].startswith("python -m training.autoencoders.vae --output_dir")
    assert record["parameters"] == sum(v.numel() for v in weights(tiny_run).values())
    for name in ("samples.png", "curve.png"):
        assert (tiny_run / name).read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in sorted((tiny_run / "checkpoints").iterdir())] == ["best", "step-00000008", "step-00000012"]
    lines = log_of(tiny_run)
    assert [line["step"] for line in lines if "loss" in line] == [4, 8, 12]
    assert [line["step"] for line in lines if "validation" in line] == [4, 8, 12]
    assert {"loss", "reconstruction", "kl", "images_per_second", "lr"} <= lines[0].keys()
    pipe = VAEPipeline.from_pretrained(tiny_run)
    assert len(pipe(batch_size=2).images) == 2


def test_the_best_weights_by_validation_are_exported(tiny_run):
    best = min((line for line in log_of(tiny_run) if "validation" in line), key=lambda line: line["validation"])
    facts = json.loads((tiny_run / "checkpoints" / "best" / "state.json").read_text())
    assert facts["best"] == {"step": best["step"], "validation": best["validation"]}
    kept = load_file(tiny_run / "checkpoints" / "best" / "average.safetensors")
    assert all(torch.equal(kept[k], v) for k, v in weights(tiny_run).items())


def test_training_lowers_the_validation_loss(tmp_path):
    folder = tiny(
        tmp_path / "run", "--max_steps", 300, "--eval_every", 100, "--kl_warmup_steps", 10, "--report_to", "tensorboard"
    )
    curve = [line["validation"] for line in log_of(folder) if "validation" in line]
    assert curve[-1] < curve[0] - 1
    assert list(folder.rglob("events.out.tfevents*"))


def test_a_handful_of_own_images_trains_without_validation(tmp_path):
    from PIL import Image

    for i in range(9):
        (tmp_path / "mine" / "cat").mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * i).save(tmp_path / "mine" / "cat" / f"{i}.png")
    folder = tiny(tmp_path / "run", "--dataset", tmp_path / "mine", "--batch_size", 4, "--output", "logistic")
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished" and record["dataset"]["id"] == "mine"


def test_a_streamed_set_trains_and_says_what_resuming_cannot_restore(tmp_path, capsys):
    import numpy as np
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as Picture

    pictures = [Picture.fromarray(p) for p in np.random.default_rng(0).integers(0, 256, (400, 8, 8), dtype=np.uint8)]
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    rows = {"image": pictures, "label": [i % 2 for i in range(400)]}
    (tmp_path / "set").mkdir()
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / "train-0.parquet")
    words = ("--dataset", tmp_path / "set", "--streaming", "true", "--conditional", "true")
    folder = tiny(tmp_path / "run", *words)
    shutil.rmtree(folder / "checkpoints" / "step-00000012")
    tiny(folder, *words, "--resume", "true")
    assert "the weights will differ" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path):
    first, second, third = (tiny(tmp_path / n, "--seed", s) for n, s in (("a", 1), ("b", 1), ("c", 2)))
    assert_same_weights(first, second)
    with pytest.raises(AssertionError):
        assert_same_weights(first, third)


def test_how_often_a_run_logs_saves_and_draws_does_not_change_it(tmp_path):
    often = tiny(tmp_path / "a")
    seldom = tiny(tmp_path / "b", "--log_every", 5, "--save_every", 12, "--sample_every", 7)
    assert_same_weights(often, seldom)


def deterministic_run(folder: Path, *words) -> dict[str, torch.Tensor]:
    """A run on points of the plane whose loss draws no noise."""
    options = parse(vae.VAEOptions, ["--dataset", "moons", "--output", "gaussian", "--output_dir", str(folder), *TINY,
                                     "--export", "last", *map(str, words)])  # fmt: skip
    run, source = Run(vae.DECLARATION, options), load_data(options)
    model = vae.build_model(options, source)

    def loss(model, batch, step):
        x = batch["x"]
        mean, _ = model.encode(x)
        return {"loss": -model.output_log_prob(x, mean).mean()}

    train(run, source, model, loss, lambda m: VAEPipeline(m), vae.picture)
    return weights(folder)


def test_accumulation_equals_a_larger_batch(tmp_path):
    whole = deterministic_run(tmp_path / "a", "--batch_size", 64)
    parts = deterministic_run(tmp_path / "b", "--batch_size", 8, "--gradient_accumulation_steps", 8)
    other = deterministic_run(tmp_path / "c", "--batch_size", 8)
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], atol=2e-5, rtol=1e-4)
    assert any((whole[name] - other[name]).abs().max() > 1e-4 for name in whole)


def test_the_average_is_the_exponential_moving_average():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    average, expected = WeightAverage(model, 0.9), None
    for n in range(20):
        with torch.no_grad():
            for p in model.parameters():
                p.normal_()
            model[1].running_mean.fill_(n)
        average.update()
        now = [p.detach().clone() for p in model.parameters()]
        decay = min(0.9, (1 + n) / (10 + n))
        expected = (
            now if expected is None else [decay * e + (1 - decay) * p for e, p in zip(expected, now, strict=True)]
        )
    for p, e in zip(average.module.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), e)
    assert average.module[1].running_mean.tolist() == [19, 19]  # buffers are copied


def test_the_learning_rate_rises_and_falls():
    options = RunOptions(max_steps=100, lr_warmup_steps=10)
    rates = [learning_rate_at(step, options) for step in range(100)]
    assert rates[0] == 0.1 and max(rates) == rates[10] == 1.0 and rates[-1] < 1e-3
    assert rates[55] == pytest.approx(0.5)
    assert learning_rate_at(99, RunOptions(max_steps=100, lr_scheduler="constant")) == 1.0


# Stopping and going on


def command(folder: Path, *words, processes: int = 1) -> list[str]:
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    long = ("--max_steps", "400", "--save_every", "20", "--eval_every", "100", "--log_every", "10")
    return [*start, "training.autoencoders.vae", "--output_dir", str(folder), *TINY, *long, *map(str, words)]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def finish(folder: Path, *words, processes: int = 1) -> str:
    done = subprocess.run(
        command(folder, *words, processes=processes),
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_resumed_it_ends_with_the_weights_of_an_unbroken_run(tmp_path, processes):
    finish(tmp_path / "whole", processes=processes)
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert record["processes"] == processes
    broken = tmp_path / "broken"
    with subprocess.Popen(command(broken, processes=processes), cwd=ROOT, env=ENVIRONMENT, start_new_session=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # fmt: skip
        wait_for_step(broken, 100, process)
        os.killpg(process.pid, signal.SIGKILL)
    assert json.loads((broken / "run.json").read_text())["status"] == "running"
    said = finish(broken, "--resume", "true", processes=processes)
    assert "going on from step" in said
    assert_same_weights(tmp_path / "whole", broken)
    assert [line["step"] for line in log_of(broken) if "loss" in line] == list(range(10, 401, 10))


def wait_for_step(folder: Path, step: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + 300
    while not list((folder / "checkpoints").glob(f"step-*{step}")):
        assert process.poll() is None and time.monotonic() < until, "the run ended before it could be killed"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, number):
    folder = tmp_path / "run"
    with subprocess.Popen(command(folder), cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        wait_for_step(folder, 40, process)
        process.send_signal(number)
        said = process.communicate(timeout=300)[1]
    assert process.returncode == 128 + number
    step = int(re.search(r"stopped and saved at step (\d+); to go on: python -m training.autoencoders.vae", said)[1])
    assert (folder / "checkpoints" / f"step-{step:08d}").is_dir() and "Traceback" not in said
    assert said.rstrip().endswith("--resume true")


KILLED_WHILE_EXPORTING = """
import os, signal, sys
left, real = int(sys.argv.pop(1)), os.replace

def replace(source, to):
    global left
    if ".export.tmp" in str(source):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
    return real(source, to)

os.replace = replace
from training.autoencoders import vae
vae.main()
"""


@pytest.mark.parametrize("part", [1, 2])
def test_killed_while_it_exports_it_is_unfinished_and_goes_on_to_the_same_weights(tmp_path, part, tiny_run):
    """Before each part of the pipeline takes its place: nothing, and the networks without the index."""
    folder = tmp_path / "run"
    words = ["--output_dir", str(folder), *TINY]
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_EXPORTING, str(part), *words], cwd=ROOT, env=ENVIRONMENT, timeout=600
    )
    assert done.returncode == -signal.SIGKILL and (folder / ".export.tmp").exists()
    assert json.loads((folder / "run.json").read_text())["status"] == "running"
    with pytest.raises(UsageError, match="it is an unfinished run"):
        build(folder, tmp_path / "built")
    tiny(folder, "--resume", "true")
    assert_same_weights(folder, tiny_run)
    assert not (folder / ".export.tmp").exists()


def test_a_finished_run_resumed_changes_nothing(tmp_path):
    folder = tiny(tmp_path / "run")
    before = weights(folder)
    tiny(folder, "--resume", "true")
    assert all(torch.equal(before[k], v) for k, v in weights(folder).items())


# What goes wrong


def test_a_loss_that_is_not_finite_stops_with_step_term_and_checkpoint(tmp_path):
    options = parse(vae.VAEOptions, ["--output_dir", str(tmp_path / "run"), *TINY])
    run, source = Run(vae.DECLARATION, options), load_data(options)
    model = vae.build_model(options, source)

    def loss(model, batch, step):
        total, reconstruction, kl = model(batch["x"], return_dict=False)
        kl = kl.mean() / (0.0 if step == 5 else 1.0)  # infinite at the sixth step
        return {"loss": total + kl, "reconstruction": reconstruction.mean(), "kl": kl}

    with pytest.raises(Stopped, match=r"step 6: kl is inf; the last good checkpoint is .*step-00000004") as stopped:
        train(run, source, model, loss, lambda m: VAEPipeline(m), vae.picture)
    assert stopped.value.code == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "not finite"
    kept = load_file(tmp_path / "run" / "checkpoints" / "step-00000004" / "model.safetensors")
    assert all(v.isfinite().all() for v in kept.values())


def test_a_full_disk_stops_in_one_line_and_keeps_the_last_checkpoint(tmp_path):
    folder = tiny(tmp_path / "run", "--max_steps", 12)
    size = (folder / "checkpoints" / "step-00000012" / "optimizer.pt").stat().st_size
    fresh = tmp_path / "fresh"
    words = [sys.executable, "-m", "training.autoencoders.vae", "--output_dir", str(fresh), *TINY, "--width", "34"]

    def limit():  # no file may grow to the size of an optimizer's state: writing fails as on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1000, size - 1000))

    done = subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 2, done.stderr
    error = done.stderr.strip().splitlines()[-1]
    assert re.search(r"error: --output_dir .* cannot be written .*; nothing was kept", error)
    assert "Traceback" not in done.stderr
    assert not list((fresh / "checkpoints").glob("*step*"))  # nothing written half


def test_a_collapsed_posterior_is_warned_of(tmp_path, capsys):
    folder = tiny(tmp_path / "run", "--max_steps", 200, "--beta", 1000, "--kl_warmup_steps", 0, "--eval_every", 100)
    assert "posterior collapse: 0 of 4 latent units are active" in capsys.readouterr().err
    assert any("posterior collapse" in w["message"] for w in json.loads((folder / "run.json").read_text())["warnings"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch_size", "0"], "--batch_size is 0; it must be at least 1"),
        (["--batch_size", str(10**9)], "--batch_size is 1000000000; it must be at most 1285"),
        (["--learning_rate", "nan"], "--learning_rate is nan; it must be a finite number"),
        (["--learning_rate", "0"], "--learning_rate is 0.0; it must be above 0.0"),
        (["--adam_beta2", "1"], "--adam_beta2 is 1.0; it must be below 1.0"),
        (["--encoder_width", "8"], "encoder_width is 8, but only network 'conv'"),
        (["--data_dir", "somewhere"], "--data_dir somewhere: digits is embedded"),
        (["--learning_rate", "fast"], "--learning_rate: invalid float value: 'fast'"),
        (["--max_step", "5"], "--max_step is not an option; did you mean --max_steps?"),
        (["--dataset", "mnits"], "--dataset mnits: not known"),
        (["--network", "transformer"], "--network is 'transformer'; it must be one of mlp, conv"),
        (["--dataset", "moons"], "models binary data, but the support is 'real'"),
        (["--resume", "true"], "--resume: there is no run in"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: there is no such file"),
        (["--init_from", "nowhere/nothing"], "--init_from nowhere/nothing: neither a folder nor a repository"),
        (["--report_to", "wandb"], "--report_to wandb: not installed; pip install wandb"),
    ],
)
def test_bad_options_are_one_line(tmp_path, words, message):
    with pytest.raises(UsageError) as error:
        tiny(tmp_path / "run", *words)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()  # the corrected command may use the folder


def test_bad_options_end_with_exit_code_2(tmp_path):
    done = run_module("training.autoencoders.vae", "--output_dir", tmp_path / "run", "--batch_size", "0")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == ["error: --batch_size is 0; it must be at least 1"]


def test_a_folder_with_a_run_is_not_overwritten_by_accident(tmp_path):
    folder = tiny(tmp_path / "run")
    before = weights(folder)
    with pytest.raises(UsageError, match=r"holds a finished run; --resume true goes on with it, --overwrite true"):
        tiny(folder)
    with pytest.raises(UsageError, match=r"--learning_rate is 0.5, but the run in .* has 0.001"):
        tiny(folder, "--resume", "true", "--learning_rate", 0.5)
    assert all(torch.equal(before[k], v) for k, v in weights(folder).items())
    tiny(folder, "--overwrite", "true", "--seed", 9)
    assert json.loads((folder / "run.json").read_text())["options"]["seed"] == 9


def test_another_familys_folder_and_a_strangers_folder_are_refused(tmp_path):
    folder = tiny(tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "family": "gan"}))
    with pytest.raises(UsageError, match="holds a run of gan, not of vae"):
        tiny(folder, "--resume", "true")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="holds files that are no run"):
        tiny(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_init_from_starts_with_the_weights_of_a_run(tmp_path, tiny_run):
    start = tiny(
        tmp_path / "run", "--init_from", tiny_run, "--max_steps", 1, "--learning_rate", 1e-12, "--export", "last"
    )
    for name, value in weights(tiny_run).items():
        torch.testing.assert_close(weights(start)[name], value, atol=1e-6, rtol=0)
    with pytest.raises(UsageError, match="its weights do not fit this model"):
        tiny(tmp_path / "other", "--init_from", tiny_run, "--width", 33)


def test_the_learning_rate_stays_finite_for_any_warm_up():
    for warmup in (0, 5, 100, 1_000):
        options = RunOptions(max_steps=100, lr_warmup_steps=warmup)
        assert all(math.isfinite(learning_rate_at(step, options)) for step in range(100))
