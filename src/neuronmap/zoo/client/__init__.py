"""The client of a zoo: :class:`~neuronmap.zoo.client.zoo.Zoo`, and what lies behind it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuronmap.progress import Progress

__all__ = ["pull_to_folder"]


def pull_to_folder(reference: str, progress: Progress | None = None) -> Path:
    """Pull from the zoo that is set up on this machine, into a folder under ``<home>/zoo/pulled`` that is named by the digest.

    Args:
        reference: ``namespace/name[@version]``, with or without ``zoo:`` before it.
        progress: where warnings and bars go.

    Raises:
        NotInZooError, ZooOfflineError, DamagedError: see :meth:`~neuronmap.zoo.client.zoo.Zoo.pull`.
    """
    from neuronmap.zoo.client.zoo import Zoo

    with Zoo(progress=progress) as zoo:
        return zoo.pull(reference).folder
