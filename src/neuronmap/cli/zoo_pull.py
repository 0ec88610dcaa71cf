"""``neuronmap zoo pull``, ``lock`` and ``mirror``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.cli.zoo_options import OfflineOption, ZooOption, open_zoo, warn_quietly
from neuronmap.errors import ConfigError
from neuronmap.paths import human_bytes

if TYPE_CHECKING:
    from neuronmap.jobs.placing import Placed
    from neuronmap.zoo.client.pulling import Pulled

__all__ = ["lock", "mirror", "pull"]

ReferencesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="REF...", help="namespace/name, with @1.0, @alias or @sha256:... behind it.", show_default=False
    ),
]


@command_output
def pull(
    references: ReferencesArgument = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="Folder for the files; several get one each below it.")
    ] = None,
    into_library: Annotated[
        bool,
        typer.Option(
            "--into-library",
            help="SAEs into the library, analyses beside their SAE, reports among the reports, labels into the book.",
        ),
    ] = False,
    lock: Annotated[
        Path | None,
        typer.Option("--lock", metavar="FILE", help="Exactly what a lock file pins, in place of references."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="With --into-library: another name than namespace/name.")] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Replace what is there under that name, or was pulled into the folder; nothing else."
        ),
    ] = False,
    offline: OfflineOption = False,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Pull artefacts: every file is checked against its digest, and a folder is there whole or not at all.

    What comes from a server is kept in a cache, by digest; pulling it again asks for nothing. A deprecated or yanked version is pulled
    with a warning that says why; a yanked one only by its exact label or digest.

    Examples:

        neuronmap zoo pull ada/demo --into-library

        neuronmap zoo pull ada/demo@1.0 --to ./demo --zoo https://zoo.example.org

        neuronmap zoo pull --lock neuronmap-zoo.lock --to ./pinned
    """
    output = Output(as_json, quiet)
    if bool(references) == (lock is not None):
        raise ConfigError("Either references or --lock are needed.", hint="neuronmap zoo pull namespace/name")
    if name is not None and (not into_library or len(references or []) != 1):
        raise ConfigError("--name goes with --into-library and one reference.")
    if to is not None and into_library:
        raise ConfigError("--to and --into-library are two ways; choose one.")
    from neuronmap.jobs.placing import put_into_library

    records, rows = [], []
    with open_zoo(output, zoo, offline) as opened:
        if lock is not None:
            found = opened.pull_locked(lock, _lock_target(to), overwrite=replace or to is None)
        else:
            wanted = list(references or [])
            targets = [_target(to, one, len(wanted)) for one in wanted]
            found = [opened.pull(one, target, overwrite=replace) for one, target in zip(wanted, targets, strict=True)]
        for one in found:
            warn_quietly(output, one.warnings)
            placed = None
            if into_library:
                placed = put_into_library(opened, one, name=name, replace=replace, progress=output.progress())
            records.append(_record(one, placed))
            rows.append([one.reference, one.state, human_bytes(one.manifest.size), _where(one, placed)])
    output.show(table("", ["reference", "state", "size", "is now"], rows, right=["size"], whole=["reference"]))
    output.document({"schema": "neuronmap/zoo.pull/1", "pulled": records})


def _target(to: Path | None, reference: str, count: int) -> Path | None:
    from neuronmap.zoo.names import Reference

    if to is None or count == 1:
        return to
    named = Reference.parse(reference)
    return to / named.namespace / named.name


def _lock_target(to: Path | None) -> Path:
    from neuronmap.zoo.client.location import zoo_home

    return to if to is not None else zoo_home() / "locked"


def _record(one: Pulled, placed: Placed | None) -> dict[str, Any]:
    return {
        "reference": one.reference,
        "digest": str(one.digest),
        "kind": one.manifest.kind,
        "zoo": one.zoo,
        "state": one.state,
        "warnings": list(one.warnings),
        "folder": str(one.folder),
        "fetched_bytes": one.fetched_bytes,
        "library": placed.library if placed is not None else None,
        "name": placed.name if placed is not None else None,
    }


def _where(one: Pulled, placed: Placed | None) -> str:
    if placed is None:
        return str(one.folder)
    if placed.labels is not None:
        return f"{placed.labels:,} new acts in the labels of {placed.library or 'an SAE that is not in the library'}"
    if placed.library is None:
        return f"the report {placed.name}"
    return f"the SAE {placed.library}" if placed.name is None else f"the analysis {placed.name} of {placed.library}"


@command_output
def lock(
    references: Annotated[list[str], typer.Argument(metavar="REF...", help="What to pin.", show_default=False)],
    file: Annotated[Path, typer.Option("--file", "-f", help="The lock file.")] = Path("neuronmap-zoo.lock"),
    dependencies: Annotated[
        bool, typer.Option("--with-dependencies", help="Pin what they were made from, too.")
    ] = False,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write down which digests names mean now. `neuronmap zoo pull --lock` gets the same bytes tomorrow, from this zoo or a mirror.

    Example:

        neuronmap zoo lock ada/demo@production ada/demo-features --with-dependencies
    """
    output = Output(as_json, quiet)
    with open_zoo(output, zoo) as opened:
        locked = opened.lock(references, file, dependencies=dependencies)
    rows = [[one.asked, one.reference, one.digest] for one in locked.artefact]
    output.show(
        table("", ["asked for", "reference", "digest"], rows, whole=["reference"]), f"Written to {escape(str(file))}."
    )
    output.document(
        {"schema": "neuronmap/zoo.lock/1", "file": str(file), "artefacts": [one.to_dict() for one in locked.artefact]}
    )


@command_output
def mirror(
    upstream: Annotated[
        str, typer.Argument(metavar="URL", help="The zoo to copy from: address or folder.", show_default=False)
    ],
    references: ReferencesArgument = None,
    query: Annotated[str | None, typer.Option(help="Everything that these words find there.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Everything of this person or organisation.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Everything for this language model.")] = None,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Copy artefacts of another zoo into one in a folder of this machine: the same manifests, digests and names, dependencies first.

    A namespace that a mirror makes belongs to the zoo that it comes from: nothing else can be published in it from here. What is
    deprecated or yanked there becomes so here when it is mirrored again.

    Examples:

        neuronmap zoo mirror https://zoo.example.org ada/demo ada/demo-features

        neuronmap zoo mirror https://zoo.example.org --model gpt2 --zoo /data/mirror
    """
    from neuronmap.zoo.search.query import Query

    output = Output(as_json, quiet)
    asked = {"q": query, "namespace": namespace, "model": model}
    given = {field: value for field, value in asked.items() if value is not None}
    if not references and not given:
        raise ConfigError("Say what to copy: references, --query, --namespace or --model.")
    with open_zoo(output, zoo, make=True) as opened:
        found = Query.read({**given, "limit": 100}) if given else None
        done = opened.mirror(upstream, references or [], query=found)
        location = opened.location
    rows = [[one.reference, "was here" if one.was_here else "copied", one.digest] for one in done]
    output.show(table("", ["reference", "", "digest"], rows, whole=["reference"]) if rows else "Nothing fits.")
    output.document(
        {
            "schema": "neuronmap/zoo.mirror/1",
            "zoo": location,
            "upstream": upstream,
            "versions": [
                {"reference": one.reference, "digest": str(one.digest), "was_here": one.was_here} for one in done
            ],
        }
    )
