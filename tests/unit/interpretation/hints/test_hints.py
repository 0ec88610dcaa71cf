"""Hints find the rules that features were planted with, score them on other documents, and claim nothing about noise."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from planted import Planted
from synthetic import Text, Words, state_of

from neuronmap.errors import InputError, MismatchError
from neuronmap.features.storage.schema import arrow_schema
from neuronmap.interpretation import Rule, TokenTraits, make_hints
from neuronmap.interpretation.hints.evidence import Halves
from neuronmap.interpretation.hints.reading import in_score_half, read_text
from neuronmap.interpretation.hints.topics import window_shares
from neuronmap.progress import SilentProgress

EXPECTED = {
    "the": ("token", "token ' the'"),
    "three words": ("tokens", None),
    "digits": ("number", "numbers"),
    "of the": ("n-gram", "' of' then ' the'"),
    "in of the": ("n-gram", "' in' then ' of' then ' the'"),
    "after of": ("n-gram", "after ' of'"),
    "position 1": ("positional", "position 1"),
    "early": ("positional", "positions 0 to 7"),
    "document start": ("first-token", "start of document"),
    "line start": ("first-token", "start of line"),
    "ing": ("suffix", "words ending in 'ing'"),
    "ing or ed": ("suffix", None),
    "names": ("capitalised", "capitalised words"),
    "capitals": ("capitalised", "words in CAPITALS"),
    "punctuation": ("punctuation", "punctuation"),
    "newline": ("token", "token '↵'"),
    "cyrillic": ("language", "Cyrillic script"),
    "topic window": ("topic", None),
    "pairs again": ("copy", "repeated pairs (induction)"),
    "before a city": ("say", None),
}
FIGURES = ("precision", "recall", "f1")


@pytest.mark.parametrize("name", EXPECTED)
def test_a_planted_rule_is_found_and_scores_near_one(planted: Planted, name: str) -> None:
    row, (firing_class, label) = planted.rows[name], EXPECTED[name]
    assert row["class"] == firing_class
    assert label is None or row["label"] == label
    assert 0 < len(row["label"]) <= 40
    assert min(row[figure] for figure in FIGURES) >= 0.97


def test_lists_name_what_was_planted(planted: Planted) -> None:
    def texts(name: str) -> set[str]:
        return {planted.vocabulary.text_of(token) for token in Rule.from_json(planted.rows[name]["rule_json"]).tokens}

    assert texts("three words") == {" Paris", " tree", " open"}
    assert texts("topic window") == {" war", " army", " enemy", " soldier"}
    assert texts("before a city") == {" Rome", " Berlin"}
    assert planted.rows["before a city"]["output_label"] == "promotes ' Rome', ' Berlin'"


def test_a_rule_that_is_half_right_says_so(planted: Planted) -> None:
    row = planted.rows["the, half of them"]
    assert row["label"] == "token ' the'"
    assert row["precision_low"] < 0.5 < row["precision_high"]
    assert row["recall"] == 1.0
    assert row["f1"] == pytest.approx(2 * row["precision"] / (1 + row["precision"]), rel=1e-5)


def test_topics_are_found_where_documents_fire(planted: Planted) -> None:
    row = planted.rows["topic documents"]
    assert row["class"] == "topic"
    assert row["f1"] > 0.75


def test_noise_gets_no_label_and_a_held_out_f1_near_zero(planted: Planted) -> None:
    row = planted.rows["random"]
    assert (row["class"], row["label"]) == ("none", "")
    assert row["f1"] < 0.05
    assert "no rule reaches" in row["note"]


def test_dense_noise_is_dense(planted: Planted) -> None:
    row = planted.rows["half of all"]
    assert (row["class"], row["label"]) == ("dense", "fires on 50% of tokens")
    assert row["precision"] == pytest.approx(0.5, abs=0.02)


def test_too_few_firings_are_said(planted: Planted) -> None:
    row = planted.rows["few"]
    assert 0 < row["positives"] < 10
    assert f"too few firings ({row['positives']} held out, " in row["note"]


def test_a_feature_that_never_fired_has_no_figures(planted: Planted) -> None:
    row = planted.rows["never"]
    assert (row["class"], row["note"], row["rule"], row["rule_json"]) == ("none", "never fired", "", "")
    assert all(row[f"{figure}{end}"] is None for figure in FIGURES for end in ("", "_low", "_high"))


def test_the_table_is_of_the_schema_and_holds_no_nan(planted: Planted) -> None:
    assert planted.table.schema == arrow_schema("hints")
    assert planted.table["feature"].to_pylist() == list(range(len(planted.names)))
    for row in planted.rows.values():
        for figure in FIGURES:
            value, low, high = row[figure], row[f"{figure}_low"], row[f"{figure}_high"]
            assert value is None or (0 <= low <= value <= high <= 1 and math.isfinite(value))


def test_figures_are_those_of_the_stored_rule_by_plain_counting(planted: Planted) -> None:
    """Precision, recall, F1 and the counts from ``Rule.predict`` on the score half's firings and rows, one by one."""
    traits = TokenTraits(planted.vocabulary)
    text, state = planted.text, planted.state
    fit_or_score = np.array([in_score_half(text.document_id(d)) for d in range(text.document_CT.max() + 1)])
    scored_CT = (text.document_CT >= 0) & fit_or_score[text.document_CT]
    sampled_CT = np.zeros(text.ids_CT.shape, bool)
    sampled_CT[state.sample.sequence_N, state.sample.position_N] = True
    for index, name in enumerate(planted.names):
        row = planted.rows[name]
        if not row["rule_json"]:
            continue
        called_CT = Rule.from_json(row["rule_json"]).predict(text.ids_CT, traits, starts_BT=text.position_CT == 0)
        drawn = state.features["sample"][index, : state.features["sample_count"][index]]
        place = drawn["sequence"].astype(int), drawn["position"].astype(int)
        held_out = scored_CT[place]
        rows_CT = sampled_CT & scored_CT
        silent_CT = rows_CT & ~planted.fires[name]
        firings = int(state.features["firings"][index])
        recall = called_CT[place][held_out].mean()
        true = recall * firings
        false = (called_CT & silent_CT).sum() / silent_CT.sum() * (state.rows - firings)
        assert row["positives"] == held_out.sum(), name
        assert row["predicted"] == (called_CT & rows_CT).sum(), name
        assert row["recall"] == pytest.approx(recall), name
        assert row["precision"] == pytest.approx(true / (true + false), rel=1e-5), name
        assert row["f1"] == pytest.approx(2 * true / (firings + true + false), rel=1e-5), name


