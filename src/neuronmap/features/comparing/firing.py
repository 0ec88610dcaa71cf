"""When the features of SAEs fire: sparse codes of rows, and the places where two sets of rows meet.

Shapes: N rows of one source, D width of a row, F features, P aligned places.

A row is known by its document and its place in the document, whatever its context: rows of two hooks, or of two models that share a
tokenizer, meet where both agree. Codes are held as sparse matrices (8 to 12 bytes an active entry), never as [N, F].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor

from neuronmap.activations import ActivationStore, ArrayRows, RowSource
from neuronmap.errors import InputError, MemoryExhaustedError
from neuronmap.saes.workspace import Workspace

if TYPE_CHECKING:
    from neuronmap.corpora import TokenSet
    from neuronmap.progress import Task
    from neuronmap.saes import SparseAutoencoder

__all__ = ["FiringRows", "ReaderOfRows", "Runs", "meet", "read_firing", "reader_of"]

RUN_CONTEXTS = 16
"""Contexts that are taken or left together when only a part of the text is read."""
_ROWS_AT_ONCE = 2048
_DENSE_NUMBERS = 1 << 25  # 128 MiB of float32, where a code has to be dense for a moment
_MOST_ENTRIES = 1 << 28  # 3 GiB
_CONTEXT_OF_ARRAY = 64  # rows of an array that count as one context

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Origin:
    """Where rows come from: int32 [n] each. ``document`` is -1 where a row belongs to none (separators)."""

    document: Ints
    position: Ints
    context: Ints

    def __getitem__(self, chosen: npt.NDArray[np.int64]) -> Origin:
        return Origin(self.document[chosen], self.position[chosen], self.context[chosen])


Selection = Callable[[Origin], npt.NDArray[np.bool_]]
"""Which of some rows to read."""


class AnalysisRows(Protocol):
    """Rows of the feature pass, as far as they are needed here (``neuronmap.features.collect.rows``)."""

    tokens: TokenSet
    hooks: tuple[str, ...]

    def blocks(self, todo: Sequence[int], contexts_per_block: int) -> Iterator[Mapping[str, Any]]:
        """Blocks of rows by hook, each with ``x_BD``, ``sequence_B`` and ``position_B``."""


class ReaderOfRows(Protocol):
    """One way to read rows piece by piece.

    Attributes:
        widths: width of the rows by hook; the hook of a source of one hook that does not know its name is "".
        num_rows: rows there are, about.
        tokens_digest: digest of the text, None for rows of unknown origin.
        hook: what is known of the hook, None for nothing.
        model: what is known of the model, None for nothing.
    """

    widths: dict[str, int | None]
    num_rows: int
    tokens_digest: str | None
    hook: dict[str, Any] | None
    model: dict[str, Any] | None

    def pieces(self, wanted: Selection) -> Iterator[dict[str, tuple[Tensor, Origin]]]:
        """Rows of every hook, in text order."""


@dataclass(frozen=True)
class Runs:
    """Takes every ``stride``-th run of 16 contexts: a part of the text that is spread over all of it."""

    stride: int

    def __call__(self, origin: Origin) -> npt.NDArray[np.bool_]:
        """Which rows to read."""
        chosen: npt.NDArray[np.bool_] = (origin.context // RUN_CONTEXTS) % self.stride == 0
        return chosen


@dataclass(frozen=True)
class FiringRows:
    """The code of an SAE on some rows.

    Attributes:
        code_NF: float32 CSR, activations above 0.
        document: int32 [N], index of the row's document in its token set.
        position: int32 [N], place of the row's token in the document.
    """

    code_NF: scipy.sparse.csr_matrix
    document: Ints
    position: Ints

    @property
    def key(self) -> npt.NDArray[np.int64]:
        """int64 [N], one number for (document, position)."""
        return (self.document.astype(np.int64) << 32) | self.position


def reader_of(rows: Any) -> ReaderOfRows:
    """A reader of what the user gave: an activation store, rows of a pass, a tensor or array [N, D].

    Raises:
        InputError: if it is none of these.
    """
    if hasattr(rows, "blocks") and hasattr(rows, "hooks"):
        return _PassReader(rows)
    if isinstance(rows, (Tensor, np.ndarray)):
        rows = ArrayRows(rows)
    if isinstance(rows, ActivationStore) or (hasattr(rows, "read") and hasattr(rows, "num_rows")):
        return _SourceReader(rows)
    raise InputError(
        f"Rows must be an activation store, rows of a feature pass, or a tensor or array [rows, width]; got {type(rows).__name__}."
    )


def read_firing(
    reader: ReaderOfRows, saes: Sequence[tuple[str, SparseAutoencoder]], wanted: Selection, task: Task
) -> list[FiringRows]:
    """The codes of several SAEs on the rows of one source, in one pass over it.

    Args:
        reader: the source.
        saes: pairs of a hook of the source and an SAE that reads it.
        wanted: which rows.
        task: told how many rows are done.

    Returns:
        The codes, in the order of ``saes``; rows without a document are left out.

    Raises:
        MemoryExhaustedError: if there are more than 2**28 active entries.
    """
    codes = [_CodeBuilder(sae) for _, sae in saes]
    for piece in reader.pieces(wanted):
        for (hook, _), code in zip(saes, codes, strict=True):
            x_ND, origin = piece[hook]
            inside = np.flatnonzero(origin.document >= 0)
            if len(inside) < len(x_ND):
                x_ND = x_ND[torch.from_numpy(inside)]
            code.add(x_ND, origin.document[inside], origin.position[inside])
        task.advance(max((len(x_ND) for x_ND, _ in piece.values()), default=0))
    return [code.finish() for code in codes]


def meet(a: FiringRows, b: FiringRows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of a and of b that are the same token of the same document, in text order: two int64 [P]."""
    key_a, key_b = a.key, b.key
    if np.array_equal(key_a, key_b):
        return np.arange(len(key_a)), np.arange(len(key_b))
    _, a_P, b_P = np.intersect1d(key_a, key_b, assume_unique=True, return_indices=True)
    return a_P, b_P


