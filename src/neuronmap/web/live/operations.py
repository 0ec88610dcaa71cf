"""What the child does for each request: existing classes are asked, and what they find is put into plain answers.

Shapes: N tokens of the text, F features, E active entries.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from neuronmap.errors import InputError
from neuronmap.features.live.analysis import By, RankedBy, TextAnalysis
from neuronmap.progress import Progress
from neuronmap.web.live.answers import (
    ActivationAnswer,
    Answer,
    RankedFeature,
    TextAnswer,
    TokenFeature,
    Trace,
    WarmAnswer,
)
from neuronmap.web.live.changing import effects_of, steer
from neuronmap.web.live.loaded import Loaded, LoadedSAE
from neuronmap.web.live.meaning import embed, make_label_vectors, make_vectors
from neuronmap.web.live.plain import number, numbers, rests_on_of, rounded, shown_pieces
from neuronmap.web.live.planning import plan_of
from neuronmap.web.live.requests import (
    ActivationRequest,
    AnyRequest,
    EffectsRequest,
    EmbedRequest,
    LabelMeaningRequest,
    LiveRequest,
    MeaningRequest,
    PlanRequest,
    SteerRequest,
    TextRequest,
    WarmRequest,
)

__all__ = ["perform"]


def perform(request: AnyRequest, loaded: Loaded, progress: Progress, running: Callable[[], None]) -> Answer:
    """Answer a request.

    Args:
        request: what is asked.
        loaded: models and SAEs.
        progress: where bars go.
        running: is told when everything is loaded and the work begins.

    Raises:
        NeuronMapError: it cannot be answered, and why.
    """
    started = time.monotonic()
    if isinstance(request, PlanRequest):
        return plan_of(request, loaded, running)
    if isinstance(request, EmbedRequest):
        return embed(request, loaded, running)
    if isinstance(request, MeaningRequest):
        return make_vectors(request, loaded, progress, running)
    if isinstance(request, LabelMeaningRequest):
        return make_label_vectors(request, loaded, progress, running)
    if not isinstance(request, LiveRequest):
        raise InputError(f"There is no operation {request.operation!r}.")
    here = loaded.sae(request.sae, request.analysis)
    running()
    if isinstance(request, TextRequest):
        return _text(request, loaded, here)
    if isinstance(request, SteerRequest):
        return steer(request, here, progress)
    if isinstance(request, EffectsRequest):
        return effects_of(request, here, progress)
    if isinstance(request, ActivationRequest):
        return _activation(request, loaded, here)
    if isinstance(request, WarmRequest):
        _ = here.attached.vocabulary
        return WarmAnswer(
            rests_on=rests_on_of(here),
            seconds=round(time.monotonic() - started, 3),
            loaded_saes=loaded.num_saes,
            loaded_models=loaded.num_models,
            weight_bytes=loaded.weight_bytes,
        )
    raise InputError(f"There is no operation {request.operation!r}.")


def _text(request: TextRequest, loaded: Loaded, here: LoadedSAE) -> TextAnswer:
    here.attached.check_features(request.features)
    if request.max_density is not None and here.density_F is None:
        raise InputError(
            f"{here.entry.id} has no analysis, so the densities of its features are not known.",
            hint="Leave max_density out, or analyse the SAE.",
        )
    order: RankedBy = request.order or ("share" if here.store is None else "relative")
    by: By = "relative" if order == "relative" else "activation"  # within a token, share orders as activation does
    if by == "relative" and here.store is None:
        raise InputError(
            f"{here.entry.id} has no analysis, so the maxima of its features are not known.",
            hint="Use order = 'activation' or 'share', or analyse the SAE.",
        )
    found = loaded.read(here, request.text, request.max_tokens)
    listed = replace(_without_dense(found, here, request.max_density), top=max(1, request.top), by=by)
    top = [_features_on(listed, token) if request.top else [] for token in range(found.num_tokens)]
    names = {one.feature: found.names.label(one.feature) for features in top for one in features}
    return TextAnswer(
        rests_on=rests_on_of(here),
        pieces=shown_pieces(found.pieces(0), found.masked_N.tolist()),
        token_ids=found.token_N.tolist(),
        masked=found.masked_N.tolist(),
        explained=numbers(found.explained_shares),
        active=np.diff(found.features_NF.indptr).tolist(),
        top=top,
        labels={feature: label for feature, label in names.items() if label},
        ranking=_ranking(listed, here, request.ranking, order),
        traces=[_trace(found, feature) for feature in dict.fromkeys(request.features)],
        order=order,
        explained_share=number(found.explained),
        l0=number(found.l0),
        notes=list(found.notes),
    )


def _without_dense(found: TextAnalysis, here: LoadedSAE, most: float | None) -> TextAnalysis:
    """The analysis without the entries of features that fire on a larger share of tokens."""
    if most is None or here.density_F is None:
        return found
    entries = found.features_NF.tocoo()
    kept_E = here.density_F[entries.coords[1]] <= most
    row_E, feature_E = entries.coords[0][kept_E], entries.coords[1][kept_E]
    sparse = type(entries)((entries.data[kept_E], (row_E, feature_E)), shape=entries.shape)
    return replace(found, features_NF=sparse.tocsr())


def _features_on(listed: TextAnalysis, token: int) -> list[TokenFeature]:
    found = []
    for feature, activation in listed.top_features(token):
        known = listed.names.maximum(feature)
        found.append(TokenFeature(feature, rounded(activation), rounded(activation / known) if known else None))
    return found


def _ranking(listed: TextAnalysis, here: LoadedSAE, most: int, order: RankedBy) -> list[RankedFeature]:
    if not most:
        return []
    return [
        RankedFeature(
            feature=one.feature,
            label=one.label,
            max=rounded(one.max),
            token=one.token,
            tokens=one.tokens,
            mean=rounded(one.mean),
            relative=number(one.relative),
            density=None if here.density_F is None else number(here.density_F[one.feature]),
        )
        for one in listed.ranking(most, order)
    ]


def _trace(found: TextAnalysis, feature: int) -> Trace:
    trace = found.feature(feature)
    return Trace(
        feature=feature,
        label=trace.label,
        activations=numbers(trace.activation_N),
        largest=rounded(trace.largest),
        known_maximum=number(found.names.maximum(feature)),
    )


def _activation(request: ActivationRequest, loaded: Loaded, here: LoadedSAE) -> ActivationAnswer:
    here.attached.check_features([request.feature])
    found = loaded.read(here, request.text, request.max_tokens)
    value_N = np.nan_to_num(found.feature(request.feature).activation_N)
    peak = int(value_N.argmax())
    return ActivationAnswer(
        rests_on=rests_on_of(here),
        tokens=[found.vocabulary.text_of(int(token)) for token in found.token_N],
        values=[rounded(value) for value in value_N.tolist()],
        masked=found.masked_N.tolist(),
        max_value=rounded(float(value_N[peak])),
        max_value_index=peak,
    )
