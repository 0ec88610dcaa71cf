"""The database of the zoo, and the folder in which it lies: hashes of passwords are in it, so both are for their owner alone."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from neuronmap import paths
from neuronmap.database import Holding

__all__ = ["ZOO", "private_folder"]

ZOO = Holding(
    name="the zoo",
    variable="NEURONMAP_ZOO_DATABASE",
    file="zoo/zoo.sqlite3",
    migrations=Path(__file__).with_name("migrations"),
    head="0001",
    version_table="zoo_version",
    lock=0x7A6F6F000000,
    elsewhere="The bytes of the artefacts are not in it: they lie in the blob store, each under its digest.",
    private=True,
)


def private_folder(folder: Path) -> Path:
    """A zoo's folder, made when it is not there, for its owner alone (0700).

    One that its group, or everybody, may write is shared on purpose (a team's zoo in a folder), and stays as it is.

    Raises:
        DiskSpaceError, UnwritablePathError: nothing can be written there.
    """
    made = not folder.exists()
    paths.require_writable(folder)
    if os.name == "posix" and (made or not folder.stat().st_mode & 0o022):
        with suppress(PermissionError):  # another user's, who has let us in
            folder.chmod(0o700)
    return folder
