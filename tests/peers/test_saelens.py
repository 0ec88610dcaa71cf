"""The real sae-lens package reads what we write, and we read what it writes; encode and decode agree to 1e-5.

sae-lens is not installed beside NeuronMap: ``NEURONMAP_PEERS_PYTHON`` names the interpreter of an environment that
has it (``make test-peers`` builds one from ``constraints-peers.txt``). Files are the only thing exchanged.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.peers.running import run_script
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
from neuronmap.saes.normalisation import INPUT_NORMS

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(
        not os.environ.get("NEURONMAP_PEERS_PYTHON"),
        reason="NEURONMAP_PEERS_PYTHON does not name an interpreter with sae-lens; `make test-peers` makes one",
    ),
]

D, F, D_OUT = 24, 48, 20
TOLERANCE = 1e-5
SCRIPT = Path(__file__).parent / "scripts" / "saelens_exchange.py"

JUMP, ATTENTION = {"rule": "jumprelu"}, {"n_heads": 2, "bottleneck_factor": 4}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: (name, {"k": 6} if "topk" in name or name == "matryoshka" else {})
        for name in list_architectures()
        if name != "lista"
    },
    "jumprelu-tanh": ("jumprelu", {"sparsity_form": "tanh"}),
    "topk-k1": ("topk", {"k": 1}),
    "matryoshka-two-levels": ("matryoshka", {"k": 6, "group_fractions": (0.25, 0.75)}),
    **{f"{name}-layer_norm": (name, {"k": 6} if "topk" in name else {}) for name in ("relu", "gated", "batchtopk")},
    "topk-constant_norm_rescale": ("topk", {"k": 6}),
    "relu-hook_z": ("relu", {}),
    "transcoder": ("transcoder", {}),
    "transcoder-layer_norm": ("transcoder", {}),
    "transcoder-skip": ("transcoder", {}),
    "transcoder-jumprelu": ("transcoder", JUMP),
    "transcoder-jumprelu-skip": ("transcoder", JUMP),
    "abstopk": ("abstopk", {"k": 6}),
    "abstopk-layer_norm": ("abstopk", {"k": 6}),
    "matching_pursuit": ("matching_pursuit", {"residual_threshold": 0.5, "max_iterations": 9}),
    "temporal": ("temporal", {**ATTENTION, "k": 5}),
    "temporal-untied": ("temporal", {**ATTENTION, "tied": False, "subtract_b_dec": False}),
    "temporal-scaled": ("temporal", {**ATTENTION, "k": 5, "input_scale": 0.5, "n_attn_layers": 2}),
}
OURS_ONLY = {"crosscoder": {}, "transcoder": {"rule": "topk", "k": 3}, "lista": {"k": 3}}
OUR_NAMES = {
    "relu": "standard",
    "gated": "gated",
    "topk": "topk",
    "batchtopk": "jumprelu",
    "jumprelu": "jumprelu",
    "matryoshka": "jumprelu",
    "transcoder": "transcoder",
    "transcoder-skip": "skip_transcoder",
    "transcoder-jumprelu": "jumprelu_transcoder",
    "transcoder-jumprelu-skip": "jumprelu_skip_transcoder",
    "abstopk": "abstopk",
    "matching_pursuit": "matching_pursuit",
    "temporal": "temporal",
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
    "standard-layer_norm": "relu",
    "standard-layer_norm-b_dec-not-subtracted": "relu",
    "standard-constant_norm_rescale": "relu",
    "standard-expected_average": "relu",
    "topk-layer_norm": "topk",
    "gated-layer_norm": "gated",
    "jumprelu-constant_norm_rescale": "jumprelu",
    "standard-bfloat16": "relu",
    "jumprelu-float16": "jumprelu",
    "topk-float64": "topk",
    "transcoder": "transcoder",
    "transcoder-layer_norm": "transcoder",
    "skip_transcoder": "transcoder",
    "skip_transcoder-layer_norm": "transcoder",
    "jumprelu_transcoder": "transcoder",
    "jumprelu_skip_transcoder": "transcoder",
    "abstopk": "abstopk",
    "abstopk-rescaled": "abstopk",
    "abstopk-b_dec-not-subtracted": "abstopk",
    "matching_pursuit": "matching_pursuit",
    "matching_pursuit-all-iterations": "matching_pursuit",
    "matching_pursuit-b_dec-not-subtracted": "matching_pursuit",
    "temporal": "temporal",
    "temporal-two-layers": "temporal",
    "temporal-untied": "temporal",
    "temporal-untied-b_dec-not-subtracted": "temporal",
    "temporal-b_dec-not-subtracted": "temporal",
    "temporal-relu": "temporal",
    "temporal-layer_norm": "temporal",
    "temporal-scaled": "temporal",
    "standard-hook_z": "relu",
    "batchtopk-checkpoint": "jumprelu",
    "batchtopk-not-rescaled-checkpoint": "jumprelu",
    "matryoshka_batchtopk-checkpoint": "jumprelu",
    "old-standard": "relu",
    "old-topk": "topk",
    "old-boolean-norm": "relu",
    "old-norm-is-null": "relu",
    "old-layer_norm": "relu",
    "old-jumprelu": "jumprelu",
    "jumprelu-log_threshold": "jumprelu",
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


HOOK_Z = "blocks.8.attn.hook_z"
HOOK_OUT = {"name": "model.layers.3.mlp:out", "module_path": "model.layers.3.mlp", "side": "out", "width": D_OUT}


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


def from_elsewhere(architecture: str, options: dict[str, Any], skip: bool = False) -> SparseAutoencoder:
    """One that NeuronMap does not train, its tensors random."""
    cls: Any = get_architecture(architecture)
    chosen = cls.Options.from_dict(options)
    if architecture == "crosscoder":
        sae = cls(3, D, F, chosen)
    else:
        sae = cls(D, F, chosen, **({"d_out": D_OUT, "skip": skip} if architecture == "transcoder" else {}))
    generator = torch.Generator().manual_seed(len(architecture))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return sae


def our_sae(name: str) -> SparseAutoencoder:
    """The SAE of a row of ``OURS``."""
    architecture, options = OURS[name]
    build = trained_looking if architecture in list_architectures() else from_elsewhere
    sae = from_elsewhere(architecture, options, skip=True) if name.endswith("-skip") else build(architecture, options)
    for rule in INPUT_NORMS:
        if name.endswith(rule):
            sae.input_norm = rule
    return sae


def metadata_of(name: str) -> BundleMetadata:
    if name.endswith("-hook_z"):  # converted from an SAE that runs on TransformerLens, where heads come apart
        return METADATA.updated(origin={"format": "saelens", "metadata": {"hook_name": HOOK_Z}})
    return METADATA.updated(hook_out=HOOK_OUT) if OURS[name][0] == "transcoder" else METADATA


def rows() -> Tensor:
    return torch.randn(128, D, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after sae-lens has read our bundles and written its own (one process: its import takes 12 s)."""
    folder = tmp_path_factory.mktemp("exchange")
    save_file({"x": rows()}, folder / "rows.safetensors")
    for name in OURS:
        save_bundle(our_sae(name), folder / "ours" / name, metadata_of(name))
    for architecture, options in OURS_ONLY.items():
        save_bundle(from_elsewhere(architecture, options), folder / "ours-only" / architecture)
    run_script(SCRIPT, folder)
    return folder


