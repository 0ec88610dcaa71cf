"""SAEs that normalise each row, transcoders, and what cannot be evaluated. References are plain float64.

Shapes: N rows, C contexts, T tokens, D and O widths of the hooks, F features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuronmap.activations import MaskConfig
from neuronmap.activations.mask import candidates
from neuronmap.corpora import TokenSet
from neuronmap.errors import ConfigError, InputError, MismatchError
from neuronmap.evaluation import CoreMetrics, evaluate_sae
from neuronmap.models import LanguageModel, capture, replaced, resolve_hook
from neuronmap.progress import SilentProgress
from neuronmap.saes import BundleMetadata, SparseAutoencoder, get_architecture
from neuronmap.saes.inference.crosscoder import CrosscoderSAE
from neuronmap.saes.inference.transcoder import TranscoderOptions, TranscoderSAE
from neuronmap.saes.provenance import Provenance

QUIET = SilentProgress()
D, F, K = 32, 48, 6
READ, WRITTEN = "model.layers.1.mlp:in", "model.layers.1.mlp:out"


def filled(sae: SparseAutoencoder, seed: int = 0) -> SparseAutoencoder:
    """The same with random weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in sae.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 4)
    return sae.requires_grad_(False).eval()


def topk(norm: str) -> SparseAutoencoder:
    cls = get_architecture("topk")
    sae = filled(cls(D, F, cls.Options.from_dict({"k": K})))
    sae.input_norm = norm
    return sae


def plain(sae: SparseAutoencoder, x: Tensor) -> Tensor:
    """float64: the layer-normalised top-k SAE, as its definition says."""
    W = {name: tensor.double() for name, tensor in sae.named_parameters()}
    x = x.double()
    mean = x.mean(-1, keepdim=True)
    std = (x - mean).square().sum(-1, keepdim=True).div(D - 1).sqrt()
    pre = ((x - mean) / (std + 1e-5) - W["b_dec"]) @ W["W_enc"] + W["b_enc"]
    kept = torch.where(pre >= pre.topk(K, dim=-1).values[..., -1:], pre, 0.0).clamp_min(0.0)
    return (kept @ W["W_dec"] + W["b_dec"]) * std + mean


def explained(y_NO: Tensor, yhat_NO: Tensor) -> float:
    y_NO, yhat_NO = y_NO.double(), yhat_NO.double()
    return 1 - float((y_NO - yhat_NO).square().sum() / (y_NO - y_NO.mean(0)).square().sum())


def all_of(model: LanguageModel, tokens: TokenSet, *names: str) -> list[Tensor]:
    """[C, T, W] of some hooks."""
    batch = tokens.contexts(0, tokens.num_contexts)
    hooks = [resolve_hook(model, None, name) for name in names]
    attention_CT = torch.from_numpy(batch.attention)
    found = capture(model, torch.from_numpy(batch.input_ids), hooks, attention_mask_BT=attention_CT)
    return [found[hook.name] for hook in hooks]


def scored(tokens: TokenSet) -> Tensor:
    """bool [C, T] by the default mask without outliers."""
    return torch.from_numpy(candidates(tokens.contexts(0, tokens.num_contexts), MaskConfig(outlier_factor=None))[0])


def loss_and_kl(model: LanguageModel, tokens: TokenSet, hook: str, y_CTO: Tensor) -> tuple[float, float]:
    """float64 cross-entropy and KL over the scored positions, with ``y_CTO`` put in at them."""
    batch, scored_CT = tokens.contexts(0, tokens.num_contexts), scored(tokens)
    ids_CT, attention_CT = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention)

    def put(own_CTO: Tensor) -> Tensor:
        return torch.where(scored_CT.unsqueeze(-1), y_CTO.to(own_CTO), own_CTO)

    clean = model.logits(ids_CT, attention_CT).double().log_softmax(-1)
    with replaced(model, resolve_hook(model, None, hook), put):
        changed = model.logits(ids_CT, attention_CT).double().log_softmax(-1)
    predicts_CT = scored_CT[:, :-1] & attention_CT[:, 1:].bool()
    ce_CT = -changed[:, :-1].gather(2, ids_CT[:, 1:, None]).squeeze(2)
    kl_CT = (clean.exp() * (clean - changed)).sum(-1)[:, :-1]
    return float(ce_CT[predicts_CT].mean()), float(kl_CT[predicts_CT].mean())


