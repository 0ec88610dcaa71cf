"""``neuronmap zoo release``, ``alias``, ``deprecate``, ``yank``, ``restore``, ``delete``, ``verify`` and ``gc``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.cli.zoo_options import ReasonOption, ReferenceArgument, ZooOption, open_zoo, version_document
from neuronmap.errors import ConfigError, DamagedError
from neuronmap.paths import human_bytes

if TYPE_CHECKING:
    from neuronmap.zoo.client.zoo import Zoo
    from neuronmap.zoo.views import VersionView

__all__ = ["alias", "delete", "deprecate", "gc", "release", "restore", "verify", "yank"]


def _changed(output: Output, opened: Zoo, command: str, view: VersionView) -> None:
    reason = f": {view.reason}" if view.reason else ""
    instead = f" Use {view.successor} instead." if view.successor else ""
    output.show(escape(f"{view.reference} is {view.state}{reason}.{instead}"))
    output.document(version_document(command, opened, view))


@command_output
def release(
    reference: ReferenceArgument, zoo: ZooOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Publish a draft as it is. From then on it never changes.

    Example:

        neuronmap zoo release ada/demo@1.0
    """
    output = Output(as_json, quiet)
    with open_zoo(output, zoo) as opened:
        _changed(output, opened, "release", opened.release(reference))


