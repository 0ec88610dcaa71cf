"""Whether the model uses what a probe finds: change the concept at one layer, and see the behaviour change.

Two changes at the token that is read, each against random directions moved by the same lengths:

- *swap*: the coordinate along the difference of class means is set to the one of the pair's other member (along the probe's own direction,
  which answers for what is read and not for what is written, nothing moved: on SmolLM2 it stayed within the random directions);
- *erase*: LEACE (2306.03819), the smallest change after which no linear probe finds the concept:
  ``x - A (A' S^-1 A)^-1 A' S^-1 (x - mean)``, with A the cross-covariance of activation and label, and S the shrunk covariance.

The behaviour is the difference of log-probabilities of two continuations, right minus wrong.

Legend: L layers, N items, T training items or tokens, W width, C columns, D random directions, V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuronmap.abstraction.measuring.concept import Measured
from neuronmap.abstraction.reading import layer_hooks
from neuronmap.abstraction.record import CausalProfile, Interval
from neuronmap.activations.items import tokenize_text
from neuronmap.concepts.items import Item
from neuronmap.errors import InputError
from neuronmap.models import HookPoint, LanguageModel, replaced
from neuronmap.progress import Progress

__all__ = ["causal_profile", "erasure"]

_ITEMS = 32
_BATCH_TOKENS = 2048
_RESAMPLES = 500


@dataclass(frozen=True, eq=False)
class _Case:
    """One item with its pair's other member, by their place in the reading; its tokens; +1 for the second class, -1 for the first."""

    item: Item
    place: int
    partner: int
    ids: tuple[int, ...]
    position: int
    sign: float


def causal_profile(
    model: LanguageModel, measured: Measured, *, layers: int, directions: int, seed: int, progress: Progress
) -> CausalProfile | None:
    """Change a concept at some layers.

    Args:
        model: with a language-model head.
        measured: the concept's measurement.
        layers: how many layers, evenly spaced among those measured.
        directions: random directions.
        seed: of items and directions.
        progress: where the bar goes.

    Returns:
        None where the concept names no behaviour, has more than two classes, or the model predicts no next token.

    Raises:
        InputError: two continuations begin with the same token, or no pair is in the test split.
    """
    outcome, frame = measured.concept.outcome, measured.frame
    if outcome is None or frame.labels.columns != 1 or not model.has_lm_head:
        return None
    cases = _cases(model, measured, seed)
    choices = _choices(model, measured)
    reading = frame.reading
    places = sorted({round(float(at)) for at in np.linspace(0, len(reading.layers) - 1, layers)})
    hooks = layer_hooks(model, [reading.layers[at] for at in places])
    generator = torch.Generator().manual_seed(seed)
    swapped, erased, random_swapped, random_erased = [], [], [], []
    clean_N = _behaviour(model, cases, None, None, choices)
    clusters = [case.item.cluster for case in cases]
    runs = 2 * (1 + directions)
    with progress.task("Changing the concept", len(places) * runs * len(cases), "texts") as task:
        for at, hook in zip(places, hooks, strict=True):
            swap_NW, erase_NW = _changes(measured, cases, at)
            std_W = measured.within.fit.space.std_LW[at]
            effects = []
            for change_NW in (swap_NW, erase_NW):
                found = [_behaviour(model, cases, hook, change_NW, choices) - clean_N]
                task.advance(len(cases))
                for _ in range(directions):
                    random_NW = _random(change_NW, std_W, generator)
                    found.append(_behaviour(model, cases, hook, random_NW, choices) - clean_N)
                    task.advance(len(cases))
                effects.append(found)
            swapped.append(_estimate(effects[0][0], clusters, seed))
            erased.append(_estimate(effects[1][0], clusters, seed))
            random_swapped.append(_largest(effects[0][1:]))
            random_erased.append(_largest(effects[1][1:]))
    return CausalProfile(
        layers=[reading.layers[at] for at in places],
        outcome=outcome.description,
        clean=float(clean_N.mean()),
        swapped=swapped,
        erased=erased,
        random_swapped=random_swapped,
        random_erased=random_erased,
        random_directions=directions,
        items=len(cases),
    )


