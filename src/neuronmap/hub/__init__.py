"""This machine's library of SAEs. Listing and searching read stored data only; torch loads with the first SAE."""

from __future__ import annotations

from neuronmap.hub.analyses import AnalysisEntry, analysis_folder, delete_analysis, list_analyses, open_analysis
from neuronmap.hub.entry import LibraryEntry
from neuronmap.hub.library import SAEModelHub
from neuronmap.saes.fit import Difference, differences

__all__ = [
    "AnalysisEntry",
    "Difference",
    "LibraryEntry",
    "SAEModelHub",
    "analysis_folder",
    "delete_analysis",
    "differences",
    "list_analyses",
    "open_analysis",
]
