"""Training through Ray Train: its workers are the processes that torchrun would start, on the hosts of a Ray cluster.

Ray Train places them, opens their process group and starts all of them again when one is lost; what they do is
:func:`~neuronmap.hub.pipeline.train_into_library`, as under torchrun. The command that started them shows the first one's progress,
and tells it of Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronmap import errors, paths
from neuronmap.engines import EngineSettings
from neuronmap.engines.cluster import Cluster, Places, connected
from neuronmap.engines.relay import Relay, RelayedProgress, retold
from neuronmap.errors import ConfigError, InputError, NeuronMapError, WorkerLostError
from neuronmap.hub.library import SAEModelHub
from neuronmap.hub.pipeline import StoredSAE, train_into_library
from neuronmap.progress import Progress, SilentProgress
from neuronmap.training.interrupts import StopSignals, request_stop

if TYPE_CHECKING:
    from neuronmap.training import SAEConfig

__all__ = ["train_on_ray"]

STARTS_AGAIN = 3
"""Times that a training whose process was lost is begun again from its newest checkpoint."""
_PATIENCE_S = 2 * 24 * 3600  # as under torchrun
_LOOK_SECONDS = 0.25


@dataclass(frozen=True)
class _Training:
    """What every process is told.

    Attributes:
        config: what to train; None when resuming.
        run: folder of the run, the same for all; in a home that all of them see.
        resume: whether the run is one from before.
        options: for :func:`train_into_library`.
        home: the driver's.
    """

    config: SAEConfig | None
    run: Path
    resume: bool
    options: dict[str, Any]
    home: Path


def train_on_ray(
    config: SAEConfig | None,
    engine: EngineSettings,
    *,
    name: str | None = None,
    resume: str | Path | None = None,
    feature_ranks: int | None = None,
    init_from: str | Path | None = None,
    evaluate: bool = True,
    replace: bool = False,
    progress: Progress,
) -> StoredSAE:
    """Train, store and evaluate on a Ray cluster; what comes out is as from torchrun.

    Args:
        config, name, resume, feature_ranks, init_from, evaluate, replace: as for
            :func:`~neuronmap.hub.pipeline.train_into_library`. The text is ``config.corpus``.
        engine: where; one process on each host, or each GPU, if it does not say how many.
        progress: where notes and bars go.

    Raises:
        ConfigError: settings that do not go together, or a training without a text that can be opened by name.
        InputError: a host does not see ``NEURONMAP_HOME``.
        Interrupted: after Ctrl-C, with a checkpoint saved.
        WorkerLostError: processes were lost again and again; the newest checkpoint is kept.
        NeuronMapError: whatever the training raises.
    """
    from neuronmap.training import TrainingRun

    hub = SAEModelHub()
    if resume is not None:
        run = TrainingRun.open(resume)
        config, device, folder = None, run.config().device, run.folder
    elif config is None or config.corpus is None:
        raise ConfigError("Training on Ray needs a text that every host can open by name.", hint="--text")
    else:
        config = config.with_absolute_paths()
        device, folder = (
            config.device,
            paths.runs_folder() / f"{time.strftime('%Y%m%d-%H%M%S')}-ray-{uuid.uuid4().hex[:6]}",
        )
        if (chosen := name if name is not None else config.name) is not None:
            hub.require_free(chosen, replace=replace)
    paths.require_writable(paths.home())
    start = None if init_from is None else Path(init_from).resolve()
    options: dict[str, Any] = {"name": name, "init_from": start, "evaluate": evaluate, "replace": replace}
    if resume is not None and feature_ranks is not None:
        options["feature_ranks"] = feature_ranks
    training = _Training(config, folder.resolve(), resume is not None, options, paths.home().resolve())
    with connected(engine.checked().address, progress) as cluster:
        places = cluster.places(engine.workers, device)
        told = _fit(cluster, places, training, progress)
    if (failed := told.get("failed")) is not None:
        kind, message, hint = failed
        raise getattr(errors, kind, NeuronMapError)(message, hint=hint)
    if "stored" not in told:
        raise WorkerLostError(
            f"The training was lost: {told.get('lost', 'its processes ended without a word')}.",
            hint=f"neuronmap sae train --engine ray --resume {folder.name} goes on from its newest checkpoint.",
        )
    identifier, metrics = told["stored"]
    return StoredSAE(hub.get(identifier), TrainingRun.open(folder), None, metrics)


def _fit(cluster: Cluster, places: Places, training: _Training, progress: Progress) -> dict[str, Any]:
    """Run Ray Train in a thread, and show here what the first process says; what it said last is given back."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    ray = cluster.ray
    relay = ray.remote(Relay).options(num_cpus=0).remote()
    ledger = training.home / "cache" / "ray"
    trainer = TorchTrainer(
        _process,
        train_loop_config={"training": training, "relay": relay},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if places.gpus else "gloo", timeout_s=_PATIENCE_S),
        scaling_config=ScalingConfig(
            num_workers=places.workers,
            use_gpu=places.gpus > 0,
            resources_per_worker={"CPU": places.cpus, **({"GPU": places.gpus} if places.gpus else {})},
        ),
        run_config=RunConfig(
            name=training.run.name,
            storage_path=str(paths.new_folder(ledger)),
            failure_config=FailureConfig(max_failures=STARTS_AGAIN),
        ),
    )
    told: dict[str, Any] = {}
    ended = threading.Event()

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001 - told by the main thread
            told["lost"] = str(error).strip().partition("\n")[0][:300]
        finally:
            ended.set()

    threading.Thread(target=fit, name="ray-train", daemon=True).start()
    asked = False
    # Not by KeyboardInterrupt, which could be raised, and lost, anywhere within Ray.
    with retold(progress) as show, StopSignals() as signals:
        while not ended.is_set():
            ended.wait(_LOOK_SECONDS)
            told |= show(ray.get(relay.take.remote()))
            if signals.requested is not None and not asked:
                asked = True
                progress.note("Stopping after this step; Ctrl-C again stops at once.")
                ray.get(relay.stop.remote())
        told |= show(ray.get(relay.take.remote()))
    shutil.rmtree(ledger / training.run.name, ignore_errors=True)  # Ray Train's own notes
    return told


