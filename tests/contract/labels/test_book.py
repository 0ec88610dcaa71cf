"""What every book of labels keeps, finds and refuses."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from neuronmap.errors import ConfigError, InputError
from neuronmap.interpretation.labels import (
    Author,
    Comment,
    Flag,
    Judgement,
    Label,
    Listing,
    Retract,
    Score,
    Verdict,
    Vote,
)
from neuronmap.interpretation.labels.book import LabelBook
from neuronmap.interpretation.labels.database import LABELS
from neuronmap.interpretation.labels.tables import metadata

SAE = "sha256:" + "a" * 64
ADA, BOB = Author(kind="person", name="Ada"), Author(kind="person", name="Bob")
MODEL, RULE = Author(kind="model", name="tiny-llm"), Author(kind="rule", name="hints")
_seconds = itertools.count()


def at() -> str:
    """A moment after all before it."""
    number = next(_seconds)
    return f"2026-01-01T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}.000000Z"


def label(feature: int, text: str, author: Author = ADA, **more: Any) -> Label:
    return Label(
        **{"sae": SAE, "feature": feature, "author": author, "at": at(), "text": text, "method": "by hand", **more}
    )


def vote(on: Label, value: int, author: Author = BOB, **more: Any) -> Vote:
    return Vote(
        **{"sae": SAE, "feature": on.feature, "author": author, "at": at(), "label": on.id, "value": value, **more}
    )


def score(on: Label, low: float, protocol: str = "detection@1", author: Author = MODEL) -> Score:
    judged = (Judgement(sequence=3, position=4, group="top", truth=True, said=True),)
    return Score(
        sae=SAE, feature=on.feature, author=author, at=at(), label=on.id, protocol=protocol,
        value=low + 0.1, low=low, high=min(low + 0.2, 1.0), figures={"parsed": 1}, judgements=judged,
    )  # fmt: skip


def retract(act: Any, author: Author | None = None) -> Retract:
    return Retract(sae=SAE, feature=act.feature, author=author or act.author, at=at(), act=act.id)


def texts(book: LabelBook, feature: int | None = None) -> list[str]:
    return [held.label.text for held in book.labels(SAE, feature)]


def test_the_same_label_twice_by_one_author_is_one_act(book: LabelBook) -> None:
    first = label(7, "names of colours", explanation="Red and blue.")
    again = label(7, "names of colours", explanation="Red and blue.")
    assert book.say(first) == first
    assert book.say(again) == first
    assert book.add([again]) == 0
    assert [act.id for act in book.acts(SAE)] == [first.id]

    others = [
        label(7, "names of colours"), label(7, "names of colours", BOB, explanation="Red and blue."),
        label(8, "names of colours", explanation="Red and blue."),
        label(7, "names of colours", side="output", explanation="Red and blue."),
        label(7, "names of colours", explanation="Red and blue.", method="quantiles@1"),
        label(7, "names of colours", explanation="Red and blue.", evidence={"analysis": "x"}),
    ]  # fmt: skip
    assert book.add(others) == len(others), "what differs in anything but the time is said"
    twice = [label(9, "weather"), label(9, "weather")]
    assert book.add(twice) == 1
    assert [held.id for held in book.labels(SAE, 9)] == [twice[0].id], "the first of one batch"


def test_a_label_that_holds_no_more_can_be_given_again(book: LabelBook) -> None:
    first = label(7, "colours")
    book.add([first])
    reworded = book.say(label(7, "names of colours", replaces=first.id))
    assert book.say(label(7, "names of colours", replaces=first.id)) == reworded, "the same new wording"
    assert book.say(label(7, "names of colours", replaces=reworded.id)) == reworded, "reworded as it is"
    back = label(7, "colours")
    assert book.say(back) == back
    book.add([retract(back)])
    anew = label(7, "colours")
    assert book.say(anew) == anew
    assert sorted(texts(book, 7)) == ["colours", "names of colours"]
    instead = label(7, "colours", replaces=reworded.id)
    assert book.say(instead) == instead, "it takes another one's place"


def test_a_label_that_something_is_said_of_in_the_same_breath_is_kept(book: LabelBook) -> None:
    first, again = label(7, "colours"), label(7, "colours")
    book.add([first])
    assert book.add([again, score(again, 0.6)]) == 2


def test_merging_takes_acts_as_they_are(book: LabelBook) -> None:
    first, again = label(7, "colours"), label(7, "colours")
    book.add([first])
    assert book.add([again], merging=True) == 1
    assert len(book.labels(SAE, 7)) == 2


def test_the_migrations_make_the_tables_that_the_code_uses(book: LabelBook) -> None:
    with book.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": LABELS.version_table})
        assert compare_metadata(context, metadata) == []


def test_what_was_added_is_kept_and_given_back_word_for_word(book: LabelBook) -> None:
    first = label(
        7, "names of colours", explanation="Red, blue;\nand “crimson”.", evidence={"cost": 0.25, "seen": [[1, 2]]}
    )
    acts = [
        first,
        vote(first, 1),
        score(first, 0.7),
        Comment(sae=SAE, feature=7, author=BOB, at=at(), text="Also shades?", on=first.id),
        Flag(sae=SAE, feature=7, author=BOB, at=at(), reason="dead on my text"),
        Listing(sae=SAE, feature=7, author=ADA, at=at(), name="bookmarks", note="later"),
    ]
    assert book.add(acts) == 6
    assert book.add(acts) == 0
    assert book.history(SAE, 7) == acts
    assert [book.get(act.id) for act in acts] == acts
    (held,) = book.labels(SAE, 7)
    assert (held.label, held.up, held.down, held.comments, held.conflict) == (first, 1, 0, 1, False)
    assert held.score is not None
    assert (held.score.protocol, held.score.low, held.score.figures) == ("detection@1", 0.7, {"parsed": 1})
    said = book.said(SAE, 7)
    assert [flag.reason for flag in said.flags] == ["dead on my text"]
    assert [one.name for one in said.listings] == ["bookmarks"]
    with pytest.raises(InputError, match="no act"):
        book.get("0" * 32)


def test_a_new_wording_takes_the_place_of_the_old_one_and_votes_stay_with_the_old(book: LabelBook) -> None:
    old = label(1, "colors")
    new = label(1, "names of colours", replaces=old.id)
    book.add([old, vote(old, -1), new])
    (held,) = book.labels(SAE, 1)
    assert (held.label.text, held.down, held.wordings, held.conflict) == ("names of colours", 0, 2, False)
    assert len(book.history(SAE, 1)) == 3


def test_two_wordings_made_on_two_machines_do_not_both_hold(book: LabelBook) -> None:
    old = label(1, "colors")
    here, there = label(1, "colours", replaces=old.id), label(1, "names of colours", replaces=old.id)
    book.add([there, here], merging=True)  # the old one is not known yet
    assert texts(book, 1) == ["names of colours"]
    book.add([old])
    assert texts(book, 1) == ["names of colours"]


def test_taking_a_label_back_takes_its_older_wordings_with_it(book: LabelBook) -> None:
    old = label(1, "colors")
    new = label(1, "names of colours", replaces=old.id)
    book.add([old, new, retract(new)])
    assert texts(book, 1) == []
    assert len(book.history(SAE, 1)) == 3
    book.add([label(1, "flowers")])
    assert texts(book, 1) == ["flowers"]


def test_a_vote_can_be_changed_and_taken_back(book: LabelBook) -> None:
    one = label(1, "colours")
    book.add([one, vote(one, 1), vote(one, -1)])
    (held,) = book.labels(SAE, 1)
    assert (held.up, held.down, held.conflict) == (0, 1, True)
    book.add([vote(one, 0)])
    (held,) = book.labels(SAE, 1)
    assert (held.up, held.down, held.conflict) == (0, 0, False)


def test_ones_own_vote_does_not_count(book: LabelBook) -> None:
    one = label(1, "colours")
    book.add([one, vote(one, 1, ADA), vote(one, 1, MODEL)])
    (held,) = book.labels(SAE, 1)
    assert (held.up, held.down) == (0, 0)


def test_what_makes_no_sense_is_refused_whole(book: LabelBook) -> None:
    one, other = label(1, "colours"), label(2, "rivers")
    book.add([one, other])
    fine = label(3, "stars")
    for wrong, said in (
        (Vote(sae=SAE, feature=1, author=BOB, at=at(), label="0" * 32, value=1), "not in this book"),
        (vote(one, 1, feature=2), "feature 2 is about a label of feature 1"),
        (retract(one, BOB), "Bob cannot take it back"),
        (label(1, "mine", BOB, replaces=one.id), "own labels only"),
        (label(1, "other side", side="output", replaces=one.id), "same side"),
    ):
        with pytest.raises(InputError, match=said):
            book.add([fine, wrong])
    comment = Comment(sae=SAE, feature=1, author=BOB, at=at(), text="hm")
    book.add([comment])
    with pytest.raises(InputError, match="about a label"):
        book.add([Vote(sae=SAE, feature=1, author=BOB, at=at(), label=comment.id, value=1)])
    assert texts(book) == ["colours", "rivers"]


def test_merged_acts_of_unknown_labels_count_when_these_come(book: LabelBook) -> None:
    one = label(1, "colours")
    assert book.add([vote(one, -1), retract(one, BOB)], merging=True) == 2
    assert texts(book) == []
    book.add([one])
    (held,) = book.labels(SAE, 1)
    assert (held.down, held.conflict) == (1, True)  # and Bob's retraction of Ada's label changes nothing


def test_different_labels_by_different_authors_are_a_conflict_and_equal_ones_are_not(book: LabelBook) -> None:
    book.add([label(1, "colours"), label(1, "Colours.", BOB), label(2, "rivers"), label(2, "seas", MODEL)])
    book.add([label(3, "stars"), label(3, "words such as star", BOB, side="output"), label(3, "suns")])
    (found,) = book.conflicts(SAE)
    assert (found.feature, found.side, {held.label.text for held in found.labels}) == (2, "input", {"rivers", "seas"})
    assert [held.label.feature for held in book.labels(SAE, conflict=True)] == [2, 2]
    assert book.summary(SAE)[1:5] == (7, 7, 3, 2)


def test_one_label_a_feature_for_tables(book: LabelBook) -> None:
    voted, scored, unscored = label(1, "voted"), label(1, "scored", MODEL), label(1, "unscored", BOB)
    book.add([scored, score(scored, 0.9), unscored, voted, vote(voted, 1)])
    assert book.best(SAE, [1, 2])[1].label.text == "voted"
    low, high = label(2, "low", MODEL), label(2, "high", Author(kind="model", name="other"))
    book.add([low, high, score(low, 0.6), score(high, 0.7), label(2, "a person's", ADA)])
    assert book.best(SAE, [2])[2].label.text == "high"
    useless, hint, hand = label(3, "no better than chance", MODEL), label(3, "hint", RULE), label(3, "by hand")
    book.add([hint, useless, score(useless, 0.45), hand])
    assert book.best(SAE, [3])[3].label.text == "by hand"
    book.add([vote(hand, -1)])
    assert book.best(SAE, [3])[3].label.text == "no better than chance"
    assert book.best(SAE, [4]) == {}
    assert set(book.best(SAE, range(1000))) == {1, 2, 3}


def test_the_newest_score_of_each_judge_and_protocol_counts(book: LabelBook) -> None:
    one = label(1, "colours", MODEL)
    other = Author(kind="model", name="second judge")
    book.add([one, score(one, 0.9), score(one, 0.6), score(one, 0.5, "fuzzing@1"), score(one, 0.8, author=other)])
    (held,) = book.labels(SAE, 1)
    assert [(item.protocol, item.low) for item in held.scores] == [
        ("detection@1", 0.8),
        ("detection@1", 0.6),
        ("fuzzing@1", 0.5),
    ]


def test_labels_are_filtered_ordered_and_paged(book: LabelBook) -> None:
    made = [label(number, f"label {number % 3}", (ADA, BOB, MODEL)[number % 3]) for number in range(30)]
    book.add([*made, *(score(one, one.feature / 100) for one in made[::2]), vote(made[9], 1, BOB)])
    for sort in ("feature", "-feature", "text", "author", "-score", "score", "-votes", "at"):
        seen: list[str] = []
        after = None
        while page := book.labels(SAE, sort=sort, limit=7, after=after):
            seen += [held.id for held in page]
            after = page[-1].id
        assert seen == [held.id for held in book.labels(SAE, sort=sort)]
        assert len(set(seen)) == 30
    scores = [held.score.value if held.score else -2 for held in book.labels(SAE, sort="-score")]
    assert scores == sorted(scores, reverse=True)
    assert book.labels(SAE, sort="-votes")[0].label.feature == 9
    assert book.count(SAE, author_kind="model") == len(book.labels(SAE, author_kind="model")) == 10
    assert {held.label.feature for held in book.labels(SAE, author="Bob", text="LABEL 1")} == set(range(1, 30, 3))
    assert book.labelled(SAE, "input", BOB) == set(range(1, 30, 3))
    assert all(held.score and held.score.low >= 0.2 for held in book.labels(SAE, min_low=0.2))
    with pytest.raises(ConfigError, match="sorted by"):
        book.labels(SAE, sort="random()")
    with pytest.raises(ConfigError, match="limit"):
        book.labels(SAE, limit=0)


def test_words_are_found_in_any_case_and_signs_mean_themselves(book: LabelBook) -> None:
    book.add(
        [label(1, "Ströme und Flüsse"), label(2, "100% sure"), label(3, "100 sure", explanation="a_b"), label(4, "x")]
    )
    for words, found in (
        ("FLÜSSE ströme", [1]),
        ("100%", [2]),
        ("a_b", [3]),
        ("sure 100", [2, 3]),
        ("axb", []),
        ("", []),
    ):
        assert [held.label.feature for held in book.search(SAE, words)] == found
    assert [held.label.feature for held in book.search(None, "x")] == [4]
    assert book.search("sha256:" + "b" * 64, "x") == []


def test_lists_hold_what_was_put_on_and_not_taken_off(book: LabelBook) -> None:
    def put(feature: int, listed: bool = True, name: str = "bookmarks", author: Author = ADA) -> Listing:
        return Listing(sae=SAE, feature=feature, author=author, at=at(), name=name, listed=listed)

    book.add([put(1), put(2), put(1, False), put(3, name="odd ones"), put(2, author=BOB)])
    assert [(one.author.name, one.feature, one.name) for one in book.lists()] == [
        ("Bob", 2, "bookmarks"), ("Ada", 3, "odd ones"), ("Ada", 2, "bookmarks"),
    ]  # fmt: skip
    assert [one.feature for one in book.lists(author="Ada")] == [3, 2]


def test_answers_of_blind_tasks_are_kept_and_not_shown_with_the_feature(book: LabelBook) -> None:
    one = label(1, "colours")
    said = Judgement(sequence=1, position=2, group="random", truth=False, said=True)
    verdict = Verdict(sae=SAE, feature=1, author=BOB, at=at(), label=one.id, analysis=SAE, judgement=said)
    book.add([one, verdict])
    assert book.history(SAE, 1) == [one]
    assert list(book.acts(SAE, ("verdict",))) == [verdict]


def test_the_version_changes_with_every_act_and_only_then(book: LabelBook) -> None:
    before = book.version()
    one = label(1, "colours")
    book.add([one])
    after = book.version()
    assert before != after
    book.add([one])
    assert book.version() == after
    assert book.version("sha256:" + "b" * 64) == before


def test_several_threads_add_to_one_feature_and_nothing_is_lost(url: str) -> None:
    one = label(1, "colours")
    with LabelBook.open(url) as book:
        book.add([one])
    votes = [vote(one, 1, Author(kind="person", name=f"P{number}")) for number in range(12)]

    def put(act: Vote) -> int:
        with LabelBook.open(url) as mine:
            return mine.add([act])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(put, votes)) == [1] * 12
    with LabelBook.open(url) as book:
        assert book.labels(SAE, 1)[0].up == 12
