"""A text of one's own in an address: written out where it fits, kept under its digest where it does not."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlencode

import pytest

from neuronmap.web import own_text as module
from neuronmap.web.errors import WebError
from neuronmap.web.own_text import ADDRESS_CHARACTERS, OwnText, addressed, own_text

LONG = "The river froze. " * 200


def stored(home: Path) -> list[Path]:
    return sorted((home / "typed").glob("*")) if (home / "typed").is_dir() else []


@pytest.mark.parametrize("text", ["", "The river froze.", "a" * ADDRESS_CHARACTERS, "<b>&\n"])
def test_what_fits_stands_in_the_address_and_nowhere_else(home: Path, text: str) -> None:
    assert addressed(text) == OwnText(text)
    assert addressed(text).query == {"text": text}
    assert not stored(home)


@pytest.mark.parametrize("text", [LONG, "é" * 400, "a" * (ADDRESS_CHARACTERS + 1), "\x00" * 700, "日本" * 9_000])
def test_what_does_not_fit_is_kept_and_comes_back_whole(home: Path, text: str) -> None:
    own = addressed(text)
    assert own.text == text
    assert len(urlencode(own.query)) < 60
    assert own_text("", own.kept) == own
    assert [path.name for path in stored(home)] == [f"{own.kept}.txt"]


def test_the_same_text_is_kept_once(home: Path) -> None:
    assert addressed(LONG) == addressed(LONG)
    assert len(stored(home)) == 1


def test_newlines_of_browsers_are_one_character() -> None:
    assert addressed("a\r\nb").text == "a\nb"
    assert addressed(LONG + "\r\n" + LONG) == addressed(LONG + "\n" + LONG)


def test_a_text_in_the_address_counts_more_than_a_digest() -> None:
    assert own_text("short", "0" * 40) == OwnText("short")


def test_a_text_that_is_not_there_is_said_with_what_to_do() -> None:
    with pytest.raises(WebError, match="not kept here") as caught:
        own_text("", "0" * 40)
    assert (caught.value.status, caught.value.code) == (404, "text_not_kept")
    assert "Paste it again" in caught.value.hint


def test_a_file_that_was_changed_is_no_text_of_that_digest(home: Path) -> None:
    own = addressed(LONG)
    (home / "typed" / f"{own.kept}.txt").write_text("something else")
    with pytest.raises(WebError, match="not kept here"):
        own_text("", own.kept)
    assert addressed(LONG) == own


@pytest.mark.parametrize("kept", ["../secret", "/etc/passwd", "A" * 40, "0" * 39, "0" * 41, "0" * 40 + "\n", "."])
def test_only_a_digest_becomes_a_path(home: Path, kept: str) -> None:
    (home / "secret.txt").write_text("hidden")
    with pytest.raises(WebError) as caught:
        own_text("", kept)
    assert caught.value.status == 422


def test_the_texts_that_were_used_longest_ago_go(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 3)
    made = [addressed(f"{LONG}{number}") for number in range(3)]
    for age, own in enumerate(made):
        os.utime(home / "typed" / f"{own.kept}.txt", (1_000 + age, 1_000 + age))
    assert own_text("", made[0].kept) == made[0]  # looked at: now it is the newest
    newest = addressed(f"{LONG}new")
    assert {path.stem for path in stored(home)} == {made[0].kept, made[2].kept, newest.kept}
