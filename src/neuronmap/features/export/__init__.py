"""Features of a store in other people's hands: JSON, tables, one HTML page, a Neuronpedia bundle. No torch."""

from __future__ import annotations

from neuronmap.features.export.choice import chosen_features, parse_features
from neuronmap.features.export.formats import FORMATS, export_features
from neuronmap.features.export.neuronpedia import NeuronpediaNames

__all__ = ["FORMATS", "NeuronpediaNames", "chosen_features", "export_features", "parse_features"]
