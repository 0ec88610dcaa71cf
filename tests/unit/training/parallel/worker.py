"""What one process of a team does in these tests; run by :func:`launch`.

    python worker.py JOB.json       with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set, as torchrun sets them

A job is a list of trainings, made one after the other by the same processes: fields of the configuration, where the rows lie, the run's
folder, and what is to happen.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "activations"))
from token_sets import PlainTokens, tiny_model

from neuronmap.activations import ActivationStream, ShuffledBatches, blocks, extract, passes
from neuronmap.activations.together import harvest_together
from neuronmap.errors import InputError, NeuronMapError
from neuronmap.models import capture, resolve_hook
from neuronmap.progress import LineProgress, SilentProgress
from neuronmap.saes import Workspace, get_architecture
from neuronmap.saes.kernels.across import largest_across
from neuronmap.saes.kernels.select import select_top_k
from neuronmap.saes.kernels.sliced import largest_of_rows
from neuronmap.training import SAEConfig, SAESweep, SAETrainer
from neuronmap.training.parallel.team import open_team
from neuronmap.training.parameters import ParameterStep


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
        keep_N, cut = largest_across(value_N, count, team, lambda at: at + team.rank * len(value_N))
        found.append([keep_N.tolist() if keep_N is not None else [True] * len(value_N), cut])
    return {"kept": found}


def select_of_rows(job: dict[str, Any]) -> dict[str, Any]:
    """The k largest of rows whose features lie on several processes: where this one kept some."""
    team = open_team()
    features = team.laid_out(team.count, "cpu").features
    pre_BF = torch.tensor(job["rows_of"])
    width = pre_BF.shape[1] // features.count
    own_BW = pre_BF[:, features.rank * width : (features.rank + 1) * width]
    code = largest_of_rows(select_top_k(own_BW, min(job["k"], width)), job["k"], features)
    return {
        "at": [
            [row, feature + features.rank * width]
            for row, feature in zip(*map(Tensor.tolist, (code.row_N, code.feature_N)), strict=True)
        ]
    }


def count_moments(job: dict[str, Any]) -> dict[str, Any]:
    """Bytes of Adam's moments that this process keeps, of matrices and of vectors."""
    owner = get_architecture("topk")
    d_in, d_sae = job["moments_of"]
    step = ParameterStep(owner(d_in, d_sae, owner.Options(k=2)), 1e-8, 1.0, Workspace(), team=open_team())
    found = {1: 0, 2: 0}
    for name, pair in step.moments.items():
        found[2 if name.startswith("W_") else 1] += sum(moment.untyped_storage().nbytes() for moment in pair)
    return {"matrices": found[2], "vectors": found[1]}


def harvest(job: dict[str, Any]) -> dict[str, Any]:
    """A harvest by all processes, in which the model of one may fail or bring a signal; how often this one's model ran."""
    team, ran = open_team(), 0

    def counted(*arguments: Any, **more: Any) -> Any:
        nonlocal ran
        ran += 1
        if (team.rank, ran) == (job.get("rank"), job.get("at")):
            if job["then"] == "fail":
                raise InputError("This model is broken.", hint="Mend it.")
            os.kill(os.getpid(), signal.SIGTERM)
        return capture(*arguments, **more)

    extract.capture = counted
    model, tokens = tiny_model(), PlainTokens(num_contexts=23, context_length=16)
    hooks = [resolve_hook(model, 0, "mlp"), resolve_hook(model, 1)]
    threads = torch.get_num_threads()  # of an earlier test; the last bits of a product go by it
    torch.set_num_threads(1)
    settings = {"batch_tokens": 32, "shard_rows": 41, "dtype": job["dtype"], "progress": SilentProgress()}
    try:
        harvest_together(team, model, tokens, hooks, root=job["harvest_in"], **settings)
    except (NeuronMapError, KeyboardInterrupt) as error:
        return {"error": type(error).__name__, "message": str(error)}
    finally:
        extract.capture = capture
        torch.set_num_threads(threads)
    return {"ran": ran}


