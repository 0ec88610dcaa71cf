"""What the queue promises, on every database."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from neuronmap.database import Database
from neuronmap.errors import AlreadyExistsError, ConfigError, InputError, JobNotFoundError, MismatchError
from neuronmap.jobs import Job, JobQueue
from neuronmap.jobs import events as events_module
from neuronmap.jobs.database import JOBS
from neuronmap.jobs.leases import LEASE_S, MOST_CRASHES, Leases
from neuronmap.jobs.logs import home_id, log_path
from neuronmap.jobs.tables import metadata

PROCESSES = 4
FAILURE = {"code": "worker_lost", "message": "lost", "hint": ""}


def fits(job: Job, held: object) -> str:
    return ""


def claim(queue: JobQueue, host: str = "here") -> Job | None:
    return Leases(queue.database).claim(home_id(), host, "tester", fits)


def change(queue: JobQueue, assignment: str, job: str) -> None:
    with queue.database.write() as connection:
        connection.execute(text(f"UPDATE jobs SET {assignment} WHERE id = :id"), {"id": job})


def submit(queue: JobQueue, count: int = 1) -> list[str]:
    return [queue.submit("evaluate", {"sae": f"sae-{index}"}).id for index in range(count)]


def in_processes(program: str, url: str, tmp_path: Path) -> list[list[str]]:
    """Lines that each of several processes prints; all of them begin at the same moment."""
    go = tmp_path / "go"
    program = f"import pathlib, time\ngo = pathlib.Path({str(go)!r})\n{program}"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, url], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        for _ in range(PROCESSES)
    ]
    go.touch()
    said = [process.communicate(timeout=60)[0].split() for process in running]
    assert [process.returncode for process in running] == [0] * PROCESSES
    return said


# --- opening -------------------------------------------------------------------------------------------------------


def test_many_processes_may_make_the_database_at_once(url: str, tmp_path: Path) -> None:
    said = in_processes(
        """
import sys
from neuronmap.jobs import JobQueue, queue
while not go.exists(): time.sleep(0.005)
with JobQueue.open(sys.argv[1]) as opened:
    print(opened.last_event())
""",
        url,
        tmp_path,
    )
    assert said == [["0"]] * PROCESSES


def test_a_database_of_a_newer_version_is_refused(queue: JobQueue, url: str) -> None:
    with queue.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(MismatchError, match=r"newer NeuronMap.*9999"):
        JobQueue.open(url)


def test_the_migrations_make_the_tables_that_the_code_uses(queue: JobQueue) -> None:
    with queue.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


# --- claiming ------------------------------------------------------------------------------------------------------


def test_of_many_processes_exactly_one_gets_each_job(queue: JobQueue, url: str, tmp_path: Path) -> None:
    wanted = submit(queue, 12)
    said = in_processes(
        f"""
import os, sys
from neuronmap.jobs import JobQueue
from neuronmap.jobs.leases import Leases
with JobQueue.open(sys.argv[1]) as opened:
    leases = Leases(opened.database)
    while not go.exists(): time.sleep(0.005)
    host = str(os.getpid() % 2)
    while (job := leases.claim({home_id()!r}, host, "tester", lambda job, held: "")) is not None:
        print(job.id)
