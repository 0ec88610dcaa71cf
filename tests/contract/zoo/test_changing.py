"""What may change after publication, on both ways to run a zoo: states, aliases, visibility; and lineage."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from neuronmap.errors import (
    AlreadyExistsError,
    ForbiddenError,
    InputError,
    InvalidManifestError,
    MismatchError,
    NotInZooError,
    UnauthorizedError,
)
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import ANONYMOUS, LOCAL
from neuronmap.zoo.registry.lineage import MOST_DEPTH
from neuronmap.zoo.tables import audit

R = Reference.parse


def shown(given: Any, reference: str, by: Any = LOCAL) -> str:
    return given.registry.show(by, R(reference)).label


def made_from(*parents: Any, role: str = "base") -> list[dict[str, Any]]:
    return [{"digest": parent.digest, "role": role} for parent in parents]


# --- states -------------------------------------------------------------------------------------------------------------------


def test_latest_is_the_greatest_final_version_that_is_not_deprecated(given: Any) -> None:
    given.publish(b"0", version="0.9")
    given.publish(b"1", version="1.10")
    given.publish(b"2", version="1.9")
    given.publish(b"3", version="2.0rc1")
    assert shown(given, "ada/demo") == shown(given, "ada/demo@latest") == "1.10"
    assert given.registry.artefact(LOCAL, "ada", "demo").latest == "1.10"
    assert [one.label for one in given.registry.artefact(LOCAL, "ada", "demo").versions] == [
        "2.0rc1",
        "1.10",
        "1.9",
        "0.9",
    ]
    given.registry.changing.deprecate(LOCAL, R("ada/demo@1.10"), "slow")
    assert shown(given, "ada/demo") == "1.9"
    for label in ("0.9", "1.9"):
        given.registry.changing.deprecate(LOCAL, R(f"ada/demo@{label}"), "slow")
    assert shown(given, "ada/demo") == "2.0rc1"
    given.registry.changing.yank(LOCAL, R("ada/demo@2.0rc1"), "bad")
    assert shown(given, "ada/demo") == "1.10"


def test_a_deprecated_version_says_what_to_use(given: Any) -> None:
    given.publish(b"1", version="1.0")
    given.publish(b"2", version="2.0")
    found = given.registry.changing.deprecate(LOCAL, R("ada/demo@1.0"), "old", R("ada/demo@2.0"))
    assert (found.state, found.reason, found.successor) == ("deprecated", "old", "ada/demo@2.0")
    restored = given.registry.changing.restore(LOCAL, R("ada/demo@1.0"))
    assert (restored.state, restored.reason, restored.successor) == ("published", "", None)


def test_a_successor_that_was_taken_back_is_named_no_longer(given: Any) -> None:
    given.publish(b"1", version="1.0")
    given.publish(b"2", version="2.0")
    given.registry.changing.deprecate(LOCAL, R("ada/demo@1.0"), "old", R("ada/demo@2.0"))
    assert given.registry.show(LOCAL, R("ada/demo@1.0")).successor == "ada/demo@2.0"
    given.registry.changing.yank(LOCAL, R("ada/demo@2.0"), "broken")
    assert given.registry.show(LOCAL, R("ada/demo@1.0")).successor is None


def test_a_successor_is_another_published_version_of_the_same_artefact(given: Any) -> None:
    given.publish(b"1", version="1.0")
    given.publish(b"2", version="2.0", draft=True)
    given.publish(b"3", name="other")
    deprecate = given.registry.changing.deprecate
    for successor, message in (
        ("ada/demo@1.0", "own successor"),
        ("ada/demo@2.0", "draft"),
        ("ada/other@1.0", "no version"),
    ):
        with pytest.raises(InputError, match=message):
            deprecate(LOCAL, R("ada/demo@1.0"), "old", R(successor))
    with pytest.raises(NotInZooError):
        deprecate(LOCAL, R("ada/demo@1.0"), "old", R("ada/demo@3.0"))
    assert given.registry.show(LOCAL, R("ada/demo@1.0")).state == "published"


def test_a_yanked_version_is_found_by_its_exact_name_alone(given: Any) -> None:
    """PEP 592: who pinned it keeps it, nobody new gets it."""
    view = given.publish(b"1", version="1.0")
    given.registry.changing.set_alias(LOCAL, R("ada/demo@1.0"), "production")
    given.registry.changing.yank(LOCAL, R("ada/demo@1.0"), "wrong tokenizer")
    assert shown(given, "ada/demo@1.0") == shown(given, f"ada/demo@{view.digest}") == "1.0"
    assert b"".join(given.registry.blob(LOCAL, R("ada/demo@1.0"), "a.txt")[2]) == b"1"
    with pytest.raises(NotInZooError, match="yanked: wrong tokenizer"):
        shown(given, "ada/demo@production")
    with pytest.raises(NotInZooError, match="no published version"):
        shown(given, "ada/demo")
    given.registry.changing.restore(LOCAL, R("ada/demo@1.0"))
    assert shown(given, "ada/demo@production") == shown(given, "ada/demo") == "1.0"


def test_a_deleted_version_is_a_tombstone(given: Any) -> None:
    view = given.publish(b"1", version="1.0")
    given.publish(b"2", version="2.0")
    given.registry.changing.set_alias(LOCAL, R("ada/demo@1.0"), "best")
    gone = given.registry.changing.delete(LOCAL, R("ada/demo@1.0"), "not ours to give")
    assert (gone.state, gone.reason, gone.files, gone.aliases) == ("deleted", "not ours to give", (), ())
    assert gone.manifest["files"][0]["path"] == "a.txt"
    assert given.registry.manifest(LOCAL, R("ada/demo@1.0"))[0] == view.digest
    with pytest.raises(NotInZooError, match="it was deleted"):
        given.registry.blob(LOCAL, R("ada/demo@1.0"), "a.txt")
    with pytest.raises(NotInZooError, match="no version best"):
        shown(given, "ada/demo@best")
    assert [one.state for one in given.registry.artefact(LOCAL, "ada", "demo").versions] == ["published", "deleted"]
    for change in (given.registry.changing.yank, given.registry.changing.deprecate):
        with pytest.raises(InputError, match="is deleted"):
            change(LOCAL, R("ada/demo@1.0"), "x")
    with pytest.raises(InputError, match="is deleted"):
        given.registry.changing.restore(LOCAL, R("ada/demo@1.0"))
    with pytest.raises(InvalidManifestError, match="was deleted"):
        given.publish(b"3", name="child", depends_on=made_from(view))


def test_what_others_were_made_from_is_not_deleted(given: Any) -> None:
    ada, eve = given.person("ada"), given.person("eve")
    base = given.publish(b"1", by=ada, name="base")
    given.publish(b"2", by=eve, private=True, name="hidden", depends_on=made_from(base))
    given.publish(b"3", by=ada, name="about", subject=base.digest)
    with pytest.raises(AlreadyExistsError, match=r"ada/about@1\.0, 1 more") as caught:
        given.registry.changing.delete(ada, R("ada/base@1.0"), "x")
    assert "hidden" not in str(caught.value)
    given.registry.changing.delete(ada, R("ada/about@1.0"), "x")
    with pytest.raises(AlreadyExistsError, match="is 1 more"):
        given.registry.changing.delete(ada, R("ada/base@1.0"), "x")
    given.registry.changing.delete(eve, R("eve/hidden@1.0"), "x")
    assert given.registry.changing.delete(ada, R("ada/base@1.0"), "x").state == "deleted"


def test_changes_name_one_version_for_good_and_say_why(given: Any) -> None:
    given.publish()
    changing = given.registry.changing
    for change in (changing.yank, changing.deprecate, changing.delete):
        with pytest.raises(InputError, match="another version tomorrow"):
            change(LOCAL, R("ada/demo"), "x")
        for reason in ("", "  ", "x" * 1001):
            with pytest.raises(InputError, match="reason"):
                change(LOCAL, R("ada/demo@1.0"), reason)
    assert given.registry.show(LOCAL, R("ada/demo@1.0")).state == "published"


def test_who_may_change(given: Any) -> None:
    ada, bob, eve = given.person("ada"), given.person("bob"), given.person("eve")
    given.join(bob, "ada", "writer")
    given.publish(by=ada)
    changing = given.registry.changing
    reference = R("ada/demo@1.0")
    with pytest.raises(UnauthorizedError):
        changing.yank(ANONYMOUS, reference, "x")
    for change in (changing.yank, changing.deprecate, changing.delete, changing.set_alias):
        with pytest.raises(ForbiddenError):
            change(eve, reference, "best")
    with pytest.raises(ForbiddenError):
        changing.restore(eve, reference)
    assert changing.yank(bob, reference, "bad").state == "yanked"
    assert changing.restore(bob, reference).state == "published"
    with pytest.raises(ForbiddenError, match="govern"):
        changing.delete(bob, reference, "x")  # who uploads does not decide on deletion
    with pytest.raises(ForbiddenError):
        changing.set_private(bob, "ada", "demo", True)
    assert changing.delete(ada, reference, "x").state == "deleted"


def test_every_change_is_written_down(given: Any) -> None:
    ada = given.person("ada")
    given.publish(by=ada)
    changing = given.registry.changing
    changing.set_alias(ada, R("ada/demo@1.0"), "best")
    changing.deprecate(ada, R("ada/demo@1.0"), "old")
    changing.yank(ada, R("ada/demo@1.0"), "bad")
    changing.restore(ada, R("ada/demo@1.0"))
    changing.set_private(ada, "ada", "demo", True)
    changing.delete(ada, R("ada/demo@1.0"), "gone")
    with given.registry.database.read() as connection:
        rows = connection.execute(select(audit).order_by(audit.c.id)).all()
    actions = ["publish", "alias", "deprecated", "yanked", "published", "private", "delete"]
    assert [row.action for row in rows] == actions
    assert {row.user_id for row in rows} == {ada.user_id}
    assert rows[3].details == {"reason": "bad"}


# --- aliases ------------------------------------------------------------------------------------------------------------------


def test_an_alias_moves_and_every_move_is_logged(given: Any) -> None:
    ada = given.person("ada")
    for label in ("1.0", "2.0"):
        given.publish(label.encode(), by=ada, version=label)
    changing = given.registry.changing
    changing.set_alias(ada, R("ada/demo@1.0"), "production", reason="first")
    assert changing.set_alias(ada, R("ada/demo@2.0"), "production", reason="better").aliases == ("production",)
    changing.set_alias(ada, R("ada/demo@2.0"), "production")  # it is there already
    assert shown(given, "ada/demo@production") == "2.0"
    changing.remove_alias(ada, "ada", "demo", "production", reason="done")
    with pytest.raises(NotInZooError):
        shown(given, "ada/demo@production")
    with pytest.raises(NotInZooError, match="no alias"):
        changing.remove_alias(ada, "ada", "demo", "production")
    log = changing.alias_log(ada, "ada", "demo")
    assert [(move.before, move.after, move.reason, move.who) for move in log] == [
        ("2.0", None, "done", "ada"),
        ("1.0", "2.0", "better", "ada"),
        (None, "1.0", "first", "ada"),
    ]


def test_an_alias_moves_only_from_where_it_was_expected(given: Any) -> None:
    for label in ("1.0", "2.0"):
        given.publish(label.encode(), version=label)
    changing = given.registry.changing
    with pytest.raises(MismatchError, match=r"points to nothing now, not to 1\.0"):
        changing.set_alias(LOCAL, R("ada/demo@1.0"), "best", expected="1.0")
    changing.set_alias(LOCAL, R("ada/demo@1.0"), "best", expected="")
    with pytest.raises(MismatchError, match=r"points to 1\.0 now, not to nothing"):
        changing.set_alias(LOCAL, R("ada/demo@2.0"), "best", expected="")
    with pytest.raises(MismatchError):
        changing.remove_alias(LOCAL, "ada", "demo", "best", expected="2.0")
    changing.set_alias(LOCAL, R("ada/demo@2.0"), "best", expected="1.0")
    changing.remove_alias(LOCAL, "ada", "demo", "best", expected="2.0")
    assert len(changing.alias_log(LOCAL, "ada", "demo")) == 3


def test_an_alias_points_to_what_is_published(given: Any) -> None:
    given.publish(b"1", version="1.0", draft=True)
    given.publish(b"2", version="2.0")
    given.registry.changing.yank(LOCAL, R("ada/demo@2.0"), "bad")
    for label, state in (("1.0", "draft"), ("2.0", "yanked")):
        with pytest.raises(InputError, match=state):
            given.registry.changing.set_alias(LOCAL, R(f"ada/demo@{label}"), "best")
    for alias in ("latest", "1.0", "v2", "", "UP", "a b", "../x", "x" * 65, "dev"):
        with pytest.raises(InputError):
            given.registry.changing.set_alias(LOCAL, R("ada/demo@2.0"), alias)


# --- lineage ------------------------------------------------------------------------------------------------------------------


def test_lineage_follows_both_ways(given: Any) -> None:
    base = given.publish(b"1", name="base", title="The base")
    middle = given.publish(b"2", name="middle", depends_on=made_from(base))
    top = given.publish(b"3", name="top", depends_on=made_from(middle, base, role="part"), subject=middle.digest)
    graph = given.registry.lineage(LOCAL, R("ada/middle@1.0"))
    assert {(node.reference, node.depth) for node in graph.nodes} == {
        ("ada/base@1.0", -1),
        ("ada/middle@1.0", 0),
        ("ada/top@1.0", 1),
    }
    assert {(edge.child, edge.parent, edge.role) for edge in graph.edges} == {
        (middle.digest, base.digest, "base"),
        (top.digest, middle.digest, "part"),
        (top.digest, middle.digest, "subject"),
    }
    assert not graph.truncated
    assert {node.title for node in graph.nodes} == {"The base", ""}
    up = given.registry.lineage(LOCAL, R("ada/top@1.0"), down=False)
    assert {node.reference for node in up.nodes} == {"ada/base@1.0", "ada/middle@1.0", "ada/top@1.0"}
    down = given.registry.lineage(LOCAL, R("ada/top@1.0"), up=False)
    assert [node.reference for node in down.nodes] == ["ada/top@1.0"]
    view = given.registry.show(LOCAL, R("ada/middle@1.0"))
    assert [one.reference for one in view.evidence] == ["ada/top@1.0"]
    assert [one.reference for one in view.depends_on] == ["ada/base@1.0"]
    assert view.used_by == 1


def test_lineage_has_an_end(given: Any) -> None:
    before = given.publish(b"0", name="v0")
    for number in range(1, 6):
        before = given.publish(str(number).encode(), name=f"v{number}", depends_on=made_from(before))
    for depth in (1, 2, 5):
        graph = given.registry.lineage(LOCAL, R("ada/v5@1.0"), depth=depth)
        assert len(graph.nodes) == depth + 1
        assert graph.truncated == (depth < 5)
    for depth in (0, -1, MOST_DEPTH + 1):
        with pytest.raises(InputError, match="depth"):
            given.registry.lineage(LOCAL, R("ada/v5@1.0"), depth=depth)


def test_lineage_shows_no_more_than_the_asker_may_see(given: Any) -> None:
    ada, eve = given.person("ada"), given.person("eve")
    hidden = given.publish(b"1", by=ada, name="hidden", private=True, title="secret")
    middle = given.publish(b"2", by=ada, name="middle", depends_on=made_from(hidden))
    given.publish(b"3", by=ada, name="child", private=True, depends_on=made_from(middle))
    graph = given.registry.lineage(eve, R("ada/middle@1.0"))
    assert [(node.reference, node.kind, node.title) for node in graph.nodes] == [
        (hidden.digest, "", ""),  # the manifest says so anyway
        ("ada/middle@1.0", "DATASET", ""),
    ]
    assert len(given.registry.lineage(ada, R("ada/middle@1.0")).nodes) == 3
    view = given.registry.show(eve, R("ada/middle@1.0"))
    assert (view.depends_on, view.used_by) == ((), 0)
    with pytest.raises(InvalidManifestError, match="no published version here"):
        given.publish(b"4", by=eve, depends_on=made_from(hidden))


def test_what_it_is_made_from_must_be_there_before(given: Any) -> None:
    """So no version can depend on itself, or two on each other: nobody knows a digest before its bytes."""
    with pytest.raises(InvalidManifestError, match=r"depends_on\.0\.digest: no published version"):
        given.publish(depends_on=[{"digest": Digest.of(b"unknown"), "role": "base"}])
    with pytest.raises(InvalidManifestError, match="subject: no published version"):
        given.publish(subject=Digest.of(b"unknown"))
    draft = given.publish(b"1", name="draft", draft=True)
    with pytest.raises(InvalidManifestError, match="no published version"):
        given.publish(b"2", depends_on=made_from(draft))


def test_the_role_sae_is_filled_by_an_sae(given: Any) -> None:
    text = given.publish(b"1", name="text")
    record = {"method": "rules", "count": 3}
    with pytest.raises(InvalidManifestError, match="needs"):
        given.publish(b"2", name="labels", kind="EXPLANATIONS", record=record)
    with pytest.raises(InvalidManifestError, match="is a DATASET, not an SAE_MODEL"):
        given.publish(b"2", name="labels", kind="EXPLANATIONS", record=record, depends_on=made_from(text, role="sae"))
    sae = given.publish(b"3", name="sae", kind="SAE_MODEL")
    given.publish(b"2", name="labels", kind="EXPLANATIONS", record=record, depends_on=made_from(sae, role="sae"))


def test_the_same_content_under_two_names_is_found_by_its_digest(given: Any) -> None:
    view = given.publish()
    assert given.registry.by_digest(LOCAL, view.digest) == [Reference("ada", "demo", digest=view.digest)]
    assert given.registry.by_digest(LOCAL, Digest.of(b"unknown")) == []
    with pytest.raises(NotInZooError):
        given.registry.show(LOCAL, Reference("ada", "demo", digest=Digest.of(b"unknown")))
