"""What jobs can do, one module a kind. Each is the same call that the command of that name makes.

Kinds are loaded when they are asked for, and none loads torch before it runs.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING, Any

from neuronmap.errors import ConfigError

if TYPE_CHECKING:
    from neuronmap.jobs.kinds.kind import Kind

__all__ = ["get_kind", "list_kinds"]

_KINDS = {
    "train": ("neuronmap.jobs.kinds.train", "Train"),
    "sweep": ("neuronmap.jobs.kinds.sweep", "Sweep"),
    "analyze": ("neuronmap.jobs.kinds.analyze", "Analyze"),
    "evaluate": ("neuronmap.jobs.kinds.evaluate", "Evaluate"),
    "compare": ("neuronmap.jobs.kinds.compare", "Compare"),
    "track": ("neuronmap.jobs.kinds.track", "Track"),
    "import": ("neuronmap.jobs.kinds.import_sae", "ImportSAE"),
    "publish": ("neuronmap.jobs.kinds.publish", "Publish"),
    "pull": ("neuronmap.jobs.kinds.pull", "Pull"),
}


def list_kinds() -> list[str]:
    """Names of all kinds."""
    return list(_KINDS)


def get_kind(name: str) -> Kind[Any]:
    """The kind of that name.

    Raises:
        ConfigError: there is none; names near ones.
    """
    if name not in _KINDS:
        near = difflib.get_close_matches(name, _KINDS, n=1)
        raise ConfigError(
            f"There is no kind of job {name!r}; there are {', '.join(_KINDS)}.",
            hint=f"Did you mean {near[0]}?" if near else "",
        )
    module, cls = _KINDS[name]
    kind: Kind[Any] = getattr(import_module(module), cls)()
    return kind
