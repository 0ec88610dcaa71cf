"""How complex a concept is for a model, in components, and the order of concepts that follows. Never a weighted sum.

All components but the context need come from activations that are there already. Code length: Voita and Titov 2020 (2003.12298), with
blocks that double from 16 items, in orders that keep clusters together.

Legend: N items, T training items, R resamples, D components.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from neuronmap.abstraction.measuring.concept import Measured
from neuronmap.abstraction.measuring.frame import Frame
from neuronmap.abstraction.measuring.scores import Part, ScoredCurve, score_part
from neuronmap.abstraction.probes.logistic import logistic_log_odds
from neuronmap.abstraction.probes.mlp import components_of
from neuronmap.abstraction.probes.ridge import fit_ridge
from neuronmap.abstraction.record import Complexity, ConceptResult, Interval
from neuronmap.statistics.auc import macro_auc
from neuronmap.statistics.resampling import interval

__all__ = ["all_reached", "best_place", "complexity_of", "first_reached", "ranked"]

_FIRST = 16
_ORDERS = 10
_RIDGE = 0.1
_SHARE = 0.9


def best_place(result: ConceptResult) -> int:
    """Index among the measured layers of the highest score (the first of equal ones): across conditions where the concept is found there;
    where it is not, the mean over conditions of probes trained in each alone; within, where nothing is crossed."""
    if result.cross is None:
        score = [_number(value) for value in result.within.score]
    elif result.summary.verdict == "abstract":
        score = [_number(value) for value in result.cross.mean.score]
    else:
        alone = [[_number(value) for value in level.alone] for level in result.cross.levels]
        score = np.mean(alone, axis=0).tolist()
    return int(np.nanargmax(np.asarray(score))) if np.isfinite(score).any() else 0


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def complexity_of(measured: Measured, *, context_need: Interval, seed: int) -> Complexity:
    """The components for one concept, each with its interval: over resampled clusters, but of code length and items over orders of them.

    Args:
        measured: its measurement.
        context_need: tokens of left context, measured elsewhere since it runs the model.
        seed: of orders and subsets.
    """
    result, frame = measured.result, measured.frame
    place = best_place(result)
    bits, bits_embedding = (_code_length(frame, at, seed) for at in (place, 0))
    labels = len(frame.cluster_ids) * _label_entropy(frame)
    return Complexity(
        half_depth=result.summary.half_depth,
        mdl_bits=_interval(bits),
        mdl_bits_embedding=_interval(bits_embedding),
        compression=_interval(labels / bits),
        n90=_items_needed(frame, place, result.within.score[place], seed),
        rank90=_rank_needed(measured, place),
        mlp_gap=_mlp_gap(measured),
        context_need=context_need,
        within_cross_gap=_condition_gap(measured, place),
    )


def _mlp_gap(measured: Measured) -> Interval:
    if measured.mlp is None:
        return Interval(value=None, reason="no MLP was trained")
    gap_L = measured.mlp.score_L - measured.inside.score_L
    at = int(gap_L.argmax())
    samples_R = measured.mlp.samples_RL[:, at] - measured.inside.samples_RL[:, at]
    return _estimate(float(gap_L[at]), samples_R)


def _condition_gap(measured: Measured, place: int) -> Interval:
    """Score on each level by probes that saw it in training, minus by those that did not; the mean over the levels."""
    if not measured.across:
        return Interval(value=None, reason="there is no condition to leave out")
    values, samples = [], []
    for part in measured.across:
        seen = Part(part.name, measured.within.fit, part.test_N)
        with_level, without = (score_part(measured.frame, one, measured.draws) for one in (seen, part))
        values.append(float(with_level.score_L[place] - without.score_L[place]))
        samples.append(with_level.samples_RL[:, place] - without.samples_RL[:, place])
    return _estimate(sum(values) / len(values), torch.stack(samples).nanmean(0))


def _estimate(value: float, samples_R: Tensor) -> Interval:
    """A figure with the percentiles of its resamples."""
    ends = interval(samples_R)
    if ends is None:
        return Interval(value=value, reason="no interval: too few resamples")
    return Interval(value=value, low=ends[0], high=ends[1])


def _interval(values_R: Tensor) -> Interval:
    ends = interval(values_R)
    low, high = ends if ends is not None else (None, None)
    return Interval(value=float(values_R.mean()), low=low, high=high)


def _entropy(frame: Frame) -> float:
    """Bits of one label when only the shares are known to be equal, as the code's first block has it."""
    return math.log2(frame.labels.classes)


