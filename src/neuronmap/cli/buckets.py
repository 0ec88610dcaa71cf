"""``neuronmap sae push`` and ``pull``: SAEs in a bucket of S3, Google Cloud Storage or Azure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output
from neuronmap.paths import human_bytes

if TYPE_CHECKING:
    from neuronmap.hub.buckets import PulledEntry

__all__ = ["pull", "push"]

_URL = "s3://bucket/prefix?endpoint=...&region=..., gs://bucket/prefix or az://container/prefix?account=..."


@command_output
def push(
    names: Annotated[list[str], typer.Argument(metavar="SAE...", help="Names in the library.")],
    to: Annotated[str, typer.Option("--to", help=f"Bucket: {_URL}.")],
    analyses: Annotated[bool, typer.Option("--analyses", help="With their analyses.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Send all bytes, in the place of what is there: where that was changed.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put SAEs into a bucket, for other hosts to pull.

    Each appears whole or not at all, in the place of what had its name there. Bytes that are there already do not travel again.
    Credentials come from the environment (AWS_ACCESS_KEY_ID, AZURE_STORAGE_ACCOUNT_KEY, ...). For versions, licences, search and
    people, see `neuronmap zoo`.

    Example:

        neuronmap sae push demo --to s3://team/saes --analyses
    """
    from neuronmap.hub import SAEModelHub
    from neuronmap.hub.buckets import push_sae
    from neuronmap.objects import RemoteFolders

    output, hub, place = Output(as_json, quiet), SAEModelHub(), RemoteFolders(to)
    pushed = []
    for name in names:
        entry, listing = push_sae(hub, name, place, analyses=analyses, again=again, progress=output.progress())
        output.show(f"{entry.id}: {len(listing.files)} files, {human_bytes(listing.size)}, in {place}.")
        pushed.append({"sae": entry.id, "files": len(listing.files), "bytes": listing.size, "digest": listing.digest})
    output.document({"schema": "neuronmap/sae.push/1", "bucket": str(place), "pushed": pushed})


@command_output
def pull(
    source: Annotated[str, typer.Option("--from", help=f"Bucket: {_URL}.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[SAE...]", help="Their names in the bucket; listed if left out.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Another name in the library, for one SAE.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of SAEs of that name.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring SAEs from a bucket into this machine's library; without names, list those that are there.

    Every file is compared with its digest before anything is registered. An SAE that is here with the same weights gets the analyses and
    files that it has not, and keeps its own; --replace takes the bucket's.

    Example:

        neuronmap sae pull demo --from s3://team/saes
    """
    from neuronmap.errors import ConfigError
    from neuronmap.hub import SAEModelHub
    from neuronmap.hub.buckets import list_saes, pull_sae
    from neuronmap.objects import RemoteFolders

    output, place = Output(as_json, quiet), RemoteFolders(source)
    if name is not None and len(names or ()) != 1:
        raise ConfigError("--name is for one SAE.", hint="Pull them one after the other.")
    there = sorted(list_saes(place)) if not names else []
    for one in there:
        output.show(one)
    hub, pulled = SAEModelHub(), []
    for one in names or ():
        found = pull_sae(hub, one, place, rename=name, replace=replace, progress=output.progress())
        entry = found.entry
        output.show(f"{entry.id}: {_outcome(found)} ({entry.path}).")
        pulled.append(
            {
                "sae": entry.id,
                "path": str(entry.path),
                "weights_digest": entry.weights_digest,
                "known": found.known,
                "brought": list(found.brought),
                "kept": list(found.kept),
            }
        )
    output.document({"schema": "neuronmap/sae.pull/1", "bucket": str(place), "pulled": pulled, "there": there})


def _outcome(found: PulledEntry) -> str:
    """What a pull did, in words."""
    if not found.known:
        return "in the library"
    said = "was in the library with the same weights; " + (
        f"new here: {', '.join(found.brought)}" if found.brought else "nothing is new"
    )
    return said + (f"; other in the bucket and kept as here: {', '.join(found.kept)} (--replace)" if found.kept else "")
