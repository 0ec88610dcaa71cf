"""Rows of the hook that is read, with those of the hook that a transcoder reconstructs beside them.

Shapes: N rows, D width of the hook that is read, O of the one that is reconstructed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from neuronmap.activations.extract import ExtractedRows, RowExtractor
from neuronmap.models import HookPoint

__all__ = ["rows_and_targets"]


def rows_and_targets(
    extractor: RowExtractor, start: int, stop: int, read: HookPoint, written: HookPoint | None, threshold: float | None
) -> Iterator[tuple[ExtractedRows, Tensor | None]]:
    """Kept rows of contexts ``start`` to ``stop``, and what is to be made of them.

    Args:
        extractor: knows both hooks.
        start, stop: the contexts.
        read: the hook that is read; its norms decide what is an outlier.
        written: the hook that is reconstructed, captured in the same pass; None where that is the one that is read.
        threshold: norm above which a row is left out; None keeps all.

    Yields:
        The rows [N, D], and the same places at ``written`` [N, O] or None; use both before asking on.
    """
    if written is None:
        for _, found in extractor.extract(start, stop, [read], {read.name: threshold}):
            yield found, None
        return
    keep_all: dict[str, float | None] = {read.name: None, written.name: None}
    both = extractor.extract(start, stop, [read, written], keep_all)
    _, found = next(both)
    rows_ND = found.rows_NW.clone()  # the second hook's go into the same buffer
    _, target = next(both)
    inside_N = found.norms_N <= (float("inf") if threshold is None else threshold)
    kept_N = inside_N.cpu().numpy()
    dropped = {**found.dropped, "outliers": int((~kept_N).sum())}
    kept = replace(
        found,
        rows_NW=rows_ND[inside_N],
        index=found.index[kept_N],
        dropped=dropped,
        norms_N=found.norms_N[inside_N],
        place_N=found.place_N[kept_N],
    )
    yield kept, target.rows_NW[inside_N]
