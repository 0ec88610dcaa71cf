"""The manifest: what a version is, in bytes that never change. The SHA-256 of the bytes is the version's identity.

    schema        neuronmap/zoo.manifest/1.0
    kind          SAE_MODEL, ANALYSIS_RESULT, EXPLANATIONS, CIRCUIT, DATASET, or a plug-in's
    namespace, name, version         what it is published as
    title, summary, tags, card       for people and searches; the card is one of the files, Markdown
    licence, authors, citation       SPDX expression; people; how to cite
    files         path, digest, size, media type of each; the bytes lie in the blob store under their digest
    record        what the kind says of itself (neuronmap.zoo.records)
    depends_on    versions it was made from, by digest, each with a role; they must be there before it
    subject       the version that it is evidence about (an evaluation, labels, a signature): that one is not touched
    created, software                when and with what it was made

Whoever publishes sends the bytes, and the zoo keeps exactly these; what is written here is canonical (sorted keys, no spaces).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError

from neuronmap.errors import InputError, InvalidManifestError
from neuronmap.hashing import canonical_json
from neuronmap.zoo.digests import Digest, SafePath
from neuronmap.zoo.document import Document
from neuronmap.zoo.faults import Fault, faults_of
from neuronmap.zoo.licences import check_licence
from neuronmap.zoo.names import check_label, check_name, check_namespace, check_tag
from neuronmap.zoo.records import Author, Record, get_kind

__all__ = ["MOST_BYTES", "MOST_FILES", "SCHEMA", "Dependency", "FileEntry", "Manifest", "media_type"]

SCHEMA = "neuronmap/zoo.manifest/1.0"
MOST_BYTES = 8 << 20
"""Of a manifest."""
MOST_FILES = 20_000
_MOST_FILE_BYTES = 1 << 44
_MOST_DEPTH = 64
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

_MEDIA = {
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".safetensors": "application/x-safetensors",
    ".parquet": "application/vnd.apache.parquet",
    ".md": "text/markdown",
    ".txt": "text/plain",
    ".csv": "text/csv",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".npy": "application/x-npy",
    ".bin": "application/octet-stream",
    ".u16": "application/octet-stream",
    ".u32": "application/octet-stream",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".html": "text/html",
    ".bib": "application/x-bibtex",
    ".cff": "application/yaml",
    ".gz": "application/gzip",
    ".zst": "application/zstd",
    ".sig": "application/octet-stream",
    ".sigstore": "application/json",
}
"""The formats that an artefact may hold, by ending: an allow-list. None of them holds code that opening it would run."""


def media_type(path: str) -> str:
    """The type of a file by its ending.

    Raises:
        InputError: files of that ending are not taken (pickles and archives among them).
    """
    name = path.rpartition("/")[2]
    ending = name[name.rfind(".") :].lower() if "." in name else ""
    if name.upper() in ("LICENSE", "LICENCE", "NOTICE", "README"):
        return "text/plain"
    if ending not in _MEDIA:
        raise InputError(
            f"Files such as {name[:80]!r} are not taken: an artefact holds {', '.join(sorted(_MEDIA))}. Formats whose opening can run "
            "a program (pickle: .pt, .pth, .pkl) and archives are not among them."
        )
    return _MEDIA[ending]


def _checked(rule: Any) -> AfterValidator:
    """One of our rules as pydantic's."""

    def check(value: str) -> str:
        try:
            found: str = rule(value)
        except InputError as error:
            raise ValueError(error.message) from None
        return found

    return AfterValidator(check)


class FileEntry(Document):
    """One file."""

    path: SafePath
    """Relative path within the artefact."""
    digest: Digest
    """SHA-256 of its bytes."""
    size: Annotated[int, Field(ge=0, le=_MOST_FILE_BYTES)]
    """Bytes."""
    media_type: Annotated[str, Field(pattern=r"^[a-z]+/[a-z0-9.+-]{1,80}$")]
    """Its type; the one that the ending stands for."""


