"""Harvesting against the model itself: tokens per second of ours, of the bare cut model, and of TransformerLens.

    python benchmarks/harvest.py --peers-python .venv-peers/bin/python       # make bench-harvest, about four minutes
    python benchmarks/harvest.py --quick                                     # without TransformerLens, one minute

SmolLM2-135M, residual stream after block 8, State of the Union speeches in contexts of 128 tokens. All ways see the same token
batches in turn, in one process (TransformerLens in its own, and one at a time); shown are medians and ratios to the bare
model: a copy of the Hugging Face model that holds the first nine blocks only. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from neuronmap.activations import harvest
from neuronmap.corpora import TokenSet, open_corpus, tokenize
from neuronmap.models import LanguageModel, capture, load_model, resolve_hook, wrap_model
from neuronmap.paths import write_json
from neuronmap.progress import LineProgress, SilentProgress
from speed_machine import commit, machine

MODEL, CORPUS, CONTEXT, LAYER = "smollm2-135m", "sotu", 128, 8
BATCH_TOKENS = 2048
OTHER_LAYERS = (2, 4, 6)
GPT2 = {"layers": 12, "width": 768, "vocabulary": 50257}
GOAL, STORING_GOAL = 0.95, 1.05
HERE = Path(__file__).resolve().parent


class Stopwatch(SilentProgress):
    """Times the task 'Harvesting', leaving out the calibration before it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Any]:
        started = time.perf_counter()
        with super().task(title, total, unit) as task:
            yield task
        if title.startswith("Harvesting"):
            self.seconds = time.perf_counter() - started


