"""What one process of a team does in these tests; run by :func:`launch`.

    python worker.py JOB.json       with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set, as torchrun sets them

A job is a list of trainings, made one after the other by the same processes: fields of the configuration, where the rows lie, the run's
folder, and what is to happen.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from neuronmap.errors import NeuronMapError
from neuronmap.progress import LineProgress
from neuronmap.saes.kernels.across import largest_across
from neuronmap.training import SAEConfig, SAESweep, SAETrainer
from neuronmap.training.parallel.team import open_team


class SignalAt:
    """A logger that sends its own process a signal at a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def start(self, config: Any, folder: Path) -> None: ...

    def log(self, step: int, figures: Any) -> None:
        if step == self._step:
            os.kill(os.getpid(), signal.SIGINT)

    def finish(self, figures: Any) -> None: ...


def watch_writes(folder: Path) -> list[str]:
    """What this process opens for writing, makes or moves below a folder, as it does so."""
    written: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in ("os.mkdir", "os.rename", "os.remove") or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if writes and str(arguments[0]).startswith(str(folder)):
            written.append(f"{event} {arguments[0]}")

    sys.addaudithook(hook)
    return written


def select(job: dict[str, Any]) -> dict[str, Any]:
    """The largest of values that lie on several processes."""
    team = open_team()
    value_N = team.share(torch.tensor(job["values"]))
    found = []
    for count in job["counts"]:
        keep_N, cut = largest_across(value_N, count, team)
        found.append([keep_N.tolist() if keep_N is not None else [True] * len(value_N), cut])
    return {"kept": found}


def train(job: dict[str, Any]) -> dict[str, Any]:
    """One training; the error it ended with, or what this process holds at its end."""
    if "values" in job:
        return select(job)
    rows = torch.load(job["rows"])
    loggers = [SignalAt(job["stop_at"])] if "stop_at" in job else []
    spoken = LineProgress(sys.stdout)
    try:
        if job.get("sweep"):
            SAESweep([SAEConfig(**job["config"])], folder=job["folder"]).train(rows)
        if job.get("resume"):
            result = SAETrainer.resume(job["folder"], rows, progress=spoken)
        else:
            config = SAEConfig(**job["config"])
            result = SAETrainer(config, progress=spoken, loggers=loggers, run_folder=job["folder"]).train(rows)
    except NeuronMapError as error:
        return {"error": type(error).__name__, "message": error.message}
    return {"norm": float(result.sae.W_dec.double().square().sum()), "summary": result.metrics["summary"]}


def launch(jobs: list[dict[str, Any]], processes: int, folder: Path) -> list[list[dict[str, Any]]]:
    """Run the jobs in a team; what each of them gave, by process."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared["OMP_NUM_THREADS"] = "1"
    started = [
        subprocess.Popen(
            [sys.executable, __file__, file],
            env={**shared, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(processes)
    ]  # fmt: skip
    try:
        ended = [one.communicate(timeout=300) for one in started]
    finally:
        for one in started:
            one.kill()
    assert [one.returncode for one in started] == [0] * processes, ended
    assert all(out == "" for out, _ in ended[1:])  # only rank 0 speaks
    assert ended[0][0]
    return [json.loads((folder / f"jobs.{rank}.json").read_text()) for rank in range(processes)]


if __name__ == "__main__":
    file = Path(sys.argv[1])
    jobs = json.loads(file.read_text())
    written = watch_writes(file.parent / "runs")
    given = [{**train(job), "wrote": len(written)} for job in jobs]
    file.with_suffix(f".{os.environ['RANK']}.json").write_text(json.dumps(given))
