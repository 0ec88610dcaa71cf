"""One plot: what it shows in words, its numbers as a table, and a figure in Plotly's JSON."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects

__all__ = ["PlotData"]

_TITLE = 34
"""Pixels that a title takes."""
Cell = str | int | float | bool | None


@dataclass(frozen=True)
class PlotData:
    """A plot that can be drawn, read and taken away.

    Attributes:
        name: unique in its report; the beginning says the kind (``curve-``, ``transfer-``, ...).
        title: one line.
        about: what it shows, how to read it, and on how much data.
        columns: names of its numbers.
        rows: its numbers, a list for each row; None is "not established" or "not measured".
        figure: ``{"data": [...], "layout": {...}}`` as Plotly takes it, without a title and without colours of page and text.
    """

    name: str
    title: str
    about: str
    columns: list[str]
    rows: list[list[Cell]]
    figure: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    def csv(self) -> str:
        """The numbers as CSV with a head; an empty cell is "not established"."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()

    def to_figure(self) -> plotly.graph_objects.Figure:
        """A figure of the Python package ``plotly``, with the title."""
        import plotly.graph_objects as go

        layout = self.figure["layout"]
        room = {**layout["margin"], "t": layout["margin"]["t"] + _TITLE}
        title = {
            "text": self.title,
            "yref": "container",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 10},
            "automargin": True,
        }
        aside = {"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"}
        legend = aside if layout["legend"]["y"] > 1 else {}
        figure = go.Figure(self.figure)
        return figure.update_layout(
            template="plotly_white", title=title, legend=legend, margin=room, height=layout["height"] + _TITLE
        )
