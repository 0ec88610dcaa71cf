"""What keeping freed memory is worth: the same work in processes with and without it, in turn.

    python benchmarks/allocator.py                # about eight minutes; Linux with glibc only

With it is how the ``neuronmap`` command runs (``neuronmap.allocator``), without it is how a library import leaves a process.
Writes ``benchmarks/results/allocator-<date>.json`` and ``.md``. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from neuronmap.allocator import SWITCH, keep_freed_memory
from neuronmap.models import capture, load_model, resolve_hook
from neuronmap.paths import write_bytes
from neuronmap.progress import SilentProgress
from speed_cells import OURS, Cell
from speed_machine import commit, machine
from speed_session import OurTrainer

HERE = Path(__file__).resolve().parent
WORK = {
    "harvest": "2,048 tokens of SmolLM2-135M to block 8",
    "logits": "1,024 tokens of SmolLM2-135M with logits, as evaluation runs it",
    "sparse step": "topk, F = 16,384, k = 32, B = 4,096, D = 576: a training step",
    "dense step": "the same by plain autograd, F = 4,096",
}
MODES = ("kept", "system")
PASSES = {"harvest": 10, "logits": 5, "sparse step": 8, "dense step": 6}


def one_pass(work: str) -> Callable[[], object]:
    """The work, ready to be run again and again."""
    generator = torch.Generator().manual_seed(0)
    if work in ("harvest", "logits"):
        model = load_model("smollm2-135m", dtype="float32", measured_settings=False, progress=SilentProgress())
        contexts = 16 if work == "harvest" else 8
        ids_BT = torch.randint(40_000, (contexts, 128), generator=generator)
        hook = resolve_hook(model, 8)
        out = {hook.name: torch.empty(contexts, 128, hook.width)}
        return (lambda: capture(model, ids_BT, [hook], out=out)) if work == "harvest" else lambda: model.logits(ids_BT)
    rows_ND = torch.randn(16_384, 576, generator=generator) / 24
    path, features = ("auto", 16_384) if work == "sparse step" else ("autograd", 4096)
    trainer = OurTrainer(Cell(OURS, "topk", "usual", path, 576, features, 32, 4096, 0.0).order(), rows_ND)  # type: ignore[arg-type]

    def step() -> None:
        trainer.prepare()
        trainer.step()

    return step


def measure(work: str) -> dict[str, Any]:
    """In a process of its own: median seconds and page faults of a pass, and the process' peak."""
    kept = keep_freed_memory()
    run = one_pass(work)
    run()
    run()
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, []
    for _ in range(PASSES[work]):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "kept": kept,
        "seconds": statistics.median(seconds),
        "faults": (used.ru_minflt - before) // PASSES[work],
        "peak_mib": used.ru_maxrss // 1024,
    }


def in_a_process(work: str, mode: str, threads: int) -> dict[str, Any]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MALLOC_") and name != SWITCH
    }
    environment["OMP_NUM_THREADS"] = str(threads)
    if mode == "system":
        environment[SWITCH] = "system"
    command = [sys.executable, __file__, "--worker", work]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    if found["kept"] != (mode == "kept"):
        raise RuntimeError(
            f"The process of '{work}' could not be run as '{mode}'; this comparison needs Linux with glibc."
        )
    return found


def markdown(record: dict[str, Any]) -> str:
    """The report."""
    facts = record["machine"]
    lines = [
        f"# Keeping freed memory, {record['date']}",
        "",
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads, {facts['memory_gib']} GiB, {facts['system']}; "
        f"commit {record['commit']}; torch {record['versions']['torch']}.",
        f"{record['rounds']} rounds of processes in turn; medians over the rounds, ratios of the same round.",
        "",
        "| work | seconds, as the system sets it | kept | kept/system | page faults a pass | peak, MiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for work, found in record["found"].items():
        system, kept = found["system"], found["kept"]
        ratios = [a["seconds"] / b["seconds"] for a, b in zip(kept, system, strict=True)]
        low, high = min(ratios), max(ratios)

        def middle(runs: list[dict[str, Any]], what: str) -> float:
            return statistics.median(run[what] for run in runs)

        lines.append(
            f"| {WORK[work]} | {middle(system, 'seconds'):.3f} | {middle(kept, 'seconds'):.3f} "
            f"| **{statistics.median(ratios):.2f}** [{low:.2f}, {high:.2f}] "
            f"| {middle(system, 'faults'):,.0f}; kept {middle(kept, 'faults'):,.0f} "
            f"| {middle(system, 'peak_mib'):,.0f}; kept {middle(kept, 'peak_mib'):,.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", choices=WORK, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind [5]")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads [all]")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for the report")
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(measure(given.worker)))
        return
    facts, code = machine(given.threads), commit()
    found: dict[str, dict[str, list[dict[str, Any]]]] = {work: {mode: [] for mode in MODES} for work in WORK}
    for index in range(given.rounds):
        for work in WORK:
            for mode in MODES if index % 2 else reversed(MODES):
                found[work][mode].append(in_a_process(work, mode, given.threads))
                last = found[work][mode][-1]
                print(
                    f"{work}, {mode}: {last['seconds']:.3f} s, {last['faults']:,} page faults",
                    file=sys.stderr,
                    flush=True,
                )
    record = {
        "date": datetime.date.today().isoformat(),
        "machine": facts,
        "commit": code,
        "versions": {"torch": version("torch")},
        "rounds": given.rounds,
        "found": found,
    }
    given.results.mkdir(parents=True, exist_ok=True)
    write_bytes(given.results / f"allocator-{record['date']}.json", (json.dumps(record) + "\n").encode())
    (given.results / f"allocator-{record['date']}.md").write_text(markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