def erasure(x_TW: Tensor, targets_TC: Tensor) -> tuple[Tensor, Tensor]:
    """LEACE in closed form: ``change(x) = -left (right (x - mean))``.

    Args:
        x_TW: float64 training rows.
        targets_TC: float64 labels.

    Returns:
        left [W, C] and right [C, W]. The covariance is shrunk by the oracle-approximating rule (Chen et al. 2010).
    """
    centred_TW = x_TW - x_TW.mean(0)
    targets_TC = targets_TC - targets_TC.mean(0)
    count, width = centred_TW.shape
    covariance_WW = centred_TW.T @ centred_TW / count
    trace, squares = float(covariance_WW.trace()), float(covariance_WW.square().sum())
    above = (1 - 2 / width) * squares + trace**2
    below = (count + 1 - 2 / width) * (squares - trace**2 / width)
    share = min(1.0, max(above / below if below > 0 else 1.0, 1e-4))
    covariance_WW = (1 - share) * covariance_WW + share * trace / width * torch.eye(width, dtype=torch.float64)
    cross_WC = centred_TW.T @ targets_TC / count
    if trace < 1e-9 * width:  # nothing varies, so there is nothing to erase
        return cross_WC, torch.zeros_like(cross_WC.T)
    inverse_WC = torch.linalg.solve(covariance_WW, cross_WC)
    right_CW = torch.linalg.pinv(cross_WC.T @ inverse_WC) @ inverse_WC.T
    return cross_WC, right_CW


def _cases(model: LanguageModel, measured: Measured, seed: int) -> list[_Case]:
    """Test items that have a pair's other member, the same number of each class, from as many clusters as there are."""
    reading = measured.frame.reading
    pairs: dict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(reading.data.items):
        if item.split == "test":
            pairs[item.pair].append(place)
    whole = []
    for members in pairs.values():
        labels = {reading.data.items[place].label: place for place in members}
        if len(labels) == 2:
            first, second = labels.values()
            whole.append((first, second))
    if not whole:
        raise InputError(
            f"Concept {reading.data.name} has no pair in its test split, so nothing can be swapped.",
            hint="Give items of different classes the same pair.",
        )
    order = np.random.default_rng(seed).permutation(len(whole))[: _ITEMS // 2]
    cases = []
    for index in order.tolist():
        first, second = whole[index]
        for place, partner in ((first, second), (second, first)):
            item = reading.data.items[place]
            found, sign = tokenize_text(model, item.text), 1.0 if item.label == reading.data.classes[1] else -1.0
            cases.append(_Case(item, place, partner, found.ids, int(reading.position_N[place]), sign))
    return cases


def _choices(model: LanguageModel, measured: Measured) -> list[tuple[int, int]]:
    """First tokens of the continuations: (of class 0, of class 1)."""
    outcome = measured.concept.outcome
    if outcome is None or model.tokenizer is None:
        return []
    first, second = (outcome.continuations[name] for name in measured.concept.classes)
    found = []
    for one, other in zip(first, second, strict=True):
        ids = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (one, other)]
        if not ids[0] or not ids[1] or ids[0][0] == ids[1][0]:
            raise InputError(
                f"Concept {measured.concept.name}: the continuations {one!r} and {other!r} begin with the same token of "
                f"{model.identity.name}, so they cannot be told apart."
            )
        found.append((int(ids[0][0]), int(ids[1][0])))
    return found


