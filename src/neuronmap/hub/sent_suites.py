"""Evaluation suites on other hosts: an SAE travels as its files, each suite is one shard, records come back.

The language model and the text are opened by the worker under the names that the driver knows them by; a record's key is over what was
found, so a record of something else is never taken for the one that was asked for.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from neuronmap.engines import Pool
from neuronmap.evaluation.suites.record import SuiteRecord
from neuronmap.hub.contents import copy_visible
from neuronmap.hub.entry import LibraryEntry
from neuronmap.hub.library import SAEModelHub
from neuronmap.progress import Progress
from neuronmap.saes.metadata import ANALYSES_FOLDER

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
        options: as for :func:`~neuronmap.hub.evaluating.evaluate_suites_entry`: text, model, settings, device, dtype, force, again.
    """

    sae: SentSAE
    against: SentSAE | None
    options: dict[str, Any]

    def open(self, progress: Progress) -> _SuiteWorker:
        """Make a library of nothing but these SAEs."""
        del progress
        library = tempfile.TemporaryDirectory(prefix="neuronmap-suites-")
        for sent in (self.sae, self.against):
            if sent is not None:
                sent.unpack(Path(library.name))
        worker = _SuiteWorker(self, SAEModelHub(library.name))
        weakref.finalize(worker, library.cleanup)
        return worker


@dataclass(eq=False)
class _SuiteWorker:
    work: SuiteWork
    hub: SAEModelHub

    def run(self, shard: Any, progress: Progress) -> dict[str, Any]:
        """The record of one suite, as plain JSON types."""
        from neuronmap.hub.evaluating import evaluate_suites_entry

        against = self.work.against.name if self.work.against is not None and shard == "stability" else None
        result = evaluate_suites_entry(
            self.hub,
            self.hub.get(self.work.sae.name),
            [shard],
            against=against,
            progress=progress,
            **self.work.options,
        )
        return result.suites[shard].to_dict()


def suites_elsewhere(
    pool: Pool, work: SuiteWork, names: Sequence[str], progress: Progress, keep: Callable[[SuiteRecord], None]
) -> Iterator[SuiteRecord]:
    """Records of suites as they are finished.

    Args:
        pool: the workers.
        work: what they open.
        names: the suites.
        progress: where the bar goes.
        keep: called with each record before it is given.
    """
    with progress.task("Evaluating", len(names), "suites") as bar:
        for _, found in pool.run(work, list(names)):
            record = SuiteRecord.from_dict(found)
            keep(record)
            bar.advance(1)
            yield record
