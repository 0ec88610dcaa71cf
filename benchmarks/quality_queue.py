"""The queue of the quality sheet: cells in order, each from runs that are kept by a digest of all their inputs.

    <work>/runs/<library>-<architecture>-<variant>-F<width>-<k or knob>-s<seed>-<digest>.json

A run is trained once and measured in full (reconstruction, loss recovered, probes). A cell of an architecture with a k is one run; without
a k its figures at the common L0 lie between runs at different sparsities, which serve every L0 of that method.
"""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import neuronmap
from neuronmap.hashing import digest_json, digest_parts, short
from neuronmap.paths import read_json, write_json
from quality_cells import OURS, PILOT_L0, PILOT_SEED, Budget, Cell, base_variant, knob, of_cell, settings, variants
from quality_data import Rows
from quality_measure import AtCommonL0, at_common_l0, next_knob
from quality_train import Run, TrainingFailedError

HERE = Path(__file__).resolve().parent
MOST_RUNS = 3
"""New runs at different sparsities to bracket one L0."""
FIGURES = (
    "explained_variance",
    "explained_variance_median",
    "fraction_alive",
    "ce_recovered_mean",
    "ce_recovered_zero",
    "kl",
    "auc_1",
    "auc_5",
)
"""What the sheet may show of a cell, besides ``l0``."""
NEAR = 1.25
"""How far, as a factor, the nearest run may be from the wanted L0 to be shown for it at all (with a star)."""
_ROOMS = ("saes", "training", "activations")
_MEASURING = (
    "evaluation/splice.py",
    "evaluation/figures.py",
    "evaluation/suites/sparse_probe.py",
    "evaluation/suites/logistic.py",
)


def code_digest(library: str) -> str:
    """Of the code that trains and measures: a finished run is not reused after a change (the peers' packages are pinned)."""
    source = Path(neuronmap.__file__).parent
    files = [source / name for name in _MEASURING]
    files += [HERE / name for name in ("quality_data.py", "quality_measure.py", "quality_model.py", "quality_train.py")]
    if library == OURS:
        files += [file for room in _ROOMS for kind in ("*.py", "*.c", "*.h") for file in (source / room).rglob(kind)]
    else:
        files.append(HERE / "peers" / f"train_{library}.py")
    return digest_parts(file.read_bytes() for file in sorted(set(files)))


def figures_of(run: dict[str, Any]) -> dict[str, Any]:
    """The figures of a run that a cell may show, with its L0, and ``auc_5/<data set>`` for the parts of a mean AUC."""
    figures = run["figures"]
    parts = {f"auc_{k}/{name}": auc for name, scores in figures.get("probes", {}).items() for k, auc in scores.items()}
    return {"l0": figures["l0"], **{name: figures.get(name) for name in FIGURES}, **parts}


