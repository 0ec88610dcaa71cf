"""``SAETrainer``: from text or activations to a trained, calibrated, folded SAE with its evidence.

prepare data -> plan -> initialise (or take up a checkpoint) -> steps -> calibrate -> fold -> measure -> bundle
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
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
    MismatchError,
    NeuronMapError,
    TrainingDivergedError,
)
from neuronmap.progress import Progress, Task
from neuronmap.saes import BundleMetadata, SparseAutoencoder, get_architecture, load_sae, read_bundle_info
from neuronmap.saes.kernels.choice import describe, require, rounds_products
from neuronmap.saes.provenance import Provenance
from neuronmap.saes.topk import TopKFamily
from neuronmap.training.checkpoint import drop_checkpoint, latest_checkpoint, load_checkpoint
from neuronmap.training.config import SAEConfig
from neuronmap.training.data import TrainingData, prepare
from neuronmap.training.history import History
from neuronmap.training.interrupts import StopSignals
from neuronmap.training.loggers import Logger, make_loggers
from neuronmap.training.plan import make_plan
from neuronmap.training.result import TrainingResult
from neuronmap.training.run import TrainingRun
from neuronmap.training.session import WORTH_TELLING, Session, measure_heldout
from neuronmap.training.snapshot import Snapshots

__all__ = ["SAETrainer"]


_GLANCE_ROWS = 4096
"""Held-out rows that are measured on while training goes on; all of them are at the end."""


@dataclass(frozen=True)
class _Pace:
    """How many steps lie between history rows, held-out evaluations and checkpoints."""

    history: int
    evaluation: int
    checkpoint: int

    @classmethod
    def of(cls, config: SAEConfig, steps: int) -> _Pace:
        # Measuring _GLANCE_ROWS costs about a step of as many rows; it may take a twentieth of the time.
        rarest = math.ceil(20 * _GLANCE_ROWS / config.batch_rows)
        return cls(
            history=config.history_every_steps or max(1, steps // 400),
            evaluation=config.eval_every_steps or max(1, steps // 20, min(rarest, steps // 4)),
            checkpoint=config.checkpoint_every_steps or max(1, math.ceil(steps / 10)),
        )


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
        start_from = self._load_start(init_from)
        loggers = self._all_loggers()
        if model is None:
            self._check_kernels()
        data = self._prepare(source, heldout, model)
        run = TrainingRun.create(self.config, _reopenable(source, self.config), folder)
        try:
            return self._run(run, data, start_from, loggers)
        except NeuronMapError:
            if folder is None and run.read()["status"] == "preparing":
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
    ) -> TrainingResult:
        """Continue an interrupted run from its newest checkpoint, bit for bit: weights, optimiser, schedules, RNG,
        data position and dead counters are as if it had never stopped (on the same device and thread count).

        Args:
            run: the run's folder or name.
            source, heldout, model: as for :meth:`train`; the source may be left out when it can be opened by name.

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
        trainer = cls(run.config(), progress=progress, loggers=loggers, run_folder=run.folder)
        all_loggers = trainer._all_loggers()
        data = trainer._prepare(source, heldout, model, record.get("model_dtype"))
        return trainer._run(run, data, None, all_loggers)

    # --- the parts of a run --------------------------------------------------------------------------------------

    def _prepare(self, source: Any, heldout: Any, model: Any, begun_in: str | None = None) -> TrainingData:
        """The run's data; ``begun_in`` is the precision that ``model_dtype = "auto"`` meant when the run was started."""
        config = self.config
        if begun_in in ("float32", "float16", "bfloat16") and config.model_dtype == "auto":
            config = config.updated(model_dtype=begun_in)
        try:
            return prepare(config, source, heldout=heldout, model=model, progress=self.progress)
        except KeyboardInterrupt:
            raise Interrupted(
                "Stopped while preparing data; finished shards are kept.",
                hint="The same command goes on where it stopped.",
            ) from None

    def _check_kernels(self) -> None:
        """Refuse what cannot run before anything long begins. Where a loaded model lies on another device, it is asked again there."""
        device = _asked_device(self.config)
        require(self.config.kernels, device)
        top_k = issubclass(get_architecture(self.config.resolved_architecture), TopKFamily)
        rounds_products(self.config.compute_dtype, self.config.kernels, device, top_k)

    def _all_loggers(self) -> list[Logger]:
        """Made before anything long begins, so that a missing package is known at once."""
        return [*make_loggers(self.config.loggers), *self.loggers]

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
                    self._loop(run, session, loggers)
                    return self._finish(run, session)
                finally:
                    session.batches.close()
            except torch.OutOfMemoryError as error:
                raise MemoryExhaustedError(
                    f"The device ran out of memory: {error}.", hint="Lower batch_size or hidden_dim."
                ) from error

    def _session(self, run: TrainingRun, data: TrainingData, start_from: SparseAutoencoder | None) -> Session:
        """Build the state of the run, from scratch, from another SAE, or from the newest checkpoint."""
        config = self.config
        statistics = data.rows.statistics
        if not statistics.mean_square_norm > 0:
            raise InputError("All activations are zero: there is nothing to learn.")
        scale = 1.0 / math.sqrt(statistics.mean_square_norm)
        device = _device(config, data)
        once = config.num_epochs <= 1
        batches = ShuffledBatches(data.rows, config.batch_rows, seed=config.seed, scale=scale, once=once)
        try:
            row_bytes = data.width * data.rows.dtype.itemsize
            plan = make_plan(config, data.num_rows, data.width, device, batches.bucket_rows * row_bytes)
            for line in plan.lines(config):
                self.progress.note(line)
            if isinstance(data.rows, ActivationStream):
                self.progress.note(f"      {_streaming(data.rows, batches.bucket_rows)}")
            sae = get_architecture(config.resolved_architecture)(
                data.width, plan.d_sae, config.sae_options(data.width), device=device
            )
            require(config.kernels, device)
            rounds = rounds_products(config.compute_dtype, config.kernels, device, isinstance(sae, TopKFamily))
            precision = "; encoder in bfloat16" if rounds else ""
            self.progress.note(
                f"      kernels: {describe(device, config.kernels)}; products: {config.products}{precision}."
            )
            generator = torch.Generator().manual_seed(config.seed)
            sae.initialise(statistics.mean_D.float() * scale, generator)
            if start_from is not None:
                _start_from(sae, start_from, scale)
            session = Session(config, plan, data, sae, batches, scale, run.checkpoints)
            checkpoint = latest_checkpoint(run.checkpoints)
            if checkpoint is not None:
                for note in session.restore(*load_checkpoint(checkpoint, str(device))):
                    self.progress.note(f"Not bit for bit: {note}.")
                self.progress.note(f"Resumed {run.folder.name} at step {session.step} of {plan.steps}.")
        except BaseException:
            batches.close()
            raise
        return session

    def _loop(self, run: TrainingRun, session: Session, loggers: Sequence[Logger]) -> None:
        """Steps from where the session stands to the end of the plan."""
        plan, pace = session.plan, _Pace.of(self.config, session.plan.steps)
        history = History(run.history_path)
        history.rewind(session.step)
        snapshots = Snapshots(run.folder, session.data, session.scale, self.config.seed)
        snapshots.rewind(session.step)
        for logger in loggers:
            logger.start(self.config.to_dict(), run.folder)
        model_dtype = (session.data.model or {}).get("dtype")
        run.set("training", steps=plan.steps, rows=plan.rows, model_dtype=model_dtype, plan=asdict(plan))
        if session.step == 0:
            session.save()  # a run killed before its first interval still resumes
        with StopSignals() as stop, self._bar(session) as bar:
            try:
                while session.step < plan.steps:
                    self._step(session, pace, history, snapshots, loggers, bar)
                    if stop.requested:
                        session.save()
                        run.set("interrupted", step=session.step)
                        raise Interrupted(
                            f"Stopped by {stop.requested} after step {session.step} of {plan.steps}; everything is saved.",
                            hint=f"neuronmap sae train --resume {run.folder}",
                        )
            except TrainingDivergedError as error:
                # The loss was taken with the present weights, so they and a checkpoint of them are broken.
                drop_checkpoint(run.checkpoints, session.step)
                run.set("diverged", step=session.step)
                kept = latest_checkpoint(run.checkpoints)
                raise TrainingDivergedError(
                    error.message, hint=f"{error.hint} The weights from before are kept in {kept}."
                ) from None
        if (waiting := session.waiting()) is not None:
            self.progress.note(waiting)
        for logger in loggers:
            logger.finish(history.rows[-1] if history.rows else {})

    def _bar(self, session: Session) -> AbstractContextManager[Task]:
        """The bar over what is left to do."""
        left = session.plan.steps - session.step
        return self.progress.task("Training", left * session.plan.batch_rows, "tokens")

    def _step(
        self,
        session: Session,
        pace: _Pace,
        history: History,
        snapshots: Snapshots,
        loggers: Sequence[Logger],
        bar: Task,
    ) -> None:
        """One step with everything that is due after it."""
        loss = session.train_step()
        if (path := session.new_path()) is not None:
            self.progress.note(f"Step {session.step}: {path}.")
        session.resample_if_due()
        last = session.step == session.plan.steps
        shown: dict[str, str] = {}
        if last or session.step % pace.history == 0 or session.step % pace.evaluation == 0 or session.step == 1:
            row = session.figures(loss)
            if last or session.step % pace.evaluation == 0:
                measured = snapshots.take(session, _GLANCE_ROWS)
                if measured.explained_variance is not None:
                    row["heldout_explained_variance"] = measured.explained_variance
                row["heldout_l0"] = measured.l0 or 0.0
            history.append(row)
            for logger in loggers:
                logger.log(session.step, row)
            shown = _shown(row)
        bar.advance(session.plan.batch_rows, **shown)
        if session.step % pace.checkpoint == 0 and not last:
            session.save()

    def _finish(self, run: TrainingRun, session: Session) -> TrainingResult:
        """Calibrate, fold, measure and write the bundle."""
        sae, data, scale = session.sae, session.data, session.scale
        if sae.calibrated:
            self.progress.note("Fitting the inference threshold on held-out activations.")
        calibration = sae.calibrate(lambda: data.heldout_batches(scale, sae.device))
        session.save()
        sae.fold_input_scale(scale)
        sae.requires_grad_(False).eval()
        for parameter in sae.parameters():
            parameter.grad = None
        measured = measure_heldout(sae, data, 1.0, session.workspace).to_dict()
        numbers = {name: value for name, value in measured.items() if isinstance(value, int | float)}
        metrics: dict[str, Any] = {
            "summary": {**numbers, "dead_in_training": session.dead.count()},
            "heldout_is_training": data.heldout_is_training,
        }
        metadata = BundleMetadata(
            model=data.model,
            hook=data.hook,
            corpus={
                **data.corpus,
                "context_length": self.config.context_length,
                "mask": data.mask.to_dict() if data.mask else None,
            },
            training={**self.config.to_dict(), "corpus": run.source},
            seed=self.config.seed,
            tokens_seen=session.step * session.plan.batch_rows,
            steps=session.step,
            input_scale=scale,
            calibration=calibration,
            tags=self.config.tags,
        )
        result = TrainingResult(sae=sae, config=self.config, metrics=metrics, metadata=metadata, run=run, data=data)
        if not run.bundle.exists():
            result.save(run.bundle)
        saved = read_bundle_info(run.bundle).metadata or metadata  # with the digest of the weights
        sae.provenance = Provenance(saved, run.bundle).with_model(data.language_model)
        run.set("finished", step=session.step, bundle=str(run.bundle))
        shutil.rmtree(run.checkpoints, ignore_errors=True)  # only an unfinished run can be resumed
        return result


