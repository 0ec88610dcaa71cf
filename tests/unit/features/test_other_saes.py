"""SAEs that normalise each row, transcoders, and what is refused: every tool against plain float64.

Shapes: N rows, T tokens, D and O widths of the hooks, F features, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pass_parts import SMALL, MadeRows, Notes, small_sae
from random_saes import MASK, K, random_sae
from torch import Tensor

from neuronmap.errors import MismatchError
from neuronmap.features.collect.analyze import run_pass, weights_digest
from neuronmap.features.comparing.compare import compare_saes
from neuronmap.features.directions.lens import lens_or_reason
from neuronmap.features.directions.weights import weight_facts
from neuronmap.features.live.effects import FeatureEffects
from neuronmap.features.live.extractor import SAEFeatureExtractor
from neuronmap.features.live.interventions import Intervention
from neuronmap.features.live.steering import FeatureSteering
from neuronmap.features.summary.overview import explained_variance
from neuronmap.models import LanguageModel, capture, replaced, resolve_hook
from neuronmap.progress import SilentProgress
from neuronmap.saes import BundleMetadata, SparseAutoencoder, get_architecture
from neuronmap.saes.inference.crosscoder import CrosscoderSAE
from neuronmap.saes.inference.transcoder import TranscoderOptions, TranscoderSAE
from neuronmap.saes.provenance import Provenance

QUIET = SilentProgress()
TEXT = "A sparse autoencoder finds directions in the residual stream."
HOOK, READ, WRITTEN = "model.layers.1:out", "model.layers.1.mlp:in", "model.layers.1.mlp:out"


@pytest.fixture
def sae(tiny_llama: LanguageModel) -> SparseAutoencoder:
    """A random SAE at block 1 that normalises each row."""
    made = random_sae(tiny_llama)
    made.input_norm = "layer_norm"
    with torch.no_grad():
        made.b_dec.mul_(0.1)
    return made


def normalised(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float64: rows as the encoder sees them, their means and their standard deviations [..., 1]."""
    x = x.double()
    mean = x.mean(-1, keepdim=True)
    std = (x - mean).square().sum(-1, keepdim=True).div(x.shape[-1] - 1).sqrt()
    return (x - mean) / (std + 1e-5), mean, std


def plain_code(sae: SparseAutoencoder, x: Tensor, k: int = K) -> Tensor:
    """float64 [..., F]: the top-k rule on normalised rows."""
    pre = (normalised(x)[0] - sae.b_dec.double()) @ sae.W_enc.double() + sae.get_parameter("b_enc").double()
    return torch.where(pre >= pre.topk(k, dim=-1).values[..., -1:], pre, 0.0).clamp_min(0.0)


def rows_of(model: LanguageModel, hook: str = HOOK) -> tuple[Tensor, Tensor]:
    """Ids [1, T], and float32 rows [T - 1, D] without the first position."""
    ids_BT = torch.tensor([model.tokenizer(TEXT, add_special_tokens=False)["input_ids"]])
    return ids_BT, capture(model, ids_BT, [resolve_hook(model, None, hook)])[hook][0, 1:]


def losses(model: LanguageModel, moved_TD: Tensor | None) -> Tensor:
    """float64 losses at positions 1 .. T - 2, with the rows replaced after block 1."""
    ids_BT, x_TD = rows_of(model)

    def put(x_BTD: Tensor) -> Tensor:
        new_BTD = x_BTD.clone()
        new_BTD[0, 1:] = (x_TD if moved_TD is None else moved_TD).to(x_BTD)
        return new_BTD

    with replaced(model, resolve_hook(model, None, HOOK), put):
        log_p_TV = model.logits(ids_BT)[0].double().log_softmax(-1)
    return -log_p_TV[1:-1].gather(1, ids_BT[0, 2:, None]).squeeze(1)


