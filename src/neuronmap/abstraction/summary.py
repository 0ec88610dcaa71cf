"""A curve over layers in a few words, robust to noise.

Everything here is a function of the curve, its resamples and its null, so that a stored record can be summarised again by other rules
(:data:`~neuronmap.abstraction.record.RULES_VERSION`). ``s`` is the score, ``s0`` the embedding's, ``G = max s - s0``. Sources: emergence
and half depth are this project's; cross-condition generalisation as abstraction: Bernardi et al. 2020; expected layer: Tenney et al. 2019.

Legend: R resamples, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neuronmap.abstraction.record import Interval, Summary, Verdict

__all__ = ["CurveEvidence", "LevelEvidence", "depth_draws", "rising", "summarize"]

Array = npt.NDArray[np.float64]
NO_EFFECT = 0.05
"""A gain below this is no effect of layers."""
DECAY = 0.03
"""A fall below this is no decay."""


@dataclass(frozen=True, eq=False)
class CurveEvidence:
    """A curve with what is known of its error. All over the layers that were measured.

    Attributes:
        score_L: AUC.
        samples_RL: resamples of it.
        band_low_L, band_high_L: simultaneous band.
        null95: 95 % of permutations stay below it at all layers.
    """

    score_L: Array
    samples_RL: Array
    band_low_L: Array
    band_high_L: Array
    null95: float | None


@dataclass(frozen=True, eq=False)
class LevelEvidence:
    """One left-out level.

    Attributes:
        level: its name.
        low_L: lower end of the pointwise interval of its score.
        inverted_L: whether it is below chance: below what 95 % of permutations stay above at all levels and layers, with its band.
    """

    level: str
    low_L: Array
    inverted_L: npt.NDArray[np.bool_]


def summarize(
    layers: Sequence[int],
    blocks: int,
    within: CurveEvidence,
    cross: CurveEvidence | None,
    levels: Sequence[LevelEvidence],
    rotation: Sequence[float | None],
    *,
    crossed: str | None,
    nuisances: Sequence[str],
) -> Summary:
    """Work out the summary of one concept.

    Args:
        layers: the layers measured, ascending, the embedding first.
        blocks: blocks of the model.
        within, cross: the two curves; ``cross`` is None without a crossed nuisance.
        levels: the cross-condition score's levels.
        rotation: cosine of neighbouring probe directions.
        crossed: name of the crossed nuisance.
        nuisances: names of all nuisances, for the statement.
    """
    curve = within if cross is None else cross
    at = np.asarray(layers, dtype=np.float64)
    verdict, below = _verdict(within, cross, levels)
    # Bound to the condition, but found on average: the summary is of the average, and the statement says on which levels it fails.
    detected = verdict in ("abstract", "within-only") or (
        verdict == "condition-bound" and _runs(_above(curve)) is not None
    )
    score, samples = curve.score_L, curve.samples_RL
    gain = float(score.max() - score[0])
    peak = _peak(score, samples)
    top = int(np.argmax(score))
    at_embedding = bool(
        detected and curve.null95 is not None and score[0] >= curve.null95 and score[0] >= score.max() - NO_EFFECT
    )
    emerges = detected and not at_embedding and gain >= NO_EFFECT
    emergence = _emergence(curve.band_low_L, rising(score[None], top)[0], curve.null95) if emerges else None
    drawn = _emergences(samples, score - curve.band_low_L, curve.null95) if emergence is not None else None
    why = None if emerges else _why(verdict, at_embedding, gain)
    half, ninety = (_depth(at, score, samples, share, why) for share in (0.5, 0.9))
    saturation = _saturation(score, samples, peak) if detected else None
    decay = _decay(score, samples, peak) if detected else None
    return Summary(
        score="within" if cross is None else "cross",
        verdict=verdict,
        statement=_statement(
            verdict,
            at_embedding,
            below,
            _failing(levels) if detected else [],
            [int(layer) for layer in layers],
            crossed,
            nuisances,
        ),
        present_at_embedding=at_embedding,
        gain=gain,
        emergence=None if emergence is None else int(layers[emergence]),
        emergence_interval=None if drawn is None else [int(layers[place]) for place in drawn],
        half_depth=half,
        depth90=ninety,
        half_depth_relative=None if half.value is None else half.value / max(blocks, 1),
        peak=[int(layers[place]) for place in peak] if detected else [],
        best=float(score.max()) if detected else None,
        saturation=None if saturation is None else int(layers[saturation]),
        decay=None if decay is None else int(layers[decay]),
        expected_layer=_expected(at, score) if emerges else None,
        handoff=_handoff(layers, rotation) if detected else None,
    )


def rising(score_RL: Array, top: int) -> Array:
    """The non-decreasing curves nearest to some curves (least squares) up to layer ``top``; from there on the value at ``top``.

    By the min-max formula: the fit at i is the maximum over a <= i of the minimum over b >= i of the mean of a..b.
    """
    part = score_RL[:, : top + 1]
    count = part.shape[1]
    sums = np.concatenate([np.zeros((len(part), 1)), np.cumsum(part, axis=1)], axis=1)
    lengths = np.arange(1, count + 1)[None, :] - np.arange(count)[:, None]  # [a, b]
    means = (sums[:, None, 1:] - sums[:, :-1, None]) / np.where(lengths > 0, lengths, 1)
    means = np.where(lengths > 0, means, np.inf)  # [R, a, b]
    least = np.minimum.accumulate(means[:, :, ::-1], axis=2)[:, :, ::-1]  # min over b >= i
    least = np.where(lengths > 0, least, -np.inf)  # only a <= i
    fitted = least.max(axis=1)
    return np.concatenate([fitted, np.repeat(fitted[:, -1:], score_RL.shape[1] - count, axis=1)], axis=1)


def depth_draws(at_L: Array, samples_RL: Array, share: float = 0.5) -> Array:
    """Layer where each resample is ``share`` of the way up; NaN for those that do not rise or are not finite. [R]"""
    return np.asarray(
        [
            _crossing(at_L, rising(sample[None], int(np.argmax(sample)))[0], share)
            if np.isfinite(sample).all()
            else np.nan
            for sample in samples_RL
        ]
    )


def _verdict(
    within: CurveEvidence, cross: CurveEvidence | None, levels: Sequence[LevelEvidence]
) -> tuple[Verdict, list[tuple[str, int, int]]]:
    """The verdict, and the levels that are below chance, with the first and last place of their longest run."""
    found_within = _runs(_above(within)) is not None
    if cross is None:
        return ("within-only" if found_within else "not-detected"), []
    below = []
    for level in levels:
        run = _runs(level.inverted_L)
        if run is not None:
            below.append((level.level, *run))
    holds = _above(cross)
    for level in levels:
        holds = holds & (level.low_L > 0.5)
    if _runs(holds) is not None:
        return "abstract", below
    if below:
        return "inverted", below
    return ("condition-bound" if found_within else "not-detected"), []


def _failing(levels: Sequence[LevelEvidence]) -> list[str]:
    """Levels that are above chance nowhere; all of them where each is somewhere, but never together."""
    alone = [level.level for level in levels if _runs(level.low_L > 0.5) is None]
    return alone or [level.level for level in levels]


def _above(curve: CurveEvidence) -> npt.NDArray[np.bool_]:
    if curve.null95 is None:
        return np.zeros(len(curve.score_L), dtype=bool)
    return curve.band_low_L > curve.null95


def _runs(holds: npt.NDArray[np.bool_]) -> tuple[int, int] | None:
    """First and last place of the longest run of at least two (of one, if only one layer was measured)."""
    best: tuple[int, int] | None = None
    start = None
    for place, value in enumerate([*holds.tolist(), False]):
        if value and start is None:
            start = place
        elif not value and start is not None:
            long_enough = place - start >= min(2, len(holds))
            if long_enough and (best is None or place - start > best[1] - best[0] + 1):
                best = (start, place - 1)
            start = None
    return best


def _emergence(band_low_L: Array, fitted_L: Array, null95: float | None) -> int | None:
    """First layer above the null and a quarter of the way up, and the next one too."""
    if null95 is None:
        return None
    quarter = fitted_L[0] + 0.25 * (fitted_L[-1] - fitted_L[0])
    holds = (band_low_L > null95) & (fitted_L >= quarter)
    for place in range(len(holds)):
        if holds[place] and (place + 1 == len(holds) or holds[place + 1]):
            return place
    return None


def _emergences(samples_RL: Array, margin_L: Array, null95: float | None) -> tuple[int, int] | None:
    """5th and 95th percentile of where the resamples emerge, each with the band's margin below it."""
    found = []
    for sample in samples_RL[np.isfinite(samples_RL).all(axis=1)]:
        place = _emergence(sample - margin_L, rising(sample[None], int(np.argmax(sample)))[0], null95)
        if place is not None:
            found.append(place)
    if len(found) < 0.5 * max(len(samples_RL), 1):
        return None
    low, high = np.quantile(found, [0.05, 0.95], method="nearest")
    return int(low), int(high)


