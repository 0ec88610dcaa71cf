"""Text with known structure, and features that fire by known rules."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, os.fspath(Path(__file__).parent))

from planted import Planted


@pytest.fixture(scope="session")
def planted() -> Planted:
    return Planted()