def _device(config: SAEConfig, data: TrainingData) -> torch.device:
    """Where the SAE is trained: with the language model if there is one, else as configured."""
    if data.language_model is not None:
        return torch.device(data.language_model.device)
    return _asked_device(config)


def _asked_device(config: SAEConfig) -> torch.device:
    if config.device != "auto":
        return torch.device(config.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _streaming(stream: ActivationStream, bucket_rows: int) -> str:
    """What a streamed run has to wait for, before it seems to hang."""
    if bucket_rows >= stream.num_rows:
        return f"streaming: the model computes all {stream.num_rows:,} activations before the first step; they stay in memory."
    how = "while training uses one such lot, the model computes the next" if stream.in_background else "they take turns"
    return f"streaming: the model computes {bucket_rows:,} activations before the first step; {how}."


def _start_from(sae: SparseAutoencoder, other: SparseAutoencoder, scale: float) -> None:
    """Copy another SAE's weights, brought to the scale of this run's inputs."""
    differs = [
        f"{name} is {theirs}, not {ours}"
        for name, theirs, ours in (
            ("architecture", other.architecture, sae.architecture),
            ("input width", other.d_in, sae.d_in),
            ("number of features", other.d_sae, sae.d_sae),
            ("input normalisation", other.input_norm, sae.input_norm),
        )
        if theirs != ours
    ]
    if differs:
        raise MismatchError(
            f"The SAE to start from does not fit this run: {'; '.join(differs)}.",
            hint="Set architecture, hidden_dim and the hook to those of the SAE.",
        )
    sae.load_state_dict(other.state_dict())
    sae.fold_input_scale(1.0 / scale)


def _reopenable(source: Any, config: SAEConfig) -> str | None:
    """The source as a name that opens it again from any folder, or None."""
    source = config.corpus if source is None else source
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        return str(Path(text).resolve()) if Path(text).exists() else text
    return None


def _shown(row: dict[str, float]) -> dict[str, str]:
    """Figures beside the progress bar."""
    shown = {"loss": f"{row['loss']:.4f}", "L0": f"{row['l0']:.1f}", "dead": f"{row['dead']:.0f}"}
    if "explained_variance" in row:
        shown = {"EV": f"{row['explained_variance']:.3f}", **shown}
    if row["waiting_share"] >= WORTH_TELLING:
        shown["waiting"] = f"{row['waiting_share']:.0%}"
    if "heldout_explained_variance" in row:
        shown["held-out EV"] = f"{row['heldout_explained_variance']:.3f}"
    return shown
