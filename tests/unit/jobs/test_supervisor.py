"""When a supervisor starts a job, why it does not, and what it says of a process that ends without a word."""

from __future__ import annotations

import os
import sys
import time

import pytest

from neuronmap.errors import ConfigError
from neuronmap.jobs import JobQueue, Supervisor, checking
from neuronmap.jobs import supervisor as supervisor_module
from neuronmap.jobs.checking import Checked
from neuronmap.jobs.leases import MOST_CRASHES, Leases
from neuronmap.jobs.machine import Capacity, find_process, hostname, own_start, resolve_device
from neuronmap.progress import SilentProgress

GIB = 1 << 30
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
SLEEPS = "import time; time.sleep(60)"


class Scripted(Supervisor):
    """Its processes run a script instead of the job; the job's id stands on their command line, as it must."""

    script = SLEEPS

    def _command(self, job):
        return [sys.executable, "-c", self.script, "neuronmap.jobs.run", job.id]


@pytest.fixture
def queue(home, monkeypatch):
    def unchecked(kind, args):
        return Checked(args, f"{kind} {args['sae']}", args.get("device", "cpu"), int(args.get("gib", 1) * GIB))

    monkeypatch.setattr(checking, "check", unchecked)
    with JobQueue.open() as opened:
        yield opened


@pytest.fixture
def supervise(queue):
    made = []

    def make(free, total=None, script=SLEEPS, **keywords):
        one = Scripted(
            queue, machine=lambda: Capacity(free, total or free), progress=SilentProgress(), grace_s=0.2, **keywords
        )
        one.script = script
        made.append(one)
        return one

    yield make
    for one in made:
        one.stop()


def submit(queue, name, **args):
    return queue.submit("evaluate", {"sae": name, **args}).id


def test_a_job_waits_for_memory_and_says_how_much(queue, supervise):
    job = submit(queue, "large", gib=12)
    free = {"cpu": int(3.1 * GIB)}
    one = supervise(free, {"cpu": 16 * GIB})
    one.tick()
    assert queue.get(job).reason == "needs about 12.0 GiB, 3.1 GiB are free"
    free["cpu"] = 13 * GIB
    one.tick()
    assert queue.get(job).state == "running"


def test_a_job_that_can_never_fit_says_so(queue, supervise):
    job, other = submit(queue, "huge", gib=64), submit(queue, "gpu", device="cuda:0")
    supervise({"cpu": 8 * GIB}).tick()
    assert queue.get(job).reason == "needs about 64.0 GiB on cpu, which has 8.0 GiB in all"
    assert queue.get(other).reason == f"needs cuda:0, which {hostname()} does not have (cpu)"


def test_memory_that_a_starting_job_has_yet_to_take_is_not_free(queue, supervise):
    first, second = submit(queue, "first", gib=5), submit(queue, "second", gib=4)
    supervise({"cpu": 8 * GIB}, slots=2).tick()
    assert queue.get(first).state == "running"
    assert queue.get(second).reason == "needs about 4.0 GiB, 3.0 GiB are free"


def test_one_job_runs_on_each_device_and_the_next_says_for_which_it_waits(queue, supervise):
    on_cpu, waits, on_gpu = submit(queue, "a"), submit(queue, "b"), submit(queue, "c", device="cuda:1")
    supervise({"cpu": 8 * GIB, "cuda:1": 8 * GIB}).tick()
    assert [queue.get(job).state for job in (on_cpu, waits, on_gpu)] == ["running", "queued", "running"]
    assert queue.get(waits).reason == f"waits for job {on_cpu} (evaluate a): cpu is taken"


def test_no_slots_are_refused(queue):
    with pytest.raises(ConfigError, match="slots = 0"):
        Supervisor(queue, slots=0, progress=SilentProgress())


def test_a_process_that_is_killed_again_and_again_ends_its_job_in_words(queue, supervise):
    job = submit(queue, "fat")
    one = supervise({"cpu": 8 * GIB}, script=KILLED)
    one.run(until_idle=True)
    found = queue.get(job)
    assert (found.state, found.attempt, found.error.code) == ("failed", MOST_CRASHES, "worker_lost")
    assert "was killed (signal 9), most likely for memory" in found.error.message
    assert f"neuronmap jobs log {job}" in found.error.hint


def test_a_process_that_does_not_stop_is_killed_after_the_grace(queue, supervise, wait):
    job = submit(queue, "deaf")
    one = supervise({"cpu": 8 * GIB})
    one.tick()
    process = one._children[job].process
    queue.cancel(job)
    wait(lambda: one.tick() and queue.get(job).state == "cancelled", "the job to be cancelled", 20)
    assert process.poll() == -9
    assert "was killed after 0 s, in which it did not stop" in queue.get(job).reason


def test_a_process_that_has_written_its_end_and_does_not_go_is_ended(queue, supervise, wait):
    job = submit(queue, "clings")
    one = supervise({"cpu": 8 * GIB})
    one.tick()
    process = one._children[job].process
    Leases(queue.database).finish(job, 1, "finished", result={})
    wait(lambda: not one.tick(), "its process to be ended", 20)
    assert process.poll() == -9
    assert (queue.get(job).state, queue.get(job).attempt) == ("finished", 1)


def test_a_process_that_stopped_answering_is_killed_before_the_next_attempt(queue, supervise, monkeypatch, wait):
    monkeypatch.setattr(supervisor_module, "PATIENCE_S", 0.2)
    job = submit(queue, "frozen")
    one = supervise({"cpu": 8 * GIB})
    one.tick()
    process = one._children[job].process
    Leases(queue.database).take(job, 1, hostname(), process.pid, time.time())
    with queue.database.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET lease_until = 1")
    one.tick()
    assert process.poll() is None, "a lease that has only just lapsed gets a moment"
    wait(lambda: one.tick() and queue.get(job).attempt == 2, "the second attempt", 20)
    assert process.poll() == -9
    reasons = [event.data["reason"] for event in queue.events(job=job)]
    assert any("it had stopped answering" in reason for reason in reasons)


def test_a_stopped_supervisor_puts_its_jobs_back_and_a_new_one_takes_up_what_was_interrupted(queue, supervise):
    job = submit(queue, "a")
    one = supervise({"cpu": 8 * GIB})
    one.tick()
    one.stop()
    assert queue.get(job).state == "queued"
    one.tick()
    attempt = queue.get(job).attempt
    Leases(queue.database).finish(job, attempt, "interrupted", "stopped by the system")
    assert queue.get(job).resumes
    again = supervise({"cpu": 0})
    again._take_up()
    assert queue.get(job).reason == "was interrupted when a server stopped; goes on now"


def test_a_stranger_with_the_number_of_a_job_s_process_is_not_taken_for_it():
    assert find_process(os.getpid(), own_start(), "ab12cd34") is None
    assert find_process(os.getpid(), own_start() - 100, "ab12cd34") is None
    assert find_process(None, None, "ab12cd34") is None


def test_devices_are_resolved_without_torch(monkeypatch):
    from neuronmap.jobs import machine

    monkeypatch.setattr(machine, "_gpus", lambda: [(1, 2), (1, 2)])
    assert [resolve_device(name) for name in (None, "auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:0",
        "cuda:0",
        "cuda:0",
        "cuda:1",
        "cpu",
    ]
    monkeypatch.setattr(machine, "_gpus", list)
    assert resolve_device("auto") in ("cpu", "mps")
