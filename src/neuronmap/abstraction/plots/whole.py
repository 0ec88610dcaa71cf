"""All plots of a report in reading order."""

from __future__ import annotations

import re
from collections.abc import Sequence

from neuronmap.abstraction.plots.complexity import complexity_plot
from neuronmap.abstraction.plots.concept import concept_plots
from neuronmap.abstraction.plots.flow import flow_plot
from neuronmap.abstraction.plots.layers import similarity_plots
from neuronmap.abstraction.plots.plot_data import PlotData
from neuronmap.abstraction.plots.prompt import trajectory_plots
from neuronmap.abstraction.record import TrackingReport
from neuronmap.errors import InputError

__all__ = ["plot_named", "report_plots"]

_KIND = re.compile(r"^(curve|prompt-\d+)-")


def report_plots(report: TrackingReport) -> list[PlotData]:
    """Every concept, their complexity, the layers, the prompts, the features."""
    seed = report.settings.get("seed")
    found = [plot for result in report.concepts for plot in concept_plots(report, str(result.concept["name"]))]
    if report.concepts:
        found.append(complexity_plot(report))
    if report.similarity is not None:
        found += similarity_plots(report.similarity, seed=seed, model=str(report.model["name"]))
    if report.between is not None:
        found += similarity_plots(report.between, seed=seed, model=str(report.model["name"]))
    for number, trajectory in enumerate(report.trajectories):
        found += trajectory_plots(trajectory, report, number)
    if report.flow is not None:
        found.append(flow_plot(report.flow, seed=seed))
    return found


def plot_named(plots: Sequence[PlotData], name: str | None = None) -> PlotData:
    """One of some plots.

    Args:
        plots: to choose from.
        name: the plot's name, or what follows its kind (a concept's name for its curve); the first plot when left out.

    Raises:
        InputError: there is none; lists those that are there.
    """
    for plot in plots:
        if name is None or plot.name == name or _KIND.sub("", plot.name) == name:
            return plot
    there = ", ".join(plot.name for plot in plots) or "none"
    raise InputError(f"There is no plot '{name}'. Plots: {there}.")
