"""The real sae-lens package reads what we write, and we read what it writes; encode and decode agree to 1e-5.

sae-lens is not installed beside NeuronMap: ``NEURONMAP_PEERS_PYTHON`` names the interpreter of an environment that
has it (``make test-peers`` builds one from ``constraints-peers.txt``). Files are the only thing exchanged.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuronmap.errors import DamagedError
from neuronmap.hub import SAEModelHub
from neuronmap.saes import (
    BundleMetadata,
    SparseAutoencoder,
    get_architecture,
    list_architectures,
    load_sae,
    save_bundle,
)

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(
        not os.environ.get("NEURONMAP_PEERS_PYTHON"),
        reason="NEURONMAP_PEERS_PYTHON does not name an interpreter with sae-lens; `make test-peers` makes one",
    ),
]

D, F = 24, 48
TOLERANCE = 1e-5
SCRIPT = Path(__file__).parent / "scripts" / "saelens_exchange.py"

OURS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {"k": 6} if "topk" in name or name == "matryoshka" else {}) for name in list_architectures()},
    "jumprelu-tanh": ("jumprelu", {"sparsity_form": "tanh"}),
    "topk-k1": ("topk", {"k": 1}),
    "matryoshka-two-levels": ("matryoshka", {"k": 6, "group_fractions": (0.25, 0.75)}),
}
OUR_NAMES = {
    "relu": "standard",
    "gated": "gated",
    "topk": "topk",
    "batchtopk": "jumprelu",
    "jumprelu": "jumprelu",
    "matryoshka": "jumprelu",
}
THEIRS = {
    "standard": "relu",
    "standard-b_dec-not-subtracted": "relu",
    "gated": "gated",
    "gated-b_dec-not-subtracted": "gated",
    "topk-rescaled": "topk",
    "topk": "topk",
    "batchtopk": "jumprelu",
    "batchtopk-not-rescaled": "jumprelu",
    "matryoshka_batchtopk": "jumprelu",
    "jumprelu": "jumprelu",
}
METADATA = BundleMetadata(
    model={"name": "org/tiny", "revision": "abc", "num_layers": 4},
    hook={
        "name": "model.layers.2:out",
        "layer": 2,
        "component": "residual",
        "module_path": "model.layers.2",
        "side": "out",
        "width": D,
    },
    corpus={"name": "sotu", "context_length": 64},
    training={"nested": {"learning_rate": 1e-4}, "tags": []},
    seed=7,
    tags=("peer",),
)


def trained_looking(name: str, options: dict[str, Any]) -> SparseAutoencoder:
    """An SAE with every tensor away from its initial values, folded as after training with inputs scaled by 0.3."""
    cls = get_architecture(name)
    sae = cls(D, F, cls.Options.from_dict(options))
    generator = torch.Generator().manual_seed(len(name))
    sae.initialise(0.2 * torch.randn(D, generator=generator), generator)
    with torch.no_grad():
        for tensor in sae.state_dict().values():
            if tensor.is_floating_point() and tensor.dim() > 0:
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    sae.calibrate(lambda: iter([0.3 * rows()]))
    sae.fold_input_scale(0.3)
    return sae


def rows() -> Tensor:
    return torch.randn(128, D, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after sae-lens has read our bundles and written its own (one process: its import takes 12 s)."""
    folder = tmp_path_factory.mktemp("exchange")
    save_file({"x": rows()}, folder / "rows.safetensors")
    for name, (architecture, options) in OURS.items():
        save_bundle(trained_looking(architecture, options), folder / "ours" / name, METADATA)
    environment = {**os.environ, "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "HOME": str(folder)}
    ran = subprocess.run(
        [os.environ["NEURONMAP_PEERS_PYTHON"], str(SCRIPT), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return folder


def assert_same_function(sae: SparseAutoencoder, answers: dict[str, Tensor]) -> None:
    with torch.no_grad():
        encoded = sae.encode(rows())
        assert float(encoded.abs().max()) > 0
        torch.testing.assert_close(encoded, answers["encoded"], atol=TOLERANCE, rtol=TOLERANCE)
        torch.testing.assert_close(sae.decode(encoded), answers["decoded"], atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("name", OURS)
def test_saelens_reads_our_bundle(name: str, exchange: Path) -> None:
    sae = load_sae(exchange / "ours" / name)
    assert_same_function(sae, load_file(exchange / "ours-read" / f"{name}.safetensors"))
    seen = json.loads((exchange / "ours-read" / f"{name}.json").read_text())
    assert seen["architecture"] == OUR_NAMES.get(sae.architecture, seen["architecture"])
    assert seen["metadata"]["model_name"] == "org/tiny"
    assert seen["metadata"]["hook_name"] == "model.layers.2"


@pytest.mark.parametrize("name", OURS)
def test_our_metadata_survives_in_saelens(name: str, exchange: Path) -> None:
    stored = json.loads((exchange / "ours" / name / "cfg.json").read_text())["metadata"]["neuronmap"]
    seen = json.loads((exchange / "ours-read" / f"{name}.json").read_text())["metadata"]["neuronmap"]
    assert seen == stored
    assert (seen["seed"], seen["tags"], seen["training"]) == (7, ["peer"], METADATA.training)


@pytest.mark.parametrize("name", OURS)
def test_our_bundle_saved_again_by_saelens_still_opens(name: str, exchange: Path) -> None:
    again = exchange / "ours-again" / name
    sae = load_sae(again, verify=False)
    assert sae.architecture == OURS[name][0]
    assert_same_function(sae, load_file(exchange / "ours-read" / f"{name}.safetensors"))


def test_weights_changed_outside_neuronmap_are_noticed(exchange: Path) -> None:
    """SAELens keeps our digest but writes its own file: the file is no longer the one we made."""
    with pytest.raises(DamagedError, match="was changed or damaged"):
        load_sae(exchange / "ours-again" / "relu")


@pytest.mark.parametrize("name", THEIRS)
def test_we_read_what_saelens_saves(name: str, exchange: Path) -> None:
    sae = load_sae(exchange / "theirs" / name)
    assert sae.architecture == THEIRS[name]
    assert_same_function(sae, load_file(exchange / "theirs" / f"{name}.safetensors"))


@pytest.mark.parametrize("name", THEIRS)
def test_what_saelens_saves_can_join_the_library(name: str, exchange: Path, tmp_path: Path) -> None:
    hub = SAEModelHub(tmp_path / "library")
    entry = hub.register(exchange / "theirs" / name)
    assert (entry.model, entry.layer, entry.component) == ("gpt2", 8, "residual_pre")
    assert_same_function(hub.load(entry.id), load_file(exchange / "theirs" / f"{name}.safetensors"))
