"""Ids in the library: safe on every file system, the same for the same SAE, and readable."""

from __future__ import annotations

import re
from typing import Any

from neuronmap.errors import ConfigError
from neuronmap.hashing import short
from neuronmap.saes.metadata import ANALYSES_FOLDER, BundleInfo

__all__ = ["check_id", "derived_id", "slug"]

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,119}")
_RESERVED = frozenset({"con", "prn", "aux", "nul", ANALYSES_FOLDER})
_MAX_PARTS = 6


def slug(text: str, fallback: str = "unknown") -> str:
    """Lower case letters, digits, dots and dashes of a text."""
    cleaned = re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:60].strip("-.")
    return cleaned or fallback


def derived_id(info: BundleInfo) -> str:
    """``<model>/<place>/<architecture>-<features>-<digest>``: equal weights give the equal id."""
    metadata = info.metadata
    model: dict[str, Any] = (metadata.model if metadata else None) or {}
    hook: dict[str, Any] = (metadata.hook if metadata else None) or {}
    name = str(model.get("name") or "").replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    if hook.get("layer") is not None and hook.get("component"):
        place = f"layers.{hook['layer']}-{slug(str(hook['component']))}"
    else:
        place = slug(str(hook.get("name") or ""), "unknown-hook")
    digest = short((metadata.weights_digest if metadata else None) or "", 8)
    return f"{slug(name, 'unknown-model')}/{place}/{slug(info.architecture)}-{info.d_sae}-{digest}"


def check_id(identifier: str) -> str:
    """Refuse ids that could leave the library, hide in it, or clash with a bundle's own folders.

    Raises:
        ConfigError: says which part is wrong and what is allowed.
    """
    parts = identifier.split("/")
    for part in parts:
        if not _PART.fullmatch(part) or part.endswith(".") or part.lower() in _RESERVED:
            raise ConfigError(
                f"{identifier!r} cannot be an id: {part!r} is not allowed as a part. Parts are separated by '/', begin with "
                f"a letter or digit, and hold letters, digits and . _ + - (120 at most, not {', '.join(sorted(_RESERVED))})."
            )
    if len(parts) > _MAX_PARTS:
        raise ConfigError(
            f"{identifier!r} cannot be an id: it has {len(parts)} parts, at most {_MAX_PARTS} are allowed."
        )
    return identifier
