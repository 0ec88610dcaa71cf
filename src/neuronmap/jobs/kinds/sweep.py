"""``sweep``: many SAEs on one stream, each into the library, evaluated. The call of ``neuronmap sae sweep``.

Cancel and resume: a stop finishes the step, saves a checkpoint of every SAE and ends. Every attempt of a job uses the same folder, so the
next one goes on bit for bit; SAEs that were finished but not stored or evaluated are taken up first.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronmap.errors import ConfigError
from neuronmap.hub import SAEModelHub
from neuronmap.hub.sweeping import is_complete, require_names_free, sweep_into_library
from neuronmap.jobs.kinds.kind import Kind, Needs
from neuronmap.jobs.kinds.memory import PROCESS_BYTES, model_bytes, training_bytes
from neuronmap.jobs.kinds.train import require_sample
from neuronmap.jobs.machine import resolve_device
from neuronmap.training.sweeping.config import SweepConfig
from neuronmap.training.sweeping.record import RECORD, SweepRun

if TYPE_CHECKING:
    from neuronmap.jobs.context import JobContext

__all__ = ["Sweep", "SweepArgs"]

_STREAM = ("model_name", "corpus")


class SweepArgs(SweepConfig):
    """What a sweep trains, and what to do around it. ``model_name`` and ``corpus`` of the base may be paths."""

    evaluate: bool = True
    """Evaluate each SAE in the model when it is finished."""
    replace: bool = False
    """Take the place of SAEs with the same names."""

    def config(self) -> SweepConfig:
        """The sweep's own settings."""
        return SweepConfig(base=self.base, grid=self.grid, member=self.member)


class Sweep(Kind[SweepArgs]):
    """Trains many SAEs on one stream."""

    name = "sweep"
    args = SweepArgs

    def checked(self, args: SweepArgs, hub: SAEModelHub) -> SweepArgs:
        for field in _STREAM:
            if args.base.get(field) is None or any(field in fields for fields in (args.grid, *args.member)):
                raise ConfigError(
                    f"A sweep job needs '{field}' in the base, and only there: all SAEs share it.",
                    hint="Stored activations are trained on in Python.",
                )
        members = args.members()
        require_names_free(hub, members, replace=args.replace)
        first = members[0].with_absolute_paths()
        require_sample(str(first.model_name))
        if "/" not in str(first.corpus) or Path(str(first.corpus)).is_absolute():
            from neuronmap.corpora import open_corpus

            open_corpus(first.corpus, **first.corpus_fields())
        return args.updated(base={**args.base, **{field: getattr(first, field) for field in _STREAM}})

    def title(self, args: SweepArgs) -> str:
        members = args.members()
        hooks = len({(one.layer, one.component) for one in members})
        where = f"{hooks} hooks of " if hooks > 1 else ""
        return f"sweep of {len(members)} SAEs on {where}{Path(str(members[0].model_name)).name}"

    def needs(self, args: SweepArgs, hub: SAEModelHub) -> Needs:
        del hub
        members = args.members()
        first, tokens = members[0], members[0].max_tokens
        least = training_bytes(first.model_name, first.input_dim, 1, tokens)
        # of what one training needs for its SAE, the gradient (a quarter) is needed once
        each = [training_bytes(one.model_name, one.input_dim, one.hidden_dim, tokens) - least for one in members]
        hooks = len({(one.layer, one.component) for one in members})
        shuffled = max(0, least - PROCESS_BYTES - model_bytes(first.model_name))
        return Needs(resolve_device(first.device), least + (hooks - 1) * shuffled + sum(each) * 3 // 4 + max(each) // 4)

    def run(self, args: SweepArgs, context: JobContext) -> dict[str, Any]:
        config = args.config()
        label = re.sub(r"[^a-z0-9]+", "-", str(config.members()[0].name).lower()).strip("-")[:30].strip("-")
        folder = context.run_folder(f"sweep-{label}")
        resume = folder if (folder / RECORD).is_file() else None
        if resume is not None and is_complete(context.hub, SweepRun(folder), evaluate=args.evaluate):
            return _result(SweepRun(folder))
        done = sweep_into_library(
            config if resume is None else None,
            hub=context.hub,
            resume=resume,
            evaluate=args.evaluate,
            replace=args.replace,
            progress=context.progress,
            folder=folder,
            fence=context.fence,
        )
        return _result(done)


def _result(sweep: SweepRun) -> dict[str, Any]:
    members = sweep.members()
    return {
        "sweep": sweep.folder.name,
        "saes": [member.sae for member in members if member.sae is not None],
        "warnings": [f"{member.name}: {member.error}" for member in members if member.error],
    }
