"""Digests: one spelling (``sha256:<hex>``) and one canonical JSON for everything that is keyed by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["canonical_json", "digest_bytes", "digest_file", "digest_json", "digest_parts", "sealed", "short"]

_CHUNK_BYTES = 1 << 20


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN, so equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_bytes(data: bytes | memoryview) -> str:
    """SHA-256 of some bytes, as ``sha256:<hex>``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_json(value: Any) -> str:
    """SHA-256 of a JSON-able value in canonical form."""
    return digest_bytes(canonical_json(value).encode())


def sealed(document: dict[str, Any], name: str) -> dict[str, Any]:
    """A document with a digest over the rest of it under ``name``, so that a changed number is noticed: unlike what it seals to itself."""
    body = {key: value for key, value in document.items() if key != name}
    return {**body, name: digest_json(body)}


def digest_parts(parts: Iterable[bytes]) -> str:
    """SHA-256 of a sequence of byte strings; each part's length is hashed too, so borders count."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return f"sha256:{state.hexdigest()}"


def digest_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, read in 1 MiB pieces."""
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            state.update(chunk)
    return f"sha256:{state.hexdigest()}"


def short(digest: str, length: int = 12) -> str:
    """The first hex digits of a digest, for folder names and people."""
    return digest.removeprefix("sha256:")[:length]
