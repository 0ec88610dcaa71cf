"""From a package and a name to a manifest: files hashed, contents checked as the zoo will, dependencies found."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from neuronmap.errors import InputError, InvalidManifestError, NotInZooError
from neuronmap.progress import Progress
from neuronmap.saes.metadata import WEIGHTS_FILE
from neuronmap.zoo.client.backend import Backend
from neuronmap.zoo.contents import Reader, check_contents
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.faults import Fault
from neuronmap.zoo.labels import LABELS_FILE, LABELS_FORMAT
from neuronmap.zoo.licences import check_licence
from neuronmap.zoo.manifest import Manifest, media_type
from neuronmap.zoo.names import LATEST, Reference, check_label, check_tag
from neuronmap.zoo.packing import Package
from neuronmap.zoo.packing.labels import label_faults
from neuronmap.zoo.packing.package import author as read_author
from neuronmap.zoo.search.query import Query

__all__ = ["Prepared", "Said", "find_sae", "prepare", "read_said", "sae_label_faults", "with_faults"]

_PIECE = 1 << 20
_MOST_LOOKED_AT = 200
_STAND_IN = Reference("to-be-named", "x", label="1.0")
"""Where the name is at fault: so that the rest can be looked at."""


@dataclass(frozen=True)
class Prepared:
    """A manifest, and the files that it is about.

    Attributes:
        manifest: what is published.
        data: its bytes.
        files: where the bytes of each digest lie.
    """

    manifest: Manifest
    data: bytes
    files: Mapping[Digest, Path]

    @property
    def digest(self) -> Digest:
        """Of the manifest."""
        return Digest.of(self.data)

    @property
    def reference(self) -> Reference:
        """What it will be called."""
        return Reference(self.manifest.namespace, self.manifest.name, label=self.manifest.version)


class Said(NamedTuple):
    """What somebody says of a publication besides what is in it, read as far as it can be.

    Attributes:
        reference: by label; None where it is at fault.
        authors: as manifests hold them.
        tags: as they were given.
        faults: of the reference and the authors; a manifest says those of the rest.
        more: of the licence and the tags, for when there is no manifest because the content is at fault.
    """

    reference: Reference | None
    authors: tuple[dict[str, Any], ...]
    tags: tuple[str, ...]
    faults: tuple[Fault, ...]
    more: tuple[Fault, ...]


def read_said(
    reference: str | Reference,
    licence: str,
    tags: str | Iterable[str] = (),
    authors: str | Iterable[str | Mapping[str, Any]] = (),
) -> Said:
    """Read what was said, and gather every fault of it. A single text is one tag, or one author."""
    faults, more = [], []
    named, found = None, []
    try:
        named = _published_as(reference)
    except InputError as error:
        faults.append(Fault("version" if "version" in error.message else "name", error.message))
    for number, one in enumerate([authors] if isinstance(authors, str) else authors):
        try:
            found.append(read_author(one) if isinstance(one, str) else dict(one))
        except InputError as error:
            faults.append(Fault(f"authors.{number}", error.message))
    given = (tags,) if isinstance(tags, str) else tuple(tags)
    for place, check, text in [("licence", check_licence, licence), *(("tags", check_tag, tag) for tag in given)]:
        try:
            check(text)
        except InputError as error:
            more.append(Fault(place, error.message))
    return Said(named, tuple(found), given, tuple(faults), tuple(more))


@contextmanager
def with_faults(said: Said) -> Iterator[None]:
    """Faults of what is packed within are raised together with those of what was said."""
    try:
        yield
    except InvalidManifestError as error:
        raise InvalidManifestError([*error.faults, *said.faults, *said.more], "What is to be published") from None


def _published_as(reference: str | Reference) -> Reference:
    """A reference to publish under: with a version number.

    Raises:
        InputError: says that there is none, or why it is none.
    """
    text = str(reference)
    address, _, version = text.partition("@")
    if version and version != LATEST and not version.startswith("sha256:"):
        Reference.parse(address)
        check_label(version)
    named = Reference.parse(text)
    if named.label is None:
        raise InputError(f"{named.artefact} has no version to publish; name one: {named.artefact}@1.0")
    return named


def prepare(
    package: Package,
    said: Said,
    *,
    licence: str,
    values: Mapping[str, Any],
    depends_on: Iterable[Mapping[str, Any]],
    progress: Progress,
    faults: Iterable[Fault] = (),
) -> Prepared:
    """Hash the files and write the manifest.

    Args:
        package: what to publish.
        said: name and authors.
        licence: SPDX expression.
        values: further fields of the manifest; they go before the package's.
        depends_on: what it was made from.
        progress: shows how fast the files are hashed.
        faults: what is known to be wrong already.

    Raises:
        InvalidManifestError: lists every fault: of what was said, of the manifest, and of what is in the files.
    """
    entries: list[dict[str, Any]] = []
    files: dict[Digest, Path] = {}
    total = sum(path.stat().st_size for path in package.files.values())
    with progress.task("hashing", total, "bytes") as task:
        for inside, path in sorted(package.files.items()):
            state, size = hashlib.sha256(), 0
            for piece in _pieces(path, 0, None):
                state.update(piece)
                size += len(piece)
                task.advance(len(piece))
            digest = Digest(f"sha256:{state.hexdigest()}")
            entries.append({"path": inside, "digest": digest, "size": size, "media_type": media_type(inside)})
            files[digest] = path
    named = said.reference or _STAND_IN
    content = {
        **package.values(),
        "namespace": named.namespace,
        "name": named.name,
        "version": named.label,
        "files": entries,
    }
    given = {
        **{name: value for name, value in values.items() if value not in (None, "", [], ())},
        "authors": list(said.authors),
        "licence": _spelled(licence),
        "depends_on": [dict(one) for one in depends_on],
    }
    found = [*said.faults, *faults]
    built: tuple[Manifest, bytes] | None = None
    try:
        built = Manifest.build(
            {
                **content,
                **{name: value for name, value in given.items() if value != []},
                "depends_on": given["depends_on"],
            }
        )
    except InvalidManifestError as error:
        found += [Fault(*fault) for fault in error.faults]
    with suppress(InvalidManifestError):  # faults of the content are listed above
        manifest = built[0] if built else Manifest.build({**content, "licence": "CC0-1.0", "depends_on": []})[0]
        try:
            check_contents(manifest, lambda entry: _reader(files[entry.digest]))
        except InvalidManifestError as error:
            found += [Fault(*fault) for fault in error.faults]
    if built is None or found:
        raise InvalidManifestError(found, "What is to be published")
    return Prepared(*built, files)


def sae_label_faults(backend: Backend, package: Package, depends_on: Iterable[Mapping[str, Any]]) -> list[Fault]:
    """Labels of features that the SAE which they are of does not have."""
    if package.record.get("format") != LABELS_FORMAT or LABELS_FILE not in package.files:
        return []
    for one in depends_on:
        named = Reference.parse(str(one["reference"]))
        view = backend.show(Reference(named.namespace, named.name, digest=Digest(str(one["digest"]))))
        width = view.manifest.get("record", {}).get("d_sae")
        if one["role"] == "sae" and isinstance(width, int):
            weights = next((str(Digest(file.digest)) for file in view.files if file.path == WEIGHTS_FILE), None)
            return label_faults(package.files[LABELS_FILE], width, weights)
    return []


def find_sae(backend: Backend, package: Package) -> Reference:
    """The published SAE that a package belongs to: the one with its weights.

    Raises:
        NotInZooError: none was found.
    """
    weights, record = package.sae_weights, package.record
    width = record.get("features")
    values: dict[str, Any] = {"kind": "SAE_MODEL", "all_versions": True, "sort": "newest", "limit": 100}
    if record.get("model"):
        values["model"] = record["model"]["name"]
    if package.kind == "ANALYSIS_RESULT" and width:
        values |= {"width_min": width, "width_max": width}
    looked, best = 0, None
    while looked < _MOST_LOOKED_AT:
        page = backend.search(Query.read(values))
        for hit in page.hits:
            looked += 1
            view = backend.show(Reference.parse(hit.reference))
            if any(file.digest == weights for file in view.files):
                found = Reference(view.namespace, view.name, label=view.label, digest=view.digest)
                if view.state == "published":
                    return found
                best = best or found
        if page.next is None:
            break
        values["cursor"] = page.next
    if best is not None:
        return best
    raise NotInZooError(
        f"No SAE in {backend.location} has the weights {weights} that this belongs to.",
        hint="Publish the SAE first, or name it: --depends-on sae=namespace/name@version",
    )


def _spelled(licence: str) -> str:
    """In SPDX's spelling, since the manifest's bytes are kept as they are; what is none is a fault of the manifest."""
    try:
        return check_licence(licence)
    except InputError:
        return licence


def _pieces(path: Path, start: int, end: int | None) -> Iterator[bytes]:
    with open(path, "rb") as file:
        file.seek(start)
        left = None if end is None else max(0, end - start)
        while left is None or left > 0:
            piece = file.read(_PIECE if left is None else min(_PIECE, left))
            if not piece:
                return
            if left is not None:
                left -= len(piece)
            yield piece


def _reader(path: Path) -> Reader:
    return lambda start, end: _pieces(path, start, end)
