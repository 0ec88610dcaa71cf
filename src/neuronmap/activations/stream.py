"""Activations without a store: the model runs while training asks for rows.

For one pass over much text, where storing would cost more disk than computing costs time. Rows, mask and outlier
threshold are those of a store harvested from the same inputs.

Shape legend: N rows, W width of the hook.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

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
from neuronmap.activations.harvest import store_key
from neuronmap.activations.mask import MaskConfig, count_candidates, nothing_left
from neuronmap.activations.rows import RowStatistics, statistics_of
from neuronmap.hashing import digest_json
from neuronmap.models.tuned import batch_tokens_for
from neuronmap.progress import Progress, default

if TYPE_CHECKING:
    from neuronmap.corpora import TokenSet
    from neuronmap.models import HookPoint, LanguageModel

__all__ = ["ActivationStream"]

STATISTICS_ROWS = 65_536


class ActivationStream:
    """Rows of one hook point computed on demand; give it to ``ShuffledBatches`` in place of a store.

    A bucket is filled by running the model over blocks of contexts drawn over the whole token set, so restoring a
    state computes one bucket again and nothing more.

    Args:
        model: the language model.
        tokens: packed contexts.
        hook: a hook point of this model.
        mask: positions to drop; default :class:`MaskConfig`.
        batch_tokens: tokens per forward pass; as measured by ``neuronmap doctor --tune``, else 2,048, when None.
        progress: where notes go.

    Raises:
        InputError: if the contexts are longer than the model can take.
        EmptyCorpusError: if the mask leaves no row.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokens: TokenSet,
        hook: HookPoint,
        *,
        mask: MaskConfig | None = None,
        batch_tokens: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        check_fit(model, tokens, [hook])
        self._model, self._tokens, self._hook = model, tokens, hook
        self._mask = mask or MaskConfig()
        self._progress = progress or default()
        self.block_units = contexts_per_batch(tokens, batch_tokens_for(model.device, batch_tokens))
        self.num_rows, dropped = count_candidates(tokens, self._mask)
        if not self.num_rows:
            raise nothing_left(tokens, dropped)
        self._extractor: RowExtractor | None = None
        self._captured: Captured = {}

    @property
    def in_background(self) -> bool:
        """Whether the model runs in a thread of its own, ahead of the training: on an accelerator, which works while Python
        waits. On a CPU model and training each fill all cores, so they take turns (docs/experiments.md).
        The model can be used elsewhere meanwhile: forward passes take turns (``LanguageModel.running``)."""
        return self._model.device.type != "cpu"

    @property
    def width(self) -> int:
        """W, the length of a row."""
        return self._hook.width

    @property
    def dtype(self) -> torch.dtype:
        """The model's compute dtype."""
        return self._model.dtype

    @property
    def hook(self) -> HookPoint:
        """The hook point."""
        return self._hook

    @property
    def model(self) -> dict[str, Any]:
        """The model's identity, as a dictionary."""
        return self._model.identity.to_dict()

    @property
    def num_units(self) -> int:
        """Contexts."""
        return self._tokens.num_contexts

    @property
    def rows_per_unit(self) -> int:
        """Most rows a context can give."""
        return max(self._tokens.context_length - self._mask.skip_first_positions, 1)

    @cached_property
    def digest(self) -> str:
        """Digest of model, tokens, hook and mask. How many contexts go through the model at once is not in it: a shuffle's
        state keeps that, so that it can be restored after the measured settings have changed."""
        return digest_json({"stream": store_key(self._model, self._tokens, self._hook, mask=self._mask)})

    @cached_property
    def calibration(self) -> Calibration:
        """Outlier threshold and value range, from the first contexts (as in a store)."""
        found = calibrate(self._model, self._tokens, [self._hook], self._mask, self._progress, self._captured)
        return found[self._hook.name]

    @cached_property
    def statistics(self) -> RowStatistics:
        """Mean, variance and mean square norm of the first 65,536 rows (all, if there are fewer).

        In batches of a fixed size: the input scale of a run follows from them, and it may not depend on measured settings.
        """
        pieces, rows, start = [], 0, 0
        batch = contexts_per_batch(self._tokens, CALIBRATION_BATCH_TOKENS)
        buffer_NW = torch.empty(batch * self.rows_per_unit, self.width, dtype=self.dtype)
        with self._progress.task("Measuring activations", min(STATISTICS_ROWS, self.num_rows), "rows") as task:
            while start < self.num_units and rows < STATISTICS_ROWS:
                stop = min(start + batch, self.num_units)
                count = self.read_block(start, stop, buffer_NW)
                pieces.append(statistics_of([buffer_NW[:count]], self.width))
                task.advance(count)
                rows, start = rows + count, stop
        self._captured.clear()
        total = RowStatistics.empty(self.width)
        for piece in pieces:
            total = total.merge(piece)
        return total

    def read_block(self, start: int, stop: int, out: Tensor) -> int:
        """Run the model over contexts ``start`` to ``stop`` and write the kept rows to the front of ``out``.

        Returns:
            The number of rows written.

        Raises:
            InputError: if the model gives NaN or infinity.
        """
        thresholds = {self._hook.name: self.calibration.outlier_threshold}
        if self._extractor is None or self._extractor.batch_contexts < stop - start:
            largest = max(self.block_units, stop - start)
            known = self._captured
            self._extractor = RowExtractor(self._model, self._tokens, [self._hook], self._mask, largest, known)
        count = 0
        for _, extracted in self._extractor.extract(start, stop, [self._hook], thresholds):
            count = extracted.rows_NW.shape[0]
            out[:count].copy_(extracted.rows_NW)
        return count
