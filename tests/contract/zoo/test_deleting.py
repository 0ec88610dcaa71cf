"""Who may delete a version, and what those are told who may not; the roles are those of docs/how-to/run-a-zoo.md."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from neuronmap.errors import ForbiddenError, NotInZooError, UnauthorizedError
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import ANONYMOUS, LOCAL
from neuronmap.zoo.tables import audit, namespaces

PUBLIC, PRIVATE, DRAFT = (Reference.parse(f"ada/{name}@1.0") for name in ("public", "private", "draft"))
KINDS = (PUBLIC, PRIVATE, DRAFT)


@pytest.fixture
def people(given: Any) -> dict[str, Any]:
    """Everybody who could ask; in ada's namespace lies a version that is public, one that is private, and a draft."""
    found = {name: given.person(name) for name in ("ada", "reader", "writer", "stranger")}
    found |= {"root": given.person("root", admin=True), "local": LOCAL, "anonymous": ANONYMOUS}
    given.join(found["reader"], "ada", "reader")
    given.join(found["writer"], "ada", "writer")
    with given.registry.database.read() as connection:
        elsewhere = connection.scalar(select(namespaces.c.id).where(namespaces.c.name == "stranger"))
    scopes = frozenset({"read", "write"})
    found |= {
        "ada without admin": replace(found["ada"], scopes=scopes),
        "ada elsewhere": replace(found["ada"], namespace_id=elsewhere),
        "ada who reads": replace(found["ada"], scopes=frozenset({"read"})),
        "root without admin": replace(found["root"], scopes=scopes),
        "root elsewhere": replace(found["root"], namespace_id=elsewhere),
    }
    given.publish(b"1", by=found["ada"], name="public")
    given.publish(b"2", by=found["ada"], name="private", private=True)
    given.publish(b"3", by=found["ada"], name="draft", draft=True)
    return found


UNKNOWN = (NotInZooError, "ada/")
ACCOUNT = (UnauthorizedError, "needs an account")
SCOPE = (ForbiddenError, "scopes read, write; this needs 'admin'")
OWNERS = (ForbiddenError, "may not govern what belongs to ada.*this is for its owners")
ELSEWHERE = (ForbiddenError, "is for one namespace alone, which is not ada")
ADMINISTRATOR = (ForbiddenError, "this needs 'admin'")


@pytest.mark.parametrize(
    ("who", "public", "private", "draft"),
    [
        ("anonymous", ACCOUNT, UNKNOWN, UNKNOWN),
        ("stranger", OWNERS, UNKNOWN, UNKNOWN),
        ("reader", OWNERS, OWNERS, UNKNOWN),
        ("writer", OWNERS, OWNERS, None),
        ("ada who reads", (ForbiddenError, "scopes read; this needs 'admin'"), (ForbiddenError, "'admin'"), UNKNOWN),
        ("ada without admin", SCOPE, SCOPE, None),
        ("ada elsewhere", ELSEWHERE, UNKNOWN, UNKNOWN),
        ("ada", None, None, None),
        ("root without admin", ADMINISTRATOR, UNKNOWN, UNKNOWN),
        ("root elsewhere", ELSEWHERE, UNKNOWN, UNKNOWN),
        ("root", None, None, None),
        ("local", None, None, None),
    ],
)
def test_who_may_delete(given: Any, people: dict[str, Any], who: str, public: Any, private: Any, draft: Any) -> None:
    for reference, refused in zip(KINDS, (public, private, draft), strict=True):
        if refused is None:
            assert given.registry.changing.delete(people[who], reference, "x").state == "deleted"
            continue
        kind, said = refused
        with pytest.raises(kind) as caught:
            given.registry.changing.delete(people[who], reference, "x")
        assert re.search(said, f"{caught.value.message} {caught.value.hint}"), caught.value
        assert given.registry.show(LOCAL, reference).state == ("draft" if reference is DRAFT else "published")


def test_a_tombstone_keeps_its_reason(given: Any, people: dict[str, Any]) -> None:
    changing = given.registry.changing
    assert changing.delete(people["ada"], PUBLIC, "a person asked").reason == "a person asked"
    assert changing.delete(people["ada"], PUBLIC, "a person asked").reason == "a person asked"
    with pytest.raises(NotInZooError, match="was deleted already: a person asked"):
        changing.delete(people["root"], PUBLIC, "something else")
    with pytest.raises(ForbiddenError):
        changing.delete(people["writer"], PUBLIC, "a person asked")
    with given.registry.database.read() as connection:
        assert len(connection.execute(select(audit).where(audit.c.action == "delete")).all()) == 1
