"""What the commands of ``neuronmap zoo`` share: which zoo, and how versions are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from neuronmap.cli.output import Output, table
from neuronmap.paths import human_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from neuronmap.zoo.client.zoo import Zoo
    from neuronmap.zoo.views import VersionSummary, VersionView

__all__ = [
    "OfflineOption",
    "ReasonOption",
    "ReferenceArgument",
    "ZooOption",
    "open_zoo",
    "version_document",
    "version_lines",
    "version_rows",
    "warn_quietly",
]

ZooOption = Annotated[
    str | None,
    typer.Option(
        "--zoo",
        "-z",
        metavar="ZOO",
        help="Folder or address; NEURONMAP_ZOO, else the zoo in the home folder, if left out.",
    ),
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Ask no server: only what was pulled before.")]
ReferenceArgument = Annotated[
    str,
    typer.Argument(
        metavar="REF", help="namespace/name, with @1.0, @alias or @sha256:... behind it.", show_default=False
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="Why; kept and shown.", show_default=False)]


def open_zoo(output: Output, zoo: str | None, offline: bool = False, *, make: bool = False) -> Zoo:
    """The zoo of the command.

    Args:
        output: where notes and bars go.
        zoo: folder or address.
        offline: whether servers must not be asked.
        make: whether a zoo is made in a folder where there is none, as commands do that put something into it.
    """
    from neuronmap.zoo.client.zoo import Zoo

    return Zoo(zoo, offline=True if offline else None, progress=output.progress(), must_exist=not make)


def warn_quietly(output: Output, messages: Iterable[str]) -> None:
    """With ``--quiet``, warnings all the same, on stderr; without it they are notes of the progress, and were said already."""
    if output.quiet:
        console = Console(stderr=True)
        for message in dict.fromkeys(messages):
            console.print(f"[yellow]warning:[/] {escape(message)}", highlight=False, soft_wrap=True)


def version_document(command: str, zoo: Zoo, view: VersionView) -> dict[str, Any]:
    """The JSON document about one version."""
    return {"schema": f"neuronmap/zoo.{command}/1", "zoo": zoo.location, "version": view.to_dict()}


def version_lines(view: VersionView) -> list[RenderableType]:
    """A version for people."""
    manifest = view.manifest
    record = manifest.get("record", {})
    hook, model = record.get("hook") or {}, record.get("model") or {}
    metrics = record.get("metrics") or {}
    first = [name for name in ("explained_variance", "l0", "ce_score_mean", "score") if name in metrics]
    shown = [*first, *(name for name in metrics if name not in first)][:8]
    facts = [
        ("reference", view.reference),
        ("digest", view.digest),
        ("state", f"{view.state}{f': {view.reason}' if view.reason else ''}"),
        ("successor", view.successor or ""),
        ("kind", view.kind),
        ("title", manifest.get("title", "")),
        ("summary", manifest.get("summary", "")),
        ("model", " ".join(str(part) for part in (model.get("name"), model.get("revision")) if part)),
        ("hook", str(hook.get("name", ""))),
        ("figures", ", ".join(f"{name} {metrics[name]:.4g}" for name in shown)),
        ("licence", manifest.get("licence", "")),
        ("authors", ", ".join(str(one.get("name")) for one in manifest.get("authors", []))),
        ("tags", ", ".join(manifest.get("tags", []))),
        ("aliases", ", ".join(view.aliases)),
        ("made from", ", ".join(one.reference for one in view.depends_on)),
        ("evidence", ", ".join(one.reference for one in view.evidence)),
        ("used by", f"{view.used_by} {'version' if view.used_by == 1 else 'versions'}" if view.used_by else ""),
        ("published", f"{view.published or 'not yet'}{f' by {view.publisher}' if view.publisher else ''}"),
        ("seen", f"{view.downloads} pulls, {view.stars} stars{', private' if view.private else ''}"),
    ]
    files = [[file.path, human_bytes(file.size), file.digest] for file in view.files]
    return [
        table("", ["", ""], [[name, str(value)] for name, value in facts if value]),
        "",
        table("", ["file", "size", "digest"], files, right=["size"]),
        "",
        escape(f"  neuronmap zoo pull {view.reference}{' --into-library' if view.kind == 'SAE_MODEL' else ''}"),
    ]


def version_rows(versions: Sequence[VersionSummary]) -> list[list[str]]:
    """Rows of a table of versions."""
    return [
        [
            one.label,
            ", ".join(one.aliases),
            f"{one.state}{f': {one.reason}' if one.reason else ''}{f' -> {one.successor}' if one.successor else ''}",
            human_bytes(one.size),
            (one.published or one.created)[:10],
            one.digest[:19],
        ]
        for one in versions
    ]
