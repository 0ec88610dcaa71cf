"""The JSON document of ``neuronmap plan``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from neuronmap.cli.document import Document

__all__ = ["PlanDocument"]


class PlanDocument(Document):
    """``neuronmap plan``. Seconds and bytes; what each number means is in the docstrings of ``neuronmap.planning``."""

    schema_name: Literal["neuronmap/plan/1"] = Field(alias="schema")
    request: dict[str, Any]
    """What was asked, every default filled in (``PlanRequest``)."""
    model: dict[str, Any]
    """Sizes of the language model (``ModelShape``)."""
    device: dict[str, Any]
    """The device (``Device``)."""
    harvest: dict[str, Any]
    """Running the model (``HarvestCost``)."""
    training: dict[str, Any]
    """Training the SAE (``TrainingCost``)."""
    storage: dict[str, Any]
    """Bytes on disk (``StorageCost``)."""
    analysis: dict[str, Any]
    """The feature pass (``AnalysisCost``)."""
    fits: bool
    """Whether all of it fits on the devices."""
    gpu_hours: float
    """Devices times hours."""
    hours: float
    """From start to end."""
    money: float | None
    """gpu_hours times the price; null without a price."""
    notes: list[str]
    """What the numbers do not say."""
    coefficients: dict[str, Any]
    """What the plan rests on: value, unit, kind (measured, derived, documented, assumed) and source of each."""
