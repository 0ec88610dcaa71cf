"""Crosscoders: the rule as a formula in float64, and their files.

Shapes: B rows, L hooks, D = d_in, F = d_sae.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from neuronmap.errors import ConfigError, DamagedError, InputError, MismatchError
from neuronmap.saes import BundleMetadata, load_sae, read_bundle_info, save_bundle
from neuronmap.saes.inference.crosscoder import CrosscoderOptions, CrosscoderSAE
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.normalisation import normalise, undo_normalisation

B, L, D, F = 20, 3, 8, 40
RULES: list[dict[str, Any]] = [{}, {"rule": "topk", "k": 4}, {"rule": "jumprelu"}]
HOOKS = tuple({"name": f"model.layers.{layer}:out", "layer": layer, "width": D} for layer in (2, 5, 8))


def crosscoder(options: dict[str, Any], dtype: torch.dtype = torch.float64) -> CrosscoderSAE:
    sae = CrosscoderSAE(L, D, F, CrosscoderOptions(**options), dtype=dtype)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return sae


def rows(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(B, L, D, generator=torch.Generator().manual_seed(6), dtype=torch.float64).to(dtype)


def by_hand(sae: CrosscoderSAE, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
    """f and xhat, summed hook by hook."""
    pre_BF = sum(x_BLD[:, hook] @ sae.W_enc[hook] for hook in range(L)) + sae.b_enc
    if sae.options.rule == "topk":
        floor_B1 = pre_BF.sort(dim=1, descending=True).values[:, sae.options.k - 1 : sae.options.k]
        f_BF = pre_BF.relu() * (pre_BF >= floor_B1)
    else:
        f_BF = pre_BF.relu() * (pre_BF > sae.threshold if sae.options.rule == "jumprelu" else 1)
    return f_BF, torch.stack([f_BF @ sae.W_dec[:, hook] + sae.b_dec[hook] for hook in range(L)], dim=1)


@pytest.mark.parametrize("options", RULES, ids=str)
def test_the_rule_is_the_formula(options: dict[str, Any]) -> None:
    sae, x = crosscoder(options), rows()
    with torch.no_grad():
        f_BF, xhat_BLD = by_hand(sae, x)
        assert 0 < int((f_BF > 0).sum()) < B * F
        torch.testing.assert_close(sae.encode(x), f_BF, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(sae.decode(f_BF), xhat_BLD, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(sae(x), xhat_BLD, rtol=1e-12, atol=1e-12)
        assert sae(x.view(4, 5, L, D)).shape == (4, 5, L, D)
        flat = torch.nonzero(f_BF.flatten()).view(-1)
        code = SparseCode.from_flat(flat, f_BF.flatten()[flat], B, F)
        torch.testing.assert_close(sae.decode_entries(code), xhat_BLD, rtol=1e-12, atol=1e-12)


def test_each_hook_is_normalised_for_itself() -> None:
    sae, plain, x = crosscoder({}), crosscoder({}), rows() * torch.tensor([1.0, 10.0, 100.0]).view(1, L, 1)
    sae.input_norm = "constant_norm_rescale"
    inside = torch.stack([normalise(x[:, hook], sae.input_norm) for hook in range(L)], dim=1)
    expected = plain(inside)
    back = torch.stack([undo_normalisation(expected[:, hook], x[:, hook], sae.input_norm) for hook in range(L)], dim=1)
    assert torch.allclose(sae(x), back, rtol=1e-9)


@pytest.mark.parametrize("shape", [(B, D), (B, L + 1, D), (B, D, L), (L * D,)])
def test_rows_of_one_hook_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"reads 3 hooks of width 8: activations \[\.\.\., 3, 8\] are needed"):
        crosscoder({}).encode(torch.zeros(shape))


@pytest.mark.parametrize("options", RULES, ids=str)
def test_a_bundle_reads_back_to_the_same_bits(options: dict[str, Any], tmp_path: Path) -> None:
    sae, x = crosscoder(options, torch.float32), rows(torch.float32)
    folder = save_bundle(sae, tmp_path / "b", BundleMetadata(hooks=HOOKS))
    loaded = load_sae(folder)
    assert isinstance(loaded, CrosscoderSAE)
    assert (loaded.layers, loaded.options) == (L, sae.options)
    assert torch.equal(loaded(x), sae(x))
    assert loaded.provenance is not None
    assert loaded.provenance.metadata.hooks == HOOKS
    info = read_bundle_info(folder)
    assert (info.architecture, info.d_in, info.d_sae, info.k) == ("crosscoder", D, F, options.get("k"))
    config = json.loads((folder / "cfg.json").read_text())
    assert (config["architecture"], config["layers"]) == ("crosscoder", L)
    card = (folder / "README.md").read_text()
    assert "SAELens does not open this folder" in card
    assert "of width 8 of 3 hooks" in card
    assert "model.layers.2:out, layer 2; model.layers.5:out" in card


def test_hooks_are_as_many_and_as_wide_as_it_reads(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="reads 3 hooks, but its metadata names 2"):
        save_bundle(crosscoder({}), tmp_path / "b", BundleMetadata(hooks=HOOKS[:2]))
    with pytest.raises(MismatchError, match="width 8, but its hook has width 9"):
        save_bundle(crosscoder({}), tmp_path / "b", BundleMetadata(hooks=(*HOOKS[:2], {"width": 9})))
    with pytest.raises(MismatchError, match="only a transcoder has a 'hook_out'"):
        save_bundle(crosscoder({}), tmp_path / "b", BundleMetadata(hook_out=HOOKS[0]))


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"layers": 4}, r"W_enc has shape \[3, 8, 40\] where \[4, 8, 40\] is needed .*layers=4.*b_dec has shape"),
        ({"layers": 0}, "layers must be a whole number of at least 1, got 0"),
        ({"rule": "relu"}, "threshold does not belong"),
    ],
)
def test_a_file_that_says_something_else_is_damage(config: dict[str, Any], fault: str, tmp_path: Path) -> None:
    folder = save_bundle(crosscoder({"rule": "jumprelu"}), tmp_path / "b")
    stored = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**stored, **config}))
    with pytest.raises(DamagedError, match=fault):
        load_sae(folder)


def test_it_has_at_least_one_hook() -> None:
    with pytest.raises(ConfigError, match="layers >= 1, got 0"):
        CrosscoderSAE(0, D, F)
