"""Garbage collection and verification, on both ways to run a zoo."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from neuronmap.database import now
from neuronmap.errors import ConfigError, DamagedError, NeuronMapError, ResourceError
from neuronmap.zoo.blobs import LocalBlobStore
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import LOCAL
from neuronmap.zoo.registry.housekeeping import GRACE
from neuronmap.zoo.registry.uploading import LIFETIME
from neuronmap.zoo.tables import blobs, leases, publications

DEMO = Reference.parse("ada/demo@1.0")
HELLO = Digest.of(b"hello")


def keys(given: Any) -> list[str]:
    return sorted(found.key for found in given.store.list())


def collect(given: Any, **options: Any) -> Any:
    return given.registry.housekeeping.collect(**options)


def spoil(given: Any, digest: Digest, data: bytes) -> None:
    """Other bytes under a digest, as a failing disk leaves them."""
    given.store.delete(digest.key)
    given.store.put(digest.key, [data])


def test_what_a_version_needs_stays(given: Any) -> None:
    given.publish(b"hello")
    given.registry.changing.yank(LOCAL, DEMO, "bad")
    found = collect(given, dry_run=False, grace=0)
    assert (found.blobs, found.leftovers, found.publications) == (0, 0, 0)
    assert keys(given) == [HELLO.key]


def test_deleted_bytes_go_unless_another_version_has_them(given: Any) -> None:
    given.publish({"a.txt": b"hello", "b.txt": b"own"})
    given.publish(b"hello", name="other")
    given.registry.changing.delete(LOCAL, DEMO, "x")
    dry = collect(given, grace=0)
    assert (dry.dry_run, dry.blobs, dry.blob_bytes) == (True, 1, 3)
    assert len(keys(given)) == 2
    assert collect(given, dry_run=False, grace=0).blobs == 1
    assert keys(given) == [HELLO.key]
    assert collect(given, dry_run=False, grace=0).blobs == 0
    assert given.registry.housekeeping.verify().sound


def test_a_dry_run_is_what_happens_unless_told_otherwise(given: Any) -> None:
    given.publish()
    given.registry.changing.delete(LOCAL, DEMO, "x")
    assert collect(given, grace=0).dry_run
    assert keys(given) == [HELLO.key]


def test_unneeded_blobs_are_kept_for_longer_than_a_publication_lives(given: Any) -> None:
    assert GRACE > LIFETIME
    given.publish()
    given.registry.changing.delete(LOCAL, DEMO, "x")
    found = collect(given, dry_run=False)
    assert (found.blobs, found.kept_young) == (0, 1)
    assert keys(given) == [HELLO.key]
    with given.registry.database.write() as connection:
        connection.execute(update(blobs).values(verified_at=now() - GRACE - 1))
    assert collect(given, dry_run=False).blobs == 1
    assert keys(given) == []


def test_verifying_does_not_keep_what_nothing_needs(given: Any) -> None:
    given.publish()
    given.registry.changing.delete(LOCAL, DEMO, "x")
    with given.registry.database.write() as connection:
        connection.execute(update(blobs).values(verified_at=now() - GRACE - 1))
    assert given.registry.housekeeping.verify().checked == 0
    assert collect(given, dry_run=False).blobs == 1


def test_a_publication_under_way_is_safe(given: Any) -> None:
    uploading = given.registry.uploading
    key = uploading.begin(LOCAL, "ada", 15).key
    given.send(LOCAL, key, b"hello")  # arrived, not yet published
    half = uploading.start(LOCAL, key, Digest.of(b"0123456789"), 10)
    uploading.append(LOCAL, half.key, 0, [b"01234"])
    before = keys(given)
    found = collect(given, dry_run=False, grace=0)
    assert (found.blobs, found.leftovers, found.publications) == (0, 0, 0)
    assert keys(given) == before
    uploading.append(LOCAL, half.key, 5, [b"56789"])
    uploading.finish(LOCAL, half.key)
    _, written = given.manifest({"a.txt": b"hello", "b.txt": b"0123456789"})
    given.registry.publishing.publish(LOCAL, key, written)
    assert given.registry.housekeeping.verify().sound


def test_publications_that_ran_out_leave_nothing(given: Any) -> None:
    uploading = given.registry.uploading
    key = uploading.begin(LOCAL, "ada", 15).key
    given.send(LOCAL, key, b"hello")
    half = uploading.start(LOCAL, key, Digest.of(b"0123456789"), 10)
    uploading.append(LOCAL, half.key, 0, [b"01234"])
    given.store.put("temporary/left", [b"over"])
    given.store.put(Digest.of(b"no row").key, [b"no row"])
    with given.registry.database.write() as connection:
        connection.execute(update(publications).values(expires_at=now() - 1))
    dry = collect(given, grace=0)
    found = collect(given, dry_run=False, grace=0)
    assert dry.model_copy(update={"dry_run": False}) == found
    assert (found.publications, found.blobs, found.leftovers, found.leftover_bytes) == (1, 1, 3, 15)
    assert keys(given) == []
    again = collect(given, dry_run=False, grace=0)
    assert (again.publications, again.blobs, again.leftovers) == (0, 0, 0)


def test_young_leftovers_stay(given: Any) -> None:
    given.store.put("temporary/being-written", [b"x"])
    assert collect(given, dry_run=False).leftovers == 0
    assert keys(given) == ["temporary/being-written"]


def test_one_collector_at_a_time(given: Any) -> None:
    with given.registry.database.write() as connection:
        connection.execute(insert(leases).values(name="gc", holder="another", until=now() + 60))
    with pytest.raises(ResourceError, match="Another garbage collection"):
        collect(given, grace=0)
    with given.registry.database.write() as connection:
        connection.execute(update(leases).values(until=now() - 1))  # it died
    collect(given, grace=0)
    with given.registry.database.read() as connection:
        assert connection.execute(select(leases)).all() == []
    with pytest.raises(ConfigError, match="negative"):
        collect(given, grace=-1)


def test_a_blob_that_a_publication_takes_up_is_not_collected(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector looks before the publication commits, and removes after: it must see what was committed meanwhile."""
    given.publish(b"hello", name="old")
    _, written = given.manifest({"a.txt": b"hello"})
    key = given.registry.uploading.begin(LOCAL, "ada", 5).key
    publishing, collecting = given.registry.publishing, given.again()
    paused, go_on = threading.Event(), threading.Event()
    insert_it = publishing._insert

    def slowly(*arguments: Any) -> int:
        number = insert_it(*arguments)
        paused.set()
        assert go_on.wait(30)
        return number

    monkeypatch.setattr(publishing, "_insert", slowly)
    results: list[Any] = []

    def run(what: Any) -> None:
        try:
            results.append(what())
        except NeuronMapError as error:
            results.append(error)

    def delete_and_collect() -> Any:
        collecting.changing.delete(LOCAL, Reference.parse("ada/old@1.0"), "x")
        return collecting.housekeeping.collect(dry_run=False, grace=0)

    first = threading.Thread(target=run, args=[lambda: publishing.publish(LOCAL, key, written)])
    first.start()
    assert paused.wait(30)
    second = threading.Thread(target=run, args=[delete_and_collect])
    second.start()
    second.join(0.5)
    go_on.set()
    first.join(30)
    second.join(30)
    collecting.close()
    assert len(results) == 2
    assert b"".join(given.registry.blob(LOCAL, DEMO, "a.txt")[2]) == b"hello"
    assert given.registry.housekeeping.verify().sound