def test_the_estimate_is_close_to_the_truth_on_all_rows(planted: Planted) -> None:
    traits = TokenTraits(planted.vocabulary)
    kept_CT = planted.text.ids_CT != 0
    for name in ("the, half of them", "topic documents", "half of all"):
        row = planted.rows[name]
        called = Rule.from_json(row["rule_json"]).predict(planted.text.ids_CT, traits)[kept_CT]
        fires = planted.fires[name][kept_CT]
        truth = {"precision": (called & fires).sum() / called.sum(), "recall": (called & fires).sum() / fires.sum()}
        for figure, value in truth.items():
            assert row[f"{figure}_low"] <= value + 1e-6, (name, figure)
            assert value <= row[f"{figure}_high"] + 1e-6, (name, figure)


def test_rules_do_not_see_the_score_half(planted: Planted) -> None:
    """What fires in the score half may be changed at will; the rules stay."""
    reading = read_text(planted.state, planted.text, TokenTraits(planted.vocabulary))
    length = planted.text.context_length
    documents = planted.text.document_CT.reshape(-1)
    in_documents = documents >= 0
    drawn = np.array([in_score_half(f"text.jsonl:{d}") for d in range(documents.max() + 1)])
    assert (reading.score_M[in_documents] == drawn[documents[in_documents]]).all()
    fit_units, score_units = (set(reading.unit_M[reading.score_M == side].tolist()) for side in (False, True))
    assert fit_units
    assert score_units
    assert not fit_units & score_units

    sample = planted.state.sample
    scored_N = reading.score_M[sample.sequence_N.astype(int) * length + sample.position_N]
    entries_N = np.where(scored_N, 0, np.diff(sample.offset_N))
    kept_E = np.repeat(~scored_N, np.diff(sample.offset_N))
    silenced = dataclasses.replace(
        sample,
        offset_N=np.concatenate([[0], np.cumsum(entries_N)]),
        feature_E=sample.feature_E[kept_E],
        value_E=sample.value_E[kept_E],
    )
    state = dataclasses.replace(planted.state, sample=silenced)
    changed = make_hints(state, planted.text, planted.vocabulary, promoted=planted.promoted, progress=SilentProgress())
    assert changed["rule_json"].to_pylist() == planted.table["rule_json"].to_pylist()
    assert changed["precision"].to_pylist() != planted.table["precision"].to_pylist()