def assert_same_function(sae: SparseAutoencoder, answers: dict[str, Tensor]) -> None:
    """Encode and the whole reconstruction; decode where it does not depend on the rows (theirs remembers the last ones)."""
    x = rows().reshape(8, -1, D) if sae.reads == "contexts" else rows()
    with torch.no_grad():
        encoded = sae.encode(x)
        assert float(encoded.abs().max()) > 0
        torch.testing.assert_close(encoded, answers["encoded"], atol=TOLERANCE, rtol=TOLERANCE)
        torch.testing.assert_close(sae.reconstruct(x), answers["forward"], atol=TOLERANCE, rtol=TOLERANCE)
        if sae.input_norm == "none" or sae.architecture == "transcoder":
            torch.testing.assert_close(sae.decode(encoded), answers["decoded"], atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("name", OURS)
def test_saelens_reads_our_bundle(name: str, exchange: Path) -> None:
    sae = load_sae(exchange / "ours" / name)
    assert_same_function(sae, load_file(exchange / "ours-read" / f"{name}.safetensors"))
    seen = json.loads((exchange / "ours-read" / f"{name}.json").read_text())
    form = name.replace("-layer_norm", "") if sae.architecture == "transcoder" else sae.architecture
    assert seen["architecture"] == OUR_NAMES[form]
    assert seen["metadata"]["model_name"] == "org/tiny"
    assert seen["metadata"]["hook_name"] == (HOOK_Z if name.endswith("-hook_z") else "model.layers.2")
    assert seen["metadata"].get("hook_name_out") == ("model.layers.3.mlp" if sae.architecture == "transcoder" else None)


@pytest.mark.parametrize("name", OURS_ONLY)
def test_what_saelens_has_no_form_for_it_refuses_and_the_card_says_so(name: str, exchange: Path) -> None:
    form = {"transcoder": "topk_transcoder"}.get(name, name)
    assert form in json.loads((exchange / "ours-only.json").read_text())[name]
    assert "SAELens does not open this folder" in (exchange / "ours-only" / name / "README.md").read_text()
    assert load_sae(exchange / "ours-only" / name).architecture == name


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


def test_everything_that_saelens_wrote_is_asked_for(exchange: Path) -> None:
    assert {folder.name for folder in (exchange / "theirs").iterdir() if folder.is_dir()} == set(THEIRS)


@pytest.mark.parametrize("name", THEIRS)
def test_we_read_what_saelens_saves(name: str, exchange: Path) -> None:
    sae = load_sae(exchange / "theirs" / name)
    assert sae.architecture == THEIRS[name]
    assert_same_function(sae, load_file(exchange / "theirs" / f"{name}.safetensors"))


def test_the_hook_that_a_transcoder_of_theirs_reconstructs(exchange: Path) -> None:
    provenance = load_sae(exchange / "theirs" / "skip_transcoder").provenance
    assert provenance is not None
    assert provenance.metadata.hook_out == {
        "name": "blocks.8.hook_mlp_out",
        "layer": 8,
        "component": "mlp",
        "width": D_OUT,
    }


@pytest.mark.parametrize("name", [name for name in THEIRS if "hook_z" not in name])
def test_what_saelens_saves_can_join_the_library(name: str, exchange: Path, tmp_path: Path) -> None:
    hub = SAEModelHub(tmp_path / "library")
    entry = hub.register(exchange / "theirs" / name)
    assert (entry.model, entry.layer, entry.component) == ("gpt2", 8, "residual_pre")
    assert_same_function(hub.load(entry.id), load_file(exchange / "theirs" / f"{name}.safetensors"))
