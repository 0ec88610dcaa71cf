"""One concept in several models, by relative depth."""

from __future__ import annotations

from collections.abc import Sequence

from neuronmap.abstraction.plots.look import DASHES, HUES, SYMBOLS, band, depths, layout, line, short_digest
from neuronmap.abstraction.plots.plot_data import Cell, PlotData
from neuronmap.abstraction.plots.results import concept_of
from neuronmap.abstraction.record import TrackingReport
from neuronmap.errors import InputError

__all__ = ["compare_plot"]


def compare_plot(reports: Sequence[TrackingReport], concept: str) -> PlotData:
    """The headline curve of one concept in several reports, from the embedding (0) to the last block's output (1).

    Raises:
        InputError: no report was given, or one has no such concept.
    """
    if not reports:
        raise InputError("No report was given to compare.")
    traces, rows, notes = [], [], []
    title = concept
    names = _names(reports)
    for at, (report, name) in enumerate(zip(reports, names, strict=True)):
        result = concept_of(report, concept)
        title = str(result.concept["title"])
        curve = result.within if result.cross is None else result.cross.mean
        kind = "within" if result.cross is None else "across"
        x = depths(result.layers, report.blocks)
        hue, said = HUES[at % len(HUES)], f"{name} ({kind} conditions)"
        bands = band(said, x, curve.band_low, curve.band_high, hue)
        traces += [{**piece, "showlegend": False} for piece in bands]
        traces.append(
            line(
                said, x, curve.score, hue, dash=DASHES[at % len(DASHES)], symbol=SYMBOLS[at % len(SYMBOLS)], legendgroup=said,
                text=[f"layer {layer}" for layer in result.layers], hovertemplate="depth %{x:.2f} (%{text}): %{y:.3f}",
            )
        )  # fmt: skip
        rows += _rows(report, name, concept)
        half = result.summary.half_depth_relative
        depth = "not established" if half is None else f"{half:.2f}"
        notes.append(
            f"{name}: {result.summary.verdict}, half depth {depth}, {result.items:,} items, seed "
            f"{report.settings.get('seed', 0)}, data {short_digest(result.dataset_digest)}"
        )
    figure = {
        "data": traces,
        "layout": layout(
            xaxis={"title": {"text": "Relative depth (0 is the embedding, 1 the last block's output)"},
                   "range": [-0.02, 1.02], "zeroline": False},
            yaxis={"title": {"text": "AUC"}, "zeroline": False},
        ),
    }  # fmt: skip
    digests = {concept_of(report, concept).dataset_digest for report in reports}
    same = "All on the same items." if len(digests) == 1 else "Not all on the same items: compare with care."
    about = (
        f"The headline curve of each report with its band over all layers at once; 0.5 is chance. {same} "
        f"{'. '.join(notes)}. Relative depth makes models of different length comparable; it does not make their "
        "layers the same."
    )
    columns = ["report", "model", "layer", "depth", "score", "band_low", "band_high"]
    return PlotData(
        f"compare-{concept}", f"{title}: {len(reports)} reports by relative depth", about, columns, rows, figure
    )


def _rows(report: TrackingReport, name: str, concept: str) -> list[list[Cell]]:
    result = concept_of(report, concept)
    curve = result.within if result.cross is None else result.cross.mean
    depth = depths(result.layers, report.blocks)
    return [
        [name, str(report.model["name"]), layer, depth[at], curve.score[at], curve.band_low[at], curve.band_high[at]]
        for at, layer in enumerate(result.layers)
    ]


def _names(reports: Sequence[TrackingReport]) -> list[str]:
    """The model's name, with the report's where a model occurs twice or is a folder, whose name may say little."""
    models = [str(report.model["name"]).rstrip("/") for report in reports]
    names = []
    for at, (model, report) in enumerate(zip(models, reports, strict=True)):
        short = model.rsplit("/", 1)[-1]
        told = models.count(model) > 1 or model.startswith("/")
        names.append(f"{short}, {report.name or f'report {at + 1}'}" if told else short)
    return names
