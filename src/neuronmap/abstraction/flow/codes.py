"""What several SAEs find at the same tokens: one pass of the language model, one sparse code each.

Shapes: N rows (tokens), B rows of a batch, D width of the activation, F features of one SAE, E its firings, T tokens in a context,
C contexts.

A firing takes 8 bytes (4 for the feature, 4 for the activation) and a row 8 more; [N, F] is never built. While a pair of SAEs is compared,
the firings of both are held once more, by feature and in float64: 24 bytes each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor

from neuronmap.activations import MaskConfig
from neuronmap.activations.extract import (
    CALIBRATION_BATCH_TOKENS,
    Captured,
    RowExtractor,
    calibrate,
    check_fit,
    contexts_per_batch,
)
from neuronmap.activations.mask import count_candidates, nothing_left
from neuronmap.errors import InputError, MemoryExhaustedError
from neuronmap.progress import Progress, default
from neuronmap.saes.uses import require_use
from neuronmap.saes.workspace import Workspace

if TYPE_CHECKING:
    from neuronmap.corpora import TokenSet
    from neuronmap.models import HookPoint, LanguageModel
    from neuronmap.saes import SparseAutoencoder

__all__ = ["FLOW_MASK", "SharedCodes", "encode_rows", "encode_shared"]

FLOW_MASK = MaskConfig()
"""Left out: position 0 of each context, special tokens, padding, and rows whose norm at any of the hooks is over ten times the usual. A few
such rows would decide every correlation by themselves."""

_ROWS_AT_ONCE = 2048
_DENSE_NUMBERS = 1 << 25  # 128 MiB of float32, where a code has to be dense for a moment
_MOST_ENTRIES = 1 << 28  # 2 GiB

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SharedCodes:
    """The codes of several SAEs on the same rows, in text order.

    Attributes:
        codes: float32 CSR [N, F], activations above 0, one for each SAE.
        context_N: int32, the context of each row.
        place_N: int32, its place in the context.
        contexts: C, how many contexts there are, rows or not.
        context_length: T.
    """

    codes: list[scipy.sparse.csr_matrix]
    context_N: npt.NDArray[np.int32]
    place_N: npt.NDArray[np.int32]
    contexts: int
    context_length: int

    @property
    def rows(self) -> int:
        """N."""
        return len(self.context_N)

    def part(self, start: int, stop: int) -> SharedCodes:
        """The rows of contexts ``start`` to ``stop`` (exclusive), with contexts counted from 0 again."""
        first, last = np.searchsorted(self.context_N, [start, stop])
        codes = [code_NF[first:last] for code_NF in self.codes]
        return SharedCodes(
            codes, self.context_N[first:last] - start, self.place_N[first:last], stop - start, self.context_length
        )

    def of_rows(self, rows_n: Ints) -> SharedCodes:
        """Some of the rows, ascending."""
        codes = [code_NF[rows_n] for code_NF in self.codes]
        return replace(self, codes=codes, context_N=self.context_N[rows_n], place_N=self.place_N[rows_n])

    def halves(self) -> tuple[SharedCodes, SharedCodes]:
        """The first and the second half of the contexts; whole documents, but for one, are on one side."""
        middle = self.contexts // 2
        return self.part(0, middle), self.part(middle, self.contexts)

    def shifted(self, by: int) -> tuple[Ints, Ints]:
        """Rows paired with those of the same place ``by`` contexts further on, around the end.

        Runs of firing, and what depends on the place in the context, stay; only which context meets which is lost.

        Returns:
            int64 [n] and [n]: row ``a[i]`` is paired with row ``b[i]``. Rows whose partner was left out have none.
        """
        key_N = self.context_N.astype(np.int64) * self.context_length + self.place_N
        moved_N = (self.context_N.astype(np.int64) + by) % self.contexts * self.context_length + self.place_N
        found_N = np.minimum(np.searchsorted(key_N, moved_N), max(0, len(key_N) - 1))
        rows_n = np.flatnonzero(key_N[found_N] == moved_N) if len(key_N) else np.empty(0, np.int64)
        return rows_n, found_N[rows_n]


def encode_shared(
    model: LanguageModel,
    saes: Sequence[tuple[SparseAutoencoder, HookPoint]],
    tokens: TokenSet,
    *,
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> SharedCodes:
    """Run the model once over a text and encode what every SAE reads.

    Args:
        model: the language model; it runs only as far as the deepest hook.
        saes: each with the hook point it reads, of its width.
        tokens: the text.
        batch_tokens: tokens in a forward pass; 2,048 when left out. It decides the last bits of activations only.
        progress: where the bar goes.

    Returns:
        The codes, in the order of ``saes``.

    Raises:
        EmptyCorpusError: if the mask leaves no row.
        InputError: if the contexts are too long for the model, or an activation is NaN or infinite.
        MismatchError: if the text was tokenised for another model, or an SAE reads more than rows of one hook.
        MemoryExhaustedError: if an SAE has more than 2**28 firings.
    """
    for sae, hook in saes:
        require_use(sae, "features", f"Reading the features at {hook.name}")
    hooks = list({hook.name: hook for _, hook in saes}.values())
    check_fit(model, tokens, hooks)
    rows, dropped = count_candidates(tokens, FLOW_MASK)
    if not rows:
        raise nothing_left(tokens, dropped)
    progress = progress or default()
    known: Captured = {}
    limits = calibrate(model, tokens, hooks, FLOW_MASK, progress, keep=known)
    size = contexts_per_batch(tokens, CALIBRATION_BATCH_TOKENS if batch_tokens is None else batch_tokens)
    extractor = RowExtractor(model, tokens, hooks, FLOW_MASK, size, known)
    builders = [(hook.name, _CodeBuilder(sae)) for sae, hook in saes]
    keep_all: dict[str, float | None] = dict.fromkeys(hook.name for hook in hooks)
    context_parts, place_parts = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    usual_parts = [np.empty(0, np.bool_)]
    title = f"Reading the features of {len(saes)} SAEs"
    with progress.task(title, tokens.num_contexts * tokens.context_length, "tokens") as task:
        for start in range(0, tokens.num_contexts, size):
            stop = min(start + size, tokens.num_contexts)
            for hook, found in extractor.extract(start, stop, hooks, keep_all):
                for name, builder in builders:
                    if name == hook.name:
                        builder.add(found.rows_NW, name)
                limit = limits[hook.name].outlier_threshold
                usual_N = (found.norms_N <= (np.inf if limit is None else limit)).cpu().numpy()
                if hook is hooks[0]:
                    context_parts.append(found.index[:, 3])
                    place_parts.append(found.place_N.astype(np.int32))
                    usual_parts.append(usual_N)
                else:  # all layers have the same rows
                    usual_parts[-1] &= usual_N
            task.advance((stop - start) * tokens.context_length)
    codes = [builder.finish() for _, builder in builders]
    places = np.concatenate(context_parts), np.concatenate(place_parts)
    shared = SharedCodes(codes, *places, tokens.num_contexts, tokens.context_length)
    usual = np.flatnonzero(np.concatenate(usual_parts))
    if len(usual) < shared.rows:
        progress.note(f"{shared.rows - len(usual):,} tokens with outlying norms are left out at all layers.")
        shared = shared.of_rows(usual)
    return shared


def encode_rows(sae: SparseAutoencoder, x_ND: Tensor, where: str = "the rows") -> scipy.sparse.csr_matrix:
    """The code of some activations, such as those at the read positions of a concept's items.

    Args:
        sae: the SAE.
        x_ND: activations, any dtype and device.
        where: what they are, for messages.

    Returns:
        float32 CSR [N, F], activations above 0.

    Raises:
        InputError: if the width is not the SAE's, or an activation is NaN or infinite.
        MismatchError: if the SAE reads more than rows of one hook, or its activations may be negative.
    """
    require_use(sae, "features", f"Reading the features of {where}")
    if x_ND.dim() != 2 or x_ND.shape[1] != sae.d_in:
        raise InputError(f"An SAE of width {sae.d_in} reads activations [rows, {sae.d_in}], not {list(x_ND.shape)}.")
    builder = _CodeBuilder(sae)
    builder.add(x_ND, where)
    return builder.finish()


class _CodeBuilder:
    """Encodes rows as they come and keeps the firings."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self._sae, self._workspace = sae, Workspace(sae.device)
        self._feature = [np.empty(0, np.int32)]
        self._value = [np.empty(0, np.float32)]
        self._count = [np.zeros(1, np.int64)]
        self._entries = 0

    @torch.no_grad()
    def add(self, x_ND: Tensor, where: str) -> None:
        """Encode some rows."""
        size = max(1, min(_ROWS_AT_ONCE, _DENSE_NUMBERS // self._sae.d_sae))
        for start in range(0, len(x_ND), size):
            x_BD = x_ND[start : start + size].to(self._sae.device, self._sae.dtype)
            code = self._sae.encode_entries(x_BD, self._workspace)
            if code is None:
                f_BF = self._sae.encode(x_BD)
                # "not f <= 0" and not "f > 0": NaN is to be found, not to be lost
                row_E, feature_E = torch.nonzero(~(f_BF <= 0), as_tuple=True)
                value_E = f_BF[row_E, feature_E]
            else:
                code = code.trimmed()
                row_E, feature_E, value_E = code.row_N, code.feature_N, code.value_N
            if value_E.numel() and not bool(value_E.sum().isfinite()):
                raise InputError(
                    f"An SAE of {self._sae.d_sae:,} features gives NaN or infinite activations at {where}.",
                    hint="Its weights are damaged, or it was made for activations of another scale.",
                )
            firing_E = value_E > 0
            self._feature.append(feature_E[firing_E].int().cpu().numpy())
            self._value.append(value_E[firing_E].float().cpu().numpy())
            self._count.append(torch.bincount(row_E[firing_E].long(), minlength=len(x_BD)).cpu().numpy())
            self._entries += len(self._feature[-1])
            if self._entries > _MOST_ENTRIES:
                raise MemoryExhaustedError(
                    f"The text has over {_MOST_ENTRIES:,} active features in all, which would need more than 2 GiB.",
                    hint="Follow the features over fewer tokens, or of SAEs that are sparser.",
                )

    def finish(self) -> scipy.sparse.csr_matrix:
        """All rows so far; features ascending in each."""
        offset = np.cumsum(np.concatenate(self._count))
        code_NF = scipy.sparse.csr_matrix(
            (np.concatenate(self._value), np.concatenate(self._feature), offset),
            shape=(len(offset) - 1, self._sae.d_sae),
        )
        code_NF.sort_indices()
        return code_NF
