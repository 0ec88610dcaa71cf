"""What ``neuronmap sae harvest --json``, ``push --json`` and ``pull --json`` print."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from neuronmap.cli.document import Document as _Document

__all__ = ["HarvestDocument", "HarvestedStore", "PullDocument", "PulledSAE", "PushDocument", "PushedSAE"]


class HarvestedStore(_Document):
    """Stored activations."""

    path: str
    key: str
    """Digest of everything they were made from."""
    rows: int
    bytes: int


class HarvestDocument(_Document):
    """``neuronmap sae harvest``."""

    schema_name: Literal["neuronmap/sae.harvest/1"] = Field(alias="schema")
    stores: list[HarvestedStore]
    """Of the training part of the text, and of the held-out part if there is one."""
    bucket: str | None
    """Where they were put too."""


class PushedSAE(_Document):
    """An SAE in a bucket."""

    sae: str
    files: int
    bytes: int
    digest: str
    """Of all names and contents of its files."""


class PushDocument(_Document):
    """``neuronmap sae push``."""

    schema_name: Literal["neuronmap/sae.push/1"] = Field(alias="schema")
    bucket: str
    pushed: list[PushedSAE]


class PulledSAE(_Document):
    """An SAE that came from a bucket."""

    sae: str
    path: str
    weights_digest: str | None
    known: bool
    """It was in the library, with the same weights."""
    brought: list[str]
    """Then, what it had not: analyses and files."""
    kept: list[str]
    """Then, files that the bucket has with other bytes."""


class PullDocument(_Document):
    """``neuronmap sae pull``."""

    schema_name: Literal["neuronmap/sae.pull/1"] = Field(alias="schema")
    bucket: str
    pulled: list[PulledSAE]
    there: list[str]
    """Names in the bucket, where no SAE was named."""
