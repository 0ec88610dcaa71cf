"""The queue on every database that it runs on: SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuronmap.jobs import JobQueue, checking
from neuronmap.jobs.checking import Checked


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
    make: Callable[[], str] = request.getfixturevalue("new_database")
    return make()


@pytest.fixture
def queue(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobQueue]:
    """An open queue that takes any arguments: what each kind checks is tested with the kinds."""

    def unchecked(kind: str, args: dict) -> Checked:
        device = args.get("device", "cpu")
        return Checked(args=args, title=f"{kind} {args.get('sae', '')}".strip(), device=device, memory_bytes=1)

    monkeypatch.setattr(checking, "check", unchecked)
    with JobQueue.open(url) as opened:
        yield opened
