"""Do the defaults follow from evidence? One setting at a time away from them, on SmolLM2's activations and on a known truth.

    python benchmarks/defaults.py                        # goes on where it stopped
    python benchmarks/defaults.py --cells-budget 30      # begins nothing after half an hour
    python benchmarks/defaults.py --dry-run              # what is left
    python benchmarks/defaults.py --render               # the tables from what there is

Every run is kept in a work folder by a digest of its inputs. Writes ``benchmarks/results/defaults-<date>.json`` and ``.md``. Runs are short
(hundreds of steps): they decide what short runs should do, and no more. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from defaults_cells import FIELDS, SETTINGS, Field, Trial, training_fields, trials
from defaults_report import markdown
from neuronmap import SAEConfig, SAETrainer
from neuronmap.activations import ArrayRows
from neuronmap.evaluation.synthetic import SyntheticModel, SyntheticRows, measure_against_truth, synthetic_preset
from neuronmap.evaluation.synthetic.sweep import keep_model
from neuronmap.hashing import digest_json, short
from neuronmap.paths import cache_folder, read_json, write_json
from neuronmap.progress import LineProgress, SilentProgress
from quality_cells import OURS
from quality_data import Rows, prepare_rows
from quality_measure import measure
from quality_queue import code_digest
from quality_report import duration
from speed_machine import commit, machine
from turns import end_with, say

HERE = Path(__file__).resolve().parent
PRESET = "synthsae-2k"
LAYER = 15


class Sweep:
    """Runs trials, or reads those that were run before.

    Args:
        given: the command's options.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.code = code_digest(OURS)

    @cached_property
    def rows(self) -> Rows:
        return prepare_rows(self.given.rows_work, LAYER, self.given.rows, self.given.heldout_rows, LineProgress(), say)

    @cached_property
    def model(self) -> SyntheticModel:
        return keep_model(synthetic_preset(PRESET), self.given.work, self.given.device)

    def visits(self, field: Field) -> int:
        return int(self.given.synthetic_rows if self.on_truth(field) else self.given.visits)

    @staticmethod
    def on_truth(field: Field) -> bool:
        return field.name.startswith("synthsae")

    def told(self, trial: Trial) -> dict[str, Any]:
        """What decides a trial's figures, but for code and device."""
        given = self.given
        size = (
            {"measure_rows": given.measure_rows}
            if self.on_truth(trial.field)
            else {"rows": given.rows, "held": given.heldout_rows}
        )
        return {**trial.key(), "visits": self.visits(trial.field), **size}

    def file(self, trial: Trial) -> Path:
        told = {**self.told(trial), "code": self.code, "device": self.given.device}
        return Path(self.given.work) / "trials" / f"{trial.architecture}-s{trial.seed}-{short(digest_json(told))}.json"

    def kept(self, trial: Trial) -> dict[str, Any] | None:
        """A finished trial."""
        file = self.file(trial)
        return read_json(file) if file.is_file() else None

    def run(self, trial: Trial) -> dict[str, Any]:
        """Train, measure and keep."""
        file = self.file(trial)
        scratch = Path(self.given.work) / "scratch" / file.stem
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        started = time.perf_counter()
        figures = (self._on_truth if self.on_truth(trial.field) else self._on_rows)(trial, scratch)
        found = {**self.told(trial), "figures": figures, "seconds": round(time.perf_counter() - started, 1)}
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, found)
        shutil.rmtree(scratch)
        return found

    def _config(self, trial: Trial) -> SAEConfig:
        fields = training_fields(trial, self.visits(trial.field))
        return SAEConfig(**fields, device=self.given.device, compute_dtype="float32")

    def _on_rows(self, trial: Trial, scratch: Path) -> dict[str, Any]:
        config = self._config(trial).updated(num_epochs=self.given.visits / len(self.rows.train) + 1)
        trainer = SAETrainer(config, progress=SilentProgress(), run_folder=scratch / "run")
        trained = trainer.train(ArrayRows(self.rows.train), heldout=ArrayRows(self.rows.calibration))
        with torch.inference_mode():
            return measure(trained.sae, torch.from_numpy(self.rows.heldout))

    def _on_truth(self, trial: Trial, scratch: Path) -> dict[str, Any]:
        rows = SyntheticRows(self.model, self.given.synthetic_rows, f"train {trial.seed}")
        heldout = SyntheticRows(self.model, self.given.measure_rows, "heldout")
        trainer = SAETrainer(self._config(trial), progress=SilentProgress(), run_folder=scratch / "run")
        trained = trainer.train(rows, heldout=heldout)
        found = measure_against_truth(
            trained.sae, self.model, rows=self.given.measure_rows, bootstrap=0, progress=SilentProgress()
        )
        return found.summary()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="list the trials that are left")
    parser.add_argument("--render", action="store_true", help="train nothing: write the tables from what there is")
    parser.add_argument("--cells-budget", type=float, metavar="MINUTES", help="begin no trial after so many minutes")
    parser.add_argument(
        "--settings", nargs="+", metavar="NAME", default=[], help=f"of {[one.name for one in SETTINGS]}"
    )
    parser.add_argument("--seeds", type=int, default=2, help="training seeds [2]")
    parser.add_argument("--device", default="cpu", help="where SAEs are trained [cpu]")
    parser.add_argument("--visits", type=int, default=131_072, help="rows seen in training on SmolLM2 [131072]")
    parser.add_argument("--rows", type=int, default=131_072, help="different rows of SmolLM2 [131072]")
    parser.add_argument("--heldout-rows", type=int, default=8192, help="rows to measure on [8192]")
    parser.add_argument("--synthetic-rows", type=int, default=500_000, help="synthetic rows to train on [500000]")
    parser.add_argument("--measure-rows", type=int, default=16_384, help="synthetic rows to measure on [16384]")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads [all]")
    parser.add_argument("--work", type=Path, default=None, help="folder for finished trials")
    parser.add_argument("--rows-work", type=Path, default=None, help="folder for the rows [that of quality.py]")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for the tables")
    given = parser.parse_args()
    given.work = given.work or cache_folder("benchmarks") / "defaults"
    given.rows_work = given.rows_work or cache_folder("benchmarks") / "quality"
    unknown = set(given.settings) - {one.name for one in SETTINGS}
    if unknown:
        parser.error(f"--settings {sorted(unknown)}: there are {', '.join(one.name for one in SETTINGS)}")
    return given


