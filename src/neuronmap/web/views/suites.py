"""What the evaluation suites found of an SAE: each figure with those of the baselines beside it, what it rests on, and what is missing.

Read from the records beside the bundle; nothing is measured. The records are imported only where there are some: the page of an SAE is
one of the first that a server answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from pydantic import BaseModel, Field

from neuronmap.evaluation.metrics import Estimate
from neuronmap.hashing import short
from neuronmap.saes.metadata import EVALUATIONS_FOLDER
from neuronmap.web.views.figures import about_core, in_words

if TYPE_CHECKING:
    from neuronmap.evaluation.suites.record import SuiteRecord, SuiteRow
    from neuronmap.hub import LibraryEntry
    from neuronmap.hub.comparable import Measured

__all__ = ["MeasuredOn", "SuiteFigure", "SuiteShown", "SuiteValue", "Suites", "suites_of"]

_COLUMNS = ("sae", "identity", "pca", "random", "matched", "neurons", "dense", "chance")
"""In this order; any other comes after them."""
_CHIEF = 8
"""Figures of a suite that are shown before the others; its own order has the most important first."""


class SuiteValue(BaseModel):
    """One figure of the SAE or of a baseline."""

    value: float | None = Field(description="Null where it could not be established.")
    error: float | None = Field(default=None, description="Standard error; null where none is stored.")
    low: float | None = Field(default=None, description="Lower end of the 95 % interval; likewise.")
    high: float | None = Field(default=None, description="Upper end of it.")
    reason: str = Field(default="", description="Why value or interval is null.")


class SuiteFigure(BaseModel):
    """One figure, of the SAE and of the baselines."""

    name: str
    title: str = Field(description="The name in words.")
    about: str = Field(description="What it is.")
    difference: bool = Field(description="Whether the values are the SAE's figure minus that of each column.")
    values: dict[str, SuiteValue] = Field(description="By column; a column that does not apply is left out.")


class MeasuredOn(BaseModel):
    """A fact on which the figures rest."""

    name: str
    value: str


class SuiteShown(BaseModel):
    """The newest evaluation of an SAE by one suite."""

    suite: str
    about: str = Field(description="What it asks.")
    created: str = Field(description="When it was measured; ISO 8601, UTC.")
    file: str = Field(description="Where it is stored, within the bundle.")
    columns: list[str] = Field(description="The SAE, then what it is held against.")
    baselines: dict[str, str] = Field(description="What each baseline is.")
    figures: list[SuiteFigure] = Field(description="The most important first.")
    measured_on: list[MeasuredOn] = Field(description="What must be equal in another evaluation to be comparable.")
    unestablished: list[str] = Field(description="Why figures of the SAE are null.")
    notes: list[str] = Field(description="What else a reader may want to know.")
    leaderboard: str = Field(description="Address of the table of SAEs that were measured alike.")
    others: int = Field(description="Evaluations by this suite that are not shown: older, or measured otherwise.")

    @property
    def chief(self) -> list[SuiteFigure]:
        """The figures that say most."""
        return self.figures[:_CHIEF]

    @property
    def further(self) -> list[SuiteFigure]:
        """The others."""
        return self.figures[_CHIEF:]


class Suites(BaseModel):
    """All suites of an SAE."""

    shown: list[SuiteShown]
    missing: list[str] = Field(description="Suites that never measured it.")


def suites_of(entry: LibraryEntry) -> tuple[Suites | None, list[str]]:
    """The newest stored evaluation of each suite.

    Args:
        entry: a sound entry of the library.

    Returns:
        They, or None where no suite has measured it; and what could not be read, in sentences.
    """
    if not any((entry.path / EVALUATIONS_FOLDER).glob("*.json")):
        return None, []
    from neuronmap.evaluation.suites.record import SUITES
    from neuronmap.hub.comparable import measurements
    from neuronmap.hub.evaluating import list_evaluations

    records = {record.result.suite: record for record in list_evaluations(entry)}
    shown, notes = [], []
    for suite in SUITES:
        found, unread = measurements(entry, suite)
        notes += unread
        stored = [one for one in found if one.file.startswith(EVALUATIONS_FOLDER)]
        newest = next((one for one in stored if suite in records and one.created == records[suite].created), None)
        if newest is not None:
            shown.append(_shown(records[suite], newest, len(stored) - 1))
    there = {one.suite for one in shown}
    return (Suites(shown=shown, missing=[name for name in SUITES if name not in there]) if shown else None), notes


def _shown(record: SuiteRecord, measured: Measured, others: int) -> SuiteShown:
    from neuronmap.evaluation.suites.table import suite_rows
    from neuronmap.hub.comparable import TITLES

    rows = suite_rows(record)
    suite = record.result.suite
    figures = [_figure(suite, row, measured) for row in rows]
    return SuiteShown(
        suite=suite,
        about=" ".join((type(record.result).__doc__ or "").split()),
        created=record.created,
        file=measured.file,
        columns=_columns(rows),
        baselines={name: facts.description for name, facts in record.baselines.items()},
        figures=figures,
        measured_on=[
            MeasuredOn(name=TITLES[name], value=measured.facts[name].shown) for name in TITLES if name in measured.facts
        ],
        unestablished=_unestablished(figures),
        notes=_notes(record),
        leaderboard=f"/leaderboard?{urlencode({'suite': suite, 'group': short(measured.key)})}",
        others=others,
    )


def _columns(rows: Sequence[SuiteRow]) -> list[str]:
    there = dict.fromkeys(column for row in rows for column in row.values)
    return sorted(there, key=lambda column: _COLUMNS.index(column) if column in _COLUMNS else len(_COLUMNS))


def _figure(suite: str, row: SuiteRow, measured: Measured) -> SuiteFigure:
    """A line of the table. Where the leaderboard does not take the SAE's own figure, it is not shown here either."""
    values = {who: _value(value) for who, value in row.values.items()}
    own = measured.figures.get(row.figure)
    if own is not None and own.value is None and "sae" in values:
        values["sae"] = SuiteValue(value=None, reason=own.reason)
    return SuiteFigure(
        name=row.figure,
        title=in_words(row.figure),
        about=_about(suite, row.figure),
        difference=row.difference,
        values=values,
    )


