"""Quality against the peers: explained variance at equal L0 on the same cached activations.

    python benchmarks/quality.py --peers-python .venv-peers/bin/python

trains topk, batchtopk, jumprelu and relu SAEs with NeuronMap, SAELens and dictionary_learning on the residual stream
of SmolLM2-135M (block 15) over State of the Union speeches, measures all of them with NeuronMap's meter on the same
held-out rows, and writes ``benchmarks/results/quality-<date>.json`` and ``.md``. Every run is kept in a work folder,
so the command can be stopped at any time and repeated. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import os
import platform
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import neuronmap
from neuronmap.hashing import digest_json, digest_parts, short
from neuronmap.paths import cache_folder, read_json, write_json
from neuronmap.progress import LineProgress
from quality_cells import ARCHITECTURES, LIBRARIES, PEER_VARIANTS, Budget, knob, our_config, settings, variants
from quality_data import Rows, prepare_rows, write_order
from quality_measure import AtCommonL0, PeerSAE, at_common_l0, measure, next_knob
from quality_report import markdown
from turns import end_with, say

HERE = Path(__file__).resolve().parent
MOST_RUNS = 5
"""Runs at different sparsities to bracket the common L0."""


@dataclass(frozen=True)
class Cell:
    """One training run."""

    library: str
    architecture: str
    variant: str
    seed: int
    knob: float | None

    @property
    def label(self) -> str:
        value = "" if self.knob is None else f" at {self.knob:.4g}"
        return f"{self.library}/{self.architecture} {self.variant} seed {self.seed}{value}"


def code_digest(library: str) -> str:
    """Of the code that trains: a finished run is not reused after a change (the peers' packages are pinned)."""
    if library == "neuronmap":
        source = Path(neuronmap.__file__).parent
        files = [
            *(source / "saes").rglob("*.py"),
            *(source / "training").glob("*.py"),
            *source.glob("activations/*.py"),
        ]
    else:
        files = [HERE / "peers" / f"train_{library}.py"]
    return digest_parts(file.read_bytes() for file in sorted(files))


class Benchmark:
    """Runs cells, or reads those that were run before."""

    def __init__(
        self, budget: Budget, rows: Rows, folder: Path, peers_python: str | None, tried: tuple[str, ...] = PEER_VARIANTS
    ) -> None:
        self.tried = tried
        self.budget, self.rows, self.folder, self.peers_python = budget, rows, folder, peers_python
        self.progress = LineProgress(interval_s=30)
        self.code = {library: code_digest(library) for library in LIBRARIES}

    def run(self, cell: Cell) -> dict[str, Any]:
        """The result of a cell, from the work folder if it is there."""
        chosen = settings(cell.library, cell.architecture, cell.variant, self.budget)
        told: dict[str, Any] = {
            "cell": asdict(cell),
            "budget": asdict(self.budget),
            "rows": self.rows.digest,
            "settings": chosen,
            "code": self.code[cell.library],
        }
        name = f"{cell.library}-{cell.architecture}-{cell.variant}-s{cell.seed}-{short(digest_json(told))}"
        kept = self.folder / "cells" / f"{name}.json"
        if kept.is_file():
            found: dict[str, Any] = read_json(kept)
            return found
        scratch = self.folder / "scratch" / name
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        say(f"training {cell.label}")
        result = self._ours(cell, scratch) if cell.library == "neuronmap" else self._peer(cell, chosen, scratch)
        result = {**told, **result}
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, result)
        shutil.rmtree(scratch)
        figures = result["recalibrated"] or result["saved"]
        say(
            f"  {cell.label}: EV {_shown(figures['explained_variance'])} at L0 {figures['l0']:.1f}, "
            f"{result['seconds']:.0f} s ({self.budget.visits / result['seconds']:,.0f} rows/s)"
        )
        return result

    def _ours(self, cell: Cell, scratch: Path) -> dict[str, Any]:
        from neuronmap import SAEConfig, SAETrainer
        from neuronmap.activations import ArrayRows

        config = SAEConfig(
            **our_config(cell.architecture, self.budget, cell.knob, cell.seed, len(self.rows.train)),
        )
        trainer = SAETrainer(config, progress=self.progress, run_folder=scratch / "run")
        started = time.perf_counter()
        trained = trainer.train(ArrayRows(self.rows.train), heldout=ArrayRows(self.rows.calibration))
        seconds = time.perf_counter() - started
        return {
            "config": config.to_dict(),
            "seconds": seconds,
            "saved": measure(trained.sae, torch.from_numpy(self.rows.heldout)),
            "recalibrated": None,
            "versions": {"neuronmap": version("neuronmap"), "torch": torch.__version__},
        }

    def _peer(self, cell: Cell, chosen: dict[str, Any], scratch: Path) -> dict[str, Any]:
        order = write_order(self.folder, self.rows, self.budget.steps, self.budget.batch_rows, cell.seed)
        job = {
            **asdict(self.budget),
            "rows": str(self.rows.path("train")),
            "heldout": str(self.rows.path("heldout")),
            "order": str(order),
            "output": str(scratch),
            "architecture": cell.architecture,
            "seed": cell.seed,
            "knob": cell.knob,
            "settings": chosen,
            "check_rows": min(256, len(self.rows.heldout)),
            "root_mean_square_norm": self.rows.root_mean_square_norm,
        }
        write_json(scratch / "job.json", job)
        script = HERE / "peers" / f"train_{cell.library}.py"
        command = [str(self.peers_python), str(script), str(scratch / "job.json")]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            raise SystemExit(f"{cell.label} failed:\n{finished.stderr[-4000:]}")
        heldout = torch.from_numpy(self.rows.heldout)
        with torch.inference_mode():
            sae = PeerSAE.load(scratch)
            difference = sae.check(scratch, heldout)
            recalibrated = None
            if cell.architecture == "batchtopk":
                recalibrated = measure(sae.recalibrated(torch.from_numpy(self.rows.calibration)), heldout)
            saved = measure(sae, heldout)
        result = read_json(scratch / "result.json")
        return {
            "seconds": result["seconds"],
            "saved": saved,
            "recalibrated": recalibrated,
            "reconstruction_check": difference,
            "versions": result["versions"],
        }

    def at_target(
        self, library: str, architecture: str, variant: str, seed: int, start: float | None
    ) -> tuple[AtCommonL0, list[dict[str, Any]]]:
        """Figures at L0 = k, and the runs they rest on: one for architectures with a k, a search otherwise."""
        chosen = knob(library, architecture, self.budget.k)
        if chosen is None:
            runs = [self.run(Cell(library, architecture, variant, seed, None))]
        else:
            runs = []
            while len(runs) < MOST_RUNS:
                tried = [(run["cell"]["knob"], run["saved"]["l0"]) for run in runs]
                value = next_knob(tried, self.budget.k, chosen.rising, start or chosen.start)
                if value is None:
                    break
                runs.append(self.run(Cell(library, architecture, variant, seed, float(f"{value:.4g}"))))
        figures = [run["recalibrated"] or run["saved"] for run in runs]
        return at_common_l0(figures, self.budget.k), runs

    def method(self, library: str, architecture: str, seeds: range) -> dict[str, Any]:
        """One library's architecture over all seeds: settings are chosen on the first seed."""
        pilots = {
            name: self.at_target(library, architecture, name, seeds[0], None) for name in variants(library, self.tried)
        }
        best = max(pilots, key=lambda name: pilots[name][0].explained_variance)
        found = {seeds[0]: pilots[best]}
        start = _knob_at(pilots[best][1], self.budget.k)
        for seed in seeds[1:]:
            found[seed] = self.at_target(library, architecture, best, seed, start)
        return {
            "library": library,
            "architecture": architecture,
            "variant": best,
            "pilots": {name: asdict(at) for name, (at, _) in pilots.items()},
            "seeds": {
                str(seed): {"at_common_l0": asdict(at), "runs": [_kept(run) for run in runs]}
                for seed, (at, runs) in found.items()
            },
        }


