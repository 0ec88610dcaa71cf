"""Formats whose packages are not installed, laid out by hand: encode and reconstruct against formulas in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layouts import (
    D,
    F,
    K,
    L,
    assert_function,
    keep_largest,
    read_only,
    rows,
    sparsify_folder,
    transcoder_set,
    values,
    write_json,
    write_tensors,
)
from torch import Tensor

from neuronmap.hub.formats import Given, detect
from neuronmap.hub.formats.importing import read_candidate


def doubles(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in tensors.items()}


# --- OpenAI, Neel Nanda: pickled -------------------------------------------------------------------------------------


def test_openai_topk_normalises_each_row(tmp_path: Path) -> None:
    tensors = {"pre_bias": values(D), "encoder.weight": values(F, D), "latent_bias": values(F), "decoder.weight": values(D, F),
               "stats_last_nonzero": torch.zeros(F, dtype=torch.int64)}  # fmt: skip
    file = tmp_path / "gpt2-small" / "resid_post_mlp_v5_32k" / "autoencoders" / "6.pt"
    file.parent.mkdir(parents=True)
    torch.save({**tensors, "activation": "TopK", "activation_state_dict": {"k": K, "postact_fn": "ReLU"}}, file)
    read = read_only(tmp_path)
    x = 3 * rows() + 1
    t, wide = doubles(tensors), x.double()
    mean, spread = wide.mean(dim=1, keepdim=True), wide.std(dim=1, keepdim=True)
    pre = ((wide - mean) / (spread + 1e-5) - t["pre_bias"]) @ t["encoder.weight"].T + t["latent_bias"]
    f = keep_largest(pre, K)
    assert_function(read.sae, x, f, (f @ t["decoder.weight"].T + t["pre_bias"]) * spread + mean)
    assert (read.sae.architecture, read.sae.input_norm) == ("topk", "layer_norm")
    hook = read.metadata.hook or {}
    assert (hook["layer"], hook["component"], (read.metadata.model or {})["name"]) == (
        6,
        "residual",
        "openai-community/gpt2",
    )


def test_neels_crosscoder_with_factors(tmp_path: Path) -> None:
    tensors = {"W_enc": values(L, D, F), "W_dec": values(F, L, D), "b_enc": values(F), "b_dec": values(L, D)}
    torch.save(tensors, tmp_path / "25.pt")
    write_json(tmp_path / "25_cfg.json", {"model_name": "gpt2-small", "site": "resid_post", "dict_size": F})
    read = read_only(tmp_path, assume={"factors": "2,0.5,3"})
    x, t = rows(16, L), doubles(tensors)
    factor = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64).view(1, L, 1)
    f = torch.relu(torch.einsum("nld,ldf->nf", x.double() / factor, t["W_enc"]) + t["b_enc"])
    assert_function(read.sae, x, f, (torch.einsum("nf,fld->nld", f, t["W_dec"]) + t["b_dec"]) * factor)
    assert [hook["layer"] for hook in read.metadata.hooks or ()] == [0, 1, 2]


# --- Llama Scope and Llamascopium ------------------------------------------------------------------------------------


def llama_scope(folder: Path, **config: Any) -> tuple[Path, dict[str, Tensor]]:
    tensors = {
        "encoder.weight": values(F, D),
        "encoder.bias": values(F),
        "decoder.weight": values(D, F),
        "decoder.bias": values(D),
    }
    place = folder / "Llama3_1-8B-Base-L15R-8x"
    write_json(place / "hyperparams.json", {
        "hook_point_in": "blocks.15.hook_resid_post", "hook_point_out": "blocks.15.hook_resid_post", "d_model": D, "d_sae": F,
        "act_fn": "topk", "jump_relu_threshold": 0.3, "top_k": 50, "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 7.0, "out": 7.0}, "sparsity_include_decoder_norm": True,
        "use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": False, "use_glu_encoder": False, **config,
    })  # fmt: skip
    write_tensors(place / "checkpoints" / "final.safetensors", tensors)
    return place, tensors


@pytest.mark.parametrize("decoder_norm", [True, False])
@pytest.mark.parametrize("pre_bias", [True, False])
def test_llama_scope_folds_in_its_order(decoder_norm: bool, pre_bias: bool, tmp_path: Path) -> None:
    place, tensors = llama_scope(
        tmp_path, sparsity_include_decoder_norm=decoder_norm, apply_decoder_bias_to_pre_encoder=pre_bias
    )
    read = read_only(place)
    x, t = rows(), doubles(tensors)
    a = c = math.sqrt(D) / 7.0
    b_e, b_d, W_d, W_e = t["encoder.bias"] / a, t["decoder.bias"] / c, t["decoder.weight"] * a / c, t["encoder.weight"]
    if decoder_norm:
        n = W_d.norm(dim=0)
        W_d, W_e, b_e = W_d / n, W_e * n.unsqueeze(1), b_e * n
    pre = (x.double() - (b_d if pre_bias else 0)) @ W_e.T + b_e
    f = pre * (pre > 0.3)
    assert read.sae.architecture == "jumprelu"
    assert_function(read.sae, x, f, f @ W_d.T + b_d)
    assert (read.metadata.model or {})["name"] == "meta-llama/Llama-3.1-8B"


def test_llama_scope_without_a_threshold_is_topk(tmp_path: Path) -> None:
    place, tensors = llama_scope(tmp_path, jump_relu_threshold=0.0, top_k=K, norm_activation="inference")
    read = read_only(place)
    t = doubles(tensors)
    n = t["decoder.weight"].norm(dim=0)
    f = keep_largest((rows().double() @ t["encoder.weight"].T + t["encoder.bias"]) * n, K)
    assert_function(read.sae, rows(), f, f @ (t["decoder.weight"] / n).T + t["decoder.bias"])


def llamascopium(folder: Path, tensors: dict[str, Tensor], **config: Any) -> Path:
    write_json(folder / "config.json", {"sae_type": "sae", "hook_point_in": "blocks.4.ln2.hook_normalized",
                                        "hook_point_out": "blocks.4.hook_mlp_out", "d_model": D, "expansion_factor": F / D,
                                        "norm_activation": "dataset-wise", "use_decoder_bias": True, **config})  # fmt: skip
    write_tensors(folder / "sae_weights.safetensors", tensors)
    return folder


@pytest.mark.parametrize("decoder_norm", [True, False])
@pytest.mark.parametrize("rule", ["jumprelu", "topk", "relu"])
def test_llamascopium_is_the_function_that_was_trained(rule: str, decoder_norm: bool, tmp_path: Path) -> None:
    """Scale, encode, decode, scale back, with different norms at both ends: a transcoder."""
    tensors = {"W_E": values(D, F), "b_E": values(F), "W_D": values(F, D), "b_D": values(D),
               "dataset_average_activation_norm.blocks.4.ln2.hook_normalized": torch.tensor(5.0),
               "dataset_average_activation_norm.blocks.4.hook_mlp_out": torch.tensor(2.0)}  # fmt: skip
    if rule == "jumprelu":
        tensors["activation_function.log_jumprelu_threshold"] = values(F, seed=2)
    place = llamascopium(tmp_path, tensors, act_fn=rule, top_k=K, sparsity_include_decoder_norm=decoder_norm)
    read = read_only(place)
    x, t = rows(), doubles(tensors)
    a, c = math.sqrt(D) / 5.0, math.sqrt(D) / 2.0
    n = t["W_D"].norm(dim=1) if decoder_norm else torch.ones(F, dtype=torch.float64)
    h = (a * x.double() @ t["W_E"] + t["b_E"]) * n
    if rule == "jumprelu":
        f = h * (h > t["activation_function.log_jumprelu_threshold"].exp())
    else:
        f = keep_largest(h, K) if rule == "topk" else torch.relu(h)
    assert_function(read.sae, x, f / c, (f / n @ t["W_D"] + t["b_D"]) / c)
    assert (read.metadata.hook_out or {})["component"] == "mlp"


def test_r1_distill_files_have_the_old_names(tmp_path: Path) -> None:
    tensors = {"encoder.weight": values(F, D), "encoder.bias": values(F), "decoder.weight": values(D, F), "decoder.bias": values(D),
               "log_jumprelu_threshold": values(F, seed=4)}  # fmt: skip
    place = llamascopium(tmp_path, tensors, act_fn="jumprelu", hook_point_out="blocks.4.ln2.hook_normalized",
                         sparsity_include_decoder_norm=False)  # fmt: skip
    read = read_only(place, assume={"norm_in": "6.0"})
    x, t = rows(), doubles(tensors)
    a = math.sqrt(D) / 6.0
    h = a * x.double() @ t["encoder.weight"].T + t["encoder.bias"]
    f = h * (h > t["log_jumprelu_threshold"].exp())
    assert_function(read.sae, x, f / a, (f @ t["decoder.weight"].T + t["decoder.bias"]) / a)


def test_llamascopiums_relu_crosscoder(tmp_path: Path) -> None:
    points = [f"blocks.{layer}.hook_resid_post" for layer in range(L)]
    tensors = {"W_E": values(L, D, F), "b_E": values(L, F), "W_D": values(L, F, D), "b_D": values(L, D)}
    norms = {
        f"dataset_average_activation_norm.{point}": torch.tensor(2.0 + number) for number, point in enumerate(points)
    }
    place = llamascopium(tmp_path, {**tensors, **norms}, sae_type="crosscoder", act_fn="relu", hook_points=points)
    read = read_only(place)
    x, t = rows(16, L), doubles(tensors)
    a = (math.sqrt(D) / torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)).view(1, L, 1)
    f = torch.relu((torch.einsum("nld,ldf->nlf", x.double() * a, t["W_E"]) + t["b_E"]).sum(dim=1))
    assert_function(read.sae, x, f, (torch.einsum("nf,lfd->nld", f, t["W_D"]) + t["b_D"]) / a)
    assert [hook["layer"] for hook in read.metadata.hooks or ()] == [0, 1, 2]


# --- crosscoders of science-of-finetuning ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["CROSSCODER", "SAE", "NONE"])
def test_batchtopk_crosscoder_with_its_normaliser(kind: str, tmp_path: Path) -> None:
    tensors = {"encoder.weight": values(L, D, F), "encoder.bias": values(F), "decoder.weight": values(L, F, D),
               "decoder.bias": values(L, D), "threshold": torch.tensor(0.6), "k": torch.tensor(K),
               "activation_mean": values(L, D, seed=3), "activation_std": values(L, D).abs(),
               "activation_global_scale": values(L, seed=5).abs() + 0.2, "target_rms": torch.tensor(1.0)}  # fmt: skip
    write_json(tmp_path / "config.json", {"dict_class": "BatchTopKCrossCoder", "code_normalization": kind})
    write_tensors(tmp_path / "model.safetensors", tensors)
    read = read_only(tmp_path)
    x, t = rows(16, L), doubles(tensors)
    scale = t["activation_global_scale"].view(1, L, 1)
    seen = (x.double() - t["activation_mean"]) * scale
    pre = torch.relu(torch.einsum("nld,ldf->nf", seen, t["encoder.weight"]) + t["encoder.bias"])
    norms = t["decoder.weight"].norm(dim=2)
    n = {
        "CROSSCODER": norms.sum(dim=0),
        "SAE": t["decoder.weight"].norm(dim=(0, 2)),
        "NONE": torch.ones(F, dtype=torch.float64),
    }
    f = pre * (pre * n[kind] > 0.6)
    decoded = (torch.einsum("nf,lfd->nld", f, t["decoder.weight"]) + t["decoder.bias"]) / scale + t["activation_mean"]
    assert_function(read.sae, x, f, decoded)


# --- sets of circuit-tracer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True], ids=["by feature", "of June 2025"])
def test_circuit_tracer_layers(old: bool, tmp_path: Path) -> None:
    transcoder_set(tmp_path)
    found = detect(tmp_path)
    assert [(one.name, one.layer) for one in found] == [("layer_0", 0), ("layer_1", 1)]
    tensors = {"W_enc": values(F, D, seed=1), "W_dec": values(F, D, seed=8), "b_enc": values(F), "b_dec": values(D),
               "activation_function.threshold": values(F, seed=3).abs(), "W_skip": values(D, D, seed=1)}  # fmt: skip
    if old:
        write_tensors(tmp_path / "layer_1.safetensors", {**tensors, "W_dec": tensors["W_dec"].T})
    read = read_candidate(found[1], Given())
    x, t = rows(), doubles(tensors)
    pre = x.double() @ t["W_enc"].T + t["b_enc"]
    f = pre * (pre > t["activation_function.threshold"])
    assert_function(read.sae, x, f, f @ t["W_dec"] + t["b_dec"] + x.double() @ t["W_skip"].T)
    assert (read.metadata.hook_out or {})["component"] == "mlp"


# --- files without a telling name ------------------------------------------------------------------------------------


def test_gemma_scope_of_an_unknown_place_asks_for_its_site(tmp_path: Path) -> None:
    arrays = {
        "W_enc": values(D, F),
        "W_dec": values(F, D),
        "b_enc": values(F),
        "b_dec": values(D),
        "threshold": values(F).abs(),
    }
    np.savez(tmp_path / "params.npz", **{name: tensor.numpy() for name, tensor in arrays.items()})
    read = read_only(tmp_path, assume={"site": "mlp"})
    t = doubles(arrays)
    pre = rows().double() @ t["W_enc"] + t["b_enc"]
    f = pre * (pre > t["threshold"])
    assert_function(read.sae, rows(), f, f @ t["W_dec"] + t["b_dec"])
    assert (read.metadata.hook or {})["component"] == "mlp"


def test_a_lone_file_is_told_by_its_tensors(tmp_path: Path) -> None:
    tensors = {"encoder.weight": values(F, D), "encoder.bias": values(F), "decoder.weight": values(D, F), "b_dec": values(D),
               "k": torch.tensor(K), "threshold": torch.tensor(0.2)}  # fmt: skip
    write_tensors(tmp_path / "found-somewhere.safetensors", tensors)
    read = read_only(tmp_path / "found-somewhere.safetensors", assume={"rule": "topk"})
    t = doubles(tensors)
    f = keep_largest((rows().double() - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"], K)
    assert_function(read.sae, rows(), f, f @ t["decoder.weight"].T + t["b_dec"])


def test_sparsify_of_a_seed_is_named_by_its_hook(tmp_path: Path) -> None:
    sparsify_folder(tmp_path / "run" / "layers.7", "seed1")
    found = detect(tmp_path)
    assert [(one.name, one.layer) for one in found] == [("run/layers.7/seed1/layers.7", 7)]
