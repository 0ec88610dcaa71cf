"""Labels on a team's server: whoever is signed in speaks under the name of their account, and nobody else speaks at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.web.zoo.conftest import Browser, Served
from tests.unit.web.zoo.test_features import publish
from tests.unit.web.zoo.test_pages import sae

from neuronmap.features.storage.store import FeatureStore
from neuronmap.interpretation.labels.book import LabelBook
from neuronmap.web.zoo import COOKIE

FEATURE = "/zoo/ada/small/1.0/features/3"
OWN = {"origin": "http://localhost", "accept": "text/html"}


@pytest.fixture(scope="module")
def store(small_home: Path) -> Path:
    """The analysis that the command line made."""
    return next(one for one in (small_home / "library/first/analyses").iterdir() if not one.name.startswith("."))


@pytest.fixture(scope="module")
def shared(serving: Callable[..., Served], store: Path) -> Served:
    """A server on which everybody may read what is public, with an analysis of ada's."""
    made = serving(anonymous_read=True)
    publish(made.context.registry, store, "small", sae(made.context.registry, "first", "1.0"))
    return made


@pytest.fixture
def book(shared: Served, store: Path, home: Path) -> Iterator[tuple[LabelBook, str]]:
    """This test's book, and the digest of the weights."""
    with FeatureStore.open(store) as opened:
        weights = str(opened.facts["sae"]["weights_digest"])
    yield shared.context.books.writing(), weights
    shared.context.books.close()


def browser(shared: Served, name: str | None = None) -> Browser:
    made = shared.browser()
    made.headers.update(OWN)
    if name is not None:
        made.cookies.set(COOKIE, shared.session(name), domain="localhost.local", path="/")
    return made


def test_two_accounts_label_the_same_feature(shared: Served, book: tuple[LabelBook, str]) -> None:
    labels, weights = book
    ada, bob = browser(shared, "ada"), browser(shared, "bob")
    answer = ada.post(f"{FEATURE}/said", data={"kind": "label", "text": "rivers"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"{FEATURE}#labels")
    first = labels.labels(weights, 3)[0]
    assert (first.label.author.kind, first.label.author.name) == ("person", "ada")
    assert bob.post(f"{FEATURE}/said", data={"kind": "vote", "label": first.id, "value": "-1"}).status_code == 303
    assert bob.post(f"{FEATURE}/said", data={"kind": "retract", "act": first.id}).status_code == 422
    page = bob.get(FEATURE).text
    assert "You speak as <strong>bob</strong>" in page
    assert "Disputed" in page
    assert "rivers" in page
    stranger = browser(shared).get(FEATURE).text
    assert "rivers" in stranger
    assert "Sign in</a> to say something" in stranger
    assert "Add label" not in stranger


def test_strangers_other_sites_and_other_names_are_refused(shared: Served, book: tuple[LabelBook, str]) -> None:
    labels, weights = book
    said = {"kind": "label", "text": "x"}
    assert browser(shared).post(f"{FEATURE}/said", data=said).status_code == 401
    chosen = browser(shared)
    chosen.cookies.set("neuronmap_name", "ada")
    assert chosen.post(f"{FEATURE}/said", data=said).status_code == 401
    ada = browser(shared, "ada")
    assert ada.post(f"{FEATURE}/said", data=said, headers={"origin": "http://evil.example"}).status_code == 403
    assert ada.post(f"{FEATURE}/said", data={**said, "author": "bob"}).status_code == 422
    assert labels.labels(weights, 3) == []
    ada.cookies.set("neuronmap_name", "bob", domain="localhost.local", path="/")
    assert ada.post(f"{FEATURE}/said", data=said).status_code == 303
    assert labels.labels(weights, 3)[0].label.author.name == "ada"
    assert ada.post("/zoo/ada/small/1.0/features/9999/said", data=said).status_code == 404
    assert ada.post("/zoo/ada/none/1.0/features/3/said", data=said).status_code == 404
