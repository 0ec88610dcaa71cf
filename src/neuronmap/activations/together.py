"""Harvesting by the processes that torchrun started: they take turns at the batches, and the first of them writes the stores.

Batches are those of the grid that a harvest has anyway, and their rows are written in the order of contexts: the stores have the same bytes
whoever ran the model, and an interrupted harvest is continued by any number of processes. Each of W processes runs every W-th batch ahead
and hands it over when the first comes to it; so each is a batch ahead at most.

Shape legend: N rows, W width of a hook.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from neuronmap.activations.extract import ExtractedRows, RowExtractor
from neuronmap.activations.harvest import harvest
from neuronmap.activations.mask import MaskConfig
from neuronmap.errors import NeuronMapError

if TYPE_CHECKING:
    from torch import Tensor

    from neuronmap.activations.store import ActivationStore
    from neuronmap.corpora import TokenSet
    from neuronmap.models import HookPoint, LanguageModel

__all__ = ["Crew", "Exchange", "Together", "harvest_together"]

T = TypeVar("T")

Batch = tuple[int, int]
Thresholds = Mapping[str, float | None]
Found = dict[str, ExtractedRows] | BaseException
"""Rows by hook, or why there are none."""

_NO_MORE: Batch = (-1, -1)
"""What the first asks for when it is done."""


class Exchange(Protocol):
    """A line between the processes of a crew beside that of the crew itself, for one thread of each.

    An exchange begins when all have come, and is then made whole. Until then each may leave, which keeps nobody waiting: not those
    who have come, nor itself for others who may never come.
    """

    def all_come(self, leaving: Callable[[], bool]) -> bool:
        """Wait for the others; False if one of them, or this process, has left.

        Args:
            leaving: asked while waiting: whether this process leaves.
        """

    def tell(self, value: Any, sender: int) -> Any:
        """A small picklable value of one process, on all."""

    def spread_(self, tensor: Tensor, sender: int) -> None:
        """Overwrite a contiguous tensor in main memory with that of one process."""

    def close(self) -> None:
        """Leave, and take part in no exchange any more."""


class Crew(Protocol):
    """The processes that run a model together. Every one makes the same calls in the same order."""

    @property
    def rank(self) -> int:
        """Place of this process, from 0."""

    @property
    def count(self) -> int:
        """How many there are."""

    def from_first(self, make: Callable[[], T]) -> T:
        """What ``make`` gives on rank 0, on all; only rank 0 calls it."""

    def hand(self, value: Any, to: int) -> None:
        """Send a picklable value to another, which calls :meth:`take`."""

    def take(self, sender: int) -> Any:
        """The value that another sends."""

    @property
    def stopping(self) -> bool:
        """Whether this process was asked to stop what it is doing."""

    def exchange(self) -> Exchange:
        """A new line, which is to be closed."""


@dataclass(frozen=True)
class _Work:
    """What the others need to know."""

    hooks: tuple[str, ...]
    batches: tuple[Batch, ...]
    thresholds: dict[str, float | None]


def harvest_together(
    crew: Crew, model: LanguageModel, tokens: TokenSet, hooks: Sequence[HookPoint], **settings: Any
) -> dict[str, ActivationStore]:
    """:func:`~neuronmap.activations.harvest` by a crew, each of which calls this with the same arguments.

    Args:
        crew: the processes; one alone harvests as it always does.
        model, tokens, hooks, settings: as of ``harvest``.

    Raises:
        NeuronMapError: as ``harvest`` on rank 0, also for what another could not do; on the others when rank 0 failed.
        KeyboardInterrupt: on Ctrl-C, and on SIGTERM in the main thread; what was done is saved.
    """
    if crew.count == 1:
        return harvest(model, tokens, hooks, **settings)
    found: list[dict[str, ActivationStore]] = []

    def lead() -> None:
        with Together(crew) as together:
            found.append(harvest(model, tokens, hooks, elsewhere=together, **settings))

    if crew.rank == 0:
        crew.from_first(lead)
        return found[0]
    stopped = _follow(crew, model, tokens, hooks, settings.get("mask") or MaskConfig())
    try:
        crew.from_first(lambda: None)
    finally:
        if stopped:
            raise KeyboardInterrupt
    return harvest(model, tokens, hooks, **settings)  # what is there by now


class Together:
    """On rank 0: lets a harvest have its rows from the crew. Use it as a context manager.

    Args:
        crew: the processes.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew, self._begun = crew, False

    def extractor(
        self, own: RowExtractor, tokens: TokenSet, hooks: Sequence[HookPoint], mask: MaskConfig
    ) -> _Extractor:
        """An extractor that answers as ``own`` would.

        Args:
            own: this process's.
            tokens, hooks, mask: what it extracts.
        """
        del mask  # the others have it
        return _Extractor(self, own, tokens.num_contexts, hooks)

    def begin(self, work: _Work) -> None:
        """Tell the others what to do."""
        self._begun = True
        self._crew.from_first(lambda: work)

    @property
    def count(self) -> int:
        """How many processes there are."""
        return self._crew.count

    def ask(self, rank: int, batch: Batch) -> dict[str, ExtractedRows]:
        """The rows of a batch, from the process whose turn it is.

        Raises:
            NeuronMapError: what it could not do.
            KeyboardInterrupt: when it was told to stop.
        """
        with _signals_wait():  # an exchange is made whole, or the two would wait for each other
            self._crew.hand(batch, rank)
            found: Found = self._crew.take(rank)
        if isinstance(found, BaseException):
            raise found
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _signals_wait():
            if not self._begun:
                self._crew.from_first(lambda: None)
                return
            for rank in range(1, self._crew.count):
                with suppress(RuntimeError):  # of one that is gone
                    self._crew.hand(_NO_MORE, rank)


