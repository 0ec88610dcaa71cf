"""The explorer under load: start, memory at rest, page weights, and 50 readers at once on a store of 65,536 features.

    python benchmarks/explorer.py                       # about five minutes
    python benchmarks/explorer.py --features 4096 --seconds 5
    python benchmarks/explorer.py --start-only          # starts and first looks, printed only

The store holds made-up numbers with the sizes of a real one (benchmarks/queries.py): what is measured is serving, not meaning.
Readers and server share the machine's cores, so a server alone would be faster. Then the same again while an SAE is trained as a job
on made-up activations of a small model. Writes ``benchmarks/results/explorer-<date>.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import gzip
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from neuronmap.paths import write_bytes
from queries import make_store
from speed_machine import commit, machine
from turns import say

HERE = Path(__file__).resolve().parent
PAGES = {
    "first page": "/",
    "SAE": "/sae/large",
    "feature table": "/sae/large/-/features",
    "feature table, filtered": "/sae/large/-/features?where=density%3E%3D0.001&sort=-max",
    "cards": "/sae/large/-/cards",
    "feature": "/sae/large/-/feature/{feature}",
    "feature as JSON": "/sae/large/-/feature/{feature}.json",
    "similarity": "/sae/large/-/similarity?feature={feature}",
    "API: features": "/api/sae/features?sae=large&where=status%3Dalive&sort=-density&limit=50",
    "API: one feature": "/api/sae/feature?sae=large&feature={feature}",
}
MIX = (
    "feature table",
    "feature table, filtered",
    "cards",
    "feature",
    "feature",
    "feature",
    "API: features",
    "API: one feature",
)


def library(home: Path, features: int) -> None:
    """An SAE of that many features with an analysis, in a home folder."""
    from neuronmap.hub import SAEModelHub
    from neuronmap.saes import BundleMetadata, get_architecture, save_bundle

    owner = get_architecture("topk")
    sae = owner(64, features, owner.Options(k=32))
    bundle = home / "bundle"
    save_bundle(sae, bundle, BundleMetadata(model={"name": "made-up"}, hook={"name": "model.layers.0:out", "layer": 0}))
    hub = SAEModelHub(home / "library")
    entry = hub.register(bundle, name="large")
    folder = home / "store"
    folder.mkdir()
    make_store(folder, features, 24)
    hub.attach(entry.id, "made-up", folder, move=False)
    shutil.rmtree(folder)
    shutil.rmtree(bundle)


@contextmanager
def server(home: Path, *more: str) -> Iterator[tuple[int, psutil.Process, float]]:
    """A server of its own: port, process, seconds until its first page was there."""
    environment = {**os.environ, "NEURONMAP_HOME": str(home)}
    command = [sys.executable, "-m", "neuronmap", "serve", "--port", "0", *more]
    started = time.perf_counter()
    with open(home / "serve.log", "w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            port = 0
            while not port:
                if process.poll() is not None or time.perf_counter() - started > 60:
                    raise SystemExit((home / "serve.log").read_text())
                found = re.search(r"http://[^:]+:(\d+)", (home / "serve.log").read_text())
                port = int(found[1]) if found else 0
                time.sleep(0.005)
            get(port, "/")
            yield port, psutil.Process(process.pid), time.perf_counter() - started
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        content: bytes = answer.read()
    return content


def started_in(home: Path, rounds: int) -> dict[str, Any]:
    """Time to the first page and memory at rest, over several starts."""
    seconds, memory, torch = [], [], False
    for _ in range(rounds):
        with server(home) as (_, process, took):
            time.sleep(5.0)  # the rest is made, and what the first looks need
            seconds.append(took)
            memory.append(process.memory_info().rss)
            torch |= any("libtorch" in part.path for part in process.memory_maps())
    return {"seconds": seconds, "rss": memory, "torch_loaded": torch}


def first_looks(home: Path, rounds: int) -> dict[str, Any]:
    """The page of an SAE as the second page of a server: asked for at once, and by a reader who looks at the first page before."""
    found: dict[str, Any] = {}
    for name, pause in (("at_once", 0.0), ("after_3_s", 3.0)):
        times = []
        for _ in range(rounds):
            with server(home) as (port, _, _):
                time.sleep(pause)
                begun = time.perf_counter()
                get(port, PAGES["SAE"])
                times.append(time.perf_counter() - begun)
        found[name] = times
    return found


def weights(port: int, feature: int) -> list[dict[str, Any]]:
    """Size and time of each page, alone: the first time (nothing read yet) and the median of ten more."""
    rows = []
    for name, path in PAGES.items():
        times = []
        for _ in range(11):
            begun = time.perf_counter()
            content = get(port, path.format(feature=feature))
            times.append(time.perf_counter() - begun)
        packed = len(gzip.compress(content, 5))
        rows.append(
            {
                "page": name,
                "bytes": len(content),
                "gzip": packed,
                "first_s": times[0],
                "warm_s": statistics.median(times[1:]),
            }
        )
    return rows


async def reader(port: int, features: int, until: float, seed: int, samples: list[tuple[str, float, int]]) -> None:
    """One reader: a connection kept open, pages one after another."""
    chance = random.Random(seed)
    stream, sink = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    try:
        while time.perf_counter() < until:
            name = chance.choice(MIX)
            path = PAGES[name].format(feature=chance.randrange(features))
            begun = time.perf_counter()
            sink.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/html\r\n\r\n".encode())
            head = await stream.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            length = re.search(rb"content-length: (\d+)", head, re.I)
            if length is None:
                raise ValueError(head.decode())
            await stream.readexactly(int(length[1]))
            samples.append((name, time.perf_counter() - begun, status))
    finally:
        sink.close()


def load(port: int, features: int, readers: int, seconds: float) -> dict[str, Any]:
    """Many readers for a while."""
    samples: list[tuple[str, float, int]] = []

    async def all_of_them() -> float:
        begun = time.perf_counter()
        until = begun + seconds
        await asyncio.gather(*(reader(port, features, until, seed, samples) for seed in range(readers)))
        return time.perf_counter() - begun

    took = asyncio.run(all_of_them())
    times = sorted(one[1] for one in samples)
    pages = {}
    for name in dict.fromkeys(MIX):
        own = sorted(one[1] for one in samples if one[0] == name)
        if own:
            pages[name] = {"count": len(own), "p50": own[len(own) // 2], "p95": own[int(0.95 * (len(own) - 1))]}
    return {
        "readers": readers,
        "seconds": took,
        "requests": len(samples),
        "per_second": len(samples) / took,
        "p50": times[len(times) // 2],
        "p95": times[int(0.95 * (len(times) - 1))],
        "slowest": times[-1],
        "errors": sum(one[2] != 200 for one in samples),
        "pages": pages,
    }


def begin_training(port: int) -> str:
    """A training as a job: long enough for the load, on the sample model."""
    body = {
        "settings": {"model_name": "smollm2-135m", "layer": 8, "corpus": "sotu", "hidden_dim": 8192, "k": 32,
                     "architecture": "topk", "max_tokens": 50_000, "num_epochs": 200, "name": "beside"},
        "evaluate": False,
    }  # fmt: skip
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/sae/train", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        job = json.loads(answer.read())["id"]
    while True:
        found = json.loads(get(port, f"/api/jobs/{job}"))
        title = (found["progress"] or {}).get("title", "")
        if found["state"] not in ("queued", "running"):
            raise SystemExit(f"The training ended: {found}")
        if title.startswith("Training"):
            return str(job)
        time.sleep(0.5)


def start_lines(record: dict[str, Any]) -> list[str]:
    """Starts and first looks, as a list."""
    start, looks = record["start"], record["first_looks"]
    return [
        f"- From `neuronmap serve` to the first page: {statistics.median(start['seconds']):.2f} s "
        f"(of {len(start['seconds'])}; {min(start['seconds']):.2f} to {max(start['seconds']):.2f}).",
        f"- Page of an SAE as the second page: {statistics.median(looks['at_once']):.2f} s when it is asked for at once, "
        f"{1000 * statistics.median(looks['after_3_s']):.0f} ms three seconds later.",
        f"- Memory at rest: {statistics.median(start['rss']) / 2**20:.0f} MiB; torch {'is' if start['torch_loaded'] else 'is not'} loaded.",
    ]


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    quiet, busy = record["load"], record["load_beside_training"]
    lines = [
        "# The explorer under load",
        "",
        f"{record['date']}, commit {record['commit']}, {record['machine']['cpu']}, {record['machine']['logical_cores']} cores. "
        f"{record['features']:,} features. By `benchmarks/explorer.py`.",
        "",
        *start_lines(record),
        f"- Memory after the load: {record['rss_after'] / 2**20:.0f} MiB.",
        "",
        "| page | bytes | gzip | first time, ms | warm, ms |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['page']} | {row['bytes']:,} | {row['gzip']:,} | {1000 * row['first_s']:.0f} | {1000 * row['warm_s']:.1f} |"
        for row in record["pages"]
    ]
    lines += [
        "",
        f"{quiet['readers']} readers at once, each with one connection, pages one after another, {quiet['seconds']:.0f} s; readers and "
        "server share the cores:",
        "",
        "| | requests/s | median, ms | p95, ms | slowest, ms | errors |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, one in (("alone", quiet), ("while an SAE trains as a job", busy)):
        if one is not None:
            times = " | ".join(f"{1000 * one[part]:.0f}" for part in ("p50", "p95", "slowest"))
            lines.append(f"| {name} | {one['per_second']:.0f} | {times} | {one['errors']} |")
    if busy is not None:
        lines += [
            "",
            f"A training beside leaves {busy['per_second'] / quiet['per_second']:.0%} of the requests a second.",
        ]
    lines += ["", "| page, under load | requests | median, ms | p95, ms |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {name} | {one['count']} | {1000 * one['p50']:.0f} | {1000 * one['p95']:.0f} |"
        for name, one in quiet["pages"].items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--features", type=int, default=65_536)
    options.add_argument("--readers", type=int, default=50)
    options.add_argument("--seconds", type=float, default=20.0, help="of each load")
    options.add_argument("--rounds", type=int, default=5, help="starts that are timed")
    options.add_argument("--start-only", action="store_true", help="starts and first looks only; nothing is written")
    options.add_argument("--no-training", action="store_true", help="leave out the load beside a training")
    options.add_argument("--out", type=Path, default=HERE / "results")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        say(f"making a store of {given.features:,} features")
        library(home, given.features)
        say("starts")
        record: dict[str, Any] = {
            "date": str(datetime.date.today()),
            "commit": commit(),
            "machine": machine(os.cpu_count() or 1),
            "features": given.features,
            "start": started_in(home, given.rounds),
            "first_looks": first_looks(home, given.rounds),
            "load_beside_training": None,
        }
        if given.start_only:
            print("\n".join(start_lines(record)))
            return
        with server(home) as (port, process, _):
            time.sleep(5.0)
            say("pages")
            record["pages"] = weights(port, given.features // 2)
            say(f"{given.readers} readers")
            load(port, given.features, given.readers, 2.0)  # what is read the first time
            record["load"] = load(port, given.features, given.readers, given.seconds)
            record["rss_after"] = process.memory_info().rss
            if not given.no_training:
                say("beside a training")
                begin_training(port)
                record["load_beside_training"] = load(port, given.features, given.readers, given.seconds)
    name = given.out / f"explorer-{record['date']}"
    write_bytes(name.with_suffix(".json"), (json.dumps(record, indent=1) + "\n").encode())
    write_bytes(name.with_suffix(".md"), markdown(record).encode())
    print(markdown(record))


if __name__ == "__main__":
    main()
