"""Going on: a damaged run is recovered or refused in one line, and what is not its own is not taken."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.damaged_runs import OF_OPTIMIZERS, RUNS, damages, forge, made, newest, outcome
from tests.conftest import TINY, run_here
from training.autoencoders import vae
from training.classical import density
from training.loops.checkpoints import fill, read_checkpoint, save_checkpoint
from training.loops.record import checkpoints_of, read_log
from training.loops.resume import check_folder
from training.options import UsageError

KILLED, FITTED = "one network, killed", "fitted at once"
RECOVERED, REFUSED = "recovered bit-equal", "refused in one line"
NEWEST, RECORD = "checkpoints/step-00000008", "run.json"
BECOMES = {  # of a run that was killed after eight steps; `benchmarks/damaged_runs.py` tries a thousand more
    "nothing": RECOVERED,
    f"{NEWEST}/model.safetensors: cut": RECOVERED,
    f"{NEWEST}/optimizer.pt: flipped": RECOVERED,
    f"{NEWEST}/average.safetensors: grown": RECOVERED,
    f"{NEWEST}/model.safetensors: a pipe": RECOVERED,
    f"{NEWEST}/state.json: UTF-16": RECOVERED,
    f"{NEWEST}/state.json: step one more": RECOVERED,
    f"{NEWEST}/state.json: sha256 is [1, 'a']": RECOVERED,
    f"{NEWEST}: removed": RECOVERED,
    f"{NEWEST}: renamed step-abc": RECOVERED,
    f"{NEWEST}: renamed step-00000010": RECOVERED,
    f"{NEWEST}: copied as step-": RECOVERED,
    f"{NEWEST}: a file": RECOVERED,
    f"{NEWEST}: a link": RECOVERED,
    f"{NEWEST}: forged weights, NaN": RECOVERED,
    f"{NEWEST}: forged weights, a tensor less": RECOVERED,
    f"{NEWEST}: forged weights, 8-bit numbers": RECOVERED,
    f"{NEWEST}: forged facts, other options": RECOVERED,
    f"{NEWEST}: forged facts, another step": RECOVERED,
    "of another run: checkpoint as a newer one": RECOVERED,
    "of another run: checkpoint in the place of the newest": RECOVERED,
    "of another run: run.json": REFUSED,
    "of another run: checkpoints": REFUSED,
    "of another run: checkpoints/best": REFUSED,
    "checkpoints/best: forged weights, NaN": REFUSED,
    "checkpoints/best/average.safetensors: cut": REFUSED,
    "all checkpoints cut": REFUSED,
    "all checkpoints gone": REFUSED,
    "the folder of checkpoints gone": REFUSED,
    "log.jsonl: UTF-16": RECOVERED,
    "log.jsonl: other lines": RECOVERED,
    f"{RECORD}: a mark before it": REFUSED,
    f"{RECORD}: a list": REFUSED,
    f"{RECORD}: a pipe": REFUSED,
    f"{RECORD}: without options": REFUSED,
    f"{RECORD}: warnings is [1, 'a']": REFUSED,
    f"{RECORD}: step is 'text'": REFUSED,
    f"{RECORD}: without id": REFUSED,
    f"{RECORD}: --batch_size is 'text'": REFUSED,
    f"{RECORD}: --log_every is []": RECOVERED,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    made(KILLED, place)
    made(KILLED, place / "other", seed=1)
    return place


@pytest.mark.parametrize("damage", [*BECOMES, *(f"{NEWEST}: forged optimizer, {name}" for name in OF_OPTIMIZERS)])
def test_a_damaged_run_is_recovered_or_refused_in_one_line(damage, runs, tmp_path):
    folder = shutil.copytree(runs / "run", tmp_path / "run")
    dict(damages(runs / "run", runs / "other" / "run"))[damage](folder)
    became, said = outcome(KILLED, folder, runs / "whole")
    assert became == BECOMES.get(damage, RECOVERED), said
    if became == REFUSED:
        assert str(folder) in said and ("--overwrite true" in said or "resume with the same options" in said)


def test_the_lines_say_what_is_wrong_and_what_to_do(runs, tmp_path):
    """Of a checkpoint that is passed over; of a run that has none to go on from; of weights that are lost."""
    words = [*RUNS[KILLED][1], "--resume", "true", "--output_dir"]
    folder = shutil.copytree(runs / "run", tmp_path / "passed")
    forge(newest(folder), step=12)
    done = run_here("training.autoencoders.vae", *words, folder)
    assert done.returncode == 0 and "step-00000008 cannot be used (it is of step 12); going back" in done.stderr
    assert "going on from step 4" in done.stderr

    folder = shutil.copytree(runs / "run", tmp_path / "none")
    shutil.rmtree(folder / "checkpoints")
    done = run_here("training.autoencoders.vae", *words, folder)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert (
        "has no checkpoint that can be used (there is none), and its run had done 8 steps; put one back" in done.stderr
    )

    folder = shutil.copytree(runs / "run", tmp_path / "best")
    (folder / "checkpoints" / "best" / "average.safetensors").write_bytes(b"cut")
    done = run_here("training.autoencoders.vae", *words, folder)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "average.safetensors is cut short or altered; --export last does without them" in done.stderr
    done = run_here("training.autoencoders.vae", *words, folder, "--export", "last")
    assert done.returncode == 0, done.stderr
    last = load_file(newest(folder) / "average.safetensors")
    exported = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(last[f"module.{name}"], value) for name, value in exported.items())


def test_best_weights_that_are_lost_while_a_run_goes_on_are_no_reason_to_export_others(runs, tmp_path, monkeypatch):
    folder = shutil.copytree(runs / "run", tmp_path / "run")
    draw = vae.picture

    def damage(*given):  # drawn at the last step, before the best weights are looked for
        (folder / "checkpoints" / "best" / "average.safetensors").write_bytes(b"cut")
        return draw(*given)

    monkeypatch.setattr(vae, "picture", damage)
    with pytest.raises(UsageError, match=r"cannot be used .*; the last weights are saved, --resume true --export last"):
        vae.main(["--output_dir", str(folder), *RUNS[KILLED][1], "--resume", "true"])
    assert not (folder / "vae").exists() and newest(folder).name == "step-00000012"


def test_a_damaged_run_is_discarded_if_its_user_says_so(runs, tmp_path):
    folder = shutil.copytree(runs / "run", tmp_path / "run")
    (folder / "run.json").write_text("[]")
    words = ["--output_dir", str(folder), *RUNS[KILLED][1]]
    with pytest.raises(UsageError, match=r"its run is damaged, .*run\.json: no record of a run: it holds a list"):
        vae.main(words)
    vae.main([*words, "--overwrite", "true"])
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.json").write_text('{"precious": 1}')  # another program's
    with pytest.raises(UsageError, match="its run is damaged"):
        vae.main(["--output_dir", str(tmp_path / "mine"), *TINY, "--overwrite", "true"])
    assert (tmp_path / "mine" / "run.json").read_text() == '{"precious": 1}'


def test_a_run_that_had_no_checkpoint_yet_starts_over(runs, tmp_path):
    folder = shutil.copytree(runs / "run", tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "step": 0}))
    assert outcome(KILLED, folder, runs / "whole") == (RECOVERED, "")


def test_checkpoints_that_are_not_a_runs_own_are_neither_counted_nor_removed(runs, tmp_path):
    """One of another run, of a later step, must not push out the run's own."""
    folder = shutil.copytree(runs / "run", tmp_path / "run")
    shutil.copytree(newest(runs / "other" / "run"), folder / "checkpoints" / "step-00000099")
    (folder / "checkpoints" / "step-abc").mkdir()
    vae.main(["--output_dir", str(folder), *RUNS[KILLED][1], "--resume", "true", "--keep_checkpoints", "1"])
    names = sorted(p.name for p in (folder / "checkpoints").iterdir())
    assert names == ["best", "step-00000012", "step-00000099", "step-abc"]
    assert [p.name for p in checkpoints_of(folder)] == ["step-00000012", "step-00000099"]


