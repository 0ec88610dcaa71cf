"""Several sources read as one, in shares that were asked for.

Which source comes next needs no chance: the one whose text so far is the least for its weight, measured in bytes of content (token ids
count 4). So after any number of documents each source is within one document of its share, the order is the same every time, and a
``max_tokens`` that cuts the mixture cuts every source alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from neuronmap.corpora.document import Corpus, CorpusReport, Document
from neuronmap.corpora.reading import Place, Reading, read_from
from neuronmap.errors import ConfigError, EmptyCorpusError
from neuronmap.hashing import digest_json

__all__ = ["Exhausted", "Mixture"]

Exhausted = Literal["stop", "go_on", "repeat"]
_ID_BYTES = 4


class Mixture:
    """A corpus made of others by weight.

    Args:
        sources: corpora with their weights (any positive numbers; only their ratios count).
        exhausted: what happens when the source that is due has no more. ``stop``: the mixture ends there, so the shares hold to the end
            and the rest of the other sources is not read. ``go_on``: the others are read to their ends; the shares no longer hold.
            ``repeat``: the source starts again, until every source has been read once; its documents then come more than once, with
            ``#2``, ``#3``, ... behind their ids.
        name: what to call it in reports.

    Raises:
        ConfigError: fewer than two sources, a weight that is not positive, an unknown rule.

    Example:
        >>> from neuronmap.corpora import open_corpus
        >>> one, two = open_corpus(["a", "b", "c", "d"], name="one"), open_corpus(["x", "y"], name="two")
        >>> "".join(document.text for document in Mixture([(one, 2), (two, 1)]).documents())
        'axbcyd'
    """

    def __init__(
        self, sources: Sequence[tuple[Corpus, float]], *, exhausted: Exhausted = "stop", name: str | None = None
    ) -> None:
        if len(sources) < 2:
            raise ConfigError(f"A mixture needs two sources or more; {len(sources)} given.")
        for corpus, weight in sources:
            if not 0 < weight < float("inf"):
                raise ConfigError(f"The weight of {corpus.name} is {weight}; a number above 0 is needed.")
        if exhausted not in ("stop", "go_on", "repeat"):
            raise ConfigError(f"exhausted = {exhausted!r}: allowed are stop, go_on, repeat.")
        total = sum(weight for _, weight in sources)
        self._corpora = [corpus for corpus, _ in sources]
        self._weights = [weight / total for _, weight in sources]
        self._labels = _labels([corpus.name for corpus in self._corpora])
        self._rule: Exhausted = exhausted
        shares = [f"{weight:.3g} {label}" for label, weight in zip(self._labels, self._weights, strict=True)]
        self.name = name or "+".join(self._labels)
        self.description = (
            f"mixture of {', '.join(shares)} (shares of the text); when one ends: {exhausted.replace('_', ' ')}"
        )
        self.streamed = any(corpus.streamed for corpus in self._corpora)

    def __repr__(self) -> str:
        return f"<Mixture {self.name}: {self.description}>"

    def documents(self, report: CorpusReport | None = None) -> Iterator[Document]:
        """Documents of all sources; ids and places of bad rows begin with the source's name."""
        return iter(self.reading(CorpusReport() if report is None else report))

    def reading(self, report: CorpusReport, place: Place | None = None) -> _MixtureReading:
        """Documents from a place on (``neuronmap.corpora.reading``)."""
        return _MixtureReading(self._corpora, self._labels, self._weights, self._rule, report, place)

    def digest(self) -> str:
        """Digest over the sources' digests, names, weights and the rule; of streamed sources, over what they give."""
        if self.streamed:
            from neuronmap.corpora.document import ContentHash

            state, report = ContentHash(), CorpusReport()
            for document in self.documents(report):
                state.add(document)
            return state.finish(report)
        parts = [
            [label, weight, corpus.digest()]
            for label, weight, corpus in zip(self._labels, self._weights, self._corpora, strict=True)
        ]
        return digest_json({"mixture 1": parts, "exhausted": self._rule})

    def size_hint(self) -> int | None:
        """Bytes of text where all sources know theirs: of what the rule lets through."""
        sizes = [corpus.size_hint() for corpus in self._corpora]
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            return None
        if self._rule == "go_on":
            return sum(known)
        ends = [size / weight for size, weight in zip(known, self._weights, strict=True)]
        return int(min(ends) if self._rule == "stop" else max(ends))


