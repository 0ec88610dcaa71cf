"""``SAESweep``: many SAEs from one pass of the model and one shuffled stream, each as if trained alone.

prepare data of all hooks -> plan -> on each batch every SAE of its hook takes its turn -> each is finished when its own plan ends
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from neuronmap import progress as progress_module
from neuronmap.activations import ActivationStream, ShuffledBatches
from neuronmap.errors import (
    ConfigError,
    InputError,
    Interrupted,
    MemoryExhaustedError,
    NeuronMapError,
    TrainingDivergedError,
)
from neuronmap.progress import Progress, Task
from neuronmap.saes import SparseAutoencoder, load_sae
from neuronmap.saes.kernels.choice import describe
from neuronmap.training.config import SAEConfig
from neuronmap.training.data import TrainingData, prepare_many
from neuronmap.training.interrupts import StopSignals
from neuronmap.training.loggers import Logger, make_loggers
from neuronmap.training.open_run import asked_device, device_of, input_scale
from neuronmap.training.parallel.split import require_alone
from neuronmap.training.parallel.team import open_team
from neuronmap.training.result import TrainingResult
from neuronmap.training.session import WORTH_TELLING
from neuronmap.training.sweeping.config import SweepConfig, require_one_stream
from neuronmap.training.sweeping.estimate import checkpoint_steps, plan_sweep, with_one_batch
from neuronmap.training.sweeping.member import Group, Member
from neuronmap.training.sweeping.record import MemberRecord, SweepRun
from neuronmap.training.sweeping.summary import PLOT, SweepRow, draw_sweep, sweep_rows
from neuronmap.training.sweeping.turns import Turns
from neuronmap.training.trainer import check_kernels, in_precision, reopenable, streaming_note

__all__ = ["Finished", "SAESweep", "SweepResult"]

Finished = Callable[[MemberRecord, TrainingResult], None]
"""Called with each member that is finished, while its SAE is in memory. What it raises of ours is noted as the member's error."""


@dataclass(frozen=True)
class SweepResult:
    """What a sweep leaves.

    Attributes:
        sweep: its folder.
        members: every member as it ended.
    """

    sweep: SweepRun
    members: tuple[MemberRecord, ...]

    @property
    def rows(self) -> list[SweepRow]:
        """The table: figures on held-out activations of every member, and whether another beats it."""
        return sweep_rows(self.members)

    @property
    def plot(self) -> Path:
        """SVG of explained variance over L0, once a member is finished."""
        return self.sweep.folder / PLOT

    def load(self, name: str) -> SparseAutoencoder:
        """The finished SAE of that name, for raw activations.

        Raises:
            InputError: when no member of that name is finished.
        """
        for member in self.members:
            if member.name == name and member.status == "finished":
                return load_sae(member.run.bundle)
        finished = ", ".join(member.name for member in self.members if member.status == "finished")
        raise InputError(
            f"No finished member of the sweep is called {name!r}.", hint=f"Finished: {finished or 'none'}."
        )


