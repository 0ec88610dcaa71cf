"""The cells of the quality benchmark: which library, architecture and settings, and where each number comes from.

A cell is one training run. ``recommended`` are a library's own defaults and tutorial settings; ``matched`` replaces
what depends on the length of the run (learning rate, warm-ups, the window after which a feature counts as dead) by
NeuronMap's values for this run, because runs here are hundreds of steps long and the peers' defaults are made for
tens of thousands. Both are tried on the first seed and the better one is used for the others, so that nobody
loses for a default that does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neuronmap.saes import get_architecture
from neuronmap.training.plan import default_learning_rate

ARCHITECTURES = ("topk", "batchtopk", "jumprelu", "relu")
PEER_VARIANTS = ("recommended", "matched")
LIBRARIES = ("neuronmap", "saelens", "dictionary_learning")


@dataclass(frozen=True)
class Budget:
    """What every library gets, the same for all.

    Attributes:
        d_in, d_sae, k: widths, and active features a row to compare at.
        steps, batch_rows: optimiser steps and rows in each.
        threads: CPU threads.
    """

    d_in: int
    d_sae: int
    k: int
    steps: int
    batch_rows: int
    threads: int

    @property
    def visits(self) -> int:
        """Rows trained on, repeats counted."""
        return self.steps * self.batch_rows

    @property
    def dead_after(self) -> int:
        """NeuronMap's window for dead features: a tenth of the run."""
        return max(self.batch_rows, min(10_000_000, self.visits // 10))


@dataclass(frozen=True)
class Knob:
    """What sets the sparsity of an architecture that has no k.

    Attributes:
        name: the library's own name for it.
        start: first value tried.
        rising: whether more of it means more active features.
    """

    name: str
    start: float
    rising: bool


def variants(library: str, tried: tuple[str, ...] = PEER_VARIANTS) -> tuple[str, ...]:
    """Settings that are tried on the first seed; ``tried`` limits the peers' to some of them."""
    return ("default",) if library == "neuronmap" else tried


def knob(library: str, architecture: str, k: int) -> Knob | None:
    """The sparsity knob, or None for architectures with a k."""
    if architecture in ("topk", "batchtopk"):
        return None
    return {
        ("neuronmap", "relu"): Knob("sparsity_penalty", 0.03, rising=False),
        ("neuronmap", "jumprelu"): Knob("target_l0", float(k), rising=True),
        ("saelens", "relu"): Knob("l1_coefficient", 2.0, rising=False),
        ("saelens", "jumprelu"): Knob("l0_coefficient", 1.0, rising=False),
        ("dictionary_learning", "relu"): Knob("l1_penalty", 0.04, rising=False),
        ("dictionary_learning", "jumprelu"): Knob("target_l0", float(k), rising=True),
    }[library, architecture]


def settings(library: str, architecture: str, variant: str, budget: Budget) -> dict[str, Any]:
    """Everything a peer's training script is told besides data, widths, seed and knob."""
    steps = budget.steps
    matched_rate = default_learning_rate(budget.d_sae, steps) * get_architecture(architecture).rate_factor
    if library == "saelens":
        return _saelens(architecture, variant, budget, matched_rate)
    if library == "dictionary_learning":
        return _dictionary_learning(architecture, variant, budget, matched_rate)
    return {}


def _saelens(architecture: str, variant: str, budget: Budget, matched_rate: float) -> dict[str, Any]:
    steps = budget.steps
    # Its documentation recommends the tanh form (after Anthropic's update) with these values and a sparsity warm-up
    # over the whole run; the straight-through gradient also reaches the encoder there.
    jumprelu = {
        "jumprelu_sparsity_loss_mode": "tanh",
        "jumprelu_bandwidth": 2.0,
        "jumprelu_init_threshold": 0.1,
        "pre_act_loss_coefficient": 3e-6,
        "jumprelu_ste_to_input": True,
    }
    chosen = {
        "learning_rate": 3e-4,  # SAETrainerConfig's default
        "warmup_steps": 0,  # default
        "decay_steps": max(1, steps // 5),  # the tutorial: last fifth
        "sparsity_warmup_steps": steps if architecture == "jumprelu" else max(1, steps // 20),  # the tutorial: 5 %
        "dead_window_steps": 1000,  # default
        "norm_batches": 100,  # default 1000 would read more rows than the run; these are not trained on
        "jumprelu": jumprelu if architecture == "jumprelu" else {},
    }
    if variant == "matched":
        chosen |= {
            "learning_rate": matched_rate,
            "warmup_steps": max(1, min(1000, steps // 20)),
            "dead_window_steps": max(1, budget.dead_after // budget.batch_rows),
        }
    return chosen


def _dictionary_learning(architecture: str, variant: str, budget: Budget, matched_rate: float) -> dict[str, Any]:
    steps = budget.steps
    rates = {  # the trainers' own defaults
        "topk": 2e-4 / (budget.d_sae / 2**14) ** 0.5,
        "batchtopk": 2e-4 / (budget.d_sae / 2**14) ** 0.5,
        "relu": 1e-3,
        "jumprelu": 7e-5,
    }
    chosen = {
        "learning_rate": rates[architecture],
        "warmup_steps": min(1000, max(1, steps // 20)),  # default 1000, which must be below the number of steps
        "decay_steps": max(1, steps // 5),  # as in SAEBench's runs
        "sparsity_warmup_steps": min(2000, max(1, steps // 10)),  # default 2000, likewise
        "threshold_start_step": min(1000, steps // 2),  # default 1000; below that the threshold is never set
        "dead_after_tokens": 10_000_000,  # its constant
        "jumprelu": {"bandwidth": 0.001, "sparsity_penalty": 1.0} if architecture == "jumprelu" else {},
    }
    if variant == "matched":
        chosen |= {"learning_rate": matched_rate, "dead_after_tokens": budget.dead_after}
    return chosen


def our_config(architecture: str, budget: Budget, knob_value: float | None, seed: int, rows: int) -> dict[str, Any]:
    """Fields of ``SAEConfig`` for our run: defaults but for the budget."""
    context = 128
    fields: dict[str, Any] = {
        "architecture": architecture,
        "hidden_dim": budget.d_sae,
        "context_length": context,
        "batch_size": budget.batch_rows // context,
        "num_epochs": budget.visits / rows + 1,
        "max_steps": budget.steps,
        "seed": seed,
        "eval_every_steps": budget.steps,
        "checkpoint_every_steps": budget.steps,
    }
    chosen = knob("neuronmap", architecture, budget.k)
    if chosen is None:
        fields["k"] = budget.k
    else:
        fields[chosen.name] = knob_value
    return fields
