"""An analysis of text with planted features, and an endpoint that answers as it is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, os.fspath(Path(__file__).parents[1] / "explaining"))
sys.path.append(os.fspath(Path(__file__).parents[1] / "endpoint"))
sys.path.append(os.fspath(Path(__file__).parents[2] / "features"))

from faulty_server import FaultyServer
from planted_store import Planted


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return Planted(tmp_path_factory.mktemp("planted") / "analysis")


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as running:
        yield running