def evaluate(sae: Any, model: LanguageModel, tokens: TokenSet, hook: str, **settings: Any) -> CoreMetrics:
    given = {"mask": MaskConfig(outlier_factor=None), "bootstrap": 20, "batch_tokens": 48, "progress": QUIET}
    return evaluate_sae(sae, model=model, tokens=tokens, hook=hook, **{**given, **settings})


def test_a_normalising_sae_is_measured_on_the_scale_of_the_rows(tiny_llama: LanguageModel, tokens: TokenSet) -> None:
    sae, hook = topk("layer_norm"), "model.layers.2:out"
    (x_CTD,) = all_of(tiny_llama, tokens, hook)
    expected_CTD = plain(sae, x_CTD)
    metrics = evaluate(sae, tiny_llama, tokens, hook)
    kept_CT = scored(tokens)
    assert metrics.reconstruction.explained_variance.value == pytest.approx(
        explained(x_CTD[kept_CT], expected_CTD[kept_CT]), rel=1e-5
    )
    ce, kl = loss_and_kl(tiny_llama, tokens, hook, expected_CTD)
    assert metrics.behaviour is not None
    assert metrics.behaviour.ce_sae.value == pytest.approx(ce, abs=1e-5)
    assert metrics.behaviour.kl_sae.value == pytest.approx(kl, abs=1e-5)
    assert evaluate(topk("none"), tiny_llama, tokens, hook, max_ce_tokens=0).reconstruction != metrics.reconstruction


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm_rescale"])
def test_the_scale_of_the_rows_does_not_matter_to_a_normalising_sae(norm: str) -> None:
    x_ND = torch.randn(400, D, generator=torch.Generator().manual_seed(1)) + 0.5
    found = [
        evaluate_sae(topk(norm), scale * x_ND, bootstrap=0, progress=QUIET).reconstruction.explained_variance.value
        for scale in (1.0, 64.0)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def transcoder(d_out: int = D, skip: bool = True, known: bool = True, model: LanguageModel | None = None) -> Any:
    sae = filled(TranscoderSAE(D, F, TranscoderOptions(rule="topk", k=K), d_out=d_out, skip=skip), seed=3)
    if known and model is not None:
        hook_out = resolve_hook(model, None, WRITTEN).to_dict()
        sae.provenance = Provenance(BundleMetadata(architecture="transcoder", hook_out=hook_out))
    return sae


def test_a_transcoder_is_measured_by_the_hook_it_reconstructs(tiny_llama: LanguageModel, tokens: TokenSet) -> None:
    sae = transcoder(model=tiny_llama)
    sae.input_norm = "layer_norm"
    x_CTD, y_CTO = all_of(tiny_llama, tokens, READ, WRITTEN)
    W = {name: tensor.double() for name, tensor in sae.named_parameters()}
    x = x_CTD.double()
    mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    pre = (x - mean) / (std + 1e-5) @ W["W_enc"] + W["b_enc"]
    f_CTF = torch.where(pre >= pre.topk(K, dim=-1).values[..., -1:], pre, 0.0).clamp_min(0.0)
    yhat_CTO = f_CTF @ W["W_dec"] + W["b_dec"] + x @ W["W_skip"].T
    metrics, kept_CT = evaluate(sae, tiny_llama, tokens, READ), scored(tokens)
    assert metrics.reconstruction.explained_variance.value == pytest.approx(
        explained(y_CTO[kept_CT], yhat_CTO[kept_CT]), rel=1e-5
    )
    assert metrics.sparsity.l0.value == pytest.approx(float((f_CTF > 0).sum(-1)[kept_CT].double().mean()))
    assert metrics.protocol.hook == f"{READ} -> {WRITTEN}"
    assert metrics.protocol.tokens == int(kept_CT.sum())
    assert metrics.weights.encoder_decoder_cosine is None
    behaviour = metrics.behaviour
    assert behaviour is not None
    ce, kl = loss_and_kl(tiny_llama, tokens, WRITTEN, yhat_CTO)
    assert behaviour.ce_sae.value == pytest.approx(ce, abs=1e-5)
    assert behaviour.kl_sae.value == pytest.approx(kl, abs=1e-5)
    for name, put in (("zero", torch.zeros_like(y_CTO)), ("mean", y_CTO[kept_CT].mean(0).expand_as(y_CTO))):
        ce, kl = loss_and_kl(tiny_llama, tokens, WRITTEN, put)
        assert getattr(behaviour, f"ce_{name}").value == pytest.approx(ce, abs=1e-5)
        assert getattr(behaviour, f"kl_{name}").value == pytest.approx(kl, abs=1e-5)


def test_what_a_transcoder_writes_may_be_named_and_outliers_go_by_what_it_reads(
    tiny_llama: LanguageModel, tokens: TokenSet
) -> None:
    sae = transcoder(known=False)
    x_CTD, y_CTO = all_of(tiny_llama, tokens, READ, WRITTEN)
    kept_CT, norm_CT = scored(tokens), x_CTD.norm(dim=-1)
    limit = float(norm_CT[kept_CT].quantile(0.8))
    metrics = evaluate(sae, tiny_llama, tokens, READ, hook_out=WRITTEN, outlier_threshold=limit, max_ce_tokens=0)
    inside_CT = kept_CT & (norm_CT <= limit)
    assert metrics.protocol.tokens == int(inside_CT.sum()) < int(kept_CT.sum())
    assert metrics.protocol.dropped["outliers"] == int(kept_CT.sum() - inside_CT.sum())
    expected = explained(y_CTO[inside_CT], sae.reconstruct(x_CTD)[inside_CT])
    assert metrics.reconstruction.explained_variance.value == pytest.approx(expected, rel=1e-5)


def test_a_transcoder_that_cannot_be_measured_is_refused(tiny_llama: LanguageModel, tokens: TokenSet) -> None:
    with pytest.raises(InputError, match="does not say which hook it reconstructs"):
        evaluate(transcoder(known=False), tiny_llama, tokens, READ)
    with pytest.raises(MismatchError, match=r"width 20, but model.layers.1.mlp:out has width 32"):
        evaluate(transcoder(d_out=20, known=False), tiny_llama, tokens, READ, hook_out=WRITTEN)
    with pytest.raises(MismatchError, match="Rows of one hook do not tell"):
        evaluate_sae(transcoder(), torch.randn(50, D), progress=QUIET)
    with pytest.raises(ConfigError, match="hook_out= is for transcoders"):
        evaluate(topk("none"), tiny_llama, tokens, READ, hook_out=WRITTEN)
    with pytest.raises(InputError, match=r"model.layers.0.mlp:out runs before model.layers.1.mlp:in"):
        evaluate(transcoder(known=False), tiny_llama, tokens, READ, hook_out="model.layers.0.mlp:out")


def test_what_reads_more_than_rows_of_one_hook_is_refused() -> None:
    with pytest.raises(MismatchError, match="reads several hooks"):
        evaluate_sae(CrosscoderSAE(2, D, F), torch.randn(50, D), progress=QUIET)
    cls = get_architecture("temporal")
    temporal = cls(D, 64, cls.Options.from_dict({"n_heads": 1, "bottleneck_factor": 8}))
    with pytest.raises(MismatchError, match="reads whole contexts"):
        evaluate_sae(temporal, torch.randn(50, D), progress=QUIET)


def test_negative_activations_count_as_active() -> None:
    cls = get_architecture("abstopk")
    sae = filled(cls(D, F, cls.Options.from_dict({"k": K})))
    x_ND = torch.randn(200, D, generator=torch.Generator().manual_seed(2))
    metrics = evaluate_sae(sae, x_ND, bootstrap=0, progress=QUIET)
    f_NF = sae.encode(x_ND).double().numpy()
    assert (f_NF < 0).any()
    assert metrics.sparsity.l0.value == K
    norm_F = sae.W_dec.double().norm(dim=1).numpy()
    assert metrics.sparsity.l1.value == pytest.approx((np.abs(f_NF) @ norm_F).mean(), rel=1e-5)
    assert metrics.reconstruction.explained_variance.value == pytest.approx(
        explained(x_ND, sae.double().reconstruct(x_ND.double())), rel=1e-5
    )


def test_the_record_of_a_transcoder_is_kept_as_it_is(tiny_llama: LanguageModel, tokens: TokenSet) -> None:
    metrics = evaluate(transcoder(model=tiny_llama), tiny_llama, tokens, READ, max_ce_tokens=0)
    assert CoreMetrics.from_dict(metrics.to_dict()) == metrics
