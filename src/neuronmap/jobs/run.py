"""``python -m neuronmap.jobs.run JOB ATTEMPT``: the process of one job. A supervisor starts it; it needs none to go on.

It keeps its own lease, and ends by writing what came of the job. Exit codes: 0 finished, 1 failed, 130 stopped, 75 the job is not its
own any more.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DBAPIError

from neuronmap.allocator import keep_freed_memory
from neuronmap.database import Database, database_url
from neuronmap.errors import Interrupted, MemoryExhaustedError, NeuronMapError
from neuronmap.jobs.context import JobContext
from neuronmap.jobs.database import JOBS
from neuronmap.jobs.job import Job
from neuronmap.jobs.kinds import get_kind
from neuronmap.jobs.leases import LEASE_S, Leases
from neuronmap.jobs.logs import log_path
from neuronmap.jobs.machine import hostname, own_start
from neuronmap.jobs.reporting import LOST_CODE, Reporter

__all__ = ["main"]

_CODES = {"finished": 0, "failed": 1}
_STOPPED_CODE = 130


@dataclass(frozen=True)
class _End:
    """What came of an attempt."""

    state: str
    reason: str = ""
    result: dict[str, Any] | None = None
    error: dict[str, str] | None = None


def main(job_id: str, attempt: int) -> int:
    """Run one attempt of a job.

    Returns:
        The exit code.
    """
    faulthandler.enable()
    leases = Leases(Database(JOBS, database_url(JOBS)))
    job = leases.take(job_id, attempt, hostname(), os.getpid(), own_start())
    if job is None:
        sys.stderr.write(f"Attempt {attempt} of job {job_id} is not the newest.\n")
        return LOST_CODE
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    reporter = Reporter(leases, job.id, attempt, notes=job.notes, log=log_path(job.id))
    try:
        reporter.start()
        reporter.note(f"Attempt {attempt} of job {job.id} ({job.title}) runs as process {os.getpid()}.")
        end = _work(job, reporter)
    except (KeyboardInterrupt, Interrupted) as error:
        end = _End("interrupted", getattr(error, "message", "") or "Stopped before anything was to be saved.")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # the end is written whatever comes now
    sys.stderr.write(f"{end.state}: {end.reason or (end.error or {}).get('message', '')}\n")
    reporter.close()
    return _record(leases, job.id, attempt, end)


def _work(job: Job, reporter: Reporter) -> _End:
    """The work itself, with every way in which it may fail."""
    try:
        kind = get_kind(job.kind)
        result = kind.run(kind.args.from_dict(job.args), JobContext(job, reporter))
        return _End("finished", result=_plain(result))
    except Interrupted:
        raise
    except NeuronMapError as error:
        return _failed(error)
    except MemoryError as error:
        return _failed(MemoryExhaustedError(f"The process ran out of memory: {error}.", hint="Lower batch_size."))
    except Exception as error:  # noqa: BLE001 - whatever it is, the job has to end, and say so
        traceback.print_exc()
        message = f"A defect of NeuronMap, or of a library: {type(error).__name__}: {error}"
        return _failed(NeuronMapError(message, hint=f"Its traceback: neuronmap jobs log {job.id}"))


def _failed(error: NeuronMapError) -> _End:
    return _End("failed", error.message, error={"code": error.code, "message": error.message, "hint": error.hint})


def _plain(result: dict[str, Any]) -> dict[str, Any]:
    """As JSON keeps it; what is not a number becomes null."""
    plain: dict[str, Any] = json.loads(json.dumps(result), parse_constant=lambda _: None)
    return plain


def _record(leases: Leases, job: str, attempt: int, end: _End) -> int:
    """Write the end; wait for a database that is away as long as nobody else can have taken the job."""
    patience = time.monotonic() + LEASE_S
    while True:
        try:
            state = leases.finish(job, attempt, end.state, end.reason, result=end.result, error=end.error)
        except DBAPIError:
            if time.monotonic() > patience:
                raise
            time.sleep(1.0)
            continue
        return LOST_CODE if state is None else _CODES.get(state, _STOPPED_CODE)


if __name__ == "__main__":
    keep_freed_memory()  # the process is ours
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
