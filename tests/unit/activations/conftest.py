"""What the tests of this room share; ``token_sets`` is importable here and in processes that tests start."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, os.fspath(Path(__file__).parent))

from token_sets import Notes, PlainTokens, tiny_model

if TYPE_CHECKING:
    from neuronmap.models import LanguageModel


@pytest.fixture
def tokens() -> PlainTokens:
    return PlainTokens(num_contexts=23, context_length=16)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture(scope="session")
def model() -> LanguageModel:
    return tiny_model()
