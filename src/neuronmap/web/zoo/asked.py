"""What the addresses of pages name, and who looks at them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from neuronmap.errors import InputError, NotInZooError
from neuronmap.web.zoo.access import ContextOf
from neuronmap.zoo.names import LATEST, Reference
from neuronmap.zoo.people.principal import Principal

__all__ = ["Name", "Reader", "Version", "reference_of"]

Name = Annotated[str, Path(max_length=64, description="Name.")]
Version = Annotated[str, Path(max_length=80, description="Label, alias, latest, or sha256:...")]


def _reader(request: Request, context: ContextOf) -> Principal:
    """Who looks at a page."""
    return context.admit(request, "read", "read")


Reader = Annotated[Principal, Depends(_reader)]
"""Who looks, as far as they may."""


def reference_of(namespace: str, name: str, version: str = LATEST) -> Reference:
    """What an address means; what cannot be a name is not there.

    Raises:
        NotInZooError: it cannot be one.
    """
    try:
        return Reference.parse(f"{namespace}/{name}@{version}")
    except InputError:
        raise NotInZooError(f"There is no {namespace}/{name}@{version} in this zoo.") from None
