"""Arguments of a job checked before it is queued. Nothing here loads torch, unless a plug-in brings an architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neuronmap.hub import SAEModelHub
from neuronmap.jobs.kinds import get_kind

__all__ = ["Checked", "check"]


@dataclass(frozen=True)
class Checked:
    """What a job will be made from.

    Attributes:
        args: as the job will get them.
        title: what it does.
        device, memory_bytes: what it needs.
    """

    args: dict[str, Any]
    title: str
    device: str
    memory_bytes: int


def check(kind: str, args: dict[str, Any]) -> Checked:
    """Check the arguments of a job as far as that goes without loading a model.

    Raises:
        ConfigError, InputError, NotInLibraryError, AlreadyExistsError, ModelError, DamagedError: what is wrong with them.
    """
    found, hub = get_kind(kind), SAEModelHub()
    checked = found.checked(found.args.from_dict(args), hub)
    needs = found.needs(checked, hub)
    # Only what was given: a default that changes with a later version changes for jobs that wait as it does for commands.
    given = checked.model_dump(mode="json", exclude_unset=True)
    return Checked(given, found.title(checked), needs.device, needs.memory_bytes)
