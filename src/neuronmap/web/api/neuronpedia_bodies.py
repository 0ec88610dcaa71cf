"""Bodies of the requests that Neuronpedia's routes take, with its names of fields."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "MOST_SOURCES",
    "ActivationNew",
    "ActivationSource",
    "ExplanationSearch",
    "ExplanationSearchAll",
    "ExplanationSearchModel",
    "ExplanationSearchRelease",
    "FeatureName",
    "SearchAll",
    "SearchTopk",
    "Steer",
    "SteeredFeature",
]

MOST_SOURCES = 8
"""That are searched for one request."""

Name = Annotated[str, Field(min_length=1, max_length=300)]
Text = Annotated[str, Field(min_length=1, max_length=20_000)]


class _Body(BaseModel):
    """Bodies may hold more than is read, as theirs may."""

    model_config = ConfigDict(extra="ignore")


class FeatureName(_Body):
    """A feature by model, source and number."""

    modelId: Name
    source: Name | None = None
    layer: Name | None = None
    index: Annotated[int, Field(ge=0, lt=2**31)]


class ActivationNew(_Body):
    """One feature on a text of one's own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "feature": {"modelId": "smollm2-135m", "source": "15-demo", "index": 7},
                    "customText": "The winter was long.",
                }
            ]
        }
    )

    feature: FeatureName | None = None
    neuron: FeatureName | None = None
    customText: Text
    ignoreBos: bool = False


class ActivationSource(_Body):
    """All features on texts of one's own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"modelId": "smollm2-135m", "source": "15-demo", "customText": "The winter was long."}]
        }
    )

    modelId: Name
    source: Name
    customText: Text | Annotated[list[Text], Field(min_length=1, max_length=4)]


class SearchAll(_Body):
    """The features that are strongest on a text."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"modelId": "smollm2-135m", "sourceSet": "demo", "text": "The winter was long.", "numResults": 10}
            ]
        }
    )

    modelId: Name
    sourceSet: Name
    text: Text
    selectedLayers: list[Name] = Field(default=[], max_length=MOST_SOURCES)
    sortIndexes: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(default=[], max_length=64)
    ignoreBos: bool = True
    densityThreshold: float = Field(default=-1, ge=-1, le=1)
    numResults: int = Field(default=50, ge=1, le=100)


class SearchTopk(_Body):
    """The features that are strongest on each token of a text."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"modelId": "smollm2-135m", "source": "15-demo", "text": "The winter was long."}]
        }
    )

    modelId: Name
    source: Name
    text: Text
    numResults: int = Field(default=10, ge=1, le=20)
    ignoreBos: bool = True
    densityThreshold: float = Field(default=0.01, ge=-1, le=1)


class ExplanationSearchAll(_Body):
    """Features of all SAEs by words of their labels."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"query": "winter"}]})

    query: str = Field(min_length=3, max_length=300)
    offset: int = Field(default=0, ge=0, le=1_000_000)


class ExplanationSearchModel(ExplanationSearchAll):
    """The same of one model."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"modelId": "smollm2-135m", "query": "winter"}]})

    modelId: Name


class ExplanationSearchRelease(ExplanationSearchAll):
    """The same of what has a tag."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"releaseName": "demo", "query": "winter"}]})

    releaseName: Name


class ExplanationSearch(ExplanationSearchModel):
    """The same of some sources of a model."""

    layers: list[Name] = Field(default=[], max_length=100)


class SteeredFeature(_Body):
    """A feature and how strongly its direction is added."""

    modelId: Name
    layer: Name
    index: Annotated[int, Field(ge=0, lt=2**31)]
    strength: float = Field(ge=-1e5, le=1e5)


class Steer(_Body):
    """A prompt to be continued, with and without features added."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prompt": "I think",
                    "modelId": "smollm2-135m",
                    "features": [{"modelId": "smollm2-135m", "layer": "15-demo", "index": 7, "strength": 10}],
                }
            ]
        }
    )

    prompt: Text
    modelId: Name
    features: list[SteeredFeature] = Field(min_length=1, max_length=16)
    temperature: float = Field(default=0.5, ge=0, le=5)
    n_tokens: int = Field(default=48, ge=1, le=200)
    freq_penalty: float = Field(default=0.0, ge=-2, le=2)
    seed: int = Field(default=16, ge=-100_000_000, le=100_000_000)
    strength_multiplier: float = Field(default=1.0, ge=0, le=100)
    steer_method: Literal["SIMPLE_ADDITIVE"] = "SIMPLE_ADDITIVE"
