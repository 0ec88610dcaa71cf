"""Features changed in a running model, for the web: steering, scoring, ablation."""

from __future__ import annotations

import math
from collections.abc import Iterable

from neuronmap.features.live.effect_tables import TokenEffect
from neuronmap.features.live.effects import FeatureEffects
from neuronmap.features.live.interventions import Intervention
from neuronmap.features.live.reading import read_texts
from neuronmap.features.live.steered import Run, SteeredScore
from neuronmap.features.live.steering import FeatureSteering
from neuronmap.features.storage.text import Vocabulary
from neuronmap.progress import Progress
from neuronmap.web.live.answers import (
    Continuation,
    EffectsAnswer,
    PredictedToken,
    ScoredToken,
    ScoreSummary,
    ShownPiece,
    SteerAnswer,
)
from neuronmap.web.live.loaded import LoadedSAE
from neuronmap.web.live.plain import number, rests_on_of, rounded, shown_pieces
from neuronmap.web.live.requests import EffectsRequest, SteerRequest

__all__ = ["effects_of", "steer"]


def steer(request: SteerRequest, here: LoadedSAE, progress: Progress) -> SteerAnswer:
    """Continue a prompt, or score a text, with and without the changes.

    Raises:
        InputError, ConfigError: unknown features, maxima that are not known, texts that are too long for the model.
    """
    steering = FeatureSteering(here.attached, store=here.store, progress=progress)
    changes = [Intervention(one.feature, one.kind, one.value, unit=one.unit) for one in request.changes]
    runs: list[Continuation] = []
    pieces: list[ShownPiece] = []
    tokens: list[ScoredToken] = []
    summary: list[ScoreSummary] = []
    if request.prompt is not None:
        made = steering.generate(
            request.prompt, changes, max_tokens=request.max_tokens, temperature=request.temperature, seed=request.seed,
            controls=request.controls,
        )  # fmt: skip
        runs = [_continuation(run, steering.vocabulary) for run in made.runs]
        said, notes = made.interventions, made.notes
    else:
        score = steering.score(str(request.text), changes, controls=request.controls, seed=request.seed)
        pieces = shown_pieces(score.vocabulary.pieces(score.contexts[0]))
        tokens, summary = _scored(score), _summary(score)
        said, notes = score.interventions, (*score.notes, *_cut(here, str(request.text)))
    return SteerAnswer(
        rests_on=rests_on_of(here),
        changes=list(said),
        runs=runs,
        pieces=pieces,
        tokens=tokens,
        summary=summary,
        notes=list(notes),
    )


def _continuation(run: Run, vocabulary: Vocabulary) -> Continuation:
    return Continuation(
        name=run.name,
        text=run.text,
        pieces=shown_pieces(vocabulary.pieces(run.ids)),
        token_ids=list(run.ids),
        probabilities=[rounded(math.exp(-loss)) for loss in run.losses],
        clean_loss=number(run.clean_loss),
        same_as_clean=run.same,
        stopped=run.stopped,
    )


def _scored(score: SteeredScore) -> list[ScoredToken]:
    controls = len(score.control_loss) > 0
    return [
        ScoredToken(
            position=int(score.position_N[place]),
            text=score.vocabulary.shown(int(score.token_N[place])),
            clean_loss=rounded(score.clean_N[place]),
            steered_loss=rounded(score.steered_N[place]),
            kl=rounded(score.kl_N[place]),
            control_loss=rounded(score.control_loss[:, place].mean()) if controls else None,
            control_kl=rounded(score.control_kl[:, place].mean()) if controls else None,
        )
        for place in range(len(score.token_N))
    ]


def _summary(score: SteeredScore) -> list[ScoreSummary]:
    clean = float(score.clean_N.mean())
    rows = [("clean", 0.0, 0.0), ("steered", score.change, score.kl)]
    pairs = zip(score.control_changes, score.control_kls, strict=True)
    rows += [(f"control {place}", change, kl) for place, (change, kl) in enumerate(pairs, 1)]
    return [
        ScoreSummary(name=name, loss=rounded(clean + change), change=rounded(change), kl=rounded(kl))
        for name, change, kl in rows
    ]


def effects_of(request: EffectsRequest, here: LoadedSAE, progress: Progress) -> EffectsAnswer:
    """Take a feature out where it fires.

    Raises:
        InputError: an unknown feature, one without examples, or no text where there is no analysis.
    """
    effects = FeatureEffects(here.attached, store=here.store, progress=progress)
    found = effects.ablate(request.feature, request.text, max_examples=request.max_examples, top=request.top)
    effect = found[0]

    def tokens(of: Iterable[TokenEffect]) -> list[PredictedToken]:
        return [
            PredictedToken(
                token=one.token,
                probability=rounded(one.probability),
                log_probability=rounded(one.log_probability),
            )
            for one in of
        ]

    return EffectsAnswer(
        rests_on=rests_on_of(here),
        feature=effect.feature,
        label=effect.label,
        contexts=effect.contexts,
        positions=effect.positions,
        firings=effect.firings,
        largest=rounded(effect.largest),
        loss_change=rounded(effect.loss_change),
        per_firing=rounded(effect.per_firing),
        by_context=[rounded(change) for change in effect.by_context],
        loss_at_firings=number(effect.loss_at_firings),
        kl=number(effect.kl),
        kl_at_firings=number(effect.kl_at_firings),
        promoted=tokens(effect.promoted),
        suppressed=tokens(effect.suppressed),
        notes=[*found.notes, *([] if request.text is None else _cut(here, request.text))],
    )


def _cut(here: LoadedSAE, text: str) -> list[str]:
    """What to say of a text that is longer than what is read."""
    context = read_texts(here.attached.model, text)[0]
    if not context.left_out:
        return []
    return [f"The text was cut after {len(context)} of {len(context) + context.left_out} tokens."]
