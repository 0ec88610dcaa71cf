"""Two supervisors on one database, with processes that end at once."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any

from neuronmap.jobs import Job, JobQueue, Supervisor
from neuronmap.jobs.machine import Capacity
from neuronmap.progress import SilentProgress

WORKER = """
import os, sys
from neuronmap.database import Database, database_url
from neuronmap.jobs.database import JOBS
from neuronmap.jobs.leases import Leases
from neuronmap.jobs.machine import hostname, own_start
job, attempt = sys.argv[1], int(sys.argv[2])
leases = Leases(Database(JOBS, database_url(JOBS)))
taken = leases.take(job, attempt, hostname(), os.getpid(), own_start())
leases.finish(job, attempt, "finished", result={"pid": os.getpid()})
"""


class Quick(Supervisor):
    """Its processes do nothing but finish their job."""

    def __init__(self, queue: JobQueue, **keywords: Any) -> None:
        super().__init__(queue, progress=SilentProgress(), **keywords)
        self.spawned: list[str] = []

    def _command(self, job: Job) -> list[str]:
        self.spawned.append(job.id)
        return [sys.executable, "-c", WORKER, job.id, str(job.attempt)]


def test_two_supervisors_share_the_jobs_and_run_each_once(queue: JobQueue, url: str) -> None:
    devices = [f"cuda:{index}" for index in range(4)]
    wanted = [queue.submit("evaluate", {"sae": str(i), "device": devices[i % 4]}).id for i in range(6)]
    machine = Capacity(dict.fromkeys(devices, 1 << 30), dict.fromkeys(devices, 1 << 30))
    with JobQueue.open(url) as other:
        two = [Quick(queue, machine=lambda: machine), Quick(other, machine=lambda: machine)]
        host, pid, started = two[0].name.rsplit(":", 2)
        two[1].name = f"{host}:{pid}:{int(started) + 1}"  # in one process they would have one name
        for one in two:
            one.start()
        deadline = time.monotonic() + 60
        while queue.counts()["evaluate"] != {"finished": 6}:
            assert time.monotonic() < deadline, queue.list()
            time.sleep(0.05)
        for one in two:
            one.stop()
    assert Counter(two[0].spawned + two[1].spawned) == Counter(wanted)
    assert {job.attempt for job in queue.list()} == {1}
    running: dict[str, str] = {}
    for event in queue.events():  # at no time two on one device
        device = queue.get(event.job).device
        if event.data.get("state") == "running":
            assert running.setdefault(device, event.job) == event.job
        elif event.data.get("state") == "finished":
            assert running.pop(device) == event.job
