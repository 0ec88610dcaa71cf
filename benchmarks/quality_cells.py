"""What the quality sheet compares: libraries, architectures, settings and where each number comes from, and the order of the cells.

A cell is one place of the sheet: library, architecture, settings, width, L0, seed. Settings are

- ``default``: the library's own defaults and tutorial settings (NeuronMap: its defaults);
- ``matched`` (peers only): what depends on the length of a run (learning rate, warm-ups) is NeuronMap's for this run, and the window after
  which a feature counts as dead a tenth of it, because runs here are hundreds of steps long and the peers' defaults are made for tens of
  thousands;
- ``x0.5`` and ``x2``: the learning rate of ``matched`` (NeuronMap: of ``default``) times that. Everybody gets the same three rates.

All of them are tried at one L0 on one seed, and the best of them there is run everywhere else, so that nobody loses for a default that
does not fit. The sheet shows as ``best`` at an L0 the settings that are best there on the first seed, of all that were run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from neuronmap.saes import get_architecture
from neuronmap.training.plan import default_learning_rate

OURS = "neuronmap"
PEERS = ("saelens", "dictionary_learning")
LIBRARIES = (OURS, *PEERS)
WITH_K = ("batchtopk", "topk", "matryoshka")
SEARCHED = ("jumprelu", "relu")
"""Without a k: several runs are needed to find an L0."""
ARCHITECTURES = (*WITH_K, *SEARCHED)
LEVELS = (1 / 16, 1 / 8, 1 / 4, 9 / 16)
"""Shares of the features in each level of a matryoshka SAE, the same for all; NeuronMap's default."""
PILOT_L0, PILOT_SEED = 64, 0
RATES = {"x0.5": 0.5, "x2": 2.0}
JUMPRELU_OF_SAELENS = {
    "jumprelu_sparsity_loss_mode": "tanh",
    "jumprelu_bandwidth": 2.0,
    "jumprelu_init_threshold": 0.1,
    "pre_act_loss_coefficient": 3e-6,
    "jumprelu_ste_to_input": True,
}
"""Its documentation recommends the tanh form (after Anthropic's update) with these values and a sparsity warm-up over the whole run; the
straight-through gradient also reaches the encoder there."""


