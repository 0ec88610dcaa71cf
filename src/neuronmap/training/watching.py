"""A run as it can be watched from another process while it trains: reads its folder only, and no torch.

The trainer appends to ``history.jsonl`` and ``snapshots.jsonl`` and replaces ``run.json`` and ``snapshot.json`` whole, so a reader finds
the old content or the new; a last line that is half written is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronmap.paths import read_json
from neuronmap.training.history import read_lines
from neuronmap.training.run import TrainingRun

__all__ = ["SNAPSHOT", "SNAPSHOTS", "SNAPSHOT_FORMAT", "WatchedRun", "watch_run"]

SNAPSHOT, SNAPSHOTS = "snapshot.json", "snapshots.jsonl"
SNAPSHOT_FORMAT = 1


@dataclass(frozen=True)
class WatchedRun:
    """A run at the moment of looking.

    Attributes:
        name: its folder's name.
        folder: where it lies.
        status: preparing, training, interrupted, diverged or finished.
        config: its configuration, as plain JSON types.
        source: its text, if that can be opened by name.
        steps: steps of the plan; None before there is one.
        plan: the plan's numbers (:class:`~neuronmap.training.plan.Plan`); empty before there is one.
        step: steps that are done, as far as its files say.
        bundle: the finished SAE; None before.
        history: rows of the training curves after the step that was asked for.
        snapshots: evaluations after that step: step, tokens, rows, edges (log10 of density), counts, never, l0, features.
        snapshot: the last evaluation, whole; None before the first, and of a run by an older version.
    """

    name: str
    folder: Path
    status: str
    config: dict[str, Any]
    source: str | None
    steps: int | None
    plan: dict[str, Any]
    step: int
    bundle: Path | None
    history: tuple[dict[str, Any], ...]
    snapshots: tuple[dict[str, Any], ...]
    snapshot: dict[str, Any] | None


def watch_run(run: str | Path | TrainingRun, after: int = -1) -> WatchedRun:
    """Look at a run, whatever it is doing.

    Args:
        run: its folder or name.
        after: only rows of the history and of the snapshots after this step; pass what was seen last to get what is new.

    Raises:
        InputError: there is no such run.
        DamagedError: its ``run.json`` cannot be read.

    Example:
        >>> seen = watch_run("20260101-120000-demo-0a1b2c")                                            # doctest: +SKIP
        >>> more = watch_run(seen.folder, after=seen.step)                                             # doctest: +SKIP
    """
    run = run if isinstance(run, TrainingRun) else TrainingRun.open(run)
    record = run.read()
    history, snapshots = read_lines(run.history_path), read_lines(run.folder / SNAPSHOTS)
    last = max([int(record.get("step") or 0), *(int(row["step"]) for row in [*history[-1:], *snapshots[-1:]])])
    bundle = record.get("bundle")
    return WatchedRun(
        name=run.folder.name,
        folder=run.folder,
        status=str(record["status"]),
        config=dict(record["config"]),
        source=record.get("source"),
        steps=record.get("steps"),
        plan=dict(record.get("plan") or {}),
        step=last,
        bundle=None if bundle is None else Path(bundle),
        history=tuple(row for row in history if row["step"] > after),
        snapshots=tuple(row for row in snapshots if row["step"] > after),
        snapshot=_snapshot(run.folder),
    )


def _snapshot(folder: Path) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = read_json(folder / SNAPSHOT)
    except FileNotFoundError:
        return None
    return document if document.get("format") == SNAPSHOT_FORMAT else None
