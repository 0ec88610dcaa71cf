"""Which positions become rows: special tokens, padding, the first positions and norm outliers are left out.

Shape legend: B contexts, T tokens in a context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field

from neuronmap.config import FrozenConfig
from neuronmap.errors import EmptyCorpusError

if TYPE_CHECKING:
    from neuronmap.corpora import ContextBatch, TokenSet

__all__ = ["DROP_REASONS", "MaskConfig", "candidates", "count_candidates", "nothing_left"]

DROP_REASONS = ("padding", "special", "first_positions", "outliers")
"""Why a position is dropped, in the order of judgement: each dropped position is counted once."""

_SCAN_CONTEXTS = 4096


class MaskConfig(FrozenConfig):
    """Which positions are dropped before anything is stored or trained on. Padding always is.

    The first token of a context is an attention sink: on SmolLM2-135M its norm is 140 times the others', with
    or without a BOS token, so masking special tokens alone does not catch it.
    """

    skip_special: bool = True
    """Drop the tokenizer's special tokens (BOS, EOS, separators between documents)."""

    skip_first_positions: int = Field(default=1, ge=0)
    """Drop this many positions at the start of each context."""

    outlier_factor: float | None = Field(default=10.0, gt=1.0)
    """Drop rows whose norm is above this many times the median norm of the first contexts (up to 64); none keeps all."""


def candidates(contexts: ContextBatch, mask: MaskConfig) -> tuple[npt.NDArray[np.bool_], dict[str, int]]:
    """Judge positions by their tokens alone.

    Returns:
        bool [B, T], True where a row may be kept (outliers are judged later, by norm), and the number of
        positions dropped by reason.
    """
    padding_BT = ~np.asarray(contexts.attention, dtype=bool)
    left_BT = ~padding_BT
    dropped = {"padding": int(padding_BT.sum())}
    special_BT = np.logical_and(contexts.special, left_BT) if mask.skip_special else np.zeros_like(left_BT)
    left_BT &= ~special_BT
    dropped["special"] = int(special_BT.sum())
    first_BT = left_BT[:, : mask.skip_first_positions]
    dropped["first_positions"] = int(first_BT.sum())
    first_BT[...] = False
    return left_BT, dropped


def count_candidates(tokens: TokenSet, mask: MaskConfig) -> tuple[int, dict[str, int]]:
    """Rows that pass the mask by their tokens, over the whole token set, and what was dropped by reason.

    Reads every token once (no model): about a second for ten million tokens.
    """
    kept, dropped = 0, dict.fromkeys(DROP_REASONS, 0)
    for start in range(0, tokens.num_contexts, _SCAN_CONTEXTS):
        left_BT, reasons = candidates(tokens.contexts(start, min(start + _SCAN_CONTEXTS, tokens.num_contexts)), mask)
        kept += int(left_BT.sum())
        for reason, count in reasons.items():
            dropped[reason] += count
    return kept, dropped


def nothing_left(tokens: TokenSet, dropped: dict[str, int]) -> EmptyCorpusError:
    """The error for a corpus of which the mask leaves no row."""
    reasons = ", ".join(f"{count:,} as {reason.replace('_', ' ')}" for reason, count in dropped.items() if count)
    return EmptyCorpusError(
        f"The mask drops every position of the {tokens.num_contexts:,} contexts of {tokens.context_length} tokens"
        f" ({reasons or 'there are no positions'}).",
        hint="Give more text or longer contexts, or relax the mask (skip_special, skip_first_positions).",
    )
