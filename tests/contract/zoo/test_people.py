"""People on both databases: accounts, tokens, organisations, stars, comments, collections, the audit log; and two at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.contract.zoo.conftest import Given

from neuronmap.errors import AlreadyExistsError, ForbiddenError, NeuronMapError, UnauthorizedError
from neuronmap.zoo.people.people import People
from neuronmap.zoo.people.principal import LOCAL, Principal
from neuronmap.zoo.people.views import CollectionItem

ISSUER = "https://login.example.org"


@pytest.fixture
def people(given: Given) -> People:
    return People(given.registry.database, default_quota=1 << 40)


def somebody(people: People, name: str, **more: Any) -> Principal:
    """A new account, signed in from elsewhere."""
    people.accounts.create(LOCAL, name, subject=f"{ISSUER} {name}", **more)
    return people.authenticate(people.sign_in_as(f"{ISSUER} {name}", name=name), session=True)


def test_accounts_and_tokens(people: People) -> None:
    setup = people.accounts.new_setup_token()
    assert setup is not None
    ada = somebody(people, "ada", is_admin=True)
    with pytest.raises(ForbiddenError):
        people.accounts.set_up(setup, "eve", "four words nobody guesses")
    assert people.accounts.has_any()
    made = people.tokens.issue(ada, "cluster", ["write"], namespace="ada", seconds=3600)
    found = people.authenticate(made.token)
    assert (found.scopes, found.is_admin, found.namespace_id is not None) == ({"read", "write"}, True, True)
    assert people.me(found).only_namespace == "ada"
    shown = {one.id: one for one in people.tokens.list(ada)}[made.id]
    assert shown.used is not None
    people.tokens.revoke(ada, made.id)
    with pytest.raises(UnauthorizedError):
        people.authenticate(made.token)
    assert people.accounts.change(ada, "ada", email="ada@example.org").email == "ada@example.org"
    session = people.sign_in_as(f"{ISSUER} ada", name="ada")
    people.sign_out(session)
    with pytest.raises(UnauthorizedError):
        people.authenticate(session, session=True)
    assert [user.name for user in people.accounts.list(ada)] == ["ada"]


def test_organisations_and_the_log(people: People) -> None:
    ada, bob = somebody(people, "ada"), somebody(people, "bob")
    people.organisations.create(ada, "lab", "The lab")
    people.organisations.set_member(ada, "lab", "bob", "writer")
    shown = people.organisations.show(bob, "lab")
    assert (shown.role, shown.used_bytes, shown.quota_bytes) == ("writer", 0, 1 << 40)
    assert people.organisations.set_quota(LOCAL, "lab", 10).members is not None
    with pytest.raises(ForbiddenError, match="last owner"):
        people.organisations.remove_member(ada, "lab", "ada")
    people.organisations.remove_member(bob, "lab", "bob")
    lines = people.auditing.lines(ada, namespace="lab").lines
    assert [line.action for line in lines] == ["member", "quota", "member", "namespace"]
    assert lines[0].details == {"user": "bob", "role": None}
    assert {line.target for line in people.auditing.lines(ada).lines} == {"ada", "lab"}
    page = people.auditing.lines(LOCAL, limit=2)
    assert page.next is not None
    assert people.auditing.lines(LOCAL, before=page.next, limit=200).next is None


def test_stars_comments_collections(given: Given, people: People) -> None:
    ada, bob = somebody(people, "ada"), somebody(people, "bob")
    given.publish(by=ada)
    assert people.opinions.star(bob, "ada", "demo").stars == 1
    assert people.opinions.star(ada, "ada", "demo").stars == 2
    assert people.opinions.star(bob, "ada", "demo", on=False).stars == 1
    first = people.opinions.comment(bob, "ada", "demo", "**good** ünïcode 🎉", "1.0")
    assert (first.author, first.version, first.removable) == ("bob", "1.0", True)
    assert people.opinions.comments(ada, "ada", "demo").comments[0].html == "<p><strong>good</strong> ünïcode 🎉</p>\n"
    people.opinions.remove_comment(ada, first.id)
    assert people.opinions.comments(ada, "ada", "demo").comments == ()
    items = [CollectionItem(artefact="ada/demo", note="first")]
    people.collections.create(bob, "bob", "best", title="Best", items=items)
    assert people.collections.show(ada, "bob", "best").items == tuple(items)
    assert [one.items for one in people.collections.list(ada)] == [1]
    given.registry.changing.set_private(ada, "ada", "demo", True)
    assert people.collections.show(bob, "bob", "best").items == ()
    assert [one.items for one in people.collections.list(bob, "bob")] == [0]
    people.collections.remove(bob, "bob", "best")


def at_once(count: int, work: Any) -> list[Any]:
    """Results or errors of several threads that begin together."""

    def one(number: int) -> Any:
        try:
            return work(number)
        except NeuronMapError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_one_name_is_given_once(people: People) -> None:
    found = at_once(6, lambda number: people.accounts.create(LOCAL, "ada"))
    assert sum(isinstance(one, AlreadyExistsError) for one in found) == 5
    found = at_once(6, lambda number: people.sign_in_as(f"{ISSUER} 7", name="grace"))
    assert all(isinstance(one, str) for one in found), found
    assert [user.name for user in people.accounts.list(LOCAL)] == ["ada", "grace"]


def test_an_organisation_keeps_an_owner(people: People) -> None:
    """Two owners who leave at the same moment."""
    owners = [somebody(people, name) for name in ("ada", "bob")]
    people.organisations.create(owners[0], "lab")
    people.organisations.set_member(owners[0], "lab", "bob", "owner")
    found = at_once(2, lambda number: people.organisations.remove_member(owners[number], "lab", owners[number].name))
    assert sorted(type(one).__name__ for one in found) == ["ForbiddenError", "NoneType"]


def test_the_setup_token_makes_one_administrator(people: People) -> None:
    token = people.accounts.new_setup_token()
    assert token is not None
    found = at_once(3, lambda number: people.accounts.set_up(token, f"ada-{number}", "four words nobody guesses"))
    assert sum(isinstance(one, ForbiddenError) for one in found) == 2
    assert len(people.accounts.list(LOCAL)) == 1


def test_stars_are_counted_right_when_many_give_them(given: Given, people: People) -> None:
    crowd = [somebody(people, f"person-{number}") for number in range(6)]
    given.publish(by=crowd[0])
    at_once(6, lambda number: people.opinions.star(crowd[number], crowd[0].name, "demo"))
    assert people.opinions.stars(crowd[0], crowd[0].name, "demo").stars == 6
