"""Parameters in the addresses of the zoo."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path
from pydantic import Field, StringConstraints

from neuronmap.zoo.digests import Digest
from neuronmap.zoo.names import Reference

__all__ = ["Alias", "DigestInPath", "FilePath", "Key", "Name", "Namespace", "Reason", "UserName", "VersionOf"]

_NAME = r"^[a-z0-9][a-z0-9._-]*$"

Namespace = Annotated[str, Path(max_length=64, pattern=_NAME, description="Person or organisation.", examples=["ada"])]
Name = Annotated[
    str, Path(max_length=64, pattern=_NAME, description="Of the artefact, within the namespace.", examples=["demo"])
]
UserName = Annotated[str, Path(max_length=64, pattern=_NAME, description="Of the user.", examples=["ada"])]
Version = Annotated[
    str,
    Path(
        max_length=80,
        pattern=r"^[a-z0-9][A-Za-z0-9.:_!-]*$",
        description="Label, alias, latest, or sha256:<64 hex digits> of the manifest.",
        examples=["1.0"],
    ),
]
Alias = Annotated[
    str, Path(max_length=64, pattern=r"^[a-z][a-z0-9._-]*$", description="The alias.", examples=["production"])
]
FilePath = Annotated[str, Path(max_length=512, description="Path of the file within the artefact.")]
Key = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="32 hexadecimal digits.")]
DigestInPath = Annotated[Digest, Path(description="Of a manifest.")]
Reason = Annotated[
    str, StringConstraints(max_length=1000, pattern=r"^[^\x00]*$"), Field(description="Why; kept and shown.")
]


def _reference(namespace: Namespace, name: Name, version: Version) -> Reference:
    return Reference.parse(f"{namespace}/{name}@{version}")


VersionOf = Annotated[Reference, Depends(_reference)]
"""The version that an address means."""
