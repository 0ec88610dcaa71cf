"""``layouts`` is importable in these tests: files laid out as foreign libraries write them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, os.fspath(Path(__file__).parent))

from neuronmap.hub import SAEModelHub


@pytest.fixture
def hub(tmp_path: Path) -> SAEModelHub:
    """An empty library."""
    return SAEModelHub(tmp_path / "library")
