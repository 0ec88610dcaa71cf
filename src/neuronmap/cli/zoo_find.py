"""``neuronmap zoo search``, ``compatible``, ``show``, ``versions`` and ``lineage``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.cli.zoo_options import (
    ReferenceArgument,
    ZooOption,
    open_zoo,
    version_document,
    version_lines,
    version_rows,
)

if TYPE_CHECKING:
    from neuronmap.zoo.views import SearchHit

__all__ = ["compatible", "lineage", "search", "show", "versions"]


_Words = Annotated[list[str] | None, typer.Argument(help="Words that it must hold.", show_default=False)]
_Kind = Annotated[str | None, typer.Option(help="SAE_MODEL, ANALYSIS_RESULT, EXPLANATIONS, CIRCUIT, DATASET.")]
_Tag = Annotated[list[str] | None, typer.Option("--tag", "-t", help="A tag that it must have; repeat for more.")]
_Model = Annotated[str | None, typer.Option("--model", "-m", help="Language model, with or without its owner.")]
_Hook = Annotated[str | None, typer.Option(help="Exact hook point.")]
_Layer = Annotated[int | None, typer.Option("--layer", "-l", help="Block, counted from 0.")]
_Component = Annotated[str | None, typer.Option(help="residual, mlp, attention, ...")]
_Architecture = Annotated[str | None, typer.Option("--architecture", "-a", help="Of the SAE.")]
_DIn = Annotated[int | None, typer.Option(help="Width of the activation.")]
_WidthMin = Annotated[int | None, typer.Option(help="Features at least.")]
_WidthMax = Annotated[int | None, typer.Option(help="Features at most.")]
_L0Min = Annotated[float | None, typer.Option(help="Active features of a token at least.")]
_L0Max = Annotated[float | None, typer.Option(help="Active features of a token at most.")]
_Where = Annotated[
    list[str] | None,
    typer.Option("--where", "-w", help="Only where a figure fits, e.g. 'explained_variance>=0.7'."),
]
_Licence = Annotated[str | None, typer.Option("--licence", "--license", help="SPDX expression.")]
_Author = Annotated[str | None, typer.Option(help="Part of an author's name.")]
_Namespace = Annotated[str | None, typer.Option(help="Person or organisation.")]
_AllVersions = Annotated[bool, typer.Option("--all-versions", help="Not the newest of each artefact alone.")]
_Sort = Annotated[
    str,
    typer.Option(
        help="relevance, newest, stars, downloads, name, width, l0 or metric:NAME; - in front turns it round."
    ),
]
_Limit = Annotated[int, typer.Option(help="Hits of a page, 1 to 100.")]
_Cursor = Annotated[str | None, typer.Option(help="Go on with the next page.")]


@command_output
def search(
    words: _Words = None,
    kind: _Kind = None,
    tag: _Tag = None,
    model: _Model = None,
    hook: _Hook = None,
    layer: _Layer = None,
    component: _Component = None,
    architecture: _Architecture = None,
    d_in: _DIn = None,
    width_min: _WidthMin = None,
    width_max: _WidthMax = None,
    l0_min: _L0Min = None,
    l0_max: _L0Max = None,
    where: _Where = None,
    licence: _Licence = None,
    author: _Author = None,
    namespace: _Namespace = None,
    all_versions: _AllVersions = False,
    sort: _Sort = "relevance",
    limit: _Limit = 20,
    cursor: _Cursor = None,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Search for artefacts. All conditions must hold; without any, everything is found, the newest first.

    Yanked versions and drafts are not found.

    Examples:

        neuronmap zoo search induction --model gpt2 --layer 8

        neuronmap zoo search --kind SAE_MODEL --where 'explained_variance>=0.7' --l0-max 40 --sort l0

        neuronmap zoo search --tag safety --zoo https://zoo.example.org
    """
    from neuronmap.zoo.search.query import Query

    output = Output(as_json, quiet)
    asked = {
        "q": " ".join(words or []),
        "kind": kind,
        "tag": tuple(tag or ()),
        "model": model,
        "hook": hook,
        "layer": layer,
        "component": component,
        "architecture": architecture,
        "d_in": d_in,
        "width_min": width_min,
        "width_max": width_max,
        "l0_min": l0_min,
        "l0_max": l0_max,
        "metric": tuple(where or ()),
        "licence": licence,
        "author": author,
        "namespace": namespace,
        "all_versions": all_versions,
        "sort": sort,
        "limit": limit,
        "cursor": cursor,
    }
    query = Query.read({name: value for name, value in asked.items() if value is not None})
    with open_zoo(output, zoo) as opened:
        page = opened.search_page(query)
        location = opened.location
    if page.hits:
        columns = ["reference", "kind", "model", "place", "features", "L0", "stars", "title"]
        output.show(
            table(
                "",
                columns,
                [_row(hit) for hit in page.hits],
                right=["features", "L0", "stars"],
                whole=["reference", "kind"],
            )
        )
        if page.total is not None and page.total > len(page.hits):
            output.show(f"{len(page.hits)} of {page.total:,}.")
        if page.next:
            output.show(escape(f"More: --cursor {page.next}"))
    else:
        output.show(f"Nothing in {escape(location)} fits.")
    values = page.to_dict()
    output.document({"schema": "neuronmap/zoo.search/1", "zoo": location, **values})


