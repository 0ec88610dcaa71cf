"""``POST /api/sae/max_activating_examples``: where features fire, found by number or by what their labels say."""

from __future__ import annotations

from typing import Annotated, Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuronmap.features.live.finder import MaxActivatingExamplesFinder
from neuronmap.features.live.found import FoundFeature
from neuronmap.web.api.features import checked_number
from neuronmap.web.errors import responses
from neuronmap.web.routing import ExplorerOf
from neuronmap.web.views.basis import Basis
from neuronmap.web.views.examples_of import Kind, ShownExample, shown
from neuronmap.web.views.names import FeatureName, feature_names

__all__ = ["router"]

router = APIRouter(prefix="/api/sae", tags=["features"])

_MOST_EXAMPLES = 2000
"""Of all features together."""


class ExamplesRequest(BaseModel):
    """Which features, and what of them."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"sae": "demo", "features": [7, 42], "max_examples": 3}, {"sae": "demo", "query": "berlin"}]},
    )  # fmt: skip

    sae: str = Field(min_length=1, max_length=300, description="Id of the SAE.")
    analysis: str | None = Field(
        default=None, max_length=100, description="Name of the analysis; the newest when left out."
    )
    features: list[Annotated[int, Field(ge=0, lt=2**31)]] | None = Field(
        default=None, min_length=1, max_length=200, description="Numbers of features."
    )
    query: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Instead of numbers: words that label or top tokens hold.",
    )
    top: int = Field(default=10, ge=1, le=200, description="Features found by the query, at most.")
    kind: Kind = Field(
        default="top", description="top, quantile, bin, random (silent) or hard (its token, yet silent)."
    )
    quantile: int | None = Field(
        default=None, ge=0, le=127, description="Only this group of equally many firings; 0 the weakest."
    )
    min_activation: float = Field(default=0.0, ge=0.0, le=1e9, description="Leave out weaker examples.")
    max_examples: int = Field(default=10, ge=1, le=100, description="Of each feature, the strongest first.")
    context: int | None = Field(
        default=None, ge=0, le=512, description="Tokens before and after the peak; the stored window when left out."
    )
    contrast: bool = Field(default=False, description="Beside them examples without firing.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.features is None) == (self.query is None):
            raise ValueError("give either features or query")
        if self.max_examples * (len(self.features) if self.features else self.top) > _MOST_EXAMPLES:
            raise ValueError(f"features times max_examples is more than {_MOST_EXAMPLES}")
        return self


class FeatureExamples(FeatureName):
    """A feature with where it fires."""

    examples: list[ShownExample]
    negatives: list[ShownExample] = Field(
        description="Where it does not fire: its own top tokens first, then random places."
    )


class ExamplesAnswer(BaseModel):
    """What was found."""

    basis: Basis
    features: list[FeatureExamples]
    notes: list[str] = Field(description="What a reader should know: features without examples, what is not stored.")


@router.post("/max_activating_examples", summary="Where features fire most", responses=responses(404, 409, 422))
def max_activating_examples(explorer: ExplorerOf, asked: ExamplesRequest) -> ExamplesAnswer:
    """Stored examples of features by number, or of those whose labels hold some words."""
    analysed = explorer.analysed(asked.sae, asked.analysis)
    finder = MaxActivatingExamplesFinder(analysed.store)
    if asked.query is not None:
        numbers = analysed.store.queries.search_labels(asked.query, asked.top).features
    else:
        numbers = [checked_number(analysed, number).feature for number in dict.fromkeys(asked.features or [])]
    notes = (
        [] if numbers else [f"No label or top token of {analysed.store.num_features:,} features holds {asked.query!r}."]
    )
    shown_features: list[FeatureExamples] = []
    if numbers:
        found = finder.find(
            numbers,
            kind=asked.kind,
            min_activation=asked.min_activation,
            quantile=asked.quantile,
            context=asked.context,
            max_examples=asked.max_examples,
            contrast=asked.contrast,
        )
        names = feature_names(analysed.store, numbers)
        shown_features = [_shown(name, one) for name, one in zip(names, found.features, strict=True)]
        notes += found.notes
    return ExamplesAnswer(basis=Basis.of(analysed), features=shown_features, notes=notes)


def _shown(name: FeatureName, found: FoundFeature) -> FeatureExamples:
    return FeatureExamples(
        **name.model_dump(),
        examples=[shown(one, "window") for one in found.examples],
        negatives=[shown(one, "window") for one in found.negatives],
    )
