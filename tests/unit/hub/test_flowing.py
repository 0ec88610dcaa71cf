"""SAEs of the library are followed by name, with the labels of their analyses; what does not belong together is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import hook, make_bundle
from made_stores import small_store
from random_saes import random_sae

from neuronmap.errors import InputError, MismatchError, NotInLibraryError
from neuronmap.hub import SAEModelHub, analysis_folder, open_analysis
from neuronmap.hub.flowing import flow_entries
from neuronmap.models import LanguageModel, load_model
from neuronmap.progress import SilentProgress

QUIET = SilentProgress()
TEXT = "The quick brown fox jumps over the lazy dog. A sparse autoencoder finds directions. " * 250


@pytest.fixture
def folder_model(model_folder: Path) -> LanguageModel:
    return load_model(str(model_folder), progress=QUIET)


def test_saes_are_followed_by_name_with_their_labels(
    hub: SAEModelHub, folder_model: LanguageModel, tmp_path: Path
) -> None:
    for layer in (2, 0):
        sae = random_sae(folder_model, layer, features=32, k=3)
        assert sae.provenance is not None
        hub.register((sae, sae.provenance.metadata), name=f"mine/l{layer}")
    entry = hub.get("mine/l0")
    small_store(analysis_folder(entry, "sha256:" + "ab" * 32), key="sha256:" + "ab" * 32)
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    flow = flow_entries(
        hub, ["mine/l2", "mine/l0"], text=str(file), tokens=2500, shown=32, ablation_contexts=1, progress=QUIET
    )
    assert flow.saes == ["mine/l0", "mine/l2"]
    assert flow.layers == [0, 2]
    assert 1000 < flow.tokens <= 2500
    assert flow.nodes
    with open_analysis(entry) as store:
        for node in flow.nodes:
            expected = store.feature(node.feature).label if node.sae == "mine/l0" and node.feature < 8 else ""
            assert (node.label or "") == expected


def test_what_does_not_belong_together_is_refused_before_a_model_is_loaded(hub: SAEModelHub, tmp_path: Path) -> None:
    model = {"name": "org/Other", "model_digest": "sha256:" + "9" * 64}
    hub.register(make_bundle(tmp_path / "a"), name="a")
    hub.register(make_bundle(tmp_path / "b", seed=1, hook=hook(3)), name="b")
    hub.register(make_bundle(tmp_path / "c", seed=2, hook=hook(1), model=model), name="c")
    hub.register(make_bundle(tmp_path / "d", seed=3, hook=hook(0), model=None), name="d")
    with pytest.raises(MismatchError, match=r"several: a belongs to org/Tiny-LM; c belongs to org/Other"):
        flow_entries(hub, ["a", "c"], progress=QUIET)
    with pytest.raises(InputError, match="1 SAE was named"):
        flow_entries(hub, ["a"], progress=QUIET)
    with pytest.raises(InputError, match="named twice: a, b, a"):
        flow_entries(hub, ["a", "b", "a"], progress=QUIET)
    with pytest.raises(InputError, match="d: no language model"):
        flow_entries(hub, ["a", "d"], progress=QUIET)
    with pytest.raises(NotInLibraryError):
        flow_entries(hub, ["a", "nothing"], progress=QUIET)
