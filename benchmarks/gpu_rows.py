"""Rows, the reference product and the stopwatch of the GPU benchmark.

Shapes: N rows, B rows of a batch, D = width, F = features, C concepts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

CONCEPTS, CONCEPTS_A_ROW = 4096, 48
"""Directions that rows are made of, and how many a row has on average."""
NOISE = 0.3
"""Norm of a row's isotropic part over that of its concepts."""
COPY_BYTES = 2**31
_CHUNK_ROWS = 8192


def structured_rows(count: int, width: int, device: torch.device, seed: int = 0) -> Tensor:
    """float32 [N, D], sums of concepts that occur as words do (Zipf) with heavy-tailed strengths, a mean, and noise; E|x|^2 = 1."""
    generator = torch.Generator(device).manual_seed(seed)
    concepts_CD = torch.randn(CONCEPTS, width, device=device, generator=generator) / width**0.5
    chance_C = 1.0 / torch.arange(3, CONCEPTS + 3, device=device)
    chance_C = (chance_C * (CONCEPTS_A_ROW / chance_C.sum())).clamp_(max=0.9)
    mean_D = torch.randn(width, device=device, generator=generator) / width**0.5
    rows_ND = torch.empty(count, width, device=device)
    for start in range(0, count, _CHUNK_ROWS):
        part = rows_ND[start : start + _CHUNK_ROWS]
        drawn = torch.rand(len(part), CONCEPTS, device=device, generator=generator)
        normal = torch.randn(len(part), CONCEPTS, device=device, generator=generator)
        strength = normal.abs_().mul_(0.7).exp_()
        torch.mm(strength.mul_(drawn < chance_C), concepts_CD, out=part)
        energy = part.square().sum(1).mean()
        part.addcmul_(
            torch.randn(part.shape, device=device, generator=generator), (NOISE**2 * energy / width).sqrt(), value=1.0
        )
        part.add_(mean_D * energy.sqrt() * 0.5)
    return rows_ND.div_(rows_ND.square().sum(1).mean().sqrt())


class Batches:
    """Batches [B, D] of the rows, one after the other, over and over: views, already shuffled."""

    def __init__(self, rows_ND: Tensor, batch: int) -> None:
        self._rows_ND, self._batch, self._place = rows_ND, batch, 0

    def next(self) -> Tensor:
        """The next one."""
        if self._place + self._batch > len(self._rows_ND):
            self._place = 0
        part = self._rows_ND[self._place : self._place + self._batch]
        self._place += self._batch
        return part


class Stopwatch:
    """Seconds on a device: events on a GPU, the clock elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait(self) -> None:
        """Until all work is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def each(self, work: Callable[[], object], times: int) -> list[float]:
        """Of each of ``times`` runs, one behind the other, measured on the device."""
        if self.device.type != "cuda":
            return [self.together(work, 1) for _ in range(times)]
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]
        marks[0].record()
        for mark in marks[1:]:
            work()
            mark.record()
        self.wait()
        return [before.elapsed_time(after) / 1e3 for before, after in pairwise(marks)]

    def together(self, work: Callable[[], object], times: int) -> float:
        """Mean over ``times`` runs from an idle device until it is idle again: what the host is too slow for is in it."""
        self.wait()
        started = time.perf_counter()
        for _ in range(times):
            work()
        self.wait()
        return (time.perf_counter() - started) / times


class Reference:
    """The encoder's forward product ``torch.mm(x[B, D], W[D, F], out=)`` of bfloat16 factors, into bfloat16, on rows of the data.

    Three inputs take turns, so that none is in the cache from the time before; W lies as the SAE's does, by features.
    """

    def __init__(self, rows_ND: Tensor, batch: int, features: int) -> None:
        device, width = rows_ND.device, rows_ND.shape[1]
        generator = torch.Generator(device).manual_seed(1)
        self.watch = Stopwatch(device)
        self._x = [rows_ND[start : start + batch].bfloat16() for start in range(0, 3 * batch, batch)]
        if any(len(x_BD) != batch for x_BD in self._x):
            raise ValueError(f"{len(rows_ND)} rows are fewer than three batches of {batch}")
        W_FD = torch.randn(features, width, device=device, generator=generator) / width**0.5
        self._W_DF = W_FD.bfloat16().T
        self._out_BF = torch.empty(batch, features, device=device, dtype=torch.bfloat16)
        self._turn = 0
        self.tflop = 2e-12 * batch * width * features
        self.seconds(3)

    def run(self) -> None:
        """One product."""
        self._turn += 1
        torch.mm(self._x[self._turn % 3], self._W_DF, out=self._out_BF)

    def seconds(self, times: int = 5) -> list[float]:
        """Of each of so many products."""
        return self.watch.each(self.run, times)


def copy_bandwidth(device: torch.device, count: int = COPY_BYTES) -> float:
    """Bytes a second of a copy from device to device, bytes read and bytes written."""
    pairs = [torch.randint(0, 127, (2, count), dtype=torch.uint8, device=device) for _ in range(2)]
    turn = 0

    def copy() -> None:
        nonlocal turn
        turn += 1
        pair = pairs[turn % 2]
        pair[0].copy_(pair[1])

    watch = Stopwatch(device)
    watch.each(copy, 3)
    return 2 * count / statistics.median(watch.each(copy, 9))
