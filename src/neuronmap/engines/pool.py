"""A pool of Ray actors that do shards: lost ones are replaced, slow ones are overtaken.

An actor has two threads: one works, the other tells how far it is. What is done twice gives the same bytes twice, so whichever attempt at a
shard ends first counts.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import neuronmap
from neuronmap import errors
from neuronmap.engines.cluster import Cluster, Places
from neuronmap.engines.shards import slowest
from neuronmap.engines.work import Advance, Shared, Stopped, Work, Worker
from neuronmap.errors import MismatchError, NeuronMapError, WorkerLostError
from neuronmap.progress import Progress, Task

__all__ = ["RayPool"]

ATTEMPTS = 4
"""Workers that one shard may cost before it is given up."""
_POLL_SECONDS = 0.25
_WAIT_NOTE_SECONDS = 30.0


# --- in the workers -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Failed:
    """An error of ours, as it travels: by kind and words."""

    kind: str
    message: str
    hint: str

    def error(self, host: str) -> NeuronMapError:
        kind = getattr(errors, self.kind, NeuronMapError)
        try:
            made: NeuronMapError = kind(f"{self.message} (on {host})", hint=self.hint)
        except TypeError:  # of those with further arguments
            made = NeuronMapError(f"{self.message} (on {host})", hint=self.hint)
        return made


@dataclass(frozen=True)
class _SharedByRay:
    """See :class:`~neuronmap.engines.Shared`."""

    reference: Any

    def get(self) -> Any:
        import ray

        return ray.get(self.reference)


class _Counted:
    """A progress that adds up what is done, for the driver to ask for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.amount, self.figures = 0, ""

    def note(self, message: str) -> None:
        """Notes are the driver's to make: every worker would make the same."""

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Task]:
        del title, total, unit
        yield self

    def advance(self, amount: int, **figures: str) -> None:
        with self._lock:
            self.amount += amount
            self.figures = next(iter(figures.values()), self.figures)


class _Actor:
    """One worker."""

    def __init__(self) -> None:
        self._counted = _Counted()
        self._worker: Worker | None = None

    def where(self) -> tuple[str, int, str]:
        """Host, process id and version: first thing that is asked."""
        return socket.gethostname(), os.getpid(), neuronmap.__version__

    def open(self, work: Work) -> _Failed | None:
        try:
            self._worker = work.open(_Counted())
        except NeuronMapError as error:
            return _Failed(type(error).__name__, error.message, error.hint)
        return None

    def run(self, shard: Any) -> Any:
        self._counted = _Counted()
        if self._worker is None:
            raise RuntimeError("The worker was not opened.")
        try:
            return self._worker.run(shard, self._counted)
        except NeuronMapError as error:
            return _Failed(type(error).__name__, error.message, error.hint)

    def seen(self) -> tuple[int, str]:
        """Units done of the shard under way, and what to show beside them."""
        return self._counted.amount, self._counted.figures


# --- in the driver --------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Member:
    """One actor as the driver sees it."""

    actor: Any
    ref: Any
    state: str = "starting"  # then opening, idle, busy
    host: str = "a worker"
    shard: int = -1
    started: float = 0.0
    asked: Any = None
    amount: int = 0
    opened: Work | None = None


@dataclass(eq=False)
class _Run:
    """Where one call stands."""

    work: Work
    sent: Any
    shards: Sequence[Any]
    advance: Advance
    ahead: int | None
    waiting: deque[int]
    members: list[_Member] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    lost: dict[int, int] = field(default_factory=dict)
    lost_in_opening: int = 0
    seconds: list[float] = field(default_factory=list)
    shown: dict[int, int] = field(default_factory=dict)

    def running(self) -> dict[int, list[_Member]]:
        """The members at each shard under way that is not done."""
        found: dict[int, list[_Member]] = {}
        for member in self.members:
            if member.state == "busy" and member.shard not in self.done:
                found.setdefault(member.shard, []).append(member)
        return found

    def show(self, shard: int, amount: int, figures: str = "") -> None:
        """Say how far a shard is; what an attempt that was lost had done is taken back."""
        change = amount - self.shown.get(shard, 0)
        self.shown[shard] = amount
        if change:
            self.advance(change, figures)


