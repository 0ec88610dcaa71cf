"""Figures of the tracker in words: verdicts, intervals, runs of layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuronmap.abstraction.record import Interval, Verdict

__all__ = ["VERDICTS", "interval_words", "layer_words", "spans", "verdict_words"]

VERDICTS: dict[Verdict, str] = {
    "abstract": "found across conditions",
    "condition-bound": "found within conditions only",
    "inverted": "turns round across conditions",
    "within-only": "found; there is no condition to cross",
    "not-detected": "not detected",
}
"""Verdicts in the order of what they claim, with a few words for each."""


def verdict_words(verdict: str) -> str:
    """A verdict in a few words; one of a later version stays as it is."""
    return {str(name): words for name, words in VERDICTS.items()}.get(verdict, verdict)


def interval_words(one: Interval, digits: int = 1) -> str:
    """A figure with its 95 % interval, or why there is none."""
    if one.value is None:
        return f"not established: {one.reason}" if one.reason else "not established"
    shown = f"{one.value:.{digits}f}"
    if one.low is None or one.high is None:
        return shown
    return f"{shown} ({one.low:.{digits}f} to {one.high:.{digits}f})"


def layer_words(layer: int | None, interval: Sequence[int] | None = None) -> str:
    """A layer, with an interval where there is one."""
    if layer is None:
        return "not established"
    return f"{layer} ({interval[0]} to {interval[1]})" if interval else str(layer)


def spans(found: Iterable[int], measured: Sequence[int]) -> str:
    """Layers as runs: those that follow each other among the measured ones are joined."""
    place = {layer: at for at, layer in enumerate(measured)}
    runs: list[list[int]] = []
    for layer in sorted(found):
        if runs and place.get(layer, -1) == place.get(runs[-1][-1], -3) + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs) or "none"
