"""Training speed against the peers: whole steps, in units of the encoder's forward product, on the same rows.

    python benchmarks/speed.py --quick --peers-python .venv-peers/bin/python        # make bench
    python benchmarks/speed.py --peers-python .venv-peers/bin/python                # make bench-full

Each library runs in a worker process of its own that keeps its trainers ready; the driver lets one of them at a time
take some steps, each between two pairs of reference products, and goes round, so that what is compared was measured in
the same minutes. Writes ``benchmarks/results/speed-<date>.json`` (every sample) and ``.md``. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neuronmap.paths import cache_folder, write_bytes
from neuronmap.progress import LineProgress
from speed_cells import OURS, Cell, Effort, effort, growth, memory, table, tokens
from speed_machine import commit, machine
from speed_processes import Crew
from speed_report import figures, markdown, title
from speed_rows import prepare_rows, rows_of_width
from speed_session import forced
from turns import Rows, Turns, add_options, check_options, end_with, say

HERE = Path(__file__).resolve().parent
SECTIONS = ("table", "growth", "tokens", "memory")
MEMORY_STEPS = 3
MOST_TOGETHER = 16_384
"""Features up to which all trainers of a group are kept ready at once: at 65,536 a trainer at rest holds over 2 GiB, and a step
of SAELens takes more than 10."""


class Speed(Turns):
    """One run of the benchmark.

    Args:
        crew: the workers.
        rows: folder of the rows.
        quick: less of everything.
    """

    def __init__(self, crew: Crew, rows: Path, quick: bool) -> None:
        super().__init__(crew)
        self.rows, self.quick = rows, quick

    def rows_of(self, cell: dict[str, Any]) -> Rows:
        return Rows(cell["library"], rows_of_width(self.rows, cell["width"]))

    def group(self, cells: list[Cell], parts: bool) -> list[dict[str, Any]]:
        """Measure cells in turn, all of them in each round; very wide ones two at a time, the first with each other one.

        Returns:
            For each its samples (none if it could not be measured, with a note that says why), in the order given.
        """
        first, *others = [cell for cell in cells if self.crew.has(cell.library)]
        if first.features <= MOST_TOGETHER or not others:
            return self._together([first, *others], parts)
        entries: list[dict[str, Any]] = []
        for other in others:
            pair = self._together([first, other], parts and not entries)
            if entries:
                entries[0]["samples"] += pair[0]["samples"]
                entries.append(pair[1])
            else:
                entries = pair
            if other.library != OURS:
                self.crew.forget(other.library)  # its process holds memory that the next one needs
        return entries

    def _together(self, cells: list[Cell], parts: bool) -> list[dict[str, Any]]:
        entries = [self.built(cell, cell.order()) for cell in cells]
        how = effort(cells[0].features, self.quick)
        for entry in entries:
            self._warm_up(entry, how)
        for _ in range(how.rounds):
            for entry in entries:
                if not entry["note"]:
                    entry["samples"] += self.ask(entry, "run", steps=entry["steps_a_turn"]).get("samples", [])
        for entry in entries:
            if entry["note"]:
                continue
            entry["described"] = self.ask(entry, "describe")
            if parts and entry["label"] == f"{OURS} auto":
                entry["parts"] = self.ask(entry, "parts", steps=3).get("parts")
        for entry in entries:
            self.drop(entry)
            entry.pop("steps_a_turn", None)
        return entries

    def _warm_up(self, entry: dict[str, Any], how: Effort) -> None:
        """Steps that are not counted; they tell how many fit a turn."""
        if entry["note"]:
            return
        ours = entry["cell"]["library"] == OURS
        samples = self.ask(entry, "run", steps=how.warm_up if ours else how.peer_warm_up).get("samples")
        if samples:
            entry["warm_up_step_s"] = [sample["step"] for sample in samples]
            entry["steps_a_turn"] = max(1, min(how.steps, int(how.seconds / entry["warm_up_step_s"][-1])))

    def tokens(self) -> list[dict[str, Any]]:
        """Whole time of runs of different lengths, batches and bookkeeping included."""
        cell, lengths = tokens(self.quick)
        found = []
        for steps in lengths:
            entry = self.built(cell, cell.order())
            self.ask(entry, "run", steps=5)
            samples = self.ask(entry, "run", steps=steps).get("samples", [])
            if samples:
                seconds = sum(sample["step"] for sample in samples)
                found.append({"tokens": steps * cell.batch, "seconds": seconds, "samples": samples})
            self.drop(entry)
        return found

    def peak(self, cell: Cell) -> dict[str, Any]:
        """Peak memory of a cell in a process of its own."""
        return self.peak_of(cell, cell.order(), MEMORY_STEPS, most=3 * cell.batch)


def run(speed: Speed, sections: list[str], only: list[str], record: dict[str, Any]) -> None:
    """Fill the record, section by section, so that a stopped run keeps what it has."""
    paths = forced()
    if "table" in sections:
        groups = [cells for cells in table(speed.quick, paths) if _wanted(cells[0], only)]
        for number, cells in enumerate(groups, 1):
            entries = speed.group(cells, parts=cells[0].width == 576 and cells[0].k in (0, 32))
            record["groups"].append({"cells": entries})
            say(f"{number}/{len(groups)} {title(entries[0]['cell'])}: " + _line(entries))
    if "growth" in sections:
        for name, cells in growth(speed.quick).items():
            record["growth"][name] = [speed.group([cell], parts=False)[0] for cell in cells]
            say(f"growth in {name} measured")
    if "tokens" in sections:
        record["tokens"] = speed.tokens()
        say("growth in tokens measured")
    if "memory" in sections:
        for cell in memory(speed.quick, paths):
            if _wanted(cell, only) and speed.crew.has(cell.library):
                record["memory"].append(speed.peak(cell))
                say(f"memory: {title(asdict(cell))}, {cell.label}")


def _wanted(cell: Cell, only: list[str]) -> bool:
    name = "/".join(str(part) for part in cell.group[:-1])
    return not only or any(fnmatch.fnmatch(name, pattern) for pattern in only)


def _line(entries: list[dict[str, Any]]) -> str:
    shown = [f"{e['label']} {figures(e['samples']).ratio:.2f}" if e["samples"] else f"{e['label']} -" for e in entries]
    return "; ".join(shown)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="d = 576, F = 4096 and 16384, k = 32, short series")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="ARCHITECTURE/START/D/F/K with * and ?, such as 'topk/*/4096/32'; may be repeated",
    )
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="what to measure [all]")
    parser.add_argument("--rows", type=int, default=32_768, help="rows to train on [32768]")
    add_options(parser)
    given = parser.parse_args()
    check_options(parser, given)
    if given.rows < 8192:
        parser.error("--rows must be at least 8192 (the largest batch)")
    return given


def main() -> int:
    given = arguments()
    work = given.work or cache_folder("benchmarks") / "speed"
    rows = prepare_rows(work, given.rows, LineProgress(), say)
    record: dict[str, Any] = {
        "benchmark": "speed",
        "date": datetime.date.today().isoformat(),
        "quick": given.quick,
        "complete": False,
        "sections": given.sections,
        "commit": commit(),
        "machine": machine(given.threads),
        "rows": {"folder": rows.name, "count": given.rows},
        "versions": {},
        "groups": [],
        "growth": {},
        "tokens": [],
        "memory": [],
    }
    if given.peers_python is None:
        say("no --peers-python: the peers are left out")
    started = time.perf_counter()
    try:
        with Crew(given.peers_python, given.threads, work / "logs") as crew:
            run(Speed(crew, rows, given.quick), given.sections, given.only, record)
            record["complete"] = True
    finally:
        record["versions"] = dict(sorted(crew.versions.items()))
        record["seconds"] = round(time.perf_counter() - started, 1)
        if record["groups"] or record["memory"] or record["growth"] or record["tokens"]:
            _write(record, given.results)
    return 0


def compact(value: Any) -> Any:
    """The record as it is kept: five digits, and a sample as its five times (two products, the step, two products)."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        if value.keys() == {"before", "step", "after"}:
            return compact([*value["before"], value["step"], *value["after"]])
        return {name: compact(item) for name, item in value.items()}
    return [compact(item) for item in value] if isinstance(value, list | tuple) else value


def _write(record: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"speed-{'quick-' if record['quick'] else ''}{record['date']}"
    write_bytes(folder / f"{stem}.json", json.dumps(compact(record), separators=(",", ":")).encode())
    report = markdown(record)
    (folder / f"{stem}.md").write_text(report)
    print(report)
    say(f"written: {folder / stem}.json and .md ({record['seconds']:,.0f} s)")


if __name__ == "__main__":
    end_with(main, "Stopped; what was measured is in the report.")
