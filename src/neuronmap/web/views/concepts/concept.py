"""One concept of a report: what was found, every curve, the probes across layers, examples, controls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markupsafe import Markup
from pydantic import BaseModel, Field

from neuronmap.abstraction.record import ConceptResult, Series, Summary
from neuronmap.web.reports import OpenReport
from neuronmap.web.views.concepts.basis import ReportBasis
from neuronmap.web.views.concepts.plots import ShownPlot, shown_plot
from neuronmap.web.views.concepts.report import ConceptRow, concept_row, in_order
from neuronmap.web.views.concepts.tables import matrix_table
from neuronmap.web.views.concepts.words import interval_words, spans

__all__ = ["ConceptPage", "Fact", "LayerRow", "MarkedText", "concept_page"]


class Fact(BaseModel):
    """A figure with its name and what it is."""

    name: str
    value: str
    about: str


class MarkedText(BaseModel):
    """An example, cut at the word where the model is read."""

    before: str
    word: str
    after: str
    label: str
    condition: str


class LayerRow(BaseModel):
    """Scores at one layer; null is not measured."""

    layer: int
    cross: float | None = Field(description="Across conditions, mean over the levels.")
    cross_low: float | None = Field(description="Lower end of the 95 % band over all layers at once.")
    cross_high: float | None
    worst: float | None = Field(description="Across conditions, on the worst level.")
    within: float | None = Field(description="Within conditions.")
    within_low: float | None = Field(description="Lower end of the pointwise 95 % interval.")
    within_high: float | None
    bits: float | None = Field(description="Usable information, bits an item.")
    p: float | None = Field(description="Family-wise error over the layers, by the permutations' maximum.")


class ControlRow(BaseModel):
    """A baseline or a control, at the embedding and at the best layer."""

    name: str
    about: str
    embedding: float | None
    best: float | None


class ConceptPage(BaseModel):
    """One concept in one model."""

    basis: ReportBasis
    row: ConceptRow
    result: ConceptResult = Field(description="The record itself.")
    facts: list[Fact]
    plots: list[ShownPlot]
    layers: list[LayerRow]
    controls: list[ControlRow]
    best_layer: int | None = Field(description="Layer of the best headline score, that controls are shown at.")
    examples: list[MarkedText]
    previous: str | None = Field(description="The concept before it, in order of complexity.")
    following: str | None = Field(description="The one after it.")

    def plot(self, kind: str) -> ShownPlot | None:
        """The plot of a kind: curve, levels, transfer, rotation, bits, control, causal."""
        return next((one for one in self.plots if one.name.startswith(f"{kind}-")), None)

    @property
    def transfer(self) -> Markup:
        """The transfer matrix as a table."""
        layers = self.result.layers
        label = "AUC of the probe trained at one layer (row) and applied at another (column)"
        return matrix_table(layers, layers, self.result.transfer, label, corner="trained at", middle=0.5, most=0.5)

    @property
    def of_class(self) -> dict[str, str]:
        """Shade of each class: the first has none."""
        shades = ("", "a6", "n5", "a12", "n10")
        return {name: shades[at % len(shades)] for at, name in enumerate(self.result.concept["classes"])}


def concept_page(found: OpenReport, name: str) -> ConceptPage:
    """The page of a concept.

    Raises:
        WebError: 404, the report has no such concept.
    """
    result = found.concept(name)
    names = [str(one.concept["name"]) for one in in_order(found.report)]
    at = names.index(name)
    row = concept_row(result)
    best = _best(row)
    return ConceptPage(
        basis=ReportBasis.of(found),
        row=row,
        result=result,
        facts=_facts(row, result.summary),
        plots=[shown_plot(plot, report=found.name) for plot in found.plots("concept", name)],
        layers=_layer_rows(result),
        controls=_controls(result, best),
        best_layer=None if best is None else result.layers[best],
        examples=[_marked(one) for one in result.examples],
        previous=names[at - 1] if at else None,
        following=names[at + 1] if at + 1 < len(names) else None,
    )


def _best(row: ConceptRow) -> int | None:
    known = [(value, -at) for at, value in enumerate(row.curve) if value is not None]
    return -max(known)[1] if known else None


def _facts(row: ConceptRow, summary: Summary) -> list[Fact]:
    relative = summary.half_depth_relative
    values = {
        "half_depth": row.half_words,
        "half_depth_relative": "–" if relative is None else f"{relative:.2f}",
        "emergence": row.emergence_words,
        "depth90": "–" if summary.depth90.value is None else interval_words(summary.depth90),
        "peak": spans(summary.peak, row.layers),
        "saturation": _layer(summary.saturation),
        "decay": "none" if summary.decay is None else str(summary.decay),
        "best": "–" if summary.best is None else f"{summary.best:.3f}",
        "gain": "–" if summary.gain is None else f"{summary.gain:+.3f}",
        "expected_layer": "–" if summary.expected_layer is None else f"{summary.expected_layer:.1f}",
        "handoff": "none" if summary.handoff is None else str(summary.handoff),
    }
    titles = {
        "half_depth_relative": "half depth, of all blocks",
        "depth90": "nine tenths of the way",
        "peak": "peak set",
        "best": "best AUC",
        "gain": "gain over the embedding",
        "handoff": "direction settles at",
    }
    about = {name: " ".join((field.description or "").split()) for name, field in Summary.model_fields.items()}
    return [
        Fact(name=titles.get(name, name.replace("_", " ")), value=value, about=about[name])
        for name, value in values.items()
    ]


def _layer(layer: int | None) -> str:
    return "not established" if layer is None else f"layer {layer}"


def _layer_rows(result: ConceptResult) -> list[LayerRow]:
    cross = result.cross
    none: Series = [None] * len(result.layers)
    mean = cross.mean if cross is not None else None
    columns = {
        "cross": mean.score if mean else none,
        "cross_low": mean.band_low if mean else none,
        "cross_high": mean.band_high if mean else none,
        "worst": cross.worst if cross is not None else none,
        "within": result.within.score,
        "within_low": result.within.low,
        "within_high": result.within.high,
        "bits": result.within_bits,
        "p": result.p_value,
    }
    return [
        LayerRow(layer=layer, **{name: values[at] for name, values in columns.items()})
        for at, layer in enumerate(result.layers)
    ]


def _controls(result: ConceptResult, best: int | None) -> list[ControlRow]:
    given = result.baselines

    def row(name: str, about: str, values: Series | None) -> list[ControlRow]:
        if values is None:
            return []
        return [ControlRow(name=name, about=about, embedding=values[0], best=None if best is None else values[best])]

    def level(name: str, about: str, value: float | None) -> list[ControlRow]:
        return [] if value is None else [ControlRow(name=name, about=about, embedding=value, best=value)]

    mean = result.cross.mean.score if result.cross is not None else None
    return [
        *row("across conditions", "The headline, for comparison.", mean),
        *row("within conditions", "Held-out clusters, the same conditions.", result.within.score),
        *row(
            "difference of means",
            "Only the dominant direction: no fitting beyond the two class means.",
            result.difference_of_means,
        ),
        *row("small MLP", "Sees what is not along a direction.", result.mlp),
        *level(
            "null, 95 %", "Labels shuffled: 95 % of the relabelings stay below at all layers at once.", result.null95
        ),
        *row(
            "random splits, 95 %",
            "Probes for random splits of the same texts, scored on the real labels.",
            result.random_concept95,
        ),
        *level(
            "mean of embeddings", "The words up to the one that is read, without their order.", given.mean_of_embeddings
        ),
        *level("position and length", "Where the word stands, and how much text is before it.", given.position_length),
        *row("random weights, across", "The same architecture, untrained.", given.random_cross),
        *row("random weights, within", "The same architecture, untrained.", given.random_within),
        *_control_rows(result, row),
    ]


def _control_rows(result: ConceptResult, row: Callable[[str, str, Series], list[ControlRow]]) -> list[ControlRow]:
    control = result.control
    if control is None:
        return []
    return [
        *row("control task, words shared", "Random labels of words: how much a probe can memorise.", control.shared),
        *row(
            "selectivity", "The concept minus the control task, on words that training has seen.", control.selectivity
        ),
        *row("control task, words held out", "Chance by construction.", control.heldout),
    ]


def _marked(example: dict[str, Any]) -> MarkedText:
    text, (start, stop) = str(example["text"]), example["span"]
    return MarkedText(
        before=text[:start],
        word=text[start:stop],
        after=text[stop:],
        label=str(example["label"]),
        condition=str(example.get("condition") or ""),
    )
