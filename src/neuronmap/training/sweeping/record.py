"""A sweep as a folder: its members, how far each came, and what they left. Loads no torch: the explorer and commands read it.

<home>/runs/<id>/sweep.json         members, source, status
                 01-sweep-topk-k16/   an ordinary training run each (neuronmap.training.run)
                 02-...

A member's run can be watched, resumed or repeated alone like any other: its configuration gives the same weights.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from neuronmap import paths
from neuronmap.errors import InputError
from neuronmap.training.config import SAEConfig
from neuronmap.training.history import last_line
from neuronmap.training.run import TrainingRun
from neuronmap.training.sweeping.names import folder_names

__all__ = ["RECORD", "MemberRecord", "MemberStatus", "SweepRun"]

RECORD = "sweep.json"
FORMAT = 1
SweepStatus = Literal["preparing", "training", "interrupted", "finished"]
MemberStatus = Literal["waiting", "preparing", "training", "interrupted", "diverged", "finished"]


@dataclass(frozen=True)
class MemberRecord:
    """A member at the moment of looking.

    Attributes:
        number: its place in the sweep, from 0.
        name: what the SAE is called.
        config: its configuration.
        run: its training run; the folder may not be there yet.
        status: waiting (not begun), preparing, training, interrupted, diverged or finished.
        step, steps: done, and of the whole plan; None before there is one.
        plan: the plan's numbers (:class:`~neuronmap.training.plan.Plan`); empty before there is one.
        figures: the newest row of its training history; empty before the first.
        metrics: its figures on held-out text once it is finished.
        sae: its id in the library; None before it is there.
        error: why it left, or why it is not in the library; empty if all went well.
    """

    number: int
    name: str
    config: SAEConfig
    run: TrainingRun
    status: MemberStatus
    step: int
    steps: int | None
    plan: dict[str, Any]
    figures: dict[str, float]
    metrics: dict[str, float]
    sae: str | None
    error: str


@dataclass(frozen=True)
class SweepRun:
    """Handle on a sweep's folder.

    Attributes:
        folder: where it lies.
    """

    folder: Path

    @classmethod
    def create(
        cls,
        configs: Sequence[SAEConfig],
        source: str | None,
        folder: Path | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> SweepRun:
        """Make the folder of a new sweep.

        Args:
            configs: its members.
            source: the text source if it can be opened again by name, else None.
            folder: where; a new one under ``<home>/runs`` when left out.
            options: what to do with the SAEs afterwards, for who resumes it.
        """
        if folder is None:
            label = re.sub(r"[^a-z0-9]+", "-", (configs[0].name or "sae").lower()).strip("-")[:30].strip("-")
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            folder = paths.runs_folder() / f"{stamp}-sweep-{label}-{uuid.uuid4().hex[:6]}"
        paths.require_writable(folder)
        sweep = cls(folder)
        members = [
            {"folder": name, "name": config.name or name, "config": config.to_dict()}
            for name, config in zip(folder_names(configs), configs, strict=True)
        ]
        record = {"format": FORMAT, "status": "preparing", "source": source, "options": dict(options or {})}
        sweep._write({**record, "members": members})
        return sweep

    @classmethod
    def open(cls, folder: str | Path) -> SweepRun:
        """Open a sweep by its folder, or by its name under ``<home>/runs``.

        Raises:
            InputError: when there is no sweep; lists the newest ones.
        """
        for candidate in (Path(folder), paths.runs_folder() / folder):
            if (candidate / RECORD).is_file():
                return cls(candidate)
        root = paths.runs_folder()
        known = sorted((path.parent.name for path in root.glob(f"*/{RECORD}")), reverse=True)[:5]
        hint = f"Newest sweeps: {', '.join(known)}." if known else f"There are no sweeps in {root}."
        raise InputError(f"There is no sweep {folder}.", hint=hint)

    def read(self) -> dict[str, Any]:
        """Content of ``sweep.json``."""
        record: dict[str, Any] = paths.read_json(self.folder / RECORD)
        return record

    @property
    def source(self) -> str | None:
        """The text source, if it can be opened again by name."""
        source: str | None = self.read()["source"]
        return source

    def members(self) -> tuple[MemberRecord, ...]:
        """All members as they stand, whatever the sweep is doing."""
        return tuple(self._member(number, one) for number, one in enumerate(self.read()["members"]))

    def member(self, number: int) -> MemberRecord:
        """One member as it stands."""
        return self._member(number, self.read()["members"][number])

    def set(self, status: SweepStatus, **facts: Any) -> None:
        """Record the status and further facts."""
        self._write({**self.read(), "status": status, **facts})

    def set_member(self, number: int, **facts: Any) -> None:
        """Record facts of a member: ``error``, ``sae``, ``metrics``."""
        record = self.read()
        record["members"][number].update(facts)
        self._write(record)

    def _member(self, number: int, one: Mapping[str, Any]) -> MemberRecord:
        run = TrainingRun(self.folder / one["folder"])
        try:
            known = run.read()
        except FileNotFoundError:
            known = {}
        figures = last_line(run.history_path)
        step = int(known.get("step") or figures.get("step") or 0)
        return MemberRecord(
            number=number,
            name=one["name"],
            config=SAEConfig.from_dict(one["config"]),
            run=run,
            status=known.get("status", "waiting"),
            step=max(step, int(figures.get("step", 0))) if known.get("status") == "training" else step,
            steps=known.get("steps"),
            plan=dict(known.get("plan") or {}),
            figures=figures,
            metrics=dict(one.get("metrics") or {}),
            sae=one.get("sae"),
            error=one.get("error") or "",
        )

    def _write(self, record: dict[str, Any]) -> None:
        paths.write_json(self.folder / RECORD, record)
