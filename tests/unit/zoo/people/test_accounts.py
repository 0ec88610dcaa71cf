"""Accounts, passwords, and the first administrator."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select
from tests.unit.zoo.people.conftest import Crowd

from neuronmap.database import now
from neuronmap.errors import (
    AlreadyExistsError,
    ForbiddenError,
    InputError,
    NotInZooError,
    TooOftenError,
    UnauthorizedError,
)
from neuronmap.zoo.people import passwords
from neuronmap.zoo.people.passwords import check_password, hash_password, is_password
from neuronmap.zoo.people.principal import ANONYMOUS, LOCAL
from neuronmap.zoo.tables import leases, namespaces, tokens, users

GOOD = "four words nobody guesses"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same argon2id with little memory: what is tested here is not how long it takes."""
    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    nobody = hasher.hash("nobody has this password")
    monkeypatch.setattr(passwords, "_hasher", lambda: hasher)
    monkeypatch.setattr(passwords, "_nobodys", lambda: nobody)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", "12 to 256"),
        ("x" * 257, "12 to 256"),
        ("ada-lovelace", "the name"),
        ("ADA-LOVELACE", "the name"),
        ("ada-lovelace2026", "the name"),
        ("aaaaaaaaaaaaaaaa", "again and again"),
        ("abababababababab", "again and again"),
        ("good but a\0zero", "cannot be typed"),
    ],
)
def test_passwords_that_are_refused(password: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as refused:
        check_password("ada-lovelace", password)
    assert password not in str(refused.value)


@pytest.mark.parametrize("password", [GOOD, "ünïcödé pass wörter", "x1" + "y" * 10 + "z", " leading and trailing "])
def test_passwords_that_are_taken(password: str) -> None:
    assert check_password("ada", password) == password


def test_only_a_salted_hash_is_kept(crowd: Crowd) -> None:
    crowd.accounts.create(LOCAL, "ada", password=GOOD)
    crowd.accounts.create(LOCAL, "bob", password=GOOD)
    with crowd.database.read() as connection:
        hashes = connection.scalars(select(users.c.password_hash)).all()
    assert all(one is not None and one.startswith("$argon2id$") and GOOD not in one for one in hashes)
    assert len(set(hashes)) == 2


def test_the_default_hash_costs_what_the_rfc_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert "$m=65536,t=3,p=4$" in hash_password(GOOD)


def test_a_hash_of_older_parameters_is_renewed(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd.accounts.create(LOCAL, "ada", password=GOOD)
    stronger = PasswordHasher(time_cost=2, memory_cost=64, parallelism=1)
    monkeypatch.setattr(passwords, "_hasher", lambda: stronger)
    crowd.sign_in("ada", GOOD)
    with crowd.database.read() as connection:
        kept = connection.scalar(select(users.c.password_hash))
    assert kept is not None
    assert ",t=2," in kept
    assert is_password(GOOD, kept) == (True, None)


def test_an_account_comes_with_its_namespace(crowd: Crowd) -> None:
    crowd.accounts.default_quota = 1000
    made = crowd.accounts.create(LOCAL, "ada", password=GOOD, email="ada@example.org", is_admin=True)
    assert (made.name, made.is_admin, made.disabled, made.elsewhere) == ("ada", True, False, False)
    ada = crowd.person("ada")
    shown = crowd.organisations.show(ada, "ada")
    assert (shown.kind, shown.role, shown.quota_bytes) == ("person", "owner", 1000)
    assert [one.namespace for one in crowd.me(ada).namespaces] == ["ada"]


def test_names_are_never_given_twice(crowd: Crowd) -> None:
    ada = crowd.person("ada", is_admin=True)
    crowd.organisations.create(ada, "lab")
    with crowd.database.write() as connection:
        connection.execute(namespaces.update().where(namespaces.c.name == "lab").values(deleted_at=now()))
    for name in ("ada", "lab"):
        with pytest.raises(AlreadyExistsError, match="taken"):
            crowd.accounts.create(LOCAL, name)
        with pytest.raises(AlreadyExistsError, match="taken"):
            crowd.organisations.create(ada, name)
    for name in ("Ada", "a", "admin", "-ada", "a" * 65, "ada/bob", "ada\0"):
        with pytest.raises(InputError):
            crowd.accounts.create(LOCAL, name)


def test_only_administrators_make_accounts(crowd: Crowd) -> None:
    crowd.person("ada", is_admin=True)
    with pytest.raises(ForbiddenError):
        crowd.accounts.create(crowd.person("bob"), "eve")
    with pytest.raises(UnauthorizedError):
        crowd.accounts.create(ANONYMOUS, "eve")
    with pytest.raises(ForbiddenError):
        crowd.accounts.list(crowd.person("bob"))


def test_signing_in(crowd: Crowd) -> None:
    crowd.accounts.create(LOCAL, "ada", password=GOOD)
    found = crowd.authenticate(crowd.sign_in("ada", GOOD), session=True)
    assert (found.name, found.scopes, found.is_admin) == ("ada", frozenset({"read", "write", "admin"}), False)
    for name, password in (("ada", GOOD + " "), ("ada", ""), ("nobody", GOOD), ("", GOOD), ("ada\0", GOOD)):
        with pytest.raises(UnauthorizedError, match="The name or the password is wrong"):
            crowd.sign_in(name, password)
    crowd.accounts.change(LOCAL, "ada", disabled=True)
    with pytest.raises(UnauthorizedError, match="The name or the password is wrong"):
        crowd.sign_in("ada", GOOD)


def test_who_has_no_password_cannot_sign_in_with_one(crowd: Crowd) -> None:
    crowd.accounts.create(LOCAL, "ada", subject="https://login.example.org 1")
    for password in ("", "nobody has this password", GOOD):
        with pytest.raises(UnauthorizedError):
            crowd.sign_in("ada", password)


def test_wrong_passwords_are_counted_by_address(crowd: Crowd) -> None:
    crowd.accounts.create(LOCAL, "ada", password=GOOD)
    for _ in range(10):
        with pytest.raises(UnauthorizedError):
            crowd.sign_in("ada", "wrong wrong wrong", address="192.0.2.1")
    with pytest.raises(TooOftenError):
        crowd.sign_in("ada", GOOD, address="192.0.2.1")
    assert crowd.sign_in("ada", GOOD, address="192.0.2.2")  # a stranger cannot lock her out of her own place


def test_disabling_ends_sessions_and_tokens(crowd: Crowd) -> None:
    ada = crowd.person("ada")
    token = crowd.tokens.issue(ada, "cluster", ["read"]).token
    session = crowd.tokens.list(ada)[-1]
    assert session.kind == "session"
    crowd.accounts.change(LOCAL, "ada", disabled=True)
    with pytest.raises(UnauthorizedError):
        crowd.authenticate(token)
    crowd.accounts.change(LOCAL, "ada", disabled=False)
    assert crowd.authenticate(token).name == "ada"
    with crowd.database.read() as connection:
        alive = connection.scalars(
            select(tokens.c.id).where(tokens.c.kind == "session", tokens.c.revoked_at.is_(None))
        ).all()
    assert alive == []


def test_nobody_locks_themselves_out(crowd: Crowd) -> None:
    ada = crowd.person("ada", is_admin=True)
    for change in ({"disabled": True}, {"is_admin": False}):
        with pytest.raises(ForbiddenError, match="cannot disable yourself"):
            crowd.accounts.change(ada, "ada", **change)  # type: ignore[arg-type]
    crowd.person("bob")
    assert crowd.accounts.change(ada, "bob", is_admin=True).is_admin
    assert not crowd.accounts.change(crowd.person("bob"), "ada", is_admin=False).is_admin
    with pytest.raises(NotInZooError):
        crowd.accounts.change(LOCAL, "nobody", disabled=True)


def test_changing_ones_password(crowd: Crowd) -> None:
    crowd.accounts.create(LOCAL, "ada", password=GOOD)
    ada = crowd.person("ada")
    with pytest.raises(UnauthorizedError, match="old password"):
        crowd.accounts.set_password(ada, "ada", "another four words", old="wrong")
    with pytest.raises(ForbiddenError):
        crowd.accounts.set_password(crowd.person("bob"), "ada", "another four words", old=GOOD)
    crowd.accounts.set_password(ada, "ada", "another four words", old=GOOD)
    with pytest.raises(UnauthorizedError):
        crowd.sign_in("ada", GOOD)
    assert crowd.sign_in("ada", "another four words")


def test_the_setup_token_is_good_once(crowd: Crowd) -> None:
    old = crowd.accounts.new_setup_token()
    token = crowd.accounts.new_setup_token()
    assert old is not None
    assert token is not None
    assert token.startswith("nmsetup_")
    with crowd.database.read() as connection:
        assert token not in str(connection.scalars(select(leases.c.holder)).all())
    for wrong in (old, token + "x", ""):
        with pytest.raises(ForbiddenError, match="not the setup token"):
            crowd.accounts.set_up(wrong, "ada", GOOD)
    assert crowd.accounts.set_up(token, "ada", GOOD).is_admin
    with pytest.raises(ForbiddenError, match="not the setup token"):
        crowd.accounts.set_up(token, "eve", GOOD)
    assert crowd.accounts.new_setup_token() is None


def test_the_setup_token_ends_with_the_first_account_and_after_a_day(crowd: Crowd) -> None:
    token = crowd.accounts.new_setup_token()
    assert token is not None
    with crowd.database.write() as connection:
        connection.execute(leases.update().values(until=1.0))
    with pytest.raises(ForbiddenError):
        crowd.accounts.set_up(token, "ada", GOOD)
    token = crowd.accounts.new_setup_token()
    assert token is not None
    crowd.accounts.create(LOCAL, "bob", is_admin=True)
    with pytest.raises(ForbiddenError):
        crowd.accounts.set_up(token, "ada", GOOD)


def test_who_comes_from_elsewhere_is_known_by_subject_alone(crowd: Crowd) -> None:
    """Neither name nor e-mail lead to somebody's account: the provider may let anybody choose them."""
    crowd.accounts.create(LOCAL, "ada", password=GOOD, email="ada@example.org")
    session = crowd.sign_in_as("https://login.example.org 7", name="ada", email="ada@example.org")
    assert crowd.authenticate(session, session=True).name == "ada-2"
    again = crowd.sign_in_as("https://login.example.org 7", name="renamed", email="other@example.org")
    assert crowd.authenticate(again, session=True).name == "ada-2"
    for wanted, name in (
        ("Ada L. @ Home", "ada-l"),
        ("admin", "admin-2"),
        ("…", "user-2"),
        ("x", "user-x"),
        ("a" * 300, "a" * 50),
    ):
        made = crowd.sign_in_as(f"https://login.example.org {wanted}", name=wanted)
        assert crowd.authenticate(made, session=True).name == name
    with pytest.raises(ForbiddenError, match="no account"):
        crowd.sign_in_as("https://login.example.org 8", name="joe", may_create=False)
    crowd.accounts.change(LOCAL, "ada-2", disabled=True)
    with pytest.raises(ForbiddenError, match="disabled"):
        crowd.sign_in_as("https://login.example.org 7", name="ada")


def test_an_administrator_links_an_account(crowd: Crowd) -> None:
    crowd.accounts.create(LOCAL, "ada", password=GOOD)
    assert crowd.accounts.change(LOCAL, "ada", subject="https://login.example.org 7").elsewhere
    session = crowd.sign_in_as("https://login.example.org 7", name="somebody", may_create=False)
    assert crowd.authenticate(session, session=True).name == "ada"
    crowd.person("bob")
    with pytest.raises(AlreadyExistsError, match="identity"):
        crowd.accounts.change(LOCAL, "bob", subject="https://login.example.org 7")
    assert not crowd.accounts.change(LOCAL, "ada", subject="").elsewhere