class SAESweep:
    """Trains many SAEs on one stream of activations.

    The members take turns on each batch: the language model runs once for all of them, and a step's memory is that of one. Each has its
    own random state, schedule and optimiser, and comes out as if it had been trained alone with its configuration (bit for bit on a CPU).
    One that diverges or ends earlier leaves, and the others go on undisturbed.

    Args:
        members: what to train: a :class:`SweepConfig`, or configurations that differ only in fields that a sweep may vary.
        progress: where notes and the bar go.
        folder: where the sweep's files go; a new folder under ``<home>/runs`` when left out.

    Raises:
        ConfigError: for members that cannot share one stream.

    Example:
        >>> grid = SweepConfig(base={"model_name": "smollm2-135m", "layer": 15}, grid={"k": [16, 32, 64]})
        >>> result = SAESweep(grid).train("sotu")                                                       # doctest: +SKIP
        >>> [(member.name, member.metrics["l0"]) for member in result.members]                          # doctest: +SKIP
    """

    def __init__(
        self,
        members: SweepConfig | Sequence[SAEConfig],
        *,
        progress: Progress | None = None,
        folder: str | Path | None = None,
    ) -> None:
        if isinstance(members, SweepConfig):
            self.configs = members.members()
        else:
            self.configs = tuple(members)
            if strangers := [type(one).__name__ for one in self.configs if not isinstance(one, SAEConfig)]:
                raise ConfigError(f"SAESweep takes a SweepConfig or SAEConfigs, got {strangers[0]}.")
            require_one_stream(self.configs)
        self.progress = progress or progress_module.default()
        self.folder = None if folder is None else Path(folder)

    def train(
        self,
        source: Any = None,
        *,
        heldout: Any = None,
        model: Any = None,
        finished: Finished | None = None,
        options: dict[str, Any] | None = None,
    ) -> SweepResult:
        """Train all members from the start.

        Args:
            source, heldout, model: as for :meth:`SAETrainer.train`. Rows of activations are those of one hook.
            finished: is called with each member that is finished.
            options: kept in the sweep's record, for who resumes it.

        Raises:
            ConfigError, InputError, ModelError, ResourceError: for what was asked or given.
            TrainingDivergedError: when every member diverged.
            Interrupted: after Ctrl-C or SIGTERM, with checkpoints saved.
        """
        require_alone(open_team(), "A sweep")
        if self.folder is not None and (self.folder / "sweep.json").exists():
            raise InputError(f"{self.folder} already holds a sweep.", hint="Resume it, or choose another folder.")
        configs = tuple(config.with_absolute_paths() for config in self.configs)
        loggers = [make_loggers(config.loggers) for config in configs]
        if model is None:
            for config in configs:
                check_kernels(config, asked_device(config))
        data = self._prepare(configs, source, heldout, model)
        configs = with_one_batch(configs, [one.num_rows for one in data])
        sweep = SweepRun.create(configs, reopenable(source, configs[0]), self.folder, options)
        try:
            return self._run(sweep, data, loggers, finished)
        except NeuronMapError:
            if self.folder is None and sweep.read()["status"] == "preparing":
                shutil.rmtree(sweep.folder, ignore_errors=True)  # nothing was trained: leave nothing behind
            raise

    @classmethod
    def resume(
        cls,
        sweep: str | Path | SweepRun,
        source: Any = None,
        *,
        heldout: Any = None,
        model: Any = None,
        progress: Progress | None = None,
        finished: Finished | None = None,
    ) -> SweepResult:
        """Go on with an interrupted sweep: every member from its newest checkpoint, bit for bit.

        The stream goes back to the earliest of them; members that are further wait until it comes to them.

        Args:
            sweep: its folder or name.
            source, heldout, model, finished: as for :meth:`train`; the source may be left out when it can be opened by name.

        Raises:
            InputError: when all members have left, or the source has to be given again.
            MismatchError: when the data is not what the sweep was started with.
        """
        require_alone(open_team(), "A sweep")
        sweep = sweep if isinstance(sweep, SweepRun) else SweepRun.open(sweep)
        members = sweep.members()
        made = cls([member.config for member in members], progress=progress, folder=sweep.folder)
        going_on = [member for member in members if member.status not in ("finished", "diverged")]
        if not going_on:
            raise InputError(f"The sweep {sweep.folder.name} is finished: none of its members has anything left to do.")
        if source is None:
            source = sweep.source
            if source is None:
                raise InputError(
                    f"The sweep {sweep.folder.name} was started on data that cannot be opened by name; give the same again.",
                    hint="SAESweep.resume(sweep, texts)",
                )
        configs = [in_precision(member.config, sweep.read().get("model_dtype")) for member in going_on]
        loggers = [make_loggers(member.config.loggers) for member in members]
        data = dict(
            zip((member.number for member in going_on), made._prepare(configs, source, heldout, model), strict=True)
        )
        return made._run(sweep, [data.get(member.number) for member in members], loggers, finished)

    # --- the parts of a sweep ------------------------------------------------------------------------------------

    def _prepare(self, configs: Sequence[SAEConfig], source: Any, heldout: Any, model: Any) -> list[TrainingData]:
        try:
            return prepare_many(configs, source, heldout=heldout, model=model, progress=self.progress)
        except KeyboardInterrupt:
            raise Interrupted(
                "Stopped while preparing data; finished shards are kept.",
                hint="The same command goes on where it stopped.",
            ) from None

    def _run(
        self,
        sweep: SweepRun,
        data: Sequence[TrainingData | None],
        loggers: Sequence[list[Logger]],
        finished: Finished | None,
    ) -> SweepResult:
        with torch.random.fork_rng(devices=[]):
            groups: list[Group] = []
            try:
                groups = self._groups(sweep, data, loggers)
                self._drive(sweep, groups, finished)
            except torch.OutOfMemoryError as error:
                raise MemoryExhaustedError(
                    f"The device ran out of memory: {error}.",
                    hint="Take members out, or lower batch_size or hidden_dim.",
                ) from error
            finally:
                for group in groups:
                    group.close()
        members = sweep.members()
        draw_sweep(sweep)
        if all(member.status == "diverged" for member in members):
            raise TrainingDivergedError(
                f"All {len(members)} members of the sweep diverged. {members[0].name}: {members[0].error}",
                hint="Lower the learning rates.",
            )
        return SweepResult(sweep, members)

    def _groups(
        self, sweep: SweepRun, data: Sequence[TrainingData | None], loggers: Sequence[list[Logger]]
    ) -> list[Group]:
        """Plan everything, say so, and build the state of every member that has steps left."""
        records = [(record, one) for record, one in zip(sweep.members(), data, strict=True) if one is not None]
        first, found = records[0][0].config, records[0][1]
        device = device_of(first, found)
        hooks = {id(one): one for _, one in records}
        once = all(record.config.num_epochs <= 1 for record, _ in records)
        made = {
            key: Group(one, _shuffled(one, first, list(hooks.values()), once), device) for key, one in hooks.items()
        }
        plan = plan_sweep(
            [record.config for record, _ in records],
            [one.num_rows for _, one in records],
            [one.width for _, one in records],
            [str(id(one)) for _, one in records],
            device,
            sum(group.shuffle_bytes for group in made.values()),
        )
        for line in plan.lines():
            self.progress.note(line)
        if isinstance(found.rows, ActivationStream):
            self.progress.note(f"       {streaming_note(found.rows, made[id(found)].batches.bucket_rows)}")
        self.progress.note(f"       kernels: {describe(device, first.kernels, first.compute_dtype)}.")
        turns, every = Turns(device), checkpoint_steps(first, plan.steps)
        dtype, differs = (found.model or {}).get("dtype"), dict[str, None]()
        for (record, one), member_plan in zip(records, plan.plans, strict=True):
            group = made[id(one)]
            member = Member(record, group, turns.seat(record.config))
            notes = member.open(member_plan, sweep.source, every, self.progress, loggers[record.number])
            differs.update(dict.fromkeys(note for note in notes if note.startswith("Not bit for bit")))
            group.members.append(member)
        for group in made.values():
            group.shared.settle()
        for note in differs:
            self.progress.note(note)
        if at := min(group.step for group in made.values()):
            self.progress.note(f"Resumed {sweep.folder.name} at step {at} of {plan.steps}.")
        sweep.set("training", model_dtype=dtype, steps=plan.steps)
        for group in made.values():
            for member in group.members:
                member.begin()
        return list(made.values())

    def _drive(self, sweep: SweepRun, groups: Sequence[Group], finished: Finished | None) -> None:
        """Turns on one batch after the other, until every member has left."""
        started, steps = time.perf_counter(), max(member.steps for group in groups for member in group.members)
        rows = groups[0].members[0].session.plan.batch_rows
        at = min(group.step for group in groups)
        try:
            with StopSignals() as stop, self.progress.task("Training", (steps - at) * rows, "tokens") as bar:
                self._let_go(sweep, groups, finished, stop)  # those that were stopped after their last step
                while left := [group for group in groups if group.members]:
                    step = min(group.step for group in left)
                    for group in left:
                        group.take_turns(step)
                    self._show(bar, rows, left)
                    self._let_go(sweep, left, finished, stop)
        except Interrupted as error:
            for group in groups:
                for member in group.members:
                    if member.failed is None:
                        member.interrupt()
            sweep.set("interrupted")
            again = f"neuronmap sae sweep --resume {sweep.folder}"
            raise Interrupted(error.message, hint=f"{error.hint} Then: {again}" if error.hint else again) from None
        sweep.set("finished")
        waited = sum(group.shared.waited_seconds for group in groups) / max(time.perf_counter() - started, 1e-9)
        if waited >= WORTH_TELLING:
            self.progress.note(f"{waited:.0%} of the time went by waiting for activations, once for all SAEs.")

    def _let_go(self, sweep: SweepRun, groups: Sequence[Group], finished: Finished | None, stop: StopSignals) -> None:
        """Part with the members that diverged, and finish those that have made all their steps.

        Raises:
            Interrupted: when a stop was asked for. Members whose last step is made are then finished when the sweep goes on.
        """
        for group in groups:
            for member in list(group.members):
                if member.failed is not None:
                    error = member.leave_diverged()
                    sweep.set_member(member.record.number, error=error.message)
                    self.progress.note(f"{member.record.name} leaves the sweep: {error.message}")
                    group.members.remove(member)
                elif member.done and not stop.requested:
                    result = member.finish()
                    numbers = {k: float(v) for k, v in result.metrics["summary"].items() if v is not None}
                    sweep.set_member(member.record.number, metrics=numbers)
                    group.members.remove(member)
                    if finished is not None:
                        self._hand_over(sweep, member, result, finished)
            if not group.members:
                group.close()
        if stop.requested and (left := sum(len(group.members) for group in groups)):
            raise Interrupted(
                f"Stopped by {stop.requested} with {left} of {len(sweep.read()['members'])} SAEs in training; everything is saved."
            )

    def _hand_over(self, sweep: SweepRun, member: Member, result: TrainingResult, finished: Finished) -> None:
        try:
            with member.seat.turn():
                finished(sweep.member(member.record.number), result)
        except Interrupted:
            raise
        except NeuronMapError as error:
            sweep.set_member(member.record.number, error=error.message)
            self.progress.note(f"{member.record.name} is trained, but: {error.message} {error.hint}".rstrip())

    def _show(self, bar: Task, rows: int, groups: Sequence[Group]) -> None:
        members = [member for group in groups for member in group.members if member.failed is None]
        shown = {"SAEs": f"{len(members)}"}
        for title, key, form in (("EV", "explained_variance", ".3f"), ("L0", "l0", ".0f"), ("dead", "dead", ".0f")):
            values = [member.row[key] for member in members if key in member.row]
            if values:
                low, high = format(min(values), form), format(max(values), form)
                shown[title] = low if low == high else f"{low} to {high}"
        bar.advance(rows, **shown)


def _shuffled(data: TrainingData, config: SAEConfig, hooks: Sequence[TrainingData], once: bool) -> ShuffledBatches:
    """The shuffled sequence of one hook; memory is reckoned for all of them."""
    beside = 0
    for other in hooks:
        if other is not data:
            value_bytes = other.width * other.rows.dtype.itemsize
            kept = value_bytes if isinstance(other.rows, ActivationStream) else 0  # until its own stream asks for it
            beside += value_bytes + 8 + kept
    return ShuffledBatches(
        data.rows, config.batch_rows, seed=config.order_seed, scale=input_scale(data), once=once, beside=beside
    )
