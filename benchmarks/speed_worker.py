"""The loop of a speed worker: keeps one library's trainers ready and runs some of their steps when told to.

Runs in NeuronMap's environment and in the peers' (imports torch and numpy only). One JSON object a line comes in on
stdin, one goes out on a pipe of its own: libraries print to stdout.

    {"do": "open", "rows": FILE, "most": N}         load rows, say what the machine and the versions are
    {"do": "build", "id": ID, "cell": {...}}        make a trainer; {"missing": why} if the library cannot
    {"do": "run", "id": ID, "steps": N}             N steps, each between two pairs of reference products
    {"do": "describe", "id": ID}                    active features a row, and the path that ran
    {"do": "parts", "id": ID, "steps": N}           where the time of a step goes
    {"do": "memory", "cell": {...}, "steps": N}     peak of a fresh process, no reference product
    {"do": "drop", "id": ID}, {"do": "quit"}

Shapes: B rows of a batch, D = width of a row, F = features.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

FROZEN_L0 = 64.0
"""Active features a row of the ``sparse`` start."""


class NotOffered(Exception):
    """The library has no such architecture or setting; the reason is for the report."""


class Trainer(Protocol):
    """One library's trainer of one cell; ``close`` is called at the end if it has one."""

    def prepare(self) -> None:
        """What lies outside the timed step (drawing the batch, for the peers)."""
        ...

    def step(self) -> None:
        """A whole training step, as the library's own loop does it."""
        ...

    def describe(self) -> dict[str, Any]:
        """``l0`` of the last step, and notes."""
        ...


Build = Callable[[dict[str, Any], Tensor], Trainer]
Parts = Callable[[Any, Callable[[], float], int], dict[str, dict[str, float]]]
"""Takes a trainer, the reference product's stopwatch and a number of steps; gives seconds by part, by way of measuring."""


class Batches:
    """Batches [B, D] in one fixed random order, in one buffer."""

    def __init__(self, rows_ND: Tensor, batch: int) -> None:
        self._rows_ND, self._batch = rows_ND, batch
        self._order_N = torch.randperm(len(rows_ND), generator=torch.Generator().manual_seed(0))
        self._buffer_BD = torch.empty(batch, rows_ND.shape[1])
        self._place = 0

    def next(self) -> Tensor:
        """The next batch; overwritten by the one after."""
        places_B = torch.arange(self._place, self._place + self._batch) % len(self._rows_ND)
        self._place += self._batch
        return torch.index_select(self._rows_ND, 0, self._order_N[places_B], out=self._buffer_BD)


class Reference:
    """The encoder's forward product ``torch.mm(x[B, D], W[D, F], out=)``, on rows of the data."""

    def __init__(self, rows_ND: Tensor, batch: int, features: int, store: dict[str, Tensor]) -> None:
        width = rows_ND.shape[1]
        self._x_BD = rows_ND[torch.arange(batch) % len(rows_ND)]
        generator = torch.Generator().manual_seed(1)
        self._W_DF = torch.randn(width, features, generator=generator) / width**0.5
        flat = store.get("out")
        if flat is None or flat.numel() < batch * features:
            flat = store["out"] = torch.zeros(batch * features)
        self._out_BF = flat[: batch * features].view(batch, features)
        self.seconds()  # the first call sets the library's threads and buffers up

    def seconds(self) -> float:
        """Of one product."""
        started = time.perf_counter()
        torch.mm(self._x_BD, self._W_DF, out=self._out_BF)
        return time.perf_counter() - started


