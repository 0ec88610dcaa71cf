"""``pull``: an artefact of the zoo of this machine, put where it belongs in the library. The call of ``neuronmap zoo pull --into-library``.

Cancel and resume: blobs that have come stay in the cache; the next attempt asks only for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuronmap.config import FrozenConfig
from neuronmap.hub import SAEModelHub
from neuronmap.jobs.kinds.kind import Kind, Needs
from neuronmap.jobs.kinds.memory import PROCESS_BYTES
from neuronmap.zoo.names import Reference

if TYPE_CHECKING:
    from neuronmap.jobs.context import JobContext

__all__ = ["Pull", "PullArgs"]


class PullArgs(FrozenConfig):
    """What to pull."""

    reference: str
    """namespace/name@version."""
    name: str | None = None
    """Name in the library; namespace/name when left out."""
    replace: bool = False
    """Take the place of what has that name."""


class Pull(Kind[PullArgs]):
    """Pulls one artefact into the library."""

    name = "pull"
    args = PullArgs

    def checked(self, args: PullArgs, hub: SAEModelHub) -> PullArgs:
        del hub
        return args.updated(reference=str(Reference.parse(args.reference)))

    def title(self, args: PullArgs) -> str:
        return f"pulling {args.reference}"

    def needs(self, args: PullArgs, hub: SAEModelHub) -> Needs:
        del args, hub
        return Needs("cpu", PROCESS_BYTES)

    def run(self, args: PullArgs, context: JobContext) -> dict[str, Any]:
        from neuronmap.jobs.placing import put_into_library
        from neuronmap.zoo import Zoo
        from neuronmap.zoo.client.location import zoo_home

        with Zoo(zoo_home(), progress=context.progress) as zoo:  # of this machine, whatever NEURONMAP_ZOO names
            pulled = zoo.pull(args.reference, progress=context.progress)
            context.fence()
            placed = put_into_library(
                zoo, pulled, name=args.name, replace=args.replace, progress=context.progress, hub=context.hub
            )
        found = {"reference": pulled.reference, "digest": str(pulled.digest), "warnings": list(pulled.warnings)}
        if placed.labels is not None:
            return {**found, "sae": placed.library, "labels": placed.labels}
        return {**found, **({"sae": placed.library} if placed.library else {"report": placed.name})}
