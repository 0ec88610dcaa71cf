"""``SAETrainer``: from text or activations to a trained, calibrated, folded SAE with its evidence.

prepare data -> plan -> initialise (or take up a checkpoint) -> steps -> calibrate -> fold -> measure -> bundle

Under torchrun every process makes the steps, each with its share of the batch, and runs the language model over a share of the text; rank 0
alone writes and speaks (``training.parallel``).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
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
from neuronmap.progress import Progress, SilentProgress, Task
from neuronmap.saes import SparseAutoencoder, get_architecture, load_sae
from neuronmap.saes.kernels.choice import describe, require, rounds_products
from neuronmap.saes.topk import TopKFamily
from neuronmap.training.config import SAEConfig
from neuronmap.training.data import TrainingData, prepare
from neuronmap.training.interrupts import StopSignals
from neuronmap.training.loggers import Logger, make_loggers
from neuronmap.training.open_run import OpenRun, asked_device, device_of, input_scale, open_session
from neuronmap.training.parallel.following import FollowedRun
from neuronmap.training.parallel.split import require_equal_parts, require_same_data, require_splittable
from neuronmap.training.parallel.team import Team, open_team
from neuronmap.training.plan import make_plan
from neuronmap.training.result import TrainingResult
from neuronmap.training.run import TrainingRun
from neuronmap.training.session import WORTH_TELLING, Session

__all__ = ["SAETrainer", "check_kernels", "in_precision", "reopenable", "streaming_note"]


class SAETrainer:
    """Trains one SAE.

    Args:
        config: what to train.
        progress: where notes and bars go; a terminal bar or plain lines when left out.
        loggers: further loggers, besides those that ``config.loggers`` names.
        run_folder: where the run's files go; a new folder under ``<home>/runs`` when left out.

    Example:
        >>> config = SAEConfig(model_name="smollm2-135m", layer=15, k=32, hidden_dim=4096)
        >>> result = SAETrainer(config).train("sotu")                                   # doctest: +SKIP
        >>> result.metrics["summary"]["explained_variance"]                                         # doctest: +SKIP
    """

    def __init__(
        self,
        config: SAEConfig,
        *,
        progress: Progress | None = None,
        loggers: Sequence[Logger] = (),
        run_folder: str | Path | None = None,
    ) -> None:
        if not isinstance(config, SAEConfig):
            raise ConfigError(f"SAETrainer takes an SAEConfig, got {type(config).__name__}.")
        self.config = config
        self.progress = progress or progress_module.default()
        self.loggers = tuple(loggers)
        self.run_folder = run_folder
        self._team = Team()

    def train(
        self,
        source: Any = None,
        *,
        heldout: Any = None,
        model: Any = None,
        init_from: SparseAutoencoder | str | Path | None = None,
    ) -> TrainingResult:
        """Train from the start.

        Args:
            source: texts, a path, a corpus name, a data set; or activations: a store, an array [N, D]. None takes
                ``config.corpus``.
            heldout: activations to measure on, when ``source`` is activations.
            model: a loaded model to use instead of ``config.model_name``.
            init_from: an SAE (or a bundle's folder) to start from: fine-tuning, with a fresh optimiser and schedule.
                To continue an interrupted run instead, use :meth:`resume`.

        Returns:
            The SAE for raw activations, its held-out metrics and its run folder.

        Raises:
            ConfigError, InputError, ModelError, ResourceError: for what was asked or given.
            TrainingDivergedError: the newest checkpoint from before is kept, and named.
            Interrupted: after Ctrl-C or SIGTERM, with a checkpoint saved.
        """
        folder = Path(self.run_folder) if self.run_folder is not None else None
        if folder is not None and (folder / "run.json").exists():
            raise InputError(f"{folder} already holds a training run.", hint="Resume it, or choose another folder.")
        self.config = self.config.with_absolute_paths()
        self._join()
        start_from = self._load_start(init_from)
        loggers = self._all_loggers()
        if model is None:
            self._check_kernels()
        data = self._prepare(source, heldout, model)
        self.config = self.config.for_rows(data.num_rows)
        require_equal_parts(self.config, self._team)
        reopened_by = reopenable(source, self.config)
        run = TrainingRun(self._team.from_first(lambda: TrainingRun.create(self.config, reopened_by, folder).folder))
        try:
            return self._run(run, data, start_from, loggers)
        except NeuronMapError:
            if folder is None and self._team.leads and run.read()["status"] == "preparing":
                shutil.rmtree(run.folder, ignore_errors=True)  # nothing was trained: leave nothing behind
            raise

    @classmethod
    def resume(
        cls,
        run: str | Path | TrainingRun,
        source: Any = None,
        *,
        heldout: Any = None,
        model: Any = None,
        progress: Progress | None = None,
        loggers: Sequence[Logger] = (),
        feature_ranks: int | None = None,
    ) -> TrainingResult:
        """Continue an interrupted run from its newest checkpoint, bit for bit: weights, optimiser, schedules, RNG,
        data position and dead counters are as if it had never stopped (on the same device and thread count).

        Args:
            run: the run's folder or name.
            source, heldout, model: as for :meth:`train`; the source may be left out when it can be opened by name.
            feature_ranks: how many processes share the features from now on; as the run was begun with when left out.

        Raises:
            InputError: when the run is finished, or its source has to be given again.
            MismatchError: when the data is not what the run was started with.
        """
        run = run if isinstance(run, TrainingRun) else TrainingRun.open(run)
        record = run.read()
        if record["status"] == "finished":
            raise InputError(
                f"The run {run.folder.name} is finished: its SAE lies in {run.bundle}.",
                hint="To train it further with a fresh schedule, use init_from (--init-from).",
            )
        if source is None:
            if run.source is None:
                raise InputError(
                    f"The run {run.folder.name} was started on data that cannot be opened by name; give the same data again.",
                    hint="SAETrainer.resume(run, texts)",
                )
            source = run.source
        config = run.config() if feature_ranks is None else run.config().updated(feature_ranks=feature_ranks)
        trainer = cls(config, progress=progress, loggers=loggers, run_folder=run.folder)
        trainer._join(ranks_asked=feature_ranks is not None)
        all_loggers = trainer._all_loggers()
        data = trainer._prepare(source, heldout, model, record.get("model_dtype"))
        return trainer._run(run, data, None, all_loggers)

    # --- the parts of a run --------------------------------------------------------------------------------------

    def _join(self, *, ranks_asked: bool = True) -> None:
        """Take this process's place among those that torchrun started, if it did."""
        team = open_team()
        require_splittable(self.config, team, ranks_asked=ranks_asked)
        self._team = team
        if team.count > 1:
            self._team = team.laid_out(self.config.feature_ranks, asked_device(self.config).type)
        if not self._team.leads:
            self.progress, self.loggers = SilentProgress(), ()

    def _prepare(self, source: Any, heldout: Any, model: Any, begun_in: str | None = None) -> TrainingData:
        """The run's data; ``begun_in`` is the precision that ``model_dtype = "auto"`` meant when the run was started."""
        config = in_precision(self.config, begun_in)

        try:
            data = prepare(config, source, heldout=heldout, model=model, progress=self.progress, team=self._team)
            require_same_data(data, self._team)
            return data
        except KeyboardInterrupt:
            raise Interrupted(
                "Stopped while preparing data; finished shards are kept.",
                hint="The same command goes on where it stopped.",
            ) from None

    def _check_kernels(self) -> None:
        """Refuse what cannot run before anything long begins. Where a loaded model lies on another device, it is asked again there."""
        check_kernels(self.config, asked_device(self.config))

    def _all_loggers(self) -> list[Logger]:
        """Made before anything long begins, so that a missing package is known at once."""
        return [*make_loggers(self.config.loggers), *self.loggers] if self._team.leads else []

    def _load_start(self, init_from: SparseAutoencoder | str | Path | None) -> SparseAutoencoder | None:
        if init_from is None or isinstance(init_from, SparseAutoencoder):
            return init_from
        return load_sae(Path(init_from))

    def _run(
        self, run: TrainingRun, data: TrainingData, start_from: SparseAutoencoder | None, loggers: Sequence[Logger]
    ) -> TrainingResult:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            try:
                session = self._session(run, data, start_from)
                try:
                    kind = OpenRun if self._team.leads else FollowedRun
                    open_run = kind(run, session, self.progress, loggers)
                    self._loop(open_run)
                    open_run.bring_together()
                    return self._team.first_then(open_run.finish, open_run.finish)
                finally:
                    session.batches.close()
            except torch.OutOfMemoryError as error:
                raise MemoryExhaustedError(
                    f"The device ran out of memory: {error}.", hint="Lower batch_size or hidden_dim."
                ) from error

    def _session(self, run: TrainingRun, data: TrainingData, start_from: SparseAutoencoder | None) -> Session:
        """Plan the run, say so, and build its state."""
        config, note, team = self.config, self.progress.note, self._team
        scale, device, once = input_scale(data), device_of(self.config, data), self.config.num_epochs <= 1
        row_bytes = data.width * data.rows.dtype.itemsize
        batches = ShuffledBatches(
            data.rows, config.batch_rows, seed=config.order_seed, scale=scale, once=once, beside=team.beside * row_bytes
        )
        try:
            if team.count > 1:
                # the bucket goes by free memory, which each process sees otherwise: that of rank 0 is all's
                batches.restore(team.from_first(batches.state))
            ranks = (team.rows.count, team.features.count)
            plan = make_plan(config, data.num_rows, data.width, device, batches.bucket_rows * row_bytes, ranks)
            for line in plan.lines(config):
                note(line)
            if team.count > 1:
                share = (
                    f"each with {config.batch_rows // team.rows.count:,} of a batch's {config.batch_rows:,} activations"
                )
                if team.features.count > 1:
                    share += f" and {plan.d_sae // team.features.count:,} of the features"
                note(
                    f"      {team.count} processes, {share}; weights and Adam are those of each, step memory and time of one with all."
                )
            if isinstance(data.rows, ActivationStream):
                note(f"      {streaming_note(data.rows, batches.bucket_rows, team.count)}")
            precision = "; encoder in bfloat16" if check_kernels(config, device) else ""
            note(
                f"      kernels: {describe(device, config.kernels, config.compute_dtype)}; products: {config.products}{precision}."
            )
            session, notes = open_session(config, run, data, batches, plan, start_from=start_from, team=team)
            for line in notes:
                note(line)
            team.wait()  # until all have read the checkpoint: rank 0 writes the next
        except BaseException:
            batches.close()
            raise
        return session

    def _loop(self, open_run: OpenRun) -> None:
        """Steps from where the session stands to the end of the plan."""
        session = open_run.session
        steps, rows = session.plan.steps, session.plan.batch_rows
        open_run.begin()
        team = self._team
        with StopSignals(again_ends=team.count == 1) as stop, self._bar(session) as bar:
            try:
                while not open_run.done:
                    waited = False
                    try:
                        bar.advance(rows, **_shown(open_run.step()))
                    except Interrupted:  # all of them, before the step: while they waited for its rows
                        waited = True
                    if waited or team.any(stop.requested is not None):
                        open_run.interrupt()
                        team.wait()
                        by = stop.requested or "a signal to another process"
                        raise Interrupted(
                            f"Stopped by {by} after step {session.step} of {steps}; everything is saved.",
                            hint=f"neuronmap sae train --resume {open_run.run.folder}",
                        )
            except TrainingDivergedError as error:
                told = open_run.diverged(error)
                team.wait()
                raise told from None
        if (waiting := session.waiting()) is not None:
            self.progress.note(waiting)
        open_run.end_steps()

    def _bar(self, session: Session) -> AbstractContextManager[Task]:
        """The bar over what is left to do."""
        left = session.plan.steps - session.step
        return self.progress.task("Training", left * session.plan.batch_rows, "tokens")


def check_kernels(config: SAEConfig, device: torch.device) -> bool:
    """Refuse kernels and precisions that cannot run on a device.

    Returns:
        Whether the encoder's product is taken of bfloat16 factors.

    Raises:
        ConfigError: with what cannot run, and why.
    """
    require(config.kernels, device)
    top_k = issubclass(get_architecture(config.resolved_architecture), TopKFamily)
    return rounds_products(config.compute_dtype, config.kernels, device, top_k)


def in_precision(config: SAEConfig, begun_in: str | None) -> SAEConfig:
    """The configuration with the precision that ``model_dtype = "auto"`` meant when its run was begun."""
    if begun_in in ("float32", "float16", "bfloat16") and config.model_dtype == "auto":
        return config.updated(model_dtype=begun_in)
    return config


def streaming_note(stream: ActivationStream, bucket_rows: int, processes: int = 1) -> str:
    """What a streamed run has to wait for, before it seems to hang."""
    who = "the model computes" if processes == 1 else f"the models of {processes} processes compute"
    if bucket_rows >= stream.num_rows:
        return f"streaming: {who} all {stream.num_rows:,} activations before the first step; they stay in memory."
    how = (
        f"while training uses one such lot, {who} the next" if stream.in_background else "model and training take turns"
    )
    return f"streaming: {who} {bucket_rows:,} activations before the first step; {how}."


def reopenable(source: Any, config: SAEConfig) -> str | None:
    """The source as a name that opens it again from any folder, or None."""
    source = config.corpus if source is None else source
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        return str(Path(text).resolve()) if Path(text).exists() else text
    return None


def _shown(row: dict[str, float]) -> dict[str, str]:
    """Figures beside the progress bar."""
    if not row:
        return {}
    shown = {"loss": f"{row['loss']:.4f}", "L0": f"{row['l0']:.1f}", "dead": f"{row['dead']:.0f}"}
    if "explained_variance" in row:
        shown = {"EV": f"{row['explained_variance']:.3f}", **shown}
    if row["waiting_share"] >= WORTH_TELLING:
        shown["waiting"] = f"{row['waiting_share']:.0%}"
    if "heldout_explained_variance" in row:
        shown["held-out EV"] = f"{row['heldout_explained_variance']:.3f}"
    return shown
