"""Token sets in memory with every kind of position, and a silent progress that remembers its notes."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, os.fspath(Path(__file__).parent))  # importlib mode: token_sets.py is shared with child processes

from token_sets import Notes, PlainTokens


@pytest.fixture
def tokens() -> PlainTokens:
    return PlainTokens(num_contexts=23, context_length=16)


@pytest.fixture
def notes() -> Notes:
    return Notes()
