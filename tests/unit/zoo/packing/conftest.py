"""Bundles, feature stores and reports of other rooms' tests, to be packed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2]
sys.path.append(os.fspath(UNIT / "hub"))
sys.path.append(os.fspath(UNIT / "features"))
sys.path.append(os.fspath(UNIT / "abstraction"))

METRICS = {"summary": {"explained_variance": 0.8, "l0": 5.0, "rows": 100, "mse": 0.1}}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an evaluation."""
    from bundles import make_bundle

    folder = tmp_path_factory.mktemp("bundles") / "sae"
    training = {"model_name": "org/Tiny-LM", "corpus": "/data/ada/texts", "hidden_dim": 48}
    corpus = {"name": "/data/ada/texts", "train": "sha256:" + "3" * 64, "tokens": 1000, "context_length": 32}
    return make_bundle(
        folder,
        "topk",
        metrics=METRICS,
        tags=("Tiny", "not a tag!"),
        training=training,
        corpus=corpus,
        steps=7,
        tokens_seen=900,
    )