def _label_entropy(frame: Frame) -> float:
    """Bits of one label when the shares of the classes are known."""
    share_K = torch.bincount(frame.labels.label_N, minlength=frame.labels.classes).double() / len(frame.labels.label_N)
    share_K = share_K[share_K > 0]
    return float(-(share_K * share_K.log2()).sum())


def _code_length(frame: Frame, place: int, seed: int) -> Tensor:
    """Bits to send all labels by probes that learn from what was sent before; one value an order of the clusters."""
    generator = np.random.default_rng(seed)
    x_NW = frame.reading.x_LNW[place]
    label_N, total = frame.labels.label_N, len(frame.cluster_ids)
    lengths = []
    for _ in range(_ORDERS):
        order = generator.permutation(len(frame.clusters))
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        items_N = torch.from_numpy(np.argsort(rank[frame.cluster_ids.numpy()], kind="stable"))
        known, bits = min(_FIRST, total), min(_FIRST, total) * _entropy(frame)
        while known < total:
            upto = min(2 * known, total)
            seen_T, coming_N = items_N[:known], items_N[known:upto]
            bits += _sent(x_NW, label_N, seen_T, coming_N, frame.labels.classes)
            known = upto
        lengths.append(bits)
    return torch.tensor(lengths, dtype=torch.float64)


def _sent(x_NW: Tensor, label_N: Tensor, seen_T: Tensor, coming_N: Tensor, classes: int) -> float:
    """Bits for the labels of some items, by a probe trained on those seen."""
    both_N = torch.cat([seen_T, coming_N])
    part_NW = x_NW[both_N]
    mean_W, std_W = part_NW[: len(seen_T)].mean(0), part_NW[: len(seen_T)].std(0, correction=0)
    z_NW = ((part_NW - mean_W) / torch.maximum(std_W, std_W.median() * 1e-2).clamp_min(1e-12)).double()
    gram_NT = z_NW @ z_NW[: len(seen_T)].T
    gram_NT = gram_NT / gram_NT[: len(seen_T)].diagonal().mean().clamp_min(1e-12)
    rows_T = torch.arange(len(seen_T))
    columns = torch.tensor([1]) if classes == 2 else torch.arange(classes)
    odds_NC = logistic_log_odds(gram_NT, rows_T, label_N[seen_T][:, None] == columns, _RIDGE)[len(seen_T) :]
    wanted_N = label_N[coming_N]
    if classes == 2:
        log_p_N2 = torch.nn.functional.logsigmoid(torch.cat([-odds_NC, odds_NC], dim=1))
        picked_N = log_p_N2.gather(1, wanted_N[:, None])[:, 0]
    else:
        log_p_NC = torch.log_softmax(torch.nn.functional.logsigmoid(odds_NC), dim=1)
        picked_N = log_p_NC.gather(1, wanted_N[:, None])[:, 0]
    return float(-picked_N.sum() / math.log(2))


def _goal(final: float | None) -> float | None:
    """90 % of the score above chance; None where there is next to nothing above chance."""
    return None if final is None or final < 0.55 else 0.5 + _SHARE * (final - 0.5)


