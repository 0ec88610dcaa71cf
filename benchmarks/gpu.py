"""Time of a training step on a GPU in units of the encoder's bfloat16 product, against SAELens and eai-sparsify.

    python benchmarks/gpu.py --out build/gpu                              # ours alone, where the peers are not installed
    python benchmarks/gpu.py --out build/gpu --seconds 240                # no new cell after so many seconds
    python benchmarks/gpu.py --out build/gpu --device cpu --tiny          # whether the script itself works (TRITON_INTERPRET=1)

The peers are measured where they can be imported in this environment; where they cannot, or run out of memory, the table says so.
What is measured, and how, is in ``benchmarks/README.md``. Results are written after every cell.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

import gpu_report
from gpu_rows import Batches, Reference, Stopwatch, copy_bandwidth, structured_rows
from gpu_steps import OurStep, feeding, floors, parts_of_step
from speed_machine import commit

WIDTH, FEATURES, K, BATCHES = 2304, 65_536, 64, (4096, 32_768)
TINY = {"width": 96, "features": 512, "k": 8, "batches": (128, 256)}
WARM_UP, LOOK = 24, 16
"""Steps before any is counted (first allocations, compilation); steps of ours that are timed together: one of them looks."""
PEER_WARM_UP, PEER_STEPS = 3, 4
ROUNDS = 5
_BATCHES_OF_ROWS = 4


def cells(sizes: dict[str, Any], parts: list[str]) -> list[dict[str, Any]]:
    """What is measured, the most wanted first."""
    ours = [
        ("topk", "triton", "bfloat16"),
        ("batchtopk", "triton", "bfloat16"),
        ("matryoshka", "triton", "bfloat16"),
        ("topk", "torch", "float32"),
    ]
    peers = [
        ("saelens", "topk", "", "bfloat16", 1),
        ("sparsify", "topk", "signum", "bfloat16", 1),
        ("sparsify", "topk", "adam", "bfloat16", 1),
        ("saelens", "batchtopk", "", "bfloat16", 1),
    ]
    found = []
    for batch in reversed(sizes["batches"]):
        shape = {"batch": batch, "features": sizes["features"], "k": sizes["k"]}
        if "ours" in parts:
            found += [
                {"library": "neuronmap", "architecture": a, "variant": v, "dtype": t, **shape}
                for a, v, t in ours
                if v != "torch" or batch == min(sizes["batches"])
            ]
        if "peers" in parts:
            found += [
                {"library": p, "architecture": a, "variant": v, "dtype": t, "micro": m, **shape}
                for p, a, v, t, m in peers
            ]
    return found


class Run:
    """Measures cells one after the other and keeps what was found.

    Args:
        out: folder of the results.
        seconds: no cell is started after so many.
        sizes: width, features, k, batches.
        device: where.
    """

    def __init__(self, out: Path, seconds: float, sizes: dict[str, Any], device: torch.device, rounds: int) -> None:
        self.out, self.sizes, self.device, self.rounds = out, sizes, device, rounds
        self.stop_at = time.monotonic() + seconds
        self.watch = Stopwatch(device)
        self.found: dict[str, Any] = {"machine": machine(device), "sizes": sizes, "cells": [], "left_out": []}
        out.mkdir(parents=True, exist_ok=True)

    def measure(self, wanted: list[dict[str, Any]]) -> None:
        """All cells that there is time for."""
        tiny = self.device.type != "cuda"
        self.found["copy_bytes_per_second"] = copy_bandwidth(self.device, 2**22 if tiny else 2**31)
        rows_ND = structured_rows(_BATCHES_OF_ROWS * max(self.sizes["batches"]), self.sizes["width"], self.device)
        if not tiny:
            self.found["feeding"] = {str(batch): feeding(rows_ND, batch) for batch in self.sizes["batches"]}
        for cell in wanted:
            if time.monotonic() > self.stop_at:
                self.found["left_out"].append(cell)
                continue
            self.found["cells"].append(self._cell(cell, rows_ND))
            self.save()
        self.save()

    def _cell(self, cell: dict[str, Any], rows_ND: Tensor) -> dict[str, Any]:
        started = time.monotonic()
        try:
            result = self._measured(cell, rows_ND)
        except torch.cuda.OutOfMemoryError as error:
            result = {"failed": "out of memory", "message": str(error).splitlines()[0]}
        except ImportError as error:
            result = {"failed": "not installed", "message": str(error)}
        except Exception as error:  # noqa: BLE001 (one library's failure is a result: the others are still measured)
            traceback.print_exc()
            result = {"failed": type(error).__name__, "message": str(error)[:500]}
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        result = {"cell": cell, "took": round(time.monotonic() - started, 1), **result}
        print(gpu_report.line(result), flush=True)
        return result

    def _measured(self, cell: dict[str, Any], rows_ND: Tensor) -> dict[str, Any]:
        ours = cell["library"] == "neuronmap"
        cuda = self.device.type == "cuda"
        torch.manual_seed(0)
        reference = Reference(rows_ND, cell["batch"], cell["features"])
        before = torch.cuda.memory_allocated() if cuda else 0
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        if ours:
            step: Any = OurStep(cell, rows_ND)
        else:
            from gpu_peers import STEPS_OF

            step = STEPS_OF[cell["library"]](cell, Batches(rows_ND, cell["batch"]), rows_ND.shape[1], self.device)
        for _ in range(WARM_UP if ours else PEER_WARM_UP):
            step.step()
        result: dict[str, Any] = {"described": step.describe()}
        if not ours:
            step.release()
        self._time(step.step, reference, LOOK if ours else PEER_STEPS, result)
        if cuda:
            result["peak_bytes"] = torch.cuda.max_memory_allocated() - before
        if ours and cuda:
            result["parts"] = parts_of_step(step, 4)
            result["floors"] = floors(cell, rows_ND.shape[1], self.found["copy_bytes_per_second"])
        if ours:
            step.close()
        return result

    def _time(self, step: Callable[[], None], reference: Reference, count: int, result: dict[str, Any]) -> None:
        """Rounds of some products, and so many steps from an idle device to an idle device."""
        products, steps = [reference.seconds()], []
        for _ in range(self.rounds):
            steps.append(self.watch.together(step, count))
            products.append(reference.seconds())
        around = [statistics.median([*before, *after]) for before, after in pairwise(products)]
        ratios = sorted(seconds / unit for seconds, unit in zip(steps, around, strict=True))
        result.update(
            step_seconds=statistics.median(steps),
            product_seconds=statistics.median(around),
            product_tflops=reference.tflop / statistics.median(around),
            ratio=statistics.median(ratios),
            ratio_range=[ratios[0], ratios[-1]],
            samples={"steps": steps, "products": products},
        )

    def save(self) -> None:
        """Write JSON and table."""
        (self.out / "gpu.json").write_text(json.dumps(self.found, indent=1))
        (self.out / "gpu.md").write_text(gpu_report.table(self.found))


def same_bits(rows_ND: Tensor, sizes: dict[str, Any], steps: int = 4) -> dict[str, bool]:
    """Whether two runs of a few steps from the same start leave the same bits in every parameter."""
    found = {}
    for architecture in ("topk", "batchtopk", "matryoshka"):
        cell = {"architecture": architecture, "variant": "triton", "dtype": "bfloat16", "batch": sizes["batches"][0]}
        digests = []
        for _ in range(2):
            step = OurStep({**cell, "features": sizes["features"], "k": sizes["k"]}, rows_ND)
            for _ in range(steps):
                step.step()
            digests.append(step.digest())
            step.close()
            del step
        found[architecture] = digests[0] == digests[1]
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """Device, driver, versions, commit."""
    facts = {"torch": torch.__version__, "python": sys.version.split()[0]}
    try:
        import triton

        facts["triton"] = triton.__version__
    except ImportError:
        facts["triton"] = "none"
    if device.type != "cuda":
        return {**facts, "device": "CPU (the figures mean nothing)"}
    properties = torch.cuda.get_device_properties(device)
    asked = ["nvidia-smi", "--query-gpu=driver_version,power.limit", "--format=csv,noheader"]
    told = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    return {
        **facts,
        "device": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "driver_and_power_limit": told,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no cell is started after so many")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes at which the script runs anywhere")
    parser.add_argument("--batches", type=int, nargs="+", help="rows of a step (default 4096 32768)")
    parser.add_argument("--parts", nargs="+", choices=["ours", "peers", "bits"], default=["ours", "peers", "bits"])
    parser.add_argument("--only", nargs="+", default=[], help="words of which a cell's description must hold one")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--commit", default=commit(), help="what to call the code where git is not at hand")
    options = parser.parse_args()
    sizes = TINY if options.tiny else {"width": WIDTH, "features": FEATURES, "k": K, "batches": BATCHES}
    if options.batches:
        sizes = {**sizes, "batches": tuple(options.batches)}
    device = torch.device(options.device)
    run = Run(options.out, options.seconds, sizes, device, options.rounds)
    run.found["machine"]["commit"] = options.commit
    wanted = cells(sizes, options.parts)
    if options.only:
        wanted = [cell for cell in wanted if any(word in gpu_report.name(cell) for word in options.only)]
    run.measure(wanted)
    if "bits" in options.parts:
        rows_ND = structured_rows(_BATCHES_OF_ROWS * sizes["batches"][0], sizes["width"], device)
        run.found["same_bits"] = same_bits(rows_ND, sizes)
        run.save()
        print("same bits twice:", run.found["same_bits"])


if __name__ == "__main__":
    main()