def test_texts_are_reconstructed_on_their_own_scale(tiny_llama: LanguageModel, sae: SparseAutoencoder) -> None:
    analysis = SAEFeatureExtractor(sae, progress=QUIET).analyze_features(TEXT)
    _, x_TD = rows_of(tiny_llama)
    f_TF, (seen_TD, mean_T1, std_T1) = plain_code(sae, x_TD), normalised(x_TD)
    W_dec_FD, b_dec_D = sae.W_dec.double(), sae.b_dec.double()
    error_T = (x_TD - ((f_TF @ W_dec_FD + b_dec_D) * std_T1 + mean_T1)).square().sum(1)
    energy_T = (x_TD - (b_dec_D * std_T1 + mean_T1)).square().sum(1)
    np.testing.assert_allclose(analysis.features_NF.toarray()[1:], f_TF.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(analysis.error_N[1:], error_T.numpy(), rtol=1e-4)
    np.testing.assert_allclose(analysis.energy_N[1:], energy_T.numpy(), rtol=1e-4)
    share_F = (f_TF / (seen_TD - b_dec_D).norm(dim=1, keepdim=True)).max(0).values
    expected = share_F.topk(5).indices.tolist()
    assert [found.feature for found in analysis.ranking(5, by="share")] == expected


@pytest.mark.parametrize("kind", ["clamp", "scale", "add", "remove"])
def test_steering_moves_by_what_the_feature_adds_to_the_reconstruction(
    tiny_llama: LanguageModel, sae: SparseAutoencoder, kind: str
) -> None:
    _, x_TD = rows_of(tiny_llama)
    f_TF, std_T1 = plain_code(sae, x_TD), normalised(x_TD)[2]
    feature = int((f_TF > 0).sum(0).argmax())
    f_T = f_TF[:, feature]
    after_T = {"clamp": torch.full_like(f_T, 3.0), "scale": -2 * f_T, "add": f_T + 1.5, "remove": torch.zeros_like(f_T)}
    value = {"clamp": 3.0, "scale": -2.0, "add": 1.5, "remove": 0.0}[kind]
    moved_TD = x_TD.double() + std_T1 * (after_T[kind] - f_T)[:, None] * sae.W_dec[feature].double()
    change = Intervention(feature, kind, value)  # type: ignore[arg-type]
    found = FeatureSteering(sae, progress=QUIET).score(TEXT, change, controls=0)
    expected_N = losses(tiny_llama, moved_TD).numpy()
    np.testing.assert_allclose(found.steered_N, expected_N, atol=1e-5)
    assert np.abs(expected_N - losses(tiny_llama, None).numpy()).max() > 1e-4


def test_effects_take_out_what_the_feature_adds(tiny_llama: LanguageModel, sae: SparseAutoencoder) -> None:
    _, x_TD = rows_of(tiny_llama)
    f_TF, std_T1 = plain_code(sae, x_TD), normalised(x_TD)[2]
    chosen = (f_TF > 0).sum(0).topk(3).indices.tolist()
    effects = FeatureEffects(sae, progress=QUIET)
    ablated, estimated = effects.ablate(chosen, TEXT), effects.attribute(TEXT)
    for feature, effect in zip(chosen, ablated.effects, strict=True):
        part_TD = std_T1 * f_TF[:, feature, None] * sae.W_dec[feature].double()
        clean, without = (losses(tiny_llama, moved).sum() for moved in (None, x_TD - part_TD))
        assert effect.loss_change == pytest.approx(float(without - clean), abs=1e-4)
        less, more = (losses(tiny_llama, x_TD - step * part_TD).sum() for step in (1e-2, -1e-2))
        assert estimated.change_F[feature] == pytest.approx(float((less - more) / 2e-2), rel=2e-2, abs=1e-3)


@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_a_pass_measures_errors_on_the_rows_own_scale(kernels: str, tmp_path: Path) -> None:
    rows, sae = MadeRows(), small_sae("topk", 12)
    sae.input_norm = "layer_norm"
    state = run_pass(
        {"it": sae}, rows, hook_of={"it": "wide"}, folder=tmp_path, config=SMALL, kernels=kernels, progress=Notes()
    )["it"]
    sample = state.sample
    x_nD = torch.from_numpy(rows.x["wide"][sample.sequence_N, sample.position_N].astype(np.float32))
    f_nF, (_, mean_n1, std_n1) = plain_code(sae, x_nD, 5), normalised(x_nD)
    xhat_nD = (f_nF @ sae.W_dec.double() + sae.b_dec.double()) * std_n1 + mean_n1
    error_n = (x_nD.double() - xhat_nD).square().sum(1).detach()
    np.testing.assert_allclose(sample.error_N, error_n.numpy(), rtol=1e-4)
    energy_n = (x_nD.double() - rows.mean("wide")).square().sum(1)
    assert explained_variance(state)["value"] == pytest.approx(1 - float(error_n.sum() / energy_n.sum()), rel=1e-4)
    other = small_sae("topk", 12)
    assert weights_digest(other) != weights_digest(sae)


def test_input_tokens_are_of_the_embeddings_as_the_sae_normalises_them(tiny_llama: LanguageModel) -> None:
    sae, hook = random_sae(tiny_llama), resolve_hook(tiny_llama, None, HOOK)
    embedding_VD = tiny_llama.module.get_input_embeddings().weight.detach()
    for norm in ("layer_norm", "constant_norm_rescale"):
        sae.input_norm = norm
        lens, _ = lens_or_reason(sae, tiny_llama, hook, entries=5, progress=QUIET)
        assert lens is not None
        e_VD = embedding_VD[: lens.vocabulary].double()
        seen_VD = (
            normalised(e_VD)[0]
            if norm == "layer_norm"
            else e_VD / e_VD.norm(dim=1, keepdim=True).clamp_min(1e-30) * 32**0.5
        )
        score_FN, token_FN = (seen_VD @ sae.W_enc.double()).T.topk(5, dim=1)
        np.testing.assert_array_equal(lens.input_tokens_FN, token_FN.numpy())
        np.testing.assert_allclose(lens.input_scores_FN, score_FN.numpy(), rtol=1e-4)


# --- transcoders -----------------------------------------------------------------------------------------------------


def transcoder(model: LanguageModel, d_out: int = 32, features: int = 48, seed: int = 4) -> TranscoderSAE:
    """Reads what goes into block 1's MLP and reconstructs what comes out."""
    sae = TranscoderSAE(32, features, TranscoderOptions(rule="topk", k=K), d_out=d_out)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in sae.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 4)
    hook, hook_out = (resolve_hook(model, None, name).to_dict() for name in (READ, WRITTEN))
    metadata = BundleMetadata(
        architecture="transcoder", model=model.identity.to_dict(), hook=hook,
        hook_out=hook_out if d_out == 32 else None, corpus={"mask": MASK, "context_length": 32},
    )  # fmt: skip
    sae.provenance = Provenance(metadata).with_model(model)
    return sae.requires_grad_(False).eval()


