"""From contexts to rows: run the model, mask, gather. The store and the stream both take their rows from here.

Shape legend: B contexts, T tokens in a context, N rows (flattened positions), W width of a hook.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neuronmap.activations.mask import DROP_REASONS, MaskConfig, candidates, nothing_left
from neuronmap.activations.shards import FORMATS
from neuronmap.errors import InputError, MemoryExhaustedError, MismatchError
from neuronmap.models import capture
from neuronmap.progress import Progress, default

if TYPE_CHECKING:
    from neuronmap.corpora import ContextBatch, TokenSet
    from neuronmap.models import HookPoint, LanguageModel

__all__ = ["Calibration", "ExtractedRows", "RowExtractor", "calibrate", "check_fit", "contexts_per_batch"]

Captured = dict[tuple[int, int], dict[str, Tensor]]
"""(first context, one past the last) -> hook name -> activations [B, T, W]."""

INDEX_COLUMNS = ("document", "position", "token_id", "context")
_ROUNDINGS = ("float16", "bfloat16", "int8")
CALIBRATION_CONTEXTS = 64
_CALIBRATION_TOKENS = 16_384  # long contexts: fewer of them, at least 8
_KEPT_BYTES = 256 << 20  # most activations that a calibration keeps for the harvest after it
CALIBRATION_BATCH_TOKENS = 2048  # fixed: what is measured first must not depend on the caller's batch size


def contexts_per_batch(tokens: TokenSet, batch_tokens: int) -> int:
    """How many contexts one forward pass takes: about ``batch_tokens`` tokens, at least one context."""
    if batch_tokens < 1:
        raise InputError(f"batch_tokens = {batch_tokens}: at least 1 token must go through the model at once.")
    return max(1, batch_tokens // tokens.context_length)


def check_fit(model: LanguageModel, tokens: TokenSet, hooks: Sequence[HookPoint]) -> None:
    """Refuse early what would fail late.

    Raises:
        InputError: if there are no hooks, or the contexts are longer than the model can take.
    """
    if not hooks:
        raise InputError("No hook point was given; at least one is needed.", hint="See: neuronmap models hooks MODEL")
    if model.max_length is not None and tokens.context_length > model.max_length:
        raise InputError(
            f"The contexts are {tokens.context_length} tokens long, but {model.identity.name} takes at most"
            f" {model.max_length}.",
            hint=f"Tokenise again with context_length={model.max_length} or less.",
        )


@dataclass(frozen=True)
class ExtractedRows:
    """Rows of one hook from one batch of contexts; valid until the next is asked for.

    Attributes:
        rows_NW: kept rows in context order, in the model's dtype, on the model's device.
        index: int32 [N, 4]: document, position, token id, context of each row.
        dropped: positions dropped, by reason.
        norms_N: float32 norms of the kept rows.
        place_N: int64, the place of each row in its context (``index`` has the place in the document).
    """

    rows_NW: Tensor
    index: npt.NDArray[np.int32]
    dropped: dict[str, int]
    norms_N: Tensor
    place_N: npt.NDArray[np.int64]


class RowExtractor:
    """Runs contexts through a model and gives the unmasked rows of many hooks, from reused buffers.

    Args:
        model: the language model.
        tokens: its contexts.
        hooks: every hook that may be asked for.
        mask: which positions to leave out.
        batch_contexts: most contexts in one call of :meth:`extract`.
        known: activations of some batches from before; each is used once and dropped.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokens: TokenSet,
        hooks: Sequence[HookPoint],
        mask: MaskConfig,
        batch_contexts: int,
        known: Captured | None = None,
    ) -> None:
        self._model, self._tokens, self._mask = model, tokens, mask
        self._known = {} if known is None else known
        self.batch_contexts = batch_contexts
        T, dtype, device = tokens.context_length, model.dtype, model.device
        self._captured_BTW = {
            hook.name: torch.empty(batch_contexts, T, hook.width, dtype=dtype, device=device) for hook in hooks
        }
        widest = max(hook.width for hook in hooks)
        self._gathered = torch.empty(batch_contexts * T * widest, dtype=dtype, device=device)

    def extract(
        self, start: int, stop: int, hooks: Sequence[HookPoint], thresholds: Mapping[str, float | None]
    ) -> Iterator[tuple[HookPoint, ExtractedRows]]:
        """Rows of contexts ``start`` to ``stop``, hook by hook; use each before taking the next.

        Raises:
            InputError: if an activation that would be kept is NaN or infinite.
            MismatchError: if a token id is not in the model's vocabulary.
            MemoryExhaustedError: if the model's device has no room for the batch.
        """
        contexts = self._tokens.contexts(start, stop)
        left_BT, dropped = candidates(contexts, self._mask)
        chosen_N = torch.from_numpy(np.flatnonzero(left_BT)).to(self._model.device)
        captured_BTW = self._known.pop((start, stop), {})
        if chosen_N.numel() and not all(hook.name in captured_BTW for hook in hooks):
            captured_BTW = self._run(contexts, hooks)
        for hook in hooks:
            if not chosen_N.numel():
                empty_NW = self._gathered[:0].view(0, hook.width)
                nothing = np.empty((0, len(INDEX_COLUMNS)), np.int32)
                reasons = {**dropped, "outliers": 0}
                yield hook, ExtractedRows(empty_NW, nothing, reasons, torch.empty(0), np.empty(0, np.int64))
                continue
            x_NW = captured_BTW[hook.name].reshape(-1, hook.width)
            norms_N = torch.linalg.vector_norm(x_NW, dim=1, dtype=torch.float32).index_select(0, chosen_N)
            if not bool(norms_N.isfinite().all()):
                raise _not_finite(hook, start, x_NW, chosen_N, self._tokens.context_length)
            kept_N, threshold = chosen_N, thresholds[hook.name]
            if threshold is not None:
                inside_N = norms_N <= threshold
                kept_N, norms_N = chosen_N[inside_N], norms_N[inside_N]
            count = kept_N.numel()
            rows_NW = self._gathered[: count * hook.width].view(count, hook.width)
            torch.index_select(x_NW, 0, kept_N, out=rows_NW)
            reasons = {**dropped, "outliers": chosen_N.numel() - count}
            places_N = kept_N.cpu().numpy()
            index = _index(contexts, start, places_N)
            yield hook, ExtractedRows(rows_NW, index, reasons, norms_N, places_N % self._tokens.context_length)

    def last_captured(self, contexts: int, hooks: Sequence[HookPoint]) -> dict[str, Tensor]:
        """A copy of what the last call saw of its contexts, before any mask."""
        return {hook.name: self._captured_BTW[hook.name][:contexts].clone() for hook in hooks}

    def _run(self, contexts: ContextBatch, hooks: Sequence[HookPoint]) -> dict[str, Tensor]:
        model, B = self._model, contexts.input_ids.shape[0]
        ids_BT = torch.from_numpy(np.array(contexts.input_ids, dtype=np.int64)).to(model.device)
        attention_BT = None  # an all-ones mask changes nothing but may cost the fast attention path
        if not contexts.attention.all():
            attention_BT = torch.from_numpy(np.array(contexts.attention, dtype=np.int64)).to(model.device)
        vocabulary, largest = model.module.get_input_embeddings().weight.shape[0], int(contexts.input_ids.max())
        if largest >= vocabulary:
            raise MismatchError(
                f"Token id {largest:,} is outside the vocabulary of {model.identity.name} ({vocabulary:,} entries):"
                " the text was tokenised for another model.",
                hint="Tokenise with this model's own tokenizer.",
            )
        out = {hook.name: self._captured_BTW[hook.name][:B] for hook in hooks}
        try:
            return capture(model, ids_BT, list(hooks), attention_mask_BT=attention_BT, out=out)
        except torch.OutOfMemoryError as error:
            raise MemoryExhaustedError(
                f"The device ran out of memory on a batch of {ids_BT.numel():,} tokens.",
                hint="Use a smaller batch_tokens.",
            ) from error


