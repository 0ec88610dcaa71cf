"""The zoo under load: searching in many versions, a large upload at flat memory, many downloads at once.

    python benchmarks/zoo.py                              # SQLite and a folder; about three minutes
    python benchmarks/zoo.py --database postgresql://...  # an empty PostgreSQL database instead
    python benchmarks/zoo.py --store s3://bucket?endpoint=http://127.0.0.1:9000  # where the upload goes
    python benchmarks/zoo.py --server URL --file ada/demo@1.0:weights.safetensors  # downloads from a running server besides

Versions are written into the tables as a publication writes them, but many in a transaction; what is timed goes through the registry, in
one process and one thread. Times are of one call, first pages of 20 hits; the database is as warm as a server's. An upload runs in a
process of its own whose greatest memory is read before and after it: pieces of 64 MiB, hashed, joined, hashed again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import insert, text

from neuronmap.database import Database, database_url, now
from neuronmap.zoo.blobs import blob_store
from neuronmap.zoo.database import ZOO
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.manifest import Manifest
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import ANONYMOUS, LOCAL
from neuronmap.zoo.registry.registry import Registry
from neuronmap.zoo.search.documents import add_document
from neuronmap.zoo.search.query import CompatibilityQuery, Query
from neuronmap.zoo.tables import artefacts, namespaces, search_documents, versions
from neuronmap.zoo.versions import sort_key
from speed_machine import commit, machine

MODELS = {
    "openai-community/gpt2": 768,
    "EleutherAI/pythia-70m": 512,
    "meta-llama/Llama-3.1-8B": 4096,
    "google/gemma-2-2b": 2304,
}
ARCHITECTURES = ("relu", "gated", "topk", "batchtopk", "jumprelu", "matryoshka")
COMPONENTS = ("residual", "mlp", "attention")
WORDS = [
    f"{start}{middle}{end}"
    for start in "bdgklmnprst"
    for middle in ("a", "e", "io", "u")
    for end in ("n", "rd", "sk", "lt")
]
PIECE = 64 << 20
CHUNK = 1 << 20


def manifest_of(number: int, version: int, chance: random.Random) -> Manifest:
    """A made-up SAE."""
    model, width = chance.choice(list(MODELS.items()))
    layer, component = chance.randrange(24), chance.choice(COMPONENTS)
    words = chance.choices(WORDS, weights=[1 / (rank + 1) for rank in range(len(WORDS))], k=80)
    return Manifest(
        kind="SAE_MODEL",
        namespace=f"team-{number % 40}",
        name=f"sae-{number}",
        version=f"{version}.0",
        title=" ".join(words[:6]),
        summary=" ".join(words[6:30]),
        tags=tuple(dict.fromkeys(words[30:34])),
        licence=chance.choice(("MIT", "Apache-2.0", "CC-BY-4.0")),
        authors=({"name": f"{words[34].title()} {words[35].title()}"},),
        created="2026-11-26T00:00:00Z",
        files=({"path": "a.txt", "digest": Digest.of(b"x"), "size": 1, "media_type": "text/plain"},),
        record={
            "format": "other",
            "model": {"name": model},
            "hook": {"name": f"layers.{layer}.{component}", "layer": layer, "component": component},
            "architecture": chance.choice(ARCHITECTURES),
            "d_in": width,
            "d_sae": width * chance.choice((4, 8, 16, 32)),
            "metrics": {"l0": chance.uniform(10, 200), "explained_variance": chance.uniform(0.5, 0.95)},
        },
    )


def fill(registry: Registry, count: int) -> float:
    """Write ``count`` versions, two of each artefact; a tenth is private. Returns seconds."""
    chance = random.Random(0)
    began = time.perf_counter()
    with registry.database.write() as connection:
        spaces = {
            f"team-{number}": connection.execute(
                insert(namespaces)
                .values(name=f"team-{number}", kind="organisation", created_at=now())
                .returning(namespaces.c.id)
            ).scalar_one()
            for number in range(40)
        }
    for first in range(0, count // 2, 250):
        with registry.database.write() as connection:
            for number in range(first, min(first + 250, count // 2)):
                _add_artefact(connection, spaces, number, chance)
    with registry.database.write() as connection:
        connection.execute(text("ANALYZE"))
    return time.perf_counter() - began


def _add_artefact(connection: Any, spaces: dict[str, int], number: int, chance: random.Random) -> None:
    artefact = None
    for version in (1, 2):
        manifest = manifest_of(number, version, chance)
        if artefact is None:
            artefact = connection.execute(
                insert(artefacts)
                .values(
                    namespace_id=spaces[manifest.namespace],
                    name=manifest.name,
                    kind=manifest.kind,
                    private=number % 10 == 0,
                    stars=chance.randrange(100),
                    created_at=now(),
                    updated_at=now(),
                )
                .returning(artefacts.c.id)
            ).scalar_one()
        written = json.dumps(manifest.to_dict()).encode()
        made = connection.execute(
            insert(versions)
            .values(
                artefact_id=artefact,
                label=manifest.version,
                sort_key=sort_key(manifest.version),
                digest=Digest.of(written),
                manifest=written,
                kind=manifest.kind,
                state="published",
                size_bytes=1,
                created_at=now(),
                published_at=now(),
                changed_at=now(),
            )
            .returning(versions.c.id)
        ).scalar_one()
        add_document(connection, made, manifest, " ".join(chance.choices(WORDS, k=300)))
    newest = search_documents.c.version_id == made
    connection.execute(search_documents.update().where(newest).values(newest=True))


def searches(registry: Registry) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    deep = Query(sort="newest", limit=100)
    for _ in range(10):
        page = registry.search(ANONYMOUS, deep)
        if page.next is None:
            break
        deep = deep.model_copy(update={"cursor": page.next})

    def find(**query: Any) -> Callable[[], Any]:
        return lambda: registry.search(ANONYMOUS, Query(**query))

    return {
        "newest, no words": find(),
        "one frequent word": find(q=WORDS[0]),
        "two words": find(q=f"{WORDS[3]} {WORDS[20]}"),
        "a beginning of two letters": find(q="sa"),
        "a rare name": find(q="sae-1234"),
        "model and layer": find(model="gpt2", layer=8),
        "model, layer, word, figure": find(model="gpt2", layer=8, q=WORDS[0], metric=("explained_variance>=0.7",)),
        "by a figure": find(sort="metric:explained_variance"),
        "by stars, every version": find(sort="stars", all_versions=True),
        "part of an author's name": find(author="basky"),
        "after 1,000 hits": lambda: registry.search(ANONYMOUS, deep),
        "facets, no words": lambda: registry.facets(ANONYMOUS, Query()),
        "facets of a frequent word": lambda: registry.facets(ANONYMOUS, Query(q=WORDS[0])),
        "which SAEs fit": lambda: registry.compatible(ANONYMOUS, CompatibilityQuery(model="gpt2", layer=8, d_in=768)),
        "one version": lambda: registry.show(ANONYMOUS, Reference.parse("team-1/sae-1@2.0")),
    }


def timed(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Milliseconds of a call: median and 95th percentile."""
    call()
    values = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        values.append((time.perf_counter() - began) * 1000)
    return {"p50_ms": round(statistics.median(values), 2), "p95_ms": round(sorted(values)[int(0.95 * repeats)], 2)}