def test_the_same_state_gives_the_same_table(planted: Planted) -> None:
    assert planted.hints().equals(planted.table)


def test_blocks_of_features_do_not_matter(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuronmap.interpretation.hints.making.BLOCK", 5)
    monkeypatch.setattr("neuronmap.interpretation.hints.matching._MOST_CALLED", 1000)
    assert planted.hints().equals(planted.table)


def test_one_document_is_split_by_blocks_of_contexts() -> None:
    words = Words(["<|end|>", " the", *(f" word{number}" for number in range(50))])
    ids = np.random.default_rng(1).integers(1, words.size, 64 * 400)
    text = Text([ids.tolist()], 64)
    state = state_of((text.ids_CT == 1)[None], text, words.size, sampled_contexts=300)
    row = make_hints(state, text, words, progress=SilentProgress()).to_pylist()[0]
    assert row["label"] == "token ' the'"
    assert "halves are blocks of contexts" in row["note"]
    assert row["f1"] == pytest.approx(1.0)


@pytest.mark.parametrize("sampled_contexts", [0, 1, 2])
def test_a_tiny_coded_sample_gives_wide_intervals_or_null(sampled_contexts: int) -> None:
    words = Words(["<|end|>", " the", *(f" word{number}" for number in range(50))])
    ids = np.random.default_rng(1).integers(1, words.size, (40, 300))
    text = Text(ids.tolist(), 16)
    fires = np.stack([text.ids_CT == 1, text.ids_CT == 2, text.ids_CT == 99])
    state = state_of(fires, text, words.size, sampled_contexts=sampled_contexts)
    table = make_hints(state, text, words, progress=SilentProgress())
    row = table.to_pylist()[0]
    assert row["recall"] == pytest.approx(1.0)
    assert row["precision"] is None or row["precision_low"] < 0.9
    if sampled_contexts == 0:
        assert (row["precision"], row["f1"], row["predicted"]) == (None, None, 0)


def test_without_promoted_tokens_there_is_no_output_side(planted: Planted) -> None:
    table = make_hints(planted.state, planted.text, planted.vocabulary, progress=SilentProgress())
    assert set(table["output_label"].to_pylist()) == {""}
    assert "say" not in table["class"].to_pylist()


def test_other_tokens_and_other_features_are_refused(planted: Planted) -> None:
    shorter = Text([[1, 2, 3] * 100], 64)
    with pytest.raises(MismatchError, match="the tokens given are 4 of 64"):
        make_hints(planted.state, shorter, planted.vocabulary)
    with pytest.raises(MismatchError, match="the vocabulary given has tokens 0 to 2"):
        make_hints(planted.state, planted.text, Words(["a", "b", "c"]), progress=SilentProgress())
    with pytest.raises(InputError, match=r"shape \(3, 2\); there are 26 features"):
        make_hints(
            planted.state, planted.text, planted.vocabulary, promoted=(planted.promoted[0][:3], planted.promoted[1])
        )


def test_a_word_that_stands_at_masked_places_only_has_a_share(planted: Planted) -> None:
    traits = TokenTraits(planted.vocabulary)
    reading = read_text(planted.state, planted.text, traits)
    fit, _ = Halves(planted.state, reading, traits.size).block(0, 0)
    none = dataclasses.replace(
        fit, place_N=fit.place_N[:0], tokens_V=np.where(np.arange(traits.size) == 3, 0, fit.tokens_V)
    )
    share_V = window_shares(none, traits)
    assert (share_V > 0).all()
    assert (share_V <= 1).all()
