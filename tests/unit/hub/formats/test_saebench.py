"""The adapter offers what SAEBench's evaluations touch, and is the same function."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from layouts import D, F, K, rows
from torch import nn

from neuronmap.errors import InputError
from neuronmap.hub.formats import to_saebench
from neuronmap.saes import BundleMetadata, SparseAutoencoder, get_architecture, load_sae, save_bundle

METADATA = BundleMetadata(
    model={"name": "org/tiny"},
    hook={"name": "model.layers.3:out", "layer": 3, "component": "residual", "width": D},
    corpus={"context_length": 64},
)


def make(architecture: str, options: dict[str, Any] | None = None) -> SparseAutoencoder:
    cls = get_architecture(architecture)
    sae = cls(D, F, cls.Options.from_dict(options or {}))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    return sae


@pytest.mark.parametrize(
    ("architecture", "options"), [("relu", {}), ("topk", {"k": K}), ("jumprelu", {}), ("gated", {})]
)
def test_the_contract(architecture: str, options: dict[str, Any], tmp_path: Path) -> None:
    sae = load_sae(save_bundle(make(architecture, options), tmp_path / "sae", METADATA))
    adapter = to_saebench(sae)
    assert isinstance(adapter.W_enc, nn.Parameter)
    assert isinstance(adapter.W_dec, nn.Parameter)
    assert (tuple(adapter.W_enc.shape), tuple(adapter.W_dec.data.shape)) == ((D, F), (F, D))
    torch.testing.assert_close(adapter.W_dec.norm(dim=1), torch.ones(F))
    assert adapter.b_dec.shape == (D,)
    bias = adapter.b_mag if architecture == "gated" else adapter.b_enc
    assert bias.shape == (F,)
    for shape in ((7,), (2, 5)):
        x = rows(*shape)
        f = adapter.encode(x)
        assert f.shape == (*shape, F)
        f[..., torch.arange(F) % 2 == 0] = 0  # TPP does this
        assert adapter.decode(f).shape == x.shape
        torch.testing.assert_close(adapter(x), sae.reconstruct(x), atol=1e-5, rtol=1e-5)
    cfg = adapter.cfg
    assert (cfg.model_name, cfg.hook_name, cfg.hook_layer, cfg.d_in, cfg.d_sae) == (
        "org/tiny",
        "blocks.3.hook_resid_post",
        3,
        D,
        F,
    )
    assert (cfg.dtype, cfg.normalize_activations, cfg.prepend_bos, cfg.context_size) == ("float32", "none", True, 64)
    assert dataclasses.is_dataclass(cfg)
    cfg.metadata = {"set": "by SAEBench"}
    json.dumps(cfg.to_dict())
    assert adapter.to(dtype=torch.float64) is adapter
    assert adapter.dtype is torch.float64
    assert adapter.encode(rows()).dtype is torch.float64


def test_what_it_cannot_evaluate() -> None:
    with pytest.raises(InputError, match="this is a transcoder"):
        to_saebench(make("transcoder"))
    sae = make("topk", {"k": K})
    sae.input_norm = "layer_norm"
    with pytest.raises(InputError, match="layer_norm"):
        to_saebench(sae)
