"""Several machines: two agents of torchrun on loopback, each with a process, train and resume as one."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

from tests.conftest import ROOT, TINY
from tests.training.test_loops import assert_same_weights
from training.loops.run import check_processes
from training.options import UsageError

STEPS = ("--max_steps", "200", "--save_every", "20", "--eval_every", "100", "--log_every", "10")


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
    while not list((broken / "checkpoints").glob("step-*60")):
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


@pytest.mark.parametrize("number", range(2))
def test_accelerate_reads_the_configurations_of_the_documentation(tmp_path, number):
    assert len(configs()) == 2
    (tmp_path / "accelerate.yaml").write_text(configs()[number])
    config = load_config_from_file(str(tmp_path / "accelerate.yaml"))
    assert config.distributed_type == DistributedType.MULTI_GPU and config.mixed_precision == "bf16"
    assert (config.num_machines, config.num_processes) == ((1, 4), (2, 16))[number]
    check_processes(config.distributed_type, 1)  # a kind that the loops take


def test_processes_that_hold_parts_or_do_not_know_of_each_other_are_refused(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    check_processes(DistributedType.NO, 1)
    for kind in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        with pytest.raises(UsageError, match=f"configured to {kind.value}, which parts the network"):
            check_processes(kind, 2)
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
