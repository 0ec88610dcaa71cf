"""What the server holds: the library, the analyses that are open, the queue of jobs, the process that runs models.

What only some pages need is imported with the first of them: the first page is answered in the meantime.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from neuronmap.errors import NeuronMapError, NotInLibraryError
from neuronmap.hub import AnalysisEntry, LibraryEntry, SAEModelHub, list_analyses
from neuronmap.hub.analyses import pick_analysis
from neuronmap.jobs import JobQueue
from neuronmap.web.opened import Home, OpenAnalysis
from neuronmap.web.settings import ServerSettings

if TYPE_CHECKING:
    from neuronmap.web.books import Books
    from neuronmap.web.live.calls import Call
    from neuronmap.web.live.process import LiveProcess
    from neuronmap.web.reports import OpenReport, OpenReports

__all__ = ["Analysed", "Explorer"]

_OPEN_AT_MOST = 8
_ASKED_AT_MOST = 64
_AHEAD_S = 0.3


class Analysed(OpenAnalysis):
    """One SAE of the library with one of its analyses, open.

    Attributes:
        entry: the SAE.
        analysis: the analysis.
    """

    def __init__(self, entry: LibraryEntry, analysis: AnalysisEntry, books: Books | None = None) -> None:
        from neuronmap.features.storage.store import FeatureStore

        self.entry, self.analysis = entry, analysis
        super().__init__(FeatureStore.open(analysis.path), Home(entry.id, analysis.name), books=books)

    def read_ahead(self) -> None:
        """Read the table of all features; what is wrong with it, the page that needs it says."""
        with suppress(NeuronMapError, OSError, ImportError):
            _ = self.store.queries


class Explorer:
    """Everything a request may need. Methods may be called from several threads.

    Args:
        settings: of the server.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.hub = SAEModelHub(settings.library)
        self._lock = threading.Lock()
        self._opened: OrderedDict[Path, Analysed] = OrderedDict()
        self._asked: OrderedDict[str, Call] = OrderedDict()

    @cached_property
    def jobs(self) -> JobQueue:
        """The queue of jobs."""
        return JobQueue.open(self.settings.database)

    @cached_property
    def books(self) -> Books:
        """The book of labels."""
        from neuronmap.web.books import Books

        return Books()

    @cached_property
    def live(self) -> LiveProcess:
        """What runs texts through models, in a process of its own; it starts with the first request."""
        from neuronmap.web.live.process import LiveProcess

        return LiveProcess(library=self.settings.library, seconds=self.settings.inference_seconds)

    @cached_property
    def _reports(self) -> OpenReports:
        from neuronmap.web.reports import OpenReports

        return OpenReports()

    def entries(self) -> list[LibraryEntry]:
        """All SAEs, the newest first."""
        return sorted(self.hub.list(), key=lambda entry: (entry.created or "", entry.id), reverse=True)

    def entry(self, sae: str) -> LibraryEntry:
        """The SAE of this id; over the web only whole ids are taken.

        Raises:
            NotInLibraryError: there is none; the hint names near ones.
        """
        found = self.hub.get(sae)
        if found.id != sae:
            raise NotInLibraryError(f"There is no SAE '{sae}'.", hint=f"Did you mean {found.id}?")
        return found

    def analyses(self, entry: LibraryEntry) -> list[AnalysisEntry]:
        """Its sound analyses, the newest first."""
        return [one for one in list_analyses(entry) if not one.problem]

    def analysed(self, sae: str, analysis: str | None = None) -> Analysed:
        """An SAE with its analysis.

        Args:
            sae: id.
            analysis: name; the newest when None or empty.

        Raises:
            NotInLibraryError: no such SAE or analysis.
            DamagedError: the analysis cannot be used.
        """
        entry = self.entry(sae)
        chosen = pick_analysis(entry, analysis or None)
        with self._lock:
            found = self._opened.get(chosen.path)
            if found is not None and found.key == chosen.key and found.entry.weights_digest == entry.weights_digest:
                self._opened.move_to_end(chosen.path)
                return found
        made = Analysed(entry, chosen, self.books)
        if self.settings.supervise:  # a server: the next page will need the whole table, this one is sent first
            ahead = threading.Timer(_AHEAD_S, made.read_ahead)
            ahead.daemon = True
            ahead.start()
        with self._lock:
            self._opened[chosen.path] = made
            while len(self._opened) > _OPEN_AT_MOST:
                self._opened.popitem(last=False)  # a request may still read it; it is closed when nobody does
        return made

    def report(self, name: str) -> OpenReport:
        """A report of the abstraction tracker.

        Raises:
            NotInLibraryError: there is none of that name.
            DamagedError: it cannot be read.
        """
        return self._reports.get(name)

    # --- questions to models, by the digest of what was asked -----------------------------------------------------------

    def asked(self, key: str) -> Call | None:
        """The call of the same question, if it was asked lately."""
        return self._asked.get(key)

    def keep_asked(self, key: str, call: Call) -> Call:
        """Remember a call."""
        self._asked[key] = call
        while len(self._asked) > _ASKED_AT_MOST:
            self._asked.popitem(last=False)
        return call

    def forget_asked(self, key: str) -> None:
        """The next one asks anew."""
        self._asked.pop(key, None)

    async def close(self) -> None:
        """Let go of everything."""
        if "live" in self.__dict__:
            await self.live.close()
        if "jobs" in self.__dict__:
            self.jobs.close()
        if "books" in self.__dict__:
            self.books.close()
        with self._lock:
            self._opened.clear()
