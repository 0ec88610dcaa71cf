"""The zoo's database holds hashes of passwords: it is its owner's alone, unless the folder is shared on purpose."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from neuronmap.web.zoo.settings import ZooServerSettings
from neuronmap.zoo.people.people import People
from neuronmap.zoo.people.principal import LOCAL
from neuronmap.zoo.registry.registry import Registry

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")


def served(folder: Path) -> Registry:
    return ZooServerSettings(folder=folder).open_registry()


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.glob("zoo.sqlite3*")}


@pytest.mark.parametrize("opening", [Registry.embedded, served])
def test_a_zoo_is_its_owners_alone(tmp_path: Path, opening: Callable[[Path], Registry]) -> None:
    folder = tmp_path / "zoo"
    registry = opening(folder)
    People(registry.database).accounts.create(LOCAL, "ada", password="four words nobody guesses")
    assert modes(folder) == {"zoo.sqlite3": 0o600, "zoo.sqlite3-wal": 0o600, "zoo.sqlite3-shm": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    registry.close()


@pytest.mark.parametrize("opening", [Registry.embedded, served])
def test_one_that_others_could_read_is_closed_to_them(tmp_path: Path, opening: Callable[[Path], Registry]) -> None:
    folder = tmp_path / "zoo"
    opening(folder).close()
    kept = sqlite3.connect(folder / "zoo.sqlite3")  # another process, so that the files beside stay
    kept.execute("SELECT count(*) FROM zoo_users").fetchone()
    for file in folder.glob("zoo.sqlite3*"):
        file.chmod(0o644)
    folder.chmod(0o755)
    registry = opening(folder)
    assert set(modes(folder).values()) == {0o600}
    assert len(modes(folder)) == 3
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    kept.close()
    registry.close()


def test_a_folder_that_a_team_shares_stays_shared(tmp_path: Path) -> None:
    folder = tmp_path / "team"
    folder.mkdir()
    folder.chmod(0o2775)
    Registry.embedded(folder).close()
    (folder / "zoo.sqlite3").chmod(0o664)
    registry = Registry.embedded(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2775
    assert modes(folder)["zoo.sqlite3"] == 0o664
    registry.close()
