"""A table or cards with a condition that cannot be read."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from neuronmap.errors import InputError
from neuronmap.web.rendering import render
from neuronmap.web.views.cards import CardsPage
from neuronmap.web.views.feature_table import FeatureTable

__all__ = ["or_faults"]


def or_faults(request: Request, template: str, page: FeatureTable | CardsPage) -> Any:
    """The page; where a condition cannot be read, the same with status 422, or the fault as JSON."""
    if not page.form.faults:
        return page
    if request.scope["path"].endswith(".json"):
        fault = page.form.faults[0]
        raise InputError(f"{fault.condition}: {fault.message}", hint=fault.hint)
    return render(request, template, {"page": page}, status=422)
