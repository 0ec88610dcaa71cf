"""What ``neuronmap cache list --json`` and ``neuronmap cache clean --json`` print."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from neuronmap.cli.document import Document as _Document

__all__ = ["CacheCleanDocument", "CacheListDocument", "CacheRecord"]


class CacheRecord(_Document):
    """An entry of a cache."""

    cache: str
    name: str
    bytes: int
    last_used: str
    """UTC, ISO 8601; many file systems note a reading once a day."""
    what: str
    """What it was made of; may be empty."""


class CacheListDocument(_Document):
    """``neuronmap cache list``."""

    schema_name: Literal["neuronmap/cache.list/1"] = Field(alias="schema")
    folder: str
    bytes: int
    """Of all entries shown."""
    entries: list[CacheRecord]


class CacheCleanDocument(_Document):
    """``neuronmap cache clean``."""

    schema_name: Literal["neuronmap/cache.clean/1"] = Field(alias="schema")
    dry_run: bool
    """Whether nothing was removed, for want of ``--delete``."""
    bytes: int
    """Of what was removed, or would be."""
    removed: list[CacheRecord]
    in_use: list[CacheRecord]
    """Kept: a process of this machine has them open."""
    recent: list[CacheRecord]
    """Kept: used lately."""
