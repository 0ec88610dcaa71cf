"""Weights that normalise each row are measured on the rows' own scale, and training does not start from them."""

from __future__ import annotations

import pytest
import torch

from neuronmap.activations import ArrayRows
from neuronmap.errors import MismatchError
from neuronmap.saes import SparseAutoencoder, get_architecture
from neuronmap.saes.workspace import Workspace
from neuronmap.training.data import TrainingData
from neuronmap.training.open_run import _start_from
from neuronmap.training.session import measure_heldout


def relu_sae(norm: str = "none", sparse: bool = True) -> SparseAutoencoder:
    sae = get_architecture("relu")(16, 48)
    sae.initialise(torch.zeros(16), torch.Generator().manual_seed(0))
    with torch.no_grad():
        sae.get_parameter("b_enc").fill_(-2.0 if sparse else 0.5)
    sae.input_norm = norm
    return sae.requires_grad_(False)


@pytest.mark.parametrize("sparse", [True, False])
def test_heldout_figures_of_a_normalising_sae(rows: torch.Tensor, sparse: bool) -> None:
    sae, source = relu_sae("layer_norm", sparse), ArrayRows(rows)
    found = measure_heldout(sae, TrainingData(rows=source, heldout=source), 1.0, Workspace())
    x = rows.double()
    mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True)
    weights = {name: tensor.double() for name, tensor in sae.named_parameters()}
    f = torch.relu(((x - mean) / (std + 1e-5) - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"])
    xhat = (f @ weights["W_dec"] + weights["b_dec"]) * std + mean
    expected = 1 - float((x - xhat).square().sum() / (x - x.mean(0)).square().sum())
    assert found.explained_variance == pytest.approx(expected, abs=1e-5)


def test_training_does_not_start_from_weights_that_normalise() -> None:
    with pytest.raises(MismatchError, match="input normalisation is layer_norm, not none"):
        _start_from(relu_sae(), relu_sae("layer_norm"), 1.0)