""",
        url,
        tmp_path,
    )
    assert Counter(job for jobs in said for job in jobs) == Counter(wanted)
    assert {(job.state, job.attempt) for job in queue.list()} == {("running", 1)}


def test_jobs_are_claimed_in_the_order_of_submission(queue: JobQueue) -> None:
    wanted = submit(queue, 3)
    claimed = [claim(queue) for _ in range(4)]
    assert [job.id if job else None for job in claimed] == [*wanted, None]


def test_jobs_of_another_home_folder_are_left_to_its_own_supervisors(queue: JobQueue) -> None:
    submit(queue)
    assert Leases(queue.database).claim("another home", "here", "tester", fits) is None


def test_a_job_that_does_not_fit_says_why_and_lets_others_pass(queue: JobQueue) -> None:
    first = queue.submit("evaluate", {"sae": "large"})
    second = queue.submit("evaluate", {"sae": "small"})
    before = queue.last_event()

    def small_ones(job: Job, held: object) -> str:
        return "" if "small" in job.title else "needs more than there is"

    leases = Leases(queue.database)
    claimed = leases.claim(home_id(), "here", "tester", small_ones)
    assert claimed is not None
    assert claimed.id == second.id
    assert queue.get(first.id).reason == "needs more than there is"
    for _ in range(3):  # said once, however often it is looked at, and kept from another machine's word for a while
        leases.claim(home_id(), "here", "tester", small_ones)
        leases.claim(home_id(), "there", "tester", lambda job, held: "another reason")
    reasons = [event for event in queue.events(after=before, job=first.id) if event.kind == "state"]
    assert [event.data["reason"] for event in reasons] == ["needs more than there is"]


# --- the fence -----------------------------------------------------------------------------------------------------


def test_only_the_newest_attempt_may_write(queue: JobQueue) -> None:
    (job,) = submit(queue)
    leases = Leases(queue.database)
    claim(queue)
    assert leases.take(job, 1, "here", 1, 1.0) is not None
    assert leases.lost(job, 1, "attempt 1: was killed", FAILURE) == "queued"
    assert "it will be started again" in queue.get(job).reason
    assert claim(queue, "there").attempt == 2

    before = queue.last_event()
    assert leases.take(job, 1, "here", 1, 1.0) is None
    assert leases.look(job, 1) is None
    assert leases.beat(job, 1, [("note", {"text": "I am still here"})], run="mine") is None
    assert leases.finish(job, 1, "finished", result={"from": "the dead"}) is None
    assert leases.lost(job, 1, "again", FAILURE) is None
    assert queue.last_event() == before
    assert queue.get(job).run is None

    assert leases.beat(job, 2, run="yours") is not None
    assert leases.finish(job, 2, "finished", result={"from": "attempt 2"}) == "finished"
    found = queue.get(job)
    assert (found.state, found.attempt, found.result) == ("finished", 2, {"from": "attempt 2"})


def test_a_heartbeat_keeps_the_lease_and_a_lapsed_one_is_lost_once(queue: JobQueue) -> None:
    (job,) = submit(queue)
    leases = Leases(queue.database)
    claim(queue)
    assert leases.lost(job, 1, "too early", FAILURE, lapsed=True) is None
    change(queue, "lease_until = 1", job)
    assert leases.held()[0].lease_left < 0
    leases.beat(job, 1)
    assert leases.held()[0].lease_left == pytest.approx(LEASE_S, abs=5)
    change(queue, "lease_until = 1", job)
    assert [leases.lost(job, 1, "lapsed", FAILURE, lapsed=True) for _ in range(2)] == ["queued", None]


def test_a_job_that_loses_its_process_again_and_again_fails(queue: JobQueue) -> None:
    (job,) = submit(queue)
    states = []
    for _ in range(MOST_CRASHES):
        attempt = claim(queue).attempt
        states.append(Leases(queue.database).lost(job, attempt, "was killed", FAILURE))
    assert states == ["queued"] * (MOST_CRASHES - 1) + ["failed"]
    found = queue.get(job)
    assert found.error.code == "worker_lost"
    assert found.resumes
    assert queue.resume(job).state == "queued"
    assert claim(queue).attempt == MOST_CRASHES + 1


# --- submitting ----------------------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_job(queue: JobQueue) -> None:
    first = queue.submit("evaluate", {"sae": "a"}, idempotency_key="press of a button")
    again = queue.submit("evaluate", {"sae": "a"}, idempotency_key="press of a button")
    assert again.id == first.id
    with pytest.raises(AlreadyExistsError, match="other arguments"):
        queue.submit("evaluate", {"sae": "b"}, idempotency_key="press of a button")
    assert len(queue.list()) == 1
    with pytest.raises(ConfigError, match="1 to 200 characters"):
        queue.submit("evaluate", {"sae": "a"}, idempotency_key="")


def test_one_key_at_the_same_moment_makes_one_job(queue: JobQueue) -> None:
    found: list[str] = []
    together = threading.Barrier(6)

    def press() -> None:
        together.wait()
        found.append(queue.submit("evaluate", {"sae": "a"}, idempotency_key="k").id)

    threads = [threading.Thread(target=press) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert len(queue.list()) == 1


def test_two_trainings_of_one_name_are_refused_unless_the_second_replaces(queue: JobQueue) -> None:
    first = queue.submit("train", {"name": "demo"})
    with pytest.raises(AlreadyExistsError, match=first.id):
        queue.submit("train", {"name": "demo", "seed": 1})
    queue.submit("train", {"name": "demo", "replace": True})
    queue.cancel(first.id)
    queue.submit("train", {"name": "other"})


# --- looking -------------------------------------------------------------------------------------------------------


def test_listings_are_paged_by_number_and_filtered(queue: JobQueue) -> None:
    wanted = submit(queue, 5)
    queue.cancel(wanted[1])
    first = queue.list(limit=2)
    second = queue.list(limit=2, before=first[-1].number)
    assert [job.id for job in [*first, *second]] == wanted[:0:-1]
    assert [job.id for job in queue.list(state="cancelled")] == [wanted[1]]
    assert queue.list(kind="train") == []
    assert queue.counts() == {"evaluate": {"queued": 4, "cancelled": 1}}
    with pytest.raises(ConfigError, match="there are queued"):
        queue.list(state="asleep")


def test_a_job_is_found_by_the_beginning_of_its_id(queue: JobQueue) -> None:
    (job,) = submit(queue)
    assert queue.get(job[:5]).id == job
    for wrong in ("", "xyz", "%"):
        with pytest.raises(JobNotFoundError):
            queue.get(wrong)


def test_what_a_newer_version_writes_does_not_break_a_listing(queue: JobQueue) -> None:
    (job,) = submit(queue)
    change(queue, "state = 'hibernating', kind = 'dream', progress = '{\"phase\": 3}', error = '[1]'", job)
    (found,) = queue.list()
    assert (found.state, found.kind, found.progress, found.error, found.resumes) == (
        "hibernating",
        "dream",
        None,
        None,
        False,
    )
    assert queue.cancel(job).state == "hibernating"
    with queue.database.write() as connection:
        connection.execute(text("ALTER TABLE jobs ADD COLUMN mood TEXT"))
    assert queue.list()[0].id == job


# --- events --------------------------------------------------------------------------------------------------------


def test_events_come_in_order_and_from_where_one_left_off(queue: JobQueue) -> None:
    first, second = submit(queue, 2)
    claim(queue)
    leases = Leases(queue.database)
    for step in range(3):
        leases.beat(first, 1, [("progress", {"done": step}), ("note", {"text": f"step {step}"})])
    leases.finish(first, 1, "finished", result={})

    everything = queue.events()
    assert [event.id for event in everything] == sorted({event.id for event in everything})
    mine = queue.events(job=first)
    assert [event.data.get("state") for event in mine if event.kind == "state"] == ["queued", "running", "finished"]
    assert [event.data["done"] for event in mine if event.kind == "progress"] == [0, 1, 2]
    middle = mine[3].id
    assert queue.events(after=middle, job=first) == mine[4:]
    assert queue.events(after=queue.last_event()) == []
    paged, last = [], 0
    while page := queue.events(after=last, limit=2):
        paged += page
        last = page[-1].id
    assert paged == everything
    assert {event.job for event in everything} == {first, second}


def test_a_reader_never_misses_an_event_of_many_writers(queue: JobQueue) -> None:
    """Numbers that are given out in one order and seen in another would be skipped by whoever reads on from the last."""
    leases = Leases(queue.database)
    wanted = submit(queue, 4)
    while claim(queue):
        pass
    start = queue.last_event()

    def write(job: str) -> None:
        for step in range(25):
            leases.beat(job, 1, [("note", {"text": str(step)})])

    threads = [threading.Thread(target=write, args=(job,)) for job in wanted]
    for thread in threads:
        thread.start()
    seen, last = [], start
    while len(seen) < 100:
        alive = any(thread.is_alive() for thread in threads)
        page = queue.events(after=last)
        seen += page
        last = page[-1].id if page else last
        if not alive and not page:
            break
    for thread in threads:
        thread.join()
    assert Counter(event.job for event in seen) == Counter(dict.fromkeys(wanted, 25))


# --- cancelling, resuming, tidying -----------------------------------------------------------------------------------


def test_cancelling_says_what_happens_in_each_state(queue: JobQueue) -> None:
    waiting, running = submit(queue, 2)[::-1]
    claim(queue)
    assert queue.cancel(waiting).state == "cancelled"
    assert queue.cancel(running).state == "cancelling"
    leases = Leases(queue.database)
    assert leases.look(running, 1).asked
    assert leases.finish(running, 1, "interrupted", "stopped after step 7") == "cancelled"
    found = queue.cancel(running)
    assert (found.state, found.reason, found.resumes) == ("cancelled", "stopped after step 7", True)
    assert found.finished is not None


def test_work_that_is_done_when_the_cancel_arrives_is_finished(queue: JobQueue) -> None:
    (job,) = submit(queue)
    claim(queue)
    queue.cancel(job)
    assert Leases(queue.database).finish(job, 1, "finished", result={}) == "finished"


def test_only_what_stopped_can_be_resumed(queue: JobQueue) -> None:
    (job,) = submit(queue)
    with pytest.raises(InputError, match="is queued and cannot be resumed"):
        queue.resume(job)
    claim(queue)
    error = {"code": "diverged", "message": "Loss is not finite.", "hint": ""}
    Leases(queue.database).finish(job, 1, "failed", error=error)
    with pytest.raises(InputError, match="Loss is not finite"):
        queue.resume(job)


def test_pruning_deletes_old_ended_jobs_with_events_and_log_and_nothing_else(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, young, waiting = submit(queue, 3)
    for job in (old, young):
        queue.cancel(job)
        log_path(job).parent.mkdir(parents=True)
        log_path(job).write_text("hello\n")
    change(queue, "finished_at = 1", old)
    assert queue.prune() == 1
    assert {job.id for job in queue.list()} == {young, waiting}
    assert queue.events(job=old) == []
    assert (log_path(old).exists(), log_path(young).exists()) == (False, True)
    newest = queue.last_event()
    monkeypatch.setattr(events_module, "EVENTS_KEPT", 1)
    assert queue.prune(keep=0) == 1
    assert [job.id for job in queue.list()] == [waiting]
    assert len(queue.events()) == 1
    submit(queue)
    assert queue.last_event() > newest, "numbers of events are not used again"


def test_the_events_of_progress_go_an_hour_after_the_end(queue: JobQueue) -> None:
    (job,) = submit(queue)
    claim(queue)
    leases = Leases(queue.database)
    leases.beat(job, 1, [("progress", {"done": 1}), ("note", {"text": "one"})])
    leases.finish(job, 1, "finished", result={})
    queue.prune()
    assert {event.kind for event in queue.events(job=job)} == {"state", "progress", "note"}
    change(queue, "finished_at = finished_at - 4000", job)
    queue.prune()
    assert {event.kind for event in queue.events(job=job)} == {"state", "note"}


def test_a_password_is_not_shown(queue: JobQueue) -> None:
    url = queue.database.url
    if url.get_backend_name() == "sqlite":
        assert str(queue.database).endswith("jobs.sqlite3")
    else:
        database = Database(JOBS, url.set(password="open sesame"))
        assert "sesame" not in str(database)
        database.close()
    assert os.environ.get("NEURONMAP_DATABASE") is None
