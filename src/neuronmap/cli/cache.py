"""``neuronmap cache``: what lies in the caches of this machine, and making room."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from neuronmap.hub.caches import CacheEntry

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


@app.callback()
def cache() -> None:
    """What can be made again, and takes room meanwhile: see it, and make room."""


@app.command("list")
@command_output
def list_(
    kinds: Annotated[
        list[str] | None, typer.Argument(metavar="CACHE", help="Show what lies in these; a line each if left out.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the caches with their sizes, or what lies in some of them, the largest first.

    Everything there can be made again; activations are usually the most. When an entry was used is told as far as the file system keeps
    it: many note a reading once a day. What was pulled from zoos lies elsewhere: `neuronmap zoo gc --cache`.

    Examples:

        neuronmap cache list

        neuronmap cache list activations tokens
    """
    from neuronmap.hub.caches import CACHES, list_caches
    from neuronmap.paths import home

    output = Output(as_json, quiet)
    found = list_caches(kinds or ())
    if kinds:
        output.show(_table(found))
    else:
        by = {kind: [one for one in found if one.kind == kind] for kind in dict.fromkeys(one.kind for one in found)}
        rows = [[kind, f"{len(of):,}", _size(of), _ago(*of), CACHES.get(kind, "")] for kind, of in by.items()]
        output.show(
            table("", ["cache", "entries", "size", "used", "what it holds"], rows, right=["entries", "size"])
            if rows
            else "The caches are empty."
        )
    output.document(
        {
            "schema": "neuronmap/cache.list/1",
            "folder": str(home() / "cache"),
            "bytes": _bytes(found),
            "entries": [_record(one) for one in found],
        }
    )


@app.command("clean")
@command_output
def clean(
    kinds: Annotated[list[str], typer.Argument(metavar="CACHE", help="Caches to clean: neuronmap cache list.")],
    unused_for: Annotated[
        float, typer.Option(metavar="DAYS", min=0, help="Keep what was used within so many days.")
    ] = 1.0,
    delete: Annotated[
        bool, typer.Option("--delete", help="Really remove it; only say what would go if left out.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove what was not used for a while from some caches.

    What a process of this machine has open stays. If other machines share the home folder, name more days than their longest run takes.
    Trainings that were stopped go on from their checkpoints; they harvest again if their activations are gone.

    Examples:

        neuronmap cache clean activations --unused-for 30

        neuronmap cache clean activations tokens --unused-for 7 --delete
    """
    from neuronmap.hub.caches import clean_caches

    output = Output(as_json, quiet)
    done = clean_caches(kinds, unused_days=unused_for, dry_run=not delete)
    if done.removed:
        output.show(_table(done.removed))
    verb = "removed" if delete else "would be removed (--delete does it)"
    output.show(f"{_entries(done.removed)} {verb}.")
    for kept, why in (
        (done.in_use, "in use"),
        (done.recent, f"used within {unused_for:g} day{'' if unused_for == 1 else 's'}"),
    ):
        if kept:
            output.show(f"{_entries(kept)} stay, {why}.")
    output.document(
        {
            "schema": "neuronmap/cache.clean/1",
            "dry_run": not delete,
            "bytes": _bytes(done.removed),
            "removed": [_record(one) for one in done.removed],
            "in_use": [_record(one) for one in done.in_use],
            "recent": [_record(one) for one in done.recent],
        }
    )


def _ago(*entries: CacheEntry) -> str:
    """How long ago the last of them was used."""
    days = (time.time() - max(one.last_used for one in entries)) / 86_400
    return "today" if days < 1 else "yesterday" if days < 2 else f"{days:.0f} days ago"


def _bytes(entries: Sequence[CacheEntry]) -> int:
    return sum(one.size_bytes for one in entries)


def _size(entries: Sequence[CacheEntry]) -> str:
    from neuronmap.paths import human_bytes

    return human_bytes(_bytes(entries))


def _entries(found: Sequence[CacheEntry]) -> str:
    return f"{'1 entry' if len(found) == 1 else f'{len(found):,} entries'} with {_size(found)}"


def _table(found: Sequence[CacheEntry]) -> Table:
    rows = [[one.kind, escape(one.name), _size([one]), _ago(one), escape(one.what)] for one in found]
    return table("", ["cache", "entry", "size", "used", "what"], rows, right=["size"], whole=["entry"])


def _record(entry: CacheEntry) -> dict[str, Any]:
    return {
        "cache": entry.kind,
        "name": entry.name,
        "bytes": entry.size_bytes,
        "last_used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.last_used)),
        "what": entry.what,
    }
