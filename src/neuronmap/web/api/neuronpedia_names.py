"""What the SAEs of this machine are called where Neuronpedia's names are asked for.

    modelId    last part of the model's name, small letters, everything else a hyphen       HuggingFaceTB/SmolLM2 -> smollm2
    source     <layer>-<set>, the set being the SAE's id with / and _ as hyphens            demo at block 15 -> 15-demo
    index      number of the feature

In place of a source, the SAE's own id is taken as well. SAEs outside the blocks have no layer, so they are reached by their id only.
"""

from __future__ import annotations

import re

from neuronmap.errors import NotInLibraryError
from neuronmap.features.export.neuronpedia import NeuronpediaNames, model_id
from neuronmap.hub import LibraryEntry
from neuronmap.web.errors import WebError
from neuronmap.web.explorer import Explorer

__all__ = ["entries_of", "entry_of", "names_of"]


def names_of(entry: LibraryEntry) -> NeuronpediaNames:
    """What an SAE and its model are called."""
    called = re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9.-]", "-", entry.id)).strip("-") or "sae"
    return NeuronpediaNames(model_id(entry.model or "model"), called, entry.layer or 0, release=called, author="local")


def entries_of(explorer: Explorer, model: str, source_set: str | None = None) -> list[LibraryEntry]:
    """Sound SAEs of a model, and of a set if one is given."""
    found = []
    for entry in explorer.entries():
        if entry.problem:
            continue
        names = names_of(entry)
        if names.model == model and source_set in (None, names.source_set, entry.id):
            found.append(entry)
    return found


def entry_of(explorer: Explorer, model: str, source: str) -> LibraryEntry:
    """The SAE of a model and source.

    Raises:
        NotInLibraryError: there is none; names what there is.
        WebError: 409, several SAEs have that name.
    """
    of_model = entries_of(explorer, model)
    found = [entry for entry in of_model if entry.id == source] or [
        entry for entry in of_model if entry.layer is not None and names_of(entry).source == source
    ]
    if len(found) > 1:
        ids = ", ".join(entry.id for entry in found)
        raise WebError(
            409, "ambiguous", f"Several SAEs are called {source} here: {ids}.", hint="Give the id as source."
        )
    if not found:
        there = sorted(
            {f"{names_of(entry).model}/{names_of(entry).source}" for entry in explorer.entries() if not entry.problem}
        )
        hint = f"There are: {', '.join(there[:10])}." if there else "The library is empty."
        raise NotInLibraryError(f"There is no source {model}/{source} here.", hint=hint)
    return found[0]