def _items_needed(frame: Frame, place: int, final: float | None, seed: int) -> Interval:
    """Training items, in whole clusters, from which a probe at one layer reaches the goal on the test split."""
    goal = _goal(final)
    if goal is None:
        return Interval(value=None, reason="no score above chance to reach")
    generator = np.random.default_rng(seed + 1)
    x_LNW, targets_NC = frame.reading.x_LNW[place : place + 1], frame.labels.targets()
    train_T, test_N = frame.rows("train"), frame.rows("test")
    names = np.unique(frame.cluster_ids[train_T].numpy())
    ridge_L = torch.tensor([_RIDGE], dtype=torch.float64)
    found = []
    for _ in range(_ORDERS):
        order, previous = generator.permutation(names), (0, 0.5)
        needed = math.nan
        for count in _doublings(len(names)):
            kept = torch.from_numpy(np.isin(frame.cluster_ids[train_T].numpy(), order[:count]))
            rows_T = train_T[kept]
            if len(set(frame.labels.label_N[rows_T].tolist())) < frame.labels.classes:
                continue
            fit = fit_ridge(x_LNW, rows_T, targets_NC[rows_T], frame.cluster_ids[rows_T], ridge_L)
            score = float(macro_auc(fit.scores(targets_NC[rows_T], test_N), frame.labels.label_N[test_N])[0])
            if score >= goal:
                items, last = previous
                share = (goal - last) / (score - last) if score > last else 1.0
                needed = items + min(max(share, 0.0), 1.0) * (len(rows_T) - items)
                break
            previous = (len(rows_T), score)
        found.append(needed)
    drawn_R = torch.tensor(found, dtype=torch.float64)
    finite_R = drawn_R[drawn_R.isfinite()]
    if finite_R.numel() < _ORDERS / 2:
        return Interval(value=None, reason=f"not reached with all {len(train_T)} training items in most draws")
    return Interval(value=float(finite_R.median()), low=float(finite_R.min()), high=float(finite_R.max()))


def _doublings(most: int) -> list[int]:
    counts, count = [], 2
    while count < most:
        counts.append(count)
        count *= 2
    return [*counts, most]


def _rank_needed(measured: Measured, place: int) -> Interval:
    """Fewest principal components from which a probe reaches the goal."""
    final = ScoredCurve(measured.inside.score_L[place, None], measured.inside.samples_RL[:, place, None])
    if _goal(float(final.score_L)) is None:
        return Interval(value=None, reason="no score above chance to reach")
    frame, fit = measured.frame, measured.within.fit
    test_N, targets_NC = measured.within.test_N, frame.labels.targets()
    parts_LND = components_of(fit.gram_LNT[place : place + 1], fit.rows_T, len(fit.rows_T) - 1)
    steps, scored = [], []
    for count in _ranks(parts_LND.shape[2]):
        part_LND = parts_LND[:, :, :count]
        small = fit_ridge(part_LND, fit.rows_T, targets_NC[fit.rows_T], frame.cluster_ids[fit.rows_T])
        steps.append(count)
        scored.append(score_part(frame, Part("", small, test_N), measured.draws))
        if all_reached(scored, final):
            break
    return first_reached(steps, scored, final)


def all_reached(scored: Sequence[ScoredCurve], final: ScoredCurve) -> bool:
    """Whether the score and 97.5 % of its resamples have reached their goals at some step: no further one changes the interval."""
    reached_R = torch.zeros(len(final.samples_RL), dtype=torch.bool)
    for one in scored:
        reached_R |= _at_goal(one.samples_RL[:, 0], final.samples_RL[:, 0])
    whole = any(bool(_at_goal(one.score_L, final.score_L)) for one in scored)
    return whole and float(reached_R.double().mean()) >= 0.975