# --- verification -------------------------------------------------------------------------------------------------------------


def test_everything_is_hashed(given: Any) -> None:
    given.publish({"a.txt": b"hello", "b.txt": b"world!"})
    told: list[tuple[int, int]] = []
    found = given.registry.housekeeping.verify(progress=lambda done, total: told.append((done, total)))
    assert (found.checked, found.checked_bytes, found.sound) == (2, 11, True)
    assert told[-1] == (11, 11)
    first = given.registry.housekeeping.verify(limit=1)
    second = given.registry.housekeeping.verify(limit=1)
    assert first.checked_bytes + second.checked_bytes == 11  # those first whose last time is the longest ago


@pytest.mark.parametrize("data", [b"hellO", b"hello and more", b"hell", b""])
def test_damage_is_found_and_mended_by_sending_it_again(given: Any, data: bytes) -> None:
    given.publish(b"hello")
    spoil(given, HELLO, data)
    found = given.registry.housekeeping.verify()
    assert (found.damaged, found.missing, found.sound) == ((HELLO,), (), False)
    key = given.registry.uploading.begin(LOCAL, "ada", 5).key
    assert given.registry.uploading.missing(LOCAL, key, [HELLO]) == [HELLO]  # damaged bytes are no bytes
    given.send(LOCAL, key, b"hello")
    assert given.registry.housekeeping.verify().sound
    assert given.registry.uploading.missing(LOCAL, key, [HELLO]) == []


def test_a_blob_that_came_back_is_repaired(given: Any) -> None:
    given.publish(b"hello")
    spoil(given, HELLO, b"other")
    assert given.registry.housekeeping.verify().damaged == (HELLO,)
    spoil(given, HELLO, b"hello")  # from a backup
    found = given.registry.housekeeping.verify()
    assert (found.repaired, found.sound) == ((HELLO,), True)
    assert given.registry.housekeeping.verify().repaired == ()


def test_a_lost_blob_is_missing_and_reading_it_says_so(given: Any) -> None:
    given.publish(b"hello")
    given.store.delete(HELLO.key)
    found = given.registry.housekeeping.verify()
    assert (found.missing, found.damaged, found.checked, found.sound) == ((HELLO,), (), 0, False)
    with pytest.raises(DamagedError, match=f"has lost {HELLO}"):
        given.registry.blob(LOCAL, DEMO, "a.txt")
    given.publish(b"hello", name="again")
    assert given.registry.housekeeping.verify().sound


def test_a_row_that_was_lost_is_missing(given: Any) -> None:
    given.publish(b"hello")
    with given.registry.database.write() as connection:
        connection.execute(blobs.delete())
    assert given.registry.housekeeping.verify().missing == (HELLO,)


def test_a_store_that_loses_a_blob_between_sending_and_publishing(given: Any) -> None:
    key = given.registry.uploading.begin(LOCAL, "ada", 5).key
    digest = given.send(LOCAL, key, b"{} {}")
    given.store.delete(digest.key)
    _, written = given.manifest({"a.json": b"{} {}"})
    with pytest.raises(DamagedError, match="has lost"):
        given.registry.publishing.publish(LOCAL, key, written)


def test_stored_blobs_are_marked_as_not_to_be_written(given: Any) -> None:
    if not isinstance(given.store, LocalBlobStore):
        pytest.skip("an object store has no such mark")
    given.publish(b"hello")
    assert (given.store.root / HELLO.key).stat().st_mode & 0o777 == 0o400
