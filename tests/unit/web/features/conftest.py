"""The small library with further analyses of ``first``, written by ``made_stores``: one of markup and worse, one known by heart."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

sys.path.append(os.fspath(Path(__file__).parents[2] / "features"))

from made_stores import hostile_store, small_store


@pytest.fixture
def real(library: Path) -> str:
    """Name of the analysis that the command line made."""
    return next(folder.name for folder in (library / "first" / "analyses").iterdir() if not folder.name.startswith("."))


@pytest.fixture
def pages(library: Path, real: str, client: TestClient) -> TestClient:
    """A browser on a library with the analyses ``hostile`` and ``plain`` beside the real one."""
    hostile_store(library / "first" / "analyses" / "hostile")
    small_store(library / "first" / "analyses" / "plain")
    client.headers["accept"] = "text/html"
    return client
