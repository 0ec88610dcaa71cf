"""Krippendorff's alpha: against published worked examples, against its definition pair by pair, and at its limits."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronmap.interpretation.labels import Author, Judgement, Verdict
from neuronmap.interpretation.labels.agreement import (
    Asked,
    agreement_of,
    krippendorff_alpha,
    verdict_agreement,
    verdict_units,
)

SHA = "sha256:" + "a" * 64


def units(*rows: str) -> list[list[str]]:
    """A row a reviewer, a column a unit; a point is a missing answer."""
    return [[answer for answer in column if answer != "."] for column in zip(*rows, strict=True)]


def by_definition(answered: Sequence[Sequence[Hashable]]) -> float | None:
    """1 - Do / De over all pairs: within units for observed, among all pairable answers for expected disagreement."""
    pairable = [answers for answers in answered if len(answers) > 1]
    flat = [answer for answers in pairable for answer in answers]
    observed = 0.0
    for answers in pairable:
        pairs = [(a, b) for i, a in enumerate(answers) for j, b in enumerate(answers) if i != j]
        observed += sum(a != b for a, b in pairs) / (len(answers) - 1)
    expected = (
        sum(a != b for i, a in enumerate(flat) for j, b in enumerate(flat) if i != j) / (len(flat) - 1)
        if len(flat) > 1
        else 0
    )
    return 1 - observed / expected if expected else None


def test_the_worked_examples_of_krippendorff_2011() -> None:
    """Computing Krippendorff's Alpha-Reliability (2011): A binary, B nominal, C nominal with missing answers by four observers."""
    binary = units("0100000010", "1110010000")
    assert krippendorff_alpha(binary) == pytest.approx(0.095, abs=5e-4)
    nominal = units("aabbdcccedda", "babbbcccoddd".replace("o", "e"))
    assert krippendorff_alpha(nominal) == pytest.approx(0.692, abs=5e-4)
    missing = units("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    assert krippendorff_alpha(missing) == pytest.approx(0.743, abs=5e-4)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from("yn?"), max_size=5), max_size=12))
def test_it_is_its_definition(answered: list[list[str]]) -> None:
    found, wanted = krippendorff_alpha(answered), by_definition(answered)
    assert (found is None) == (wanted is None)
    if found is not None:
        assert found == pytest.approx(wanted)
        assert found <= 1 + 1e-12
        assert krippendorff_alpha(answered, [1.0] * len(answered)) == pytest.approx(found)
        assert krippendorff_alpha(answered[::-1]) == pytest.approx(found)


def test_perfect_chance_and_systematic_disagreement() -> None:
    assert krippendorff_alpha(["yy", "nn", "yy"]) == 1.0
    assert krippendorff_alpha(["yn", "ny", "yn", "ny"]) == pytest.approx(1 - 7 * 8 / (64 - 32))
    rng = np.random.default_rng(0)
    assert abs(krippendorff_alpha(rng.choice(["y", "n"], (4000, 3)).tolist()) or 1) < 0.03
    assert krippendorff_alpha(["y", "n", ""]) is None
    assert krippendorff_alpha(["yy", "yyy"]) is None


def test_the_interval_holds_the_value_and_the_truth_narrows_with_units_and_is_the_same_each_time() -> None:
    def drawn(number: int, seed: int) -> dict[Hashable, dict[str, Hashable]]:
        """Two reviewers who each tell the truth nine times of ten: alpha is 1 - 2 * 0.18 in the long run."""
        rng = np.random.default_rng(seed)
        truth = rng.random(number) < 0.5
        said = [np.where(rng.random(number) < 0.9, truth, ~truth) for _ in range(2)]
        return {at: {"Ada": bool(said[0][at]), "Bob": bool(said[1][at])} for at in range(number)}

    few, many = agreement_of(drawn(60, 1), resamples=300), agreement_of(drawn(600, 1), resamples=300)
    for found in (few, many):
        assert found.low is not None
        assert found.high is not None
        assert found.alpha is not None
        assert found.low < found.alpha < found.high
        assert found.low < 0.64 < found.high
        assert (found.reviewers, found.note) == (2, "")
    assert few.low is not None
    assert few.high is not None
    assert many.low is not None
    assert many.high is not None
    assert many.high - many.low < 0.5 * (few.high - few.low)
    assert agreement_of(drawn(60, 1), resamples=300) == few
    inside = sum(
        bool(one.low is not None and one.high is not None and one.low <= 0.64 <= one.high)
        for one in (agreement_of(drawn(120, seed), resamples=200) for seed in range(40))
    )
    assert inside >= 34  # 95 % of 40 is 38


def test_what_cannot_be_compared_is_said() -> None:
    alone = agreement_of({1: {"Ada": True}, 2: {"Ada": False}})
    assert (alone.alpha, alone.units, alone.reviewers) == (None, 0, 0)
    assert "two reviewers" in alone.note
    same = agreement_of({1: {"Ada": True, "Bob": True}})
    assert (same.alpha, same.answers) == (None, 2)
    assert "the same" in same.note


def verdict(
    name: str, position: int, said: bool | None, group: str = "top", feature: int = 1, minute: int = 0
) -> Verdict:
    judged = Judgement(sequence=1, position=position, group=group, truth=True, said=said)
    at, author = f"2026-01-01T00:{minute:02}:00.000000Z", Author(kind="person", name=name)
    label = f"{feature:032x}"
    return Verdict(sae=SHA, feature=feature, author=author, at=at, label=label, analysis=SHA, judgement=judged)


def test_cannot_tell_is_no_answer_and_each_question_is_a_unit() -> None:
    found = verdict_units(
        [verdict("Ada", 1, True), verdict("Bob", 1, None), verdict("Ada", 2, False), verdict("Bob", 2, True),
         verdict("Bob", 2, True, "shuffled-4-top"), verdict("Ada", 3, True), verdict("Ada", 3, None, minute=1)]
    )  # fmt: skip
    assert sorted(sorted(one.items()) for one in found.values()) == [
        [], [("Ada", False), ("Bob", True)], [("Ada", True)], [("Bob", True)],
    ]  # fmt: skip
    assert {asked.feature for asked in found if isinstance(asked, Asked)} == {1, 4}, (
        "a shuffled label's passage is another's"
    )


def test_the_interval_of_verdicts_resamples_whole_features() -> None:
    """Twelve questions about each feature, on which two reviewers agree always or never, as the label is: as many questions that were
    independent would tell far more."""
    verdicts = []
    for feature in range(8):
        for position in range(12):
            said = position % 2 == 0
            verdicts.append(verdict("Ada", position, said, feature=feature))
            verdicts.append(verdict("Bob", position, said if feature % 2 else not said, feature=feature))
    found, alone = verdict_agreement(verdicts), agreement_of(verdict_units(verdicts))
    assert found.alpha == alone.alpha == pytest.approx(0.0, abs=0.01)
    assert (found.units, found.clusters, alone.clusters) == (96, 8, 96)
    assert found.low is not None
    assert found.high is not None
    assert alone.low is not None
    assert alone.high is not None
    # the share of features they agree on, twice it less 1: +-1.96 * 2 sqrt(0.25 / 8) and sqrt(12) less
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2 * (0.25 / 8) ** 0.5, rel=0.2)
    assert (found.high - found.low) / (alone.high - alone.low) == pytest.approx(12**0.5, rel=0.25)


def test_three_features_are_too_few_for_an_interval() -> None:
    verdicts = [
        verdict(name, position, (position + feature) % 2 == 0 or name == "Bob", feature=feature)
        for feature in range(3) for position in range(6) for name in ("Ada", "Bob")
    ]  # fmt: skip
    found = verdict_agreement(verdicts)
    assert found.alpha is not None
    assert (found.low, found.high, found.clusters) == (None, None, 3)
    assert "3 of at least 4" in found.note
