"""``track``: concepts through the layers of a model, into the library of reports. The call of ``neuronmap sae track-abstractions``.

Cancel and resume: each concept is kept in the cache as soon as it is finished, so the next attempt begins with the first one that is
not. An attempt that was lost after it had stored its report ends with that report.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from neuronmap.concepts import get_concepts, list_concepts
from neuronmap.errors import Interrupted
from neuronmap.hub import SAEModelHub
from neuronmap.hub.reports import list_reports, open_report
from neuronmap.hub.tracking import TrackingSettings, track_into_library
from neuronmap.jobs.kinds.analyze import absolute
from neuronmap.jobs.kinds.kind import Kind, Needs, usable
from neuronmap.jobs.kinds.memory import PROCESS_BYTES, model_bytes, sae_bytes
from neuronmap.jobs.kinds.train import require_sample
from neuronmap.jobs.machine import resolve_device

if TYPE_CHECKING:
    from neuronmap.jobs.context import JobContext

__all__ = ["Track", "TrackArgs"]

_MEASURING_BYTES: Final = 512 << 20
"""Activations at the read positions of a family of concepts, at all layers, with probes and resamples."""
_CODES_BYTES: Final = 256 << 20
"""Codes of one SAE over the text on which features are followed."""
_NAMED = 2


class TrackArgs(TrackingSettings):
    """What to track in which model. ``model``, ``other``, ``concepts`` and ``text`` may be paths."""


class Track(Kind[TrackArgs]):
    """Follows concepts through the layers of one model."""

    name = "track"
    args = TrackArgs

    def checked(self, args: TrackArgs, hub: SAEModelHub) -> TrackArgs:
        args.check()
        for model in filter(None, (args.model, args.other)):
            require_sample(model)
        entries = [usable(hub, name) for name in args.saes]
        if entries:
            from neuronmap.hub.flowing import check_followed

            check_followed(entries)
        text = absolute(args.text)
        if text is not None and ("/" not in text or Path(text).is_absolute()):
            from neuronmap.corpora import open_corpus

            open_corpus(text)
        given: dict[str, Any] = {"saes": tuple(entry.id for entry in entries)} if entries else {}
        if args.concepts:
            given["concepts"] = tuple(_concept(name) for name in args.concepts)
        if args.other is not None:
            given["other"] = absolute(args.other)
        return args.updated(model=str(absolute(args.model)), text=text, **given)

    def title(self, args: TrackArgs) -> str:
        names = [Path(name).stem if Path(name).is_absolute() else name for name in args.concepts]
        what = f"{len(names)} concepts" if len(names) > _NAMED else " and ".join(names) or "all concepts"
        return f"tracking {what} in {Path(args.model).name}"

    def needs(self, args: TrackArgs, hub: SAEModelHub) -> Needs:
        untrained = args.tracker_config().untrained  # a second copy, with random weights
        models = model_bytes(args.model) * (1 + untrained) + model_bytes(args.other)
        followed = sum(sae_bytes(hub.get(name)) + _CODES_BYTES for name in args.saes)
        needed = PROCESS_BYTES + models + _MEASURING_BYTES + followed
        return Needs(resolve_device(args.device), needed)

    def run(self, args: TrackArgs, context: JobContext) -> dict[str, Any]:
        name = _stored(args, context) if context.job.attempt > 1 else None
        if name is None:
            try:
                report = track_into_library(args, hub=context.hub, progress=context.progress, fence=context.fence)
            except KeyboardInterrupt:
                raise Interrupted("Stopped. Concepts that were finished are kept; it goes on after them.") from None
            name = report.name
        return {"report": name}


def _concept(name: str) -> str:
    """A concept's name as it is; a file's with its whole path."""
    named = {part for concept in list_concepts() for part in (concept.name, concept.family)}
    return name if name in named else str(Path(name).resolve())


def _stored(args: TrackArgs, context: JobContext) -> str | None:
    """The report that an earlier attempt has stored."""
    begun = datetime.fromisoformat(context.job.created) - timedelta(seconds=1)  # reports tell whole seconds
    concepts = [concept.name for name in args.concepts for concept in get_concepts(name)]
    concepts = list(dict.fromkeys(concepts)) or [concept.name for concept in list_concepts()]
    for one in list_reports():
        if one.problem or args.name not in (None, one.name) or datetime.fromisoformat(one.created) < begun:
            continue
        report = open_report(one.name)
        same = (
            report.settings == args.tracker_config().to_dict()
            and Path(str(report.model["name"])).name == Path(args.model).name
            and sorted(concepts) == sorted(str(found.concept["name"]) for found in report.concepts)
            and list(args.prompts) == [found.prompt for found in report.trajectories]
            and len(args.saes) == len(report.flow.saes if report.flow is not None else ())
            and (args.other is None) == (report.between is None)
        )
        if same:
            return one.name
    return None
