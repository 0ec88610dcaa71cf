"""What the tests of this room share; the modules beside it are importable here and in processes that tests start."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, os.fspath(Path(__file__).parent))

from random_saes import random_sae

if TYPE_CHECKING:
    from neuronmap.models import LanguageModel
    from neuronmap.saes import SparseAutoencoder


@pytest.fixture
def sae(tiny_llama: LanguageModel) -> SparseAutoencoder:
    """A random SAE at block 1 of the tiny Llama."""
    return random_sae(tiny_llama)
