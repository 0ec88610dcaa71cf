"""A zoo behind a server. What it answers is read as if an attacker had written it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from neuronmap.errors import DamagedError, ZooError
from neuronmap.progress import Task
from neuronmap.zoo.client.backend import Opened
from neuronmap.zoo.client.http import Patience, ZooHTTP, plain, quoted
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.faults import faults_of
from neuronmap.zoo.manifest import MOST_BYTES, FileEntry
from neuronmap.zoo.names import Reference
from neuronmap.zoo.registry.housekeeping import Collected, Verified
from neuronmap.zoo.registry.lineage import MOST_DEPTH
from neuronmap.zoo.search.compatible import CompatibilityPage
from neuronmap.zoo.search.query import CompatibilityQuery, Query
from neuronmap.zoo.views import (
    AliasMove,
    ArtefactView,
    LineageView,
    PublicationView,
    SearchPage,
    UploadView,
    VersionView,
)

__all__ = ["PREFIX", "RemoteBackend", "read_answer"]

PREFIX = "/api/zoo"
_PROTOCOL = 1
_PIECE = 8 << 20
_MOST_NODES = 5000
_Model = TypeVar("_Model", bound=BaseModel)


class RemoteBackend:
    """A zoo's server.

    Args:
        location: its address.
        token: of the account; None for nobody in particular.
        patience: how long to wait.
        offline: ask nothing; what needs the server is refused.
    """

    is_remote = True

    def __init__(
        self, location: str, token: str | None = None, patience: Patience | None = None, *, offline: bool = False
    ) -> None:
        self.location = location.rstrip("/")
        self.http = ZooHTTP(self.location, token, patience, offline=offline)
        self.most_piece = _PIECE

    def close(self) -> None:
        self.http.close()

    def about(self) -> dict[str, Any]:
        found = self._ask("GET", "")
        if not isinstance(found, dict) or type(found.get("protocol")) is not int:
            raise ZooError(
                f"{self.location} is no zoo.", hint="Give the address of one, such as https://zoo.example.org"
            )
        if found["protocol"] != _PROTOCOL:
            raise ZooError(
                f"{self.location} speaks version {found['protocol']} of the zoo's protocol, this NeuronMap version {_PROTOCOL}.",
                hint="Update the older one of the two.",
            )
        return found

    # --- looking -----------------------------------------------------------------------------------------------------------

    def search(self, query: Query) -> SearchPage:
        return read_answer(SearchPage, self._ask("GET", "/search", params=_parameters(query)))

    def compatible(self, query: CompatibilityQuery) -> CompatibilityPage:
        return read_answer(CompatibilityPage, self._ask("GET", "/compatible", params=_parameters(query)))

    def show(self, reference: Reference) -> VersionView:
        found = read_answer(VersionView, self._ask("GET", _version(reference)))
        named = (found.namespace, found.name) == (reference.namespace, reference.name)
        pinned = reference.label in (None, found.label) and reference.digest in (None, found.digest)
        if not named or not pinned:
            raise ZooError(
                f"{self.location} was asked for {reference} and answers with {found.reference} ({found.digest})."
            )
        return found

    def artefact(self, namespace: str, name: str) -> ArtefactView:
        return read_answer(ArtefactView, self._ask("GET", _artefact(namespace, name)))

    def lineage(self, reference: Reference, *, depth: int, up: bool, down: bool) -> LineageView:
        params = {"depth": depth, "up": str(up).lower(), "down": str(down).lower()}
        found = read_answer(LineageView, self._ask("GET", f"{_version(reference)}/lineage", params=params))
        known = {node.digest for node in found.nodes}
        if (
            found.root not in known
            or len(known) > _MOST_NODES
            or any(abs(node.depth) > MOST_DEPTH for node in found.nodes)
        ):
            raise ZooError(f"{self.location} answers with a lineage of {reference} that cannot be one.")
        return found

    def alias_log(self, namespace: str, name: str) -> list[AliasMove]:
        found = self._ask("GET", f"{_artefact(namespace, name)}/alias-log")
        return [read_answer(AliasMove, one) for one in (found if isinstance(found, list) else [])]

    def by_digest(self, digest: Digest) -> list[Reference]:
        found = self._ask("GET", f"/manifests/{digest}")
        names = found.get("references") if isinstance(found, dict) else None
        references = [Reference.parse(str(name)) for name in names or []]
        return [one for one in references if one.digest == digest]

    def manifest(self, reference: Reference, *, pulled: bool = False) -> bytes:
        params = {"pulled": "true"} if pulled else None
        path = f"{PREFIX}{_version(reference)}/manifest"
        return self.http.fetch("GET", path, params=params, most=MOST_BYTES).data

    @contextmanager
    def open(self, reference: Reference, entry: FileEntry, start: int = 0) -> Iterator[Opened]:
        path = f"{PREFIX}{_version(reference)}/files/{quoted(entry.path.split('/'))}"
        with self.http.stream(path, start=start, etag=f'"{entry.digest}"') as answer:
            tag = answer.headers.get("etag", "").removeprefix("W/").strip('"')
            if tag.startswith("sha256:") and tag != entry.digest:
                raise DamagedError(f"{self.location} has {tag[:80]} in place of {entry.digest} as {entry.path}.")
            begins = 0
            if answer.status == 206:
                begins = _first_byte(answer.headers.get("content-range", ""))
                if begins != start:
                    raise ZooError(
                        f"{self.location} was asked for {entry.path} from byte {start} and sends it from {begins}."
                    )
            length = answer.headers.get("content-length", "")
            if length.isdigit() and int(length) != entry.size - begins:
                raise DamagedError(
                    f"{self.location} sends {entry.path} with {int(length) + begins:,} bytes; its manifest says {entry.size:,}."
                )
            yield Opened(begins, answer.pieces)

    # --- publishing --------------------------------------------------------------------------------------------------------

    def begin(self, namespace: str, size: int) -> PublicationView:
        most = self.about().get("most_piece_bytes")
        self.most_piece = min(_PIECE, most) if type(most) is int and most > 0 else _PIECE
        body = {"namespace": namespace, "size": size}
        return read_answer(PublicationView, self._ask("POST", "/publications", body=body))

    def publication(self, key: str) -> PublicationView:
        return read_answer(PublicationView, self._ask("GET", f"/publications/{_key(key)}"))

    def abandon(self, key: str) -> None:
        self._ask("DELETE", f"/publications/{_key(key)}")

    def missing(self, key: str, digests: Iterable[Digest]) -> list[Digest]:
        body = {"digests": list(digests)}
        found = self._ask("POST", f"/publications/{_key(key)}/missing", body=body, again=True)
        return [Digest(str(one)) for one in (found.get("missing") if isinstance(found, dict) else None) or []]

    def start(self, key: str, digest: Digest, size: int) -> UploadView:
        body = {"digest": digest, "size": size}  # the same twice is the same upload
        return read_answer(UploadView, self._ask("POST", f"/publications/{_key(key)}/uploads", body=body, again=True))

    def append(self, upload: str, offset: int, piece: bytes) -> UploadView:
        headers = {"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"}
        path = f"/uploads/{_key(upload)}"
        return read_answer(UploadView, self._ask("PATCH", path, data=piece, headers=headers, again=False))

    def finish(self, upload: str) -> UploadView:
        return read_answer(UploadView, self._ask("POST", f"/uploads/{_key(upload)}/finish", again=True))

    def publish(self, key: str, manifest: bytes, *, draft: bool, private: bool) -> VersionView:
        params = {"draft": str(draft).lower(), "private": str(private).lower()}
        headers = {"Content-Type": "application/json"}
        path = f"/publications/{_key(key)}/manifest"
        return read_answer(VersionView, self._ask("PUT", path, params=params, data=manifest, headers=headers))

    # --- changing ----------------------------------------------------------------------------------------------------------

    def release(self, reference: Reference) -> VersionView:
        return read_answer(VersionView, self._ask("POST", f"{_version(reference)}/release", again=True))

    def deprecate(self, reference: Reference, reason: str, successor: Reference | None) -> VersionView:
        body = {"reason": reason, "successor": str(successor) if successor is not None else None}
        return read_answer(VersionView, self._ask("POST", f"{_version(reference)}/deprecate", body=body, again=True))

    def yank(self, reference: Reference, reason: str) -> VersionView:
        return read_answer(
            VersionView, self._ask("POST", f"{_version(reference)}/yank", body={"reason": reason}, again=True)
        )

    def restore(self, reference: Reference) -> VersionView:
        return read_answer(VersionView, self._ask("POST", f"{_version(reference)}/restore", again=True))

    def delete(self, reference: Reference, reason: str) -> VersionView:
        return read_answer(VersionView, self._ask("DELETE", _version(reference), params={"reason": reason}))

    def set_private(self, namespace: str, name: str, private: bool) -> None:
        self._ask("PUT", f"{_artefact(namespace, name)}/visibility", body={"private": private})

    def set_alias(self, reference: Reference, alias: str, *, expected: str | None, reason: str) -> VersionView:
        version = str(reference).partition("@")[2]
        body = {"version": version, "expected": expected, "reason": reason}
        path = f"{_artefact(reference.namespace, reference.name)}/aliases/{quoted([alias])}"
        return read_answer(VersionView, self._ask("PUT", path, body=body))

    def remove_alias(self, namespace: str, name: str, alias: str, *, expected: str | None, reason: str) -> None:
        params = {"reason": reason, **({"expected": expected} if expected is not None else {})}
        self._ask("DELETE", f"{_artefact(namespace, name)}/aliases/{quoted([alias])}", params=params)

    # --- people and housekeeping -------------------------------------------------------------------------------------------

    def whoami(self) -> dict[str, Any]:
        return dict(self._ask("GET", "/me") or {})

    def star(self, namespace: str, name: str, wanted: bool) -> None:
        self._ask("PUT" if wanted else "DELETE", f"{_artefact(namespace, name)}/star")

    def comments(self, namespace: str, name: str) -> list[dict[str, Any]]:
        found = self._ask("GET", f"{_artefact(namespace, name)}/comments")
        listed = found.get("comments") if isinstance(found, dict) else found
        return [dict(one) for one in listed or []]

    def comment(self, namespace: str, name: str, text: str, version: str | None) -> dict[str, Any]:
        body = {"text": text, **({"version": version} if version is not None else {})}
        return dict(self._ask("POST", f"{_artefact(namespace, name)}/comments", body=body) or {})

    def verify_store(self, limit: int | None, task: Task) -> Verified:
        body = {} if limit is None else {"limit": limit}
        found = read_answer(Verified, self._ask("POST", "/verify", body=body))
        task.advance(found.checked_bytes)
        return found

    def collect(self, *, dry_run: bool, grace: float | None) -> dict[str, Any]:
        body = {"dry_run": dry_run, **({"grace": grace} if grace is not None else {})}
        return read_answer(Collected, self._ask("POST", "/gc", body=body)).to_dict()

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        return _shown(self.http.json(method, PREFIX + path, **options))


def _artefact(namespace: str, name: str) -> str:
    return f"/artefacts/{quoted([namespace, name])}"


def _version(reference: Reference) -> str:
    version = reference.digest or reference.label or reference.alias or "latest"
    return f"{_artefact(reference.namespace, reference.name)}/versions/{quoted([version])}"


def _key(key: str) -> str:
    """A publication's or an upload's name, which the server gave."""
    if not (1 <= len(key) <= 64 and key.isalnum() and key.isascii()):
        raise ZooError(f"The server gave {key[:80]!r} as the name of an upload, which cannot be one.")
    return key


def _first_byte(content_range: str) -> int:
    """Of ``bytes 100-199/200``."""
    first = content_range.removeprefix("bytes ").partition("-")[0].strip()
    if not first.isdigit():
        raise ZooError(f"The server sends a part of a file without saying which ({content_range[:60]!r}).")
    return int(first)


def _parameters(query: BaseModel) -> dict[str, Any]:
    """The parameters that were given."""
    found: dict[str, Any] = {}
    for name, value in query.model_dump(mode="json", exclude_defaults=True).items():
        if value is not None:
            found[name] = str(value).lower() if isinstance(value, bool) else value
    return found


def _shown(value: Any) -> Any:
    """Texts of a server without signs that a terminal would obey."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {plain(str(name)): _shown(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner) for inner in value]
    return value


def read_answer(model: type[_Model], values: Any) -> _Model:
    """An answer as what it should be; fields that a newer server added are passed over.

    Raises:
        ZooError: it is something else.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        added = [fault["loc"] for fault in error.errors() if fault["type"] == "extra_forbidden"]
        for place in added:
            _drop(values, place)
        if added:
            try:
                return model.model_validate(values)
            except ValidationError as other:
                error = other
        said = "; ".join(str(fault) for fault in faults_of(error)[:3])
        raise ZooError(f"The server's answer is no {model.__name__}: {said}.") from None


def _drop(values: Any, place: tuple[int | str, ...]) -> None:
    for part in place[:-1]:
        values = values[part]
    values.pop(place[-1], None)
