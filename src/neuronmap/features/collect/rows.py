"""Rows for the feature pass, block by block: from an activation store, or from one pass of the language model for all hooks.

A block is a run of whole contexts of a fixed grid, so what is computed of it never depends on which blocks are read, nor when.

Shapes: B rows of a block, D width of a hook, C contexts of T tokens in the whole token set, N rows of the whole store.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neuronmap.activations import ActivationStore, MaskConfig
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
from neuronmap.activations.mask import candidates
from neuronmap.activations.rows import statistics_of
from neuronmap.activations.store import RowOrigin
from neuronmap.corpora import ContextBatch, TokenSet
from neuronmap.errors import DamagedError, InputError, MismatchError
from neuronmap.hashing import digest_json
from neuronmap.models import HookPoint, LanguageModel
from neuronmap.progress import Progress

__all__ = ["AnalysisRows", "Measured", "ModelRows", "RowBlock", "StoredRows", "grid", "places_of", "vocabulary_of"]

_INDEX_PIECE = 1 << 20
_SCAN_CONTEXTS = 4096
_NO_DOCUMENT = -1


@dataclass(frozen=True, eq=False)
class RowBlock:
    """The rows of some contexts, in order; valid until the next block is asked for.

    Attributes:
        index: number of the block in the grid.
        first, stop: its contexts, the second exclusive.
        x_BD: float32 rows.
        sequence_B: uint32, the context of each row.
        position_B: uint16, its place in the context.
        token_B: int32, its token.
    """

    index: int
    first: int
    stop: int
    x_BD: Tensor
    sequence_B: npt.NDArray[np.uint32]
    position_B: npt.NDArray[np.uint16]
    token_B: npt.NDArray[np.int32]


class AnalysisRows(Protocol):
    """Where the pass takes rows from."""

    @property
    def tokens(self) -> TokenSet:
        """The contexts that rows come from."""

    @property
    def hooks(self) -> tuple[str, ...]:
        """Names of the hook points there are rows of."""

    @property
    def mask(self) -> MaskConfig:
        """Which positions are no rows."""

    @property
    def vocabulary(self) -> int:
        """V: one more than the largest token id of the token set."""

    def width(self, hook: str) -> int:
        """D."""

    def digest(self, hook: str) -> str:
        """What the rows are: equal digests mean the same rows."""

    def unit(self, hook: str) -> float:
        """A power of two near the usual norm of a row; what activations are counted in."""

    def mean(self, hook: str) -> Tensor:
        """float64 [D]: the row that explained variance is against."""

    def mean_from(self, hook: str) -> str:
        """Which rows it is the mean of, in words."""

    def blocks(self, todo: Sequence[int], contexts_per_block: int) -> Iterator[dict[str, RowBlock]]:
        """The blocks of the grid that are asked for, in that order: hook -> rows. A block may have no rows."""


def grid(tokens: TokenSet, block_tokens: int) -> tuple[int, int]:
    """(contexts in a block, blocks): block i holds contexts i * n to (i + 1) * n."""
    contexts = max(1, block_tokens // tokens.context_length)
    return contexts, -(-tokens.num_contexts // contexts)


def vocabulary_of(tokens: TokenSet) -> int:
    """One more than the largest token id; reads every token once."""
    largest = 0
    for start in range(0, tokens.num_contexts, _SCAN_CONTEXTS):
        contexts = tokens.contexts(start, min(start + _SCAN_CONTEXTS, tokens.num_contexts))
        largest = max(largest, int(contexts.input_ids.max()))
    return largest + 1


def places_of(contexts: ContextBatch, mask: MaskConfig, first: int, origin: RowOrigin) -> npt.NDArray[np.int64]:
    """Where rows lie in their contexts, found by their document and place in it; outliers are missing among them.

    Args:
        contexts: the contexts, from number ``first`` on.
        mask: by which their positions were chosen.
        first: number of the first context.
        origin: of all rows that were kept of these contexts, in order.

    Returns:
        int64 [n], 0 .. T - 1.

    Raises:
        MismatchError: if the rows are not of these contexts.
        InputError: if separators are rows and one of them cannot be told from another that was dropped as an outlier.
    """
    T = contexts.input_ids.shape[1]
    left_BT, _ = candidates(contexts, mask)
    candidate_M = np.flatnonzero(left_BT)
    if len(candidate_M) == len(origin.context):
        found_N = candidate_M
    else:
        found_N = _match(contexts, candidate_M, origin)
    same = np.asarray(contexts.input_ids).reshape(-1)[found_N] == origin.token_id
    if not (same & (first + found_N // T == origin.context)).all():
        raise _foreign(first, len(contexts.input_ids))
    places_N: npt.NDArray[np.int64] = found_N % T
    return places_N


def _match(contexts: ContextBatch, candidate_M: npt.NDArray[np.int64], origin: RowOrigin) -> npt.NDArray[np.int64]:
    document_M = np.asarray(contexts.document).reshape(-1)[candidate_M].astype(np.int64)
    address_M = document_M << 32 | np.asarray(contexts.position).reshape(-1)[candidate_M]
    named_M, named_N = document_M != _NO_DOCUMENT, origin.document != _NO_DOCUMENT
    order = np.argsort(address_M[named_M], kind="stable")
    known = address_M[named_M][order]
    wanted = origin.document[named_N].astype(np.int64) << 32 | origin.position[named_N]
    at = np.searchsorted(known, wanted)
    if (at == len(known)).any() or (known[at] != wanted).any():
        raise _foreign(int(origin.context[0]), len(contexts.input_ids))
    found_N = np.full(len(origin.document), -1, np.int64)
    found_N[named_N] = candidate_M[named_M][order[at]]
    if not named_N.all():
        _place_separators(found_N, candidate_M[~named_M])
    return found_N


def _place_separators(found_N: npt.NDArray[np.int64], separator_S: npt.NDArray[np.int64]) -> None:
    """Fill in rows without a document (-1 in ``found_N``): those between two known neighbours are the separators between them."""
    row = 0
    while row < len(found_N):
        if found_N[row] >= 0:
            row += 1
            continue
        end = row
        while end < len(found_N) and found_N[end] < 0:
            end += 1
        low = found_N[row - 1] if row else -1
        high = found_N[end] if end < len(found_N) else np.iinfo(np.int64).max
        between = separator_S[(separator_S > low) & (separator_S < high)]
        if len(between) != end - row:
            raise InputError(
                f"{end - row} stored rows of separators may be any of {len(between)} in their place: one was dropped as an outlier, and"
                " its neighbours too.",
                hint="Analyse with the language model in place of the store, or harvest with skip_special.",
            )
        found_N[row:end] = between
        row = end


def _foreign(first: int, contexts: int) -> MismatchError:
    return MismatchError(
        f"The stored rows of contexts {first} to {first + contexts - 1} are not of the tokens at hand: their tokens or documents differ.",
        hint="Give the token set that the activations were harvested from.",
    )


def _power_of_two(norm: float) -> float:
    """The nearest in the logarithm; 1 where there is no norm to go by."""
    if not math.isfinite(norm) or norm <= 0.0:
        return 1.0
    return float(2.0 ** max(-100, min(100, round(math.log2(norm)))))


class StoredRows:
    """Rows of an activation store, with the token set that it was harvested from: no language model is needed.

    Args:
        store: the activations.
        tokens: their contexts.

    Raises:
        MismatchError: if the store is of other tokens.
    """

    def __init__(self, store: ActivationStore, tokens: TokenSet) -> None:
        made_of = store.manifest["tokens"]
        if made_of["digest"] != tokens.digest:
            raise MismatchError(
                f"The activation store {store.path.name} is of other tokens: {made_of['num_contexts']:,} contexts of"
                f" {made_of['context_length']} (digest {made_of['digest']}); given were {tokens.num_contexts:,} of"
                f" {tokens.context_length} (digest {tokens.digest}).",
                hint="Give the token set that the store was harvested from: the same corpus, part, tokenizer and options.",
            )
        self._store, self.tokens = store, tokens
        self.hooks = (str(store.hook["name"]),)
        self.mask = MaskConfig.from_dict(store.manifest["mask"])

    @property
    def store(self) -> ActivationStore:
        """Where they are stored."""
        return self._store

    @cached_property
    def vocabulary(self) -> int:
        """V: one more than the largest token id."""
        return vocabulary_of(self.tokens)

    def width(self, hook: str) -> int:
        """D."""
        self._check(hook)
        return self._store.width

    def digest(self, hook: str) -> str:
        """The store's key."""
        self._check(hook)
        return self._store.digest

    def unit(self, hook: str) -> float:
        """The power of two nearest to the root mean square norm of the stored rows."""
        self._check(hook)
        return _power_of_two(math.sqrt(self._store.statistics.mean_square_norm))

    def mean(self, hook: str) -> Tensor:
        """float64 [D]: the mean of the stored rows."""
        self._check(hook)
        return self._store.statistics.mean_D

    def mean_from(self, hook: str) -> str:
        """All of them."""
        self._check(hook)
        return f"all {self._store.num_rows:,} stored rows"

    def blocks(self, todo: Sequence[int], contexts_per_block: int) -> Iterator[dict[str, RowBlock]]:
        """Blocks of the grid; see :class:`AnalysisRows`.

        Raises:
            MismatchError: if the rows do not belong to the tokens.
            DamagedError: if they are not in the order of contexts.
        """
        buffer_ND = torch.empty(0, self._store.width)
        for index in todo:
            first = index * contexts_per_block
            stop = min(first + contexts_per_block, self.tokens.num_contexts)
            start, end = int(self._row_of_context[first]), int(self._row_of_context[stop])
            if end - start > len(buffer_ND):
                buffer_ND = torch.empty(end - start, self._store.width)
            x_BD = self._store.read(start, end, out=buffer_ND[: end - start])
            origin = self._store.provenance(start, end)
            places_B = places_of(self.tokens.contexts(first, stop), self.mask, first, origin)
            yield {
                self.hooks[0]: RowBlock(
                    index,
                    first,
                    stop,
                    x_BD,
                    origin.context.astype(np.uint32),
                    places_B.astype(np.uint16),
                    origin.token_id,
                )
            }

    @cached_property
    def _row_of_context(self) -> npt.NDArray[np.int64]:
        """int64 [C + 1]: the first row of each context."""
        rows_C = np.zeros(self.tokens.num_contexts + 1, np.int64)
        last = 0
        for start in range(0, self._store.num_rows, _INDEX_PIECE):
            context_n = self._store.provenance(start, min(start + _INDEX_PIECE, self._store.num_rows)).context
            if context_n[0] < last or (np.diff(context_n) < 0).any() or context_n[-1] >= self.tokens.num_contexts:
                raise DamagedError(
                    f"The activation store {self._store.path} is damaged: its rows are not in the order of contexts 0 to"
                    f" {self.tokens.num_contexts - 1}.",
                    hint="Delete the folder and harvest again.",
                )
            last = int(context_n[-1])
            rows_C[1:] += np.bincount(context_n, minlength=self.tokens.num_contexts)
        return np.cumsum(rows_C)

    def _check(self, hook: str) -> None:
        if hook not in self.hooks:
            raise _no_hook(hook, self.hooks)


