"""This machine's library of SAEs. Listing and searching read stored data only; torch loads with the first SAE."""

from __future__ import annotations

from neuronmap.hub.entry import LibraryEntry
from neuronmap.saes.fit import Difference, differences
from neuronmap.hub.library import SAEModelHub

__all__ = ["Difference", "LibraryEntry", "SAEModelHub", "differences"]
