"""Mirrors, upstreams, the hub, drawings, locations."""

from __future__ import annotations

import json
import stat
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from tests.unit.zoo.client.conftest import Served
from zoos import QUICKLY, HostileServer, Notes, data_folder, package, problem, send_json

from neuronmap.errors import AlreadyExistsError, InputError, NotInZooError, ZooError, ZooOfflineError
from neuronmap.zoo.client.drawing import lineage_svg, lineage_text
from neuronmap.zoo.client.location import (
    chosen_location,
    credentials_file,
    forget_token,
    remember_token,
    stored_token,
    write_upstream,
)
from neuronmap.zoo.client.zoo import Zoo
from neuronmap.zoo.search.query import Query


@pytest.fixture
def family(published: Zoo, tmp_path: Path) -> Zoo:
    """ada/numbers@1.0 <- ada/more@1.0 (base), about which is bob/review@1.0."""
    published.publish(
        package(tmp_path / "more", data=b"more"), "ada/more@1.0", licence="MIT", depends_on={"base": "ada/numbers"}
    )
    published.publish(package(tmp_path / "review", data=b"good"), "bob/review@1.0", licence="MIT", subject="ada/more")
    return published


def test_a_mirror_has_the_same_digests_dependencies_first(family: Zoo, zoo: Zoo, tmp_path: Path) -> None:
    done = zoo.mirror(family, ["bob/review"])
    assert [one.reference for one in done] == ["ada/numbers@1.0", "ada/more@1.0", "bob/review@1.0"]
    for one in done:
        assert zoo.backend.manifest(_ref(one.reference)) == family.backend.manifest(_ref(one.reference))
    assert [one.was_here for one in zoo.mirror(family, ["bob/review"])] == [True, True, True]
    lock = tmp_path / "lock"
    family.lock(["bob/review"], lock, dependencies=True)
    assert [one.digest for one in zoo.pull_locked(lock, tmp_path / "a")] == [
        one.digest for one in family.pull_locked(lock, tmp_path / "b")
    ]


def test_a_mirrored_namespace_belongs_to_the_other_zoo(family: Zoo, zoo: Zoo, tmp_path: Path) -> None:
    zoo.mirror(family, ["ada/numbers"])
    with pytest.raises(AlreadyExistsError, match="is a mirror of"):
        zoo.publish(package(tmp_path / "mine", data=b"mine"), "ada/mine@1.0", licence="MIT")
    assert zoo.publish(package(tmp_path / "own", data=b"own"), "bob/mine@1.0", licence="MIT").label == "1.0"


def test_a_mirror_follows_states_and_queries(family: Zoo, zoo: Zoo) -> None:
    assert {one.reference for one in zoo.mirror(family, query=Query(namespace="ada"))} == {
        "ada/numbers@1.0",
        "ada/more@1.0",
    }
    family.yank("ada/more@1.0", "wrong")
    family.deprecate("ada/numbers@1.0", "old")
    zoo.mirror(family, ["ada/more@1.0"])
    assert (zoo.show("ada/more@1.0").state, zoo.show("ada/more@1.0").reason) == ("yanked", "wrong")
    assert zoo.show("ada/numbers@1.0").state == "deprecated"
    family.restore("ada/more@1.0")
    zoo.mirror(family, ["ada/more@1.0"])
    assert zoo.show("ada/more@1.0").state == "published"


def test_an_upstream_is_asked_for_what_is_lacking(served: Served, zoo: Zoo, tmp_path: Path, home: Path) -> None:
    with Zoo(served.address, served.token, progress=Notes()) as server:
        digest = server.publish(package(tmp_path / "up", data=b"up"), "ada/upstream@1.0", licence="MIT").digest
    with pytest.raises(NotInZooError):
        zoo.pull("ada/upstream", tmp_path / "never")
    write_upstream(Path(zoo.location), served.address)
    notes = Notes()
    assert zoo.pull("ada/upstream", tmp_path / "first", progress=notes).digest == digest
    assert any("is not here" in line for line in notes.lines)
    write_upstream(Path(zoo.location), None)
    assert zoo.pull("ada/upstream@1.0", tmp_path / "second").digest == digest
    cached = home / "zoo/cache/sha256"
    assert sum(1 for path in cached.rglob("*") if path.is_file()) <= 1, (
        "the bytes are kept once; the cache has the manifest"
    )


