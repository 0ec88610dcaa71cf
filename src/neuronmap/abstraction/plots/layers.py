"""The layers beside each other: similarity matrices, blocks, and figures of each layer."""

from __future__ import annotations

from typing import Any

from neuronmap.abstraction.plots.look import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SEQUENTIAL,
    heat,
    layer_axis,
    layout,
    line,
    percent,
    square,
)
from neuronmap.abstraction.plots.plot_data import Cell, PlotData
from neuronmap.abstraction.record import LayerSimilarity, Matrix, Series

__all__ = ["similarity_plots"]

_LOG = {"type": "log", "dtick": 1, "minor": {"showgrid": True, "dtick": "D1"}}


def similarity_plots(similarity: LayerSimilarity, *, seed: int | None = None, model: str = "") -> list[PlotData]:
    """All plots of the comparison of layers.

    Args:
        similarity: the comparison.
        seed: of the sample, for the notes.
        model: name of the (first) model, for axes and titles.
    """
    note = _note(similarity, seed)
    found = [
        _cka(similarity, model, note),
        _matrix(
            similarity, model, "mutual-knn", "shared neighbours", similarity.mutual_knn, "overlap",
            "Share of the 10 nearest neighbours of a token at one layer that are among its 10 nearest at the "
            "other: local structure, which CKA, "
            f"a global measure, may miss. Chance is {10 / max(similarity.rows - 1, 1):.3f}. {note}",
        ),
        _matrix(
            similarity, model, "procrustes", "same shape", similarity.procrustes, "1 - residual",
            "How well the best rotation brings one layer onto the other, both centred and scaled: 1 is the "
            f"same shape. {note}",
        ),
        _matrix(
            similarity, model, "predictivity", "what one layer says of another", similarity.predictivity, "R²",
            "R² of a ridge regression from one layer (row) to another (column) on held-out contexts; not "
            "symmetric: what a later layer no longer "
            f"says of an earlier one has been lost. Values below 0 are shown as 0 in colour. {note}",
        ),
    ]  # fmt: skip
    if similarity.concept_overlap is not None:
        about = (
            "Mean squared cosine of the principal angles between the spans of all concept directions at two "
            "layers: 1 when the concepts lie in the "
            f"same subspace. {note}"
        )
        found.append(
            _matrix(
                similarity, model, "concept-overlap", "where concepts lie", similarity.concept_overlap, "overlap", about
            )
        )
    return [*found, *_figures_of_layers(similarity, note)]


def _note(similarity: LayerSimilarity, seed: int | None) -> str:
    drawn = "" if seed is None else f"; seed {seed}"
    return f"{similarity.rows:,} tokens of {similarity.text}, one a context, position 0 left out{drawn}."


def _axis_names(similarity: LayerSimilarity, model: str) -> tuple[str, str]:
    """x is the second model's layers, y the first's."""
    if similarity.other_model is None:
        return "Layer (0 is the embedding)", "Layer"
    return f"Layer of {similarity.other_model}", f"Layer of {model or 'the first model'}"


def _long(similarity: LayerSimilarity, *matrices: Matrix) -> list[list[Cell]]:
    return [
        [layer, other, *(matrix[row][column] for matrix in matrices)]
        for row, layer in enumerate(similarity.layers)
        for column, other in enumerate(similarity.other_layers)
    ]


def _matrix(
    similarity: LayerSimilarity, model: str, name: str, title: str, values: Matrix, measure: str, about: str
) -> PlotData:
    x_name, y_name = _axis_names(similarity, model)
    hover = f"layers %{{y}} and %{{x}}: {measure} %{{z:.3f}}"
    trace = heat(
        similarity.other_layers, similarity.layers, values, scale=SEQUENTIAL, low=0, high=1, bar=measure, hover=hover
    )
    figure = {"data": [trace], "layout": square(similarity.other_layers, similarity.layers, x_name, y_name)}
    column = name.replace("-", "_")
    return PlotData(
        f"layers-{name}", f"Layers: {title}", about, ["layer", "other_layer", column], _long(similarity, values), figure
    )