class _CodeBuilder:
    """Encodes rows as they come and keeps the active entries."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self._sae, self._workspace = sae, Workspace(sae.device)
        self._feature: list[Ints] = []
        self._value: list[npt.NDArray[np.float32]] = []
        self._count: list[npt.NDArray[np.int64]] = []
        self._document: list[Ints] = []
        self._position: list[Ints] = []
        self._entries = 0

    @torch.no_grad()
    def add(self, x_ND: Tensor, document: Ints, position: Ints) -> None:
        """Encode some rows."""
        size = max(1, min(_ROWS_AT_ONCE, _DENSE_NUMBERS // self._sae.d_sae))
        for start in range(0, len(x_ND), size):
            x_nD = x_ND[start : start + size].to(self._sae.device, self._sae.dtype)
            code = self._sae.encode_entries(x_nD, self._workspace)
            if code is None:
                f_nF = self._sae.encode(x_nD)
                row_E, feature_E = torch.nonzero(f_nF > 0, as_tuple=True)
                value_E = f_nF[row_E, feature_E]
            else:
                code = code.trimmed()
                row_E, feature_E, value_E = code.row_N, code.feature_N, code.value_N
            firing_E = value_E > 0
            self._feature.append(feature_E[firing_E].int().cpu().numpy())
            self._value.append(value_E[firing_E].float().cpu().numpy())
            self._count.append(torch.bincount(row_E[firing_E].long(), minlength=len(x_nD)).cpu().numpy())
            self._entries += len(self._feature[-1])
        self._document.append(document)
        self._position.append(position)
        if self._entries > _MOST_ENTRIES:
            raise MemoryExhaustedError(
                f"The rows have over {_MOST_ENTRIES:,} active features in all, which would need more than 3 GiB.",
                hint="Compare on fewer rows (max_rows), or an SAE that is sparser.",
            )

    def finish(self) -> FiringRows:
        """All rows so far, by document and position."""
        counts = np.concatenate([np.empty(0, np.int64), *self._count])
        code_NF = scipy.sparse.csr_matrix(
            (
                np.concatenate([np.empty(0, np.float32), *self._value]),
                np.concatenate([np.empty(0, np.int32), *self._feature]),
                np.concatenate([[0], np.cumsum(counts)]),
            ),
            shape=(len(counts), self._sae.d_sae),
        )
        code_NF.sort_indices()
        document, position = (
            np.concatenate([np.empty(0, np.int32), *parts]) for parts in (self._document, self._position)
        )
        return FiringRows(code_NF, document, position)


class _SourceReader:
    """Rows of one hook: a store on disk, or an array in memory."""

    def __init__(self, rows: RowSource) -> None:
        self._rows = rows
        self.num_rows = rows.num_rows
        store = rows if isinstance(rows, ActivationStore) else None
        self.hook = store.hook if store is not None else None
        self.model = store.model if store is not None else None
        self.widths: dict[str, int | None] = {"" if store is None else str(store.hook["name"]): rows.width}
        self.tokens_digest = None if store is None else str(store.manifest["tokens"]["digest"])

    def pieces(self, wanted: Selection) -> Iterator[dict[str, tuple[Tensor, Origin]]]:
        """Wanted rows, a few thousand at a time."""
        (hook,) = self.widths
        for start in range(0, self.num_rows, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, self.num_rows)
            origin = self._origin(start, stop)
            chosen = np.flatnonzero(wanted(origin))
            if not len(chosen):
                continue
            first, last = int(chosen[0]), int(chosen[-1]) + 1
            x_nD = self._rows.read(start + first, start + last)[torch.from_numpy(chosen - first)]
            yield {hook: (x_nD, origin[chosen])}

    def _origin(self, start: int, stop: int) -> Origin:
        if isinstance(self._rows, ActivationStore):
            found = self._rows.provenance(start, stop)
            return Origin(found.document, found.position, found.context)
        row = np.arange(start, stop, dtype=np.int32)
        return Origin(np.zeros_like(row), row, row // _CONTEXT_OF_ARRAY)


class _PassReader:
    """Rows of a feature pass, of all its hooks at once: one run of the model serves both SAEs."""

    def __init__(self, rows: AnalysisRows) -> None:
        self._rows, self._tokens = rows, rows.tokens
        self.num_rows = self._tokens.num_contexts * self._tokens.context_length
        self.widths: dict[str, int | None] = dict.fromkeys(rows.hooks)
        self.tokens_digest: str | None = self._tokens.digest
        self.hook = {"name": rows.hooks[0]} if len(rows.hooks) == 1 else None
        self.model: dict[str, Any] | None = None

    def pieces(self, wanted: Selection) -> Iterator[dict[str, tuple[Tensor, Origin]]]:
        """Wanted rows, 16 contexts at a time; only blocks with wanted rows are asked for."""
        blocks = -(-self._tokens.num_contexts // RUN_CONTEXTS)
        todo = [block for block in range(blocks) if wanted(self._of_block(block)).any()]
        for piece in self._rows.blocks(todo, RUN_CONTEXTS):
            result = {}
            for hook, block in piece.items():
                # rows say where they are in their context; the token set says what document that is
                places = self._of_block(int(block.index))
                row_n = block.sequence_B.astype(np.int64) - int(block.index) * RUN_CONTEXTS
                origin = places[row_n * self._tokens.context_length + block.position_B.astype(np.int64)]
                chosen = np.flatnonzero(wanted(origin))
                result[hook] = (block.x_BD[torch.from_numpy(chosen)], origin[chosen])
            yield result

    def _of_block(self, block: int) -> Origin:
        """Where every token of a block comes from."""
        first = block * RUN_CONTEXTS
        batch = self._tokens.contexts(first, min(first + RUN_CONTEXTS, self._tokens.num_contexts))
        context = np.repeat(np.arange(first, first + len(batch.document), dtype=np.int32), batch.document.shape[1])
        return Origin(batch.document.reshape(-1), batch.position.reshape(-1), context)
