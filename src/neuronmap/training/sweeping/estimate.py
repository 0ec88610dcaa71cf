"""What a sweep will take, worked out before it starts: parameters, memory, disk, time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch

from neuronmap.errors import MemoryExhaustedError
from neuronmap.paths import human_bytes
from neuronmap.training.config import SAEConfig
from neuronmap.training.plan import Plan, make_plan

__all__ = ["SweepPlan", "checkpoint_steps", "plan_sweep"]


@dataclass(frozen=True)
class SweepPlan:
    """Derived numbers of a sweep.

    Attributes:
        plans: the plan of each member, in order.
        hooks: number of hook points.
        parameters: of all SAEs together.
        weight_bytes: weights and Adam's moments of all, which stay in memory side by side.
        turn_bytes: gradients and scratch space of one step of the largest: members take turns.
        shuffle_bytes: activations being shuffled, of all hooks.
        checkpoint_bytes: on disk while the sweep runs, with all checkpoints that are kept.
        seconds: expected time of all training steps on this machine, without the pass of the language model.
    """

    plans: tuple[Plan, ...]
    hooks: int
    parameters: int
    weight_bytes: int
    turn_bytes: int
    shuffle_bytes: int
    checkpoint_bytes: int
    seconds: float

    @property
    def total_bytes(self) -> int:
        """Memory of the training; the language model comes on top."""
        return self.weight_bytes + self.turn_bytes + self.shuffle_bytes

    @property
    def steps(self) -> int:
        """Of the longest member."""
        return max(plan.steps for plan in self.plans)

    def lines(self) -> list[str]:
        """The plan as a person reads it."""
        count, rows = len(self.plans), self.plans[0].batch_rows
        minutes = f"{self.seconds / 60:.0f} min" if self.seconds >= 90 else f"{self.seconds:.0f} s"
        hooks = f"{self.hooks} hook{'s' if self.hooks != 1 else ''}"
        return [
            f"Sweep: {count} SAE{'s' if count != 1 else ''} of {hooks} on one stream; {self.parameters:,} parameters; up to "
            f"{self.steps:,} steps of {rows:,} activations.",
            f"       memory {human_bytes(self.total_bytes)}: weights and Adam {human_bytes(self.weight_bytes)}, one step at a time "
            f"{human_bytes(self.turn_bytes)}, shuffling {human_bytes(self.shuffle_bytes)}; checkpoints up to "
            f"{human_bytes(self.checkpoint_bytes)} of disk.",
            f"       about {minutes} of training here, besides one pass of the language model.",
        ]


def plan_sweep(
    configs: Sequence[SAEConfig],
    rows: Sequence[int],
    widths: Sequence[int],
    hooks: Sequence[str],
    device: torch.device,
    shuffle_bytes: int,
) -> SweepPlan:
    """Work the numbers out, and refuse what cannot run.

    Args:
        configs: the members.
        rows, widths, hooks: training activations, width of the activation, and hook point, for each.
        device: where they are trained.
        shuffle_bytes: memory of the shuffles of all hooks together.

    Raises:
        EmptyCorpusError: when a member's passes do not fill one step.
        MemoryExhaustedError: when all together need more memory than the machine has free.
    """
    configs = with_one_batch(configs, rows)
    plans = tuple(make_plan(one, n, width, device, 0) for one, n, width in zip(configs, rows, widths, strict=True))
    kept = sum(
        plan.optimiser_bytes for plan in plans
    )  # a plan counts the gradient there, of which there is one: the weights take its place
    turn = max(plan.parameter_bytes for plan in plans) + max(plan.step_bytes for plan in plans)
    on_disk = sum(
        (plan.parameter_bytes * 3) * (config.keep_checkpoints + 1) for plan, config in zip(plans, configs, strict=True)
    )
    plan = SweepPlan(
        plans=plans,
        hooks=len(set(hooks)),
        parameters=sum(plan.parameter_bytes // 4 for plan in plans),
        weight_bytes=kept,
        turn_bytes=turn,
        shuffle_bytes=shuffle_bytes,
        checkpoint_bytes=on_disk,
        seconds=sum(plan.seconds for plan in plans),
    )
    if device.type == "cpu" and plan.total_bytes > (free := psutil.virtual_memory().available):
        raise MemoryExhaustedError(
            f"The {len(plans)} SAEs need about {human_bytes(plan.total_bytes)} of memory together "
            f"({human_bytes(plan.weight_bytes)} for weights and Adam), but {human_bytes(free)} are free.",
            hint="Take members out, lower hidden_dim or batch_size, or make several sweeps of it.",
        )
    return plan


def with_one_batch(configs: Sequence[SAEConfig], rows: Sequence[int]) -> tuple[SAEConfig, ...]:
    """Members with the ``batch_size`` that they share as a number: the least that one of them would take.

    Args:
        configs: the members.
        rows: training activations of each.
    """
    batch = min(
        config.for_rows(count).batch_rows // config.context_length for config, count in zip(configs, rows, strict=True)
    )
    return tuple(config.updated(batch_size=batch) for config in configs)


def checkpoint_steps(config: SAEConfig, steps: int) -> int:
    """Steps between checkpoints, which all members write at the same steps: as configured, or ten in the longest run."""
    return config.checkpoint_every_steps or max(1, math.ceil(steps / 10))
