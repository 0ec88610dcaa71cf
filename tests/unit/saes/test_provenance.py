"""What an SAE knows of where it comes from, and what it does not keep alive."""

from __future__ import annotations

import copy
import gc
import json
from pathlib import Path

import pytest
import torch

from neuronmap.models import LanguageModel
from neuronmap.saes import BundleMetadata, SparseAutoencoder, get_architecture, load_sae, save_bundle
from neuronmap.saes.provenance import Provenance


@pytest.fixture
def sae() -> SparseAutoencoder:
    cls = get_architecture("topk")
    made = cls(8, 16, cls.Options.from_dict({"k": 2}))
    made.initialise(torch.zeros(8), torch.Generator().manual_seed(0))
    return made


def test_an_sae_made_by_hand_knows_nothing(sae: SparseAutoencoder) -> None:
    assert sae.provenance is None
    assert "provenance" not in sae.state_dict()


def test_a_bundle_is_known_with_its_digest(sae: SparseAutoencoder, tmp_path: Path) -> None:
    hook = {"module_path": "model.layers.1", "side": "out", "width": 8}
    loaded = load_sae(save_bundle(sae, tmp_path / "mine", BundleMetadata(model={"name": "m"}, hook=hook)))
    assert loaded.provenance is not None
    assert loaded.provenance.metadata.hook == hook
    assert (loaded.provenance.metadata.weights_digest or "").startswith("sha256:")
    assert (loaded.provenance.folder, loaded.provenance.name) == (tmp_path / "mine", "mine")
    assert Provenance(BundleMetadata(), tmp_path / "a-run" / "sae").name == "a-run"


def test_a_saelens_folder_tells_model_and_hook(sae: SparseAutoencoder, tmp_path: Path) -> None:
    metadata = BundleMetadata(
        model={"name": "gpt2"}, hook={"module_path": "transformer.h.3", "side": "out", "width": 8}
    )
    folder = save_bundle(sae, tmp_path / "foreign", metadata)
    config = json.loads((folder / "cfg.json").read_text())
    del config["metadata"]["neuronmap"]
    (folder / "cfg.json").write_text(json.dumps(config))
    loaded = load_sae(folder)
    assert loaded.provenance is not None
    assert loaded.provenance.metadata.model == {"name": "gpt2"}
    assert loaded.provenance.metadata.hook is not None
    assert loaded.provenance.metadata.hook["module_path"] == "transformer.h.3"


def test_the_language_model_is_held_weakly_and_copies_know_it_too(
    sae: SparseAutoencoder, tiny_llama: LanguageModel
) -> None:
    model = tiny_llama.with_tokenizer(tiny_llama.tokenizer)  # an object of its own
    sae.provenance = Provenance(BundleMetadata()).with_model(model)
    twin = copy.deepcopy(sae)
    assert twin.provenance is not None
    assert twin.provenance.language_model is model
    del model
    gc.collect()
    assert sae.provenance.language_model is None
    assert twin.provenance.language_model is None
