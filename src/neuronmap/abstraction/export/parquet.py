"""A report as one long table: a row for each figure, with its interval where it has one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from neuronmap.abstraction.record import ConceptResult, Curve, Interval, LayerSimilarity, Matrix, Series, TrackingReport

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["report_arrow", "report_parquet"]


class _Figure(NamedTuple):
    concept: str | None
    layer: int | None
    other_layer: int | None
    measure: str
    value: float | None
    low: float | None = None
    high: float | None = None


def report_arrow(report: TrackingReport) -> pa.Table:
    """The long table.

    Returns:
        Columns ``concept`` (null for figures of layers), ``layer`` (null for figures of the whole concept), ``other_layer`` (of matrices),
        ``depth`` (layer over blocks), ``measure``, ``value``, ``low``, ``high``. Null is "not established" or "not measured". Model,
        settings and versions are in the schema's metadata under ``neuronmap``.
    """
    import pyarrow as pa

    figures = [figure for result in report.concepts for figure in _of_concept(result)]
    if report.similarity is not None:
        figures += _of_layers(report.similarity)
    if report.between is not None:
        figures += _matrices(report.between, "between_")
    columns = list(zip(*figures, strict=True)) if figures else [()] * 7
    concept, layer, other, measure, value, low, high = columns
    depth = [None if one is None else one / max(report.blocks, 1) for one in layer]
    facts = report.to_dict()
    kept = (
        "format",
        "format_version",
        "rules_version",
        "created",
        "code_version",
        "name",
        "model",
        "preset",
        "settings",
        "blocks",
        "warnings",
    )
    digests = {str(result.concept["name"]): result.dataset_digest for result in report.concepts}
    about = json.dumps({**{name: facts[name] for name in kept}, "datasets": digests})
    schema = pa.schema(
        [
            ("concept", pa.string()), ("layer", pa.int32()), ("other_layer", pa.int32()), ("depth", pa.float64()), ("measure", pa.string()),
            ("value", pa.float64()), ("low", pa.float64()), ("high", pa.float64()),
        ],
        metadata={"neuronmap": about},
    )  # fmt: skip
    return pa.table([list(part) for part in (concept, layer, other, depth, measure, value, low, high)], schema=schema)


def report_parquet(report: TrackingReport, path: str | Path) -> Path:
    """Write the long table.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow.parquet as pq

    target = Path(path)
    pq.write_table(report_arrow(report), target, compression="zstd")
    return target


def _of_concept(result: ConceptResult) -> Iterator[_Figure]:
    name = str(result.concept["name"])

    def series(measure: str, values: Series | None) -> Iterator[_Figure]:
        for layer, value in zip(result.layers, values or [], strict=values is not None):
            yield _Figure(name, layer, None, measure, value)

    def curve(measure: str, found: Curve) -> Iterator[_Figure]:
        for at, layer in enumerate(result.layers):
            yield _Figure(name, layer, None, measure, found.score[at], found.low[at], found.high[at])
            yield _Figure(
                name, layer, None, f"{measure}_band", found.score[at], found.band_low[at], found.band_high[at]
            )

    yield from curve("within", result.within)
    if result.cross is not None:
        yield from curve("cross", result.cross.mean)
        yield from series("cross_worst", result.cross.worst)
        for level in result.cross.levels:
            yield from series(f"cross:{level.level}", level.score)
            yield from series(f"within:{level.level}", level.within)
            yield from series(f"alone:{level.level}", level.alone)
    for measure in (
        "within_bits", "within_balanced", "calibration_error", "difference_of_means", "difference_norm",
        "difference_reliability", "mlp",
        "parallelism", "p_value", "random_concept95", "rotation",
    ):  # fmt: skip
        yield from series(measure, getattr(result, measure))
    if result.control is not None:
        for measure in ("shared", "real", "selectivity", "heldout"):
            yield from series(f"control_{measure}", getattr(result.control, measure))
    yield from series("random_weights_within", result.baselines.random_within)
    yield from series("random_weights_cross", result.baselines.random_cross)
    yield from _matrix(name, "transfer", result.layers, result.layers, result.transfer)
    yield from _effects(name, result)
    yield from _whole(name, result)


def _effects(name: str, result: ConceptResult) -> Iterator[_Figure]:
    found = result.causal
    for at, layer in enumerate(found.layers if found is not None else []):
        if found is not None:
            yield _interval(name, layer, "causal_swapped", found.swapped[at])
            yield _interval(name, layer, "causal_erased", found.erased[at])
            yield _Figure(name, layer, None, "causal_random_swapped95", found.random_swapped[at])
            yield _Figure(name, layer, None, "causal_random_erased95", found.random_erased[at])


def _whole(name: str, result: ConceptResult) -> Iterator[_Figure]:
    """Figures of the concept as a whole: their layer is null."""
    summary, found = result.summary, result.complexity
    low, high = summary.emergence_interval or (None, None)
    yield _Figure(name, None, None, "emergence", summary.emergence, low, high)
    yield _interval(name, None, "half_depth", summary.half_depth)
    yield _interval(name, None, "depth90", summary.depth90)
    for measure in ("gain", "best", "saturation", "decay", "expected_layer", "handoff", "half_depth_relative"):
        yield _Figure(name, None, None, measure, getattr(summary, measure))
    yield _Figure(name, None, None, "null95", result.null95)
    yield _Figure(name, None, None, "null95_within", result.null95_within)
    yield _Figure(name, None, None, "mean_of_embeddings", result.baselines.mean_of_embeddings)
    yield _Figure(name, None, None, "position_length", result.baselines.position_length)
    if found is not None:
        for measure in (
            "mdl_bits",
            "mdl_bits_embedding",
            "compression",
            "n90",
            "rank90",
            "mlp_gap",
            "context_need",
            "within_cross_gap",
        ):
            yield _interval(name, None, measure, getattr(found, measure))
        yield _Figure(name, None, None, "rank", found.rank, found.rank_low, found.rank_high)
        yield _Figure(name, None, None, "tie", found.tie)


def _matrices(found: LayerSimilarity, before: str) -> Iterator[_Figure]:
    for measure in (
        "cka",
        "cka_standardized",
        "cka_error",
        "mutual_knn",
        "procrustes",
        "predictivity",
        "concept_overlap",
    ):
        matrix = getattr(found, measure)
        if matrix is not None:
            yield from _matrix(None, f"{before}{measure}", found.layers, found.other_layers, matrix)


def _of_layers(found: LayerSimilarity) -> Iterator[_Figure]:
    yield from _matrices(found, "")
    for at, layer in enumerate(found.layers):
        yield _interval(None, layer, "intrinsic_dimension", found.intrinsic_dimension[at])
        for measure in ("participation_ratio", "mean_norm", "isotropy", "first_position_norm"):
            yield _Figure(None, layer, None, measure, getattr(found, measure)[at])


def _matrix(name: str | None, measure: str, rows: list[int], columns: list[int], values: Matrix) -> Iterator[_Figure]:
    for layer, row in zip(rows, values, strict=True):
        for other, value in zip(columns, row, strict=True):
            yield _Figure(name, layer, other, measure, value)


def _interval(name: str | None, layer: int | None, measure: str, found: Interval) -> _Figure:
    return _Figure(name, layer, None, measure, found.value, found.low, found.high)
