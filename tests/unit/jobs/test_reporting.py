"""What the process of a job writes while it works, and what it does when the job is not its own any more."""

from __future__ import annotations

import os
import signal
import time

import pytest

from neuronmap.jobs import JobQueue, checking, reporting
from neuronmap.jobs.checking import Checked
from neuronmap.jobs.context import FencedHub, JobContext
from neuronmap.jobs.leases import Leases
from neuronmap.jobs.logs import LOG_BYTES, home_id, job_folder, read_log, trim_log
from neuronmap.jobs.reporting import Reporter


class Lost(Exception):
    """Instead of the end of the test's own process."""


@pytest.fixture
def queue(home, monkeypatch):
    monkeypatch.setattr(checking, "check", lambda kind, args: Checked(args, "a title", "cpu", 1))
    with JobQueue.open() as opened:
        yield opened


@pytest.fixture
def leases(queue):
    return Leases(queue.database)


@pytest.fixture
def job(queue, leases):
    queue.submit("evaluate", {"sae": "a"})
    return leases.claim(home_id(), "here", "tester", lambda job, held: "")


@pytest.fixture
def reporter(leases, job):
    def lost():
        raise Lost

    made = Reporter(leases, job.id, 1, notes=["said by an earlier attempt"], on_lost=lost)
    made.start()
    yield made
    made.close()


def events(queue, kind):
    return [event.data for event in queue.events() if event.kind == kind]


def test_progress_is_written_at_most_three_times_a_second_and_its_last_word_always(queue, reporter, job):
    started = time.monotonic()
    with reporter.task("Training", 1000, "tokens") as task:
        for step in range(100):
            task.advance(10, loss=f"{step}")
            time.sleep(0.01)
    with reporter.task("Evaluating", None, "tokens") as task:
        task.advance(5)
    reporter.close()
    seconds = time.monotonic() - started
    written = events(queue, "progress")
    training = [data for data in written if data["title"] == "Training"]
    assert 2 <= len(training) <= 3 * seconds + 2
    assert (training[-1]["done"], training[-1]["total"], training[-1]["figures"]) == (1000, 1000, {"loss": "99"})
    assert written[-1]["title"] == "Evaluating"
    assert queue.get(job.id).progress.done == 5


def test_a_task_within_a_task_is_shown_while_it_lasts(queue, reporter, job, wait):
    with reporter.task("Outer", 10, "steps") as outer:
        with reporter.task("Inner", 5, "rows") as inner:
            inner.advance(3)
            wait(lambda: queue.get(job.id).progress and queue.get(job.id).progress.title == "Inner", "the inner task")
        outer.advance(1)
        wait(lambda: queue.get(job.id).progress.title == "Outer", "the outer task again")
    assert queue.get(job.id).progress is not None


def test_notes_go_to_the_table_and_keep_those_of_earlier_attempts(queue, reporter, job, wait, capsys):
    for number in range(25):
        reporter.note(f"note {number}")
    wait(lambda: "note 24" in queue.get(job.id).notes, "the notes")
    assert queue.get(job.id).notes == [f"note {number}" for number in range(5, 25)]
    assert [data["text"] for data in events(queue, "note")] == [f"note {number}" for number in range(25)]
    assert "note 24" in capsys.readouterr().err


def test_a_cancel_becomes_one_sigterm_and_a_signal_from_elsewhere_is_the_only_one(
    queue, leases, job, monkeypatch, wait
):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    reporter = Reporter(leases, job.id, 1)
    try:
        reporter.start()
        os.kill(os.getpid(), signal.SIGTERM)  # the system stops the server and all that it has started
        wait(lambda: reporter._stop_sent, "the signal to be noticed", 5)
        leases.ask_stop(job.id, 1)
        time.sleep(0.6)
        assert heard == [signal.SIGTERM]
    finally:
        reporter.close()
        signal.signal(signal.SIGTERM, before)


def test_nothing_is_published_once_the_lease_is_lost(leases, job, home):
    def lost():
        raise Lost

    reporter = Reporter(leases, job.id, 1, on_lost=lost)
    context = JobContext(job, reporter)
    folder = context.run_folder("demo")
    assert folder.parent == home / "runs"
    context.fence()
    leases.lost(job.id, 1, "believed dead", {})
    for publish in (
        context.fence,
        lambda: FencedHub(reporter).register(home / "nowhere"),
        lambda: FencedHub(reporter).attach("a", "b", home),
        lambda: context.run_folder("other"),
    ):
        with pytest.raises(Lost):
            publish()


def test_after_a_sleep_work_goes_on_only_with_a_confirmed_lease(leases, job, monkeypatch):
    def lost():
        raise Lost

    reporter = Reporter(leases, job.id, 1, on_lost=lost)
    leases.lost(job.id, 1, "believed dead", {})
    with reporter.task("Training", 10, "steps") as task:
        task.advance(1)
        monkeypatch.setattr(reporting.time, "time", lambda: 4e9)  # the lid was closed meanwhile
        with pytest.raises(Lost):
            task.advance(1)


def test_a_log_that_grows_too_long_loses_its_older_half(home):
    folder = job_folder("0123abcd")
    folder.mkdir(parents=True)
    lines = [f"line {number:07d}" for number in range(LOG_BYTES // 12)]
    (folder / "log.txt").write_text("\n".join(lines) + "\n")
    with open(folder / "log.txt", "a") as writer:
        trim_log(folder / "log.txt", LOG_BYTES // 2)
        writer.write("the newest line\n")
    kept = read_log("0123abcd")
    assert (folder / "log.txt").stat().st_size < LOG_BYTES // 2
    assert kept[0] == "[older lines were dropped]"
    assert kept[-2:] == [lines[-1], "the newest line"]
    assert set(kept[1:-1]) <= set(lines)
    assert read_log("0123abcd", tail=1) == ["the newest line"]
    assert read_log("ffffffff") == []
