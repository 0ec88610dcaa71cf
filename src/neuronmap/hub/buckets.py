"""SAEs and stored activations in buckets: what a team, or the hosts of a cluster, have in common.

<prefix>/folders/saes/<id>/            an SAE of the library: the bundle, with its analyses where they were asked for
                 activations/<name>/   an activation store
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from neuronmap.errors import InputError
from neuronmap.hashing import digest_file
from neuronmap.hub.entry import LibraryEntry
from neuronmap.hub.library import SAEModelHub
from neuronmap.objects import Listing, RemoteFolders
from neuronmap.paths import cache_folder, new_folder
from neuronmap.progress import Progress
from neuronmap.saes.metadata import ANALYSES_FOLDER

if TYPE_CHECKING:
    from neuronmap.activations import ActivationStore, MaskConfig, StoreDtype
    from neuronmap.corpora import TokenSet
    from neuronmap.models import HookPoint, LanguageModel

__all__ = ["PulledEntry", "activations_of", "bring_activations", "list_saes", "pull_sae", "push_sae"]

_SAES = "saes"


class PulledEntry(NamedTuple):
    """An SAE that was brought from a bucket.

    Attributes:
        entry: the SAE in the library.
        known: the library had it already, with the same weights.
        brought: then, what it had not: analyses (whole) and files.
        kept: then, files that the bucket has with other bytes; those of the library stay.
    """

    entry: LibraryEntry
    known: bool = False
    brought: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def push_sae(
    hub: SAEModelHub,
    name: str,
    place: RemoteFolders,
    *,
    analyses: bool = False,
    again: bool = False,
    progress: Progress,
) -> tuple[LibraryEntry, Listing]:
    """Put an SAE of the library into a bucket, in the place of what has its id there.

    Args:
        hub: the library.
        name: the SAE.
        place: the bucket.
        analyses: its analyses too.
        again: send all bytes, also those that seem to be there.
        progress: where the bar goes.

    Returns:
        The SAE, and its files in the bucket.

    Raises:
        NotInLibraryError: no such SAE.
        DamagedError: its weights are not those that its files speak of.
        ResourceError, UnwritablePathError: the bucket cannot be written.
    """
    entry = hub.get(name)
    hub.verify(entry.id)
    files = _files_of(entry.path, analyses)
    return entry, place.push(f"{_SAES}/{entry.id}", entry.path, files, progress, again=again)


def pull_sae(
    hub: SAEModelHub,
    name: str,
    place: RemoteFolders,
    *,
    rename: str | None = None,
    replace: bool = False,
    progress: Progress,
) -> PulledEntry:
    """Bring an SAE from a bucket into the library. One that is there with the same weights gets what it has not, and keeps the rest.

    Args:
        hub: the library.
        name: its id in the bucket.
        place: the bucket.
        rename: its id in the library; the same if left out.
        replace: take the place of another of that id.
        progress: where the bar goes.

    Raises:
        InputError: the bucket has no such SAE.
        AlreadyExistsError: the library has another one of that id.
        DamagedError: its files are not what they are said to be.
    """
    try:
        listing = place.require(f"{_SAES}/{name}")
    except InputError:
        there = [other for other, _ in zip(list_saes(place), range(20), strict=False)]
        raise InputError(
            f"There is no SAE {name!r} in {place}; there is {', '.join(there) or 'none'}.",
            hint="neuronmap sae push SAE --to s3://... puts one there.",
        ) from None
    with hub.staging() as staging:
        bundle = place.pull(listing, staging / "pulled", progress)
        known = not replace and (rename or name) in {entry.id for entry in hub.list()}
        entry = hub.register(bundle, name=rename or name, replace=replace)
        return _added(entry, bundle) if known else PulledEntry(entry)


def list_saes(place: RemoteFolders) -> Iterator[str]:
    """The ids of all SAEs in a bucket."""
    return (name.removeprefix(f"{_SAES}/") for name in place.names() if name.startswith(f"{_SAES}/"))


def activations_of(
    model: LanguageModel,
    tokens: TokenSet,
    hook: HookPoint,
    *,
    dtype: StoreDtype,
    mask: MaskConfig,
    place: RemoteFolders | None,
    progress: Progress,
) -> ActivationStore | None:
    """Stored activations of this host, or of a bucket; None where there are none.

    Those of this host are put into the bucket, if they are not there.

    Args:
        model, tokens, hook, dtype, mask: as for :func:`neuronmap.activations.find_store`.
        place: the bucket; None for this host alone.
        progress: where notes and bars go.
    """
    from neuronmap.activations import find_store, store_key
    from neuronmap.activations.remote import PREFIX, RemoteActivationStore, push_store
    from neuronmap.activations.store import store_name

    store = find_store(model, tokens, hook, dtype=dtype, mask=mask, progress=progress)
    if place is None:
        return store
    if store is None:
        name = store_name(hook.slug, store_key(model, tokens, hook, dtype=dtype, mask=mask))
        return RemoteActivationStore.find(place, name)
    if place.listing(f"{PREFIX}/{store.path.name}") is None:
        push_store(store, place, progress)
    return store


def bring_activations(
    model: LanguageModel,
    tokens: TokenSet,
    hook: HookPoint,
    *,
    dtype: StoreDtype,
    mask: MaskConfig,
    place: RemoteFolders,
    progress: Progress,
) -> None:
    """Bring stored activations from a bucket to where :func:`neuronmap.activations.harvest` looks for them, if it has them and this host
    has not begun them.

    Args:
        model, tokens, hook, dtype, mask: as for :func:`neuronmap.activations.find_store`.
        place: the bucket.
        progress: where notes and bars go.

    Raises:
        DamagedError: the bucket has other bytes than it says.
        DiskSpaceError, UnwritablePathError, ResourceError: as for :meth:`RemoteFolders.pull`.
    """
    from neuronmap.activations import store_key
    from neuronmap.activations.remote import PREFIX
    from neuronmap.activations.store import store_name

    name = store_name(hook.slug, store_key(model, tokens, hook, dtype=dtype, mask=mask))
    target = cache_folder("activations") / name
    if not target.exists() and (listing := place.listing(f"{PREFIX}/{name}")) is not None:
        new_folder(target.parent)
        place.pull(listing, target, progress)


def _added(entry: LibraryEntry, bundle: Path) -> PulledEntry:
    """Give an SAE of the library what a folder has besides: analyses as whole folders, and files."""
    brought, kept = [], []
    analyses = bundle / ANALYSES_FOLDER
    for folder in sorted(analyses.iterdir()) if analyses.is_dir() else ():
        target = entry.path / ANALYSES_FOLDER / folder.name
        if not target.exists():
            new_folder(target.parent)
            os.replace(folder, target)
            brought.append(f"{ANALYSES_FOLDER}/{folder.name}")
    for path in _files_of(bundle, analyses=True):
        target = entry.path / path
        if not target.exists():
            new_folder(target.parent)
            os.replace(bundle / path, target)
            brought.append(path)
        elif digest_file(target) != digest_file(bundle / path):
            kept.append(path)
    return PulledEntry(entry, True, tuple(brought), tuple(kept))


def _files_of(folder: Path, analyses: bool) -> list[str]:
    """Files of a bundle by path, without hidden ones and what only this host knows of them."""
    found = []
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts) or parts[-1] == "verified.json"
        if file.is_file() and not file.is_symlink() and not hidden and (analyses or parts[0] != ANALYSES_FOLDER):
            found.append("/".join(parts))
    return found
