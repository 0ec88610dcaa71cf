"""Merging is the union: in any order, in any pieces, as often as one likes, the same acts say the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronmap.errors import ConfigError, InputError
from neuronmap.interpretation.labels import Act, Author, Comment, Flag, Label, Retract, Vote, read_act
from neuronmap.interpretation.labels.held import Standing, held_labels

SAE = "sha256:" + "a" * 64
AUTHORS = [Author(kind="person", name=name) for name in ("Ada", "Bob")] + [Author(kind="model", name="llm")]


@st.composite
def books(draw: st.DrawFn) -> list[Act]:
    """Acts about one feature: labels, new wordings (also of labels by others), votes, flags, retractions (also of others' acts)."""
    made: list[Act] = []
    for number in range(draw(st.integers(1, 12))):
        shared: dict[str, Any] = {
            "sae": SAE,
            "feature": 3,
            "author": draw(st.sampled_from(AUTHORS)),
            "at": f"2026-01-01T00:00:{draw(st.integers(0, 3)):02d}.000000Z",
        }
        earlier = [act.id for act in made]
        kind = draw(st.sampled_from(["label", "vote", "flag", "retract", "comment"])) if earlier else "label"
        if kind == "label":
            older = draw(st.sampled_from([None, *earlier]))
            side = draw(st.sampled_from(["input", "output"]))
            made.append(Label(**shared, side=side, text=f"text {number % 3}", method="by hand", replaces=older))
        elif kind == "vote":
            made.append(Vote(**shared, label=draw(st.sampled_from(earlier)), value=draw(st.sampled_from([-1, 0, 1]))))
        elif kind == "flag":
            made.append(Flag(**shared, on=draw(st.sampled_from(earlier)), reason="wrong", raised=draw(st.booleans())))
        elif kind == "comment":
            made.append(Comment(**shared, text=f"remark {number}"))
        else:
            made.append(Retract(**shared, act=draw(st.sampled_from(earlier))))
    return made


def state(acts: list[Act]) -> list[dict[str, Any]]:
    distinct = {act.id: act for act in acts}
    return [held.to_dict() for held in held_labels(Standing(distinct.items()))]


@settings(max_examples=150, deadline=None)
@given(books(), st.randoms(use_true_random=False))
def test_any_order_gives_the_same_labels(acts: list[Act], random: Any) -> None:
    shuffled = [*acts, *random.sample(acts, len(acts) // 2)]
    random.shuffle(shuffled)
    assert state(shuffled) == state(acts)


@settings(max_examples=100, deadline=None)
@given(books())
def test_what_holds_is_one_of_what_was_said_and_others_labels_survive_a_retraction(acts: list[Act]) -> None:
    distinct = {act.id: act for act in acts}
    for held in held_labels(Standing(distinct.items())):
        assert distinct[held.id] == held.label
        own = [act for act in distinct.values() if isinstance(act, Retract) and act.act == held.id]
        assert all(act.author != held.label.author for act in own)
    by_author = {act.author for act in distinct.values() if isinstance(act, Label)}
    for author in by_author:
        of_others = [act for act in distinct.values() if act.author != author]
        for held in state(of_others):  # leaving one author out changes nobody else's labels
            assert any(one["label"]["id"] == held["label"]["id"] for one in state(list(distinct.values())))


def test_an_act_whose_id_is_forged_is_refused() -> None:
    label = Label(
        sae=SAE, feature=3, author=AUTHORS[0], at="2026-01-01T00:00:00.000000Z", text="colours", method="by hand"
    )
    said = label.to_dict()
    assert read_act(said) == label
    for field, value in (
        ("text", "rivers"),
        ("author", {"kind": "person", "name": "Bob"}),
        ("feature", 4),
        ("id", "0" * 32),
    ):
        with pytest.raises(InputError, match="changed"):
            read_act({**said, field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", "   "),
        ("text", ""),
        ("text", "a\nb"),
        ("text", "bell \x07"),
        ("text", "half \ud800"),
        ("text", "x" * 201),
        ("explanation", "\x00"),
        ("at", "yesterday"),
        ("sae", "demo"),
        ("feature", -1),
        ("evidence", {"x": float("nan")}),
        ("evidence", {"x": "\ud800"}),
        ("evidence", {"x": "y" * 70_000}),
        ("author", {"kind": "god", "name": "x"}),
        ("surprise", 1),
        (1, "no field"),
    ],
)
def test_an_act_that_no_database_or_terminal_bears_is_refused_with_a_sentence(field: Any, value: Any) -> None:
    said = {
        "kind": "label", "sae": SAE, "feature": 3, "author": {"kind": "person", "name": "Ada"},
        "at": "2026-01-01T00:00:00.000000Z", "text": "colours", "method": "by hand",
    }  # fmt: skip
    assert isinstance(read_act(said), Label)
    with pytest.raises((ConfigError, InputError)):
        read_act({**said, field: value})


@pytest.mark.parametrize("said", [None, [], "label", {}, {"kind": []}, {"kind": "opinion"}])
def test_what_is_no_act_is_refused(said: Any) -> None:
    with pytest.raises(InputError):
        read_act(said)
