"""The core suite in parts of the text that any process can do: what each phase needs of those before it, and what it gives.

    fit -> active -> rows -> behaviour

Training rows for the baselines, how many features fire on the text that is scored (which gives the baselines' k), sums over its rows, and
loss and KL. Within a phase, parts need nothing of each other.

Shapes: N rows, D = d_in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from neuronmap.activations.extract import contexts_per_batch
from neuronmap.activations.mask import nothing_left
from neuronmap.corpora import TokenSet
from neuronmap.errors import ConfigError
from neuronmap.evaluation.core import beside
from neuronmap.evaluation.measuring import MEASURED, Evaluation
from neuronmap.evaluation.parts import (
    Ablation,
    EvaluationSize,
    RowPart,
    added,
    behaviour_count,
    context_parts,
    joined_behaviour,
    joined_rows,
)
from neuronmap.evaluation.rows import SpreadContexts
from neuronmap.evaluation.splice import SplicedSums
from neuronmap.evaluation.suites.coding import RowCapture, encoded
from neuronmap.evaluation.suites.record import BASELINES, CoreSuite
from neuronmap.progress import Task

if TYPE_CHECKING:
    from neuronmap.evaluation.suites.run import SuiteRun

__all__ = ["FIT_TITLE", "CoreParts", "Known", "Phase", "PhaseSize"]

Phase = Literal["fit", "active", "rows", "behaviour"]

FIT_TITLE = "Rows to fit baselines on"
_TITLES: dict[Phase, str] = {
    "fit": FIT_TITLE,
    "active": "Active features on the scored text",
    "rows": "Reconstruction",
    "behaviour": "Loss and KL, clean and spliced",
}
_ABLATIONS: tuple[Ablation, ...] = ("zero", "mean")


@dataclass(frozen=True)
class PhaseSize:
    """How a phase is cut.

    Attributes:
        title: for its bar.
        num_contexts, context_length: of the text it reads.
        parts: first context and one past the last, of each.
        tokens: that go through the model, or up to the hook, in all.
    """

    title: str
    num_contexts: int
    context_length: int
    parts: list[tuple[int, int]]
    tokens: int


@dataclass(frozen=True)
class FitPart:
    """Training rows [N, D] of a part, and positions left out."""

    rows_ND: Tensor
    dropped: dict[str, int]


@dataclass(frozen=True)
class ActivePart:
    """How many entries of the code are not zero on how many rows, and positions left out."""

    active: int
    rows: int
    dropped: dict[str, int]


@dataclass(frozen=True)
class Known:
    """What the phases so far have found.

    Attributes:
        threshold: norm above which a position is an outlier.
        fit_rows_ND: training rows.
        l0: active features on a row of the scored text.
        rows: sums over its rows.
        behaviour: sums by context; None where loss and KL are left out.
    """

    threshold: float | None
    fit_rows_ND: Tensor | None = None
    l0: float | None = None
    rows: RowPart | None = None
    behaviour: SplicedSums | None = None

    def after(self, phase: Phase, parts: Sequence[Any], size: PhaseSize) -> Known:
        """With what a phase found, from all of its parts in their order.

        Raises:
            EmptyCorpusError: the mask leaves nothing.
        """
        if phase == "behaviour":
            return replace(self, behaviour=joined_behaviour(parts))
        dropped: dict[str, int] = {}
        for part in parts:
            dropped = added(dropped, part.dropped)
        if phase == "rows":
            found = replace(self, rows=joined_rows(parts))
            count = found.joined_rows.sums[MEASURED].rows
        elif phase == "fit":
            rows_ND = torch.cat([part.rows_ND for part in parts])
            found, count = replace(self, fit_rows_ND=rows_ND), len(rows_ND)
        else:
            count = sum(part.rows for part in parts)
            found = replace(self, l0=sum(part.active for part in parts) / max(count, 1))
        if not count:
            raise nothing_left(cast(TokenSet, size), dropped)  # it is asked for its number of contexts and their length
        return found

    @property
    def joined_rows(self) -> RowPart:
        """Sums over rows, which the phase after needs."""
        if self.rows is None:
            raise ConfigError("Rows come before loss and KL.")
        return self.rows

    @property
    def fitted(self) -> tuple[Tensor, float]:
        """Training rows and L0, which the phases after need."""
        if self.fit_rows_ND is None or self.l0 is None:
            raise ConfigError("Training rows and L0 come before what is measured with baselines beside.")
        return self.fit_rows_ND, self.l0


class CoreParts:
    """The core suite of one SAE.

    Args:
        run: what it is measured with; what is found here for other suites, too, is told to it.
    """

    def __init__(self, run: SuiteRun) -> None:
        self._run = run
        self._made: tuple[Tensor, float, Evaluation] | None = None

    @cached_property
    def sizes(self) -> dict[Phase, PhaseSize]:
        """The phases, in their order."""
        tokens, settings = self._tokens, self._run.settings
        batch = contexts_per_batch(tokens, settings.batch_tokens)
        found = {
            "fit": _size("fit", self._fit.chosen, self._fit.parts, 1),
            "active": _size("active", self._scored.chosen, self._scored.parts, 1),
            "rows": _size("rows", self._scored.chosen, self._scored.parts, 1),
        }
        if settings.max_ce_tokens:
            chosen = SpreadContexts(tokens, behaviour_count(tokens, settings.max_ce_tokens))
            forwards = 2 + len(BASELINES) + len(_ABLATIONS)
            parts = context_parts(chosen.num_contexts, batch)
            found["behaviour"] = _size("behaviour", chosen, parts, forwards)
        return cast("dict[Phase, PhaseSize]", found)

    def begin(self) -> Known:
        """What is known before the first phase."""
        return Known(self._run.calibrated())

    def part(self, phase: Phase, start: int, stop: int, known: Known, bar: Task) -> Any:
        """Do one part of a phase.

        Args:
            phase, start, stop: from :attr:`sizes`.
            known: what the phases before have found.
            bar: advanced by tokens.

        Raises:
            InputError: numbers that are not finite.
        """
        self._run.threshold = known.threshold
        if phase == "fit":
            dropped: dict[str, int] = {}
            rows = [rows_nD.clone() for rows_nD in self._fit.rows(start, stop, dropped, bar)]
            return FitPart(torch.cat(rows) if rows else torch.empty(0, self._run.sae.d_in), dropped)
        if phase == "active":
            active, count, dropped = 0, 0, {}
            for rows_nD in self._scored.rows(start, stop, dropped, bar):
                active += int((encoded(self._run.sae, rows_nD) != 0).sum())
                count += len(rows_nD)
            return ActivePart(active, count, dropped)
        evaluation = self._evaluation(known)
        if phase == "rows":
            return evaluation.row_part(start, stop, bar)
        return evaluation.behaviour_part(start, stop, known.joined_rows.sums[MEASURED].mean(), bar)

    def result(self, known: Known) -> CoreSuite:
        """The figures, after the last phase.

        Raises:
            EmptyCorpusError: the mask leaves no position to score.
        """
        found = self._evaluation(known).finished(known.joined_rows, known.behaviour)
        return CoreSuite(sae=found.pop(MEASURED), baselines=found)

    def alone(self) -> CoreSuite:
        """All of it, in this process."""
        known = self.begin()
        for phase, size in self.sizes.items():
            with self._run.progress.task(size.title, size.tokens, "tokens") as bar:
                parts = [self.part(phase, *part, known, bar) for part in size.parts]
            known = known.after(phase, parts, size)
        return self.result(known)

    @property
    def _tokens(self) -> TokenSet:
        if self._run.tokens is None:
            raise ConfigError("tokens= is needed.")
        return self._run.tokens

    @cached_property
    def _fit(self) -> RowCapture:
        return self._run.fit_capture

    @cached_property
    def _scored(self) -> RowCapture:
        return self._run.capture(self._tokens, self._run.settings.max_tokens)

    def _evaluation(self, known: Known) -> Evaluation:
        """The SAE with its baselines beside it; made once, as long as these are for the same rows."""
        rows_ND, l0 = known.fitted
        if self._made is not None and self._made[1] == l0 and torch.equal(self._made[0], rows_ND):
            return self._made[2]
        run, settings = self._run, self._run.settings
        run.take(rows_ND, known.threshold)
        model, hook = run.with_model()
        size = EvaluationSize(
            settings.max_tokens, settings.max_ce_tokens, settings.batch_tokens, _ABLATIONS, settings.bootstrap, settings.seed
        )  # fmt: skip
        made = beside(
            run.sae, run.baselines(l0), self._tokens, model, hook, run.mask, known.threshold, size, run.progress
        )
        self._made = (rows_ND, l0, made)
        return made


def _size(phase: Phase, chosen: SpreadContexts, parts: list[tuple[int, int]], forwards: int) -> PhaseSize:
    tokens = forwards * chosen.num_contexts * chosen.context_length
    return PhaseSize(_TITLES[phase], chosen.num_contexts, chosen.context_length, parts, tokens)
