"""Label sets in files: out of one book, into another, with nothing lost and nothing believed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuronmap.errors import AlreadyExistsError, InputError
from neuronmap.interpretation.labels import Act, Author, Judgement, Label, Retract, Score, Verdict, Vote
from neuronmap.interpretation.labels.book import LabelBook
from neuronmap.interpretation.labels.exchange import Origin, export_acts, merge, read_acts, write_acts

SAE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
ADA, BOB = Author(kind="person", name="Ada"), Author(kind="person", name="Bob")


def moment(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}.000000Z"


def label(feature: int, text: str, author: Author = ADA, second: int = 0) -> Label:
    return Label(sae=SAE, feature=feature, author=author, at=moment(second), text=text, method="by hand")


@pytest.fixture
def books(tmp_path: Path) -> Iterator[tuple[LabelBook, LabelBook]]:
    """Ada's and Bob's."""
    with LabelBook.open(f"sqlite:///{tmp_path}/ada.db") as ada, LabelBook.open(f"sqlite:///{tmp_path}/bob.db") as bob:
        yield ada, bob


def some_acts() -> list[Act]:
    one, two = label(1, "colours"), label(2, "Flüsse “breit”", second=1)
    judged = Judgement(sequence=1, position=2, group="quantile-3", truth=True, said=None)
    return [
        one,
        two,
        Score(
            sae=SAE,
            feature=1,
            author=BOB,
            at=moment(2),
            label=one.id,
            protocol="people@1",
            value=0.5,
            judgements=(judged,),
        ),
        Verdict(sae=SAE, feature=1, author=BOB, at=moment(3), label=one.id, analysis=OTHER, judgement=judged),
        Vote(sae=SAE, feature=2, author=BOB, at=moment(4), label=two.id, value=-1),
        Retract(sae=SAE, feature=1, author=ADA, at=moment(5), act=one.id),
    ]


def state(book: LabelBook) -> tuple[list[Act], list[dict[str, object]]]:
    return list(book.acts()), [held.to_dict() for held in book.labels(SAE)]


def test_a_book_comes_back_whole_and_coming_back_twice_changes_nothing(
    books: tuple[LabelBook, LabelBook], tmp_path: Path
) -> None:
    ada, bob = books
    ada.add(some_acts())
    file = tmp_path / "labels.jsonl"
    assert write_acts(export_acts(ada, SAE), file) == 6
    acts = read_acts(file.read_bytes().splitlines(), SAE)
    report = merge(bob, acts)
    assert (report.read, report.new, report.features, report.pending, report.conflicts) == (6, 6, 2, 0, (2,))
    assert report.by_kind == {"label": 2, "retract": 1, "score": 1, "verdict": 1, "vote": 1}
    assert state(bob) == state(ada)
    again = merge(bob, acts)
    assert (again.new, again.conflicts) == (0, ())
    written = file.read_bytes()
    with pytest.raises(AlreadyExistsError):
        write_acts(export_acts(bob, SAE), file)
    write_acts(export_acts(bob, SAE), file, overwrite=True)
    assert file.read_bytes() == written
    assert file.stat().st_mtime == 1767225605  # as old as the newest act, so that the same set is the same artefact


def test_two_books_that_merge_each_other_say_the_same_and_show_the_conflict(books: tuple[LabelBook, LabelBook]) -> None:
    ada, bob = books
    ada.add([label(1, "colours"), label(2, "rivers")])
    bob.add([label(1, "flowers", BOB, 7)])
    rehearsed = merge(bob, list(ada.acts(SAE)), rehearse=True)
    assert (rehearsed.new, rehearsed.conflicts, rehearsed.rehearsal) == (2, (1,), True)
    assert [act.author for act in bob.acts()] == [BOB]
    done = merge(bob, list(ada.acts(SAE)))
    assert (done.new, done.conflicts) == (2, (1,))
    merge(ada, list(bob.acts(SAE)))
    assert state(ada) == state(bob)
    (conflict,) = ada.conflicts(SAE)
    assert {held.label.text for held in conflict.labels} == {"colours", "flowers"}


def test_what_is_about_labels_that_are_not_there_waits_for_them(books: tuple[LabelBook, LabelBook]) -> None:
    ada, bob = books
    acts = some_acts()
    assert merge(bob, acts[2:]).pending == 4
    assert merge(bob, acts[:2]).pending == 0
    ada.add(acts)
    assert state(bob) == state(ada)


def test_a_choice_can_be_exported(books: tuple[LabelBook, LabelBook]) -> None:
    ada, _ = books
    ada.add(some_acts())
    assert {act["author"]["name"] for act in export_acts(ada, SAE, authors=["Ada"])} == {"Ada"}
    assert {act["kind"] for act in export_acts(ada, SAE, kinds=["label", "vote"])} == {"label", "vote"}
    assert {act["kind"] for act in export_acts(ada, SAE, without_judgements=True)} == {"label", "retract", "vote"}


def test_plain_labels_are_taken_once_as_those_of_a_stated_author(books: tuple[LabelBook, LabelBook]) -> None:
    ada, _ = books
    lines = [
        b'{"feature": 3, "label": "colours", "score": 0.75}',
        b"",
        json.dumps({"feature": 4, "label": "long " * 100, "side": "output", "method": "quantiles@1"}).encode(),
    ]
    plain = Origin(Author(kind="model", name="llm"), "by a model")
    for new in (3, 0):
        assert merge(ada, read_acts(lines, SAE, plain=plain, book=ada)).new == new
    short, long = ada.labels(SAE)
    assert (short.label.text, short.label.author.name, short.label.method) == ("colours", "llm", "by a model")
    assert short.score is not None
    assert (short.score.protocol, short.score.value, short.score.low) == ("stated", 0.75, None)
    assert (long.label.side, long.label.method, long.label.text[-1], len(long.label.text)) == (
        "output",
        "quantiles@1",
        "…",
        200,
    )
    assert long.label.explanation == ("long " * 100).strip()


def test_one_bad_line_and_nothing_is_taken(books: tuple[LabelBook, LabelBook]) -> None:
    good = label(1, "colours").to_dict()
    lines = [
        json.dumps(good).encode(),
        json.dumps({**good, "text": "rivers"}).encode(),
        json.dumps({**label(1, "x").to_dict(), "sae": OTHER, "id": None}).encode(),
        json.dumps(label(99, "beyond").to_dict()).encode(),
        b'{"feature": 1, "label": "plain"}',
        b"[1]",
        b"{",
        b'{"kind": "label", "author": 1}',
        b'"' + b"x" * (1 << 20) + b'"',
    ]
    with pytest.raises(InputError) as found:
        read_acts(lines, SAE, features=64)
    message = str(found.value)
    for said in (
        "8 lines", "line 2: The label", "it was changed", "line 3: it is of the SAE", "line 4: feature 99 is none",
        "line 5: it is a plain label", "line 6: it is no JSON object", "line 7", "line 8", "line 9: it has 1,048,578 bytes",
    ):  # fmt: skip
        assert said in message
