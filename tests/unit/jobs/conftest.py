"""A small model and text as folders, the queue of this test's home, and ways to wait for what processes do."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neuronmap.jobs import Job, JobQueue, Supervisor
from neuronmap.progress import SilentProgress

PATIENCE_S = 90.0
WORDS = ["river", "winter", "union", "fox", "dog", "state", "strong", "citizens", "number", "froze", "lazy", "brown"]


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for index in range(12):
        words = " ".join(WORDS[(index * 7 + i * i) % len(WORDS)] for i in range(200))
        (folder / f"{index:02d}.txt").write_text(f"Document {index}. {words}")
    return folder


@pytest.fixture(scope="session")
def settings(model_folder, text_folder) -> dict[str, Any]:
    """A training of some seconds: two thousand small steps, a checkpoint every hundred."""
    return {
        "model_name": str(model_folder),
        "corpus": str(text_folder),
        "layer": 1,
        "hidden_dim": 64,
        "k": 4,
        "context_length": 32,
        "batch_size": 4,
        "num_epochs": 1000.0,
        "max_steps": 2000,
        "learning_rate": 0.003,
        "checkpoint_every_steps": 100,
        "device": "cpu",
    }


@pytest.fixture(scope="session")
def trained(tmp_path_factory, settings) -> tuple[Path, str]:
    """A home with the undisturbed training, made by the command's own call in this process; and the digest of its weights."""
    from neuronmap.hub.pipeline import train_into_library
    from neuronmap.training import SAEConfig

    home = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(home))
        stored = train_into_library(
            SAEConfig(**settings), name="undisturbed", evaluate=False, progress=SilentProgress()
        )
    assert stored.entry.weights_digest is not None
    return home, stored.entry.weights_digest


@pytest.fixture
def harvested(trained, home) -> str:
    """This test's home holds the tokens and activations already; gives the digest of the undisturbed training."""
    shutil.copytree(trained[0] / "cache", home / "cache")
    return trained[1]


@pytest.fixture
def queue(home: Path) -> Iterator[JobQueue]:
    with JobQueue.open() as opened:
        yield opened


@pytest.fixture
def supervisor(queue: JobQueue) -> Iterator[Supervisor]:
    """Stopped at the end of the test, with its jobs."""
    made = Supervisor(queue, check_memory=False, progress=SilentProgress())
    yield made
    made.stop()


def until(there: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """The first true value; looked at fifty times a second."""
    deadline = time.monotonic() + patience_s
    while not (found := there()):
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for {what}"
        time.sleep(0.02)
    return found


@pytest.fixture
def wait() -> Callable[..., Any]:
    return until


@pytest.fixture
def reaches(queue: JobQueue) -> Callable[..., Job]:
    """Wait until a job is in one of the states."""

    def wait_for(job: str, *states: str, patience_s: float = PATIENCE_S) -> Job:
        def there() -> Job | None:
            found = queue.get(job)
            assert found.state in (*states, "queued", "running", "cancelling"), found
            return found if found.state in states else None

        return until(there, f"job {job} to be {' or '.join(states)}", patience_s)

    return wait_for


@pytest.fixture
def checkpoint_of(queue: JobQueue, home: Path) -> Callable[[str], Path]:
    """Wait until a job's training has written a checkpoint of its own; gives the folder of checkpoints."""

    def wait_for(job: str) -> Path:
        def there() -> Path | None:
            run = queue.get(job).run
            folder = home / "runs" / str(run) / "checkpoints"
            steps = [int(path.name.removeprefix("step-")) for path in folder.glob("step-*")] if run else []
            return folder if max(steps, default=0) > 0 else None

        return until(there, f"a checkpoint of job {job}")

    return wait_for
