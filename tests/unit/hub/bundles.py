"""Small bundles for the tests of this room; importable in processes that tests start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from neuronmap.saes import BundleMetadata, SparseAutoencoder, get_architecture, save_bundle

D, F = 12, 48
MODEL = {
    "name": "org/Tiny-LM",
    "revision": "abc",
    "architecture": "LlamaForCausalLM",
    "model_digest": "sha256:" + "1" * 64,
    "tokenizer_digest": "sha256:" + "2" * 64,
    "dtype": "float32",
    "hidden_size": D,
    "num_layers": 4,
}


def hook(layer: int = 2, component: str = "residual") -> dict[str, Any]:
    """A hook's record as training writes it."""
    path = f"model.layers.{layer}" + ("" if component == "residual" else f".{component}")
    return {
        "name": f"{path}:out",
        "layer": layer,
        "component": component,
        "module_path": path,
        "side": "out",
        "width": D,
    }


def make_sae(name: str = "relu", seed: int = 0) -> SparseAutoencoder:
    """An initialised SAE with weights that depend on the seed."""
    cls = get_architecture(name)
    sae = cls(D, F, cls.Options.from_dict({"k": 5}) if "k" in cls.Options.model_fields else None)
    sae.initialise(torch.zeros(D), torch.Generator().manual_seed(seed))
    return sae


def make_metadata(**changes: Any) -> BundleMetadata:
    """Metadata of an SAE on the second block's output."""
    return BundleMetadata.from_dict({"model": MODEL, "hook": hook(), "seed": 1, **changes})


def make_bundle(folder: Path, name: str = "relu", seed: int = 0, metrics: Any = None, **changes: Any) -> Path:
    """A bundle on disk."""
    return save_bundle(make_sae(name, seed), folder, make_metadata(**changes), metrics=metrics)
