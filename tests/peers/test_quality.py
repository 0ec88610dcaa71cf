"""The quality sheet's training scripts in the peers' environment: what comes back is the SAE that the peer itself made."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from quality_cells import PEERS, Budget
from quality_data import Rows
from quality_measure import measure
from quality_train import Run, train

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(
        not os.environ.get("NEURONMAP_PEERS_PYTHON"),
        reason="NEURONMAP_PEERS_PYTHON does not name an interpreter with sae-lens; `make test-peers` makes one",
    ),
]
KNOBS = {
    ("saelens", "relu"): 0.5,
    ("saelens", "jumprelu"): 0.2,
    ("dictionary_learning", "relu"): 0.02,
    ("dictionary_learning", "jumprelu"): 6.0,
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Sparse sums of 48 directions in 16 dimensions, far from zero and not of unit size."""
    generator = np.random.default_rng(0)
    directions = generator.standard_normal((48, 16))
    codes = generator.random((6144, 48)) * (generator.random((6144, 48)) < 0.1)
    values = (5 + 3 * codes @ directions).astype(np.float32)
    folder = tmp_path_factory.mktemp("rows")
    parts = {"train": values[:4096], "calibration": values[4096:5120], "heldout": values[5120:]}
    for name, part in parts.items():
        np.save(folder / f"{name}.npy", part)
    norm = float(np.square(parts["train"]).sum(1).mean() ** 0.5)
    return Rows(folder, **parts, facts={"root_mean_square_norm": norm})


@pytest.mark.parametrize("library", PEERS)
@pytest.mark.parametrize("architecture", ["batchtopk", "topk", "matryoshka", "jumprelu", "relu"])
def test_a_peer_trains_and_its_weights_give_its_own_reconstruction(
    rows: Rows, library: str, architecture: str, tmp_path: Path
) -> None:
    (tmp_path / "scratch").mkdir()
    knob = KNOBS.get((library, architecture))
    run = Run(library, architecture, "matched", 64, 0, None if knob else 4, knob)
    budget = Budget(d_in=16, d_sae=64, k=4, steps=100, batch_rows=256, threads=1)
    found = train(run, budget, rows, tmp_path, tmp_path / "scratch", os.environ["NEURONMAP_PEERS_PYTHON"])
    assert found.facts["reconstruction_check"] < 1e-4
    figures = measure(found.sae, torch.from_numpy(rows.heldout))
    assert figures["explained_variance"] > 0.2
    if architecture in ("batchtopk", "matryoshka"):
        assert figures["l0"] == pytest.approx(4, rel=0.1)
        assert found.saved is not None
    else:
        assert 0 < figures["l0"] <= 64
        assert found.saved is None