def _process(given: dict[str, Any]) -> None:
    """One process of the training."""
    import ray

    from neuronmap.training.parallel.team import open_team

    training: _Training = given["training"]
    os.environ["NEURONMAP_HOME"] = str(training.home)
    team = open_team()
    if not team.leads:
        try:
            _train(training, SilentProgress())
        except NeuronMapError:
            return  # the first process tells of it
        return
    relay = given["relay"]
    progress = RelayedProgress(lambda events: bool(ray.get(relay.tell.remote(events))), lambda: request_stop("Ctrl-C"))
    try:
        stored = _train(training, progress)
        progress.say("stored", (stored.entry.id, stored.metrics))
    except NeuronMapError as error:
        progress.say("failed", (type(error).__name__, error.message, error.hint))
    finally:
        progress.close()


def _train(training: _Training, progress: Progress) -> StoredSAE:
    """Begin, or go on from the newest checkpoint where an earlier start of these processes left one."""
    from neuronmap.training.checkpoint import latest_checkpoint
    from neuronmap.training.parallel.team import open_team

    team = open_team()
    seen = training.home.is_dir()
    if not team.any(not seen):
        begun = team.from_first(lambda: latest_checkpoint(training.run / "checkpoints") is not None)
        if training.resume or begun:
            again = {name: value for name, value in training.options.items() if name != "init_from"}
            return train_into_library(None, resume=training.run, **again, progress=progress)
        team.from_first(lambda: shutil.rmtree(training.run, ignore_errors=True))
        return train_into_library(training.config, run_folder=training.run, **training.options, progress=progress)
    raise InputError(
        f"Not every host sees {training.home}.", hint="Set NEURONMAP_HOME to a folder on a disk that all of them share."
    )
