"""A sweep whose SAEs land in the library: the one path that the command line and jobs take.

names checked -> train all on one stream (or go on) -> each finished SAE into the library and evaluated -> table and plot
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronmap import progress as progress_module
from neuronmap.errors import ConfigError, InputError, NeuronMapError
from neuronmap.hub.entry import LibraryEntry
from neuronmap.hub.library import SAEModelHub
from neuronmap.hub.pipeline import evaluate_entry, store_result
from neuronmap.paths import read_json
from neuronmap.progress import Progress
from neuronmap.saes.metadata import read_bundle_info
from neuronmap.training.config import SAEConfig
from neuronmap.training.sweeping.config import SweepConfig
from neuronmap.training.sweeping.record import MemberRecord, SweepRun
from neuronmap.training.sweeping.summary import draw_sweep

if TYPE_CHECKING:
    from neuronmap.training import TrainingResult
    from neuronmap.training.sweeping.estimate import SweepPlan

__all__ = ["is_complete", "plan_of_sweep", "require_names_free", "stored_entry", "sweep_into_library"]


def sweep_into_library(
    members: SweepConfig | Sequence[SAEConfig] | None,
    source: Any = None,
    *,
    hub: SAEModelHub | None = None,
    resume: str | Path | None = None,
    evaluate: bool = True,
    evaluation: dict[str, Any] | None = None,
    replace: bool = False,
    progress: Progress | None = None,
    folder: Path | None = None,
    fence: Callable[[], None] | None = None,
) -> SweepRun:
    """Train many SAEs on one stream; store and evaluate each when it is finished.

    Args:
        members: what to train; None when resuming.
        source: what to train on; see :meth:`neuronmap.SAESweep.train`.
        hub: the library; this machine's when left out.
        resume: a sweep to go on with. Members that are finished but not in the library are stored; evaluate and replace are as it
            was begun with.
        evaluate: whether to measure each SAE in the model afterwards.
        evaluation: further arguments for :func:`neuronmap.evaluation.evaluate_sae`.
        replace: let each new SAE, once it is finished, take the place of one with the same name.
        progress: where notes and bars go.
        folder: where a new sweep's files go; a new folder under ``<home>/runs`` when left out.
        fence: called right before anything is put into the library; what it raises keeps that from happening.

    Returns:
        The sweep; its members say what became of each.

    Raises:
        ConfigError, AlreadyExistsError: before anything is loaded, when a name cannot be one or is taken.
        InputError: when the sweep to resume has nothing left to do.
        NeuronMapError: whatever training raises. An SAE that cannot be stored or evaluated does not stop the others; its row says why.
    """
    from neuronmap.training import SAESweep

    hub = hub or SAEModelHub()
    progress = progress or progress_module.default()
    if resume is None:
        if members is None:
            raise ConfigError("There is neither a sweep to train nor one to resume.")
        made = SAESweep(members, progress=progress, folder=folder)
        require_names_free(hub, made.configs, replace=replace)
        options = {"evaluate": evaluate, "replace": replace}
        landing = _Landing(hub, evaluate, evaluation, replace, progress, fence)
        sweep = made.train(source, finished=landing.land, options=options).sweep
    else:
        sweep = SweepRun.open(resume)
        options = sweep.read()["options"]
        evaluate, replace = options.get("evaluate", evaluate), options.get("replace", replace)
        landing = _Landing(hub, evaluate, evaluation, replace, progress, fence)
        left = [one for one in sweep.members() if one.status == "finished" and not _landed(hub, one, evaluate)]
        going_on = [one for one in sweep.members() if one.status not in ("finished", "diverged")]
        if not left and not going_on:
            raise InputError(
                f"The sweep {sweep.folder.name} is finished: every SAE that did not diverge is in the library.",
                hint="neuronmap sae leaderboard compares them.",
            )
        for member in left:
            landing.take_up(sweep, member)
        if going_on:
            SAESweep.resume(sweep, source, progress=progress, finished=landing.land)
        else:
            sweep.set("finished")
    draw_sweep(sweep)
    return sweep


def require_names_free(hub: SAEModelHub, configs: Sequence[SAEConfig], *, replace: bool = False) -> None:
    """Refuse names that cannot be ids of the library, or are taken.

    Raises:
        ConfigError, AlreadyExistsError: with the first of them.
    """
    names = [config.name for config in configs if config.name is not None]
    for name in names:
        if inside := [other for other in names if other.startswith(f"{name}/")]:
            raise ConfigError(f"The SAE '{inside[0]}' would lie inside '{name}': no name may be a folder of another.")
    for config in configs:
        if config.name is not None:
            hub.require_free(config.name, replace=replace)


def is_complete(hub: SAEModelHub, sweep: SweepRun, *, evaluate: bool = True) -> bool:
    """Whether every member has left the sweep, and those that did not diverge are in the library, evaluated if asked."""
    members = sweep.members()
    if any(member.status not in ("finished", "diverged") for member in members):
        return False
    return all(_landed(hub, member, evaluate) for member in members if member.status == "finished")


def stored_entry(hub: SAEModelHub, bundle: Path, name: str | None) -> LibraryEntry | None:
    """The library's entry with the weights of a run's bundle, if it is there."""
    try:
        metadata = read_bundle_info(bundle).metadata
    except NeuronMapError:
        return None
    digest = metadata.weights_digest if metadata is not None else None
    if digest is None:
        return None
    return next((one for one in hub.list() if one.weights_digest == digest and name in (None, one.id)), None)


class _Landing:
    """Puts finished members into the library."""

    def __init__(
        self,
        hub: SAEModelHub,
        evaluate: bool,
        evaluation: dict[str, Any] | None,
        replace: bool,
        progress: Progress,
        fence: Callable[[], None] | None,
    ) -> None:
        self._hub, self._evaluate, self._evaluation = hub, evaluate, evaluation
        self._replace, self._progress, self._fence = replace, progress, fence

    def land(self, member: MemberRecord, result: TrainingResult) -> None:
        """A member is finished: store it, evaluate it, and say so in the sweep's record."""
        sweep = SweepRun(member.run.folder.parent)
        try:
            stored = store_result(
                result,
                hub=self._hub,
                name=member.config.name,
                evaluate=self._evaluate,
                evaluation=self._evaluation,
                replace=self._replace,
                progress=self._progress,
                fence=self._fence,
            )
        except BaseException:
            if (entry := stored_entry(self._hub, result.run.bundle, member.config.name)) is not None:
                sweep.set_member(member.number, sae=entry.id)  # only its evaluation failed
            raise
        self._record(sweep, member, stored.entry)

    def take_up(self, sweep: SweepRun, member: MemberRecord) -> None:
        """Store a member that finished without reaching the library, or evaluate one that was not."""
        from neuronmap.hub.pipeline import train_into_library

        entry = stored_entry(self._hub, member.run.bundle, member.config.name)
        try:
            if entry is None:
                entry = train_into_library(
                    None,
                    hub=self._hub,
                    resume=member.run.folder,
                    evaluate=self._evaluate,
                    evaluation=self._evaluation,
                    replace=self._replace,
                    progress=self._progress,
                    fence=self._fence,
                ).entry
            elif self._evaluate:
                evaluate_entry(
                    self._hub, entry, evaluation=self._evaluation, progress=self._progress, fence=self._fence
                )
        except NeuronMapError as error:
            sweep.set_member(member.number, error=error.message, sae=entry.id if entry is not None else None)
            self._progress.note(f"{member.name}: {error.message} {error.hint}".rstrip())
            return
        self._record(sweep, member, self._hub.get(entry.id))

    def _record(self, sweep: SweepRun, member: MemberRecord, entry: LibraryEntry) -> None:
        sweep.set_member(member.number, sae=entry.id, metrics={**member.metrics, **entry.metrics}, error="")