@dataclass(frozen=True, eq=False)
class Measured:
    """What the first contexts told, by hook point; rows of the same text in other processes go by it too.

    Attributes:
        calibration: outlier threshold and median norm.
        means: float64 [D].
    """

    calibration: dict[str, Calibration]
    means: dict[str, Tensor]


class ModelRows:
    """Rows that a language model gives as the pass goes: one run over the text for all hooks, nothing is stored.

    The first contexts are run beforehand, for the outlier threshold, the unit and the mean.

    Args:
        model: the language model.
        tokens: packed contexts, tokenised for it.
        hooks: its hook points.
        mask: positions that are no rows; default :class:`~neuronmap.activations.MaskConfig`.
        batch_tokens: tokens in one forward pass, at most those of a block. It may decide the last bits of activations.
        progress: where the bar of the calibration goes.
        measured: what was measured of these contexts before; they are not run again then.

    Raises:
        InputError: without hooks, or for contexts that are too long for the model.
        EmptyCorpusError: if the mask leaves no row.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokens: TokenSet,
        hooks: Sequence[HookPoint],
        *,
        mask: MaskConfig | None = None,
        batch_tokens: int = CALIBRATION_BATCH_TOKENS,
        progress: Progress | None = None,
        measured: Measured | None = None,
    ) -> None:
        check_fit(model, tokens, hooks)
        self._points = list({hook.name: hook for hook in hooks}.values())
        self.hooks = tuple(hook.name for hook in self._points)
        self.mask = mask or MaskConfig()
        self.tokens, self._model = tokens, model
        self._batch = contexts_per_batch(tokens, batch_tokens)
        self._batch_tokens = batch_tokens
        captured: Captured = {}
        self._calibration = (
            measured.calibration
            if measured is not None
            else calibrate(model, tokens, self._points, self.mask, progress, captured)
        )
        self._threshold = {name: found.outlier_threshold for name, found in self._calibration.items()}
        self._means = measured.means if measured is not None else self._calibrated_means(captured)

    @property
    def measured(self) -> Measured:
        """What the first contexts told."""
        return Measured(self._calibration, self._means)

    @cached_property
    def vocabulary(self) -> int:
        """V: one more than the largest token id."""
        return vocabulary_of(self.tokens)

    def width(self, hook: str) -> int:
        """D."""
        return self._point(hook).width

    def digest(self, hook: str) -> str:
        """Of model, tokens, hook point, mask and the size of forward passes."""
        key = store_key(self._model, self.tokens, self._point(hook), dtype="float32", mask=self.mask)
        return digest_json({"rows": key, "batch_tokens": self._batch_tokens})

    def unit(self, hook: str) -> float:
        """The power of two nearest to the median norm of the first contexts."""
        return _power_of_two(self._calibration[self._point(hook).name].median_norm)

    def mean(self, hook: str) -> Tensor:
        """float64 [D]: the mean row of the contexts that were calibrated on."""
        return self._means[self._point(hook).name]

    def mean_from(self, hook: str) -> str:
        """Those contexts."""
        found = self._calibration[self._point(hook).name]
        return f"the {found.rows:,} rows of the first {found.contexts:,} contexts with any"

    def blocks(self, todo: Sequence[int], contexts_per_block: int) -> Iterator[dict[str, RowBlock]]:
        """Blocks of the grid; see :class:`AnalysisRows`.

        Raises:
            InputError: if the model gives NaN or infinity.
            MismatchError: if the text was tokenised for another model.
            MemoryExhaustedError: if the device has no room for a forward pass.
        """
        batch = min(self._batch, contexts_per_block)
        extractor = RowExtractor(self._model, self.tokens, self._points, self.mask, batch)
        most = contexts_per_block * self.tokens.context_length
        buffers = {point.name: torch.empty(most, point.width) for point in self._points}
        for index in todo:
            first = index * contexts_per_block
            stop = min(first + contexts_per_block, self.tokens.num_contexts)
            rows = dict.fromkeys(self.hooks, 0)
            parts: dict[str, list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]]] = {name: [] for name in rows}
            for start in range(first, stop, batch):
                end = min(start + batch, stop)
                for hook, found in extractor.extract(start, end, self._points, self._threshold):
                    name, count = hook.name, len(found.index)
                    buffers[name][rows[name] : rows[name] + count].copy_(found.rows_NW)
                    rows[name] += count
                    parts[name].append((found.index, found.place_N))
            block = {}
            for name, pieces in parts.items():
                index_N4 = np.concatenate([index_n4 for index_n4, _ in pieces])
                block[name] = RowBlock(
                    index,
                    first,
                    stop,
                    buffers[name][: rows[name]],
                    index_N4[:, 3].astype(np.uint32),
                    np.concatenate([place_n for _, place_n in pieces]).astype(np.uint16),
                    np.ascontiguousarray(index_N4[:, 2]),
                )
            yield block

    def _calibrated_means(self, captured: Captured) -> dict[str, Tensor]:
        """The batches are those of the calibration, so most need no second run."""
        batch = contexts_per_batch(self.tokens, CALIBRATION_BATCH_TOKENS)
        extractor = RowExtractor(self._model, self.tokens, self._points, self.mask, batch, captured)
        pieces: dict[str, list[Tensor]] = {name: [] for name in self.hooks}
        looked_at, wanted = 0, max(found.contexts for found in self._calibration.values())
        for start in range(0, self.tokens.num_contexts, batch):
            stop = min(start + batch, self.tokens.num_contexts)
            usable = False
            for hook, found in extractor.extract(start, stop, self._points, self._threshold):
                usable = usable or len(found.index) + found.dropped["outliers"] > 0
                pieces[hook.name].append(found.rows_NW.to("cpu", torch.float32, copy=True))
            looked_at += (stop - start) * usable
            if looked_at >= wanted:
                break
        return {point.name: statistics_of(pieces[point.name], point.width).mean_D for point in self._points}

    def _point(self, hook: str) -> HookPoint:
        for point in self._points:
            if point.name == hook:
                return point
        raise _no_hook(hook, self.hooks)


def _no_hook(hook: str, hooks: tuple[str, ...]) -> InputError:
    return InputError(f"There are no rows of hook point {hook!r}; there are rows of {', '.join(hooks)}.")
