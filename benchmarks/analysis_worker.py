"""The loop of an analysis worker: the speed worker's, with memory by stage and a look at what was found.

Runs in NeuronMap's environment and in the peers' (imports torch and numpy only). A step is a whole pass of ours, or one feature
batch of the peer.

    {"do": "maxima", "id": ID, "features": [...]}   largest activation of features, to see that both analysed the same
    {"do": "memory", "cell": {...}, "steps": N}     peaks of a fresh process: of the steps, and of what is written afterwards
"""

from __future__ import annotations

import gc
import threading
import time
from types import TracebackType
from typing import Any, Self

import torch

from speed_worker import Worker, reset_peak, resident_bytes


class AnonymousPeak:
    """Highest anonymous memory of this process while inside, looked at every 10 ms: pages of mapped files do not count,
    since the system takes them back when it needs them.

    Attributes:
        bytes: the highest so far; the process' peak where the system does not tell them apart.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while True:
            self.bytes = max(self.bytes, resident_bytes("RssAnon"))
            if self._over.wait(0.01):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()


class AnalysisWorker(Worker):
    """Answers the commands of a speed worker, and two more."""

    commands = (*Worker.commands, "maxima")

    def maxima(self, order: dict[str, Any]) -> dict[str, Any]:
        trainer: Any = self._trainers[order["id"]][0]
        found: dict[str, Any] = trainer.maxima(order["features"])
        return found

    def memory(self, order: dict[str, Any]) -> dict[str, Any]:
        torch.mm(torch.ones(64, 64), torch.ones(64, 64))  # thread pools belong to the ground
        gc.collect()
        ground, ground_anonymous = resident_bytes(), resident_bytes("RssAnon")
        trainer = self._build(order["cell"], self._rows_ND)
        built, fresh = resident_bytes(), reset_peak()
        with AnonymousPeak() as steps:
            started = time.perf_counter()
            for _ in range(order["steps"]):
                trainer.prepare()
                trainer.step()
            seconds = time.perf_counter() - started
        peak = resident_bytes("VmHWM")
        reset_peak()
        with AnonymousPeak() as writing:
            described = trainer.describe()
        return {
            "steps_s": seconds,
            "ground": ground,
            "built": built - ground,
            "peak": peak,
            "over_data": peak - ground,
            "anonymous": steps.bytes - ground_anonymous,
            "writing_peak": resident_bytes("VmHWM"),
            "writing_over_data": resident_bytes("VmHWM") - ground,
            "writing_anonymous": writing.bytes - ground_anonymous,
            "peak_reset": fresh,
            "described": described,
        }
