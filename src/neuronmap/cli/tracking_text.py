"""A report of the tracker on the terminal: what was found, in sentences, and where to look further."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rich.markup import escape

from neuronmap.abstraction.export.words import (
    COMPLEXITY_ABOUT,
    COMPLEXITY_HEADS,
    FLOW_HEADS,
    PROMPT_HEADS,
    SUMMARY_HEADS,
    complexity_cells,
    flow_cells,
    prompt_cells,
    summary_cells,
)
from neuronmap.cli.output import table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from neuronmap.abstraction.record import ConceptResult, LayerSimilarity, TrackingReport

__all__ = ["report_text"]


def report_text(report: TrackingReport) -> list[RenderableType]:
    """The parts of the report that there are, each with an empty line behind."""
    parts: list[RenderableType] = [*_head(report)]
    if report.concepts:
        rows = [summary_cells(result) for result in report.concepts]
        parts += [table("", SUMMARY_HEADS, rows, right=["best AUC", "bits"], whole=_WHOLE), ""]
        parts += [line for result in report.concepts for line in _statement(result)]
        parts += _warnings(report)
    ranking = complexity_cells(report)
    if ranking:
        title = f"Complexity for this model on this data, simplest first\n{COMPLEXITY_ABOUT}"
        shown = [at for at, head in enumerate(COMPLEXITY_HEADS) if head != "half depth"]  # it is in the first table
        heads, rows = [COMPLEXITY_HEADS[at] for at in shown], [[row[at] for at in shown] for row in ranking]
        parts += [table(title, heads, rows, right=heads[2:], whole=_WHOLE), ""]
    if report.similarity is not None:
        parts += [escape(_layers(report.similarity)), ""]
    if report.between is not None:
        parts += [escape(_between(report.between)), ""]
    for trajectory in report.trajectories:
        title = f"“{trajectory.prompt}”: where each concept is strongest"
        parts += [table(escape(title), PROMPT_HEADS, prompt_cells(trajectory), right=["log-odds"], whole=_WHOLE), ""]
    if report.flow is not None:
        title = f"Features from layer to layer, on {report.flow.tokens:,} tokens"
        parts += [table(title, FLOW_HEADS, flow_cells(report.flow), right=FLOW_HEADS[2:]), ""]
    return [*parts, *_next(report)]


_WHOLE = ("concept", "place")


def _head(report: TrackingReport) -> list[RenderableType]:
    stride = (
        f"{len(report.layers)} layers from 0 (the embedding) to {report.layers[-1]}" if report.layers else "no layers"
    )
    seconds = sum(report.seconds.values())
    head = (
        f"[bold]{escape(str(report.model['name']))}[/]: {len(report.concepts)} concepts at {stride}, preset {report.preset}, "
        f"seed {report.settings.get('seed', 0)}, {_duration(seconds)}"
    )
    return [head, ""]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _statement(result: ConceptResult) -> list[RenderableType]:
    return [f"[bold]{escape(str(result.concept['name']))}[/]: {escape(result.summary.statement)}"]


def _warnings(report: TrackingReport) -> list[RenderableType]:
    """Each sentence once, with the concepts that it is about."""
    about: dict[str, list[str]] = defaultdict(list)
    for result in report.concepts:
        for sentence in result.warnings:
            about[sentence].append(str(result.concept["name"]))
    lines = [f"[yellow]warning:[/] {escape(sentence)}" for sentence in report.warnings]
    for sentence, names in about.items():
        who = "all concepts" if len(names) == len(report.concepts) > 1 else ", ".join(names)
        lines.append(f"[yellow]warning:[/] {escape(who)}: {escape(sentence)}")
    return ["", *lines, ""] if lines else [""]


def _layers(found: LayerSimilarity) -> str:
    where = f"Layers compared on {found.rows:,} tokens of {found.text}"
    if len(found.blocks) < 2:
        return f"{where}: no boundary between blocks of layers was found."
    starts = ", ".join(
        f"{first} ({100 * support:.0f} %)"
        for first, support in zip(found.blocks[1:], found.block_support[1:], strict=True)
    )
    return (
        f"{where}: new blocks of similar layers begin at layer {starts}; in brackets the share of resamples that agree."
    )


def _between(found: LayerSimilarity) -> str:
    """The pair of layers that are most alike."""
    known = [
        (value, found.layers[row], found.other_layers[column])
        for row, values in enumerate(found.cka_standardized)
        for column, value in enumerate(values)
        if value is not None
    ]
    if not known:
        return f"Layers compared with {found.other_model}: no figure is established."
    value, layer, other = max(known)
    return (
        f"Layers compared with those of {found.other_model} on {found.rows:,} tokens of {found.text}: most alike are layer {layer} "
        f"and its layer {other}, CKA {value:.2f} (standardised)."
    )


def _next(report: TrackingReport) -> list[RenderableType]:
    if not report.name:
        return ["Not kept. With --format html the plots go into a page."]
    name = escape(report.name)
    return [
        f"Kept as [bold]{name}[/]. Plots: neuronmap sae show-report {name} --format html,  or neuronmap serve",
    ]
