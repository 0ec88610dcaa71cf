"""Finding features by number, text and label; thresholds, windows and contrast against the codes themselves."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_stores import CONTEXT_LENGTH, codes_of, contexts, live_store
from made_stores import small_store
from random_saes import random_sae

from neuronmap.errors import ConfigError, InputError, MismatchError
from neuronmap.features.live.effects import FeatureEffects
from neuronmap.features.live.extractor import SAEFeatureExtractor
from neuronmap.features.live.finder import MaxActivatingExamplesFinder
from neuronmap.features.live.interventions import Intervention
from neuronmap.features.live.steering import FeatureSteering
from neuronmap.features.storage.store import FeatureStore
from neuronmap.models import LanguageModel
from neuronmap.progress import SilentProgress
from neuronmap.saes import SparseAutoencoder, load_sae, save_bundle

QUIET = SilentProgress()
TEXT = "A sparse autoencoder finds directions in the residual stream."


@pytest.fixture
def sae(tiny_llama: LanguageModel) -> SparseAutoencoder:
    """A random SAE at block 1 of the tiny Llama."""
    return random_sae(tiny_llama)


@pytest.fixture
def store(tmp_path: Path, tiny_llama: LanguageModel, sae: SparseAutoencoder) -> FeatureStore:
    return FeatureStore.open(live_store(tmp_path / "analysis", tiny_llama, sae))


@pytest.fixture
def finder(store: FeatureStore, sae: SparseAutoencoder) -> MaxActivatingExamplesFinder:
    return MaxActivatingExamplesFinder(store, sae, progress=QUIET)


def strongest(model: LanguageModel, sae: SparseAutoencoder) -> int:
    return int(codes_of(model, sae).max((0, 1)).argmax())


def test_top_examples_are_the_largest_activations(
    tiny_llama: LanguageModel, sae: SparseAutoencoder, finder: MaxActivatingExamplesFinder
) -> None:
    feature = strongest(tiny_llama, sae)
    f_CT = codes_of(tiny_llama, sae)[:, :, feature]
    found = finder.find(feature, max_examples=3)[0]
    expected = np.sort(f_CT.max(1))[::-1][:3]
    np.testing.assert_allclose([example.activation for example in found.examples], expected)
    for example in found.examples:
        assert f_CT[example.sequence, example.position] == np.float32(example.activation)
        assert example.token_ids[example.peak] == contexts()[example.sequence, example.position]
    assert found.largest == f_CT.max()


def test_thresholds_quantiles_and_kinds_choose(
    tiny_llama: LanguageModel, sae: SparseAutoencoder, finder: MaxActivatingExamplesFinder
) -> None:
    feature = strongest(tiny_llama, sae)
    values = [example.activation for example in finder.find(feature)[0].examples]
    limit = values[1]
    assert [e.activation for e in finder.find(feature, min_activation=limit)[0].examples] == values[:2]
    assert {e.group for e in finder.find(feature, quantile=4)[0].examples} == {4}
    assert [e.group for e in finder.find(feature, kind="quantile")[0].examples] == [4, 2]  # the strongest first
    assert {e.kind for e in finder.find(feature, kind="hard")[0].examples} == {"hard"}


def test_a_feature_without_such_examples_says_so(
    tiny_llama: LanguageModel, sae: SparseAutoencoder, finder: MaxActivatingExamplesFinder
) -> None:
    """The made store has examples of quantiles 2 and 4 only."""
    feature = strongest(tiny_llama, sae)
    assert finder.find(feature).notes == ()
    found = finder.find(feature, quantile=1)
    assert found.notes == (f"#{feature} has no stored example in quantile 1.",)
    assert found.notes[0] in str(found)
    assert finder.find(feature, kind="bin").notes == (f"#{feature} has no stored example of kind bin.",)
    assert finder.find(feature, min_activation=1e6).notes == (
        f"#{feature} has no stored example of kind top that reaches 1e+06.",
    )


def test_a_feature_that_never_fired_says_so(tmp_path: Path) -> None:
    store = FeatureStore.open(small_store(tmp_path / "small"))
    found = MaxActivatingExamplesFinder(store).find([0, 2])
    assert found.notes == (f"#2 never fired on the {store.manifest['rows']:,} analysed tokens.",)


def test_contrast_shows_places_without_firing(
    tiny_llama: LanguageModel, sae: SparseAutoencoder, finder: MaxActivatingExamplesFinder
) -> None:
    feature = strongest(tiny_llama, sae)
    found = finder.find(feature, contrast=True)[0]
    assert [example.kind for example in found.negatives] == ["hard", "random"]
    f_CT = codes_of(tiny_llama, sae)[:, :, feature]
    assert all(f_CT[example.sequence, example.position] == 0 for example in found.negatives)
    assert finder.find(feature)[0].negatives == ()


@pytest.mark.parametrize(("context", "before", "after"), [(1, 1, 1), ((7, 0), 7, 0), (100, 100, 100)])
def test_the_window_is_as_wide_as_asked(
    tiny_llama: LanguageModel,
    sae: SparseAutoencoder,
    finder: MaxActivatingExamplesFinder,
    context: Any,
    before: int,
    after: int,
) -> None:
    for example in finder.find(strongest(tiny_llama, sae), context=context)[0].examples:
        assert example.start == max(0, example.position - before)
        stop = min(CONTEXT_LENGTH, example.position + after + 1)
        np.testing.assert_array_equal(example.token_ids, contexts()[example.sequence, example.start : stop])
        assert example.activations[example.peak] == np.float32(example.activation)
        assert "".join(piece.text for piece in example.pieces()) == example.text


@pytest.mark.parametrize("by", ["relative", "activation"])
def test_the_features_that_fire_on_a_text(
    tiny_llama: LanguageModel, sae: SparseAutoencoder, finder: MaxActivatingExamplesFinder, by: Any
) -> None:
    found = finder.find_by_text(TEXT, top=5, by=by)
    codes_NF = SAEFeatureExtractor(sae, progress=QUIET).encode(TEXT).features_NF.toarray()
    score_F = codes_NF.max(0)
    if by == "relative":
        maximum_F = codes_of(tiny_llama, sae).max((0, 1))
        score_F = np.where(maximum_F > 0, score_F / np.where(maximum_F > 0, maximum_F, 1), 0)
    expected = np.argsort(-score_F, kind="stable")[:5]
    assert [one.feature for one in found.features] == expected.tolist()
    assert found[0].on_text is not None
    assert found[0].on_text.max == codes_NF[:, expected[0]].max()
    assert found[0].on_text.label == f"label {expected[0]}"
    high = float(np.sort(codes_NF.max(0))[-3])
    assert len(finder.find_by_text(TEXT, top=50, by=by, min_activation=high)) == 3
    with pytest.raises(InputError, match="No feature reaches"):
        finder.find_by_text(TEXT, min_activation=1e9)


def test_features_by_their_labels(finder: MaxActivatingExamplesFinder) -> None:
    assert finder.find_by_label("label 17")[0].feature == 17
    assert len(finder.find_by_label("label", top=4)) == 4
    with pytest.raises(InputError, match="No label or top token of 64 features holds 'zebra'"):
        finder.find_by_label("zebra")


def test_bad_requests_are_refused(store: FeatureStore, finder: MaxActivatingExamplesFinder) -> None:
    with pytest.raises(InputError, match="no feature 64: features are 0 to 63"):
        finder.find([3, 64])
    with pytest.raises(InputError, match="no quantile 5"):
        finder.find(3, quantile=5)
    with pytest.raises(InputError, match="kind 'best'"):
        finder.find(3, kind="best")
    with pytest.raises(ConfigError, match="max_examples = 0"):
        finder.find(3, max_examples=0)
    with pytest.raises(ConfigError, match="context = -1"):
        finder.find(3, context=-1)
    with pytest.raises(InputError, match="No feature was given"):
        finder.find([])
    with pytest.raises(InputError, match="needs the SAE"):
        MaxActivatingExamplesFinder(store).find_by_text(TEXT)
    with pytest.raises(InputError, match="empty"):
        finder.find_by_text(" ")


def test_a_store_of_another_sae_is_refused(tiny_llama: LanguageModel, store: FeatureStore) -> None:
    with pytest.raises(MismatchError, match="64 features; this one has 32"):
        SAEFeatureExtractor(random_sae(tiny_llama, features=32), store=store, progress=QUIET)


def test_a_store_of_other_weights_is_refused(tiny_llama: LanguageModel, sae: SparseAutoencoder, tmp_path: Path) -> None:
    folder = live_store(tmp_path / "other", tiny_llama, sae, facts={"pass": {"sae_digest": "sha256:" + "1" * 64}})
    bundle = load_sae(save_bundle(sae, tmp_path / "bundle", sae.provenance.metadata if sae.provenance else None))
    with pytest.raises(MismatchError, match="sha256:1111"):
        SAEFeatureExtractor(bundle, model=tiny_llama, store=FeatureStore.open(folder), progress=QUIET)


def test_results_show_themselves(
    tiny_llama: LanguageModel, sae: SparseAutoencoder, finder: MaxActivatingExamplesFinder
) -> None:
    from rich.console import Console

    found = finder.find_by_text("<b>sparse</b> stream", contrast=True, top=3)
    page = found._repr_html_()
    assert "&lt;" in page
    assert "<b>sparse" not in page
    assert "<script" not in page
    table = found.to_pandas()
    assert set(table["kind"]) >= {"hard", "random"}
    console = Console(record=True, width=140, file=io.StringIO())
    console.print(found)
    assert f"#{found[0].feature}" in console.export_text()
    assert f"#{found[0].feature}" in str(found)
    never = np.flatnonzero(codes_of(tiny_llama, sae).max((0, 1)) == 0)
    if len(never):
        assert "never fired" in str(finder.find(int(never[0])))


def test_reading_examples_loads_no_torch(store: FeatureStore) -> None:
    code = (
        "import sys\n"
        "from neuronmap.features import MaxActivatingExamplesFinder\n"
        f"finder = MaxActivatingExamplesFinder({str(store.path)!r})\n"
        "str(finder.find(3, contrast=True)), finder.find(3)._repr_html_(), finder.find_by_label('label')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


# --- what a store adds to the rest of live use -----------------------------------------------------------------------


def test_strength_in_units_of_the_maximum(
    tiny_llama: LanguageModel, sae: SparseAutoencoder, store: FeatureStore
) -> None:
    feature = strongest(tiny_llama, sae)
    largest = float(codes_of(tiny_llama, sae)[:, :, feature].max())
    steering = FeatureSteering(sae, store=store, progress=QUIET)
    in_maxima = steering.score(TEXT, Intervention.add(feature, 0.5, unit="max"), controls=0)
    absolute = steering.score(TEXT, Intervention.add(feature, 0.5 * largest), controls=0)
    np.testing.assert_array_equal(in_maxima.steered_N, absolute.steered_N)
    assert f"label {feature}" in str(in_maxima)
    assert "x max" in str(in_maxima)


def test_effects_on_a_features_own_examples(
    tiny_llama: LanguageModel, sae: SparseAutoencoder, store: FeatureStore
) -> None:
    feature = strongest(tiny_llama, sae)
    effects = FeatureEffects(sae, store=store, progress=QUIET)
    own = effects.ablate(feature, max_examples=3)[0]
    sequences = [example.sequence for example in store.examples(feature, "top")][:3]
    given = effects.ablate(feature, [store.context(sequence) for sequence in sequences])[0]
    assert own.contexts == 3
    assert own.by_context == given.by_context
    assert own.label == f"label {feature}"
    assert own.firings == int((codes_of(tiny_llama, sae)[sequences, :, feature] > 0).sum())


def test_relative_order_in_an_analysis(sae: SparseAutoencoder, store: FeatureStore) -> None:
    analysis = SAEFeatureExtractor(sae, store=store, progress=QUIET).analyze_features(TEXT, by="relative")
    maximum_F = analysis.names.maxima
    assert maximum_F is not None
    shares = [value / maximum_F[feature] for feature, value in analysis.top_features(4) if maximum_F[feature] > 0]
    assert shares == sorted(shares, reverse=True)
    assert analysis.to_pandas()["label"].str.startswith("label ").all()
