"""Analyses of a zoo that are looked at in place: opened when somebody first asks, kept for a while, closed when nobody reads them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from neuronmap.web.opened import Home, WorkedOut
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.reading import PublishedStore, ReadingFolder
from neuronmap.zoo.views import VersionView

__all__ = ["Looking", "Opened", "PublishedHome", "features_path"]

_OPEN_AT_MOST = 8


def features_path(version: VersionView, *parts: object) -> str:
    """Address of a page below a version's, under its label."""
    names = (version.namespace, version.name, version.label, *parts)
    return "/zoo/" + "/".join(quote(str(one), safe="") for one in names)


@dataclass(frozen=True)
class PublishedHome(Home):
    """Below the page of a version of a zoo: ``features``, ``features/7``, ``features/7/plot/tokens.csv``, ``cards``.

    Attributes:
        version: the version.
        page: address of the SAE's page; empty where the asker may not see it.
    """

    version: VersionView
    page: str

    @classmethod
    def of(cls, version: VersionView) -> PublishedHome:
        """Of a version as somebody sees it: its SAE is named if they may see it, too."""
        saes = [one for one in version.depends_on if one.state != "deleted"]
        record = version.manifest.get("record")
        digest = str((record if isinstance(record, dict) else {}).get("weights_digest") or "")
        sae = saes[0].reference if len(saes) == 1 else f"with the weights {digest[7:19]}" if digest else "unnamed"
        artefact, _, label = sae.partition("@")
        return cls(sae, version.reference, version, f"/zoo/{artefact}/{quote(label)}" if len(saes) == 1 else "")

    @property
    def title(self) -> str:
        """The analysis: it is what was published under this address."""
        return self.analysis

    @property
    def sae_page(self) -> str:
        """Of the SAE that it depends on."""
        return self.page

    @property
    def crumbs(self) -> list[tuple[str, str]]:
        """Zoo, namespace, artefact, version."""
        one = self.version
        above = f"/zoo/{quote(one.namespace)}"
        name = (one.name, f"{above}/{quote(one.name)}")
        return [("Zoo", "/zoo"), (one.namespace, above), name, (one.label, features_path(one))]

    @property
    def alone(self) -> bool:
        """Weights and models are elsewhere."""
        return True

    def path(self, *parts: object, **query: object) -> str:
        """Address of a page; what the library has under ``feature`` is under ``features`` here."""
        if parts and parts[0] == "feature":
            parts = ("features", *(parts[1:] or ("go",)))
        given = {name.rstrip("_"): value for name, value in query.items() if value not in (None, "", [], ())}
        given.pop("analysis", None)  # there is one only
        path = features_path(self.version, *parts)
        return f"{path}?{urlencode(given, doseq=True)}" if given else path


@dataclass
class Opened:
    """A store that is open.

    Attributes:
        store: the store.
        worked_out: what was worked out of it.
        readers: requests that read it now.
        dropped: whether it is closed with the last of them.
    """

    store: PublishedStore
    worked_out: WorkedOut = field(default_factory=WorkedOut)
    readers: int = 0
    dropped: bool = False


class Looking:
    """The open stores, the last used ones. Several threads may ask.

    Args:
        reading: makes the place for files; called with the first analysis that is looked at.
        most: stores that are kept open.
    """

    def __init__(self, reading: Callable[[], ReadingFolder], most: int = _OPEN_AT_MOST) -> None:
        self._making, self._most, self._lock = reading, most, threading.Lock()
        self._reading: ReadingFolder | None = None
        self._opened: OrderedDict[Digest, Opened] = OrderedDict()

    @property
    def reading(self) -> ReadingFolder:
        """Where files are put."""
        with self._lock:
            if self._reading is None:
                self._reading = self._making()
            return self._reading

    @contextmanager
    def at(self, version: VersionView) -> Iterator[Opened]:
        """The store of a version, open for the time of a request; whoever calls has made sure that the asker may see the version.

        Raises:
            MismatchError, DamagedError, ResourceError, ZooOfflineError: see :meth:`PublishedStore.of`.
        """
        one = self._taken(version)
        try:
            yield one
        finally:
            with self._lock:
                one.readers -= 1
            self._close([one])

    def forget(self, version: Digest) -> None:
        """Close the store of a version that was deleted, and remove what is here of it."""
        with self._lock:
            one = self._opened.pop(version, None)
        if one is not None:
            one.dropped = True
            self._close([one])
        self.reading.forget(version)

    def close(self) -> None:
        """Close every store that nobody reads; the others follow."""
        with self._lock:
            gone = list(self._opened.values())
            self._opened.clear()
        for one in gone:
            one.dropped = True
        self._close(gone)

    def _taken(self, version: VersionView) -> Opened:
        with self._lock:
            found = self._found(version.digest)
        if found is not None:
            return found
        made = Opened(PublishedStore.of(self.reading, version))
        with self._lock:
            found = self._found(version.digest)
            if found is None:
                made.readers, self._opened[version.digest] = 1, made
            gone = []
            while len(self._opened) > self._most:
                gone.append(self._opened.popitem(last=False)[1])
                gone[-1].dropped = True
        if found is not None:
            made.store.close()
        self._close(gone)
        return found or made

    def _found(self, digest: Digest) -> Opened | None:
        found = self._opened.get(digest)
        if found is not None:
            self._opened.move_to_end(digest)
            found.readers += 1
        return found

    def _close(self, opened: list[Opened]) -> None:
        """Close those that were dropped and that nobody reads."""
        with self._lock:
            idle = [one for one in opened if one.dropped and not one.readers]
        for one in idle:
            one.store.close()
