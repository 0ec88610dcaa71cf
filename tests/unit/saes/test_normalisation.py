"""Input normalisation: against the formulas in float64, through every architecture, and undone where it can be.

Shapes: B rows, D = d_in, F = d_sae.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from neuronmap.errors import ConfigError
from neuronmap.saes import SparseAutoencoder, Workspace, get_architecture, list_architectures
from neuronmap.saes.inference.options import INFERENCE_ONLY
from neuronmap.saes.normalisation import INPUT_NORMS, normalise, output_scale, undo_normalisation

B, D, F = 40, 12, 48


def rows() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.logspace(-2, 3, B, dtype=torch.float64).unsqueeze(1)
    return lengths * (torch.randn(B, D, generator=generator, dtype=torch.float64) + 0.7)


def sae_of(name: str, rule: str) -> SparseAutoencoder:
    cls: Any = get_architecture(name)
    sae = cls(
        D,
        F,
        cls.Options.from_dict({"k": 5} if "topk" in name or name in ("matryoshka", "lista") else {}),
        dtype=torch.float64,
    )
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in [*sae.parameters(), *sae.buffers()]:
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    sae.input_norm = rule
    return sae


@pytest.mark.parametrize("row", range(0, B, 13))
def test_layer_norm_is_the_formula(row: int) -> None:
    """As in SAELens and in OpenAI's sparse_autoencoder: epsilon on the way in only, deviations over D - 1."""
    x = rows()[row].tolist()
    mean = math.fsum(x) / D
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in x) / (D - 1))
    found = normalise(rows(), "layer_norm")[row]
    assert found.tolist() == pytest.approx([(value - mean) / (std + 1e-5) for value in x], rel=1e-12)
    back = undo_normalisation(found.unsqueeze(0), rows()[row].unsqueeze(0), "layer_norm")[0]
    assert back.tolist() == pytest.approx([(value - mean) / (std + 1e-5) * std + mean for value in x], rel=1e-12)


def test_constant_norm_rescale_is_the_formula() -> None:
    x = rows()
    found = normalise(x, "constant_norm_rescale")
    assert torch.allclose(found, x * math.sqrt(D) / x.square().sum(1, keepdim=True).sqrt(), rtol=1e-12)
    assert torch.allclose(found.norm(dim=1), torch.full((B,), math.sqrt(D), dtype=torch.float64))
    assert torch.allclose(undo_normalisation(found, x, "constant_norm_rescale"), x, rtol=1e-12)


@pytest.mark.parametrize("rule", INPUT_NORMS)
def test_a_row_of_zeros_and_a_constant_row_stay_finite(rule: str) -> None:
    x = torch.stack([torch.zeros(D), torch.full((D,), 3.0)])
    found = normalise(x, rule)
    assert bool(found.isfinite().all())
    assert bool(undo_normalisation(found, x, rule).isfinite().all())
    assert not found[0].any()


@pytest.mark.parametrize("rule", INPUT_NORMS)
def test_the_scale_of_the_output_is_what_undoing_multiplies_by(rule: str) -> None:
    x, step = rows(), torch.randn(B, D, dtype=torch.float64)
    moved = undo_normalisation(x + step, x, rule) - undo_normalisation(x, x, rule)
    assert torch.allclose(moved, step * output_scale(x, rule), rtol=1e-9, atol=1e-9)


def test_nothing_is_done_without_one() -> None:
    x = rows()
    assert normalise(x, "none") is x
    assert undo_normalisation(x, 2 * x, "none") is x


def test_an_unknown_rule_lists_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"No input normalisation 'rms'. There are: none, layer_norm, constant_norm_rescale"
    ):
        normalise(rows(), "rms")


@pytest.mark.parametrize("rule", INPUT_NORMS)
@pytest.mark.parametrize("name", [*list_architectures(), "abstopk", "matching_pursuit"])
def test_every_architecture_encodes_normalised_rows_and_reconstructs_raw_ones(name: str, rule: str) -> None:
    x = rows()
    sae, plain = sae_of(name, rule), sae_of(name, "none")
    with torch.no_grad():
        inside = normalise(x, rule)
        assert torch.equal(sae.encode(x), plain.encode(inside))
        expected = undo_normalisation(plain(inside), x, rule)
        assert torch.equal(sae.reconstruct(x), expected)
        assert torch.equal(sae(x), expected)
        assert torch.equal(sae.complete(sae.decode(sae.encode(x)), x), expected)
        code = sae.encode_entries(x, Workspace(products="sparse"))
        if code is not None:
            assert torch.allclose(sae.complete(sae.decode_entries(code), x), expected, rtol=1e-9, atol=1e-9)
        assert (code is not None) == (name in list_architectures())


@pytest.mark.parametrize("rule", INPUT_NORMS)
def test_a_feature_adds_its_row_times_the_scale(rule: str) -> None:
    """What an intervention on one feature has to add to the activation."""
    sae, x = sae_of("relu", rule), rows()
    f_BF = sae.encode(x).detach()
    more_BF = f_BF.clone()
    more_BF[:, 7] += 0.5
    moved = sae.complete(sae.decode(more_BF), x) - sae.complete(sae.decode(f_BF), x)
    assert torch.allclose(moved, 0.5 * sae.decoder_scale(x) * sae.W_dec[7], rtol=1e-6, atol=1e-9)


def test_there_is_no_scale_to_fold() -> None:
    sae = sae_of("relu", "layer_norm")
    with pytest.raises(ConfigError, match="'layer_norm' has no input scale to fold"):
        sae.fold_input_scale(0.5)


def test_architectures_that_are_read_only_are_the_ones_tested_here_or_beside() -> None:
    assert set(INFERENCE_ONLY) == {"transcoder", "crosscoder", "abstopk", "matching_pursuit", "temporal"}