def _knob_at(runs: list[dict[str, Any]], k: int) -> float | None:
    """The knob of the run nearest to the target."""
    nearest = min(runs, key=lambda run: abs(np.log(max(run["saved"]["l0"], 1e-2) / k)))
    value: float | None = nearest["cell"]["knob"]
    return value


def _kept(run: dict[str, Any]) -> dict[str, Any]:
    """What the results file keeps of a run (the common budget stands there once)."""
    return {name: value for name, value in run.items() if name not in ("budget", "rows")}


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a few minutes: 256 features, 16k visits, 1 seed; proves nothing"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="LIBRARY/ARCHITECTURE with * and ?, such as 'neuronmap/*'; may be repeated",
    )
    parser.add_argument(
        "--peers-python",
        default=os.environ.get("NEURONMAP_PEERS_PYTHON"),
        help="python with sae-lens and dictionary-learning [NEURONMAP_PEERS_PYTHON]",
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=PEER_VARIANTS,
        default=list(PEER_VARIANTS),
        help="peers' settings to try [both]; 'matched' alone halves the time and is the better one in short runs",
    )
    parser.add_argument("--seeds", type=int, default=3, help="training seeds [3]")
    parser.add_argument("--layer", type=int, default=15, help="block whose output is used [15]")
    parser.add_argument("--features", type=int, default=2048, help="width of the SAEs [2048]")
    parser.add_argument("--k", type=int, default=32, help="L0 to compare at [32]")
    parser.add_argument("--rows", type=int, default=131_072, help="activations to train on [131072]")
    parser.add_argument(
        "--heldout-rows", type=int, default=8192, help="activations to measure on, and as many to calibrate on [8192]"
    )
    parser.add_argument(
        "--visits", type=int, default=400_000, help="activations seen in training, repeats counted [400000]"
    )
    parser.add_argument("--batch", type=int, default=1024, help="activations a step, a multiple of 128 [1024]")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads for every library [all]")
    parser.add_argument(
        "--work", type=Path, default=None, help="folder for rows and finished runs [<home>/cache/benchmarks]"
    )
    parser.add_argument(
        "--results", type=Path, default=HERE / "results", help="folder for the tables [benchmarks/results]"
    )
    given = parser.parse_args()
    if given.quick:
        given.seeds, given.features, given.k = 1, 256, 16
        given.rows, given.heldout_rows, given.visits, given.batch = 8192, 1024, 16_384, 256
    for name in ("seeds", "features", "k", "rows", "heldout_rows", "visits", "batch", "threads"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(given, name)}")
    if given.batch % 128:
        parser.error(f"--batch must be a multiple of 128, got {given.batch}")
    if given.visits // given.batch < 20:
        parser.error(f"--visits / --batch gives {given.visits // given.batch} steps; at least 20 are needed")
    if given.batch > given.rows:
        parser.error(f"--batch {given.batch} is more than --rows {given.rows}")
    if given.k >= given.features:
        parser.error(f"--k {given.k} must be below --features {given.features}")
    given.methods = [
        (library, architecture)
        for architecture in ARCHITECTURES
        for library in LIBRARIES
        if not given.only or any(fnmatch.fnmatch(f"{library}/{architecture}", pattern) for pattern in given.only)
    ]
    if not given.methods:
        known = ", ".join(f"{library}/{architecture}" for library in LIBRARIES for architecture in ARCHITECTURES)
        parser.error(f"--only {given.only} matches nothing; there are {known}")
    if any(library != "neuronmap" for library, _ in given.methods):
        if not given.peers_python:
            parser.error("--peers-python (or NEURONMAP_PEERS_PYTHON) is needed; without peers: --only 'neuronmap/*'")
        if shutil.which(given.peers_python) is None:
            parser.error(f"--peers-python {given.peers_python} is not a program")
    return given


