"""Eight SAEs in one sweep against eight single runs: time, and whether the weights are the same.

    python benchmarks/sweep.py                       # 100,000 tokens, two rounds
    python benchmarks/sweep.py --tokens 20000 --rounds 1

SmolLM2-135M, residual stream of block 15, F = 1,024: topk and batchtopk, k = 16 and 32, two seeds each; 2,048 rows a step, one pass over
State of the Union speeches, activations streamed. Both sides run in this process with the model loaded and the text tokenised, in turns:
the sweep first in odd rounds, the single runs first in even ones. A time is that of the whole call, from data to finished bundles; memory
of all eight single runs is that of one, because they run one after the other.

CPU seconds are given beside wall-clock seconds: on a machine with other work the first say what was computed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from neuronmap import SAEConfig, SAESweep, SAETrainer, SweepConfig, load_model
from neuronmap.models import LanguageModel
from neuronmap.paths import write_bytes, write_json
from neuronmap.progress import SilentProgress
from speed_machine import commit, machine
from speed_rows import CORPUS, MODEL
from turns import say

HERE = Path(__file__).resolve().parent
LAYER, FEATURES = 15, 1024


def members(tokens: int) -> SweepConfig:
    """The eight."""
    base = {
        "model_name": MODEL,
        "corpus": CORPUS,
        "layer": LAYER,
        "hidden_dim": FEATURES,
        "max_tokens": tokens,
        "heldout_tokens": 4096,
        "batch_size": 16,
        "stream": True,
    }
    return SweepConfig(base=base, grid={"architecture": ["topk", "batchtopk"], "k": [16, 32], "seed": [0, 1]})


def timed(work: Callable[[], dict[str, bytes]]) -> tuple[dict[str, float], dict[str, bytes]]:
    """Wall-clock and CPU seconds of a call, and what it gave."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}, found


def together(config: SweepConfig, model: LanguageModel) -> dict[str, bytes]:
    """The weights of a sweep, by name."""
    result = SAESweep(config, progress=SilentProgress()).train(model=model)
    return {one.name: (one.run.bundle / "sae_weights.safetensors").read_bytes() for one in result.members}


def one_by_one(configs: Sequence[SAEConfig], model: LanguageModel) -> dict[str, bytes]:
    """The weights of single runs, by name."""
    found = {}
    for config in configs:
        result = SAETrainer(config, progress=SilentProgress()).train(model=model)
        found[str(config.name)] = (result.bundle / "sae_weights.safetensors").read_bytes()
    return found


def compare(tokens: int, rounds: int) -> dict[str, Any]:
    """Both sides, in turns."""
    config = members(tokens)
    configs = config.members()
    model = load_model(MODEL, progress=SilentProgress())
    say("warming up: text, held-out activations")
    SAETrainer(configs[0].updated(max_steps=1, name=None), progress=SilentProgress()).train(model=model)
    times: dict[str, list[dict[str, float]]] = {"sweep": [], "single": []}
    weights: dict[str, dict[str, bytes]] = {}
    sides: dict[str, Callable[[], dict[str, bytes]]] = {
        "sweep": lambda: together(config, model),
        "single": lambda: one_by_one(configs, model),
    }
    for number in range(rounds):
        for side in ("sweep", "single") if number % 2 == 0 else ("single", "sweep"):
            taken, weights[side] = timed(sides[side])
            times[side].append(taken)
            say(f"round {number + 1}, {side}: {taken['wall_s']:.0f} s, of the CPU {taken['cpu_s']:.0f} s")
    equal = [name for name in weights["single"] if weights["single"][name] == weights["sweep"][name]]
    ratio = {
        kind: statistics.median(one[kind] for one in times["single"])
        / statistics.median(one[kind] for one in times["sweep"])
        for kind in ("wall_s", "cpu_s")
    }
    return {"tokens": tokens, "members": len(configs), "times": times, "ratio": ratio, "equal": len(equal)}


def markdown(record: dict[str, Any]) -> str:
    """The results file for people."""
    found, at = record["result"], record["machine"]
    lines = [
        f"# Eight SAEs in one sweep and one by one, {record['date']}",
        "",
        f"{MODEL} block {LAYER}, F = {FEATURES:,}, {found['tokens']:,} tokens of {CORPUS}, streamed; {at['cpu']}, {at['threads']} threads, "
        f"load {at['load_at_start']}.",
        "",
        "| | wall-clock s | CPU s |",
        "| --- | --- | --- |",
    ]
    for side, title in (("sweep", "one sweep"), ("single", "eight runs")):
        cells = [", ".join(f"{one[kind]:.0f}" for one in found["times"][side]) for kind in ("wall_s", "cpu_s")]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    ratio = found["ratio"]
    lines += [
        f"| ratio of the medians | {ratio['wall_s']:.2f} | {ratio['cpu_s']:.2f} |",
        "",
        f"Weights equal bit for bit: {found['equal']} of {found['members']}.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """The comparison, into ``benchmarks/results``. 1 if any weights differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    home = tempfile.mkdtemp(prefix="sweep-bench-")
    os.environ["NEURONMAP_HOME"] = home
    facts = machine(torch.get_num_threads())
    try:
        result = compare(given.tokens, given.rounds)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    date = datetime.date.today().isoformat()
    record = {"date": date, "commit": commit(), "machine": facts, "result": result}
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / f"sweep-{date}.json", record)
    write_bytes(given.out / f"sweep-{date}.md", markdown(record).encode())
    print(markdown(record))
    return 0 if result["equal"] == result["members"] else 1


if __name__ == "__main__":
    sys.exit(main())
