"""Processes that want the same at once, on both ways to run a zoo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import LOCAL
from neuronmap.zoo.tables import blobs, publications, versions

PROCESSES = 5
Ordered = Callable[..., list[dict[str, Any]]]


def count(given: Any, table: Any) -> int:
    with given.registry.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(table))


@pytest.mark.parametrize("draft_before", [False, True])
def test_of_many_that_publish_one_label_one_wins(given: Any, processes: Ordered, draft_before: bool) -> None:
    if draft_before:
        given.publish(b"draft", draft=True)
    orders = [{"do": "publish", "version": "1.0", "data": f"content {number}"} for number in range(PROCESSES)]
    answers = processes(given, orders)
    won = [answer["ok"] for answer in answers if "ok" in answer]
    assert len(won) == 1, answers
    assert [answer["error"] for answer in answers if "error" in answer] == ["already_exists"] * (PROCESSES - 1)
    assert given.registry.show(LOCAL, Reference.parse("ada/demo@1.0")).digest == won[0]
    assert count(given, versions) == 1
    assert given.registry.housekeeping.verify().sound


def test_all_that_publish_the_same_succeed_and_it_is_there_once(given: Any, processes: Ordered) -> None:
    answers = processes(given, [{"do": "publish", "version": "1.0", "data": "the same"}] * PROCESSES)
    assert len({answer.get("ok") for answer in answers}) == 1, answers
    assert "ok" in answers[0], answers
    assert (count(given, versions), count(given, blobs)) == (1, 1)
    assert given.registry.housekeeping.verify().sound
    given.registry.housekeeping.collect(dry_run=False, grace=0)
    assert given.registry.housekeeping.verify().sound


def test_an_alias_is_moved_by_one_of_many(given: Any, processes: Ordered) -> None:
    for number in range(PROCESSES + 1):
        given.publish(str(number).encode(), version=f"{number}.0")
    given.registry.changing.set_alias(LOCAL, Reference.parse("ada/demo@0.0"), "production")
    orders = [
        {"do": "move_alias", "reference": f"ada/demo@{number}.0", "expected": "0.0"}
        for number in range(1, PROCESSES + 1)
    ]
    answers = processes(given, orders)
    won = [answer["ok"] for answer in answers if "ok" in answer]
    assert len(won) == 1, answers
    assert [answer["error"] for answer in answers if "error" in answer] == ["mismatch"] * (PROCESSES - 1)
    assert given.registry.show(LOCAL, Reference.parse("ada/demo@production")).label == won[0]
    log = given.registry.changing.alias_log(LOCAL, "ada", "demo")
    assert [(move.before, move.after) for move in log] == [("0.0", won[0]), (None, "0.0")]


def test_publishing_deleting_and_collecting_at_once_loses_nothing(given: Any, processes: Ordered) -> None:
    """Every publication needs the bytes of the version that is deleted; a collector without grace is at work meanwhile."""
    given.publish(b"the same", version="1.0", name="old")
    orders = [
        *({"do": "publish", "version": "1.0", "name": f"new-{number}", "data": "the same"} for number in range(2)),
        {"do": "delete", "reference": "ada/old@1.0"},
        *({"do": "collect"} for _ in range(2)),
    ]
    answers = processes(given, orders)
    assert answers[2]["ok"] == "deleted"
    for number, answer in enumerate(answers[:2]):
        # A collector without grace may take the bytes between two steps of a publication that did not send them, or the pieces of one that
        # did, or a file while it is written (servers refuse a grace below two weeks): then it says so, and nothing is published.
        assert "ok" in answer or answer.get("error") in ("invalid_manifest", "damaged", "unwritable"), answers
        if "ok" in answer:
            found = given.registry.blob(LOCAL, Reference.parse(f"ada/new-{number}@1.0"), "a.txt")
            assert b"".join(found[2]) == b"the same"
    assert all("ok" in answer or answer["error"] == "resource" for answer in answers[3:]), answers
    assert given.registry.housekeeping.verify().sound


def test_processes_that_open_a_new_zoo_at_once_make_its_tables_once(
    given: Any, processes: Ordered, tmp_path: Path, request: Any
) -> None:
    url = f"sqlite:///{tmp_path / 'new.sqlite3'}"
    if not given.url.startswith("sqlite"):
        url = request.getfixturevalue("new_database")()
    orders = [
        {"do": "publish", "late": True, "url": url, "name": f"a{number}", "version": "1.0", "data": f"{number}{number}"}
        for number in range(3)
    ]
    answers = processes(given, orders)
    assert all("ok" in answer for answer in answers), answers
    assert count(given, publications) == 0
