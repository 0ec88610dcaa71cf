"""Files laid out as foreign libraries write them, and what reading them gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from neuronmap.hub.formats import Given, Imported, detect
from neuronmap.hub.formats.importing import read_candidate
from neuronmap.saes import SparseAutoencoder

D, F, L, K = 12, 40, 3, 5
TOLERANCE = 1e-5


def values(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float32."""
    return 0.4 * torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape) + seed))


def rows(*shape: int) -> Tensor:
    """Activations [..., D]."""
    return torch.randn(*(shape or (32,)), D, generator=torch.Generator().manual_seed(9))


def write_json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


def write_tensors(file: Path, tensors: dict[str, Tensor]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def read_only(path: Path, **given: Any) -> Imported:
    """The only candidate of a source."""
    found = detect(path)
    assert len(found) == 1, found
    return read_candidate(found[0], Given(**given))


def assert_function(sae: SparseAutoencoder, x: Tensor, encoded: Tensor, decoded: Tensor) -> None:
    """Encode and reconstruct, against a formula in float64."""
    with torch.no_grad():
        assert float(encoded.abs().max()) > 0
        torch.testing.assert_close(sae.encode(x).double(), encoded, atol=TOLERANCE, rtol=TOLERANCE)
        torch.testing.assert_close(sae.reconstruct(x).double(), decoded, atol=TOLERANCE, rtol=TOLERANCE)


def keep_largest(pre: Tensor, k: int) -> Tensor:
    """The k largest of each row, then ReLU."""
    chosen = pre.topk(k, dim=-1).indices
    return torch.relu(torch.zeros_like(pre).scatter(-1, chosen, pre.gather(-1, chosen)))


def sparsify_folder(folder: Path, hook: str = "layers.3", **config: Any) -> Path:
    """A hook point's folder of sparsify."""
    write_json(folder / hook / "cfg.json", {"activation": "topk", "expansion_factor": 2, "num_latents": F, "k": K, "d_in": D,
                                            "skip_connection": False, "transcode": False, **config})  # fmt: skip
    tensors = {
        "encoder.weight": values(F, D),
        "encoder.bias": values(F),
        "W_dec": values(F, D, seed=1),
        "b_dec": values(D),
    }
    if config.get("skip_connection"):
        tensors["W_skip"] = values(D, D)
    write_tensors(folder / hook / "sae.safetensors", tensors)
    return folder


def transcoder_set(folder: Path, layers: int = 2, **config: Any) -> Path:
    """A set of circuit-tracer, the odd layers with thresholds and skip connections."""
    for layer in range(layers):
        tensors = {
            "W_enc": values(F, D, seed=layer),
            "W_dec": values(F, D, seed=7 + layer),
            "b_enc": values(F),
            "b_dec": values(D),
        }
        if layer % 2:
            tensors |= {"activation_function.threshold": values(F, seed=3).abs(), "W_skip": values(D, D, seed=layer)}
        write_tensors(folder / f"layer_{layer}.safetensors", tensors)
    settings = {"model_kind": "transcoder_set", "model_name": "org/tiny", "feature_input_hook": "mlp.hook_in",
                "feature_output_hook": "mlp.hook_out", "scan": None, **config}  # fmt: skip
    (folder / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
    return folder
