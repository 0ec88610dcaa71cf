"""``Supervisor``: starts the processes of jobs, watches them, and decides what becomes of those that end without a word.

Any number of supervisors may share a database: a claim is won by one. The processes do not depend on theirs: when a server is killed
they go on, keep their leases and write their ends; the next supervisor of that machine finds them alive and leaves them alone.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import DBAPIError

from neuronmap import paths
from neuronmap import progress as progress_module
from neuronmap.errors import ConfigError, WorkerLostError
from neuronmap.jobs.admission import why_it_waits
from neuronmap.jobs.database import JOBS
from neuronmap.jobs.job import Job
from neuronmap.jobs.leases import Held, Leases
from neuronmap.jobs.logs import home_id, log_path
from neuronmap.jobs.machine import (
    Capacity,
    capacity,
    find_process,
    hostname,
    is_alive,
    kill_process,
    own_start,
)
from neuronmap.jobs.queue import JobQueue
from neuronmap.jobs.tables import jobs
from neuronmap.progress import Progress

__all__ = ["GRACE_S", "Supervisor"]

GRACE_S: Final = 30.0
"""Seconds that a process asked to stop has to save, before it is killed."""
_POLL_S = 0.25
_PRUNE_S = 3600.0
PATIENCE_S = 5.0
"""Seconds that a lapsed lease is looked at before its process is given up."""
_SILENT_S = 8.0
"""A process that is not our own child is looked for only when its heartbeat is this old."""


@dataclass
class _Child:
    """A process that we have started."""

    attempt: int
    process: subprocess.Popen[bytes]
    idle_since: float | None = None
    """When its job was first seen to have ended while it still ran."""


class Supervisor:
    """Runs jobs of one home folder on this machine.

    Args:
        queue: where they come from; shared with whoever made it.
        slots: jobs at a time on one device.
        grace_s: seconds to save in, after the request to stop; then the process is killed.
        check_memory: start a job only when the free memory of its device covers its estimate.
        progress: where it says what it does.
        machine: tells devices and their memory.

    Example:
        >>> supervisor = Supervisor(JobQueue.open())                                            # doctest: +SKIP
        >>> supervisor.start()                                                                  # doctest: +SKIP
        >>> supervisor.stop()                                                                   # doctest: +SKIP
    """

    def __init__(
        self,
        queue: JobQueue,
        *,
        slots: int = 1,
        grace_s: float = GRACE_S,
        check_memory: bool = True,
        progress: Progress | None = None,
        machine: Callable[[], Capacity] = capacity,
    ) -> None:
        if slots < 1:
            raise ConfigError(f"slots = {slots}: at least one job at a time has to be allowed.")
        self.queue, self.slots, self.grace_s, self.check_memory = queue, slots, grace_s, check_memory
        self._progress = progress or progress_module.default()
        self._machine = machine
        self._leases = Leases(queue.database)
        self._host, self._home = hostname(), home_id()
        self.name = f"{self._host}:{os.getpid()}:{own_start():.0f}"
        self._children: dict[str, _Child] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pruned = -_PRUNE_S
        self._away = False
        self._lapsed: dict[tuple[str, int], float] = {}

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, in a thread. Jobs that were interrupted on this machine when a server stopped are taken up again."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self.run, name="neuronmap-supervisor", daemon=True)
            self._thread.start()

    def stop(self, *, leave_running: bool = False) -> None:
        """End. Its jobs are asked to stop, save, and go back into the queue: the next supervisor goes on with them.

        Args:
            leave_running: leave their processes at work instead; they finish by themselves.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if not leave_running:
            self._stop_jobs()

    def run(self, *, until_idle: bool = False) -> None:
        """Work in this thread until :meth:`stop` is called.

        Args:
            until_idle: return when nothing waits and nothing runs.
        """
        self._take_up()
        while not self._stop.is_set():
            try:
                busy = self.tick()
                self._away = False
            except DBAPIError as error:
                busy = True
                if not self._away:
                    self._progress.note(f"The database of jobs cannot be reached; trying again: {error.orig}")
                self._away = True
            except Exception:  # noqa: BLE001 - one job that cannot be handled must not leave all others without a supervisor
                busy = True
                self._progress.note(f"A defect of NeuronMap in the supervisor; it goes on.\n{traceback.format_exc()}")
            if until_idle and not busy:
                return
            self._stop.wait(_POLL_S)

    def request_stop(self) -> None:
        """Let :meth:`run` return soon; for signal handlers."""
        self._stop.set()

    def tick(self) -> bool:
        """One round: settle what has ended, watch what runs, start what fits. True while there is something to do."""
        self._reap()
        held = self._leases.held()
        for one in held:
            self._watch(one)
        here = [one for one in held if one.host == self._host]
        self._end_idle({one.job.id for one in held})
        started = self._start_jobs()
        if time.monotonic() - self._pruned >= _PRUNE_S:
            self._pruned = time.monotonic()
            self.queue.prune()
        return started or bool(self._children) or bool(here) or self._leases.waiting(self._home) > 0

    # --- starting ----------------------------------------------------------------------------------------------------

    def _start_jobs(self) -> bool:
        started = False
        while (job := self._leases.claim(self._home, self._host, self.name, self._fits)) is not None:
            self._spawn(job)
            started = True
        return started

    def _fits(self, job: Job, held: Sequence[Held]) -> str:
        machine = self._machine()
        return why_it_waits(job, held, machine, self._host, slots=self.slots, check_memory=self.check_memory)

    def _command(self, job: Job) -> list[str]:
        return [sys.executable, "-P", "-m", "neuronmap.jobs.run", job.id, str(job.attempt)]

    def _spawn(self, job: Job) -> None:
        """Start the process of a claimed job: in a session of its own, so that Ctrl-C in a terminal does not reach it."""
        log = log_path(job.id)
        paths.new_folder(log.parent)
        url = self.queue.database.url.render_as_string(hide_password=False)
        environment = {
            **os.environ,
            JOBS.variable: url,
            "NEURONMAP_HOME": str(paths.home().absolute()),
            "PYTHONUNBUFFERED": "1",
        }
        with open(log, "ab") as output:
            try:
                process = subprocess.Popen(
                    self._command(job),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    cwd=log.parent,
                    env=environment,
                )
            except OSError as error:
                self._lost(job.id, job.attempt, f"its process could not be started ({error})")
                return
        self._children[job.id] = _Child(job.attempt, process)
        self._progress.note(f"Job {job.id} ({job.title}): attempt {job.attempt} is process {process.pid}.")

    # --- watching ----------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Processes of ours that have ended."""
        for job, child in list(self._children.items()):
            code = child.process.poll()
            if code is None:
                continue
            del self._children[job]
            if not self._lost(job, child.attempt, _how_it_ended(child, code)):
                self._progress.note(f"Job {job}: {self.queue.get(job).state}.")

    def _end_idle(self, held: set[str]) -> None:
        """Processes of ours that have written their end and do not go: they would keep their memory."""
        for job, child in self._children.items():
            if job in held:
                continue
            child.idle_since = child.idle_since or time.monotonic()
            if time.monotonic() - child.idle_since > self.grace_s:
                child.process.kill()

    def _watch(self, one: Held) -> None:
        """A job that has, or should have, a process."""
        mine = one.job.id in self._children
        lapsed = self._has_lapsed(one)
        if one.host != self._host:
            if lapsed:
                self._lost(one.job.id, one.job.attempt, f"{one.host} has not been heard of", lapsed=True)
            return
        if not mine and one.supervisor != self.name and not _lives(one.supervisor):
            self._leases.adopt(one.job.id, one.job.attempt, self.name)
        if one.stopping is not None and one.stopping > self.grace_s:
            self._kill(one, f"was killed after {self.grace_s:.0f} s, in which it did not stop", lapsed=False)
        elif lapsed:
            self._kill(one, "was killed because it had stopped answering", lapsed=True)
        elif (
            not mine
            and one.pid is not None
            and (one.job.heartbeat_age or 0.0) > _SILENT_S
            and find_process(one.pid, one.pid_started, one.job.id) is None
        ):
            self._lost(one.job.id, one.job.attempt, f"process {one.pid} was killed, or the machine restarted")

    def _has_lapsed(self, one: Held) -> bool:
        """Whether a lease has run out, and stayed so for a while that we were awake: a machine that slept gets a chance to go on."""
        key = (one.job.id, one.job.attempt)
        if one.lease_left >= 0:
            self._lapsed.pop(key, None)
            return False
        return time.monotonic() - self._lapsed.setdefault(key, time.monotonic()) >= PATIENCE_S

    def _kill(self, one: Held, why: str, *, lapsed: bool) -> None:
        """Make sure that a process on this machine is gone before anything else happens to its job."""
        child = self._children.get(one.job.id)
        process = find_process(child.process.pid if child else one.pid, one.pid_started, one.job.id)
        if child is not None and one.pid_started is None:
            child.process.kill()  # it has not even reported
        elif process is not None and not kill_process(process):
            return  # the kernel has it; at the next round again
        elif process is None and child is None:
            why = f"process {one.pid} is gone" if one.pid is not None else "its process never reported"
        if child is not None:
            child.process.wait()
            del self._children[one.job.id]
        self._lost(one.job.id, one.job.attempt, why, lapsed=lapsed)

    def _lost(self, job: str, attempt: int, why: str, *, lapsed: bool = False) -> bool:
        """Record an end without a word; False if the process had written its end."""
        why = f"attempt {attempt}: {why}"
        error = WorkerLostError(
            f"The process of job {job} was lost; {why}.",
            hint=f"neuronmap jobs log {job} shows its last words; with less memory (batch_size, hidden_dim) it may go through.",
        )
        failure = {"code": error.code, "message": error.message, "hint": error.hint}
        state = self._leases.lost(job, attempt, why, failure, lapsed=lapsed)
        if state is not None:
            self._progress.note(f"Job {job}: {why}; it is {state}.")
        return state is not None

    # --- stopping and starting again ---------------------------------------------------------------------------------

    def _take_up(self) -> None:
        mine = (jobs.c.host == self._host, jobs.c.home == self._home)
        for job in self._leases.requeue("was interrupted when a server stopped; goes on now", *mine):
            self._progress.note(f"Job {job} was interrupted when a server stopped; it goes on.")

    def _stop_jobs(self) -> None:
        """Ask, wait, kill; then put what was interrupted back into the queue."""
        mine = jobs.c.supervisor == self.name
        waiting = self._leases.held(mine)
        if waiting:
            self._progress.note(
                f"Stopping {len(waiting)} job(s): each saves, and goes on with the next server or `neuronmap jobs work`."
            )
        for one in waiting:
            self._leases.ask_stop(one.job.id, one.job.attempt)
        deadline = time.monotonic() + self.grace_s
        while (left := self._leases.held(mine)) and time.monotonic() < deadline:
            time.sleep(0.05)
        for one in left:
            self._kill(one, f"was killed after {self.grace_s:.0f} s, in which it did not stop", lapsed=False)
        for child in self._children.values():
            try:
                child.process.wait(max(deadline - time.monotonic(), 1.0))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
        self._reap()
        self._leases.requeue("was interrupted when the server stopped", jobs.c.id.in_([one.job.id for one in waiting]))


def _lives(supervisor: str) -> bool:
    """Whether a supervisor of this machine is still there, by its name (host:pid:start)."""
    found = re.fullmatch(r".*:(\d+):(\d+)", supervisor)
    return found is not None and is_alive(int(found[1]), float(found[2]))


def _how_it_ended(child: _Child, code: int) -> str:
    """The end of a process in words."""
    pid = child.process.pid
    if code == -signal.SIGKILL:
        return f"process {pid} was killed (signal 9), most likely for memory"
    if code < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f"process {pid} was ended by {names.get(-code, f'signal {-code}')}"
    return f"process {pid} ended with exit code {code} and without a result"
