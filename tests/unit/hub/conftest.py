"""``bundles`` is importable in this room's tests, and in the processes that they start; ``made_stores`` writes feature stores."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, os.fspath(Path(__file__).parent))
sys.path.append(os.fspath(Path(__file__).parents[1] / "features"))

from neuronmap.hub import SAEModelHub


@pytest.fixture
def hub(tmp_path: Path) -> SAEModelHub:
    """An empty library."""
    return SAEModelHub(tmp_path / "library")
