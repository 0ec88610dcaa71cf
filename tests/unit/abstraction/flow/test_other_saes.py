"""The flow of SAEs that normalise each row, and what cannot be followed. Shapes: N rows, D width, F features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from random_saes import random_sae
from token_sets import PlainTokens

from neuronmap.abstraction.flow import Place, ablation_effects, encode_rows, encode_shared, feature_flow
from neuronmap.errors import MismatchError
from neuronmap.models import LanguageModel, capture, replaced, resolve_hook
from neuronmap.progress import SilentProgress
from neuronmap.saes import SparseAutoencoder, get_architecture
from neuronmap.saes.inference.crosscoder import CrosscoderSAE
from neuronmap.saes.inference.transcoder import TranscoderSAE

QUIET = SilentProgress()


def relu_sae(seed: int) -> SparseAutoencoder:
    """Random ReLU features of width 32 that normalise each row."""
    sae = get_architecture("relu")(32, 24)
    sae.initialise(torch.zeros(32), torch.Generator().manual_seed(seed))
    sae.input_norm = "layer_norm"
    return sae.requires_grad_(False)


def test_ablation_takes_out_what_the_feature_adds_to_the_reconstruction(tiny_llama: LanguageModel) -> None:
    tokens, saes = PlainTokens(4, 16, 290), [relu_sae(1), relu_sae(2)]
    hooks = [resolve_hook(tiny_llama, layer, "residual") for layer in (0, 2)]
    codes = encode_shared(tiny_llama, list(zip(saes, hooks, strict=True)), tokens, progress=QUIET)
    earlier, later = (Place(sae, hook, code) for sae, hook, code in zip(saes, hooks, codes.codes, strict=True))
    source = int(np.bincount(codes.codes[0].indices, minlength=24).argmax())
    pairs = [(source, target) for target in range(24)]
    found = ablation_effects(tiny_llama, tokens, codes, earlier, later, pairs, contexts=99)
    ids_BT = torch.from_numpy(np.asarray(tokens.contexts(0, 4).input_ids, np.int64))
    fires_BT = torch.zeros(4, 16, dtype=torch.bool)
    rows = np.flatnonzero(codes.codes[0][:, [source]].toarray().ravel())
    fires_BT[codes.context_N[rows], codes.place_N[rows].astype(int)] = True

    def code(sae: SparseAutoencoder, x: torch.Tensor) -> torch.Tensor:
        x = x.double()
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        weights = {name: tensor.double() for name, tensor in sae.named_parameters()}
        pre = ((x - mean) / (std + 1e-5) - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
        return pre.clamp_min(0.0)

    def without(x_BTD: torch.Tensor) -> torch.Tensor:
        part = code(saes[0], x_BTD)[..., source, None] * x_BTD.double().std(-1, keepdim=True) * saes[0].W_dec[source]
        return torch.where(fires_BT.unsqueeze(-1), x_BTD - part, x_BTD.double())

    def later_code() -> torch.Tensor:
        return code(saes[1], capture(tiny_llama, ids_BT, [hooks[1]])[hooks[1].name])[fires_BT]

    before_EF = later_code()
    with replaced(tiny_llama, hooks[0], without):
        change_F = (later_code() - before_EF).mean(0)
    assert change_F.abs().max() > 1e-3
    assert [found[pair] for pair in pairs] == pytest.approx(change_F.tolist(), abs=1e-5)


def test_a_scale_of_one_changes_no_bit() -> None:
    sae = get_architecture("relu")(32, 24)
    assert sae.decoder_scale(torch.randn(3, 32)) == 1.0
    xhat = torch.randn(3, 32)
    assert sae.complete(xhat, torch.randn(3, 32)) is xhat


def test_what_is_not_of_single_rows_of_one_hook_is_not_followed(tiny_llama: LanguageModel) -> None:
    temporal, signed = get_architecture("temporal"), get_architecture("abstopk")(32, 48)
    hooks = [resolve_hook(tiny_llama, layer, "residual") for layer in (0, 2)]
    cases: dict[str, Any] = {
        "reads several hooks": CrosscoderSAE(2, 32, 48),
        "reads whole contexts": temporal(32, 64, temporal.Options.from_dict({"n_heads": 1, "bottleneck_factor": 8})),
        "reads one hook and reconstructs another": TranscoderSAE(32, 48),
        "may be negative": signed,
    }
    tokens = PlainTokens(10, 16, 290)
    for reason, sae in cases.items():
        with pytest.raises(MismatchError, match=f"Following the features of odd.*{reason}"):
            feature_flow(
                tiny_llama,
                [("good", random_sae(tiny_llama, 0), hooks[0]), ("odd", sae, hooks[1])],
                tokens,  # type: ignore[arg-type]
                progress=QUIET,
            )
        if sae.reconstructs_input:
            with pytest.raises(MismatchError, match=reason):
                encode_rows(sae, torch.randn(5, 32))
            with pytest.raises(MismatchError, match=reason):
                encode_shared(tiny_llama, [(sae, hooks[1])], tokens, progress=QUIET)  # type: ignore[arg-type]
