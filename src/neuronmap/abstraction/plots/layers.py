"""The layers beside each other, within one model or between two: similarity matrices, with the blocks that they fall into."""

from __future__ import annotations

from typing import Any, NamedTuple

from neuronmap.abstraction.plots.layer_figures import layer_figures
from neuronmap.abstraction.plots.look import GREY, INK, SEQUENTIAL, heat, percent, square
from neuronmap.abstraction.plots.plot_data import Cell, PlotData
from neuronmap.abstraction.record import LayerSimilarity, Matrix

__all__ = ["similarity_plots"]


def similarity_plots(similarity: LayerSimilarity, *, seed: int | None = None, model: str = "") -> list[PlotData]:
    """All plots of a comparison of layers: within one model, or between two.

    Args:
        similarity: the comparison.
        seed: of the sample, for the notes.
        model: name of the (first) model, for axes and titles.

    Returns:
        ``layers-cka`` and so on; ``between-cka`` and so on for two models.
    """
    drawn = "" if seed is None else f"; seed {seed}"
    note = f"{similarity.rows:,} tokens of {similarity.text}, one a context, position 0 left out{drawn}."
    axes = _Axes(similarity, model)
    found = [_cka(axes, note), *(_matrix(axes, part, note) for part in _MATRICES if part.of(similarity) is not None)]
    return found if similarity.other_model is not None else [*found, *layer_figures(similarity, note)]


class _Matrix(NamedTuple):
    """One of the matrices: its field in the record, its title, the measure on its scale, and what it means."""

    field: str
    title: str
    measure: str
    about: str

    def of(self, similarity: LayerSimilarity) -> Matrix | None:
        found: Matrix | None = getattr(similarity, self.field)
        return found


_MATRICES = (
    _Matrix(
        "mutual_knn", "shared neighbours", "overlap",
        "Share of the 10 nearest neighbours of a token at one layer that are among its 10 nearest at the other: local "
        "structure, which CKA, a global measure, may miss. Chance is {chance:.3f}.",
    ),
    _Matrix(
        "procrustes", "same shape", "1 - residual",
        "How well the best rotation brings one layer onto the other, both centred and scaled: 1 is the same shape.",
    ),
    _Matrix(
        "predictivity", "what one layer says of another", "R²",
        "R² of a ridge regression from one layer (row) to another (column) on held-out contexts; not symmetric: "
        "what a later layer no longer says of an earlier one has been lost. Values below 0 have the colour of 0.",
    ),
    _Matrix(
        "concept_overlap", "where concepts lie", "overlap",
        "Mean squared cosine of the principal angles between the spans of all concept directions at two layers: 1 "
        "when the concepts lie in the same subspace.",
    ),
)  # fmt: skip


class _Axes(NamedTuple):
    """What is compared with what: x is the second model's layers, y the first's."""

    similarity: LayerSimilarity
    model: str

    @property
    def kind(self) -> str:
        return "layers" if self.similarity.other_model is None else "between"

    @property
    def head(self) -> str:
        other = self.similarity.other_model
        return "Layers" if other is None else f"Layers of {self.model or 'the first model'} and {other}"

    def layout(self, **more: Any) -> dict[str, Any]:
        found = self.similarity
        names = ("Layer (0 is the embedding)", "Layer")
        if found.other_model is not None:
            names = (f"Layer of {found.other_model}", f"Layer of {self.model or 'the first model'}")
        return square(found.other_layers, found.layers, *names, **more)

    def rows(self, *matrices: Matrix) -> list[list[Cell]]:
        return [
            [layer, other, *(matrix[row][column] for matrix in matrices)]
            for row, layer in enumerate(self.similarity.layers)
            for column, other in enumerate(self.similarity.other_layers)
        ]


def _matrix(axes: _Axes, part: _Matrix, note: str) -> PlotData:
    similarity, values = axes.similarity, part.of(axes.similarity) or []
    trace = heat(
        similarity.other_layers, similarity.layers, values, scale=SEQUENTIAL, low=0, high=1, bar=part.measure,
        hover=f"layers %{{y}} and %{{x}}: {part.measure} %{{z:.3f}}",
    )  # fmt: skip
    return PlotData(
        f"{axes.kind}-{part.field.replace('_', '-')}",
        f"{axes.head}: {part.title}",
        f"{part.about.format(chance=10 / max(similarity.rows - 1, 1))} {note}",
        ["layer", "other_layer", part.field],
        axes.rows(values),
        {"data": [trace], "layout": axes.layout()},
    )


def _cka(axes: _Axes, note: str) -> PlotData:
    similarity = axes.similarity
    traces = [
        heat(
            similarity.other_layers, similarity.layers, values, scale=SEQUENTIAL, low=0, high=1, bar="CKA",
            hover=f"layers %{{y}} and %{{x}}: CKA %{{z:.3f}} ({kind})", visible=kind == "standardised", name=kind,
        )
        for kind, values in (("standardised", similarity.cka_standardized), ("raw", similarity.cka))
    ]  # fmt: skip
    outlines = _block_outlines(similarity)
    more = {"margin": {"l": 64, "r": 16, "t": 56, "b": 56}, "showlegend": False}
    about = (
        "Debiased linear CKA: 1 when two layers hold the same configuration of tokens up to rotation and scale, 0 "
        "when unrelated. Standardised by dimension, so that a few outlying dimensions do not decide; raw behind "
        f"the button. {_blocks_text(similarity)}{note}"
    )
    return PlotData(
        f"{axes.kind}-cka",
        f"{axes.head}: similarity (CKA)",
        about,
        ["layer", "other_layer", "cka_standardized", "cka", "cka_error"],
        axes.rows(similarity.cka_standardized, similarity.cka, similarity.cka_error),
        {"data": [*traces, *outlines], "layout": axes.layout(updatemenus=[_toggle(len(outlines))], **more)},
    )


def _blocks_text(similarity: LayerSimilarity) -> str:
    if similarity.other_model is not None:
        return ""
    starts = ", ".join(
        f"{first} (in {percent(support)} of the resamples)"
        for first, support in zip(similarity.blocks[1:], similarity.block_support[1:], strict=True)
    )
    if not starts:
        return "No boundary between blocks of layers was found. "
    return f"Outlined: blocks of similar layers; new ones begin at layer {starts}. "


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