def _index(contexts: ContextBatch, first: int, kept_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    index = np.empty((kept_N.size, len(INDEX_COLUMNS)), np.int32)
    for column, values_BT in enumerate((contexts.document, contexts.position, contexts.input_ids)):
        index[:, column] = np.asarray(values_BT).reshape(-1)[kept_N]
    index[:, 3] = first + kept_N // contexts.input_ids.shape[1]
    return index


def _not_finite(hook: HookPoint, first: int, x_NW: Tensor, chosen_N: Tensor, T: int) -> InputError:
    bad_N = chosen_N[~x_NW.index_select(0, chosen_N).isfinite().all(1)]
    if bad_N.numel() == 0:  # finite values so large that the float32 norm is not
        bad_N = chosen_N
    return InputError(
        f"The model gives NaN or infinite activations at {hook.name}: {bad_N.numel():,} of {chosen_N.numel():,} rows"
        f" in this batch, first in context {first + int(bad_N[0]) // T}, position {int(bad_N[0]) % T}.",
        hint="Load the model in float32 (dtype='float32'); if it stays, the weights are damaged.",
    )


@dataclass(frozen=True)
class Calibration:
    """What the first contexts say about one hook.

    Attributes:
        contexts: contexts looked at.
        rows: rows kept of them.
        median_norm: median norm before outliers are dropped.
        outlier_threshold: norm above which a row is dropped; None keeps all.
        max_abs: largest absolute value in the kept rows.
        rounding_error: relative mean squared error, sum|x - stored(x)|² / sum|x|², by storage dtype.
    """

    contexts: int
    rows: int
    median_norm: float
    outlier_threshold: float | None
    max_abs: float
    rounding_error: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def calibrate(
    model: LanguageModel,
    tokens: TokenSet,
    hooks: Sequence[HookPoint],
    mask: MaskConfig,
    progress: Progress | None = None,
    keep: Captured | None = None,
) -> dict[str, Calibration]:
    """Outlier thresholds and value ranges from the first contexts that hold usable rows.

    64 contexts are looked at, fewer (at least 8) if they are longer than 256 tokens.

    The contexts and their batches are fixed, so the result depends on model, tokens, hook and mask only: not on
    the batch size of the harvest, nor on where it was interrupted.

    Args:
        model, tokens, hooks, mask: as for :class:`RowExtractor`.
        progress: where the bar goes.
        keep: is filled with what was captured (up to 256 MiB), for a :class:`RowExtractor` that will ask for the same
            batches: the model then does not run over them a second time.

    Raises:
        EmptyCorpusError: if the mask leaves no row in the whole token set.
    """
    batch = contexts_per_batch(tokens, CALIBRATION_BATCH_TOKENS)
    extractor = RowExtractor(model, tokens, hooks, mask, batch)
    keep_all: dict[str, float | None] = dict.fromkeys(hook.name for hook in hooks)
    found: dict[str, list[Tensor]] = {hook.name: [] for hook in hooks}
    dropped_in_all = dict.fromkeys(DROP_REASONS, 0)
    row_bytes = sum(hook.width for hook in hooks) * model.dtype.itemsize
    looked_at, wanted = 0, min(CALIBRATION_CONTEXTS, max(8, _CALIBRATION_TOKENS // tokens.context_length))
    total = min(wanted, tokens.num_contexts) * tokens.context_length
    with (progress or default()).task("Calibrating outlier norms and value ranges", total, "tokens") as task:
        for start in range(0, tokens.num_contexts, batch):
            stop = min(start + batch, tokens.num_contexts)
            usable = False
            for hook, extracted in extractor.extract(start, stop, hooks, keep_all):
                if hook is hooks[0]:
                    for reason, count in extracted.dropped.items():
                        dropped_in_all[reason] += count
                if extracted.rows_NW.shape[0]:
                    usable = True
                    found[hook.name].append(_measure(extracted))
            if usable:
                if keep is not None and (looked_at + stop - start) * tokens.context_length * row_bytes <= _KEPT_BYTES:
                    keep[start, stop] = extractor.last_captured(stop - start, hooks)
                looked_at += stop - start
                task.advance((stop - start) * tokens.context_length)
            if looked_at >= wanted:
                break
    if not looked_at:
        raise nothing_left(tokens, dropped_in_all)
    return {name: _conclude(torch.cat(parts), looked_at, mask) for name, parts in found.items()}


def _measure(extracted: ExtractedRows) -> Tensor:
    """float64 [N, 6]: norm, largest |x|, |x|², and |x - rounded|² in float16, bfloat16 and int8."""
    x_NW = extracted.rows_NW.float()
    columns = [extracted.norms_N.double(), x_NW.abs().amax(1).double(), x_NW.double().square().sum(1)]
    roundings = (FORMATS[name].rounded(x_NW) for name in _ROUNDINGS)
    columns += [(x_NW - rounded_NW).double().square().sum(1) for rounded_NW in roundings]
    return torch.stack([column.cpu() for column in columns], dim=1)


def _conclude(measured: Tensor, contexts: int, mask: MaskConfig) -> Calibration:
    median = float(measured[:, 0].median())
    threshold = None
    if mask.outlier_factor is not None:
        threshold = median * mask.outlier_factor
        measured = measured[measured[:, 0] <= threshold]
    power = max(float(measured[:, 2].sum()), 1e-300)
    errors = {"float32": 0.0}
    for column, name in enumerate(_ROUNDINGS, start=3):
        error = float(measured[:, column].sum()) / power
        errors[name] = error if np.isfinite(error) else -1.0  # -1: a sampled value does not fit at all
    return Calibration(contexts, measured.shape[0], median, threshold, float(measured[:, 1].max()), errors)
