"""Concepts in order of complexity for one model, with every component beside the place."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from neuronmap.abstraction.record import Complexity, ConceptResult, Interval
from neuronmap.web.reports import OpenReport
from neuronmap.web.views.concepts.basis import ReportBasis
from neuronmap.web.views.concepts.plots import ShownPlot, shown_plot
from neuronmap.web.views.concepts.report import in_order
from neuronmap.web.views.concepts.words import verdict_words

__all__ = ["COLUMNS", "ComplexityPage", "ComplexityRow", "Sort", "complexity_page"]

Sort = Literal[
    "rank", "half_depth", "mdl_bits", "mdl_bits_embedding", "compression", "n90", "rank90", "mlp_gap", "context_need", "within_cross_gap"
]  # fmt: skip
COLUMNS: dict[str, str] = {
    "rank": "place",
    "half_depth": "half depth",
    "mdl_bits": "code length, bits",
    "mdl_bits_embedding": "at the embedding",
    "compression": "compression",
    "n90": "items to 90 %",
    "rank90": "dimensions to 90 %",
    "mlp_gap": "MLP gain",
    "context_need": "context, tokens",
    "within_cross_gap": "within − across",
}
"""Component -> its name."""


class ComplexityRow(BaseModel):
    """One concept."""

    name: str
    title: str
    verdict: str
    words: str
    items: int
    dataset_digest: str
    complexity: Complexity | None
    half_depth: Interval


class ComplexityPage(BaseModel):
    """All concepts of a report."""

    basis: ReportBasis
    sort: Sort
    rows: list[ComplexityRow]
    about: dict[str, str] = Field(description="What each component is.")
    measured: bool = Field(description="Whether the components were worked out.")
    plot: ShownPlot | None

    @property
    def columns(self) -> dict[str, str]:
        """Component -> its name."""
        return COLUMNS


def complexity_page(found: OpenReport, sort: Sort = "rank") -> ComplexityPage:
    """The page of the ranking.

    Args:
        found: the report.
        sort: by which component, the smallest first; concepts without it come last.
    """
    results = in_order(found.report)
    if sort != "rank":
        results = sorted(results, key=lambda one: _key(one, sort))
    plots = found.plots("complexity")
    about = {name: " ".join((field.description or "").split()) for name, field in Complexity.model_fields.items()}
    return ComplexityPage(
        basis=ReportBasis.of(found),
        sort=sort,
        rows=[_row(one) for one in results],
        about={name: about[name] for name in COLUMNS},
        measured=any(one.complexity is not None for one in results),
        plot=shown_plot(plots[0], report=found.name) if plots else None,
    )


def _key(result: ConceptResult, sort: str) -> tuple[bool, float]:
    found = getattr(result.complexity, sort) if result.complexity is not None else None
    value = found.value if isinstance(found, Interval) else found
    return (value is None, float(value or 0.0))


def _row(result: ConceptResult) -> ComplexityRow:
    return ComplexityRow(
        name=str(result.concept["name"]),
        title=str(result.concept["title"]),
        verdict=result.summary.verdict,
        words=verdict_words(result.summary.verdict),
        items=result.items,
        dataset_digest=result.dataset_digest,
        complexity=result.complexity,
        half_depth=result.summary.half_depth,
    )