class _Extractor:
    """Rows by request, each batch from the process whose turn it is."""

    def __init__(self, together: Together, own: RowExtractor, end: int, hooks: Sequence[HookPoint]) -> None:
        self._together, self._own, self._end = together, own, end
        self._hooks = tuple(hook.name for hook in hooks)
        self._turns: dict[Batch, int] = {}

    def extract(
        self, start: int, stop: int, hooks: Sequence[HookPoint], thresholds: Thresholds
    ) -> Iterator[tuple[HookPoint, ExtractedRows]]:
        """As :meth:`RowExtractor.extract`."""
        if not self._turns:
            each = self._own.batch_contexts
            batches = tuple((low, min(low + each, self._end)) for low in range(start, self._end, each))
            self._turns = {batch: turn % self._together.count for turn, batch in enumerate(batches)}
            self._together.begin(_Work(self._hooks, batches, dict(thresholds)))
        rank = self._turns.get((start, stop), 0)  # what is not on the grid is this process's
        if rank == 0:
            yield from self._own.extract(start, stop, hooks, thresholds)
            return
        rows = self._together.ask(rank, (start, stop))
        for hook in hooks:
            yield hook, rows[hook.name]


def _follow(crew: Crew, model: LanguageModel, tokens: TokenSet, hooks: Sequence[HookPoint], mask: MaskConfig) -> bool:
    """Run this process's batches until rank 0 wants no more.

    Returns:
        Whether this process was told to stop.
    """
    with _signals_wait(again=False) as told:
        work: _Work | None = crew.from_first(lambda: None)
        if work is None:
            return bool(told)
        wanted_hooks = [hook for hook in hooks if hook.name in work.hooks]
        most = max(stop - start for start, stop in work.batches)
        extractor = RowExtractor(model, tokens, wanted_hooks, mask, most)
        asked: Batch | None = None
        for start, stop in work.batches[crew.rank :: crew.count]:
            found: Found
            try:
                found = {
                    hook.name: _on_cpu(rows)
                    for hook, rows in extractor.extract(start, stop, wanted_hooks, work.thresholds)
                }
            except NeuronMapError as error:
                found = error
            asked = asked or crew.take(0)
            if asked == _NO_MORE:
                return bool(told)
            if asked != (start, stop):  # rank 0 has passed over this one
                continue
            crew.hand(KeyboardInterrupt() if told else found, 0)
            asked = None
        while asked != _NO_MORE:
            asked = crew.take(0)
        return bool(told)


def _on_cpu(rows: ExtractedRows) -> ExtractedRows:
    """A copy that does not change with the next batch."""
    return replace(rows, rows_NW=rows.rows_NW.to("cpu", copy=True), norms_N=rows.norms_N.to("cpu", copy=True))


@contextmanager
def _signals_wait(again: bool = True) -> Iterator[list[int]]:
    """Hold Ctrl-C and SIGTERM back; at the end they do what they would have done, if asked for. Gives the list of what came.

    Python lets only the main thread do this; nothing is held back elsewhere.
    """
    told: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def note(number: int, _: FrameType | None) -> None:
        told.append(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    held = {number: handler for number, handler in before.items() if handler is not None}
    for number in held:
        signal.signal(number, note)
    try:
        yield told
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
    if told and again:
        signal.raise_signal(told[0])