def _value(value: Estimate | float | None) -> SuiteValue:
    if not isinstance(value, Estimate):
        return SuiteValue(value=value)
    return SuiteValue(
        value=value.value,
        error=value.error,
        low=value.low,
        high=value.high,
        reason=" ".join((value.reason or "").split()),
    )


def _unestablished(figures: Sequence[SuiteFigure]) -> list[str]:
    own = [one.values["sae"] for one in figures if "sae" in one.values]
    return list(dict.fromkeys(one.reason for one in own if one.value is None and one.reason))


def _notes(record: SuiteRecord) -> list[str]:
    notes = []
    protocol = record.protocol
    if protocol.l0_measured is not None and protocol.l0 is not None:
        notes.append(
            f"L0 of the SAE is {protocol.l0_measured:.1f} on the rows measured here, which is the baselines' k, rounded "
            f"({protocol.l0:.1f} on the rows that they were fitted on)."
        )
    skipped = getattr(record.result, "skipped", {})
    return notes + [f"Left out, {name}: {reason}." for name, reason in skipped.items()]


def _about(suite: str, figure: str) -> str:
    """What a figure is: the words of its field in the record, or of :data:`_ABOUT` where those lean on what stands around them."""
    from neuronmap.evaluation.suites import record

    if suite == "core":
        return about_core(figure)
    stem, _, k = figure.rpartition("_k")
    if suite == "probing":
        said = _ABOUT[stem] if stem in _ABOUT else _field(record.MeanScore, stem)
        return f"{said} Of probes on {k} latent{'' if k == '1' else 's'}."
    if (said := _ABOUT.get(f"{suite}.{figure}", "")) or suite == "stability":
        return said or _field(record.StabilitySuite, figure)
    if suite == "absorption":
        return _field(record.AbsorptionOf, _FIELDS.get(figure, figure))
    return _field(record.StructureSuite, "dead" if figure.startswith("dead_on_") else figure)


def _field(record: type[BaseModel], name: str) -> str:
    field = record.model_fields.get(name)
    return " ".join(((field.description if field else None) or "").split())


_FIELDS = {
    "fraction": "mean_absorption_fraction",
    "full": "mean_full_absorption",
    "main_f1": "mean_main_f1",
    "main_latents": "mean_main_latents",
}
"""Fields of the record whose names are not those of the figures."""
_ABOUT = {
    "auc": "Area under the ROC curve, mean over the sets.",
    "accuracy": "Share of the items that are classified right, mean over the sets.",
    "f1": "F1 of the positive class, mean over the sets.",
    "lead": "AUC of the SAE minus that of the column at the same k (dense: the SAE's at its largest k); resamples are paired.",
    "structure.meta_explained": "Share of the variance of the decoder rows that a small SAE of them explains; of as many random "
    "directions; and of rows drawn with the same mean and covariance (matched).",
    "structure.max_cosine_median": "Cosine of a decoder row with the nearest other one, median over the rows.",
    "structure.share_above_09": "Share of the decoder rows whose nearest other one has a cosine above 0.9.",
    "structure.encoder_decoder_cosine": "Cosine of each feature's encoder column and decoder row, median over the features.",
    "stability.share_above_09": "Pairs above 0.9, as a share of the smaller SAE's features.",
    "stability.alive_share_above_07": "Pairs above 0.7, as a share of this SAE's features that fire.",
}
"""What figures are, where the record's own words are not enough."""
