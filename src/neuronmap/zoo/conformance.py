"""Whether a server keeps the promises of the zoo's API: a program that any server can be pointed at, knowing nothing of its inside.

What is only read is read from whatever the server has. With a token and a namespace to write in, it publishes a small artefact there
(``conformance-<8 hex digits>``), tries what must be refused, and deletes it again as far as the token allows.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from neuronmap.errors import ForbiddenError, NotInZooError, UnauthorizedError, ZooOfflineError
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.document import Document
from neuronmap.zoo.manifest import Manifest

if TYPE_CHECKING:
    import httpx2

__all__ = ["PROTOCOL", "Check", "ConformanceReport", "run_conformance"]

PROTOCOL = 1
"""Version of the API that is checked."""
_API = "/api/zoo"
_MOST_FILE = 64 << 20
"""Bytes of a file that is pulled to be checked."""


class Check(Document):
    """One promise."""

    number: int
    """In order."""
    name: str
    """What must hold."""
    outcome: Literal["pass", "fail", "skip"]
    """Whether it does."""
    reason: str = ""
    """Why it does not, or why it was not looked at."""


class ConformanceReport(Document):
    """What was found."""

    url: str
    """Of the server."""
    checks: tuple[Check, ...]
    """In order."""

    @property
    def conforms(self) -> bool:
        """Whether nothing failed."""
        return all(check.outcome != "fail" for check in self.checks)

    def counts(self) -> dict[str, int]:
        """How many passed, failed and were skipped."""
        outcomes = [check.outcome for check in self.checks]
        return {outcome: outcomes.count(outcome) for outcome in ("pass", "fail", "skip")}


def run_conformance(
    url: str,
    token: str | None = None,
    *,
    write_namespace: str | None = None,
    client: httpx2.Client | None = None,
) -> ConformanceReport:
    """Check a server.

    Args:
        url: its address, without ``/api/zoo``.
        token: for reading, where that needs one, and for writing.
        write_namespace: where to publish a small artefact, of which the token's account is an owner; the token needs the scopes write and
            admin. None: only what can be read is checked.
        client: sends the requests; one of its own when left out.

    Raises:
        ZooOfflineError: nobody answers there.
        UnauthorizedError, ForbiddenError, NotInZooError: there is no such namespace, or the token does not govern it: what it may not do
            would look like a fault of the server.
    """
    import httpx2

    own = client or httpx2.Client(timeout=60, follow_redirects=False)
    try:
        run = _Run(own, url.rstrip("/"), token, write_namespace)
        run.require_rights()
        return run.report()
    except httpx2.TransportError as error:
        raise ZooOfflineError(f"{url} cannot be reached: {error}.") from error
    finally:
        if client is None:
            own.close()


class _Fault(Exception):
    """A promise that is not kept."""


class _Skip(Exception):
    """A promise that cannot be looked at here."""


def _must(held: object, reason: str) -> None:
    if not held:
        raise _Fault(reason)


class _Run:
    """One run over one server."""

    def __init__(self, client: httpx2.Client, url: str, token: str | None, namespace: str | None) -> None:
        self.client, self.url, self.token, self.namespace = client, url, token, namespace
        self.about: dict[str, Any] = {}
        self.hit: dict[str, Any] = {}
        self.name = f"conformance-{secrets.token_hex(4)}"
        self.data = secrets.token_bytes(3000)
        self.made: dict[str, Any] = {}
        self.written = b""

    def report(self) -> ConformanceReport:
        """Look at everything, in order: later checks use what earlier ones have found."""
        found = []
        for number, (name, check) in enumerate(self._checks(), 1):
            outcome, reason = "pass", ""
            try:
                check()
            except _Fault as fault:
                outcome, reason = "fail", str(fault)
            except _Skip as skip:
                outcome, reason = "skip", str(skip)
            except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:  # an answer of another shape
                outcome, reason = "fail", f"the answer has another shape: {type(error).__name__}: {error}"
            found.append(Check.model_validate({"number": number, "name": name, "outcome": outcome, "reason": reason}))
        return ConformanceReport(url=self.url, checks=tuple(found))

    def _checks(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("the server says what it is, and speaks protocol 1", self.says_what_it_is),
            ("errors have one shape", self.errors_have_one_shape),
            ("a wrong token is answered with 401", self.wrong_token),
            ("strangers read only where the server says so", self.strangers_read),
            ("strangers change nothing, and their requests are not read first", self.strangers_change_nothing),
            ("the schemas of manifests and records are published", self.schemas),
            ("a manifest can be published", self.publish),
            ("a piece at the wrong place is answered with 409 and where to go on", self.offsets),
            ("bytes of another digest are refused", self.wrong_digest),
            ("the same manifest again is the same version", self.idempotent),
            ("a label never means another content", self.label_is_taken),
            ("a manifest whose files were not sent is refused, with the place", self.unsent_files),
            ("every fault of a manifest is listed with its place", self.faults_listed),
            ("acts of labels that do not say what their id says are refused", self.forged_acts),
            ("a search finds something, page by page", self.pages),
            ("a manifest's SHA-256 is its digest, its ETag and what it is called", self.manifest_digest),
            ("a manifest that the asker has is not sent again", self.manifest_unchanged),
            ("files have the digest and size that the manifest says", self.file_digest),
            ("files are attachments that no browser runs", self.file_headers),
            ("a part of a file is that part", self.ranges),
            ("a part of another file is not sent", self.if_range),
            ("a part beyond the end is answered with 416", self.beyond_the_end),
            ("HEAD tells the size and sends nothing", self.head),
            ("paths that lead out are no files", self.paths),
            ("files and manifests cannot be changed", self.immutable),
            ("an alias moves only if nobody else has moved it", self.alias),
            ("a yanked version is found by its exact label or digest alone", self.yank),
            ("what is private does not exist for strangers", self.no_oracle),
            ("a deleted version leaves its manifest, and its label stays taken", self.delete),
        ]

    # --- before ---------------------------------------------------------------------------------------------------------

    def require_rights(self) -> None:
        """Refuse to begin where the token may not do what is checked. A server that says nothing of it is checked all the same."""
        if self.namespace is None or "accounts" not in self._told("").get("features", []):
            return
        if self.token is None:
            raise UnauthorizedError(
                f"To publish in {self.namespace!r} a token is needed.",
                hint="neuronmap zoo login, or NEURONMAP_ZOO_TOKEN.",
            )
        answer = self.ask("GET", f"/namespaces/{quote(self.namespace, safe='')}")
        if answer.status_code == 404:
            raise NotInZooError(
                f"There is no namespace {self.namespace!r} on {self.url}, in which test artefacts could be published.",
                hint=f"neuronmap zoo org create {self.namespace}, or the name of your account.",
            )
        me = self._told("/me")
        scopes, only = me.get("scopes", []), me.get("only_namespace")
        if not {"write", "admin"} <= set(scopes):
            raise ForbiddenError(
                f"The token has the scopes {', '.join(scopes) or '(none)'}; to publish, yank and delete, write and admin are needed.",
                hint=f"neuronmap zoo token create conformance --scope write --scope admin --namespace {self.namespace}",
            )
        roles = {one["namespace"]: one["role"] for one in me.get("namespaces", [])}
        if roles.get(self.namespace) != "owner" and not (me.get("is_admin") and only is None):
            raise ForbiddenError(
                f"{me.get('name')} is {roles.get(self.namespace, 'no member')} of {self.namespace}; an owner is needed.",
                hint="Choose a namespace of your own, or ask for the role.",
            )

    def _told(self, path: str) -> dict[str, Any]:
        """What a good answer holds; nothing where it is no good one, which is for the checks to say."""
        answer = self.ask("GET", path)
        try:
            found = answer.json() if answer.status_code == 200 else {}
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    # --- asking --------------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, *, stranger: bool = False, **more: Any) -> httpx2.Response:
        headers = dict(more.pop("headers", {}))
        if self.token is not None and not stranger:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        return self.client.request(method, f"{self.url}{_API}{path}", headers=headers, **more)

    def error(self, answer: httpx2.Response, *statuses: int) -> dict[str, Any]:
        """The error of an answer that must be one."""
        _must(
            answer.status_code in statuses,
            f"status {answer.status_code} where {' or '.join(map(str, statuses))} is due",
        )
        error: dict[str, Any] = answer.json()["error"]
        for name in ("code", "message", "hint"):
            _must(isinstance(error[name], str), f"error.{name} is {error[name]!r}")
        _must(
            error["status"] == answer.status_code,
            f"error.status is {error['status']!r} with status {answer.status_code}",
        )
        return error

    def good(self, answer: httpx2.Response, *statuses: int) -> Any:
        """The JSON of an answer that must be good."""
        wanted = statuses or (200,)
        _must(
            answer.status_code in wanted, f"status {answer.status_code} where {wanted[0]} is due: {answer.text[:200]}"
        )
        return answer.json() if answer.content else None

    def writing(self) -> str:
        """The namespace to write in."""
        if self.token is None or self.namespace is None:
            raise _Skip("needs a token and a namespace to write in")
        return self.namespace

    def published(self) -> str:
        """Address of the artefact that was published here."""
        self.writing()
        if not self.made:
            raise _Skip("nothing could be published")
        return f"/artefacts/{self.namespace}/{self.name}"

    def readable(self) -> str:
        """Address of a version that can be read."""
        if not self.hit:
            raise _Skip("there is nothing to read; give a token, or a namespace to write in")
        artefact, _, label = str(self.hit["reference"]).partition("@")
        return f"/artefacts/{artefact}/versions/{quote(label)}"

    def small_file(self) -> tuple[str, dict[str, Any]]:
        """Address and entry of a file of it that is worth pulling."""
        address = self.readable()
        entries = [one for one in self.good(self.ask("GET", address))["files"] if 2 <= one["size"] <= _MOST_FILE]
        if not entries:
            raise _Skip("it has no file of a size that is pulled here")
        found = min(entries, key=lambda one: one["size"])
        return f"{address}/files/{quote(found['path'])}", found

    # --- the server ----------------------------------------------------------------------------------------------------

    def says_what_it_is(self) -> None:
        self.about = self.good(self.ask("GET", "", stranger=True))
        _must(self.about["protocol"] == PROTOCOL, f"protocol is {self.about['protocol']!r}")
        for name, kind in (("name", str), ("neuronmap", str), ("features", list), ("anonymous_read", bool)):
            _must(isinstance(self.about[name], kind), f"{name} is {self.about[name]!r}")
        _must(self.about["most_piece_bytes"] >= 1 << 20, "pieces of a MiB must be taken")

    def errors_have_one_shape(self) -> None:
        self.error(self.ask("GET", "/nothing-is-here"), 404)
        statuses = (404,) if self.token or self.about.get("anonymous_read") else (401,)
        self.error(self.ask("GET", f"/artefacts/no-such/{self.name}"), *statuses)

    def wrong_token(self) -> None:
        if "accounts" not in self.about.get("features", []):
            raise _Skip("the server has no accounts")
        for wrong in (f"nmz_{secrets.token_urlsafe(32)}", "nonsense"):
            self.error(self.ask("GET", "/me", headers={"Authorization": f"Bearer {wrong}"}), 401)

    def strangers_read(self) -> None:
        answer = self.ask("GET", "/search", stranger=True)
        if self.about["anonymous_read"]:
            self.good(answer)
        else:
            self.error(answer, 401)

    def strangers_change_nothing(self) -> None:
        if "accounts" not in self.about.get("features", []):
            raise _Skip("the server has no accounts: whoever reaches it may change everything")
        for body in (b'{"namespace": "ada", "size": 1}', b"\xff no json"):
            headers = {"Content-Type": "application/json"}
            self.error(self.ask("POST", "/publications", stranger=True, content=body, headers=headers), 401)

    def schemas(self) -> None:
        answer = self.ask("GET", "/schemas")
        if answer.status_code == 401 and self.token is None:
            raise _Skip("reading needs a token")
        names = [one["name"] for one in self.good(answer)["schemas"]]
        _must({"manifest", "SAE_MODEL"} <= set(names), f"there are {names}")
        for name in names:
            _must("properties" in self.good(self.ask("GET", f"/schemas/{name}")), f"{name} is no JSON schema")

    # --- publishing ----------------------------------------------------------------------------------------------------

    def _manifest(self, data: bytes | None = None, **more: Any) -> bytes:
        data = self.data if data is None else data
        file = {
            "path": "data.bin",
            "digest": Digest.of(data),
            "size": len(data),
            "media_type": "application/octet-stream",
        }
        values: dict[str, Any] = {
            "kind": "DATASET", "namespace": self.namespace, "name": self.name, "version": "1.0", "licence": "CC0-1.0",
            "created": "2026-01-01T00:00:00Z", "files": [file], "record": {"format": "bytes"}, "title": "A conformance check",
            **more,
        }  # fmt: skip
        return Manifest.build(values)[1]

    def _begin(self, size: int) -> str:
        made = self.good(self.ask("POST", "/publications", json={"namespace": self.writing(), "size": size}), 201)
        return f"/publications/{made['key']}"

    def _start(self, publication: str, data: bytes) -> str:
        body = {"digest": Digest.of(data), "size": len(data)}
        return f"/uploads/{self.good(self.ask('POST', f'{publication}/uploads', json=body), 200, 201)['key']}"

    def _piece(self, upload: str, offset: int, data: bytes) -> httpx2.Response:
        return self.ask("PATCH", upload, content=data, headers={"Upload-Offset": str(offset)})

    def _send(self, publication: str, data: bytes) -> None:
        upload = self._start(publication, data)
        self.good(self._piece(upload, 0, data))
        _must(self.good(self.ask("POST", f"{upload}/finish"))["done"], "the upload is not done")

    def _put(self, publication: str, manifest: bytes, query: str = "") -> httpx2.Response:
        headers = {"Content-Type": "application/json"}
        return self.ask("PUT", f"{publication}/manifest{query}", content=manifest, headers=headers)

    def publish(self) -> None:
        publication = self._begin(len(self.data))
        missing = self.good(self.ask("POST", f"{publication}/missing", json={"digests": [Digest.of(self.data)]}))
        _must(missing["missing"] == [Digest.of(self.data)], f"missing is {missing['missing']} for a file never sent")
        upload = self._start(publication, self.data)
        half = len(self.data) // 2
        _must(
            self.good(self._piece(upload, 0, self.data[:half]))["received"] == half, "received is wrong after one piece"
        )
        _must(self._start(publication, self.data) == upload, "the same file again is another upload")
        self.good(self._piece(upload, half, self.data[half:]))
        self.good(self.ask("POST", f"{upload}/finish"))
        self.written = self._manifest()
        made = self.good(self._put(publication, self.written), 201)
        _must(
            made["digest"] == Digest.of(self.written), f"digest is {made['digest']}, not the SHA-256 of what was sent"
        )
        _must(made["state"] == "published", f"state is {made['state']!r}")
        self.made = made

    def offsets(self) -> None:
        publication = self._begin(10)
        upload = self._start(publication, b"0123456789")
        self.good(self._piece(upload, 0, b"0123"))
        for wrong in (0, 3, 7):
            error = self.error(self._piece(upload, wrong, b"x"), 409)
            _must(error["received"] == 4, f"received is {error.get('received')!r}, not 4, for a piece at {wrong}")
        self.error(self.ask("POST", f"{upload}/finish"), 409)
        self.error(self._piece(upload, 4, b"456789 and more"), 409, 413)
        _must(
            self.good(self._piece(upload, 4, b"456789"))["received"] == 10,
            "a piece that was refused has left something",
        )
        self.ask("DELETE", publication)

    def wrong_digest(self) -> None:
        publication = self._begin(5)
        upload = self._start(publication, b"right")
        self.good(self._piece(upload, 0, b"wrong"))
        self.error(self.ask("POST", f"{upload}/finish"), 409)
        shown = self.good(self.ask("GET", publication))["uploads"]
        _must(not any(one["done"] for one in shown), "the upload counts as done")
        self.ask("DELETE", publication)

    def idempotent(self) -> None:
        self.published()
        again = self.good(self._put(self._begin(0), self.written), 200)
        _must(again["digest"] == self.made["digest"], "it has another digest")

    def label_is_taken(self) -> None:
        self.published()
        other = self._manifest(title="Another title")
        publication = self._begin(0)
        self.error(self._put(publication, other), 409)
        self.ask("DELETE", publication)

    def unsent_files(self) -> None:
        publication = self._begin(10)
        error = self.error(self._put(publication, self._manifest(secrets.token_bytes(10), version="2.0")), 422)
        _must([one["field"] for one in error["fields"]] == ["files.0.digest"], f"fields is {error['fields']}")
        self.ask("DELETE", publication)

    def faults_listed(self) -> None:
        publication = self._begin(10)
        values = json.loads(self._manifest(version="2.0"))
        values["licence"], values["created"], values["unknown"] = "no such licence", "yesterday", 1
        error = self.error(self._put(publication, json.dumps(values).encode()), 422)
        found = {one["field"] for one in error["fields"]}
        _must({"licence", "created", "unknown"} <= found, f"fields names {sorted(found)}")
        for bad in (b"", b"[]", b'{"schema": 1, "schema": 2}'):
            self.error(self._put(publication, bad), 422)
        self.ask("DELETE", publication)

    def forged_acts(self) -> None:
        self.published()
        act = {
            "kind": "label", "sae": Digest.of(self.data), "feature": 0, "author": {"kind": "person", "name": "nobody"},
            "at": "2026-01-01T00:00:00.000000Z", "text": "a label", "method": "conformance", "id": "0" * 32,
        }  # fmt: skip
        data = json.dumps(act).encode() + b"\n"
        publication = self._begin(len(data))
        self._send(publication, data)
        values = json.loads(self._manifest(data, name=f"{self.name}-labels"))
        values |= {"kind": "EXPLANATIONS", "record": {"format": "neuronmap-labels", "method": "people", "count": 1}}
        values["files"][0] |= {"path": "labels.jsonl", "media_type": "application/x-ndjson"}
        values["depends_on"] = [{"digest": self.made["digest"], "role": "sae"}]
        error = self.error(self._put(publication, json.dumps(values).encode()), 422)
        found = [one["field"] for one in error["fields"]]
        _must(any("line 1" in one for one in found), f"fields names {found}")
        self.ask("DELETE", publication)

    # --- reading -------------------------------------------------------------------------------------------------------

    def pages(self) -> None:
        answer = self.ask("GET", "/search", params={"limit": 1, "sort": "newest"})
        if answer.status_code == 401 and self.token is None:
            raise _Skip("reading needs a token")
        first = self.good(answer)
        if not first["hits"]:
            _must(not self.made, "what was just published is not found")
            raise _Skip("the zoo is empty")
        self.hit = first["hits"][0]
        if self.made:  # checked by what is known of it, whatever else is published meanwhile
            self.hit = {"reference": self.made["reference"], "digest": self.made["digest"]}
        if first["next"] is not None:
            params = {"limit": 1, "sort": "newest", "cursor": first["next"]}
            second = self.good(self.ask("GET", "/search", params=params))["hits"]
            _must(second[0]["reference"] != first["hits"][0]["reference"], "the second page repeats the first")

    def manifest_digest(self) -> None:
        address = self.readable()
        answer = self.ask("GET", f"{address}/manifest")
        self.good(answer)
        digest = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        _must(digest == self.hit["digest"], f"the bytes have the digest {digest}, the version {self.hit['digest']}")
        _must(answer.headers.get("etag") == f'"{digest}"', f"ETag is {answer.headers.get('etag')}")
        _must(answer.headers.get("zoo-digest") == digest, f"Zoo-Digest is {answer.headers.get('zoo-digest')}")
        artefact = address.rpartition("/versions/")[0]
        same = self.ask("GET", f"{artefact}/versions/{digest}/manifest")
        _must(same.content == answer.content, "by its digest it has other bytes")
        references = self.good(self.ask("GET", f"/manifests/{digest}"))["references"]
        _must(references, "the digest is not known")

    def manifest_unchanged(self) -> None:
        tag = f'"{self.hit["digest"]}"' if self.readable() else ""
        answer = self.ask("GET", f"{self.readable()}/manifest", headers={"If-None-Match": tag})
        _must((answer.status_code, answer.content) == (304, b""), f"status {answer.status_code} where 304 is due")

    def file_digest(self) -> None:
        address, entry = self.small_file()
        answer = self.ask("GET", address)
        _must(answer.status_code == 200, f"status {answer.status_code}")
        digest = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        _must(digest == entry["digest"], f"its bytes have the digest {digest}, not {entry['digest']}")
        _must(len(answer.content) == entry["size"], f"it has {len(answer.content)} bytes, not {entry['size']}")
        _must(answer.headers.get("etag") == f'"{digest}"', f"ETag is {answer.headers.get('etag')}")

    def file_headers(self) -> None:
        headers = self.ask("GET", self.small_file()[0]).headers
        _must(headers.get("content-disposition", "").startswith("attachment"), "it is no attachment")
        _must(headers.get("x-content-type-options") == "nosniff", "a browser may guess its type")
        _must("sandbox" in headers.get("content-security-policy", ""), "a browser may run what is in it")

    def ranges(self) -> None:
        address, entry = self.small_file()
        whole, size = self.ask("GET", address).content, entry["size"]
        for wanted, start, end in (("0-0", 0, 1), (f"1-{size}", 1, size), ("1-", 1, size), ("-1", size - 1, size)):
            answer = self.ask("GET", address, headers={"Range": f"bytes={wanted}"})
            _must(answer.status_code == 206, f"status {answer.status_code} for bytes={wanted}")
            _must(answer.content == whole[start:end], f"other bytes for bytes={wanted}")
            expected = f"bytes {start}-{end - 1}/{size}"
            _must(
                answer.headers.get("content-range") == expected,
                f"Content-Range is {answer.headers.get('content-range')}",
            )

    def if_range(self) -> None:
        address, entry = self.small_file()
        headers = {"Range": "bytes=1-", "If-Range": f'"{entry["digest"]}"'}
        _must(self.ask("GET", address, headers=headers).status_code == 206, "the same file's part is not sent")
        headers["If-Range"] = f'"sha256:{"0" * 64}"'
        answer = self.ask("GET", address, headers=headers)
        _must(answer.status_code == 200 and len(answer.content) == entry["size"], "a part of another file is sent")

    def beyond_the_end(self) -> None:
        address, entry = self.small_file()
        answer = self.ask("GET", address, headers={"Range": f"bytes={entry['size']}-"})
        self.error(answer, 416)
        _must(answer.headers.get("content-range") == f"bytes */{entry['size']}", "Content-Range does not tell the size")

    def head(self) -> None:
        address, entry = self.small_file()
        answer = self.ask("HEAD", address)
        _must((answer.status_code, answer.content) == (200, b""), f"status {answer.status_code}")
        _must(answer.headers.get("content-length") == str(entry["size"]), "Content-Length is not the file's size")

    def paths(self) -> None:
        address = self.readable()
        for path in ("..%2f..%2fmanifest", "%2fetc%2fpasswd", "a%5c..%5cb", "%2e%2e%2fx", "a%00b", "con.txt"):
            answer = self.ask("GET", f"{address}/files/{path}")
            _must(answer.status_code in (400, 404, 422), f"status {answer.status_code} for {path}")

    # --- what may change -------------------------------------------------------------------------------------------------

    def immutable(self) -> None:
        version = f"{self.published()}/versions/1.0"
        for method, path in (
            ("PUT", "manifest"),
            ("DELETE", "manifest"),
            ("PUT", "files/data.bin"),
            ("PATCH", "files/data.bin"),
        ):
            answer = self.ask(method, f"{version}/{path}", content=b"other")
            _must(answer.status_code in (404, 405), f"status {answer.status_code} for {method} {path}")
        _must(self.ask("GET", f"{version}/manifest").content == self.written, "the manifest has changed")

    def alias(self) -> None:
        address = f"{self.published()}/aliases/checked"
        self.good(self.ask("PUT", address, json={"version": "1.0", "expected": ""}))
        self.error(self.ask("PUT", address, json={"version": "1.0", "expected": "0.9"}), 409)
        moves = self.good(self.ask("GET", f"{self.published()}/alias-log"))
        _must([(one["before"], one["after"]) for one in moves] == [(None, "1.0")], f"the log says {moves}")
        self.error(self.ask("PUT", f"{self.published()}/aliases/latest", json={"version": "1.0"}), 422)

    def yank(self) -> None:
        versions = f"{self.published()}/versions"
        reason = {"reason": "a conformance check"}
        yanked = self.good(self.ask("POST", f"{versions}/1.0/yank", json=reason))
        _must((yanked["state"], yanked["reason"]) == ("yanked", reason["reason"]), f"state is {yanked['state']!r}")
        for wide in ("latest", "checked"):
            self.error(self.ask("GET", f"{versions}/{wide}"), 404)
        for exact in ("1.0", self.made["digest"]):
            _must(self.ask("GET", f"{versions}/{exact}/files/data.bin").content == self.data, f"not pulled by {exact}")
        found = self.good(self.ask("GET", "/search", params={"namespace": self.namespace, "limit": 100}))["hits"]
        _must(all(hit["digest"] != self.made["digest"] for hit in found), "a search finds it")
        self.good(self.ask("POST", f"{versions}/1.0/restore"))
        _must(self.good(self.ask("GET", f"{versions}/latest"))["label"] == "1.0", "it was not restored")

    def no_oracle(self) -> None:
        self.published()
        name = f"{self.name}-private"
        publication = self._begin(0)
        made = self._put(publication, self._manifest(name=name), "?private=true")
        self.good(made, 201)
        for path in ("", "/versions/1.0", "/versions/1.0/manifest", "/versions/1.0/files/data.bin", "/alias-log"):
            hidden = self.ask("GET", f"/artefacts/{self.namespace}/{name}{path}", stranger=True)
            never = self.ask("GET", f"/artefacts/{self.namespace}/{'x' * len(name)}{path}", stranger=True)
            if "accounts" in self.about["features"]:
                _must(hidden.status_code in (401, 404), f"status {hidden.status_code} for {path or 'the artefact'}")
                told = hidden.text.replace(name, "x" * len(name)) != never.text
                _must(not told, f"the answers differ for {path or 'the artefact'}")
        self.ask("DELETE", f"/artefacts/{self.namespace}/{name}/versions/1.0", params={"reason": "a conformance check"})

    def delete(self) -> None:
        version = f"{self.published()}/versions/1.0"
        answer = self.ask("DELETE", version, params={"reason": "a conformance check"})
        if answer.status_code == 403:
            raise _Skip("the token may not delete; the artefact stays")
        _must(self.good(answer)["state"] == "deleted", "it is not deleted")
        self.error(self.ask("GET", f"{version}/files/data.bin"), 404)
        _must(self.ask("GET", f"{version}/manifest").content == self.written, "its manifest is gone")
        self.error(self._put(self._begin(len(self.data)), self.written), 409, 422)