class RayPool:
    """Workers of a cluster; see :class:`~neuronmap.engines.Pool`.

    Args:
        cluster: where.
        places: how many, and how large.
        progress: where notes on lost and slow workers go.
    """

    def __init__(self, cluster: Cluster, places: Places, progress: Progress) -> None:
        self._ray, self._places, self._progress = cluster.ray, places, progress
        self._spare: list[_Member] = []
        self._sent: tuple[Work, Any] | None = None
        faults = cluster.ray.exceptions
        self._faults = (
            faults.RayActorError,
            faults.ObjectLostError,
            faults.NodeDiedError,
            faults.WorkerCrashedError,
            faults.OutOfMemoryError,
        )

    @property
    def workers(self) -> int:
        """How many there are to be."""
        return self._places.workers

    def share(self, value: Any) -> Shared:
        """See :meth:`neuronmap.engines.Pool.share`."""
        return _SharedByRay(self._ray.put(value))

    def run(
        self,
        work: Work,
        shards: Sequence[Any],
        *,
        advance: Advance | None = None,
        stopped: Stopped | None = None,
        ahead: int | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Do every shard; see :meth:`neuronmap.engines.Pool.run`."""
        if self._sent is None or self._sent[0] is not work:
            self._sent = work, self._ray.put(work)
        run = _Run(work, self._sent[1], shards, advance or _nothing, ahead, deque(range(len(shards))))
        noted = time.monotonic()
        try:
            for _ in range(min(self._places.workers, len(shards))):
                run.members.append(self._again(run) if self._spare else self._start())
            while len(run.done) < len(shards):
                if stopped is not None and stopped():
                    return
                self._hand_out(run)
                for member in self._finished(run):
                    result = self._heard(run, member)
                    if result is not None:
                        yield result
                self._look(run)
                if all(member.state == "starting" for member in run.members):
                    if time.monotonic() - noted > _WAIT_NOTE_SECONDS:
                        noted = time.monotonic()
                        self._progress.note(
                            "Waiting for a free place in the Ray cluster (ray status shows what is taken)."
                        )
                else:
                    noted = time.monotonic()
        finally:
            for member in run.members:
                if member.state == "idle":
                    self._spare.append(member)
                else:
                    self._end(member)

    def close(self) -> None:
        """End the workers that are left."""
        while self._spare:
            self._end(self._spare.pop())

    def _again(self, run: _Run) -> _Member:
        """A worker of an earlier call, which opens the work of this one, unless it has."""
        member = self._spare.pop()
        member.asked = None
        if member.opened is run.work:
            member.state, member.ref = "idle", None
        else:
            member.state, member.ref = "opening", member.actor.open.remote(run.sent)
        return member

    def _start(self) -> _Member:
        places = self._places
        kind = self._ray.remote(_Actor).options(
            num_cpus=places.cpus,
            num_gpus=places.gpus,
            max_concurrency=2,
            max_restarts=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(places.cpus)}},
        )
        actor = kind.remote()
        return _Member(actor, actor.where.remote())

    def _end(self, member: _Member) -> None:
        with suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.kill(member.actor)

    def _hand_out(self, run: _Run) -> None:
        """Give every idle member a shard: one that waits, or one that is slow elsewhere."""
        for member in run.members:
            if member.state != "idle":
                continue
            shard = self._next(run)
            if shard is None:
                return
            member.state, member.shard, member.started, member.amount = "busy", shard, time.monotonic(), 0
            member.ref = member.actor.run.remote(run.shards[shard])

    def _next(self, run: _Run) -> int | None:
        if run.waiting:
            first = min(set(range(len(run.shards))) - run.done) if run.ahead is not None else 0
            if run.ahead is None or run.waiting[0] <= first + run.ahead:
                return run.waiting.popleft()
            return None
        now = time.monotonic()
        alone = {shard: now - members[0].started for shard, members in run.running().items() if len(members) == 1}
        shard = slowest(alone, run.seconds)
        if shard is not None:
            self._progress.note(
                f"Shard {shard + 1} of {len(run.shards)} is slow ({alone[shard]:.0f} s on"
                f" {run.running()[shard][0].host}); another worker begins it too."
            )
        return shard

    def _finished(self, run: _Run) -> list[_Member]:
        """Members that have something to say, after a moment at most."""
        by_ref = {member.ref: member for member in run.members if member.state != "idle"}
        if not by_ref:
            return []
        ready, _ = self._ray.wait(list(by_ref), num_returns=len(by_ref), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(list(by_ref), num_returns=1, timeout=_POLL_SECONDS)
        return [by_ref[ref] for ref in ready]

    def _heard(self, run: _Run, member: _Member) -> tuple[int, Any] | None:
        """Take what a member says; a result that counts is given back."""
        try:
            value = self._ray.get(member.ref)
        except self._faults as fault:
            self._lost(run, member, fault)
            return None
        if isinstance(value, _Failed):
            raise value.error(member.host)
        if member.state == "starting":
            host, process, version = value
            if version != neuronmap.__version__:
                raise MismatchError(
                    f"{host} has NeuronMap {version}, this host {neuronmap.__version__}.",
                    hint="Install the same version on every host of the cluster.",
                )
            member.host = f"{host}, process {process}"
            member.state, member.ref = "opening", member.actor.open.remote(run.sent)
            return None
        if member.state == "opening":
            member.state, member.ref, member.opened = "idle", None, run.work
            return None
        shard, seconds = member.shard, time.monotonic() - member.started
        run.show(shard, max(self._amount(member), run.shown.get(shard, 0)))
        member.state, member.ref, member.shard = "idle", None, -1
        if shard in run.done:
            return None
        run.done.add(shard)
        run.seconds.append(seconds)
        return shard, value

    def _amount(self, member: _Member) -> int:
        """All units that a member has done of its shard."""
        try:
            return int(self._ray.get(member.actor.seen.remote(), timeout=5)[0])
        except (self._ray.exceptions.RayError, TimeoutError):
            return member.amount

    def _look(self, run: _Run) -> None:
        """Ask busy members how far they are; an answer is taken when it is there."""
        for shard, members in run.running().items():
            for member in members:
                if member.asked is None:
                    member.asked = member.actor.seen.remote()
                    continue
                if not self._ray.wait([member.asked], timeout=0)[0]:
                    continue
                with suppress(self._ray.exceptions.RayError):  # that it is lost is told by its work
                    member.amount, figures = self._ray.get(member.asked)
                    run.show(shard, max(other.amount for other in members), figures)
                member.asked = None

    def _lost(self, run: _Run, member: _Member, fault: Exception) -> None:
        """Put another in a lost member's place, and its shard back."""
        run.members.remove(member)
        self._end(member)
        shard = member.shard
        if member.state == "busy" and shard not in run.done:
            run.lost[shard] = run.lost.get(shard, 0) + 1
            times, what = run.lost[shard], f"shard {shard + 1} of {len(run.shards)}"
            if shard not in run.running():
                run.waiting.appendleft(shard)
                run.show(shard, 0)
        else:
            run.lost_in_opening += 1
            times, what = -(-run.lost_in_opening // self._places.workers), "no shard yet"
        self._progress.note(f"A worker was lost ({member.host}; {what}): {_words(fault)}. Another takes its place.")
        if times >= ATTEMPTS:
            raise WorkerLostError(
                f"{times} workers were lost one after the other, the last of them at {what}: {_words(fault)}.",
                hint="Killed for memory? Use fewer workers on a host (--workers); ray logs has what they wrote.",
            )
        run.members.append(self._start())


def _nothing(amount: int, figures: str) -> None:
    del amount, figures


def _words(fault: Exception) -> str:
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    return f"{type(fault).__name__}: {lines[0][:200].rstrip('.') if lines else 'no reason is known'}"
