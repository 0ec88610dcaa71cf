"""Harvesting against the model itself: tokens per second of ours, of the bare cut model, and of TransformerLens.

    python benchmarks/harvest.py --peers-python .venv-peers/bin/python       # make bench-harvest, about eight minutes
    python benchmarks/harvest.py --quick                                     # two minutes; without TransformerLens if none is given

All ways of a part run on the same tokens in turn, in another order each round, and are compared round by round. Writes
``benchmarks/results/harvest-<date>.json`` (every rate) and ``.md``. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from harvest_report import (
    ALL,
    ALL_KEPT,
    BARE,
    CAPTURED,
    FOUR,
    FULL,
    ONE_NAME,
    ONE_NAME_KEPT,
    OURS,
    PRODUCTS,
    STORED,
    markdown,
)
from harvest_ways import cut, products_alone
from neuronmap.activations import harvest
from neuronmap.allocator import keep_freed_memory, memory_state
from neuronmap.corpora import TokenSet, open_corpus, tokenize
from neuronmap.models import LanguageModel, capture, load_model, resolve_hook, wrap_model
from neuronmap.paths import write_bytes
from neuronmap.progress import LineProgress, SilentProgress
from speed_machine import commit, machine
from turns import say

MODEL, CORPUS, CONTEXT, LAYER = "smollm2-135m", "sotu", 128, 8
BATCH_TOKENS = 2048
OTHER_LAYERS = (2, 4, 6)
GPT2 = {"layers": 12, "width": 768, "vocabulary": 50257}
RARELY = 4
"""A full forward pass takes over four times as long as the others, so it runs in every fourth round only."""
HERE = Path(__file__).resolve().parent

Rates = dict[str, list[float | None]]


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def in_turn(
    ways: Mapping[str, Callable[[Tensor], float]],
    batch: Callable[[int], Tensor],
    rounds: int,
    rarely: tuple[str, ...] = (),
) -> Rates:
    """Tokens per second of each way in each round; None in rounds that left it out.

    Args:
        ways: name -> a function that runs token ids [B, T] and returns its seconds.
        batch: the token ids of a round.
        rounds: how many are counted; one before them pays for pages and caches.
        rarely: ways that run in every fourth round.
    """
    found: Rates = {name: [] for name in ways}
    names = list(ways)
    for index in range(-1, rounds):
        ids_BT = batch(index + 1)
        first = (index + 1) % len(names)  # who runs after whom must not matter
        for name in names[first:] + names[:first]:
            due = name not in rarely or index % RARELY == 0 or index < 0
            rate = ids_BT.numel() / ways[name](ids_BT) if due else None
            if index >= 0:
                found[name].append(rate)
    return found


class OnSample:
    """The sample model and its text, and what is timed on them."""

    def __init__(self) -> None:
        progress = LineProgress(sys.stderr)
        self.model: LanguageModel = load_model(MODEL, dtype="float32", measured_settings=False, progress=progress)
        self.tokens: TokenSet = tokenize(
            open_corpus(CORPUS), self.model.tokenizer, context_length=CONTEXT, progress=progress
        )
        self.hook = resolve_hook(self.model, LAYER)
        self.bare = cut(self.model, LAYER + 1)
        self.per_batch = BATCH_TOKENS // CONTEXT

    def contexts(self, start: int, count: int) -> Tensor:
        start %= self.tokens.num_contexts - count
        return torch.from_numpy(self.tokens.contexts(start, start + count).input_ids)

    def batch(self, index: int) -> Tensor:
        return self.contexts(index * self.per_batch, self.per_batch)

    @torch.inference_mode()
    def run_bare(self, ids_BT: Tensor) -> Tensor:
        return self.bare(input_ids=ids_BT, use_cache=False).last_hidden_state

    @torch.inference_mode()
    def run_full(self, ids_BT: Tensor) -> Tensor:
        return self.model.module(input_ids=ids_BT, use_cache=False).logits

    def passes(self, rounds: int) -> Rates:
        """One forward pass, in all ways."""
        hooks = [resolve_hook(self.model, layer) for layer in (*OTHER_LAYERS, LAYER)]
        multiply = products_alone(self.bare, BATCH_TOKENS)
        ways: dict[str, Callable[[Tensor], object]] = {
            BARE: self.run_bare,
            OURS: lambda ids: capture(self.model, ids, [self.hook]),
            FOUR: lambda ids: capture(self.model, ids, hooks),
            PRODUCTS: lambda _: multiply(),
            FULL: self.run_full,
        }
        clocked = {name: (lambda ids, run=run: timed(lambda: run(ids))) for name, run in ways.items()}
        return in_turn(clocked, self.batch, rounds, rarely=(FULL,))

    def storing(self, rounds: int, contexts: int) -> Rates:
        """A whole harvest into a fresh folder, calibration and digests included, and the same contexts only captured."""
        found: Rates = {CAPTURED: [], STORED: []}
        out = {self.hook.name: torch.empty(self.per_batch, CONTEXT, self.hook.width)}
        for index in range(rounds):
            start = index * contexts % (self.tokens.num_contexts - contexts)
            part = self.tokens.subset(start, start + contexts)
            turns = [
                (CAPTURED, lambda start=start: self._capture_all(start, contexts, out)),
                (STORED, lambda part=part: self._store(part)),
            ]
            for name, run in turns if index % 2 else reversed(turns):
                found[name].append(contexts * CONTEXT / timed(run))
        return found

    def _capture_all(self, start: int, contexts: int, out: dict[str, Tensor]) -> None:
        for first in range(start, start + contexts, self.per_batch):
            capture(self.model, self.contexts(first, self.per_batch), [self.hook], out=out)

    def _store(self, part: TokenSet) -> None:
        with tempfile.TemporaryDirectory(prefix="neuronmap-bench-") as folder:
            harvest(self.model, part, [self.hook], root=folder, batch_tokens=BATCH_TOKENS, progress=SilentProgress())

    def difference(self) -> float:
        """Largest difference between the bare model's activations and ours."""
        ids_BT = self.batch(0)
        return float((self.run_bare(ids_BT) - capture(self.model, ids_BT, [self.hook])[self.hook.name]).abs().max())


