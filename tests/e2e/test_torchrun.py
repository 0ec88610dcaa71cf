"""Training as torchrun starts it: stopped by a signal to torchrun, resumed, one SAE in the library, one voice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from neuronmap import SAEModelHub
from neuronmap.cli.documents import DOCUMENTS
from neuronmap.training import TrainingRun
from neuronmap.training.checkpoint import list_checkpoints

pytestmark = pytest.mark.slow
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "neuronmap"]


def started(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [*TORCHRUN, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_stopped_and_resumed_by_two_processes(train_arguments):
    more = ["architecture=topk", "num_epochs=30", "max_steps=150", "history_every_steps=1", "device=cpu"]
    process = started(*train_arguments, *(part for setting in more for part in ("--set", setting)), "--name", "many")
    deadline = time.monotonic() + 180
    while (
        not (runs := TrainingRun.list()) or not runs[0].history_path.exists() or not runs[0].history_path.stat().st_size
    ):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)  # to torchrun, which tells its processes
    out, said = process.communicate(timeout=120)
    assert out == ""
    (run,) = TrainingRun.list()
    assert run.read()["status"] == "interrupted"
    stopped = run.read()["step"]
    assert 0 < stopped < 150
    assert list_checkpoints(run.checkpoints)[-1][0] == stopped
    assert said.count("Plan: topk") == said.count("2 processes, each with 64 of") == 1
    assert said.count(f"after step {stopped} of 150; everything is saved") == 1
    assert SAEModelHub().list() == []

    shared = ["--feature-ranks", "2"]  # from now on each has half of the features
    process = started("sae", "train", "--resume", run.folder.name, *shared, "--json")
    out, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert said.count("2 processes, each with 128 of a batch's 128 activations and") == 1
    document = json.loads(out)  # one document, of one process
    DOCUMENTS["sae train"].model_validate(document)
    assert said.count(f"at step {stopped} of 150") == 1
    assert [entry.id for entry in SAEModelHub().list()] == ["many"]
    assert [row["step"] for row in map(json.loads, run.history_path.read_text().splitlines())] == list(range(1, 151))
