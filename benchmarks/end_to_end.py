"""From text to bundle: the whole time of a run, ours against SAELens, with and without harvesting.

    python benchmarks/end_to_end.py --peers-python .venv-peers/bin/python            # 500,000 tokens, F = 16,384
    python benchmarks/end_to_end.py --peers-python .venv-peers/bin/python --quick    # 40,000 tokens, F = 4,096

    python benchmarks/end_to_end.py --peers-python ... --precision bfloat16          # the language model in bfloat16, for both

topk, k = 32, SmolLM2-135M block 8, 4,096 rows a step, one pass, over State of the Union speeches. A time is that of a
process, from its start to the finished bundle: imports, model, tokens, activations, training, and for ours held-out
measurement (SAELens does none here). "Without harvesting": ours run again, which finds its activations stored; SAELens'
trainer on the same rows, read from one file. A SAELens run that reaches ``--limit`` is stopped, and the rest is
extrapolated from the steps of its second half; the report marks such figures.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from neuronmap.corpora import open_corpus
from neuronmap.errors import NeuronMapError
from neuronmap.paths import cache_folder, write_json
from speed_machine import commit, machine
from speed_rows import CONTEXT, CORPUS, LAYER, MODEL, WIDTH
from turns import end_with, say

HERE = Path(__file__).resolve().parent
BATCH, K = 4096, 32
FULL = (500_000, 16_384)
GOALS = {"with harvesting": 3.0, "without harvesting": 5.0}


def whole_time(elapsed_s: float, step_ends: Sequence[float], wanted: int) -> tuple[float, bool]:
    """Time of a whole run, and whether it had to be extrapolated.

    The missing steps are taken to last as long as the mean of the later half of those that were done.

    Args:
        elapsed_s: what the run took, whole or stopped.
        step_ends: when each step ended.
        wanted: steps of a whole run.

    Raises:
        ValueError: if fewer than four steps were done of a longer run: nothing to extrapolate from.
    """
    missing = wanted - len(step_ends)
    if missing <= 0:
        return elapsed_s, False
    if len(step_ends) < 4:
        raise ValueError(f"only {len(step_ends)} of {wanted} steps were done")
    lengths = [b - a for a, b in pairwise(step_ends)]
    return elapsed_s + missing * statistics.fmean(lengths[len(lengths) // 2 :]), True


class EndToEnd:
    """The runs of one comparison.

    Args:
        given: the command's arguments.
        work: folder for jobs, homes, rows.
    """

    def __init__(self, given: argparse.Namespace, work: Path) -> None:
        self.given, self.work = given, work
        self.home, self.rows = work / "home", work / "rows.npy"
        self.job = {
            "model": MODEL,
            "corpus": CORPUS,
            "layer": LAYER,
            "width": WIDTH,
            "context": CONTEXT,
            "features": given.features,
            "k": K,
            "batch": BATCH,
            "tokens": given.tokens,
            "threads": given.threads,
            "limit_s": given.limit,
            "precision": given.precision,
            "export": None,
            "only_prepare": False,
        }

    def ours(self, name: str, **changes: Any) -> dict[str, Any]:
        """One run of ours in the benchmark's own home."""
        return self._run(name, sys.executable, HERE / "end_to_end_neuronmap.py", changes)

    def saelens(self, name: str, **changes: Any) -> dict[str, Any]:
        """One run of SAELens."""
        folder = self.work / name
        told = {"texts": None, "rows": None, "output": str(folder / "saved"), **changes}
        answer = self._run(name, self.given.peers_python, HERE / "peers" / "end_to_end_saelens.py", told)
        ends = answer.pop("step_ends")
        total, guessed = whole_time(answer["total_s"], ends, answer["steps_wanted"])
        return {**answer, "measured_s": answer["total_s"], "total_s": total, "extrapolated": guessed, "step_ends": ends}

    def _run(self, name: str, python: str, script: Path, changes: dict[str, Any]) -> dict[str, Any]:
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        pools = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self.given.threads))
        environment = {**os.environ, **pools, "NEURONMAP_HOME": str(self.home), "TOKENIZERS_PARALLELISM": "true"}
        started = time.time()
        write_json(folder / "job.json", {**self.job, **changes, "started": started})
        with open(folder / "log", "w") as log:
            done = subprocess.run(
                [python, str(script), str(folder / "job.json")], stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        if done.returncode:
            tail = "\n".join((folder / "log").read_text(errors="replace").splitlines()[-12:])
            raise NeuronMapError(f"The run '{name}' failed:\n{tail}")
        if changes.get("only_prepare"):
            return {}
        answer: dict[str, Any] = json.loads((folder / "result.json").read_text())
        return {**answer, "total_s": answer["finished_at"] - started, "extrapolated": False}

    def compare(self) -> dict[str, dict[str, dict[str, Any]]]:
        """All runs, ours and SAELens' in turn."""
        say("preparing: the model's own files (not timed)")
        self.ours("prepare", only_prepare=True)
        for name in ("activations", "tokens"):
            shutil.rmtree(self.home / "cache" / name, ignore_errors=True)
        found: dict[str, dict[str, dict[str, Any]]] = {"with harvesting": {}, "without harvesting": {}}
        found["with harvesting"]["neuronmap"] = self._told(self.ours("ours-cold", export=str(self.rows)), "ours, cold")
        if self.given.peers_python:
            texts = self._texts()
            model = str(self._model_folder())
            run = self.saelens("saelens-text", texts=str(texts), model=model)
            found["with harvesting"]["saelens"] = self._told(run, "SAELens from text")
        found["without harvesting"]["neuronmap"] = self._told(self.ours("ours-warm"), "ours, activations stored")
        if self.given.peers_python:
            run = self.saelens("saelens-rows", rows=str(self.rows))
            found["without harvesting"]["saelens"] = self._told(run, "SAELens on rows")
        return found

    @staticmethod
    def _told(run: dict[str, Any], name: str) -> dict[str, Any]:
        say(f"{name}: {run['total_s']:,.0f} s{' (extrapolated)' if run['extrapolated'] else ''}, {run['steps']} steps")
        return run

    def _texts(self) -> Path:
        """The speeches as JSON lines."""
        file = self.work / "texts.jsonl"
        file.write_text("".join(json.dumps(document.text) + "\n" for document in open_corpus(CORPUS).documents()))
        return file

    def _model_folder(self) -> Path:
        """The model as Hugging Face files, as ours made them."""
        folders = [config.parent for config in (self.home / "cache" / "models").glob("*/config.json")]
        if len(folders) != 1:
            raise NeuronMapError(f"{self.home / 'cache' / 'models'} holds {len(folders)} models; one was expected.")
        return folders[0]


def markdown(record: dict[str, Any]) -> str:
    """The report."""
    asked, facts = record["asked"], record["machine"]
    lines = [
        f"# From text to bundle, {record['date']}" + (" (quick)" if record["quick"] else ""),
        "",
        f"topk, k={K}, F={asked['features']:,}, {asked['tokens']:,} tokens, {BATCH:,} rows a step, {MODEL} block {LAYER}, the model in "
        f"{asked['precision']}; {facts['cpu']}, {facts['threads']} threads; commit {record['commit']}.",
        "",
        "| | neuronmap s | SAELens s | times | goal |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, runs in record["runs"].items():
        ours, peer = runs.get("neuronmap"), runs.get("saelens")
        if ours is None:
            continue
        if peer is None:
            lines.append(f"| {name} | {ours['total_s']:,.1f} | not run | | |")
            continue
        times = peer["total_s"] / ours["total_s"]
        marked = ""
        if peer["extrapolated"]:
            done = f"{peer['steps']} of {peer['steps_wanted']} steps in {peer['measured_s']:,.0f} s"
            marked = f" EXTRAPOLATED from {done}"
        goal = "set for the full size"
        if (asked["tokens"], asked["features"]) == FULL:
            goal = f"{GOALS[name]:g}: {'met' if times >= GOALS[name] else 'MISSED'}"
        lines.append(f"| {name} | {ours['total_s']:,.1f} | {peer['total_s']:,.1f}{marked} | {times:.1f} | {goal} |")
    lines += ["", "Stages of ours, in seconds:", ""]
    for name, runs in record["runs"].items():
        if "neuronmap" in runs:
            stages = ", ".join(f"{stage} {seconds:,.1f}" for stage, seconds in runs["neuronmap"]["seconds"].items())
            lines.append(f"- {name}: {stages}")
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40,000 tokens, F = 4,096, limit 300 s")
    parser.add_argument("--tokens", type=int, default=None, help="tokens of text [500000]")
    parser.add_argument("--features", type=int, default=None, help="F [16384]")
    parser.add_argument("--limit", type=float, default=None, help="seconds after which a SAELens run is stopped [1800]")
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of the language model, for both [float32]",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads for every run [all]")
    parser.add_argument("--peers-python", default=os.environ.get("NEURONMAP_PEERS_PYTHON"), help="as in speed.py")
    parser.add_argument("--work", type=Path, default=None, help="folder for the runs [<home>/cache/benchmarks]")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for the report")
    given = parser.parse_args()
    given.tokens = given.tokens or (40_000 if given.quick else FULL[0])
    given.features = given.features or (4096 if given.quick else FULL[1])
    given.limit = given.limit or (300.0 if given.quick else 1800.0)
    if given.tokens < 8 * BATCH:
        parser.error(f"--tokens must be at least {8 * BATCH} (eight steps)")
    if given.peers_python and shutil.which(given.peers_python) is None:
        parser.error(f"--peers-python {given.peers_python} is not a program")
    return given


def main() -> int:
    given = arguments()
    work = given.work or cache_folder("benchmarks") / "end-to-end"
    runs = EndToEnd(given, work).compare()
    record = {
        "benchmark": "end to end",
        "date": datetime.date.today().isoformat(),
        "quick": given.quick,
        "commit": commit(),
        "machine": machine(given.threads),
        "asked": {
            "tokens": given.tokens,
            "features": given.features,
            "limit_s": given.limit,
            "precision": given.precision,
        },
        "runs": runs,
    }
    given.results.mkdir(parents=True, exist_ok=True)
    stem = f"end-to-end-{'quick-' if given.quick else ''}{'' if given.precision == 'float32' else given.precision + '-'}{record['date']}"
    write_json(given.results / f"{stem}.json", record)
    report = markdown(record)
    (given.results / f"{stem}.md").write_text(report)
    print(report)
    say(f"written: {given.results / stem}.json and .md")
    return 0


if __name__ == "__main__":
    end_with(main, "Stopped.")
