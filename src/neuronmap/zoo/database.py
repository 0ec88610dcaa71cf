"""The database of the zoo."""

from __future__ import annotations

from pathlib import Path

from neuronmap.database import Holding

__all__ = ["ZOO"]

ZOO = Holding(
    name="the zoo",
    variable="NEURONMAP_ZOO_DATABASE",
    file="zoo/zoo.sqlite3",
    migrations=Path(__file__).with_name("migrations"),
    head="0001",
    version_table="zoo_version",
    lock=0x7A6F6F000000,
    elsewhere="The bytes of the artefacts are not in it: they lie in the blob store, each under its digest.",
)
