"""Objects in a bucket: S3 and what speaks like it, Google Cloud Storage, Azure; by obstore.

An object appears whole or not at all; what is longer than one part goes up in parts, which are taken back when the sender fails. A bucket
should have a rule that removes parts of uploads that were never finished, for servers that are killed meanwhile. Azure has that rule: what
was never finished goes by itself after a week, also what a sender that failed had sent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import chain
from pathlib import Path
from queue import Full, Queue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from neuronmap.errors import ConfigError, MissingDependencyError, ResourceError, UnwritablePathError
from neuronmap.objects.protocol import StoredObject
from neuronmap.objects.providers import options_of, provider_of, said
from neuronmap.objects.sending import Sending

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ObjectStore

__all__ = ["Bucket"]

_PART = 16 << 20  # S3 takes 10,000 parts: 160 GB
_PARTS_AT_ONCE = 3
_PIECE = 1 << 20
_MOST_COPY = 5 << 30  # S3 copies up to 5 GiB in one request
_LONGEST_COPY = 3600.0  # seconds, of one within a store


class Bucket:
    """A bucket, or a part of one.

    Args:
        url: ``s3://bucket/prefix?endpoint=https://...&region=...``, ``gs://bucket/prefix?endpoint=https://...`` or
            ``az://container/prefix?account=...&endpoint=https://...``; what follows ``?`` may be left out. Credentials come from the
            environment, in the way of each provider (``AWS_ACCESS_KEY_ID``, ...), never from the URL.
        patience: seconds for which a request that fails is tried again.

    Raises:
        ConfigError: the URL has other parts, or the credentials have no form that could be right.
        MissingDependencyError: obstore is not installed.
    """

    what = "the store"
    """What it is called in messages."""
    whose = "Objects"
    """What lies in it, for the message that obstore is missing."""

    def __init__(self, url: str, *, patience: float = 20.0) -> None:
        parts = urlsplit(url)
        self._name = f"{parts.scheme}://{parts.hostname or ''}{parts.path.rstrip('/')}"
        self._provider = provider_of(url, parts)
        options = options_of(self._provider, parts)
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as error:
            raise MissingDependencyError(
                f"{self.whose} in {self._name}: obstore is needed.", hint='pip install "neuronmap[s3]"'
            ) from error
        self._obstore = obstore
        settings = {self._provider.options[name]: value for name, value in options.items()}
        if parts.scheme == "s3" and "endpoint" in options:
            settings["virtual_hosted_style_request"] = "false"
        try:
            self._store: ObjectStore = from_url(
                self._name,
                config=settings,  # type: ignore[call-overload]
                client_options={
                    "allow_http": options.get("endpoint", "").startswith("http://"),
                    "connect_timeout": timedelta(seconds=5),
                    "read_timeout": timedelta(seconds=60),
                    "timeout": timedelta(hours=6),  # of a whole blob
                },
                retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=patience)},
            )
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise ConfigError(
                f"{self._name} cannot be opened: {said(error)}.",
                hint=self._provider.hint(str(error)) or self._provider.credentials_hint,
            ) from None
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
        if size > self.most_copy or (self._provider.waits and self.size(target) is not None):
            self.put(target, self.get(source))
        else:
            with self._telling("write", missing=True):
                self._obstore.copy(self._store, _checked(source), _checked(target))
            if self._provider.waits:
                self._wait_for_copy(source, target, size)
        self.delete(source)

    def _wait_for_copy(self, source: str, target: str, size: int) -> None:
        """Azure copies when it finds the time, and needs the source until then; meanwhile the target has no bytes.

        That only holds for a target that is new: an old one of the same size could not be told from a copy that arrived.
        """
        ends, pause = time.monotonic() + _LONGEST_COPY, 0.05
        while self.size(target) != size:
            if time.monotonic() > ends:
                raise ResourceError(
                    f"Cannot write in {self.what} {self}: the copy of {source} to {target} has not arrived in {_LONGEST_COPY:.0f} s.",
                    hint="Nothing is lost: the source is still there. Try again.",
                )
            time.sleep(pause)
            pause = min(pause * 2, 5.0)

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
                raise FileNotFoundError(said(error)) from None
            raise ResourceError(
                f"Cannot {doing} in {self.what} {self}: {said(error)}.", hint=self._provider.missing
            ) from error
        except errors.BaseError as error:
            denied = isinstance(error, errors.PermissionDeniedError | errors.UnauthenticatedError)
            if denied or self._provider.is_refusal(str(error)):
                raise UnwritablePathError(
                    f"No permission to {doing} in {self.what} {self}: {said(error)}.",
                    hint=self._provider.credentials_hint,
                ) from error
            raise ResourceError(
                f"Cannot {doing} in {self.what} {self}: {said(error)}.", hint=self._provider.hint(str(error))
            ) from error


class _BrokenOff(Exception):
    """The sender failed."""


def _checked(key: str) -> str:
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"{key!r} is no key of ours.")  # keys are made here: this is a fault of ours
    return key
