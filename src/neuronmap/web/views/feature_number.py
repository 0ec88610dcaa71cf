"""The number of a feature as somebody typed it, and the page for a number that no feature has."""

from __future__ import annotations

import re
from typing import Any

from fastapi import Request
from pydantic import BaseModel

from neuronmap.errors import WebError
from neuronmap.web.opened import OpenAnalysis
from neuronmap.web.rendering import render
from neuronmap.web.views.basis import Basis
from neuronmap.web.views.names import FeatureName, feature_names

__all__ = ["MissingFeature", "missing_feature", "number_of"]


class MissingFeature(BaseModel):
    """A number that no feature has."""

    basis: Basis
    asked: str
    last: int
    near: FeatureName | None
    first: FeatureName | None


def number_of(analysed: OpenAnalysis, text: str) -> int | None:
    """The feature of a number as it was typed; None if there is none."""
    found = re.fullmatch(r"0*([0-9]{1,10})", text)
    number = int(found[1]) if found else -1
    return number if 0 <= number < analysed.store.num_features else None


def missing_feature(request: Request, analysed: OpenAnalysis, asked: str) -> Any:
    """The page that says which features there are; as an error for those who want data."""
    store = analysed.store
    digits = re.fullmatch(r"-?[0-9]{1,10}", asked)
    near = store.nearest_alive(int(asked)) if digits else store.nearest_alive(0)
    last = store.num_features - 1
    if request.scope["path"].endswith((".json", ".csv")):
        hint = "" if near is None else f"The nearest one that is alive is {near}."
        raise WebError(404, "not_found", f"There is no feature {asked[:40]!r}: features are 0 to {last}.", hint=hint)
    name = feature_names(store, [near])[0] if near is not None else None
    first = store.nearest_alive(-1, 1)
    page = MissingFeature(
        basis=Basis.of(analysed),
        asked=asked[:40],
        last=last,
        near=name,
        first=feature_names(store, [first])[0] if first not in (None, near) else None,
    )
    return render(request, "feature_missing.html", {"page": page}, status=404)
