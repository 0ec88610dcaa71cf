"""Files of the real packages are read as the packages read them, and what we write is read by them; encode and decode agree to 1e-5.

dictionary-learning, eai-sparsify, sae-lens and sae-dashboard are not installed beside NeuronMap: ``NEURONMAP_PEERS_PYTHON`` names
the interpreter of an environment that has them (``make test-peers``). One process makes all files; their imports are slow. Gemma
Scope and circuit-tracer's sets are laid out by hand and read by SAELens' own loaders for them.
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

from neuronmap.hub import SAEModelHub
from neuronmap.hub.formats import detect, export_sae, import_features, read_external
from neuronmap.hub.formats.format import Given
from neuronmap.hub.formats.importing import read_candidate
from neuronmap.progress import SilentProgress
from neuronmap.saes import BundleMetadata, SparseAutoencoder, get_architecture

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(
        not os.environ.get("NEURONMAP_PEERS_PYTHON"),
        reason="NEURONMAP_PEERS_PYTHON does not name an interpreter with the peers' packages; `make test-peers` makes one",
    ),
]

D, F, K = 24, 48, 6
TOLERANCE = 1e-5
SCRIPT = Path(__file__).parent / "scripts" / "formats_exchange.py"

HUB = "theirs/hub/"
READ = {  # answer: where it lies, name of the candidate if there are several, what it becomes
    **{
        f"dictionary_learning-{name}": (f"theirs/dictionary_learning/{name}", None, ours)
        for name, ours in {
            "AutoEncoder": "relu",
            "AutoEncoderNew": "relu",
            "GatedAutoEncoder": "gated",
            "AutoEncoderTopK": "topk",
            "BatchTopKSAE": "batchtopk",
            "MatryoshkaBatchTopKSAE": "matryoshka",
            "JumpReluAutoEncoder": "jumprelu",
        }.items()
    },
    **{
        f"sparsify-{name}": (f"theirs/sparsify/{name}", None, "transcoder" if "transcoder" in name else "topk")
        for name in ("sae", "expansion", "transcoder", "skip_transcoder", "free_norm")
    },
    **{
        f"saelens-{name}": (f"theirs/saelens/{name}", None, "transcoder")
        for name in ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
    },
    "gemma_scope-res": (HUB + "google/gemma-scope-2b-pt-res/layer_12", None, "jumprelu"),
    "gemma_scope-embedding": (HUB + "google/gemma-scope-2b-pt-res/embedding", None, "jumprelu"),
    "gemma_scope-transcoders": (HUB + "google/gemma-scope-2b-pt-transcoders", None, "transcoder"),
    "gemma_scope_2-res": (HUB + "google/gemma-scope-2-1b-pt/resid_post", None, "jumprelu"),
    "gemma_scope_2-transcoder": (HUB + "google/gemma-scope-2-1b-pt/transcoder_all", None, "transcoder"),
    "circuit_tracer-layer_1": (HUB + "mwhanna/qwen3-0.6b-transcoders", "layer_1", "transcoder"),
}
WRITTEN: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "dictionary_learning": {
        "relu": ("relu", {}),
        "gated": ("gated", {}),
        "topk": ("topk", {"k": K}),
        "batchtopk": ("batchtopk", {"k": K}),
        "matryoshka": ("matryoshka", {"k": K}),
        "jumprelu": ("jumprelu", {}),
    },
    "sparsify": {
        "topk": ("topk", {"k": K}),
        "transcoder": ("transcoder", {"rule": "topk", "k": K}),
        "skip_transcoder": ("transcoder", {"rule": "topk", "k": K, "skip": True}),
    },
    "saelens": {
        "topk": ("topk", {"k": K}),
        "jumprelu_skip_transcoder": ("transcoder", {"rule": "jumprelu", "skip": True}),
    },
}
HOOK = {
    "name": "model.layers.2:out",
    "layer": 2,
    "component": "residual",
    "module_path": "model.layers.2",
    "side": "out",
    "width": D,
}


def rows() -> Tensor:
    return torch.randn(64, D, generator=torch.Generator().manual_seed(1))


def trained_looking(architecture: str, options: dict[str, Any]) -> SparseAutoencoder:
    """An SAE with every tensor away from its initial values, decoder rows of unit norm, as training leaves them."""
    cls = get_architecture(architecture)
    said = dict(options)
    more = {"skip": said.pop("skip")} if "skip" in said else {}
    sae = cls(D, F, cls.Options.from_dict(said), **more)
    generator = torch.Generator().manual_seed(F)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            if name == "threshold":
                parameter.abs_()
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    if cls.calibrated:
        sae.calibrate(lambda: iter([rows()]))
    return sae.eval()


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after the packages have written their files and read ours."""
    folder = tmp_path_factory.mktemp("formats")
    save_file({"x": rows()}, folder / "rows.safetensors")
    hub = SAEModelHub(folder / "library")
    for form, saes in WRITTEN.items():
        for name, (architecture, options) in saes.items():
            metadata = BundleMetadata(model={"name": "org/tiny"}, hook=HOOK)
            entry = hub.register((trained_looking(architecture, options), metadata), name=f"{form}/{name}")
            export_sae(entry.id, form, folder / "ours" / form / name, hub=hub)
    run_script(SCRIPT, folder)
    return folder


