"""The kinds of artefacts: the built-in five, and what plug-ins add."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from neuronmap import plugins
from neuronmap.errors import InputError, PluginError
from neuronmap.zoo.records.analysis_result import AnalysisResultRecord
from neuronmap.zoo.records.others import CircuitRecord, DatasetRecord, ExplanationsRecord
from neuronmap.zoo.records.parts import Record
from neuronmap.zoo.records.sae_model import SAEModelRecord

__all__ = ["ArtefactKind", "get_kind", "list_kinds"]


@dataclass(frozen=True)
class ArtefactKind:
    """A kind of artefact.

    Attributes:
        name: as in manifests, upper case.
        title: for people.
        record_type: model of the manifest's ``record``.
        needs: roles that ``depends_on`` must fill; a function of the record where that depends on it.
        schema_version: major and minor number of the record's schema.
    """

    name: str
    title: str
    record_type: type[Record]
    needs: frozenset[str] = field(default_factory=frozenset)
    schema_version: str = "1.0"

    def needed_roles(self, record: Record) -> frozenset[str]:
        """Roles that ``depends_on`` must fill for this record."""
        if isinstance(record, AnalysisResultRecord):
            return frozenset({"sae"}) if record.analysis in ("features", "evaluation") else frozenset()
        return self.needs


_BUILT_IN = (
    ArtefactKind("SAE_MODEL", "Sparse autoencoder", SAEModelRecord),
    ArtefactKind("ANALYSIS_RESULT", "Analysis", AnalysisResultRecord),
    ArtefactKind("EXPLANATIONS", "Explanations", ExplanationsRecord, frozenset({"sae"})),
    ArtefactKind("CIRCUIT", "Circuit", CircuitRecord),
    ArtefactKind("DATASET", "Data set", DatasetRecord),
)


@cache
def _kinds() -> dict[str, ArtefactKind]:
    found = {kind.name: kind for kind in _BUILT_IN}
    added: list[Any] = plugins.collect("neuronmap_zoo_kinds")
    for kind in added:
        if not isinstance(kind, ArtefactKind) or not re.fullmatch(r"[A-Z][A-Z0-9_]{1,40}", kind.name):
            raise PluginError(f"{kind!r} is no ArtefactKind with an upper-case name.")
        if kind.name in found:
            raise PluginError(f"Two kinds of artefacts are called {kind.name}.")
        found[kind.name] = kind
    return found


def list_kinds() -> list[ArtefactKind]:
    """All kinds, the built-in ones first."""
    return list(_kinds().values())


def get_kind(name: str) -> ArtefactKind:
    """A kind by its name.

    Raises:
        InputError: there is none of that name.
    """
    known = _kinds()
    if name not in known:
        raise InputError(f"{name[:60]!r} is no kind of artefact: {', '.join(known)}.")
    return known[name]
