"""Names of the members of a sweep: made from a template, or from what differs, and never the same twice."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from neuronmap.errors import ConfigError
from neuronmap.training.config import SAEConfig

__all__ = ["folder_names", "named"]

_SHORT = {
    "architecture": "{}",
    "component": "{}",
    "layer": "l{}",
    "hidden_dim": "f{}",
    "k": "k{}",
    "sparsity_penalty": "p{}",
    "target_l0": "l0-{}",
    "learning_rate": "lr{}",
    "seed": "s{}",
    "max_steps": "n{}",
    "num_epochs": "e{}",
}
"""How a field stands in a name that is made; others as ``field-value``."""
_NOT_NAMED = ("name", "tags", "loggers")


def named(members: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Members with their names filled in.

    A name with fields in braces is a template. One without, or none at all, gets what differs between the members added:
    ``sweep-topk-k32``.

    Raises:
        ConfigError: for a template with an unknown field, and where two members would have the same name.
    """
    differs = [
        name
        for name in SAEConfig.model_fields
        if name not in _NOT_NAMED and len({repr(fields.get(name)) for fields in members}) > 1
    ]
    found, owner = [], dict[str, int]()
    for number, fields in enumerate(members, 1):
        template = fields.get("name") or "sweep"
        if not isinstance(template, str):
            raise ConfigError(f"name = {template!r}: it must be text.")
        shared = sum(one.get("name") == fields.get("name") for one in members) > 1
        name = _filled(template, fields)
        if name == template and "{" not in template and shared:
            name = "-".join([template, *(_short(one, fields[one]) for one in differs if fields.get(one) is not None)])
        if name.lower() in owner:
            missing = [one for one in differs if f"{{{one}" not in template][:3]
            hint = f"Put what differs into the name: {template}" + "".join(f"-{{{one}}}" for one in missing)
            raise ConfigError(
                f"Members {owner[name.lower()]} and {number} would both be called '{name}'.",
                hint=hint if missing else "Leave one of them out.",
            )
        owner[name.lower()] = number
        found.append({**fields, "name": name})
    return found


def folder_names(configs: Sequence[SAEConfig]) -> list[str]:
    """A folder name for each member, in order: number and name."""
    digits = max(2, len(str(len(configs))))
    found = []
    for number, config in enumerate(configs, 1):
        label = re.sub(r"[^a-z0-9]+", "-", (config.name or config.resolved_architecture).lower()).strip("-")[:60]
        found.append(f"{number:0{digits}d}-{label.strip('-')}")
    return found


def _filled(template: str, fields: Mapping[str, Any]) -> str:
    parts = []
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(f"name = {template!r} is not a template: {error}.", hint="demo-{architecture}-{k}") from None
    for text, field, form, _ in pieces:
        parts.append(text)
        if field is None:
            continue
        if field not in SAEConfig.model_fields or field == "name":
            near = difflib.get_close_matches(field, SAEConfig.model_fields, n=2, cutoff=0.5)
            raise ConfigError(
                f"name = {template!r}: there is no field '{field}'.",
                hint=f"Did you mean {' or '.join(near)}?" if near else "Any field of SAEConfig may stand in braces.",
            )
        value = fields.get(field, SAEConfig.model_fields[field].default)
        try:
            shown = format(value, form or "") if value is not None else "none"
        except (ValueError, TypeError) as error:
            raise ConfigError(f"name = {template!r}: {field} = {value!r} cannot be shown so: {error}.") from None
        parts.append(_plain(shown))
    return "".join(parts)


def _short(field: str, value: Any) -> str:
    return _plain(_SHORT.get(field, field + "-{}").format(value))


def _plain(text: str) -> str:
    """What a part of a name may hold."""
    return re.sub(r"[^A-Za-z0-9._+]+", "-", text).strip("-")
