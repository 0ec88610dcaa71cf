"""Plain SAELens folders as bundles: what the folder says of a transcoder's two hooks is kept."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from neuronmap.hub.contents import convert_saelens
from neuronmap.saes import load_sae
from neuronmap.saes.metadata import read_bundle_info


def test_a_transcoder_keeps_the_hook_that_it_reconstructs(tmp_path: Path) -> None:
    folder, bundle = tmp_path / "foreign", tmp_path / "bundle"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (6, 20), "b_enc": (20,), "W_dec": (20, 4), "b_dec": (4,)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, folder / "sae_weights.safetensors")
    hooks = {"hook_name": "blocks.3.hook_resid_mid", "hook_name_out": "blocks.3.hook_mlp_out"}
    config = {
        "architecture": "transcoder", "d_in": 6, "d_out": 4, "d_sae": 20, "dtype": "float32",
        "normalize_activations": "layer_norm",
        "metadata": {"sae_lens_version": "6.1.0", "model_name": "gpt2", **hooks},
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config))
    convert_saelens(folder, bundle)
    metadata = read_bundle_info(bundle).metadata
    assert metadata is not None
    assert metadata.hook_out is not None
    assert (metadata.hook_out["name"], metadata.hook_out["width"]) == ("blocks.3.hook_mlp_out", 4)
    assert (metadata.hook_out["layer"], metadata.hook_out["component"]) == (3, "mlp")
    assert metadata.hook is not None
    assert (metadata.hook["name"], metadata.hook["width"]) == ("blocks.3.hook_resid_mid", 6)
    assert metadata.origin is not None
    assert metadata.origin["metadata"] == config["metadata"]
    x_ND = torch.randn(5, 6)
    there, here = load_sae(folder), load_sae(bundle)
    assert here.input_norm == "layer_norm"
    torch.testing.assert_close(here.reconstruct(x_ND), there.reconstruct(x_ND))
