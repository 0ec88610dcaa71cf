"""``neuronmap jobs``: work that goes on in the background: look at it, stop it, go on with it, and do it."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from neuronmap.jobs import Job, JobQueue

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job; a unique beginning is enough.")]
_LOOK_S = 0.1


@app.command("list")
@command_output
def list_jobs(
    state: Annotated[
        str | None, typer.Option(help="Only queued, running, cancelling, cancelled, finished, failed or interrupted.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only train, analyze, evaluate, compare or track.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most, 1 to 200.")] = 50,
    before: Annotated[
        int | None, typer.Option(help="The page after this number; --json gives each job's number.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List jobs, the newest first, with what each does or why it waits.

    Jobs are submitted in the browser (`neuronmap serve`) or in Python (`neuronmap.jobs.JobQueue`). They outlive the server: each has
    its own process, and one that was stopped goes on from what it saved.

    Examples:

        neuronmap jobs list

        neuronmap jobs list --state failed --json
    """
    output = Output(as_json, quiet)
    with _queue() as queue:
        found = queue.list(state=state, kind=kind, before=before, limit=limit)
        known = bool(found) or bool(queue.list(limit=1))
    rows = [[job.id, job.title, job.state, _doing(job), job.created[:16].replace("T", " ")] for job in found]
    output.show(
        table("", ["job", "what", "state", "", "submitted (UTC)"], rows)
        if found
        else "No job fits."
        if known
        else "There are no jobs."
    )
    output.document({"schema": "neuronmap/jobs.list/1", "jobs": [job.model_dump(mode="json") for job in found]})


