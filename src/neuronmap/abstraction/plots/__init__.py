"""Plots of the tracker's reports, as data: Plotly's JSON with words and numbers beside it. No torch, and no Plotly until one is drawn.

Figures have traces of the types scatter, heatmap and sankey only, which need no WebGL. Plotly sets some of their styles by
``setAttribute("style", ...)``, which a content security policy without ``'unsafe-inline'`` refuses; a page with such a policy sets
``element.style.cssText`` in its place, which is allowed. Figures have no title, and no colours for page, axes and text: the page has those.
"""

from neuronmap.abstraction.plots.compare import compare_plot
from neuronmap.abstraction.plots.complexity import complexity_plot
from neuronmap.abstraction.plots.concept import concept_plots
from neuronmap.abstraction.plots.flow import flow_plot
from neuronmap.abstraction.plots.layers import similarity_plots
from neuronmap.abstraction.plots.plot_data import PlotData
from neuronmap.abstraction.plots.prompt import trajectory_plots
from neuronmap.abstraction.plots.whole import plot_named, report_plots

__all__ = [
    "PlotData",
    "compare_plot",
    "complexity_plot",
    "concept_plots",
    "flow_plot",
    "plot_named",
    "report_plots",
    "similarity_plots",
    "trajectory_plots",
]