class Dependency(Document):
    """A version that this one was made from."""

    digest: Digest
    """Of its manifest."""
    role: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,40}$")]
    """What it is to this one: sae, model, dataset, base, ..."""
    reference: Annotated[str | None, Field(max_length=300)] = None
    """What it was called, for people; the digest counts."""


class Manifest(Document):
    """A version of an artefact. Use :meth:`parse` for bytes and :meth:`build` to write one."""

    schema_: Annotated[str, Field(alias="schema", pattern=r"^neuronmap/zoo\.manifest/1\.\d{1,3}$")] = SCHEMA
    """Version of this schema; a newer minor number may add fields."""
    kind: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{1,40}$")]
    """Kind of the artefact."""
    namespace: Annotated[str, _checked(check_namespace)]
    """Person or organisation."""
    name: Annotated[str, _checked(check_name)]
    """Of the artefact, within the namespace."""
    version: Annotated[str, _checked(check_label)]
    """Label by PEP 440; once published it never means anything else."""
    title: Annotated[str, Field(max_length=200)] = ""
    """One line."""
    summary: Annotated[str, Field(max_length=2000)] = ""
    """A paragraph."""
    tags: Annotated[tuple[Annotated[str, _checked(check_tag)], ...], Field(max_length=50)] = ()
    """Words to search by."""
    card: SafePath | None = None
    """Which file is its card (Markdown)."""
    licence: Annotated[str, _checked(check_licence)]
    """SPDX expression."""
    authors: Annotated[tuple[Author, ...], Field(max_length=500)] = ()
    """Who made it."""
    citation: Annotated[str, Field(max_length=10_000)] = ""
    """How to cite it: BibTeX or a sentence."""
    files: Annotated[tuple[FileEntry, ...], Field(min_length=1, max_length=MOST_FILES)]
    """Its files."""
    record: dict[str, Any]
    """What the kind says of itself."""
    depends_on: Annotated[tuple[Dependency, ...], Field(max_length=1000)] = ()
    """What it was made from."""
    subject: Digest | None = None
    """The version that it is evidence about."""
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)$")]
    """When it was made, ISO 8601 in UTC."""
    software: dict[Annotated[str, Field(max_length=60)], Annotated[str, Field(max_length=120)]] = Field(
        default_factory=dict
    )
    """Versions of what made it."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read and check a manifest.

        Raises:
            InvalidManifestError: lists every fault with its place.
        """
        if len(data) > MOST_BYTES:
            raise InvalidManifestError([Fault("", f"it has {len(data):,} bytes; {MOST_BYTES:,} at most")])
        try:
            values = json.loads(data, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise InvalidManifestError([Fault("", f"it is not JSON: {error}")]) from None
        if not isinstance(values, dict):
            raise InvalidManifestError([Fault("", f"it is a {type(values).__name__}, not an object")])
        unfit = _unfit(values)
        if unfit:
            raise InvalidManifestError([unfit])
        schema = values.get("schema")
        known = values
        if isinstance(schema, str) and schema.startswith("neuronmap/zoo.manifest/1.") and schema != SCHEMA:
            names = {"schema", *cls.model_fields}
            known = {name: value for name, value in values.items() if name in names}  # a newer minor version's fields
        try:
            found = cls.model_validate(known)
        except ValidationError as error:
            raise InvalidManifestError([*faults_of(error), *_record_faults(values)]) from None
        faults = _record_faults(values) or list(_role_faults(found))  # the record says which roles are needed
        faults += _file_faults(found)
        if faults:
            raise InvalidManifestError(faults)
        return found

    @classmethod
    def build(cls, values: dict[str, Any]) -> tuple[Self, bytes]:
        """Check values and write them down in canonical form.

        Returns:
            The manifest and its bytes.

        Raises:
            InvalidManifestError: lists every fault with its place.
        """
        try:
            data = canonical_json({"schema": SCHEMA, **values}).encode()
        except (TypeError, ValueError) as error:
            raise InvalidManifestError([Fault("", f"it cannot be written as JSON: {error}")]) from None
        return cls.parse(data), data

    def read_record(self) -> Record:
        """The record, as its kind's model."""
        return get_kind(self.kind).record_type.read(self.record)

    @property
    def artefact(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def size(self) -> int:
        """Bytes of all files, equal ones counted once."""
        return sum({entry.digest: entry.size for entry in self.files}.values())


def _record_faults(values: dict[str, Any]) -> list[Fault]:
    """Of the ``record``, whatever the rest is like."""
    kind, record = values.get("kind"), values.get("record")
    if not isinstance(kind, str) or not isinstance(record, dict):
        return []  # said already
    try:
        model = get_kind(kind).record_type
    except InputError as error:
        return [Fault("kind", error.message)]
    try:
        model.model_validate(record)
    except ValidationError as error:
        return faults_of(error, "record")
    return []


def _file_faults(manifest: Manifest) -> Iterable[Fault]:
    seen: dict[str, int] = {}
    sizes: dict[str, int] = {}
    folders: set[str] = set()
    for number, entry in enumerate(manifest.files):
        folded = entry.path.folded
        place = f"files.{number}.path"
        if folded in seen:
            yield Fault(
                place, f"{entry.path!r} is the same file as {manifest.files[seen[folded]].path!r} on some file systems"
            )
        seen.setdefault(folded, number)
        parts = folded.split("/")
        folders.update("/".join(parts[:length]) for length in range(1, len(parts)))
        if sizes.setdefault(entry.digest, entry.size) != entry.size:
            yield Fault(f"files.{number}.size", f"{entry.digest} has two sizes: {sizes[entry.digest]} and {entry.size}")
        try:
            expected = media_type(entry.path)
        except InputError as error:
            yield Fault(place, error.message)
            continue
        if entry.media_type != expected:
            yield Fault(f"files.{number}.media_type", f"{entry.media_type!r} where the ending stands for {expected!r}")
    for folded, number in seen.items():
        if folded in folders:
            yield Fault(
                f"files.{number}.path", f"{manifest.files[number].path!r} is a file and a folder of other files"
            )
    if manifest.card is not None:
        card = next((entry for entry in manifest.files if entry.path == manifest.card), None)
        if card is None or card.media_type != "text/markdown":
            yield Fault("card", f"{manifest.card!r} is none of the Markdown files")


def _role_faults(manifest: Manifest) -> Iterable[Fault]:
    record = manifest.read_record()
    filled = {dependency.role for dependency in manifest.depends_on}
    for role in sorted(get_kind(manifest.kind).needed_roles(record) - filled):
        yield Fault("depends_on", f"no dependency with the role {role!r}, which this {manifest.kind} needs")
    pairs = [(dependency.digest, dependency.role) for dependency in manifest.depends_on]
    for number, pair in enumerate(pairs):
        if pair in pairs[:number]:
            yield Fault(f"depends_on.{number}", f"{pair[0]} stands there twice as {pair[1]!r}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, refused if a key stands there twice: two readers could take different ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} stands twice in one object")
    return found


def _unfit(values: dict[str, Any]) -> Fault | None:
    """What no reader and no database should have to deal with: depth without end, control characters, halves of characters."""
    rest: list[tuple[Any, int, str]] = [(values, 1, "")]
    while rest:
        value, depth, place = rest.pop()
        if depth > _MOST_DEPTH:
            return Fault(place[:200], f"it is nested more than {_MOST_DEPTH} deep")
        if isinstance(value, dict):
            rest += [(name, depth, place) for name in value]
            rest += [(inner, depth + 1, f"{place}.{name}" if place else name) for name, inner in value.items()]
        elif isinstance(value, list):
            rest += [(inner, depth + 1, f"{place}.{number}") for number, inner in enumerate(value)]
        elif isinstance(value, str) and _CONTROL.search(value):
            return Fault(_CONTROL.sub("?", place)[:200], "it holds control characters or halves of characters")
    return None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is beyond what a number can be")
    return value


def _no_constant(name: str) -> Literal[0]:
    raise ValueError(f"{name} is not allowed")