def cut(model: LanguageModel, blocks: int) -> torch.nn.Module:
    """The Hugging Face backbone with its first blocks only."""
    backbone = copy.deepcopy(model.backbone)
    backbone.layers = backbone.layers[:blocks]
    backbone.norm = torch.nn.Identity()
    return backbone.eval()


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def on_sample(rounds: int, harvest_contexts: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Tokens per second by way, each round; and what was checked."""
    progress = LineProgress(sys.stderr) if sys.stderr.isatty() else SilentProgress()
    model = load_model(MODEL, progress=progress)
    tokens = tokenize(open_corpus(CORPUS), model.tokenizer, context_length=CONTEXT, progress=progress)
    hook = resolve_hook(model, LAYER)
    hooks = [resolve_hook(model, layer) for layer in (*OTHER_LAYERS, LAYER)]
    bare = cut(model, LAYER + 1)
    per_batch = BATCH_TOKENS // CONTEXT

    def batch(index: int) -> Tensor:
        start = index * per_batch % (tokens.num_contexts - per_batch)
        return torch.from_numpy(tokens.contexts(start, start + per_batch).input_ids)

    @torch.inference_mode()
    def run_bare(ids_BT: Tensor) -> Tensor:
        return bare(input_ids=ids_BT, use_cache=False).last_hidden_state

    @torch.inference_mode()
    def run_full(ids_BT: Tensor) -> Tensor:
        return model.module(input_ids=ids_BT, use_cache=False).logits

    difference = float((run_bare(batch(0)) - capture(model, batch(0), [hook])[hook.name]).abs().max())
    ways: dict[str, Callable[[Tensor], object]] = {
        "bare model, cut at the hook": run_bare,
        "ours, capture": lambda ids: capture(model, ids, [hook]),
        "ours, capture of 4 hooks": lambda ids: capture(model, ids, hooks),
        "full forward with logits": run_full,
    }
    found: dict[str, list[float]] = {name: [] for name in (*ways, "ours, harvest (stored)")}
    for index in range(2):  # pages, caches
        for run in ways.values():
            run(batch(index))
    for index in range(rounds):
        for name, run in ways.items():
            if name.startswith("full") and index % 4:
                continue  # four times as long as the others
            ids_BT = batch(index)
            found[name].append(ids_BT.numel() / timed(lambda run=run, ids=ids_BT: run(ids)))
        if index % 4 == 3:
            found["ours, harvest (stored)"].append(stored(model, tokens, hook, index, harvest_contexts))
    return found, {"largest_difference_to_bare": difference}


def stored(model: LanguageModel, tokens: TokenSet, hook: Any, index: int, contexts: int) -> float:
    """Tokens per second of a real harvest into a fresh folder, after its calibration."""
    start = index * contexts % (tokens.num_contexts - contexts)
    part = tokens.subset(start, start + contexts)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory(prefix="neuronmap-bench-") as folder:
        harvest(model, part, [hook], root=folder, batch_tokens=BATCH_TOKENS, progress=watch)
    return contexts * CONTEXT / watch.seconds


def on_gpt2(rounds: int, peers_python: str, threads: int) -> dict[str, list[float]]:
    """Ours and TransformerLens on a GPT-2 shape with random weights, in turn."""
    config = GPT2Config(n_layer=GPT2["layers"], n_embd=GPT2["width"], vocab_size=GPT2["vocabulary"])
    model = wrap_model(GPT2LMHeadModel(config))
    hook = resolve_hook(model, LAYER)
    generator = torch.Generator().manual_seed(0)
    setup = {**GPT2, "layer": LAYER, "threads": threads}
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    worker = subprocess.Popen(
        [peers_python, str(HERE / "peers" / "harvest_transformerlens.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip

    def ask(question: dict[str, Any]) -> dict[str, Any]:
        if worker.stdin is None or worker.stdout is None:
            raise RuntimeError("the worker has no pipes")
        worker.stdin.write(json.dumps(question) + "\n")
        worker.stdin.flush()
        while line := worker.stdout.readline():
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"TransformerLens' process ended with status {worker.wait()}")

    found: dict[str, list[float]] = {"ours, capture": [], "TransformerLens, stop_at_layer, one name": []}
    try:
        ask(setup)
        for index in range(rounds + 1):
            ids_BT = torch.randint(GPT2["vocabulary"], (BATCH_TOKENS // CONTEXT, CONTEXT), generator=generator)
            ours = timed(lambda ids=ids_BT: capture(model, ids, [hook]))
            theirs = float(ask({"tokens": ids_BT.tolist()})["seconds"])
            if index:  # the first pays for pages and caches
                found["ours, capture"].append(ids_BT.numel() / ours)
                found["TransformerLens, stop_at_layer, one name"].append(ids_BT.numel() / theirs)
    finally:
        worker.kill()
        worker.wait()
    return found


def rows_of(found: dict[str, list[float]], reference: str) -> list[str]:
    """Table lines: median, quartiles and the ratio of medians to the reference."""
    base = statistics.median(found[reference])
    lines = ["| | tokens/s | quartiles | of the reference |", "| --- | --- | --- | --- |"]
    for name, rates in found.items():
        if not rates:
            continue
        middle = statistics.median(rates)
        low, _, high = statistics.quantiles(rates, n=4) if len(rates) > 1 else (middle,) * 3
        lines.append(f"| {name} | {middle:,.0f} | {low:,.0f} to {high:,.0f} | {middle / base:.3f} |")
    return lines


def verdicts(found: dict[str, list[float]]) -> list[str]:
    """The goals of harvesting, and whether they were met."""
    middle = {name: statistics.median(rates) for name, rates in found.items() if rates}
    bare, ours = middle["bare model, cut at the hook"], middle["ours, capture"]
    share = ours / bare
    lines = [f"- capture at {share:.1%} of the bare model: goal {GOAL:.0%} {'met' if share >= GOAL else 'MISSED'}"]
    if "ours, harvest (stored)" in middle:
        cost = ours / middle["ours, harvest (stored)"]
        lines.append(
            f"- storing takes {cost - 1:+.1%} on top: goal under {STORING_GOAL - 1:.0%} "
            f"{'met' if cost <= STORING_GOAL else 'MISSED'}"
        )
    return lines


def markdown(record: dict[str, Any]) -> str:
    """The report."""
    facts = record["machine"]
    lines = [
        f"# Harvesting, {record['date']}" + (" (quick)" if record["quick"] else ""),
        "",
        f"{MODEL}, residual stream after block {LAYER}, {BATCH_TOKENS} tokens a forward pass in contexts of {CONTEXT}, float32; "
        f"{facts['cpu']}, {facts['threads']} threads; commit {record['commit']}.",
        f"Largest difference between the bare model's activations and ours: {record['checks']['largest_difference_to_bare']:g}.",
        "",
        *rows_of(record["sample"], "bare model, cut at the hook"),
        "",
        *verdicts(record["sample"]),
    ]
    if record["gpt2"]:
        lines += [
            "",
            f"GPT-2 shape ({GPT2['layers']} blocks, {GPT2['width']} wide, random weights), block {LAYER}:",
            "",
        ]
        lines += rows_of(record["gpt2"], "TransformerLens, stop_at_layer, one name")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument(
        "--peers-python",
        default=os.environ.get("NEURONMAP_PEERS_PYTHON"),
        help="python with transformer-lens; without it that part is left out [NEURONMAP_PEERS_PYTHON]",
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads [all]")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for the report")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rounds = 8 if given.quick else 24
    sample, checks = on_sample(rounds, harvest_contexts=64 if given.quick else 128)
    gpt2 = on_gpt2(rounds, given.peers_python, given.threads) if given.peers_python else {}
    record = {
        "date": datetime.date.today().isoformat(),
        "quick": given.quick,
        "machine": machine(given.threads),
        "commit": commit(),
        "checks": checks,
        "sample": sample,
        "gpt2": gpt2,
    }
    given.results.mkdir(parents=True, exist_ok=True)
    name = f"harvest{'-quick' if given.quick else ''}-{record['date']}"
    write_json(given.results / f"{name}.json", record)
    (given.results / f"{name}.md").write_text(markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
