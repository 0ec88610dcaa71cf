"""A report as a whole: one row a concept, with what the tracker says of it and why."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from pydantic import BaseModel, Field

from neuronmap.abstraction.record import ConceptResult, Interval, Series, TrackingReport
from neuronmap.web.reports import OpenReport
from neuronmap.web.views.concepts.basis import ReportBasis
from neuronmap.web.views.concepts.words import interval_words, layer_words, spans, verdict_words

__all__ = ["ConceptRow", "ReportPage", "concept_row", "headline", "in_order", "report_page"]

_WIDE, _TALL = 132, 34
_LOW, _HIGH = 0.3, 1.0
"""AUC at the lower and upper edge of a small curve."""


class ConceptRow(BaseModel):
    """One concept in short."""

    name: str
    title: str
    contrast: str
    verdict: str
    words: str = Field(description="The verdict in a few words.")
    statement: str = Field(description="The verdict with what it was tested against.")
    score: str = Field(description="What the figures are of: cross, or within where there is nothing to cross.")
    half_depth: Interval = Field(description="Layer where the curve is half way up.")
    half_depth_relative: float | None
    emergence: int | None
    emergence_interval: list[int] | None
    present_at_embedding: bool
    peak: list[int] = Field(description="Layers that cannot be told from the best one.")
    best: float | None = Field(description="AUC of the best layer.")
    bits: float | None = Field(description="Usable information in bits an item at its best layer, within conditions.")
    rank: int | None = Field(description="Place by half depth, then by code length; 1 is the simplest.")
    rank_low: int | None
    rank_high: int | None
    items: int
    dataset_digest: str
    warnings: list[str]
    layers: list[int]
    curve: Series = Field(description="The headline score at each layer.")
    null95: float | None

    @property
    def half_words(self) -> str:
        """Half depth with its interval."""
        return interval_words(self.half_depth)

    @property
    def emergence_words(self) -> str:
        """Emergence with its interval."""
        return "at the embedding" if self.present_at_embedding else layer_words(self.emergence, self.emergence_interval)

    @property
    def peak_words(self) -> str:
        """The peak set as runs."""
        return spans(self.peak, self.layers)

    @property
    def rank_words(self) -> str:
        """The place with its range."""
        if self.rank is None:
            return "–"
        same = self.rank_low == self.rank_high or self.rank_low is None
        return str(self.rank) if same else f"{self.rank} ({self.rank_low} to {self.rank_high})"

    @property
    def small_curve(self) -> Markup:
        """The headline curve, small, with chance and the null."""
        said = f"{self.title} by layer: {_ends(self.layers, self.curve)}"
        lines = [Markup('<line class="level" x1="0" x2="{}" y1="{}" y2="{}"/>').format(_WIDE, _y(0.5), _y(0.5))]
        if self.null95 is not None:
            tall = round(_y(0.5) - _y(self.null95), 1)
            lines.append(
                Markup('<rect class="null" x="0" width="{}" y="{}" height="{}"/>').format(
                    _WIDE, _y(self.null95), max(tall, 0)
                )
            )
        path = Markup('<path class="line series-0" d="{}"/>').format(_path(self.layers, self.curve))
        return Markup(
            '<svg class="chart small-curve" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>'
        ).format(_WIDE, _TALL, said, Markup("").join(lines), path)


class ReportPage(BaseModel):
    """One report."""

    basis: ReportBasis
    concepts: list[ConceptRow] = Field(description="In order of complexity for the model, the simplest first.")
    warnings: list[str] = Field(description="What concerns the whole run.")
    seconds: dict[str, float] = Field(description="Time of each part.")
    settings: dict[str, object] = Field(description="Every setting.")

    @property
    def verdicts(self) -> dict[str, int]:
        """How many concepts have each verdict."""
        found: dict[str, int] = {}
        for one in self.concepts:
            found[one.verdict] = found.get(one.verdict, 0) + 1
        return found


def headline(result: ConceptResult) -> tuple[Series, float | None]:
    """The curve that the summary is of, and its null."""
    curve = result.cross.mean if result.cross is not None else result.within
    return curve.score, result.null95


def concept_row(result: ConceptResult) -> ConceptRow:
    """A concept in short."""
    summary, found = result.summary, result.complexity
    curve, null = headline(result)
    bits = [value for value in result.within_bits if value is not None]
    return ConceptRow(
        name=str(result.concept["name"]),
        title=str(result.concept["title"]),
        contrast=str(result.concept["contrast"]),
        verdict=summary.verdict,
        words=verdict_words(summary.verdict),
        statement=summary.statement,
        score=summary.score,
        half_depth=summary.half_depth,
        half_depth_relative=summary.half_depth_relative,
        emergence=summary.emergence,
        emergence_interval=summary.emergence_interval,
        present_at_embedding=summary.present_at_embedding,
        peak=summary.peak,
        best=summary.best,
        bits=max(bits, default=None),
        rank=found.rank if found is not None else None,
        rank_low=found.rank_low if found is not None else None,
        rank_high=found.rank_high if found is not None else None,
        items=result.items,
        dataset_digest=result.dataset_digest,
        warnings=list(dict.fromkeys(result.warnings)),
        layers=result.layers,
        curve=curve,
        null95=null,
    )


def in_order(report: TrackingReport) -> list[ConceptResult]:
    """Concepts by rank; those without one last, in the report's order."""
    return sorted(
        report.concepts, key=lambda one: one.complexity.rank if one.complexity and one.complexity.rank else 10**6
    )


def report_page(found: OpenReport) -> ReportPage:
    """The page of a report."""
    report = found.report
    return ReportPage(
        basis=ReportBasis.of(found),
        concepts=[concept_row(one) for one in in_order(report)],
        warnings=report.warnings,
        seconds=report.seconds,
        settings=report.settings,
    )


def _y(value: float) -> float:
    share = (min(max(value, _LOW), _HIGH) - _LOW) / (_HIGH - _LOW)
    return round(_TALL - 2 - (_TALL - 4) * share, 1)


def _path(layers: Sequence[int], values: Series) -> str:
    first, last = layers[0], layers[-1]
    parts, pen = [], "M"
    for layer, value in zip(layers, values, strict=True):
        if value is None:
            pen = "M"
            continue
        x = 2 + (_WIDE - 4) * (layer - first) / ((last - first) or 1)
        parts.append(f"{pen}{x:.1f} {_y(value):.1f}")
        pen = "L"
    return "".join(parts)


def _ends(layers: Sequence[int], values: Series) -> str:
    known = [(layer, value) for layer, value in zip(layers, values, strict=True) if value is not None]
    if not known:
        return "not measured"
    best = max(known, key=lambda pair: pair[1])
    return f"{known[0][1]:.2f} at layer {known[0][0]}, {best[1]:.2f} at layer {best[0]}, {known[-1][1]:.2f} at layer {known[-1][0]}"
