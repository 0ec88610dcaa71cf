"""Our training step on a GPU: a real ``Session``, whose batches lie on the device already, and where its time goes.

Shapes: B rows of a batch, D = width, F = features, N = B k entries.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu_rows import Batches
from neuronmap import SAEConfig
from neuronmap.activations import ArrayRows, ShuffledBatches
from neuronmap.saes import get_architecture
from neuronmap.training.data import TrainingData
from neuronmap.training.plan import make_plan
from neuronmap.training.session import Session

STEPS = 20_000
"""Length of the run that the schedules believe in: warm-up is over after 1,000 steps."""
CONTEXT = 128
HOST_ROWS = 4096
"""Rows that the session believes are its data: they give it mean, variance and scale."""
_NEVER = 10**15

OURS = {
    "selection": (
        "peaks", "strongest", "candidates", "largest", "pack", "collect", "tally", "narrow", "count", "rank", "write",
        "take_columns", "keep",
    ),
    "decode and errors": ("decode", "pull_back"),
    "weight gradients": ("feature_sums", "add_parts"),
    "clip and Adam": ("energy", "adam"),
}  # fmt: skip
"""Parts of a step by what the names of our kernels begin with."""
LIBRARIES = {
    "encoder product": ("gemm", "nvjet", "cutlass", "xmma"),
    "sorting and searching": ("sort", "radix", "scan", "searchsorted", "bucketize"),
}
"""Parts by what the names of torch's kernels contain."""


class DeviceSession(Session):
    """A session that takes its batches from the device, as the peers do here. What feeding it costs is measured by itself."""

    device_batches: Batches

    def _next_batch(self) -> Tensor:
        return self.device_batches.next()


class OurStep:
    """One cell: what ``SAETrainer`` does between two batches.

    Args:
        cell: architecture, variant (kernels), dtype, batch, features, k.
        rows_ND: on the device, scaled to E|x|^2 = 1.
    """

    def __init__(self, cell: dict[str, Any], rows_ND: Tensor) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="neuronmap-gpu-")
        host_ND = rows_ND[:HOST_ROWS].cpu()
        config = SAEConfig(
            architecture=cell["architecture"],
            hidden_dim=cell["features"],
            k=cell["k"],
            context_length=CONTEXT,
            batch_size=cell["batch"] // CONTEXT,
            num_epochs=STEPS * cell["batch"] / len(host_ND) + 1,
            max_steps=STEPS,
            dead_after_tokens=_NEVER,
            kernels=cell["variant"],
            compute_dtype=cell["dtype"],
        )
        device, source = rows_ND.device, ArrayRows(host_ND)
        data = TrainingData(rows=source, heldout=ArrayRows(host_ND[:CONTEXT]))
        scale = 1.0 / math.sqrt(source.statistics.mean_square_norm)
        batches = ShuffledBatches(source, min(config.batch_rows, len(host_ND)), seed=0, scale=scale)
        plan = make_plan(config, source.num_rows, data.width, device, 0)
        owner = get_architecture(config.resolved_architecture)
        sae = owner(data.width, plan.d_sae, config.sae_options(data.width), device=device)
        sae.initialise(source.statistics.mean_D.float() * scale, torch.Generator().manual_seed(0))
        self.session = DeviceSession(config, plan, data, sae, batches, scale, Path(self._folder.name) / "checkpoints")
        self.session.device_batches = Batches(rows_ND, cell["batch"])
        self.cell = cell
        self.loss: Any = None

    def step(self) -> None:
        self.loss = self.session.train_step()
        self.session.resample_if_due()

    def describe(self) -> dict[str, Any]:
        """Active features a row, loss, what ran, and how unevenly features fire."""
        fired_F = self.loss.fired_F.float()
        return {
            "l0": float(fired_F.sum()) / self.cell["batch"],
            "loss": float(self.loss.total),
            "ran": "+".join(sorted({name.split(".")[0] for name in self.session.workspace.backends})),
            "most_fired": float(fired_F.max()) / self.cell["batch"],
            "never_fired": float((fired_F == 0).float().mean()),
            "buffers": self.session.workspace.nbytes,
        }

    def digest(self) -> list[int]:
        """A checksum of every parameter's bits."""
        return [int(p.detach().view(torch.int32).sum(dtype=torch.int64)) for p in self.session.sae.parameters()]

    def close(self) -> None:
        self.session.batches.close()
        self._folder.cleanup()


def parts_of_step(step: OurStep, count: int) -> dict[str, Any]:
    """Seconds of GPU work in a step by kind, and by kernel for those of at least 1 %, from torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    activity = ProfilerActivity.CUDA if step.session.sae.device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as found:
        for _ in range(count):
            step.step()
        if step.session.sae.device.type == "cuda":
            torch.cuda.synchronize()
    parts: dict[str, float] = defaultdict(float)
    kernels: dict[str, dict[str, float]] = {}
    for event in found.key_averages():
        seconds = getattr(event, "self_device_time_total", 0.0) / 1e6 / count
        if not seconds:
            continue
        parts[part_of(event.key)] += seconds
        kernels[event.key[:90]] = {"seconds": seconds, "launches": event.count / count}
    total = sum(parts.values())
    large = {name: facts for name, facts in kernels.items() if facts["seconds"] >= 0.01 * total}
    launches = sum(facts["launches"] for facts in kernels.values())
    return {"parts": dict(parts), "busy": total, "launches": launches, "kernels": large}


def part_of(kernel: str) -> str:
    """The part of a step that a kernel belongs to."""
    name = kernel.lower()
    for part, words in OURS.items():
        if name.startswith(words):
            return part
    return next((part for part, words in LIBRARIES.items() if any(word in name for word in words)), "other")


def floors(cell: dict[str, Any], width: int, bandwidth: float) -> dict[str, float]:
    """Seconds that the bytes of each part take at the bandwidth of a copy: each input read once, each output written once."""
    B, F, D, k = cell["batch"], cell["features"], width, cell["k"]
    size = 2 if cell["dtype"] == "bfloat16" else 4  # of pre-activations and of what is gathered
    weights = 2 * D * F
    bytes_of = {
        "encoder product": size * (B * F + B * D + D * F),
        "selection": size * B * F,
        "decode and errors": 4 * 2 * B * D + size * D * F + 16 * B * k,
        "weight gradients": size * 2 * B * D + 4 * weights + 16 * B * k,
        "clip and Adam": 28 * weights + 2 * D * F + 4 * (weights + D * F),
    }
    return {part: count / bandwidth for part, count in bytes_of.items()}


def feeding(rows_ND: Tensor, batch: int, times: int = 3) -> dict[str, float]:
    """Seconds that ``Session`` takes to bring a batch of float32 rows from pageable memory to the device: pinning, and the copy."""
    host_BD = rows_ND[:batch].cpu()
    pinning, copying = [], []
    for _ in range(times):
        started = time.perf_counter()
        pinned_BD = host_BD.pin_memory()
        pinning.append(time.perf_counter() - started)
        torch.cuda.synchronize()
        started = time.perf_counter()
        pinned_BD.to(rows_ND.device, non_blocking=True)
        torch.cuda.synchronize()
        copying.append(time.perf_counter() - started)
    return {"pinning": min(pinning), "copying": min(copying)}


__all__ = ["DeviceSession", "OurStep", "feeding", "floors", "part_of", "parts_of_step"]
