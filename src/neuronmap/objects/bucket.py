"""Objects in a bucket: S3 and what speaks like it, Google Cloud Storage, Azure; by obstore.

An object appears whole or not at all; what is longer than one part
goes up in parts, which are taken back when the sender fails. A bucket should have a rule that removes parts of uploads that were never
finished, for servers that are killed meanwhile.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import chain
from pathlib import Path
from queue import Full, Queue
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from neuronmap.errors import ConfigError, MissingDependencyError, ResourceError, UnwritablePathError
from neuronmap.objects.protocol import StoredObject
from neuronmap.objects.sending import Sending

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ObjectStore

__all__ = ["SCHEMES", "Bucket"]

SCHEMES = ("s3", "gs", "az")
"""Of the URLs: S3, Google Cloud Storage, Azure."""
_OPTIONS: dict[str, frozenset[str]] = {
    "s3": frozenset({"endpoint", "region"}),
    "gs": frozenset(),
    "az": frozenset({"account", "endpoint"}),
}
_PART = 16 << 20  # S3 takes 10,000 parts: 160 GB
_PARTS_AT_ONCE = 3
_PIECE = 1 << 20
_MOST_COPY = 5 << 30  # S3 copies up to 5 GiB in one request


class Bucket:
    """A bucket, or a part of one.

    Args:
        url: ``s3://bucket/prefix?endpoint=https://...&region=...``, ``gs://bucket/prefix`` or ``az://container/prefix?account=...``.
            Credentials come from the environment, in the way of each provider (``AWS_ACCESS_KEY_ID``, ...), never from the URL.
        patience: seconds for which a request that fails is tried again.

    Raises:
        ConfigError: the URL has other parts.
        MissingDependencyError: obstore is not installed.
    """

    what = "the store"
    """What it is called in messages."""
    whose = "Objects"
    """What lies in it, for the message that obstore is missing."""

    def __init__(self, url: str, *, patience: float = 30.0) -> None:
        parts = urlsplit(url)
        self._name = f"{parts.scheme}://{parts.hostname or ''}{parts.path.rstrip('/')}"
        options = _options(url, parts)
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as error:
            raise MissingDependencyError(
                f"{self.whose} in {self._name}: obstore is needed.", hint='pip install "neuronmap[s3]"'
            ) from error
        self._obstore = obstore
        if parts.scheme == "s3" and "endpoint" in options:
            options["virtual_hosted_style_request"] = "false"
        if parts.scheme == "az" and "account" in options:
            options["account_name"] = options.pop("account")
        try:
            self._store: ObjectStore = from_url(
                self._name,
                config=options,  # type: ignore[call-overload]
                client_options={
                    "allow_http": options.get("endpoint", "").startswith("http://"),
                    "connect_timeout": timedelta(seconds=10),
                    "read_timeout": timedelta(seconds=60),
                    "timeout": timedelta(hours=6),  # of a whole blob
                },
                retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=patience)},
            )
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise ConfigError(f"{self._name} cannot be opened: {_first_line(error)}.") from None
        self.most_copy = _MOST_COPY

    def __str__(self) -> str:
        return self._name

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        sent = Sending(chunks)
        rest = iter(sent)
        first: list[bytes] = []
        while sent.size <= _PART and (chunk := next(rest, None)) is not None:
            first.append(chunk)
        try:
            with self._telling("write"):
                if sent.size <= _PART:
                    self._obstore.put(self._store, _checked(key), b"".join(first), use_multipart=False)
                else:
                    self._put_parts(_checked(key), chain(first, rest))
        except BaseException:
            if sent.error is not None:
                raise sent.error from None
            raise
        return sent.size

    def _put_parts(self, key: str, chunks: Iterable[bytes]) -> None:
        """Send what is longer than a part, from a thread beside.

        The chunks are taken by the thread of the caller: obstore would take them within its own event loop, where they could not come
        from obstore themselves, and where a web server's request cannot be read.
        """
        waiting: Queue[bytes | _BrokenOff | None] = Queue(maxsize=4)
        failed: list[BaseException] = []
        ended = threading.Event()

        def arriving() -> Iterator[bytes]:
            while (chunk := waiting.get()) is not None:
                if isinstance(chunk, _BrokenOff):
                    raise chunk
                yield chunk

        def send() -> None:
            try:
                self._obstore.put(
                    self._store,
                    key,
                    arriving(),
                    use_multipart=True,
                    chunk_size=_PART,
                    max_concurrency=_PARTS_AT_ONCE,
                )
            except BaseException as error:  # noqa: BLE001 - raised by the caller's thread
                failed.append(error)
            finally:
                ended.set()

        def offer(chunk: bytes | _BrokenOff | None) -> None:
            while not ended.is_set():
                with suppress(Full):
                    waiting.put(chunk, timeout=0.1)
                    return

        thread = threading.Thread(target=send, name="bucket-put", daemon=True)
        thread.start()
        try:
            for chunk in chunks:
                offer(chunk)
                if ended.is_set():
                    break
            offer(None)
        except BaseException:
            offer(_BrokenOff())  # so that the parts are taken back
            raise
        finally:
            thread.join()
        if failed:
            raise failed[0]

    def get(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        if start or end is not None:
            size = self.size(key)
            if size is None:
                raise FileNotFoundError(key)
            end = size if end is None else min(end, size)
            if start >= end:
                return iter(())
        options: GetOptions | None = None if end is None else {"range": (start, end)}
        with self._telling("read", missing=True):
            found = self._obstore.get(self._store, _checked(key), options=options)
        return self._pieces(found.stream(min_chunk_size=_PIECE))

    def _pieces(self, stream: Iterable[Any]) -> Iterator[bytes]:
        with self._telling("read"):
            for piece in stream:
                yield bytes(piece)

    def size(self, key: str) -> int | None:
        try:
            with self._telling("read", missing=True):
                return int(self._obstore.head(self._store, _checked(key))["size"])
        except FileNotFoundError:
            return None

    def move(self, source: str, target: str) -> None:
        size = self.size(source)
        if size is None:
            raise FileNotFoundError(source)
        if size <= self.most_copy:
            with self._telling("write", missing=True):
                self._obstore.copy(self._store, _checked(source), _checked(target))
        else:
            self.put(target, self.get(source))
        self.delete(source)

    def delete(self, key: str) -> None:
        try:
            with self._telling("write", missing=True):
                self._obstore.delete(self._store, _checked(key))
        except FileNotFoundError:
            return

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        with self._telling("read"):
            for batch in self._obstore.list(self._store, prefix=prefix or None):
                for found in batch:
                    yield StoredObject(found["path"], found["size"], found["last_modified"].timestamp())

    def local_path(self, key: str) -> Path | None:
        del key
        return None

    @contextmanager
    def _telling(self, doing: str, missing: bool = False) -> Iterator[None]:
        """Errors of the store as ours; those of whoever sends or takes the bytes go on as they are."""
        errors = self._obstore.exceptions
        try:
            yield
        except FileNotFoundError as error:
            if missing:
                raise FileNotFoundError(_first_line(error)) from None
            raise ResourceError(
                f"Cannot {doing} in {self.what} {self}: {_first_line(error)}.", hint="Does the bucket exist?"
            ) from error
        except (errors.PermissionDeniedError, errors.UnauthenticatedError) as error:
            raise UnwritablePathError(
                f"No permission to {doing} in {self.what} {self}: {_first_line(error)}.",
                hint="Credentials come from the environment (AWS_ACCESS_KEY_ID, ...).",
            ) from error
        except errors.BaseError as error:
            raise ResourceError(
                f"Cannot {doing} in {self.what} {self}: {_first_line(error)}.", hint=_hint(str(error))
            ) from error


class _BrokenOff(Exception):
    """The sender failed."""


def _options(url: str, parts: SplitResult) -> dict[str, str]:
    """The parameters of a URL, checked."""
    if parts.scheme not in SCHEMES or not parts.hostname or parts.fragment:
        raise ConfigError(
            f"{url[:100]!r} is no object store.",
            hint="s3://bucket/prefix?endpoint=https://...&region=..., gs://bucket/prefix or az://container/prefix?account=...",
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "The URL of an object store holds no credentials.", hint="Set AWS_ACCESS_KEY_ID, ... in the environment."
        )
    allowed = _OPTIONS[parts.scheme]
    found = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(found) - allowed)
    if unknown:
        raise ConfigError(
            f"{', '.join(map(repr, unknown))} cannot be set in the URL of an object store; "
            f"{parts.scheme}:// takes {', '.join(sorted(allowed)) or 'none'}."
        )
    if "endpoint" in found and urlsplit(found["endpoint"]).scheme not in ("http", "https"):
        raise ConfigError(f"endpoint = {found['endpoint']!r}: an http or https address is needed.")
    return found


def _checked(key: str) -> str:
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"{key!r} is no key of ours.")  # keys are made here: this is a fault of ours
    return key


def _first_line(error: Exception) -> str:
    """The first line, without the XML in which S3 answers."""
    return re.split(r"\n|:? ?<\?x|:? ?<Error", str(error).strip(), maxsplit=1)[0][:300].rstrip(". :")


def _hint(said: str) -> str:
    if (
        "169.254.169.254" in said or "metadata.google" in said
    ):  # asked for credentials by who finds none in the environment
        return "Credentials come from the environment (AWS_ACCESS_KEY_ID, ...), and there are none."
    return "Does the bucket exist?" if "404" in said or "NoSuchBucket" in said else ""
