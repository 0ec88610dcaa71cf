"""What models say to what was asked: plain numbers and texts, ready for a page and for JSON.

Numbers are rounded to 6 significant digits. What is undefined is null. Features, tokens and positions are counted from 0.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

__all__ = [
    "ActivationAnswer",
    "Answer",
    "Continuation",
    "EffectsAnswer",
    "EmbedAnswer",
    "MeaningAnswer",
    "PlanAnswer",
    "PredictedToken",
    "RankedFeature",
    "RestsOn",
    "ScoreSummary",
    "ScoredToken",
    "ShownPiece",
    "SteerAnswer",
    "TextAnswer",
    "TokenFeature",
    "Trace",
    "WarmAnswer",
]


class Answer(BaseModel):
    """Base of the answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class RestsOn(Answer):
    """What the numbers of an answer rest on."""

    sae: str
    """Id of the SAE."""
    weights_digest: str | None
    """SHA-256 of its weights."""
    features: int
    """Features it has."""
    model: str
    """The language model that ran; of a folder, its last part."""
    model_digest: str
    """SHA-256 of the model's weights."""
    hook: str
    """Where the SAE reads."""
    analysis: str | None
    """The analysis that labels and maxima are from."""
    analysis_key: str | None
    """Digest of all that decides its content."""


class ShownPiece(Answer):
    """Tokens `start` to `stop` (exclusive), shown as one: the smallest run that ends where a character ends."""

    text: str
    """Their text, as it is."""
    shown: str
    """The same with whitespace made visible."""
    start: int
    """First token."""
    stop: int
    """One past the last."""
    special: bool
    """Whether it is a special token."""
    masked: str
    """Why the SAE says nothing there: first, special or outlier; empty where it does."""


class TokenFeature(NamedTuple):
    """A feature on a token: its number, its activation, and that over its largest in the analysis (null if not known)."""

    feature: int
    activation: float
    relative: float | None


class RankedFeature(Answer):
    """A feature over the whole text."""

    feature: int
    """Its number."""
    label: str
    """Its label; empty if it has none."""
    max: float
    """Its largest activation in the text."""
    token: int
    """The token with that."""
    tokens: int
    """Tokens on which it fires."""
    mean: float
    """Its mean activation on those."""
    relative: float | None
    """`max` over its largest activation in the analysis."""
    density: float | None
    """Share of the analysed tokens on which it fires."""


class Trace(Answer):
    """One feature on every token."""

    feature: int
    """Its number."""
    label: str
    """Its label; empty if it has none."""
    activations: list[float | None]
    """Activation on each token; null where the token is masked."""
    largest: float
    """What full colour stands for: its largest activation in the analysis, or here."""
    known_maximum: float | None
    """Its largest activation in the analysis."""


class TextAnswer(Answer):
    """Which features fire on a text."""

    rests_on: RestsOn
    """SAE, model and analysis."""
    pieces: list[ShownPiece]
    """The text as it is shown."""
    token_ids: list[int]
    """Its tokens."""
    masked: list[str]
    """For each token why the SAE says nothing there; empty where it does."""
    explained: list[float | None]
    """For each token the share of its energy that the SAE explains; null where masked."""
    active: list[int]
    """For each token how many features fire."""
    top: list[list[TokenFeature]]
    """For each token its strongest features: number, activation, activation over the feature's largest."""
    labels: dict[int, str]
    """Labels of the features in `top`; those without one are left out."""
    ranking: list[RankedFeature]
    """The strongest features of the whole text."""
    traces: list[Trace]
    """The features that were asked for."""
    order: Literal["activation", "relative", "share"]
    """How the features are ordered."""
    explained_share: float | None
    """Share of the energy that the SAE explains over all tokens."""
    l0: float | None
    """Features that fire on a token, on average."""
    notes: list[str]
    """What a reader should know."""


class Continuation(Answer):
    """A prompt continued."""

    name: str
    """`clean`, `steered`, `control 1`, ..."""
    text: str
    """The continuation."""
    pieces: list[ShownPiece]
    """The same as it is shown."""
    token_ids: list[int]
    """Its tokens."""
    probabilities: list[float]
    """Of each token, its probability for the unsteered model: how strange that finds the text."""
    clean_loss: float | None
    """Mean loss for the unsteered model, nats a token."""
    same_as_clean: int
    """Tokens at its start that are those of the clean run."""
    stopped: bool
    """Whether the model ended it itself."""


