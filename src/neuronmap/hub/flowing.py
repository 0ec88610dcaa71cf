"""SAEs of the library followed through the layers of their model, with the labels of their analyses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from neuronmap import progress as progress_module
from neuronmap.errors import DamagedError, InputError, MismatchError, NotInLibraryError
from neuronmap.hub.analyses import open_analysis
from neuronmap.hub.entry import LibraryEntry, model_digest
from neuronmap.hub.library import SAEModelHub
from neuronmap.hub.opening import hook_of, language_model_of, tokenized, training_config, training_text
from neuronmap.progress import Progress

if TYPE_CHECKING:
    from neuronmap.abstraction.record import FeatureFlow
    from neuronmap.concepts import ConceptData
    from neuronmap.models import LanguageModel

__all__ = ["check_followed", "flow_entries"]


def flow_entries(
    hub: SAEModelHub,
    names: Sequence[str],
    *,
    text: str | None = None,
    tokens: int = 131_072,
    shown: int = 40,
    seed: int = 0,
    model: LanguageModel | None = None,
    concepts: Sequence[ConceptData] = (),
    progress: Progress | None = None,
    **options: Any,
) -> FeatureFlow:
    """Follow the features of SAEs of the library from layer to layer.

    Args:
        hub: the library.
        names: two or more SAEs of one language model, at different layers, in any order.
        text: corpus, file or folder; None for the text that the first of them was trained on.
        tokens: most tokens of it.
        shown: features a layer that are listed.
        seed: decides the nulls.
        model: their language model, where it is loaded already.
        concepts: items of concepts; features that carry one are named, and shown before others.
        progress: where notes and bars go.
        options: further arguments of :func:`~neuronmap.abstraction.flow.feature_flow` (``ablation_contexts``, ...).

    Returns:
        The record; features have the label of their SAE's newest analysis, where there is one.

    Raises:
        NotInLibraryError: no SAE of such a name.
        MismatchError: they belong to different language models, or do not fit the one that was loaded; lists the differences.
        InputError: fewer than two, one twice, two at one layer, or one that does not say which model or hook it belongs to.
    """
    from neuronmap.abstraction.flow import feature_flow
    from neuronmap.abstraction.flow.concepts import carried_concepts

    progress = progress or progress_module.default()
    entries = [hub.get(name) for name in names]
    check_followed(entries)
    if model is None:
        model = language_model_of(entries[0], progress=progress)
    hooks = [hook_of(entry, model) for entry in entries]
    saes = [hub.load(entry.id, model, device=str(model.device), progress=progress) for entry in entries]
    found = tokenized(
        model,
        training_text(entries[0]) if text is None else text,
        config=training_config(entries[0]),
        most=tokens,
        progress=progress,
    )
    places = [(entry.id, sae, hook) for entry, sae, hook in zip(entries, saes, hooks, strict=True)]
    flow = feature_flow(
        model,
        places,
        found,
        concepts=carried_concepts(model, places, concepts, seed=seed, progress=progress) if concepts else None,
        shown=shown,
        seed=seed,
        progress=progress,
        **options,
    )
    return _labelled(flow, entries)


def check_followed(entries: Sequence[LibraryEntry]) -> None:
    """Before the language model is loaded: what can be told from the entries alone.

    Raises:
        InputError, DamagedError, MismatchError: as :func:`flow_entries`.
    """
    if len(entries) < 2:
        raise InputError(
            f"{len(entries)} SAE was named; features are followed between at least two, at different layers.",
            hint="`neuronmap sae list-models` shows what the library has.",
        )
    ids = [entry.id for entry in entries]
    if len(set(ids)) < len(ids):
        raise InputError(f"An SAE was named twice: {', '.join(ids)}.")
    problems = [f"{entry.id}: {entry.problem}" for entry in entries if entry.problem]
    if problems:
        raise DamagedError(f"SAEs that cannot be used: {'; '.join(problems)}.")
    nameless = [entry.id for entry in entries if entry.model is None]
    if nameless:
        raise InputError(f"{', '.join(nameless)}: no language model is named, so no text can be run for it.")
    at: dict[int, LibraryEntry] = {}
    for entry in entries:
        if entry.layer is not None and at.setdefault(entry.layer, entry) is not entry:
            raise InputError(
                f"{at[entry.layer].id} and {entry.id} both read layer {entry.layer}; features are followed from layer to layer.",
                hint="Leave one of them out; two SAEs of one layer are compared by `neuronmap sae compare`.",
            )
    digests = [model_digest(entry) for entry in entries]
    known = all(digest is not None for digest in digests)
    if len(set(digests if known else [entry.model for entry in entries])) > 1:
        listed = "; ".join(f"{entry.id} belongs to {entry.model}" for entry in entries)
        other = " (same name, other weights)" if len({entry.model for entry in entries}) == 1 else ""
        raise MismatchError(
            f"Features are followed through one language model, but these belong to several{other}: {listed}.",
            hint="Choose SAEs of one model, or train one: `neuronmap sae train`.",
        )


def _labelled(flow: FeatureFlow, entries: Sequence[LibraryEntry]) -> FeatureFlow:
    """With the labels of the newest analyses; features of SAEs without a sound one have none."""
    labels: dict[tuple[str, int], str] = {}
    for entry in entries:
        features = [node.feature for node in flow.nodes if node.sae == entry.id]
        try:
            store = open_analysis(entry)
        except (NotInLibraryError, DamagedError):
            continue
        with store:
            labels.update(
                {
                    (entry.id, feature): store.feature(feature).label
                    for feature in features
                    if feature < store.num_features
                }
            )
    nodes = [node.updated(label=labels.get((node.sae, node.feature)) or node.label) for node in flow.nodes]
    return flow.updated(nodes=nodes)
