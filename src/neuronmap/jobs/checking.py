"""Arguments of a job checked before it is queued. Nothing here loads torch, unless a plug-in brings an architecture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from neuronmap.errors import ConfigError, MemoryExhaustedError
from neuronmap.hub import SAEModelHub
from neuronmap.jobs.kinds import get_kind
from neuronmap.jobs.kinds.kind import Needs
from neuronmap.jobs.machine import capacity
from neuronmap.paths import human_bytes

__all__ = ["Checked", "check"]

_DEVICE = re.compile(r"cpu|mps|cuda(:\d{1,3})?")


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
    _require_possible(needs)
    # Only what was given: a default that changes with a later version changes for jobs that wait as it does for commands.
    given = checked.model_dump(mode="json", exclude_unset=True)
    return Checked(given, found.title(checked), needs.device, needs.memory_bytes)


def _require_possible(needs: Needs) -> None:
    """Refuse what no machine can run: a device that is none, or more memory than the device here has in all.

    A device of another machine that shares the database may be asked for; the job then waits for that machine.
    """
    if not _DEVICE.fullmatch(needs.device):
        raise ConfigError(
            f"device = {needs.device!r} is no device.", hint="Devices are auto, cpu, cuda, cuda:0, cuda:1, ... and mps."
        )
    total = capacity().total.get(needs.device)
    if total is not None and needs.memory_bytes > total:
        raise MemoryExhaustedError(
            f"It needs about {human_bytes(needs.memory_bytes)} on {needs.device}, which has {human_bytes(total)} in all.",
            hint="Use fewer features, a smaller batch or a smaller model.",
        )
