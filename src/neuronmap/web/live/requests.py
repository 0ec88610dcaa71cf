"""What may be asked of models over the web: typed, and every size limited."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from neuronmap.config import FrozenConfig
from neuronmap.errors import ConfigError

__all__ = [
    "MOST_CHARACTERS",
    "MOST_GENERATED",
    "MOST_TOKENS",
    "ActivationRequest",
    "AnyRequest",
    "Change",
    "EffectsRequest",
    "EmbedRequest",
    "LabelMeaningRequest",
    "LiveRequest",
    "MeaningRequest",
    "PlanRequest",
    "SteerRequest",
    "TextRequest",
    "WarmRequest",
]

MOST_CHARACTERS = 20_000
"""Of a text."""
MOST_TOKENS = 1_024
"""Of a text that go through the model; what comes after them is left out, and a note says so."""
MOST_GENERATED = 200
"""Tokens of a continuation."""

Text = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
FeatureNumber = Annotated[int, Field(ge=0, lt=2**31)]


class AnyRequest(FrozenConfig):
    """Base of the requests."""

    operation: ClassVar[str] = ""


class PlanRequest(AnyRequest):
    """What a training would do: steps, memory, time. Its language model is loaded for the width of its activations."""

    operation: ClassVar[str] = "plan"

    settings: dict[str, Any] = Field(max_length=100)
    """Settings of ``SAEConfig`` by name."""


class EmbedRequest(AnyRequest):
    """What a text means, as a vector of the sentence encoder."""

    operation: ClassVar[str] = "embed"

    text: str = Field(min_length=1, max_length=1_000)
    """The text; its first 256 tokens are read."""
    encoder: Digest
    """Digest of the encoder that is meant."""


class MeaningRequest(AnyRequest):
    """Make the vectors of an analysis's features, or go on with it."""

    operation: ClassVar[str] = "meaning"

    sae: str = Field(min_length=1, max_length=600)
    """Id of the SAE in the library."""
    analysis: str = Field(min_length=1, max_length=100)
    """Name of its analysis."""
    index: Digest
    """Name of the index that is meant: of the analysis and the encoder as they are."""
    encoder: Digest
    """Digest of the encoder that is meant."""
    seconds: float = Field(default=10.0, ge=0.0, le=60.0, allow_inf_nan=False)
    """How long to work before another request gets its turn; one block at least is made."""


class LabelMeaningRequest(AnyRequest):
    """Make the vectors of some labels of an SAE."""

    operation: ClassVar[str] = "label_meaning"

    sae: Digest
    """Digest of the weights of the SAE."""
    texts: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(max_length=200_000)
    """All labels that were ever given, in the order in which the book heard of them."""
    encoder: Digest
    """Digest of the encoder that is meant."""
    seconds: float = Field(default=10.0, ge=0.0, le=60.0, allow_inf_nan=False)
    """How long to work before another request gets its turn; one block at least is made."""


class LiveRequest(AnyRequest):
    """What every request about an SAE says."""

    sae: str = Field(min_length=1, max_length=300)
    """Id of the SAE in the library."""
    analysis: str | None = Field(default=None, min_length=1, max_length=100)
    """Name of the analysis that labels and maxima are from; the newest when left out, none where there is none."""


class TextRequest(LiveRequest):
    """Run a text and see which features fire, token by token."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"sae": "demo", "text": "The winter was long.", "features": [7]}]}
    )
    operation: ClassVar[str] = "text"

    text: Text
    """The text, at most 20,000 characters; the first `max_tokens` tokens are read."""
    features: tuple[FeatureNumber, ...] = Field(default=(), max_length=128)
    """Features whose activation on every token is wanted."""
    top: int = Field(default=10, ge=0, le=256)
    """Features listed for each token; 0 lists none."""
    ranking: int = Field(default=50, ge=0, le=500)
    """Features listed for the text as a whole."""
    order: Literal["activation", "relative", "share"] | None = None
    """By activation; relative to the feature's largest in the analysis; or as a share of the token's distance from the SAE's bias.
    Relative when left out and there is an analysis, share otherwise. Of one token, share and activation give the same order."""
    max_density: float | None = Field(default=None, gt=0.0, le=1.0)
    """Leave out of the lists features that fire on a larger share of the analysed tokens; needs an analysis."""
    max_tokens: int = Field(default=MOST_TOKENS, ge=1, le=MOST_TOKENS)
    """Most tokens of the text."""


class Change(FrozenConfig):
    """One change to one feature while the model runs."""

    feature: FeatureNumber
    """The feature's number."""
    kind: Literal["add", "clamp", "scale", "remove"] = "add"
    """Add to its activation, set it, multiply it, or take the feature out."""
    value: float = Field(default=0.0, ge=-1e6, le=1e6)
    """How much; not used by `remove`."""
    unit: Literal["activation", "max"] = "activation"
    """What the value of `add` and `clamp` counts in: activation, or the feature's largest activation in the analysis."""


class SteerRequest(LiveRequest):
    """Change features while the model writes on from a prompt, or while it reads a text."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"sae": "demo", "prompt": "I think", "changes": [{"feature": 7, "value": 1.5, "unit": "max"}]}]
        }
    )
    operation: ClassVar[str] = "steer"

    changes: tuple[Change, ...] = Field(min_length=1, max_length=16)
    """What is changed."""
    prompt: Text | None = None
    """Continue this, clean and steered."""
    text: Text | None = None
    """Score this instead: loss and KL at every token."""
    max_tokens: int = Field(default=40, ge=1, le=MOST_GENERATED)
    """Most tokens to generate."""
    temperature: float = Field(default=0.0, ge=0.0, le=5.0)
    """0 takes the likeliest token."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the sampling and of the controls."""
    controls: int = Field(default=1, ge=0, le=4)
    """Runs with random directions of the same length beside; each costs as much as the steered one."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.prompt is None) == (self.text is None):
            raise ConfigError("Give either a prompt, to be continued, or a text, to be scored.")
        return self


class EffectsRequest(LiveRequest):
    """Take a feature out of the model where it fires and see what changes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"sae": "demo", "feature": 7}]})
    operation: ClassVar[str] = "effects"

    feature: FeatureNumber
    """The feature's number."""
    text: Text | None = None
    """Where it is taken out; the contexts of its own top examples when left out."""
    max_examples: int = Field(default=8, ge=1, le=16)
    """Contexts of its examples, at most."""
    top: int = Field(default=10, ge=1, le=30)
    """Tokens listed that it makes likelier, and as many that it makes less likely."""


class WarmRequest(LiveRequest):
    """Load an SAE, its language model and its analysis ahead of their first use."""

    operation: ClassVar[str] = "warm"


class ActivationRequest(LiveRequest):
    """One feature on a text of one's own."""

    operation: ClassVar[str] = "activation"

    feature: FeatureNumber
    """The feature's number."""
    text: Text
    """The text, at most 20,000 characters."""
    max_tokens: int = Field(default=MOST_TOKENS, ge=1, le=MOST_TOKENS)
    """Most tokens of the text."""
