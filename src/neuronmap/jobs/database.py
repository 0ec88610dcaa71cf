"""The database of jobs."""

from __future__ import annotations

from pathlib import Path

from neuronmap.database import Holding

__all__ = ["JOBS"]

JOBS = Holding(
    name="jobs",
    variable="NEURONMAP_DATABASE",
    file="jobs.sqlite3",
    migrations=Path(__file__).with_name("migrations"),
    head="0001",
    version_table="alembic_version",
    lock=0x6E6575726F6E,
    elsewhere="Finished work is not in it: SAEs are in the library, runs in runs/.",
)
