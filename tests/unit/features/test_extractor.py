"""Texts through an SAE: every number against capture and encode by hand, masks, notes, forms, refusals."""

from __future__ import annotations

import copy
import gc
import html
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_saes import F, K, random_sae

from neuronmap.errors import ConfigError, InputError, MismatchError
from neuronmap.features.live.attached import attach
from neuronmap.features.live.extractor import SAEFeatureExtractor
from neuronmap.features.live.strips import _ABOVE, _BELOW, MOST_OPAQUE, opacity
from neuronmap.models import LanguageModel, capture, load_model, resolve_hook, wrap_model
from neuronmap.progress import SilentProgress
from neuronmap.saes import SparseAutoencoder, load_sae, save_bundle
from neuronmap.saes.provenance import Provenance

TEXTS = ["The winter was long.", "A sparse autoencoder finds directions in the residual stream.", "Numbers: 12, 345."]
QUIET = SilentProgress()


@pytest.fixture
def sae(tiny_llama: LanguageModel) -> SparseAutoencoder:
    """A random SAE at block 1 of the tiny Llama."""
    return random_sae(tiny_llama)


def by_hand(model: LanguageModel, sae: SparseAutoencoder, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations [T, D] and codes [T, F] of one text, alone."""
    ids_BT = torch.tensor([model.tokenizer(text, add_special_tokens=False)["input_ids"]])
    hook = resolve_hook(model, 1, "residual")
    x_TD = capture(model, ids_BT, [hook])[hook.name][0]
    return x_TD, sae.encode(x_TD)


def test_codes_and_figures_are_those_of_capture_and_encode(tiny_llama: LanguageModel, sae: SparseAutoencoder) -> None:
    analysis = SAEFeatureExtractor(sae, batch_tokens=40, progress=QUIET).analyze_features(TEXTS)
    dense_NF = analysis.features_NF.toarray()
    for number, text in enumerate(TEXTS):
        x_TD, f_TF = by_hand(tiny_llama, sae, text)
        span = analysis.span(number)
        np.testing.assert_allclose(dense_NF[span][1:], f_TF[1:].numpy(), rtol=1e-4, atol=1e-4)
        assert not dense_NF[span][0].any()  # the first position is masked
        error_T = (x_TD - sae.decode(f_TF)).square().sum(1)
        energy_T = (x_TD - sae.b_dec).square().sum(1)
        np.testing.assert_allclose(analysis.error_N[span][1:], error_T[1:].numpy(), rtol=1e-4)
        np.testing.assert_allclose(analysis.explained_shares[span][1:], (1 - error_T / energy_T)[1:].numpy(), atol=1e-4)
        assert np.isnan(analysis.error_N[span][0])
    rows = analysis.masked_N == ""
    assert analysis.l0 == pytest.approx(K)
    assert analysis.explained == pytest.approx(
        1 - analysis.error_N[rows].sum() / analysis.energy_N[rows].sum(), rel=1e-5
    )


def test_a_text_is_the_same_alone_and_beside_others(sae: SparseAutoencoder) -> None:
    extractor = SAEFeatureExtractor(sae, progress=QUIET)
    together, tokens = extractor.encode(TEXTS)
    alone, _ = extractor.encode(TEXTS[1])
    here = np.flatnonzero(np.asarray(tokens["text"]) == 1)
    np.testing.assert_allclose(together.toarray()[here], alone.toarray(), rtol=1e-4, atol=1e-4)
    assert together.shape == (tokens.num_rows, F)
    assert tokens["active"].to_pylist() == np.diff(together.indptr).tolist()


def test_top_features_are_the_largest_and_a_trace_is_a_column(sae: SparseAutoencoder) -> None:
    analysis = SAEFeatureExtractor(sae, progress=QUIET).analyze_features(TEXTS[1], top=3)
    dense_NF = analysis.features_NF.toarray()
    for token in range(1, analysis.num_tokens):
        expected = np.argsort(-dense_NF[token], kind="stable")[:3]
        assert [feature for feature, _ in analysis.top_features(token)] == expected.tolist()
    feature = int(dense_NF.max(0).argmax())
    trace = analysis.feature(feature)
    np.testing.assert_array_equal(trace.activation_N[1:], dense_NF[1:, feature])
    assert np.isnan(trace.activation_N[0])
    first = analysis.ranking(1, "activation")[0]
    assert first.feature == feature
    assert first.max == dense_NF.max()
    assert first.tokens == (dense_NF[:, feature] > 0).sum()
    assert first.mean == pytest.approx(dense_NF[:, feature].sum() / first.tokens, rel=1e-5)
    share_NF = dense_NF[1:] / np.sqrt(analysis.energy_N[1:, None])
    assert analysis.ranking(1)[0].feature == share_NF.max(0).argmax()


def test_tables_hold_the_same_numbers(sae: SparseAutoencoder) -> None:
    analysis = SAEFeatureExtractor(sae, progress=QUIET).analyze_features(TEXTS, top=K)
    table = analysis.to_pandas()
    assert len(table) == analysis.features_NF.nnz
    entry = table.iloc[7]
    row = analysis.span(int(entry.text)).start + int(entry.position)
    assert analysis.features_NF[row, int(entry.feature)] == np.float32(entry.activation)
    tokens = analysis.to_pandas("tokens")
    assert tokens["masked"].tolist() == analysis.masked_N.tolist()
    assert tokens["explained"].isna().sum() == (analysis.masked_N != "").sum()
    with pytest.raises(ConfigError, match="'features' and 'tokens'"):
        analysis.to_arrow("columns")  # type: ignore[arg-type]


def test_masks_are_those_of_training(tiny_llama: LanguageModel, sae: SparseAutoencoder) -> None:
    text = "A sparse</s> stream."
    analysis = SAEFeatureExtractor(sae, progress=QUIET).analyze_features(text)
    special = analysis.token_N == 1
    assert special.sum() == 1
    assert (analysis.masked_N[special] == "special").all()
    assert analysis.masked_N[0] == "first"
    assert "1 at the start of a context, 1 special tokens" in analysis.notes[-1]
    # With the norm's limit set below one token's norm, that token is an outlier.
    x_TD, _ = by_hand(tiny_llama, sae, text)
    norm_T = x_TD[1:].norm(dim=1)[~torch.from_numpy(special[1:])]
    limit = float(norm_T.max()) - 1e-3
    assert sae.provenance is not None
    metadata = sae.provenance.metadata.updated(corpus={"mask": {"outlier_factor": 2.0}}, input_scale=2.0 / limit)
    sae.provenance = Provenance(metadata).with_model(tiny_llama)
    masked = SAEFeatureExtractor(sae, progress=QUIET).analyze_features(text).masked_N
    assert (masked == "outlier").sum() == 1


def test_long_texts_are_cut_and_said_so(sae: SparseAutoencoder) -> None:
    extractor = SAEFeatureExtractor(sae, progress=QUIET)
    analysis = extractor.analyze_features(TEXTS[1], max_tokens=6)
    whole = extractor.analyze_features(TEXTS[1]).num_tokens
    assert analysis.num_tokens == 6
    assert f"cut after 6 of {whole} tokens" in analysis.notes[0]
    assert "cut after" in str(analysis)
    with pytest.raises(ConfigError, match=r"max_tokens = 65 is more than tiny-llama can take \(64"):
        extractor.analyze_features("x", max_tokens=65)


@pytest.mark.parametrize(
    ("texts", "message"),
    [("", "The text is empty"), (["a", "  "], "Text 1 is empty"), ([], "No text"), (["a", 3], "Text 1 is a int")],
)
def test_bad_texts_are_refused(sae: SparseAutoencoder, texts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SAEFeatureExtractor(sae, progress=QUIET).analyze_features(texts)


def test_unknown_features_texts_and_orders_are_refused(sae: SparseAutoencoder) -> None:
    extractor = SAEFeatureExtractor(sae, progress=QUIET)
    analysis = extractor.analyze_features(TEXTS[0])
    with pytest.raises(InputError, match="no feature 64: ids are 0 to 63"):
        analysis.feature(F)
    with pytest.raises(InputError, match="no text 1"):
        analysis.pieces(1)
    with pytest.raises(ConfigError, match="relative"):
        extractor.analyze_features(TEXTS[0], by="relative")
    with pytest.raises(ConfigError, match="top = 0"):
        extractor.analyze_features(TEXTS[0], top=0)


def test_an_sae_of_another_model_is_refused_with_every_difference(
    tiny_llama: LanguageModel, tiny_gpt2: LanguageModel, sae: SparseAutoencoder
) -> None:
    with pytest.raises(MismatchError, match="model digest") as caught:
        SAEFeatureExtractor(sae, model=tiny_gpt2, hook="transformer.h.1:out", progress=QUIET)
    assert "model architecture" in caught.value.message
    with pytest.raises(MismatchError, match="width at the hook: the SAE has 32, the model 96"):
        SAEFeatureExtractor(sae, hook="model.layers.1.mlp.down_proj:in", progress=QUIET)
    forced = attach(sae, model=tiny_gpt2, hook="transformer.h.1:out", force=True)
    assert any("forced" in note for note in forced.notes)
    assert attach(sae).model is tiny_llama  # and the forced one is not taken unasked afterwards


def test_an_sae_that_knows_nothing_says_what_it_needs(tiny_llama: LanguageModel, sae: SparseAutoencoder) -> None:
    sae.provenance = None
    with pytest.raises(InputError, match="which language model") as caught:
        SAEFeatureExtractor(sae, progress=QUIET)
    assert "model=" in caught.value.hint
    with pytest.raises(InputError, match="where in the model"):
        SAEFeatureExtractor(sae, model=tiny_llama, progress=QUIET)
    here = SAEFeatureExtractor(sae, model=tiny_llama, hook="model.layers.1:out", progress=QUIET).attached
    assert here.mask.skip_first_positions == 1
    assert any("usual mask is assumed" in note for note in here.notes)


def test_a_bundle_knows_its_model_and_memory_is_not_held(
    tiny_llama: LanguageModel, sae: SparseAutoencoder, tmp_path: Path
) -> None:
    copy.deepcopy(tiny_llama.module).save_pretrained(tmp_path / "lm")  # it writes into the configuration
    tiny_llama.tokenizer.save_pretrained(tmp_path / "lm")
    identity = load_model(tmp_path / "lm", progress=QUIET).identity
    assert sae.provenance is not None
    folder = save_bundle(sae, tmp_path / "bundle", sae.provenance.metadata.updated(model=identity.to_dict()))
    loaded = load_sae(folder)
    assert loaded.provenance is not None
    assert loaded.provenance.metadata.hook == sae.provenance.metadata.hook
    assert loaded.provenance.language_model is None
    extractor = SAEFeatureExtractor(loaded, progress=QUIET)  # the model is loaded by the name in the bundle
    again = SAEFeatureExtractor(loaded, progress=QUIET)
    assert again.attached.model is extractor.attached.model  # found in memory, not loaded twice
    assert extractor.attached.name == "bundle"
    del extractor, again
    gc.collect()
    assert loaded.provenance.language_model is None  # the SAE alone keeps no language model


def test_another_copy_of_the_model_is_the_same_model(tiny_llama: LanguageModel, sae: SparseAutoencoder) -> None:
    same = wrap_model(tiny_llama.module, tiny_llama.tokenizer, name="renamed")
    notes = attach(sae, model=same).notes
    assert not [note for note in notes if "forced" in note]


# --- display ---------------------------------------------------------------------------------------------------------


def test_html_is_escaped_self_contained_and_without_scripts(sae: SparseAutoencoder) -> None:
    analysis = SAEFeatureExtractor(sae, progress=QUIET).analyze_features("<script>alert('&')</script> stream")
    page = analysis._repr_html_()
    assert "<script" not in page
    assert "alert" in html.unescape(re.sub("<[^>]+>", "", page)).replace("\n", "")
    assert not re.search(r"(src|href)=|https?:", page)
    assert analysis.feature(0)._repr_html_()


def test_tokens_that_share_a_character_are_shown_whole(sae: SparseAutoencoder) -> None:
    text = "dog é 漢 jumps"
    analysis = SAEFeatureExtractor(sae, progress=QUIET).analyze_features(text)
    shown = [piece.text for piece in analysis.pieces(0)]
    assert "".join(shown) == text
    assert len(shown) < analysis.num_tokens
    page = analysis._repr_html_() + str(analysis)
    assert "漢" in page
    assert "�" not in re.sub(r'title="[^"]*"', "", page)


def _luminance(colour: tuple[float, ...]) -> float:
    parts = [value / 255 for value in colour]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("shade", [_ABOVE, _BELOW])
@pytest.mark.parametrize(("background", "text"), [((255,) * 3, (31, 35, 40)), ((17,) * 3, (230, 237, 243))])
def test_text_stays_readable_on_every_colour(
    shade: tuple[int, int, int], background: tuple[int, ...], text: tuple[int, ...]
) -> None:
    for share in np.linspace(0, 1, 21):
        cover = opacity(float(share))
        assert cover <= MOST_OPAQUE
        mixed = tuple(cover * s + (1 - cover) * b for s, b in zip(shade, background, strict=True))
        light, dark = sorted((_luminance(mixed), _luminance(text)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_terminal_form_marks_the_peak(sae: SparseAutoencoder) -> None:
    from rich.console import Console

    analysis = SAEFeatureExtractor(sae, progress=QUIET).analyze_features(TEXTS[1])
    console = Console(record=True, width=120, force_terminal=True, color_system="truecolor", file=io.StringIO())
    console.print(analysis)
    text = console.export_text()
    assert "residual" in text
    assert f"#{analysis.ranking(1)[0].feature}" in text


def test_training_result_runs_as_written(tiny_llama: LanguageModel, tmp_path: Path) -> None:
    from neuronmap import SAEConfig, SAETrainer

    config = SAEConfig(
        layer=1, hidden_dim=64, k=4, num_epochs=1, batch_size=32, context_length=16, heldout_fraction=0.3
    )
    texts = [
        f"The river froze in the winter of {year}, and the children walked across it." for year in range(1700, 1740)
    ]
    trainer = SAETrainer(config, progress=QUIET, run_folder=tmp_path / "run")
    result = trainer.train(texts, model=tiny_llama)
    analysis = SAEFeatureExtractor(result.sae).analyze_features(texts[:2])
    assert analysis.num_texts == 2
    assert random_sae(tiny_llama).provenance != result.sae.provenance
