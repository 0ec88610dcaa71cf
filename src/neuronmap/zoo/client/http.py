"""HTTP as the client of a zoo needs it: the one module that knows the HTTP library.

A server may be slow, broken, or hostile. Every wait has an end, every answer a size limit; a redirect leads to the same server or
nowhere, so that a token never goes elsewhere; what is not compressed cannot swell; texts of a server are shown without control signs.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2

from neuronmap import errors
from neuronmap.errors import InputError, NeuronMapError, ZooError, ZooOfflineError

__all__ = ["Answer", "Patience", "Stream", "ZooHTTP", "plain", "quoted"]

_PIECE = 1 << 20
_TRIES = 4
_AGAIN = frozenset({429, 502, 503, 504})
_LONGEST_WAIT_S = 60.0
_MOST_REDIRECTS = 3
_BY_CODE: dict[str, type[NeuronMapError]] = {
    cls.code: cls
    for cls in (
        errors.ConfigError,
        errors.InputError,
        errors.NotInZooError,
        errors.UnauthorizedError,
        errors.ForbiddenError,
        errors.QuotaError,
        errors.AlreadyExistsError,
        errors.MismatchError,
        errors.DamagedError,
        errors.DiskSpaceError,
        errors.ResourceError,
        errors.TooOftenError,
        errors.ZooError,
        errors.ZooOfflineError,
    )
}
_BY_STATUS: dict[int, type[NeuronMapError]] = {
    401: errors.UnauthorizedError,
    403: errors.ForbiddenError,
    404: errors.NotInZooError,
    409: errors.MismatchError,
    422: errors.InputError,
    429: errors.TooOftenError,
    502: errors.ZooOfflineError,
    503: errors.ZooOfflineError,
    504: errors.ZooOfflineError,
}


class Patience(NamedTuple):
    """How long the client waits.

    Attributes:
        connect_s: for a connection.
        read_s: for the next bytes of an answer.
        answer_s: for a whole JSON answer.
        window_s, least_bytes: a file must bring so many bytes in every window, or it counts as stuck.
        pause_s: before the second try; it doubles with each.
    """

    connect_s: float = 10.0
    read_s: float = 60.0
    answer_s: float = 120.0
    window_s: float = 30.0
    least_bytes: int = 30 * 1024
    pause_s: float = 0.5


class Answer(NamedTuple):
    """A whole answer: its status, headers (lower case) and bytes."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class Stream(NamedTuple):
    """An answer whose bytes are still coming."""

    status: int
    headers: Mapping[str, str]
    pieces: Iterator[bytes]


class _Refused(Exception):
    """The server said no; within this module only."""

    def __init__(self, error: NeuronMapError, status: int, wait_s: float | None) -> None:
        super().__init__(error.message)
        self.error, self.status, self.wait_s = error, status, wait_s


