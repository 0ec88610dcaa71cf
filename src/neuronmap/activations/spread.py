"""Harvesting with the model on many hosts: workers run it over batches of contexts, this process writes the stores.

Batches are those of the grid that a harvest has anyway, and their rows are written in the order of contexts, so stores have the same bytes
whoever ran the model, and an interrupted harvest is continued by either way.

Shape legend: N rows, W width of a hook.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

from neuronmap.activations.extract import ExtractedRows, RowExtractor
from neuronmap.engines import Pool
from neuronmap.models import resolve_hook
from neuronmap.progress import Progress

if TYPE_CHECKING:
    from neuronmap.activations.mask import MaskConfig
    from neuronmap.corpora import TokenSet
    from neuronmap.models import HookPoint, LanguageModel

__all__ = ["Elsewhere", "SentLanguageModel"]

_SHARD_BYTES = 32 << 20
"""Of activations in one shard: what travels at once, and what a lost worker costs."""
_AHEAD = 2
"""Shards a worker may be ahead of what is written; bounds memory."""

Thresholds = Mapping[str, float | None]


class SentLanguageModel(Protocol):
    """A language model by name, that another host can open."""

    def open(self, progress: Progress) -> LanguageModel:
        """Load it; it is the same one, or this raises."""
        ...


@dataclass(frozen=True, eq=False)
class _Rows:
    """:class:`ExtractedRows` on its way: values as bytes of the model's dtype, which numpy may not have."""

    values: npt.NDArray[np.uint8]
    dtype: torch.dtype
    shape: tuple[int, ...]
    index: npt.NDArray[np.int32]
    dropped: dict[str, int]
    norms_N: npt.NDArray[np.float32]
    place_N: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: ExtractedRows) -> Self:
        x_NW = rows.rows_NW.detach().cpu().contiguous()
        return cls(
            x_NW.reshape(-1).view(torch.uint8).numpy().copy(),
            x_NW.dtype,
            tuple(x_NW.shape),
            rows.index,
            rows.dropped,
            rows.norms_N.float().cpu().numpy().copy(),
            rows.place_N,
        )

    def back(self) -> ExtractedRows:
        x_NW = torch.from_numpy(self.values.copy()).view(self.dtype).reshape(self.shape)
        return ExtractedRows(x_NW, self.index, self.dropped, torch.from_numpy(self.norms_N.copy()), self.place_N)


Batch = tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Work:
    """What workers open."""

    model: SentLanguageModel
    tokens: TokenSet
    hooks: tuple[str, ...]
    mask: MaskConfig
    batch_contexts: int
    thresholds: dict[str, float | None]

    def open(self, progress: Progress) -> _Worker:
        model = self.model.open(progress)
        hooks = [resolve_hook(model, component=name) for name in self.hooks]
        return _Worker(self, hooks, RowExtractor(model, self.tokens, hooks, self.mask, self.batch_contexts))


@dataclass(eq=False)
class _Worker:
    work: _Work
    hooks: list[HookPoint]
    extractor: RowExtractor

    def run(self, shard: Any, progress: Progress) -> list[dict[str, _Rows]]:
        """Rows of each hook, batch by batch."""
        del progress
        return [
            {
                hook.name: _Rows.of(rows)
                for hook, rows in self.extractor.extract(start, stop, self.hooks, self.work.thresholds)
            }
            for start, stop in shard
        ]


@dataclass(eq=False)
class Elsewhere:
    """Runs the model in a pool; given to :func:`neuronmap.activations.harvest`. Use it as a context manager.

    Args:
        pool: the workers.
        model: what each of them opens.
    """

    pool: Pool
    model: SentLanguageModel
    _running: list[_Extractor] = field(default_factory=list)

    def extractor(
        self, own: RowExtractor, tokens: TokenSet, hooks: Sequence[HookPoint], mask: MaskConfig
    ) -> _Extractor:
        """An extractor that answers as ``own`` would.

        Args:
            own: this process's, for batches that are not on the grid.
            tokens, hooks, mask: what it extracts.
        """
        made = _Extractor(self.pool, self.model, own, tokens, list(hooks), mask)
        self._running.append(made)
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for extractor in self._running:
            extractor.close()


class _Extractor:
    """Rows by request, computed ahead in the order of contexts."""

    def __init__(
        self,
        pool: Pool,
        model: SentLanguageModel,
        own: RowExtractor,
        tokens: TokenSet,
        hooks: list[HookPoint],
        mask: MaskConfig,
    ) -> None:
        self._pool, self._model, self._own, self._tokens = pool, model, own, tokens
        self._hooks, self._mask = hooks, mask
        self._shard_of: dict[Batch, int] = {}
        self._shards: list[list[Batch]] = []
        self._arrived: dict[Batch, dict[str, _Rows]] = {}
        self._results: Iterator[tuple[int, Any]] | None = None
        self._missing = 0

    def extract(
        self, start: int, stop: int, hooks: Sequence[HookPoint], thresholds: Thresholds
    ) -> Iterator[tuple[HookPoint, ExtractedRows]]:
        """As :meth:`RowExtractor.extract`."""
        if self._results is None:
            self._begin(start, thresholds)
        if (start, stop) not in self._shard_of:
            yield from self._own.extract(start, stop, hooks, thresholds)
            return
        while (start, stop) not in self._arrived and self._results is not None:
            number, found = next(self._results)
            self._arrived |= dict(zip(self._shards[number], found, strict=True))
            self._missing -= 1
            if not self._missing:
                self.close()  # their places are wanted by the next harvest
        rows = self._arrived.pop((start, stop))
        for hook in hooks:
            yield hook, rows[hook.name].back()

    def close(self) -> None:
        """End the workers."""
        closing = getattr(self._results, "close", None)
        if closing is not None:
            closing()

    def _begin(self, start: int, thresholds: Thresholds) -> None:
        batch, end = self._own.batch_contexts, self._tokens.num_contexts
        batches = [(low, min(low + batch, end)) for low in range(start, end, batch)]
        token_bytes = sum(hook.width for hook in self._hooks) * 4
        each = max(1, _SHARD_BYTES // (batch * self._tokens.context_length * token_bytes))
        each = min(each, -(-len(batches) // (2 * self._pool.workers)))  # something to do for every worker
        self._shards = [batches[low : low + each] for low in range(0, len(batches), max(each, 1))]
        self._shard_of = {one: number for number, shard in enumerate(self._shards) for one in shard}
        self._missing = len(self._shards)
        names = tuple(hook.name for hook in self._hooks)
        work = _Work(self._model, self._tokens, names, self._mask, batch, dict(thresholds))
        self._results = self._pool.run(work, self._shards, ahead=_AHEAD * self._pool.workers)