def _changes(measured: Measured, cases: Sequence[_Case], at: int) -> tuple[Tensor, Tensor]:
    """Changes of the activation for a swap and for an erasure; float32 [N, W] each."""
    frame, fit = measured.frame, measured.within.fit
    targets_TC = frame.labels.targets()[fit.rows_T]
    z_NW = fit.space.z_LNW[at].double()
    std_W = fit.space.std_LW[at].double()
    own, other = (torch.tensor([getattr(case, name) for case in cases]) for name in ("place", "partner"))
    delta_W = fit.differences(targets_TC)[at, 0].double()
    length = delta_W.square().sum().clamp_min(1e-30)
    step_N = (z_NW[other] - z_NW[own]) @ delta_W / length
    swap_NW = step_N[:, None] * delta_W * std_W
    left_WC, right_CW = erasure(z_NW[fit.rows_T], targets_TC)
    erase_NW = -((z_NW[own] - z_NW[fit.rows_T].mean(0)) @ right_CW.T @ left_WC.T) * std_W
    return swap_NW.float(), erase_NW.float()


def _random(change_NW: Tensor, std_W: Tensor, generator: torch.Generator) -> Tensor:
    """The same lengths along one random direction, drawn on the scale of each dimension; the sign as along the real one."""
    direction_W = torch.randn(change_NW.shape[1], generator=generator) * std_W
    direction_W = direction_W / direction_W.norm().clamp_min(1e-30)
    reference_W = change_NW[int(change_NW.norm(dim=1).argmax())]
    sign_N = torch.where(change_NW @ reference_W >= 0, 1.0, -1.0)
    moved_NW: Tensor = (sign_N * change_NW.norm(dim=1))[:, None] * direction_W
    return moved_NW


def _behaviour(
    model: LanguageModel,
    cases: Sequence[_Case],
    hook: HookPoint | None,
    change_NW: Tensor | None,
    choices: Sequence[tuple[int, int]],
) -> Tensor:
    """Right minus wrong log-probability at the token that is read, the mean over the continuations; float64 [N]."""
    result_N = torch.zeros(len(cases), dtype=torch.float64)
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, case in enumerate(cases):
        by_length[len(case.ids)].append(index)
    for length, indices in by_length.items():
        size = max(1, _BATCH_TOKENS // length)
        for start in range(0, len(indices), size):
            part = indices[start : start + size]
            ids_BT = torch.tensor([cases[index].ids for index in part])
            position_B = torch.tensor([cases[index].position for index in part])
            logits_BTV = _run(model, ids_BT, hook, None if change_NW is None else change_NW[part], position_B)
            log_p_BV = torch.log_softmax(logits_BTV[torch.arange(len(part)), position_B].double(), dim=1).cpu()
            for row, index in enumerate(part):
                gaps = [float(log_p_BV[row, second] - log_p_BV[row, first]) for first, second in choices]
                result_N[index] = cases[index].sign * sum(gaps) / len(gaps)
    return result_N


def _run(
    model: LanguageModel, ids_BT: Tensor, hook: HookPoint | None, change_BW: Tensor | None, position_B: Tensor
) -> Tensor:
    """Logits [B, T, V] with the activation at one position of each row changed."""
    if hook is None or change_BW is None:
        return model.logits(ids_BT)
    rows_B = torch.arange(len(position_B))

    def moved(activation_BTW: Tensor) -> Tensor:
        result_BTW = activation_BTW.clone()
        result_BTW[rows_B, position_B] += change_BW.to(result_BTW)
        return result_BTW

    with replaced(model, hook, moved):
        return model.logits(ids_BT)


def _estimate(effect_N: Tensor, clusters: Sequence[str], seed: int) -> Interval:
    """Mean with its interval over resampled clusters."""
    names = list(dict.fromkeys(clusters))
    place = torch.tensor([names.index(name) for name in clusters])
    sums_G = torch.zeros(len(names), dtype=torch.float64).index_add_(0, place, effect_N)
    counts_G = torch.bincount(place, minlength=len(names)).double()
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=_RESAMPLES)
    weights_RG = torch.from_numpy(drawn.astype(np.float64))
    samples_R = (weights_RG @ sums_G) / (weights_RG @ counts_G).clamp_min(1)
    low, high = torch.quantile(samples_R, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(value=float(effect_N.mean()), low=low, high=high)


def _largest(effects: Sequence[Tensor]) -> float:
    """95th percentile of the mean effects' sizes."""
    return float(torch.quantile(torch.stack([effect.mean().abs() for effect in effects]), 0.95))
