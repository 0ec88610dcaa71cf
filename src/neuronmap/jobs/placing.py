"""What was pulled from a zoo, put where it belongs on this machine. The library and the zoo are rooms beside each other; this is the door.

``neuronmap zoo pull --into-library``, ``neuronmap sae import zoo:...`` and the jobs ``pull`` and ``import`` come through here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from neuronmap.errors import AlreadyExistsError, ConfigError, DamagedError, InputError, NotInLibraryError

if TYPE_CHECKING:
    from neuronmap.hub import LibraryEntry, SAEModelHub
    from neuronmap.hub.formats.sources import Fetched
    from neuronmap.progress import Progress
    from neuronmap.zoo.client.pulling import Pulled
    from neuronmap.zoo.client.zoo import Zoo

__all__ = ["Placed", "import_source", "put_into_library"]


class Placed(NamedTuple):
    """Where something is now.

    Attributes:
        library: the SAE that it is, or that it was attached to; None for a report, and for labels of an SAE that is not here.
        name: of the analysis or report; None for an SAE and for labels.
        labels: what of a set of labels is new in this machine's book; None for anything else.
    """

    library: str | None
    name: str | None
    labels: int | None = None


def import_source(source: str, progress: Progress, zoo: str | None = None) -> str | Fetched:
    """A source as ``neuronmap.hub.formats`` takes it: what lies in a zoo is pulled to this machine first.

    Args:
        source: folder, file, ``hf://owner/repo``, or ``zoo:namespace/name[@version]``.
        progress: where notes and bars go.
        zoo: folder or address of the zoo; the usual one when left out.

    Raises:
        ConfigError: a zoo was named for a source that lies in none.
        NotInZooError, ZooOfflineError, DamagedError: it cannot be pulled.
    """
    if not source.startswith("zoo:"):
        if zoo is not None:
            raise ConfigError(f"--zoo goes with a source in a zoo; {source!r} is none.", hint="zoo:namespace/name")
        return source
    from neuronmap.hub.formats.sources import Fetched
    from neuronmap.zoo import Zoo
    from neuronmap.zoo.packing import bundle_origin

    with Zoo(zoo, progress=progress) as opened:
        pulled = opened.pull(source.removeprefix("zoo:"), progress=progress)
    digest = str(pulled.digest)
    artefact = bundle_origin(pulled.reference, digest, pulled.zoo, None)
    return Fetched(pulled.folder, f"zoo:{pulled.reference}", digest, pulled.reference, artefact)


def put_into_library(
    zoo: Zoo,
    pulled: Pulled,
    *,
    name: str | None = None,
    replace: bool = False,
    progress: Progress,
    hub: SAEModelHub | None = None,
) -> Placed:
    """Put a pulled SAE into the library, an analysis beside the SAE with the same weights, a report among the reports, labels into the
    book of labels.

    An analysis whose SAE is not here brings it from the zoo.

    Args:
        zoo: where it was pulled from.
        pulled: what was pulled.
        name: of the SAE in the library, or of the analysis or report; ``namespace/name`` when left out.
        replace: take the place of what has that name.
        progress: where notes go.
        hub: the library; this machine's when left out.

    Raises:
        InputError: it belongs nowhere in the library.
        AlreadyExistsError: the name is taken by something else.
    """
    from neuronmap.hub import SAEModelHub
    from neuronmap.zoo.packing import describe_pulled

    library = hub or SAEModelHub()
    unpacked = describe_pulled(pulled.manifest, pulled.folder)
    if unpacked.belongs == "library":
        entry = _registered(library, pulled, name, replace)
        progress.note(f"{pulled.reference} is in the library as {entry.id}.")
        return Placed(entry.id, None)
    if unpacked.belongs == "analyses":
        return _attached(library, zoo, pulled, str(unpacked.weights_digest), name or unpacked.name, replace, progress)
    if unpacked.belongs == "reports":
        return Placed(None, _stored_report(pulled, name, replace))
    if unpacked.belongs == "labels":
        return _merged(library, zoo, pulled, progress)
    raise InputError(
        f"{pulled.reference} is a {pulled.manifest.kind} that has no place in the library.",
        hint=f"neuronmap zoo pull {pulled.reference} --to FOLDER",
    )


def _registered(hub: SAEModelHub, pulled: Pulled, name: str | None, replace: bool) -> LibraryEntry:
    """Copied into the library, with the origin written into its configuration; the weights are not touched."""
    from neuronmap.hub.contents import convert_saelens, copy_visible, write_metadata
    from neuronmap.saes.metadata import read_bundle_info
    from neuronmap.zoo.packing import bundle_origin

    with hub.staging() as staging:
        bundle = staging / "pulled"
        if read_bundle_info(pulled.folder).metadata is None:
            convert_saelens(pulled.folder, bundle)
        else:
            copy_visible(pulled.folder, bundle)
        metadata = read_bundle_info(bundle).metadata
        if metadata is None:
            raise DamagedError(f"{pulled.reference} lost its NeuronMap metadata on the way into the library.")
        origin = bundle_origin(pulled.reference, pulled.digest, pulled.zoo, metadata.origin)
        write_metadata(bundle, metadata.updated(origin=origin))
        tags = [tag for tag in pulled.manifest.tags if len(tag) <= 60]
        try:
            return hub.register(bundle, name=name or pulled.manifest.artefact, tags=tags, replace=replace)
        except AlreadyExistsError as error:
            raise AlreadyExistsError(error.message, hint="Give another --name, or --replace it.") from error


def _attached(
    hub: SAEModelHub, zoo: Zoo, pulled: Pulled, weights: str, name: str, replace: bool, progress: Progress
) -> Placed:
    entry = _entry_with(hub, weights)
    if entry is None:
        parent = next((one for one in pulled.manifest.depends_on if one.role == "sae"), None)
        known = zoo.backend.by_digest(parent.digest) if parent is not None else []
        if not known:
            raise NotInLibraryError(
                f"{pulled.reference} is an analysis of an SAE with the weights {weights}, which is neither in the library nor in the zoo."
            )
        sae = zoo.pull(known[0], progress=progress)
        entry = _registered(hub, sae, None, False)
        progress.note(f"{sae.reference}, which {pulled.reference} is of, is in the library as {entry.id}.")
    if name in hub.analyses(entry.id) and not replace:
        progress.note(f"{entry.id} has the analysis {name} already.")
    else:
        hub.attach(entry.id, name, pulled.folder, overwrite=replace, weights_digest=weights)
        progress.note(f"{pulled.reference} is an analysis of {entry.id} now: {name}.")
    return Placed(entry.id, name)


def _merged(hub: SAEModelHub, zoo: Zoo, pulled: Pulled, progress: Progress) -> Placed:
    """Merged into this machine's book; nothing in it is lost by that, so there is nothing to replace."""
    from neuronmap.interpretation.labels.book import LabelBook
    from neuronmap.interpretation.labels.exchange import merge
    from neuronmap.saes.metadata import WEIGHTS_FILE
    from neuronmap.zoo.packing import unpack_labels

    parent = next((one for one in pulled.manifest.depends_on if one.role == "sae"), None)
    known = zoo.backend.by_digest(parent.digest) if parent is not None else []
    files = zoo.show(known[0]).files if known else ()
    weights = next((file.digest for file in files if file.path == WEIGHTS_FILE), None)
    with LabelBook.open() as book:
        acts = unpack_labels(pulled.manifest, pulled.folder, sae=weights, book=book)
        report = merge(book, acts)
    entry = _entry_with(hub, acts[0].sae) if acts else None
    progress.note(f"{pulled.reference}: {report.new:,} of {report.read:,} acts are new in the book of labels.")
    if report.conflicts:
        progress.note(
            f"Somebody disagrees about {len(report.conflicts):,} more features: neuronmap sae labels conflicts"
        )
    return Placed(entry.id if entry is not None else None, None, report.new)


def _entry_with(hub: SAEModelHub, weights: str) -> LibraryEntry | None:
    return next((one for one in hub.list() if one.weights_digest == weights and not one.problem), None)


def _stored_report(pulled: Pulled, name: str | None, replace: bool) -> str:
    from neuronmap.abstraction.record import TrackingReport
    from neuronmap.hub.reports import store_report
    from neuronmap.paths import read_json

    report = TrackingReport(**read_json(Path(pulled.folder, "report.json")))
    return store_report(report, name or pulled.manifest.name, replace=replace).name
