"""Evaluation suites on other hosts: an SAE travels as its files, records come back. Shards are suites, and parts of the text of ``core``.

The language model and the text are opened by the worker under the names that the driver knows them by; a record's key is over what was
found, so a record of something else is never taken for the one that was asked for.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from neuronmap.engines import Advance, Pool, Shared
from neuronmap.evaluation.suites.record import SuiteName, SuiteRecord, stored_note
from neuronmap.hub.contents import copy_visible
from neuronmap.hub.entry import LibraryEntry
from neuronmap.hub.library import SAEModelHub
from neuronmap.progress import Progress, Task
from neuronmap.saes.metadata import ANALYSES_FOLDER

if TYPE_CHECKING:
    from neuronmap.evaluation.suites.core_parts import CoreParts, Known, Phase, PhaseSize
    from neuronmap.evaluation.suites.run import SuiteRun
    from neuronmap.hub.evaluating import Stored

__all__ = ["SentSAE", "SuiteWork", "suites_elsewhere"]


@dataclass(frozen=True)
class SentSAE:
    """An SAE of a library, without its analyses.

    Attributes:
        name: its id.
        files: content by path in the bundle.
    """

    name: str
    files: dict[str, bytes]

    @classmethod
    def of(cls, entry: LibraryEntry) -> Self:
        """What to send of an entry."""
        with tempfile.TemporaryDirectory() as folder:
            copy_visible(entry.path, Path(folder) / "bundle")
            files = sorted(file for file in (Path(folder) / "bundle").rglob("*") if file.is_file())
            paths = [(file, file.relative_to(Path(folder) / "bundle")) for file in files]
            return cls(
                entry.id,
                {path.as_posix(): file.read_bytes() for file, path in paths if path.parts[0] != ANALYSES_FOLDER},
            )

    def unpack(self, library: Path) -> None:
        """Write it where a library has it."""
        for path, content in self.files.items():
            file = library.joinpath(*self.name.split("/"), *path.split("/"))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


@dataclass(frozen=True, eq=False)
class SuiteWork:
    """Suites on one SAE.

    Attributes:
        sae: which.
        against: for ``stability``: the second one.
        names: the suites.
        options: as for :func:`~neuronmap.hub.evaluating.open_suites`: text, model, settings, device, dtype, force, again.
    """

    sae: SentSAE
    against: SentSAE | None
    names: Sequence[SuiteName]
    options: dict[str, Any]

    def open(self, progress: Progress) -> _SuiteWorker:
        """Make a library of nothing but these SAEs."""
        library = tempfile.TemporaryDirectory(prefix="neuronmap-suites-")
        for sent in (self.sae, self.against):
            if sent is not None:
                sent.unpack(Path(library.name))
        worker = _SuiteWorker(self, SAEModelHub(library.name), progress)
        weakref.finalize(worker, library.cleanup)
        return worker


# --- shards -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Whole:
    """A suite."""

    suite: SuiteName


@dataclass(frozen=True)
class _Plan:
    """How the core suite is cut."""


@dataclass(frozen=True)
class _Part:
    """A part of a phase of the core suite, and what the phases before have found."""

    phase: Phase
    start: int
    stop: int
    known: Shared


@dataclass(frozen=True)
class _Finish:
    """The record of the core suite, from what all phases have found."""

    key: str
    known: Shared


@dataclass(frozen=True)
class _Planned:
    """What a worker says of the core suite.

    Attributes:
        key: of its record.
        stored: the record, as plain JSON types, where it was measured before on the same inputs.
        known: what is known before the first phase.
        sizes: the phases.
    """

    key: str
    stored: dict[str, Any] | None
    known: Known | None
    sizes: dict[Phase, PhaseSize]


# --- in a worker --------------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _SuiteWorker:
    work: SuiteWork
    hub: SAEModelHub
    progress: Progress

    @cached_property
    def opened(self) -> tuple[SuiteRun, Stored | None]:
        """The language model, the text and the SAE, and what finds records of before; opened once."""
        from neuronmap.hub.evaluating import open_suites

        sae, against = self.hub.get(self.work.sae.name), self.work.against
        second = self.hub.get(against.name) if against is not None else None
        return open_suites(self.hub, sae, self.work.names, second, progress=self.progress, **self.work.options)

    @cached_property
    def core(self) -> CoreParts:
        from neuronmap.evaluation.suites.core_parts import CoreParts

        return CoreParts(self.opened[0])

    def run(self, shard: Any, progress: Progress) -> Any:
        """A record of a suite as plain JSON types, or what a part of the core suite gives."""
        run, stored = self.opened
        run.progress = progress
        match shard:
            case _Whole(suite):
                return run.measured([suite], stored).suites[suite].to_dict()
            case _Plan():
                return self._plan(run, stored)
            case _Part(phase, start, stop, known):
                with progress.task("", None, "tokens") as bar:
                    return self.core.part(phase, start, stop, known.get(), bar)
            case _Finish(key, known):
                return run.record(key, self.core.result(known.get())).to_dict()

    def _plan(self, run: SuiteRun, stored: Stored | None) -> _Planned:
        key = run.key("core")
        record = stored("core", key) if stored is not None else None
        if record is not None:
            return _Planned(key, record.to_dict(), None, {})
        return _Planned(key, None, self.core.begin(), self.core.sizes)


# --- in the driver ------------------------------------------------------------------------------------------------------------------


def suites_elsewhere(
    pool: Pool, work: SuiteWork, progress: Progress, keep: Callable[[SuiteRecord], None]
) -> Iterator[SuiteRecord]:
    """Records of suites as they are finished.

    Args:
        pool: the workers.
        work: what they open.
        progress: where bars go.
        keep: called with each record before it is given.
    """
    if "core" in work.names:
        record = _core_elsewhere(pool, work, progress)
        keep(record)
        yield record
    shards = [_Whole(name) for name in work.names if name != "core"]
    if not shards:
        return
    with progress.task("Evaluating", len(shards), "suites") as bar:
        for _, found in pool.run(work, shards):
            record = SuiteRecord.from_dict(found)
            keep(record)
            bar.advance(1)
            yield record


def _core_elsewhere(pool: Pool, work: SuiteWork, progress: Progress) -> SuiteRecord:
    """The core suite, phase by phase, every part of the text by whichever worker is free."""
    planned: _Planned = _only(pool.run(work, [_Plan()]))
    if planned.stored is not None or planned.known is None:
        record = SuiteRecord.from_dict(planned.stored or {})
        progress.note(stored_note(record))
        return record
    known = planned.known
    for phase, size in planned.sizes.items():
        shared = pool.share(known)
        shards = [_Part(phase, start, stop, shared) for start, stop in size.parts]
        with progress.task(size.title, size.tokens, "tokens") as bar:
            found = dict(pool.run(work, shards, advance=_advancing(bar)))
        known = known.after(phase, [found[place] for place in range(len(shards))], size)
    return SuiteRecord.from_dict(_only(pool.run(work, [_Finish(planned.key, pool.share(known))])))


def _advancing(bar: Task) -> Advance:
    def advance(amount: int, figures: str) -> None:
        del figures
        bar.advance(amount)

    return advance


def _only(results: Iterator[tuple[int, Any]]) -> Any:
    ((_, found),) = results
    return found