def _row(hit: SearchHit) -> list[str]:
    place = f"{hit.layer} {hit.component or ''}".strip() if hit.layer is not None else (hit.hook or "")
    deprecated = " (deprecated)" if hit.state == "deprecated" else ""
    return [
        hit.reference,
        hit.kind,
        hit.model or "",
        place,
        f"{hit.width:,}" if hit.width is not None else "",
        f"{hit.l0:.1f}" if hit.l0 is not None else "",
        str(hit.stars),
        hit.title + deprecated,
    ]


@command_output
def compatible(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Language model, with or without its owner.")
    ] = None,
    layer: Annotated[int | None, typer.Option("--layer", "-l", help="Block, counted from 0.")] = None,
    component: Annotated[str | None, typer.Option(help="residual, mlp, attention, ...")] = None,
    d_in: Annotated[int | None, typer.Option(help="Width of the activation there.")] = None,
    tokenizer_digest: Annotated[str | None, typer.Option(help="Of the model's tokenizer.")] = None,
    model_digest: Annotated[str | None, typer.Option(help="Of the model's weights: equal digests fit exactly.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most, 1 to 100.")] = 20,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Which SAEs fit this model and layer? The best fit comes first, with the reasons.

    Example:

        neuronmap zoo compatible --model gpt2 --layer 8 --component mlp
    """
    from neuronmap.zoo.search.query import CompatibilityQuery

    output = Output(as_json, quiet)
    asked = {
        "model": model,
        "layer": layer,
        "component": component,
        "d_in": d_in,
        "tokenizer_digest": tokenizer_digest,
        "model_digest": model_digest,
        "limit": limit,
    }
    query = CompatibilityQuery.read({name: value for name, value in asked.items() if value is not None})
    with open_zoo(output, zoo) as opened:
        page = opened.compatible(query)
        location = opened.location
    rows = [[hit.reference, hit.fit, "yes" if hit.usable else "try it", " ".join(hit.reasons)] for hit in page.hits]
    output.show(
        table("", ["reference", "fit", "usable", "why"], rows, whole=["reference"])
        if rows
        else f"No SAE in {escape(location)} fits."
    )
    output.document({"schema": "neuronmap/zoo.compatible/1", "zoo": location, **page.to_dict()})


@command_output
def show(
    reference: ReferenceArgument,
    card: Annotated[bool, typer.Option("--card", help="Print its card as well.")] = False,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show a version: what it is, its files, what it was made from, what is said about it.

    Examples:

        neuronmap zoo show ada/demo

        neuronmap zoo show ada/demo@1.0 --json
    """
    output = Output(as_json, quiet)
    with open_zoo(output, zoo) as opened:
        view = opened.show(reference)
        output.show(*version_lines(view))
        path = view.manifest.get("card")
        if card and path:
            from neuronmap.zoo.client.http import plain

            text = opened.open_file(f"{view.namespace}/{view.name}@{view.digest}", str(path)).decode("utf-8", "replace")
            output.show("", escape(plain(text)))
        output.document(version_document("show", opened, view))


@command_output
def versions(
    reference: ReferenceArgument,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the versions of an artefact with their states and aliases: yanked and deleted ones too.

    Example:

        neuronmap zoo versions ada/demo
    """
    output = Output(as_json, quiet)
    with open_zoo(output, zoo) as opened:
        found = opened.artefact(reference)
        location = opened.location
    columns = ["version", "aliases", "state", "size", "published", "digest"]
    output.show(
        table(
            escape(f"{found.namespace}/{found.name}"),
            columns,
            version_rows(found.versions),
            right=["size"],
            whole=["version", "state"],
        ),
        escape(f"latest means {found.latest or 'nothing'}."),
    )
    output.document({"schema": "neuronmap/zoo.versions/1", "zoo": location, "artefact": found.to_dict()})


@command_output
def lineage(
    reference: ReferenceArgument,
    depth: Annotated[int, typer.Option(help="Edges from it at most, 1 to 20.")] = 3,
    svg: Annotated[Path | None, typer.Option(help="Also write a picture to this file.")] = None,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw what a version was made from, and what was made from it or is about it.

    Examples:

        neuronmap zoo lineage ada/demo-features

        neuronmap zoo lineage ada/demo@1.0 --depth 5 --svg lineage.svg
    """
    from neuronmap import paths
    from neuronmap.zoo.client.drawing import lineage_svg, lineage_text

    output = Output(as_json, quiet)
    with open_zoo(output, zoo) as opened:
        found = opened.lineage(reference, depth=depth)
        location = opened.location
    output.show(escape(lineage_text(found)))
    if svg is not None:
        paths.write_bytes(svg, lineage_svg(found).encode())
        output.show(f"The picture is in {escape(str(svg))}.")
    output.document(
        {
            "schema": "neuronmap/zoo.lineage/1",
            "zoo": location,
            "lineage": found.to_dict(),
            "svg": str(svg) if svg is not None else None,
        }
    )