def main() -> int:
    given = arguments()
    torch.set_num_threads(given.threads)
    folder = given.work or cache_folder("benchmarks") / "quality"
    rows = prepare_rows(folder, given.layer, given.rows, given.heldout_rows, LineProgress(), say)
    budget = Budget(
        d_in=rows.train.shape[1],
        d_sae=given.features,
        k=given.k,
        steps=given.visits // given.batch,
        batch_rows=given.batch,
        threads=given.threads,
    )
    say(
        f"{budget.steps} steps of {budget.batch_rows:,} rows a run; {len(given.methods)} methods, {given.seeds} seeds;"
        f" work in {folder}"
    )
    benchmark = Benchmark(budget, rows, folder, given.peers_python, tuple(given.variants))
    started = time.perf_counter()
    methods = [benchmark.method(library, architecture, range(given.seeds)) for library, architecture in given.methods]
    record = {
        "benchmark": "quality",
        "date": datetime.date.today().isoformat(),
        "quick": given.quick,
        "budget": asdict(budget),
        "data": rows.facts,
        "machine": {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()},
        "seconds": round(time.perf_counter() - started, 1),
        "methods": methods,
    }
    given.results.mkdir(parents=True, exist_ok=True)
    stem = f"quality-{'quick-' if given.quick else ''}{record['date']}"
    write_json(given.results / f"{stem}.json", record)
    table = markdown(record)
    (given.results / f"{stem}.md").write_text(table)
    print(table)
    say(f"written: {given.results / stem}.json and .md")
    return 0


if __name__ == "__main__":
    end_with(main, "Stopped. Finished runs are kept; the same command goes on after them.")
