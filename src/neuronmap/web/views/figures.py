"""The evaluation of an SAE: each figure with its error and what it is. Read from ``metrics.json``; no torch."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, ValidationError

from neuronmap.errors import DamagedError
from neuronmap.evaluation.metrics import Behaviour, CoreMetrics, Estimate, Reconstruction, Sparsity, Spread
from neuronmap.paths import read_json
from neuronmap.saes.metadata import METRICS_FILE, BundleInfo, summary_numbers

__all__ = ["Evaluation", "MetricLine", "SpreadLine", "about_core", "evaluation_of", "in_words"]

_FURTHER = {
    "fvu": "Fraction of variance unexplained: 1 - explained variance.",
    "rows": "Scored tokens.",
    "cosine_rows": "Tokens in the mean cosine: neither activation nor reconstruction is zero.",
    "norm_ratio_rows": "Tokens in the mean norm ratio: the activation is not zero.",
    "zero_reconstructions": "Tokens whose reconstruction is zero.",
    "zero_inputs": "Tokens whose activation is zero.",
    "dead_in_training": "Features that did not fire for a stated number of tokens when training ended.",
}
_ABOUT = {
    name: " ".join((field.description or "").split())
    for section in (Reconstruction, Sparsity, Behaviour)
    for name, field in section.model_fields.items()
} | _FURTHER


_SPELT = {
    "l0": "L0",
    "l1": "L1",
    "ce": "CE",
    "kl": "KL",
    "mse": "MSE",
    "fvu": "FVU",
    "auc": "AUC",
    "f1": "F1",
    "sae": "SAE",
    "07": "0.7",
    "09": "0.9",
    "n": "N",
}


def in_words(name: str) -> str:
    """The name of a figure in words: ``kl_score_mean`` is KL score mean."""
    return " ".join(_SPELT.get(word, word) for word in name.split("_"))


def about_core(name: str) -> str:
    """What a figure of the core metrics is; empty for one that is none."""
    return _ABOUT.get(name, "")


class MetricLine(BaseModel):
    """One figure."""

    name: str
    value: float | None
    error: float | None = Field(default=None, description="Standard error, from resampling whole contexts.")
    low: float | None = Field(default=None, description="Lower end of the 95 % interval, likewise.")
    high: float | None = Field(default=None, description="Upper end of it.")
    about: str = Field(description="What it is.")

    @property
    def title(self) -> str:
        """The name in words."""
        return in_words(self.name)


class SpreadLine(BaseModel):
    """A quantity of the weights over the features."""

    name: str
    low: float = Field(description="5th percentile.")
    median: float
    mean: float
    high: float = Field(description="95th percentile.")
    about: str


_CHIEF = ("explained_variance", "l0", "fraction_alive", "ce_score_mean", "kl_score_mean", "norm_ratio", "cosine")


class Evaluation(BaseModel):
    """What the evaluation stored."""

    lines: list[MetricLine] = Field(description="The figures, the most important first.")
    further: list[MetricLine] = Field(description="Counts and other figures that were stored beside them.")
    weights: list[SpreadLine] = Field(description="Facts of the weights, which need no text.")
    measured_on: str = Field(description="On what the figures rest; empty if it is not known.")
    warning: str = Field(description="What a reader must know; empty if there is nothing.")

    @property
    def chief(self) -> list[MetricLine]:
        """The figures that say most."""
        return [line for line in self.lines if line.name in _CHIEF] or self.lines


def evaluation_of(info: BundleInfo) -> Evaluation | None:
    """The stored evaluation; None if there is none.

    Raises:
        DamagedError: ``metrics.json`` cannot be read.
    """
    file = info.folder / METRICS_FILE
    if not file.is_file():
        return None
    content: Any = read_json(file)
    if not isinstance(content, dict):
        raise DamagedError(f"{METRICS_FILE} holds a {type(content).__name__}, not a JSON object.")
    core = _core(content)
    lines = _lines(core) if core else []
    known = {line.name for line in lines}
    rest = [
        MetricLine(name=name, value=value, about=_ABOUT.get(name, ""))
        for name, value in summary_numbers(content).items()
        if name not in known
    ]
    return Evaluation(
        lines=lines or rest,
        further=rest if lines else [],
        weights=_weights(core) if core else [],
        measured_on=_measured_on(core) if core else "",
        warning="The text was too short to keep any apart: these figures are of text that it was trained on."
        if content.get("heldout_is_training") is True
        else "",
    )


def _lines(core: CoreMetrics) -> list[MetricLine]:
    stored = {
        name: value for part in (core.reconstruction, core.sparsity, core.behaviour) for name, value in part or ()
    }
    lines = []
    for row in core.rows():
        ends = stored[row.name]
        low, high = (ends.low, ends.high) if isinstance(ends, Estimate) else (None, None)
        lines.append(
            MetricLine(name=row.name, value=row.value, error=row.error, low=low, high=high, about=row.explanation)
        )
    return lines


def _core(content: dict[str, Any]) -> CoreMetrics | None:
    """Our record; None where another program wrote the file."""
    try:
        return CoreMetrics.model_validate(content.get("core", content))
    except ValidationError:
        return None


def _measured_on(core: CoreMetrics) -> str:
    protocol = core.protocol
    said = (
        f"{protocol.tokens:,} held-out tokens in {protocol.contexts:,} contexts"
        if protocol.contexts
        else f"{protocol.tokens:,} tokens"
    )
    if protocol.behaviour_tokens:
        said += f"; loss and KL on {protocol.behaviour_tokens:,} of them"
    dropped = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in protocol.dropped.items() if count)
    return said + (f"; not scored: {dropped}" if dropped else "")


def _weights(core: CoreMetrics) -> list[SpreadLine]:
    found = []
    for name, field in type(core.weights).model_fields.items():
        value = getattr(core.weights, name)
        if isinstance(value, Spread):
            about = " ".join((field.description or "").split())
            found.append(
                SpreadLine(name=name, low=value.low, median=value.median, mean=value.mean, high=value.high, about=about)
            )
    return found
