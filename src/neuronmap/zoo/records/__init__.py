"""What artefacts of each kind say of themselves."""

from __future__ import annotations

from neuronmap.zoo.records.analysis_result import AnalysisResultRecord
from neuronmap.zoo.records.kinds import ArtefactKind, get_kind, list_kinds
from neuronmap.zoo.records.others import CircuitRecord, DatasetRecord, ExplanationsRecord
from neuronmap.zoo.records.parts import Author, CorpusRef, HookRef, ModelRef, Record, SearchFields
from neuronmap.zoo.records.sae_model import Compatibility, SAEModelRecord, Training

__all__ = [
    "AnalysisResultRecord",
    "ArtefactKind",
    "Author",
    "CircuitRecord",
    "Compatibility",
    "CorpusRef",
    "DatasetRecord",
    "ExplanationsRecord",
    "HookRef",
    "ModelRef",
    "Record",
    "SAEModelRecord",
    "SearchFields",
    "Training",
    "get_kind",
    "list_kinds",
]