class TransformerLens:
    """Its process, which answers with seconds.

    Args:
        python: of the peers' environment.
        threads: CPU threads.
        kept: whether it runs with the allocator settings of the ``neuronmap`` command.
    """

    def __init__(self, python: str, threads: int, kept: bool) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        if kept:  # as glibc reads them from the environment
            environment |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
        self._process = subprocess.Popen(
            [python, str(HERE / "peers" / "harvest_transformerlens.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        )  # fmt: skip
        self.facts = self._ask({**GPT2, "layer": LAYER, "threads": threads})

    def seconds(self, ids_BT: Tensor, every: bool) -> float:
        return float(self._ask({"tokens": ids_BT.tolist(), "all": every})["seconds"])

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("The process has no pipes.")
        stdin.write(json.dumps(question) + "\n")
        stdin.flush()
        while line := stdout.readline():
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"TransformerLens' process ended with status {self._process.wait()}.")


def on_gpt2(rounds: int, usual: TransformerLens, kept: TransformerLens | None) -> Rates:
    """Ours and TransformerLens on a GPT-2 shape with random weights; ``kept`` runs with our allocator settings."""
    config = GPT2Config(n_layer=GPT2["layers"], n_embd=GPT2["width"], vocab_size=GPT2["vocabulary"])
    model = wrap_model(GPT2LMHeadModel(config))
    hook = resolve_hook(model, LAYER)
    generator = torch.Generator().manual_seed(0)
    ways: dict[str, Callable[[Tensor], float]] = {
        OURS: lambda ids: timed(lambda: capture(model, ids, [hook])),
        ONE_NAME: lambda ids: usual.seconds(ids, every=False),
        ALL: lambda ids: usual.seconds(ids, every=True),
    }
    if kept is not None:
        ways |= {
            ONE_NAME_KEPT: lambda ids: kept.seconds(ids, every=False),
            ALL_KEPT: lambda ids: kept.seconds(ids, every=True),
        }
    shape = (BATCH_TOKENS // CONTEXT, CONTEXT)
    return in_turn(ways, lambda _: torch.randint(GPT2["vocabulary"], shape, generator=generator), rounds)


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
    kept = keep_freed_memory()
    rounds, storings, contexts = (8, 2, 64) if given.quick else (24, 6, 128)
    facts, code = machine(given.threads), commit()
    versions = {name: version(name) for name in ("torch", "transformers", "neuronmap")}
    sample = OnSample()
    checks = {"largest_difference_to_bare": sample.difference()}
    say(f"{rounds} rounds of single passes")
    passes = sample.passes(rounds)
    say(f"{storings} harvests of {contexts} contexts")
    storing = sample.storing(storings, contexts)
    gpt2: Rates = {}
    if given.peers_python:
        say(f"TransformerLens, {rounds // 2} rounds")
        with ExitStack() as stack:
            peers = [
                TransformerLens(given.peers_python, given.threads, mode) for mode in (False, *([True] if kept else []))
            ]
            for peer in peers:
                stack.callback(peer.stop)
            versions |= peers[0].facts["versions"]
            gpt2 = on_gpt2(rounds // 2, peers[0], peers[1] if kept else None)
    record = {
        "date": datetime.date.today().isoformat(),
        "quick": given.quick,
        "machine": facts,
        "memory": memory_state(),
        "commit": code,
        "versions": versions,
        "setting": {
            "model": MODEL, "corpus": CORPUS, "layer": LAYER, "context": CONTEXT, "batch_tokens": BATCH_TOKENS,
            "other_layers": OTHER_LAYERS, "stored_contexts": contexts, "gpt2": GPT2,
        },
        "checks": checks,
        "passes": passes,
        "storing": storing,
        "gpt2": gpt2,
    }  # fmt: skip
    given.results.mkdir(parents=True, exist_ok=True)
    name = f"harvest{'-quick' if given.quick else ''}-{record['date']}"
    write_bytes(given.results / f"{name}.json", (json.dumps(rounded(record)) + "\n").encode())
    (given.results / f"{name}.md").write_text(markdown(record))
    print(markdown(record))


def rounded(value: Any) -> Any:
    """Rates to a tenth of a token per second: more digits are noise."""
    if isinstance(value, float):
        return round(value, 1) if value >= 100 else value
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