def _landed(hub: SAEModelHub, member: MemberRecord, evaluate: bool) -> bool:
    entry = stored_entry(hub, member.run.bundle, member.config.name)
    return entry is not None and (not evaluate or _evaluated(entry))


def _evaluated(entry: LibraryEntry) -> bool:
    file = entry.path / "metrics.json"
    return file.is_file() and read_json(file).get("core") is not None


def plan_of_sweep(members: SweepConfig | Sequence[SAEConfig], *, progress: Progress | None = None) -> SweepPlan:
    """What a sweep will take, before it starts. Loads the language model, for the widths of its hooks, and runs nothing.

    Raises:
        ConfigError, ModelError, HookPointError, MemoryExhaustedError: what would stop it.
    """
    from neuronmap.models import load_model, resolve_hook
    from neuronmap.training.data import split_tokens
    from neuronmap.training.sweeping.estimate import plan_sweep

    progress = progress or progress_module.default()
    configs = members.members() if isinstance(members, SweepConfig) else tuple(members)
    first = configs[0].with_absolute_paths()
    if first.model_name is None or first.corpus is None:
        raise ConfigError(
            "A sweep needs a language model and a text: model_name and corpus in [base].",
            hint='model_name = "smollm2-135m", corpus = "sotu"',
        )
    model = load_model(
        first.model_name, revision=first.revision, dtype=first.model_dtype, device=first.device, progress=progress
    )
    hooks = [resolve_hook(model, config.layer, config.component) for config in configs]
    tokens = first.max_tokens
    if tokens is None:
        tokens = split_tokens(first, first.corpus, model, progress)[0].num_tokens
    rows = int(tokens * (1 - first.skip_first_positions / first.context_length))
    widths = {hook.name: hook.width for hook in hooks}
    shuffled = sum(4 * width * min(rows, _SHUFFLED_ROWS) for width in widths.values())
    return plan_sweep(
        configs,
        [rows] * len(configs),
        [hook.width for hook in hooks],
        [hook.name for hook in hooks],
        model.device,
        shuffled,
    )


_SHUFFLED_ROWS = 1_000_000
