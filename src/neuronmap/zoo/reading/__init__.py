"""Reading files of published versions where they are, without pulling the version."""

from __future__ import annotations

from neuronmap.zoo.reading.features import PublishedStore, holds_features
from neuronmap.zoo.reading.placing import ReadingFolder

__all__ = ["PublishedStore", "ReadingFolder", "holds_features"]
