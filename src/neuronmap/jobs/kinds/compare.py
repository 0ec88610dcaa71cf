"""``compare``: what two SAEs share. The call of ``neuronmap sae compare``; the result is its document.

Cancel and resume: nothing is kept of a stopped comparison; the next attempt begins anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from neuronmap.config import FrozenConfig
from neuronmap.errors import ConfigError
from neuronmap.hub import SAEModelHub
from neuronmap.jobs.kinds.analyze import absolute
from neuronmap.jobs.kinds.kind import Kind, Needs, usable
from neuronmap.jobs.kinds.memory import PROCESS_BYTES, model_bytes, sae_bytes
from neuronmap.jobs.machine import resolve_device

if TYPE_CHECKING:
    from neuronmap.jobs.context import JobContext

__all__ = ["Compare", "CompareArgs"]


class CompareArgs(FrozenConfig):
    """What to compare. ``text`` may be a path."""

    a: str
    """Name in the library."""
    b: str
    """Name of the other one."""
    text: str | None = None
    """Also compare where they fire, on this corpus, file or folder."""
    tokens: int = Field(default=65_536, ge=1)
    """Most tokens of it."""
    threshold: float | None = Field(default=None, gt=0.0, le=1.0)
    """Similarity that counts as a match; what chance gives when left out."""


class Compare(Kind[CompareArgs]):
    """Compares two SAEs."""

    name = "compare"
    args = CompareArgs

    def checked(self, args: CompareArgs, hub: SAEModelHub) -> CompareArgs:
        a, b = usable(hub, args.a).id, usable(hub, args.b).id
        if a == b:
            raise ConfigError(f"'{a}' was to be compared with itself.", hint="Name two SAEs.")
        return args.updated(a=a, b=b, text=absolute(args.text))

    def title(self, args: CompareArgs) -> str:
        return f"comparing {args.a} with {args.b}"

    def needs(self, args: CompareArgs, hub: SAEModelHub) -> Needs:
        entries = [hub.get(args.a), hub.get(args.b)]
        needed = PROCESS_BYTES + 2 * sum(sae_bytes(entry) for entry in entries)
        if args.text is None:
            return Needs("cpu", needed)
        device = resolve_device((entries[0].training or {}).get("device"))
        return Needs(device, needed + sum(model_bytes(model) for model in {entry.model for entry in entries}))

    def run(self, args: CompareArgs, context: JobContext) -> dict[str, Any]:
        from neuronmap.features.comparing.compare import CompareConfig
        from neuronmap.hub.comparing import compare_entries

        hub = context.hub
        found = compare_entries(
            hub,
            (hub.get(args.a), hub.get(args.b)),
            text=args.text,
            tokens=args.tokens,
            config=CompareConfig(threshold=args.threshold),
            progress=context.progress,
        )
        return {"a": args.a, "b": args.b, "comparison": found.to_dict()}