def test_a_token_goes_to_the_zoo_that_it_is_for(
    hostile: HostileServer, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not to an upstream, nor to a zoo that is mirrored, unless it was made for them."""
    monkeypatch.setenv("NEURONMAP_ZOO_TOKEN", "for-my-zoo")
    hostile.answers["/ada/other/versions/latest"] = problem("not_in_zoo", "No.", 404)
    zoo.mirror(hostile.address, ["ada/numbers@1.0"])
    write_upstream(Path(zoo.location), hostile.address)
    with pytest.raises(NotInZooError):
        zoo.pull("ada/other", tmp_path / "never")
    assert hostile.requests
    assert not [headers for *_, headers in hostile.requests if "authorization" in headers]
    hostile.requests.clear()
    remember_token(hostile.address, "for-the-upstream")
    zoo.mirror(hostile.address, ["ada/numbers@1.0"])
    assert {headers["authorization"] for *_, headers in hostile.requests} == {"Bearer for-the-upstream"}
    with Zoo(hostile.address) as named:
        named.show("ada/numbers@1.0")
    assert hostile.requests[-1][2]["authorization"] == "Bearer for-my-zoo"


def test_a_lineage_that_cannot_be_one(hostile: HostileServer) -> None:
    node = {
        "digest": hostile.digest,
        "reference": "ada/numbers@1.0",
        "kind": "DATASET",
        "state": "published",
        "depth": 0,
    }
    for values in (
        {"nodes": [], "root": hostile.digest},
        {"nodes": [{**node, "depth": 10_000}], "root": hostile.digest},
        {"nodes": [node], "root": "sha256:" + "0" * 64},
    ):
        hostile.answers["/lineage"] = lambda handler, values=values: send_json(
            handler, {"edges": [], "truncated": False, **values}
        )
        with Zoo(hostile.address, patience=QUICKLY) as zoo, pytest.raises(ZooError, match="cannot be one"):
            zoo.lineage("ada/numbers@1.0")


def test_an_upstream_is_not_asked_offline(zoo: Zoo, tmp_path: Path) -> None:
    write_upstream(Path(zoo.location), "http://127.0.0.1:9")
    with Zoo(zoo.location, offline=True) as offline, pytest.raises(NotInZooError):
        offline.pull("ada/upstream", tmp_path / "never")


def test_lineage_is_drawn(family: Zoo) -> None:
    view = family.lineage("ada/more")
    text = lineage_text(view)
    assert text.splitlines()[0] == "ada/more@1.0 (DATASET)"
    assert "base: ada/numbers@1.0 (DATASET)" in text
    assert "subject: bob/review@1.0 (DATASET)" in text
    picture = ElementTree.fromstring(lineage_svg(view))
    words = " ".join(picture.itertext())
    for reference in ("ada/numbers@1.0", "ada/more@1.0", "bob/review@1.0", "base", "subject"):
        assert reference in words
    boxes = [float(one.attrib["x"]) for one in picture.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(set(boxes)) == 3, "one column each"


def test_a_title_cannot_break_out_of_the_picture(zoo: Zoo, tmp_path: Path) -> None:
    zoo.publish(package(tmp_path / "a"), "ada/a@1.0", licence="MIT", title='</title><script>alert("x")</script>')
    svg = lineage_svg(zoo.lineage("ada/a"))
    ElementTree.fromstring(svg)
    assert "<script" not in svg


# --- the hub ------------------------------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache on this machine, with owner/numbers at one commit."""
    import huggingface_hub.constants

    root = tmp_path / "hub"
    repo = root / "models--owner--numbers"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    folder = data_folder(repo / "snapshots" / COMMIT)
    (folder / ".gitattributes").write_text("x")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(root))
    return root


def test_a_repository_of_the_hub_is_published_with_its_commit(hub_cache: Path, zoo: Zoo) -> None:
    view = zoo.publish_from_hub(
        "owner/numbers", "ada/numbers@1.0", kind="DATASET", record={"format": "bytes"}, licence="MIT"
    )
    assert view.manifest["record"]["source"] == f"hf://owner/numbers@{COMMIT}"
    assert {file.path for file in view.files} == {"README.md", "data.bin"}
    with pytest.raises(InputError, match="is no SAE"):
        zoo.publish_from_hub("owner/numbers", "ada/sae@1.0", licence="MIT")


def test_a_hub_that_cannot_be_reached(hub_cache: Path, zoo: Zoo) -> None:
    with pytest.raises(ZooOfflineError, match="owner/other is not in this machine's cache"):
        zoo.publish_from_hub("owner/other", "ada/other@1.0", licence="MIT")


def test_a_repository_for_the_hub(published: Zoo, tmp_path: Path) -> None:
    files = published.export_to_hub_folder("ada/numbers", tmp_path / "repository")
    card = (tmp_path / "repository/README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert card.count("---\n") == 2
    assert "# Numbers" in card
    assert str(published.show("ada/numbers").digest) in card
    assert {path.name for path in files} == {"README.md", "data.bin"}


# --- where and who ------------------------------------------------------------------------------------------------------------


def test_which_zoo_is_meant(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_location() == home / "zoo"
    monkeypatch.setenv("NEURONMAP_ZOO", "https://zoo.example.org/team/")
    assert chosen_location() == "https://zoo.example.org/team"
    assert chosen_location("/shared/zoo") == Path("/shared/zoo")
    for wrong in ("https://", "https://ada:secret@zoo.example.org", "ftp://zoo", "https://zoo?x=1", "https://zoo:port"):
        with pytest.raises(InputError):
            chosen_location(wrong)


def test_tokens_are_for_their_owner_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember_token("https://a", "one")
    remember_token("https://b", "two")
    assert stat.S_IMODE(credentials_file().stat().st_mode) == 0o600
    assert (stored_token("https://a"), stored_token("https://c")) == ("one", None)
    monkeypatch.setenv("NEURONMAP_ZOO_TOKEN", "three")
    assert stored_token("https://a") == "three"
    monkeypatch.delenv("NEURONMAP_ZOO_TOKEN")
    assert forget_token("https://a")
    assert not forget_token("https://a")
    assert json.loads(credentials_file().read_text()) == {"https://b": "two"}


def _ref(text: str):
    from neuronmap.zoo.names import Reference

    return Reference.parse(text)
