"""One pass of a language model for the streams of several hook points.

Each stream shuffles for itself and asks for the blocks of contexts that its bucket needs. The first that asks for a block has the model
run over it, and the rows of the other hooks are kept until their streams ask: with one order for all that is soon, and at most a bucket's
worth.

Shape legend: N rows, W width of a hook.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import psutil
import torch
from torch import Tensor

from neuronmap.activations.extract import (
    CALIBRATION_BATCH_TOKENS,
    Calibration,
    Captured,
    RowExtractor,
    calibrate,
    check_fit,
    contexts_per_batch,
)
from neuronmap.activations.mask import MaskConfig, count_candidates, nothing_left
from neuronmap.activations.rows import RowStatistics, statistics_of
from neuronmap.models.tuned import batch_tokens_for
from neuronmap.progress import Progress, default

if TYPE_CHECKING:
    from neuronmap.activations.together import Crew
    from neuronmap.corpora import TokenSet
    from neuronmap.models import HookPoint, LanguageModel

__all__ = ["ModelPass"]

T = TypeVar("T")

STATISTICS_ROWS = 65_536
_KEPT_SHARE = 0.25
"""Of the free memory, for rows that are kept; what does not fit is computed again."""


class ModelPass:
    """Runs a model over contexts for several hooks at once. Streams in threads of their own take turns.

    Args:
        model: the language model.
        tokens: packed contexts.
        hooks: hook points of this model.
        mask: positions to drop; default :class:`MaskConfig`.
        batch_tokens: tokens per forward pass; as measured by ``neuronmap doctor --tune``, else 2,048, when None.
        progress: where notes go.
        crew: the processes that each make one of the same inputs; this one alone when None. The first measures for all.

    Attributes:
        num_rows: rows that pass the mask by their tokens.
        block_units: contexts in one forward pass.
        contexts_run: contexts that went through the model for streams so far.

    Raises:
        InputError: if the contexts are longer than the model can take.
        EmptyCorpusError: if the mask leaves no row.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokens: TokenSet,
        hooks: Sequence[HookPoint],
        *,
        mask: MaskConfig | None = None,
        batch_tokens: int | None = None,
        progress: Progress | None = None,
        crew: Crew | None = None,
    ) -> None:
        check_fit(model, tokens, hooks)
        self.model, self.tokens, self.mask = model, tokens, mask or MaskConfig()
        self.progress, self.crew = progress or default(), crew if crew is not None and crew.count > 1 else None
        self.block_units = contexts_per_batch(tokens, batch_tokens_for(model.device, batch_tokens))
        self.num_rows, dropped = count_candidates(tokens, self.mask)
        if not self.num_rows:
            raise nothing_left(tokens, dropped)
        self.contexts_run = 0
        self._hooks = {hook.name: hook for hook in hooks}
        self._lock = threading.RLock()
        self._extractor: RowExtractor | None = None
        self._captured: Captured = {}
        self._kept: dict[str, dict[tuple[int, int], Tensor]] = {name: {} for name in self._hooks}
        self._kept_bytes, self._most_kept = 0, int(psutil.virtual_memory().available * _KEPT_SHARE)

    @property
    def rows_per_unit(self) -> int:
        """Most rows a context can give."""
        return max(self.tokens.context_length - self.mask.skip_first_positions, 1)

    @cached_property
    def calibrations(self) -> dict[str, Calibration]:
        """Outlier threshold and value range by hook, from the first contexts (as in a store). All of a crew ask for them first at the
        same place."""

        def measured() -> dict[str, Calibration]:
            hooks = list(self._hooks.values())
            return calibrate(self.model, self.tokens, hooks, self.mask, self.progress, self._captured)

        with self._lock:
            return self._by_first(measured)

    @cached_property
    def statistics(self) -> dict[str, RowStatistics]:
        """By hook: mean, variance and mean square norm of the first 65,536 rows (all, if there are fewer).

        In batches of a fixed size: the input scale of a run follows from them, and it may not depend on measured settings. All of a
        crew ask for them first at the same place.
        """
        with self._lock:
            _ = self.calibrations  # by all, before the first goes on alone
            return self._by_first(self._measured)

    def _by_first(self, measure: Callable[[], T]) -> T:
        return measure() if self.crew is None else self.crew.from_first(measure)

    def _measured(self) -> dict[str, RowStatistics]:
        batch, start = contexts_per_batch(self.tokens, CALIBRATION_BATCH_TOKENS), 0
        total = {name: RowStatistics.empty(hook.width) for name, hook in self._hooks.items()}
        wanted = min(STATISTICS_ROWS, self.num_rows)
        with self.progress.task("Measuring activations", wanted, "rows") as task:
            while start < self.tokens.num_contexts:
                short = [hook for name, hook in self._hooks.items() if total[name].rows < STATISTICS_ROWS]
                if not short:
                    break
                stop = min(start + batch, self.tokens.num_contexts)
                before = min(one.rows for one in total.values())
                for name, rows_NW in self._run(start, stop, short):
                    total[name] = total[name].merge(statistics_of([rows_NW.cpu()], rows_NW.shape[1]))
                task.advance(min(one.rows for one in total.values()) - before)
                start = stop
            self._captured.clear()
        return total

    def read(self, hook: HookPoint, start: int, stop: int, out: Tensor) -> int:
        """Write the rows of a hook in contexts ``start`` to ``stop`` to the front of ``out``.

        Returns:
            The number of rows written.

        Raises:
            InputError: if the model gives NaN or infinity.
        """
        with self._lock:
            kept_NW = self._kept[hook.name].pop((start, stop), None)
            if kept_NW is not None:
                self._kept_bytes -= kept_NW.nbytes
                out[: len(kept_NW)].copy_(kept_NW)
                return len(kept_NW)
            count = 0
            missing = [h for h in self._hooks.values() if h is hook or (start, stop) not in self._kept[h.name]]
            for name, rows_NW in self._run(start, stop, missing):
                if name == hook.name:
                    count = rows_NW.shape[0]
                    out[:count].copy_(rows_NW)
                elif self._kept_bytes + rows_NW.nbytes <= self._most_kept:
                    self._kept[name][start, stop] = rows_NW.to("cpu", copy=True)
                    self._kept_bytes += rows_NW.nbytes
            self.contexts_run += stop - start
            return count

    def leave(self, hook: HookPoint) -> None:
        """Nobody asks for this hook any more: the model runs no further than the others need."""
        with self._lock:
            self._hooks.pop(hook.name, None)
            self._kept_bytes -= sum(rows_NW.nbytes for rows_NW in self._kept[hook.name].values())
            self._kept[hook.name].clear()

    def _run(self, start: int, stop: int, hooks: Sequence[HookPoint]) -> Iterator[tuple[str, Tensor]]:
        thresholds = {hook.name: self.calibrations[hook.name].outlier_threshold for hook in hooks}
        if self._extractor is None or self._extractor.batch_contexts < stop - start:
            largest = max(self.block_units, stop - start)
            every = list(self._hooks.values())
            self._extractor = RowExtractor(self.model, self.tokens, every, self.mask, largest, self._captured)
        device = self.model.device
        # a thread begins on the first GPU, whichever the process has taken
        with nullcontext() if device.type != "cuda" else torch.cuda.device(device):
            for hook, extracted in self._extractor.extract(start, stop, hooks, thresholds):
                yield hook.name, extracted.rows_NW
