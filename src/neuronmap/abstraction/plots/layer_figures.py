"""Figures of each layer: dimension, length, isotropy."""

from __future__ import annotations

from typing import Any

from neuronmap.abstraction.plots.look import BLUE, GREY, ORANGE, layer_axis, layout, line
from neuronmap.abstraction.plots.plot_data import PlotData
from neuronmap.abstraction.record import LayerSimilarity, Series

__all__ = ["layer_figures"]

_LOG = {"type": "log", "dtick": 1, "minor": {"showgrid": True, "dtick": "D1"}}


def layer_figures(similarity: LayerSimilarity, note: str) -> list[PlotData]:
    """The plots of figures by layer; ``note`` says on which tokens they rest."""
    return [_dimension(similarity, note), _lengths(similarity, note), _isotropy(similarity, note)]


def _dimension(similarity: LayerSimilarity, note: str) -> PlotData:
    x = [float(layer) for layer in similarity.layers]
    found, ratio = similarity.intrinsic_dimension, similarity.participation_ratio
    up = [None if one.value is None or one.high is None else one.high - one.value for one in found]
    down = [None if one.value is None or one.low is None else one.value - one.low for one in found]
    error = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.2, "width": 3}
    values: Series = [one.value for one in found]
    lines = [
        line("intrinsic dimension (TwoNN), 95 % interval", x, values, BLUE, error_y=error),
        line("participation ratio", x, ratio, ORANGE, dash="dash", symbol="square"),
    ]
    return PlotData(
        "layers-dimension",
        "Layers: dimension",
        "How many directions the tokens fill. Intrinsic dimension looks at nearest neighbours, the participation "
        "ratio at the variance of standardised activations. A rise and fall of the first at mid depth has been "
        f"read as where abstraction begins. {note}",
        ["layer", "intrinsic_dimension", "intrinsic_dimension_low", "intrinsic_dimension_high", "participation_ratio"],
        [
            [layer, one.value, one.low, one.high, other]
            for layer, one, other in zip(similarity.layers, found, ratio, strict=True)
        ],
        _by_layer(similarity, lines, {"title": {"text": "dimension (log scale)"}, **_LOG}),
    )


def _lengths(similarity: LayerSimilarity, note: str) -> PlotData:
    x = [float(layer) for layer in similarity.layers]
    mean, first = similarity.mean_norm, similarity.first_position_norm
    lines = [
        line("all positions but 0", x, mean, BLUE),
        line("position 0, left out everywhere else", x, first, GREY, dash="dot", symbol="diamond"),
    ]
    return PlotData(
        "layers-norms",
        "Layers: lengths",
        "Mean length of raw activations, beside that at position 0, which is often many times longer: one such row "
        f"would make all layers look alike. {note}",
        ["layer", "mean_norm", "first_position_norm"],
        [[layer, mean[at], first[at]] for at, layer in enumerate(similarity.layers)],
        _by_layer(similarity, lines, {"title": {"text": "length (log scale)"}, **_LOG}),
    )


def _isotropy(similarity: LayerSimilarity, note: str) -> PlotData:
    lines = [line("isotropy", [float(layer) for layer in similarity.layers], similarity.isotropy, BLUE)]
    return PlotData(
        "layers-isotropy",
        "Layers: isotropy",
        "1 minus the mean cosine of pairs of tokens: 1 when they point everywhere, near 0 when all point one way. "
        f"{note}",
        ["layer", "isotropy"],
        [[layer, value] for layer, value in zip(similarity.layers, similarity.isotropy, strict=True)],
        _by_layer(similarity, lines, {"title": {"text": "isotropy"}, "range": [-0.02, 1.05]}, height=300),
    )


def _by_layer(
    similarity: LayerSimilarity, lines: list[dict[str, Any]], yaxis: dict[str, Any], **more: Any
) -> dict[str, Any]:
    axes = {"xaxis": layer_axis(similarity.layers), "yaxis": {"zeroline": False, **yaxis}}
    return {"data": lines, "layout": layout(**axes, hovermode="x", **more)}
