"""Lock files: which digests names meant, so that the same bytes are pulled tomorrow, here or elsewhere, from this zoo or a mirror.

# neuronmap-zoo.lock
version = 1

[[artefact]]
asked = "ada/demo@production"
reference = "ada/demo@1.0"
digest = "sha256:..."            of the manifest, which holds the digest of every file
kind = "SAE_MODEL"
zoo = "https://zoo.example.org"

[[artefact.file]]
path = "cfg.json"
digest = "sha256:..."
size = 3894
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from neuronmap import paths
from neuronmap.errors import DamagedError, InputError, MismatchError
from neuronmap.zoo.digests import Digest, SafePath
from neuronmap.zoo.document import Document
from neuronmap.zoo.faults import faults_of
from neuronmap.zoo.manifest import Manifest
from neuronmap.zoo.names import Reference

if TYPE_CHECKING:
    from neuronmap.zoo.client.pulling import Resolved

__all__ = ["LOCK_FILE", "LockedArtefact", "LockedFile", "Lockfile", "locked_artefact", "read_lock", "write_lock"]

LOCK_FILE = "neuronmap-zoo.lock"
_VERSION = 1
_HEADER = "# Written by `neuronmap zoo lock`; `neuronmap zoo pull --lock` reproduces exactly these bytes.\n"


class LockedFile(Document):
    """A file."""

    path: SafePath
    """Within the artefact."""
    digest: Digest
    """SHA-256 of its bytes."""
    size: int = Field(ge=0)
    """Bytes."""


class LockedArtefact(Document):
    """What a name meant."""

    asked: str
    """What was asked for."""
    reference: str
    """``namespace/name@label``."""
    digest: Digest
    """Of the manifest."""
    kind: str
    """Kind of the artefact."""
    zoo: str
    """Address or folder of the zoo; any that has the digest will do."""
    file: tuple[LockedFile, ...]
    """Its files."""

    @property
    def pinned(self) -> Reference:
        """By digest."""
        named = Reference.parse(self.reference)
        return Reference(named.namespace, named.name, digest=self.digest)

    def require_same(self, manifest: Manifest) -> None:
        """Refuse a manifest that lists other files.

        Raises:
            MismatchError: says which differ.
        """
        listed = {entry.path: (entry.digest, entry.size) for entry in manifest.files}
        locked = {one.path: (one.digest, one.size) for one in self.file}
        wrong = sorted(path for path in {*listed, *locked} if listed.get(path) != locked.get(path))
        if wrong:
            raise MismatchError(
                f"The lock file and {self.reference} ({self.digest}) differ in {', '.join(wrong[:5])}.",
                hint="The lock file was changed by hand: lock again.",
            )


class Lockfile(Document):
    """A lock file."""

    version: int = Field(default=_VERSION, ge=1, le=_VERSION)
    """Of this form."""
    artefact: tuple[LockedArtefact, ...]
    """What is locked, dependencies before what needs them."""


def read_lock(path: Path) -> Lockfile:
    """Read a lock file.

    Raises:
        InputError: it is not there, or is no lock file.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no lock file {path}.", hint="neuronmap zoo lock namespace/name ...") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DamagedError(f"{path} is no TOML: {error}") from None
    try:
        return Lockfile.model_validate(values)
    except ValidationError as error:
        said = "; ".join(str(fault) for fault in faults_of(error)[:5])
        raise InputError(f"{path} is no lock file of the zoo: {said}.") from None


def write_lock(path: Path, artefacts: Iterable[LockedArtefact]) -> Lockfile:
    """Write a lock file."""
    lock = Lockfile(artefact=tuple(artefacts))
    paths.write_bytes(path, "".join(_lines(lock)).encode())
    return lock


def _lines(lock: Lockfile) -> Iterator[str]:
    yield f"{_HEADER}version = {lock.version}\n"
    for one in lock.artefact:
        yield "\n[[artefact]]\n"
        values: dict[str, Any] = one.to_dict()
        files = values.pop("file")
        yield from (f"{name} = {_text(value)}\n" for name, value in values.items())
        for file in files:
            yield "\n[[artefact.file]]\n"
            yield f"path = {_text(file['path'])}\ndigest = {_text(file['digest'])}\nsize = {file['size']}\n"


def _text(value: str) -> str:
    """A TOML basic string: JSON's escapes are among TOML's, except for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def locked_artefact(zoo: str, asked: str, resolved: Resolved) -> LockedArtefact:
    """What a lock file says of a version.

    Args:
        zoo: where it lies.
        asked: what it was called.
        resolved: the version.
    """
    files = [LockedFile(path=one.path, digest=one.digest, size=one.size) for one in resolved.manifest.files]
    return LockedArtefact(
        asked=asked,
        reference=resolved.name,
        digest=resolved.digest,
        kind=resolved.manifest.kind,
        zoo=zoo,
        file=tuple(files),
    )