def first_reached(steps: Sequence[int], scored: Sequence[ScoredCurve], final: ScoredCurve) -> Interval:
    """First of some steps at which a score reaches 90 % of the final one above chance, in the sample and in each resample.

    Args:
        steps: ascending, such as components or tokens of context.
        scored: the score at each step, of one layer: [1] and [R, 1].
        final: the score to reach a share of, likewise.
    """
    value = _first(steps, [one.score_L for one in scored], final.score_L)
    if not math.isfinite(float(value)):
        return Interval(value=None, reason=f"not reached at {steps[-1]}")
    first_R = _first(steps, [one.samples_RL[:, 0] for one in scored], final.samples_RL[:, 0])
    low, high = torch.quantile(
        first_R, torch.tensor([0.025, 0.975], dtype=first_R.dtype), interpolation="nearest"
    ).tolist()
    return Interval(value=float(value), low=low, high=high if math.isfinite(high) else None)


def _first(steps: Sequence[int], scores: Sequence[Tensor], final_R: Tensor) -> Tensor:
    """Infinite where no step reaches the goal."""
    first_R = torch.full_like(final_R, math.inf)
    for step, score_R in zip(reversed(steps), reversed(scores), strict=True):
        first_R = torch.where(_at_goal(score_R, final_R), torch.full_like(first_R, step), first_R)
    return first_R


def _at_goal(score_R: Tensor, final_R: Tensor) -> Tensor:
    return score_R >= 0.5 + _SHARE * (final_R - 0.5) - 1e-12


def _ranks(most: int) -> list[int]:
    return [count for count in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256) if count < most] + [most]


def ranked(results: Sequence[ConceptResult], draws: Mapping[str, np.ndarray]) -> list[ConceptResult]:
    """Concepts with their places: by half depth, then by bits; ties where the half depth's interval overlaps with that of a group's first.

    Args:
        results: results with complexity.
        draws: half depth in each resample, by concept; the places' interval comes from ranking each resample.
    """
    known = [one for one in results if one.complexity is not None and one.complexity.half_depth.value is not None]
    known.sort(key=_order)
    places = {one.concept["name"]: index + 1 for index, one in enumerate(known)}
    spread = _spread([one.concept["name"] for one in known], draws)
    ties = _ties(known)
    return [_placed(one, places, spread, ties) for one in results]


def _placed(
    result: ConceptResult, places: Mapping[str, int], spread: Mapping[str, tuple[int, int]], ties: Mapping[str, int]
) -> ConceptResult:
    name = result.concept["name"]
    if result.complexity is None or name not in places:
        return result
    low, high = spread.get(name, (None, None))
    return result.updated(
        complexity=result.complexity.updated(rank=places[name], rank_low=low, rank_high=high, tie=ties[name])
    )


def _order(result: ConceptResult) -> tuple[float, float]:
    found = result.complexity
    return (math.inf, math.inf) if found is None else (_value(found.half_depth), _value(found.mdl_bits))


def _value(found: Interval | None) -> float:
    return math.inf if found is None or found.value is None else found.value


def _spread(names: Sequence[str], draws: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
    """2.5th and 97.5th percentile of each concept's place over the resamples."""
    if len(names) < 1 or any(name not in draws for name in names):
        return {}
    count = min(len(draws[name]) for name in names)
    if count < 2:
        return {}
    table = np.stack([np.nan_to_num(draws[name][:count], nan=np.inf) for name in names])
    order = table.argsort(axis=0, kind="stable").argsort(axis=0) + 1
    low, high = np.quantile(order, [0.025, 0.975], axis=1, method="nearest")
    return {name: (int(low[index]), int(high[index])) for index, name in enumerate(names)}


def _ties(known: Sequence[ConceptResult]) -> dict[str, int]:
    """Groups in the order: a concept is in the group of those before it while its interval overlaps with that of the group's first one."""
    groups: dict[str, int] = {}
    group, reach = 0, -math.inf
    for one in known:
        depth = one.complexity.half_depth if one.complexity is not None else None
        low = depth.low if depth is not None and depth.low is not None else _value(depth)
        high = depth.high if depth is not None and depth.high is not None else _value(depth)
        if low > reach:
            group, reach = group + 1, high
        groups[one.concept["name"]] = group
    return groups
