"""Worker processes of the speed benchmark, from the driver's side: start, tell, hear, stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from neuronmap.errors import NeuronMapError
from speed_cells import OURS

HERE = Path(__file__).resolve().parent


class WorkerDiedError(NeuronMapError):
    """A worker process ended in the middle of a command."""

    code = "benchmark_worker_died"


class WorkerProcess:
    """One library in one process.

    Args:
        library: one of ``speed_cells.LIBRARIES``.
        python: of its environment.
        threads: for every pool of threads in it.
        log: file for what it prints.
        benchmark: which one's scripts, by the beginning of their names.
    """

    def __init__(self, library: str, python: str, threads: int, log: Path, benchmark: str = "speed") -> None:
        self.library, self.log = library, log
        folder = HERE if library == OURS else HERE / "peers"
        script = folder / f"{benchmark}_{library}.py"
        pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "SPEED_THREADS")
        environment = {**os.environ, **dict.fromkeys(pools, str(threads))}
        hear, answer = os.pipe()
        environment["SPEED_ANSWERS"] = str(answer)
        self._file = open(log, "w")  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [python, str(script)],
            stdin=subprocess.PIPE,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            pass_fds=(answer,),
        )
        os.close(answer)  # the worker's copy is then the only one: its end is the pipe's end
        self._answers = os.fdopen(hear)

    def tell(self, do: str, **order: Any) -> dict[str, Any]:
        """Give a command and wait for its answer.

        Raises:
            WorkerDiedError: with the end of its log.
        """
        stdin = self._process.stdin
        if stdin is None:
            raise WorkerDiedError(f"The worker of {self.library} has no stdin.")
        try:
            stdin.write(json.dumps({"do": do, **order}) + "\n")
            stdin.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])
            raise WorkerDiedError(f"The worker of {self.library} ended during '{do}':\n{tail}", hint=f"See {self.log}.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """End it; kill it if it does not."""
        if self._process.poll() is None and self._process.stdin is not None:
            try:
                self._process.stdin.write('{"do": "quit"}\n')
                self._process.stdin.close()
                self._process.wait(timeout=20)
            except (OSError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
        self._answers.close()
        self._file.close()


class Crew:
    """The workers of a run, started when first needed. Only one is ever given a command at a time.

    Args:
        peers_python: of the peers' environment; None leaves them out.
        threads: for every worker.
        logs: folder for their logs.
        benchmark: which one's scripts.
    """

    def __init__(self, peers_python: str | None, threads: int, logs: Path, benchmark: str = "speed") -> None:
        self.peers_python, self.threads, self.logs = peers_python, threads, logs
        self.benchmark = benchmark
        self.versions: dict[str, str] = {}
        self._running: dict[str, WorkerProcess] = {}
        self._rows: dict[str, str] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def has(self, library: str) -> bool:
        return library == OURS or self.peers_python is not None

    def fresh(self, library: str, name: str) -> WorkerProcess:
        """A new process, which the caller stops."""
        python = sys.executable if library == OURS else str(self.peers_python)
        return WorkerProcess(library, python, self.threads, self.logs / f"{name}.log", self.benchmark)

    def on_rows(self, library: str, rows: Path, most: int | None = None) -> WorkerProcess:
        """The library's worker, with these rows (the first ``most`` of them) loaded."""
        worker = self._running.get(library)
        if worker is None:
            worker = self._running[library] = self.fresh(library, library)
        if self._rows.get(library) != str(rows):
            answer = worker.tell("open", rows=str(rows), most=most)
            self.note_versions(library, answer)
            self._rows[library] = str(rows)
        return worker

    def note_versions(self, library: str, answer: dict[str, Any]) -> None:
        """Keep what a worker said of itself, and refuse a run with unequal threads."""
        if "failed" in answer:
            raise WorkerDiedError(f"The worker of {library} cannot load the rows: {answer['failed']}")
        if answer["threads"] != self.threads:
            raise WorkerDiedError(f"{library} runs with {answer['threads']} threads instead of {self.threads}.")
        for name, number in answer["versions"].items():
            shown = name if name not in ("torch", "python") else f"{name} ({'ours' if library == OURS else 'peers'})"
            self.versions[shown] = number

    def forget(self, library: str) -> None:
        """Stop a library's worker; the next use starts another."""
        worker = self._running.pop(library, None)
        self._rows.pop(library, None)
        if worker is not None:
            worker.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for library in list(self._running):
            self.forget(library)
