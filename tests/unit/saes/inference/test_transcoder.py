"""Transcoders: the rule as a formula in float64, files, and what a mistake in them is called.

Shapes: B rows, D = d_in, F = d_sae, O = d_out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuronmap.errors import ConfigError, DamagedError, MismatchError
from neuronmap.saes import BundleMetadata, Workspace, load_sae, read_bundle_info, save_bundle
from neuronmap.saes.inference.transcoder import TranscoderOptions, TranscoderSAE

B, D, F, O = 30, 12, 40, 7  # noqa: E741
WEIGHTS = "sae_weights.safetensors"
RULES: list[dict[str, Any]] = [{}, {"rule": "topk", "k": 4}, {"rule": "jumprelu"}]
HOOK = {"name": "model.layers.2.mlp:in", "module_path": "model.layers.2.mlp", "side": "in", "width": D}
HOOK_OUT = {"name": "model.layers.2.mlp:out", "module_path": "model.layers.2.mlp", "side": "out", "width": O}


def transcoder(options: dict[str, Any], skip: bool = False, dtype: torch.dtype = torch.float64) -> TranscoderSAE:
    sae = TranscoderSAE(D, F, TranscoderOptions(**options), d_out=O, skip=skip, dtype=dtype)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return sae


def rows(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(B, D, generator=torch.Generator().manual_seed(6), dtype=torch.float64).to(dtype)


def by_hand(sae: TranscoderSAE, x_BD: Tensor) -> tuple[Tensor, Tensor]:
    """f and y, element by element."""
    f_BF = torch.zeros(B, F, dtype=torch.float64)
    for b in range(B):
        pre = [float((x_BD[b] * sae.W_enc[:, j]).sum() + sae.b_enc[j]) for j in range(F)]
        if sae.options.rule == "topk":
            kept = sorted(range(F), key=lambda j: -pre[j])[: sae.options.k]
        elif sae.options.rule == "jumprelu":
            kept = [j for j in range(F) if pre[j] > float(sae.threshold[j])]
        else:
            kept = list(range(F))
        for j in kept:
            f_BF[b, j] = max(pre[j], 0.0)
    y_BO = f_BF @ sae.W_dec + sae.b_dec
    return f_BF, y_BO if sae.W_skip is None else y_BO + torch.einsum("bd,od->bo", x_BD, sae.W_skip)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("options", RULES, ids=str)
def test_the_rule_is_the_formula(options: dict[str, Any], skip: bool) -> None:
    sae, x = transcoder(options, skip), rows()
    with torch.no_grad():
        f_BF, y_BO = by_hand(sae, x)
        assert 0 < int((f_BF > 0).sum()) < B * F
        torch.testing.assert_close(sae.encode(x), f_BF, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(sae.reconstruct(x), y_BO, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(sae.complete(sae.decode(f_BF), x), y_BO, rtol=1e-12, atol=1e-12)
        assert sae(x.view(5, 6, D)).shape == (5, 6, O)


@pytest.mark.parametrize("options", RULES, ids=str)
def test_entries_are_those_of_encode(options: dict[str, Any]) -> None:
    sae, x = transcoder(options), rows()
    code = sae.encode_entries(x, Workspace(products="sparse"))
    assert code is not None
    torch.testing.assert_close(code.dense(code.value_N, torch.empty(B, F, dtype=x.dtype)), sae.encode(x).detach())
    torch.testing.assert_close(sae.decode_entries(code), sae.decode(sae.encode(x)))
    assert sae.encode_entries(x, Workspace(products="dense")) is None


def test_normalisation_is_the_encoders_alone() -> None:
    """As in SAELens: the output is on the scale of the other hook, and the skip connection takes x as it is."""
    sae, plain, x = transcoder({}, skip=True), transcoder({}, skip=True), rows()
    sae.input_norm = "layer_norm"
    inside = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5)
    assert torch.allclose(sae.encode(x), plain.encode(inside), rtol=1e-12)
    assert torch.allclose(sae(x), plain.encode(inside) @ sae.W_dec + sae.b_dec + x @ sae.W_skip.T, rtol=1e-9)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("options", RULES, ids=str)
def test_a_bundle_reads_back_to_the_same_bits(options: dict[str, Any], skip: bool, tmp_path: Path) -> None:
    sae, x = transcoder(options, skip, torch.float32), rows(torch.float32)
    folder = save_bundle(sae, tmp_path / "b", BundleMetadata(hook=HOOK, hook_out=HOOK_OUT))
    loaded = load_sae(folder)
    assert isinstance(loaded, TranscoderSAE)
    assert (loaded.d_out, loaded.skip, loaded.options) == (O, skip, sae.options)
    assert torch.equal(loaded.encode(x), sae.encode(x))
    assert torch.equal(loaded(x), sae(x))
    assert loaded.provenance is not None
    assert loaded.provenance.metadata.hook_out == HOOK_OUT
    config = json.loads((folder / "cfg.json").read_text())
    prefix = {"relu": "", "topk": "topk_", "jumprelu": "jumprelu_"}[sae.options.rule] + ("skip_" if skip else "")
    assert config["architecture"] == prefix + "transcoder"
    assert (config["d_out"], config["apply_b_dec_to_input"]) == (O, False)
    # an ':in' hook keeps a name that no module has: SAELens would read the output
    outer = config["metadata"]
    assert (outer["hook_name"], outer["hook_name_out"]) == ("model.layers.2.mlp:in", "model.layers.2.mlp")
    assert read_bundle_info(folder).k == options.get("k")
    card = (folder / "README.md").read_text()
    assert "| Reconstructs | model.layers.2.mlp:out |" in card
    assert ("SAELens does not open this folder" in card) == (sae.options.rule == "topk")


def test_hooks_of_other_widths_are_a_mismatch(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=r"reconstructs activations of width 7, but its hook_out has width 12"):
        save_bundle(transcoder({}), tmp_path / "b", BundleMetadata(hook_out=HOOK))
    with pytest.raises(MismatchError, match="reads activations of width 12, but its hook has width 7"):
        save_bundle(transcoder({}), tmp_path / "b", BundleMetadata(hook=HOOK_OUT))
    with pytest.raises(MismatchError, match="reads one hook, but its metadata names 2 in 'hooks'"):
        save_bundle(transcoder({}), tmp_path / "b", BundleMetadata(hooks=(HOOK, HOOK)))


@pytest.mark.parametrize(
    ("changes", "config", "faults"),
    [
        ({"W_skip": None}, {}, ["W_skip is missing"]),
        (
            {},
            {"architecture": "jumprelu_transcoder"},
            ["threshold is missing", "W_skip does not belong in a jumprelu_tr"],
        ),
        (
            {"W_dec": torch.zeros(F, D)},
            {},
            ["W_dec has shape [40, 12] where [40, 7] is needed (d_in=12, d_sae=40, d_out=7)"],
        ),
        (
            {},
            {"d_out": 9},
            ["W_dec has shape", "b_dec has shape [7] where [9]", "W_skip has shape [7, 12] where [9, 12]"],
        ),
        ({}, {"d_out": "wide"}, ["d_out must be a whole number of at least 1, got 'wide'"]),
        (
            {"W_skip": torch.full((O, D), torch.nan), "b_dec": torch.zeros(2)},
            {},
            ["W_skip holds 84 values that are NaN", "b_dec has shape [2] where [7]"],
        ),
    ],
)
def test_every_fault_is_named(
    changes: dict[str, Tensor | None], config: dict[str, Any], faults: list[str], tmp_path: Path
) -> None:
    folder = save_bundle(transcoder({}, skip=True), tmp_path / "b")
    tensors = {**load_file(folder / WEIGHTS), **changes}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / WEIGHTS)
    stored = json.loads((folder / "cfg.json").read_text())
    for kind in ("ours", "plain"):
        if kind == "plain":
            del stored["metadata"]["neuronmap"]
        (folder / "cfg.json").write_text(json.dumps({**stored, **config}))
        with pytest.raises(DamagedError) as raised:
            load_sae(folder, verify=False)
        for fault in faults:
            assert fault in str(raised.value), (kind, fault)


def test_a_transcoder_that_subtracts_the_bias_of_another_hook_is_damage(tmp_path: Path) -> None:
    folder = save_bundle(transcoder({}), tmp_path / "b")
    stored = json.loads((folder / "cfg.json").read_text())
    del stored["metadata"]["neuronmap"]
    (folder / "cfg.json").write_text(json.dumps({**stored, "apply_b_dec_to_input": True}))
    with pytest.raises(DamagedError, match="b_dec of a transcoder belongs to another hook"):
        load_sae(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "topk"}, "topk needs a k"),
        ({"rule": "relu", "k": 3}, "the other rules have none"),
        ({"rule": "gelu"}, "rule"),
        ({"rule": "topk", "k": F + 1}, "only d_sae = 40 features"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TranscoderSAE(D, F, TranscoderOptions(**options), d_out=O)
    with pytest.raises(ConfigError, match="d_out >= 1"):
        TranscoderSAE(D, F, d_out=0)