def _crossing(at_L: Array, fitted_L: Array, share: float) -> float:
    """Where a non-decreasing curve is ``share`` of the way up, by linear interpolation; NaN for a flat one."""
    bracket = _bracket(fitted_L, share)
    if bracket is None:
        return float("nan")
    before, place, wanted = bracket
    if before == place:
        return float(at_L[place])
    low, high = fitted_L[before], fitted_L[place]
    return float(at_L[before] + (at_L[place] - at_L[before]) * (wanted - low) / (high - low))


def _bracket(fitted_L: Array, share: float) -> tuple[int, int, float] | None:
    """The two measured layers between which a non-decreasing curve is ``share`` of the way up, and the value there."""
    gain = fitted_L[-1] - fitted_L[0]
    if not gain > 0:
        return None
    wanted = float(fitted_L[0] + share * gain)
    place = int(np.argmax(fitted_L >= wanted - 1e-12))
    return max(place - 1, 0), place, wanted


def _depth(at_L: Array, score_L: Array, samples_RL: Array, share: float, why: str | None) -> Interval:
    if why is not None:
        return Interval(value=None, reason=why)
    value = _crossing(at_L, rising(score_L[None], int(np.argmax(score_L)))[0], share)
    drawn = depth_draws(at_L, samples_RL, share)
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < 2:
        return Interval(value=value, reason="no interval: too few resamples")
    low, high = np.quantile(drawn, [0.025, 0.975])
    # Between two measured layers nothing is known of where it is, however surely it is between them.
    bracket = _bracket(rising(score_L[None], int(np.argmax(score_L)))[0], share)
    before, after = (at_L[bracket[0]], at_L[bracket[1]]) if bracket is not None else (value, value)
    return Interval(value=value, low=min(float(low), float(before)), high=max(float(high), float(after)))


