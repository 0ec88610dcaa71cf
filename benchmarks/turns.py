"""What benchmarks with workers share on the driver's side: entries, questions that may fail, peaks, options, the end of a run.

An entry is one cell under measurement: the cell, its label, its samples, and a note that says why there are none.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from neuronmap.errors import NeuronMapError
from speed_processes import Crew, WorkerDiedError

HERE = Path(__file__).resolve().parent


def say(message: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


class Rows(NamedTuple):
    """Whose worker, on which rows, and how many of them it loads (None: all)."""

    library: str
    file: Path
    most: int | None = None


class Turns:
    """Cells in worker processes that take turns. Subclasses say where a cell is measured.

    Args:
        crew: the workers.
    """

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.serial = 0

    def rows_of(self, cell: dict[str, Any]) -> Rows:
        """Where a cell is measured."""
        raise NotImplementedError

    def built(self, cell: Any, order: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A new entry, built by its worker.

        Args:
            cell: the cell, a dataclass with a ``label``.
            order: the cell as the worker is told.
            more: further fields of the entry.
        """
        self.serial += 1
        entry: dict[str, Any] = {
            "cell": asdict(cell),
            "label": cell.label,
            "id": str(self.serial),
            "note": "",
            "samples": [],
            "described": {},
            **more,
        }
        self.ask(entry, "build", cell=order)
        return entry

    def ask(self, entry: dict[str, Any], do: str, **order: Any) -> dict[str, Any]:
        """Tell the entry's worker; a refusal or failure becomes the entry's note. After that it is only told to drop it."""
        if entry["note"] and do != "drop":
            return {}
        where = self.rows_of(entry["cell"])
        try:
            worker = self.crew.on_rows(where.library, where.file, where.most)
            answer = worker.tell(do, id=entry["id"], **order)
        except WorkerDiedError as error:
            say(f"  {error}")
            self.crew.forget(where.library)
            entry["note"] = "failed: the worker died"
            return {}
        if "missing" in answer:
            entry["note"] = f"not offered: {answer['missing']}"
        elif "failed" in answer:
            entry["note"] = f"failed: {answer['failed']}"
            say(f"  {entry['label']}, {do}: {entry['note']}")
        return answer

    def drop(self, entry: dict[str, Any]) -> None:
        """Let the worker forget the entry; what went wrong before stays its note, and its samples do not count then."""
        note = entry["note"]
        self.ask(entry, "drop")
        entry["note"] = note
        if note:
            entry["samples"] = []
        entry.pop("id")

    def peak_of(self, cell: Any, order: dict[str, Any], steps: int, most: int | None = None) -> dict[str, Any]:
        """Peak memory of a cell in a fresh process.

        Args:
            cell, order: as of :meth:`built`.
            steps: how many it takes.
            most: rows that the process loads, if not those of :meth:`rows_of`.
        """
        where = self.rows_of(asdict(cell))
        entry: dict[str, Any] = {"cell": asdict(cell), "label": cell.label, "note": "", "found": {}}
        worker = self.crew.fresh(where.library, "memory")
        try:
            opened = worker.tell("open", rows=str(where.file), most=most if most is not None else where.most)
            self.crew.note_versions(where.library, opened)
            entry["found"] = worker.tell("memory", cell=order, steps=steps)
        except WorkerDiedError as error:
            entry["note"] = "failed: the worker died (out of memory?)"
            say(f"  {error}")
        finally:
            worker.stop()
        entry["note"] = entry["note"] or entry["found"].get("missing") or entry["found"].get("failed", "")
        return entry


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of every benchmark with workers."""
    parser.add_argument(
        "--peers-python",
        default=os.environ.get("NEURONMAP_PEERS_PYTHON"),
        help="python of the peers' environment [NEURONMAP_PEERS_PYTHON]; without it ours is measured alone",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads for everybody [all]")
    parser.add_argument("--work", type=Path, default=None, help="folder for inputs and logs [<home>/cache/benchmarks]")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for the report")


def check_options(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Refuse threads and programs that cannot be."""
    if given.threads < 1:
        parser.error("--threads must be at least 1")
    if given.peers_python and shutil.which(given.peers_python) is None:
        parser.error(f"--peers-python {given.peers_python} is not a program")


def end_with(main: Callable[[], int], stopped: str) -> None:
    """Run a benchmark as a program: our errors as sentences, and what to say on Ctrl-C."""
    try:
        sys.exit(main())
    except NeuronMapError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(stopped)