@pytest.mark.parametrize(
    "damage", ["run.json: emptied", "run.json: status is 'text'", "run.json: --seed is []", "nothing"]
)
def test_a_fit_that_is_damaged_is_refused(damage, tmp_path):
    whole = made(FITTED, tmp_path)
    dict(damages(tmp_path / "run", tmp_path / "run"))[damage](tmp_path / "run")
    became, said = outcome(FITTED, tmp_path / "run", whole)
    assert became == (RECOVERED if damage == "nothing" else REFUSED), said
    if damage == "run.json: emptied":
        density.main(["--output_dir", str(tmp_path / "run"), *RUNS[FITTED][1], "--overwrite", "true"])


def test_a_log_keeps_the_lines_that_are_whole(tmp_path):
    good = {"step": 4, "loss": 1.5}
    lines = [
        json.dumps(good),
        "[1]",
        '{"loss": 3}',
        '{"step": "a"}',
        '{"step": 4, "loss": {}}',
        json.dumps(good),
        '{"step"',
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert read_log(tmp_path) == ([good, good], 4)  # the last is what a killed run leaves
    assert read_log(tmp_path / "nowhere") == ([], 0)


# Checkpoints

FACTS = {"run": "a", "step": 1, "processes": 1, "best": None, "options": {}}


def states_of(parts: dict) -> dict:
    return {name: part.state_dict() for name, part in parts.items()}


def test_reading_a_damaged_checkpoint_changes_nothing(tmp_path):
    parts = {"model": torch.nn.Linear(2, 2), "other": torch.nn.Linear(2, 2)}
    save_checkpoint(tmp_path / "c", states_of(parts), FACTS)
    fresh = {"model": torch.nn.Linear(2, 2), "other": torch.nn.Linear(2, 2)}
    facts, states = read_checkpoint(tmp_path / "c", fresh, "a")
    assert facts["step"] == 1 and not torch.equal(fresh["model"].weight, parts["model"].weight)
    fill(fresh, states)
    assert torch.equal(fresh["model"].weight, parts["model"].weight)
    with pytest.raises(ValueError, match="it is of another run"):
        read_checkpoint(tmp_path / "c", fresh, "b")
    with pytest.raises(ValueError, match="optimizer is missing"):
        read_checkpoint(tmp_path / "c", {**fresh, "optimizer": torch.optim.AdamW(fresh["model"].parameters())}, "a")
    (tmp_path / "c" / "other.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"other\.safetensors is cut short or altered"):
        read_checkpoint(tmp_path / "c", fresh, "a")


def test_an_optimizer_of_other_groups_is_refused(tmp_path):
    model = torch.nn.Linear(3, 2)
    parts = {"model": model, "optimizer": torch.optim.AdamW(model.parameters())}
    save_checkpoint(tmp_path / "step-1", states_of(parts), FACTS)
    groups = torch.optim.AdamW([{"params": [model.weight]}, {"params": [model.bias]}])
    with pytest.raises(ValueError, match=r"optimizer has parameters in groups of \[2\], not of \[1, 1\]"):
        read_checkpoint(tmp_path / "step-1", {"model": model, "optimizer": groups}, "a")


class Scaler:
    """What keeps numbers, like the scaler of float16."""

    def __init__(self, scale):
        self.scale = scale

    def state_dict(self) -> dict:
        return {"scale": self.scale}


def test_what_keeps_numbers_is_given_numbers(tmp_path):
    save_checkpoint(tmp_path / "good", {"scaler": {"scale": 2.0}}, FACTS)
    assert read_checkpoint(tmp_path / "good", {"scaler": Scaler(1.0)}, "a")[1] == {"scaler": {"scale": 2.0}}
    save_checkpoint(tmp_path / "bad", {"scaler": {"scale": "text"}}, FACTS)
    with pytest.raises(ValueError, match="scaler does not hold scale"):
        read_checkpoint(tmp_path / "bad", {"scaler": Scaler(1.0)}, "a")


def test_a_saved_optimizer_runs_no_code(tmp_path):
    ran = tmp_path / "ran"

    class Code:
        def __reduce__(self):
            return open, (str(ran), "w")

    model = torch.nn.Linear(3, 2)
    parts = {"model": model, "optimizer": torch.optim.AdamW(model.parameters())}
    save_checkpoint(tmp_path / "c", states_of(parts), FACTS)
    buffer = io.BytesIO()
    torch.save({"param_groups": Code()}, buffer)
    (tmp_path / "c" / "optimizer.pt").write_bytes(buffer.getvalue())
    forge(tmp_path / "c")
    with pytest.raises(ValueError, match=r"optimizer\.pt does not hold optimizer, UnpicklingError"):
        read_checkpoint(tmp_path / "c", parts, "a")
    assert not ran.exists()


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda place, mode: Path(place) != tmp_path)  # of a root user all can be
    with pytest.raises(UsageError, match=f"cannot be written, {tmp_path} is read-only or another user's"):
        check_folder(tmp_path / "deep" / "run", "density", density.DensityOptions(output_dir=str(tmp_path / "deep")))
    assert not list(tmp_path.iterdir())