class ZooHTTP:
    """Requests to one server.

    Args:
        base: its address, ``https://zoo.example.org`` (a path below which it lies is allowed).
        token: sent as ``Authorization: Bearer``; never to another server.
        patience: how long to wait.
        offline: ask nothing; every request is refused.
    """

    def __init__(
        self, base: str, token: str | None = None, patience: Patience | None = None, *, offline: bool = False
    ) -> None:
        self.patience = patience or Patience()
        self.offline = offline
        self.base = base.rstrip("/")
        url = httpx2.URL(self.base)
        self._origin = (url.scheme, url.host, url.port)
        headers = {"User-Agent": f"neuronmap/{version('neuronmap')}", "Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        waits = httpx2.Timeout(self.patience.read_s, connect=self.patience.connect_s)
        self._client = httpx2.Client(headers=headers, timeout=waits, follow_redirects=False)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def json(
        self,
        method: str,
        path: str,
        *,
        params: Any = None,
        body: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool | None = None,
        most: int = 32 << 20,
    ) -> Any:
        """Ask, and read the answer as JSON; None for an empty one.

        Args:
            method, path: of the request; the path is below the server's address.
            params: of the query.
            body: sent as JSON.
            data: sent as it is, in place of a body.
            headers: further ones.
            again: whether it may be sent twice; GET and PUT may when left out.
            most: bytes of the answer.

        Raises:
            ZooOfflineError: the server cannot be reached, or does not answer in time.
            NeuronMapError: what the server says.
        """
        sent = dict(headers or {})
        if body is not None:
            data = json.dumps(body, allow_nan=False).encode()
            sent["Content-Type"] = "application/json"
        answer = self.fetch(method, path, params=params, data=data, headers=sent, again=again, most=most)
        if not answer.data:
            return None
        try:
            return json.loads(answer.data)
        except (ValueError, RecursionError):
            raise ZooError(
                f"{self.base} did not answer {path} with JSON.", hint="Is it the address of a zoo?"
            ) from None

    def fetch(
        self,
        method: str,
        path: str,
        *,
        params: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool | None = None,
        most: int = 32 << 20,
    ) -> Answer:
        """Ask, and read the whole answer; arguments and errors as for :meth:`json`."""
        self._require_online()
        twice = method in ("GET", "HEAD", "PUT") if again is None else again

        def once() -> Answer:
            until = time.monotonic() + self.patience.answer_s
            with self._open(method, path, params, data, headers) as response:
                found = bytearray()
                for piece in response.iter_raw():
                    found += piece
                    if len(found) > most:
                        raise ZooError(f"{self.base} answers {path} with more than {most:,} bytes.")
                    if time.monotonic() > until:
                        raise ZooOfflineError(
                            f"{self.base} has not finished its answer to {path} in {self.patience.answer_s:g} s."
                        )
                return Answer(response.status_code, dict(response.headers), bytes(found))

        return self._patiently(once, twice)

    @contextmanager
    def stream(self, path: str, *, start: int = 0, etag: str = "") -> Iterator[Stream]:
        """Ask for a file. Going on where a connection broke is the caller's part: they know what they have.

        Args:
            path: of the file.
            start: byte to begin at; the server may begin at 0 all the same (status 200).
            etag: of what is there already; another file is then sent from its beginning.

        Raises:
            ZooOfflineError: the server cannot be reached, or the bytes come too slowly (while they are read, too).
            NeuronMapError: what the server says.
        """
        self._require_online()
        headers = {"Range": f"bytes={start}-", "If-Range": etag} if start else {}
        for attempt in range(_TRIES):
            try:
                with self._open("GET", path, None, None, headers) as response:
                    yield Stream(response.status_code, dict(response.headers), self._watched(response, path))
                    return
            except _Refused as refused:  # before anything was given
                if refused.status not in _AGAIN or attempt == _TRIES - 1:
                    raise refused.error from None
                self.pause(attempt, refused.wait_s)

    def _require_online(self) -> None:
        if self.offline:
            raise ZooOfflineError(
                f"{self.base} is not asked: this is offline mode.",
                hint="Unset NEURONMAP_OFFLINE. What was pulled before can be pulled again: neuronmap zoo pull --offline",
            )

    # --- steps -------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _open(
        self, method: str, path: str, params: Any, data: bytes | None, headers: Mapping[str, str] | None
    ) -> Iterator[httpx2.Response]:
        """Send; follow redirects within the server; raise what it says."""
        url: httpx2.URL | str = f"{self.base}{path}"
        for _ in range(_MOST_REDIRECTS + 1):
            with _reaching(self.base):
                request = self._client.build_request(method, url, params=params, content=data, headers=headers)
                response = self._client.send(request, stream=True)
            try:
                if response.is_redirect and method in ("GET", "HEAD"):
                    url, params = self._redirected(request.url, response), None
                    continue
                with _reaching(self.base):
                    self._check(response, path)
                    yield response
                return
            finally:
                response.close()
        raise ZooError(f"{self.base} redirects {path} again and again.")

    def _redirected(self, url: httpx2.URL, response: httpx2.Response) -> httpx2.URL:
        """Where a redirect leads, if that is on the same server."""
        try:
            target = url.join(response.headers.get("location", ""))
        except (httpx2.InvalidURL, ValueError):
            target = httpx2.URL("")
        if (target.scheme, target.host, target.port) != self._origin:
            shown = plain(str(target))[:200]
            raise ZooError(
                f"{self.base} redirects to {shown or 'nowhere'}; another server is never followed.",
                hint="Give that server's address if it is the zoo's.",
            )
        return target

    def _check(self, response: httpx2.Response, path: str) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ZooError(f"{self.base} compresses its answer to {path}, which it was not asked to.")
        if response.is_redirect:
            raise ZooError(f"{self.base} redirects {path}; changes are sent to the server's own address only.")
        if response.status_code >= 400:
            wait = response.headers.get("retry-after", "")
            raise _Refused(self._said(response, path), response.status_code, float(wait) if wait.isdigit() else None)

    def _said(self, response: httpx2.Response, path: str) -> NeuronMapError:
        """The server's error as ours."""
        data = b""
        try:
            for piece in response.iter_raw():
                data += piece
                if len(data) > _PIECE:
                    break
            said = json.loads(data)["error"]
            code = str(said["code"])
        except (ValueError, KeyError, TypeError, RecursionError):
            said, code = {}, ""
        status = response.status_code
        message = plain(str(said.get("message") or f"{self.base} answers {path} with status {status}."))[:2000]
        hint = plain(str(said.get("hint") or ""))[:2000]
        if code == "invalid_manifest":
            fields = [one for one in said.get("fields") or [] if isinstance(one, dict)]
            places = [(plain(str(one.get("field", ""))), plain(str(one.get("message", "")))) for one in fields]
            return errors.InvalidManifestError(places or [("", message)])
        if code == "upload":
            received = said.get("received")
            return errors.UploadError(message, hint=hint, received=received if type(received) is int else 0)
        return (_BY_CODE.get(code) or _BY_STATUS.get(status, ZooError))(message, hint=hint)

    def _patiently(self, once: Callable[[], Answer], twice: bool) -> Answer:
        """Try again where that can help and do no harm. Too many requests (429) were not worked on, so any may be sent again."""
        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            try:
                return once()
            except _Refused as refused:
                helps = refused.status == 429 or (twice and refused.status in _AGAIN)
                if not helps or last:
                    raise refused.error from None
                self.pause(attempt, refused.wait_s)
            except ZooOfflineError:
                if not twice or last:
                    raise
                self.pause(attempt)
        raise AssertionError

    def pause(self, attempt: int, wait_s: float | None = None) -> None:
        """Wait before another try: as long as the server said, else twice as long each time, a little by chance."""
        wait = self.patience.pause_s * 2**attempt * random.uniform(0.8, 1.2) if wait_s is None else wait_s
        time.sleep(min(wait, _LONGEST_WAIT_S))

    def _watched(self, response: httpx2.Response, path: str) -> Iterator[bytes]:
        """The bytes, as long as enough of them come."""
        since, came = time.monotonic(), 0
        for piece in response.iter_raw():
            came += len(piece)
            passed = time.monotonic() - since
            if passed >= self.patience.window_s:
                if came < self.patience.least_bytes * passed / self.patience.window_s:
                    raise ZooOfflineError(f"{self.base} sends {path} too slowly: {came:,} bytes in {passed:.0f} s.")
                since, came = time.monotonic(), 0
            yield piece


@contextmanager
def _reaching(base: str) -> Iterator[None]:
    """Faults of the connection as ours."""
    try:
        yield
    except httpx2.TimeoutException as error:
        raise ZooOfflineError(f"{base} does not answer in time ({type(error).__name__}).", hint=_HINT) from error
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise InputError(f"{base[:200]} is no address of a zoo: http:// or https:// and a host.") from error
    except httpx2.HTTPError as error:
        said = plain(str(error))[:200] or type(error).__name__
        raise ZooOfflineError(f"{base} cannot be reached: {said}.", hint=_HINT) from error


_HINT = "Check the address and the network; neuronmap zoo pull --offline uses what was pulled before."


def plain(text: str) -> str:
    """A server's text without signs that a terminal would obey."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "?" for sign in text)


def quoted(parts: Iterable[str]) -> str:
    """Parts of a path, each as one part of an address."""
    return "/".join(quote(part, safe="@:") for part in parts)
