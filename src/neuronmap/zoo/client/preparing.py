"""From a package and a name to a manifest: files hashed, contents checked as the zoo will, dependencies found."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronmap.errors import InputError, NotInZooError
from neuronmap.progress import Progress
from neuronmap.zoo.client.backend import Backend
from neuronmap.zoo.contents import Reader, check_contents
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.licences import check_licence
from neuronmap.zoo.manifest import Manifest, media_type
from neuronmap.zoo.names import Reference
from neuronmap.zoo.packing import Package
from neuronmap.zoo.search.query import Query

__all__ = ["Prepared", "find_sae", "prepare"]

_PIECE = 1 << 20
_MOST_LOOKED_AT = 200


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


def prepare(
    package: Package,
    reference: Reference,
    *,
    licence: str,
    values: Mapping[str, Any],
    depends_on: Iterable[Mapping[str, Any]],
    progress: Progress,
) -> Prepared:
    """Hash the files and write the manifest.

    Args:
        package: what to publish.
        reference: by label.
        licence: SPDX expression.
        values: further fields of the manifest; they go before the package's.
        depends_on: what it was made from.
        progress: shows how fast the files are hashed.

    Raises:
        InputError: no label, or a file cannot be read.
        InvalidManifestError: lists every fault of the manifest, or of what is in the files.
    """
    if reference.label is None:
        raise InputError(f"{reference} has no version to publish.", hint=f"Name one: {reference.artefact}@1.0")
    entries, files = [], {}
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
    manifest, data = Manifest.build(
        {
            **package.values(),
            **{name: value for name, value in values.items() if value not in (None, "", [], ())},
            "namespace": reference.namespace,
            "name": reference.name,
            "version": reference.label,
            "licence": _spelled(licence),
            "files": entries,
            "depends_on": [dict(one) for one in depends_on],
        }
    )
    check_contents(manifest, lambda entry: _reader(files[entry.digest]))
    return Prepared(manifest, data, files)


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