def _why(verdict: Verdict, at_embedding: bool, gain: float) -> str:
    if at_embedding:
        return "present at the embedding"
    named = {
        "inverted": "below chance in another condition",
        "condition-bound": "not found across every condition",
        "not-detected": "not detected",
    }
    return named.get(verdict, f"no effect of layers: the best is {gain:.3f} above the embedding")


def _peak(score_L: Array, samples_RL: Array) -> list[int]:
    """All layers whose difference from the best one has an interval that includes 0."""
    top = int(np.argmax(score_L))
    kept = samples_RL[np.isfinite(samples_RL).all(axis=1)]
    if len(kept) < 2:
        return [top]
    low = np.quantile(kept[:, top, None] - kept, 0.025, axis=0)
    return [place for place in range(len(score_L)) if place == top or low[place] <= 1e-9]


def _saturation(score_L: Array, samples_RL: Array, peak: Sequence[int]) -> int | None:
    """First layer from which every later one up to the end of the peak set is within max(0.01, 2 SE) of the best."""
    end = max(peak)
    error_L = np.nanstd(samples_RL, axis=0) if len(samples_RL) > 1 else np.zeros_like(score_L)
    near = score_L.max() - score_L <= np.maximum(0.01, 2 * error_L)
    place = None
    for candidate in range(end, -1, -1):
        if not near[candidate]:
            break
        place = candidate
    return place


def _decay(score_L: Array, samples_RL: Array, peak: Sequence[int]) -> int | None:
    """First layer after the peak set that is lower by over 0.03, with a paired interval that says so, and so is the next."""
    top = int(np.argmax(score_L))
    kept = samples_RL[np.isfinite(samples_RL).all(axis=1)]
    if len(kept) < 2:
        return None
    low = np.quantile(kept[:, top, None] - kept, 0.025, axis=0)
    fallen = low > DECAY
    for place in range(max(peak) + 1, len(score_L)):
        if fallen[place] and (place + 1 == len(score_L) or fallen[place + 1]):
            return place
    return None


def _expected(at_L: Array, score_L: Array) -> float | None:
    """Centre of gravity of the rises of the running maximum (Tenney et al. 2019, by one curve instead of stacked probes)."""
    steps = np.diff(np.maximum.accumulate(score_L))
    return None if steps.sum() < NO_EFFECT else float((at_L[1:] * steps).sum() / steps.sum())


def _handoff(layers: Sequence[int], rotation: Sequence[float | None]) -> int | None:
    """First layer from which all neighbouring directions have a cosine above 0.9, up to the last."""
    place = None
    for candidate in range(len(rotation) - 2, -1, -1):
        value = rotation[candidate]
        if value is None or value <= 0.9:
            break
        place = candidate
    return None if place is None else int(layers[place])


def _statement(
    verdict: Verdict,
    at_embedding: bool,
    below: Sequence[tuple[str, int, int]],
    failing: Sequence[str],
    layers: Sequence[int],
    crossed: str | None,
    nuisances: Sequence[str],
) -> str:
    tested = (
        f" Tested against: {', '.join(nuisances)}; a cue that all conditions share would pass too." if nuisances else ""
    )
    where = "; ".join(f"{level} at layers {layers[first]} to {layers[last]}" for level, first, last in below)
    if verdict == "abstract":
        already = ", and the embedding has it already" if at_embedding else ""
        but = f" Below chance on some levels elsewhere: {where}." if where else ""
        return f"Found across every level of {crossed}{already}.{but}{tested}"
    if verdict == "inverted":
        return (
            f"Inverted across {crossed} ({where}): what a probe finds in the other conditions is something else, which goes with the label "
            f"there and against it here.{tested}"
        )
    if verdict == "condition-bound" and failing:
        return (
            f"Found across {crossed} on average, but not on every level ({', '.join(failing)}): the code depends on it, or there "
            f"are too few clusters to tell.{tested}"
        )
    if verdict == "condition-bound":
        return f"Found within, not across every level of {crossed}: the code depends on the condition.{tested}"
    if verdict == "within-only":
        already = " The embedding has it already." if at_embedding else ""
        return (
            f"Found on held-out clusters; there is no condition to cross, so it may be a surface cue.{already}{tested}"
        )
    return f"Not detected.{tested}"