def _cka(similarity: LayerSimilarity, model: str, note: str) -> PlotData:
    x_name, y_name = _axis_names(similarity, model)
    traces = [
        heat(
            similarity.other_layers, similarity.layers, values, scale=SEQUENTIAL, low=0, high=1, bar="CKA",
            hover=f"layers %{{y}} and %{{x}}: CKA %{{z:.3f}} ({kind})", visible=kind == "standardised", name=kind,
        )
        for kind, values in (("standardised", similarity.cka_standardized), ("raw", similarity.cka))
    ]  # fmt: skip
    outlines = _block_outlines(similarity)
    figure = {
        "data": [*traces, *outlines],
        "layout": square(
            similarity.other_layers, similarity.layers, x_name, y_name, updatemenus=[_toggle(len(outlines))],
            margin={"l": 64, "r": 16, "t": 56, "b": 56}, showlegend=False,
        ),
    }  # fmt: skip
    blocks = ", ".join(
        f"{first} (in {percent(support)} of the resamples)"
        for first, support in zip(similarity.blocks[1:], similarity.block_support[1:], strict=True)
    )
    said = (
        f"Outlined: blocks of similar layers; new ones begin at layer {blocks}."
        if blocks
        else "No boundary between blocks of layers was found."
    )
    about = (
        "Debiased linear CKA: 1 when two layers hold the same configuration of tokens up to rotation and "
        "scale, 0 when unrelated. Standardised by "
        f"dimension, so that a few outlying dimensions do not decide; raw beside it. {said} {note}"
    )
    rows = _long(similarity, similarity.cka_standardized, similarity.cka, similarity.cka_error)
    columns = ["layer", "other_layer", "cka_standardized", "cka", "cka_error"]
    return PlotData("layers-cka", "Layers: similarity (CKA)", about, columns, rows, figure)


def _toggle(outlines: int) -> dict[str, Any]:
    """Two buttons: standardised, raw."""
    shown = [True] * outlines
    return {
        "type": "buttons", "direction": "right", "x": 0, "xanchor": "left", "y": 1.03, "yanchor": "bottom", "showactive": True,
        "bgcolor": "#cfd4da", "bordercolor": GREY, "font": {"color": INK}, "pad": {"t": 0},
        "buttons": [
            {"label": "standardised", "method": "restyle", "args": ["visible", [True, False, *shown]]},
            {"label": "raw", "method": "restyle", "args": ["visible", [False, True, *shown]]},
        ],
    }  # fmt: skip


def _block_outlines(similarity: LayerSimilarity) -> list[dict[str, Any]]:
    """A square around each block, between the layers at its edges; only within one model."""
    if similarity.other_model is not None or len(similarity.blocks) < 2:
        return []
    layers = similarity.layers
    edges = []
    for first in similarity.blocks[1:]:
        at = layers.index(first)
        edges.append((layers[at - 1] + layers[at]) / 2)
    starts = [layers[0] - 0.5 * (layers[1] - layers[0]), *edges]
    ends = [*edges, layers[-1] + 0.5 * (layers[-1] - layers[-2])]
    return [
        {
            "type": "scatter", "mode": "lines", "x": [low, high, high, low, low], "y": [low, low, high, high, low],
            "line": {"color": "#ff5a36", "width": 2}, "hoverinfo": "skip", "showlegend": False, "name": "block",
        }
        for low, high in zip(starts, ends, strict=True)
    ]  # fmt: skip


def _figures_of_layers(similarity: LayerSimilarity, note: str) -> list[PlotData]:
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
        "How many directions the tokens fill. Intrinsic dimension looks at nearest neighbours, the "
        "participation ratio at the "
        "variance of standardised activations. A rise and fall of the first at mid depth has been read as "
        "where abstraction "
        f"begins. {note}",
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
        "Mean length of raw activations, beside that at position 0, which is often many times longer: one "
        "such row would make "
        f"all layers look alike. {note}",
        ["layer", "mean_norm", "first_position_norm"],
        [[layer, mean[at], first[at]] for at, layer in enumerate(similarity.layers)],
        _by_layer(similarity, lines, {"title": {"text": "length (log scale)"}, **_LOG}),
    )


def _isotropy(similarity: LayerSimilarity, note: str) -> PlotData:
    lines = [line("isotropy", [float(layer) for layer in similarity.layers], similarity.isotropy, BLUE)]
    return PlotData(
        "layers-isotropy",
        "Layers: isotropy",
        "1 minus the mean cosine of pairs of tokens: 1 when they point everywhere, near 0 when all point one "
        f"way. {note}",
        ["layer", "isotropy"],
        [[layer, value] for layer, value in zip(similarity.layers, similarity.isotropy, strict=True)],
        _by_layer(similarity, lines, {"title": {"text": "isotropy"}, "range": [-0.02, 1.05]}, height=300),
    )


def _by_layer(
    similarity: LayerSimilarity, lines: list[dict[str, Any]], yaxis: dict[str, Any], **more: Any
) -> dict[str, Any]:
    axes = {"xaxis": layer_axis(similarity.layers), "yaxis": {"zeroline": False, **yaxis}}
    return {"data": lines, "layout": layout(**axes, hovermode="x", **more)}
