"""Concepts that features carry, for SAEs at several places of one model: the items are read once."""

from __future__ import annotations

from collections.abc import Sequence

from neuronmap.abstraction.flow.carried import carried_by
from neuronmap.abstraction.flow.codes import encode_rows
from neuronmap.activations.items import read_hooks
from neuronmap.concepts import ConceptData
from neuronmap.models import HookPoint, LanguageModel
from neuronmap.progress import Progress
from neuronmap.saes import SparseAutoencoder

__all__ = ["carried_concepts"]


def carried_concepts(
    model: LanguageModel,
    saes: Sequence[tuple[str, SparseAutoencoder, HookPoint]],
    data: Sequence[ConceptData],
    *,
    most: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, dict[int, dict[str, float]]]:
    """Which features of each SAE tell the classes of concepts apart, above what the best of all features reaches by chance.

    Args:
        model: the model.
        saes: (name, SAE, hook point).
        data: items of the concepts.
        most: features named for each SAE and concept, the best first.
        seed: of the permutations.
        progress: where the bar goes.

    Returns:
        SAE -> feature -> concept (with the class, of several) -> AUC.
    """
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name, _, _ in saes}
    read = read_hooks(model, data, [hook for _, _, hook in saes], progress=progress)
    for part, activations in read:
        labels = [item.label for item in part.items]
        clusters = [item.cluster for item in part.items]
        for (name, sae, _), x_NW in zip(saes, activations, strict=True):
            codes_NF = encode_rows(sae, x_NW.to(next(sae.parameters()).device), where=part.name)
            carried = carried_by(codes_NF, labels, clusters=clusters, seed=seed)
            for carrier in carried.carriers[:most]:
                found[name].setdefault(carrier.feature, {})[f"{part.name} = {carrier.label}"] = round(carrier.auc, 4)
    return found
