"""What ``neuronmap sae sweep --json`` prints."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from neuronmap.cli.document import Document as _Document
from neuronmap.training.sweeping.summary import SweepRow

__all__ = ["PlannedMember", "SweepDocument", "SweepPlanRecord"]


class PlannedMember(_Document):
    """One SAE that a sweep would train."""

    name: str
    """What it would be called."""
    config: dict[str, Any]
    """Its settings: ``sae train`` with them gives the same weights."""
    parameters: int
    """Weights and biases."""
    steps: int
    """Of its plan."""


class SweepPlanRecord(_Document):
    """What a sweep would take."""

    hooks: int
    """Hook points, harvested in one pass of the model."""
    parameters: int
    """Of all SAEs together."""
    memory_bytes: int
    """Of the training; the language model comes on top."""
    checkpoint_bytes: int
    """On disk while it runs."""
    seconds: float
    """Of all training steps on this machine, without the pass of the language model."""
    members: list[PlannedMember]
    """In the order of the sweep."""


class SweepDocument(_Document):
    """``neuronmap sae sweep``."""

    schema_name: Literal["neuronmap/sae.sweep/1"] = Field(alias="schema")
    sweep: str | None
    """Folder of the sweep; null with ``--dry-run``."""
    plot: str | None
    """SVG of explained variance over L0; null where no SAE was finished."""
    members: list[SweepRow]
    """What became of each SAE; empty with ``--dry-run``."""
    plan: SweepPlanRecord | None
    """With ``--dry-run``: what it would take."""
