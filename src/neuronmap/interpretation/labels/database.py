"""The database of labels."""

from __future__ import annotations

from pathlib import Path

from neuronmap.database import Holding

__all__ = ["LABELS"]

LABELS = Holding(
    name="labels",
    variable="NEURONMAP_LABELS_DATABASE",
    file="labels.sqlite3",
    migrations=Path(__file__).with_name("migrations"),
    head="0001",
    version_table="labels_version",
    lock=0x6C6162656C00,
    elsewhere="Labels that were exported or published can be imported again.",
)
