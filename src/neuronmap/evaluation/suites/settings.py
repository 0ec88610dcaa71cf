"""How thorough suites are, and which of them can be asked for together. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronmap.errors import ConfigError
from neuronmap.evaluation.suites.record import SUITES, SuiteName

__all__ = ["SuiteSettings", "check_suites"]


@dataclass(frozen=True)
class SuiteSettings:
    """How thorough the suites are; all of it goes into the keys.

    Attributes:
        max_tokens: most tokens for reconstruction and sparsity.
        max_ce_tokens: most tokens for loss and KL; each costs a forward pass for the SAE, for each ablation and each baseline.
        fit_rows: training rows that baselines are fitted on.
        ks: numbers of latents of the sparse probes.
        items: items of each concept or data set.
        probe_data: folder of sae-probes; None for its installed package.
        probe_sets: its data sets to probe for, besides the concepts: names or numbers, or ``all``.
        words_per_letter: most words a letter, for absorption.
        meta_steps: steps of the meta-SAEs.
        batch_tokens: tokens in a forward pass; not part of the keys.
        bootstrap: resamples of every interval.
        seed: of every draw.
    """

    max_tokens: int = 16_384
    max_ce_tokens: int = 4096
    fit_rows: int = 8192
    ks: tuple[int, ...] = (1, 2, 5, 16)
    items: int = 320
    probe_data: Path | None = None
    probe_sets: tuple[str, ...] = ()
    words_per_letter: int = 160
    meta_steps: int = 200
    batch_tokens: int = 1024
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"max_tokens": 1, "max_ce_tokens": 0, "fit_rows": 2, "items": 40, "words_per_letter": 8, "meta_steps": 1,
                 "batch_tokens": 1, "bootstrap": 0}  # fmt: skip
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ConfigError(f"{name} = {getattr(self, name)}: it must be {lowest} or more.")
        if not self.ks or min(self.ks) < 1 or len(set(self.ks)) < len(self.ks):
            raise ConfigError(f"ks = {list(self.ks)}: different numbers of latents, each 1 or more.")

    def of(self, suite: SuiteName) -> dict[str, Any]:
        """What decides the result of one suite, in plain JSON types."""
        names = {
            "core": ("max_tokens", "max_ce_tokens"),
            "probing": ("ks", "items", "probe_sets"),
            "absorption": ("words_per_letter",),
            "structure": ("meta_steps",),
            "stability": (),
        }
        chosen = {name: getattr(self, name) for name in (*names[suite], "fit_rows", "bootstrap", "seed")}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}


def check_suites(suites: Sequence[str], *, against: bool) -> tuple[SuiteName, ...]:
    """Names of suites, each once, in their order.

    Args:
        suites: as they were asked for.
        against: whether there is a second SAE.

    Raises:
        ConfigError: an unknown name, none at all, or stability without a second SAE (or the other way round).
    """
    unknown = [name for name in suites if name not in SUITES]
    if unknown or not suites:
        raise ConfigError(f"suites = {list(suites)}: one or more of {', '.join(SUITES)} are wanted.")
    if ("stability" in suites) != against:
        raise ConfigError(
            "The stability suite compares with a second SAE: the two go together.",
            hint="--suite stability --against NAME, the name of an SAE trained with another seed.",
        )
    return tuple(name for name in SUITES if name in suites)
