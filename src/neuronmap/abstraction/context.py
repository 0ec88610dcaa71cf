"""How much left context a concept needs: the model is read again with the texts cut short.

The first token of a text stays, since models put an attention sink there (2309.17453); then come the last k tokens before the one that is
read. What follows it stays in models that read both ways.

Legend: N items, W width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from neuronmap.abstraction.complexity import all_reached, first_reached
from neuronmap.abstraction.measuring.concept import Measured
from neuronmap.abstraction.measuring.frame import Frame
from neuronmap.abstraction.measuring.scores import ScoredCurve, score_items
from neuronmap.abstraction.probes.ridge import fit_ridge
from neuronmap.abstraction.reading import layer_hooks
from neuronmap.abstraction.record import Interval
from neuronmap.activations.items import BATCH_TOKENS, tokenize_text
from neuronmap.models import HookPoint, LanguageModel, capture
from neuronmap.progress import Progress

__all__ = ["context_needed"]

_ITEMS = 240
_WINDOWS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128)


def context_needed(
    model: LanguageModel, measured: Measured, place: int, *, both_ways: bool, seed: int, progress: Progress
) -> Interval:
    """Fewest tokens of left context at which a probe reaches 90 % of its score above chance.

    Args:
        model: the model.
        measured: the concept's measurement.
        place: index of the layer that is read.
        both_ways: whether the model reads later tokens.
        seed: of the clusters that are taken (up to 240 items).
        progress: where the bar goes.

    Returns:
        Tokens, with the interval over resampled clusters; null where the whole context gives nothing to reach.
    """
    frame, reading = measured.frame, measured.frame.reading
    chosen = _chosen(measured, seed)
    final = _scored(measured, chosen, reading.x_LNW[place][chosen])
    if float(final.score_L) < 0.55:
        return Interval(value=None, reason="no score above chance to reach")
    texts = [tokenize_text(model, reading.data.items[at].text).ids for at in chosen.tolist()]
    positions = frame.reading.position_N[chosen].tolist()
    longest = int(max(positions))
    windows = [window for window in _WINDOWS if window < longest]
    hook = layer_hooks(model, [reading.layers[place]])[0]
    steps, scored = [], []
    with progress.task(f"Shortening context ({measured.concept.name})", len(windows), "lengths") as task:
        for window in windows:
            cut = [_cut(ids, position, window, both_ways) for ids, position in zip(texts, positions, strict=True)]
            steps.append(window)
            scored.append(_scored(measured, chosen, _read(model, cut, hook)))
            task.advance(1)
            if all_reached(scored, final):
                return first_reached(steps, scored, final)
    return first_reached([*steps, longest], [*scored, final], final)


def _chosen(measured: Measured, seed: int) -> Tensor:
    """Items of training and test, by whole pairs, evenly from all clusters, up to a limit."""
    frame = measured.frame
    items = frame.reading.data.items
    generator = np.random.default_rng(seed)
    pairs: dict[str, list[int]] = defaultdict(list)
    for at, item in enumerate(items):
        if item.split != "calibration":
            pairs[f"{item.split}/{item.cluster}/{item.pair}"].append(at)
    by_cluster: dict[str, list[list[int]]] = defaultdict(list)
    for name in generator.permutation(sorted(pairs)).tolist():
        by_cluster[items[pairs[name][0]].cluster].append(pairs[name])
    kept: list[int] = []
    turn = 0
    while len(kept) < _ITEMS and any(turn < len(found) for found in by_cluster.values()):
        kept += [at for found in by_cluster.values() if turn < len(found) for at in found[turn]]
        turn += 1
    return torch.tensor(sorted(kept))


def _scored(measured: Measured, chosen_N: Tensor, x_NW: Tensor) -> ScoredCurve:
    """AUC of a probe of one layer on the chosen items, with its resamples."""
    frame = measured.frame
    items = tuple(frame.reading.data.items[at] for at in chosen_N.tolist())
    part = replace(frame.reading, data=replace(frame.reading.data, items=items), x_LNW=x_NW[None])
    small = Frame(part, crossed=False)
    rows_T, test_N, targets_NC = small.rows("train"), small.rows("test"), small.labels.targets()
    fit = fit_ridge(part.x_LNW, rows_T, targets_NC[rows_T], small.cluster_ids[rows_T])
    # The draws are over all clusters: the numbers that the whole frame gives them.
    place = {name: index for index, name in enumerate(frame.clusters)}
    clusters_N = torch.tensor([place[items[at].cluster] for at in test_N.tolist()])
    return score_items(small.labels, fit.scores(targets_NC[rows_T], test_N), test_N, clusters_N, measured.draws)


def _cut(ids: Sequence[int], position: int, window: int, both_ways: bool) -> tuple[tuple[int, ...], int]:
    """The shortened ids, and where the token that is read has come to."""
    left = max(1, position - window)
    rest = ids[left:] if both_ways else ids[left : position + 1]
    return (ids[0], *rest), 1 + position - left


def _read(model: LanguageModel, cut: Sequence[tuple[tuple[int, ...], int]], hook: HookPoint) -> Tensor:
    x_NW = torch.empty(len(cut), hook.width)
    by_length: dict[int, list[int]] = defaultdict(list)
    for at, (ids, _) in enumerate(cut):
        by_length[len(ids)].append(at)
    for length, members in by_length.items():
        size = max(1, BATCH_TOKENS // length)
        for start in range(0, len(members), size):
            part = members[start : start + size]
            ids_BT = torch.tensor([cut[at][0] for at in part])
            found_BTW = next(iter(capture(model, ids_BT, [hook]).values()))
            positions = torch.tensor([cut[at][1] for at in part])
            x_NW[part] = found_BTW[torch.arange(len(part)), positions].float().cpu()
    return x_NW