def upload(database: str, store: str, gib: float) -> dict[str, Any]:
    """One large file, from the first piece to the version; in a process of its own."""
    registry = Registry(Database(ZOO, database_url(ZOO, database)), blob_store(store))
    size = int(gib * (1 << 30)) // CHUNK * CHUNK
    block = random.Random(1).randbytes(CHUNK)

    def chunks(first: int, last: int) -> Iterator[bytes]:
        for number in range(first // CHUNK, last // CHUNK):
            yield number.to_bytes(8, "little") + block[8:]

    state = hashlib.sha256()
    for chunk in chunks(0, size):
        state.update(chunk)
    digest = Digest(f"sha256:{state.hexdigest()}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    key = registry.uploading.begin(LOCAL, "bench", size).key
    at = registry.uploading.start(LOCAL, key, digest, size)
    for first in range(0, size, PIECE):
        at = registry.uploading.append(LOCAL, at.key, first, chunks(first, min(size, first + PIECE)))
    sent = time.perf_counter()
    registry.uploading.finish(LOCAL, at.key)
    ended = time.perf_counter()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    registry.close()
    return {
        "gib": round(size / 2**30, 2),
        "store": str(registry.store).partition("://")[0] if "://" in str(registry.store) else "folder",
        "sending_s": round(sent - began, 1),
        "finishing_s": round(ended - sent, 1),
        "rss_before_mib": before // 1024,
        "rss_after_mib": after // 1024,
    }


def downloads(server: str, file: str, at_once: int = 100) -> dict[str, Any]:
    """Download one file from a server many times at once; each copy is hashed."""
    reference, _, path = file.partition(":")
    found = Reference.parse(reference)
    version = found.label or found.alias or found.digest
    address = f"{server.rstrip('/')}/api/zoo/artefacts/{found.artefact}/versions/{version}/files/{path}"

    def one(number: int) -> tuple[float, int, bool]:
        del number
        began = time.perf_counter()
        state, size = hashlib.sha256(), 0
        with urllib.request.urlopen(address) as answer:
            expected = answer.headers["ETag"].strip('"').removeprefix("sha256:")
            while chunk := answer.read(CHUNK):
                state.update(chunk)
                size += len(chunk)
        return time.perf_counter() - began, size, state.hexdigest() == expected

    began = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        rows = list(pool.map(one, range(at_once)))
    whole = time.perf_counter() - began
    times = sorted(row[0] for row in rows)
    return {
        "at_once": at_once,
        "bytes_each": rows[0][1],
        "all_sound": all(row[2] for row in rows),
        "whole_s": round(whole, 2),
        "p50_s": round(statistics.median(times), 2),
        "p95_s": round(times[int(0.95 * at_once)], 2),
        "mib_per_s": round(sum(row[1] for row in rows) / whole / 2**20, 1),
    }


def markdown(record: dict[str, Any]) -> str:
    """The result as a page."""
    facts = record["machine"]
    lines = [
        "# The zoo under load",
        "",
        f"{record['date']}, commit {record['commit']}, {facts['cpu']}, {facts['logical_cores']} cores, load at the start "
        f"{facts['load_at_start']}. By `benchmarks/zoo.py`.",
        "",
        f"## Searching in {record['versions']:,} versions, {record['database']}",
        "",
        f"{record['versions'] // 2:,} artefacts of two versions each, a tenth of them private; asked by somebody not signed in. "
        f"{record['repeats']} calls of each. Filled in {record['filling_s']} s.",
        "",
        "| what | p50, ms | p95, ms |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {row['p50_ms']} | {row['p95_ms']} |" for name, row in record["searches"].items()),
        "",
        "## One large upload",
        "",
        "| size | store | sending | joining and hashing | greatest memory before | after |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {row['gib']} GiB | {row['store']} | {row['sending_s']} s | {row['finishing_s']} s | {row['rss_before_mib']} MiB "
            f"| {row['rss_after_mib']} MiB |"
            for row in record["uploads"]
        ),
    ]
    if "downloads" in record:
        row = record["downloads"]
        lines += [
            "",
            "## Downloads at once",
            "",
            f"{row['at_once']} of {row['bytes_each']:,} bytes: {row['whole_s']} s in all, {row['mib_per_s']} MiB/s, p50 {row['p50_s']} s, "
            f"p95 {row['p95_s']} s; every copy has its digest: {row['all_sound']}.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--versions", type=int, default=10_000)
    options.add_argument("--repeats", type=int, default=40)
    options.add_argument("--gib", type=float, default=2.0, help="of the upload")
    options.add_argument("--database", help="URL of an empty PostgreSQL database")
    options.add_argument("--store", action="append", help="where an upload goes, besides a folder")
    options.add_argument("--server", help="of a running zoo, for downloads")
    options.add_argument("--file", help="namespace/name@version:path there")
    options.add_argument("--output", type=Path, help="without ending; two files are written")
    options.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.worker:
        print(json.dumps(upload(given.worker[0], given.worker[1], float(given.worker[2]))))
        return
    record: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(1),
        "versions": given.versions,
        "repeats": given.repeats,
        "database": "PostgreSQL" if given.database else "SQLite",
    }
    with tempfile.TemporaryDirectory(prefix="nm-zoo-") as folder:
        url = given.database or f"sqlite:///{folder}/zoo.sqlite3"
        registry = Registry(Database(ZOO, database_url(ZOO, url)), blob_store(f"{folder}/blobs"))
        record["filling_s"] = round(fill(registry, given.versions), 1)
        record["searches"] = {}
        for name, call in searches(registry).items():
            record["searches"][name] = timed(call, given.repeats)
            print(f"{name:35s} {record['searches'][name]}", file=sys.stderr)
        registry.close()
        record["uploads"] = []
        for store in [f"{folder}/blobs", *(given.store or [])]:
            worker = [
                sys.executable,
                __file__,
                "--worker",
                f"sqlite:///{folder}/uploads.sqlite3",
                store,
                str(given.gib),
            ]
            done = subprocess.run(worker, check=True, capture_output=True, text=True)
            record["uploads"].append(json.loads(done.stdout))
            print(record["uploads"][-1], file=sys.stderr)
    if given.server and given.file:
        record["downloads"] = downloads(given.server, given.file)
        print(record["downloads"], file=sys.stderr)
    if given.output:
        given.output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        given.output.with_suffix(".md").write_text(markdown(record))
    else:
        print(markdown(record))


if __name__ == "__main__":
    main()
