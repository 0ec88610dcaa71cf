"""What the weights alone tell, against dense computations in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuronmap.errors import InputError
from neuronmap.features.directions import weights
from neuronmap.features.directions.weights import nearest_rows, weight_facts
from neuronmap.progress import SilentProgress
from neuronmap.saes import SparseAutoencoder, get_architecture, list_architectures

D, F = 12, 160
THRESHOLDS = {"jumprelu", "batchtopk", "matryoshka", "lista"}


def random_sae(architecture: str, d_in: int = D, d_sae: int = F) -> SparseAutoencoder:
    """An SAE whose every parameter is random, with a feature of zeros."""
    sae = get_architecture(architecture)(d_in, d_sae)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in [*sae.parameters(), *sae.buffers()]:
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        sae.W_dec[7] = 0.0
        sae.W_enc[:, 9] = 0.0
    return sae


class Notes(SilentProgress):
    """Keeps what was noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.parametrize("architecture", sorted(list_architectures()))
def test_lengths_biases_and_thresholds_of_every_architecture(architecture: str) -> None:
    sae = random_sae(architecture)
    facts = weight_facts(sae, neighbours=4, progress=SilentProgress())
    W_dec_FD, W_enc_FD = sae.W_dec.detach().double().numpy(), sae.W_enc.T.detach().double().numpy()
    decoder_F, encoder_F = np.linalg.norm(W_dec_FD, axis=1), np.linalg.norm(W_enc_FD, axis=1)
    np.testing.assert_allclose(facts.decoder_norm_F, decoder_F, rtol=1e-6)
    np.testing.assert_allclose(facts.encoder_norm_F, encoder_F, rtol=1e-6)
    with np.errstate(invalid="ignore"):
        cosine_F = np.nan_to_num((W_dec_FD * W_enc_FD).sum(axis=1) / (decoder_F * encoder_F))
    np.testing.assert_allclose(facts.encoder_decoder_cosine_F, cosine_F, atol=1e-6)
    assert facts.encoder_decoder_cosine_F[7] == facts.encoder_decoder_cosine_F[9] == 0.0
    # The pre-activation of b_dec is the bias alone.
    bias_F = sae.pre_activations(sae.b_dec[None]).detach()[0].numpy()
    assert facts.encoder_bias_F is not None
    np.testing.assert_array_equal(facts.encoder_bias_F, bias_F)
    if architecture in THRESHOLDS:
        assert facts.threshold_F is not None
        np.testing.assert_array_equal(facts.threshold_F, sae.threshold.detach().numpy())  # type: ignore[operator, union-attr]
    else:
        assert facts.threshold_F is None
    assert facts.lens is None
    assert "No model" in facts.lens_note


def test_neighbours_equal_a_dense_argsort_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sae = random_sae("topk")
    unit_FD = sae.W_dec.detach().double().numpy()
    with np.errstate(invalid="ignore"):
        unit_FD = np.nan_to_num(unit_FD / np.linalg.norm(unit_FD, axis=1, keepdims=True))
    cosine_FF = unit_FD @ unit_FD.T
    np.fill_diagonal(cosine_FF, -np.inf)
    order_FF = np.argsort(-cosine_FF, axis=1, kind="stable")
    whole = weight_facts(sae, neighbours=11, progress=SilentProgress())
    np.testing.assert_array_equal(whole.neighbours_FN, order_FF[:, :11])
    np.testing.assert_allclose(
        whole.neighbour_cosines_FN, np.take_along_axis(cosine_FF, order_FF[:, :11], 1), atol=1e-6
    )
    monkeypatch.setattr(weights, "_ROWS", 13)
    monkeypatch.setattr(weights, "_COLUMNS", 17)
    blocked = weight_facts(sae, neighbours=11, progress=SilentProgress())
    np.testing.assert_array_equal(blocked.neighbours_FN, order_FF[:, :11])
    some_M = torch.tensor([140, 3, 7])
    near_MN, _ = nearest_rows(sae.W_dec.detach(), 11, of=some_M, progress=SilentProgress())
    np.testing.assert_array_equal(near_MN, order_FF[some_M, :11])


def test_equal_cosines_go_to_the_lower_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    rows_FD = torch.eye(4)[[0, 1, 0, 1, 0, 2]]
    rows_FD[5] = 0.0
    expected = [[2, 4, 1], [3, 0, 2], [0, 4, 1], [1, 0, 2], [0, 2, 1], [0, 1, 2]]
    for rows, columns in ((1024, 32_768), (2, 3)):
        monkeypatch.setattr(weights, "_ROWS", rows)
        monkeypatch.setattr(weights, "_COLUMNS", columns)
        near_FN, cosine_FN = nearest_rows(rows_FD, 3, progress=SilentProgress())
        assert near_FN.tolist() == expected
        assert cosine_FN.tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]]


def test_there_are_never_more_neighbours_than_other_features_and_none_on_request() -> None:
    sae = random_sae("topk", 5, 40)
    assert weight_facts(sae, neighbours=99, progress=SilentProgress()).neighbours_FN.shape == (40, 39)
    assert weight_facts(sae, neighbours=0, progress=SilentProgress()).neighbours_FN.shape == (40, 0)
    alone_FN, _ = nearest_rows(torch.ones(1, 5), 3, progress=SilentProgress())
    assert alone_FN.shape == (1, 0)


def test_a_long_search_says_how_long_after_its_first_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "LONG_NEIGHBOURS", 100)
    notes = Notes()
    weight_facts(random_sae("topk"), neighbours=3, progress=notes)
    assert len(notes.notes) == 1
    assert "160 features" in notes.notes[0]
    assert "neighbours=0" in notes.notes[0]
    notes.notes.clear()
    weight_facts(random_sae("topk"), neighbours=0, progress=notes)
    assert not notes.notes


def test_broken_weights_and_numbers_are_refused() -> None:
    sae = random_sae("topk")
    with torch.no_grad():
        sae.W_dec[31, 2] = torch.nan
    with pytest.raises(
        InputError, match=r"1 of 160 features have weights that are NaN or infinite; the first is feature 31"
    ):
        weight_facts(sae, neighbours=3, progress=SilentProgress())
    with pytest.raises(InputError, match="may be below 0"):
        weight_facts(sae, neighbours=-1, progress=SilentProgress())