@dataclass(frozen=True)
class Budget:
    """What every library gets, the same for all.

    Attributes:
        d_in, d_sae, k: widths, and active features a row to compare at.
        steps, batch_rows: optimiser steps and rows in each.
        threads: CPU threads.
        device: where SAEs are trained and measured.
    """

    d_in: int
    d_sae: int
    k: int
    steps: int
    batch_rows: int
    threads: int
    device: str = "cpu"

    @property
    def visits(self) -> int:
        """Rows trained on, repeats counted."""
        return self.steps * self.batch_rows

    @property
    def dead_after(self) -> int:
        """The peers' window for dead features where it is matched to the run: a tenth of it. NeuronMap's own, a fortieth since
        2026-11-28, gives the same explained variance on these rows (defaults sweep)."""
        return max(self.batch_rows, min(10_000_000, self.visits // 10))


@dataclass(frozen=True)
class Cell:
    """One place of the sheet."""

    library: str
    architecture: str
    variant: str
    features: int
    l0: int
    seed: int

    @property
    def label(self) -> str:
        return f"{self.library}/{self.architecture}/{self.variant} F {self.features} L0 {self.l0} seed {self.seed}"

    @property
    def method(self) -> str:
        """What ``--only`` looks at."""
        return f"{self.library}/{self.architecture}/{self.variant}"

    @property
    def has_k(self) -> bool:
        return self.architecture in WITH_K

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


Best = Callable[[str, str, int], str]
"""Library, architecture, width -> the settings that did best in the pilots."""


def base_variant(library: str) -> str:
    """The settings that are best unless the pilots say otherwise."""
    return "default" if library == OURS else "matched"


def variants(library: str, architecture: str) -> tuple[str, ...]:
    """Settings that are tried in the pilots; a method that needs a search for its sparsity gets no other rates, for cost."""
    first = ("default",) if library == OURS else ("default", "matched")
    return (*first, *RATES) if architecture in WITH_K else first


def ordered_cells(widths: Sequence[int], l0s: Sequence[int], seeds: Sequence[int], best: Best) -> Iterator[Cell]:
    """All cells once, the most informative first; ``best`` is asked when its turn comes, so later cells follow what earlier ones found.

    In each width, first seed: one L0 of everybody; the other L0 of the architectures with a k, ours first; those that need a search;
    other learning rates, and again all L0 where they win; the peers' defaults at the other L0. Then the other seeds.
    """
    given: set[Cell] = set()
    for cell in _with_repeats(widths, l0s, seeds, best):
        if cell not in given and cell.l0 in l0s and cell.seed in seeds:
            given.add(cell)
            yield cell


def _with_repeats(widths: Sequence[int], l0s: Sequence[int], seeds: Sequence[int], best: Best) -> Iterator[Cell]:
    for features in widths:
        for seed in seeds:
            at = _At(features, seed, best)
            if seed == PILOT_SEED:
                yield from at.cells((OURS,), ARCHITECTURES, "default", (PILOT_L0,))
                yield from at.cells(PEERS, WITH_K, "matched", (PILOT_L0,))
                yield from at.cells((OURS,), WITH_K, "default", l0s)
                yield from at.cells(PEERS, WITH_K, "default", (PILOT_L0,))
            yield from at.cells(LIBRARIES, WITH_K, "best", l0s)
            yield from at.cells((OURS,), SEARCHED, "default", l0s)
            if seed == PILOT_SEED:
                yield from at.cells(PEERS, SEARCHED, "matched", (PILOT_L0,))
                yield from at.cells(LIBRARIES, WITH_K, "x2", (PILOT_L0,))
                yield from at.cells(LIBRARIES, WITH_K, "x0.5", (PILOT_L0,))
                yield from at.cells(LIBRARIES, WITH_K, "best", l0s)
                yield from at.cells(PEERS, SEARCHED, "default", (PILOT_L0,))
            yield from at.cells(PEERS, SEARCHED, "best", l0s)
            yield from at.cells(LIBRARIES, ARCHITECTURES, "default", l0s)


@dataclass(frozen=True)
class _At:
    """Cells of one width and seed."""

    features: int
    seed: int
    best: Best

    def cells(
        self, libraries: Sequence[str], architectures: Sequence[str], variant: str, l0s: Sequence[int]
    ) -> Iterator[Cell]:
        for l0 in l0s:
            for architecture in architectures:
                for library in libraries:
                    chosen = self.best(library, architecture, self.features) if variant == "best" else variant
                    yield Cell(library, architecture, chosen, self.features, l0, self.seed)


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


def knob(library: str, architecture: str, k: int) -> Knob | None:
    """The sparsity knob, or None for architectures with a k."""
    if architecture in WITH_K:
        return None
    return {
        (OURS, "relu"): Knob("sparsity_penalty", 0.03, rising=False),
        (OURS, "jumprelu"): Knob("target_l0", float(k), rising=True),
        ("saelens", "relu"): Knob("l1_coefficient", 2.0, rising=False),
        ("saelens", "jumprelu"): Knob("l0_coefficient", 1.0, rising=False),
        ("dictionary_learning", "relu"): Knob("l1_penalty", 0.04, rising=False),
        ("dictionary_learning", "jumprelu"): Knob("target_l0", float(k), rising=True),
    }[library, architecture]


def our_rate(architecture: str, budget: Budget) -> float:
    """NeuronMap's default learning rate for this run."""
    return default_learning_rate(budget.d_sae, budget.steps) * get_architecture(architecture).rate_factor


def settings(library: str, architecture: str, variant: str, budget: Budget) -> dict[str, Any]:
    """Everything that a trainer is told besides data, widths, seed and sparsity; all of it goes into the record."""
    rate = our_rate(architecture, budget)
    if library == OURS:
        chosen: dict[str, Any] = {"learning_rate": rate}
    elif library == "saelens":
        chosen = _saelens(architecture, variant != "default", budget, rate)
    else:
        chosen = _dictionary_learning(architecture, variant != "default", budget, rate)
    if variant in RATES:
        chosen["learning_rate"] *= RATES[variant]
    if architecture == "matryoshka":
        chosen["level_widths"] = level_widths(budget.d_sae)
    return chosen


def level_widths(d_sae: int) -> list[int]:
    """Features up to each level."""
    return [round(d_sae * sum(LEVELS[: level + 1])) for level in range(len(LEVELS))]


def _saelens(architecture: str, matched: bool, budget: Budget, matched_rate: float) -> dict[str, Any]:
    steps = budget.steps
    chosen: dict[str, Any] = {
        "learning_rate": 3e-4,  # SAETrainerConfig's default
        "warmup_steps": 0,  # default
        "decay_steps": max(1, steps // 5),  # the tutorial: last fifth
        "sparsity_warmup_steps": steps if architecture == "jumprelu" else max(1, steps // 20),  # the tutorial: 5 %
        "dead_window_steps": 1000,  # default
        "norm_batches": 100,  # default 1000 would read more rows than the run; these are not trained on
        "jumprelu": JUMPRELU_OF_SAELENS if architecture == "jumprelu" else {},
    }
    if matched:
        chosen |= {
            "learning_rate": matched_rate,
            "warmup_steps": max(1, min(1000, steps // 20)),
            "dead_window_steps": max(1, budget.dead_after // budget.batch_rows),
        }
    return chosen


def _dictionary_learning(architecture: str, matched: bool, budget: Budget, matched_rate: float) -> dict[str, Any]:
    steps = budget.steps
    of_width = 2e-4 / (budget.d_sae / 2**14) ** 0.5
    rates = {"topk": of_width, "batchtopk": of_width, "matryoshka": of_width, "relu": 1e-3, "jumprelu": 7e-5}
    chosen: dict[str, Any] = {
        "learning_rate": rates[architecture],  # the trainers' own defaults
        "warmup_steps": min(1000, max(1, steps // 20)),  # default 1000, which must be below the number of steps
        "decay_steps": max(1, steps // 5),  # as in SAEBench's runs
        "sparsity_warmup_steps": min(2000, max(1, steps // 10)),  # default 2000, likewise
        "threshold_start_step": min(1000, steps // 2),  # default 1000; below that the threshold is never set
        "dead_after_tokens": 10_000_000,  # its constant
        "jumprelu": {"bandwidth": 0.001, "sparsity_penalty": 1.0} if architecture == "jumprelu" else {},
    }
    if matched:
        chosen |= {"learning_rate": matched_rate, "dead_after_tokens": budget.dead_after}
    return chosen


def our_config(
    architecture: str, budget: Budget, chosen: dict[str, Any], knob_value: float | None, seed: int, rows: int
) -> dict[str, Any]:
    """Fields of ``SAEConfig`` for our run: defaults but for the budget, and the learning rate of :func:`settings`."""
    context = 128
    fields: dict[str, Any] = {
        "architecture": architecture,
        "hidden_dim": budget.d_sae,
        "context_length": context,
        "batch_size": budget.batch_rows // context,
        "num_epochs": budget.visits / rows + 1,
        "max_steps": budget.steps,
        "learning_rate": chosen["learning_rate"],
        "compute_dtype": "float32",
        "device": budget.device,
        "seed": seed,
        "eval_every_steps": budget.steps,
        "checkpoint_every_steps": budget.steps,
    }
    sparsity = knob(OURS, architecture, budget.k)
    if sparsity is None:
        fields["k"] = budget.k
    else:
        fields[sparsity.name] = knob_value
    return fields


def of_cell(budget: Budget, cell: Cell) -> Budget:
    """The budget at a cell's width and sparsity."""
    return replace(budget, d_sae=cell.features, k=cell.l0)
