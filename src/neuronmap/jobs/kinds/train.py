"""``train``: an SAE from its settings, into the library, evaluated. The call of ``neuronmap sae train``.

Cancel and resume: a stop finishes the step, saves a checkpoint and ends. Every attempt of a job uses the same run folder, so the next
one goes on bit for bit from the newest checkpoint; without one it begins anew. An attempt that was lost after training stores and
evaluates what the run left.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronmap import paths
from neuronmap.errors import ConfigError
from neuronmap.hub import LibraryEntry, SAEModelHub
from neuronmap.jobs.kinds.kind import Kind, Needs, usable
from neuronmap.jobs.kinds.memory import training_bytes
from neuronmap.jobs.machine import resolve_device
from neuronmap.training.config import SAEConfig
from neuronmap.training.run import TrainingRun

if TYPE_CHECKING:
    from neuronmap.jobs.context import JobContext

__all__ = ["Train", "TrainArgs", "require_sample"]


class TrainArgs(SAEConfig):
    """Every setting of a training, and what to do around it. ``model_name``, ``corpus`` and ``init_from`` may be paths."""

    init_from: str | None = None
    """SAE to start from (fine-tuning): its name in the library, or a bundle's folder."""
    evaluate: bool = True
    """Evaluate in the model afterwards."""
    replace: bool = False
    """Take the place of an SAE with the same name."""

    def config(self) -> SAEConfig:
        """The training's own settings."""
        others = set(TrainArgs.model_fields) - set(SAEConfig.model_fields)
        return SAEConfig(**self.model_dump(exclude_unset=True, exclude=others))


class Train(Kind[TrainArgs]):
    """Trains one SAE."""

    name = "train"
    args = TrainArgs

    def checked(self, args: TrainArgs, hub: SAEModelHub) -> TrainArgs:
        for field in ("model_name", "corpus"):
            if getattr(args, field) is None:
                raise ConfigError(
                    f"A training job needs '{field}'.", hint="Stored activations are trained on in Python."
                )
        if args.name is not None:
            hub.require_free(args.name, replace=args.replace)
        args = args.with_absolute_paths()
        require_sample(str(args.model_name))
        if "/" not in str(args.corpus) or Path(str(args.corpus)).is_absolute():
            from neuronmap.corpora import open_corpus

            open_corpus(args.corpus, **args.corpus_fields())
        if args.init_from is None:
            return args
        folder = Path(args.init_from)
        return args.updated(init_from=str(folder.resolve() if folder.is_dir() else usable(hub, args.init_from).id))

    def title(self, args: TrainArgs) -> str:
        if args.name is not None:
            return f"training {args.name}"
        place = args.component if args.layer is None else f"{args.component} of layer {args.layer}"
        return f"training {args.resolved_architecture} on {Path(str(args.model_name)).name}, {place}"

    def needs(self, args: TrainArgs, hub: SAEModelHub) -> Needs:
        del hub
        tokens = args.max_tokens
        needed = training_bytes(args.model_name, args.input_dim, args.hidden_dim, tokens)
        return Needs(resolve_device(args.device), needed)

    def run(self, args: TrainArgs, context: JobContext) -> dict[str, Any]:
        from neuronmap.hub.pipeline import evaluate_entry, train_into_library
        from neuronmap.training.checkpoint import latest_checkpoint

        hub, config = context.hub, args.config()
        folder = context.run_folder(_label(config))
        if (folder / "run.json").is_file():
            run = TrainingRun(folder)
            if run.read()["status"] != "finished" and latest_checkpoint(run.checkpoints) is None:
                context.progress.note("No checkpoint was written before: the training begins anew.")
                shutil.rmtree(folder)
            elif (stored := _stored(hub, run, args.name)) is not None:
                if args.evaluate and not _evaluated(stored):
                    evaluate_entry(hub, stored, progress=context.progress, fence=context.fence)
                return _result(hub.get(stored.id), folder)
        resume = folder if (folder / "run.json").is_file() else None
        start = None if args.init_from is None else _bundle(hub, args.init_from)
        done = train_into_library(
            None if resume is not None else config,
            hub=hub,
            name=args.name,
            resume=resume,
            init_from=start,
            evaluate=args.evaluate,
            replace=args.replace,
            progress=context.progress,
            run_folder=folder,
            fence=context.fence,
        )
        return _result(done.entry, folder)


def _label(config: SAEConfig) -> str:
    return re.sub(r"[^a-z0-9]+", "-", (config.name or config.resolved_architecture).lower()).strip("-")[:40]


def _bundle(hub: SAEModelHub, name: str) -> Path:
    return Path(name) if Path(name).is_dir() else hub.get(name).path


def _stored(hub: SAEModelHub, run: TrainingRun, name: str | None) -> LibraryEntry | None:
    """The library's entry of a run that an earlier attempt has finished and stored."""
    from neuronmap.saes.metadata import read_bundle_info

    if run.read()["status"] != "finished":
        return None
    metadata = read_bundle_info(run.bundle).metadata
    digest = metadata.weights_digest if metadata is not None else None
    return next((e for e in hub.list() if e.weights_digest == digest and name in (None, e.id)), None)


def _evaluated(entry: LibraryEntry) -> bool:
    file = entry.path / "metrics.json"
    return file.is_file() and paths.read_json(file).get("core") is not None


def require_sample(name: str) -> None:
    """Refuse a sample model that is not installed.

    Raises:
        ModelNotFoundError: with the install line.
    """
    from neuronmap.models.samples import get_sample

    if (sample := get_sample(name)) is not None:
        sample.require()


def _result(entry: LibraryEntry, folder: Path) -> dict[str, Any]:
    return {
        "sae": entry.id,
        "run": folder.name,
        "weights_digest": entry.weights_digest,
        "metrics": dict(entry.metrics),
    }
