"""A process that is killed at any step of a publication leaves garbage at most, on both ways to run a zoo.

After each: every listed version downloads and verifies, a collection without grace leaves no orphan, the quota is the sum of what is
referred to, and the same publication goes through.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from neuronmap.database import now
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import LOCAL
from neuronmap.zoo.registry.uploading import used_bytes
from neuronmap.zoo.search.query import Query
from neuronmap.zoo.tables import blobs, files, leases, namespaces, publications, versions

Ordered = Callable[..., list[dict[str, Any]]]
STORES = {
    "sqlite": "neuronmap.zoo.blobs.local:LocalBlobStore",
    "postgresql": "neuronmap.zoo.blobs.objects:ObjectBlobStore",
}
REGISTRY = "neuronmap.zoo.registry"
STEPS = [
    # A process's last breath: the step, before or after it, the how-manieth call.
    (f"{REGISTRY}.uploading:Uploading.begin", "after", 1),
    (f"{REGISTRY}.uploading:Uploading.start", "after", 1),
    ("STORE.put", "before", 1),
    ("STORE.put", "after", 1),  # the piece is there, its row is not
    (f"{REGISTRY}.uploading:Uploading.append", "after", 1),
    (f"{REGISTRY}.uploading:Uploading.append", "after", 2),
    ("STORE.put", "before", 3),
    ("STORE.put", "after", 3),  # joined, not yet a blob
    ("STORE.move", "after", 1),  # a blob without a row
    (f"{REGISTRY}.uploading:record_blob", "after", 1),  # not committed
    ("STORE.delete", "before", 1),  # the pieces are left
    ("STORE.delete", "after", 1),
    (f"{REGISTRY}.uploading:Uploading.finish", "after", 1),
    (f"{REGISTRY}.publishing:check_contents", "after", 1),
    (f"{REGISTRY}.publishing:Publishing._artefact", "after", 1),
    (f"{REGISTRY}.publishing:Publishing._insert", "after", 1),
    (f"{REGISTRY}.publishing:add_document", "after", 1),
    (f"{REGISTRY}.publishing:refresh_newest", "after", 1),
    (f"{REGISTRY}.publishing:write_down", "after", 1),
    (f"{REGISTRY}.publishing:Publishing.publish", "after", 1),  # done, but nobody was told
]
ORDER = {"do": "publish", "version": "2.0", "data": "what is published"}


def check(given: Any) -> None:
    registry = given.registry
    with registry.database.read() as connection:
        listed = connection.scalars(select(versions.c.label).where(versions.c.state != "deleted")).all()
        space = connection.scalar(select(namespaces.c.id).where(namespaces.c.name == "ada"))
        sizes = dict(connection.execute(select(files.c.digest, files.c.size_bytes)).all())
        assert used_bytes(connection, space) == sum(sizes.values())
    found = registry.search(LOCAL, Query(all_versions=True))
    assert sorted(hit.reference for hit in found.hits) == sorted(f"ada/demo@{label}" for label in listed)
    for label in listed:
        reference = Reference.parse(f"ada/demo@{label}")
        assert registry.manifest(LOCAL, reference)[0] == registry.show(LOCAL, reference).digest
        digest, size, pieces = registry.blob(LOCAL, reference, "a.txt")
        data = b"".join(pieces)
        assert (Digest.of(data), len(data)) == (digest, size)
    assert registry.housekeeping.verify().sound


def check_no_orphans(given: Any) -> None:
    with given.registry.database.write() as connection:
        connection.execute(update(publications).values(expires_at=now() - 1))
    given.registry.housekeeping.collect(dry_run=False, grace=0)
    with given.registry.database.read() as connection:
        needed = {Digest(digest).key for digest in connection.scalars(select(files.c.digest))}
        rows = {Digest(digest).key for digest in connection.scalars(select(blobs.c.digest))}
    assert {found.key for found in given.store.list()} == needed == rows
    again = given.registry.housekeeping.collect(grace=0)
    assert (again.blobs, again.leftovers, again.publications, again.kept_young) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("step", "when", "nth"), STEPS, ids=[f"{step.rpartition(':')[2]}-{when}-{nth}" for step, when, nth in STEPS]
)
def test_killed_while_it_publishes(given: Any, processes: Ordered, step: str, when: str, nth: int) -> None:
    given.publish(b"what was there before")
    kind = "sqlite" if given.url.startswith("sqlite") else "postgresql"
    [done] = processes(given, [{**ORDER, "die": {"at": step.replace("STORE", STORES[kind]), "when": when, "nth": nth}}])
    assert done == {"status": -signal.SIGKILL}
    check(given)
    published = step.endswith("Publishing.publish")
    assert len(given.registry.artefact(LOCAL, "ada", "demo").versions) == (2 if published else 1)
    check_no_orphans(given)
    check(given)
    assert given.publish(ORDER["data"].encode(), version=ORDER["version"]).label == "2.0"
    assert len(given.registry.artefact(LOCAL, "ada", "demo").versions) == 2
    check(given)
    check_no_orphans(given)


@pytest.mark.parametrize(("step", "when"), [("STORE.delete", "before"), ("STORE.delete", "after")])
def test_killed_while_it_collects(given: Any, processes: Ordered, step: str, when: str) -> None:
    for label in ("1.0", "2.0", "3.0"):
        given.publish(f"content of {label}".encode(), version=label)
    for label in ("1.0", "2.0"):
        given.registry.changing.delete(LOCAL, Reference.parse(f"ada/demo@{label}"), "gone")
    kind = "sqlite" if given.url.startswith("sqlite") else "postgresql"
    [done] = processes(
        given, [{"do": "collect", "die": {"at": step.replace("STORE", STORES[kind]), "when": when, "nth": 1}}]
    )
    assert done == {"status": -signal.SIGKILL}
    check(given)
    with given.registry.database.write() as connection:  # its lease runs out
        connection.execute(update(leases).values(until=now() - 1))
    check_no_orphans(given)
    check(given)