def test_a_transcoder_has_features_and_no_share_explained(tiny_llama: LanguageModel) -> None:
    sae = transcoder(tiny_llama)
    analysis = SAEFeatureExtractor(sae, progress=QUIET).analyze_features(TEXT)
    _, x_TD = rows_of(tiny_llama, READ)
    pre_TF = x_TD.double() @ sae.W_enc.double() + sae.b_enc.double()
    f_TF = torch.where(pre_TF >= pre_TF.topk(K, dim=1).values[:, -1:], pre_TF, 0.0).clamp_min(0.0)
    np.testing.assert_allclose(analysis.features_NF.toarray()[1:], f_TF.numpy(), rtol=1e-4, atol=1e-5)
    assert np.isnan(analysis.error_N).all()
    assert np.isnan(analysis.explained)
    assert any("reconstructs another hook" in note for note in analysis.notes)
    assert "nan" not in str(analysis)
    assert "nan" not in analysis.overview(0).to_html()
    share_F = (f_TF / x_TD.double().norm(dim=1, keepdim=True)).max(0).values
    assert [found.feature for found in analysis.ranking(5)] == share_F.topk(5).indices.tolist()


def test_a_pass_of_a_transcoder_has_no_explained_variance(tmp_path: Path) -> None:
    sae = TranscoderSAE(12, 24, TranscoderOptions(rule="topk", k=3), d_out=7)
    with torch.no_grad():
        sae.W_enc.copy_(torch.randn(12, 24, generator=torch.Generator().manual_seed(0)))
    state = run_pass({"it": sae}, MadeRows(), hook_of={"it": "wide"}, folder=tmp_path, config=SMALL, progress=Notes())[
        "it"
    ]
    assert state.features["firings"].sum() > 0
    found = explained_variance(state)
    assert found["value"] is None
    assert found["by_position"] == [None] * 12
    assert found["rows"] == len(state.sample.error_N) > 0


