"""Quality side by side: NeuronMap, SAELens and dictionary_learning on the same activations, at equal L0.

    python benchmarks/quality.py --peers-python .venv-peers/bin/python                       # goes on where it stopped
    python benchmarks/quality.py --peers-python .venv-peers/bin/python --cells-budget 60     # begins nothing after an hour
    python benchmarks/quality.py --dry-run                                                   # what is left, and how long it takes
    python benchmarks/quality.py --render --merge OTHER.json                                 # the sheet from what there is

trains batchtopk, topk, matryoshka, jumprelu and relu SAEs on the residual stream of SmolLM2-135M (block 15) over State of the Union
speeches, every library on the same rows in the same order, and measures all of them in the same way on held-out text: explained variance,
loss recovered, features alive, k-sparse probes. Every run is kept in a work folder by a digest of its inputs; the record
``benchmarks/results/quality-sheet-<date>.json`` and the sheet beside it are written at the end of every call. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from neuronmap.paths import cache_folder, read_json, write_json
from neuronmap.progress import LineProgress, SilentProgress
from quality_cells import LIBRARIES, Budget, Cell, ordered_cells
from quality_data import Rows, prepare_rows
from quality_measure import measure
from quality_model import ModelMeter, ModelProtocol
from quality_queue import Job, Queue
from quality_record import merged, one_of_each
from quality_report import duration, markdown
from quality_train import Run, train
from speed_machine import commit, machine
from turns import end_with, say

HERE = Path(__file__).resolve().parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="list the cells that are left, with estimated times")
    parser.add_argument("--render", action="store_true", help="train nothing: write the sheet from the runs there are")
    parser.add_argument("--merge", type=Path, nargs="+", default=[], metavar="JSON", help="records of other machines")
    parser.add_argument("--cells-budget", type=float, metavar="MINUTES", help="begin no run after so many minutes")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="LIBRARY/ARCHITECTURE/SETTINGS with * and ?, such as 'neuronmap/*'; may be repeated",
    )
    parser.add_argument(
        "--peers-python",
        default=os.environ.get("NEURONMAP_PEERS_PYTHON"),
        help="python with sae-lens and dictionary-learning [NEURONMAP_PEERS_PYTHON]",
    )
    parser.add_argument("--device", default="cpu", help="where SAEs and the language model run: cpu, cuda [cpu]")
    parser.add_argument("--widths", type=int, nargs="+", default=[4096, 16_384], help="features [4096 16384]")
    parser.add_argument("--l0", type=int, nargs="+", default=[64, 32, 128, 16], help="L0 to compare at [64 32 128 16]")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds [3]")
    parser.add_argument("--layer", type=int, default=15, help="block whose output is used [15]")
    parser.add_argument("--rows", type=int, default=131_072, help="activations to train on [131072]")
    parser.add_argument(
        "--heldout-rows", type=int, default=8192, help="activations to measure on, and as many to calibrate on [8192]"
    )
    parser.add_argument(
        "--visits", type=int, default=131_072, help="activations seen in training, repeats counted [131072]"
    )
    parser.add_argument("--batch", type=int, default=1024, help="activations a step, a multiple of 128 [1024]")
    parser.add_argument("--ce-tokens", type=int, default=2048, help="held-out tokens for the loss [2048]")
    parser.add_argument("--items", type=int, default=320, help="items of each concept to probe for [320]")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads for every library [all]")
    parser.add_argument(
        "--work", type=Path, default=None, help="folder for rows and finished runs [<home>/cache/benchmarks/quality]"
    )
    parser.add_argument(
        "--results", type=Path, default=HERE / "results", help="folder for record and sheet [benchmarks/results]"
    )
    given = parser.parse_args()
    _check(parser, given)
    return given


def _check(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    for name in ("seeds", "rows", "heldout_rows", "visits", "batch", "ce_tokens", "items", "threads"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(given, name)}")
    if given.batch % 128:
        parser.error(f"--batch must be a multiple of 128, got {given.batch}")
    if given.visits // given.batch < 20:
        parser.error(f"--visits / --batch gives {given.visits // given.batch} steps; at least 20 are needed")
    if given.batch > given.rows:
        parser.error(f"--batch {given.batch} is more than --rows {given.rows}")
    if max(given.l0) >= min(given.widths):
        parser.error(f"--l0 {max(given.l0)} must be below --widths {min(given.widths)}")
    with_peers = not given.only or any(
        fnmatch.fnmatch(library, pattern.split("/")[0]) for library in LIBRARIES[1:] for pattern in given.only
    )
    if with_peers and not (given.dry_run or given.render):
        if not given.peers_python:
            parser.error("--peers-python (or NEURONMAP_PEERS_PYTHON) is needed; without peers: --only 'neuronmap/*'")
        if shutil.which(given.peers_python) is None:
            parser.error(f"--peers-python {given.peers_python} is not a program")


def machine_facts(given: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Name of this machine in the record, and what it is."""
    facts = {**machine(given.threads), "device": given.device, "commit": commit()}
    facts.pop("load_at_start")
    name = facts["cpu"]
    if given.device != "cpu":
        name = torch.cuda.get_device_name(given.device) if given.device.startswith("cuda") else given.device
    return f"{name}, {given.threads} thread(s)" if given.device == "cpu" else name, facts


