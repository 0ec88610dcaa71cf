"""Publishing, on both ways to run a zoo: the flow, doing it twice, drafts, quotas, and what others may learn of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from packaging.version import Version
from sqlalchemy import func, select, update

from neuronmap.database import now
from neuronmap.errors import (
    AlreadyExistsError,
    DamagedError,
    ForbiddenError,
    InputError,
    InvalidManifestError,
    NeuronMapError,
    NotInZooError,
    QuotaError,
    UnauthorizedError,
    UploadError,
)
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.manifest import Manifest
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import ANONYMOUS, LOCAL
from neuronmap.zoo.registry.uploading import LIFETIME, used_bytes
from neuronmap.zoo.search.query import Query
from neuronmap.zoo.tables import blobs, namespaces, publications, uploads, versions

DEMO = Reference.parse("ada/demo@1.0")


def content(given: Any, reference: Reference, path: str = "a.txt", by: Any = LOCAL) -> bytes:
    digest, size, pieces = given.registry.blob(by, reference, path)
    data = b"".join(pieces)
    assert Digest.of(data) == digest
    assert len(data) == size
    return data


def count(given: Any, table: Any) -> int:
    with given.registry.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(table))


def used(given: Any, namespace: str) -> int:
    with given.registry.database.read() as connection:
        space = connection.scalar(select(namespaces.c.id).where(namespaces.c.name == namespace))
        return used_bytes(connection, space)


def test_what_was_published_is_read_back_byte_for_byte(given: Any) -> None:
    files = {"a.txt": b"hello world", "deep/er/b.json": b"{}", "empty.csv": b""}
    view = given.publish(files)
    manifest, written = given.manifest(files)
    assert view.digest == Digest.of(written)
    assert given.registry.manifest(LOCAL, DEMO) == (view.digest, written)
    assert {path: content(given, DEMO, path) for path in files} == files
    _, size, pieces = given.registry.blob(LOCAL, DEMO, "a.txt", 6, 9)
    assert (b"".join(pieces), size) == (b"wor", 11)
    assert [(file.path, file.size) for file in view.files] == [("a.txt", 11), ("deep/er/b.json", 2), ("empty.csv", 0)]
    assert view.size == manifest.size == 13
    assert count(given, publications) == count(given, uploads) == 0
    assert not list(given.store.list("incoming/"))
    assert not list(given.store.list("temporary/"))


def test_the_manifest_is_kept_as_it_was_written(given: Any) -> None:
    _, written = given.manifest({"a.txt": b"hello"})
    spaced = written.replace(b'","', b'" ,\n "')
    assert spaced != written
    key = given.registry.uploading.begin(LOCAL, "ada", 5).key
    given.send(LOCAL, key, b"hello")
    view = given.registry.publishing.publish(LOCAL, key, spaced)
    assert view.digest == Digest.of(spaced)
    assert given.registry.manifest(LOCAL, DEMO)[1] == spaced


def test_publishing_again_is_the_same_version(given: Any) -> None:
    first = given.publish()
    _, written = given.manifest({"a.txt": b"hello"})
    assert given.registry.publishing.publish(LOCAL, "no publication is needed", written).digest == first.digest
    assert given.publish().digest == first.digest
    assert count(given, versions) == 1


def test_a_label_never_means_anything_else(given: Any) -> None:
    given.publish(b"one")
    with pytest.raises(AlreadyExistsError, match="another content"):
        given.publish(b"two")
    given.registry.changing.yank(LOCAL, DEMO, "bad")
    with pytest.raises(AlreadyExistsError, match="yanked"):
        given.publish(b"two")
    with pytest.raises(AlreadyExistsError, match="is yanked"):
        given.publish(b"one")
    given.registry.changing.delete(LOCAL, DEMO, "gone")
    for data in (b"one", b"two"):
        with pytest.raises(AlreadyExistsError, match="deleted"):
            given.publish(data)
    assert given.publish(b"two", version="1.0.1").label == "1.0.1"


@pytest.mark.parametrize("label", ["1.0", "v1.0", "1.0.0rc1", "1.0-1"])
def test_a_label_in_another_spelling_is_the_same_label(given: Any, label: str) -> None:
    first = given.publish(b"one", version=label)
    assert first.label == str(Version(label))
    with pytest.raises(AlreadyExistsError):
        given.publish(b"two", version=first.label)


def test_an_artefact_is_of_one_kind(given: Any) -> None:
    given.publish()
    with pytest.raises(AlreadyExistsError, match="is a DATASET, not a SAE_MODEL"):
        given.publish(kind="SAE_MODEL", version="2.0")


def test_a_blob_that_is_there_is_not_sent_again(given: Any) -> None:
    given.publish(b"shared")
    uploading = given.registry.uploading
    key = uploading.begin(LOCAL, "ada", 6).key
    assert uploading.missing(LOCAL, key, [Digest.of(b"shared"), Digest.of(b"new"), Digest.of(b"new")]) == [
        Digest.of(b"new")
    ]
    given.publish(b"shared", name="other")
    assert count(given, blobs) == 1


def test_every_file_must_have_arrived(given: Any) -> None:
    _, written = given.manifest({"a.txt": b"hello", "b.txt": b"there"})
    key = given.registry.uploading.begin(LOCAL, "ada", 10).key
    given.send(LOCAL, key, b"hello")
    with pytest.raises(InvalidManifestError, match=r"files\.1\.digest.*was not sent"):
        given.registry.publishing.publish(LOCAL, key, written)
    assert count(given, versions) == 0
    given.send(LOCAL, key, b"there")
    assert given.registry.publishing.publish(LOCAL, key, written).label == "1.0"


def test_a_size_that_is_not_the_files_is_refused(given: Any) -> None:
    digest = Digest.of(b"hello")
    entry = {"path": "a.txt", "digest": digest, "size": 3, "media_type": "text/plain"}
    _, written = given.manifest({}, files=[entry])
    key = given.registry.uploading.begin(LOCAL, "ada", 10).key
    given.send(LOCAL, key, b"hello")
    with pytest.raises(InvalidManifestError, match=r"files\.0\.size: it is 3, but a\.txt has 5"):
        given.registry.publishing.publish(LOCAL, key, written)


# --- uploads ------------------------------------------------------------------------------------------------------------------


def begun(given: Any, data: bytes = b"0123456789") -> tuple[Any, str]:
    key = given.registry.uploading.begin(LOCAL, "ada", 100).key
    return given.registry.uploading.start(LOCAL, key, Digest.of(data), len(data)), key


def test_a_piece_goes_where_the_last_one_ended(given: Any) -> None:
    uploading = given.registry.uploading
    upload, key = begun(given)
    assert uploading.append(LOCAL, upload.key, 0, [b"01", b"23"]).received == 4
    for offset in (0, 3, 5, 10, -1):
        with pytest.raises(UploadError) as caught:
            uploading.append(LOCAL, upload.key, offset, [b"x"])
        assert caught.value.received == 4
    with pytest.raises(UploadError, match="4 of 10 bytes"):
        uploading.finish(LOCAL, upload.key)
    assert uploading.start(LOCAL, key, upload.digest, 10).received == 4  # going on tells from where
    with pytest.raises(UploadError) as caught:
        uploading.append(LOCAL, upload.key, 4, [b"456789 and more"])
    assert caught.value.received == 4
    uploading.append(LOCAL, upload.key, 4, [b"456789"])
    assert uploading.finish(LOCAL, upload.key).done
    assert uploading.finish(LOCAL, upload.key).done
    with pytest.raises(UploadError):
        uploading.append(LOCAL, upload.key, 10, [b""])
    assert uploading.show(LOCAL, key).uploads[0].done


def test_bytes_of_another_digest_are_refused_and_can_be_sent_again_otherwise_cut(given: Any) -> None:
    uploading = given.registry.uploading
    upload, key = begun(given)
    for offset in range(0, 10, 2):
        uploading.append(LOCAL, upload.key, offset, [b"xx"])
    with pytest.raises(DamagedError, match="has the digest"):
        uploading.finish(LOCAL, upload.key)
    assert given.store.size(upload.digest.key) is None
    assert uploading.start(LOCAL, key, upload.digest, 10).received == 0
    uploading.append(LOCAL, upload.key, 0, [b"0123456"])
    uploading.append(LOCAL, upload.key, 7, [b"789"])
    assert uploading.finish(LOCAL, upload.key).done
    assert b"".join(given.store.get(upload.digest.key)) == b"0123456789"


def test_a_sender_that_breaks_off_goes_on_from_the_last_piece(given: Any) -> None:
    uploading = given.registry.uploading
    upload, _ = begun(given)
    uploading.append(LOCAL, upload.key, 0, [b"0123"])

    def breaking() -> Any:
        yield b"45"
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        uploading.append(LOCAL, upload.key, 4, breaking())
    assert uploading.append(LOCAL, upload.key, 4, [b"456789"]).received == 10
    assert uploading.finish(LOCAL, upload.key).done


def test_an_upload_whose_bytes_a_collector_takes_begins_anew(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector without grace removes the joined pieces before they become a blob."""
    data = b"0123456789"
    uploading, moving = given.registry.uploading, given.store.move
    key = uploading.begin(LOCAL, "ada", len(data)).key
    upload = uploading.start(LOCAL, key, Digest.of(data), len(data))
    uploading.append(LOCAL, upload.key, 0, [data])

    def late(source: str, target: str) -> None:
        given.store.delete(source)
        moving(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(given.registry.store, "move", late)
        with pytest.raises(DamagedError, match="collector without grace"):
            uploading.finish(LOCAL, upload.key)
    assert uploading.start(LOCAL, key, Digest.of(data), len(data)).received == 0
    uploading.append(LOCAL, upload.key, 0, [data])
    assert uploading.finish(LOCAL, upload.key).done
    assert given.registry.housekeeping.verify().sound


def test_finishing_twice_at_once_is_finishing_once(given: Any) -> None:
    uploading = given.registry.uploading
    upload, _ = begun(given)
    uploading.append(LOCAL, upload.key, 0, [b"0123456789"])
    found: list[Any] = []

    def finish() -> None:
        try:
            found.append(uploading.finish(LOCAL, upload.key))
        except NeuronMapError as error:
            found.append(error)

    threads = [threading.Thread(target=finish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(one.done, one.received) for one in found] == [(True, 10)] * 4
    assert [one.key for one in given.store.list()] == [upload.digest.key]


@pytest.mark.parametrize("size", [-1, 2**63, 2**70])
def test_sizes_that_cannot_be(given: Any, size: int) -> None:
    with pytest.raises(InputError):
        given.registry.uploading.begin(LOCAL, "ada", size)
    key = given.registry.uploading.begin(LOCAL, "ada", 10).key
    with pytest.raises(InputError):
        given.registry.uploading.start(LOCAL, key, Digest.of(b"x"), size)


def test_an_upload_keeps_its_size(given: Any) -> None:
    upload, key = begun(given)
    with pytest.raises(UploadError, match="begun with 10 bytes"):
        given.registry.uploading.start(LOCAL, key, upload.digest, 11)


def test_a_publication_that_ran_out_is_over(given: Any) -> None:
    upload, key = begun(given)
    _, written = given.manifest({"a.txt": b"0123456789"})
    with given.registry.database.write() as connection:
        connection.execute(update(publications).values(expires_at=now() - 1))
    uploading = given.registry.uploading
    for call in (
        lambda: uploading.show(LOCAL, key),
        lambda: uploading.start(LOCAL, key, upload.digest, 10),
        lambda: uploading.append(LOCAL, upload.key, 0, [b"0"]),
        lambda: uploading.finish(LOCAL, upload.key),
        lambda: uploading.abandon(LOCAL, key),
        lambda: given.registry.publishing.publish(LOCAL, key, written),
    ):
        with pytest.raises(NotInZooError):
            call()


def test_a_piece_prolongs_a_publication(given: Any) -> None:
    upload, key = begun(given)
    with given.registry.database.write() as connection:
        connection.execute(update(publications).values(expires_at=now() + 5))
    given.registry.uploading.append(LOCAL, upload.key, 0, [b"0"])
    with given.registry.database.read() as connection:
        left = connection.scalar(select(publications.c.expires_at - now()).where(publications.c.key == key))
    assert LIFETIME - 60 < left <= LIFETIME


def test_giving_up_frees_the_room_and_removes_the_pieces(given: Any) -> None:
    ada = given.person("ada", quota=10)
    uploading = given.registry.uploading
    key = uploading.begin(ada, "ada", 10).key
    upload = uploading.start(ada, key, Digest.of(b"0123456789"), 10)
    uploading.append(ada, upload.key, 0, [b"0123"])
    with pytest.raises(QuotaError):
        uploading.begin(ada, "ada", 1)
    uploading.abandon(ada, key)
    assert not list(given.store.list())
    uploading.begin(ada, "ada", 10)


# --- quotas -------------------------------------------------------------------------------------------------------------------


def test_a_quota_counts_what_versions_refer_to_equal_bytes_once(given: Any) -> None:
    ada = given.person("ada", quota=20)
    given.publish({"a.txt": b"0123456789", "b.txt": b"0123456789"}, by=ada)
    assert used(given, "ada") == 10
    given.publish(b"0123456789", by=ada, name="same")
    assert used(given, "ada") == 10
    with pytest.raises(QuotaError, match="do not fit"):
        given.publish(b"0123456789x", by=ada, name="more")
    given.publish(b"9876543210", by=ada, name="fits")
    assert used(given, "ada") == 20
    with pytest.raises(QuotaError):
        given.publish(b"x", by=ada, name="more")
    given.registry.changing.delete(ada, Reference.parse("ada/fits@1.0"), "for room")
    assert used(given, "ada") == 10
    given.publish(b"x", by=ada, name="more")
    assert used(given, "ada") == 11


def test_more_than_was_announced_is_refused(given: Any) -> None:
    ada = given.person("ada", quota=20)
    uploading = given.registry.uploading
    key = uploading.begin(ada, "ada", 5).key
    with pytest.raises(QuotaError, match="keeps 5 B free"):
        uploading.start(ada, key, Digest.of(b"123456"), 6)
    uploading.start(ada, key, Digest.of(b"123"), 3)
    with pytest.raises(QuotaError):
        uploading.start(ada, key, Digest.of(b"456"), 3)


def test_the_quota_counts_again_when_it_is_published(given: Any) -> None:
    """Blobs that others have are not sent, but they count: what was announced does not decide."""
    ada, eve = given.person("ada", quota=8), given.person("eve")
    given.publish(b"0123456789", by=eve)
    _, written = given.manifest({"a.txt": b"0123456789"})
    key = given.registry.uploading.begin(ada, "ada", 0).key
    assert given.registry.uploading.missing(ada, key, [Digest.of(b"0123456789")]) == []
    with pytest.raises(QuotaError):
        given.registry.publishing.publish(ada, key, written)
    assert used(given, "ada") == 0
    assert given.registry.search(LOCAL, Query()).total == 1
    assert given.registry.uploading.show(ada, key).key == key  # nothing happened: more room, and it can be published


# --- drafts -------------------------------------------------------------------------------------------------------------------


def test_a_draft_can_be_replaced_until_it_is_released(given: Any) -> None:
    given.publish(b"one", draft=True)
    second = given.publish(b"two", draft=True)
    assert given.publish(b"two", draft=True).digest == second.digest
    assert count(given, versions) == 1
    assert given.registry.publishing.release(LOCAL, DEMO).state == "published"
    assert given.registry.publishing.release(LOCAL, DEMO).state == "published"
    with pytest.raises(AlreadyExistsError):
        given.publish(b"three", draft=True)
    assert content(given, DEMO) == b"two"


def test_a_draft_is_published_by_publishing_it(given: Any) -> None:
    draft = given.publish(b"one", draft=True)
    found = given.publish(b"one")
    assert (found.state, found.digest) == ("published", draft.digest)
    given.publish(b"two", version="2.0", draft=True)
    assert given.publish(b"other", version="2.0").state == "published"


def test_a_draft_is_seen_by_writers_alone(given: Any) -> None:
    ada, bob, eve = given.person("ada"), given.person("bob"), given.person("eve")
    given.join(bob, "ada", "reader")
    parent = given.publish(b"parent", by=ada, name="parent")
    draft = given.publish(by=ada, draft=True, depends_on=[{"digest": parent.digest, "role": "base"}])
    registry = given.registry
    assert registry.show(ada, DEMO).state == "draft"
    for asker in (bob, eve, ANONYMOUS):
        for call in (
            lambda asker=asker: registry.show(asker, DEMO),
            lambda asker=asker: registry.artefact(asker, "ada", "demo"),
            lambda asker=asker: registry.manifest(asker, DEMO),
            lambda asker=asker: registry.blob(asker, DEMO, "a.txt"),
            lambda asker=asker: registry.lineage(asker, DEMO),
            lambda asker=asker: registry.changing.alias_log(asker, "ada", "demo"),
        ):
            with pytest.raises(NotInZooError, match="There is no artefact ada/demo here, or you may not see it"):
                call()
        assert registry.by_digest(asker, draft.digest) == []
        graph = registry.lineage(asker, Reference.parse("ada/parent@1.0"))
        assert [node.digest for node in graph.nodes] == [parent.digest]
        assert registry.show(asker, Reference.parse("ada/parent@1.0")).used_by == 0
        key = registry.uploading.begin(eve, "eve", 5).key
        assert registry.uploading.missing(eve, key, [Digest.of(b"hello")]) == [Digest.of(b"hello")]
    assert registry.show(ada, Reference.parse("ada/parent@1.0")).used_by == 1
    given.publish(b"public", by=ada, version="0.9")
    with pytest.raises(NotInZooError, match=r"has no version 1\.0; there are 0\.9"):
        registry.show(eve, DEMO)
    assert [one.label for one in registry.artefact(eve, "ada", "demo").versions] == ["0.9"]
    assert [one.label for one in registry.artefact(ada, "ada", "demo").versions] == ["1.0", "0.9"]


def test_a_draft_is_deleted_by_a_writer_for_good(given: Any) -> None:
    ada, bob = given.person("ada"), given.person("bob")
    given.join(bob, "ada", "writer")
    given.publish(by=ada, draft=True)
    given.registry.changing.delete(bob, DEMO, "a mistake")
    assert given.registry.show(ada, DEMO).state == "deleted"


# --- who may ------------------------------------------------------------------------------------------------------------------


def test_who_may_publish_where(given: Any) -> None:
    ada, bob, eve = given.person("ada"), given.person("bob"), given.person("eve")
    given.join(bob, "ada", "reader")
    begin = given.registry.uploading.begin
    with pytest.raises(UnauthorizedError):
        begin(ANONYMOUS, "ada", 1)
    for asker in (bob, eve):
        with pytest.raises(ForbiddenError):
            begin(asker, "ada", 1)
    with pytest.raises(NotInZooError):
        begin(ada, "nobody", 1)
    with pytest.raises(InputError, match="reserved"):
        begin(LOCAL, "admin", 1)
    key = begin(ada, "ada", 5).key
    for asker in (bob, eve):
        with pytest.raises(NotInZooError):
            given.registry.uploading.show(asker, key)
        with pytest.raises(NotInZooError):
            given.registry.uploading.start(asker, key, Digest.of(b"hello"), 5)


def test_a_publication_is_for_one_namespace(given: Any) -> None:
    ada = given.person("ada")
    given.person("eve")
    given.join(ada, "eve", "writer")
    _, written = given.manifest({"a.txt": b"hello"}, namespace="eve")
    key = given.registry.uploading.begin(ada, "ada", 5).key
    given.send(ada, key, b"hello")
    with pytest.raises(ForbiddenError, match="another namespace"):
        given.registry.publishing.publish(ada, key, written)


def test_publishing_elsewhere_tells_nothing_of_what_is_there(given: Any) -> None:
    """The same answer for a private name that exists and for one that does not."""
    ada, eve = given.person("ada"), given.person("eve")
    given.publish(by=ada, private=True)
    key = given.registry.uploading.begin(eve, "eve", 5).key
    given.send(eve, key, b"hello")
    answers = set()
    for name, version in (("demo", "1.0"), ("demo", "2.0"), ("nothing", "1.0")):
        _, written = given.manifest({"a.txt": b"hello"}, name=name, version=version)
        with pytest.raises(ForbiddenError) as caught:
            given.registry.publishing.publish(eve, key, written)
        answers.add(str(caught.value))
    assert len(answers) == 1


def test_whether_a_blob_is_here_is_told_to_those_who_may_read_it(given: Any) -> None:
    ada, bob, eve = given.person("ada"), given.person("bob"), given.person("eve")
    given.join(bob, "ada", "reader")
    given.publish(b"secret", by=ada, private=True)
    digest = Digest.of(b"secret")
    uploading = given.registry.uploading
    for asker, expected in ((ada, []), (bob, []), (eve, [digest])):
        key = uploading.begin(asker, asker.name, 6).key
        assert uploading.missing(asker, key, [digest]) == expected
    _, written = given.manifest({"a.txt": b"secret"}, namespace="eve")
    with pytest.raises(InvalidManifestError, match="was not sent"):
        given.registry.publishing.publish(eve, key, written)  # knowing the digest is not having the bytes
    given.send(eve, key, b"secret")
    given.registry.publishing.publish(eve, key, written)
    assert count(given, blobs) == 1


def test_what_is_private_looks_like_what_is_not_there(given: Any) -> None:
    ada, bob, eve = given.person("ada"), given.person("bob"), given.person("eve")
    given.join(bob, "ada", "reader")
    view = given.publish(by=ada, private=True)
    registry = given.registry
    assert registry.show(bob, DEMO).private
    assert content(given, DEMO, by=bob) == b"hello"
    by_digest = Reference.parse(f"ada/demo@{view.digest}")
    for asker in (eve, ANONYMOUS):
        for reference in (DEMO, by_digest, Reference.parse("ada/demo")):
            with pytest.raises(NotInZooError) as hidden:
                registry.show(asker, reference)
            with pytest.raises(NotInZooError) as absent:
                registry.show(asker, Reference("ada", "other", reference.label, reference.alias, reference.digest))
            assert str(hidden.value) == str(absent.value).replace("ada/other", "ada/demo")
        assert registry.by_digest(asker, view.digest) == []
        for call in (
            lambda asker=asker: registry.changing.yank(asker, DEMO, "x"),
            lambda asker=asker: registry.changing.set_alias(asker, DEMO, "best"),
            lambda asker=asker: registry.changing.delete(asker, DEMO, "x"),
            lambda asker=asker: registry.changing.set_private(asker, "ada", "demo", False),
        ):
            with pytest.raises(NotInZooError):
                call()
    with pytest.raises(ForbiddenError):
        registry.changing.set_private(bob, "ada", "demo", False)
    registry.changing.set_private(ada, "ada", "demo", False)
    assert registry.show(ANONYMOUS, DEMO).digest == view.digest


def test_a_token_reaches_as_far_as_its_scopes(given: Any) -> None:
    from dataclasses import replace

    ada = given.person("ada")
    given.publish(by=ada, private=True)
    reader = replace(ada, scopes=frozenset({"read"}))
    elsewhere = replace(ada, namespace_id=10**6)
    writer = replace(ada, scopes=frozenset({"write"}))
    assert given.registry.show(reader, DEMO).label == "1.0"
    with pytest.raises(ForbiddenError, match="scopes read"):
        given.registry.uploading.begin(reader, "ada", 1)
    with pytest.raises(NotInZooError):
        given.registry.show(elsewhere, DEMO)
    with pytest.raises(ForbiddenError):
        given.registry.uploading.begin(elsewhere, "ada", 1)
    with pytest.raises(NotInZooError):
        given.registry.show(writer, DEMO)


def test_the_manifest_in_the_database_is_checked_when_it_is_read(given: Any) -> None:
    given.publish()
    with given.registry.database.write() as connection:
        connection.execute(update(versions).values(manifest=Manifest.build(dict(_values()))[1]))
    with pytest.raises(DamagedError, match="not the one that was published"):
        given.registry.manifest(LOCAL, DEMO)


def _values() -> dict[str, Any]:
    entry = {"path": "x.txt", "digest": Digest.of(b"x"), "size": 1, "media_type": "text/plain"}
    return {
        "kind": "DATASET",
        "namespace": "ada",
        "name": "demo",
        "version": "1.0",
        "licence": "MIT",
        "created": "2026-11-26T00:00:00Z",
        "files": [entry],
        "record": {"format": "text"},
    }


def test_labels_of_features_that_the_sae_does_not_have_are_refused(given: Any) -> None:
    sae = given.publish(b"3", name="sae", kind="SAE_MODEL")
    width = sae.manifest["record"]["d_sae"]
    record = {"method": "people", "count": 2}
    more = {"kind": "EXPLANATIONS", "record": record, "depends_on": [{"digest": sae.digest, "role": "sae"}]}
    bad = f'{{"feature": 0, "label": "x"}}\n{{"feature": {width}, "label": "y"}}\nnot json\n{{"feature": 1}}\n'.encode()
    with pytest.raises(InvalidManifestError) as refused:
        given.publish({"labels.jsonl": bad}, name="bad-labels", **more)
    assert [place for place, _ in refused.value.faults] == [f"labels.jsonl, line {number}" for number in (2, 3, 4)]
    good = f'{{"feature": 0, "label": "x"}}\n{{"feature": {width - 1}, "label": "y"}}'.encode()
    assert given.publish({"labels.jsonl": good}, name="labels", **more).state == "published"
