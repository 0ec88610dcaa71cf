"""One pass over all features against SAEDashboard: tokens per second, peak memory, bytes a feature, growth.

    python benchmarks/analysis.py --quick --peers-python .venv-peers/bin/python      # minutes; small, proves nothing
    python benchmarks/analysis.py --peers-python .venv-peers/bin/python              # make bench-analysis
    python benchmarks/analysis.py --sections million                                 # a dictionary of a million features

Both analyse the same cached activations with the same SAE, each in a process of its own, in turns: ours makes a whole pass, the
peer some of its feature batches, all between reference products. Writes ``benchmarks/results/analysis-<date>.json`` (every
sample), ``.md`` and ``.png``. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from analysis_cells import BATCH, FULL, OURS, PEER, QUICK, Cell, Sizes
from analysis_inputs import prepare_inputs, prepare_sae
from analysis_plot import draw
from analysis_report import agreement, markdown, one_line, title
from neuronmap.paths import cache_folder, write_bytes
from neuronmap.progress import LineProgress
from speed import compact
from speed_machine import commit, machine
from speed_processes import Crew
from turns import Rows, Turns, add_options, check_options, end_with, say

HERE = Path(__file__).resolve().parent
SECTIONS = ("table", "memory", "growth", "million")
DEFAULT_SECTIONS = ("table", "memory", "growth")


class Analysis(Turns):
    """One run of the benchmark.

    Args:
        crew: the workers.
        inputs: folder that :func:`analysis_inputs.prepare_inputs` made.
        sizes: how much is measured.
    """

    def __init__(self, crew: Crew, inputs: Path, sizes: Sizes) -> None:
        super().__init__(crew)
        self.inputs, self.sizes = inputs, sizes

    def rows_of(self, cell: dict[str, Any]) -> Rows:
        # ours needs only some rows of the grid, for the reference product
        return Rows(cell["tool"], self.inputs / "grid.npy", BATCH if cell["tool"] == OURS else None)

    def group(self, cells: list[Cell], rounds: int, parts: bool) -> list[dict[str, Any]]:
        """Measure cells in turn, all of them in each round.

        Returns:
            For each its samples (none if it could not be measured, with a note that says why), in the order given.
        """
        entries = [self.built(cell, self._order(cell), parts=None) for cell in cells if self.crew.has(cell.tool)]
        steps = {entry["id"]: self._steps(entry) for entry in entries}
        for entry in entries:
            # What pays for first allocations is not counted: a pass of ours; of the peer the batch that is taken apart.
            if entry["cell"]["tool"] == OURS:
                self.ask(entry, "run", steps=1)
            if parts:
                entry["parts"] = self.ask(entry, "parts", steps=1).get("parts")
        for _ in range(rounds):
            for entry in entries:
                entry["samples"] += self.ask(entry, "run", steps=steps[entry["id"]]).get("samples", [])
        self._compare(entries)
        for entry in entries:
            entry["described"] = self.ask(entry, "describe")
        for entry in entries:
            self.drop(entry)
        return entries

    def peak(self, cell: Cell) -> dict[str, Any]:
        """Peak memory of one pass (of a feature batch of the peer), and of writing the results, in a fresh process."""
        return self.peak_of(cell, self._order(cell), 1)

    def _order(self, cell: Cell) -> dict[str, Any]:
        return {**cell.order(), "inputs": str(self.inputs)}

    def _steps(self, entry: dict[str, Any]) -> int:
        return 1 if entry["cell"]["tool"] == OURS else dict(self.sizes.peer_steps)[entry["cell"]["variant"]]

    def _compare(self, entries: list[dict[str, Any]]) -> None:
        """Note for each peer how well its maxima agree with ours."""
        ours = next((entry for entry in entries if entry["cell"]["tool"] == OURS), None)
        for entry in entries:
            if entry is ours or ours is None or entry["note"]:
                continue
            seen = self.ask(entry, "maxima", features=[])
            same = self.ask(ours, "maxima", features=seen.get("features", []))
            if "maxima" in seen and "maxima" in same:
                entry["agreement"] = agreement(same["maxima"], seen["maxima"])


def run(analysis: Analysis, sections: list[str], record: dict[str, Any], keep: Callable[[], None]) -> None:
    """Fill the record, group by group, and keep it after each, so that a stopped or killed run has what it had."""
    sizes, progress = analysis.sizes, LineProgress(interval_s=30)
    comparison = sizes.comparison()
    for cell in sizes.cells() if set(sections) - {"million"} else []:
        prepare_sae(analysis.inputs, cell, sizes.training_steps, progress, say)
    if "table" in sections:
        for cells in comparison:
            entries = analysis.group(cells, sizes.rounds, parts=True)
            record["groups"].append({"cells": entries})
            say(f"{title(entries[0]['cell'])}: {one_line(entries)}")
            keep()
    if "growth" in sections:
        for name, groups in sizes.growth().items():
            record["growth"][name] = []
            for cells in groups:
                entries = analysis.group(cells, sizes.growth_passes, parts=False)
                record["growth"][name].append({"cells": entries})
                say(f"growth in {name}, {title(entries[0]['cell'])}: {one_line(entries)}")
                keep()
    for library in (OURS, PEER):
        analysis.crew.forget(library)  # a fresh process is to have the machine's memory for itself
    if "memory" in sections:
        wanted = [
            cell
            for cells in comparison
            for cell in cells
            if cell.architecture == sizes.architectures[0] and cell.variant in ("", "defaults")
        ]
        wanted += [cells[0] for cells in sizes.growth()["F"]]
        for cell in wanted:
            if analysis.crew.has(cell.tool):
                record["memory"].append(analysis.peak(cell))
                say(f"memory: {title(asdict(cell))}, {cell.label}")
                keep()
    if "million" in sections:
        record["million"] = analysis.peak(sizes.million())
        say("a million features: " + (record["million"]["note"] or "done"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="F = 4096, 32,768 tokens, short series")
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=SECTIONS,
        default=list(DEFAULT_SECTIONS),
        help=f"what to measure [{' '.join(DEFAULT_SECTIONS)}]",
    )
    parser.add_argument("--million", action="store_true", help="also a dictionary of a million features, on few tokens")
    parser.add_argument("--architectures", nargs="+", default=None, help="of the compared SAEs [topk batchtopk]")
    parser.add_argument("--rounds", type=int, default=None, help="turns of everybody in the comparison")
    add_options(parser)
    given = parser.parse_args()
    check_options(parser, given)
    if given.million and "million" not in given.sections:
        given.sections.append("million")
    return given


def sizes_of(given: argparse.Namespace) -> Sizes:
    """What was asked for on the command line."""
    sizes = QUICK if given.quick else FULL
    if given.architectures:
        sizes = replace(sizes, architectures=tuple(given.architectures))
    if given.rounds:
        sizes = replace(sizes, rounds=given.rounds)
    return sizes


def main() -> int:
    given = arguments()
    sizes = sizes_of(given)
    work = given.work or cache_folder("benchmarks") / "analysis"
    record: dict[str, Any] = {
        "benchmark": "analysis",
        "date": datetime.date.today().isoformat(),
        "quick": given.quick,
        "complete": False,
        "sections": given.sections,
        "commit": commit(),
        "machine": machine(given.threads),
        "sizes": asdict(sizes),
        "versions": {},
        "groups": [],
        "growth": {},
        "memory": [],
        "million": None,
    }
    inputs = prepare_inputs(work, sizes, LineProgress(interval_s=30), say)
    scratch = work / f"scratch-{os.getpid()}"
    scratch.mkdir(parents=True)
    os.environ["ANALYSIS_SCRATCH"] = str(scratch)
    if given.peers_python is None:
        say("no --peers-python: the peer is left out")
    started = time.perf_counter()
    try:
        with Crew(given.peers_python, given.threads, work / "logs", "analysis") as crew:
            run(Analysis(crew, inputs, sizes), given.sections, record, lambda: _keep(record, given.results))
            record["complete"] = True
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        record["versions"] = dict(sorted(crew.versions.items()))
        record["seconds"] = round(time.perf_counter() - started, 1)
        if record["groups"] or record["memory"] or record["growth"] or record["million"]:
            _write(record, given.results)
    return 0


def _keep(record: dict[str, Any], folder: Path) -> str:
    """Write the samples; returns the name of the report's files without their endings."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"analysis-{'quick-' if record['quick'] else ''}{record['date']}"
    write_bytes(folder / f"{stem}.json", json.dumps(compact(record), separators=(",", ":")).encode())
    return stem


def _write(record: dict[str, Any], folder: Path) -> None:
    stem = _keep(record, folder)
    plot = draw(record, folder / f"{stem}.png")
    report = markdown(record, plot.name if plot else None)
    (folder / f"{stem}.md").write_text(report)
    print(report)
    say(f"written: {folder / stem}.json and .md ({record['seconds']:,.0f} s)")


if __name__ == "__main__":
    end_with(main, "Stopped; what was measured is in the report.")
