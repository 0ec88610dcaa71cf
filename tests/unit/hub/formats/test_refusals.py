"""What is refused, and that the reason is said: before anything is loaded where that can be known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layouts import D, F, K, L, read_only, sparsify_folder, transcoder_set, values, write_json, write_tensors

from neuronmap.errors import ConfigError, DamagedError, InputError, NeuronMapError
from neuronmap.hub import SAEModelHub
from neuronmap.hub.formats import detect, import_sae
from neuronmap.progress import SilentProgress


def llamascopium(folder: Path, **config: Any) -> Path:
    write_json(folder / "config.json", {"sae_type": "sae", "act_fn": "relu", "norm_activation": "inference", **config})
    write_tensors(
        folder / "sae_weights.safetensors",
        {"W_E": values(D, F), "b_E": values(F), "W_D": values(F, D), "b_D": values(D)},
    )
    return folder


def gemma_clt(folder: Path) -> Path:
    write_tensors(folder / "params_layer_3.safetensors", {
        "w_enc": values(D, F), "w_dec": values(F, L, D), "b_enc": values(F), "b_dec": values(D), "threshold": values(F).abs(),
    })  # fmt: skip
    return folder


def negative_thresholds(folder: Path) -> Path:
    write_tensors(folder / "params.safetensors", {
        "w_enc": values(D, F), "w_dec": values(F, D), "b_enc": values(F), "b_dec": values(D), "threshold": -values(F).abs(),
    })  # fmt: skip
    write_json(folder / "config.json", {"architecture": "jump_relu", "hf_hook_point_in": "model.layers.1.output"})
    return folder


def with_nan(folder: Path) -> Path:
    sparsify_folder(folder)
    tensors = {"encoder.weight": values(F, D), "encoder.bias": values(F), "W_dec": values(F, D), "b_dec": values(D)}
    tensors["W_dec"][3, 4] = float("nan")
    write_tensors(folder / "layers.3" / "sae.safetensors", tensors)
    return folder


def cut_off(folder: Path) -> Path:
    sparsify_folder(folder)
    file = folder / "layers.3" / "sae.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return folder


def long_header(folder: Path) -> Path:
    sparsify_folder(folder)
    file = folder / "layers.3" / "sae.safetensors"
    file.write_bytes((10**15).to_bytes(8, "little") + file.read_bytes()[8:])
    return folder


def missing_tensor(folder: Path) -> Path:
    sparsify_folder(folder)
    write_tensors(
        folder / "layers.3" / "sae.safetensors", {"encoder.weight": values(F, D), "encoder.bias": values(F + 1)}
    )
    return folder


def ambiguous(folder: Path) -> Path:
    tensors = {"encoder.weight": values(F, D), "encoder.bias": values(F), "decoder.weight": values(D, F), "b_dec": values(D),
               "k": torch.tensor(K), "threshold": torch.tensor(0.2)}  # fmt: skip
    write_tensors(folder / "weights.safetensors", tensors)
    return folder


def pickled_arrays(folder: Path) -> Path:
    arrays = {name: np.array([{"a": 1}], dtype=object) for name in ("W_enc", "W_dec", "threshold")}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "params.npz", allow_pickle=True, **arrays)
    return folder


def nothing(folder: Path) -> Path:
    write_json(folder / "notes.json", {})
    return folder


def decoupled(folder: Path) -> Path:
    write_json(folder / "config.json", {"code_normalization": "DECOUPLED"})
    write_tensors(folder / "model.safetensors", {
        "encoder.weight": values(L, D, F), "encoder.bias": values(F), "decoder.weight": values(L, F, D), "decoder.bias": values(L, D),
        "threshold": values(L).abs(), "k": torch.tensor(K),
    })  # fmt: skip
    return folder


CASES: dict[str, tuple[Any, type[NeuronMapError], str]] = {
    "groupmax": (lambda f: sparsify_folder(f, activation="groupmax"), InputError, "groupmax"),
    "signed": (lambda f: sparsify_folder(f, signed=True), InputError, "signed"),
    "a width that is not the file's": (lambda f: sparsify_folder(f, d_in=D + 1), DamagedError, "d_in = 13"),
    "a k above the features": (lambda f: sparsify_folder(f, k=F + 1), DamagedError, "k must be between 1 and 40"),
    "a skip connection that is not there": (
        lambda f: (sparsify_folder(f, skip_connection=True), write_json(f / "layers.3" / "cfg.json", {"k": K, "d_in": D}))[0],
        DamagedError, "skip_connection",
    ),
    "a cross-layer transcoder of circuit-tracer": (
        lambda f: transcoder_set(f, 1, model_kind="cross_layer_transcoder"), InputError, "sum over the features of all earlier",
    ),
    "a cross-layer transcoder of Gemma Scope 2": (gemma_clt, InputError, "writes? to 3 layers"),
    "negative thresholds": (negative_thresholds, InputError, "40 thresholds are below 0"),
    "a gated linear encoder": (lambda f: llamascopium(f, use_glu_encoder=True), InputError, "gated linear encoder"),
    "a norm of each token": (lambda f: llamascopium(f, norm_activation="token-wise"), InputError, "token-wise"),
    "a norm that is not given": (lambda f: llamascopium(f, norm_activation="dataset-wise"), InputError, "norm_in"),
    "a batch rule without a threshold": (lambda f: llamascopium(f, act_fn="batchtopk"), InputError, "no rule for single rows"),
    "Lorsa": (lambda f: llamascopium(f, sae_type="lorsa"), InputError, "sparse attention"),
    "a crosscoder with a code for each hook": (decoupled, InputError, "different codes"),
    "NaN": (with_nan, DamagedError, r"W_dec_FO \(1\)"),
    "a file that was cut off": (cut_off, DamagedError, "cut off"),
    "a header longer than the file": (long_header, DamagedError, "not a safetensors file, or it was cut off"),
    "missing and misshapen tensors": (missing_tensor, DamagedError, r"W_dec is missing.*encoder.bias has shape \[41\]"),
    "two rules with the same tensors": (ambiguous, InputError, "rule=topk"),
    "pickled arrays": (pickled_arrays, InputError, "pickled arrays"),
    "nothing known": (nothing, InputError, "not recognised"),
    "nothing at all": (lambda f: f, InputError, "does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused_with_the_reason_and_nothing_registered(case: str, tmp_path: Path, hub: SAEModelHub) -> None:
    make, kind, said = CASES[case]
    with pytest.raises(kind, match=f"(?s){said}"):
        import_sae(make(tmp_path / "source"), hub=hub, progress=SilentProgress())
    assert hub.list() == []
    assert not list(hub.root.glob(".staging-*")) if hub.root.exists() else True


def test_an_answer_that_nobody_asked_for(tmp_path: Path, hub: SAEModelHub) -> None:
    with pytest.raises(ConfigError, match="sparsify asks nothing called rule"):
        import_sae(sparsify_folder(tmp_path), assume={"rule": "topk"}, hub=hub, progress=SilentProgress())


def test_a_format_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no format 'sparsefy'"):
        detect(sparsify_folder(tmp_path), "sparsefy")


def test_a_format_that_is_not_the_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not recognised as gemma_scope"):
        detect(sparsify_folder(tmp_path), "gemma_scope")


def test_several_and_none_chosen(tmp_path: Path, hub: SAEModelHub) -> None:
    for layer in (3, 10):
        sparsify_folder(tmp_path, f"layers.{layer}")
    with pytest.raises(InputError, match=r"2 to choose from: layers\.3, layers\.10"):
        import_sae(tmp_path, hub=hub, progress=SilentProgress())
    with pytest.raises(InputError, match="Nothing fits --layer 4"):
        import_sae(tmp_path, layer=4, hub=hub, progress=SilentProgress())
    assert import_sae(tmp_path, select="*.10", prove=False, hub=hub, progress=SilentProgress()).entry.layer == 10


def test_a_name_that_is_taken_is_refused_before_reading(tmp_path: Path, hub: SAEModelHub) -> None:
    import_sae(sparsify_folder(tmp_path / "one"), name="mine", prove=False, hub=hub, progress=SilentProgress())
    with pytest.raises(NeuronMapError, match="already has an SAE called 'mine'"):
        import_sae(cut_off_weights(tmp_path / "two"), name="mine", prove=False, hub=hub, progress=SilentProgress())


def cut_off_weights(folder: Path) -> Path:
    """Sound headers, so that only reading the values would find the fault."""
    return with_nan(folder)


def test_the_configuration_is_kept_as_it_was(tmp_path: Path) -> None:
    read = read_only(sparsify_folder(tmp_path, note=float("inf")))
    origin = read.metadata.origin or {}
    assert origin["config"]["cfg"]["note"] is None  # JSON has no infinity
    assert set(origin["files"]) == {"sae.safetensors", "cfg.json"}
    json.dumps(origin, allow_nan=False)
