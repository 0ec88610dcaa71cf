"""Plots of a report as pages show them: drawn on the server where they are lines, with the addresses of figure and data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from markupsafe import Markup
from pydantic import BaseModel, Field, PrivateAttr

from neuronmap.web.views.concepts.drawing import draw

if TYPE_CHECKING:
    from neuronmap.abstraction.plots import PlotData

__all__ = ["PlotDocument", "ShownPlot", "shown_plot"]

Cell = str | int | float | bool | None


class PlotDocument(BaseModel):
    """A plot: in words, as a table, and as a figure."""

    name: str = Field(description="Unique in its report.")
    title: str
    about: str = Field(description="What it shows, how to read it, and on how much data.")
    columns: list[str]
    rows: list[list[Cell]]
    figure: dict[str, Any] = Field(description="`data` and `layout`, as Plotly takes them.")

    @classmethod
    def of(cls, plot: PlotData) -> PlotDocument:
        """As a document."""
        return cls(
            name=plot.name,
            title=plot.title,
            about=plot.about,
            columns=plot.columns,
            rows=plot.rows,
            figure=plot.figure,
        )


class ShownPlot(BaseModel):
    """A plot of a page."""

    name: str = Field(description="Unique in its report.")
    title: str
    about: str = Field(description="What it shows, how to read it, and on how much data.")
    figure: str = Field(description="Address of the figure, for Plotly.")
    csv: str = Field(description="Address of its numbers.")
    _figure: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def drawn(self) -> Markup:
        """As SVG, where it is made of lines and points; else empty."""
        return draw(self._figure, self.title)


def shown_plot(plot: PlotData, *, report: str = "", reports: tuple[str, ...] = (), concept: str = "") -> ShownPlot:
    """A plot with its addresses.

    Args:
        plot: the plot.
        report: name of its report.
        reports, concept: of a plot of several reports, in place of one.
    """
    if reports:
        query = urlencode({"reports": ",".join(reports), "concept": concept})
        figure, csv = f"/api/sae/compare_reports?{query}", f"/api/sae/compare_reports.csv?{query}"
    else:
        figure = f"/api/sae/reports/{quote(report, safe='')}/plots/{quote(plot.name, safe=':')}"
        csv = f"{figure}.csv"
    made = ShownPlot(name=plot.name, title=plot.title, about=plot.about, figure=figure, csv=csv)
    made._figure = plot.figure
    return made
