"""Several processes: on two machines, with the whole of a network each or a part of it, they train and resume as one."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file

from tests.conftest import ROOT, TINY
from tests.training.test_loops import assert_same_weights
from training.loops.record import checkpoints_of
from training.loops.sharding import Sharding, asked_for, check_processes
from training.options import UsageError

STEPS = ("--max_steps", "80", "--save_every", "20", "--eval_every", "40", "--log_every", "10")


def machines(folder: Path, *words) -> list[subprocess.Popen]:
    """The agents of two machines, started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
    started = []
    for rank in (0, 1):
        agent = ["-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", str(rank), "--nproc_per_node", "1",
                 "--master_addr", "127.0.0.1", "--master_port", str(port)]  # fmt: skip
        line = [sys.executable, *agent, "-m", "training.autoencoders.vae", "--output_dir", str(folder), *TINY, *STEPS]
        started.append(
            subprocess.Popen(
                [*line, *map(str, words)],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def ends(agents: list[subprocess.Popen]) -> None:
    for agent in agents:
        said = agent.communicate(timeout=900)[1]
        assert agent.returncode == 0, said


def test_two_machines_train_and_resume_as_one_that_was_never_stopped(tmp_path):
    ends(machines(tmp_path / "whole"))
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert (record["processes"], record["status"]) == (2, "finished")
    broken = tmp_path / "broken"
    agents = machines(broken)
    until = time.monotonic() + 300
    while not list((broken / "checkpoints").glob("step-*40")):
        assert all(agent.poll() is None for agent in agents) and time.monotonic() < until
        time.sleep(0.01)
    # what an agent started outlives it: all of them at once, as when the machines lose their power
    for process in [one for agent in agents for one in (*psutil.Process(agent.pid).children(recursive=True), agent)]:
        process.kill()
    for agent in agents:
        agent.communicate(timeout=60)
    assert json.loads((broken / "run.json").read_text())["status"] == "running"
    ends(machines(broken, "--resume", "true"))
    assert_same_weights(tmp_path / "whole", broken)


def configs() -> list[str]:
    """The configurations of accelerate that the documentation shows."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "training.md").read_text(), re.M | re.S)
    return [block for block in blocks if "distributed_type" in block]


KINDS = ((DistributedType.MULTI_GPU, 1, 4), (DistributedType.MULTI_GPU, 2, 16), (DistributedType.FSDP, 1, 8))


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_accelerate_reads_the_configurations_of_the_documentation(tmp_path, number):
    assert len(configs()) == len(KINDS)
    (tmp_path / "accelerate.yaml").write_text(configs()[number])
    config = load_config_from_file(str(tmp_path / "accelerate.yaml"))
    assert (config.distributed_type, config.num_machines, config.num_processes) == KINDS[number]
    assert config.mixed_precision == "bf16"
    check_processes(config.distributed_type, 1)  # a kind that the loops take


def test_the_configuration_of_sharding_is_taken_from_what_accelerate_hands_over(tmp_path, monkeypatch):
    (tmp_path / "accelerate.yaml").write_text(configs()[2])
    arguments = launch_command_parser().parse_args(["--config_file", str(tmp_path / "accelerate.yaml"), "train.py"])
    arguments, *_ = _validate_launch_command(arguments)
    handed = prepare_multi_gpu_env(arguments)
    for name in [name for name in os.environ if name.startswith(("FSDP_", "ACCELERATE_"))]:
        monkeypatch.delenv(name)
    for name in [name for name in handed if name.startswith(("FSDP_", "ACCELERATE_USE_FSDP"))]:
        monkeypatch.setenv(name, handed[name])
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert asked_for() == Sharding((), True, True)
    assert "ACCELERATE_USE_FSDP" not in os.environ and asked_for() is None
    for name, value, right in (
        ("FSDP_OFFLOAD_PARAMS", "true", "fsdp_offload_params: true; here it must be false"),
        ("FSDP_SHARDING_STRATEGY", "HYBRID_SHARD", "HYBRID_SHARD; it must be FULL_SHARD or SHARD_GRAD_OP"),
    ):
        with monkeypatch.context() as changed, pytest.raises(UsageError, match=right):
            changed.setenv("ACCELERATE_USE_FSDP", "true")
            changed.setenv(name, value)
            asked_for()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert asked_for() is None  # one process has nothing to part
    with pytest.raises(UsageError, match="Linear has no blocks of the class that it would be parted by"):
        Sharding().apply(torch.nn.Linear(2, 2), torch.device("cpu"), "no")


GPT = ("--architecture", "gpt2", "--width", "32", "--num_heads", "2", "--num_layers", "2", "--context_length", "16",
       "--vocab_size", "300", "--batch_size", "4", "--gradient_accumulation_steps", "2", "--dropout", "0.1",
       "--max_steps", "12", "--eval_every", "6", "--save_every", "6", "--sample_every", "12", "--log_every", "3",
       "--lr_warmup_steps", "2")  # fmt: skip


def trained(folder: Path, sharded: bool, *words, recipe: str = "training.language.gpt") -> str:
    """What two processes say that train, each with a part of the network or with all of it."""
    asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_ACTIVATION_CHECKPOINTING": "true"} if sharded else {}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", recipe]
    done = subprocess.run(
        [*start, "--output_dir", str(folder), *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **asked},
        capture_output=True,
        text=True,
        timeout=900,
    )
    return f"{done.returncode}: {done.stderr}"


def test_a_sharded_network_learns_what_a_whole_one_learns_and_goes_on_from_its_checkpoint(tmp_path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert trained(whole, False, *GPT).startswith("0: ")
    said = trained(parted, True, *GPT)
    assert said.startswith("0: ") and "2 processes hold a part of every weight, and gather each GPT2Block" in said
    lines = [[json.loads(line) for line in (f / "log.jsonl").read_text().splitlines()] for f in (whole, parted)]
    for one, other in zip(*lines, strict=True):
        assert {**other, "tokens_per_second": 0} == pytest.approx({**one, "tokens_per_second": 0}, rel=1e-4)
    last = checkpoints_of(parted)[-1]
    for name in ("model.safetensors", f"checkpoints/{last.name}/model.safetensors"):
        one, other = (load_file(folder / name) for folder in (whole, parted))
        assert one.keys() == other.keys()
        for key in one:
            torch.testing.assert_close(other[key], one[key], rtol=1e-3, atol=1e-5)
    kept = list(load_file(parted / "model.safetensors").values())
    shutil.rmtree(last)
    (parted / "model.safetensors").unlink()
    said = trained(parted, True, *GPT, "--resume", "true")
    assert said.startswith("0: ") and "going on from step 6" in said
    assert all(map(torch.equal, load_file(parted / "model.safetensors").values(), kept))


def test_what_cannot_be_parted_is_refused_before_anything_is_written(tmp_path):
    said = trained(tmp_path / "gan", True, "--batch_size", "4", recipe="training.adversarial.gan")
    assert "two players are trained whole: configure it to MULTI_GPU" in said and not (tmp_path / "gan").exists()


def test_processes_that_do_not_work_together_are_refused(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    check_processes(DistributedType.NO, 1)
    with pytest.raises(UsageError, match="configured to DEEPSPEED; here it must be MULTI_GPU, or FSDP"):
        check_processes(DistributedType.DEEPSPEED, 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_processes(DistributedType.MULTI_CPU, 2)
    with pytest.raises(UsageError, match=r"2 processes were started, and this one knows of 1; .*--nproc_per_node 2"):
        check_processes(DistributedType.NO, 1)


def test_several_processes_that_evaluate_give_the_figures_of_one(tiny_run, tmp_path):
    words = [
        "training.evaluate",
        str(tiny_run),
        "--only",
        "kept_rows",
        "likelihood",
        "--importance_samples",
        "0",
        "--to",
    ]
    one = subprocess.run(
        [sys.executable, "-m", *words, str(tmp_path / "one")], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    two = subprocess.run([*start, *words, str(tmp_path / "two")], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert one.returncode == two.returncode == 0, two.stderr
    assert two.stdout.strip() == one.stdout.strip() and "nats" in one.stdout
    assert (tmp_path / "two" / "results.json").read_text() == (tmp_path / "one" / "results.json").read_text()
