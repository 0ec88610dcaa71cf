"""Data about features that others measured: parsed, checked, attached to an SAE, and read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from layouts import D, F, sparsify_folder, write_json, write_tensors

from neuronmap.errors import AlreadyExistsError, DamagedError, InputError, MismatchError
from neuronmap.hub import SAEModelHub, list_analyses
from neuronmap.hub.formats import import_features, import_sae, read_external
from neuronmap.progress import SilentProgress


@pytest.fixture
def sae(tmp_path: Path, hub: SAEModelHub) -> str:
    return import_sae(
        sparsify_folder(tmp_path / "run"), name="mine", prove=False, hub=hub, progress=SilentProgress()
    ).entry.id


def attach(source: Path, hub: SAEModelHub, **options: Any) -> Any:
    return import_features(source, "mine", hub=hub, progress=SilentProgress(), **options)


def batches(folder: Path, **changes: Any) -> Path:
    feature = {"feature_index": 3, "frac_nonzero": 0.5, "pos_str": [" a"], "pos_values": [2.0], "neg_str": [], "neg_values": [],
               "activations": [{"bin_min": 0.5, "bin_max": 1.0, "bin_contains": 0.01, "tokens": ["x", "y"], "values": [0.0, 0.9],
                                "qualifying_token_index": 0}], **changes}  # fmt: skip
    for number in (10, 2):  # by number, not by name
        write_json(folder / f"batch-{number}.json", {"model_id": "m", "layer": 8, "sae_set": "s", "sae_id_suffix": None,
                                                     "features": [{**feature, "feature_index": number}]})  # fmt: skip
    return folder


def delphi(folder: Path) -> Path:
    """Two files of latents, 20 each; latent 3 fires twice in context 1, latent 25 once in context 0."""
    tokens = torch.arange(12).view(2, 6)
    module = folder / "latents" / "layers.3"
    write_tensors(module / "0_19.safetensors", {"locations": torch.tensor([[1, 2, 3], [1, 4, 3]], dtype=torch.int32),
                                                "activations": torch.tensor([1.0, 2.5]).half(), "tokens": tokens})  # fmt: skip
    write_tensors(module / "20_39.safetensors", {"locations": torch.tensor([[0, 5, 5]], dtype=torch.int32),
                                                 "activations": torch.tensor([0.5]).half(), "tokens": tokens})  # fmt: skip
    write_json(module / "config.json", {"model_name": "org/tiny", "dataset_repo": "text", "ctx_len": 6})
    (folder / "explanations").mkdir()
    (folder / "explanations" / "layers.3_latent3.txt").write_text(json.dumps("numbers near two"))
    scores = folder / "scores" / "detection"
    scores.mkdir(parents=True)
    (scores / "layers.3_latent3.txt").write_text(json.dumps([{"correct": True}, {"correct": False}, {"other": 1}]))
    return folder


def test_dashboards(tmp_path: Path, hub: SAEModelHub, sae: str) -> None:
    entry, name, manifest = attach(batches(tmp_path / "dashboards"), hub)
    assert name == "sae-dashboard-dashboards"
    assert manifest["counts"] == {"features": 2, "examples": 2, "labels": 0}
    read, features = read_external(hub.analyses(entry.id)[name])
    assert read == manifest
    first, second = features
    assert (first.feature, second.feature) == (2, 10)
    example = first.examples[0]
    assert (example.tokens, example.peak, example.low, example.high, example.share) == (("x", "y"), 1, 0.5, 1.0, 0.01)
    assert (first.density, first.max, first.promoted[0].token, first.suppressed) == (0.5, 0.9, " a", ())
    assert hub.get("mine").problem == ""
    assert all(
        not one.problem for one in list_analyses(hub.get("mine"))
    )  # it is no feature store, and not taken for a broken one


def test_delphi(tmp_path: Path, hub: SAEModelHub, sae: str) -> None:
    entry, name, manifest = attach(delphi(tmp_path / "results"), hub)
    assert manifest["counts"] == {"features": 2, "examples": 2, "labels": 1}
    assert manifest["facts"]["module"] == "layers.3"
    third, other = read_external(hub.analyses(entry.id)[name])[1]
    assert (third.feature, third.label, third.scores) == (3, "numbers near two", {"detection": 0.5})
    assert third.density == pytest.approx(2 / 12)
    example = third.examples[0]
    assert example.token_ids == (6, 7, 8, 9, 10, 11)
    assert example.activations == (0.0, 0.0, 1.0, 0.0, 2.5, 0.0)
    assert example.peak == 4
    assert (other.feature, other.max) == (25, 0.5)


@pytest.mark.parametrize(("changes", "said"), [
    ({"activations": [{"tokens": ["a"], "values": [1.0, 2.0]}]}, "not one value for each token"),
    ({"pos_values": []}, "1 pos_str for 0 values"),
    ({"frac_nonzero": "often"}, "density"),
])  # fmt: skip
def test_records_that_are_wrong(changes: dict[str, Any], said: str, tmp_path: Path, hub: SAEModelHub, sae: str) -> None:
    with pytest.raises(DamagedError, match=said):
        attach(batches(tmp_path / "dashboards", **changes), hub)
    assert hub.analyses("mine") == {}


def test_features_that_the_sae_lacks(tmp_path: Path, hub: SAEModelHub, sae: str) -> None:
    write_json(tmp_path / "d" / "batch-0.json", {"model_id": "m", "layer": 0, "features": [{"feature_index": F}]})
    with pytest.raises(MismatchError, match=f"feature {F}, but the SAE has {F} features"):
        attach(tmp_path / "d", hub)


def test_it_is_not_replaced_unasked(tmp_path: Path, hub: SAEModelHub, sae: str) -> None:
    attach(batches(tmp_path / "dashboards"), hub)
    with pytest.raises(AlreadyExistsError):
        attach(tmp_path / "dashboards", hub)
    attach(tmp_path / "dashboards", hub, overwrite=True)


def test_weights_are_not_data_and_data_are_no_weights(tmp_path: Path, hub: SAEModelHub, sae: str) -> None:
    with pytest.raises(InputError, match="no data about features"):
        attach(tmp_path / "run", hub)
    with pytest.raises(InputError, match="data about features, no SAE"):
        import_sae(batches(tmp_path / "dashboards"), hub=hub, progress=SilentProgress())


def test_a_changed_file_is_noticed(tmp_path: Path, hub: SAEModelHub, sae: str) -> None:
    entry, name, _ = attach(batches(tmp_path / "dashboards"), hub)
    file = hub.analyses(entry.id)[name] / "features.jsonl"
    file.write_text(file.read_text().replace("0.9", "0.8"))
    with pytest.raises(DamagedError, match="was changed"):
        read_external(file.parent)
    assert D < F