@app.command("show")
@command_output
def show(job: JobArgument, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Show one job: state, progress, last notes, result or error.

    Example:

        neuronmap jobs show 3f2a
    """
    output = Output(as_json, quiet)
    with _queue() as queue:
        found = queue.get(job)
    output.show(*_report(found))
    output.document(_document("show", found))


@app.command("cancel")
@command_output
def cancel(
    job: JobArgument,
    wait: Annotated[float, typer.Option(help="Seconds to wait until it has stopped; 0 only asks.")] = 10.0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Cancel a job. A training saves a checkpoint first, within two seconds as a rule, and can be resumed.

    Example:

        neuronmap jobs cancel 3f2a
    """
    output = Output(as_json, quiet)
    with _queue() as queue:
        before = queue.get(job)
        found = queue.cancel(before.id)
        deadline = time.monotonic() + wait
        while found.state == "cancelling" and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
            found = queue.get(found.id)
    again = f" neuronmap jobs resume {found.id} goes on with it." if found.resumes else ""
    output.show(
        f"Job {found.id} ({escape(found.title)}) had ended before: {found.state}."
        if before.finished is not None
        else f"Job {found.id} ({escape(found.title)}) is {found.state}.{again}"
    )
    output.document(_document("cancel", found))


@app.command("resume")
@command_output
def resume(job: JobArgument, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Put a cancelled, failed or interrupted job back into the queue; it goes on from what it has saved.

    A training goes on bit for bit from its newest checkpoint, an analysis where its pass stopped; evaluations and comparisons
    begin anew.

    Example:

        neuronmap jobs resume 3f2a
    """
    output = Output(as_json, quiet)
    with _queue() as queue:
        found = queue.resume(job)
    output.show(f"Job {found.id} ({escape(found.title)}) is {found.state}; a server or `neuronmap jobs work` runs it.")
    output.document(_document("resume", found))


@app.command("log")
@command_output
def log(
    job: JobArgument,
    tail: Annotated[int | None, typer.Option(help="Only that many last lines.", min=1)] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing until the job has ended.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print what a job's processes have said: notes, progress every 30 seconds, warnings, tracebacks.

    Examples:

        neuronmap jobs log 3f2a --tail 20

        neuronmap jobs log 3f2a --follow
    """
    from neuronmap.errors import ConfigError
    from neuronmap.jobs import read_log

    if follow and as_json:
        raise ConfigError("--follow prints lines as they come, which --json does not.", hint="Leave one of them out.")
    output = Output(as_json, quiet)
    with _queue() as queue:
        found = queue.get(job)
        lines = read_log(found.id, tail=tail)
        output.show(*(escape(line) for line in lines) if lines else ["Nothing was said yet."])
        seen = len(read_log(found.id))
        while follow and found.finished is None:
            time.sleep(5 * _LOOK_S)
            found, said = queue.get(found.id), read_log(found.id)
            output.show(*(escape(line) for line in said[min(seen, len(said)) :]))
            seen = len(said)
    output.document({"schema": "neuronmap/jobs.log/1", "job": found.id, "lines": lines})


@app.command("work")
@command_output
def work(
    slots: Annotated[int, typer.Option(help="Jobs at a time on one device.", min=1)] = 1,
    check_memory: Annotated[bool, typer.Option(help="Start a job only when free memory covers its estimate.")] = True,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End when nothing waits and nothing runs.")] = False,
    leave_running: Annotated[
        bool, typer.Option("--leave-running", help="At the end, leave the processes of jobs at work.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run jobs, as `neuronmap serve` does, without the server; on one machine, or on several with one PostgreSQL.

    Each job gets its own process. By default one runs on each device at a time, and only when the free memory covers its estimate;
    `neuronmap jobs list` says why the others wait. Ctrl-C (or SIGTERM) lets the running ones save and puts them back into the queue.
    If this process is killed, they go on by themselves.

    Several machines: set NEURONMAP_DATABASE=postgresql+psycopg://user@host/name on each, and NEURONMAP_HOME to a folder
    that they share.

    Examples:

        neuronmap jobs work

        neuronmap jobs work --until-idle
    """
    from neuronmap.jobs import Supervisor

    output = Output(as_json, quiet)
    with _queue() as queue:
        supervisor = Supervisor(queue, slots=slots, check_memory=check_memory, progress=output.progress())
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for number in before:
                signal.signal(number, lambda *_: supervisor.request_stop())
            supervisor.run(until_idle=until_idle)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            supervisor.stop(leave_running=leave_running)
        counts = queue.counts()
    output.document({"schema": "neuronmap/jobs.work/1", "counts": counts})


@app.command("prune")
@command_output
def prune(
    days: Annotated[float, typer.Option(help="Delete jobs that ended longer ago than this.", min=0.0)] = 30.0,
    keep: Annotated[int, typer.Option(help="Ended jobs to keep at most, the newest ones.", min=0)] = 1000,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Delete ended jobs that are old, with their logs. SAEs, analyses and training runs stay.

    Servers and workers do this once an hour with the defaults.

    Example:

        neuronmap jobs prune --days 7
    """
    output = Output(as_json, quiet)
    with _queue() as queue:
        gone = queue.prune(days=days, keep=keep)
    output.show(f"Deleted {gone} ended job{'' if gone == 1 else 's'}.")
    output.document({"schema": "neuronmap/jobs.prune/1", "deleted": gone})


def _queue() -> JobQueue:
    from neuronmap.jobs import JobQueue

    return JobQueue.open()


def _document(command: str, job: Job) -> dict[str, object]:
    return {"schema": f"neuronmap/jobs.{command}/1", "job": job.model_dump(mode="json")}


def _doing(job: Job) -> str:
    """Why it waits, how far it is, or why it failed, on one line."""
    if job.state == "queued":
        return job.reason
    if job.error is not None:
        return job.error.message
    if job.finished is None and job.progress is not None:
        done = job.progress
        of = f" of {done.total:,}" if done.total is not None else ""
        left = f", {done.seconds_left / 60:.0f} min left" if done.seconds_left is not None else ""
        return f"{done.title}: {done.done:,}{of} {done.unit}{left}"
    return job.reason


def _report(job: Job) -> list[RenderableType]:
    """One job for people."""
    facts = [
        ["state", f"{job.state}{f': {job.reason}' if job.reason else ''}"],
        ["kind", job.kind],
        ["attempt", str(job.attempt)],
        ["needs", f"about {job.memory_bytes / 2**30:.1f} GiB on {job.device}"],
        ["submitted", job.created],
        ["started", job.started or "not yet"],
        ["ended", job.finished or "not yet"],
        ["process", job.worker or "none"],
        ["run", job.run or "none"],
        *([["progress", _doing(job)]] if job.progress is not None and job.finished is None else []),
        *([["error", f"{job.error.message} {job.error.hint}".strip()]] if job.error is not None else []),
        *([["result", ", ".join(f"{key} {value}" for key, value in job.result.items() if isinstance(value, str))]] if job.result else []),
    ]  # fmt: skip
    parts: list[RenderableType] = [table(f"Job {job.id}: {job.title}", ["", ""], facts)]
    if job.notes:
        parts += ["", *(escape(f"  {note}") for note in job.notes[-8:])]
    if job.resumes:
        parts += ["", f"[bold]Next[/]: neuronmap jobs resume {job.id}"]
    return parts