@command_output
def alias(
    reference: ReferenceArgument,
    name: Annotated[
        str | None, typer.Argument(metavar="ALIAS", help="The word, such as production.", show_default=False)
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the alias away.")] = False,
    expected: Annotated[
        str | None,
        typer.Option(help="Only if it points to this version now; '' for none. Nobody else's move is undone."),
    ] = None,
    reason: ReasonOption = "",
    log: Annotated[bool, typer.Option("--log", help="Show who moved which alias when.")] = False,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Point an alias to a version, take it away, or show its history. Labels never move; aliases do, and every move is kept.

    Examples:

        neuronmap zoo alias ada/demo@1.1 production --expected 1.0 --reason "better on code"

        neuronmap zoo alias ada/demo production --remove

        neuronmap zoo alias ada/demo --log
    """
    output = Output(as_json, quiet)
    if name is None and not log:
        raise ConfigError("An alias is needed, or --log.", hint="neuronmap zoo alias namespace/name@1.0 production")
    version, moves = None, []
    with open_zoo(output, zoo) as opened:
        if name is not None and remove:
            opened.remove_alias(reference, name, expected=expected, reason=reason)
            output.show(escape(f"{name} is taken away."))
        elif name is not None:
            view = opened.set_alias(reference, name, expected=expected, reason=reason)
            version = {field: value for field, value in view.to_dict().items() if field in _SUMMARY}
            output.show(escape(f"{name} points to {view.reference}."))
        if log:
            moves = opened.alias_log(reference)
            rows = [[one.at, one.alias, one.before or "", one.after or "", one.who or "", one.reason] for one in moves]
            output.show(table("", ["when", "alias", "from", "to", "who", "why"], rows))
        location = opened.location
    output.document(
        {
            "schema": "neuronmap/zoo.alias/1",
            "zoo": location,
            "alias": name,
            "version": version,
            "log": [one.to_dict() for one in moves],
        }
    )


_SUMMARY = frozenset(
    (
        *("reference", "label", "digest", "state", "reason", "successor"),
        *("aliases", "size", "created", "published", "publisher"),
    )
)
"""Fields of a version in a list."""


@command_output
def deprecate(
    reference: ReferenceArgument,
    reason: ReasonOption,
    successor: Annotated[
        str | None, typer.Option(metavar="REF", help="Version of the same artefact to use instead.")
    ] = None,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say that there is something better. The version is still found and pulled, with a warning.

    Example:

        neuronmap zoo deprecate ada/demo@1.0 --reason "trained on too little text" --successor ada/demo@1.1
    """
    output = Output(as_json, quiet)
    if successor is not None and "/" not in successor:
        successor = f"{reference.partition('@')[0]}@{successor}"
    with open_zoo(output, zoo) as opened:
        _changed(output, opened, "deprecate", opened.deprecate(reference, reason, successor))


@command_output
def yank(
    reference: ReferenceArgument,
    reason: ReasonOption,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Take a version out of searches, of latest and of aliases. Whoever has its exact label or digest still gets it, with a warning.

    Example:

        neuronmap zoo yank ada/demo@1.0 --reason "thresholds are wrong"
    """
    output = Output(as_json, quiet)
    with open_zoo(output, zoo) as opened:
        _changed(output, opened, "yank", opened.yank(reference, reason))


@command_output
def restore(
    reference: ReferenceArgument, zoo: ZooOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Undo a deprecation or a yank.

    Example:

        neuronmap zoo restore ada/demo@1.0
    """
    output = Output(as_json, quiet)
    with open_zoo(output, zoo) as opened:
        _changed(output, opened, "restore", opened.restore(reference))


@command_output
def delete(
    reference: ReferenceArgument,
    reason: ReasonOption,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Delete a version's bytes for good (asks first). A tombstone stays, and its label is never given again; mostly, yank is better.

    What others were made from cannot be deleted.

    Example:

        neuronmap zoo delete ada/demo@0.1 --reason "holds private text" --yes
    """
    output = Output(as_json, quiet)
    if not yes and (as_json or quiet):
        raise ConfigError("delete asks before it deletes, which --json and --quiet do not allow.", hint="Add --yes.")
    with open_zoo(output, zoo) as opened:
        if not yes:
            opened.require_deletable(reference)
            if not typer.confirm(f"Delete {reference} for good?"):
                raise typer.Exit(0)
        _changed(output, opened, "delete", opened.delete(reference, reason))


@command_output
def verify(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[REF|FOLDER]", help="A version, or a folder that was pulled; the whole zoo if left out."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            help="Of the zoo: files to read, the longest unread first; a server reads 100 if left out.",
        ),
    ] = None,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read every byte and compare it with its digest: of a version, of a folder that was pulled, or of a whole zoo.

    A server verifies what it holds when an administrator asks; on its own machine `neuronmap zoo admin verify` reads all of it.

    Examples:

        neuronmap zoo verify ada/demo@1.0

        neuronmap zoo verify ./demo

        neuronmap zoo verify
    """
    output = Output(as_json, quiet)
    document: dict[str, Any] = {"schema": "neuronmap/zoo.verify/1", "reference": None, "digest": None, "store": None}
    with open_zoo(output, zoo) as opened:
        document["zoo"] = opened.location
        if what is None:
            store = _verify_store(output, opened, limit)
            document["store"] = store
        else:
            found = opened.verify_folder(what) if Path(what).is_dir() else opened.verify(what)
            document |= {"reference": found.name, "digest": str(found.digest)}
            output.show(
                escape(f"{what} is {found.name} as it was published: {len(found.manifest.files)} files are sound.")
            )
    output.document(document)


def _verify_store(output: Output, opened: Zoo, limit: int | None) -> dict[str, object]:
    found = opened.verify_store(limit=limit, progress=output.progress())
    if not found.sound:
        lost = ", ".join([*found.damaged, *found.missing][:5])
        raise DamagedError(
            f"{opened.location} is not sound: {len(found.damaged)} files are damaged, {len(found.missing)} are missing ({lost}).",
            hint="Publish them again, or mirror them from where they are sound.",
        )
    first = ", those that were not read for the longest" if opened.backend.is_remote or limit is not None else ""
    output.show(f"{found.checked:,} files with {human_bytes(found.checked_bytes)} are sound{first}.")
    return found.to_dict()


@command_output
def gc(
    delete: Annotated[
        bool, typer.Option("--delete", help="Really remove it; only say what would go if left out.")
    ] = False,
    grace: Annotated[
        float | None, typer.Option(help="Seconds for which unneeded bytes are kept; two weeks if left out.")
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache", help="Empty this machine's cache of what was pulled, instead.")
    ] = False,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove bytes that no version needs: of deleted versions, replaced drafts, and uploads that were given up.

    Examples:

        neuronmap zoo gc

        neuronmap zoo gc --delete

        neuronmap zoo gc --cache --delete
    """
    from neuronmap.zoo.client.cache import Cache

    output = Output(as_json, quiet)
    verb = "were removed" if delete else "would be removed (--delete does it)"
    if cache:
        kept = Cache()
        count, size = kept.clear(dry_run=not delete)
        found, location = {"dry_run": not delete, "files": count, "bytes": size}, str(kept.root)
        output.show(f"{count:,} cached files with {human_bytes(size)} {verb}.")
    else:
        with open_zoo(output, zoo) as opened:
            found, location = opened.gc(dry_run=not delete, grace=grace), opened.location
        output.show(
            f"{found.get('blobs', 0):,} unneeded files with {human_bytes(found.get('blob_bytes', 0))}, "
            f"{found.get('publications', 0)} old publications and {found.get('leftovers', 0):,} leftovers {verb}; "
            f"{found.get('kept_young', 0):,} are too young to go."
        )
    output.document({"schema": "neuronmap/zoo.gc/1", "zoo": location, "collected": found})
