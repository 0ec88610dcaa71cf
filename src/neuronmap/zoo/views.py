"""What the zoo answers: the same documents for Python, HTTP, ``--json`` and pages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from neuronmap.zoo.digests import Digest
from neuronmap.zoo.document import Document

__all__ = [
    "AliasMove",
    "ArtefactView",
    "FileView",
    "LineageEdge",
    "LineageNode",
    "LineageView",
    "PublicationView",
    "SearchHit",
    "SearchPage",
    "State",
    "UploadView",
    "VersionSummary",
    "VersionView",
]

State = Literal["draft", "published", "deprecated", "yanked", "deleted"]
Time = Annotated[str, Field(description="ISO 8601, UTC.")]


class FileView(Document):
    """A file of a version."""

    path: str
    """Within the artefact."""
    digest: Digest
    """SHA-256 of its bytes."""
    size: int
    """Bytes."""
    media_type: str
    """Its type."""


class VersionSummary(Document):
    """A version in a list."""

    reference: str
    """``namespace/name@label``."""
    label: str
    """By PEP 440."""
    digest: Digest
    """Of its manifest."""
    state: State
    """draft, published, deprecated (still found), yanked (by exact pin only), deleted (a tombstone)."""
    reason: str = ""
    """Why it is deprecated, yanked or deleted."""
    successor: str | None = None
    """Reference of the version to use instead."""
    aliases: tuple[str, ...] = ()
    """Aliases that point to it."""
    size: int
    """Bytes of all files."""
    created: Time
    """When it came to the zoo."""
    published: Time | None = None
    """When it was published."""
    publisher: str | None = None
    """Who published it; null in an embedded zoo."""


class VersionView(VersionSummary):
    """A version, whole."""

    namespace: str
    """Person or organisation."""
    name: str
    """Of the artefact."""
    kind: str
    """SAE_MODEL, ANALYSIS_RESULT, ..."""
    private: bool
    """Whether members of the namespace alone can see it."""
    manifest: dict[str, Any]
    """Its manifest; the bytes themselves are at ``.../manifest``."""
    files: tuple[FileView, ...]
    """Its files; empty once it was deleted."""
    downloads: int
    """How often its manifest was pulled."""
    stars: int
    """Of the artefact."""
    evidence: tuple[VersionSummary, ...] = ()
    """Versions whose ``subject`` it is: evaluations, labels, signatures."""
    depends_on: tuple[VersionSummary, ...] = ()
    """What it was made from."""
    used_by: int = 0
    """How many versions were made from it, as far as the asker may see them."""


class ArtefactView(Document):
    """An artefact with its versions, the newest first."""

    namespace: str
    """Person or organisation."""
    name: str
    """Within the namespace."""
    kind: str
    """SAE_MODEL, ANALYSIS_RESULT, ..."""
    private: bool
    """Whether members of the namespace alone can see it."""
    stars: int
    """From people."""
    created: Time
    """Of its first version."""
    latest: str | None
    """Label that ``latest`` means."""
    versions: tuple[VersionSummary, ...]
    """All that the asker may see, by label, the greatest first."""
    aliases: dict[str, str]
    """Label by alias."""


class AliasMove(Document):
    """One line of an alias's log."""

    alias: str
    """The alias."""
    before: str | None
    """Label it pointed to."""
    after: str | None
    """Label it points to; null when it was taken away."""
    who: str | None
    """Who moved it; null in an embedded zoo."""
    at: Time
    """When."""
    reason: str
    """Why, as they said."""


class LineageNode(Document):
    """A version in a graph."""

    digest: Digest
    """Of its manifest."""
    reference: str
    """``namespace/name@label``; the digest alone where the asker may not see it."""
    kind: str
    """Kind; empty where the asker may not see it."""
    title: str = ""
    """One line."""
    state: State
    """Of the version."""
    depth: int
    """Edges from the version that was asked for; negative towards what it was made from."""


class LineageEdge(Document):
    """``child`` was made from, or is about, ``parent``."""

    child: Digest
    """The later one."""
    parent: Digest
    """The earlier one."""
    role: str
    """sae, model, dataset, ..., or subject."""


class LineageView(Document):
    """What a version was made from, and what was made from it."""

    root: Digest
    """The version that was asked for."""
    nodes: tuple[LineageNode, ...]
    """Versions."""
    edges: tuple[LineageEdge, ...]
    """Between them."""
    truncated: bool
    """Whether there is more beyond the depth or number asked for."""


class SearchHit(Document):
    """One version that was found."""

    reference: str
    """``namespace/name@label``."""
    digest: Digest
    """Of its manifest."""
    kind: str
    """SAE_MODEL, ANALYSIS_RESULT, ..."""
    title: str
    """One line."""
    summary: str
    """A paragraph."""
    state: State
    """published or deprecated."""
    model: str | None = None
    """Language model."""
    hook: str | None = None
    """Hook point."""
    layer: int | None = None
    """Block."""
    component: str | None = None
    """Component of the block."""
    architecture: str | None = None
    """Of the SAE."""
    d_in: int | None = None
    """Width of the activation."""
    width: int | None = None
    """Features."""
    l0: float | None = None
    """Active features of a token."""
    licence: str
    """SPDX expression."""
    authors: tuple[str, ...] = ()
    """Names."""
    tags: tuple[str, ...] = ()
    """Words."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Figures."""
    size: int
    """Bytes of all files."""
    stars: int
    """Of the artefact."""
    published: Time
    """When."""


class SearchPage(Document):
    """Some of what was found."""

    hits: tuple[SearchHit, ...]
    """In the order asked for."""
    next: str | None = None
    """Cursor of the next page; null on the last."""
    total: int | None = None
    """How many there are; counted on the first page only."""


class UploadView(Document):
    """A file on its way."""

    key: str
    """Names the upload."""
    digest: Digest
    """Of the whole file."""
    size: int
    """Bytes of the whole file."""
    received: int
    """Bytes that are here: go on from there."""
    done: bool
    """Whether all is here and has the digest."""


class PublicationView(Document):
    """A publication under way."""

    key: str
    """Names it."""
    namespace: str
    """Where it will be published."""
    reserved: int
    """Bytes kept free in the namespace's quota."""
    expires: Time
    """When its uploads are thrown away."""
    uploads: tuple[UploadView, ...] = ()
    """Files on their way."""