def runs_of(cell: Cell, runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs that a cell may rest on: that of its k, or all sparsities of its method."""
    wanted = {name: getattr(cell, name) for name in ("library", "architecture", "variant", "features", "seed")}
    found = [one for one in runs if all(one["run"][name] == value for name, value in wanted.items())]
    return [one for one in found if not cell.has_k or one["run"]["k"] == cell.l0]


def settled(cell: Cell, runs: Iterable[dict[str, Any]]) -> AtCommonL0 | None:
    """A cell's figures, or None if it has no run near it. Of an architecture with a k they are its run's, at the L0 that this has."""
    found = [figures_of(run) for run in runs_of(cell, runs)]
    if not cell.has_k or not found:
        at = at_common_l0(found, cell.l0)
        far = at is not None and at.how == "nearest" and not 1 / NEAR <= at.l0[0] / cell.l0 <= NEAR
        return None if far else at
    last = found[-1]
    if not last["l0"] or last["explained_variance"] is None:
        return None
    return AtCommonL0({name: value for name, value in last.items() if name != "l0"}, "measured", (last["l0"],))


def best_variant(library: str, architecture: str, features: int, runs: Sequence[dict[str, Any]]) -> str:
    """The settings with the highest explained variance in the pilots that are finished."""
    found = {}
    for variant in variants(library, architecture):
        at = settled(Cell(library, architecture, variant, features, PILOT_L0, PILOT_SEED), runs)
        if at is not None and at.how != "nearest":
            found[variant] = at.explained_variance
    return max(found, key=lambda name: found[name]) if found else base_variant(library)


@dataclass(frozen=True)
class Job:
    """What makes runs.

    Attributes:
        budget: of every run; width and k are the cell's.
        rows: what is trained on.
        protocol: how SAEs are measured with the language model, as plain JSON types.
        machine: name of this machine in the record.
        execute: trains and measures a run at a budget, in an empty folder.
    """

    budget: Budget
    rows: Rows
    protocol: dict[str, Any]
    machine: str
    execute: Callable[[Run, Budget, Path], dict[str, Any]]


class Queue:
    """Runs kept in a folder, and what is to be run next.

    Args:
        job: what makes runs.
        folder: where they are kept.
        say: where progress goes.
    """

    def __init__(self, job: Job, folder: Path, say: Callable[[str], None]) -> None:
        self.job, self.folder, self._say = job, folder, say
        self.failed: dict[Run, str] = {}
        self._code: dict[str, str] = {}
        self.runs = [run for run in map(read_json, sorted((folder / "runs").glob("*.json"))) if self._is_ours(run)]

    def _is_ours(self, run: dict[str, Any]) -> bool:
        """Whether a kept run has the inputs of today."""
        return bool(run["digest"] == self._told(Run(**run["run"]))[1])

    def _told(self, run: Run) -> tuple[dict[str, Any], str]:
        """Everything that decides a run's figures, and its digest."""
        if run.library not in self._code:
            self._code[run.library] = code_digest(run.library)
        budget = self.job.budget
        told = {
            "run": asdict(run),
            "steps": budget.steps,
            "batch_rows": budget.batch_rows,
            "rows": self.job.rows.key,
            "protocol": self.job.protocol,
            "settings": settings(run.library, run.architecture, run.variant, self._budget(run)),
        }
        inputs = {**told, "code": self._code[run.library], "bits": self.job.rows.digest, "device": budget.device}
        return {**told, "key": digest_json(told)}, digest_json(inputs)

    def _budget(self, run: Run) -> Budget:
        cell = Cell(run.library, run.architecture, run.variant, run.features, run.k or PILOT_L0, run.seed)
        return of_cell(self.job.budget, cell)

    def best(self, library: str, architecture: str, features: int) -> str:
        """As :func:`best_variant`, of the runs so far."""
        return best_variant(library, architecture, features, self.runs)

    def next_run(self, cell: Cell) -> Run | None:
        """The run that a cell needs next; None when it is settled, or has had its tries."""
        mine = runs_of(cell, self.runs)
        chosen = knob(cell.library, cell.architecture, cell.l0)
        fields = (cell.library, cell.architecture, cell.variant, cell.features, cell.seed)
        if chosen is None:
            run = Run(*fields, k=cell.l0, knob=None)
            return None if mine or run in self.failed else run
        if sum(run["for_l0"] == cell.l0 for run in mine) >= MOST_RUNS:
            return None
        tried = [(run["run"]["knob"], run["figures"]["l0"] or 0.0) for run in mine]
        value = next_knob(tried, cell.l0, chosen.rising, self._start(cell, chosen.start))
        if value is None:
            return None
        run = Run(*fields, k=None, knob=float(f"{value:.4g}"))
        return None if run in self.failed else run

    def _start(self, cell: Cell, otherwise: float) -> float:
        """Where a search begins: the knob that gave another seed, or other settings, an L0 near the wanted one."""
        wanted = {name: getattr(cell, name) for name in ("library", "architecture", "features")}
        others = [run for run in self.runs if all(run["run"][name] == value for name, value in wanted.items())]
        others = [run for run in others if run["figures"]["l0"]]
        if not others:
            return otherwise
        nearest = min(others, key=lambda run: abs(run["figures"]["l0"] / cell.l0 - 1))
        near = 0.8 < nearest["figures"]["l0"] / cell.l0 < 1.25
        return float(nearest["run"]["knob"]) if near else otherwise

    def step(self, cell: Cell) -> bool:
        """Make the run that a cell needs next; False if there is none, or it failed (it is tried again by the next command)."""
        run = self.next_run(cell)
        if run is None:
            return False
        told, digest = self._told(run)
        sparsity = f"k{run.k}" if run.k is not None else f"at{run.knob:g}"
        name = f"{run.library}-{run.architecture}-{run.variant}-F{run.features}-{sparsity}-s{run.seed}-{short(digest)}"
        scratch = self.folder / "scratch" / name
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        self._say(f"{run.label} (for L0 {cell.l0})")
        started = time.perf_counter()
        try:
            found = self.job.execute(run, self._budget(run), scratch)
        except TrainingFailedError as error:
            self.failed[run] = str(error)
            self._say(str(error))
            return False
        kept = {
            **told,
            "digest": digest,
            "for_l0": cell.l0,
            "machine": self.job.machine,
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - started, 1),
            **found,
        }
        (self.folder / "runs").mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "runs" / f"{name}.json", kept)
        shutil.rmtree(scratch)
        self.runs.append(kept)
        shown = {name: kept["figures"].get(name) for name in ("explained_variance", "ce_recovered_mean", "auc_5")}
        words = ", ".join(f"{name} {'-' if value is None else f'{value:.4f}'}" for name, value in shown.items())
        self._say(f"  L0 {kept['figures']['l0']:.1f}, {words}; {kept['seconds']:.0f} s")
        return True

    def work(self, cells: Iterable[Cell], minutes: float | None) -> int:
        """Run cells in order; after ``minutes`` nothing new begins.

        Returns:
            Runs made.
        """
        started, made = time.monotonic(), 0
        for cell in cells:
            while self.next_run(cell) is not None:
                if minutes is not None and time.monotonic() - started >= 60 * minutes:
                    self._say(
                        f"{minutes:g} minutes are over: stopped before {cell.label}; the same command goes on here"
                    )
                    return made
                made += self.step(cell)
        return made

    def estimate(self, cell: Cell) -> float | None:
        """Seconds that a cell would take here, by runs like it: of the same method and width, else of the library, scaled by width."""
        if self.next_run(cell) is None:
            return 0.0
        runs = [
            run for run in self.runs if run["machine"] == self.job.machine and run["run"]["library"] == cell.library
        ]
        same = [run for run in runs if run["run"]["architecture"] == cell.architecture]
        near = [run for run in same or runs if run["run"]["features"] == cell.features] or same or runs
        if not near:
            return None
        each = median(run["seconds"] * cell.features / run["run"]["features"] for run in near)
        return each * (1 if cell.has_k else 2)
