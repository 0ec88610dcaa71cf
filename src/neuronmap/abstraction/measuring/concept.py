"""One concept from its reading to its record and its probes.

Legend: L layers, N items, T training items, W width, C columns, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuronmap.abstraction.measuring import checks
from neuronmap.abstraction.measuring.frame import Frame
from neuronmap.abstraction.measuring.scores import Part, ScoredCurve, fit_parts, score_part
from neuronmap.abstraction.measuring.series import curve_of, matrix, series
from neuronmap.abstraction.probes.calibration import Calibration, bits, calibrate, calibration_error
from neuronmap.abstraction.probes.mlp import components_of, mlp_scores
from neuronmap.abstraction.probes.ridge import fit_ridge
from neuronmap.abstraction.reading import Reading
from neuronmap.abstraction.record import Baselines, ConceptResult, CrossScore, LeftOut
from neuronmap.abstraction.settings import TrackerConfig
from neuronmap.abstraction.summary import CurveEvidence, LevelEvidence, summarize
from neuronmap.concepts.concept import Concept
from neuronmap.statistics.auc import macro_auc
from neuronmap.statistics.resampling import Draws, bands, draw_clusters

__all__ = ["STEPS", "Measured", "measure_concept"]

STEPS = 5
"""Of one measurement, for a progress bar."""

_MLP_COMPONENTS = 48
_EXAMPLES = 6
_FEW = 7
"""Test clusters below which the rule of three leaves no lower end above chance."""


@dataclass(frozen=True, eq=False)
class Measured:
    """A concept's record with what further parts need of its measurement.

    Attributes:
        concept: what was measured.
        result: the record.
        frame: the items.
        within, across: the fits.
        calibration: of the within probes.
        headline: the curve that the summary is of, with its resamples.
        inside: the within score.
        mlp: the MLP's; None where it was not trained.
        draws: of the clusters.
    """

    concept: Concept
    result: ConceptResult
    frame: Frame
    within: Part
    across: list[Part]
    calibration: Calibration
    headline: ScoredCurve
    inside: ScoredCurve
    mlp: ScoredCurve | None
    draws: Draws


def measure_concept(
    concept: Concept,
    reading: Reading,
    blocks: int,
    config: TrackerConfig,
    *,
    untrained: Reading | None = None,
    step: Callable[[], None] = lambda: None,
) -> Measured:
    """Measure one concept at all layers.

    Args:
        concept: what it is.
        reading: the model read at its items.
        blocks: blocks of the model.
        config: how many permutations, resamples and so on.
        untrained: items read in the same architecture with random weights.
        step: called :data:`STEPS` times on the way.

    Raises:
        InputError: a split lacks a class.
    """
    frame = Frame(reading, crossed=concept.crossed is not None)
    frame.check()
    within, across = fit_parts(frame)
    step()
    draws = draw_clusters(frame.strata(), config.resamples, config.seed)
    clusters = len(reading.data.clusters("test"))
    inside = score_part(frame, within, draws)
    levels = [score_part(frame, part, draws) for part in across]
    mean = _mean(levels) if levels else None
    step()
    permuted_PL, permuted_levels = checks.permuted_scores(frame, within, across, config.permutations, config.seed + 1)
    step()
    null_within, p_within_L = checks.families(inside.score_L, permuted_PL)
    null, p_L, low_null = null_within, p_within_L, 0.0
    if mean is not None:
        null, p_L = checks.families(mean.score_L, torch.stack(permuted_levels).nanmean(0))
        low_null = float(torch.quantile(torch.cat(permuted_levels, dim=1).nan_to_num(0.5).amin(1), 0.05))
    directions = within.fit.directions(frame.labels.targets()[within.fit.rows_T])
    rotation_L = _rotation(directions.w_LCW)
    calibrated = _calibrated(frame, within)
    headline = inside if mean is None else mean
    summary = summarize(
        reading.layers,
        blocks,
        _evidence(inside, null_within, clusters),
        None if mean is None else _evidence(mean, null, clusters),
        [_level(frame, part, scored, low_null) for part, scored in zip(across, levels, strict=True)],
        series(rotation_L),
        crossed=concept.crossed,
        nuisances=concept.nuisances,
    )
    step()
    mlp = _mlp(frame, within, draws, config.seed) if config.mlp else None
    mean_embedding, position_length = checks.baseline_aucs(frame)
    parallel_L = checks.parallelism(frame, within, config.seed + 3)
    result = ConceptResult(
        concept=concept.to_dict(),
        layers=list(reading.layers),
        dataset_digest=reading.data.digest,
        items=len(reading.data.items),
        clusters={split: len(reading.data.clusters(split)) for split in ("train", "calibration", "test")},
        examples=_examples(reading),
        within=curve_of(inside, clusters),
        within_bits=calibrated.bits,
        within_balanced=calibrated.balanced,
        calibration_error=calibrated.error,
        difference_of_means=series(_difference_auc(frame, within)),
        difference_norm=series(within.fit.differences(frame.labels.targets()[within.fit.rows_T]).norm(dim=2).mean(1)),
        difference_reliability=series(checks.reliability(frame, within, 20, config.seed + 2)),
        mlp=None if mlp is None else series(mlp.score_L),
        cross=None if mean is None else _cross(frame, within, across, levels, mean, clusters),
        parallelism=None if parallel_L is None else series(parallel_L),
        null95=null,
        null95_within=null_within,
        p_value=series(p_L),
        permutations=config.permutations,
        random_concept95=series(checks.random_concepts(frame, within, config.random_concepts, config.seed + 4)),
        control=checks.control_task(frame, within, config.control_labelings, config.seed + 5)
        if config.control_labelings
        else None,
        baselines=_baselines(concept, mean_embedding, position_length, untrained),
        rotation=series(rotation_L),
        transfer=matrix(_transfer(frame, within, directions.w_LCW)),
        summary=summary,
        warnings=_warnings(concept, frame, across),
    )
    step()
    return Measured(concept, result, frame, within, across, calibrated.calibration, headline, inside, mlp, draws)


def _mean(levels: Sequence[ScoredCurve]) -> ScoredCurve:
    return ScoredCurve(
        torch.stack([one.score_L for one in levels]).mean(0), torch.stack([one.samples_RL for one in levels]).nanmean(0)
    )


def _evidence(scored: ScoredCurve, null95: float | None, clusters: int) -> CurveEvidence:
    found = bands(scored.score_L, scored.samples_RL, clusters)
    return CurveEvidence(
        scored.score_L.numpy(), scored.samples_RL.numpy(), found.band_low.numpy(), found.band_high.numpy(), null95
    )


def _level(frame: Frame, part: Part, scored: ScoredCurve, low_null: float) -> LevelEvidence:
    clusters = len(torch.unique(frame.cluster_ids[part.test_N]))
    found = bands(scored.score_L, scored.samples_RL, clusters)
    inverted_L = (scored.score_L < low_null) & (found.band_high < 0.5)
    return LevelEvidence(part.name, np.asarray(found.low), np.asarray(inverted_L))


@dataclass(frozen=True)
class _Calibrated:
    calibration: Calibration
    bits: list[float | None]
    balanced: list[float | None]
    error: list[float | None]


def _calibrated(frame: Frame, within: Part) -> _Calibrated:
    """Probabilities fitted on the calibration split, judged on the test split."""
    targets_NC = frame.labels.targets()
    scores_LNC = within.fit.scores(targets_NC[within.fit.rows_T])
    rows_N, test_N = frame.rows("calibration"), within.test_N
    calibration = calibrate(scores_LNC[:, rows_N], targets_NC[rows_N] > 0)
    odds_LNC, positive_NC = calibration.log_odds(scores_LNC[:, test_N]), targets_NC[test_N] > 0
    right_LNC = ((odds_LNC > 0) == positive_NC).to(torch.float64)
    up_NC = positive_NC.to(torch.float64)
    sensitivity_LC = (right_LNC * up_NC).sum(1) / up_NC.sum(0).clamp_min(1)
    specificity_LC = (right_LNC * (1 - up_NC)).sum(1) / (1 - up_NC).sum(0).clamp_min(1)
    return _Calibrated(
        calibration,
        series(bits(odds_LNC, positive_NC)),
        series(((sensitivity_LC + specificity_LC) / 2).mean(1)),
        series(calibration_error(odds_LNC, positive_NC)),
    )


def _difference_auc(frame: Frame, within: Part) -> Tensor:
    targets_NC = frame.labels.targets()
    scores_LNC = within.fit.difference_scores(targets_NC[within.fit.rows_T], within.test_N)
    return macro_auc(scores_LNC, frame.labels.label_N[within.test_N])


def _mlp(frame: Frame, within: Part, draws: Draws, seed: int) -> ScoredCurve:
    parts_LND = components_of(within.fit.gram_LNT, within.fit.rows_T, _MLP_COMPONENTS)
    scores_LNC = mlp_scores(parts_LND, frame.labels.targets(), within.fit.rows_T, frame.rows("calibration"), seed)
    return score_part(frame, within, draws, scores_LNC[:, within.test_N])


def _cross(
    frame: Frame,
    within: Part,
    across: Sequence[Part],
    levels: Sequence[ScoredCurve],
    mean: ScoredCurve,
    clusters: int,
) -> CrossScore:
    left_out = []
    for part, scored in zip(across, levels, strict=True):
        seen_L = _score(frame, Part(part.name, within.fit, part.test_N))
        left_out.append(
            LeftOut(
                level=part.name,
                score=series(scored.score_L),
                within=series(seen_L),
                alone=series(_alone(frame, within, part.name)),
            )
        )
    worst_L = torch.stack([scored.score_L for scored in levels]).amin(0)
    return CrossScore(mean=curve_of(mean, clusters), worst=series(worst_L), levels=left_out)


def _alone(frame: Frame, within: Part, condition: str) -> Tensor:
    """AUC in one condition, by probes trained in it and nowhere else."""
    index = frame.reading.data.conditions.index(condition)
    rows_T = frame.rows("train", index)
    targets_NC = frame.labels.targets()
    clusters_T = frame.cluster_ids[rows_T]
    fit = fit_ridge(frame.reading.x_LNW, rows_T, targets_NC[rows_T], clusters_T, within.fit.ridge_L)
    return _score(frame, Part(condition, fit, frame.rows("test", index)))


def _rotation(w_LCW: Tensor) -> Tensor:
    """Cosine of the directions of each layer and the next, the mean over the columns; NaN at the last."""
    cosine_LC = torch.nn.functional.cosine_similarity(w_LCW[:-1], w_LCW[1:], dim=2)
    length_LC = w_LCW.norm(dim=2)
    known_LC = (length_LC[:-1] > 1e-9) & (length_LC[1:] > 1e-9)
    value_L = torch.where(known_LC, cosine_LC, torch.nan).mean(1)
    return torch.cat([value_L, torch.tensor([torch.nan])]).double()


def _transfer(frame: Frame, within: Part, w_LCW: Tensor) -> Tensor:
    """AUC of each layer's direction (row) on each layer's standardised test items (column)."""
    z_LNW, label_N = within.fit.space.z_LNW[:, within.test_N], frame.labels.label_N[within.test_N]
    rows = [macro_auc((z_LNW @ w_CW.T).double(), label_N) for w_CW in w_LCW]
    return torch.stack(rows)


def _baselines(
    concept: Concept, mean_embedding: float | None, position_length: float | None, untrained: Reading | None
) -> Baselines:
    if untrained is None:
        return Baselines(mean_of_embeddings=mean_embedding, position_length=position_length)
    frame = Frame(untrained, crossed=concept.crossed is not None)
    frame.check()
    within, across = fit_parts(frame)
    cross = [_score(frame, part) for part in across]
    return Baselines(
        mean_of_embeddings=mean_embedding,
        position_length=position_length,
        random_within=series(_score(frame, within)),
        random_cross=series(torch.stack(cross).mean(0)) if cross else None,
    )


def _score(frame: Frame, part: Part) -> Tensor:
    scores_LNC = part.fit.scores(frame.labels.targets()[part.fit.rows_T], part.test_N)
    return macro_auc(scores_LNC, frame.labels.label_N[part.test_N])


def _examples(reading: Reading) -> list[dict[str, object]]:
    """A few items, pairs first, from different conditions."""
    chosen: list[dict[str, object]] = []
    seen: set[tuple[str, str]] = set()
    for item in reading.data.items:
        if (item.condition, item.label) not in seen and len(chosen) < _EXAMPLES:
            seen.add((item.condition, item.label))
            chosen.append(
                {
                    "text": item.text,
                    "label": item.label,
                    "span": list(item.span),
                    "condition": item.condition,
                }
            )
    return chosen


def _warnings(concept: Concept, frame: Frame, across: Sequence[Part]) -> list[str]:
    reading, crossings = frame.reading, len(across)
    warnings = list(reading.data.warnings)
    if reading.dropped:
        warnings.append(f"{reading.dropped} items would be read at position 0 and were left out.")
    if concept.crossed is not None and not crossings:
        warnings.append(
            f"The levels of {concept.crossed} cannot be left out one at a time (each must have every class), so there is only a "
            "within score."
        )
    few = [(part.name, len(torch.unique(frame.cluster_ids[part.test_N]))) for part in across]
    few = [(name, count) for name, count in few if count < _FEW]
    if few:
        named = ", ".join(f"{name} ({count})" for name, count in few)
        warnings.append(
            f"Too few clusters to test these levels of {concept.crossed} on: {named}; nothing can be found across them."
        )
    return list(dict.fromkeys(warnings))
