"""Features that have to do with a feature: by decoder direction, by firing together, by firing before or after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from neuronmap.features.export.records import finite
from neuronmap.web.views.names import FeatureName, feature_names

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureRecord

__all__ = ["Coactive", "Lagged", "Neighbour", "Relations", "relations"]


class Neighbour(FeatureName):
    """A feature with a similar decoder direction."""

    cosine: float | None = Field(description="Cosine of the two decoder directions.")


class Coactive(FeatureName):
    """A feature that fires on the same tokens."""

    count: int = Field(description="Sampled tokens on which both fire.")
    jaccard: float | None = Field(description="That over the tokens on which either fires.")
    pmi: float | None = Field(description="Pointwise mutual information, bits.")
    given: float | None = Field(description="P(the other fires | this one fires).")
    implies: float | None = Field(description="P(this one fires | the other fires).")


class Lagged(FeatureName):
    """A feature that fires on the token before or after."""

    count: int = Field(description="Pairs of neighbouring sampled tokens.")
    given: float | None = Field(description="P(the other fires there | this one fires here).")
    lift: float | None = Field(description="That over what independence would give.")


class Relations(BaseModel):
    """All of them."""

    neighbours: list[Neighbour] = Field(description="By decoder cosine, descending.")
    coactive: list[Coactive] = Field(description="By Jaccard index, descending.")
    leads: list[Lagged] = Field(description="Fire on the token after it, by lift.")
    follows: list[Lagged] = Field(description="Fire on the token before it, by lift.")


def relations(record: FeatureRecord) -> Relations:
    """The relations that the analysis has stored for a feature."""

    def named(name: str) -> list[dict[str, object]]:
        entries = [finite(entry) for entry in record.details[name] or []]
        names = feature_names(record.store, [entry["feature"] for entry in entries])
        return [{**known.model_dump(), **entry} for known, entry in zip(names, entries, strict=True)]

    return Relations(
        neighbours=[Neighbour.model_validate(one) for one in named("neighbours")],
        coactive=[Coactive.model_validate(one) for one in named("coactive")],
        leads=[Lagged.model_validate(one) for one in named("leads")],
        follows=[Lagged.model_validate(one) for one in named("follows")],
    )
