"""The same calls on a zoo in a folder and on a server: the same answers, the same errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.zoo.client.conftest import Served
from zoos import package

from neuronmap.errors import (
    AlreadyExistsError,
    ForbiddenError,
    InputError,
    MismatchError,
    NotInZooError,
)
from neuronmap.progress import SilentProgress
from neuronmap.zoo.client.zoo import Zoo


@pytest.fixture(params=["folder", "server"])
def either(request: pytest.FixtureRequest) -> Iterator[Zoo]:
    """A zoo that Ada may do everything in."""
    if request.param == "folder":
        yield request.getfixturevalue("zoo")
        return
    served: Served = request.getfixturevalue("served")
    with Zoo(served.address, served.token, progress=SilentProgress()) as opened:
        yield opened


@pytest.fixture
def two(either: Zoo, request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Zoo, str]:
    """Two versions of an artefact of this test's own, the second made from the first."""
    name = f"ada/{request.node.originalname.removeprefix('test_').replace('_', '-')[:40]}"
    either.publish(package(tmp_path / "one", data=name.encode()), f"{name}@1.0", licence="MIT", tags=[name[4:]])
    values = {"licence": "MIT", "depends_on": {"base": f"{name}@1.0"}, "title": "Second"}
    either.publish(package(tmp_path / "two", data=name.encode() * 2), f"{name}@1.1rc1", **values)
    return either, name


def test_looking(two: tuple[Zoo, str]) -> None:
    zoo, name = two
    assert zoo.show(name).label == "1.0", "a pre-release is not what latest means"
    assert [one.label for one in zoo.versions(name)] == ["1.1rc1", "1.0"]
    assert zoo.artefact(name).kind == "DATASET"
    assert [hit.reference for hit in zoo.search(tag=(name[4:],))] == [f"{name}@1.0"]
    pages = list(zoo.search(namespace="ada", all_versions=True, limit=1, sort="name"))
    assert len(pages) == len({hit.reference for hit in pages}) >= 2
    view = zoo.lineage(f"{name}@1.1rc1")
    assert {(node.reference, node.depth) for node in view.nodes} == {(f"{name}@1.1rc1", 0), (f"{name}@1.0", -1)}
    assert zoo.open_file(name, "README.md").startswith(b"# Numbers")
    assert zoo.compatible(model="gpt2").hits == ()
    assert zoo.backend.by_digest(zoo.show(name).digest)[0].artefact == name
    assert zoo.backend.by_digest(type(zoo.show(name).digest)("sha256:" + "0" * 64)) == []


def test_states_and_their_errors(two: tuple[Zoo, str]) -> None:
    zoo, name = two
    with pytest.raises(InputError, match="another version tomorrow"):
        zoo.yank(name, "why")
    with pytest.raises(InputError):
        zoo.yank(f"{name}@1.0", " ")
    assert zoo.deprecate(f"{name}@1.0", "old", f"{name}@1.1rc1").successor == f"{name}@1.1rc1"
    assert zoo.yank(f"{name}@1.0", "worse").state == "yanked"
    assert zoo.show(name).label == "1.1rc1"
    assert zoo.restore(f"{name}@1.0").state == "published"
    with pytest.raises(AlreadyExistsError, match="is in use"):
        zoo.delete(f"{name}@1.0", "gone")
    assert zoo.delete(f"{name}@1.1rc1", "gone").files == ()
    assert zoo.delete(f"{name}@1.0", "gone").reason == "gone"
    with pytest.raises(NotInZooError):
        zoo.show(name)


def test_aliases_and_their_errors(two: tuple[Zoo, str]) -> None:
    zoo, name = two
    zoo.set_alias(f"{name}@1.0", "stable", expected="", reason="first")
    with pytest.raises(MismatchError):
        zoo.set_alias(f"{name}@1.1rc1", "stable", expected="")
    with pytest.raises(InputError):
        zoo.set_alias(f"{name}@1.0", "latest")
    zoo.set_alias(f"{name}@1.1rc1", "stable", expected="1.0", reason="second")
    assert zoo.show(f"{name}@stable").label == "1.1rc1"
    zoo.remove_alias(name, "stable", expected="1.1rc1", reason="third")
    assert [(one.before, one.after, one.reason) for one in zoo.alias_log(name)] == [
        ("1.1rc1", None, "third"),
        ("1.0", "1.1rc1", "second"),
        (None, "1.0", "first"),
    ]
    with pytest.raises(NotInZooError):
        zoo.remove_alias(name, "stable")


def test_privacy(two: tuple[Zoo, str]) -> None:
    zoo, name = two
    zoo.set_private(name, True)
    assert zoo.show(name).private
    if zoo.backend.is_remote:
        with Zoo(zoo.location, "", progress=SilentProgress()) as stranger, pytest.raises(NotInZooError):
            stranger.pull(name)
    zoo.set_private(name, False)
    assert not zoo.show(name).private


def test_people(two: tuple[Zoo, str]) -> None:
    """A zoo in a folder has no accounts: nobody stars, and comments are nobody's."""
    zoo, name = two
    if zoo.backend.is_remote:
        zoo.star(name)
        assert zoo.show(name).stars == 1
        zoo.star(name, False)
        assert zoo.comment(f"{name}@1.0", "Well *done*.")["text"] == "Well *done*."
        assert [one["text"] for one in zoo.comments(name)] == ["Well *done*."]
        assert zoo.whoami()["name"] == "ada"
        return
    with pytest.raises(ForbiddenError, match="no accounts"):
        zoo.star(name)
    assert zoo.comment(name, "Well done.")["author"] is None
    assert [one["text"] for one in zoo.comments(name)] == ["Well done."]
    assert zoo.whoami()["is_local"]


def test_garbage(two: tuple[Zoo, str]) -> None:
    zoo, _ = two
    found = zoo.gc()
    assert found["dry_run"] is True
    assert found["blobs"] == 0
    about = zoo.backend.about()
    assert about["protocol"] == 1
