"""The plots of one concept, in reading order."""

from __future__ import annotations

from neuronmap.abstraction.plots.causal import causal_plot
from neuronmap.abstraction.plots.conditions import control_plot, information_plot, levels_plot
from neuronmap.abstraction.plots.curve import curve_plot
from neuronmap.abstraction.plots.direction import rotation_plot, transfer_plot
from neuronmap.abstraction.plots.plot_data import PlotData
from neuronmap.abstraction.plots.results import concept_of
from neuronmap.abstraction.record import TrackingReport

__all__ = ["concept_plots"]


def concept_plots(report: TrackingReport, name: str) -> list[PlotData]:
    """All plots of a concept of a report, those without data left out.

    Returns:
        ``curve-``, ``levels-``, ``transfer-``, ``rotation-``, ``bits-``, ``control-`` and ``causal-`` with the name behind.

    Raises:
        InputError: the report has no such concept.
    """
    result = concept_of(report, name)
    found = [
        curve_plot(report, result),
        levels_plot(report, result),
        transfer_plot(report, result),
        rotation_plot(report, result),
        information_plot(report, result),
        control_plot(report, result),
        causal_plot(report, result),
    ]
    return [plot for plot in found if plot is not None]
