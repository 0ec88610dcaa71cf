"""``neuronmap sae list-concepts``: what can be tracked, and whether a concept file can."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from neuronmap.concepts import Concept, ConceptData

__all__ = ["list_concepts"]

_EXAMPLES = 6


@command_output
def list_concepts(
    name: Annotated[
        str | None, typer.Argument(metavar="CONCEPT", help="Show this one (or a family) with examples.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option("--check", help="Check a concept file: its warnings, and examples of what is read.")
    ] = None,
    items: Annotated[int, typer.Option(min=16, help="Items that would be asked for.")] = 480,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the concepts that can be tracked, or check one of your own. No model is loaded.

    A concept is a contrast with named nuisances: what varies without the label. The one that is **crossed** is left out
    level by level, so that the probe is tested on a condition it has not seen. The docs say how to write a concept file.

    Examples:

        neuronmap sae list-concepts

        neuronmap sae list-concepts syntactic_role

        neuronmap sae list-concepts --check my-concept.yaml
    """
    from neuronmap.concepts import concept_from_file, get_concepts
    from neuronmap.concepts import list_concepts as listed
    from neuronmap.errors import ConfigError

    output = Output(as_json, quiet)
    if name is not None and check is not None:
        raise ConfigError("Give either a concept's name or --check FILE.")
    chosen = [concept_from_file(check)] if check is not None else listed() if name is None else get_concepts(name)
    found = [(concept, concept.generate(items, 0)) for concept in chosen]
    if name is None and check is None:
        rows = [
            [concept.name, concept.contrast, concept.crossed or "–", f"{len(data.items):,}", f"{_clusters(data):,}"]
            for concept, data in found
        ]
        output.show(
            table(
                "",
                ["concept", "contrast", "crossed", "items", "clusters"],
                rows,
                right=["items", "clusters"],
                whole=["concept"],
            )
        )
        output.show(
            "", "[bold]Next[/]: neuronmap sae list-concepts NAME shows examples; --check FILE checks one of yours."
        )
    else:
        output.show(*(part for one in found for part in _shown(*one)))
        if check is not None:
            output.show(
                f"{escape(str(check))} can be tracked: neuronmap sae track-abstractions --concepts {escape(str(check))}"
            )
    output.document(
        {"schema": "neuronmap/sae.list-concepts/1", "concepts": [_record(concept, data) for concept, data in found]}
    )


def _clusters(data: ConceptData) -> int:
    return len({item.cluster for item in data.items})


def _counts(data: ConceptData) -> dict[str, int]:
    from neuronmap.concepts import SPLITS

    return {split: len(data.clusters(split)) for split in SPLITS}


def _shown(concept: Concept, data: ConceptData) -> list[RenderableType]:
    """One concept in full, with examples in which the word that is read is marked."""
    counts = ", ".join(f"{count:,} {split}" for split, count in _counts(data).items())
    facts = [
        ["contrast", concept.contrast],
        ["classes", ", ".join(concept.classes)],
        ["read", concept.read_rule],
        ["nuisances", ", ".join(concept.nuisances) or "none"],
        [
            "crossed",
            f"{concept.crossed}: {', '.join(data.conditions)}"
            if concept.crossed
            else "nothing: found within conditions only",
        ],
        ["behaviour", concept.outcome.description if concept.outcome is not None else "none: no causal profile"],
        ["items", f"{len(data.items):,} in {_clusters(data):,} clusters ({counts})"],
        ["digest", data.digest],
    ]
    parts: list[RenderableType] = [table(f"{concept.name}: {concept.title}", ["", ""], facts), ""]
    parts += [f"[yellow]warning:[/] {escape(sentence)}" for sentence in data.warnings]
    for item in data.items[:_EXAMPLES]:
        start, stop = item.span
        marked = (
            f"{escape(item.text[:start])}[bold underline]{escape(item.text[start:stop])}[/]{escape(item.text[stop:])}"
        )
        parts.append(f"  {marked}  [dim]{escape(item.label)}[/]")
    return [*parts, ""]


def _record(concept: Concept, data: ConceptData) -> dict[str, Any]:
    return {
        **concept.to_dict(),
        "items": len(data.items),
        "clusters": _counts(data),
        "conditions": list(data.conditions),
        "digest": data.digest,
        "warnings": list(data.warnings),
        "examples": [item.to_dict() for item in data.items[:_EXAMPLES]],
    }
