"""Guard against a slower training step: fails when a step takes clearly more encoder products than it should.

    python benchmarks/guard.py                    # under a minute; part of what must pass before a change lands
    python benchmarks/guard.py --path autograd    # must fail: the dense reference step

A ratio within one process, not a time: a slow machine slows both. Each limit is twice the goal, the median over
some steps is held against it, and a check that fails is tried again, three times in all, because a neighbour's work on a
shared machine comes and goes. The rows are random: no model is needed. After the checks the dense reference runs a few
steps under the same limit, and the guard fails if it does not notice.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from neuronmap.saes.kernels.native.library import why_not
from speed_cells import GOALS, OURS, PORTABLE_GOALS, Cell
from speed_report import figures
from speed_session import AUTOGRAD, PATHS, OurTrainer
from speed_worker import Reference, measure

SLACK = 2.0
"""What a shared machine takes beside its work: where neighbours use its memory, a product keeps its speed and what lies around it does
not. On such a one topk took 1.9 G and the portable path 2.8, in each of three tries; a dense step takes over 5."""
TRIES = 3
FEATURES, WIDTH, BATCH, K = 4096, 576, 4096, 32
WARM_UP, STEPS = 5, 7

Measure = Callable[[Cell, int, int], float]


@dataclass(frozen=True)
class Check:
    """What is measured, and the most it may be."""

    cell: Cell
    limit: float


def checks(path: str | None, compiled: bool) -> list[Check]:
    """Every architecture with a goal at this size. Without compiled kernels only topk and batchtopk have one.

    Args:
        path: what every check is forced to; None takes the automatic choice, and topk by the portable path as well.
        compiled: whether compiled kernels can run here.
    """
    found = []
    for (architecture, start, features), goal in GOALS.items():
        if features != FEATURES or start == "dense":
            continue
        if not compiled or path == "torch":
            if architecture not in ("topk", "batchtopk"):
                continue
            goal = PORTABLE_GOALS[FEATURES]
        k = K if start == "usual" else 0
        found.append(Check(Cell(OURS, architecture, start, path or "auto", WIDTH, FEATURES, k, BATCH), goal * SLACK))
    if compiled and path is None:
        cell = Cell(OURS, "topk", "usual", "torch", WIDTH, FEATURES, K, BATCH)
        found.append(Check(cell, PORTABLE_GOALS[FEATURES] * SLACK))
    return found


def passes(check: Check, measured: Measure, say: Callable[[str], None]) -> bool:
    """Whether one of a few tries keeps the limit."""
    for attempt in range(1, TRIES + 1):
        ratio = measured(check.cell, WARM_UP, STEPS)
        kept = ratio <= check.limit
        name = f"{check.cell.architecture} ({check.cell.start}), {check.cell.variant}"
        say(
            f"{name}: {ratio:.2f} encoder products a step, at most {check.limit:.2f}{'' if kept else f' (try {attempt})'}"
        )
        if kept:
            return True
    return False


def notices(check: Check, measured: Measure) -> bool:
    """Whether the dense reference breaks the limit, as it must."""
    cell = Cell(**{**check.cell.__dict__, "variant": AUTOGRAD})
    return measured(cell, 1, 2) > check.limit


def measurer() -> Measure:
    """Ratios on random rows that all checks share."""
    rows_ND = torch.randn(2 * BATCH, WIDTH, generator=torch.Generator().manual_seed(0)) / WIDTH**0.5
    reference = Reference(rows_ND, BATCH, FEATURES, {})

    def measured(cell: Cell, warm_up: int, steps: int) -> float:
        trainer: Any = OurTrainer(cell.order(), rows_ND)
        try:
            for _ in range(warm_up):
                trainer.prepare()
                trainer.step()
            ratio = figures(measure(trainer, reference, steps)).ratio
            ran = trainer.describe()["ran"]
            if cell.variant == "auto" and why_not() is None and "native" not in ran:
                print(f"{cell.architecture}: the compiled kernels can run here, but {ran} ran.", file=sys.stderr)
                return math.inf
            return ratio
        finally:
            trainer.close()

    return measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--path", choices=list(PATHS), default=None, help="force it for every check; 'autograd' is the dense reference"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="ARCHITECTURE", help="check these alone")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads [all]")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    started = time.perf_counter()
    wanted = [c for c in checks(given.path, why_not() is None) if not given.only or c.cell.architecture in given.only]
    if not wanted:
        parser.error(f"--only {' '.join(given.only)} names no architecture with a goal")
    measured = measurer()
    failed = [check for check in wanted if not passes(check, measured, print)]
    blind = not failed and not notices(wanted[0], measured)
    print(f"guard: {len(wanted) - len(failed)} of {len(wanted)} checks kept, {time.perf_counter() - started:.0f} s")
    if blind:
        print("The dense reference keeps the limit too: this guard would not notice a dense step.", file=sys.stderr)
    if failed:
        names = ", ".join(check.cell.architecture for check in failed)
        print(f"A training step became slower than its limit: {names}. See benchmarks/README.md.", file=sys.stderr)
    return 1 if failed or blind else 0


if __name__ == "__main__":
    sys.exit(main())