def test_the_lens_of_a_transcoder_is_where_it_writes(tiny_llama: LanguageModel) -> None:
    sae, hook = transcoder(tiny_llama), resolve_hook(tiny_llama, None, READ)
    facts = weight_facts(sae, neighbours=3, model=tiny_llama, hook=hook, progress=QUIET)
    plain = get_architecture("topk")(32, sae.d_sae)
    with torch.no_grad():
        plain.W_dec.copy_(sae.W_dec)
    expected, _ = lens_or_reason(plain, tiny_llama, resolve_hook(tiny_llama, None, WRITTEN), entries=3, progress=QUIET)
    assert facts.lens is not None
    assert expected is not None
    np.testing.assert_array_equal(facts.lens.promoted_FN, expected.promoted_FN)
    assert np.isnan(facts.encoder_decoder_cosine_F).all()
    narrow = weight_facts(transcoder(tiny_llama, 20), neighbours=3, model=tiny_llama, hook=hook, progress=QUIET)
    assert narrow.lens is None
    assert "does not say which hook it reconstructs" in narrow.lens_note
    assert narrow.decoder_norm_F.shape == (48,)


def test_transcoders_are_compared_where_they_write(tiny_llama: LanguageModel) -> None:
    a, b = transcoder(tiny_llama, features=200, seed=1), transcoder(tiny_llama, features=200, seed=2)
    with torch.no_grad():
        b.W_dec[:100] = a.W_dec[:100]
    about = [one.provenance.metadata for one in (a, b)]  # type: ignore[union-attr]
    found = compare_saes(a, b, metadata_a=about[0], metadata_b=about[1], progress=QUIET)
    assert found.primary == "decoder"
    assert found.decoder is not None
    sae = random_sae(tiny_llama, features=200)
    metadata = sae.provenance.metadata  # type: ignore[union-attr]
    with pytest.raises(MismatchError, match=r"A reconstructs model.layers.1.mlp:out and B reads model.layers.1:out"):
        compare_saes(a, sae, metadata_a=about[0], metadata_b=metadata, progress=QUIET)
    with pytest.raises(MismatchError, match="A reconstructs another hook than it reads"):
        compare_saes(a, sae, progress=QUIET)
    with pytest.raises(MismatchError, match="A reconstructs activations of width 20 and B of 32"):
        compare_saes(transcoder(tiny_llama, 20), b, progress=QUIET)
    there = metadata.updated(hook=about[0].hook_out)
    assert compare_saes(a, sae, metadata_a=about[0], metadata_b=there, progress=QUIET).decoder is not None


# --- what is refused -------------------------------------------------------------------------------------------------


def others(model: LanguageModel) -> dict[str, SparseAutoencoder]:
    metadata = random_sae(model).provenance
    temporal = get_architecture("temporal")
    found: dict[str, Any] = {
        "reads several hooks": CrosscoderSAE(2, 32, 48),
        "reads whole contexts": temporal(32, 64, temporal.Options.from_dict({"n_heads": 1, "bottleneck_factor": 8})),
        "may be negative": get_architecture("abstopk")(32, 48),
    }
    for sae in found.values():
        sae.provenance = metadata
    return found


def test_what_has_no_rows_or_negative_activations_is_refused(tiny_llama: LanguageModel, tmp_path: Path) -> None:
    hook, good = resolve_hook(tiny_llama, None, HOOK), random_sae(tiny_llama)
    for reason, sae in others(tiny_llama).items():
        for tool in (SAEFeatureExtractor, FeatureEffects, FeatureSteering):
            with pytest.raises(MismatchError, match=reason):
                tool(sae, progress=QUIET)
        with pytest.raises(MismatchError, match=f"Feature analysis of 'it' is not possible.*{reason}"):
            run_pass({"it": sae}, MadeRows(), hook_of={"it": "wide"}, folder=tmp_path / "pass", progress=Notes())
        with pytest.raises(MismatchError, match=f"Comparing the features of B.*{reason}"):
            compare_saes(good, sae, progress=QUIET)
        if sae.reads != "rows":
            with pytest.raises(MismatchError, match=reason):
                weight_facts(sae, neighbours=3, progress=QUIET)
            with pytest.raises(MismatchError, match=reason):
                lens_or_reason(sae, tiny_llama, hook, entries=3, progress=QUIET)
    assert not (tmp_path / "pass").exists()


def test_a_transcoder_cannot_be_steered_or_ablated(tiny_llama: LanguageModel) -> None:
    for tool, what in ((FeatureSteering, "Steering"), (FeatureEffects, "Measuring effects")):
        with pytest.raises(MismatchError, match=f"{what} is not possible.*reads one hook and reconstructs another"):
            tool(transcoder(tiny_llama), progress=QUIET)
