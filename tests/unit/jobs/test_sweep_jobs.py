"""Sweeps as jobs: stopped, killed, taken up again, and as good as undisturbed in the end."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psutil
import pytest

from neuronmap import SAEModelHub
from neuronmap.errors import AlreadyExistsError, ConfigError
from neuronmap.hub.sweeping import sweep_into_library
from neuronmap.jobs.checking import check
from neuronmap.progress import SilentProgress
from neuronmap.training import SweepConfig, SweepRun


@pytest.fixture
def sweep_args(settings: dict[str, Any]) -> dict[str, Any]:
    base = {name: value for name, value in settings.items() if name not in ("k", "learning_rate")}
    base |= {"max_steps": 500, "checkpoint_every_steps": 50, "name": "many-{k}-{learning_rate}"}
    return {"base": base, "grid": {"k": [4, 8], "learning_rate": [0.001, 0.003]}, "evaluate": False}


NAMES = ["many-4-0.001", "many-4-0.003", "many-8-0.001", "many-8-0.003"]


def digests() -> dict[str, str | None]:
    return {entry.id: entry.weights_digest for entry in SAEModelHub().list()}


@pytest.mark.slow
def test_a_killed_and_a_stopped_sweep_ends_with_the_weights_of_an_undisturbed_one(
    queue, supervisor, sweep_args, harvested, reaches, wait, home
):
    del harvested
    job = queue.submit("sweep", sweep_args)
    assert job.title == "sweep of 4 SAEs on tiny-gpt2"
    supervisor.start()

    def at(step: int) -> Any:
        return wait(lambda: len(list(home.glob(f"runs/*/*/checkpoints/step-{step:08d}"))) == 4, f"step {step}")

    at(50)
    os.kill(int(queue.get(job.id).worker.rpartition(":")[2]), signal.SIGKILL)
    while queue.get(job.id).attempt < 2 or not any("Resumed" in note for note in queue.get(job.id).notes):
        assert queue.get(job.id).state in ("queued", "running")
        time.sleep(0.02)
    process = int(queue.get(job.id).worker.rpartition(":")[2])
    queue.cancel(job.id)
    stopped = reaches(job.id, "cancelled")
    members = SweepRun.open(stopped.run).members()
    assert {(one.status, one.sae) for one in members} == {("interrupted", None)}
    assert digests() == {}
    wait(lambda: not psutil.pid_exists(process), "the process to be gone")
    queue.resume(job.id)
    done = reaches(job.id, "finished")
    assert done.result["saes"] == NAMES
    assert done.result["warnings"] == []
    found = digests()
    for name in NAMES:
        SAEModelHub().delete(name)
    again = SweepConfig(base=sweep_args["base"], grid=sweep_args["grid"])
    sweep_into_library(again, evaluate=False, progress=SilentProgress())
    assert digests() == found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"base": {"corpus": None}}, "needs 'corpus' in the base"),
        ({"member": [{"model_name": "gpt2"}]}, "model_name must be the same for all members"),
        ({"grid": {"kk": [1]}}, r"\[grid\] has 'kk'"),
        ({"base": {"name": "../{k}-{learning_rate}"}}, "cannot be an id"),
    ],
)
def test_a_sweep_that_would_end_at_once_is_not_queued(queue, sweep_args, change, says):
    for table, fields in change.items():
        sweep_args[table] = {**sweep_args[table], **fields} if isinstance(fields, dict) else fields
    with pytest.raises(ConfigError, match=says):
        queue.submit("sweep", sweep_args)
    assert queue.list() == []


def test_a_taken_name_is_refused_before_it_is_queued(queue, sweep_args, trained, home):
    import shutil

    shutil.copytree(trained[0] / "library", home / "library")
    SAEModelHub().register(SAEModelHub().get("undisturbed").path, name=NAMES[2])
    with pytest.raises(AlreadyExistsError, match=NAMES[2]):
        queue.submit("sweep", sweep_args)


def test_its_memory_is_that_of_all_weights_and_of_one_gradient(sweep_args):
    wide = {**sweep_args["base"], "hidden_dim": 1 << 18, "input_dim": 32}
    one, four = (
        check(
            "sweep", {"base": wide | {"name": "x-{seed}"}, "grid": {"k": [4], "seed": list(range(count))}}
        ).memory_bytes
        for count in (1, 4)
    )
    weights = 4 * 2 * 32 * (1 << 18)
    assert four - one == pytest.approx(3 * 3 * weights, rel=0.01)
