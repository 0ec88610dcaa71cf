"""The JSON schemas of manifests and records, as they are published: each says by which standard it is, its name, and its version."""

from __future__ import annotations

from typing import Any

from neuronmap.errors import NotInZooError
from neuronmap.zoo.manifest import SCHEMA, Manifest
from neuronmap.zoo.records import list_kinds

__all__ = ["DIALECT", "json_schema", "schema_names"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""What the schemas are written in."""


def schema_names() -> list[str]:
    """``manifest``, and each kind, whose record is described."""
    return ["manifest", *(kind.name for kind in list_kinds())]


def json_schema(name: str) -> dict[str, Any]:
    """A schema: ``$schema``, ``$id`` (``neuronmap/zoo.manifest/1.0``, ``neuronmap/zoo.record.SAE_MODEL/1.0``), ``version``, and the rest.

    Args:
        name: ``manifest``, or a kind.

    Raises:
        NotInZooError: there is none of that name; says which there are.
    """
    if name == "manifest":
        return _named(SCHEMA, Manifest.model_json_schema(by_alias=True))
    for kind in list_kinds():
        if kind.name == name:
            shape = kind.record_type.model_json_schema(by_alias=True)
            return _named(f"neuronmap/zoo.record.{name}/{kind.schema_version}", shape)
    raise NotInZooError(f"There is no schema {name[:60]!r}: {', '.join(schema_names())}.")


def _named(identity: str, shape: dict[str, Any]) -> dict[str, Any]:
    return {"$schema": DIALECT, "$id": identity, "version": identity.rpartition("/")[2], **shape}
