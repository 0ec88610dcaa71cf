"""Tokens: what is kept of them, what they are good for, how long."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from sqlalchemy import select
from tests.unit.zoo.people.conftest import Crowd

from neuronmap.errors import ForbiddenError, InputError, NotInZooError, UnauthorizedError
from neuronmap.zoo.people.principal import ANONYMOUS, LOCAL
from neuronmap.zoo.registry.namespaces import namespace_row
from neuronmap.zoo.tables import tokens, users

SCOPES = ("read", "write", "admin")


def test_the_secret_is_shown_once_and_not_kept(crowd: Crowd) -> None:
    ada = crowd.person("ada")
    made = crowd.tokens.issue(ada, "cluster", ["read"], seconds=3600)
    assert made.token.startswith("nmz_")
    assert len(made.token) == 47  # 32 bytes
    with crowd.database.read() as connection:
        row = connection.execute(select(tokens).where(tokens.c.id == made.id)).one()
    assert made.token[8:] not in str(row)
    assert (made.shown, made.expires is not None, made.used) == (made.token[:8], True, None)
    assert crowd.authenticate(made.token).user_id == ada.user_id
    shown = {one.id: one for one in crowd.tokens.list(ada)}[made.id]
    assert shown.used is not None
    assert not hasattr(shown, "token")


def test_whoever_may_write_may_read(crowd: Crowd) -> None:
    ada = crowd.person("ada")
    for number in range(1, 4):
        for wanted in itertools.combinations(SCOPES, number):
            found = crowd.tokens.issue(ada, "any", wanted).scopes  # type: ignore[arg-type]
            assert set(found) == set(wanted) | {"read"}
    for wrong in ([], ["root"], ["read", "delete"]):
        with pytest.raises(InputError, match="cannot be given"):
            crowd.tokens.issue(ada, "any", wrong)  # type: ignore[arg-type]


def test_a_token_makes_only_weaker_ones(crowd: Crowd) -> None:
    ada = crowd.person("ada")
    crowd.organisations.create(ada, "lab")
    governing = crowd.authenticate(crowd.tokens.issue(ada, "a", ["admin"], namespace="lab").token)
    assert governing.scopes == {"read", "admin"}
    with pytest.raises(ForbiddenError, match="would be able to do more"):
        crowd.tokens.issue(governing, "b", ["write"])
    weaker = crowd.authenticate(crowd.tokens.issue(governing, "c", ["read"]).token)
    assert weaker.namespace_id == governing.namespace_id  # it stays within that namespace
    with pytest.raises(ForbiddenError, match="do not belong"):
        crowd.tokens.issue(governing, "d", ["read"], namespace="ada")
    crowd.organisations.create(crowd.person("eve"), "eves")
    with pytest.raises(ForbiddenError, match="do not belong"):
        crowd.tokens.issue(ada, "e", ["read"], namespace="eves")
    with pytest.raises(NotInZooError):
        crowd.tokens.issue(ada, "f", ["read"], namespace="nobodys")


def test_expired_and_revoked_ones_are_not_good(crowd: Crowd) -> None:
    ada = crowd.person("ada")
    first, second = (crowd.tokens.issue(ada, "any", ["read"], seconds=60) for _ in range(2))
    with crowd.database.write() as connection:
        connection.execute(tokens.update().where(tokens.c.id == first.id).values(expires_at=1.0))
    crowd.tokens.revoke(ada, second.id)
    for one in (first, second):
        with pytest.raises(UnauthorizedError):
            crowd.authenticate(one.token)
        assert one.id not in [shown.id for shown in crowd.tokens.list(ada)]
    with pytest.raises(NotInZooError):
        crowd.tokens.revoke(ada, second.id)
    third = crowd.tokens.issue(ada, "any", ["read"])
    with pytest.raises(NotInZooError):
        crowd.tokens.revoke(crowd.person("eve"), third.id)
    for seconds in (0.0, -1.0, 59.0, 1e10, float("nan")):
        with pytest.raises(InputError, match="a minute to ten years"):
            crowd.tokens.issue(ada, "any", ["read"], seconds=seconds)


@pytest.mark.parametrize(
    "token", ["", "nmz_", "nmz_" + "A" * 43, "nmz_" + "A" * 42, "nmz_" + "é" * 43, "x" * 10_000, "' OR 1=1 --"]
)
def test_other_words_are_no_tokens(crowd: Crowd, token: str) -> None:
    with pytest.raises(UnauthorizedError):
        crowd.authenticate(token)
    with pytest.raises(UnauthorizedError):
        crowd.authenticate(token, session=True)
    crowd.sign_out(token)


def test_use_is_written_down_once_a_minute(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    token = crowd.tokens.issue(crowd.person("ada"), "any", ["read"])
    writes: list[int] = []
    real = crowd.tokens._mark_used
    monkeypatch.setattr(crowd.tokens, "_mark_used", lambda number: (writes.append(number), real(number)))
    for _ in range(3):
        crowd.authenticate(token.token)
    assert writes == [token.id]
    with crowd.database.write() as connection:
        connection.execute(tokens.update().values(used_at=tokens.c.used_at - 61))
    crowd.authenticate(token.token)
    assert writes == [token.id] * 2


def test_an_administrators_power_is_looked_up_each_time(crowd: Crowd) -> None:
    token = crowd.tokens.issue(crowd.person("ada", is_admin=True), "any", ["admin"]).token
    assert crowd.authenticate(token).is_admin
    with crowd.database.write() as connection:
        connection.execute(users.update().values(is_admin=False))
    assert not crowd.authenticate(token).is_admin


def test_nobody_and_an_embedded_zoo_have_no_tokens(crowd: Crowd) -> None:
    with pytest.raises(UnauthorizedError):
        crowd.tokens.issue(ANONYMOUS, "any", ["read"])
    with pytest.raises(ForbiddenError, match="no accounts"):
        crowd.tokens.issue(LOCAL, "any", ["read"])
    bound: Any = crowd.authenticate(
        crowd.tokens.issue(crowd.person("ada", is_admin=True), "x", ["admin"], namespace="ada").token
    )
    with pytest.raises(ForbiddenError):  # an administrator's token for one namespace does not run the server
        bound.require_admin()


def test_running_the_server_counts_only_with_the_scope_admin(crowd: Crowd) -> None:
    grace, eve = crowd.person("grace", is_admin=True), crowd.person("eve")
    assert not eve.governs
    crowd.person("bob")
    with crowd.database.read() as connection:
        bobs = namespace_row(connection, "bob")
        for scopes, governs in ((["read"], False), (["read", "write"], False), (SCOPES, True)):
            holder = crowd.authenticate(crowd.tokens.issue(grace, "any", scopes).token)  # type: ignore[arg-type]
            assert holder.is_admin
            assert holder.governs is governs
            assert [holder.may(connection, scope, bobs.id) for scope in SCOPES] == [governs] * 3  # type: ignore[arg-type]
            if not governs:
                with pytest.raises(ForbiddenError) as refused:
                    holder.require(connection, "read", bobs)
                assert "scope admin" in refused.value.hint
        own = namespace_row(connection, "grace")
        bound = crowd.authenticate(crowd.tokens.issue(grace, "own", SCOPES, namespace="grace").token)
        assert (bound.governs, bound.may(connection, "write", bobs.id)) == (False, False)
        assert bound.may(connection, "write", own.id)