def rows_for_l0(rows_ND: Tensor, features: int) -> Tensor:
    """Rows that a sparsity is set on, the same for every library: drawn from all, since rows at a regular stride share a
    position and the first ones a document, and neither fires as often as the whole does."""
    count = min(len(rows_ND), max(256, min(4096, 2**26 // features)))
    return rows_ND[torch.randperm(len(rows_ND), generator=torch.Generator().manual_seed(3))[:count]]


def cut_for_l0(pre_BF: Tensor, l0: float) -> float:
    """The value above which ``l0`` entries a row lie, over all rows together."""
    count = max(1, min(round(l0 * len(pre_BF)), pre_BF.numel()))
    return float(pre_BF.reshape(-1).topk(count, sorted=True).values[-1])


def measure(trainer: Trainer, reference: Reference, steps: int) -> list[dict[str, Any]]:
    """Each step with two products before and two after it (one's after is the next one's before), in seconds."""
    samples = []
    before = [reference.seconds(), reference.seconds()]
    for _ in range(steps):
        trainer.prepare()
        started = time.perf_counter()
        trainer.step()
        seconds = time.perf_counter() - started
        after = [reference.seconds(), reference.seconds()]
        samples.append({"before": before, "step": seconds, "after": after})
        before = after
    return samples


def resident_bytes(name: str = "VmRSS") -> int:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of this process."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> bool:
    """Start the peak anew; False where the system does not allow it (the peak then counts the imports as well)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def load_rows(file: str, most: int | None) -> Tensor:
    """float32 [N, D], the first ``most`` rows."""
    rows = np.load(file, mmap_mode="r")
    return torch.from_numpy(np.array(rows[:most], dtype=np.float32))


class Worker:
    """Answers the commands.

    Args:
        build: makes a trainer.
        versions: what the report says about the library.
        parts: where a step's time goes, if the library's step can be taken apart.
    """

    commands = ("open", "build", "run", "describe", "parts", "memory", "drop")

    def __init__(self, build: Build, versions: dict[str, str], parts: Parts | None = None) -> None:
        self._build, self._versions, self._parts = build, versions, parts
        self._rows_ND = torch.empty(0, 0)
        self._trainers: dict[str, tuple[Trainer, dict[str, Any]]] = {}
        self._references: dict[tuple[int, int], Reference] = {}
        self._store: dict[str, Tensor] = {}

    def open(self, order: dict[str, Any]) -> dict[str, Any]:
        self._references.clear()
        self._rows_ND = load_rows(order["rows"], order.get("most"))
        return {
            "rows": list(self._rows_ND.shape),
            "threads": torch.get_num_threads(),
            "versions": {**self._versions, "torch": torch.__version__, "python": sys.version.split()[0]},
        }

    def build(self, order: dict[str, Any]) -> dict[str, Any]:
        torch.manual_seed(0)
        self._trainers[order["id"]] = self._build(order["cell"], self._rows_ND), order["cell"]
        return {}

    def run(self, order: dict[str, Any]) -> dict[str, Any]:
        trainer, cell = self._trainers[order["id"]]
        return {"samples": measure(trainer, self._reference(cell), order["steps"])}

    def _reference(self, cell: dict[str, Any]) -> Reference:
        shape = cell["batch"], cell["features"]
        if shape not in self._references:
            self._references.clear()
            self._references[shape] = Reference(self._rows_ND, *shape, self._store)
        return self._references[shape]

    def describe(self, order: dict[str, Any]) -> dict[str, Any]:
        return self._trainers[order["id"]][0].describe()

    def parts(self, order: dict[str, Any]) -> dict[str, Any]:
        if self._parts is None:
            raise NotOffered("its step is not taken apart")
        trainer, cell = self._trainers[order["id"]]
        return {"parts": self._parts(trainer, self._reference(cell).seconds, order["steps"])}

    def memory(self, order: dict[str, Any]) -> dict[str, Any]:
        torch.mm(torch.ones(64, 64), torch.ones(64, 64))  # thread pools belong to the ground, not to the step
        gc.collect()
        ground = resident_bytes()
        trainer = self._build(order["cell"], self._rows_ND)
        built, fresh = resident_bytes(), reset_peak()
        for _ in range(order["steps"]):
            trainer.prepare()
            trainer.step()
        peak = resident_bytes("VmHWM")
        return {"ground": ground, "built": built, "peak": peak, "over_data": peak - ground, "peak_reset": fresh}

    def drop(self, order: dict[str, Any]) -> dict[str, Any]:
        trainer, _ = self._trainers.pop(order["id"], (None, None))
        close = getattr(trainer, "close", None)
        if close is not None:
            close()
        del trainer
        gc.collect()
        return {}

    def answer(self, order: dict[str, Any]) -> dict[str, Any]:
        """One command; what goes wrong in a library becomes part of the answer."""
        known = {name: getattr(self, name) for name in self.commands}
        try:
            result: dict[str, Any] = known[order["do"]](order)
        except NotOffered as reason:
            return {"missing": str(reason)}
        except Exception as error:  # noqa: BLE001 (a peer's failure is a result: the others are still measured)
            traceback.print_exc()
            self._trainers.pop(str(order.get("id")), None)
            return {"failed": f"{type(error).__name__}: {error}"}
        return result


def serve(worker: Worker) -> None:
    """Answer until stdin ends, on the pipe SPEED_ANSWERS, with SPEED_THREADS threads."""
    threads = int(os.environ.get("SPEED_THREADS", "0"))
    if threads:
        torch.set_num_threads(threads)
    with os.fdopen(int(os.environ["SPEED_ANSWERS"]), "w") as answers:
        for line in sys.stdin:
            order = json.loads(line)
            if order["do"] == "quit":
                break
            answers.write(json.dumps(worker.answer(order)) + "\n")
            answers.flush()
