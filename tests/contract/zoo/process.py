"""Processes of the tests: each opens a zoo, does one thing, and says what came of it. Run as a program, it reads orders line by line.

[{"url": ..., "location": ..., "do": "publish", ...}, ...]    one line: all of them at once, each in a process of its own

A process can kill itself at a step: ``"die": {"at": "neuronmap.zoo.registry.publishing:Publishing._insert", "when": "after", "nth": 1}``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import Any

from neuronmap.database import Database, database_url
from neuronmap.errors import NeuronMapError
from neuronmap.zoo.blobs import blob_store
from neuronmap.zoo.database import ZOO
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.manifest import Manifest
from neuronmap.zoo.names import Reference
from neuronmap.zoo.people.principal import LOCAL
from neuronmap.zoo.registry.registry import Registry


def die_at(at: str, when: str, nth: int = 1) -> None:
    """Replace a step by one that kills this process before or after it, the ``nth`` time."""
    place, _, path = at.partition(":")
    owner: Any = import_module(place)
    *parts, name = path.split(".")
    for part in parts:
        owner = getattr(owner, part)
    step = getattr(owner, name)
    calls = 0

    def dying(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = step(*arguments, **options)
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


def publish(registry: Registry, told: dict[str, Any]) -> str:
    data = told["data"].encode()
    digest = Digest.of(data)
    manifest, written = Manifest.build(
        {
            "kind": "DATASET",
            "namespace": "ada",
            "name": told.get("name", "demo"),
            "version": told["version"],
            "licence": "MIT",
            "created": "2026-11-26T00:00:00Z",
            "record": {"format": "text"},
            "files": [{"path": "a.txt", "digest": digest, "size": len(data), "media_type": "text/plain"}],
        }
    )
    uploading = registry.uploading
    key = uploading.begin(LOCAL, "ada", manifest.size).key
    if uploading.missing(LOCAL, key, [digest]):
        upload = uploading.start(LOCAL, key, digest, len(data))
        half = len(data) // 2
        uploading.append(LOCAL, upload.key, 0, [data[:half]])
        uploading.append(LOCAL, upload.key, half, [data[half:]])
        uploading.finish(LOCAL, upload.key)
    return registry.publishing.publish(LOCAL, key, written).digest


def delete(registry: Registry, told: dict[str, Any]) -> str:
    return registry.changing.delete(LOCAL, Reference.parse(told["reference"]), "gone").state


def collect(registry: Registry, told: dict[str, Any]) -> str:
    del told
    return str(registry.housekeeping.collect(dry_run=False, grace=0).blobs)


def move_alias(registry: Registry, told: dict[str, Any]) -> str:
    view = registry.changing.set_alias(
        LOCAL, Reference.parse(told["reference"]), "production", expected=told["expected"], reason=told["reference"]
    )
    return view.label


def carry_out(told: dict[str, Any], others: int) -> dict[str, Any]:
    """One order, in a process of its own; reading from ``others`` waits until all are ready."""
    if told.get("late"):
        os.read(others, 1)
    registry = Registry(Database(ZOO, database_url(ZOO, told["url"])), blob_store(told["location"]))
    if "die" in told:
        die_at(**told["die"])
    if not told.get("late"):
        os.read(others, 1)
    try:
        return {"ok": globals()[told["do"]](registry, told)}
    except NeuronMapError as error:
        return {"error": error.code, "message": error.message}


def run_all(orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fork a process for each order; they begin when the last one is ready. Answers with exit statuses (negative: a signal)."""
    others, mine = os.pipe()
    children = []
    for order in orders:
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(mine)  # when all have done so, reading ends
            status = 1
            try:
                os.write(writing, json.dumps(carry_out(order, others)).encode())
                status = 0
            except BaseException:  # noqa: BLE001 - whatever it was, the test is told
                os.write(writing, json.dumps({"fault": traceback.format_exc()[-3000:]}).encode())
            os._exit(status)
        os.close(writing)
        children.append((process, reading))
    os.close(mine)
    os.close(others)
    answers = []
    for process, reading in children:
        with open(reading, "rb") as pipe:
            said = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        answers.append({**(json.loads(said) if said else {}), "status": status})
    return answers


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run_all(json.loads(line))), flush=True)
