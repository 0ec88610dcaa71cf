"""Real trainings as jobs: killed, cancelled, orphaned, and as good as undisturbed in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from neuronmap import SAEModelHub
from neuronmap.jobs import JobQueue, Supervisor, read_log
from neuronmap.jobs.leases import Leases
from neuronmap.jobs.reporting import LOST_CODE
from neuronmap.progress import SilentProgress


def process_of(job):
    return int(job.worker.rpartition(":")[2])


def newest(folder):
    return max(path.name for path in folder.glob("step-*"))


@pytest.mark.slow
def test_a_killed_and_an_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(
    queue, supervisor, settings, harvested, reaches, checkpoint_of, home
):
    job = queue.submit("train", {**settings, "name": "demo", "evaluate": False})
    assert (job.state, job.attempt, job.title) == ("queued", 0, "training demo")
    supervisor.start()
    checkpoint_of(job.id)
    os.kill(process_of(queue.get(job.id)), signal.SIGKILL)

    again = reaches(job.id, "running") if queue.get(job.id).attempt == 2 else None
    while again is None or again.attempt != 2 or again.worker is None:
        again = queue.get(job.id)
        assert again.state in ("queued", "running")
        time.sleep(0.02)
    said = [event.data["reason"] for event in queue.events(job=job.id) if event.kind == "state"]
    assert any("was killed (signal 9), most likely for memory" in reason for reason in said), said
    killed_at = newest(checkpoint_of(job.id))

    # The server stops in the middle of the second attempt, and another one starts.
    while not any("Resumed" in note for note in queue.get(job.id).notes):
        time.sleep(0.02)
    supervisor.stop()
    stopped = queue.get(job.id)
    assert (stopped.state, stopped.attempt, stopped.reason) == ("queued", 2, "was interrupted when the server stopped")
    assert newest(checkpoint_of(job.id)) > killed_at
    supervisor.start()
    done = reaches(job.id, "finished")

    assert done.attempt == 3
    assert done.result["weights_digest"] == harvested
    assert [entry.id for entry in SAEModelHub().list()] == ["demo"]
    assert [folder.name for folder in (home / "runs").iterdir()] == [done.run] == [done.result["run"]]
    assert sum("Resumed" in line for line in read_log(job.id)) == 2
    assert (done.progress.title, done.progress.done > 0) == ("Training", True)
    progress = [event for event in queue.events(job=job.id) if event.kind == "progress"]
    assert progress[-1].data["done"] == progress[-1].data["total"]


def test_cancelling_is_quick_and_keeps_a_checkpoint_and_the_next_training_waits(
    queue, supervisor, settings, harvested, reaches, checkpoint_of, wait
):
    longer = {**settings, "max_steps": 20_000, "evaluate": False}
    job = queue.submit("train", {**longer, "name": "first"})
    second = queue.submit("train", {**longer, "name": "second"})
    supervisor.start()
    folder = checkpoint_of(job.id)
    reason = wait(
        lambda: queue.get(second.id).reason.startswith("waits for job") and queue.get(second.id).reason, "why"
    )
    assert reason == f"waits for job {job.id} (training first): cpu is taken"
    assert queue.cancel(second.id).state == "cancelled"

    before = newest(folder)
    asked = time.monotonic()
    queue.cancel(job.id)
    stopped = reaches(job.id, "cancelled")
    assert time.monotonic() - asked < 5.0  # measured 0.3 s; room for a machine that runs other tests
    assert "everything is saved" in stopped.reason
    assert newest(folder) > before
    assert stopped.resumes
    assert SAEModelHub().list() == []
    wait(lambda: not psutil.pid_exists(process_of(stopped)), "its process to end")

    queue.resume(job.id)
    wait(lambda: any("Resumed" in note for note in queue.get(job.id).notes), "it to go on")
    queue.cancel(job.id)
    reaches(job.id, "cancelled")
    assert int(newest(folder)[5:]) > int(before[5:])


def test_a_job_outlives_its_killed_supervisor_and_the_next_one_leaves_it_alone(
    queue, settings, harvested, reaches, checkpoint_of, wait
):
    job = queue.submit("train", {**settings, "name": "demo", "evaluate": False})
    server = subprocess.Popen(
        [sys.executable, "-m", "neuronmap", "jobs", "work", "--quiet", "--no-check-memory"], stdin=subprocess.DEVNULL
    )
    checkpoint_of(job.id)
    running = queue.get(job.id)
    server.kill()
    server.wait()
    with JobQueue.open() as other:
        successor = Supervisor(other, check_memory=False, progress=SilentProgress())
        successor.start()
        wait(lambda: Leases(other.database).held()[0].supervisor == successor.name, "the job to be adopted")
        assert queue.get(job.id).worker == running.worker
        done = reaches(job.id, "finished")
        successor.stop()
    assert (done.attempt, done.worker) == (1, running.worker)
    assert [entry.id for entry in SAEModelHub().list()] == ["demo"]


def test_a_process_whose_lease_has_moved_on_stops_and_publishes_nothing(
    queue, settings, harvested, wait, checkpoint_of
):
    job = queue.submit("train", {**settings, "name": "demo", "evaluate": False})
    leases = Leases(queue.database)

    def claim():
        from neuronmap.jobs.logs import home_id

        return leases.claim(home_id(), "elsewhere", "tester", lambda job, held: "")

    claim()
    process = subprocess.Popen(
        [sys.executable, "-m", "neuronmap.jobs.run", job.id, "1"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint_of(job.id)
    leases.lost(job.id, 1, "believed dead", {})
    assert claim().attempt == 2
    assert process.wait(timeout=20) == LOST_CODE
    assert SAEModelHub().list() == []
    found = queue.get(job.id)
    assert (found.state, found.attempt, found.worker) == ("running", 2, None)


def test_an_evaluated_training_an_analysis_a_comparison_and_an_error_from_the_command_line(
    queue, settings, harvested, home
):
    from typer.testing import CliRunner

    from neuronmap.cli import app
    from neuronmap.cli.documents import DOCUMENTS
    from neuronmap.hub.pipeline import train_into_library
    from neuronmap.training import SAEConfig

    short = {**settings, "max_steps": 50}
    for name, seed in (("a", 0), ("b", 1)):
        train_into_library(SAEConfig(**short, seed=seed), name=name, evaluate=False, progress=SilentProgress())
    analysis = queue.submit("analyze", {"saes": ["a"], "tokens": 1000, "feature_map": False})
    comparison = queue.submit("compare", {"a": "a", "b": "b"})
    evaluation = queue.submit("evaluate", {"sae": "b", "tokens": 1000, "ce_tokens": 200})
    SAEModelHub().register(SAEModelHub().get("a").path, name="gone")
    broken = queue.submit("compare", {"a": "a", "b": "gone"})
    SAEModelHub().delete("gone")

    def typed(*words):
        said = CliRunner().invoke(app, ["jobs", *words, "--json"], catch_exceptions=False)
        document = json.loads(said.stdout)
        DOCUMENTS[f"jobs {words[0]}" if said.exit_code == 0 else "error"].model_validate(document)
        return document

    # Two at a time, since each needs seconds to load torch.
    worked = typed("work", "--until-idle", "--slots", "2", "--no-check-memory")
    assert worked["counts"] == {
        "analyze": {"finished": 1},
        "compare": {"finished": 1, "failed": 1},
        "evaluate": {"finished": 1},
    }
    (made,) = queue.get(analysis.id).result["analyses"]
    assert (home / "library" / "a" / "analyses" / made["analysis"] / "manifest.json").is_file()
    assert queue.get(comparison.id).result["comparison"]["primary"]
    assert "ce_score_mean" in SAEModelHub().get("b").metrics
    assert queue.get(evaluation.id).result["metrics"]["explained_variance"] > 0
    failed = typed("show", broken.id)["job"]
    assert failed["error"]["code"] == "not_in_library"
    assert failed["resumes"]
    assert "no SAE 'gone'" in "\n".join(typed("log", broken.id)["lines"])
    assert len(typed("list", "--state", "finished")["jobs"]) == 3
    assert typed("resume", broken.id)["job"]["state"] == "queued"
    assert typed("cancel", broken.id)["job"]["state"] == "cancelled"
    assert typed("prune", "--keep", "0") == {"schema": "neuronmap/jobs.prune/1", "deleted": 4}
    assert typed("show", broken.id)["error"] == "job_not_found"
