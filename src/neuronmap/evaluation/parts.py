"""Parts of an evaluation that can be done anywhere: how contexts are cut, what comes out of a part, and how it is put together.

Borders depend on the number of contexts and of those in a forward pass alone, and sums are added in the order of the parts: the result is
the same to the bit, whether one process does all parts or many do some each.

Shapes: C units of the bootstrap, D = d_in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from neuronmap.corpora import TokenSet
from neuronmap.errors import ConfigError
from neuronmap.evaluation.rows import RowSums, Units
from neuronmap.evaluation.splice import SplicedSums

__all__ = [
    "Ablation",
    "EvaluationSize",
    "RowPart",
    "added",
    "behaviour_count",
    "context_parts",
    "joined_behaviour",
    "joined_rows",
    "row_count",
]

Ablation = Literal["zero", "mean"]

_MOST_PARTS = 32


@dataclass(frozen=True)
class EvaluationSize:
    """How much is measured; as for :func:`neuronmap.evaluation.evaluate_sae`.

    Raises:
        ConfigError: for numbers out of range and unknown ablations.
    """

    max_tokens: int | None
    max_ce_tokens: int
    batch_tokens: int
    ablations: tuple[Ablation, ...]
    bootstrap: int
    seed: int

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(f"max_tokens = {self.max_tokens}: at least 1 token is needed.")
        if self.max_ce_tokens < 0:
            raise ConfigError(f"max_ce_tokens = {self.max_ce_tokens}: 0 (no loss and KL) or more.")
        if self.batch_tokens < 1:
            raise ConfigError(
                f"batch_tokens = {self.batch_tokens}: at least 1 token must go through the model at once."
            )
        unknown = [name for name in self.ablations if name not in get_args(Ablation)]
        if unknown:
            raise ConfigError(f"ablations = {list(self.ablations)}: {unknown} is not one of zero, mean.")


@dataclass(frozen=True)
class RowPart:
    """What is summed over rows of some contexts, or of all.

    Attributes:
        sums: by what is measured.
        units: of all contexts, not of this part alone.
        first_unit: which of them the sums begin with.
        contexts: how many contexts had rows.
        dropped: positions left out, by reason.
    """

    sums: dict[str, RowSums]
    units: Units
    first_unit: int
    contexts: int
    dropped: dict[str, int]


def row_count(tokens: TokenSet, most_tokens: int) -> int:
    """How many contexts give about so many rows."""
    return -(-most_tokens // tokens.context_length)


def behaviour_count(tokens: TokenSet, most_tokens: int) -> int:
    """How many contexts are run through the whole model: at most so many tokens, one context at least."""
    return max(1, most_tokens // tokens.context_length)


def context_parts(contexts: int, batch: int) -> list[tuple[int, int]]:
    """Runs of contexts, each of whole forward passes.

    Args:
        contexts: how many there are.
        batch: how many go through the model at once.

    Returns:
        At most 32 pairs of first and one past the last, in order; none for no contexts.
    """
    step = batch * -(-contexts // (batch * _MOST_PARTS)) if contexts else 1
    return [(start, min(start + step, contexts)) for start in range(0, contexts, step)]


def joined_rows(parts: Iterable[RowPart]) -> RowPart:
    """Sums over all rows, from those of every part in their order.

    Raises:
        ConfigError: there is no part.
    """
    whole: RowPart | None = None
    for part in parts:
        if whole is None:
            units = part.units
            empty = {name: RowSums(one.meter.d_in, one.meter.d_sae, units.count) for name, one in part.sums.items()}
            whole = RowPart(empty, units, 0, 0, {})
        for name, one in part.sums.items():
            whole.sums[name].merge(one, part.first_unit)
        contexts, dropped = whole.contexts + part.contexts, added(whole.dropped, part.dropped)
        whole = RowPart(whole.sums, whole.units, 0, contexts, dropped)
    if whole is None:
        raise ConfigError("There are no contexts to evaluate on.")
    return whole


def joined_behaviour(parts: Sequence[SplicedSums]) -> SplicedSums:
    """Sums by context of all contexts, from those of every part in their order."""
    return SplicedSums(
        torch.cat([part.tokens_C for part in parts]),
        {name: torch.cat([part.ce[name] for part in parts]) for name in parts[0].ce},
        {name: torch.cat([part.kl[name] for part in parts]) for name in parts[0].kl},
    )


def added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Counts by reason, of both."""
    return {**one, **{reason: one.get(reason, 0) + count for reason, count in other.items()}}