@contextmanager
def small_streams(job: dict[str, Any]) -> Iterator[Counter[str]]:
    """Streams of small blocks and buckets, read by a thread as on an accelerator if the job says so; counts the contexts run.

    At a pass of one process its model may fail, or a signal may come.
    """
    ran: Counter[str] = Counter()
    plain = ActivationStream.read_block

    def counted(stream: ActivationStream, start: int, stop: int, out: Tensor) -> int:
        ran["passes"] += 1
        ran["contexts"] += stop - start
        at = [int(os.environ.get("RANK", "0")), ran["passes"]]
        if at == job.get("signal"):
            os.kill(os.getpid(), signal.SIGTERM)
        if at == job.get("breaks"):
            raise InputError("This model is broken.", hint="Mend it.")
        return plain(stream, start, stop, out)

    with (
        patch.object(passes, "batch_tokens_for", lambda device, asked: 128),
        patch.object(blocks, "MAX_BUCKET_ROWS", 700),
        patch.object(ActivationStream, "in_background", job.get("threaded", False)),
        patch.object(ActivationStream, "read_block", counted),
        patch.dict(os.environ, {"NEURONMAP_HOME": job["home"]}),
    ):
        yield ran


def part(job: dict[str, Any]) -> dict[str, Any]:
    """A stream of all processes that the last of them leaves early, while its thread and those of the others are ahead."""
    team, model, given = open_team(), tiny_model(), 0
    tokens = PlainTokens(num_contexts=64, context_length=16)
    with small_streams({**job, "threaded": True}):
        stream = ActivationStream(model, tokens, resolve_hook(model, 1), crew=team)
        with ShuffledBatches(stream, 20, seed=0, bucket_rows=200) as batches:
            try:
                for _ in range(3 if team.rank == team.count - 1 else 1000):
                    next(batches)
                    given += 1
            except NeuronMapError as error:
                return {"error": type(error).__name__, "message": error.message, "given": given}
    return {"given": given}


def train(job: dict[str, Any]) -> dict[str, Any]:
    """One training; the error it ended with, or what this process holds at its end."""
    if "home" in job and "part" not in job:
        with small_streams(job) as ran:
            return {**_train(job, Path(job["texts"])), **ran}
    return _train(job)


def _train(job: dict[str, Any], texts: Path | None = None) -> dict[str, Any]:
    for key, other in (
        ("values", select),
        ("rows_of", select_of_rows),
        ("moments_of", count_moments),
        ("harvest_in", harvest),
        ("part", part),
    ):
        if key in job:
            return other(job)
    rows = torch.load(job["rows"]) if texts is None else texts
    loggers = [SignalAt(job["stop_at"])] if "stop_at" in job else []
    spoken = LineProgress(sys.stdout)
    try:
        if job.get("sweep"):
            SAESweep([SAEConfig(**job["config"])], folder=job["folder"]).train(rows)
        if job.get("resume"):
            result = SAETrainer.resume(job["folder"], rows, progress=spoken, feature_ranks=job.get("feature_ranks"))
        else:
            config = SAEConfig(**job["config"])
            result = SAETrainer(config, progress=spoken, loggers=loggers, run_folder=job["folder"]).train(rows)
    except NeuronMapError as error:
        return {"error": type(error).__name__, "message": error.message}
    return {"norm": float(result.sae.W_dec.double().square().sum()), "summary": result.metrics["summary"]}


def launch(jobs: dict[str, dict[str, Any]], processes: int, folder: Path) -> list[dict[str, dict[str, Any]]]:
    """Run the jobs in a team, one after the other; what each of them gave, by process and name."""
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
    assert [(folder / f"jobs.{rank}.threads").read_text() for rank in range(processes)] == [""] * processes
    assert ended[0][0]
    return [json.loads((folder / f"jobs.{rank}.json").read_text()) for rank in range(processes)]


def tell_threads(file: Path) -> None:
    """Write which threads of gloo there are: one that lets go of a tensor while Python ends aborts the process."""
    names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    file.write_text("".join(name for name in names if "gloo" in name))


if __name__ == "__main__":
    file = Path(sys.argv[1])
    atexit.register(tell_threads, file.with_suffix(f".{os.environ['RANK']}.threads"))  # runs after the team is closed
    jobs = json.loads(file.read_text())
    written = watch_writes(file.parent / "runs")
    given = {name: {**train(job), "wrote": len(written)} for name, job in jobs.items()}
    importlib.import_module("torch.distributed.nn.functional")  # transformers does, while it loads a model
    file.with_suffix(f".{os.environ['RANK']}.json").write_text(json.dumps(given))