def assert_same_function(sae: SparseAutoencoder, answers: dict[str, Tensor]) -> None:
    with torch.no_grad():
        encoded = sae.encode(rows())
        assert float(answers["encoded"].abs().max()) > 0
        torch.testing.assert_close(encoded, answers["encoded"], atol=TOLERANCE, rtol=TOLERANCE)
        torch.testing.assert_close(sae.reconstruct(rows()), answers["decoded"], atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("name", READ)
def test_we_read_what_the_package_reads(name: str, exchange: Path) -> None:
    place, wanted, architecture = READ[name]
    found = detect(exchange / place)
    chosen = found if wanted is None else [one for one in found if one.name == wanted]
    assert [one.format for one in chosen] == [name.split("-")[0]]
    read = read_candidate(chosen[0], Given(origin=place.removeprefix(HUB)))
    assert read.sae.architecture == architecture
    assert_same_function(read.sae, load_file(exchange / "answers" / f"{name}.safetensors"))
    assert (read.metadata.origin or {})["format"] == chosen[0].format


@pytest.mark.parametrize(("form", "name"), [(form, name) for form, saes in WRITTEN.items() for name in saes])
def test_the_package_reads_what_we_write(form: str, name: str, exchange: Path) -> None:
    architecture, options = WRITTEN[form][name]
    answers = load_file(exchange / "answers" / f"ours-{form}-{name}.safetensors")
    assert_same_function(trained_looking(architecture, options), answers)


@pytest.mark.parametrize(("form", "name"), [(form, name) for form, saes in WRITTEN.items() for name in saes])
def test_what_we_write_we_read_again(form: str, name: str, exchange: Path) -> None:
    architecture, options = WRITTEN[form][name]
    found = detect(exchange / "ours" / form / name)
    assert [one.format for one in found] == [form]
    read = read_candidate(found[0], Given())
    assert read.sae.architecture == architecture
    original = trained_looking(architecture, options)
    with torch.no_grad():
        torch.testing.assert_close(read.sae.encode(rows()), original.encode(rows()), atol=TOLERANCE, rtol=TOLERANCE)
        torch.testing.assert_close(
            read.sae.reconstruct(rows()), original.reconstruct(rows()), atol=TOLERANCE, rtol=TOLERANCE
        )


def test_hooks_and_models_are_understood(exchange: Path) -> None:
    """Where each file says it reads."""

    def places(name: str) -> tuple[Any, ...]:
        place, wanted, _ = READ[name]
        chosen = next(one for one in detect(exchange / place) if wanted in (None, one.name))
        metadata = read_candidate(chosen, Given(origin=place.removeprefix(HUB))).metadata
        hook, out = metadata.hook or {}, metadata.hook_out or {}
        return (
            (metadata.model or {}).get("name"),
            hook["layer"],
            hook["component"],
            hook["name"],
            out.get("name"),
            out.get("component"),
        )

    assert places("dictionary_learning-AutoEncoder") == ("openai-community/gpt2", 8, "residual", None, None, None)
    assert places("sparsify-sae") == ("EleutherAI/pythia-70m", 3, None, "layers.3.mlp:out", None, None)
    assert places("sparsify-transcoder") == (
        "EleutherAI/pythia-70m",
        3,
        None,
        "layers.3.mlp:in",
        "layers.3.mlp:out",
        None,
    )
    assert places("gemma_scope-res") == ("google/gemma-2-2b", 12, "residual", None, None, None)
    assert places("gemma_scope_2-res") == ("google/gemma-3-1b-pt", 7, "residual", "model.layers.7:out", None, None)
    assert places("circuit_tracer-layer_1")[:2] == ("Qwen/Qwen3-0.6B", 1)


def test_dashboards_of_the_real_package_are_attached(exchange: Path) -> None:
    hub = SAEModelHub(exchange / "library")
    entry, attached, manifest = import_features(
        exchange / "theirs" / "sae_dashboard", "sparsify/topk", hub=hub, progress=SilentProgress()
    )
    assert manifest["counts"] == {"features": 1, "examples": 1, "labels": 0}
    _, features = read_external(hub.analyses(entry.id)[attached])
    feature = next(features)
    assert (feature.feature, feature.density, feature.examples[0].peak) == (7, 0.25, 1)
    assert (
        json.loads((entry.path / "analyses" / attached / "external.json").read_text())["facts"]["model_id"]
        == "gpt2-small"
    )
