"""The features of SAEs at several layers of one model, followed from layer to layer.

    tokens -> one pass of the model -> a sparse code for each SAE (codes)
           -> best matches and what chance gives (matching) -> kinds and edges (edges), on the whole text and on both halves of it
           -> what is shown (shown) -> what the shown edges do (ablation) -> FeatureFlow

SAEs that were trained on the same text, best in one pass, are compared like with like. Edges join neighbouring SAEs only.

How many features pass through is a fact of the SAEs as well as of the model. Many dictionaries fit a layer about as well, and SAEs that
start from the same directions (one seed) come to like ones: on SmolLM2 (1,024 features at blocks 10 and 14, 119 steps) 437 passed through
with one seed and 212 with two, where two seeds at the same block shared 267. :func:`flow_warnings` says so where it applies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neuronmap.abstraction.flow.ablation import Place, ablation_effects
from neuronmap.abstraction.flow.codes import SharedCodes, encode_shared
from neuronmap.abstraction.flow.edges import Edge, PairFlow, flow_between, reproduced
from neuronmap.abstraction.flow.shown import Shown, choose_shown, masses_of
from neuronmap.abstraction.record import FeatureFlow, FlowEdge, FlowNode
from neuronmap.errors import EmptyCorpusError, InputError, MismatchError
from neuronmap.progress import Progress, default
from neuronmap.saes.uses import require_use

if TYPE_CHECKING:
    from neuronmap.corpora import TokenSet
    from neuronmap.models import HookPoint, LanguageModel
    from neuronmap.saes import SparseAutoencoder

__all__ = ["SAEAtHook", "feature_flow", "flow_warnings"]

LEAST_CONTEXTS = 8
"""Of text: with fewer there is no shift by whole contexts in either half that could tell chance."""


class SAEAtHook(NamedTuple):
    """An SAE, its name, and where it reads."""

    name: str
    sae: SparseAutoencoder
    hook: HookPoint


def feature_flow(
    model: LanguageModel,
    saes: Sequence[tuple[str, SparseAutoencoder, HookPoint]],
    tokens: TokenSet,
    *,
    shown: int = 40,
    seed: int = 0,
    labels: Mapping[str, Mapping[int, str]] | None = None,
    concepts: Mapping[str, Mapping[int, Mapping[str, float]]] | None = None,
    ablation_contexts: int = 4,
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> FeatureFlow:
    """Follow the features of SAEs through the layers of a model.

    Args:
        model: the language model that all of them read.
        saes: (name, SAE, hook point); two or more, at different layers, in any order.
        tokens: the text, at least 8 contexts; 100,000 tokens test features that fire once in 5,000 tokens.
        shown: features a layer that nodes and edges are listed for. Counts, nulls and ``reproduced`` are always over all.
        seed: decides rotations and shifts of the nulls.
        labels: label by SAE name and feature.
        concepts: AUC by concept, by SAE name and feature (:func:`~neuronmap.abstraction.flow.carried.carried_by`); these features are shown
            before others.
        ablation_contexts: contexts a feature in which it is set to zero for the edges shown; 0 leaves the ablation out.
        batch_tokens: tokens in a forward pass; 2,048 when left out.
        progress: where the bars go.

    Returns:
        The record: nulls and counts for each pair of neighbours, features and edges shown, and the share of edges that both halves of
        the text have. Memory is 8 bytes a firing, and 24 more while its pair is compared.

    Raises:
        InputError: for fewer than two SAEs, names or layers that occur twice, hooks outside the blocks, or too few contexts.
        MismatchError: an SAE's width is not its hook's, it was trained with another model, or it does not reconstruct what it reads.
        EmptyCorpusError: no token of the text is left by the mask (position 0, special tokens, padding).
    """
    progress = progress or default()
    places = _checked(model, saes, tokens, shown, ablation_contexts)
    warnings = flow_warnings(places)
    for warning in warnings:
        progress.note(warning)
    codes = encode_shared(
        model, [(place.sae, place.hook) for place in places], tokens, batch_tokens=batch_tokens, progress=progress
    )
    decoders = [place.sae.W_dec.detach() for place in places]
    neighbours = len(places) - 1
    with progress.task("Matching features of neighbouring SAEs", 3 * neighbours, "comparisons") as task:
        texts: list[list[PairFlow]] = []
        for text in (codes, *codes.halves()):
            texts.append([])
            for pair in range(neighbours):
                texts[-1].append(flow_between(text, pair, pair + 1, *decoders[pair : pair + 2], seed=seed))
                task.advance(1)
    whole, *halves = texts
    masses = [masses_of(code_NF) for code_NF in codes.codes]
    carriers = [dict((concepts or {}).get(place.name, {})) for place in places]
    chosen = choose_shown(whole, masses, shown, carriers)
    size = max(1, (batch_tokens or 1024) // tokens.context_length)
    effects = _effects(model, tokens, codes, places, chosen, (ablation_contexts, size), progress)
    found = _record(places, codes, whole, chosen, effects, reproduced(*halves), labels or {}, carriers)
    return found.updated(warnings=warnings)


def flow_warnings(saes: Sequence[tuple[str, SparseAutoencoder, HookPoint]]) -> list[str]:
    """What makes a flow say less than it seems to, in sentences: SAEs that started from the same directions.

    Args:
        saes: as for :func:`feature_flow`; SAEs of unknown origin give no warning.
    """
    starts: dict[tuple[int, int, int], list[str]] = {}
    for name, sae, _ in saes:
        metadata = sae.provenance.metadata if sae.provenance is not None else None
        if metadata is not None and metadata.seed is not None and metadata.origin is None:
            starts.setdefault((metadata.seed, sae.d_in, sae.d_sae), []).append(name)
    return [
        f"{', '.join(names)} were trained from the same initial directions (seed {seed}), which makes features of theirs alike:"
        " where it was measured, half as many passed through with a seed each. Compare SAEs of other seeds before counts are taken for"
        " the model's."
        for (seed, _, _), names in starts.items()
        if len(names) > 1
    ]


def _checked(
    model: LanguageModel,
    saes: Sequence[tuple[str, SparseAutoencoder, HookPoint]],
    tokens: TokenSet,
    shown: int,
    ablation_contexts: int,
) -> list[SAEAtHook]:
    """The SAEs from early to late."""
    places = [SAEAtHook(*one) for one in saes]
    if len(places) < 2:
        raise InputError(
            f"{len(places)} SAE was given; features are followed between at least two, at different layers.",
            hint="Train one at another layer of the same model.",
        )
    if shown < 1 or ablation_contexts < 0:
        raise InputError(
            f"shown = {shown} and ablation_contexts = {ablation_contexts}: at least 1 feature a layer, and 0 or more contexts."
        )
    names = [place.name for place in places]
    if len(set(names)) < len(names):
        raise InputError(f"SAEs are told apart by name, but some occur twice: {', '.join(names)}.")
    for place in places:
        _check_place(model, place)
    by_layer = sorted(places, key=lambda place: place.hook.layer or 0)
    for one, other in pairwise(by_layer):
        if one.hook.layer == other.hook.layer:
            raise InputError(
                f"{one.name} ({one.hook.name}) and {other.name} ({other.hook.name}) both read layer {one.hook.layer}; features are"
                " followed from layer to layer.",
                hint="Leave one of them out; two SAEs of one layer are compared by `neuronmap sae compare`.",
            )
    if not tokens.num_contexts:
        raise EmptyCorpusError("The text has no tokens.", hint="Give a text with some thousand tokens or more.")
    if tokens.num_contexts < LEAST_CONTEXTS:
        raise InputError(
            f"The text has {tokens.num_contexts} contexts of {tokens.context_length} tokens; at least {LEAST_CONTEXTS} are needed to"
            " tell what chance gives.",
            hint="Give more text, or shorter contexts.",
        )
    return by_layer


def _check_place(model: LanguageModel, place: SAEAtHook) -> None:
    require_use(place.sae, "intervention", f"Following the features of {place.name}")
    if place.hook.layer is None:
        raise InputError(
            f"{place.name} reads {place.hook.name}, which is in no block of the model and so has no layer."
        )
    if place.sae.d_in != place.hook.width:
        raise MismatchError(
            f"{place.name} reads activations of width {place.sae.d_in}, but {place.hook.name} of {model.identity.name} has width"
            f" {place.hook.width}."
        )
    known = (place.sae.provenance.metadata.model or {}) if place.sae.provenance is not None else {}
    digest = known.get("model_digest")
    if digest is not None and digest != model.identity.model_digest:
        raise MismatchError(
            f"{place.name} was trained with {known.get('name')} ({digest}), but the model is {model.identity.name}"
            f" ({model.identity.model_digest}).",
            hint="Features are followed through one model: choose SAEs that were trained with it.",
        )


def _effects(
    model: LanguageModel,
    tokens: TokenSet,
    codes: SharedCodes,
    places: list[SAEAtHook],
    chosen: Shown,
    sizes: tuple[int, int],
    progress: Progress,
) -> dict[tuple[int, int, int], float]:
    """(pair, source, target) -> what the ablation changes."""
    contexts, batch_contexts = sizes
    sources = {(pair, edge.source) for pair, edge in chosen.edges}
    if not contexts or not sources:
        return {}
    found: dict[tuple[int, int, int], float] = {}
    with progress.task("Setting features to zero", len(sources) * contexts, "contexts") as task:
        for pair in range(len(places) - 1):
            wanted = [(edge.source, edge.target) for at, edge in chosen.edges if at == pair]
            earlier, later = (Place(places[at].sae, places[at].hook, codes.codes[at]) for at in (pair, pair + 1))
            effects = ablation_effects(
                model, tokens, codes, earlier, later, wanted,
                contexts=contexts, batch_contexts=batch_contexts, task=task,
            )  # fmt: skip
            found.update({(pair, *edge): change for edge, change in effects.items()})
    return found


def _record(
    places: list[SAEAtHook],
    codes: SharedCodes,
    flows: list[PairFlow],
    chosen: Shown,
    effects: Mapping[tuple[int, int, int], float],
    repeated: list[float | None],
    labels: Mapping[str, Mapping[int, str]],
    carriers: Sequence[Mapping[int, Mapping[str, float]]],
) -> FeatureFlow:
    masses = [masses_of(code_NF) for code_NF in codes.codes]
    firings = [np.bincount(code_NF.indices, minlength=code_NF.shape[1]) for code_NF in codes.codes]
    nodes = [
        FlowNode(
            sae=places[sae].name,
            layer=int(places[sae].hook.layer or 0),
            feature=feature,
            density=float(firings[sae][feature]) / max(1, codes.rows),
            mass=float(masses[sae][feature]),
            label=labels.get(places[sae].name, {}).get(feature) or None,
            concepts=dict(carriers[sae].get(feature, {})),
        )
        for sae, feature in chosen.nodes
    ]
    index = {node: number for number, node in enumerate(chosen.nodes)}
    return FeatureFlow(
        saes=[place.name for place in places],
        layers=[int(place.hook.layer or 0) for place in places],
        tokens=codes.rows,
        cosine_null=[flow.cosine_null for flow in flows],
        correlation_null=[flow.correlation_null for flow in flows],
        counts=[flow.counts for flow in flows],
        nodes=nodes,
        edges=[
            _flow_edge(
                edge,
                index[pair, edge.source],
                index[pair + 1, edge.target],
                effects.get((pair, edge.source, edge.target)),
            )
            for pair, edge in chosen.edges
        ],
        reproduced=repeated,
    )


def _flow_edge(edge: Edge, source: int, target: int, ablation: float | None) -> FlowEdge:
    return FlowEdge(
        source=source,
        target=target,
        kind=edge.kind,
        cosine=edge.cosine,
        correlation=edge.correlation,
        jaccard=edge.jaccard,
        support=edge.support,
        ablation=ablation,
    )