class ScoredToken(Answer):
    """How the changes move the prediction of one token of the text."""

    position: int
    """Its place in the text."""
    text: str
    """Its text, whitespace made visible."""
    clean_loss: float
    """Loss without the changes, nats."""
    steered_loss: float
    """Loss with them, nats."""
    kl: float
    """KL(clean || steered) of the prediction, nats."""
    control_loss: float | None
    """Loss with random directions, mean over the controls."""
    control_kl: float | None
    """KL with random directions, mean over the controls."""


class ScoreSummary(Answer):
    """Means over the scored tokens, nats a token."""

    name: str
    """`clean`, `steered`, `control 1`, ..."""
    loss: float
    """Mean loss."""
    change: float
    """That minus the clean loss."""
    kl: float
    """Mean KL(clean || this)."""


class SteerAnswer(Answer):
    """The model with and without the changes."""

    rests_on: RestsOn
    """SAE, model and analysis."""
    changes: list[str]
    """What was changed, in words."""
    runs: list[Continuation]
    """Of a prompt: clean, steered, controls."""
    pieces: list[ShownPiece]
    """Of a text: the text as it is shown."""
    tokens: list[ScoredToken]
    """Of a text: its scored tokens."""
    summary: list[ScoreSummary]
    """Of a text: means of each run."""
    notes: list[str]
    """What a reader should know."""


class PredictedToken(Answer):
    """What a feature adds to the prediction of a token, on average over its firings."""

    token: str
    """The token, as it is shown."""
    probability: float
    """Probability with the feature minus probability without."""
    log_probability: float
    """The same of the logarithms, nats."""


class EffectsAnswer(Answer):
    """What changes when a feature is taken out."""

    rests_on: RestsOn
    """SAE, model and analysis."""
    feature: int
    """Its number."""
    label: str
    """Its label; empty if it has none."""
    contexts: int
    """Contexts that were run."""
    positions: int
    """Scored positions in them."""
    firings: int
    """Where the feature was taken out."""
    largest: float
    """Its largest activation there."""
    loss_change: float
    """Loss without it minus loss with it, summed over all scored positions, nats. Above 0: it helps."""
    per_firing: float
    """The same over its firings."""
    by_context: list[float]
    """The same by context."""
    loss_at_firings: float | None
    """Mean change of the loss of the very next token where it fires, nats."""
    kl: float | None
    """Mean KL(with || without) over all scored positions, nats."""
    kl_at_firings: float | None
    """The same where it fires."""
    promoted: list[PredictedToken]
    """Tokens it makes likelier."""
    suppressed: list[PredictedToken]
    """Tokens it makes less likely."""
    notes: list[str]
    """What a reader should know."""


class WarmAnswer(Answer):
    """What is loaded now."""

    rests_on: RestsOn
    """SAE, model and analysis."""
    seconds: float
    """How long it took."""
    loaded_saes: int
    """SAEs that are in memory."""
    loaded_models: int
    """Language models that are in memory."""
    weight_bytes: int
    """Size of their weights."""


class ActivationAnswer(Answer):
    """One feature on a text."""

    rests_on: RestsOn
    """SAE, model and analysis."""
    tokens: list[str]
    """Text of each token; U+FFFD for part of a character."""
    values: list[float]
    """Activation on each token; 0 where the token is masked."""
    masked: list[str]
    """For each token why the SAE says nothing there; empty where it does."""
    max_value: float
    """The largest of them."""
    max_value_index: int
    """The token with that."""


class PlanAnswer(Answer):
    """What a training would do."""

    architecture: str
    """The architecture, after the rule for ``auto``."""
    d_in: int
    """Width of the activation."""
    d_sae: int
    """Features."""
    rows: int | None
    """Tokens of text; null where that is known only when it has been read."""
    steps: int | None
    """Optimiser steps; null likewise."""
    batch_rows: int
    """Tokens of a step."""
    peak_rate: float | None
    """Learning rate after warm-up; null likewise."""
    seconds: float | None
    """Training time on this machine, without reading the text and running the model over it; null likewise."""
    total_bytes: int
    """Memory that training takes: weights, gradient, Adam, a step, shuffling."""
    free_bytes: int
    """Memory that is free now."""
    store_bytes: int | None
    """Stored activations on disk; null where nothing is stored or the number of tokens is not known."""
    notes: list[str]
    """What a reader should know."""


class EmbedAnswer(Answer):
    """A text as a vector."""

    vector: list[float]
    """Of length one; zero for a text of spaces."""


class MeaningAnswer(Answer):
    """How far the vectors of an analysis's features are."""

    done: int
    """Features that are done."""
    total: int
    """Features in all."""