def record_of(given: argparse.Namespace, done: list[dict[str, Any]]) -> dict[str, Any]:
    """The finished trials, and what was asked."""
    facts = {**machine(given.threads), "device": given.device, "commit": commit()}
    facts.pop("load_at_start")
    asked = ("seeds", "visits", "rows", "heldout_rows", "synthetic_rows", "measure_rows")
    return {
        "benchmark": "defaults",
        "date": datetime.date.today().isoformat(),
        "asked": {name: getattr(given, name) for name in asked},
        "machine": facts,
        "defaults": {one.name: one.default for one in SETTINGS},
        "trials": done,
    }


def main() -> int:
    given = arguments()
    torch.set_num_threads(given.threads)
    sweep = Sweep(given)
    chosen = [one for one in SETTINGS if not given.settings or one.name in given.settings]
    asked = list(trials(FIELDS, range(given.seeds), chosen))
    started = time.monotonic()
    for trial in asked:
        if given.render or sweep.kept(trial) is not None:
            continue
        if given.dry_run:
            print(trial.label)
            continue
        if given.cells_budget is not None and time.monotonic() - started >= 60 * given.cells_budget:
            say(f"{given.cells_budget:g} minutes are over: stopped before {trial.label}; the same command goes on here")
            break
        found = sweep.run(trial)
        say(f"{trial.label}: {found['figures'][trial.field.figure]:.4f}, {found['seconds']:.0f} s")
    if given.dry_run:
        return 0
    done = [found for trial in trials(FIELDS, range(given.seeds)) if (found := sweep.kept(trial)) is not None]
    if not done and given.render:
        raise SystemExit(
            "No trial was run with these settings, so there is nothing to write. Without --render they are run."
        )
    if not done:
        say("no trial is done yet: nothing written")
        return 0
    record = record_of(given, done)
    given.results.mkdir(parents=True, exist_ok=True)
    path = given.results / f"defaults-{record['date']}"
    write_json(path.with_suffix(".json"), record)
    path.with_suffix(".md").write_text(markdown(record), encoding="utf-8")
    say(f"{len(done)} trials in {duration(time.monotonic() - started)}; written: {path}.json and .md")
    return 0


if __name__ == "__main__":
    end_with(main, "Stopped. Finished trials are kept; the same command goes on after them.")
