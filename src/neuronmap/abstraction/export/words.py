"""What a report says, in words and short rows: the same on the command line, in the exported page and in the explorer."""

from __future__ import annotations

from collections.abc import Sequence

from neuronmap.abstraction.plots.complexity import in_order
from neuronmap.abstraction.plots.look import percent
from neuronmap.abstraction.record import (
    ConceptResult,
    FeatureFlow,
    Interval,
    PromptConcept,
    Series,
    TrackingReport,
    Trajectory,
)

__all__ = [
    "COMPLEXITY_ABOUT",
    "COMPLEXITY_HEADS",
    "FLOW_HEADS",
    "PROMPT_HEADS",
    "SUMMARY_HEADS",
    "VERDICTS",
    "complexity_cells",
    "depth_words",
    "flow_cells",
    "layer_words",
    "prompt_cells",
    "summary_cells",
]

VERDICTS = {
    "abstract": "found on conditions that the probe was not trained on",
    "condition-bound": "found within conditions, not across them",
    "inverted": "below chance on another condition: the probe found something else",
    "within-only": "found; there is no condition to cross",
    "not-detected": "not told from chance",
}
"""Each verdict in a few words."""
SUMMARY_HEADS = ["concept", "verdict", "half depth", "emergence", "peak set", "best AUC", "bits"]
COMPLEXITY_HEADS = [
    "place",
    "concept",
    "half depth",
    "code length",
    "compression",
    "items",
    "dims",
    "context",
    "MLP gap",
    "W - C",
]
COMPLEXITY_ABOUT = (
    "items, dims and context are what reaches 90 % of the score; MLP gap: MLP minus linear; W - C: within minus across"
)
PROMPT_HEADS = ["concept", "strongest at", "layer", "log-odds", "says"]
FLOW_HEADS = [
    "from",
    "to",
    "pass-through",
    "drift",
    "split",
    "merge",
    "new",
    "vanishing",
    "unclear",
    "untested",
    "in both halves",
]
_NONE = "–"


def depth_words(found: Interval, *, why: bool = True) -> str:
    """``5.2 (4.1 to 6.8)``, or that it is not established and why."""
    if found.value is None:
        reason = (found.reason or "").partition(":")[0]
        return f"{_NONE} ({reason})" if why and reason else _NONE
    interval = f" ({found.low:.1f} to {found.high:.1f})" if found.low is not None and found.high is not None else ""
    return f"{found.value:.1f}{interval}"


def layer_words(chosen: Sequence[int], layers: Sequence[int]) -> str:
    """Layers as ranges of those measured: ``4 to 8, 12``."""
    runs: list[list[int]] = []
    for layer in chosen:
        place = layers.index(layer)
        if runs and layers.index(runs[-1][-1]) == place - 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs) or _NONE


def summary_cells(result: ConceptResult) -> list[str]:
    """One row of :data:`SUMMARY_HEADS`."""
    summary = result.summary
    return [
        str(result.concept["name"]),
        summary.verdict,
        depth_words(summary.half_depth, why=not summary.present_at_embedding),
        _emergence(result),
        layer_words(summary.peak, result.layers),
        _figure(summary.best, 3),
        _figure(_most(result.within_bits), 2),
    ]


def _emergence(result: ConceptResult) -> str:
    summary = result.summary
    if summary.emergence is None:
        return "at the embedding" if summary.present_at_embedding else _NONE
    interval = summary.emergence_interval
    return f"{summary.emergence}{f' ({interval[0]} to {interval[1]})' if interval else ''}"


def _figure(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:,.{digits}f}"


def _most(values: Series) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _ranged(found: Interval, places: int = 0) -> str:
    """A figure with its interval, where that is more than the figure; an open end is not known."""
    if found.value is None:
        return _NONE
    value, low, high = (None if one is None else f"{one:,.{places}f}" for one in (found.value, found.low, found.high))
    if low is None or low == value == high:
        return str(value)
    return f"{value} ({low} to {high or '?'})"


def complexity_cells(report: TrackingReport) -> list[list[str]]:
    """Rows of :data:`COMPLEXITY_HEADS`, simplest first."""
    rows = []
    for result in in_order(report.concepts):
        found = result.complexity
        if found is None:
            continue
        spread = f" ({found.rank_low} to {found.rank_high})" if found.rank_low is not None else ""
        need = (
            _NONE
            if found.context_need.value is None
            else f"{_ranged(found.context_need)} token{'' if _ranged(found.context_need) == '1' else 's'}"
        )
        rows.append(
            [
                _NONE if found.rank is None else f"{found.rank}{spread}",
                str(result.concept["name"]),
                depth_words(found.half_depth, why=False),
                _NONE if found.mdl_bits.value is None else f"{found.mdl_bits.value:,.0f} bits",
                _NONE if found.compression.value is None else f"{found.compression.value:.1f}x",
                _figure(found.n90.value, 0),
                _ranged(found.rank90),
                need,
                _ranged(found.mlp_gap, 3),
                _ranged(found.within_cross_gap, 3),
            ]
        )
    return rows


def prompt_cells(trajectory: Trajectory) -> list[list[str]]:
    """Rows of :data:`PROMPT_HEADS`: where each concept is strongest."""
    return [_prompt_row(trajectory, one) for one in trajectory.concepts]


def _prompt_row(trajectory: Trajectory, one: PromptConcept) -> list[str]:
    if one.peak_token is None or one.peak_layer is None:
        return [one.concept, _NONE, _NONE, _NONE, f"nothing: {_why_nothing(one)}"]
    value = one.log_odds[one.peak_token][trajectory.layers.index(one.peak_layer)]
    interval = f" ({one.peak_interval[0]} to {one.peak_interval[1]})" if one.peak_interval else ""
    says = _NONE if value is None else one.classes[-1] if value > 0 else one.classes[0]
    token = trajectory.tokens[one.peak_token].strip() or repr(trajectory.tokens[one.peak_token])
    return [one.concept, f"“{token}” (token {one.peak_token})", f"{one.peak_layer}{interval}", _figure(value, 1), says]


def _why_nothing(one: PromptConcept) -> str:
    reasons = {why for row in one.grey[1:] for why in row}
    if reasons == {"not significant"}:
        return "no probe is significant"
    return (
        "every token is unlike those that the probe was made for"
        if "out of domain" in reasons
        else "no token has a value"
    )


def flow_cells(flow: FeatureFlow) -> list[list[str]]:
    """Rows of :data:`FLOW_HEADS`: how many features do what, for each pair of neighbours."""
    rows = []
    for at, counts in enumerate(flow.counts):
        again = flow.reproduced[at] if flow.reproduced is not None else None
        numbers = [f"{counts[kind]:,}" if kind in counts else _NONE for kind in FLOW_HEADS[2:-1]]
        rows.append([flow.saes[at], flow.saes[at + 1], *numbers, _NONE if again is None else percent(again)])
    return rows
