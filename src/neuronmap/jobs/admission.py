"""Whether a job can start on this machine now: a free place on its device, and memory for what it is expected to need."""

from __future__ import annotations

from collections.abc import Sequence

from neuronmap.jobs.job import Job
from neuronmap.jobs.leases import Held
from neuronmap.jobs.machine import Capacity, find_process, memory_used
from neuronmap.paths import human_bytes

__all__ = ["why_it_waits"]


def why_it_waits(
    job: Job, held: Sequence[Held], machine: Capacity, host: str, *, slots: int, check_memory: bool
) -> str:
    """Why a job has to wait, in words; empty if it can start now.

    Args:
        job: the job.
        held: jobs that run on this machine, or are about to.
        machine: its devices and their memory now.
        host: its name.
        slots: jobs at a time on one device.
        check_memory: whether the free memory has to cover the estimate.
    """
    if job.device not in machine.free:
        return f"needs {job.device}, which {host} does not have ({', '.join(machine.free)})"
    beside = [one for one in held if one.job.device == job.device]
    if len(beside) >= slots:
        return f"waits for job {beside[0].job.id} ({beside[0].job.title}): {job.device} is taken"
    free, total = machine.free[job.device], machine.total.get(job.device)
    if not check_memory or free is None:
        return ""
    free -= sum(_still_to_come(one) for one in beside)
    if job.memory_bytes <= free:
        return ""
    if total is not None and job.memory_bytes > total:
        return f"needs about {human_bytes(job.memory_bytes)} on {job.device}, which has {human_bytes(total)} in all"
    return f"needs about {human_bytes(job.memory_bytes)}, {human_bytes(max(free, 0))} are free"


def _still_to_come(one: Held) -> int:
    """Memory that a running job will yet take, of what it was expected to need; on a GPU that cannot be told, and counts as nothing."""
    if one.job.device != "cpu":
        return 0
    return max(one.job.memory_bytes - memory_used(find_process(one.pid, one.pid_started, one.job.id)), 0)
