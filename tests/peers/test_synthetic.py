"""SAELens's own measures and constructions on the same dictionary, rows and SAE; see ``test_saelens.py`` for how it is run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.peers.running import run_script
from torch import Tensor

from neuronmap.evaluation.synthetic import (
    Firing,
    GroundTruth,
    GroundTruthCell,
    Hierarchy,
    SyntheticConfig,
    SyntheticModel,
    measure_against_truth,
    synthetic_preset,
    training_config,
)
from neuronmap.evaluation.synthetic.model import _pushed_apart
from neuronmap.evaluation.synthetic.sweep import train_on_truth
from neuronmap.progress import SilentProgress

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(
        not os.environ.get("NEURONMAP_PEERS_PYTHON"),
        reason="NEURONMAP_PEERS_PYTHON does not name an interpreter with sae-lens; `make test-peers` makes one",
    ),
]

ROWS = 8192
TREES = SyntheticConfig(
    d_in=8,
    features=60,
    firing=Firing(exponent=0.5, p_max=0.4, p_min=0.01),
    hierarchy=Hierarchy(roots=4, branching=3, depth=2),
    orthogonal_steps=0,
)


@pytest.fixture(scope="module")
def exchanged(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[GroundTruth, dict[str, Any], dict[str, Tensor], Tensor]:
    """What we measure, what SAELens measures, its tensors, and the directions that both pushed apart."""
    folder = tmp_path_factory.mktemp("synthetic")
    model = SyntheticModel.from_config(synthetic_preset("hierarchy", bias_norm=1.0))
    training = training_config("topk", model.config, 2, batch_rows=256)
    cell = GroundTruthCell(synthetic=model.config, training=training, train_rows=32_768, heldout_rows=1024)
    trained = train_on_truth(cell, model, folder / "run", SilentProgress())
    trained.save(folder / "sae")
    start = torch.nn.functional.normalize(torch.randn(40, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    values = model.sample(0, ROWS, "measure")[1].dense()
    trees = SyntheticModel.from_config(TREES)
    given = {
        "dictionary": model.dictionary_GD,
        "bias": model.bias_D,
        "values": values,
        "start": start,
        "base": trees.base_G,
    }
    save_file(given, folder / "truth.safetensors")
    run_script(Path(__file__).parent / "scripts" / "synthetic_exchange.py", folder)
    ours = measure_against_truth(trained.sae, model, rows=ROWS, bootstrap=0, progress=SilentProgress())
    return ours, json.loads((folder / "saelens.json").read_text()), load_file(folder / "saelens.safetensors"), start


def test_saelens_measures_the_same(exchanged: tuple[GroundTruth, dict[str, Any], dict[str, Tensor], Tensor]) -> None:
    ours, theirs, _, _ = exchanged
    said = theirs["classification"]
    pairs = {
        "mcc": (ours.directions.mcc.value, theirs["mcc"]),
        "uniqueness": (ours.directions.uniqueness, theirs["uniqueness"]),
        "f1": (ours.detection.f1_latent_mean.value, said["f1_score"]),
        "precision": (ours.detection.precision_latent_mean.value, said["precision"]),
        "recall": (ours.detection.recall_latent_mean.value, said["recall"]),
        "explained variance": (ours.explained_variance.value, theirs["explained_variance"]),
        "L0": (ours.l0.value, theirs["sae_l0"]),
        "true L0": (ours.true_l0.value, theirs["true_l0"]),
        "dead": (ours.dead, theirs["dead_latents"]),
    }
    assert {name: one for name, (one, _) in pairs.items()} == pytest.approx(
        {name: other for name, (_, other) in pairs.items()}, abs=1e-4
    )
    assert 0.3 < said["f1_score"] < 0.95, "neither chance nor perfect, so the comparison means something"


def test_saelens_pushes_directions_apart_to_the_same_place(
    exchanged: tuple[GroundTruth, dict[str, Any], dict[str, Tensor], Tensor],
) -> None:
    _, _, theirs, start = exchanged
    apart = _pushed_apart(start, 50, 0.01)
    assert torch.allclose(apart, theirs["apart"], atol=1e-4)
    assert (apart - start).abs().max() > 0.05


def test_saelens_builds_the_same_trees_with_the_same_probabilities(
    exchanged: tuple[GroundTruth, dict[str, Any], dict[str, Tensor], Tensor],
) -> None:
    model = SyntheticModel.from_config(TREES)
    assert model.parent_G.tolist() == exchanged[2]["parents"].tolist()
    assert torch.allclose(model.probability_G, exchanged[2]["probability"], atol=1e-6)
    assert bool((model.probability_G > model.base_G).any())
