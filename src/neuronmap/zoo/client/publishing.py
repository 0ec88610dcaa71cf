"""Publishing: what the zoo lacks is sent in pieces, then the manifest. Interrupted at any point, the same command goes on.

    begin -> which blobs are missing? -> each: start (says from where), pieces, finish -> publish

Which publication is under way is written down in <home>/zoo/publications.json, by zoo, namespace and files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuronmap import paths
from neuronmap.errors import (
    AlreadyExistsError,
    DamagedError,
    InputError,
    InvalidManifestError,
    NotInZooError,
    UploadError,
    ZooOfflineError,
)
from neuronmap.hashing import digest_json
from neuronmap.progress import Progress, Task
from neuronmap.zoo.client.backend import Backend
from neuronmap.zoo.client.location import zoo_home
from neuronmap.zoo.client.preparing import Prepared
from neuronmap.zoo.client.pulling import Puller
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.faults import Fault
from neuronmap.zoo.views import UploadView, VersionView

__all__ = ["send"]

_TRIES = 5


def send(
    puller: Puller, prepared: Prepared, *, draft: bool, private: bool, progress: Progress, parents_known: bool = False
) -> VersionView:
    """Publish what was prepared. The same again is the same version.

    Args:
        puller: of the zoo.
        prepared: manifest and files.
        draft: keep it from others until it is released.
        private: for a new artefact: members of the namespace alone can see it.
        progress: shows how fast it goes.
        parents_known: whether what it was made from is known to be there.

    Raises:
        AlreadyExistsError: the label means something else; before anything is sent.
        InvalidManifestError: what it was made from is not there.
    """
    backend, manifest = puller.backend, prepared.manifest
    done = _published(backend, prepared, draft)
    if done is not None:
        progress.note(f"{done.reference} is published already, with exactly these files.")
        return done
    if not parents_known:
        _require_parents(backend, prepared)
    journal = _Journal(backend.location, manifest.namespace, sorted(prepared.files))
    key = _going_on(backend, journal) or backend.begin(manifest.namespace, manifest.size).key
    journal.remember(key)
    missing = backend.missing(key, list(prepared.files))
    sizes = {entry.digest: entry.size for entry in manifest.files}
    if missing:
        total = sum(sizes[digest] for digest in missing)
        kept = manifest.size - total
        if kept:
            progress.note(f"{paths.human_bytes(kept)} are in the zoo already.")
        with progress.task(f"publishing {prepared.reference}", total, "bytes") as task:
            for digest in missing:
                _send_file(puller, key, digest, sizes[digest], prepared.files[digest], task)
    view = backend.publish(key, prepared.data, draft=draft, private=private)
    if view.digest != prepared.digest:
        raise DamagedError(f"{backend.location} published {view.digest} in place of {prepared.digest}.")
    journal.forget()
    return view


def _published(backend: Backend, prepared: Prepared, draft: bool) -> VersionView | None:
    """The version, if exactly this is there already."""
    try:
        view = backend.show(prepared.reference)
    except NotInZooError:
        return None
    if view.state == "draft":
        return view if draft and view.digest == prepared.digest else None
    if view.digest == prepared.digest and view.state in ("published", "deprecated"):
        return view
    what = f"is {view.state}"
    if view.digest != prepared.digest:
        differing = ", ".join(_differing(view.manifest, json.loads(prepared.data)))
        what = f"is {view.state} with another content ({view.digest}); {differing or 'its bytes'} would differ"
    raise AlreadyExistsError(
        f"{view.reference} {what}; a label never means anything else.", hint="Publish it under a new version."
    )


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Fields of two manifests that are not the same; of files, which."""
    found = []
    for name in sorted({*there, *here}):
        if there.get(name) == here.get(name):
            continue
        if name != "files":
            found.append(name)
            continue
        old, new = ({one["path"]: one["digest"] for one in which["files"]} for which in (there, here))
        found += [path for path in sorted({*old, *new}) if old.get(path) != new.get(path)][:5]
    return found


def _require_parents(backend: Backend, prepared: Prepared) -> None:
    """Find out, before gigabytes are sent, that what it was made from is not there."""
    manifest = prepared.manifest
    wanted = [(f"depends_on.{number}.digest", one.digest) for number, one in enumerate(manifest.depends_on)]
    wanted += [("subject", manifest.subject)] if manifest.subject is not None else []
    faults = [
        Fault(place, f"{backend.location} has no published version with the digest {digest}")
        for place, digest in wanted
        if not backend.by_digest(digest)
    ]
    if faults:
        raise InvalidManifestError(faults)


def _going_on(backend: Backend, journal: _Journal) -> str | None:
    """Key of the publication that was interrupted, if it lives."""
    key = journal.recall()
    if key is None:
        return None
    try:
        return backend.publication(key).key
    except NotInZooError:
        return None


def _send_file(puller: Puller, key: str, digest: Digest, size: int, path: Path, task: Task) -> None:
    """One file. The zoo says from where; after a fault it is asked again, and the faults are counted until a piece arrives."""
    backend = puller.backend
    upload = backend.start(key, digest, size)
    shown = 0
    failed = 0
    with open(path, "rb") as file:
        while upload.received < size:
            task.advance(max(0, upload.received - shown))
            shown = max(shown, upload.received)
            file.seek(upload.received)
            piece = file.read(min(backend.most_piece, size - upload.received))
            if not piece:
                raise InputError(f"{path} became shorter while it was being published.", hint="Run the command again.")
            try:
                upload, failed = _appended(backend, upload, piece), 0
            except (UploadError, ZooOfflineError):
                failed += 1
                if failed >= _TRIES:
                    raise
                puller.pause(failed)
                upload = backend.start(key, digest, size)
    task.advance(size - shown)
    if not upload.done:
        try:
            backend.finish(upload.key)
        except DamagedError as error:
            raise DamagedError(
                f"{path} arrived with other bytes than were hashed: {error.message}",
                hint="Was it changed meanwhile? Run the command again.",
            ) from error


def _appended(backend: Backend, upload: UploadView, piece: bytes) -> UploadView:
    after = backend.append(upload.key, upload.received, piece)
    if after.received <= upload.received:
        raise UploadError("The zoo took the piece, but says that nothing arrived.", received=after.received)
    return after


class _Journal:
    """Which publication is under way."""

    def __init__(self, location: str, namespace: str, digests: list[Digest]) -> None:
        self.file = zoo_home() / "publications.json"
        self.name = digest_json([location, namespace, digests])

    def recall(self) -> str | None:
        found = self._read().get(self.name)
        return str(found) if found else None

    def remember(self, key: str) -> None:
        known = self._read()
        if known.get(self.name) != key:
            paths.new_folder(self.file.parent)
            paths.write_json(self.file, {**dict(list(known.items())[-200:]), self.name: key})

    def forget(self) -> None:
        known = self._read()
        if known.pop(self.name, None) is not None:
            paths.write_json(self.file, known)

    def _read(self) -> dict[str, Any]:
        try:
            found = paths.read_json(self.file)
        except (OSError, DamagedError):
            return {}
        return found if isinstance(found, dict) else {}