def _labels(names: list[str]) -> list[str]:
    """The names, made different: a second ``texts`` becomes ``texts-2``."""
    found: list[str] = []
    for name in names:
        label, number = name, 2
        while label in found:
            label, number = f"{name}-{number}", number + 1
        found.append(label)
    return found


class _SourceReport(CorpusReport):
    """Passes a source's bad rows on with the source's name before the place."""

    def __init__(self, outer: CorpusReport, label: str) -> None:
        super().__init__()
        self._outer, self._label = outer, label

    def reject(self, reason: str, where: str) -> None:
        super().reject(reason, where)
        self._outer.reject(reason, f"{self._label}/{where}")

    def repeated(self) -> None:
        super().repeated()
        self._outer.duplicates += 1


class _MixtureReading:
    def __init__(
        self,
        corpora: Sequence[Corpus],
        labels: Sequence[str],
        weights: Sequence[float],
        rule: Exhausted,
        report: CorpusReport,
        place: Place | None,
    ) -> None:
        self._corpora, self._labels, self._weights, self._rule, self._report = corpora, labels, weights, rule, report
        stand: dict[str, Any] = place or {}
        count = len(corpora)
        self._bytes: list[int] = list(stand.get("bytes", [0] * count))
        self._rounds: list[int] = list(stand.get("rounds", [1] * count))
        self._given: list[int] = list(stand.get("given", [0] * count))  # in this round
        self._ended: list[bool] = list(stand.get("ended", [False] * count))
        places = stand.get("sources", [None] * count)
        self._readings: list[Reading] = [self._open(at, place) for at, place in enumerate(places)]
        self._over = False

    def _open(self, at: int, place: Place | None) -> Reading:
        # bad rows are counted in the first round
        first = self._rounds[at] == 1
        report = _SourceReport(self._report, self._labels[at]) if first else CorpusReport()
        return read_from(self._corpora[at], report, place)

    def __iter__(self) -> Iterator[Document]:
        return self

    def __next__(self) -> Document:
        while not self._over:
            open_ = [at for at, ended in enumerate(self._ended) if not ended or self._rule == "repeat"]
            if not open_ or all(self._ended):
                break
            due = min(open_, key=lambda at: (self._bytes[at] / self._weights[at], at))
            document = next(self._readings[due], None)
            if document is not None:
                return self._counted(due, document)
            if not self._given[due]:
                raise EmptyCorpusError(
                    f"{self._corpora[due].name}, a source of the mixture, holds no usable text.",
                    hint="Leave it out, or look at its bad rows.",
                )
            self._ended[due] = True
            if self._rule == "stop":
                self._over = True
            elif self._rule == "repeat" and not all(self._ended):
                self._rounds[due] += 1
                self._given[due] = 0
                self._readings[due] = self._open(due, None)
        raise StopIteration

    def _counted(self, at: int, document: Document) -> Document:
        size = len(document.text.encode()) if document.ids is None else _ID_BYTES * len(document.ids)
        self._bytes[at] += size
        self._given[at] += 1
        self._report.documents += 1
        again = f"#{self._rounds[at]}" if self._rounds[at] > 1 else ""
        return Document(f"{self._labels[at]}/{document.id}{again}", document.text, document.ids)

    def place(self) -> Place:
        return {
            "sources": [reading.place() for reading in self._readings],
            "bytes": list(self._bytes),
            "rounds": list(self._rounds),
            "given": list(self._given),
            "ended": list(self._ended),
        }
