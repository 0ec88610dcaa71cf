"""What a run will do, worked out before it starts: steps, memory, arithmetic, time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from math import ceil

import psutil
import torch

from neuronmap.errors import EmptyCorpusError, MemoryExhaustedError
from neuronmap.paths import human_bytes
from neuronmap.saes import SparseAutoencoder, get_architecture
from neuronmap.saes.kernels.choice import describe, rounds_products, screens
from neuronmap.saes.kernels.native.screening import LEAST_WEIGHTS
from neuronmap.saes.topk import TopKFamily
from neuronmap.training.config import SAEConfig

__all__ = ["Plan", "make_plan", "optimiser_bytes", "seconds_per_gemm", "step_bytes", "step_seconds", "weight_bytes"]

_GEMMS = {"topk": 1.3, "batchtopk": 1.3, "matryoshka": 1.3, "lista": 3.0, "relu": 2.0, "jumprelu": 1.6, "gated": 2.0}
"""Time of a whole step over the time of its encoder GEMM at F = 4096, k = 32, measured on 2 cores with the native kernels (relu and
gated: between their dense start and their sparse end); for the estimate only."""
_SCREENED_GEMMS = 0.4
"""What screening takes off it."""

_STEP_OVERHEAD_S = 3e-3
"""Of a step however small: some hundred small operations."""
_SECONDS_PER_WEIGHT_BYTE = 2.5e-10
"""Of the passes over all parameters (gradient norm, Adam, unit norm), in bytes of weights; measured at F = 16384."""

_WHOLE_MATRICES = {"relu": 1, "jumprelu": 4, "gated": 4}
"""B x F matrices that exist while the step is dense, as it is at the start. The top-k family needs none."""
_PLUGIN_MATRICES = 6
"""A plug-in without hand-written gradients runs under autograd, which keeps more."""
_AT_ONCE = {"native": 2**22, "torch": 2**24, "triton": 2**28}
"""Pre-activations that exist at a time in a sparse step; Triton (in bfloat16, two bytes) also lists up to as many, with their features."""

_MOST_DEAD_WINDOW = 10_000_000
_DEAD_SHARES = {"auxk": 40, "resample": 10, "none": 10}
"""Of a run, the part after which a silent feature is dead. AuxK gains by an early look (docs/experiments.md, 2026-11-28); re-initialising
a feature that is only rare would lose what it has learnt."""

_LONG_RUN_STEPS = 16_000
_MOST_SHORT_RUN_FACTOR = 8.0


@dataclass(frozen=True)
class Plan:
    """Derived numbers of a run.

    Attributes:
        rows: training activations.
        steps: optimiser steps.
        batch_rows: activations a step, B.
        d_in, d_sae: widths D and F.
        peak_rate: learning rate between warm-up and decay.
        dead_window: activations without firing after which a feature is dead.
        parameter_bytes, optimiser_bytes, step_bytes, shuffle_bytes: memory by purpose.
        step_flops: arithmetic of one step's encoder GEMM, 2 B D F.
        seconds: expected time of the training part on this machine.
    """

    rows: int
    steps: int
    batch_rows: int
    d_in: int
    d_sae: int
    peak_rate: float
    dead_window: int
    parameter_bytes: int
    optimiser_bytes: int
    step_bytes: int
    shuffle_bytes: int
    step_flops: float
    seconds: float

    @property
    def total_bytes(self) -> int:
        return self.parameter_bytes + self.optimiser_bytes + self.step_bytes + self.shuffle_bytes

    def lines(self, config: SAEConfig) -> list[str]:
        """The plan as a person reads it."""
        seen = self.steps * self.batch_rows
        minutes = f"{self.seconds / 60:.0f} min" if self.seconds >= 90 else f"{self.seconds:.0f} s"
        return [
            f"Plan: {config.resolved_architecture}, {self.d_in} -> {self.d_sae:,} features; {self.rows:,} activations, "
            f"{seen / self.rows:.1f} passes = {seen:,} in {self.steps:,} steps of {self.batch_rows:,} "
            f"({self.batch_rows // config.context_length} contexts x {config.context_length} tokens).",
            f"      learning rate {self.peak_rate:.2g}; a feature is dead after {self.dead_window:,} activations without firing.",
            f"      memory {human_bytes(self.total_bytes)}: weights {human_bytes(self.parameter_bytes)}, gradient and Adam "
            f"{human_bytes(self.optimiser_bytes)}, step {human_bytes(self.step_bytes)}, shuffling {human_bytes(self.shuffle_bytes)}.",
            f"      {self.step_flops * self.steps / 1e12:,.2f} TFLOP in the encoder's forward pass; about {minutes} of training here.",
        ]


def seconds_per_gemm(rows: int, d_in: int, d_sae: int, device: torch.device) -> float:
    """Time of one encoder GEMM [rows, D] x [D, F], measured on a slice of at most 512 rows and scaled up."""
    part = min(rows, 512)
    x_BD, w_DF = torch.ones(part, d_in, device=device), torch.ones(d_in, d_sae, device=device)
    out_BF = torch.empty(part, d_sae, device=device)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        torch.mm(x_BD, w_DF, out=out_BF)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times) * rows / part


def default_learning_rate(d_sae: int, steps: int) -> float:
    """2e-4 / sqrt(F / 16384) (the rule of dictionary_learning and sparsify), raised for runs under 16,000 steps.

    A short run ends before that rate has moved the weights far enough: on SmolLM2 with F = 1024 the best rate
    was 7.5 times the rule's at 256 steps and 5 times at 1,024. The rate grows with sqrt(16000 / steps), at most
    eightfold (docs/experiments.md).
    """
    short = min(math.sqrt(max(_LONG_RUN_STEPS / steps, 1.0)), _MOST_SHORT_RUN_FACTOR)
    return 2e-4 / math.sqrt(d_sae / 16_384) * short


def weight_bytes(d_in: int, d_sae: int) -> int:
    """All parameters in float32: two matrices, two vectors of F at most, one of D."""
    return 4 * (2 * d_in * d_sae + 2 * d_sae + d_in)


def optimiser_bytes(d_in: int, d_sae: int, rounds: bool, row_ranks: int = 1) -> int:
    """Gradient and Adam's two moments in float32; with ``rounds`` also the encoder's copy in bfloat16.

    Of ``row_ranks`` processes that hold the same features each keeps the moments of a share of the two matrices.
    """
    weights, matrices = weight_bytes(d_in, d_sae), 8 * d_in * d_sae
    shared = 2 * (weights - matrices + ceil(matrices / row_ranks))
    return weights + shared + (2 * d_in * d_sae if rounds else 0)


def step_seconds(architecture: str, gemm_seconds: float, d_in: int, d_sae: int, screened: bool = False) -> float:
    """Expected time of a step on a CPU, from the time of its encoder GEMM in float32, and whether that is screened in bfloat16."""
    passes = weight_bytes(d_in, d_sae) * _SECONDS_PER_WEIGHT_BYTE
    gemms = _GEMMS.get(architecture, 8.0) - (_SCREENED_GEMMS if screened and architecture in _GEMMS else 0.0)
    return gemms * gemm_seconds + _STEP_OVERHEAD_S + passes


def step_bytes(config: SAEConfig, architecture: type[SparseAutoencoder], d_in: int, kernels: str) -> int:
    """Scratch memory of a step with those kernels. AuxK adds B times the number of dead features, twice, while there are any."""
    B, F = config.batch_rows, config.width(d_in)
    options = config.sae_options(d_in)
    halves = 2 * d_in * (F + B) if kernels == "native" and d_in * F >= LEAST_WEIGHTS else 0  # factors in bfloat16
    if issubclass(architecture, TopKFamily):
        levels = len(getattr(options, "group_fractions", (1.0,)))
        k: int = min(options.k, F)
        most = B * F
        dense = config.products == "dense"
        if dense and kernels != "triton":
            kernels = "torch"  # which selects for dense products on a CPU
        at_once = min(most, max(_AT_ONCE[kernels], 512 * F if kernels == "torch" else 256 * B))
        entries = B * (max(8 * k, 2 * k + 256) + 3 * k)  # candidates, and the code by row and by feature
        if kernels == "triton":
            at_once = at_once * 5 // 2
            entries += B * d_in // 2 + 2 * (B * k // 256 + 1) * d_in  # rows in bfloat16, parts of long features
        if dense:
            at_once += 2 * most  # the code and its gradient as matrices
        return 4 * (at_once + entries + B * d_in * (levels + 3) + 2 * B * min(F, d_in)) + halves
    wide = _WHOLE_MATRICES.get(config.resolved_architecture, _PLUGIN_MATRICES)
    block = min(B * F, max(_AT_ONCE["native"], 256 * B))
    return 4 * (B * F * wide + block + 4 * B * d_in) + halves


def make_plan(
    config: SAEConfig,
    rows: int,
    d_in: int,
    device: torch.device,
    shuffle_bytes: int,
    ranks: tuple[int, int] = (1, 1),
) -> Plan:
    """Work the numbers out, and refuse what cannot run.

    Args:
        config: of the run.
        rows: training activations.
        d_in: D.
        device: what it runs on.
        shuffle_bytes: memory of the rows that are mixed at once.
        ranks: processes that share the rows, and processes that share the features; weights and moments are then those of each.

    Raises:
        EmptyCorpusError: when all passes together do not fill one step.
        MemoryExhaustedError: when the run would need more memory than the machine has free.
    """
    config = config.for_rows(rows)
    B, F = config.batch_rows, config.width(d_in)
    architecture = get_architecture(config.resolved_architecture)
    steps = int(rows * config.num_epochs // B)
    if config.max_steps is not None:
        steps = min(steps, config.max_steps)
    if steps < 1:
        raise EmptyCorpusError(
            f"{rows:,} activations x {config.num_epochs:g} epochs do not fill one step of {B:,} "
            f"(batch_size = {config.batch_size} contexts x context_length = {config.context_length} tokens).",
            hint="Give more text, lower batch_size, or raise num_epochs.",
        )
    kernels = describe(device, config.kernels).split(" ")[0]
    rounds = rounds_products(config.compute_dtype, config.kernels, device, issubclass(architecture, TopKFamily))
    seen = steps * B
    plan = Plan(
        rows=rows,
        steps=steps,
        batch_rows=B,
        d_in=d_in,
        d_sae=F,
        peak_rate=config.learning_rate or default_learning_rate(F, steps) * architecture.rate_factor,
        dead_window=config.dead_after_tokens
        or max(B, min(_MOST_DEAD_WINDOW, seen // _DEAD_SHARES[architecture.revival])),
        parameter_bytes=weight_bytes(d_in, ceil(F / ranks[1])),
        optimiser_bytes=optimiser_bytes(d_in, ceil(F / ranks[1]), rounds, ranks[0]),
        step_bytes=step_bytes(config, architecture, d_in, kernels),
        shuffle_bytes=shuffle_bytes,
        step_flops=2.0 * B * d_in * F,
        seconds=0.0,
    )
    if device.type == "cpu" and plan.total_bytes > (free := psutil.virtual_memory().available):
        raise MemoryExhaustedError(
            f"Training needs about {human_bytes(plan.total_bytes)} of memory, but {human_bytes(free)} are free.",
            hint="Lower hidden_dim or batch_size.",
        )
    screened = kernels == "native" and screens(config.compute_dtype, d_in * F)
    seconds = step_seconds(config.resolved_architecture, seconds_per_gemm(B, d_in, F, device), d_in, F, screened)
    return Plan(**{**plan.__dict__, "seconds": steps * seconds})
