"""Does a server keep the zoo's protocol and promises? Asked from outside, as any client could; nothing is taken on trust.

Without a namespace only reading is checked. With one, artefacts named ``conformance-<random>`` are published there and deleted again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from neuronmap.errors import (
    AlreadyExistsError,
    DamagedError,
    InputError,
    InvalidManifestError,
    MismatchError,
    NeuronMapError,
    NotInZooError,
    UploadError,
)
from neuronmap.zoo.client.http import Patience
from neuronmap.zoo.client.remote import PREFIX, RemoteBackend
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.manifest import Manifest
from neuronmap.zoo.names import Reference
from neuronmap.zoo.search.query import CompatibilityQuery, Query

__all__ = ["Check", "check_server"]


class Check(NamedTuple):
    """One check.

    Attributes:
        name: what was tried.
        passed: whether it held.
        message: what was found otherwise.
    """

    name: str
    passed: bool
    message: str


_Step = tuple[str, Callable[[], None]]


def check_server(
    address: str, token: str | None = None, namespace: str | None = None, patience: Patience | None = None
) -> list[Check]:
    """Try everything that the protocol promises.

    Args:
        address: of the server.
        token: of an account that may write and delete in the namespace.
        namespace: where test artefacts may be published.
        patience: how long to wait.

    Raises:
        ZooOfflineError: the server cannot be reached at all.
    """
    backend = RemoteBackend(address, token, patience)
    try:
        backend.about()
        steps = [*_reading(backend)]
        if namespace is not None:
            steps += _Publishing(backend, namespace).steps()
        return [_tried(name, step) for name, step in steps]
    finally:
        backend.close()


def _tried(name: str, step: Callable[[], None]) -> Check:
    try:
        step()
    except _Broken as broken:
        return Check(name, False, str(broken))
    except NeuronMapError as error:
        return Check(name, False, f"{type(error).__name__}: {error.message}"[:300])
    return Check(name, True, "")


class _Broken(Exception):
    """A promise was not kept; within this module only."""


def _hold(promise: bool, otherwise: str) -> None:
    if not promise:
        raise _Broken(otherwise)


def _refused(kind: type[NeuronMapError], call: Callable[[], object]) -> NeuronMapError:
    """The error that must come."""
    try:
        call()
    except kind as error:
        return error
    except NeuronMapError as error:
        raise _Broken(f"it was refused as {error.code!r}, not as {kind.code!r}: {error.message}"[:300]) from None
    raise _Broken("it was not refused")


def _reading(backend: RemoteBackend) -> Iterator[_Step]:
    nobody = Reference.parse(f"nobody-{secrets.token_hex(6)}/nothing")

    def schemas() -> None:
        listed = backend.http.json("GET", f"{PREFIX}/schemas")
        names = [one["name"] for one in listed["schemas"]]
        _hold({"manifest", "SAE_MODEL", "ANALYSIS_RESULT"} <= set(names), f"it lists {', '.join(names)}")
        for name in names:
            found = backend.http.json("GET", f"{PREFIX}/schemas/{name}")
            _hold("properties" in found, f"{name} is no JSON schema")

    def searching() -> None:
        page = backend.search(Query(limit=1))
        _hold(len(page.hits) <= 1, f"{len(page.hits)} hits came where 1 was asked for")
        seen = {hit.reference for hit in page.hits}
        if page.next is not None:
            more = backend.search(Query(limit=1, cursor=page.next))
            _hold(not seen & {hit.reference for hit in more.hits}, "the second page begins with the first one's hits")

    def traversal() -> None:
        for path in ("..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", "a%5C..%5Cb", "a%00b"):
            _refused_anyhow(backend, f"{PREFIX}/artefacts/{nobody.artefact}/versions/1.0/files/{path}")

    yield "it says what it is", lambda: None
    yield "it publishes the schemas", schemas
    yield "what is not there is not_in_zoo", lambda: _fits(_refused(NotInZooError, lambda: backend.show(nobody)))
    yield "no search is too odd to be answered", lambda: _fits(backend.search(Query(q="\"' OR 1=1 -- *")))
    yield "pages of a search do not overlap", searching
    yield "a wrong cursor is refused", lambda: _fits(_refused(InputError, lambda: backend.search(Query(cursor="x"))))
    yield "it says which SAEs fit a model", lambda: _fits(backend.compatible(CompatibilityQuery(model="gpt2")))
    yield "paths that climb are refused", traversal


def _fits(found: object) -> None:
    """An answer that could be read at all."""
    del found


def _refused_anyhow(backend: RemoteBackend, path: str) -> None:
    try:
        backend.http.fetch("GET", path)
    except NeuronMapError:
        return
    raise _Broken(f"{path} was answered")


class _Publishing:
    """Steps that publish; each builds on those before."""

    def __init__(self, backend: RemoteBackend, namespace: str) -> None:
        self.backend, self.namespace = backend, namespace
        self.name = f"conformance-{secrets.token_hex(6)}"
        self.bytes = {label: secrets.token_bytes(3000) for label in ("1.0", "1.1")}
        self.digests: dict[str, Digest] = {}

    def steps(self) -> list[_Step]:
        return [
            ("publish a version", lambda: self._publish_checked("1.0")),
            ("the same again is the same version", self._again),
            ("the manifest comes back byte for byte", self._same_bytes),
            ("files come whole and in parts, with their digest", self._files),
            ("files are sent as attachments that run nowhere", self._headers),
            ("a label never means anything else", self._label_taken),
            ("a piece at the wrong place says where to go on", self._wrong_offset),
            ("bytes with another digest are refused", self._wrong_bytes),
            ("a manifest without its files is refused, with the place", self._no_files),
            ("what it depends on must be there first", self._no_parent),
            ("a second version depends on the first", lambda: self._publish_checked("1.1", parent="1.0")),
            ("lineage shows it", self._lineage),
            ("an alias moves only from where it is said to be", self._alias),
            ("a yanked version is found by exact pin alone", self._yank),
            ("what others were made from is not deleted", self._in_use),
            ("a deleted label is never given again", self._delete),
        ]

    def _named(self, label: str) -> Reference:
        return Reference(self.namespace, self.name, label=label)

    def _built(self, label: str, data: bytes, **more: Any) -> tuple[Manifest, bytes]:
        entry = {
            "path": "data.bin",
            "digest": Digest.of(data),
            "size": len(data),
            "media_type": "application/octet-stream",
        }
        values = {
            "kind": "DATASET",
            "namespace": self.namespace,
            "name": self.name,
            "version": label,
            "licence": "CC0-1.0",
            "title": "Conformance test",
            "created": "2026-01-01T00:00:00Z",
            "files": [entry],
            "record": {"format": "bytes"},
        }
        return Manifest.build({**values, **more})

    def _publish(self, label: str, data: bytes, **more: Any) -> Digest:
        manifest, written = self._built(label, data, **more)
        key = self.backend.begin(self.namespace, manifest.size).key
        for digest in self.backend.missing(key, [Digest.of(data)]):
            upload = self.backend.start(key, digest, len(data))
            self.backend.append(upload.key, 0, data[:1000])
            self.backend.append(upload.key, 1000, data[1000:])
            _hold(self.backend.finish(upload.key).done, "the upload is not done")
        view = self.backend.publish(key, written, draft=False, private=False)
        _hold(view.digest == Digest.of(written), f"it was published as {view.digest}")
        return view.digest

    def _publish_checked(self, label: str, parent: str | None = None) -> None:
        more = {"depends_on": [{"digest": self.digests[parent], "role": "base"}]} if parent else {}
        self.digests[label] = self._publish(label, self.bytes[label], **more)

    def _again(self) -> None:
        _hold(self._publish("1.0", self.bytes["1.0"]) == self.digests["1.0"], "it became another version")

    def _same_bytes(self) -> None:
        found = self.backend.manifest(self._named("1.0"))
        _hold(Digest.of(found) == self.digests["1.0"], f"its digest is {Digest.of(found)}")

    def _path(self, label: str) -> str:
        return f"{PREFIX}/artefacts/{self.namespace}/{self.name}/versions/{label}/files/data.bin"

    def _files(self) -> None:
        data = self.bytes["1.0"]
        whole = self.backend.http.fetch("GET", self._path("1.0"))
        _hold(whole.data == data, "the bytes are not those that were sent")
        tag = whole.headers.get("etag", "")
        _hold(tag == f'"{Digest.of(data)}"', f"its ETag is {tag}")
        part = self.backend.http.fetch("GET", self._path("1.0"), headers={"Range": "bytes=1000-", "If-Range": tag})
        _hold(
            part.status == 206 and part.data == data[1000:],
            f"a range gives status {part.status}, {len(part.data)} bytes",
        )
        other = {"Range": "bytes=1000-", "If-Range": '"sha256:other"'}
        whole = self.backend.http.fetch("GET", self._path("1.0"), headers=other)
        _hold(whole.status == 200 and whole.data == data, f"If-Range of another file gives status {whole.status}")

    def _headers(self) -> None:
        headers = self.backend.http.fetch("GET", self._path("1.0")).headers
        _hold(headers.get("content-disposition", "").startswith("attachment"), "no Content-Disposition: attachment")
        _hold(headers.get("x-content-type-options") == "nosniff", "no X-Content-Type-Options: nosniff")
        _hold("sandbox" in headers.get("content-security-policy", ""), "no Content-Security-Policy: sandbox")

    def _label_taken(self) -> None:
        _refused(AlreadyExistsError, lambda: self._publish("1.0", secrets.token_bytes(2000)))

    def _wrong_offset(self) -> None:
        key = self.backend.begin(self.namespace, 3000).key
        upload = self.backend.start(key, Digest.of(b"any"), 3000)
        self.backend.append(upload.key, 0, b"x" * 1000)
        error = _refused(UploadError, lambda: self.backend.append(upload.key, 500, b"x" * 10))
        _hold(getattr(error, "received", None) == 1000, f"it says {getattr(error, 'received', None)}, not 1000")
        self.backend.abandon(key)

    def _wrong_bytes(self) -> None:
        key = self.backend.begin(self.namespace, 3).key
        upload = self.backend.start(key, Digest.of(b"abc"), 3)
        self.backend.append(upload.key, 0, b"abd")
        _refused(DamagedError, lambda: self.backend.finish(upload.key))
        self.backend.abandon(key)

    def _no_files(self) -> None:
        _, written = self._built("9.0", secrets.token_bytes(100))
        key = self.backend.begin(self.namespace, 100).key
        error = _refused(InvalidManifestError, lambda: self.backend.publish(key, written, draft=False, private=False))
        places = [place for place, _ in getattr(error, "faults", ())]
        _hold("files.0.digest" in places, f"the faults are at {places}")
        self.backend.abandon(key)

    def _no_parent(self) -> None:
        unknown = [{"digest": Digest.of(secrets.token_bytes(8)), "role": "base"}]
        _refused(InvalidManifestError, lambda: self._publish("9.1", secrets.token_bytes(1500), depends_on=unknown))

    def _lineage(self) -> None:
        found = self.backend.lineage(self._named("1.1"), depth=2, up=True, down=True)
        wanted = (self.digests["1.1"], self.digests["1.0"])
        _hold(wanted in [(edge.child, edge.parent) for edge in found.edges], "the edge is not in it")

    def _alias(self) -> None:
        self.backend.set_alias(self._named("1.0"), "stable", expected="", reason="first")
        move = self._named("1.1")
        _refused(MismatchError, lambda: self.backend.set_alias(move, "stable", expected="", reason="race"))
        self.backend.set_alias(move, "stable", expected="1.0", reason="second")
        found = self.backend.show(Reference(self.namespace, self.name, alias="stable"))
        _hold(found.label == "1.1", f"it points to {found.label}")
        moves = [(one.before, one.after) for one in self.backend.alias_log(self.namespace, self.name)]
        _hold(moves == [("1.0", "1.1"), (None, "1.0")], f"its log says {moves}")

    def _yank(self) -> None:
        self.backend.yank(self._named("1.1"), "conformance test")
        found = self.backend.show(Reference.parse(f"{self.namespace}/{self.name}"))
        _hold(found.label == "1.0", f"latest means {found.label}")
        _refused(NotInZooError, lambda: self.backend.show(Reference(self.namespace, self.name, alias="stable")))
        exact = self.backend.show(self._named("1.1"))
        _hold((exact.state, exact.reason) == ("yanked", "conformance test"), f"it is {exact.state}: {exact.reason}")

    def _in_use(self) -> None:
        _refused(AlreadyExistsError, lambda: self.backend.delete(self._named("1.0"), "conformance test"))

    def _delete(self) -> None:
        for label in ("1.1", "1.0"):
            gone = self.backend.delete(self._named(label), "conformance test")
            _hold(gone.state == "deleted" and not gone.files, f"it is {gone.state}")
        _refused(AlreadyExistsError, lambda: self._publish("1.0", self.bytes["1.0"]))
