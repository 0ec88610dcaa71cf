"""A run is watched by reading its folder: what is new, what is half written, what is missing, and no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from neuronmap import SAEConfig, SAETrainer
from neuronmap.errors import DamagedError, InputError
from neuronmap.progress import SilentProgress
from neuronmap.training.run import TrainingRun
from neuronmap.training.watching import watch_run


@pytest.fixture
def folder(small: dict[str, Any], rows: torch.Tensor) -> Path:
    config = SAEConfig(**{**small, "eval_every_steps": 8})
    return SAETrainer(config, progress=SilentProgress()).train(rows).run.folder


def test_everything_of_a_run_is_read(folder: Path) -> None:
    seen = watch_run(folder.name)
    assert (seen.status, seen.step, seen.steps, seen.bundle) == ("finished", 48, 48, folder / "sae")
    assert seen.config["hidden_dim"] == 48
    assert seen.plan["d_sae"] == 48
    assert seen.plan["batch_rows"] == 256
    assert seen.plan["seconds"] > 0
    assert [row["step"] for row in seen.snapshots] == [8, 16, 24, 32, 40, 48]
    assert seen.snapshot is not None
    assert seen.snapshot["step"] == 48
    assert seen.history[-1]["step"] == 48
    json.dumps([seen.config, seen.plan, seen.history, seen.snapshots, seen.snapshot])


def test_only_what_is_new_is_given(folder: Path) -> None:
    seen = watch_run(folder, after=32)
    assert [row["step"] for row in seen.snapshots] == [40, 48]
    assert min(row["step"] for row in seen.history) == 33
    assert watch_run(folder, after=seen.step).history == ()


def test_a_line_that_is_being_written_is_left_for_later(folder: Path) -> None:
    rows = len(watch_run(folder).history)
    for name in ("history.jsonl", "snapshots.jsonl"):
        with open(folder / name, "ab") as file:
            file.write(b'{"step": 49, "loss": 0.\xe2')
    seen = watch_run(folder)
    assert len(seen.history) == rows
    assert seen.step == 48


def test_a_run_that_has_only_begun(small_config: SAEConfig) -> None:
    run = TrainingRun.create(small_config, "some-text")
    seen = watch_run(run)
    assert (seen.status, seen.step, seen.steps, seen.source) == ("preparing", 0, None, "some-text")
    assert (seen.plan, seen.history, seen.snapshots, seen.snapshot) == ({}, (), (), None)


def test_what_is_not_there_is_said(home: Path) -> None:
    with pytest.raises(InputError, match="no training run nothing"):
        watch_run("nothing")
    (home / "runs" / "bad").mkdir(parents=True)
    (home / "runs" / "bad" / "run.json").write_text("{")
    with pytest.raises(DamagedError):
        watch_run("bad")


def test_no_torch_is_loaded(folder: Path) -> None:
    code = (
        "import sys\nfrom neuronmap.training.watching import watch_run\n"
        "assert watch_run(sys.argv[1]).snapshot\nsys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=120)