def job_of(given: argparse.Namespace, rows: Rows, meter: ModelMeter, folder: Path) -> Job:
    """What makes a run: train, then measure in full."""
    budget = Budget(
        d_in=rows.train.shape[1],
        d_sae=given.widths[0],
        k=given.l0[0],
        steps=given.visits // given.batch,
        batch_rows=given.batch,
        threads=given.threads,
        device=given.device,
    )
    heldout = torch.from_numpy(rows.heldout)

    def execute(run: Run, at: Budget, scratch: Path) -> dict[str, Any]:
        trained = train(run, at, rows, folder, scratch, given.peers_python)
        with torch.inference_mode():
            figures = {**measure(trained.sae, heldout), **meter.figures(trained.sae)}
        return {"figures": figures, "saved": trained.saved, "train_seconds": trained.seconds, **trained.facts}

    return Job(budget, rows, meter.protocol.to_dict(), machine_facts(given)[0], execute)


def chosen_cells(given: argparse.Namespace, queue: Queue) -> Iterator[Cell]:
    """The queue, but for what ``--only`` leaves out."""
    for cell in ordered_cells(given.widths, given.l0, range(given.seeds), queue.best):
        if not given.only or any(fnmatch.fnmatch(cell.method, pattern) for pattern in given.only):
            yield cell


def list_cells(given: argparse.Namespace, queue: Queue) -> None:
    """Print what is left, in order, with the time that it and everything before it would take."""
    total, unknown = 0.0, 0
    for cell in chosen_cells(given, queue):
        if queue.next_run(cell) is None:
            continue
        seconds = queue.estimate(cell)
        if seconds is None:
            unknown += 1
        total += seconds or 0.0
        shown = "?" if seconds is None else duration(seconds)
        print(f"{cell.label:64s} {shown:>8s}  after {duration(total)}")
    without = f"; {unknown} cells of which nothing is known yet are not counted" if unknown else ""
    print(f"in all {duration(total)} by runs on this machine{without}")


def record_of(given: argparse.Namespace, queue: Queue, rows: Rows, meter: ModelMeter) -> dict[str, Any]:
    """The record of this machine, with those to merge."""
    name, facts = machine_facts(given)
    budget = queue.job.budget
    own = {
        "benchmark": "quality-sheet",
        "date": datetime.date.today().isoformat(),
        "grid": {"widths": given.widths, "l0s": given.l0, "seeds": list(range(given.seeds))},
        "budget": {"steps": budget.steps, "batch_rows": budget.batch_rows},
        "data": rows.facts,
        "protocol": meter.protocol.to_dict(),
        "machines": {name: {**facts, "reference": meter.reference}},
        "runs": one_of_each(queue.runs),
    }
    return merged([own, *map(read_json, given.merge)])


def main() -> int:
    given = arguments()
    torch.set_num_threads(given.threads)
    folder = given.work or cache_folder("benchmarks") / "quality"
    if given.render and not folder.is_dir():
        raise SystemExit(f"{folder} holds no runs, so there is nothing to render. Without --render they are made.")
    if not folder.is_dir():
        say("The rows are not there yet: the model computes them first (some minutes on two cores), for --dry-run too.")
    rows = prepare_rows(folder, given.layer, given.rows, given.heldout_rows, LineProgress(), say)
    protocol = ModelProtocol(ce_tokens=given.ce_tokens, items=given.items)
    meter = ModelMeter(rows, protocol, folder, given.device, SilentProgress())
    queue = Queue(job_of(given, rows, meter, folder), folder, say)
    say(f"{len(queue.runs)} finished runs in {folder}")
    if given.dry_run:
        list_cells(given, queue)
        return 0
    if not given.render:
        started = time.monotonic()
        try:
            made = queue.work(chosen_cells(given, queue), given.cells_budget)
            say(f"{made} runs in {duration(time.monotonic() - started)}; {len(queue.failed)} failed")
        except KeyboardInterrupt:
            say("Stopped; the run in progress is lost, the finished ones are kept.")
    record = record_of(given, queue, rows, meter)
    given.results.mkdir(parents=True, exist_ok=True)
    path = given.results / f"quality-sheet-{record['date']}"
    write_json(path.with_suffix(".json"), record)
    path.with_suffix(".md").write_text(markdown(record), encoding="utf-8")
    say(f"written: {path}.json and .md")
    return 1 if queue.failed else 0


if __name__ == "__main__":
    end_with(main, "Stopped. Finished runs are kept; the same command goes on after them.")
