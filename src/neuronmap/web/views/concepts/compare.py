"""One concept in several models, by relative depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from neuronmap.web.errors import WebError
from neuronmap.web.explorer import Explorer
from neuronmap.web.reports import OpenReport
from neuronmap.web.views.concepts.basis import ReportBasis
from neuronmap.web.views.concepts.listed import ReportLine, report_lines
from neuronmap.web.views.concepts.plots import ShownPlot, shown_plot
from neuronmap.web.views.concepts.report import ConceptRow, concept_row

if TYPE_CHECKING:
    from neuronmap.abstraction.plots import PlotData

__all__ = ["MOST_COMPARED", "ComparePage", "ComparedRow", "compare_page", "compared_plot", "named_reports"]

MOST_COMPARED = 6


class ComparedRow(BaseModel):
    """The concept in one report."""

    basis: ReportBasis
    row: ConceptRow


class ComparePage(BaseModel):
    """Reports beside each other."""

    known: list[ReportLine] = Field(description="Reports that can be chosen.")
    reports: list[str] = Field(description="Those that were chosen.")
    concepts: list[str] = Field(description="Concepts that any of the chosen ones has.")
    concept: str = Field(description="The concept that is shown; empty if there is none.")
    rows: list[ComparedRow]
    without: list[str] = Field(description="Chosen reports that do not have the concept.")
    same_items: bool = Field(description="Whether all rest on the same items.")
    plot: ShownPlot | None


def named_reports(reports: Sequence[str]) -> list[str]:
    """Names given one by one or with commas, each once.

    Raises:
        WebError: 422, too many.
    """
    names = [name.strip() for part in reports for name in part.split(",")]
    found = list(dict.fromkeys(name for name in names if name))
    if len(found) > MOST_COMPARED:
        raise WebError(422, "input", f"{len(found)} reports were named; at most {MOST_COMPARED} are compared.")
    return found


def compared_plot(explorer: Explorer, reports: Sequence[str], concept: str) -> PlotData:
    """The plot of a concept in several reports.

    Raises:
        WebError: none was named, too many were, or one does not have the concept.
        NotInLibraryError: no report of a name.
    """
    found = [explorer.report(name) for name in named_reports(reports)]
    if not found:
        raise WebError(422, "input", "No report was named.")
    for one in found:
        one.concept(concept)
    return _plot(found, concept)


def _plot(found: Sequence[OpenReport], concept: str) -> PlotData:
    from neuronmap.abstraction.plots import compare_plot

    return compare_plot([one.report for one in found], concept)


def compare_page(explorer: Explorer, reports: Sequence[str], concept: str = "") -> ComparePage:
    """The page.

    Args:
        explorer: the server's.
        reports: names, one by one or with commas.
        concept: its name; the first that all of them have when empty.

    Raises:
        NotInLibraryError: no report of a name.
        WebError: too many reports, or a concept that none of them has.
    """
    found = [explorer.report(name) for name in named_reports(reports)]
    of = {one.name: [str(result.concept["name"]) for result in one.report.concepts] for one in found}
    concepts = list(dict.fromkeys(name for names in of.values() for name in names))
    shared = [name for name in concepts if all(name in names for names in of.values())]
    chosen = concept or next(iter(shared or concepts), "")
    if found and concept and concept not in concepts:
        raise WebError(
            404,
            "not_found",
            f"None of these reports has a concept '{concept}'.",
            hint=f"They have {', '.join(concepts)}.",
        )
    having = [one for one in found if chosen in of[one.name]]
    rows = [ComparedRow(basis=ReportBasis.of(one), row=concept_row(one.concept(chosen))) for one in having]
    names = tuple(one.name for one in having)
    return ComparePage(
        known=[one for one in report_lines() if not one.problem],
        reports=[one.name for one in found],
        concepts=concepts,
        concept=chosen if found else "",
        rows=rows,
        without=[one.name for one in found if one not in having],
        same_items=len({one.row.dataset_digest for one in rows}) <= 1,
        plot=shown_plot(_plot(having, chosen), reports=names, concept=chosen) if having else None,
    )
