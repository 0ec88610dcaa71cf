"""What the tests of this room share; ``hand_made`` holds SAEs whose figures are known in closed form."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, os.fspath(Path(__file__).parent))

from hand_made import token_set

if TYPE_CHECKING:
    from neuronmap.corpora import TokenSet


@pytest.fixture
def tokens() -> TokenSet:
    """12 contexts of 16 tokens; a separator after every 22 tokens, and 5 tokens of padding at the end."""
    return token_set(contexts=12, length=16, padding=5)
