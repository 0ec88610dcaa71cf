"""How similar the layers of a model are, by several measures, and what each layer is like by itself."""

from __future__ import annotations

from typing import Literal

from markupsafe import Markup
from pydantic import BaseModel, Field

from neuronmap.abstraction.record import Interval, LayerSimilarity, Matrix
from neuronmap.web.reports import OpenReport
from neuronmap.web.views.concepts.basis import ReportBasis
from neuronmap.web.views.concepts.plots import ShownPlot, shown_plot
from neuronmap.web.views.concepts.tables import matrix_table

__all__ = ["MEASURES", "Block", "LayerLine", "LayersPage", "Measure", "layers_page"]

Measure = Literal["cka-standardized", "cka", "mutual-knn", "procrustes", "predictivity", "concept-overlap", "cka-error"]
MEASURES: dict[str, tuple[str, str, str]] = {
    "cka-standardized": ("CKA", "standardised activations: a few outlying dimensions do not decide", "cka"),
    "cka": ("CKA, raw", "raw activations: outlying dimensions may make all layers look alike", "cka"),
    "mutual-knn": (
        "shared neighbours",
        "of the 10 nearest neighbours of a token, how many are shared",
        "mutual-knn",
    ),
    "procrustes": ("Procrustes", "how well the best rotation brings one layer onto the other", "procrustes"),
    "predictivity": (
        "predictivity",
        "R² of a ridge regression from the row's layer to the column's, held out",
        "predictivity",
    ),
    "concept-overlap": (
        "concept subspaces",
        "whether concept directions span the same space",
        "concept-overlap",
    ),
    "cka-error": ("error of CKA", "standard error of the standardised one, over resampled contexts", "cka"),
}
"""Measure -> its name, a few words, and the kind of the plot that shows it."""


class Block(BaseModel):
    """Neighbouring layers that are alike."""

    first: int
    last: int
    support: float = Field(description="Share of the resamples with a boundary within one layer of its first.")


class LayerLine(BaseModel):
    """Figures of one layer."""

    layer: int
    intrinsic_dimension: Interval
    participation_ratio: float | None
    mean_norm: float | None
    first_position_norm: float | None
    isotropy: float | None


class LayersPage(BaseModel):
    """The layers of a model compared."""

    basis: ReportBasis
    rows: int = Field(description="Tokens that layers were compared on, one a context.")
    text: str
    layers: list[int]
    other_layers: list[int]
    other_model: str | None = Field(description="The second model; null within one.")
    second: str | None = Field(description="The model that this one can be compared with; null if there is none.")
    measure: Measure
    measures: list[Measure] = Field(description="Those that were measured.")
    values: Matrix = Field(description="The chosen measure, layers by layers.")
    blocks: list[Block]
    lines: list[LayerLine]
    plot: ShownPlot = Field(description="Of the chosen measure.")
    figures: list[ShownPlot] = Field(description="Figures of each layer.")

    @property
    def table(self) -> Markup:
        """The chosen measure as a table."""
        error = self.measure == "cka-error"
        most = max([1e-9, *(value for row in self.values for value in row if value is not None)]) if error else 1.0
        return matrix_table(
            self.layers, self.other_layers, self.values, f"{self.names[self.measure]} of each pair of layers", most=most
        )

    @property
    def names(self) -> dict[str, str]:
        """Measure -> name."""
        return {name: words[0] for name, words in MEASURES.items()}

    @property
    def words(self) -> str:
        """What the chosen measure says."""
        return MEASURES[self.measure][1]


def layers_page(found: OpenReport, measure: Measure = "cka-standardized", beside: bool = False) -> LayersPage | None:
    """The page of the layers; None where they were not compared.

    Args:
        found: the report.
        measure: which is shown; the first one where it was not measured.
        beside: compare with the second model's layers rather than with each other, where there is one.
    """
    within, between = found.report.similarity, found.report.between
    similarity = between if between is not None and (beside or within is None) else within
    if similarity is None:
        return None
    part = "layers" if similarity is within else "between"
    matrices = _matrices(similarity)
    chosen: Measure = measure if measure in matrices else "cka-standardized"
    plots = {plot.name: shown_plot(plot, report=found.name) for plot in found.plots(part)}
    return LayersPage(
        basis=ReportBasis.of(found),
        rows=similarity.rows,
        text=similarity.text,
        layers=similarity.layers,
        other_layers=similarity.other_layers,
        other_model=similarity.other_model,
        second=between.other_model if between is not None and within is not None else None,
        measure=chosen,
        measures=list(matrices),
        values=matrices[chosen],
        blocks=_blocks(similarity),
        lines=_lines(similarity),
        plot=plots[f"{part}-{MEASURES[chosen][2]}"],
        figures=[plots[name] for name in ("layers-dimension", "layers-norms") if name in plots],
    )


def _matrices(similarity: LayerSimilarity) -> dict[Measure, Matrix]:
    found: dict[Measure, Matrix | None] = {
        "cka-standardized": similarity.cka_standardized,
        "cka": similarity.cka,
        "mutual-knn": similarity.mutual_knn,
        "procrustes": similarity.procrustes,
        "predictivity": similarity.predictivity,
        "concept-overlap": similarity.concept_overlap,
        "cka-error": similarity.cka_error,
    }
    return {name: values for name, values in found.items() if values is not None}


def _blocks(similarity: LayerSimilarity) -> list[Block]:
    layers, starts = similarity.layers, similarity.blocks
    ends = [layers[layers.index(start) - 1] for start in starts[1:]] + [layers[-1]]
    return [
        Block(first=first, last=last, support=support)
        for first, last, support in zip(starts, ends, similarity.block_support, strict=True)
    ]


def _lines(similarity: LayerSimilarity) -> list[LayerLine]:
    return [
        LayerLine(
            layer=layer,
            intrinsic_dimension=similarity.intrinsic_dimension[at],
            participation_ratio=similarity.participation_ratio[at],
            mean_norm=similarity.mean_norm[at],
            first_position_norm=similarity.first_position_norm[at],
            isotropy=similarity.isotropy[at],
        )
        for at, layer in enumerate(similarity.layers)
    ]
